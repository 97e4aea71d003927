//! Settings files (`pipelines/*.toml`): one section per stage, one each for the gates, whole runs and the run records,
//! and above them the settings common to all stages. Flags override the file, and the file overrides the defaults. The
//! files in `pipelines/` are part of the program ([`BUILT_IN`]).

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::engine::{DialectChoice, InstructionsChoice};
use crate::error::{Error, Result};
use crate::gates::Gates;
use crate::model::encoder;
use crate::stage::{Common, MAX_THREADS, StageConfig};
use crate::stages::{self, Visitor};
use crate::store;
use crate::train::{self, Recipe};

/// The known sections: the stages in pipeline order, then the shared ones.
pub const SECTIONS: [&str; 14] = [
    "sample",
    "convert",
    "train",
    "evaluate",
    "export",
    "segment",
    "similarity",
    "duplicates",
    "recommend",
    "report",
    "gates",
    "run",
    "runs",
    "store",
];

/// Keys above the sections, common to all stages.
pub const FOR_ALL_STAGES: [&str; 4] = ["seed", "threads", "dialect", "instructions"];

/// The settings files of `pipelines/` that the program holds: the name that `--config` takes in place of a path, and the
/// text. The first one is what is used if nothing is named.
pub const BUILT_IN: [(&str, &str); 4] = [
    ("sample", include_str!("../pipelines/sample.toml")),
    ("real", include_str!("../pipelines/real.toml")),
    ("best", include_str!("../pipelines/best.toml")),
    ("full", include_str!("../pipelines/full.toml")),
];

/// The content of a settings file; empty if there is none.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Name or path of the file; `None` if none was read.
    source: Option<PathBuf>,
    text: String,
    table: Table,
}

impl Settings {
    /// Reads a settings file, or one of [`BUILT_IN`] by its name (a file of that name is `./NAME`); without either, the
    /// first of these.
    ///
    /// # Errors
    /// [`Error::Config`] if it cannot be read, is not TOML, or has an unknown section or key.
    pub fn read(source: Option<&Path>) -> Result<Self> {
        let source = source.unwrap_or(Path::new(BUILT_IN[0].0));
        let bad = |problem: String| Error::config("config", format!("{}: {problem}", source.display()));
        let built_in = BUILT_IN.iter().find(|(name, _)| source.as_os_str() == *name);
        let text = built_in.map_or_else(|| std::fs::read_to_string(source), |(_, text)| Ok((*text).to_owned()));
        let text = text.map_err(|cause| {
            let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            bad(format!("cannot be read ({cause}); built in are {}", names.join(", ")))
        })?;
        let table: Table = toml::from_str(&text).map_err(|cause| bad(cause.to_string().trim_end().to_owned()))?;
        for (name, value) in &table {
            let known: &[&str] = if value.is_table() { &SECTIONS } else { &FOR_ALL_STAGES };
            if !known.contains(&name.as_str()) {
                let (for_all, sections) = (FOR_ALL_STAGES.join(", "), SECTIONS.join("], ["));
                return Err(bad(format!("unknown setting '{name}'; known are {for_all} and [{sections}]")));
            }
        }
        Ok(Self { source: Some(source.to_owned()), text, table })
    }

    /// The file as it was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Checks the settings of all sections and the keys above them.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first invalid section.
    pub fn check(&self) -> Result<()> {
        self.common(&Table::new())?;
        SECTIONS.iter().try_for_each(|section| self.resolved(section).map(drop))
    }

    /// Whether a settings file was read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.source.is_some()
    }

    /// Whether the file sets `key` in the section.
    #[must_use]
    pub fn names(&self, section: &str, key: &str) -> bool {
        self.table.get(section).and_then(Value::as_table).is_some_and(|table| table.contains_key(key))
    }

    /// Names of the sections in the file.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.table.iter().filter(|(_, value)| value.is_table()).map(|(name, _)| name.as_str())
    }

    /// The settings common to all stages: defaults, then the file, then every flag that is not null.
    ///
    /// # Errors
    /// [`Error::Config`] naming the invalid key or gate.
    pub fn common(&self, flags: &impl Serialize) -> Result<Common> {
        #[derive(serde::Deserialize)]
        #[serde(default)]
        struct ForAllStages {
            seed: u64,
            threads: usize,
            dialect: DialectChoice,
            instructions: InstructionsChoice,
        }
        impl Default for ForAllStages {
            fn default() -> Self {
                let Common { seed, threads, dialect, instructions, .. } = Common::default();
                Self { seed, threads, dialect, instructions }
            }
        }
        let flags = Table::try_from(flags).map_err(|cause| Error::config("flags", cause))?;
        let mut table: Table = self.table.clone().into_iter().filter(|(_, value)| !value.is_table()).collect();
        table.extend(flags);
        let settings: Result<ForAllStages, _> = table.try_into();
        let ForAllStages { seed, threads, dialect, instructions } =
            settings.map_err(|cause| Error::config(FOR_ALL_STAGES.join(", "), cause.to_string().trim_end()))?;
        if threads == 0 {
            return Err(Error::config("threads", "is 0; at least one is needed"));
        }
        if threads > MAX_THREADS {
            return Err(Error::config("threads", format!("is {threads}; at most {MAX_THREADS} are useful")));
        }
        let gates: Gates = self.resolve("gates", &Table::new())?;
        gates.check()?;
        Ok(Common { seed, threads, gates, dialect, instructions, ..Common::default() })
    }

    /// The section `[run]`: the paths of a whole run.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub fn run(&self) -> Result<RunConfig> {
        self.resolve("run", &Table::new())
    }

    /// Where and how runs are recorded.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub fn runs(&self) -> Result<crate::runs::Config> {
        self.resolve("runs", &Table::new())
    }

    /// How object stores are used.
    ///
    /// # Errors
    /// As [`Settings::resolve`]; [`Error::Config`] if a value is invalid.
    pub fn store(&self) -> Result<store::Config> {
        let config: store::Config = self.resolve("store", &Table::new())?;
        config.check()?;
        Ok(config)
    }

    /// A section's settings: defaults, then the file's section, then every flag that is not null.
    ///
    /// # Errors
    /// [`Error::Config`] naming the section and the key.
    pub fn resolve<C: DeserializeOwned>(&self, section: &str, flags: &impl Serialize) -> Result<C> {
        let mut table = self.table.get(section).and_then(Value::as_table).cloned().unwrap_or_default();
        let flags = Table::try_from(flags).map_err(|cause| Error::config(section, cause))?;
        table.extend(flags);
        if section == "train" {
            table = with_recipe(table)?;
        }
        table.try_into().map_err(|cause| {
            let place = match &self.source {
                Some(source) => format!("[{section}] of {} (and the flags)", source.display()),
                None => section.to_owned(),
            };
            Error::config(place, cause.to_string().trim_end())
        })
    }

    /// The resolved settings of a section as JSON, with the seed if the stage depends on it; checked as the stage
    /// itself checks them.
    ///
    /// # Errors
    /// As [`Settings::resolve`]; [`Error::Config`] if a value is invalid or there is no such section.
    pub fn resolved(&self, section: &str) -> Result<serde_json::Value> {
        struct Resolve<'a>(&'a Settings);
        impl Visitor for Resolve<'_> {
            type Output = Result<serde_json::Value>;

            fn visit<C: StageConfig>(self) -> Self::Output {
                let config: C = self.0.resolve(C::NAME, &Table::new())?;
                config.check()?;
                let seed = if C::SEEDED { Some(self.0.common(&Table::new())?.seed) } else { None };
                Ok(serde_json::json!({ "seed": seed, C::NAME: config }))
            }
        }
        if let Some(resolved) = stages::visit(section, Resolve(self)) {
            return resolved;
        }
        match section {
            "evaluate" => self.json::<crate::evaluate::Config>(section),
            "recommend" => self.json::<crate::recommend::Config>(section),
            "gates" => self.json::<Gates>(section),
            "run" => self.json::<RunConfig>(section),
            "runs" => self.json::<crate::runs::Config>(section),
            "store" => self.json::<store::Config>(section),
            _ => Err(Error::config("stage", format!("unknown section '{section}'; known are {}", SECTIONS.join(", ")))),
        }
    }

    fn json<C: DeserializeOwned + Serialize>(&self, section: &str) -> Result<serde_json::Value> {
        let config: C = self.resolve(section, &Table::new())?;
        Ok(serde_json::json!({ "seed": null, section: config }))
    }
}

/// The section `[run]` of the settings: paths of a whole run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// The folder that holds the stages' folders.
    pub output: PathBuf,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self { output: PathBuf::from("output") }
    }
}

/// The table's settings on top of those of the recipe it names, with the path of an installed encoder for its name.
fn with_recipe(table: Table) -> Result<Table> {
    let bad = |cause: &dyn std::fmt::Display| Error::config("train.recipe", cause.to_string().trim_end());
    let recipe = table.get("recipe").cloned().map_or_else(|| Ok(Recipe::default()), Value::try_into);
    let config = train::Config::of(recipe.map_err(|cause| bad(&cause))?);
    let mut settings = Table::try_from(config).map_err(|cause| bad(&cause))?;
    settings.extend(table);
    if let Some(Value::String(named)) = settings.get_mut("encoder")
        && encoder::INSTALLED.contains(&named.as_str())
        && let Some(path) = encoder::installed(named).to_str()
    {
        path.clone_into(named);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("writable");
        Settings::read(Some(file.path()))
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let it = settings("seed = 5\n[train]\nepochs = 3\nbatch_size = 4\n").expect("good settings");
        let flags: Table = toml::from_str("batch_size = 2").expect("TOML");
        let config: train::Config = it.resolve("train", &flags).expect("resolves");
        assert_eq!((config.epochs, config.batch_size), (3, 2));
        assert_eq!(config.learning_rate, train::Config::default().learning_rate);
        assert_eq!(it.common(&Table::new()).expect("good").seed, 5);
        let flags: Table = toml::from_str("seed = 6\ndialect = \"portable\"").expect("TOML");
        let common = it.common(&flags).expect("good");
        assert_eq!((common.seed, common.dialect), (6, DialectChoice::Portable));
    }

    #[test]
    fn without_a_file_the_settings_are_those_of_the_sample() {
        let it = Settings::read(None).expect("built in");
        assert_eq!(it.text(), include_str!("../pipelines/sample.toml"));
        assert!(it.names("train", "epochs") && it.is_read());
        for (name, text) in BUILT_IN {
            let it = Settings::read(Some(Path::new(name))).expect(name);
            assert_eq!(it.text(), text);
            it.check().expect(name);
        }
        let problem = Settings::read(Some(Path::new("./real"))).expect_err("a file that is not there").to_string();
        assert!(problem.contains("./real") && problem.contains("built in are sample, real, best, full"), "{problem}");
    }

    #[test]
    fn an_installed_encoder_goes_by_its_name() {
        let encoder = |text: &str| settings(text).and_then(|it| it.resolve::<train::Config>("train", &Table::new()));
        let named = encoder("[train]\nrecipe = \"pretrained\"\nencoder = \"efficientnet-lite2\"\n").expect("good");
        assert_eq!(named.encoder, Some(encoder::installed("efficientnet-lite2")));
        assert!(named.encoder.is_some_and(|it| it.is_absolute() && it.ends_with("efficientnet-lite2.safetensors")));
        let other = encoder("[train]\nrecipe = \"pretrained\"\nencoder = \"mine/lite0\"\n").expect("good");
        assert_eq!(other.encoder, Some("mine/lite0".into()));
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (text, named) in [
            ("[trian]\n", "trian"),
            ("sead = 1\n", "sead"),
            ("[train]\nepoch = 1\n", "epoch"),
            ("[train]\nloss = \"hinge\"\n", "hinge"),
            ("threads = 0\n", "threads"),
            ("dialect = \"celtic\"\n", "celtic"),
            ("seed = -1\n", "seed"),
            ("seed = ", "config"),
            ("[gates]\nmin_mean_iou = 40\n", "min_mean_iou"),
        ] {
            let error = settings(text).and_then(|it| it.check()).expect_err(text);
            assert!(error.to_string().contains(named), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
