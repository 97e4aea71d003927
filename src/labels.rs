//! Label sets: the categories and colours that a data set, a model or a feature table names, and the feature cells that
//! they span. That of the Colorful Fashion Parsing data set (Liu et al., IEEE Transactions on Multimedia 2014) is the
//! default.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

/// Number of categories of Colorful Fashion Parsing, background included.
pub const CATEGORY_COUNT: usize = 23;
/// Number of its colours, background included.
pub const COLOR_COUNT: usize = 13;
/// Number of its feature cells: 19 apparel categories x 12 colours.
pub const CELL_COUNT: usize = 228;
/// Id of the background, in both lists of every label set.
pub const BACKGROUND: u8 = 0;
/// In place of a category: the pixel has no label, and the loss `softmax` ignores it.
pub const IGNORED: u8 = 255;

/// Numbers of categories that a label set may have, background included.
pub const CATEGORIES_ALLOWED: RangeInclusive<usize> = 2..=MAX_CATEGORIES;
/// Numbers of colours that it may have, background not included.
pub const COLORS_ALLOWED: RangeInclusive<usize> = 1..=MAX_COLORS;
/// The largest number of categories.
pub const MAX_CATEGORIES: usize = 64;
/// The largest number of colours.
pub const MAX_COLORS: usize = 24;
/// The largest number of feature cells.
pub const MAX_CELLS: usize = (MAX_CATEGORIES - 1) * MAX_COLORS;
/// The longest name of a column.
const MAX_COLUMN_NAME: usize = 128;

/// Category names of Colorful Fashion Parsing by id, as the data set spells them.
pub const CATEGORIES: [&str; CATEGORY_COUNT] = [
    "bk", "T-shirt", "bag", "belt", "blazer", "blouse", "coat", "dress", "face", "hair", "hat", "jeans", "legging",
    "pants", "scarf", "shoe", "shorts", "skin", "skirt", "socks", "stocking", "sunglass", "sweater",
];

/// Its colour names by id, as the data set spells them.
pub const COLORS: [&str; COLOR_COUNT] =
    ["bk", "beige", "black", "blue", "brown", "gray", "green", "orange", "pink", "purple", "red", "white", "yellow"];

/// A typical sRGB value of each of its colours, for drawing; for `bk` a neutral grey.
pub const COLOR_RGB: [[u8; 3]; COLOR_COUNT] = [
    [128, 128, 128],
    [222, 203, 164],
    [24, 24, 26],
    [44, 84, 170],
    [110, 70, 40],
    [134, 136, 140],
    [52, 124, 62],
    [232, 126, 36],
    [238, 150, 180],
    [112, 60, 140],
    [196, 32, 44],
    [244, 244, 242],
    [240, 210, 60],
];

/// The usual share of each of its apparel categories: the median of its share of the apparel pixels, by the labels, over
/// those of the 651 train photos of 804 street photos in which it occurs (docs/tables.md). 0 for what is no apparel.
pub const USUAL_SHARE: [f64; CATEGORY_COUNT] = [
    0.0, 0.259, 0.078, 0.018, 0.384, 0.174, 0.456, 0.593, 0.0, 0.0, 0.043, 0.360, 0.191, 0.421, 0.125, 0.058, 0.210,
    0.0, 0.267, 0.024, 0.126, 0.015, 0.255,
];

/// Colours (sRGB) for categories in overlays and masks, by id, `bk` black. Those of Colorful Fashion Parsing that are
/// neighbours on a body have very different colours.
pub const CATEGORY_PALETTE: [[u8; 3]; CATEGORY_COUNT] = [
    [0, 0, 0],
    [230, 25, 75],
    [255, 225, 25],
    [170, 110, 40],
    [0, 130, 200],
    [245, 130, 48],
    [70, 130, 110],
    [240, 50, 230],
    [255, 205, 180],
    [128, 64, 0],
    [128, 0, 0],
    [30, 80, 220],
    [60, 180, 75],
    [145, 30, 180],
    [210, 245, 60],
    [128, 128, 0],
    [0, 200, 190],
    [250, 170, 140],
    [250, 120, 190],
    [170, 255, 195],
    [100, 70, 160],
    [70, 240, 240],
    [255, 160, 0],
];

/// Names by which data sets and labelling tools call what has no label.
const BACKGROUND_NAMES: [&str; 8] =
    ["bk", "background", "_background_", "null", "none", "void", "unlabeled", "unlabelled"];
/// Names, or last words of names, of what is not worn in data sets that do not say.
const BODY_NAMES: [&str; 14] =
    ["face", "hair", "skin", "head", "neck", "torso", "arm", "arms", "hand", "hands", "leg", "legs", "foot", "feet"];
/// The columns of a feature table that no cell may be called like.
pub(crate) const OTHER_COLUMNS: [&str; 13] = [
    "photo_id",
    "file_name",
    "path",
    "content_sha256",
    "model_id",
    "width_px",
    "height_px",
    "photo_width_px",
    "photo_height_px",
    "apparel_px",
    "phash",
    "crop_resistant_phash",
    "embedding",
];

/// A category of a label set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Category {
    /// As the data set spells it.
    pub name: String,
    /// Whether it is worn.
    pub is_apparel: bool,
    /// The median of its share of a photo's apparel pixels, over photos in which it occurs, 0 to 1; 0 for what is not worn,
    /// and if it is not known.
    #[serde(default)]
    pub usual_share: f64,
}

/// A colour of a label set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Color {
    /// As the data set spells it.
    pub name: String,
    /// A typical sRGB value.
    pub rgb: [u8; 3],
}

/// The categories and colours by id; the first of each is the background. Cheap to clone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Lists", into = "Lists")]
pub struct LabelSet(Arc<Named>);

/// A label set as text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    categories: Vec<Category>,
    colors: Vec<Color>,
}

/// A label set, and what follows from it.
#[derive(Debug)]
struct Named {
    categories: Vec<Category>,
    colors: Vec<Color>,
    /// Ids of the apparel categories.
    apparel: Vec<u8>,
    /// Column name of each category.
    columns: Vec<String>,
    /// Names of the cells.
    cells: Vec<String>,
}

impl Default for LabelSet {
    fn default() -> Self {
        Self::cfpd()
    }
}

impl PartialEq for LabelSet {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.categories(), self.colors()) == (other.categories(), other.colors())
    }
}

impl TryFrom<Lists> for LabelSet {
    type Error = String;

    fn try_from(Lists { categories, colors }: Lists) -> Result<Self, String> {
        Self::new(categories, colors)
    }
}

impl From<LabelSet> for Lists {
    fn from(labels: LabelSet) -> Self {
        Self { categories: labels.0.categories.clone(), colors: labels.0.colors.clone() }
    }
}

impl LabelSet {
    /// That of Colorful Fashion Parsing: 23 categories, 19 of them worn, and 12 colours.
    #[must_use]
    pub fn cfpd() -> Self {
        static CFPD: OnceLock<LabelSet> = OnceLock::new();
        let made = || {
            let category = |(name, usual_share): (&&str, f64)| Category {
                name: (*name).to_owned(),
                is_apparel: usual_share > 0.0,
                usual_share,
            };
            let categories = CATEGORIES.iter().zip(USUAL_SHARE).map(category).collect();
            Self::new(categories, typical_colors()).expect("its names are valid")
        };
        CFPD.get_or_init(made).clone()
    }

    /// The label set of these categories and colours, each with the background first.
    ///
    /// # Errors
    /// What is wrong: too many or too few of them; a name that is missing, that occurs twice, or that makes a column which
    /// databases do not take.
    pub fn new(categories: Vec<Category>, colors: Vec<Color>) -> Result<Self, String> {
        check_number("categories, the background included", categories.len(), &CATEGORIES_ALLOWED)?;
        check_number("colours", colors.len().saturating_sub(1), &COLORS_ALLOWED)?;
        check_names("categories", categories.iter().map(|it| it.name.as_str()))?;
        check_names("colours", colors.iter().map(|it| it.name.as_str()))?;
        if categories[0].is_apparel {
            let name = &categories[0].name;
            return Err(format!("the first category, '{name}', is worn; the first one is the background"));
        }
        if let Some(it) = categories.iter().find(|it| !(0.0..=1.0).contains(&it.usual_share)) {
            return Err(format!("the category '{}' has a usual share of {}; use 0 to 1", it.name, it.usual_share));
        }
        let apparel: Vec<u8> = (0..).zip(&categories).filter(|(_, it)| it.is_apparel).map(|(id, _)| id).collect();
        if apparel.is_empty() {
            return Err("none of the categories is worn".to_owned());
        }
        let columns: Vec<String> = categories.iter().map(|it| column_name(&it.name)).collect();
        let color_columns: Vec<String> = colors[1..].iter().map(|it| column_name(&it.name)).collect();
        let cell = |&category: &u8| {
            let category = &columns[usize::from(category)];
            color_columns.iter().map(move |color| format!("{category}_{color}"))
        };
        let cells: Vec<String> = apparel.iter().flat_map(cell).collect();
        check_columns(&categories, &columns, &cells)?;
        Ok(Self(Arc::new(Named { categories, colors, apparel, columns, cells })))
    }

    /// The label set of a source's or a network's own names, with the colours of [`LabelSet::cfpd`]. The background is the
    /// first name for it, or is put before them; what is called like a part of the body is not worn.
    ///
    /// # Errors
    /// As [`LabelSet::new`].
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut names: Vec<&str> = names.into_iter().collect();
        let background = names.iter().position(|name| is_background(name)).map(|place| names.remove(place));
        names.insert(0, background.unwrap_or(BACKGROUND_NAMES[1]));
        let category = |(id, name): (usize, &str)| {
            let is_apparel = id > 0 && !is_body(name);
            Category { name: name.to_owned(), is_apparel, usual_share: 0.0 }
        };
        Self::new(names.into_iter().enumerate().map(category).collect(), typical_colors())
    }

    /// Reads a `labels.toml`, `text`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_toml(text: &str) -> Result<Self, String> {
        let LabelsFile { categories, not_worn, colors, usual_share } =
            toml::from_str(text).map_err(|cause| cause.to_string().trim_end().to_owned())?;
        let named = usual_share.keys().map(|name| ("usual_share", name));
        for (setting, name) in named.chain(not_worn.iter().flatten().map(|name| ("not_worn", name))) {
            if !categories.contains(name) {
                return Err(format!("{setting} names '{name}', which is not one of the categories"));
            }
        }
        let is_apparel = |id: usize, name: &String| {
            id > 0 && !not_worn.as_ref().map_or_else(|| is_body(name), |not_worn| not_worn.contains(name))
        };
        let category = |(id, name): (usize, &String)| {
            let is_apparel = is_apparel(id, name);
            let usual_share = usual_share.get(name).copied().unwrap_or(0.0);
            Category { name: name.clone(), is_apparel, usual_share: if is_apparel { usual_share } else { 0.0 } }
        };
        let categories = categories.iter().enumerate().map(category).collect();
        let colors = colors.map_or_else(typical_colors, |colors| std::iter::once(no_color()).chain(colors).collect());
        Self::new(categories, colors)
    }

    /// Whether it is that of Colorful Fashion Parsing.
    #[must_use]
    pub fn is_cfpd(&self) -> bool {
        *self == Self::cfpd()
    }

    /// The categories by id, the background first.
    #[must_use]
    pub fn categories(&self) -> &[Category] {
        &self.0.categories
    }

    /// The colours by id, the background first.
    #[must_use]
    pub fn colors(&self) -> &[Color] {
        &self.0.colors
    }

    /// Number of categories, background included: the network's output maps.
    #[must_use]
    pub fn category_count(&self) -> usize {
        self.0.categories.len()
    }

    /// Number of colours, background included.
    #[must_use]
    pub fn color_count(&self) -> usize {
        self.0.colors.len()
    }

    /// Number of feature cells: apparel categories x colours without the background.
    #[must_use]
    pub fn cell_count(&self) -> usize {
        self.0.cells.len()
    }

    /// Number of cells of each apparel category: colours without the background.
    #[must_use]
    pub fn cells_per_category(&self) -> usize {
        self.0.colors.len() - 1
    }

    /// The name of a category.
    #[must_use]
    pub fn category_name(&self, category: u8) -> &str {
        &self.0.categories[usize::from(category)].name
    }

    /// The names of the categories, for messages.
    #[must_use]
    pub fn category_names(&self) -> String {
        let names: Vec<&str> = self.0.categories.iter().map(|it| it.name.as_str()).collect();
        names.join(", ")
    }

    /// Whether the category is apparel.
    #[must_use]
    pub fn is_apparel(&self, category: u8) -> bool {
        self.0.categories.get(usize::from(category)).is_some_and(|it| it.is_apparel)
    }

    /// The usual share of a category ([`Category::usual_share`]).
    #[must_use]
    pub fn usual_share(&self, category: u8) -> f64 {
        self.0.categories[usize::from(category)].usual_share
    }

    /// The id of the category of that name.
    #[must_use]
    pub fn category_named(&self, name: &str) -> Option<u8> {
        self.0.categories.iter().position(|it| it.name == name).map(|id| id as u8)
    }

    /// The id of what a source calls `name`: the category of that name, or the background by another name for it.
    #[must_use]
    pub fn category_called(&self, name: &str) -> Option<u8> {
        let is_other = if self.is_cfpd() { name == BACKGROUND_NAMES[1] } else { is_background(name) };
        self.category_named(name).or_else(|| is_other.then_some(BACKGROUND))
    }

    /// The id of the colour of that name.
    #[must_use]
    pub fn color_named(&self, name: &str) -> Option<u8> {
        self.0.colors.iter().position(|it| it.name == name).map(|id| id as u8)
    }

    /// The ids of the apparel categories, ascending.
    pub fn apparel_categories(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.apparel.iter().copied()
    }

    /// A category's name as used in column names: letters, digits and underscores.
    #[must_use]
    pub fn column_name(&self, category: u8) -> &str {
        &self.0.columns[usize::from(category)]
    }

    /// Names of the feature cells in column order, `<category>_<color>`: categories in the outer loop, colours in the inner,
    /// both by id.
    #[must_use]
    pub fn cell_names(&self) -> &[String] {
        &self.0.cells
    }

    /// The index in [`LabelSet::cell_names`] of the cell of a category and a colour (both by id); `None` if the category is
    /// not apparel or the colour is the background.
    #[must_use]
    pub fn cell_index(&self, category: u8, color: u8) -> Option<usize> {
        if color == BACKGROUND || usize::from(color) >= self.color_count() {
            return None;
        }
        let rank = self.0.apparel.iter().position(|apparel| *apparel == category)?;
        Some(rank * self.cells_per_category() + usize::from(color) - 1)
    }

    /// The same set with other usual shares for apparel whose own are not known, by category.
    #[must_use]
    pub fn with_usual_shares(&self, shares: &[f64]) -> Self {
        let mut categories = self.0.categories.clone();
        for (category, &share) in categories.iter_mut().zip(shares) {
            if category.is_apparel && category.usual_share == 0.0 {
                category.usual_share = share;
            }
        }
        Self::new(categories, self.0.colors.clone()).expect("only shares change")
    }

    /// Checks that two sets have the same categories, worn alike, and the same colours. `ours` and `theirs` say whose they
    /// are.
    ///
    /// # Errors
    /// The first difference.
    pub fn check_like(&self, other: &Self, ours: &str, theirs: &str) -> Result<(), String> {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ok(());
        }
        let worn = |it: &Category| format!("'{}'{}", it.name, if it.is_apparel { "" } else { " (not worn)" });
        let categories = |of: &Self| of.0.categories.iter().map(worn).collect::<Vec<_>>();
        let colors = |of: &Self| of.0.colors.iter().map(|it| format!("'{}'", it.name)).collect::<Vec<_>>();
        let lists = [("category", categories(self), categories(other)), ("colour", colors(self), colors(other))];
        for (kind, own, of_other) in lists {
            let longest = own.len().max(of_other.len());
            if let Some(at) = (0..longest).find(|&at| own.get(at) != of_other.get(at)) {
                let shown = |list: &[String]| list.get(at).cloned().unwrap_or_else(|| "none".to_owned());
                return Err(format!(
                    "the label sets are not the same: {kind} {at} is {} in {ours}, and {} in {theirs}",
                    shown(&own),
                    shown(&of_other)
                ));
            }
        }
        Ok(())
    }
}

/// A `labels.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelsFile {
    /// By id; the first is the background.
    categories: Vec<String>,
    /// Those that are not worn, besides the background; by default those that are called like parts of the body.
    not_worn: Option<Vec<String>>,
    /// Without the background; by default those of Colorful Fashion Parsing.
    colors: Option<Vec<Color>>,
    /// The usual shares of some categories; `convert` measures the others.
    #[serde(default)]
    usual_share: HashMap<String, f64>,
}

/// The colour (sRGB) of a category in overlays and masks. Beyond [`CATEGORY_PALETTE`] colours go round the colour wheel by
/// the golden angle, which keeps them apart.
#[must_use]
pub fn category_rgb(category: u8) -> [u8; 3] {
    const GOLDEN_ANGLE: f32 = 137.508;
    let category = usize::from(category);
    if let Some(&rgb) = CATEGORY_PALETTE.get(category) {
        return rgb;
    }
    let hue = category as f32 * GOLDEN_ANGLE % 360.0;
    let value = [230.0, 170.0, 110.0][category % 3];
    [5.0, 3.0, 1.0].map(|channel| {
        let place = (channel + hue / 60.0) % 6.0;
        (value * (1.0 - 0.75 * place.min(4.0 - place).clamp(0.0, 1.0))).round() as u8
    })
}

/// The colours of Colorful Fashion Parsing.
fn typical_colors() -> Vec<Color> {
    COLORS.iter().zip(COLOR_RGB).map(|(name, rgb)| Color { name: (*name).to_owned(), rgb }).collect()
}

/// The first colour of every set.
fn no_color() -> Color {
    Color { name: COLORS[0].to_owned(), rgb: COLOR_RGB[0] }
}

/// Whether a name is one for the background.
fn is_background(name: &str) -> bool {
    BACKGROUND_NAMES.contains(&name.to_lowercase().as_str())
}

/// Whether a name is one for the background or a part of the body, by its last word.
fn is_body(name: &str) -> bool {
    let name = name.to_lowercase();
    let last = name.rsplit(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
    is_background(&name) || BODY_NAMES.contains(&last)
}

/// A name as used in column names: without '-', and an underscore for what is neither letter nor digit.
fn column_name(name: &str) -> String {
    let mut column = String::with_capacity(name.len());
    for letter in name.chars().filter(|it| *it != '-') {
        let is_plain = letter.is_alphanumeric() || letter == '_';
        if is_plain || !column.ends_with('_') {
            column.push(if is_plain { letter } else { '_' });
        }
    }
    column
}

fn check_number(what: &str, found: usize, allowed: &RangeInclusive<usize>) -> Result<(), String> {
    if allowed.contains(&found) {
        return Ok(());
    }
    Err(format!("has {found} {what}; use {} to {}", allowed.start(), allowed.end()))
}

fn check_names<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = Vec::new();
    for (id, name) in names.enumerate() {
        if name.trim().is_empty() || name.trim() != name || name.chars().any(char::is_control) {
            return Err(format!("the name {id} of the {what} is {name:?}; use a name without spaces around it"));
        }
        if seen.contains(&name) {
            return Err(format!("the {what} have '{name}' twice"));
        }
        seen.push(name);
    }
    Ok(())
}

/// Checks that the columns of a feature table have names that databases take, each once without regard to case.
fn check_columns(categories: &[Category], columns: &[String], cells: &[String]) -> Result<(), String> {
    for (category, column) in categories.iter().zip(columns) {
        let is_plain = column.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        if column.is_empty() || !is_plain || column.starts_with(|letter: char| letter.is_ascii_digit()) {
            return Err(format!(
                "the category '{}' makes columns that begin with '{column}', but those of databases are of letters a to z, \
                 digits and underscores, and do not begin with a digit; call it otherwise",
                category.name
            ));
        }
    }
    let mut seen: HashMap<String, &str> =
        OTHER_COLUMNS.iter().map(|name| ((*name).to_owned(), "a column of every table")).collect();
    let pixels: Vec<String> = columns.iter().map(|column| format!("px_{column}")).collect();
    for name in pixels.iter().chain(cells) {
        if name.len() > MAX_COLUMN_NAME {
            return Err(format!("the column '{name}' has {} letters; {MAX_COLUMN_NAME} are allowed", name.len()));
        }
        if !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            return Err(format!("the column '{name}' has other letters than a to z, digits and underscores"));
        }
        if let Some(other) = seen.insert(name.to_lowercase(), name) {
            return Err(format!("the column '{name}' is called like {other}; column names are compared without case"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn category(name: &str, is_apparel: bool) -> Category {
        Category { name: name.to_owned(), is_apparel, usual_share: 0.0 }
    }

    fn color(name: &str) -> Color {
        Color { name: name.to_owned(), rgb: [1, 2, 3] }
    }

    fn set(categories: &[&str], colors: &[&str]) -> Result<LabelSet, String> {
        let categories = categories.iter().enumerate().map(|(id, name)| category(name, id > 0)).collect();
        LabelSet::new(categories, std::iter::once(&"bk").chain(colors).map(|name| color(name)).collect())
    }

    #[test]
    fn cells_are_named_as_the_seed_names_them() {
        let labels = LabelSet::cfpd();
        let names = labels.cell_names();
        assert_eq!(names.len(), CELL_COUNT);
        assert_eq!(names[0], "Tshirt_beige");
        assert_eq!(names[CELL_COUNT - 1], "sweater_yellow");
        assert_eq!((labels.category_count(), labels.color_count()), (CATEGORY_COUNT, COLOR_COUNT));
    }

    #[test]
    fn apparel_alone_has_a_usual_share() {
        let labels = LabelSet::cfpd();
        let not_worn: Vec<_> = labels.categories().iter().filter(|it| !it.is_apparel).map(|it| &it.name[..]).collect();
        assert_eq!(not_worn, ["bk", "face", "hair", "skin"]);
        assert_eq!(
            (CATEGORIES[7], labels.usual_share(7), CATEGORIES[21], labels.usual_share(21)),
            ("dress", 0.593, "sunglass", 0.015)
        );
    }

    #[test]
    fn every_cell_is_found_under_its_own_index() {
        let labels = LabelSet::cfpd();
        let found: Vec<usize> = (0..CATEGORY_COUNT as u8)
            .flat_map(|category| (0..COLOR_COUNT as u8).map(move |color| (category, color)))
            .filter_map(|(category, color)| labels.cell_index(category, color))
            .collect();
        assert_eq!(found, (0..CELL_COUNT).collect::<Vec<_>>());
        assert_eq!(labels.cell_index(8, 1), None, "a face is not worn");
    }

    #[test]
    fn a_set_is_read_as_it_was_written() {
        for labels in [LabelSet::cfpd(), set(&["none", "hat"], &["red"]).expect("a small set")] {
            let text = serde_json::to_string(&labels).expect("plain data");
            assert_eq!(serde_json::from_str::<LabelSet>(&text).expect("the same"), labels);
        }
        assert!(LabelSet::default().is_cfpd() && !set(&["none", "hat"], &["red"]).expect("small").is_cfpd());
        let bad = r#"{"categories": [{"name": "a", "is_apparel": false}], "colors": []}"#;
        let problem = serde_json::from_str::<LabelSet>(bad).expect_err("one category").to_string();
        assert!(problem.contains("has 1 categories"), "{problem}");
    }

    #[test]
    fn numbers_and_names_have_their_bounds() {
        let many = |count: usize, letter: char| (0..count).map(|it| format!("{letter}{it}")).collect::<Vec<_>>();
        let sized = |categories: usize, colors: usize| {
            let (categories, colors) = (many(categories, 'k'), many(colors, 'c'));
            let [categories, colors] =
                [&categories, &colors].map(|it| it.iter().map(String::as_str).collect::<Vec<_>>());
            set(&categories, &colors)
        };
        assert_eq!(sized(64, 24).expect("the largest").cell_count(), MAX_CELLS);
        assert_eq!(sized(2, 1).expect("the smallest").cell_names(), ["k1_c0"]);
        let refused = |found: Result<LabelSet, String>| found.expect_err("it is refused");
        for ([categories, colors], named) in [
            ([1, 1], "has 1 categories"),
            ([65, 1], "has 65 categories"),
            ([2, 0], "has 0 colours"),
            ([2, 25], "has 25 colours"),
        ] {
            let problem = refused(sized(categories, colors));
            assert!(problem.contains(named), "{problem}");
        }
        let long = "a".repeat(127);
        for (names, colors, named) in [
            (&["none", "hat", "hat"][..], &["red"][..], "'hat' twice"),
            (&["none", "hat", "Hat"], &["red"], "px_Hat"),
            (&["none", "hat-a", "hata"], &["red"], "px_hata"),
            (&["none", "2-piece"], &["red"], "'2-piece'"),
            (&["none", "écharpe"], &["red"], "'écharpe'"),
            (&["none", ""], &["red"], "name 1"),
            (&["none", " hat"], &["red"], "name 1"),
            (&["none", "hat"], &["rêve"], "hat_rêve"),
            (&["none", "photo"], &["id"], "photo_id"),
            (&["none", "px"], &["none"], "px_none"),
            (&["none", "a_b", "a"], &["c", "b_c"], "a_b_c"),
            (&["none", &long], &["red"], "128 are allowed"),
        ] {
            let problem = refused(set(names, colors));
            assert!(problem.contains(named), "{names:?}: {problem}");
        }
        let problem = refused(LabelSet::new(vec![category("a", true), category("b", true)], typical_colors()));
        assert!(problem.contains("'a', is worn"), "{problem}");
        let problem = refused(LabelSet::new(vec![category("a", false), category("b", false)], typical_colors()));
        assert!(problem.contains("none of the categories"), "{problem}");
    }

    #[test]
    fn the_names_of_a_source_make_a_set() {
        let atr = ["Background", "Hat", "Hair", "Upper-clothes", "Left-shoe", "Face", "Left-leg", "Bag"];
        let labels = LabelSet::of_names(atr).expect("they are plain");
        assert_eq!(labels.category_names(), atr.join(", "));
        let worn: Vec<_> = labels.apparel_categories().map(|it| labels.column_name(it)).collect();
        assert_eq!(worn, ["Hat", "Upperclothes", "Leftshoe", "Bag"]);
        assert_eq!((labels.color_count(), labels.cell_count()), (COLOR_COUNT, 48));
        let labels = LabelSet::of_names(["shirt, blouse", "null", "hat"]).expect("they are plain");
        assert_eq!(labels.category_names(), "null, shirt, blouse, hat");
        assert_eq!((labels.column_name(1), labels.usual_share(2)), ("shirt_blouse", 0.0));
        let labels = LabelSet::of_names(["hat", "skin"]).expect("they are plain");
        assert_eq!(labels.category_names(), "background, hat, skin");
        assert_eq!((labels.category_called("void"), labels.category_called("tie")), (Some(0), None));
    }

    #[test]
    fn a_labels_file_names_categories_and_colours() {
        let text = "categories = [\"none\", \"body\", \"top\", \"shoes\"]\nnot_worn = [\"body\"]\n\
                    [[colors]]\nname = \"dark\"\nrgb = [20, 20, 20]\n[[colors]]\nname = \"light\"\nrgb = [230, 230, 230]\n\
                    [usual_share]\ntop = 0.5\n";
        let labels = LabelSet::parse_toml(text).expect("it is good");
        assert_eq!(labels.cell_names(), ["top_dark", "top_light", "shoes_dark", "shoes_light"]);
        assert_eq!((labels.usual_share(2), labels.usual_share(3), labels.colors()[1].rgb), (0.5, 0.0, [20; 3]));
        assert_eq!(labels.with_usual_shares(&[0.0, 0.9, 0.9, 0.1]).usual_share(3), 0.1);
        assert_eq!(labels.with_usual_shares(&[0.0, 0.9, 0.9, 0.1]).usual_share(2), 0.5);
        for (from, to, named) in [
            ("[\"body\"]", "[\"legs\"]", "not_worn names 'legs'"),
            ("top = 0.5", "top = 1.5", "'top' has a usual share of 1.5"),
            ("top = 0.5", "hat = 0.5", "usual_share names 'hat'"),
            ("rgb = [20, 20, 20]", "rgb = [20, 20]", "rgb"),
            ("not_worn", "worn", "worn"),
        ] {
            let problem = LabelSet::parse_toml(&text.replace(from, to)).expect_err(to);
            assert!(problem.contains(named), "{problem}");
        }
    }

    #[test]
    fn unlike_sets_are_told_by_their_first_difference() {
        let [a, b] = [["none", "hat", "shoe"], ["none", "hat", "boot"]].map(|it| set(&it, &["red"]).expect("small"));
        assert_eq!(a.check_like(&set(&["none", "hat", "shoe"], &["red"]).expect("small"), "a", "b"), Ok(()));
        let problem = a.check_like(&b, "the model", "the data set").expect_err("they differ");
        assert!(problem.contains("category 2 is 'shoe' in the model, and 'boot' in the data set"), "{problem}");
        let fewer = set(&["none", "hat"], &["red"]).expect("small");
        assert!(
            a.check_like(&fewer, "a", "b").expect_err("fewer").contains("category 2 is 'shoe' in a, and none in b")
        );
        let other = set(&["none", "hat", "shoe"], &["blue"]).expect("small");
        assert!(a.check_like(&other, "a", "b").expect_err("colours").contains("colour 1 is 'red' in a"));
    }

    #[test]
    fn all_categories_have_colours_of_their_own() {
        let mut colors: Vec<_> = (0..MAX_CATEGORIES as u8).map(category_rgb).collect();
        assert_eq!(colors[..CATEGORY_COUNT], CATEGORY_PALETTE);
        colors.sort_unstable();
        colors.dedup();
        assert_eq!(colors.len(), MAX_CATEGORIES);
    }
}
