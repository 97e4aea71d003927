//! What a merchandiser asks for besides likeness: which cells count, which are liked, what must be the same.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::labels::LabelSet;
use crate::metadata::Condition;
use crate::similarity::{CellChoice, Measure};

use super::answer::Preference;
use super::config::Config;
use super::names::{Named, cells_of};

/// Something that is liked or not.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Liking {
    /// As it was asked for.
    pub(super) name: String,
    pub(super) cells: Vec<usize>,
    /// Added for each unit of share: above 0 for what is liked, below 0 for what is not.
    pub(super) weight: f32,
}

/// A garment that has to be the same or must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Matched {
    pub(super) category: u8,
    pub(super) is_same: bool,
}

/// The settings of `recommend`, resolved for a label set.
#[derive(Debug)]
pub(super) struct Steering {
    pub(super) labels: LabelSet,
    /// The cells that count.
    pub(super) choice: CellChoice,
    /// The only garment that counts.
    pub(super) garment: Option<u8>,
    /// The categories that count, by name; empty if all do.
    wearing: Vec<String>,
    pub(super) likings: Vec<Liking>,
    pub(super) matched: Vec<Matched>,
    pub(super) min_correlation: Option<f32>,
    pub(super) diverse: f32,
}

impl Config {
    /// Checks what can be checked without a feature table; returns the condition, if there is one.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range, that contradicts another, or that the measure cannot fulfil.
    pub(super) fn checked(&self) -> Result<Option<Condition>> {
        check(self)
    }
}

fn check(config: &Config) -> Result<Option<Condition>> {
    for (setting, value) in [("recommend.top", config.top), ("recommend.min_common", config.min_common)] {
        if value == 0 {
            return Err(Error::config(setting, "is 0; use 1 or more"));
        }
    }
    config.check_outfits()?;
    let bad = |setting: &str, problem: String| Err(Error::config(format!("recommend.{setting}"), problem));
    if !(0.0..=1.0).contains(&config.diverse) {
        return bad("diverse", format!("is {}; use 0 to 1", config.diverse));
    }
    if let Some(least) = config.min_correlation.filter(|it| !(-1.0..=1.0).contains(it)) {
        return bad("min_correlation", format!("{least} is not a correlation; use -1 to 1"));
    }
    if config.no_duplicates && config.duplicates.is_none() {
        return bad("no_duplicates", "needs `duplicates`: the folder of `lookbook duplicates`".to_owned());
    }
    if config.garment.is_some() && !config.wearing.is_empty() {
        return bad("garment", "cannot be used with `wearing`: it is the only one that counts".to_owned());
    }
    if config.measure == Measure::Embedding {
        let counted = [("wearing", !config.wearing.is_empty()), ("garment", config.garment.is_some())];
        if let Some((setting, _)) = counted.into_iter().find(|it| it.1) {
            let problem = "chooses the cells that count, but the measure 'embedding' compares no cells; use pearson, cosine, \
                           co_rated or latent";
            return bad(setting, problem.to_owned());
        }
    }
    once("wearing", config.wearing.iter().map(String::as_str), "is named twice")?;
    let both = |a: &'static str, of_a: &[String], b: &str, of_b: &[String]| {
        let names = of_a.iter().chain(of_b).map(|it| weighted(it).0);
        once(a, names, &format!("is named twice, in `{a}` or `{b}`"))
    };
    both("like", &config.like, "unlike", &config.unlike)?;
    both("same", &config.same, "different", &config.different)?;
    config.condition.as_deref().map(|it| Condition::parse("recommend.where", it)).transpose()
}

/// Checks that each name occurs once.
fn once<'a>(setting: &str, names: impl Iterator<Item = &'a str>, problem: &str) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.trim().to_lowercase()) {
            return Err(Error::config(format!("recommend.{setting}"), format!("'{name}' {problem}")));
        }
    }
    Ok(())
}

/// The name and the weight of `dress=2`.
fn weighted(text: &str) -> (&str, Option<&str>) {
    text.rsplit_once('=').map_or((text, None), |(name, weight)| (name, Some(weight)))
}

impl Steering {
    /// Resolves the names of `config`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting and the name that is not known, with the nearest that are.
    pub(super) fn new(config: &Config, labels: &LabelSet) -> Result<Self> {
        let category =
            |setting: &str, name: &str| Named::category(labels, &format!("recommend.{setting}"), name.trim());
        let garment = config.garment.as_deref().map(|name| category("garment", name)).transpose()?;
        let wearing = config.wearing.iter().map(|it| category("wearing", it)).collect::<Result<BTreeSet<u8>>>()?;
        let counted: Vec<u8> = garment.into_iter().chain(wearing.iter().copied()).collect();
        let choice = match &counted[..] {
            [] => CellChoice::all(labels.cell_count()),
            some => {
                let cells: BTreeSet<usize> = some.iter().flat_map(|&it| cells_of(labels, it)).collect();
                CellChoice { cells: cells.into_iter().collect(), as_whole: garment.is_some() }
            }
        };
        let mut likings = Vec::new();
        for (setting, names, sign) in [("like", &config.like, 1.0), ("unlike", &config.unlike, -1.0)] {
            for text in names {
                likings.push(liking(labels, setting, text, sign)?);
            }
        }
        let mut matched = Vec::new();
        for (setting, names, is_same) in [("same", &config.same, true), ("different", &config.different, false)] {
            for name in names {
                matched.push(Matched { category: category(setting, name)?, is_same });
            }
        }
        let wearing = wearing.iter().map(|&it| labels.category_name(it).to_owned()).collect();
        let (min_correlation, diverse) = (config.min_correlation, config.diverse);
        Ok(Self { labels: labels.clone(), choice, garment, wearing, likings, matched, min_correlation, diverse })
    }

    /// The weight of each cell, if anything is liked or not.
    pub(super) fn weights(&self) -> Option<Vec<f32>> {
        let mut weights = vec![0.0; self.labels.cell_count()];
        for liking in &self.likings {
            liking.cells.iter().for_each(|&cell| weights[cell] += liking.weight);
        }
        (!self.likings.is_empty()).then_some(weights)
    }

    /// What the likings add to the score of a photo with these cells.
    pub(super) fn preferences(&self, cells: &[f32]) -> Vec<Preference> {
        let of = |it: &Liking| {
            let share = it.cells.iter().map(|&cell| cells[cell]).sum::<f32>();
            Preference { name: it.name.clone(), weight: it.weight, share, contribution: it.weight * share }
        };
        self.likings.iter().map(of).collect()
    }

    /// The main colour of a category: the one with the largest share, the first of equal ones; `None` if it is not worn.
    pub(super) fn main_color(&self, cells: &[f32], category: u8) -> Option<u8> {
        let shares = &cells[cells_of(&self.labels, category)];
        let largest = shares.iter().copied().fold(0.0, f32::max);
        let place = shares.iter().position(|&it| it == largest && it > 0.0)?;
        Some(place as u8 + 1)
    }

    /// In words, what was asked for and what it is for a photo with these cells.
    pub(super) fn described(&self, cells: &[f32]) -> Vec<String> {
        let mut said = Vec::new();
        if let Some(garment) = self.garment {
            let name = self.labels.category_name(garment);
            said.push(match self.colors(cells, garment) {
                colors if colors.is_empty() => format!("only the {name} counts, and none is worn"),
                colors => format!("only the {name} counts: {}", colors.join(", ")),
            });
        }
        if !self.wearing.is_empty() {
            said.push(format!("only {} count", self.wearing.join(", ")));
        }
        said.extend(self.likings.iter().map(|it| match it.weight {
            weight if weight > 0.0 => format!("like {} +{weight}", it.name),
            weight => format!("unlike {} {weight}", it.name),
        }));
        said.extend(self.matched.iter().map(|it| {
            let name = self.labels.category_name(it.category);
            let kind = if it.is_same { "same" } else { "different" };
            match self.main_color(cells, it.category) {
                Some(color) => format!("{kind} {name}: {}", self.labels.colors()[usize::from(color)].name),
                None => format!("{kind} {name}: none is worn"),
            }
        }));
        said.extend(self.min_correlation.map(|it| format!("correlation at least {it}")));
        said.extend((self.diverse > 0.0).then(|| format!("diverse {}", self.diverse)));
        said
    }

    /// The colours of a garment with their shares of it, the largest first.
    fn colors(&self, cells: &[f32], category: u8) -> Vec<String> {
        let shares = &cells[cells_of(&self.labels, category)];
        let sum: f32 = shares.iter().sum();
        let mut colors: Vec<_> = self.labels.colors()[1..].iter().zip(shares).filter(|it| *it.1 > 0.0).collect();
        colors.sort_by(|a, b| b.1.total_cmp(a.1));
        colors.into_iter().map(|(color, share)| format!("{} {:.0} %", color.name, 100.0 * share / sum)).collect()
    }
}

fn liking(labels: &LabelSet, setting: &str, text: &str, sign: f32) -> Result<Liking> {
    let (name, weight) = weighted(text);
    let setting = format!("recommend.{setting}");
    let cells = Named::find(labels, &setting, name.trim())?.cells(labels);
    let weight = match weight.map(|it| it.trim().parse::<f32>()) {
        None => 1.0,
        Some(Ok(weight)) if weight > 0.0 && weight.is_finite() => weight,
        Some(_) => {
            let problem = format!("'{text}' has no weight after its '='; use a number above 0, such as {name}=2");
            return Err(Error::config(setting, problem));
        }
    };
    Ok(Liking { name: name.trim().to_owned(), cells, weight: sign * weight })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&it| it.to_owned()).collect()
    }

    fn steering(change: impl FnOnce(&mut Config)) -> Result<Steering> {
        let mut config = Config::default();
        change(&mut config);
        config.checked()?;
        Steering::new(&config, &LabelSet::cfpd())
    }

    #[test]
    fn names_become_cells_and_weights() -> Result<()> {
        let it = steering(|config| {
            (config.like, config.unlike) = (list(&["bag=2", "black=0.5"]), list(&["bag_black"]));
            (config.same, config.different) = (list(&["shoe"]), list(&["coat"]));
        })?;
        let weights = it.weights().expect("something is liked");
        // T-shirt, bag and shoe in black: cells 1, 13 and 145.
        assert_eq!((weights[1], weights[12], weights[13], weights[145]), (0.5, 2.0, 1.5, 0.5));
        assert_eq!(weights.iter().filter(|it| **it != 0.0).count(), 12 + 18);
        let mut cells = vec![0.0; 228];
        (cells[13], cells[145], cells[146]) = (0.5, 0.1, 0.4);
        let added: Vec<f32> = it.preferences(&cells).iter().map(|it| it.contribution).collect();
        assert_eq!(added, [1.0, 0.3, -0.5]);
        assert_eq!((it.main_color(&cells, 15), it.main_color(&cells, 6)), (Some(3), None));
        let said = it.described(&cells);
        assert_eq!(
            said,
            [
                "like bag +2",
                "like black +0.5",
                "unlike bag_black -1",
                "same shoe: blue",
                "different coat: none is worn"
            ]
        );
        let garment = steering(|config| config.garment = Some("shoe".to_owned()))?;
        assert_eq!((garment.choice.cells.len(), garment.choice.as_whole), (12, true));
        assert_eq!(garment.described(&cells), ["only the shoe counts: blue 80 %, black 20 %"]);
        assert_eq!(steering(|config| config.wearing = list(&["shoe", "bag"]))?.choice.cells.len(), 24);
        Ok(())
    }

    #[test]
    fn what_contradicts_itself_or_is_not_known_is_named() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 14] = [
            (|it| it.diverse = 1.5, "recommend.diverse': is 1.5"),
            (|it| it.diverse = f32::NAN, "recommend.diverse': is NaN"),
            (|it| it.min_correlation = Some(2.0), "recommend.min_correlation': 2"),
            (|it| it.min_correlation = Some(f32::NAN), "recommend.min_correlation': NaN"),
            (|it| it.no_duplicates = true, "recommend.no_duplicates': needs `duplicates`"),
            (|it| (it.garment, it.wearing) = (Some("bag".into()), list(&["bag"])), "cannot be used with `wearing`"),
            (|it| (it.measure, it.garment) = (Measure::Embedding, Some("bag".into())), "recommend.garment': chooses"),
            (|it| (it.measure, it.wearing) = (Measure::Embedding, list(&["bag"])), "recommend.wearing': chooses"),
            (
                |it| (it.like, it.unlike) = (list(&["Bag=2"]), list(&["bag"])),
                "'bag' is named twice, in `like` or `unlike`",
            ),
            (|it| (it.same, it.different) = (list(&["bag"]), list(&["bag"])), "in `same` or `different`"),
            (|it| it.wearing = list(&["shoe", "boot"]), "recommend.wearing': 'boot' is not a category"),
            (|it| it.same = list(&["red"]), "recommend.same': 'red' is not a category"),
            (|it| it.like = list(&["dress=-1"]), "'dress=-1' has no weight"),
            (|it| it.unlike = list(&["dress="]), "'dress=' has no weight"),
        ];
        for (change, named) in cases {
            let error = steering(change).expect_err(named);
            assert!(error.to_string().contains(named) && error.exit_code() == 2, "{error}");
        }
    }
}
