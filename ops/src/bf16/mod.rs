//! The layers of the network, and their gradients, in bfloat16: half the bytes and twice the multiplications per
//! instruction.
//!
//! Maps and their gradients are bf16, stored as u16; weights, their gradients and all sums are f32. An instruction
//! multiplies pairs of neighbours in memory: two channels in forward passes and gradients of inputs, so photos with 3
//! channels get a fourth one of zeros; two pixels, put side by side, in gradients of weights. The last layer may output
//! f32. Requires AVX-512-BF16.

mod convolution;
mod elements;
mod pointwise;
mod pool;
mod product;
mod up;
mod vector;

pub use convolution::{Bf16Maps, bf16_convolution, bf16_convolution_input_gradient, bf16_convolution_weight_gradient};
pub use elements::{bf16_add, bf16_round};
pub use pointwise::{bf16_pointwise, bf16_pointwise_input_gradient, bf16_pointwise_weight_gradient};
pub use pool::bf16_max_pool;
pub use up::{bf16_up_convolution, bf16_up_convolution_input_gradient, bf16_up_convolution_weight_gradient};
pub use vector::Element;

use crate::{Avx512, Instructions};

/// The proof that the processor has AVX-512 and AVX-512-BF16. Only [`Avx512Bf16::detect`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Bf16(Avx512);

impl Avx512Bf16 {
    /// Asks the processor.
    #[must_use]
    pub fn detect() -> Option<Self> {
        Avx512::detect().filter(|_| is_x86_feature_detected!("avx512bf16")).map(Self)
    }

    /// For kernels that have no use for the products of pairs.
    fn instructions(self) -> Instructions {
        Instructions::Avx512(self.0)
    }
}

/// The nearest bf16, ties to even.
fn rounded(value: f32) -> u16 {
    half::bf16::from_f32(value).to_bits()
}
