//! What the Makefile runs, and what it leaves alone: its own rules with a program that only notes how it was called.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Notes the command, publishes `run.json`, and ends with the code that `code-COMMAND` holds.
const PROGRAM: &str = r#"#!/bin/sh
set -eu
command=$1
shift
if [ "$command" = settings ]; then
    sed -n -e '/^seed/p' -e "/^\[$1\]/,/^\[/p" "$3"
    exit 0
fi
echo "$command" >> calls
folder=
while [ $# -gt 0 ]; do
    case "$1" in
    --output) folder=$2 ;;
    esac
    shift
done
mkdir -p "$folder"
date > "$folder/run.json"
[ ! -e "code-$command" ] || exit "$(cat "code-$command")"
"#;

const ALL: [&str; 6] = ["sample", "convert", "train", "segment", "similarity", "report"];

/// A project folder with the Makefile and such a program.
struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["src", "scripts", "pipelines", "built/release"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("Makefile"), root.join("Makefile")).unwrap();
        for name in ["Cargo.toml", "Cargo.lock", "build.rs", "src/main.rs"] {
            fs::write(root.join(name), "").unwrap();
        }
        let project = Self { folder };
        project.settings("[train]\nepochs = 1\n[similarity]\ntop = 1\n");
        project.script("scripts/install_onnxruntime.sh", "#!/bin/sh\n");
        project.script("built/release/lookbook", PROGRAM);
        project
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn settings(&self, text: &str) {
        fs::write(self.root().join("pipelines/sample.toml"), format!("seed = 0\n{text}")).unwrap();
    }

    fn script(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.root().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The commands that `make all` runs, what it prints, and whether it succeeds.
    fn make(&self, variables: &[&str]) -> (Vec<String>, String, bool) {
        // File times: what is written next has to be newer than what was written last.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let mut make = Command::new("make");
        make.arg("all").args(variables).current_dir(self.root());
        // A make that runs these tests must not hand its own variables on.
        for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"] {
            make.env_remove(variable);
        }
        make.env("CARGO_TARGET_DIR", "built").env("CARGO", "false");
        let output = make.output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        let calls = fs::read_to_string(self.root().join("calls")).unwrap_or_default();
        fs::write(self.root().join("calls"), "").unwrap();
        let calls = calls.lines().map(str::to_owned).collect();
        (calls, String::from_utf8_lossy(&printed).into_owned(), output.status.success())
    }
}

#[test]
fn a_second_run_does_nothing_and_says_so() {
    let project = Project::new();
    let (calls, printed, ok) = project.make(&[]);
    assert!(ok, "{printed}");
    assert_eq!(calls, ALL);
    let (calls, printed, ok) = project.make(&[]);
    assert!(ok, "{printed}");
    assert!(calls.is_empty(), "{calls:?}");
    assert!(printed.contains("nothing to do"), "{printed}");
}

#[test]
fn a_changed_setting_runs_what_hangs_on_it() {
    let project = Project::new();
    project.make(&[]);
    project.settings("[train]\nepochs = 1\n[similarity]\ntop = 2\n");
    assert_eq!(project.make(&[]).0, ["similarity", "report"]);
    project.settings("[train]\nepochs = 2\n[similarity]\ntop = 2\n");
    assert_eq!(project.make(&[]).0, ["train", "segment", "similarity", "report"]);
    project.settings("# a comment\n[train]\nepochs = 2\n[similarity]\ntop = 2\n");
    assert!(project.make(&[]).0.is_empty(), "a comment is no setting");
}

#[test]
fn a_dry_run_tells_what_would_be_done() {
    let project = Project::new();
    let told = || {
        let (calls, printed, ok) = project.make(&["-n"]);
        assert!(ok && calls.is_empty(), "{printed}");
        let would = |stage: &&str| printed.contains(&format!("built/release/lookbook {stage} --"));
        ALL.into_iter().filter(would).collect::<Vec<_>>()
    };
    assert_eq!(told(), ALL, "there is nothing yet");
    assert_eq!(project.make(&[]).0, ALL);
    assert!(told().is_empty(), "all is up to date");
    project.settings("[train]\nepochs = 1\n[similarity]\ntop = 2\n");
    assert_eq!(told(), ["similarity", "report"]);
    assert_eq!(project.make(&[]).0, ["similarity", "report"]);
}

#[test]
fn a_new_program_leaves_the_data_alone() {
    let project = Project::new();
    project.make(&[]);
    project.script("built/release/lookbook", PROGRAM);
    assert!(project.make(&[]).0.is_empty());
}

#[test]
fn a_changed_source_file_runs_all_but_the_sample() {
    let project = Project::new();
    let image = project.root().join("my data/image");
    fs::create_dir_all(&image).unwrap();
    fs::write(image.join("a b.jpg"), "1").unwrap();
    let (calls, printed, ok) = project.make(&["DATA=my data"]);
    assert!(ok, "{printed}");
    assert_eq!(calls, ALL[1..]);
    assert!(project.make(&["DATA=my data"]).0.is_empty());
    fs::write(image.join("a b.jpg"), "22").unwrap();
    assert_eq!(project.make(&["DATA=my data"]).0, ALL[1..], "one photo changed");
    fs::remove_file(image.join("a b.jpg")).unwrap();
    assert_eq!(project.make(&["DATA=my data"]).0, ALL[1..], "one photo gone");
}

#[test]
fn a_changed_catalogue_is_segmented_again() {
    let project = Project::new();
    fs::create_dir(project.root().join("shop")).unwrap();
    project.settings("[segment]\ncatalogue = \"shop\"\n");
    assert_eq!(project.make(&[]).0, ALL);
    fs::write(project.root().join("shop/new.jpg"), "1").unwrap();
    assert_eq!(project.make(&[]).0, ["segment", "similarity", "report"]);
}

#[test]
fn too_many_rejects_fail_every_night_and_keep_what_is_published() {
    let project = Project::new();
    fs::write(project.root().join("code-convert"), "3").unwrap();
    for _night in 0..2 {
        let (calls, printed, ok) = project.make(&["DATA=src"]);
        assert!(!ok, "{printed}");
        assert_eq!(calls, ["convert"]);
        assert!(project.root().join("output/dataset/run.json").is_file(), "what was published stays");
    }
    fs::remove_file(project.root().join("code-convert")).unwrap();
    assert_eq!(project.make(&["DATA=src"]).0, ALL[1..]);
}

#[test]
fn a_failed_stage_stops_the_run() {
    let project = Project::new();
    fs::write(project.root().join("code-train"), "1").unwrap();
    let (calls, _, ok) = project.make(&[]);
    assert!(!ok);
    assert_eq!(calls, ["sample", "convert", "train"]);
}

#[test]
fn a_settings_file_that_is_not_there_is_named() {
    let (calls, printed, ok) = Project::new().make(&["CONFIG=pipelines/nope.toml"]);
    assert!(!ok && calls.is_empty());
    assert!(printed.contains("no settings file 'pipelines/nope.toml'"), "{printed}");
}

#[test]
fn the_installer_of_onnx_runtime_says_what_is_missing() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install_onnxruntime.sh");
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("with blanks/runtime");
    let install = |variable: &str, value: &str| {
        let output = Command::new(&script).arg(&target).env(variable, value).output().unwrap();
        assert!(!output.status.success(), "{variable}={value}");
        assert!(!target.exists(), "nothing half-made is left");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let message = install("PYTHON", "/nowhere/python3");
    assert!(message.contains("'/nowhere/python3' is not there; install Python 3 with pip"), "{message}");
    // `false` is there, and fails when asked for pip.
    let message = install("PYTHON", "false");
    assert!(message.contains("'false' has no pip"), "{message}");
}
