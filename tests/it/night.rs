//! A whole night by `lookbook run`: what runs, why, and what does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shared::{install, library};
use lookbook::stage::{RUN_FILE, Summary};

const SETTINGS: &str = "[sample]\nphotos = 12\n\
                        [train]\nepochs = 1\nbatch_size = 4\nphoto_width_px = 32\nphoto_height_px = 48\n\
                        [report]\nphotos = 1\n";
const ALL: [&str; 6] = ["sample", "convert", "train", "segment", "similarity", "report"];

/// A folder with settings, a source of its own, and the nights over it.
struct Nights {
    place: tempfile::TempDir,
}

/// How a night ended.
struct Night {
    code: i32,
    /// The stages that ran, or would.
    ran: Vec<String>,
    said: String,
}

impl Nights {
    /// `None`, said aloud, if there is no ONNX Runtime.
    fn new() -> Option<Self> {
        library()?;
        let nights = Self { place: tempfile::tempdir().unwrap() };
        nights.settings("");
        Some(nights)
    }

    /// With a data set as somebody else's.
    fn with_source() -> Option<Self> {
        let nights = Self::new()?;
        let output = nights.command(&["sample", "--photos", "12", "--output", "source"]).output().unwrap();
        assert!(output.status.success());
        // It is nobody's published folder.
        fs::remove_file(nights.path("source").join(RUN_FILE)).unwrap();
        Some(nights)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn settings(&self, more: &str) {
        fs::write(self.path("night.toml"), format!("{SETTINGS}{more}")).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lookbook"));
        command.env_clear().current_dir(self.place.path()).args(arguments);
        command.env("ORT_DYLIB_PATH", library().unwrap());
        command
    }

    fn run(&self, arguments: &[&str]) -> Night {
        let output =
            self.command(&["run", "--config", "night.toml", "--log-format", "json"]).args(arguments).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let stages = report["stages"].as_array().cloned().unwrap_or_default();
        let ran = stages.iter().filter(|it| it["did"] == "run").map(|it| it["stage"].as_str().unwrap().to_owned());
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Night { code: output.status.code().unwrap(), ran: ran.collect(), said }
    }

    /// A night that succeeds; the stages that ran.
    fn ran(&self, arguments: &[&str]) -> Vec<String> {
        let night = self.run(arguments);
        assert_eq!(night.code, 0, "{}", night.said);
        night.ran
    }
}

const SOURCE: [&str; 2] = ["--source", "source"];

#[test]
fn a_second_night_does_nothing_and_a_changed_setting_runs_what_depends_on_it() {
    let Some(nights) = Nights::new() else { return };
    let told = nights.ran(&["--dry-run"]);
    assert_eq!(told, ALL, "a dry run tells what would be run");
    assert!(!nights.path("output").exists());
    assert_eq!(nights.ran(&[]), ALL);
    assert!(nights.ran(&[]).is_empty());
    assert!(nights.ran(&["--dry-run"]).is_empty());
    // An absolute and a relative place are the same.
    assert!(nights.ran(&["--output", nights.path("output").to_str().unwrap()]).is_empty());
    nights.settings("# a comment is no setting\n");
    assert!(nights.ran(&[]).is_empty());
    nights.settings("[similarity]\ntop = 3\n");
    assert_eq!(nights.ran(&["--dry-run"]), ["similarity"], "and the report perhaps");
    assert_eq!(nights.ran(&[]), ["similarity", "report"]);
    // A dotted and a quoted key, and a clock that was a day ahead for one night.
    let features = nights.path("output/similarity");
    let mut made = Summary::read(&features).unwrap();
    made.started_at = "2099-01-01T02:00:00Z".to_owned();
    lookbook::files::write_json(&features.join(RUN_FILE), &made).unwrap();
    nights.settings("[similarity]\n\"top\" = 4\n");
    assert_eq!(nights.ran(&[]), ["similarity", "report"]);
    fs::write(nights.path("night.toml"), format!("seed = 0\nsimilarity.top = 5\n{SETTINGS}")).unwrap();
    assert_eq!(nights.ran(&[]), ["similarity", "report"]);
    nights.settings("[similarity]\ntop = 5\nmemory = \"64MiB\"\n");
    assert!(nights.ran(&[]).is_empty(), "a limit changes no result");
    let settings = SETTINGS.replace("epochs = 1", "epochs = 2") + "[similarity]\ntop = 5\n";
    fs::write(nights.path("night.toml"), settings).unwrap();
    assert_eq!(nights.ran(&[]), ["train", "segment", "similarity", "report"]);
    assert_eq!(nights.ran(&["--force", "similarity"])[0], "similarity");
    let only = nights.ran(&["--force", "segment", "--only", "segment..similarity"]);
    assert_eq!(only[0], "segment");
    assert!(!only.contains(&"report".to_owned()));
}

#[test]
fn the_same_bytes_make_nothing_stale() {
    let Some(nights) = Nights::with_source() else { return };
    assert_eq!(nights.ran(&SOURCE), ALL[1..]);
    assert!(nights.ran(&["--source", "source/"]).is_empty());
    // Touched, copied to another place, away for one night.
    let photo = nights.path("source/image/0003.jpg");
    let bytes = fs::read(&photo).unwrap();
    fs::write(&photo, &bytes).unwrap();
    assert!(nights.ran(&SOURCE).is_empty(), "one photo was touched");
    fs::rename(nights.path("source"), nights.path("elsewhere")).unwrap();
    assert!(nights.ran(&["--source", "elsewhere"]).is_empty());
    let night = nights.run(&SOURCE);
    assert_eq!(night.code, 1, "{}", night.said);
    assert!(night.said.contains("source: is not a folder"), "{}", night.said);
    fs::rename(nights.path("elsewhere"), nights.path("source")).unwrap();
    assert!(nights.ran(&SOURCE).is_empty(), "it was away for one night");
    // Early cut-off: another file beside the photos, the same table.
    fs::write(nights.path("source/notes.txt"), "nothing that is read").unwrap();
    assert_eq!(nights.ran(&SOURCE), ["convert", "report"]);
    assert!(nights.ran(&SOURCE).is_empty());
    // Two photos of equal size and time that swap names.
    let names = ["0004.jpg", "0005.jpg"].map(|name| nights.path("source/image").join(name));
    let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    let contents = names.each_ref().map(|name| fs::read(name).unwrap());
    let longest = contents.iter().map(Vec::len).max().unwrap();
    for (name, mut content) in names.iter().zip(contents) {
        // What follows the end of a JPEG is passed over.
        content.resize(longest, 0);
        fs::write(name, content).unwrap();
        fs::File::options().append(true).open(name).unwrap().set_times(times).unwrap();
    }
    nights.ran(&SOURCE);
    fs::rename(&names[0], nights.path("source/image/swap")).unwrap();
    fs::rename(&names[1], &names[0]).unwrap();
    fs::rename(nights.path("source/image/swap"), &names[1]).unwrap();
    assert_eq!(nights.ran(&SOURCE)[..2], ["convert", "train"]);
}

#[test]
fn a_photo_behind_an_unchanged_list_is_noticed_and_settings_name_the_catalogue() {
    let Some(nights) = Nights::with_source() else { return };
    fs::create_dir(nights.path("shop")).unwrap();
    for name in ["0001.jpg", "0002.jpg"] {
        fs::copy(nights.path("source/image").join(name), nights.path("shop").join(name)).unwrap();
    }
    fs::write(nights.path("list.csv"), "photo_id,path\n1,shop/0001.jpg\n2,shop/0002.jpg\n").unwrap();
    nights.settings("[convert]\nsource = 'source'\n[segment]\n'catalogue' = 'list.csv'\n");
    assert_eq!(nights.ran(&[]), ALL[1..]);
    let features = Summary::read(&nights.path("output/features")).unwrap();
    assert_eq!(features.counts["photos"], 2, "those of the settings");
    assert!(nights.ran(&[]).is_empty());
    fs::copy(nights.path("source/image/0007.jpg"), nights.path("other.jpg")).unwrap();
    fs::rename(nights.path("other.jpg"), nights.path("shop/0002.jpg")).unwrap();
    let text = nights.command(&["status", "output", "--config", "night.toml"]).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("files of list.csv were changed"), "{text}");
    assert_eq!(nights.ran(&[]), ["segment", "similarity", "report"]);
    let changed = Summary::read(&nights.path("output/features")).unwrap();
    assert_eq!((&changed.counts["known"], &changed.counts["changed"]), (&1.into(), &1.into()));
    // The flag beats the settings.
    assert_eq!(nights.ran(&["--catalogue", "source/image"])[0], "segment");
    assert_eq!(Summary::read(&nights.path("output/features")).unwrap().counts["photos"], 12);
}

#[test]
fn what_can_be_known_before_the_first_stage_is_checked_before_it() {
    let Some(nights) = Nights::new() else { return };
    for (settings, arguments, code, told) in [
        ("[similarity]\nthreshold = 90\n", &[][..], 2, "similarity.threshold"),
        ("[gates]\nmin_mean_iou = 40\n", &[], 2, "min_mean_iou"),
        ("", &["--source", "nowhere"], 1, "nowhere: is not a folder"),
        ("", &["--catalogue", "nowhere"], 1, "nowhere: is not there"),
        ("[segment]\ncatalogue = \"nowhere\"\n", &[], 1, "nowhere: is not there"),
        ("[segment]\ncatalogue = \".\"\nfrom = \"labels\"\n", &[], 2, "'labels' needs a dataset folder"),
        ("[segment]\ndevice = \"cuda\"\n", &["--dialect", "native"], 2, "native operators run only on the CPU"),
        ("", &["--only", "train..convert"], 2, "'convert' comes before 'train'"),
        ("", &["--only", "export"], 2, "there is no stage 'export' here"),
        ("", &["--force", "nothing"], 2, "there is no stage 'nothing' here"),
        ("", &["--force", "report", "--only", "train"], 2, "'report' is not among the stages of --only"),
    ] {
        nights.settings(settings);
        let night = nights.run(arguments);
        assert_eq!(night.code, code, "{}", night.said);
        assert!(night.said.contains(told), "'{told}' is not in\n{}", night.said);
        let made =
            fs::read_dir(nights.path("output")).map_or(Vec::new(), |it| it.map(|it| it.unwrap().file_name()).collect());
        assert!(made.is_empty() || made == ["runs"], "nothing was begun: {made:?}");
    }
    // Somebody else's folder in the place of the last stage.
    nights.settings("");
    fs::create_dir_all(nights.path("output/report")).unwrap();
    fs::write(nights.path("output/report/letter.txt"), "dear").unwrap();
    let night = nights.run(&[]);
    assert_eq!(night.code, 1);
    assert!(night.said.contains("report: holds files that no stage of lookbook wrote"), "{}", night.said);
    assert!(!nights.path("output/sample").exists());
}

#[test]
fn a_failed_stage_ends_the_night_and_too_many_rejects_every_night() {
    let Some(nights) = Nights::with_source() else { return };
    nights.settings("[gates]\nmin_mean_iou = 1.0\n");
    let night = nights.run(&SOURCE);
    assert_eq!(night.code, 1, "{}", night.said);
    assert!(night.said.contains("kept back by gate min_mean_iou"), "{}", night.said);
    assert!(nights.path("output/dataset").is_dir() && !nights.path("output/features").exists());
    nights.settings("");
    fs::write(nights.path("source/image/0002.jpg"), "").unwrap();
    for _night in 0..2 {
        let night = nights.run(&SOURCE);
        assert_eq!(night.code, 3, "{}", night.said);
        assert!(nights.path("output/dataset/run.json").is_file(), "what is good stays published");
        assert!(!nights.path("output/model").exists());
    }
    nights.settings("[convert]\nmax_reject_fraction = 0.2\n");
    assert_eq!(nights.ran(&SOURCE), ALL[1..]);
}

#[test]
fn make_calls_the_program_and_knows_no_stage() {
    let Some(nights) = Nights::new() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::copy(root.join("Makefile"), nights.path("Makefile")).unwrap();
    for script in ["install_build_tools.sh", "install_onnxruntime.sh"] {
        install(Path::new("/bin/true"), &nights.path("scripts").join(script));
    }
    // Writes down where the encoder is to go.
    let script = nights.path("install-encoder");
    fs::write(&script, "#!/bin/sh\necho \"$1\" >encoder-folder\n").unwrap();
    install(&script, &nights.path("scripts/install_encoder.sh"));
    // A program of its own: beside the one that was built there may be an encoder.
    let program = fs::canonicalize(nights.place.path()).unwrap().join("built/release/lookbook");
    install(Path::new(env!("CARGO_BIN_EXE_lookbook")), &program);
    let make = |arguments: &[&str]| {
        let mut make = Command::new("make");
        make.arg("all").args(arguments).current_dir(nights.place.path()).env("ORT_DYLIB_PATH", library().unwrap());
        // A make that runs these tests must not hand its own variables on.
        for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"] {
            make.env_remove(variable);
        }
        let output = make.env("CARGO_TARGET_DIR", nights.path("built")).env("CARGO", "true").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), text)
    };
    let (code, text) = make(&["CONFIG=night.toml", "OUTPUT=the output's", "-n"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("sample      runs: it was never made"), "{text}");
    let (code, text) = make(&["CONFIG=night.toml", "OUTPUT=the output's"]);
    assert_eq!(code, 0, "{text}");
    assert!(nights.path("the output's/report/index.html").is_file());
    for line in ["sample: begins (it was never made)", "train: done: ", "report: done: "] {
        assert!(text.contains(line), "'{line}' is not in\n{text}");
    }
    let (code, text) = make(&["CONFIG=night.toml", "OUTPUT=the output's"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("nothing to do"), "{text}");
    assert!(!nights.path("encoder-folder").exists(), "the settings need no encoder");
    let (code, text) = make(&["CONFIG=nope.toml"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("nope.toml: cannot be read"), "{text}");

    fs::write(nights.path("pretrained.toml"), "[train]\nrecipe = \"pretrained\"\n").unwrap();
    for flag in ["-n", "-s"] {
        let (code, text) = make(&["CONFIG=pretrained.toml", "OUTPUT=other", flag]);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("the pretrained encoder is missing; `make encoder` installs it"), "{text}");
        assert!(!nights.path("other/sample").exists(), "no stage ran");
        assert_eq!(nights.path("encoder-folder").exists(), flag != "-n", "-n gets nothing");
    }
    let folder = fs::read_to_string(nights.path("encoder-folder")).unwrap();
    assert_eq!(Path::new(folder.trim()), program.parent().unwrap().join(".encoder"), "where the program looks for it");
}
