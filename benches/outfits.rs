//! What is worn together in a million photos, and scores from photo to photo by ten million events.

use criterion::{Criterion, criterion_group, criterion_main};
use lookbook::features::FeatureTable;
use lookbook::interactions::{Event, Interactions, MAX_PHOTOS_PER_USER, Users};
use lookbook::labels::{CELL_COUNT, LabelSet};
use lookbook::worn::{Garments, Outfits, PairCounts};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const PHOTOS: usize = 1_000_000;
const EVENTS: usize = 10_000_000;
const USERS: u64 = 500_000;
/// The first user is a robot that chooses so many photos.
const OF_ROBOT: usize = 1_000_000;

/// Nine cells a photo on average, some of them common to most photos.
fn features() -> FeatureTable {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut cells = vec![0.0; PHOTOS * CELL_COUNT];
    for row in cells.chunks_exact_mut(CELL_COUNT) {
        for (cell, share) in row.iter_mut().enumerate() {
            let odds = 0.6 / (1.0 + cell as f32 / 4.0).powf(0.9);
            *share = if random.random::<f32>() < odds { 0.1 } else { 0.0 };
        }
    }
    FeatureTable {
        photo_ids: (0..PHOTOS as u32).collect(),
        file_names: vec![String::new(); PHOTOS],
        paths: vec![String::new(); PHOTOS],
        content_sha256: vec![String::new(); PHOTOS],
        apparel_px: vec![1; PHOTOS],
        cells,
        embeddings: None,
        labels: LabelSet::cfpd(),
    }
}

fn worn(criterion: &mut Criterion) {
    let features = features();
    let per_category = features.labels.cells_per_category();
    let photo = Garments::of(features.row(7), per_category);
    let outfits = Outfits::new(&features);
    let expected = (0..PHOTOS).filter(|&row| outfits.worn(row).has(photo)).count();
    assert_eq!(outfits.photos_with(photo) as usize, expected);
    let mut group = criterion.benchmark_group("1,000,000 photos");
    group.sample_size(10);
    group.bench_function("every two garments and cells", |bencher| bencher.iter(|| PairCounts::of(&features)));
    group.bench_function("outfits", |bencher| bencher.iter(|| Outfits::new(&features)));
    group.bench_function("what goes with one photo", |bencher| bencher.iter(|| outfits.associations(photo)));
}

/// Users and photos of very different frequency: the squares of evenly drawn numbers.
fn events() -> Vec<Event> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut skewed = |most: f64| (random.random::<f64>().powi(2) * most) as u64;
    let drawn = |number: usize| match number {
        0..OF_ROBOT => Event { user: 0, row: number as u32, weight: 1.0 },
        _ => Event { user: 1 + skewed(USERS as f64), row: skewed(PHOTOS as f64) as u32, weight: 1.0 },
    };
    (0..EVENTS).map(drawn).collect()
}

fn chosen(criterion: &mut Criterion) {
    let events = events();
    let users = Users::new(events.clone(), MAX_PHOTOS_PER_USER);
    assert_eq!(users.capped, 1, "the robot alone");
    let interactions = Interactions::new(users, PHOTOS);
    let mut group = criterion.benchmark_group("10,000,000 events of 1,000,000 photos");
    group.sample_size(10);
    group.bench_function("made ready", |bencher| {
        bencher.iter(|| Interactions::new(Users::new(events.clone(), MAX_PHOTOS_PER_USER), PHOTOS));
    });
    group.bench_function("the most chosen photo's scores", |bencher| bencher.iter(|| interactions.scores(&[(0, 1.0)])));
}

criterion_group!(benches, worn, chosen);
criterion_main!(benches);
