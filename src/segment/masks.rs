//! `masks/XX/<content_sha256>.png`: the label map of a photo at the photo's own size, one palette index per pixel.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType, Decoder, DeflateCompression, Encoder, EncodingError, Filter, Reader, Transformations};

use crate::error::{Error, Result};
use crate::files::{self, hexadecimal};
use crate::labels::{LabelSet, category_rgb};
use crate::stage::Digest;

/// The folder of the masks in a features folder.
pub(super) const FOLDER: &str = "masks";
/// Label maps are flat areas, so a higher level hardly makes them smaller. With the filter `Up`, a synthetic map of
/// 400x600 takes 13,857 bytes and 0.53 ms (17,292 bytes and 0.63 ms without a filter).
const DEFLATE_LEVEL: u8 = 3;

/// Path of a photo's mask, derived from the photo's content: identical photos share one mask.
pub(super) fn name(content: &Digest) -> PathBuf {
    let name = hexadecimal(content);
    Path::new(&name[..2]).join(format!("{name}.png"))
}

/// Removes the masks in `folder` that are not of `contents`: those of photos that left the catalogue after a run was
/// killed.
pub(super) fn retain(folder: &Path, contents: &HashSet<Digest>) -> Result<()> {
    let names: HashSet<PathBuf> = contents.iter().map(|content| folder.join(name(content))).collect();
    for path in files::entries(folder)? {
        files::entries(&path)?.iter().filter(|it| !names.contains(*it)).try_for_each(|it| files::remove_file(it))?;
    }
    Ok(())
}

/// Flushes a photo's mask, and the folder that holds it, to disk.
pub(super) fn flush(folder: &Path, content: &Digest) -> Result<()> {
    let path = folder.join(name(content));
    files::flush(&path)?;
    files::flush(&files::parent_of(&path))
}

/// Writes a label map of `labels`, `[height, width]`, below `folder`.
pub(super) fn write(folder: &Path, content: &Digest, labels: &LabelSet, label_map: &[u8], width_px: u32) -> Result<()> {
    let path = folder.join(name(content));
    files::create_folder(&files::parent_of(&path))?;
    let png = encode(labels, label_map, width_px).map_err(|cause| Error::io("encode", &path)(cause.into()))?;
    fs::write(&path, png).map_err(Error::io("write", &path))
}

/// Reads what [`write`] wrote: the label map of `labels`, `[height, width]`, and its width.
pub(super) fn read(path: &Path, labels: &LabelSet) -> Result<(Vec<u8>, usize)> {
    let damaged = |cause| Error::input(path, "is damaged; segment the photo again").because(cause);
    let mut reader = opened(path)?;
    let mut label_map = vec![0; reader.output_buffer_size().unwrap_or_default()];
    reader.next_frame(&mut label_map).map_err(damaged)?;
    if label_map.iter().any(|&it| usize::from(it) >= labels.category_count()) {
        return Err(Error::input(path, "has labels beyond the categories; segment the photo again"));
    }
    Ok((label_map, reader.info().width as usize))
}

/// The label map, `[height, width]`, and the width of the photo with this SHA-256 (lower-case hexadecimal), of the `labels` of
/// the features folder `features`; `None` if it has no mask that can be read.
pub(crate) fn find(features: &Path, content_sha256: &str, labels: &LabelSet) -> Option<(Vec<u8>, usize)> {
    let path = features.join(FOLDER).join(content_sha256.get(..2)?).join(format!("{content_sha256}.png"));
    read(&path, labels).ok()
}

/// Width and height of a mask.
pub(super) fn size(path: &Path) -> Result<(u32, u32)> {
    opened(path).map(|reader| (reader.info().width, reader.info().height))
}

fn opened(path: &Path) -> Result<Reader<BufReader<File>>> {
    let damaged = |cause| Error::input(path, "is damaged; segment the photo again").because(cause);
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut decoder = Decoder::new(BufReader::new(file));
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.read_info().map_err(damaged)
}

/// A PNG of 8-bit palette indices (ISO/IEC 15948) with the palette of the categories.
fn encode(labels: &LabelSet, label_map: &[u8], width_px: u32) -> std::result::Result<Vec<u8>, EncodingError> {
    let height_px = label_map.len() as u32 / width_px;
    let mut png = Vec::new();
    let mut encoder = Encoder::new(&mut png, width_px, height_px);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    let palette: Vec<[u8; 3]> = (0..labels.category_count() as u8).map(category_rgb).collect();
    encoder.set_palette(palette.into_flattened());
    encoder.set_filter(Filter::Up);
    encoder.set_deflate_compression(DeflateCompression::Level(DEFLATE_LEVEL));
    let mut writer = encoder.write_header()?;
    writer.write_image_data(label_map)?;
    writer.finish()?;
    Ok(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_reads_as_the_colours_of_its_categories() {
        let png = encode(&LabelSet::cfpd(), &[0, 1, 22, 7, 7, 7], 3).expect("6 pixels in rows of 3");
        let picture = image::load_from_memory(&png).expect("a PNG").into_rgb8();
        assert_eq!(picture.dimensions(), (3, 2));
        let colors: Vec<_> = picture.pixels().map(|pixel| pixel.0).collect();
        assert_eq!(colors, [0, 1, 22, 7, 7, 7].map(category_rgb));
    }

    #[test]
    fn a_mask_is_found_by_the_content_of_its_photo() -> Result<()> {
        let features = tempfile::tempdir().expect("a temporary folder");
        let (labels, map) = (LabelSet::cfpd(), [0, 1, 22, 7, 7, 7]);
        write(&features.path().join(FOLDER), &[7; 32], &labels, &map, 3)?;
        assert_eq!(find(features.path(), &hexadecimal(&[7; 32]), &labels), Some((map.to_vec(), 3)));
        for other in [hexadecimal(&[8; 32]), String::new()] {
            assert_eq!(find(features.path(), &other, &labels), None, "{other}");
        }
        Ok(())
    }
}
