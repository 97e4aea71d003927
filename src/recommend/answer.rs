//! What is recommended for a photo, as data and as text.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::similarity::SharedCell;

/// Shared cells listed in the text for each neighbour.
const TEXT_CELLS: usize = 3;
/// The least that a cell adds to the correlation, or takes off it, to be told in the text.
const LEAST_TOLD: f32 = 0.005;

/// A cell of the photo: something worn in one colour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WornCell {
    /// The cell, `<category>_<color>`.
    pub name: String,
    /// Share of the apparel pixels.
    pub share: f32,
}

/// What something liked or not adds to the score of a neighbour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preference {
    /// The category, colour or cell, as it was asked for.
    pub name: String,
    /// Its weight: above 0 if it is liked, below 0 if not.
    pub weight: f32,
    /// Its share of the neighbour's apparel, 0 to 1.
    pub share: f32,
    /// Weight times share.
    pub contribution: f32,
}

/// One recommended photo.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
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
    /// What photos are ranked by if something is liked or not, or with interactions: the correlation, blended with
    /// `item_score`, plus the contributions of `preferences`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// With interactions: `item_cosine` as a share of the largest, 0 to 1; what is expected of its look if nobody chose it
    /// yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_score: Option<f32>,
    /// With interactions: how much the people who chose the query photo chose it, 0 to 1; none if nobody chose it yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_cosine: Option<f32>,
    /// With `diverse`: its largest correlation with a neighbour that was picked before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_like_earlier: Option<f32>,
    /// Cells worn in both, those that contribute most to the correlation first.
    pub shared_cells: Vec<SharedCell>,
    /// Cells worn in one of them, those that lower the correlation most first.
    pub unshared_cells: Vec<SharedCell>,
    /// What all cells worn in neither contribute; with those of the other cells it sums to the correlation.
    pub other_cells: f32,
    /// What is liked or not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<Preference>,
}

/// What goes with a photo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Completion {
    /// What the garments go with: the photo's own ones that cover most, as many as enough photos of the catalogue wear
    /// together; empty if too few wear even the first.
    pub with: Vec<String>,
    /// Photos of the catalogue that wear all of these.
    pub photos: u32,
    /// Photos of the catalogue in which anything is worn.
    pub catalogue_photos: u32,
    /// The garments, the largest smoothed lift first.
    pub garments: Vec<Garment>,
}

/// A garment that goes with a photo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Garment {
    /// The category.
    pub name: String,
    /// Photos of the catalogue that wear it with the others.
    pub photos: u32,
    /// Their share of the catalogue's photos, 0 to 1.
    pub support: f64,
    /// Their share of the photos that wear the others, 0 to 1.
    pub confidence: f64,
    /// The share of all photos that wear it, 0 to 1.
    pub usual: f64,
    /// `confidence` / `usual`.
    pub lift: f64,
    /// The lift, drawn towards 1 if it comes from few photos.
    pub smoothed_lift: f64,
    /// log2 of the lift.
    pub pmi: f64,
    /// Its most usual colours in those photos, the commonest first.
    pub colors: Vec<UsualColor>,
    /// Photos of the catalogue that wear it with the others, those most like the photo first.
    pub looks: Vec<Recommended>,
}

/// A colour of a garment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UsualColor {
    /// The colour.
    pub name: String,
    /// Share of the photos that wear the garment with the others, 0 to 1. A garment may have several colours.
    pub share: f64,
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
    /// What was asked for besides likeness, in words, and what it is for this photo.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steering: Vec<String>,
    /// The nearest photos.
    pub neighbours: Vec<Recommended>,
    /// What goes with it, if that was asked for and something is worn in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion: Option<Completion>,
    /// The contact sheet, if one was requested.
    pub contact_sheet: Option<PathBuf>,
}

impl Recommendation {
    /// Of a photo for which nothing is recommended (yet).
    pub(super) fn without_neighbours(photo: PathBuf, problem: Option<String>) -> Self {
        let (worn, steering, neighbours) = (Vec::new(), Vec::new(), Vec::new());
        Self { photo, problem, worn, steering, neighbours, completion: None, contact_sheet: None }
    }

    /// The photos that show what goes with it.
    pub(super) fn looks(&self) -> impl Iterator<Item = &Recommended> {
        self.completion.iter().flat_map(|it| &it.garments).flat_map(|it| &it.looks)
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
        if !self.steering.is_empty() {
            writeln!(f, "  asked for: {}", self.steering.join("; "))?;
        }
        if self.neighbours.is_empty() {
            let problem =
                if self.steering.is_empty() { "can be compared with it" } else { "has all that was asked for" };
            let is_silent = self.worn.is_empty() && self.steering.is_empty();
            return if is_silent { Ok(()) } else { writeln!(f, "  no photo of the catalogue {problem}") };
        }
        self.write_neighbours(f)?;
        self.completion.iter().try_for_each(|it| write!(f, "{it}"))?;
        match &self.contact_sheet {
            Some(sheet) => writeln!(f, "  picture: {}", sheet.display()),
            None => Ok(()),
        }
    }
}

impl Recommendation {
    fn write_neighbours(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.neighbours.iter().map(|it| it.file_name.chars().count()).fold("photo".len(), usize::max);
        let has_scores = self.neighbours.iter().any(|it| it.score.is_some());
        let score = if has_scores { "  score" } else { "" };
        writeln!(f, "  rank  correlation{score}  {:width$}  shared", "photo")?;
        for it in &self.neighbours {
            write!(f, "  {:>4}  {:>11.3}", it.rank, it.correlation)?;
            if let Some(score) = it.score {
                write!(f, "  {score:>5.2}")?;
            }
            writeln!(f, "  {:width$}  {}", it.file_name, it.reasons().join("  "))?;
        }
        Ok(())
    }
}

impl Recommended {
    /// What speaks for it and what against it, in words: the cells that contribute most, with their contributions.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let is_told = |it: &&SharedCell| it.contribution >= LEAST_TOLD;
        let for_it = self.shared_cells.iter().filter(is_told);
        let for_it =
            for_it.map(|it| format!("{} {:.0} % ({:+.2})", it.name, it.neighbour_share * 100.0, it.contribution));
        let against = self.unshared_cells.iter().filter(|it| it.contribution <= -LEAST_TOLD);
        let against = against.map(|it| format!("{} ({:+.2})", it.name, it.contribution));
        let preferred = |is_liked: bool| {
            let some = self.preferences.iter().filter(move |it| it.share > 0.0 && (it.weight > 0.0) == is_liked);
            some.map(|it| format!("{} ({:+.2})", it.name, it.contribution)).collect()
        };
        // Adding 0 makes -0 plain.
        let earlier = self.most_like_earlier.map(|it| format!("{:.2}", (it * 100.0).round() / 100.0 + 0.0));
        let chosen = self.item_cosine.filter(|it| *it > 0.0).map(|it| format!("{it:.3}"));
        let groups: [(&str, Vec<String>); 6] = [
            ("", for_it.take(TEXT_CELLS).collect()),
            ("but ", against.take(TEXT_CELLS).collect()),
            ("liked ", preferred(true)),
            ("not liked ", preferred(false)),
            ("chosen by the same people ", chosen.into_iter().collect()),
            ("most like an earlier one ", earlier.into_iter().collect()),
        ];
        let told = groups.into_iter().filter(|(_, cells)| !cells.is_empty());
        told.map(|(kind, cells)| format!("{kind}{}", cells.join(", "))).collect()
    }
}

impl fmt::Display for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.with.is_empty() {
            return writeln!(f, "  to go with it: too few photos of the catalogue wear what it wears");
        }
        let with = self.with.join(", ");
        if self.garments.is_empty() {
            let photos = self.photos;
            return writeln!(f, "  to go with {with}: nothing in particular, by {photos} photos of the catalogue");
        }
        writeln!(f, "  to go with {with}, as {} photos of the catalogue wear it:", self.photos)?;
        for it in &self.garments {
            let percent = |share: f64| format!("{:.0} %", share * 100.0);
            let colors = it.colors.iter().map(|it| format!("{} {}", it.name, percent(it.share)));
            let colors = colors.collect::<Vec<_>>().join(", ");
            let (here, usual) = (percent(it.confidence), percent(it.usual));
            writeln!(f, "    {}: {here} of them, {usual} of all (lift {:.2}); {colors}", it.name, it.lift)?;
            let looks = it.looks.iter().map(|it| format!("{} ({:.3})", it.file_name, it.correlation));
            writeln!(f, "      {}", looks.collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
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
            shared_cells: vec![shared.clone()],
            unshared_cells: vec![SharedCell { name: "coat_red".to_owned(), share: 0.0, contribution: -0.05, ..shared }],
            ..Recommended::default()
        }];
        let expected = "me.jpg: jeans_blue 50 %\n  rank  correlation  photo     shared\n     \
                        1        0.987  0007.jpg  jeans_blue 62 % (+0.90)  but coat_red (-0.05)\n";
        assert_eq!(answer.to_string(), expected);
        let liked = Preference { name: "black".to_owned(), weight: -1.0, share: 0.25, contribution: -0.25 };
        answer.steering = vec!["unlike black -1".to_owned()];
        answer.neighbours[0].preferences = vec![liked];
        answer.neighbours[0].score = Some(0.7371);
        let text = answer.to_string();
        assert!(text.contains("  asked for: unlike black -1\n") && text.contains("  0.74  0007.jpg"), "{text}");
        assert!(text.contains("  not liked black (-0.25)"), "{text}");
        answer.neighbours.clear();
        assert!(answer.to_string().contains("no photo of the catalogue has all that was asked for"), "{answer}");
    }

    #[test]
    fn a_photo_without_apparel_and_a_bad_one_are_said_to_be_so() {
        let plain = Recommendation::without_neighbours(PathBuf::from("wall.jpg"), None);
        assert!(plain.to_string().contains("nothing is worn"), "{plain}");
        let bad = Recommendation::without_neighbours(PathBuf::from("x"), Some("photo_empty: zero bytes".to_owned()));
        assert!(bad.to_string().contains("photo_empty"), "{bad}");
    }
}
