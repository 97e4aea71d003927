//! The two label lists of the Colorful Fashion Parsing data set (Liu et al., IEEE Transactions on Multimedia 2014), and
//! the feature cells that they span.

/// Number of categories, background included: the network's output maps.
pub const CATEGORY_COUNT: usize = 23;
/// Number of colours, background included.
pub const COLOR_COUNT: usize = 13;
/// Number of feature cells: 19 apparel categories x 12 colours.
pub const CELL_COUNT: usize = 228;
/// Id of the background, in both lists.
pub const BACKGROUND: u8 = 0;
/// In place of a category: the pixel has no label, and the loss `softmax` ignores it.
pub const IGNORED: u8 = 255;

/// Category names by id, as the data set spells them.
pub const CATEGORIES: [&str; CATEGORY_COUNT] = [
    "bk", "T-shirt", "bag", "belt", "blazer", "blouse", "coat", "dress", "face", "hair", "hat", "jeans", "legging",
    "pants", "scarf", "shoe", "shorts", "skin", "skirt", "socks", "stocking", "sunglass", "sweater",
];

/// Colour names by id, as the data set spells them.
pub const COLORS: [&str; COLOR_COUNT] =
    ["bk", "beige", "black", "blue", "brown", "gray", "green", "orange", "pink", "purple", "red", "white", "yellow"];

/// A typical sRGB value of each colour, for drawing; for `bk` a neutral grey.
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

/// A colour (sRGB) for each category in overlays and masks, `bk` black. Categories that are neighbours on a body have
/// very different colours.
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

/// The usual share of each apparel category: the median of its share of the apparel pixels, by the labels, over those of the 651
/// train photos of 804 street photos in which it occurs (docs/tables.md). 0 for what is no apparel.
pub const USUAL_SHARE: [f64; CATEGORY_COUNT] = [
    0.0, 0.259, 0.078, 0.018, 0.384, 0.174, 0.456, 0.593, 0.0, 0.0, 0.043, 0.360, 0.191, 0.421, 0.125, 0.058, 0.210,
    0.0, 0.267, 0.024, 0.126, 0.015, 0.255,
];

/// Whether the category is apparel: all but bk, face, hair and skin.
#[must_use]
pub fn is_apparel(category: u8) -> bool {
    !matches!(CATEGORIES.get(usize::from(category)), None | Some(&("bk" | "face" | "hair" | "skin")))
}

/// The id of the category of that name.
#[must_use]
pub fn category_named(name: &str) -> Option<u8> {
    CATEGORIES.iter().position(|it| *it == name).map(|id| id as u8)
}

/// The ids of the 19 apparel categories, ascending.
pub fn apparel_categories() -> impl Iterator<Item = u8> {
    (0..CATEGORY_COUNT as u8).filter(|&category| is_apparel(category))
}

/// A category's name as used in column names: without '-'.
#[must_use]
pub fn column_name(category: u8) -> String {
    CATEGORIES[usize::from(category)].replace('-', "")
}

/// Names of the 228 feature cells in column order, `<category>_<color>`: categories in the outer loop, colours in the
/// inner, both by id.
#[must_use]
pub fn cell_names() -> Vec<String> {
    apparel_categories()
        .flat_map(|category| COLORS[1..].iter().map(move |color| format!("{}_{color}", column_name(category))))
        .collect()
}

/// The index in [`cell_names`] of the cell of a category and a colour (both by id); `None` if the category is not
/// apparel or the colour is `bk`.
#[must_use]
pub fn cell_index(category: u8, color: u8) -> Option<usize> {
    if !is_apparel(category) || color == BACKGROUND || usize::from(color) >= COLOR_COUNT {
        return None;
    }
    let rank = apparel_categories().position(|apparel| apparel == category)?;
    Some(rank * (COLOR_COUNT - 1) + usize::from(color) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_named_as_the_seed_names_them() {
        let names = cell_names();
        assert_eq!(names.len(), CELL_COUNT);
        assert_eq!(names[0], "Tshirt_beige");
        assert_eq!(names[CELL_COUNT - 1], "sweater_yellow");
    }

    #[test]
    fn apparel_alone_has_a_usual_share() {
        for category in 0..CATEGORY_COUNT as u8 {
            assert_eq!(USUAL_SHARE[usize::from(category)] > 0.0, is_apparel(category), "{category}");
        }
        assert_eq!(
            (CATEGORIES[7], USUAL_SHARE[7], CATEGORIES[21], USUAL_SHARE[21]),
            ("dress", 0.593, "sunglass", 0.015)
        );
    }

    #[test]
    fn every_cell_is_found_under_its_own_index() {
        let found: Vec<usize> = (0..CATEGORY_COUNT as u8)
            .flat_map(|category| (0..COLOR_COUNT as u8).filter_map(move |color| cell_index(category, color)))
            .collect();
        assert_eq!(found, (0..CELL_COUNT).collect::<Vec<_>>());
        assert_eq!(cell_index(8, 1), None, "a face is not worn");
    }
}
