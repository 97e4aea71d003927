//! Label maps as files for labelling tools, made from the masks: `coco/part-NNNNN.json` and
//! `label-studio/part-NNNNN.json`, one for each part of the table, written as they are made.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::config::{Config, Masks};
use super::masks;
use super::state::{self, PhotoCertainty, StateRow};
use crate::error::{Error, Result};
use crate::features::layout;
use crate::labels::{BACKGROUND, LabelSet, category_rgb};
use crate::mask::{brush, rle};
use crate::stage::{Digest, Stage};
use crate::{chart, files, stop};

/// Photos whose annotations are made at a time.
const CHUNK: usize = 32;
/// The tags of the labelling interface that Label Studio's regions refer to.
const IMAGE_TAG: &str = "image";
const LABEL_TAG: &str = "label";
/// The labelling interface, in the folder of Label Studio's files.
const INTERFACE_FILE: &str = "interface.xml";
/// What is percent-encoded in the address of a photo.
const ENCODED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// A photo with a mask.
struct Masked {
    photo_id: u32,
    name: std::sync::Arc<str>,
    mask: PathBuf,
    certainty: Option<Box<PhotoCertainty>>,
}

/// Writes the files that the setting `masks` asks for, of the `parts` parts in the stage's folder: all photos with a
/// mask, or those with one of the contents `chosen`. Returns the number of photos.
pub(super) fn write(
    config: &Config,
    stage: &Stage,
    labels: &LabelSet,
    parts: usize,
    chosen: Option<&HashSet<Digest>>,
    model_id: &str,
) -> Result<u64> {
    let folder = match config.masks {
        Masks::None | Masks::Png => None,
        Masks::Coco => Some("coco"),
        Masks::LabelStudio => Some("label-studio"),
    };
    if let Some(folder) = folder {
        stage.create_folder(folder)?;
    }
    if config.masks == Masks::LabelStudio {
        files::write(&stage.path("label-studio").join(INTERFACE_FILE), interface(labels).as_bytes())?;
    }
    let mut photos = 0;
    for number in 0..parts {
        let states = state::read(&stage.path("").join(layout::state_file(number)))?;
        let masked: Vec<Masked> = states.into_iter().filter_map(|it| masked(stage, it, chosen)).collect();
        photos += masked.len() as u64;
        let Some(folder) = folder else { continue };
        let path = stage.path(folder).join(format!("part-{number:05}.json"));
        let written = match config.masks {
            Masks::LabelStudio => write_tasks(&path, labels, &masked, model_id),
            _ => write_coco(&path, labels, &masked),
        };
        written?;
    }
    Ok(photos)
}

fn masked(stage: &Stage, state: StateRow, chosen: Option<&HashSet<Digest>>) -> Option<Masked> {
    let content =
        state.content.filter(|it| state.reject.is_none() && chosen.is_none_or(|chosen| chosen.contains(it)))?;
    let mask = stage.path(masks::FOLDER).join(masks::name(&content));
    let StateRow { photo_id, name, certainty, .. } = state;
    mask.is_file().then_some(Masked { photo_id, name, mask, certainty })
}

/// A JSON file that is written as its parts are made.
struct Json<'a> {
    path: &'a Path,
    file: BufWriter<File>,
}

impl<'a> Json<'a> {
    fn create(path: &'a Path) -> Result<Self> {
        let file = BufWriter::new(File::create(path).map_err(Error::io("create", path))?);
        Ok(Self { path, file })
    }

    fn text(&mut self, text: &str) -> Result<()> {
        self.file.write_all(text.as_bytes()).map_err(Error::io("write", self.path))
    }

    /// The items of a list: those that `items` makes of each photo.
    fn list<T: Serialize + Send>(
        &mut self,
        photos: &[Masked],
        items: impl Fn(&Masked) -> Result<Vec<T>> + Sync,
    ) -> Result<()> {
        let mut is_first = true;
        for photos in photos.chunks(CHUNK) {
            stop::check()?;
            let written = |photo| {
                let items = items(photo)?.into_iter();
                Ok(items.map(|it| serde_json::to_string(&it).expect("plain data")).collect::<Vec<_>>())
            };
            for item in photos.par_iter().map(written).collect::<Result<Vec<_>>>()?.into_iter().flatten() {
                self.text(if std::mem::take(&mut is_first) { "\n" } else { ",\n" })?;
                self.text(&item)?;
            }
        }
        Ok(())
    }

    fn end(mut self, text: &str) -> Result<()> {
        self.text(text)?;
        let file = self.file.into_inner().map_err(|cause| Error::io("write", self.path)(cause.into_error()))?;
        file.sync_all().map_err(Error::io("flush", self.path))
    }
}

/// COCO, with compressed run lengths; `score` is the network's certainty.
fn write_coco(path: &Path, labels: &LabelSet, photos: &[Masked]) -> Result<()> {
    let mut json = Json::create(path)?;
    json.text("{\"images\": [")?;
    json.list(photos, |it| {
        let (width, height) = masks::size(&it.mask)?;
        Ok(vec![json!({ "id": it.photo_id, "file_name": *it.name, "width": width, "height": height })])
    })?;
    let count = labels.category_count() as u64;
    let categories = labels.categories().iter().enumerate().map(|(id, it)| json!({ "id": id, "name": it.name }));
    json.text("\n], \"categories\": ")?;
    json.text(&categories.collect::<serde_json::Value>().to_string())?;
    json.text(", \"annotations\": [")?;
    json.list(photos, |it| {
        let (label_map, width) = masks::read(&it.mask, labels)?;
        let height = label_map.len() / width;
        let annotation = |Extent { category, pixels, columns, rows }: Extent| {
            let counts = rle::encode(&label_map, width, category)?;
            let mut annotation = json!({
                // Unique, and never 0.
                "id": u64::from(it.photo_id) * count + u64::from(category) + 1,
                "image_id": it.photo_id,
                "category_id": category,
                "segmentation": { "size": [height, width], "counts": counts },
                "area": pixels,
                "bbox": [columns[0], rows[0], columns[1] - columns[0] + 1, rows[1] - rows[0] + 1],
                "iscrowd": 0,
            });
            if let Some(certainty) = &it.certainty {
                annotation["score"] = json!(certainty.by_category[usize::from(category)]);
            }
            Some(annotation)
        };
        Ok(labelled(&label_map, width, labels.category_count()).into_iter().filter_map(annotation).collect())
    })?;
    json.end("\n]}\n")
}

/// Label Studio's tasks with pre-annotations; `score` is the network's certainty.
fn write_tasks(path: &Path, labels: &LabelSet, photos: &[Masked], model_id: &str) -> Result<()> {
    let mut json = Json::create(path)?;
    json.text("[")?;
    json.list(photos, |it| {
        let (label_map, width) = masks::read(&it.mask, labels)?;
        let region = |Extent { category, .. }: Extent| {
            let mut region = json!({
                "id": format!("{}-{category}", it.photo_id),
                "type": "brushlabels",
                "from_name": LABEL_TAG,
                "to_name": IMAGE_TAG,
                "original_width": width,
                "original_height": label_map.len() / width,
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "rle": brush::encode(&label_map, category)?,
                    "brushlabels": [labels.category_name(category)],
                },
            });
            if let Some(certainty) = &it.certainty {
                region["score"] = json!(certainty.by_category[usize::from(category)]);
            }
            Some(region)
        };
        let regions: Vec<_> =
            labelled(&label_map, width, labels.category_count()).into_iter().filter_map(region).collect();
        let mut prediction = json!({ "model_version": model_id, "result": regions });
        if let Some(certainty) = &it.certainty {
            prediction["score"] = json!(certainty.mean);
        }
        let address = percent_encoding::utf8_percent_encode(&it.name, ENCODED);
        let data = json!({ IMAGE_TAG: format!("/data/local-files/?d={address}") });
        Ok(vec![json!({ "data": data, "predictions": [prediction] })])
    })?;
    json.end("\n]\n")
}

/// The labelling interface of the pre-annotations.
fn interface(labels: &LabelSet) -> String {
    let label = |category: u8| {
        let (name, [r, g, b]) = (chart::escaped(labels.category_name(category)), category_rgb(category));
        format!("    <Label value=\"{name}\" background=\"#{r:02x}{g:02x}{b:02x}\"/>\n")
    };
    let labels: String = (0..labels.category_count() as u8).map(label).collect();
    format!(
        "<View>\n  <Image name=\"{IMAGE_TAG}\" value=\"${IMAGE_TAG}\" zoom=\"true\"/>\n  \
         <BrushLabels name=\"{LABEL_TAG}\" toName=\"{IMAGE_TAG}\">\n{labels}  </BrushLabels>\n</View>\n"
    )
}

/// Where a category lies in a label map: its first and last columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    category: u8,
    pixels: u64,
    columns: [usize; 2],
    rows: [usize; 2],
}

/// The categories of a label map, without the background unless it is all there is: a photo without annotations would be
/// one without labels.
fn labelled(label_map: &[u8], width: usize, categories: usize) -> Vec<Extent> {
    let mut extents: Vec<Extent> = (0..categories as u8)
        .map(|category| Extent { category, pixels: 0, columns: [usize::MAX, 0], rows: [usize::MAX, 0] })
        .collect();
    for (row, labels) in label_map.chunks_exact(width).enumerate() {
        for (column, &label) in labels.iter().enumerate() {
            let extent = &mut extents[usize::from(label)];
            extent.pixels += 1;
            extent.columns = [extent.columns[0].min(column), extent.columns[1].max(column)];
            extent.rows = [extent.rows[0].min(row), extent.rows[1].max(row)];
        }
    }
    extents.retain(|it| it.pixels > 0);
    if extents.len() > 1 {
        extents.retain(|it| it.category != BACKGROUND);
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_have_their_extents_and_background_alone_is_one() {
        let extent = |category, pixels, columns, rows| Extent { category, pixels, columns, rows };
        let found = labelled(&[0, 3, 0, 0, 3, 5], 3, 6);
        assert_eq!(found, [extent(3, 2, [1, 1], [0, 1]), extent(5, 1, [2, 2], [1, 1])]);
        assert_eq!(labelled(&[0; 6], 2, 6), [extent(0, 6, [0, 1], [0, 2])]);
    }
}
