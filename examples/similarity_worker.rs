//! What `scripts/peers/similarity.py` times of lookbook where a peer's result stays in memory: correlates all photos of a
//! features folder with all by a measure, `[photos, photos]` f32, and prints the seconds as JSON.

use std::path::Path;
use std::time::Instant;

use lookbook::features::FeatureTable;
use lookbook::similarity::{Correlator, Measure};
use rayon::prelude::*;

fn main() -> lookbook::Result<()> {
    let [_, folder, measure] = &std::env::args().collect::<Vec<_>>()[..] else {
        eprintln!("usage: similarity_worker FEATURES MEASURE");
        std::process::exit(2);
    };
    let features = FeatureTable::open(Path::new(folder))?;
    let measure = Measure::ALL.into_iter().find(|it| it.name() == measure).unwrap_or_default();
    let start = Instant::now();
    let correlator = Correlator::new(&features, measure.into());
    let matrix: Vec<Vec<f32>> = (0..features.len()).into_par_iter().map(|row| correlator.row(row)).collect();
    let elapsed_secs = start.elapsed().as_secs_f64();
    assert_eq!(matrix.len(), features.len());
    println!("{}", serde_json::json!({ "secs": elapsed_secs }));
    Ok(())
}
