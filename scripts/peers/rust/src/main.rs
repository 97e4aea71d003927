//! A contestant of `bench.py` that is written in Rust, in a process of its own: `lookbook-peers CONTESTANT FOLDER BATCH
//! THREADS`
//!
//! CONTESTANT is `burn-step`, `candle-step` or `tract-prediction`. FOLDER is what `inputs.py` wrote, with the `predict.onnx`
//! that lookbook exported. The protocol is that of `worker.py`.

mod burn_step;
mod candle_step;
mod inputs;
mod tract_prediction;

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use inputs::Inputs;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a round comes to.
enum Answer {
    /// The mean loss before the step.
    Loss(f32),
    /// Category of each pixel, `[batch, rows, columns]`.
    Maps(Vec<u8>),
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [contestant, folder, batch, threads] = &arguments[..] else {
        return Err("usage: lookbook-peers CONTESTANT FOLDER BATCH THREADS".into());
    };
    // SAFETY: no other thread runs yet that could read the environment.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads) };
    let inputs = Inputs::load(Path::new(folder), batch.parse()?)?;
    match contestant.as_str() {
        "burn-step" => serve(burn_step::round(&inputs)?),
        "candle-step" => serve(candle_step::round(&inputs)?),
        "tract-prediction" => serve(tract_prediction::round(&inputs, Path::new(folder), threads.parse()?)?),
        other => Err(format!("there is no contestant '{other}'").into()),
    }
}

/// Answers the lines of `bench.py` until there are no more.
fn serve(mut round: impl FnMut() -> Result<Answer>) -> Result<()> {
    let (mut maps, mut out) = (Vec::new(), std::io::stdout());
    for line in std::io::stdin().lines() {
        let line = line?;
        let mut answer = serde_json::json!({});
        if let Some(path) = line.strip_prefix("maps ") {
            std::fs::write(path, &maps)?;
        } else {
            let started = Instant::now();
            let done = round()?;
            answer["secs"] = started.elapsed().as_secs_f64().into();
            match done {
                Answer::Loss(loss) => answer["loss"] = loss.into(),
                Answer::Maps(new) => maps = new,
            }
        }
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}
