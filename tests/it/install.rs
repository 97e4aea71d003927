//! What the installer of ONNX Runtime says, and the program as pip installs it: what it finds beside itself, and what it does
//! without a settings file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::shared::{install, library};

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

/// Runs a program with an empty environment; the exit code and all that it printed.
fn run(program: &Path, folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program).args(arguments).current_dir(folder).env_clear().output().unwrap();
    let text = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

#[test]
fn a_program_that_pip_installed_finds_what_was_installed_with_it() {
    let place = tempfile::tempdir().unwrap();
    let venv = place.path().canonicalize().unwrap().join("mon é 1");
    let program = venv.join("bin/lookbook");
    install(Path::new(env!("CARGO_BIN_EXE_lookbook")), &program);
    // As pipx does.
    let link = place.path().join("lookbook");
    symlink(&program, &link).unwrap();
    let capi = venv.join("lib/python3.12/site-packages/onnxruntime/capi");

    let (code, text) = run(&link, place.path(), &["doctor"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("run 'scripts/install_onnxruntime.sh'"), "without Python's packages: {text}");
    fs::create_dir_all(capi.parent().unwrap().parent().unwrap()).unwrap();
    let (code, text) = run(&link, place.path(), &["doctor"]);
    assert_eq!(code, 1, "{text}");
    let missing = format!("and no {}", capi.join("libonnxruntime.so").display());
    let advice = format!("`pip install 'onnxruntime~=1.31.0'` in the Python environment {}", venv.display());
    assert!(text.contains(&missing) && text.contains(&advice), "{text}");

    let Some(library) = library() else { return };
    fs::create_dir_all(&capi).unwrap();
    let named = capi.join(library.canonicalize().unwrap().file_name().unwrap());
    symlink(&library, &named).unwrap();
    let (code, text) = run(&link, place.path(), &["doctor"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&format!(" in {}", named.display())), "{text}");
    assert!(text.contains("sample, built in: sections sample, segment, train"), "{text}");
    assert!(text.contains("every stage could begin"), "{text}");

    let encoders = venv.join("share/lookbook/encoder");
    fs::create_dir_all(&encoders).unwrap();
    for name in lookbook::model::encoder::INSTALLED {
        fs::write(encoders.join(format!("{name}.safetensors")), "").unwrap();
    }
    for (config, encoder) in [("real", "efficientnet-lite0"), ("best", "efficientnet-lite2")] {
        let (code, text) = run(&link, place.path(), &["settings", "train", "--config", config]);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains(&format!("{}/{encoder}.safetensors\"", encoders.display())), "{text}");
    }
}

#[test]
fn without_a_settings_file_a_run_is_that_of_the_sample() {
    let place = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_lookbook"));
    let own = |arguments: &[&str]| run(program, place.path(), arguments);
    let (code, text) = own(&["settings"]);
    assert_eq!((code, text.as_str()), (0, include_str!("../../pipelines/sample.toml")));
    let (code, text) = own(&["settings", "--config", "real"]);
    assert_eq!((code, text.as_str()), (0, include_str!("../../pipelines/real.toml")));
    // A file of one's own begins with one of them, and says the same.
    fs::write(place.path().join("mine.toml"), text).unwrap();
    let settings = |config| own(&["settings", "train", "--config", config]).1;
    assert_eq!(settings("mine.toml"), settings("real"));
    assert!(settings("sample").contains("\"epochs\": 36"));
    assert!(own(&["run", "--dry-run"]).1.contains("sample"));
    // Stages by themselves have their own defaults.
    assert!(own(&["settings", "train"]).1.contains("\"epochs\": 25"));
    assert!(own(&["sample", "--dry-run"]).1.contains("photos: 64"));
    let (code, text) = own(&["run", "--config", "nowhere"]);
    assert_eq!(code, 2, "{text}");
    assert!(
        text.contains("nowhere: cannot be read") && text.contains("built in are sample, real, best, full"),
        "{text}"
    );
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing but the file of settings is there");
}

#[test]
fn shells_complete_and_every_command_has_a_manual_page() {
    let place = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_lookbook"));
    let own = |arguments: &[&str]| run(program, place.path(), arguments);
    for (shell, line) in
        [("bash", "complete -F _lookbook"), ("zsh", "#compdef lookbook"), ("fish", "complete -c lookbook")]
    {
        let (code, script) = own(&["completions", shell]);
        assert_eq!(code, 0, "{script}");
        assert!(script.contains(line) && script.contains("duplicates") && script.contains("co_rated"), "{shell}");
    }
    // bash takes its script, and offers what begins like that.
    let (_, script) = own(&["completions", "bash"]);
    fs::write(place.path().join("completions"), script).unwrap();
    let line = ". ./completions; COMP_WORDS=(lookbook dup); COMP_CWORD=1; _lookbook lookbook dup lookbook; echo ${COMPREPLY[@]}";
    let output = Command::new("bash").args(["-c", line]).current_dir(place.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "duplicates");
    assert_eq!(own(&["completions", "tcsh"]).0, 2);

    assert!(own(&["man"]).1.contains(".TH lookbook 1"));
    let (code, text) = own(&["man", "--output", "pages/man1"]);
    assert_eq!((code, text.as_str()), (0, ""));
    for page in ["lookbook", "lookbook-train", "lookbook-parser-check"] {
        let text = fs::read_to_string(place.path().join(format!("pages/man1/{page}.1"))).unwrap();
        assert!(text.contains(&format!(".TH {page} 1")) && text.contains("SYNOPSIS"), "{page}: {text}");
    }
    fs::write(place.path().join("file"), "").unwrap();
    let (code, text) = own(&["man", "--output", "file/man1"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("file/man1"), "{text}");
}
