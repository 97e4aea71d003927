//! What a reader finds while runs publish, are killed, run out of disk, or are kept back by a gate.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::shared::library;
use lookbook::files;
use lookbook::stage::{Common, Stage, Summary};

fn lookbook(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookbook"));
    command.env_clear().current_dir(place).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn run(place: &Path, arguments: &[&str]) -> (i32, String) {
    let output = lookbook(place, arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A data set, drawn, and its features by its own labels.
fn features(place: &Path) {
    for arguments in [
        &["sample", "--photos", "12", "--output", "sample"][..],
        &["convert", "--source", "sample", "--output", "dataset"],
        &SEGMENT,
    ] {
        let (code, text) = run(place, arguments);
        assert_eq!(code, 0, "{text}");
    }
}

const SEGMENT: [&str; 7] = ["segment", "--catalogue", "dataset", "--from", "labels", "--output", "features"];

/// The hidden things beside the folders, the locks excepted.
fn litter(place: &Path) -> Vec<String> {
    let names = fs::read_dir(place).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    names.filter(|it| it.starts_with('.') && Path::new(it).extension() != Some("lock".as_ref())).collect()
}

fn is_whole(folder: &Path) {
    let summary = Summary::read(folder).unwrap();
    assert!(!summary.files.is_empty());
    assert_eq!(summary.damaged_files(folder), Vec::<String>::new());
}

/// Publishes `out` with two files that hold `text`.
fn publish(place: &Path, text: &str, common: &Common) {
    let stage = Stage::begin("test", &place.join("out"), common, &text).unwrap();
    for name in ["a", "b"] {
        files::write(&stage.path(name), text.as_bytes()).unwrap();
    }
    stage.publish().unwrap().published().expect("it is published");
}

#[test]
fn a_reader_of_a_folder_sees_one_version_while_others_are_published() {
    let place = tempfile::tempdir().unwrap();
    // A reader has the time until its version is cleared; here more come within milliseconds than in a month of nights.
    let common = Common { keep_versions: 50, ..Common::default() };
    publish(place.path(), "0", &common);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = 0;
            while !done.load(Ordering::SeqCst) {
                // As a notebook does that enters the folder first: both files through the folder that was opened.
                let folder = fs::File::open(place.path().join("out")).unwrap();
                let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder));
                let read_one = |name: &str| fs::read_to_string(Path::new(&through).join(name)).unwrap();
                let first = read_one("a");
                std::thread::yield_now();
                assert_eq!(first, read_one("b"));
                read += 1;
            }
            read
        });
        for version in 1..50 {
            publish(place.path(), &version.to_string(), &common);
            std::thread::sleep(Duration::from_millis(2));
        }
        done.store(true, Ordering::SeqCst);
        assert!(reader.join().unwrap() > 10);
    });
}

#[test]
fn as_many_versions_are_kept_as_were_asked_for_and_a_rollback_takes_turns() {
    let place = tempfile::tempdir().unwrap();
    let read = |folder: &str| fs::read_to_string(place.path().join(folder).join("a")).ok();
    let keep = |keep_versions| Common { keep_versions, ..Common::default() };
    for version in ["1", "2", "3", "4"] {
        publish(place.path(), version, &keep(3));
    }
    assert_eq!(read(".out.previous-1").as_deref(), Some("3"));
    assert_eq!(read(".out.previous-2").as_deref(), Some("2"));
    assert_eq!(read(".out.previous-3"), None);
    for expected in ["3", "4"] {
        let (code, text) = run(place.path(), &["rollback", "out", "--dry-run"]);
        assert_eq!(code, 0, "{text}");
        assert_ne!(read("out").as_deref(), Some(expected), "a dry run changes nothing");
        let (code, text) = run(place.path(), &["rollback", "out"]);
        assert_eq!(code, 0, "{text}");
        assert_eq!(read("out").as_deref(), Some(expected));
    }
    publish(place.path(), "5", &keep(1));
    assert!(litter(place.path()).is_empty(), "{:?}", litter(place.path()));
    let (code, text) = run(place.path(), &["rollback", "out"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("no version before"), "{text}");
}

#[test]
fn a_link_to_another_disk_is_followed_and_a_mount_point_is_refused() {
    let (place, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(disk.path().join("real")).unwrap();
    std::os::unix::fs::symlink(disk.path().join("real"), place.path().join("out")).unwrap();
    for version in ["1", "2"] {
        publish(place.path(), version, &Common::default());
    }
    assert!(place.path().join("out").is_symlink());
    assert_eq!(fs::read_to_string(disk.path().join("real/a")).unwrap(), "2");
    let refused = Stage::begin("test", Path::new("/proc"), &Common::default(), &()).expect_err("a mount point");
    assert!(refused.to_string().contains("mount point"), "{refused}");
    assert_eq!(refused.exit_code(), 2);
}

#[test]
fn what_was_killed_leaves_the_old_version_whole_and_no_litter_after_the_next_run() {
    let place = tempfile::tempdir().unwrap();
    features(place.path());
    for moment in 0..12 {
        let mut child = lookbook(place.path(), &SEGMENT).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(25 * moment));
        child.kill().unwrap();
        child.wait().unwrap();
        is_whole(&place.path().join("features"));
    }
    let (code, text) = run(place.path(), &SEGMENT);
    assert_eq!(code, 0, "{text}");
    is_whole(&place.path().join("features"));
    assert!(litter(place.path()).iter().all(|it| it == ".features.previous-1"), "{:?}", litter(place.path()));
}

/// A file system of 8 MiB; `None`, said aloud, where this process may not mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(place: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(place).output();
        if mounted.is_ok_and(|it| it.status.success()) {
            return Some(Self(place.to_owned()));
        }
        crate::shared::skip("no small file system can be mounted here (root may)");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_what_was_published_stays() {
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(place.path()) else { return };
    features(&disk.0);
    let before = Summary::read(&disk.0.join("dataset")).unwrap();
    fs::write(disk.0.join("ballast"), vec![1; 1 << 20]).unwrap();
    let mut ballast = fs::File::options().append(true).open(disk.0.join("ballast")).unwrap();
    while std::io::Write::write_all(&mut ballast, &[1; 1 << 12]).is_ok() {}
    let (code, text) = run(&disk.0, &["convert", "--source", "sample", "--output", "dataset"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("No space left on device") && text.contains("dataset"), "{text}");
    is_whole(&disk.0.join("dataset"));
    assert_eq!(Summary::read(&disk.0.join("dataset")).unwrap().started_at, before.started_at);
    assert!(!disk.0.join(".dataset.partial").exists());
    // Emptied first: a process that another test is just starting may still hold the file open.
    ballast.set_len(0).unwrap();
    fs::remove_file(disk.0.join("ballast")).unwrap();
    let (code, text) = run(&disk.0, &["convert", "--source", "sample", "--output", "dataset"]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_quota_ends_a_run_as_a_kill_does() {
    let place = tempfile::tempdir().unwrap();
    features(place.path());
    // The limit on the size of a file: the kernel ends who goes beyond it.
    let limited = format!("ulimit -f 1; exec {} {}", env!("CARGO_BIN_EXE_lookbook"), SEGMENT.join(" "));
    let status = Command::new("sh").args(["-c", &limited]).current_dir(place.path()).output().unwrap().status;
    assert!(!status.success());
    is_whole(&place.path().join("features"));
    assert_eq!(run(place.path(), &SEGMENT).0, 0);
    assert!(litter(place.path()).iter().all(|it| it == ".features.previous-1"), "{:?}", litter(place.path()));
}

#[test]
fn a_gate_keeps_the_old_version_and_lays_the_new_one_aside() {
    let place = tempfile::tempdir().unwrap();
    features(place.path());
    let before = Summary::read(&place.path().join("features")).unwrap();
    fs::write(place.path().join("strict.toml"), "[gates]\nmin_photos = 100\nmax_category_psi = 0.25\n").unwrap();
    let strict = [&SEGMENT[..], &["--config", "strict.toml"]].concat();
    let (code, text) = run(place.path(), &strict);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("gate min_photos (100): 12 is too low by 88"), "{text}");
    assert!(!text.contains("max_category_psi"), "nothing drifted: {text}");
    assert_eq!(Summary::read(&place.path().join("features")).unwrap().started_at, before.started_at);
    let aside = Summary::read(&place.path().join(".features.rejected")).unwrap();
    assert_eq!(aside.counts["photos"], 12);
    assert_eq!(aside.gates.iter().map(|it| it.passed).collect::<Vec<_>>(), [false, true]);
    assert_eq!(run(place.path(), &SEGMENT).0, 0);
    assert_eq!(litter(place.path()), [".features.previous-1"], "a good version clears what was laid aside");
}

#[test]
fn a_drift_of_the_categories_keeps_the_old_version() {
    let place = tempfile::tempdir().unwrap();
    features(place.path());
    let before = Summary::read(&place.path().join("features")).unwrap();
    fs::write(place.path().join("strict.toml"), "[gates]\nmax_category_psi = 0.001\n").unwrap();
    for arguments in [
        &["sample", "--photos", "12", "--seed", "9", "--output", "other"][..],
        &["convert", "--source", "other", "--output", "dataset"],
    ] {
        assert_eq!(run(place.path(), arguments).0, 0);
    }
    let (code, text) = run(place.path(), &[&SEGMENT[..], &["--config", "strict.toml"]].concat());
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("gate max_category_psi (0.001): ") && text.contains(" is too high by "), "{text}");
    assert_eq!(Summary::read(&place.path().join("features")).unwrap().started_at, before.started_at);
    assert!(place.path().join(".features.rejected/run.json").is_file());
}

#[test]
fn a_wait_for_the_lock_ends_when_it_is_free_and_says_who_held_it() {
    let place = tempfile::tempdir().unwrap();
    features(place.path());
    let held = Stage::begin("segment", &place.path().join("features"), &Common::default(), &()).unwrap();
    let (code, text) = run(place.path(), &SEGMENT);
    assert_eq!(code, 75, "{text}");
    let holder = format!("held by process {} on ", std::process::id());
    assert!(text.contains(&holder) && text.contains("(lookbook segment), since 2"), "{text}");
    let patient = [&SEGMENT[..], &["--lock-wait", "5m"]].concat();
    let mut child = lookbook(place.path(), &patient).spawn().unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(told.any(|line| line.unwrap().ends_with("; waiting")), "it says that it waits");
    drop(held);
    assert!(child.wait().unwrap().success());
    assert_eq!(run(place.path(), &["sample", "--lock-wait", "soon"]).0, 2);
}

/// Whether the last line of the history says that an attempt stands so.
fn runs(place: &Path, state: &str) -> bool {
    let history = fs::read_to_string(place.join("runs/history.ndjson")).unwrap_or_default();
    history.lines().last().is_some_and(|line| line.contains(&format!("\"state\":\"{state}\"")))
}

fn wait_for(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_mins(1), "it never came true");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_run_that_is_told_to_stop_stops_with_the_signals_code() {
    let place = tempfile::tempdir().unwrap();
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut child = lookbook(place.path(), &["sample", "--photos", "5000", "--output", "sample"]).spawn().unwrap();
        wait_for(|| place.path().join(".sample.partial/image/0001.jpg").exists());
        let told = Instant::now();
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(code), "SIG{name}");
        assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
        assert!(!place.path().join(".sample.partial").exists() && !place.path().join("sample").exists());
        assert!(runs(place.path(), "stopped"));
    }
}

#[test]
fn training_that_is_told_to_stop_leaves_its_checkpoints() {
    let Some(library) = library() else { return };
    let place = tempfile::tempdir().unwrap();
    features(place.path());
    let settings = "[train]\nepochs = 10000\nbatch_size = 2\nphoto_width_px = 32\nphoto_height_px = 48\n";
    fs::write(place.path().join("long.toml"), settings).unwrap();
    let train = ["train", "--dataset", "dataset", "--output", "model", "--config", "long.toml"];
    let child = lookbook(place.path(), &train).env("ORT_DYLIB_PATH", library).spawn().unwrap();
    let checkpoint = place.path().join(".model.partial/checkpoints/best.safetensors");
    wait_for(|| checkpoint.exists());
    let told = Instant::now();
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    assert!(String::from_utf8_lossy(&output.stderr).contains("with --resume continues after epoch "));
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
    assert!(checkpoint.is_file() && !place.path().join("model").exists());
    assert!(lookbook::model::weights::read_weights(&checkpoint).is_ok(), "it is whole");
}
