//! Training that is killed, refused, bounded and published: the program itself, on small photos.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::encoder::write_small_encoder;
use crate::python::python;
use crate::shared::library;
use lookbook::dataset::{Dataset, Split};
use lookbook::engine::Engine;
use lookbook::graph::{Dialect, Precision};
use lookbook::model::epochs::{self, EpochRecord};
use lookbook::model::evaluation::{self, Among, Evaluation};
use lookbook::model::weights::read_weights;
use lookbook::runtime;
use lookbook::stage::Summary;
use lookbook::train::checkpoint::{Checkpoint, Checkpoints};

const SETTINGS: &str = r#"
seed = 4
threads = 2
[train]
recipe = "seed"
dataset = "dataset"
output = "model"
epochs = 24
batch_size = 5
learning_rate = 3e-3
schedule = "cosine"
loss = "softmax"
photo_width_px = 40
photo_height_px = 60
device = "cpu"
publish = "best"
"#;

/// A folder with a converted data set of 20 photos, a licence, and settings.
struct Place {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl Place {
    fn new() -> Option<Self> {
        let place = Self { folder: tempfile::tempdir().unwrap(), library: library()? };
        fs::write(place.path("train.toml"), SETTINGS).unwrap();
        place.succeeds(&["sample", "--photos", "20", "--output", "sample"]);
        fs::write(place.path("sample/LICENSE"), "\n  Licence of Drawings\n\nVersion 1\nDo as you like.\n").unwrap();
        place.succeeds(&["convert", "--source", "sample", "--output", "dataset"]);
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lookbook"));
        command.env_clear().env("ORT_DYLIB_PATH", &self.library).current_dir(self.folder.path());
        command.args(arguments).args(["--config", "train.toml"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        text_of(&self.command(arguments).output().unwrap())
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let (code, text) = self.run(arguments);
        assert_eq!(code, 0, "{text}");
        text
    }

    /// The epochs that lie as checkpoints in the unfinished folder of `output`.
    fn unfinished(&self, output: &str) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(self.path(&format!(".{output}.partial/checkpoints"))) else { return Vec::new() };
        let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
        let epoch = |name: String| name.strip_prefix("epoch-")?.strip_suffix(".safetensors")?.parse().ok();
        let mut epochs: Vec<u32> = names.filter_map(epoch).collect();
        epochs.sort_unstable();
        epochs
    }

    /// Begins a run into `output` and kills it once epoch `epoch` is done.
    fn leave(&self, output: &str, epoch: u32) {
        let mut child = self.command(&["train", "--output", output]).spawn().unwrap();
        wait_for(&mut child, || self.unfinished(output).last() >= Some(&epoch));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!self.path(output).exists(), "it was killed before its end");
    }

    fn newest(&self, output: &str) -> PathBuf {
        let epoch = *self.unfinished(output).last().unwrap();
        self.path(&format!(".{output}.partial/checkpoints/epoch-{epoch:04}.safetensors"))
    }

    fn counts(&self, output: &str) -> lookbook::stage::Figures {
        Summary::read(&self.path(output)).unwrap().counts
    }

    fn history(&self, output: &str) -> Vec<EpochRecord> {
        epochs::read(&self.path(output).join("history.parquet")).unwrap()
    }

    /// That two runs had the same losses but for that share of them.
    fn losses_agree(&self, one: &str, other: &str, share: f32) {
        let [a, b] = [one, other].map(|output| self.history(output));
        assert!(!a.is_empty() && a.len() == b.len());
        for (a, b) in a.iter().zip(&b) {
            assert!((a.train_loss / b.train_loss - 1.0).abs() < share, "{a:?} and {b:?}");
        }
    }

    /// That two runs came to the same: losses, metrics and weights within 1e-6, the epoch that was published.
    fn are_alike(&self, one: &str, other: &str) {
        let [a, b] = [one, other].map(|output| self.history(output));
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(&b) {
            let figures = a.figures().zip(b.figures()).filter(|((name, _), _)| !name.ends_with("_secs"));
            for ((name, a), (_, b)) in figures.filter(|((name, _), _)| *name != "photos_per_sec") {
                assert!((a - b).abs() <= 1e-6, "{name}: {a} and {b}");
            }
        }
        let last = format!("checkpoints/epoch-{:04}.safetensors", a.len());
        for file in ["weights.safetensors", &last] {
            let [a, b] = [one, other].map(|output| read_weights(&self.path(output).join(file)).unwrap().1);
            let difference = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference <= 1e-6, "{file}: weights differ by {difference}");
        }
        for name in ["published_epoch", "best_epoch", "steps", "epochs", "ended_by"] {
            assert_eq!(self.counts(one)[name], self.counts(other)[name], "{name}");
        }
    }
}

fn text_of(output: &Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

/// Waits until `condition` holds; fails where the child ends before.
fn wait_for(child: &mut Child, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_mins(2), "it never came true");
        assert!(child.try_wait().unwrap().is_none() || condition(), "it ended before");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_as_one_that_was_not() {
    let Some(place) = Place::new() else { return };
    // What goes from step to step is most with this recipe: averages, statistics and what is drawn for photos beside
    // the rest.
    fs::write(place.path("train.toml"), SETTINGS.replace("\"seed\"", "\"best\"")).unwrap();
    place.succeeds(&["train", "--epochs", "12", "--output", "whole"]);
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut kills = 0;
    let text = loop {
        let mut child = place.command(&["train", "--epochs", "12", "--resume"]).spawn().unwrap();
        // Every other time right at the beginning, else at any moment once it got further.
        let before = place.unfinished("model").last().copied();
        if kills % 2 == 0 {
            std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
        } else {
            let got_further = || place.path("model").exists() || place.unfinished("model").last().copied() > before;
            wait_for(&mut child, got_further);
            std::thread::sleep(Duration::from_millis(rng.random_range(0..1200)));
        }
        if child.try_wait().unwrap().is_some() {
            break text_of(&child.wait_with_output().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    };
    assert_eq!(text.0, 0, "{}", text.1);
    assert!(kills >= 4, "it was killed {kills} times");
    println!("killed {kills} times");
    assert!(place.counts("model")["resumed_after_epoch"].as_u64().is_some());
    place.are_alike("whole", "model");
    let left = walk(&place.path("model")).into_iter().filter(|name| name.contains(".partial-")).count();
    assert_eq!(left, 0, "nothing half-written is published");
}

fn walk(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let names =
        entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path.to_string_lossy().into_owned()] });
    names.collect()
}

#[test]
fn a_damaged_newest_checkpoint_gives_way_to_the_one_before() {
    let Some(place) = Place::new() else { return };
    // A batch in three parts: their sum of gradients is not carried from step to step.
    let in_parts = SETTINGS.replace("batch_size = 5", "batch_size = 5\nmicro_batch_size = 2");
    fs::write(place.path("train.toml"), in_parts).unwrap();
    place.succeeds(&["train", "--output", "whole"]);
    place.leave("model", 3);
    let newest = place.newest("model");
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() - 100]).unwrap();
    let dry = place.succeeds(&["train", "--resume", "--dry-run"]);
    // A kill between two files may leave one more than are kept.
    let before = *place.unfinished("model").iter().rev().nth(1).unwrap();
    assert!(dry.contains(&format!("resumed_after_epoch: {before}")) && dry.contains("steps: 96"), "{dry}");
    let text = place.succeeds(&["train", "--resume"]);
    let named = newest.file_name().unwrap().to_str().unwrap();
    assert!(text.contains(named) && text.contains("is damaged"), "{text}");
    assert!(text.contains(&format!("resuming after epoch {before} of 24")), "{text}");
    place.are_alike("whole", "model");
}

#[test]
fn a_run_of_another_kind_is_refused_by_what_differs_and_stays() {
    let Some(place) = Place::new() else { return };
    place.leave("model", 2);
    place.succeeds(&["sample", "--photos", "21", "--output", "sample21"]);
    place.succeeds(&["convert", "--source", "sample21", "--output", "dataset21"]);
    let left = place.unfinished("model");
    for (flags, named) in [
        (&["--epochs", "30"][..], "setting epochs is 30, was 24"),
        (&["--seed", "5"], "seed is 5, was 4"),
        (&["--loss", "bce"], "the network is "),
        (&["--dataset", "dataset21"], "the data set (SHA-256 of photos.parquet) is "),
    ] {
        let (code, text) = place.run(&[&["train", "--resume"], flags].concat());
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(named) && text.contains("omit --resume to start over"), "{text}");
        assert_eq!(place.unfinished("model"), left, "nothing was touched");
    }
    let text = place.succeeds(&["train", "--resume=auto", "--epochs", "2"]);
    assert!(text.contains("setting epochs is 2, was 24; starting over"), "{text}");
    assert_eq!(place.counts("model")["resumed_after_epoch"], Value::Null);
    assert_eq!(place.history("model").len(), 2);
}

#[test]
fn without_resume_an_unfinished_run_is_named_and_begun_anew() {
    let Some(place) = Place::new() else { return };
    place.leave("model", 2);
    // The same data converted elsewhere, another device and another end are the same run.
    place.succeeds(&["convert", "--source", "sample", "--output", "again"]);
    let text = place.succeeds(&["train", "--resume", "--dataset", "again", "--patience", "23", "--dry-run"]);
    assert!(text.contains("resumed_after_epoch: "), "{text}");
    let text = place.succeeds(&["train", "--epochs", "2"]);
    assert!(text.contains(".model.partial/checkpoints holds an unfinished run (up to epoch-00"), "{text}");
    assert_eq!(place.history("model").len(), 2);
    assert!(!place.path(".model.partial").exists());
    // Where there is nothing to go on with, --resume begins.
    place.succeeds(&["train", "--epochs", "2", "--resume", "--output", "fresh"]);
    place.are_alike("model", "fresh");
}

#[test]
fn a_loss_that_is_not_finite_is_named_with_its_photos_and_the_last_checkpoint() {
    let Some(place) = Place::new() else { return };
    let (code, text) = place.run(&["train", "--learning-rate", "1e38"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("the loss or a weight: is not finite in epoch 1, step 1 (photos 00"), "{text}");
    assert!(text.contains("there is no checkpoint yet"), "{text}");

    place.leave("model", 2);
    let mut broken = Checkpoint::read(&place.newest("model")).unwrap();
    broken.state[0].1.fill(f32::NAN);
    let (folder, epoch) = (place.path(".model.partial/checkpoints"), broken.epoch());
    Checkpoints::start(folder, Some(&broken)).unwrap().save(&broken).unwrap();
    let (code, text) = place.run(&["train", "--resume"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&format!("is not finite in epoch {}, step 1 (photos 00", epoch + 1)), "{text}");
    let last = format!(".model.partial/checkpoints/epoch-{epoch:04}.safetensors; a lower learning_rate");
    assert!(text.contains(&last), "{text}");
    assert!(!place.path("model").exists());
}

#[test]
fn a_run_ends_where_patience_or_time_does_and_publishes_what_was_asked_for() {
    let Some(place) = Place::new() else { return };
    // With steps of nothing every epoch is as good as the first.
    let still = ["train", "--learning-rate", "1e-30", "--patience", "3"];
    let text = place.succeeds(&[&still[..], &["--output", "still"]].concat());
    assert!(text.contains("stopping after epoch 4 of 24: no better validation result for 3 epochs"), "{text}");
    let counts = place.counts("still");
    assert_eq!((&counts["ended_by"], &counts["epochs"]), (&"patience".into(), &4.into()));
    assert_eq!((&counts["published_epoch"], &counts["best_epoch"]), (&1.into(), &1.into()));
    place.succeeds(&[&still[..], &["--output", "still", "--publish", "last"]].concat());
    assert_eq!(place.counts("still")["published_epoch"], 4);

    // No time at all: one step.
    let text = place.succeeds(&["train", "--max-minutes", "1e-9"]);
    assert!(text.contains("stopping in epoch 1 of 24, after step 1 of 96: time is up (max_minutes)"), "{text}");
    let counts = place.counts("model");
    assert_eq!((&counts["ended_by"], &counts["steps"]), (&"max_minutes".into(), &1.into()));
    // The time of a run that goes on counts from where it goes on, and the schedule is that of all epochs.
    place.leave("bounded", 2);
    place.succeeds(&["train", "--output", "bounded", "--resume", "--max-minutes", "1e-9"]);
    place.succeeds(&["train", "--output", "whole"]);
    let (bounded, whole) = (place.history("bounded"), place.history("whole"));
    let done = bounded.len() - 1;
    assert!(done >= 2);
    assert_eq!(bounded[done - 1].learning_rate, whole[done - 1].learning_rate);
    assert_eq!(bounded[done - 1].train_loss, whole[done - 1].train_loss);
    assert_eq!(place.counts("bounded")["steps"], 4 * done + 1);
    for bad in ["0", "-1", "nan"] {
        assert_eq!(place.run(&["train", "--max-minutes", bad]).0, 2, "{bad}");
    }
}

#[test]
fn the_model_card_says_what_the_model_is() {
    let Some(place) = Place::new() else { return };
    place.succeeds(&["train"]);
    let card: Value = serde_json::from_slice(&fs::read(place.path("model/model.json")).unwrap()).unwrap();
    let made = Summary::read(&place.path("model")).unwrap();
    assert_eq!(card["dataset"]["sha256"], made.inputs[0].sha256.as_str());
    assert_eq!(card["dataset"]["licence"]["title"], "Licence of Drawings, Version 1");
    let text = fs::read(place.path("model/DATA_LICENSE")).unwrap();
    assert_eq!(text, fs::read(place.path("sample/LICENSE")).unwrap());
    assert_eq!(card["dataset"]["train_photos"], 16);
    assert_eq!(card["model_id"], made.counts["model_id"]);
    assert_eq!(card["network"]["parameters"], 486_015);
    assert_eq!(card["training"]["settings"]["photo_width_px"], 40);
    let evaluation: Value = serde_json::from_slice(&fs::read(place.path("model/evaluation.json")).unwrap()).unwrap();
    assert_eq!(card["metrics"]["test"]["mean_iou"], evaluation["mean_iou"]);
    // The weights are those of the best epoch.
    let history = place.history("model");
    let best = epochs::best(&history).unwrap();
    assert_eq!(card["training"]["published_epoch"], best.epoch);
    let published = card["metrics"]["validation"]["mean_iou"].as_f64().unwrap() as f32;
    assert_eq!(published, best.validation_mean_iou);
    let of_checkpoint = read_weights(&place.path("model/checkpoints/best.safetensors")).unwrap();
    assert_eq!(read_weights(&place.path("model/weights.safetensors")).unwrap(), of_checkpoint);
    // Without a licence beside the source nothing is claimed.
    fs::remove_file(place.path("sample/LICENSE")).unwrap();
    place.succeeds(&["convert", "--source", "sample", "--output", "dataset"]);
    place.succeeds(&["train", "--epochs", "1"]);
    let card: Value = serde_json::from_slice(&fs::read(place.path("model/model.json")).unwrap()).unwrap();
    assert_eq!(card["dataset"]["licence"], Value::Null);
}

#[test]
fn a_model_is_evaluated_on_a_data_set_that_has_nothing_but_a_test_part() {
    let Some(place) = Place::new() else { return };
    place.succeeds(&["train", "--epochs", "1"]);
    place.succeeds(&["sample", "--photos", "5", "--seed", "9", "--output", "other"]);
    let all_test = format!("[convert]\nsplit = [0, 0, 1]\n{}", SETTINGS.trim_start());
    fs::write(place.path("train.toml"), all_test.replace("seed = 4\nthreads = 2\n", "")).unwrap();
    place.succeeds(&["convert", "--source", "other", "--output", "tests"]);
    let counts = place.counts("tests");
    assert_eq!(["train", "validation", "test"].map(|split| counts[split].clone()), [0, 0, 5].map(Value::from));
    let text = place.succeeds(&["evaluate", "--dataset", "tests", "--model", "model"]);
    assert!(text.contains("photos: 5"), "{text}");
    let evaluation: Value = serde_json::from_slice(&fs::read(place.path("model/evaluation.json")).unwrap()).unwrap();
    assert_eq!((&evaluation["split"], &evaluation["photos"]), (&"test".into(), &5.into()));
    assert!(evaluation["color_pixel_accuracy"].is_number(), "its colours are compared with the model's table");
    place.succeeds(&["segment", "--catalogue", "tests", "--from", "labels", "--output", "looks"]);
    let (code, text) = place.run(&["train", "--dataset", "tests", "--output", "none"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("photos.parquet: has no photos in the train split"), "{text}");
    let (code, text) = place.run(&["run", "--source", "other", "--output", "night"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("'convert.split': [0, 0, 1] has no train split, so nothing can be trained"), "{text}");
    assert!(!place.path("night/dataset").exists(), "that is known before the first stage");
}

/// Lines of [train] in place of `epochs = 24`.
fn settings(lines: &str) -> String {
    SETTINGS.replace("epochs = 24", lines)
}

#[test]
fn training_starts_from_a_model_of_the_same_network() {
    let Some(place) = Place::new() else { return };
    place.succeeds(&["train", "--epochs", "6", "--output", "first"]);
    place.succeeds(&["sample", "--photos", "12", "--seed", "9", "--output", "other"]);
    place.succeeds(&["convert", "--source", "other", "--output", "others"]);
    // Another data set, another photo size, and steps of nothing: the weights stay what they were.
    let other = settings("epochs = 1\nstart_from = \"first\"").replace("width_px = 40", "width_px = 48");
    fs::write(place.path("train.toml"), other).unwrap();
    let train = ["train", "--dataset", "others"];
    place.succeeds(&[&train[..], &["--output", "same", "--learning-rate", "1e-30"]].concat());
    let weights = |output: &str| read_weights(&place.path(output).join("weights.safetensors")).unwrap().1;
    assert_eq!(weights("same"), weights("first"));
    assert_eq!(place.counts("same")["started_from"], place.counts("first")["model_id"]);
    let card: Value = serde_json::from_slice(&fs::read(place.path("same/model.json")).unwrap()).unwrap();
    assert_eq!(card["training"]["started_from"], place.counts("first")["model_id"]);
    // The model is part of what the new one is made from.
    place.succeeds(&[&train[..], &["--output", "next"]].concat());
    let text = place.succeeds(&[&train[..], &["--output", "next", "--if-changed"]].concat());
    assert!(text.contains("up to date"), "{text}");
    fs::rename(place.path("first"), place.path("kept")).unwrap();
    place.succeeds(&[&train[..], &["--epochs", "2", "--start-from", "kept", "--output", "first"]].concat());
    let text = place.succeeds(&[&train[..], &["--output", "next", "--if-changed"]].concat());
    assert!(!text.contains("up to date"), "{text}");
    assert_eq!(place.counts("next")["started_from"], place.counts("first")["model_id"]);

    let (code, text) = place.run(&[&train[..], &["--output", "bad", "--loss", "bce"]].concat());
    assert_eq!(code, 2, "{text}");
    let named = "the network in first has loss = \"softmax\", the one to train loss = \"bce\"";
    assert!(text.contains("train.start_from") && text.contains(named), "{text}");
    fs::remove_dir_all(place.path("first/checkpoints")).unwrap();
    let (code, text) = place.run(&[&train[..], &["--output", "bad"]].concat());
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("first/checkpoints: has no checkpoint of the published epoch"), "{text}");
    let (code, text) = place.run(&[&train[..], &["--output", "bad", "--start-from", "sample"]].concat());
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("sample: is not a model folder"), "{text}");
    assert!(!place.path("bad").exists());
}

#[test]
fn smaller_photos_come_first_and_a_killed_run_ends_as_one_that_was_not() {
    let Some(place) = Place::new() else { return };
    let two_sizes = "epochs = 12\nsmall_epochs = 5\nsmall_scale = 0.5\nrare_sampling = 0.5\naugment_erase = 0.3";
    fs::write(place.path("train.toml"), settings(two_sizes)).unwrap();
    let text = place.succeeds(&["train", "--output", "whole"]);
    for named in ["photos of 20 x 30 pixels up to epoch 5", "photos of 40 x 60 pixels up to epoch 12"] {
        assert!(text.contains(named), "{text}");
    }
    let history = place.history("whole");
    let sizes: Vec<_> = history.iter().map(|it| (it.photo_width_px, it.photo_height_px)).collect();
    assert_eq!(sizes, [vec![(20, 30); 5], vec![(40, 60); 7]].concat());
    let rates: Vec<f32> = history.iter().map(|it| it.learning_rate).collect();
    assert!(rates.is_sorted_by(|a, b| a > b), "one schedule over both: {rates:?}");
    let counts = place.counts("whole");
    assert!(counts["best_epoch"].as_u64() > Some(5), "the best of the last size");
    assert_eq!(read_weights(&place.path("whole/weights.safetensors")).unwrap().0.photo_width_px, 40);
    for epoch in [4, 5, 6] {
        place.leave("killed", epoch);
        place.succeeds(&["train", "--output", "killed", "--resume"]);
        place.are_alike("whole", "killed");
        for file in ["weights.safetensors", "predict.onnx", "train_step.onnx"] {
            let [a, b] = ["whole", "killed"].map(|output| fs::read(place.path(output).join(file)).unwrap());
            assert!(a == b, "{file} after a kill in epoch {epoch}");
        }
        fs::remove_dir_all(place.path("killed")).unwrap();
    }
    // Time may be up among the smaller photos: the network is for whole ones all the same.
    place.succeeds(&["train", "--output", "short", "--max-minutes", "1e-9"]);
    assert_eq!(read_weights(&place.path("short/weights.safetensors")).unwrap().0.photo_width_px, 40);
}

#[test]
fn a_model_with_an_encoder_and_a_presence_head_starts_another_on_two_photo_sizes() {
    let Some(place) = Place::new() else { return };
    write_small_encoder(&place.path("mobilenetv2.safetensors"), 0.1);
    let network = "encoder = \"mobilenetv2.safetensors\"\nchannels = [16, 8, 8, 8]\npresence = 0.2\nlogit_scale = 4";
    let with = |lines: &str| settings(&format!("{network}\n{lines}")).replace("\"seed\"", "\"pretrained\"");
    fs::write(place.path("train.toml"), with("epochs = 2")).unwrap();
    place.succeeds(&["train", "--output", "first"]);
    // Steps of nothing: the weights stay the published ones, neither the encoder file's nor drawn ones.
    fs::write(place.path("train.toml"), with("epochs = 2\nsmall_epochs = 1\nstart_from = \"first\"")).unwrap();
    let train = ["train", "--output", "same", "--learning-rate", "1e-30"];
    let text = place.succeeds(&train);
    assert!(text.contains("photos of 20 x 30 pixels up to epoch 1"), "{text}");
    let state = |output: &str, name: &str| {
        let epoch = place.counts(output).count("published_epoch").unwrap();
        let folder = place.path(output).join("checkpoints");
        let checkpoint = Checkpoint::of_epoch(&folder, epoch as u32).unwrap().unwrap();
        checkpoint.state.into_iter().find(|(it, _)| it == name).unwrap().1
    };
    assert_eq!(state("same", "weights"), state("first", "average"));
    assert_ne!(state("same", "statistics"), state("first", "statistics"), "those are of the photos seen");
    let spec = read_weights(&place.path("same/weights.safetensors")).unwrap().0;
    assert_eq!((spec.photo_width_px, spec.logit_scale, spec.presence), (40, 4, true));
    let without = with("epochs = 2\nstart_from = \"first\"").replace("presence = 0.2", "presence = 0.0");
    fs::write(place.path("train.toml"), without).unwrap();
    let (code, text) = place.run(&["train", "--output", "bad"]);
    assert_eq!(code, 2, "{text}");
    let named = "the network in first has presence = true, the one to train presence = none";
    assert!(text.contains("train.start_from") && text.contains(named), "{text}");
}

#[test]
fn photos_without_labels_join_the_train_part_alone() {
    let Some(place) = Place::new() else { return };
    place.succeeds(&["train", "--epochs", "8", "--output", "teacher"]);
    place.succeeds(&["sample", "--photos", "10", "--seed", "9", "--output", "other"]);
    fs::copy(place.path("sample/image/0001.jpg"), place.path("other/image/known.jpg")).unwrap();
    fs::write(place.path("other/image/bad.jpg"), "no photo").unwrap();
    let lines = "epochs = 1\nunlabelled = \"other/image\"\nunlabelled_model = \"teacher\"\nunlabelled_confidence = 0.5";
    fs::write(place.path("train.toml"), settings(lines)).unwrap();
    let text = place.succeeds(&["train"]);
    assert!(text.contains("bad.jpg is left out"), "{text}");
    let counts = place.counts("model");
    let counted = ["unlabelled_photos", "unlabelled_in_dataset", "unlabelled_unreadable"].map(|it| counts[it].clone());
    assert_eq!(counted, [10, 1, 1].map(Value::from));
    let share = counts["pseudo_labelled_share"].as_f64().unwrap();
    assert!(share > 0.2 && share < 1.0, "{share}");
    // 16 photos with labels and 10 without, in batches of 5; the validation part is what it was.
    assert_eq!(
        (&counts["steps"], &counts["train_photos"], &counts["validation_photos"]),
        (&6.into(), &16.into(), &2.into())
    );
    let text = place.succeeds(&["train", "--if-changed"]);
    assert!(text.contains("up to date"), "{text}");
    fs::remove_file(place.path("other/image/bad.jpg")).unwrap();
    let text = place.succeeds(&["train", "--if-changed"]);
    assert!(!text.contains("up to date"), "{text}");
    let (code, text) = place.run(&["train", "--loss", "bce"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("train.unlabelled': requires loss = \"softmax\""), "{text}");
}

#[test]
fn a_pretrained_encoder_is_an_input_of_the_run() {
    let Some(place) = Place::new() else { return };
    let settings = SETTINGS.replace("recipe = \"seed\"", "recipe = \"pretrained\"\nchannels = [16, 8, 8, 8]");
    fs::write(place.path("train.toml"), format!("dialect = \"portable\"\n{settings}")).unwrap();
    let file = place.path("mobilenetv2.safetensors");
    let train = ["train", "--encoder", "mobilenetv2.safetensors", "--epochs"];
    let (code, text) = place.run(&[&train[..], &["1"]].concat());
    assert_eq!(code, 1, "{text}");
    let missing = "mobilenetv2.safetensors: the pretrained encoder is missing; `make encoder` installs it";
    assert!(text.contains(missing) && !place.path("model").exists(), "{text}");

    write_small_encoder(&file, 0.1);
    place.succeeds(&[&train[..], &["1"]].concat());
    let made = Summary::read(&place.path("model")).unwrap();
    let card: Value = serde_json::from_slice(&fs::read(place.path("model/model.json")).unwrap()).unwrap();
    assert_eq!(made.inputs.len(), 2);
    assert_eq!(made.inputs[1].path.file_name(), file.file_name());
    let encoder = &card["network"]["encoder"];
    assert_eq!(encoder["name"], "mobilenetv2.safetensors");
    assert_eq!(encoder["sha256"], made.inputs[1].sha256.as_str());
    assert_eq!((&encoder["licence"], &encoder["licence_file"]), (&Value::Null, &Value::Null));
    // Under another name it is the same encoder; with other weights another.
    let again = [&train[..], &["1", "--if-changed"]].concat();
    assert!(place.succeeds(&again).contains("nothing to do"));
    fs::copy(&file, place.path("mobilenetv2-copy.safetensors")).unwrap();
    let copy = ["train", "--encoder", "mobilenetv2-copy.safetensors", "--epochs", "1", "--if-changed"];
    assert!(place.succeeds(&copy).contains("nothing to do"));
    write_small_encoder(&file, 0.2);
    fs::write(place.path("LICENSE"), "Licence of Encoders").unwrap();
    assert!(!place.succeeds(&again).contains("nothing to do"));
    let card: Value = serde_json::from_slice(&fs::read(place.path("model/model.json")).unwrap()).unwrap();
    assert_eq!(card["network"]["encoder"]["licence_file"], "ENCODER_LICENSE");
    assert_eq!(fs::read_to_string(place.path("model/ENCODER_LICENSE")).unwrap(), "Licence of Encoders");

    // An unfinished run is resumed with its own encoder alone.
    let other = |encoder: &str, more: &[&str]| {
        let arguments = ["train", "--encoder", encoder, "--output", "other", "--epochs", "8"];
        place.command(&[&arguments, more].concat())
    };
    let mut child = other("mobilenetv2.safetensors", &[]).spawn().unwrap();
    wait_for(&mut child, || place.unfinished("other").last() >= Some(&1));
    child.kill().unwrap();
    child.wait().unwrap();
    let left = place.unfinished("other");
    let resume = |encoder: &str| text_of(&other(encoder, &["--resume"]).output().unwrap());
    let (code, text) = resume("mobilenetv2-copy.safetensors");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("the encoder (SHA-256) is "), "{text}");
    assert_eq!(place.unfinished("other"), left, "nothing was touched");
    fs::rename(&file, place.path("mobilenetv2-moved.safetensors")).unwrap();
    let (code, text) = resume("mobilenetv2-moved.safetensors");
    assert_eq!(code, 0, "{text}");
    assert_eq!(place.counts("other")["resumed_after_epoch"], left[left.len() - 1]);
}

#[test]
fn an_evaluation_looks_for_neighbours_in_the_whole_data_set() {
    let Some(place) = Place::new() else { return };
    place.succeeds(&["train", "--epochs", "1"]);
    let read = || -> Evaluation { evaluation::read(&place.path("model")).unwrap() };
    let trained = read();
    let index = Dataset::open(&place.path("dataset")).unwrap().index().unwrap();
    let tested: Vec<u32> = index.iter().filter(|it| it.split == Split::Test).map(|it| it.photo_id).collect();
    assert_eq!(trained.by_photo.iter().map(|it| it.photo_id).collect::<Vec<_>>(), tested);
    for features in &trained.features {
        let looked: Vec<_> = features.neighbours.iter().map(|it| (it.among, it.top, it.photos)).collect();
        let [part, all] = [tested.len(), index.len()].map(|photos| photos as u64);
        let expected = [(Among::Part, part), (Among::Dataset, all)];
        let expected = expected.into_iter().flat_map(|(among, photos)| [1, 5, 10].map(|top| (among, top, photos)));
        assert_eq!(looked, expected.collect::<Vec<_>>());
        assert!(features.neighbours[5].true_neighbours_found.is_some_and(|it| (0.0..=1.0).contains(&it)));
    }
    for photo in &trained.by_photo {
        assert_eq!(photo.nearest_by_labels.len(), 10, "among all photos");
        assert!(!photo.nearest_by_labels.contains(&photo.photo_id));
    }
    // The means over the photos are those of the whole part: all photos have one size.
    let mean = trained.by_photo.iter().map(|it| it.pixel_accuracy).sum::<f64>() / tested.len() as f64;
    assert!((mean - trained.pixel_accuracy).abs() < 1e-9);
    let presence = trained.features[0].presence.as_ref().unwrap();
    let cells = trained.by_photo.iter().map(|it| it.cells_by_labels).sum::<u32>();
    assert_eq!(presence.cells_by_labels, f64::from(cells) / tested.len() as f64);

    place.succeeds(&["evaluate", "--dataset", "dataset", "--model", "model"]);
    assert_eq!(read(), trained, "training evaluates as the command does");
    place.succeeds(&[
        "evaluate",
        "--dataset",
        "dataset",
        "--model",
        "model",
        "--whole-dataset",
        "false",
        "--min-share",
        "1.0",
    ]);
    let part = read();
    assert!(part.features[0].neighbours.iter().all(|it| it.among == Among::Part));
    assert!(part.features[0].presence.as_ref().unwrap().cells_by_labels < presence.cells_by_labels);
    assert_eq!(place.run(&["evaluate", "--dataset", "dataset", "--model", "model", "--min-region", "7"]).0, 2);
    // Files of older versions have neither.
    let mut old: Value = serde_json::from_slice(&fs::read(place.path("model/evaluation.json")).unwrap()).unwrap();
    old.as_object_mut().unwrap().remove("by_photo");
    let features = old["features"].as_array_mut().unwrap();
    for it in features {
        it.as_object_mut().unwrap().retain(|key, _| !["presence", "neighbours"].contains(&key.as_str()));
    }
    fs::write(place.path("model/evaluation.json"), old.to_string()).unwrap();
    assert!(read().features[0].presence.is_none());
}

#[test]
fn tensorboard_reads_a_run_that_was_killed_and_gone_on_with() {
    let (Some(place), Some(mut python)) = (Place::new(), python()) else { return };
    place.leave("model", 3);
    place.succeeds(&["train", "--resume"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/tensorboard_in_python.py");
    let (code, text) = text_of(&python.arg(script).arg(place.path("model")).output().unwrap());
    assert_eq!(code, 0, "{text}");
    // The first epoch, every third, the last one: of as many photos as the validation part has.
    assert!(text.contains("8 figures of 24 epochs, 18 pictures of 2 photos"), "{text}");
}

#[test]
fn what_the_readme_of_an_export_says_runs() {
    let (Some(place), Some(mut python)) = (Place::new(), python()) else { return };
    // The graph of this recipe takes and gives most.
    fs::write(place.path("train.toml"), SETTINGS.replace("\"seed\"", "\"best\"")).unwrap();
    place.succeeds(&["train", "--epochs", "3"]);
    place.succeeds(&["export", "--model", "model", "--output", "export"]);
    let readme = fs::read_to_string(place.path("export/README.md")).unwrap();
    let blocks = readme.split("```python\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let code: Vec<&str> = blocks.collect();
    assert_eq!(code.len(), 2);
    let output = python.current_dir(place.path("export")).args(["-c", &code.concat()]).output().unwrap();
    let (status, text) = text_of(&output);
    assert_eq!(status, 0, "{text}");
    let step = place.counts("model")["published_epoch"].as_u64().unwrap() * 4;
    assert!(text.starts_with("{'bk': ") && text.contains(&format!("step {}: loss ", step + 3)), "{text}");
    for line in readme.lines().filter(|line| line.starts_with("| `")) {
        let name = line.split('`').nth(1).unwrap();
        assert!(place.path("export").join(name).is_file(), "{name}");
    }
}

#[test]
fn cuda_learns_what_the_cpu_learns_or_says_that_it_cannot() {
    let Some(place) = Place::new() else { return };
    let cuda = ["train", "--output", "cuda", "--device", "cuda", "--epochs", "2", "--dialect", "portable"];
    let (code, text) = place.run(&cuda);
    if code != 0 {
        assert!(text.contains("CUDA does not work here") && text.contains("'--device cpu' does without"), "{text}");
        assert!(!place.path("cuda").exists());
        crate::shared::skip("there is no CUDA device to train on");
        return;
    }
    assert_eq!(Summary::read(&place.path("cuda")).unwrap().execution_provider.as_deref(), Some("cuda"));
    place.succeeds(&["train", "--output", "cpu", "--epochs", "2", "--dialect", "portable"]);
    place.losses_agree("cuda", "cpu", 0.01);
    fs::write(place.path("train.toml"), half_precision()).unwrap();
    place.succeeds(&cuda);
    assert_eq!(place.counts("cuda")["precision"], "f16");
    place.losses_agree("cuda", "cpu", 0.05);
}

fn half_precision() -> String {
    SETTINGS.replace("[train]", "[train]\nmixed_precision = true")
}

/// What native operators compute in with `mixed_precision`, on this processor.
fn native_half() -> &'static str {
    let engine = Engine::cpu(Dialect::Native, 2);
    let precision = runtime::mixed_precision(Dialect::Native, engine);
    if precision == Precision::F32 {
        crate::skip::skip("this processor has no AVX-512-BF16");
    }
    precision.name()
}

#[test]
fn half_precision_is_that_of_the_operators_and_recorded() {
    let Some(place) = Place::new() else { return };
    let train = ["train", "--epochs", "2", "--dialect"];
    place.succeeds(&[&train[..], &["portable", "--output", "single"]].concat());
    assert_eq!(place.counts("single")["precision"], "f32");
    fs::write(place.path("train.toml"), half_precision()).unwrap();
    let of_portable = ("portable", "portable", "auto", "f16");
    let of_native = [("native", "native", "auto", native_half()), ("plain", "native", "portable", "f32")];
    for (output, dialect, instructions, precision) in [of_portable].into_iter().chain(of_native) {
        let rest = [dialect, "--output", output, "--instructions", instructions];
        let text = place.succeeds(&[&train[..], &rest].concat());
        assert!(text.contains(&format!("train runs on cpu, {dialect} operators")), "{text}");
        assert_eq!(place.counts(output)["precision"], precision);
        let card: Value = serde_json::from_slice(&fs::read(place.path(output).join("model.json")).unwrap()).unwrap();
        assert_eq!(card["training"]["precision"], precision);
        let said = text.matches("mixed_precision on the CPU needs AVX-512-BF16").count();
        assert_eq!(said, usize::from(precision == "f32"), "{text}");
        place.losses_agree("single", output, if precision == "f32" { 1e-3 } else { 0.05 });
    }
}

/// Over two photo sizes, which are two training steps.
#[test]
fn a_killed_run_in_half_precision_ends_as_one_that_was_not() {
    let Some(place) = Place::new() else { return };
    let settings = half_precision().replace("epochs = 24", "epochs = 12\nsmall_epochs = 5\nsmall_scale = 0.5");
    fs::write(place.path("train.toml"), &settings).unwrap();
    place.succeeds(&["train", "--output", "whole"]);
    assert_eq!(place.counts("whole")["precision"], native_half());
    let history = place.history("whole");
    assert!(history.last().unwrap().train_loss < 0.8 * history[0].train_loss, "something is learnt");
    place.leave("killed", 6);
    fs::write(place.path("train.toml"), settings.replace("mixed_precision = true", "")).unwrap();
    let (code, text) = place.run(&["train", "--output", "killed", "--resume"]);
    assert!(code == 1 && text.contains("mixed_precision"), "{text}");
    fs::write(place.path("train.toml"), &settings).unwrap();
    place.succeeds(&["train", "--output", "killed", "--resume"]);
    let [a, b] = ["whole", "killed"].map(|output| fs::read(place.path(output).join("weights.safetensors")).unwrap());
    assert!(a == b, "the weights of a resumed run are those of one that was not interrupted");
}

#[test]
fn identical_runs_write_identical_bytes() {
    let Some(place) = Place::new() else { return };
    for output in ["first", "second"] {
        place.succeeds(&["train", "--epochs", "3"]);
        fs::rename(place.path("model"), place.path(output)).unwrap();
    }
    let files = |output: &str| -> BTreeMap<PathBuf, Vec<u8>> {
        let root = place.path(output);
        let entries =
            walkdir::WalkDir::new(&root).into_iter().map(Result::unwrap).filter(|it| it.file_type().is_file());
        entries.map(|it| (it.path().strip_prefix(&root).unwrap().to_owned(), fs::read(it.path()).unwrap())).collect()
    };
    let [mut first, mut second] = ["first", "second"].map(files);
    assert_eq!(first.keys().filter(|it| it.starts_with("checkpoints")).count(), 3);
    for files in [&mut first, &mut second] {
        // Where a clock has its say: the time of the run, and the speed of its epochs.
        for timed in ["run.json", "history.parquet", "loss.csv"] {
            assert!(files.remove(Path::new(timed)).is_some(), "{timed}");
        }
        let card = files.get_mut(Path::new("model.json")).unwrap();
        let mut value: Value = serde_json::from_slice(card).unwrap();
        assert!(value["created_at"].take().is_string());
        *card = value.to_string().into_bytes();
        files.retain(|name, _| !name.starts_with("tensorboard"));
    }
    assert!(first.len() > 8, "{:?}", first.keys());
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (name, bytes) in &first {
        assert!(second[name] == *bytes, "{} differs", name.display());
    }
    let times: Vec<f32> =
        epochs::read(&place.path("first/history.parquet")).unwrap().iter().map(|it| it.elapsed_secs).collect();
    assert!(times[0] > 0.0 && times.is_sorted(), "{times:?}");
}
