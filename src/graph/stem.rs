//! The stem of an encoder in the form in which the graphs compute it: a 3x3 convolution over the squares of 2x2 pixels, whose
//! kernel of 6x6 pixels is zero outside the stem's own.

use super::builder::{Builder, Value};
use super::encoder::Encoder;
use super::onnx::Attribute;

impl Encoder {
    /// Rows of the 6x6 pixels above the stem's kernel, and columns to its left.
    fn stem_offset(&self) -> i64 {
        2 - self.padding.before(3, 2) as i64
    }

    /// Mean and deviation of the 12 channels of a square, `[1, 12, 1, 1]` each.
    pub(super) fn colors(&self, builder: &mut Builder) -> [Value; 2] {
        [self.mean, self.deviation].map(|of_pixel| {
            let values = builder.floats(&of_pixel.repeat(4));
            builder.reshape(&values, &[1, 12, 1, 1])
        })
    }

    /// `[stem, 12, 3, 3]` from the stem's weight, `[stem, 3, 3, 3]`.
    pub(super) fn spread_stem(&self, builder: &mut Builder, weight: &Value) -> Value {
        let (stem, before) = (self.stem as i64, self.stem_offset());
        let pads = builder.integers(&[0, 0, before, before, 0, 0, 3 - before, 3 - before]);
        let wide = builder.node("Pad", &[weight, &pads], vec![]);
        let squares = builder.reshape(&wide, &[stem, 3, 3, 2, 3, 2]);
        let squares = builder.transpose(&squares, &[0, 3, 5, 1, 2, 4]);
        builder.reshape(&squares, &[stem, 12, 3, 3])
    }

    /// What the native stem reads beyond the edges of a photo: its mean, which is 0 to the encoder.
    pub(super) fn fill(&self) -> Attribute {
        Attribute::floats("fill", &self.mean.repeat(4))
    }

    /// The gradient of the stem's weight, from those of the native stem's kernel and bias.
    pub(super) fn stem_gradient(&self, builder: &mut Builder, [of_kernel, of_bias]: [&Value; 2]) -> Value {
        let [mean, deviation] = self.colors(builder);
        let of_bias = builder.reshape(of_bias, &[-1, 1, 1, 1]);
        let of_mean = builder.node("Mul", &[&of_bias, &mean], vec![]);
        let of_colors = builder.node("Sub", &[of_kernel, &of_mean], vec![]);
        let of_kernel = builder.node("Div", &[&of_colors, &deviation], vec![]);
        self.gather_stem(builder, &of_kernel)
    }

    /// The part of a gradient of [`spread_stem`](Self::spread_stem) that belongs to the stem's weight.
    pub(super) fn gather_stem(&self, builder: &mut Builder, gradient: &Value) -> Value {
        let (stem, before) = (self.stem as i64, self.stem_offset());
        let squares = builder.reshape(gradient, &[stem, 2, 2, 3, 3, 3]);
        let squares = builder.transpose(&squares, &[0, 3, 4, 1, 5, 2]);
        let wide = builder.reshape(&squares, &[stem, 3, 6, 6]);
        builder.slice(&wide, &[before, before], &[before + 3, before + 3], &[2, 3], &[1, 1])
    }
}
