//! Seeded mutation tests: files of every kind that the program reads, changed at random, are read or refused by name; no
//! reader panics, aborts or hangs. `make fuzz MINUTES=30` tries other seeds for as long, with an address limit.
//!
//! The mutator is a few lines by hand: cargo-fuzz needs a nightly compiler, and structure-aware crates mutate types, not files.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::embedding::write_drawn;
use crate::model::write_flat_model;
use crate::parser;
use crate::shared::drawn_sample;
use lookbook::dataset::Dataset;
use lookbook::features::{Embeddings, FeatureStatistics, FeatureTable};
use lookbook::graph::{Loss, Spec, parameters};
use lookbook::mat::ccp::Ccp;
use lookbook::mat::cfpd::Cfpd;
use lookbook::model::Model;
use lookbook::photo;
use lookbook::runs::history;
use lookbook::segment;
use lookbook::settings::Settings;
use lookbook::stage::{Common, Summary};
use lookbook::train::checkpoint::Checkpoint;
use lookbook::train::tensorboard::EventFile;
use lookbook::{convert, model, similarity};

/// Mutated files of each kind in `make test`.
const TRIES: u64 = 150;
/// A file of a few kilobytes that takes longer is one that the reader hangs on.
const LONGEST: Duration = Duration::from_secs(30);
/// Values that lengths and offsets go wrong at.
const EXTREMES: [u32; 6] = [0, 1, 0x7f, 0x7fff_ffff, 0x8000_0000, u32::MAX];

/// A kind of file: valid ones, and a reader of the mutated one, which says what is wrong with it.
struct Kind {
    name: &'static str,
    /// The file, relative to the folder that `read` is given.
    file: &'static str,
    seeds: Vec<Vec<u8>>,
    read: fn(&Path) -> Result<(), String>,
}

fn said<T>(result: lookbook::Result<T>) -> Result<(), String> {
    result.map(drop).map_err(|error| error.with_causes())
}

fn read_photo(folder: &Path) -> Result<(), String> {
    let bytes = fs::read(folder.join("photo")).unwrap();
    // The reason is a code; whoever reads the file adds its name.
    photo::decode(&bytes).map(drop).map_err(|problem| format!("photo {}", problem.reason))
}

fn read_cfpd(folder: &Path) -> Result<(), String> {
    let source = Cfpd::open(&folder.join("fashon_parsing_data.mat")).map_err(|error| error.with_causes())?;
    (0..source.len().min(20)).try_for_each(|entry| said(source.annotation(entry)))
}

fn read_ccp(folder: &Path) -> Result<(), String> {
    let source = Ccp::open(folder).map_err(|error| error.with_causes())?;
    (0..source.len()).try_for_each(|entry| said(source.annotation(entry)))
}

fn read_list(folder: &Path, list: &str) -> Result<(), String> {
    let [catalogue, model, output] = [list, "model", "features"].map(|name| folder.join(name));
    let config = segment::Config { catalogue, model, output, ..segment::Config::default() };
    said(segment::run(&config, &Common { dry_run: true, ..Common::default() }))
}

fn read_settings(folder: &Path) -> Result<(), String> {
    let settings = Settings::read(Some(&folder.join("settings.toml"))).map_err(|error| error.with_causes())?;
    // The checks name the setting, the reader the file.
    said(settings.check()).map_err(|problem| format!("settings.toml: {problem}"))
}

/// The files of every kind, valid, in `place`.
fn kinds(place: &Path) -> Vec<Kind> {
    let [source, dataset, model] = ["source", "dataset", "model"].map(|name| place.join(name));
    let common = Common::default();
    drawn_sample(&source, 2);
    let config = convert::Config { source, output: dataset.clone(), ..convert::Config::default() };
    convert::run(&config, &common).unwrap().published().unwrap();
    let [features, similarities] = ["features", "similarity"].map(|name| place.join(name));
    let from = segment::LabelSource::Labels;
    let (catalogue, output) = (dataset.clone(), features.clone());
    let config = segment::Config { catalogue, output, from, ..segment::Config::default() };
    segment::run(&config, &common).unwrap().published().unwrap();
    let (table, output) = (features.clone(), similarities.clone());
    let config = similarity::Config { features: table, output, ..similarity::Config::default() };
    similarity::run(&config, &common).unwrap().published().unwrap();
    let neighbours = similarities.join("neighbours.parquet");
    write_flat_model(&model, 1);
    let spec = Spec::seed(16, 32, Loss::Bce);
    let weights = parameters::initial_weights(&spec, 0);
    let weights_file = place.join("weights.safetensors");
    model::weights::write_weights(&weights_file, &spec, &weights).unwrap();
    let drawn = place.join("embeddings");
    write_drawn(&drawn, 5, 7);
    let bytes = |path: PathBuf| fs::read(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()));
    let photos =
        ["baseline_420.jpg", "progressive_422.jpg", "restarts.jpg", "palette.png", "lossy.webp", "orientation_6.jpg"];
    let mat = |kind: &str| {
        let entries = fs::read_dir(Path::new("tests/data/mat_kinds").join(kind)).unwrap();
        let mut paths: Vec<_> = entries.map(|it| it.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| crate::mat::inflate(&fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let events = place.join("events");
    fs::create_dir_all(&events).unwrap();
    drop(EventFile::open(&events, 0).unwrap());
    let event = fs::read_dir(&events).unwrap().next().unwrap().unwrap().path();
    let line = r#"{"run":"a","id":"1","stage":"convert","output":"out","state":"complete","exit_code":0,"error":null,"started_at":"2026-01-01T00:00:00Z","ended_at":null,"elapsed_secs":1.5,"version":"0.1.0","counts":{"photos":3},"gates":[]}"#;
    let kind = |name, file, seeds, read| Kind { name, file, seeds, read };
    vec![
        kind(
            "photo",
            "photo",
            photos.map(|name| bytes(Path::new("tests/data/photos").join(name))).to_vec(),
            read_photo,
        ),
        kind("v5", "annotations/pixel-level/0001.mat", mat("v5"), read_ccp),
        kind("v73", "fashon_parsing_data.mat", mat("v73"), read_cfpd),
        kind("list", "list.csv", vec![b"photo_id,path\n1,a.jpg\n2,\"b, c.jpg\"\n".to_vec()], |folder| {
            read_list(folder, "list.csv")
        }),
        kind("table_list", "list.parquet", vec![bytes(features.join("part-00000.parquet"))], |folder| {
            read_list(folder, "list.parquet")
        }),
        kind("features", "part-00000.parquet", vec![bytes(features.join("part-00000.parquet"))], |folder| {
            said(FeatureTable::open(folder)).and_then(|()| said(FeatureStatistics::scan(folder)))
        }),
        kind("embeddings", "part-00000.parquet", vec![bytes(drawn.join("part-00000.parquet"))], |folder| {
            said(Embeddings::read(folder)).and_then(|()| said(FeatureStatistics::scan(folder)))
        }),
        kind("neighbours", "neighbours.parquet", vec![bytes(neighbours)], |folder| {
            said(similarity::read_neighbours(folder))
        }),
        kind(
            "settings",
            "settings.toml",
            vec![bytes("pipelines/real.toml".into()), bytes("pipelines/best.toml".into())],
            read_settings,
        ),
        kind("events", "x.lookbook", vec![bytes(event)], |folder| said(EventFile::open(folder, 1))),
        kind("weights", "weights.safetensors", vec![bytes(weights_file.clone())], |folder| {
            said(model::weights::read_weights(&folder.join("weights.safetensors")))
        }),
        kind("checkpoint", "epoch.safetensors", vec![bytes(weights_file)], |folder| {
            said(Checkpoint::read(&folder.join("epoch.safetensors")))
        }),
        kind("record", "run.json", vec![bytes(dataset.join("run.json"))], |folder| said(Summary::read(folder))),
        kind("history", "history.ndjson", vec![line.into()], |folder| said(history::read(folder))),
        kind("dataset", "photos.parquet", vec![bytes(dataset.join("photos.parquet"))], |folder| {
            said(Dataset::open(folder).and_then(|it| it.index()))
        }),
        kind("network", "predict.onnx", vec![bytes(model.join("predict.onnx"))], |folder| said(Model::open(folder))),
        kind("parser", "parser.toml", vec![parser::declared().into()], |folder| said(Model::open(folder))),
    ]
}

/// Changes a file at one to four places.
fn mutated(random: &mut ChaCha8Rng, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.random_range(1..=4) {
        let len = bytes.len();
        if len < 8 {
            return bytes;
        }
        // Headers are at the beginning, and what is in them matters most.
        let end = if random.random_bool(0.5) { len.min(512) } else { len };
        let (at, size) = (random.random_range(0..end), random.random_range(1..=64));
        let stop = (at + size).min(len);
        match random.random_range(0..7) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random_range(0..=255),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..stop)),
            4 => {
                let block = bytes[at..stop].to_vec();
                bytes.splice(at..at, block);
            }
            5 => bytes[at..stop].fill(if random.random_bool(0.5) { 0 } else { 255 }),
            _ => {
                let extreme = EXTREMES[random.random_range(0..EXTREMES.len())];
                let at = at.min(len - 4);
                let word = if random.random_bool(0.5) { extreme.to_le_bytes() } else { extreme.to_be_bytes() };
                bytes[at..at + 4].copy_from_slice(&word);
            }
        }
    }
    bytes
}

/// Reads one mutated file; what is wrong if that does not end as promised.
fn try_one(kind: &Kind, folder: &Path, bytes: &[u8]) -> Result<(), String> {
    let path = folder.join(kind.file);
    fs::write(&path, bytes).unwrap();
    let started = Instant::now();
    let result = panic::catch_unwind(AssertUnwindSafe(|| (kind.read)(folder)));
    let took = started.elapsed();
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    match result {
        Err(_) => Err("it panicked".to_owned()),
        _ if took > LONGEST => Err(format!("it took {took:?}")),
        // A table in parts goes by its folder's name.
        Ok(Err(problem)) if !problem.contains(&name) && !problem.contains(kind.name) => {
            Err(format!("the message does not name the file: {problem}"))
        }
        Ok(_) => Ok(()),
    }
}

fn prepare(kind: &Kind, place: &Path) -> PathBuf {
    let folder = place.join("mutated").join(kind.name);
    fs::create_dir_all(folder.join(kind.file).parent().unwrap()).unwrap();
    match kind.name {
        "v5" => {
            fs::create_dir_all(folder.join("photos")).unwrap();
            fs::write(folder.join("photos/0001.jpg"), "").unwrap();
            crate::mat::write_label_list(&folder);
        }
        "dataset" => ["categories.parquet", "colors.parquet", "rejects.parquet", "run.json"].iter().for_each(|name| {
            fs::copy(place.join("dataset").join(name), folder.join(name)).unwrap();
        }),
        "list" | "table_list" => write_flat_model(&folder.join("model"), 1),
        _ => {}
    }
    folder
}

#[test]
fn mutated_files_are_read_or_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let minutes: u64 = std::env::var("LOOKBOOK_FUZZ_MINUTES").map_or(0, |it| it.parse().expect("a number of minutes"));
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let first = if minutes > 0 { std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() } else { 0 };
    let (mut tried, mut broken) = (0, Vec::new());
    let kinds: Vec<_> = kinds(place.path()).into_iter().map(|kind| (prepare(&kind, place.path()), kind)).collect();
    for (folder, kind) in &kinds {
        assert!(!kind.seeds.is_empty(), "{} has no valid file", kind.name);
        fs::write(folder.join(kind.file), &kind.seeds[0]).unwrap();
    }
    for seed in first.. {
        if seed - first >= TRIES && Instant::now() >= until {
            break;
        }
        for (folder, kind) in &kinds {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let bytes = mutated(&mut random, &kind.seeds[seed as usize % kind.seeds.len()]);
            tried += 1;
            if let Err(problem) = try_one(kind, folder, &bytes) {
                let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}-{seed}", kind.name));
                fs::write(&kept, &bytes).unwrap();
                broken.push(format!("{} by seed {seed}: {problem} ({})", kind.name, kept.display()));
            }
        }
    }
    println!("fuzz: {tried} files tried, {} broke a promise (seeds from {first})", broken.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
