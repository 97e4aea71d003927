//! Pretrained encoders. In: a safetensors file with the tensor names of `timm`'s `EfficientNet-Lite` or `MobileNetV2`
//! (<https://github.com/huggingface/pytorch-image-models>). Out: an [`Encoder`], and its tensors under the names of our layers.
//!
//! | theirs | ours |
//! | --- | --- |
//! | `conv_stem`, `bn1` | `stem` |
//! | `blocks.S.I.conv_pw`, `bn1` | `blockN.expand`; the first stage has none |
//! | `blocks.S.I.conv_dw`, `bn2` (`bn1` in the first stage) | `blockN.depthwise` |
//! | `blocks.S.I.conv_pwl`, `bn3` (`conv_pw`, `bn2` in the first stage) | `blockN.project` |
//!
//! `N` counts all blocks from 1. Of a convolution comes `.weight`, in the same shape; of its batch normalisation `.scale`,
//! `.bias`, `.mean` and `.variance`, from `weight`, `bias`, `running_mean` and `running_var`. The layers after the last block
//! (`conv_head`, `bn2`, `classifier`) are passed over.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::files;
use crate::graph::encoder::{Block, Encoder, Padding};
use crate::graph::parameters::{self, Parameter, VARIANCE_EPSILON};
use crate::graph::{AVERAGE, STATISTICS, Spec, WEIGHTS};
use crate::stage::InputRecord;

/// Folder into which `scripts/install_encoder.sh` installs an encoder.
pub const FOLDER: &str = ".encoder";
/// Names of the encoders that it installs and that the Python package holds: settings may name them in place of a file. The
/// first is that of the recipe `pretrained`.
pub const INSTALLED: [&str; 2] = ["efficientnet-lite0", "efficientnet-lite2"];
/// Folder with the encoders in a Python environment that holds the program.
const SHARED_FOLDER: &str = "share/lookbook/encoder";
/// File name of the licence beside an encoder.
const LICENSE_FILE: &str = "LICENSE";
/// Metadata key of the [`Provenance`] as JSON.
const METADATA_KEY: &str = "lookbook.encoder";
/// Largest file that is read: the largest encoder that fits, `EfficientNet-Lite4`, has 52 MB with its classifier.
const MOST_BYTES: u64 = 256 << 20;
/// Strides of the stages' first blocks; all other blocks have stride 1.
const STRIDES: [usize; STAGES] = [1, 2, 2, 2, 1, 2, 1];
/// Sides of the stages' depthwise kernels, by family: they tell its members from networks of the same layers but other
/// strides and activations.
const FAMILIES: [[usize; STAGES]; 2] = [[3, 3, 5, 3, 5, 5, 3], [3; STAGES]];
const STAGES: usize = 7;
/// Tensors of a batch normalisation.
const OF_NORM: [&str; 5] = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"];
/// What `timm` does to a photo before the networks that it trained itself, red, green, blue.
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// The file of one of the encoders that are [`INSTALLED`]; where it would be, if there is none.
#[must_use]
pub fn installed(name: &str) -> PathBuf {
    let file = format!("{name}.safetensors");
    let folders = files::python_prefix().map(|it| it.join(SHARED_FOLDER)).into_iter();
    let places: Vec<_> = folders.chain(files::beside_program(FOLDER)).map(|it| it.join(&file)).collect();
    let last = places.last().cloned().unwrap_or_default();
    places.into_iter().find(|it| it.is_file()).unwrap_or(last)
}

/// A pretrained encoder, read and checked.
#[derive(Debug, Clone)]
pub struct EncoderFile {
    path: PathBuf,
    record: InputRecord,
    encoder: Encoder,
    tensors: BTreeMap<String, Vec<f32>>,
    source: Option<String>,
    licence: Option<String>,
}

/// What a file says about itself, or what follows from its name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Provenance {
    /// As in [`Encoder`].
    mean: [f32; 3],
    /// As in [`Encoder`].
    deviation: [f32; 3],
    padding: Padding,
    /// What was added to variances before their square root was taken.
    epsilon: f32,
    /// Where the weights come from.
    source: Option<String>,
    /// Their licence.
    licence: Option<String>,
}

impl EncoderFile {
    /// Reads an encoder.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file and the tensor if it is missing, damaged or not of a family that fits;
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let size = match fs::metadata(path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Err(Error::input(path, MISSING)),
            other => other.map_err(Error::io("read", path))?.len(),
        };
        if size > MOST_BYTES {
            let problem = format!("has {size} bytes; no encoder that fits has more than {MOST_BYTES}");
            return Err(Error::input(path, problem));
        }
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        Self::parse(path, &bytes).map_err(|problem| Error::input(path, format!("{problem}; {ADVICE}")))
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, String> {
        let damaged = |cause| format!("is not a safetensors file, or is damaged ({cause})");
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let provenance = Provenance::of(path, &header)?;
        let mut reader = Reader { file: SafeTensors::deserialize(bytes).map_err(damaged)?, ours: BTreeMap::new() };
        reader.refuse_unknown()?;
        let (stem, blocks) = reader.layers(provenance.epsilon)?;
        let Provenance { mean, deviation, padding, source, licence, .. } = provenance;
        let encoder = Encoder { mean, deviation, padding, stem, blocks };
        let record = InputRecord::of_content(path, bytes);
        Ok(Self { path: path.to_owned(), record, encoder, tensors: reader.ours, source, licence })
    }

    /// The encoder.
    #[must_use]
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// All tensors by the names of our layers.
    #[must_use]
    pub fn tensors(&self) -> &BTreeMap<String, Vec<f32>> {
        &self.tensors
    }

    /// The file as an input of a stage.
    #[must_use]
    pub fn record(&self) -> &InputRecord {
        &self.record
    }

    /// File name.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where its weights come from, if the file says so.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// The licence of its weights, if the file says so.
    #[must_use]
    pub fn licence(&self) -> Option<&str> {
        self.licence.as_deref()
    }

    /// The text of the licence that lies beside the file; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn licence_text(&self) -> Result<Option<Vec<u8>>> {
        let path = self.path.with_file_name(LICENSE_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        fs::read(&path).map(Some).map_err(Error::io("read", &path))
    }

    /// The state that training starts from, as [`parameters::initial_state`], but with the encoder's weights and
    /// statistics. `spec` is a network with this encoder.
    #[must_use]
    pub fn initial_state(&self, spec: &Spec, seed: u64) -> Vec<Vec<f32>> {
        let mut state = parameters::initial_state(spec, seed);
        for ((name, _), values) in spec.state().into_iter().zip(&mut state) {
            match name {
                WEIGHTS | AVERAGE => self.overlay(&parameters::parameters(spec), values),
                STATISTICS => self.overlay(&parameters::statistics_tensors(spec), values),
                _ => {}
            }
        }
        state
    }

    /// Copies the tensors of this file over those of the same name in a flat vector.
    fn overlay(&self, names: &[Parameter], mut values: &mut [f32]) {
        for parameter in names {
            let (tensor, rest) = values.split_at_mut(parameter.len());
            if let Some(of_file) = self.tensors.get(&parameter.name) {
                tensor.copy_from_slice(of_file);
            }
            values = rest;
        }
    }
}

/// What to do about a file that is not there.
const MISSING: &str = "the pretrained encoder is missing; `make encoder` installs it, [train] encoder names another, \
                       recipe = \"best\" does without";
/// What to do about a file that cannot be used.
const ADVICE: &str = "`make encoder` installs one that fits (docs/training.md says which others do)";

impl Provenance {
    fn of(path: &Path, header: &Metadata) -> Result<Self, String> {
        if let Some(text) = header.metadata().as_ref().and_then(|it| it.get(METADATA_KEY)) {
            let its: Self = serde_json::from_str(text)
                .map_err(|cause| format!("has metadata '{METADATA_KEY}' that cannot be read ({cause})"))?;
            let are_finite = its.mean.iter().chain(&its.deviation).chain([&its.epsilon]).all(|it| it.is_finite());
            if !are_finite || its.deviation.iter().any(|&it| it <= 0.0) || its.epsilon <= 0.0 {
                return Err(format!("has metadata '{METADATA_KEY}' with an invalid number: {text}"));
            }
            return Ok(its);
        }
        // The last part of the path that names a family: downloads lie in folders called after the model.
        let families = ["tf_efficientnet_lite", "efficientnet_lite", "mobilenetv2"];
        let mut parts = path.iter().rev().map(|it| it.to_string_lossy());
        let family = parts.find_map(|part| families.into_iter().find(|it| part.contains(it)));
        let (mean, deviation, padding, epsilon) = match family {
            Some("tf_efficientnet_lite") => ([0.5; 3], [0.5; 3], Padding::Same, 1e-3),
            Some(_) => (IMAGENET_MEAN, IMAGENET_DEVIATION, Padding::Symmetric, 1e-5),
            None => {
                return Err(format!(
                    "says neither by metadata '{METADATA_KEY}' nor by its path which model it is; name the file after its \
                     timm model, as tf_efficientnet_lite0.safetensors"
                ));
            }
        };
        Ok(Self { mean, deviation, padding, epsilon, source: None, licence: None })
    }
}

/// Takes tensors out of a file.
struct Reader<'a> {
    file: SafeTensors<'a>,
    /// Those taken, by the names of our layers.
    ours: BTreeMap<String, Vec<f32>>,
}

impl Reader<'_> {
    /// Refuses blocks that are made otherwise, by the first tensor that shows it.
    fn refuse_unknown(&self) -> Result<(), String> {
        let mut names = self.file.names();
        names.sort_unstable();
        for name in names {
            let Some(in_blocks) = name.strip_prefix("blocks.") else { continue };
            let mut parts = in_blocks.splitn(3, '.');
            let stage = parts.next().and_then(|it| it.parse::<usize>().ok());
            let (layer, kind) = parts.nth(1).and_then(|it| it.split_once('.')).unwrap_or_default();
            let expected: &[&str] = match stage {
                Some(0) => &["conv_dw", "bn1", "conv_pw", "bn2"],
                Some(1..STAGES) => &["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"],
                _ => return Err(format!("has a tensor '{name}', but networks that fit have {STAGES} stages")),
            };
            if layer == "se" {
                return Err(format!("has a squeeze-and-excite layer, '{name}', which is not supported"));
            }
            let is_known = if layer.starts_with("conv") { kind == "weight" } else { OF_NORM.contains(&kind) };
            if !(expected.contains(&layer) && is_known) {
                return Err(format!("has a tensor '{name}', which no network that fits has"));
            }
        }
        Ok(())
    }

    /// Takes all layers; returns the stem's channels and the blocks.
    fn layers(&mut self, epsilon: f32) -> Result<(usize, Vec<Block>), String> {
        let stem = self.layer("stem", ["conv_stem", "bn1"], [None, Some(3), Some(3), Some(3)], epsilon)?[0];
        let (mut blocks, mut kernels, mut input): (Vec<Block>, [usize; STAGES], usize) = (vec![], [0; STAGES], stem);
        for (stage, first_stride) in STRIDES.into_iter().enumerate() {
            let mut at = 0;
            while at == 0 || self.has_block(stage, at) {
                let (number, theirs) = (blocks.len() + 1, format!("blocks.{stage}.{at}"));
                let names = |layer: &str, norm: &str| [format!("{theirs}.{layer}"), format!("{theirs}.{norm}")];
                let mut inner = input;
                let mut norms = ["bn1", "bn2"];
                if stage > 0 {
                    let dims = [None, Some(input), Some(1), Some(1)];
                    inner = self.layer(&format!("block{number}.expand"), names("conv_pw", "bn1"), dims, epsilon)?[0];
                    norms = ["bn2", "bn3"];
                }
                let dims = [Some(inner), Some(1), None, None];
                let depthwise = names("conv_dw", norms[0]);
                let found = self.layer(&format!("block{number}.depthwise"), depthwise.clone(), dims, epsilon)?;
                let kernel = found[2];
                if found[3] != kernel || (at > 0 && kernel != kernels[stage]) {
                    return Err(format!("has a kernel of {kernel} x {} in '{}'", found[3], depthwise[0]));
                }
                kernels[stage] = kernel;
                let project = names(if stage > 0 { "conv_pwl" } else { "conv_pw" }, norms[1]);
                let dims = [None, Some(inner), Some(1), Some(1)];
                let out = self.layer(&format!("block{number}.project"), project, dims, epsilon)?[0];
                let stride = if at == 0 { first_stride } else { 1 };
                blocks.push(Block { kernel, stride, inner, out });
                (input, at) = (out, at + 1);
            }
        }
        if !FAMILIES.contains(&kernels) {
            let [lite, mobile] = FAMILIES;
            return Err(format!(
                "has stages with kernels of {kernels:?}; EfficientNet-Lite has {lite:?} and MobileNetV2 {mobile:?}"
            ));
        }
        Ok((stem, blocks))
    }

    fn has_block(&self, stage: usize, at: usize) -> bool {
        let prefix = format!("blocks.{stage}.{at}.");
        self.file.names().iter().any(|it| it.starts_with(&prefix))
    }

    /// Takes a convolution and its normalisation under the name `ours`; returns the shape of its weight, which is `dims`
    /// where those are given.
    fn layer(
        &mut self,
        ours: &str,
        [convolution, norm]: [impl AsRef<str>; 2],
        dims: [Option<usize>; 4],
        epsilon: f32,
    ) -> Result<Vec<usize>, String> {
        let name = format!("{}.weight", convolution.as_ref());
        let (shape, weight) = self.tensor(&name, &dims)?;
        let out = shape[0];
        if !out.is_multiple_of(8) || out == 0 {
            return Err(format!("has {out} channels in '{name}', not a multiple of 8"));
        }
        let of_norm = |kind| Ok::<_, String>(self.tensor(&format!("{}.{kind}", norm.as_ref()), &[Some(out)])?.1);
        let mut scale = of_norm("weight")?;
        let (bias, mean, variance) = (of_norm("bias")?, of_norm("running_mean")?, of_norm("running_var")?);
        if variance.iter().any(|&it| it < 0.0) {
            return Err(format!("has a negative variance in '{}.running_var'", norm.as_ref()));
        }
        // Our networks add another number to the variance; the scale makes up for it.
        for (scale, variance) in scale.iter_mut().zip(&variance) {
            *scale *= ((variance + VARIANCE_EPSILON) / (variance + epsilon)).sqrt();
        }
        let kinds = ["weight", "scale", "bias", "mean", "variance"];
        let names = kinds.map(|kind| format!("{ours}.{kind}"));
        self.ours.extend(names.into_iter().zip([weight, scale, bias, mean, variance]));
        Ok(shape)
    }

    /// A tensor as f32, with its shape, which is `dims` where those are given.
    fn tensor(&self, name: &str, dims: &[Option<usize>]) -> Result<(Vec<usize>, Vec<f32>), String> {
        let tensor = self.file.tensor(name).map_err(|_| format!("has no tensor '{name}'"))?;
        let shape = tensor.shape().to_vec();
        let fits = |(&found, expected): (&usize, &Option<usize>)| expected.is_none_or(|it| it == found);
        if shape.len() != dims.len() || !shape.iter().zip(dims).all(fits) {
            let expected: Vec<_> = dims.iter().map(|it| it.map_or("any".to_owned(), |it| it.to_string())).collect();
            return Err(format!("has a tensor '{name}' of shape {shape:?} instead of [{}]", expected.join(", ")));
        }
        let data = tensor.data();
        let values: Vec<f32> = match tensor.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|&it| f32::from_le_bytes(it)).collect(),
            Dtype::F16 => data.as_chunks().0.iter().map(|&it| f16::from_le_bytes(it).to_f32()).collect(),
            Dtype::BF16 => data.as_chunks().0.iter().map(|&it| bf16::from_le_bytes(it).to_f32()).collect(),
            other => return Err(format!("has a tensor '{name}' of type {other:?} instead of F32, F16 or BF16")),
        };
        if !values.iter().all(|it| it.is_finite()) {
            return Err(format!("has NaN or infinity in '{name}'"));
        }
        Ok((shape, values))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::seq::IndexedRandom;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::graph::encoder::lite0;

    const LITE: [usize; STAGES] = FAMILIES[0];
    const MOBILE: [usize; STAGES] = FAMILIES[1];

    /// A network by its stem, and the number of blocks and channels of each stage.
    type Widths = (usize, [(usize, usize); STAGES]);
    const LITE0: Widths = (32, [(1, 16), (2, 24), (2, 40), (3, 80), (3, 112), (4, 192), (1, 320)]);
    /// Stored tensors: name, shape, type and bytes.
    type Stored = Vec<(String, Vec<usize>, Dtype, Vec<u8>)>;

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|it| it.to_le_bytes()).collect()
    }

    /// The tensors of a network as `timm` stores them; a scale is 1, a variance 4, everything else 0.5.
    fn network((stem, stages): Widths, kernels: [usize; STAGES]) -> Stored {
        let mut tensors = Stored::new();
        let mut add = |name: String, dims: Vec<usize>, value: f32| {
            let bytes = floats(&vec![value; dims.iter().product()]);
            tensors.push((name, dims, Dtype::F32, bytes));
        };
        let mut layer = |convolution: &str, norm: &str, dims: [usize; 4]| {
            add(format!("{convolution}.weight"), dims.to_vec(), 0.5);
            for (kind, value) in [("weight", 1.0), ("bias", 0.5), ("running_mean", 0.5), ("running_var", 4.0)] {
                add(format!("{norm}.{kind}"), vec![dims[0]], value);
            }
        };
        layer("conv_stem", "bn1", [stem, 3, 3, 3]);
        let mut input = stem;
        for (stage, ((repeats, out), k)) in stages.into_iter().zip(kernels).enumerate() {
            for at in 0..repeats {
                let of = |layer: &str| format!("blocks.{stage}.{at}.{layer}");
                let inner = if stage == 0 { input } else { 6 * input };
                if stage == 0 {
                    layer(&of("conv_dw"), &of("bn1"), [inner, 1, k, k]);
                    layer(&of("conv_pw"), &of("bn2"), [out, inner, 1, 1]);
                } else {
                    layer(&of("conv_pw"), &of("bn1"), [inner, input, 1, 1]);
                    layer(&of("conv_dw"), &of("bn2"), [inner, 1, k, k]);
                    layer(&of("conv_pwl"), &of("bn3"), [out, inner, 1, 1]);
                }
                input = out;
            }
        }
        layer("conv_head", "bn2", [1280, input, 1, 1]);
        add("classifier.bias".to_owned(), vec![1000], 0.5);
        tensors.push(("bn1.num_batches_tracked".to_owned(), vec![], Dtype::I64, vec![0; 8]));
        tensors
    }

    fn bytes(tensors: &Stored, metadata: Option<&str>) -> Vec<u8> {
        let views = tensors.iter().map(|(name, dims, dtype, bytes)| {
            (name.as_str(), TensorView::new(*dtype, dims.clone(), bytes).expect("the bytes fit the shape"))
        });
        let metadata = metadata.map(|text| HashMap::from([(METADATA_KEY.to_owned(), text.to_owned())]));
        safetensors::serialize(views, metadata).expect("good tensors")
    }

    fn read(path: &str, tensors: &Stored) -> Result<EncoderFile, String> {
        EncoderFile::parse(Path::new(path), &bytes(tensors, None))
    }

    const METADATA: &str = r#"{"mean": [0.4, 0.5, 0.6], "deviation": [0.5, 0.5, 0.5], "padding": "same", "epsilon": 0.001,
                               "source": "somewhere", "licence": "Apache-2.0"}"#;

    #[test]
    fn lite0_is_read_from_the_names_and_shapes_of_its_tensors() {
        let file = read("a/tf_efficientnet_lite0.in1k.safetensors", &network(LITE0, LITE)).expect("it fits");
        assert_eq!(*file.encoder(), Encoder { mean: [0.5; 3], deviation: [0.5; 3], ..lite0() });
        assert_eq!((file.source(), file.licence()), (None, None));
        let tensors = file.tensors();
        assert_eq!(tensors.len(), 5 * (1 + 2 + 15 * 3));
        assert_eq!(tensors["stem.weight"].len(), 32 * 27);
        assert_eq!(tensors["block1.depthwise.weight"].len(), 32 * 9);
        assert!(!tensors.contains_key("block1.expand.weight"));
        assert_eq!(tensors["block2.expand.weight"].len(), 96 * 16);
        assert_eq!(tensors["block4.depthwise.weight"].len(), 144 * 25);
        assert_eq!(tensors["block16.project.weight"].len(), 320 * 1152);
        assert_eq!(tensors["block16.project.variance"], [4.0; 320]);
        assert_eq!(tensors["block16.project.scale"], [1.0; 320], "the same number is added to variances");
        assert_eq!(file.record().sha256.len(), 64);
    }

    #[test]
    fn what_a_file_says_of_itself_counts_more_than_its_name() {
        let text = bytes(&network(LITE0, LITE), Some(METADATA));
        let file = EncoderFile::parse(Path::new("mobilenetv2_100.safetensors"), &text).expect("it fits");
        assert_eq!(*file.encoder(), Encoder { mean: [0.4, 0.5, 0.6], deviation: [0.5; 3], ..lite0() });
        assert_eq!((file.source(), file.licence()), (Some("somewhere"), Some("Apache-2.0")));
        for bad in ["{}", "same", &METADATA.replace("0.001", "0"), &METADATA.replace("0.6]", "1e99]")] {
            let text = bytes(&network(LITE0, LITE), Some(bad));
            let problem = EncoderFile::parse(Path::new("lite0"), &text).expect_err(bad);
            assert!(problem.contains(METADATA_KEY), "{problem}");
        }
    }

    #[test]
    fn a_smaller_number_added_to_variances_goes_into_the_scale() {
        let file = read("efficientnet_lite0.ra_in1k/model.safetensors", &network(LITE0, LITE)).expect("it fits");
        let Encoder { mean, deviation, padding, .. } = file.encoder();
        assert_eq!((*mean, *deviation, *padding), (IMAGENET_MEAN, IMAGENET_DEVIATION, Padding::Symmetric));
        // 4.001 / 4.00001, and its root.
        let scale = file.tensors()["stem.scale"][0];
        assert!((scale - 1.000_123_7).abs() < 1e-7, "{scale}");
        let refused = read("model.safetensors", &network(LITE0, LITE)).expect_err("it could be either");
        assert!(refused.contains("name the file after its timm model"), "{refused}");
    }

    /// Widths from `timm` 1.0.31 (`_gen_efficientnet_lite`, `_gen_mobilenet_v2`).
    #[test]
    fn all_of_both_families_fit() {
        let lite: [Widths; 4] = [
            (32, [(1, 16), (3, 24), (3, 40), (4, 80), (4, 112), (5, 192), (1, 320)]),
            (32, [(1, 16), (3, 24), (3, 48), (4, 88), (4, 120), (5, 208), (1, 352)]),
            (32, [(1, 24), (3, 32), (3, 48), (5, 96), (5, 136), (6, 232), (1, 384)]),
            (32, [(1, 24), (4, 32), (4, 56), (6, 112), (6, 160), (8, 272), (1, 448)]),
        ];
        let mobile: [Widths; 7] = [
            (16, [(1, 8), (2, 8), (3, 16), (4, 24), (3, 32), (3, 56), (1, 112)]),
            (16, [(1, 8), (2, 16), (3, 16), (4, 32), (3, 48), (3, 80), (1, 160)]),
            (24, [(1, 16), (2, 24), (3, 24), (4, 48), (3, 72), (3, 120), (1, 240)]),
            (32, [(1, 16), (2, 24), (3, 32), (4, 64), (3, 96), (3, 160), (1, 320)]),
            (32, [(1, 16), (3, 24), (4, 32), (5, 72), (4, 104), (4, 176), (1, 352)]),
            (32, [(1, 24), (3, 32), (5, 40), (6, 80), (5, 112), (5, 192), (1, 384)]),
            (48, [(1, 24), (2, 32), (3, 48), (4, 88), (3, 136), (3, 224), (1, 448)]),
        ];
        let lite = lite.map(|it| (it, LITE, "tf_efficientnet_lite")).into_iter();
        let mobile = mobile.map(|it| (it, MOBILE, "mobilenetv2")).into_iter();
        for (widths, kernels, name) in lite.chain(mobile) {
            let file = read(name, &network(widths, kernels)).expect("it fits");
            let (stem, stages) = widths;
            assert_eq!(file.encoder().stem, stem);
            assert_eq!(file.encoder().taps(), [0, 1, 2, 4, 6].map(|stage: usize| stages[stage].1));
            assert_eq!(file.encoder().blocks.len(), stages.iter().map(|(repeats, _)| repeats).sum::<usize>());
            assert!(file.encoder().blocks.iter().all(|it| kernels.contains(&it.kernel)));
        }
    }

    #[test]
    fn numbers_of_half_the_size_are_converted() {
        let stored = |dtype: Dtype, convert: fn(f32) -> [u8; 2]| {
            let mut tensors = network(LITE0, LITE);
            for (_, _, of, bytes) in tensors.iter_mut().filter(|(_, _, of, _)| *of == Dtype::F32) {
                let values = bytes.as_chunks().0.iter().map(|&it| f32::from_le_bytes(it));
                (*of, *bytes) = (dtype, values.flat_map(convert).collect());
            }
            read("tf_efficientnet_lite0", &tensors).expect("it fits").tensors
        };
        let expected = read("tf_efficientnet_lite0", &network(LITE0, LITE)).expect("it fits").tensors;
        assert_eq!(stored(Dtype::F16, |it| f16::from_f32(it).to_le_bytes()), expected);
        assert_eq!(stored(Dtype::BF16, |it| bf16::from_f32(it).to_le_bytes()), expected);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |what: &str, change: &dyn Fn(&mut Stored)| {
            let mut tensors = network(LITE0, LITE);
            change(&mut tensors);
            let problem = read("tf_efficientnet_lite0", &tensors).expect_err(what);
            assert!(problem.contains(what), "{what}: {problem}");
        };
        let set = |name: &'static str, dims: &'static [usize], value: f32| {
            move |tensors: &mut Stored| {
                let bytes = floats(&vec![value; dims.iter().product()]);
                tensors.retain(|(of, ..)| of != name);
                tensors.push((name.to_owned(), dims.to_vec(), Dtype::F32, bytes));
            }
        };
        let without = |name: &'static str| move |tensors: &mut Stored| tensors.retain(|(of, ..)| !of.starts_with(name));
        for (named, name) in [
            ("no tensor 'conv_stem.weight'", "conv_stem"),
            ("no tensor 'blocks.3.1.bn2.running_var'", "blocks.3.1.bn2.running_var"),
            ("no tensor 'blocks.6.0.conv_pw.weight'", "blocks.6"),
        ] {
            refused(named, &without(name));
        }
        let pointwise = "'blocks.1.0.conv_pw.weight' of shape [96, 24, 1, 1] instead of [any, 16, 1, 1]";
        refused(pointwise, &set("blocks.1.0.conv_pw.weight", &[96, 24, 1, 1], 0.5));
        refused("'bn1.bias' of shape [32, 1] instead of [32]", &set("bn1.bias", &[32, 1], 0.5));
        refused("12 channels in 'conv_stem.weight'", &set("conv_stem.weight", &[12, 3, 3, 3], 0.5));
        refused("NaN or infinity in 'bn1.weight'", &set("bn1.weight", &[32], f32::NAN));
        refused("negative variance in 'bn1.running_var'", &set("bn1.running_var", &[32], -1.0));
        refused("kernel of 3 x 5 in 'blocks.0.0.conv_dw'", &set("blocks.0.0.conv_dw.weight", &[32, 1, 3, 5], 0.5));
        refused("kernels of [5, 3, 5", &set("blocks.0.0.conv_dw.weight", &[32, 1, 5, 5], 0.5));
        let squeeze = "squeeze-and-excite layer, 'blocks.1.0.se.conv_reduce.weight'";
        refused(squeeze, &set("blocks.1.0.se.conv_reduce.weight", &[4, 96, 1, 1], 0.5));
        refused("'blocks.7.0.conv_pw.weight'", &set("blocks.7.0.conv_pw.weight", &[1, 1, 1, 1], 0.5));
        refused("'blocks.1.0.conv_pw.bias'", &set("blocks.1.0.conv_pw.bias", &[96], 0.5));
        refused("'blocks.1.0.conv_exp.weight'", &set("blocks.1.0.conv_exp.weight", &[96], 0.5));
        refused("'bn1.weight' of type I32", &|tensors| {
            tensors.iter_mut().filter(|(name, ..)| name == "bn1.weight").for_each(|it| it.2 = Dtype::I32);
        });
    }

    #[test]
    fn a_file_of_another_kind_or_a_damaged_one_is_named() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = place.path().join("tf_efficientnet_lite0.safetensors");
        let missing = EncoderFile::open(&path).expect_err("it is missing").to_string();
        assert!(missing.contains("tf_efficientnet_lite0") && missing.contains("make encoder"), "{missing}");
        let whole = bytes(&network(LITE0, LITE), None);
        let huge_header = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
        for bad in [&whole[..whole.len() - 1], &whole[..100], b"<html></html>", b"", &huge_header] {
            fs::write(&path, bad).expect("writable");
            let problem = EncoderFile::open(&path).expect_err("it is bad").to_string();
            assert!(problem.contains("lite0.safetensors: is not a safetensors file, or is damaged"), "{problem}");
        }
        fs::File::create(&path).and_then(|it| it.set_len(MOST_BYTES + 1)).expect("a sparse file");
        let problem = EncoderFile::open(&path).expect_err("it is too large").to_string();
        assert!(problem.contains("no encoder that fits has more than"), "{problem}");
    }

    #[test]
    fn tensors_go_where_their_names_are() {
        let file = read("tf_efficientnet_lite0", &network(LITE0, LITE)).expect("it fits");
        let of = |name: &str, dims: &[usize]| Parameter { name: name.to_owned(), dims: dims.to_vec() };
        let names = [of("up1t.weight", &[2]), of("stem.variance", &[32]), of("out.bias", &[3])];
        let mut values = vec![7.0; 37];
        file.overlay(&names, &mut values);
        assert_eq!(values, [vec![7.0; 2], vec![4.0; 32], vec![7.0; 3]].concat());
    }

    #[test]
    fn every_tensor_of_the_file_is_where_training_starts() {
        let file = read("tf_efficientnet_lite0", &network(LITE0, LITE)).expect("it fits");
        let spec = Spec {
            channels: vec![16, 8, 8, 8],
            stride: 2,
            batch_norm: true,
            encoder: Some(file.encoder().clone()),
            ..Spec::seed(64, 96, crate::graph::Loss::Softmax)
        };
        spec.check().expect("a network with this encoder");
        let (fresh, state) = (parameters::initial_state(&spec, 3), file.initial_state(&spec, 3));
        let mut taken = 0;
        let mut of = |names: Vec<Parameter>, vector: usize| {
            let mut at = 0;
            for Parameter { name, dims } in names {
                let range = at..at + dims.iter().product::<usize>();
                let expected = file.tensors().get(&name).map_or(&fresh[vector][range.clone()], Vec::as_slice);
                assert_eq!(state[vector][range.clone()], *expected, "{name}");
                taken += usize::from(file.tensors().contains_key(&name));
                at = range.end;
            }
            assert_eq!(state[vector].len(), at);
        };
        let names: Vec<_> = spec.state().into_iter().map(|(name, _)| name).collect();
        let vector = |name: &str| names.iter().position(|it| *it == name).expect("it has this vector");
        of(parameters::parameters(&spec), vector(WEIGHTS));
        of(parameters::statistics_tensors(&spec), vector(STATISTICS));
        assert_eq!(taken, file.tensors().len());
        assert_eq!(state[vector(AVERAGE)], state[vector(WEIGHTS)]);
        assert_eq!(state[vector("first_moment")], fresh[vector("first_moment")]);
    }

    #[test]
    fn a_header_that_is_changed_at_random_never_panics() {
        let small = (8, [(1, 8), (2, 8), (1, 8), (1, 8), (1, 8), (1, 8), (1, 8)]);
        let whole = bytes(&network(small, MOBILE), None);
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut refused = 0;
        for _ in 0..500 {
            let mut changed = whole.clone();
            for _ in 0..rng.random_range(1..4) {
                changed[rng.random_range(0..header)] = *b"0123456789[]{},:\"sebwcF".choose(&mut rng).expect("some");
            }
            refused += usize::from(EncoderFile::parse(Path::new("mobilenetv2"), &changed).is_err());
        }
        assert!(refused > 400, "{refused}");
    }
}
