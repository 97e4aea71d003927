//! `recommend`: finds the photos of a catalogue with the outfits most similar to a given photo.
//!
//! In: photos of any size and orientation, a model, the features of a catalogue and, for the measure `embedding`, the
//! embedder that they were made with. Out: for each photo, what is worn in it and its nearest neighbours with the cells
//! that they share, as text or JSON, and a contact sheet if an output folder is given.

use std::path::PathBuf;

use crate::catalogue;
use crate::error::{Error, Result};
use crate::files::OpenFolder;
use crate::photo;
use crate::stage::Common;

mod adviser;
mod answer;
mod chosen;
mod complete;
mod config;
mod diverse;
mod duplicates;
pub mod many;
mod names;
mod networks;
mod sheet;
mod shelf;
mod steering;
mod tables;

use adviser::Adviser;
pub use answer::{Completion, Garment, Preference, Recommendation, Recommended, UsualColor, WornCell};
use complete::write_pairs_worn;
pub use config::{Config, DEFAULT_BLEND, DEFAULT_MIN_SUPPORT, DEFAULT_TOP, Format};
use networks::Opened;
pub(crate) use sheet::catalogue_pictures;
use sheet::draw_sheets;
use shelf::Shelf;

/// Recommends photos for each of `photos` (files, and folders that are searched recursively).
///
/// # Errors
/// Errors that name the invalid setting, model or feature table; [`Error::Input`] if none of the photos is valid.
pub fn run(config: &Config, photos: &[PathBuf], common: &Common) -> Result<Vec<Recommendation>> {
    let condition = config.checked()?;
    let paths = photo_paths(photos)?;
    let folder = OpenFolder::open(&config.features)?;
    let shelf = Shelf::open(config, condition.as_ref(), &folder)?;
    let opened = Opened::new(config, &shelf.features, common)?;
    if common.dry_run {
        return Ok(paths.into_iter().map(|path| Recommendation::without_neighbours(path, None)).collect());
    }
    let mut adviser = Adviser { eyes: opened.eyes(config, &folder, common)?, shelf };
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
        draw_sheets(&mut adviser, folder.root(), output, &mut answers)?;
        if config.complete > 0 {
            write_pairs_worn(output, &adviser.shelf.features)?;
        }
    }
    Ok(answers.into_iter().map(|(answer, _)| answer).collect())
}

/// The photos to answer.
fn photo_paths(photos: &[PathBuf]) -> Result<Vec<PathBuf>> {
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
