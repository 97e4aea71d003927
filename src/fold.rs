//! A fold: the table of a settings file that maps the category names of a source to the categories of
//! [`crate::labels`].

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::labels::{BACKGROUND, CATEGORIES, category_named};

/// The name that labelling tools give to what has no label.
const BACKGROUND_NAME: &str = "background";
/// The setting that names a fold.
const SETTING: &str = "convert.fold";

/// The settings file of a fold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    fold: BTreeMap<String, String>,
}

/// Category by the name that a source has for it.
#[derive(Debug)]
pub(crate) struct Fold {
    /// The file, for messages; `None` without one.
    name: Option<String>,
    categories: BTreeMap<String, u8>,
}

impl Fold {
    /// Reads the table `[fold]` of the settings file at `path`; without one, names have to be ours.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Config`] if it is not such a table, or maps to what is not a category.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { name: None, categories: BTreeMap::new() }) };
        Self::parse(&path.display().to_string(), &std::fs::read_to_string(path).map_err(Error::io("read", path))?)
    }

    /// As [`Fold::open`], from `text`, the content of the file `name`.
    ///
    /// # Errors
    /// As [`Fold::open`].
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self> {
        let invalid = |problem: String| Error::config(SETTING, format!("{name}: {problem}"));
        let File { fold } = toml::from_str(text).map_err(|cause| invalid(cause.to_string()))?;
        let (known, unknown): (BTreeMap<_, _>, BTreeMap<_, _>) = fold
            .into_iter()
            .map(|(from, to)| (from, (category_named(&to), to)))
            .partition(|(_, (category, _))| category.is_some());
        if !unknown.is_empty() {
            let lines: Vec<_> = unknown.iter().map(|(from, (_, to))| format!("'{to}' of '{from}'")).collect();
            return Err(invalid(format!("{}: not one of {}", lines.join(", "), CATEGORIES.join(", "))));
        }
        let categories = known.into_iter().filter_map(|(from, (category, _))| Some((from, category?))).collect();
        Ok(Self { name: Some(name.to_owned()), categories })
    }

    /// The category of a name: by the table, else by our own names, of which `background` is another for `bk`.
    pub(crate) fn category(&self, name: &str) -> Option<u8> {
        let background = || (name == BACKGROUND_NAME).then_some(BACKGROUND);
        self.categories.get(name).copied().or_else(|| category_named(name)).or_else(background)
    }

    /// The category of each name of the list in `source`.
    ///
    /// # Errors
    /// [`Error::Config`] with all names that have none.
    pub(crate) fn categories<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str> + Clone,
        source: &Path,
    ) -> Result<Vec<u8>> {
        let unknown = names.clone().into_iter().filter(|name| self.category(name).is_none());
        let unknown: Vec<_> = unknown.map(|name| format!("'{}'", name.escape_debug())).collect();
        if unknown.is_empty() {
            return Ok(names.into_iter().filter_map(|name| self.category(name)).collect());
        }
        let table = match &self.name {
            Some(name) => format!("{name} has no line for them; add e.g."),
            None => "no fold is set; name a settings file with e.g. [fold]".to_owned(),
        };
        let problem = format!(
            "{} in {}: not one of our categories ({}), and {table} {} = \"bk\"",
            unknown.join(", "),
            source.display(),
            CATEGORIES.join(", "),
            unknown[0].replace('\'', "\"")
        );
        Err(Error::config(SETTING, problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_and_ours_need_no_line() -> Result<()> {
        let fold = Fold::parse("fold.toml", "[fold]\n\"shirt, blouse\" = \"blouse\"\nhair = \"bk\"\n")?;
        let names = ["shirt, blouse", "hair", "skin", "background"];
        assert_eq!(fold.categories(names, Path::new("x"))?, [5, 0, 17, 0]);
        let unknown = fold.categories(["tie", "skin", "cape"], Path::new("x.json")).expect_err("two unknown names");
        assert!(unknown.to_string().contains("'tie', 'cape' in x.json"), "{unknown}");
        let bad = Fold::parse("fold.toml", "[fold]\na = \"tee\"\nb = \"skin\"\nc = \"cap\"\n").expect_err("unknown");
        assert!(bad.to_string().contains("'tee' of 'a', 'cap' of 'c'"), "{bad}");
        Ok(())
    }
}
