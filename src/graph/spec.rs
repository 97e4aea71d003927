//! Networks as data: sizes, widths, heads, and the names of the inputs and outputs of their graphs.

use std::ops::RangeInclusive;

use lookbook_ops::head::{HEAD_CHANNELS, LABEL_SCALES};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::encoder::Encoder;
use crate::labels::LabelSet;

/// Decay of the first moment (Kingma and Ba, 2015, <https://arxiv.org/abs/1412.6980>).
pub const ADAM_BETA_1: f32 = 0.9;

/// Decay of the second moment.
pub const ADAM_BETA_2: f32 = 0.999;

/// Added to the root of the second moment, as in Keras: after the bias correction has been applied to the rate.
pub const ADAM_EPSILON: f32 = 1e-7;

/// The set of operators that a graph is built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Standard operators, NCHW: for any ONNX Runtime on any device.
    Portable,
    /// Standard operators and, in training, those of [`lookbook_cuda`], NCHW: for CUDA, in this program.
    Cuda,
    /// The operators of [`lookbook_ops`], NHWC: for CPUs, in this program.
    Native,
}

impl Dialect {
    /// Its name in `run.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Cuda => "cuda",
            Self::Native => "native",
        }
    }
}

/// The number format in which maps are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// Half precision, but f32 for weights, normalisation, losses and sums over pixels: only for training in the
    /// portable dialect and in that for CUDA.
    F16,
    /// bfloat16, but f32 for weights, normalisation, losses and all sums: only in the native dialect.
    Bf16,
    /// 8-bit integers with sums in i32, and bfloat16 for a few layers: only for label maps in the native dialect.
    Int8,
}

impl Precision {
    /// Its name in `run.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// The meaning of the maps, and the loss they are trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Sigmoid maps, mean binary cross-entropy over pixels and maps: the seed's loss.
    #[default]
    Bce,
    /// Softmax over the maps, mean cross-entropy over pixels.
    Softmax,
}

/// Size, widths and head of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Width of the photos that the network sees.
    pub photo_width_px: usize,
    /// Height of the photos that the network sees.
    pub photo_height_px: usize,
    /// Meaning of the maps, and the loss.
    pub loss: Loss,
    /// Channels of each level, top to bottom: all multiples of 8, the first one 8, 16, 24 or 32.
    #[serde(default = "Spec::seed_channels")]
    pub channels: Vec<usize>,
    /// Pixels of the photo, in each direction, per pixel of the top level, 1 or 2: with 2 the four pixels of a square
    /// are fed in side by side, as 12 channels.
    #[serde(default = "Spec::seed_stride")]
    pub stride: usize,
    /// Times that logits are enlarged in each direction, by bilinear interpolation, before the category is chosen: 1 or a
    /// multiple of the stride, 2 or 4. With 1 the label map is enlarged to the size of the canvas instead.
    #[serde(default = "Spec::seed_logit_scale")]
    pub logit_scale: usize,
    /// Whether the maps of 3x3 convolutions are normalised over the batch during training (Ioffe and Szegedy, 2015,
    /// <https://arxiv.org/abs/1502.03167>).
    #[serde(default)]
    pub batch_norm: bool,
    /// Whether there is a presence head: which categories occur in a photo at all, from the mean of its lowest maps; their
    /// probabilities are multiplied onto those of every pixel. Only with softmax.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub presence: bool,
    /// Whether predictions are the mean of those from a photo and from its mirror image. Training is the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mirror: bool,
    /// A pretrained encoder in place of the way down. `channels` are then the decoder's, from half the photo's resolution
    /// down, `stride` is 2, and the photo is halved once more than there are levels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<Encoder>,
    /// The categories of the maps, with the colours that go with them.
    #[serde(default, skip_serializing_if = "LabelSet::is_cfpd")]
    pub labels: LabelSet,
}

/// Weights of the terms of a softmax loss; a sigmoid loss has none.
#[derive(Debug, Clone, PartialEq)]
pub struct LossWeights {
    /// Weight of a pixel of each category in the cross-entropy; `None` for 1.
    pub categories: Option<Vec<f32>>,
    /// Weight of the Dice term, 0 or more: 1 minus the mean Dice coefficient, 2 sum(p y) / (sum(p) + sum(y)) over all
    /// pixels of the batch, averaged over the categories present (Milletari et al., 2016,
    /// <https://arxiv.org/abs/1606.04797>).
    pub dice: f32,
    /// Share of each label that the cross-entropy spreads evenly over all categories, 0 to 1: label smoothing (Szegedy et
    /// al., 2016, <https://arxiv.org/abs/1512.00567>).
    pub smoothing: f32,
    /// Weight of the presence head's binary cross-entropy, the mean over photos and categories; 0 or more.
    pub presence: f32,
}

impl LossWeights {
    /// All categories weighted equally, cross-entropy only.
    pub const PLAIN: Self = Self { categories: None, dice: 0.0, smoothing: 0.0, presence: 0.0 };

    /// Weight of a pixel of each of `maps` categories.
    pub(super) fn of_categories(&self, maps: usize) -> Vec<f32> {
        self.categories.clone().unwrap_or_else(|| vec![1.0; maps])
    }
}

/// How steps differ between weights (Loshchilov and Hutter, 2019, <https://arxiv.org/abs/1711.05101>).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Descent {
    /// Factor of the learning rate for the encoder's weights, above 0.
    pub encoder_rate: f32,
    /// Share of a kernel's weights that is taken away in each step, before the multiplication by the learning rate: 0 or
    /// more. Scales and biases do not decay.
    pub weight_decay: f32,
}

impl Descent {
    /// The same for all weights, without decay: Adam.
    pub const PLAIN: Self = Self { encoder_rate: 1.0, weight_decay: 0.0 };
}

impl Spec {
    /// The seed's network for photos of the given size.
    #[must_use]
    pub fn seed(photo_width_px: usize, photo_height_px: usize, loss: Loss) -> Self {
        let (channels, stride) = (Self::seed_channels(), Self::seed_stride());
        Self {
            photo_width_px,
            photo_height_px,
            loss,
            channels,
            stride,
            logit_scale: 1,
            batch_norm: false,
            presence: false,
            mirror: false,
            encoder: None,
            labels: LabelSet::cfpd(),
        }
    }

    /// Number of maps: categories.
    #[must_use]
    pub fn maps(&self) -> usize {
        self.labels.category_count()
    }

    /// Reads a specification from the metadata of a file, and checks it.
    ///
    /// # Errors
    /// Which field is invalid, and which values are valid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value =
            serde_json::from_str(text).map_err(|cause| format!("its '{SPEC_KEY}' is not JSON ({cause})"))?;
        let spec: Self = serde_json::from_value(value.clone()).map_err(|cause| match misfit(&value) {
            Some(field) => format!("its '{SPEC_KEY}' has an invalid '{field}': {} ({cause})", value[field.as_str()]),
            None => format!("its '{SPEC_KEY}' is invalid ({cause})"),
        })?;
        spec.check().map_err(|(field, problem)| {
            let found = serde_json::to_value(&spec).expect("a spec is plain data")[field].take();
            format!("its '{SPEC_KEY}' has an invalid '{field}': {found} {problem}")
        })?;
        Ok(spec)
    }

    /// Whether the kernels and graphs can be made for this network. Everything that builds a graph relies on it.
    ///
    /// # Errors
    /// The first invalid field, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let sides = SIDES_PX;
        let channels = (2..=7).contains(&self.channels.len())
            && self.channels.iter().all(|it| it.is_multiple_of(8) && (8..=1024).contains(it))
            && HEAD_CHANNELS.contains(&self.channels[0]);
        let logit_scale = LABEL_SCALES.contains(&self.logit_scale)
            && (self.logit_scale == 1 || self.logit_scale.is_multiple_of(self.stride.max(1)));
        let levels = self.channels.len() + 1;
        let encoder =
            self.encoder.as_ref().is_none_or(|it| it.is_valid() && it.taps().len() == levels && self.stride == 2);
        let in_order = [
            ("photo_width_px", sides.contains(&self.photo_width_px), "is not between 16 and 4096"),
            ("photo_height_px", sides.contains(&self.photo_height_px), "is not between 16 and 4096"),
            ("stride", [1, 2].contains(&self.stride), "is neither 1 nor 2"),
            ("logit_scale", logit_scale, "is neither 1 nor a multiple of the stride among 2 and 4"),
            ("channels", channels, "are not 2 to 7 multiples of 8 up to 1024, the first 8, 16, 24 or 32"),
            (
                "encoder",
                encoder,
                "is not one of stride 2 with blocks of kernels 3 or 5 that halve the maps once for each of the channels",
            ),
        ];
        let wrong = in_order.into_iter().find(|(_, is_valid, _)| !is_valid);
        wrong.map_or(Ok(()), |(field, _, problem)| Err((field, problem)))
    }

    fn seed_channels() -> Vec<usize> {
        SEED_CHANNELS.to_vec()
    }

    const fn seed_stride() -> usize {
        1
    }

    const fn seed_logit_scale() -> usize {
        1
    }

    /// The same network for inference: its normalisation is [folded](super::parameters::fold) into its weights.
    #[must_use]
    pub fn folded(&self) -> Self {
        Self { batch_norm: false, ..self.clone() }
    }

    /// Rows and columns of the network's input are multiples of this: each level below the first halves them.
    fn side_multiple(&self) -> usize {
        self.stride << (self.channels.len() - usize::from(self.encoder.is_none()))
    }

    /// Pixels of each of the lowest level's maps.
    pub(super) fn lowest_pixels(&self) -> usize {
        self.rows() * self.columns() / self.side_multiple().pow(2)
    }

    /// Rows of the network's input: the height, rounded up to the next multiple. The rows below the photo are black.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.photo_height_px.next_multiple_of(self.side_multiple())
    }

    /// Columns of the network's input, likewise.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.photo_width_px.next_multiple_of(self.side_multiple())
    }

    /// Rows of the top level's maps, and of labels.
    #[must_use]
    pub fn map_rows(&self) -> usize {
        self.rows() / self.stride
    }

    /// Columns of the top level's maps, and of labels.
    #[must_use]
    pub fn map_columns(&self) -> usize {
        self.columns() / self.stride
    }

    /// Pixels of a label map, in each direction, per pixel of the canvas.
    #[must_use]
    pub fn label_map_scale(&self) -> usize {
        self.logit_scale.max(self.stride) / self.stride
    }

    /// Rows of label maps.
    #[must_use]
    pub fn label_map_rows(&self) -> usize {
        self.rows() * self.label_map_scale()
    }

    /// Columns of label maps.
    #[must_use]
    pub fn label_map_columns(&self) -> usize {
        self.columns() * self.label_map_scale()
    }

    /// Rows and columns of the top level's maps that belong to the photo.
    #[must_use]
    pub fn photo_part(&self) -> [usize; 2] {
        [self.photo_height_px.div_ceil(self.stride), self.photo_width_px.div_ceil(self.stride)]
    }

    /// Names of the rates that a training step takes.
    #[must_use]
    pub fn rates(&self) -> &'static [&'static str] {
        if self.batch_norm { &[AVERAGE_RATE, STATISTICS_RATE] } else { &[] }
    }

    /// The labels of the top level's maps, `[map rows, map columns]`, from those of the canvas, `[rows, columns]`: the
    /// label at the middle of each square.
    #[must_use]
    pub fn map_labels(&self, labels: &[u8]) -> Vec<u8> {
        let rows = labels.chunks_exact(self.columns()).skip(self.stride / 2).step_by(self.stride);
        rows.flat_map(|row| row.iter().skip(self.stride / 2).step_by(self.stride)).copied().collect()
    }
}

/// The first field of a specification whose type is wrong: alone in place of a valid one, it cannot be read either.
fn misfit(value: &Value) -> Option<String> {
    let sample = serde_json::to_value(Spec::seed(16, 16, Loss::Bce)).expect("a spec is plain data");
    let cannot_be_read = |field: &&String| {
        let mut with_field = sample.clone();
        with_field[field.as_str()] = value[field.as_str()].clone();
        serde_json::from_value::<Spec>(with_field).is_err()
    };
    value.as_object()?.keys().find(cannot_be_read).cloned()
}

/// Sides of photos that a network can be made for.
const SIDES_PX: RangeInclusive<usize> = 16..=4096;

/// Channels of the seed's five levels, top to bottom.
pub const SEED_CHANNELS: [usize; 5] = [8, 16, 32, 64, 128];

/// Name of the trained weights in the state.
pub const WEIGHTS: &str = "weights";

/// Name of the moving average of the weights in the state.
pub const AVERAGE: &str = "average";

/// Name of the means and variances of normalised maps in the state.
pub const STATISTICS: &str = "statistics";

/// Name of the input that sets how far the average moves towards the new weights in a step.
pub const AVERAGE_RATE: &str = "average_rate";

/// Name of the input that sets how far the statistics move towards those of the batch in a step.
pub const STATISTICS_RATE: &str = "statistics_rate";

/// Name of the presence head's layer.
pub(super) const PRESENCE: &str = "presence";

/// Name of a sum of gradients.
pub const GRADIENT: &str = "gradient";

/// Metadata key of the [`Spec`] as JSON, in the ONNX files and in `weights.safetensors`.
pub const SPEC_KEY: &str = "lookbook.spec";

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(field: &str, value: Value) -> String {
        let mut spec = serde_json::to_value(Spec::seed(48, 64, Loss::Bce)).expect("plain data");
        spec[field] = value;
        Spec::parse(&spec.to_string()).expect_err(&format!("{field} of {spec} is invalid"))
    }

    #[test]
    fn what_a_network_is_made_from_is_read_back() {
        let spec = Spec { channels: vec![16, 32], stride: 2, ..Spec::seed(48, 64, Loss::Softmax) };
        assert_eq!(Spec::parse(&serde_json::to_string(&spec).expect("plain data")), Ok(spec));
        let shortest = r#"{"photo_width_px": 400, "photo_height_px": 600, "loss": "bce"}"#;
        assert_eq!(Spec::parse(shortest), Ok(Spec::seed(400, 600, Loss::Bce)));
    }

    #[test]
    fn an_invalid_field_is_named() {
        let of = |channels: &[i64]| Value::from(channels);
        let long = [8_i64; 8];
        let cases = [
            ("channels", vec![of(&[]), of(&[8]), of(&[0, 0]), of(&[8, 0]), of(&[8, 12]), of(&[40, 8]), of(&[8, 1032])]),
            ("channels", vec![of(&long), of(&[8, -8]), of(&[8, i64::MAX - 7]), "8".into(), Value::Null]),
            ("stride", vec![0.into(), 3.into(), (-1).into(), 1.5.into(), u64::MAX.into()]),
            ("photo_width_px", vec![0.into(), 15.into(), 4097.into(), (-4).into(), u64::MAX.into(), Value::Null]),
            ("photo_height_px", vec![0.into(), 1_000_000.into(), "600".into()]),
            ("loss", vec!["hinge".into(), 1.into()]),
            ("batch_norm", vec!["yes".into()]),
        ];
        for (field, values) in cases {
            for value in values {
                let problem = problem(field, value.clone());
                assert!(problem.contains(&format!("'{field}'")) && problem.contains(&value.to_string()), "{problem}");
            }
        }
        for text in ["", "[]", "3", "{", "{}", "null"] {
            let problem = Spec::parse(text).expect_err(text);
            assert!(problem.contains(SPEC_KEY), "{problem}");
        }
    }
}
