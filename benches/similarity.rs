//! One photo against a table, and the ten nearest of all photos, by each measure. `latent` in all 228 dimensions is what
//! `pearson` would cost as a dense product.

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use lookbook::features::rows::{self, Embedding, FeatureRow, Format, PART_ROWS};
use lookbook::features::{FeatureTable, PixelCounts};
use lookbook::labels::{CATEGORY_COUNT, CELL_COUNT, LabelSet};
use lookbook::photo::hashes::PhotoHashes;
use lookbook::similarity::{self, Comparison, Config, Correlator, Matrix, Measure};
use lookbook::stage::Common;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const PHOTOS: usize = 100_000;
const NEAREST_PHOTOS: usize = 5_000;
/// Of the embeddings.
const DIMENSIONS: usize = 512;

/// A drawn embedding of length 1.
fn unit(random: &mut ChaCha8Rng) -> Vec<f32> {
    let vector: Vec<f32> = (0..DIMENSIONS).map(|_| random.random_range(-1.0..1.0)).collect();
    let length = vector.iter().map(|it| it * it).sum::<f32>().sqrt();
    vector.into_iter().map(|it| it / length).collect()
}

/// A feature table of `photos` photos in `folder`: nine cells each on average, some of them common to most photos.
fn write_features(folder: &Path, photos: usize, embedding: Option<&Embedding>) {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut rows = Vec::with_capacity(PART_ROWS);
    for photo_id in 0..photos as u32 {
        let odds = |cell: usize| 0.6 / (1.0 + cell as f64 / 4.0).powf(0.9);
        let count = |cell| if random.random::<f64>() < odds(cell) { random.random_range(1..20_000) } else { 0 };
        let cell_px: Vec<u32> = (0..CELL_COUNT).map(count).collect();
        let apparel_px = cell_px.iter().sum();
        let row = FeatureRow {
            photo_id,
            file_name: String::new(),
            path: String::new(),
            content_sha256: String::new(),
            model_id: String::new(),
            width_px: 400,
            height_px: 600,
            photo_width_px: 400,
            photo_height_px: 600,
            counts: PixelCounts { category_px: vec![0; CATEGORY_COUNT], apparel_px, cell_px },
            hashes: PhotoHashes::default(),
            embedding: embedding.is_some().then(|| unit(&mut random)),
        };
        rows.push(row);
        if rows.len() == PART_ROWS || photo_id as usize == photos - 1 {
            let part = folder.join(lookbook::table::part_name(photo_id as usize / PART_ROWS));
            let batch = rows::batch_of(&LabelSet::cfpd(), &rows, embedding);
            rows::write_part(&part, &batch, Format::Parquet).expect("the part is written");
            rows.clear();
        }
    }
}

fn comparisons() -> Vec<(String, Comparison)> {
    let all = Measure::ALL.into_iter().map(|measure| (measure.name().to_owned(), measure.into()));
    let dense = Comparison { latent_dimensions: CELL_COUNT, ..Measure::Latent.into() };
    all.chain([("latent in 228 dimensions".to_owned(), dense)]).collect()
}

fn one_photo(criterion: &mut Criterion) {
    let place = tempfile::tempdir().expect("a temporary folder");
    write_features(place.path(), PHOTOS, None);
    let features = FeatureTable::open(place.path()).expect("the table opens");
    let mut group = criterion.benchmark_group("one photo against 100,000");
    for (name, comparison) in comparisons().into_iter().filter(|(_, it)| it.measure != Measure::Embedding) {
        let correlator = Correlator::new(&features, comparison);
        let itself = correlator.correlate(features.row(7))[7];
        assert!((itself - 1.0).abs() < 1e-5, "{name}: a photo correlates with itself by {itself}");
        group.bench_function(&name, |bencher| bencher.iter(|| correlator.correlate(features.row(7))));
    }
}

fn nearest_of_all(criterion: &mut Criterion) {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (features, output) = (place.path().join("features"), place.path().join("similarity"));
    std::fs::create_dir(&features).expect("a folder");
    let embedding = Embedding { dimensions: DIMENSIONS, embedder: "drawn".to_owned() };
    write_features(&features, NEAREST_PHOTOS, Some(&embedding));
    let mut group = criterion.benchmark_group("ten nearest of 5,000, the whole stage");
    group.sample_size(10);
    for (name, Comparison { measure, min_common, latent_dimensions }) in comparisons() {
        let (features, output) = (features.clone(), output.clone());
        let config = Config {
            features,
            output,
            measure,
            min_common,
            latent_dimensions,
            matrix: Matrix::None,
            ..Config::default()
        };
        let run = || {
            similarity::run(&config, &Common::default()).expect("the stage runs").published().expect("no gate is set")
        };
        assert!(run().counts["neighbours"].as_u64() > Some(9 * NEAREST_PHOTOS as u64), "{name}");
        group.bench_function(&name, |bencher| bencher.iter(run));
    }
}

criterion_group!(benches, one_photo, nearest_of_all);
criterion_main!(benches);
