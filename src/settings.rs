//! Settings files (`pipelines/*.toml`): one section a stage, one for the gates and one for the records of runs, and above
//! them what is for all stages. A flag beats the file, the file beats the default.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::engine::{DialectChoice, InstructionsChoice};
use crate::error::{Error, Result};
use crate::gates::Gates;
use crate::stage::{Common, Summary};
use crate::train::{self, Recipe};

/// The sections that there are: the stages in the order of the flow, and what they have in common.
pub const SECTIONS: [&str; 11] = [
    "sample",
    "convert",
    "train",
    "evaluate",
    "export",
    "segment",
    "similarity",
    "recommend",
    "report",
    "gates",
    "runs",
];

/// What stands above the sections, for all stages.
pub const FOR_ALL_STAGES: [&str; 4] = ["seed", "threads", "dialect", "instructions"];

/// A settings file, or none.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    path: Option<PathBuf>,
    table: Table,
}

impl Settings {
    /// Reads a file; no file gives no settings.
    ///
    /// # Errors
    /// [`Error::Config`] where it cannot be read, is not TOML, or has a section or key that there is not.
    pub fn read(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let bad = |problem: String| Error::config("config", format!("{}: {problem}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|cause| bad(format!("cannot be read ({cause})")))?;
        let table: Table = toml::from_str(&text).map_err(|cause| bad(cause.to_string().trim_end().to_owned()))?;
        for (name, value) in &table {
            let known: &[&str] = if value.is_table() { &SECTIONS } else { &FOR_ALL_STAGES };
            if !known.contains(&name.as_str()) {
                let (for_all, sections) = (FOR_ALL_STAGES.join(", "), SECTIONS.join("], ["));
                return Err(bad(format!("there is no '{name}'; there are {for_all} and [{sections}]")));
            }
        }
        Ok(Self { path: Some(path.to_owned()), table })
    }

    /// The settings of all stages and what stands above them, checked.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first section that is wrong.
    pub fn check(&self) -> Result<()> {
        self.common(&Table::new())?;
        SECTIONS.iter().try_for_each(|section| self.resolved(section).map(drop))
    }

    /// Names of the sections that the file has.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.table.iter().filter(|(_, value)| value.is_table()).map(|(name, _)| name.as_str())
    }

    /// What all stages take: defaults, the file, then every flag that is not null.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key or the gate that is wrong.
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
        let gates: Gates = self.resolve("gates", &Table::new())?;
        gates.check()?;
        Ok(Common { seed, threads, gates, dialect, instructions, ..Common::default() })
    }

    /// Where and how runs are recorded.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub fn runs(&self) -> Result<crate::runs::Config> {
        self.resolve("runs", &Table::new())
    }

    /// One line for each setting of the file that is not what a stage's folder was made with.
    #[must_use]
    pub fn changes(&self, made: &Summary) -> Vec<String> {
        let section = self.table.get(&made.stage).and_then(Value::as_table).into_iter().flatten();
        let change = |(key, value): (&String, &Value)| {
            let now = serde_json::to_value(value).unwrap_or_default();
            let before = &made.config["stage"][key];
            // Numbers go through the widths of their settings.
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
            let same = now == *before || now.as_f64().zip(before.as_f64()).is_some_and(|(a, b)| close(a, b));
            (!same).then(|| format!("setting {key} is {now}, it was made with {before}"))
        };
        section.filter_map(change).collect()
    }

    /// A stage's configuration: defaults, the file's section, then every flag that is not null.
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
            let place = match &self.path {
                Some(path) => format!("[{section}] of {} (and the flags)", path.display()),
                None => section.to_owned(),
            };
            Error::config(place, cause.to_string().trim_end())
        })
    }

    /// A stage's configuration as JSON, with the seed where the stage draws lots: what its result hangs on.
    ///
    /// # Errors
    /// As [`Settings::resolve`]; [`Error::Config`] where there is no such stage.
    pub fn resolved(&self, section: &str) -> Result<serde_json::Value> {
        let seed = self.common(&Table::new())?.seed;
        match section {
            "sample" => self.json::<crate::sample::Config>(section, Some(seed)),
            "convert" => self.json::<crate::convert::Config>(section, None),
            "train" => self.json::<crate::train::Config>(section, Some(seed)),
            "evaluate" => self.json::<crate::evaluate::Config>(section, None),
            "export" => self.json::<crate::export::Config>(section, None),
            "segment" => self.json::<crate::segment::Config>(section, None),
            "similarity" => self.json::<crate::similarity::Config>(section, None),
            "recommend" => self.json::<crate::recommend::Config>(section, None),
            "report" => self.json::<crate::report::Config>(section, None),
            "gates" => self.json::<Gates>(section, None),
            "runs" => self.json::<crate::runs::Config>(section, None),
            _ => Err(Error::config("stage", format!("there is no '{section}'; there are {}", SECTIONS.join(", ")))),
        }
    }

    fn json<C: DeserializeOwned + Serialize>(&self, section: &str, seed: Option<u64>) -> Result<serde_json::Value> {
        let config: C = self.resolve(section, &Table::new())?;
        Ok(serde_json::json!({ "seed": seed, section: config }))
    }
}

/// The settings of the recipe that the table names, under those of the table.
fn with_recipe(table: Table) -> Result<Table> {
    let bad = |cause: &dyn std::fmt::Display| Error::config("train.recipe", cause.to_string().trim_end());
    let recipe = table.get("recipe").cloned().map_or_else(|| Ok(Recipe::default()), Value::try_into);
    let config = train::Config::of(recipe.map_err(|cause| bad(&cause))?);
    let mut settings = Table::try_from(config).map_err(|cause| bad(&cause))?;
    settings.extend(table);
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
