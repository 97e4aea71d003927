//! `doctor`: checks this machine for everything the stages need, one line per check, with advice if something is
//! missing.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result as LibraryResult};
use crate::runtime::TESTED_RUNTIME;
use crate::settings::{BUILT_IN, Settings};
use crate::stage::StageConfig;
use crate::{runtime, stage, train};

/// Less free disk space than this at the output is a warning.
pub const COMFORTABLE_DISK_BYTES: u64 = 5 << 30;
/// Less free disk space than this at the output is a failure: the tables of a small data set do not fit.
pub const LEAST_DISK_BYTES: u64 = 200 << 20;
/// Less available memory than this is a warning: training on whole photos needs about as much.
pub const COMFORTABLE_MEMORY_BYTES: u64 = 4 << 30;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// It does not work.
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How serious it is.
    pub level: Level,
    /// What was checked.
    pub subject: &'static str,
    /// What was found.
    pub found: String,
    /// What to do about it; null if there is nothing to do.
    pub advice: Option<String>,
}

/// The result of all checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One per check, in the order of checking.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The exit code of the program: 1 if something does not work.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(self.findings.iter().any(|finding| finding.level == Level::Fail))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warn => "warn",
                Level::Fail => "fail",
            };
            write!(f, "{level:<5} {:<14} {}", finding.subject, finding.found)?;
            if let Some(advice) = &finding.advice {
                write!(f, "\n      {:<14} -> {advice}", "")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Checks the machine, the disk that `output` is on, and the settings (as [`Settings::read`] takes them). Changes nothing.
#[must_use]
pub fn run(config: Option<&Path>, output: &Path) -> Report {
    let mut findings = vec![program()];
    findings.extend(onnx_runtime());
    findings.extend([processor(), threads(), memory(), disk(output), settings(config)]);
    findings.extend(encoder(config));
    Report { findings }
}

impl Report {
    /// Adds what was found about a whole run with the settings that are named.
    pub fn add_run(&mut self, checked: LibraryResult<()>) {
        self.findings.push(match checked {
            Ok(()) => finding(Level::Ok, "run", "every stage could begin", ""),
            Err(problem) => finding(Level::Fail, "run", problem.with_causes(), "`lookbook run` would stop here"),
        });
    }
}

fn finding(level: Level, subject: &'static str, found: impl Into<String>, advice: &str) -> Finding {
    Finding { level, subject, found: found.into(), advice: (!advice.is_empty()).then(|| advice.to_owned()) }
}

fn program() -> Finding {
    let revision = option_env!("LOOKBOOK_GIT_REVISION").unwrap_or("unknown revision");
    finding(Level::Ok, "lookbook", format!("{} ({revision})", env!("CARGO_PKG_VERSION")), "")
}

fn onnx_runtime() -> Vec<Finding> {
    match runtime::library() {
        Ok(library) => {
            let found = format!("{} in {}", library.version, library.path.display());
            let tested = library.version.starts_with(TESTED_RUNTIME);
            let (level, advice) = if tested {
                (Level::Ok, String::new())
            } else {
                (Level::Warn, format!("tested with {TESTED_RUNTIME}x only; {}", runtime::advice()))
            };
            let has_cuda = library.providers.iter().any(|provider| provider.starts_with("CUDA"));
            vec![finding(level, "ONNX Runtime", found, &advice), provider(has_cuda, driver().is_some())]
        }
        Err(error) => {
            vec![finding(Level::Fail, "ONNX Runtime", error.with_causes(), "the stages that run a network need it")]
        }
    }
}

/// What the network can run on, given how the library was built and which drivers the machine has.
fn provider(has_cuda: bool, has_driver: bool) -> Finding {
    let (level, found, advice) = match (has_cuda, has_driver) {
        (true, true) => (Level::Ok, "CUDA and CPU", ""),
        (true, false) => (
            Level::Warn,
            "CPU; the library supports CUDA, but there is no NVIDIA driver",
            "install the NVIDIA driver, or use `--device cpu`",
        ),
        (false, true) => (
            Level::Warn,
            "CPU; there is an NVIDIA driver, but the library was built without CUDA",
            "`make runtime GPU=1` installs a build with CUDA",
        ),
        (false, false) => (
            Level::Ok,
            "CPU (no NVIDIA driver, and the library was built without CUDA; `make runtime GPU=1` installs one with it)",
            "",
        ),
    };
    finding(level, "runs on", found, advice)
}

/// Version line of the NVIDIA driver.
fn driver() -> Option<String> {
    std::fs::read_to_string("/proc/driver/nvidia/version").ok()
}

fn processor() -> Finding {
    let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = described.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let model = model.map_or(std::env::consts::ARCH, str::trim);
    let features = features();
    let found = format!(
        "{model}: {}",
        if features.is_empty() { "no vector extensions".to_owned() } else { features.join(" ") }
    );
    if cfg!(target_arch = "x86_64") && !features.contains(&"avx2") {
        return finding(Level::Warn, "processor", found, "without AVX2, training takes several times as long");
    }
    finding(Level::Ok, "processor", found, "")
}

/// Vector extensions of the processor that speed up matrix products.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", std::is_x86_feature_detected!("avx512bf16")),
    ]
    .into_iter()
    .filter_map(|(name, present)| present.then_some(name))
    .collect()
}

/// Vector extensions of the processor that speed up matrix products.
#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    if cfg!(target_arch = "aarch64") { vec!["neon"] } else { Vec::new() }
}

fn threads() -> Finding {
    finding(Level::Ok, "threads", format!("{} (`--threads` sets fewer)", stage::available_threads()), "")
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match available_memory(&text) {
        None => finding(Level::Warn, "memory", "cannot be determined", "make sure that 4 GiB are free"),
        Some(bytes) if bytes < COMFORTABLE_MEMORY_BYTES => finding(
            Level::Warn,
            "memory",
            format!("{} available", gibibytes(bytes)),
            "a smaller [train] batch_size or photo size needs less",
        ),
        Some(bytes) => finding(Level::Ok, "memory", format!("{} available", gibibytes(bytes)), ""),
    }
}

fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// Checks the free space where `output` is or would be created, and that it is writable.
fn disk(output: &Path) -> Finding {
    let absolute = std::path::absolute(output).unwrap_or_else(|_| output.to_owned());
    let place: PathBuf = absolute.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_owned();
    if !place.is_dir() {
        return finding(Level::Fail, "disk", format!("{} is not a folder", place.display()), "choose another --output");
    }
    if let Err(cause) = tempfile::tempfile_in(&place) {
        let found = format!("{} is not writable: {cause}", place.display());
        return finding(
            Level::Fail,
            "disk",
            found,
            "choose another --output, or give this user write permission there",
        );
    }
    let free = match rustix::fs::statvfs(&place) {
        Ok(disk) => disk.f_bavail * disk.f_frsize,
        Err(cause) => {
            return finding(
                Level::Warn,
                "disk",
                format!("{}: {cause}", place.display()),
                "make sure there is enough free space",
            );
        }
    };
    free_space(free, &place)
}

/// Checks that the stages can write into `output` and that a small data set fits there.
///
/// # Errors
/// [`Error::Limit`], with advice.
pub fn enough_space(output: &Path) -> LibraryResult<()> {
    match disk(output) {
        Finding { level: Level::Fail, found, advice, .. } => {
            let problem = format!("{found}; {}", advice.unwrap_or_default());
            Err(Error::Limit { what: format!("disk space for {}", output.display()), problem })
        }
        _ => Ok(()),
    }
}

fn free_space(bytes: u64, place: &Path) -> Finding {
    let found = format!("{} free at {}", gibibytes(bytes), place.display());
    if bytes < LEAST_DISK_BYTES {
        return finding(Level::Fail, "disk", found, "free some space, or choose another --output");
    }
    if bytes < COMFORTABLE_DISK_BYTES {
        return finding(Level::Warn, "disk", found, "a large data set needs more; free some space first");
    }
    finding(Level::Ok, "disk", found, "")
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}

/// Checks the settings: syntax, section names, keys and values.
fn settings(config: Option<&Path>) -> Finding {
    let name = config.map_or_else(|| format!("{}, built in", BUILT_IN[0].0), |it| it.display().to_string());
    match checked_settings(config) {
        Ok(sections) => finding(Level::Ok, "settings", format!("{name}: {sections}"), ""),
        Err(problem) => {
            let advice = "fix the file, or choose another with --config; `--config real` is built in";
            finding(Level::Fail, "settings", format!("{name}: {problem}"), advice)
        }
    }
}

/// Checks the pretrained encoder that the settings train with; `None` if they need none or cannot be read.
fn encoder(config: Option<&Path>) -> Option<Finding> {
    let settings = Settings::read(config).ok()?;
    let config: train::Config = settings.resolve(train::Config::NAME, &toml::Table::new()).ok()?;
    let file = config.encoder.as_ref()?;
    Some(match config.check_encoder() {
        Ok(()) => finding(Level::Ok, "encoder", file.display().to_string(), ""),
        Err(error) => finding(Level::Fail, "encoder", error.with_causes(), "`make encoder` installs it"),
    })
}

fn checked_settings(config: Option<&Path>) -> LibraryResult<String> {
    let settings = Settings::read(config)?;
    settings.check()?;
    let sections: Vec<_> = settings.sections().collect();
    Ok(if sections.is_empty() { "defaults only".to_owned() } else { format!("sections {}", sections.join(", ")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_enough_for_exit_code_1() {
        let ok = finding(Level::Ok, "a", "fine", "");
        let warn = finding(Level::Warn, "b", "slow", "wait");
        let fail = finding(Level::Fail, "c", "missing", "install it");
        assert_eq!(Report { findings: vec![ok.clone(), warn.clone()] }.exit_code(), 0);
        let report = Report { findings: vec![ok, warn, fail] };
        assert_eq!(report.exit_code(), 1);
        let lines: Vec<String> = report.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(lines[0], "ok    a              fine");
        assert_eq!(lines[1], "warn  b              slow");
        assert_eq!(lines[2].trim(), "-> wait");
    }

    #[test]
    fn every_mismatch_of_library_and_driver_comes_with_advice() {
        for (has_cuda, has_driver, level) in
            [(true, true, Level::Ok), (false, false, Level::Ok), (true, false, Level::Warn), (false, true, Level::Warn)]
        {
            let found = provider(has_cuda, has_driver);
            assert_eq!(found.level, level, "{found:?}");
            assert_eq!(found.advice.is_some(), level != Level::Ok);
        }
    }

    #[test]
    fn little_disk_warns_and_next_to_none_fails() {
        let level = |bytes| free_space(bytes, Path::new("/data")).level;
        assert_eq!([level(1 << 20), level(1 << 30), level(1 << 40)], [Level::Fail, Level::Warn, Level::Ok]);
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        assert_eq!(available_memory("MemTotal: 8 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available_memory("MemTotal: 8 kB\n"), None);
    }

    #[test]
    fn an_output_below_a_file_fails() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        assert_eq!(disk(&file.path().join("output")).level, Level::Fail);
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_ne!(disk(&folder.path().join("not/yet/there")).level, Level::Fail);
    }

    #[test]
    fn settings_are_checked_by_section_and_key() {
        let check = |text: &str| {
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            std::fs::write(file.path(), text).expect("written");
            settings(Some(file.path()))
        };
        assert_eq!(check("seed = 1\n[report]\nphotos = 3\n").level, Level::Ok);
        for (text, named) in [
            ("seed = ", "1"),
            ("[trian]\nepochs = 3\n", "trian"),
            ("[report]\nphoto = 3\n", "photo"),
            ("[report]\nphotos = \"many\"\n", "photos"),
        ] {
            let found = check(text);
            assert_eq!(found.level, Level::Fail, "{text}");
            assert!(found.found.contains(named), "{}", found.found);
        }
        assert_eq!(settings(Some(Path::new("/nowhere/at.toml"))).level, Level::Fail);
    }

    #[test]
    fn the_shipped_settings_pass() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
        let mut checked = 0;
        for entry in std::fs::read_dir(folder).expect("pipelines/") {
            let path = entry.expect("an entry").path();
            // This folder also holds the table that folds Clothing Co-Parsing's tags, which is not a settings file.
            let is_fold = path.file_name() == Some("ccp_fold.toml".as_ref());
            if !is_fold && path.extension().is_some_and(|extension| extension == "toml") {
                let found = settings(Some(&path));
                assert_eq!(found.level, Level::Ok, "{}", found.found);
                checked += 1;
            }
        }
        assert!(checked >= 3, "the settings files are in pipelines/");
    }
}
