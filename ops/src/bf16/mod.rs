//! The layers of the network, and their gradients, in bfloat16: half the bytes and twice the multiplications per
//! instruction.
//!
//! Maps and their gradients are bf16, stored as u16; weights, their gradients and all sums are f32. An instruction
//! multiplies pairs of neighbours in memory: two channels in forward passes and gradients of inputs, so photos with 3
//! channels get a fourth one of zeros; two pixels, put side by side, in gradients of weights. The last layer may output
//! f32. Requires AVX-512-BF16.

mod convolution;
mod elements;
mod inverted;
pub(crate) mod photos;
mod pointwise;
pub(crate) mod pool;
mod product;
mod token;
mod up;
mod up_skip;
mod vector;

pub use convolution::{Bf16Maps, bf16_convolution, bf16_convolution_input_gradient, bf16_convolution_weight_gradient};
pub use elements::{bf16_add, bf16_round};
pub use inverted::bf16_inverted;
pub use pointwise::{bf16_pointwise, bf16_pointwise_input_gradient, bf16_pointwise_weight_gradient};
pub use pool::bf16_max_pool;
pub use token::Avx512Bf16;
pub use up::{bf16_up_convolution, bf16_up_convolution_input_gradient, bf16_up_convolution_weight_gradient};
pub use up_skip::bf16_up_skip_convolution;
pub use vector::Output;
