//! `recommend`: finds the photos of a catalogue with the outfits most similar to a given photo.
//!
//! In: photos of any size and orientation, a model, the features of a catalogue and, for the measure `embedding`, the
//! embedder that they were made with. Out: for each photo, what is worn
//! in it and its nearest neighbours with the cells that they share, as text or JSON, and a contact sheet if an output
//! folder is given.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::catalogue;
use crate::color::ColorTable;
use crate::dataset::Dataset;
use crate::engine::{Device, PrecisionChoice};
use crate::error::{Error, Result};
use crate::features::{CellRule, FeatureTable, Presence};
use crate::files::{self, OpenFolder};
use crate::gates::Gates;
use crate::labels::LabelSet;
use crate::model::Model;
use crate::model::predictor::Predictor;
use crate::parser::{Embedder, Parser};
use crate::photo::{self, Decoding, FIT_HEIGHT_PX, FIT_WIDTH_PX, MAX_PIXELS, Photo, PhotoProblem};
use crate::picture::{self, Panel};
use crate::similarity;
use crate::similarity::{Comparison, Correlator, DEFAULT_LATENT_DIMENSIONS, DEFAULT_MIN_COMMON, Measure, SharedCell};
use crate::stage::{Common, Summary};

/// Default of `top`.
pub const DEFAULT_TOP: u32 = 5;
/// Shared cells listed in the text for each neighbour.
const TEXT_CELLS: usize = 3;
/// Pictures in a row of a contact sheet.
const SHEET_COLUMNS: usize = 6;
/// Placeholder colour for a picture that no longer exists.
const MISSING_RGB: [u8; 3] = [200, 200, 200];

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A readable table.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// Settings of `recommend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The model folder, or a parser's.
    pub model: PathBuf,
    /// For the measure `embedding`: the folder of the embedder that the features were made with.
    pub embedder: Option<PathBuf>,
    /// The features folder of the catalogue.
    pub features: PathBuf,
    /// Number of neighbours per photo ([`DEFAULT_TOP`]).
    pub top: u32,
    /// How similarity is measured.
    pub measure: Measure,
    /// For `co_rated`: minimum number of cells that two photos must have in common ([`DEFAULT_MIN_COMMON`]).
    pub min_common: u32,
    /// For `latent`: maximum number of dimensions of the truncated SVD ([`DEFAULT_LATENT_DIMENSIONS`]).
    pub latent_dimensions: usize,
    /// Folder for contact sheets, one per photo; none are written if it is not given.
    pub output: Option<PathBuf>,
    /// Where the network runs.
    pub device: Device,
    /// How the result is printed.
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: PathBuf::from("output/model"),
            embedder: None,
            features: PathBuf::from("output/features"),
            top: DEFAULT_TOP,
            measure: Measure::default(),
            min_common: DEFAULT_MIN_COMMON,
            latent_dimensions: DEFAULT_LATENT_DIMENSIONS,
            output: None,
            device: Device::default(),
            format: Format::default(),
        }
    }
}

impl Config {
    fn comparison(&self) -> Comparison {
        let Self { measure, min_common, latent_dimensions, .. } = *self;
        Comparison { measure, min_common, latent_dimensions }
    }
}

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

/// Recommends photos for each of `photos` (files, and folders that are searched recursively).
///
/// # Errors
/// Errors that name the invalid setting, model or feature table; [`Error::Input`] if none of the photos is valid.
pub fn run(config: &Config, photos: &[PathBuf], common: &Common) -> Result<Vec<Recommendation>> {
    let paths = check(config, photos)?;
    let folder = OpenFolder::open(&config.features)?;
    let features = similarity::open_features(&folder, config.measure)?;
    let model = Model::open_allowed(&config.model, &common.gates)?;
    let embedder = open_embedder(config, &features, &common.gates)?;
    let colors = model.colors()?.table;
    check_labels(config, &features.labels, colors.labels())?;
    if common.dry_run {
        return Ok(paths.into_iter().map(|path| Recommendation::without_neighbours(path, None)).collect());
    }
    let engine = common.engine(config.device);
    let predictor = model.predictor(engine, PrecisionChoice::F32)?;
    let embedder = embedder.map(|it| it.embedder(engine)).transpose()?;
    let correlator = Correlator::new(&features, config.comparison());
    let rule = cell_rule(&folder)?;
    let mut adviser = Adviser { config, rule, features, colors, predictor, embedder, correlator };
    let mut answers = Vec::with_capacity(paths.len());
    for path in paths {
        answers.push(adviser.advise(path)?);
    }
    if let [first, ..] = &answers[..]
        && answers.iter().all(|(answer, _)| answer.problem.is_some())
    {
        return Err(Error::input(&first.0.photo, first.0.problem.clone().unwrap_or_default()));
    }
    if let Some(output) = &config.output {
        draw_sheets(&folder, output, &mut answers)?;
    }
    Ok(answers.into_iter().map(|(answer, _)| answer).collect())
}

/// The embedder, for the measure `embedding`: the one that the features were made with.
fn open_embedder(config: &Config, features: &FeatureTable, gates: &Gates) -> Result<Option<Parser>> {
    let Some(embeddings) = &features.embeddings else { return Ok(None) };
    let Some(folder) = &config.embedder else {
        let problem = "is not set, but the measure is 'embedding'; name the embedder that the features were made with";
        return Err(Error::config("recommend.embedder", problem));
    };
    let embedder = Parser::read_embedder(folder, gates)?;
    let (found, wanted) = (embedder.id(), &embeddings.of().embedder);
    if found == *wanted {
        return Ok(Some(embedder));
    }
    let features = config.features.display();
    let problem =
        format!("is the embedder {found}, but {features} was made with {wanted}; name that, or run segment again");
    Err(Error::input(folder, problem))
}

fn check(config: &Config, photos: &[PathBuf]) -> Result<Vec<PathBuf>> {
    for (setting, value) in [("recommend.top", config.top), ("recommend.min_common", config.min_common)] {
        if value == 0 {
            return Err(Error::config(setting, "is 0; use 1 or more"));
        }
    }
    let mut paths = Vec::new();
    for path in photos {
        if path.is_dir() {
            let found = catalogue::photo_files(path)?;
            if found.is_empty() {
                let endings = photo::EXTENSIONS.join(", ");
                return Err(Error::input(path, format!("holds no photos ({endings})")));
            }
            paths.extend(found);
        } else {
            paths.push(path.clone());
        }
    }
    if paths.is_empty() {
        return Err(Error::config("PHOTO", "name at least one photo or folder"));
    }
    Ok(paths)
}

/// Checks that the photos are labelled as those of the catalogue were.
fn check_labels(config: &Config, of_features: &LabelSet, of_model: &LabelSet) -> Result<()> {
    let [model, features] = [&config.model, &config.features].map(|it| it.display().to_string());
    let like = of_model.check_like(of_features, &model, &features);
    like.map_err(|problem| Error::config("recommend.model", problem))
}

/// Everything needed to make recommendations.
struct Adviser<'a> {
    config: &'a Config,
    rule: CellRule,
    features: FeatureTable,
    colors: ColorTable,
    predictor: Predictor,
    /// For the measure `embedding`.
    embedder: Option<Embedder>,
    correlator: Correlator,
}

impl Adviser<'_> {
    /// The recommendation for one photo, and the photo as processed if it is valid.
    fn advise(&mut self, path: PathBuf) -> Result<(Recommendation, Option<Photo>)> {
        let for_embedder = self.embedder.as_ref().map(|it| &**it.layout());
        let read = photo::read_bytes(&path).and_then(|bytes| {
            Ok((self.predictor.layout().read_for(&bytes, MAX_PIXELS, for_embedder)?, files::digest_of(&bytes)))
        });
        let ((decoded, laid, for_embedder), digest) = match read {
            Ok(read) => read,
            Err(problem) => {
                let problem = format!("{}: {}", problem.reason, problem.detail);
                return Ok((Recommendation::without_neighbours(path, Some(problem)), None));
            }
        };
        let photo = decoded.photo;
        let answer = self.predictor.run(std::iter::once(&laid))?.swap_remove(0);
        let name = path.display().to_string();
        let label_map = self.predictor.layout().label_map(&laid, &answer, photo.size(), &name)?;
        let counts = self.colors.count(&photo, &label_map, self.rule);
        let cells: Vec<f32> = counts.shares().into_iter().map(Option::unwrap_or_default).collect();
        let mut answer = Recommendation::without_neighbours(path, None);
        answer.worn = worn(self.colors.labels(), &cells);
        let correlations = match (&mut self.embedder, &for_embedder) {
            (Some(embedder), Some(canvas)) => {
                let embedding = embedder.run(&[canvas])?.swap_remove(0);
                embedding.map(|it| self.correlator.correlate_embedding(&it))
            }
            _ => (!answer.worn.is_empty()).then(|| self.correlator.correlate(&cells)),
        };
        if let Some(correlations) = correlations {
            answer.neighbours = self.neighbours(&cells, &correlations, &digest);
        }
        Ok((answer, Some(photo)))
    }

    fn neighbours(&self, cells: &[f32], correlations: &[f32], digest: &str) -> Vec<Recommended> {
        // Do not recommend the query photo itself if it is in the catalogue.
        let other = |row: usize| self.features.content_sha256[row] != digest;
        let nearest = self.correlator.nearest(correlations, self.config.top as usize, other);
        let recommended = |((row, correlation), rank): ((usize, f32), u32)| Recommended {
            rank,
            photo_id: self.features.photo_ids[row],
            file_name: self.features.file_names[row].clone(),
            path: self.features.paths[row].clone(),
            correlation,
            shared_cells: self.correlator.shared_cells(cells, row),
        };
        nearest.into_iter().zip(1..).map(recommended).collect()
    }
}

/// The rule by which the cells of the features in `folder` were made. Versions without a presence rule wrote every cell.
fn cell_rule(folder: &OpenFolder) -> Result<CellRule> {
    let made = Summary::find(folder.root())?;
    let setting = |name: &str| made.as_ref().and_then(|it| it.config.setting(name));
    let color = made.as_ref().and_then(|it| it.config.setting("color_rule"));
    let [min_share, min_region] = ["min_share", "min_region"].map(|name| setting(name).unwrap_or(0.0));
    Ok(CellRule { color: color.unwrap_or_default(), presence: Presence { min_share, min_region } })
}

/// A photo as `segment` processes it.
fn fitted(encoded: &[u8]) -> Result<Photo, PhotoProblem> {
    photo::decode_with(encoded, Decoding::fitted(MAX_PIXELS)).map(|it| it.photo)
}

fn worn(labels: &LabelSet, cells: &[f32]) -> Vec<WornCell> {
    let present = labels.cell_names().iter().cloned().zip(cells).filter(|(_, share)| **share > 0.0);
    let mut worn: Vec<_> = present.map(|(name, &share)| WornCell { name, share }).collect();
    worn.sort_by(|a, b| b.share.total_cmp(&a.share));
    worn
}

impl Recommendation {
    fn without_neighbours(photo: PathBuf, problem: Option<String>) -> Self {
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

/// Writes a contact sheet for each photo that has neighbours: the photo first, then its neighbours.
fn draw_sheets(features: &OpenFolder, output: &Path, answers: &mut [(Recommendation, Option<Photo>)]) -> Result<()> {
    files::create_folder(output)?;
    let wanted = answers.iter().flat_map(|(answer, _)| &answer.neighbours);
    let wanted: HashMap<u32, &str> = wanted.map(|it| (it.photo_id, it.path.as_str())).collect();
    let pictures = catalogue_pictures(features.root(), &wanted)?;
    for (number, (answer, photo)) in (1..).zip(answers) {
        let Some(photo) = photo.as_ref().filter(|_| !answer.neighbours.is_empty()) else { continue };
        let mut tiles = vec![Panel { photo: photo.clone(), caption: "the photo".to_owned() }];
        tiles.extend(answer.neighbours.iter().map(|it| {
            let shared = it.shared_cells.first().map_or(String::new(), |cell| cell.name.clone());
            match pictures.get(&it.photo_id) {
                Some(photo) => Panel {
                    photo: photo.clone(),
                    caption: format!("{}. {}  {:.3}\n{shared}", it.rank, it.file_name, it.correlation),
                },
                None => missing_tile(it),
            }
        }));
        let stem = answer.photo.file_stem().unwrap_or_default().to_string_lossy();
        let path = output.join(format!("{number:03}_{stem}.png"));
        files::write(&path, &picture::png(&picture::contact_sheet(&tiles, SHEET_COLUMNS)?))?;
        answer.contact_sheet = Some(path);
    }
    Ok(())
}

fn missing_tile(it: &Recommended) -> Panel {
    tracing::warn!("{}: the picture can no longer be read; showing a grey one instead", it.path);
    let rgb = MISSING_RGB.repeat((FIT_WIDTH_PX * FIT_HEIGHT_PX) as usize);
    let photo = Photo { width_px: FIT_WIDTH_PX, height_px: FIT_HEIGHT_PX, rgb };
    Panel { photo, caption: format!("{}. {}  {:.3}\n(picture missing)", it.rank, it.file_name, it.correlation) }
}

/// The scaled pictures of the photos `wanted` (id to path) of a features folder, from the dataset if that was the
/// catalogue, otherwise from files. Those that can no longer be read are left out.
pub(crate) fn catalogue_pictures(features: &Path, wanted: &HashMap<u32, &str>) -> Result<HashMap<u32, Photo>> {
    let mut pictures = HashMap::new();
    let Some(dataset) = dataset_of(features)? else {
        let picture = |path: &str| photo::read_bytes(Path::new(path)).and_then(|bytes| fitted(&bytes));
        return Ok(wanted.iter().filter_map(|(&id, path)| Some((id, picture(path).ok()?))).collect());
    };
    for record in dataset.photos(None)? {
        let record = record?;
        if wanted.contains_key(&record.photo_id)
            && let Ok(photo) = fitted(&record.encoded)
        {
            pictures.insert(record.photo_id, photo);
        }
        if pictures.len() == wanted.len() {
            break;
        }
    }
    Ok(pictures)
}

/// The dataset that the features were computed from, if its photos were the catalogue and it still exists.
fn dataset_of(features: &Path) -> Result<Option<Dataset>> {
    let summary = Summary::read(features)?;
    let catalogue = summary.config.setting::<PathBuf>("catalogue");
    match catalogue.filter(|folder| folder.join("photos.parquet").is_file()) {
        Some(folder) => Dataset::open(&folder).map(Some),
        None => Ok(None),
    }
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

    #[test]
    fn what_is_worn_comes_most_first() {
        let mut cells = vec![0.0; crate::labels::CELL_COUNT];
        (cells[0], cells[30], cells[200]) = (0.2, 0.5, 0.3);
        let shares: Vec<f32> = worn(&LabelSet::cfpd(), &cells).iter().map(|cell| cell.share).collect();
        assert_eq!(shares, [0.5, 0.3, 0.2]);
    }
}
