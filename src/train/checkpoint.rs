//! Weights by name as safetensors, alone (`weights.safetensors`) and with both moments (`checkpoints/`).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::error::{Error, Result};
use crate::graph::{SPEC_KEY, Spec, unet};
use crate::stage;

/// Name of the folder of checkpoints in a model folder.
pub const FOLDER: &str = "checkpoints";
/// Checkpoints that are kept beside the best one.
const KEPT: usize = 2;
const BEST_FILE: &str = "best.safetensors";

/// A training run after an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Epochs done.
    pub epoch: u32,
    /// Steps done.
    pub step: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Mean IoU over the validation part, 0 to 1.
    pub validation_mean_iou: f32,
    /// The network.
    pub spec: Spec,
    /// Weights, flat.
    pub weights: Vec<f32>,
    /// First and second moment, flat.
    pub moments: [Vec<f32>; 2],
}

/// The checkpoints of a run: the last two and the best by the mean IoU over the validation part.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    written: Vec<PathBuf>,
    best: Option<f32>,
}

impl Checkpoints {
    /// In an empty folder.
    #[must_use]
    pub fn create(folder: PathBuf) -> Self {
        Self { folder, written: Vec::new(), best: None }
    }

    /// The file of the last one.
    #[must_use]
    pub fn last(&self) -> Option<&Path> {
        self.written.last().map(PathBuf::as_path)
    }

    /// Writes a checkpoint and removes what is no longer kept.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let bytes = serialize(checkpoint)?;
        let path = self.folder.join(format!("epoch-{:04}.safetensors", checkpoint.epoch));
        stage::write_file(&path, &bytes)?;
        self.written.push(path);
        if self.best.is_none_or(|best| checkpoint.validation_mean_iou > best) {
            self.best = Some(checkpoint.validation_mean_iou);
            stage::write_file(&self.folder.join(BEST_FILE), &bytes)?;
        }
        while self.written.len() > KEPT {
            let old = self.written.remove(0);
            fs::remove_file(&old).map_err(Error::io("remove", &old))?;
        }
        Ok(())
    }
}

/// Writes `weights.safetensors`: the tensors by name, the network in the metadata.
///
/// # Errors
/// [`Error::Io`].
pub fn write_weights(path: &Path, spec: &Spec, weights: &[f32]) -> Result<()> {
    let metadata = HashMap::from([(SPEC_KEY.to_owned(), spec_text(spec))]);
    stage::write_file(path, &pack(&[("", weights)], metadata)?)
}

/// Reads `weights.safetensors`.
///
/// # Errors
/// [`Error::Input`] naming the file where it is missing, damaged or of another network.
pub fn read_weights(path: &Path) -> Result<(Spec, Vec<f32>)> {
    let bad = |problem: String| Error::input(path, format!("{problem}; train the model again"));
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|cause| bad(format!("is damaged ({cause})")))?;
    let spec = header
        .metadata()
        .as_ref()
        .and_then(|it| it.get(SPEC_KEY))
        .ok_or_else(|| bad(format!("is not a model of lookbook: it has no metadata '{SPEC_KEY}'")))?;
    let spec = serde_json::from_str(spec).map_err(|cause| bad(format!("its '{SPEC_KEY}' is wrong ({cause})")))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|cause| bad(format!("is damaged ({cause})")))?;
    let mut weights = Vec::with_capacity(unet::PARAMETER_COUNT);
    for parameter in unet::parameters() {
        let tensor = tensors.tensor(&parameter.name).ok().filter(|it| it.dtype() == Dtype::F32);
        let tensor = tensor
            .filter(|it| it.shape() == parameter.dims)
            .ok_or_else(|| bad(format!("has no tensor '{}' of shape {:?} f32", parameter.name, parameter.dims)))?;
        let floats = tensor.data().chunks_exact(4);
        weights.extend(floats.map(|it| f32::from_le_bytes(it.try_into().expect("chunks of four"))));
    }
    Ok((spec, weights))
}

fn serialize(checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let metadata = HashMap::from([
        (SPEC_KEY.to_owned(), spec_text(&checkpoint.spec)),
        ("epoch".to_owned(), checkpoint.epoch.to_string()),
        ("step".to_owned(), checkpoint.step.to_string()),
        ("seed".to_owned(), checkpoint.seed.to_string()),
        ("validation_mean_iou".to_owned(), checkpoint.validation_mean_iou.to_string()),
    ]);
    let [first, second] = &checkpoint.moments;
    pack(&[("", &checkpoint.weights), ("first_moment/", first), ("second_moment/", second)], metadata)
}

/// Flat vectors as named tensors, each name behind its vector's prefix.
fn pack(vectors: &[(&str, &[f32])], metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    let mut tensors = Vec::new();
    for (prefix, values) in vectors {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut start = 0;
        for parameter in unet::parameters() {
            let end = start + 4 * parameter.len();
            tensors.push((format!("{prefix}{}", parameter.name), parameter.dims, bytes[start..end].to_vec()));
            start = end;
        }
    }
    let views = tensors.iter().map(|(name, dims, bytes)| {
        let view = TensorView::new(Dtype::F32, dims.clone(), bytes).expect("the bytes fit the shape");
        (name.as_str(), view)
    });
    safetensors::serialize(views, Some(metadata)).map_err(|cause| Error::runtime("weights", cause))
}

fn spec_text(spec: &Spec) -> String {
    serde_json::to_string(spec).expect("a spec is plain data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Loss;

    fn spec() -> Spec {
        Spec { photo_width_px: 32, photo_height_px: 48, loss: Loss::Softmax }
    }

    #[test]
    fn weights_come_back_as_they_went() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = place.path().join("weights.safetensors");
        let weights = unet::initial_weights(3);
        write_weights(&path, &spec(), &weights).expect("written");
        assert_eq!(read_weights(&path).expect("read"), (spec(), weights));
    }

    #[test]
    fn a_damaged_or_foreign_file_is_named() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = place.path().join("weights.safetensors");
        write_weights(&path, &spec(), &unet::initial_weights(3)).expect("written");
        let whole = fs::read(&path).expect("readable");
        for bad in [&whole[..whole.len() / 2], &whole[..4], b"<html></html>", b""] {
            fs::write(&path, bad).expect("writable");
            let error = read_weights(&path).expect_err("the file is bad");
            assert!(error.to_string().contains("weights.safetensors"), "{error}");
        }
    }

    #[test]
    fn the_last_two_and_the_best_are_kept() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let mut checkpoints = Checkpoints::create(place.path().to_owned());
        for (epoch, iou) in [(1, 0.1), (2, 0.3), (3, 0.2), (4, 0.2)] {
            let weights = vec![epoch as f32; unet::PARAMETER_COUNT];
            let moments = [weights.clone(), weights.clone()];
            let (step, seed) = (u64::from(epoch), 0);
            let checkpoint = Checkpoint { epoch, step, seed, validation_mean_iou: iou, spec: spec(), weights, moments };
            checkpoints.save(&checkpoint).expect("written");
        }
        let mut names: Vec<_> =
            fs::read_dir(place.path()).expect("a folder").flatten().map(|it| it.file_name()).collect();
        names.sort();
        assert_eq!(names, ["best.safetensors", "epoch-0003.safetensors", "epoch-0004.safetensors"]);
        let (_, best) = read_weights(&place.path().join(BEST_FILE)).expect("readable");
        assert_eq!(best[0], 2.0);
    }
}
