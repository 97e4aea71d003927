//! Encoders of the `EfficientNet` family without squeeze-and-excite, as data: a 3x3 convolution of stride 2, then inverted
//! residual blocks (Sandler et al., 2018, <https://arxiv.org/abs/1801.04381>; Tan and Le, 2019,
//! <https://arxiv.org/abs/1905.11946>).

use serde::{Deserialize, Serialize};

/// Name of the first layer.
pub const STEM: &str = "stem";

/// Name of its weight.
pub const STEM_WEIGHT: &str = "stem.weight";

/// Name of the pointwise convolution that begins a block; blocks count from 1.
#[must_use]
pub fn expand(block: usize) -> String {
    format!("block{block}.expand")
}

/// Name of a block's depthwise convolution.
#[must_use]
pub fn depthwise(block: usize) -> String {
    format!("block{block}.depthwise")
}

/// Name of the pointwise convolution that ends a block.
#[must_use]
pub fn project(block: usize) -> String {
    format!("block{block}.project")
}

/// Whether a parameter's name is that of one of the encoder's.
pub(super) fn is_layer(parameter: &str) -> bool {
    parameter.starts_with("stem.") || parameter.starts_with("block")
}

/// Where a layer of stride 2 puts its zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// As `TensorFlow` does: as few as possible, the odd one below and to the right.
    Same,
    /// As `PyTorch` does: half the kernel on each side.
    Symmetric,
}

impl Padding {
    /// Rows of zeros above maps with an even number of rows, and columns to their left.
    #[must_use]
    pub fn before(self, kernel: usize, stride: usize) -> usize {
        match self {
            Self::Same if stride == 2 => (kernel - 1) / 2 - usize::from(kernel > 1),
            _ => (kernel - 1) / 2,
        }
    }
}

/// An encoder: what is done to a photo's colours, the stem's width, the blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Encoder {
    /// Mean that is subtracted from each channel of the photo, as a share of 255.
    pub mean: [f32; 3],
    /// What each channel is then divided by.
    pub deviation: [f32; 3],
    /// Padding of layers of stride 2.
    pub padding: Padding,
    /// Channels of the stem, a 3x3 convolution of stride 2.
    pub stem: usize,
    /// The blocks, top to bottom.
    pub blocks: Vec<Block>,
}

/// An inverted residual block: pointwise to `inner` channels (left out where the input has as many), depthwise, pointwise
/// to `out` channels without an activation. Its input is added where it has the output's shape. All activations are
/// `ReLU6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Side of the depthwise kernel, 3 or 5.
    pub kernel: usize,
    /// Stride of the depthwise convolution, 1 or 2.
    pub stride: usize,
    /// Channels of the depthwise convolution.
    pub inner: usize,
    /// Channels of the output.
    pub out: usize,
}

impl Block {
    /// Whether the input, of so many channels, is added to the output.
    #[must_use]
    pub fn is_residual(&self, input: usize) -> bool {
        self.stride == 1 && self.out == input
    }
}

impl Encoder {
    /// Channels of the maps that each resolution hands on, from half the photo's down: the output of the last block before
    /// each block of stride 2, and of the last block of all.
    #[must_use]
    pub fn taps(&self) -> Vec<usize> {
        let mut taps = Vec::new();
        let mut channels = self.stem;
        for block in &self.blocks {
            if block.stride == 2 {
                taps.push(channels);
            }
            channels = block.out;
        }
        taps.push(channels);
        taps
    }

    /// Whether the graphs and kernels can be made for it.
    pub(super) fn is_valid(&self) -> bool {
        let is_width = |it: usize| it.is_multiple_of(8) && (8..=4096).contains(&it);
        let is_block = |input: usize, block: &Block| {
            let Block { kernel, stride, inner, out } = *block;
            // Gradients of maps that go elsewhere, too, are added by the pointwise convolution that begins a block.
            let begins = if inner == input { stride == 1 && out != input } else { inner > input };
            begins && [3, 5].contains(&kernel) && [1, 2].contains(&stride) && is_width(inner) && is_width(out)
        };
        let inputs = std::iter::once(self.stem).chain(self.blocks.iter().map(|it| it.out));
        self.mean.iter().all(|it| it.is_finite())
            && self.deviation.iter().all(|it| it.is_finite() && *it > 0.0)
            && is_width(self.stem)
            && (1..=100).contains(&self.blocks.len())
            && inputs.zip(&self.blocks).all(|(input, block)| is_block(input, block))
    }
}

/// `EfficientNet-Lite0` as `TensorFlow` trained it.
#[must_use]
pub fn lite0() -> Encoder {
    let stages = [
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ];
    let mut input = 32;
    let mut blocks = Vec::new();
    for (repeats, kernel, stride, expansion, out) in stages {
        for at in 0..repeats {
            let stride = if at == 0 { stride } else { 1 };
            blocks.push(Block { kernel, stride, inner: expansion * std::mem::replace(&mut input, out), out });
        }
    }
    Encoder { mean: [127.0 / 255.0; 3], deviation: [128.0 / 255.0; 3], padding: Padding::Same, stem: 32, blocks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lite0_has_the_papers_widths() {
        let encoder = lite0();
        assert!(encoder.is_valid());
        assert_eq!(encoder.taps(), [16, 24, 40, 112, 320]);
        assert_eq!(encoder.blocks.iter().map(|it| it.inner).collect::<Vec<_>>()[..4], [32, 96, 144, 144]);
        assert!(!Encoder { stem: 12, ..lite0() }.is_valid());
    }

    #[test]
    fn zeros_go_where_the_frameworks_put_them() {
        let of =
            |padding: Padding| [(3, 1), (3, 2), (5, 1), (5, 2)].map(|(kernel, stride)| padding.before(kernel, stride));
        assert_eq!(of(Padding::Same), [1, 0, 2, 1]);
        assert_eq!(of(Padding::Symmetric), [1, 1, 2, 2]);
    }
}
