//! Lookbook as a contestant of `scripts/peers/bench.py`, in a process of its own.
//!
//! ```text
//! bench_worker export FOLDER                            writes FOLDER/predict.onnx, label maps alone, for the peers
//! bench_worker step ENGINE FOLDER BATCH THREADS         training steps
//! bench_worker prediction ENGINE FOLDER BATCH THREADS   photos to label maps
//! ```
//!
//! ENGINE is `native` or `portable` on the CPU, or `cuda`; `native-bf16` predicts and `cuda-f16` learns in that precision.
//! FOLDER holds the examples and weights of `scripts/peers/inputs.py`. Speaks by lines: `round` does the work once and
//! answers `{"secs": ...}`, with `loss` where it learns; `maps PATH` writes the last label maps there, u8. Ends with its
//! input.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

use lookbook::engine::PrecisionChoice::{self, Bf16, F32};
use lookbook::engine::{Device, Engine};
use lookbook::graph::{self, Dialect, Precision, Spec};
use lookbook::model::files::{PREDICT_FILE, WEIGHTS_FILE};
use lookbook::model::{Model, weights};
use lookbook::photo::Photo;
use lookbook::train::examples::Batch;
use lookbook::train::step::{Rates, Task, TrainingStep};
use safetensors::SafeTensors;
use serde_json::json;

const LEARNING_RATE: f32 = 1e-3;

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
                ("step", "portable") => steps(&inputs, Engine::cpu(Dialect::Portable, threads), Precision::F32),
                ("step", "cuda") => steps(&inputs, cuda, Precision::F32),
                ("step", "cuda-f16") => steps(&inputs, cuda, Precision::F16),
                ("prediction", "native") => predictions(&inputs, Engine::cpu(Dialect::Native, threads), F32),
                ("prediction", "native-bf16") => predictions(&inputs, Engine::cpu(Dialect::Native, threads), Bf16),
                ("prediction", "portable") => predictions(&inputs, Engine::cpu(Dialect::Portable, threads), F32),
                ("prediction", "cuda") => predictions(&inputs, cuda, F32),
                _ => Err(format!("there is no {task} by '{engine}'").into()),
            }
        }
        _ => Err("usage: bench_worker export FOLDER | step|prediction ENGINE FOLDER BATCH THREADS".into()),
    }
}

fn export(folder: &Path) -> Result<()> {
    let (spec, weights) = weights::read_weights(&folder.join(WEIGHTS_FILE))?;
    Ok(fs::write(folder.join(PREDICT_FILE), graph::label_maps(Dialect::Portable, Precision::F32, &spec, &weights))?)
}

/// What the contestants start from.
struct Inputs {
    spec: Spec,
    weights: Vec<f32>,
    /// `[size, rows, columns, 3]`.
    photos: Vec<u8>,
    /// `[size, rows, columns]`.
    labels: Vec<u8>,
    size: usize,
}

impl Inputs {
    fn load(folder: &Path, size: usize) -> Result<Self> {
        let (spec, weights) = weights::read_weights(&folder.join(WEIGHTS_FILE))?;
        let bytes = fs::read(folder.join("examples.safetensors"))?;
        let examples = SafeTensors::deserialize(&bytes)?;
        let pixels = size * spec.rows() * spec.columns();
        let photos = examples.tensor("photos")?.data()[..3 * pixels].to_vec();
        let labels = examples.tensor("labels")?.data()[..pixels].to_vec();
        Ok(Self { spec, weights, photos, labels, size })
    }

    fn batch(&self) -> Batch {
        Batch { photos: self.photos.clone(), labels: self.labels.clone(), size: self.size }
    }

    fn photos(&self) -> Vec<Photo> {
        let (rows, columns) = (self.spec.rows(), self.spec.columns());
        let photo = |rgb: &[u8]| Photo { width_px: columns as u32, height_px: rows as u32, rgb: rgb.to_vec() };
        self.photos.chunks_exact(rows * columns * 3).map(photo).collect()
    }
}

fn steps(inputs: &Inputs, engine: Engine, precision: Precision) -> Result<()> {
    let zeros = vec![0.0; inputs.weights.len()];
    let state = vec![inputs.weights.clone(), zeros.clone(), zeros];
    let task = Task { precision, ..Task::plain(&inputs.spec) };
    let mut step = TrainingStep::new(task, usize::MAX, state, 0, engine)?;
    for line in std::io::stdin().lines() {
        if line? != "round" {
            return Err("a training step has no label maps".into());
        }
        let batch = inputs.batch();
        let started = Instant::now();
        let learnt = step.run(batch, Rates::plain(LEARNING_RATE))?;
        println!("{}", json!({ "secs": started.elapsed().as_secs_f64(), "loss": learnt.loss }));
    }
    Ok(())
}

fn predictions(inputs: &Inputs, engine: Engine, precision: PrecisionChoice) -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join(PREDICT_FILE), graph::predict(&inputs.spec, &inputs.weights))?;
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
