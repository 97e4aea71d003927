//! Lookbook as a contestant of `scripts/peers/bench.py`, in a process of its own.
//!
//! ```text
//! bench_worker export FOLDER                            writes FOLDER/predict.onnx, label maps alone, for the peers
//! bench_worker step ENGINE FOLDER BATCH THREADS         training steps
//! bench_worker prediction ENGINE FOLDER BATCH THREADS   photos to label maps
//! ```
//!
//! ENGINE is `native` or `portable` on the CPU, or `cuda`; `native-bf16` and `native-int8` predict in those precisions,
//! `native-bf16`, `cuda-f16` and `portable-f16` learn in them.
//! FOLDER holds the examples and weights of `scripts/peers/inputs.py`: what the recipe `seed` starts from, or `pretrained`.
//! Speaks by lines: `round` does the work once and answers `{"secs": ...}`, with `loss` where it learns; `maps PATH` writes
//! the last label maps there, u8. Ends with its input.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

use lookbook::engine::PrecisionChoice::{self, Bf16, F32, Int8};
use lookbook::engine::{Device, Engine};
use lookbook::graph::encoder::lite0;
use lookbook::graph::{self, Descent, Dialect, LossWeights, Precision, Spec, parameters};
use lookbook::model::files::{INT8_FILE, PREDICT_FILE, WEIGHTS_FILE};
use lookbook::model::{Model, calibration, weights};
use lookbook::photo::Photo;
use lookbook::train::examples::Batch;
use lookbook::train::step::{Rates, Task, TrainingStep};
use lookbook::train::{Config, Recipe};
use safetensors::SafeTensors;
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["export", folder] => export(Path::new(folder)),
        [task, engine, folder, batch, threads] => {
            let inputs = Inputs::load(Path::new(folder), batch.parse()?)?;
            let threads = threads.parse()?;
            let cuda = Engine { device: Device::Cuda, threads, ..Engine::default() };
            match (task, engine) {
                ("step", "native") => steps(&inputs, Engine::cpu(Dialect::Native, threads), Precision::F32),
                ("step", "native-bf16") => steps(&inputs, Engine::cpu(Dialect::Native, threads), Precision::Bf16),
                ("step", "portable") => steps(&inputs, Engine::cpu(Dialect::Portable, threads), Precision::F32),
                ("step", "portable-f16") => steps(&inputs, Engine::cpu(Dialect::Portable, threads), Precision::F16),
                ("step", "cuda") => steps(&inputs, cuda, Precision::F32),
                ("step", "cuda-f16") => steps(&inputs, cuda, Precision::F16),
                ("prediction", "native") => predictions(&inputs, Engine::cpu(Dialect::Native, threads), F32),
                ("prediction", "native-bf16") => predictions(&inputs, Engine::cpu(Dialect::Native, threads), Bf16),
                ("prediction", "native-int8") => predictions(&inputs, Engine::cpu(Dialect::Native, threads), Int8),
                ("prediction", "portable") => predictions(&inputs, Engine::cpu(Dialect::Portable, threads), F32),
                ("prediction", "cuda") => predictions(&inputs, cuda, F32),
                _ => Err(format!("there is no {task} by '{engine}'").into()),
            }
        }
        _ => Err("usage: bench_worker export FOLDER | step|prediction ENGINE FOLDER BATCH THREADS".into()),
    }
}

fn export(folder: &Path) -> Result<()> {
    let (spec, weights) = Start::load(folder)?.folded();
    Ok(fs::write(folder.join(PREDICT_FILE), graph::label_maps(Dialect::Portable, Precision::F32, &spec, &weights))?)
}

/// The network that the contestants start from.
struct Start {
    spec: Spec,
    /// The settings of its recipe.
    config: Config,
    weights: Vec<f32>,
    /// Means and variances of its normalised maps.
    statistics: Vec<f32>,
}

impl Start {
    fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(WEIGHTS_FILE);
        let (spec, weights) = weights::read_weights(&path)?;
        let config = if spec.encoder.is_some() {
            // The peers have the network of the recipe as such: no second head, no enlarged logits, and plain labels.
            Config { presence: 0.0, logit_scale: 1, label_smoothing: 0.0, ..Config::of(Recipe::Pretrained) }
        } else {
            Config::of(Recipe::Seed)
        };
        let of_recipe = Spec {
            loss: config.loss,
            channels: config.channels.clone(),
            stride: config.stride,
            logit_scale: config.logit_scale,
            batch_norm: config.batch_norm,
            presence: config.presence > 0.0,
            encoder: config.encoder.is_some().then(lite0),
            ..spec.clone()
        };
        if spec != of_recipe {
            return Err(format!("{} holds another network than its recipe's, {of_recipe:?}", path.display()).into());
        }
        let bytes = fs::read(&path)?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let mut statistics = Vec::new();
        for tensor in parameters::statistics_tensors(&spec) {
            let (bytes, _) = tensors.tensor(&tensor.name)?.data().as_chunks();
            statistics.extend(bytes.iter().map(|&it| f32::from_le_bytes(it)));
        }
        Ok(Self { spec, config, weights, statistics })
    }

    /// The network that predicts.
    fn folded(&self) -> (Spec, Vec<f32>) {
        (self.spec.folded(), parameters::fold(&self.spec, &self.weights, &self.statistics))
    }

    /// The state before the first step.
    fn state(&self) -> Vec<Vec<f32>> {
        let zeros = vec![0.0; self.weights.len()];
        let mut state = vec![self.weights.clone(), zeros.clone(), zeros];
        if self.spec.batch_norm {
            state.extend([self.weights.clone(), self.statistics.clone()]);
        }
        state
    }
}

/// What the contestants start from.
struct Inputs {
    start: Start,
    /// `[size, rows, columns, 3]`.
    photos: Vec<u8>,
    /// `[size, map rows, map columns]`.
    labels: Vec<u8>,
    size: usize,
}

impl Inputs {
    fn load(folder: &Path, size: usize) -> Result<Self> {
        let start = Start::load(folder)?;
        let bytes = fs::read(folder.join("examples.safetensors"))?;
        let examples = SafeTensors::deserialize(&bytes)?;
        let of_photos = size * start.spec.rows() * start.spec.columns() * 3;
        let of_labels = size * start.spec.map_rows() * start.spec.map_columns();
        let photos = examples.tensor("photos")?.data()[..of_photos].to_vec();
        let labels = examples.tensor("labels")?.data()[..of_labels].to_vec();
        Ok(Self { start, photos, labels, size })
    }

    fn batch(&self) -> Batch {
        Batch { photos: self.photos.clone(), labels: self.labels.clone(), size: self.size }
    }

    fn photos(&self) -> Vec<Photo> {
        let (rows, columns) = (self.start.spec.rows(), self.start.spec.columns());
        let photo = |rgb: &[u8]| Photo { width_px: columns as u32, height_px: rows as u32, rgb: rgb.to_vec() };
        self.photos.chunks_exact(rows * columns * 3).map(photo).collect()
    }
}

fn steps(inputs: &Inputs, engine: Engine, precision: Precision) -> Result<()> {
    let Start { spec, config, .. } = &inputs.start;
    let loss_weights = LossWeights { dice: config.dice, ..LossWeights::PLAIN };
    let descent = Descent { encoder_rate: config.encoder_rate, weight_decay: config.weight_decay };
    let mixed_precision = precision != Precision::F32;
    let task = Task { mixed_precision, loss_weights: &loss_weights, descent, ..Task::plain(spec) };
    let mut step = TrainingStep::new(task, usize::MAX, inputs.start.state(), 0, engine)?;
    if step.precision() != precision {
        return Err(format!("the step is computed in {}", step.precision().name()).into());
    }
    for line in std::io::stdin().lines() {
        if line? != "round" {
            return Err("a training step has no label maps".into());
        }
        let batch = inputs.batch();
        let started = Instant::now();
        let learnt = step.run(batch, Rates::plain(config.learning_rate))?;
        println!("{}", json!({ "secs": started.elapsed().as_secs_f64(), "loss": learnt.loss }));
    }
    Ok(())
}

fn predictions(inputs: &Inputs, engine: Engine, precision: PrecisionChoice) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (spec, weights) = inputs.start.folded();
    let predict = graph::predict(&spec, &weights);
    fs::write(folder.path().join(PREDICT_FILE), &predict)?;
    if precision == Int8 {
        let canvases = inputs.photos.chunks_exact(inputs.photos.len() / inputs.size).map(|it| Ok(it.to_vec()));
        let ranges = calibration::measure_on(&predict, canvases, engine.threads)?;
        fs::write(folder.path().join(INT8_FILE), serde_json::to_vec(&ranges)?)?;
    }
    let mut predictor = Model::open(folder.path())?.predictor(engine, precision)?;
    let photos = inputs.photos();
    let mut maps = Vec::new();
    for line in std::io::stdin().lines() {
        let line = line?;
        if let Some(path) = line.strip_prefix("maps ") {
            fs::write(path, maps.concat())?;
            println!("{}", json!({}));
            continue;
        }
        let started = Instant::now();
        maps = predictor.label_maps(&photos)?;
        println!("{}", json!({ "secs": started.elapsed().as_secs_f64() }));
    }
    Ok(())
}
