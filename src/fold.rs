//! A fold: the table of a settings file that maps the category names of a source to the categories of a label set, and its
//! colour names to the set's colours.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::labels::{BACKGROUND, LabelSet};

/// The setting that names a fold.
const SETTING: &str = "convert.fold";

/// The settings file of a fold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    fold: BTreeMap<String, String>,
    #[serde(default)]
    colors: BTreeMap<String, String>,
}

/// Category and colour by the name that a source has for it.
#[derive(Debug)]
pub(crate) struct Fold {
    /// The file, for messages; `None` without one.
    name: Option<String>,
    /// What names are folded to.
    labels: LabelSet,
    categories: BTreeMap<String, u8>,
    colors: BTreeMap<String, u8>,
}

impl Fold {
    /// Reads the tables `[fold]` and `[colors]` of the settings file at `path`; without one, names have to be those of
    /// `labels`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Config`] if it is not such a table, or maps to what is not a category.
    pub(crate) fn open(path: Option<&Path>, labels: &LabelSet) -> Result<Self> {
        let Some(path) = path else {
            let (categories, colors) = (BTreeMap::new(), BTreeMap::new());
            return Ok(Self { name: None, labels: labels.clone(), categories, colors });
        };
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::parse(&path.display().to_string(), &text, labels)
    }

    /// As [`Fold::open`], from `text`, the content of the file `name`.
    ///
    /// # Errors
    /// As [`Fold::open`].
    pub(crate) fn parse(name: &str, text: &str, labels: &LabelSet) -> Result<Self> {
        let invalid = |problem: String| Error::config(SETTING, format!("{name}: {problem}"));
        let File { fold, colors } = toml::from_str(text).map_err(|cause| invalid(cause.to_string()))?;
        let color_names: Vec<&str> = labels.colors().iter().map(|it| it.name.as_str()).collect();
        let categories = targets(fold, |to| labels.category_named(to), &labels.category_names()).map_err(invalid)?;
        let colors = targets(colors, |to| labels.color_named(to), &color_names.join(", ")).map_err(invalid)?;
        Ok(Self { name: Some(name.to_owned()), labels: labels.clone(), categories, colors })
    }

    /// What names are folded to.
    pub(crate) fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// The category of a name: by the table, else by the set's own names, of which there are others for the background.
    pub(crate) fn category(&self, name: &str) -> Option<u8> {
        self.categories.get(name).copied().or_else(|| self.labels.category_called(name))
    }

    /// The colour of each of a source's names, by the table or by the set's own names.
    ///
    /// # Errors
    /// [`Error::Config`] with all names that have none.
    pub(crate) fn colors(&self, names: &[&str]) -> Result<Vec<u8>> {
        let color = |name: &str| self.colors.get(name).copied().or_else(|| self.labels.color_named(name));
        let unknown: Vec<_> = names.iter().filter(|name| color(name).is_none()).map(|it| format!("'{it}'")).collect();
        if unknown.is_empty() {
            return Ok(names.iter().filter_map(|name| color(name)).collect());
        }
        let place = self.name.as_deref().unwrap_or("a settings file");
        let problem = format!(
            "the source's colours {} are not those of the label set; give each a line in [colors] of {place}",
            unknown.join(", ")
        );
        Err(Error::config(SETTING, problem))
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
            "{} in {}: not one of our categories ({}), and {table} {} = \"{}\"",
            unknown.join(", "),
            source.display(),
            self.labels.category_names(),
            unknown[0].replace('\'', "\""),
            self.labels.category_name(BACKGROUND),
        );
        Err(Error::config(SETTING, problem))
    }
}

/// A table with the ids of what it maps to.
fn targets(
    table: BTreeMap<String, String>,
    id_of: impl Fn(&str) -> Option<u8>,
    names: &str,
) -> Result<BTreeMap<String, u8>, String> {
    let unknown = table.iter().filter(|(_, to)| id_of(to).is_none());
    let unknown: Vec<_> = unknown.map(|(from, to)| format!("'{to}' of '{from}'")).collect();
    if !unknown.is_empty() {
        return Err(format!("{}: not one of {names}", unknown.join(", ")));
    }
    Ok(table.into_iter().filter_map(|(from, to)| Some((from, id_of(&to)?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_and_ours_need_no_line() -> Result<()> {
        let ours = LabelSet::cfpd();
        let fold = Fold::parse("fold.toml", "[fold]\n\"shirt, blouse\" = \"blouse\"\nhair = \"bk\"\n", &ours)?;
        let names = ["shirt, blouse", "hair", "skin", "background"];
        assert_eq!(fold.categories(names, Path::new("x"))?, [5, 0, 17, 0]);
        let unknown = fold.categories(["tie", "skin", "cape"], Path::new("x.json")).expect_err("two unknown names");
        assert!(unknown.to_string().contains("'tie', 'cape' in x.json"), "{unknown}");
        let text = "[fold]\na = \"tee\"\nb = \"skin\"\nc = \"cap\"\n";
        let bad = Fold::parse("fold.toml", text, &ours).expect_err("unknown");
        assert!(bad.to_string().contains("'tee' of 'a', 'cap' of 'c'"), "{bad}");
        let text = "[fold]\n[colors]\nnavy = \"blue\"\n";
        assert_eq!(Fold::parse("fold.toml", text, &ours)?.colors(&["bk", "navy", "red"])?, [0, 3, 10]);
        let unknown = Fold::open(None, &ours)?.colors(&["navy", "red", "teal"]).expect_err("two unknown names");
        assert!(unknown.to_string().contains("'navy', 'teal'"), "{unknown}");
        Ok(())
    }
}
