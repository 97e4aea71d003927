//! The ranges of a network's maps, for label maps in 8-bit integers: measured on photos of the train part, kept beside the
//! model as `int8.json`.

use std::collections::BTreeMap;
use std::path::Path;

use ort::value::Tensor;
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::example::Example;
use super::files::{INT8_FILE, id_of};
use crate::dataset::{Dataset, Split};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::files;
use crate::graph::{self, Dialect, MapRange, Ranges, Spec, parameters, quantised_maps};
use crate::runtime::{self, failed};
use crate::stop;

/// Photos that ranges are measured on.
pub const PHOTOS: usize = 96;

/// How to get the file.
const MEND: &str = "measure it by `lookbook evaluate --calibrate` with the data set that the model was trained on, or train \
                    the model again";

/// The content of `int8.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// Identity of the `predict.onnx` whose maps they are.
    model_id: String,
    /// Photos of the train part that they were measured on.
    photos: usize,
    /// By the name of the map's layer.
    maps: BTreeMap<String, Figures>,
}

/// Measured ranges, to be written as `int8.json`.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Ranged(Content);

/// The numbers of a map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Figures {
    /// Lower end of its range.
    low: f32,
    /// Upper end of each channel's range.
    high: Vec<f32>,
    /// Mean of each channel.
    mean: Vec<f32>,
}

/// The ranges of a network's maps, as read.
#[derive(Debug, Clone)]
pub struct Calibration {
    ranges: Ranges,
    content: Vec<u8>,
}

impl Calibration {
    /// Reads the content of the `int8.json` at `path`, for the network `predict`.
    ///
    /// # Errors
    /// [`Error::Input`] if it is damaged or was measured for another network.
    pub fn parse(path: &Path, content: Vec<u8>, predict: &[u8]) -> Result<Self> {
        let bad = |problem: String| Error::input(path, format!("{problem}; {MEND}"));
        let read: Content = serde_json::from_slice(&content).map_err(|cause| bad(format!("is damaged ({cause})")))?;
        let id = id_of(predict);
        if read.model_id != id {
            return Err(bad(format!("was measured for the model {}, and this one is {id}", read.model_id)));
        }
        let spec = graph::read_spec(predict).map_err(bad)?;
        let mut maps = read.maps;
        let channels = channels(&spec);
        let of_map = |name: String| {
            let figures = maps.remove(&name).filter(|it| it.is_valid(channels[&format!("{name}.bias")]));
            let Figures { low, high, mean } = figures.ok_or_else(|| bad(format!("has no valid range of '{name}'")))?;
            Ok((name, MapRange { low, high, mean }))
        };
        let ranges = quantised_maps(&spec).into_iter().map(of_map).collect::<Result<_>>()?;
        Ok(Self { ranges, content })
    }

    /// The error for a model without the file.
    pub(super) fn missing(path: &Path) -> Error {
        Error::input(path, format!("is missing: int8 needs the ranges of the network's maps; {MEND}"))
    }

    /// The ranges of all [`quantised_maps`].
    #[must_use]
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// The file's bytes.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// SHA-256 of the file.
    #[must_use]
    pub fn digest(&self) -> String {
        files::digest_of(&self.content)
    }
}

impl Figures {
    /// Of no photos.
    fn none(channels: usize) -> Self {
        Self { low: 0.0, high: vec![0.0; channels], mean: vec![0.0; channels] }
    }

    /// Adds those of another photo, the `count`th: least, largest and mean of each channel, `[3, channels]`. The largest
    /// number of all pixels is the end of a channel's range: lower ends, and those of some of the pixels, cut off what is rare
    /// and cost many times as many pixels.
    fn add(&mut self, found: &[f32], count: usize) {
        let channels = self.high.len();
        let (least, rest) = found.split_at(channels);
        let (largest, mean) = rest.split_at(channels);
        self.low = least.iter().fold(self.low, |low, &it| low.min(it));
        self.high.iter_mut().zip(largest).for_each(|(high, &it)| *high = high.max(it));
        self.mean.iter_mut().zip(mean).for_each(|(mean, &it)| *mean += (it - *mean) / count as f32);
    }

    fn is_valid(&self, channels: usize) -> bool {
        let is_finite = |values: &[f32]| values.len() == channels && values.iter().all(|it| it.is_finite());
        let ends = self.low.is_finite() && self.low <= 0.0 && self.high.iter().all(|&it| it >= 0.0);
        ends && is_finite(&self.high) && is_finite(&self.mean)
    }
}

/// Length of each tensor's first dimension by its name: channels of the maps.
fn channels(spec: &Spec) -> BTreeMap<String, usize> {
    parameters::parameters(spec).into_iter().map(|it| (it.name, it.dims[0])).collect()
}

/// Measures the ranges of the network `predict`, the content of a `predict.onnx`, on up to [`PHOTOS`] photos of the train
/// part, chosen by `seed`.
///
/// # Errors
/// [`Error::Input`] if there are no photos to train on; whatever reading them fails with; as [`measure_on`].
pub fn measure(dataset: &Dataset, predict: &[u8], seed: u64, threads: usize) -> Result<Ranged> {
    let index = dataset.index()?;
    let train: Vec<u32> = index.iter().filter(|it| it.split == Split::Train).map(|it| it.photo_id).collect();
    if train.is_empty() {
        return Err(Error::input(dataset.photos_path(), "has no photos in the train split to measure ranges on"));
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let chosen = index::sample(&mut random, train.len(), PHOTOS.min(train.len())).into_iter();
    let ids: Vec<u32> = chosen.map(|at| train[at]).collect();
    let spec = graph::read_spec(predict).map_err(|problem| Error::input(INT8_FILE, problem))?;
    let source = dataset.photos_path();
    let photos = dataset.photos_of(&ids)?.into_iter();
    measure_on(predict, photos.map(|it| Ok(Example::new(&spec, &source, &it)?.canvas.pixels)), threads)
}

/// Measures the ranges of the network `predict` on photos on its canvas, `[rows, columns, 3]` each.
///
/// # Errors
/// [`Error::Input`] if the network is not one of ours, [`Error::Runtime`]; those of the photos.
pub fn measure_on(predict: &[u8], photos: impl Iterator<Item = Result<Vec<u8>>>, threads: usize) -> Result<Ranged> {
    let (spec, weights) = graph::read_predict(predict).map_err(|problem| Error::input(INT8_FILE, problem))?;
    let engine = Engine::cpu(Dialect::Native, threads);
    let (mut session, _) = runtime::session(INT8_FILE, |_| graph::figures(&spec, &weights), engine)?;
    let channels = channels(&spec);
    let of_map = |name: String| {
        let figures = Figures::none(channels[&format!("{name}.bias")]);
        (name, figures)
    };
    let mut maps: BTreeMap<String, Figures> = quantised_maps(&spec).into_iter().map(of_map).collect();
    let mut count = 0;
    for pixels in photos {
        stop::check()?;
        let photo = Tensor::from_array(([1, spec.rows(), spec.columns(), 3], pixels?)).map_err(failed(INT8_FILE))?;
        let outputs = session.run(ort::inputs! { "photos" => photo }).map_err(failed(INT8_FILE))?;
        count += 1;
        for (name, figures) in &mut maps {
            let (_, found) = outputs[&name[..]].try_extract_tensor::<f32>().map_err(failed(INT8_FILE))?;
            figures.add(found, count);
        }
    }
    Ok(Ranged(Content { model_id: id_of(predict), photos: count, maps }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Loss;

    fn model() -> (Spec, Vec<u8>) {
        let spec = Spec { channels: vec![8, 16], ..Spec::seed(32, 48, Loss::Softmax) };
        let predict = graph::predict(&spec, &parameters::initial_weights(&spec, 1));
        (spec, predict)
    }

    fn content(spec: &Spec, predict: &[u8]) -> Content {
        let channels = channels(spec);
        let of_map = |name: String| {
            let numbers = vec![1.0; channels[&format!("{name}.bias")]];
            (name, Figures { low: 0.0, high: numbers.clone(), mean: numbers })
        };
        Content { model_id: id_of(predict), photos: 1, maps: quantised_maps(spec).into_iter().map(of_map).collect() }
    }

    fn parse(content: &impl Serialize, predict: &[u8]) -> Result<Calibration> {
        Calibration::parse(Path::new(INT8_FILE), serde_json::to_vec(content).expect("plain data"), predict)
    }

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        // Two channels of two photos: least, largest, mean of each.
        let mut figures = Figures::none(2);
        figures.add(&[0.0, 1.0, 2.0, 3.0, 1.0, 2.0], 1);
        assert_eq!((figures.low, &figures.high[..], &figures.mean[..]), (0.0, &[2.0, 3.0][..], &[1.0, 2.0][..]));
        figures.add(&[-1.0, 0.5, 1.0, 5.0, 0.0, 4.0], 2);
        assert_eq!((figures.low, &figures.high[..], &figures.mean[..]), (-1.0, &[2.0, 5.0][..], &[0.5, 3.0][..]));
    }

    #[test]
    fn what_was_written_is_read_and_what_is_wrong_is_named() {
        let (spec, predict) = model();
        let good = content(&spec, &predict);
        let names: Vec<_> = parse(&good, &predict).expect("it is valid").ranges().keys().cloned().collect();
        assert_eq!(names, ["down1a", "down1b", "down2a", "down2b"]);
        let mut lacking = good.clone();
        lacking.maps.remove("down2a");
        let mut short = good.clone();
        short.maps.entry("down1b".to_owned()).and_modify(|it| it.high.truncate(1));
        let mut negative = good.clone();
        negative.maps.entry("down1a".to_owned()).and_modify(|it| it.high[0] = -1.0);
        let other = Content { model_id: "0123456789abcdef".to_owned(), ..good };
        for (content, expected) in
            [(lacking, "'down2a'"), (short, "'down1b'"), (negative, "'down1a'"), (other, "0123456789abcdef")]
        {
            let problem = parse(&content, &predict).expect_err("it is invalid").to_string();
            assert!(problem.contains(INT8_FILE) && problem.contains(expected), "{problem}");
            assert!(problem.contains("lookbook evaluate --calibrate"), "{problem}");
        }
        let damaged = Calibration::parse(Path::new(INT8_FILE), b"{\"model_id\": 3".to_vec(), &predict);
        let problem = damaged.expect_err("it is damaged").to_string();
        assert!(problem.contains("is damaged"), "{problem}");
    }
}
