//! Categories, colours and cells by the names that people give them.

use crate::error::{Error, Result, similar};
use crate::labels::{BACKGROUND, LabelSet};

/// What a name stands for in a label set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// A category that is worn, by id.
    Category(u8),
    /// A colour, by id.
    Color(u8),
    /// A category in a colour, by its index in [`LabelSet::cell_names`].
    Cell(usize),
}

impl Named {
    /// What `name` stands for, without regard to case: a category (as the data set or as a column spells it), else a colour,
    /// else a cell.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting and the nearest names.
    pub(super) fn find(labels: &LabelSet, setting: &str, name: &str) -> Result<Self> {
        let is_name = |of: &str| of.to_lowercase() == name.to_lowercase();
        if let Some(category) = apparel(labels, name) {
            return Ok(Self::Category(category));
        }
        if let Some(color) = labels.colors().iter().skip(1).position(|it| is_name(&it.name)) {
            return Ok(Self::Color(color as u8 + 1));
        }
        if let Some(cell) = labels.cell_names().iter().position(|it| is_name(it)) {
            return Ok(Self::Cell(cell));
        }
        let colors = labels.colors().iter().skip(1).map(|it| it.name.as_str());
        let all = apparel_names(labels).chain(colors).chain(labels.cell_names().iter().map(String::as_str));
        Err(unknown(labels, setting, name, "category, colour or cell", all))
    }

    /// The category that `name` stands for.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting and the nearest categories.
    pub(super) fn category(labels: &LabelSet, setting: &str, name: &str) -> Result<u8> {
        match apparel(labels, name) {
            Some(category) => Ok(category),
            None => Err(unknown(labels, setting, name, "category", apparel_names(labels))),
        }
    }

    /// Its cells, ascending.
    pub(super) fn cells(self, labels: &LabelSet) -> Vec<usize> {
        match self {
            Self::Category(category) => cells_of(labels, category).collect(),
            Self::Color(color) => labels.apparel_categories().filter_map(|it| labels.cell_index(it, color)).collect(),
            Self::Cell(cell) => vec![cell],
        }
    }
}

/// The cells of a category that is worn, by colour.
pub(super) fn cells_of(labels: &LabelSet, category: u8) -> std::ops::Range<usize> {
    let first = labels.cell_index(category, BACKGROUND + 1).expect("the category is worn");
    first..first + labels.cells_per_category()
}

fn apparel(labels: &LabelSet, name: &str) -> Option<u8> {
    let name = name.to_lowercase();
    let is_name = |of: &str| of.to_lowercase() == name;
    let by_name = |&it: &u8| is_name(labels.category_name(it)) || is_name(labels.column_name(it));
    labels.apparel_categories().find(by_name)
}

fn apparel_names(labels: &LabelSet) -> impl Iterator<Item = &str> {
    labels.apparel_categories().map(|it| labels.category_name(it))
}

fn unknown<'a>(labels: &LabelSet, setting: &str, name: &str, kind: &str, all: impl Iterator<Item = &'a str>) -> Error {
    let is_name = |of: &str| of.to_lowercase() == name.to_lowercase();
    let problem = if name.trim().is_empty() {
        format!("has an empty name in its list; name a {kind}")
    } else if labels.categories().iter().any(|it| is_name(&it.name)) {
        format!("'{name}' is not worn")
    } else {
        format!("'{name}' is not a {kind} of the feature table")
    };
    let names: Vec<&str> = apparel_names(labels).collect();
    Error::config(setting, format!("{problem}{}; what is worn is {}", similar(name, all), names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_categories_then_colours_then_cells() -> Result<()> {
        let labels = LabelSet::cfpd();
        let find = |name| Named::find(&labels, "recommend.like", name);
        assert_eq!((find("T-shirt")?, find("tshirt")?), (Named::Category(1), Named::Category(1)));
        assert_eq!((find("Black")?, find("bag_black")?), (Named::Color(2), Named::Cell(13)));
        assert_eq!(find("bag")?.cells(&labels), (12..24).collect::<Vec<_>>());
        assert_eq!(find("black")?.cells(&labels)[..3], [1, 13, 25]);
        for (name, said) in [
            ("dres", "'dres' is not a category, colour or cell of the feature table (did you mean 'dress'"),
            ("hair", "'hair' is not worn"),
            ("bk", "'bk' is not worn"),
            (" ", "empty name"),
            ("<script>", "'<script>' is not a category"),
        ] {
            let error = find(name).expect_err(name);
            assert!(error.to_string().contains(said) && error.exit_code() == 2, "{error}");
        }
        let error = Named::category(&labels, "recommend.wearing", "black").expect_err("a colour");
        assert!(error.to_string().contains("'black' is not a category of the feature table"), "{error}");
        Ok(())
    }
}
