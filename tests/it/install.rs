//! What the installer of ONNX Runtime says.

use std::path::Path;
use std::process::Command;

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
