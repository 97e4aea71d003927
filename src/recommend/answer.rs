//! What is recommended for a photo, as data and as text.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::similarity::SharedCell;

/// Shared cells listed in the text for each neighbour.
const TEXT_CELLS: usize = 3;

/// A cell of the photo: something worn in one colour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WornCell {
    /// The cell, `<category>_<color>`.
    pub name: String,
    /// Share of the apparel pixels.
    pub share: f32,
}

/// One recommended photo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommended {
    /// 1 = nearest.
    pub rank: u32,
    /// The catalogue's id.
    pub photo_id: u32,
    /// File name.
    pub file_name: String,
    /// Its path; for photos of a dataset, the path inside the source.
    pub path: String,
    /// Correlation with the query photo, -1 to 1.
    pub correlation: f32,
    /// Cells worn in both, those that contribute most to the correlation first.
    pub shared_cells: Vec<SharedCell>,
}

/// What is recommended for one photo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// The query photo.
    pub photo: PathBuf,
    /// Reason code and cause if the photo is invalid; the rest is then empty.
    pub problem: Option<String>,
    /// What is worn in it, the largest share first; empty if nothing is.
    pub worn: Vec<WornCell>,
    /// The nearest photos.
    pub neighbours: Vec<Recommended>,
    /// The contact sheet, if one was requested.
    pub contact_sheet: Option<PathBuf>,
}

impl Recommendation {
    /// Of a photo for which nothing is recommended (yet).
    pub(super) fn without_neighbours(photo: PathBuf, problem: Option<String>) -> Self {
        Self { photo, problem, worn: Vec::new(), neighbours: Vec::new(), contact_sheet: None }
    }
}

impl fmt::Display for Recommendation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(problem) = &self.problem {
            return writeln!(f, "{}: invalid: {problem}", self.photo.display());
        }
        if self.worn.is_empty() {
            writeln!(f, "{}: nothing is worn in it as far as the model can tell", self.photo.display())?;
        } else {
            let worn = self.worn.iter().take(TEXT_CELLS).map(|cell| percent(&cell.name, cell.share));
            writeln!(f, "{}: {}", self.photo.display(), worn.collect::<Vec<_>>().join(", "))?;
        }
        if self.neighbours.is_empty() {
            if self.worn.is_empty() {
                return Ok(());
            }
            return writeln!(f, "  no photo of the catalogue can be compared with it");
        }
        let width = self.neighbours.iter().map(|it| it.file_name.chars().count()).fold("photo".len(), usize::max);
        writeln!(f, "  rank  correlation  {:width$}  shared", "photo")?;
        for it in &self.neighbours {
            let shared = it.shared_cells.iter().take(TEXT_CELLS).map(|cell| percent(&cell.name, cell.neighbour_share));
            let shared = shared.collect::<Vec<_>>().join(", ");
            writeln!(f, "  {:>4}  {:>11.3}  {:width$}  {shared}", it.rank, it.correlation, it.file_name)?;
        }
        match &self.contact_sheet {
            Some(sheet) => writeln!(f, "  picture: {}", sheet.display()),
            None => Ok(()),
        }
    }
}

fn percent(name: &str, share: f32) -> String {
    format!("{name} {:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_is_worn_and_shared() {
        let shared = SharedCell { name: "jeans_blue".to_owned(), share: 0.5, neighbour_share: 0.62, contribution: 0.9 };
        let mut answer = Recommendation::without_neighbours(PathBuf::from("me.jpg"), None);
        answer.worn = vec![WornCell { name: "jeans_blue".to_owned(), share: 0.5 }];
        answer.neighbours = vec![Recommended {
            rank: 1,
            photo_id: 7,
            file_name: "0007.jpg".to_owned(),
            path: "0007.jpg".to_owned(),
            correlation: 0.9871,
            shared_cells: vec![shared],
        }];
        let expected = "me.jpg: jeans_blue 50 %\n  rank  correlation  photo     shared\n     \
                        1        0.987  0007.jpg  jeans_blue 62 %\n";
        assert_eq!(answer.to_string(), expected);
    }

    #[test]
    fn a_photo_without_apparel_and_a_bad_one_are_said_to_be_so() {
        let plain = Recommendation::without_neighbours(PathBuf::from("wall.jpg"), None);
        assert!(plain.to_string().contains("nothing is worn"), "{plain}");
        let bad = Recommendation::without_neighbours(PathBuf::from("x"), Some("photo_empty: zero bytes".to_owned()));
        assert!(bad.to_string().contains("photo_empty"), "{bad}");
    }
}
