//! The layers of the network for prediction in bfloat16: half the bytes and twice the multiplications per instruction.
//!
//! Maps are bf16, stored as u16; sums are f32. An instruction multiplies pairs of neighbouring channels, so photos with
//! 3 channels get a fourth one of zeros. The last layer outputs f32. Requires AVX-512-BF16.

mod convolution;
mod pool;
mod product;
mod up;
mod vector;

pub use convolution::{Bf16Maps, bf16_convolution, bf16_convolution_input_gradient, bf16_convolution_weight_gradient};
pub use pool::bf16_max_pool;
pub use up::{bf16_up_convolution, bf16_up_convolution_input_gradient, bf16_up_convolution_weight_gradient};
pub use vector::Element;

use crate::activation::{Activation, Finish};
use crate::maps::{Band, Shape, cut};
use crate::pointwise::chunk_pixels;
use crate::spread::spread_items;
use crate::{Avx512, Instructions, Spread};
use product::{PackedPairs, Row};

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

/// [`pointwise`](crate::pointwise::pointwise) on bf16 maps.
pub fn bf16_pointwise(
    token: Avx512Bf16,
    spread: &dyn Spread,
    shape: Shape,
    input: &[u16],
    [weight, bias]: [&[f32]; 2],
    (activation, residual): (Activation, Option<&[u16]>),
    output: &mut [u16],
) {
    let (out, channels) = (bias.len(), shape.channels);
    let output_shape = shape.with_channels(out);
    assert!(input.len() == shape.len() && output.len() == output_shape.len());
    assert!(weight.len() == channels * out && residual.is_none_or(|it| it.len() == output.len()));
    let rows: Vec<Option<usize>> = (0..channels).map(Some).collect();
    let columns: Vec<usize> = (0..out).map(|n| n * channels).collect();
    let weights = PackedPairs::new(weight, 1.0, &rows, [&columns, &[]]);
    let chunk = chunk_pixels(channels);
    let bands = Band::all(shape, spread.threads());
    spread_items(spread, cut(&bands, output_shape, output), |index, part| {
        let band = bands[index];
        let residual = residual.map(|it| band.of(output_shape, it));
        let inputs = band.of(shape, input).chunks(chunk * channels);
        for (at, (input, output)) in inputs.zip(part.chunks_mut(chunk * out)).enumerate() {
            let residual = residual.map(|it| &it[at * chunk * out..][..output.len()]);
            let (rows, weights, pixels) = (&[input], &weights, output.len() / out);
            let finish = Finish::Output { activation, residual };
            Row { token, rows, stride: channels, run: channels, weights, bias, pixels, finish }
                .product([output, &mut []]);
        }
    });
}
