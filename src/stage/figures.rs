//! The open parts of a run record: figures by name, and the settings of whichever stage it was. Whoever needs one asks
//! here for it by name and type.

use std::collections::BTreeMap;
use std::ops::Index;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::common::Common;

/// Counts and figures by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, Value>);

impl Figures {
    /// Sets a figure.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// Adds to a count.
    pub fn add(&mut self, name: &str, more: u64) {
        self.set(name, self.count(name).unwrap_or(0) + more);
    }

    /// The figure of that name; `None` if there is none of that type.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        T::deserialize(self.0.get(name)?).ok()
    }

    /// A count.
    #[must_use]
    pub fn count(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    /// A count, share or other number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.as_f64()
    }

    /// The figures that are a single value, in order of name.
    pub fn single(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().filter(|(_, it)| !it.is_object() && !it.is_array()).map(|(name, it)| (name.as_str(), it))
    }
}

impl Index<&str> for Figures {
    type Output = Value;

    /// The figure of that name; null if there is none.
    fn index(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }
}

/// The settings that a folder was made with: those of all stages and those of its own stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MadeWith {
    common: Value,
    stage: Value,
}

impl MadeWith {
    pub(super) fn new(common: &Common, config: &impl Serialize) -> Self {
        let json = |it: Result<Value, serde_json::Error>| it.expect("settings are plain data");
        Self { common: json(serde_json::to_value(common)), stage: json(serde_json::to_value(config)) }
    }

    /// The random seed; `None` if it was not recorded.
    #[must_use]
    pub fn seed(&self) -> Option<u64> {
        self.common.get("seed")?.as_u64()
    }

    /// A setting of the stage; `None` if it is null, was not recorded, or is of another type.
    #[must_use]
    pub fn setting<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        T::deserialize(self.stage.get(name)?).ok()
    }

    /// The stage's settings by name.
    pub fn stage(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.stage.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
    }

    /// The stage's settings as its own type, with some of them replaced.
    ///
    /// # Errors
    /// If they were recorded by a version with other settings.
    pub fn config<C: DeserializeOwned>(&self, replaced: &serde_json::Map<String, Value>) -> serde_json::Result<C> {
        let mut stage = self.stage.clone();
        if let Some(stage) = stage.as_object_mut() {
            stage.extend(replaced.clone());
        }
        serde_json::from_value(stage)
    }
}
