//! The program as a scheduler meets it: exit codes, messages, an empty environment.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::shared::{install, library};
use lookbook::stage;

/// The program with nothing in its environment, as cron starts it.
fn lookbook() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookbook"));
    command.env_clear();
    command
}

/// Runs to the end, or fails where that takes more than a minute: a hang is a failure, not a wait.
fn finish(command: &mut Command) -> (i32, String) {
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_mins(1) {
            child.kill().unwrap();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(!text.contains("panicked"), "{text}");
    (status.code().expect("it ended by itself"), text)
}

/// Runs the program in a shell, which prepares for it.
fn shell(place: &Path, prepare: &str, arguments: &str) -> (i32, String) {
    let line = format!("{prepare}exec {} {arguments}", env!("CARGO_BIN_EXE_lookbook"));
    finish(Command::new("sh").arg("-c").arg(line).env_clear().current_dir(place))
}

fn model_folder(place: &Path) {
    let spec = lookbook::graph::Spec::seed(32, 48, lookbook::graph::Loss::Bce);
    let weights = lookbook::graph::parameters::initial_weights(&spec, 0);
    fs::create_dir_all(place).unwrap();
    fs::write(place.join("predict.onnx"), lookbook::graph::predict(&spec, &weights)).unwrap();
    lookbook::color::ColorTable::typical(&lookbook::labels::LabelSet::cfpd())
        .write(&place.join("color_table.parquet"))
        .unwrap();
}

/// `segment` of one photo with the library at `path`.
fn segment_with_library(place: &Path, path: &Path) -> (i32, String) {
    model_folder(&place.join("model"));
    fs::create_dir_all(place.join("photos")).unwrap();
    let photo = lookbook::photo::Photo { width_px: 40, height_px: 60, rgb: vec![90; 40 * 60 * 3] };
    fs::write(place.join("photos/a.png"), lookbook::picture::png(&photo)).unwrap();
    finish(lookbook().env("ORT_DYLIB_PATH", path).current_dir(place).args([
        "segment",
        "--catalogue",
        "photos",
        "--model",
        "model",
        "--output",
        "features",
    ]))
}

#[test]
fn a_missing_library_is_a_clear_error() {
    let place = tempfile::tempdir().unwrap();
    let (code, text) = segment_with_library(place.path(), Path::new("/nowhere/libonnxruntime.so"));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("/nowhere/libonnxruntime.so") && text.contains("install_onnxruntime.sh"), "{text}");
    assert!(!place.path().join("features").exists());
}

#[test]
fn a_file_that_is_no_library_is_a_clear_error() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("libonnxruntime.so");
    fs::write(&path, "<html>not here</html>").unwrap();
    let (code, text) = segment_with_library(place.path(), &path);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("not a usable ONNX Runtime library") && text.contains("install_onnxruntime.sh"), "{text}");
}

#[test]
fn a_library_that_is_too_old_is_a_clear_error() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("old.c");
    let code = r#"
        static const void *get_api(unsigned version) { return 0; }
        static const char *get_version(void) { return "1.10.0"; }
        static const struct { const void *(*a)(unsigned); const char *(*b)(void); } base = { get_api, get_version };
        const void *OrtGetApiBase(void) { return &base; }
    "#;
    fs::write(&source, code).unwrap();
    let library = place.path().join("libonnxruntime.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(built.success(), "the C compiler is there");
    let (code, text) = segment_with_library(place.path(), &library);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("1.10.0 is too old") && text.contains("install_onnxruntime.sh"), "{text}");
}

#[test]
fn an_empty_environment_is_enough() {
    let Some(library) = library() else { return };
    let place = tempfile::tempdir().unwrap();
    let (code, text) = segment_with_library(place.path(), &library);
    assert_eq!(code, 0, "{text}");
    assert!(place.path().join("features/run.json").is_file());
}

#[test]
fn exit_codes_are_those_of_the_documentation() {
    let place = tempfile::tempdir().unwrap();
    let settings = place.path().join("settings.toml");
    fs::write(&settings, "[train]\nepoch = 3\n").unwrap();
    let run = |arguments: &[&str]| finish(lookbook().current_dir(place.path()).args(arguments));

    assert_eq!(run(&["--version"]).0, 0);
    let (code, text) = run(&["convert", "--source", "nowhere"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("nowhere"), "{text}");
    assert_eq!(run(&["convert", "--sauce", "x"]).0, 2);
    let (code, text) = run(&["train", "--config", "settings.toml"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("settings.toml") && text.contains("epoch"), "{text}");
    assert_eq!(run(&["sample", "--threads", "0"]).0, 2);

    let (code, text) = run(&["sample", "--photos", "3", "--output", "source"]);
    assert_eq!(code, 0, "{text}");
    fs::write(place.path().join("source/image/0002.jpg"), "").unwrap();
    let (code, text) = run(&["convert", "--source", "source", "--output", "dataset"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("1 of 3 photos"), "{text}");
    assert!(place.path().join("dataset/run.json").is_file(), "what is good was published");

    let dataset = place.path().join("dataset");
    let _held = stage::take(&dataset, &place.path().join(".dataset.lock"), "convert", Duration::ZERO).unwrap();
    let (code, text) = run(&["convert", "--source", "source", "--output", "dataset"]);
    assert_eq!(code, 75, "{text}");
    assert!(text.contains("dataset"), "{text}");
}

#[test]
fn nothing_is_done_again_where_that_is_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| finish(lookbook().current_dir(place.path()).args(arguments));
    let sample = ["sample", "--photos", "3", "--output", "source", "--if-changed"];
    assert_eq!(run(&sample).0, 0);
    let made = fs::read(place.path().join("source/run.json")).unwrap();
    let (code, text) = run(&sample);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("nothing to do"), "{text}");
    let (code, text) = run(&[&sample[..], &["--skip-exit-code", "99"]].concat());
    assert_eq!(code, 99, "{text}");
    assert_eq!(fs::read(place.path().join("source/run.json")).unwrap(), made);
    let (code, text) = run(&[&sample[..], &["--skip-exit-code", "99", "--seed", "1"]].concat());
    assert_eq!(code, 0, "another seed is something to do: {text}");
    fs::remove_file(place.path().join("source/image/0002.jpg")).unwrap();
    let (code, text) = run(&[&sample[..], &["--skip-exit-code", "99", "--seed", "1"]].concat());
    assert_eq!(code, 0, "so is a file that is gone: {text}");

    let convert = ["convert", "--source", "source", "--output", "dataset", "--if-changed", "--skip-exit-code", "99"];
    assert_eq!(run(&convert).0, 0);
    assert_eq!(run(&convert).0, 99);
    fs::write(place.path().join("source/image/0002.jpg"), "").unwrap();
    assert_eq!(run(&convert).0, 3, "a photo changed, for the worse");
    assert_eq!(run(&convert).0, 3, "and the night stays red until somebody looks");
}

#[test]
fn a_dry_run_writes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let (code, text) = finish(lookbook().current_dir(place.path()).args([
        "sample",
        "--photos",
        "3",
        "--output",
        "source",
        "--dry-run",
    ]));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("would write source"), "{text}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn machines_get_json() {
    let place = tempfile::tempdir().unwrap();
    let output = lookbook()
        .current_dir(place.path())
        .args(["sample", "--photos", "2", "--output", "source", "--log-format", "json"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["counts"]["photos"], 2);
    for line in String::from_utf8(output.stderr).unwrap().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["level"].is_string(), "{line}");
    }
}

#[test]
fn lost_results_end_with_1() {
    let place = tempfile::tempdir().unwrap();
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let sample = ["sample", "--photos", "2", "--output", "drawn"];
    for arguments in [&["settings", "train"][..], &sample, &["status", "."], &["--log-format", "json", "doctor"]] {
        let mut command = lookbook();
        let output = command.current_dir(place.path()).args(arguments).stdout(full()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot print the results: No space left on device"), "{arguments:?}: {said}");
    }
    assert!(place.path().join("drawn/run.json").is_file(), "what was published stays");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = lookbook().args(["settings", "train"]).stdout(writer).output().unwrap();
    assert_eq!(closed.status.code(), Some(1), "{}", String::from_utf8_lossy(&closed.stderr));
    let before_the_start = shell(place.path(), "", "settings train >&-");
    assert_eq!(before_the_start.0, 1, "{}", before_the_start.1);
    assert!(before_the_start.1.contains("cannot print the results"), "{}", before_the_start.1);
}

#[test]
fn numbers_beyond_reason_are_refused_at_once() {
    let (code, text) = finish(lookbook().args(["settings", "train", "--threads", "100000"]));
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("'threads': is 100000; at most 1024"), "{text}");
}

#[test]
fn few_open_files_are_named_and_cost_no_photo() {
    let place = tempfile::tempdir().unwrap();
    let limited = |files: u32, arguments: &str| shell(place.path(), &format!("ulimit -n {files} && "), arguments);
    assert_eq!(limited(64, "sample --photos 12 --output drawn").0, 0);
    let mut refused = 0;
    for files in 6..40 {
        let (code, text) = limited(files, "convert --source drawn --output dataset --max-reject-fraction 1");
        if code == 0 {
            assert!(text.contains("rejects: 0") && text.contains("photos: 12"), "{files}: {text}");
            continue;
        }
        refused += 1;
        assert!(code == 1 && text.contains("ulimit -n"), "{files}: {text}");
    }
    assert!((1..34).contains(&refused), "{refused} of 34 limits are too small");
}

/// A user that nobody is, so that a limit of processes counts those of one test alone; root is not limited.
const NOBODY: &str = "54321";

#[test]
fn few_threads_are_named_and_end_the_run() {
    let place = tempfile::tempdir().unwrap();
    let has_user =
        Command::new("setpriv").args(["--reuid", NOBODY, "true"]).output().is_ok_and(|it| it.status.success());
    if !has_user {
        crate::shared::skip("a limit of processes is tried as another user, which only root can become (setpriv)");
        return;
    }
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = place.path().join("lookbook");
    install(Path::new(env!("CARGO_BIN_EXE_lookbook")), &program);
    let limited = |threads: u32, arguments: &[&str]| {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nproc={threads}")).arg("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        finish(command.arg(&program).args(arguments).current_dir(place.path()))
    };
    let convert = ["convert", "--source", "drawn", "--output", "dataset"];
    let segment = ["segment", "--from", "labels", "--catalogue", "dataset", "--output", "features"];
    let similarity = ["similarity", "--features", "features", "--output", "similarity"];
    assert_eq!(limited(100, &["sample", "--photos", "12", "--output", "drawn"]).0, 0);
    for arguments in [&convert[..], &segment, &similarity, &["status", "."]] {
        let (mut refused, arguments) = (0, [arguments, &["--threads", "2"]].concat());
        for threads in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 100] {
            let (code, text) = limited(threads, &arguments);
            if code == 0 {
                assert!(!text.contains("rejects: 1"), "{threads}: {text}");
                continue;
            }
            refused += 1;
            assert!(code == 1 && text.contains("more threads: this process may start no more"), "{threads}: {text}");
            assert!(text.contains("ulimit -u"), "{threads}: {text}");
        }
        assert!((1..12).contains(&refused), "{arguments:?}: {refused} of 12 limits are too small");
    }
}

#[test]
fn little_memory_is_named_and_costs_no_photo() {
    let Some(library) = library() else { return };
    let place = tempfile::tempdir().unwrap();
    model_folder(&place.path().join("model"));
    let limited = |megabytes: u64, arguments: &str| {
        let prepare = format!("export ORT_DYLIB_PATH={}; ulimit -v {} && ", library.display(), megabytes << 10);
        shell(place.path(), &prepare, arguments)
    };
    assert_eq!(limited(4000, "sample --photos 12 --output drawn").0, 0);
    let convert = "convert --source drawn --output dataset --threads 2";
    let segment = "segment --catalogue dataset --model model --output features --threads 2 --max-reject-fraction 0";
    let similarity = "similarity --features features --output similarity --threads 2";
    for arguments in [convert, segment, similarity] {
        // What is good is there for the next stage whatever the limits of this one did.
        assert_eq!(limited(4000, arguments).0, 0);
        let (mut refused, mut enough) = (0, None);
        for megabytes in (110..400).step_by(30).chain([700, 4000]) {
            let (code, text) = limited(megabytes, arguments);
            if code == 0 {
                enough = enough.or(Some(megabytes));
                continue;
            }
            refused += 1;
            assert_eq!(enough, None, "{arguments}: less than {megabytes} MB was enough");
            assert!(code == 1 && text.contains("ulimit -v"), "{arguments} with {megabytes} MB: {code}, {text}");
        }
        assert!((1..12).contains(&refused), "{arguments}: {refused} of 12 limits are too small");
    }
}
