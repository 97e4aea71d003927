//! `masks/XX/<content_sha256>.png`: the label map of a photo at the photo's own size, one palette index per pixel.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

use crate::error::{Error, Result};
use crate::files::{self, hexadecimal};
use crate::labels::CATEGORY_PALETTE;
use crate::stage::Digest;

/// The folder of the masks in a features folder.
pub(super) const FOLDER: &str = "masks";
/// Compression level. Label maps are flat areas: a higher level hardly makes them smaller.
const EFFORT: u32 = 3;

/// The path of a photo's mask within the folder, by content: identical photos share one.
pub(super) fn name(content: &Digest) -> PathBuf {
    let name = hexadecimal(content);
    Path::new(&name[..2]).join(format!("{name}.png"))
}

/// Removes the masks in `folder` that are not of `contents`: those of photos that left the catalogue after a run was killed.
pub(super) fn retain(folder: &Path, contents: &HashSet<Digest>) -> Result<()> {
    let names: HashSet<PathBuf> = contents.iter().map(|content| folder.join(name(content))).collect();
    for path in files::entries(folder)? {
        files::entries(&path)?.iter().filter(|it| !names.contains(*it)).try_for_each(|it| files::remove_file(it))?;
    }
    Ok(())
}

/// Flushes the mask of a photo to disk.
pub(super) fn flush(folder: &Path, content: &Digest) -> Result<()> {
    let path = folder.join(name(content));
    files::flush(&path)?;
    files::flush(&files::parent_of(&path))
}

/// Writes a label map, `[height, width]`, 0 to 22, below `folder`.
pub(super) fn write(folder: &Path, content: &Digest, label_map: &[u8], width_px: u32) -> Result<()> {
    let path = folder.join(name(content));
    files::create_folder(&files::parent_of(&path))?;
    fs::write(&path, encode(label_map, width_px)).map_err(Error::io("write", &path))
}

/// Encodes a PNG of 8-bit palette indices (ISO/IEC 15948) with the palette of the categories.
fn encode(label_map: &[u8], width_px: u32) -> Vec<u8> {
    let height_px = label_map.len() as u32 / width_px;
    let mut header = [width_px.to_be_bytes(), height_px.to_be_bytes()].concat();
    // 8 bits, palette, deflate, adaptive filters, not interlaced.
    header.extend([8, 3, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut png, *b"IHDR", &header);
    chunk(&mut png, *b"PLTE", CATEGORY_PALETTE.as_flattened());
    let mut data = ZlibEncoder::new(Vec::new(), Compression::new(EFFORT));
    for row in label_map.chunks_exact(width_px as usize) {
        data.write_all(&[0]).and_then(|()| data.write_all(row)).expect("a vector takes all");
    }
    chunk(&mut png, *b"IDAT", &data.finish().expect("a vector takes all"));
    chunk(&mut png, *b"IEND", &[]);
    png
}

fn chunk(png: &mut Vec<u8>, name: [u8; 4], content: &[u8]) {
    png.extend((content.len() as u32).to_be_bytes());
    let start = png.len();
    png.extend(name);
    png.extend(content);
    let mut crc = Crc::new();
    crc.update(&png[start..]);
    png.extend(crc.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_reads_as_the_colours_of_its_categories() {
        let png = encode(&[0, 1, 22, 7, 7, 7], 3);
        let picture = image::load_from_memory(&png).expect("a PNG").into_rgb8();
        assert_eq!(picture.dimensions(), (3, 2));
        let colors: Vec<_> = picture.pixels().map(|pixel| pixel.0).collect();
        assert_eq!(colors, [0, 1, 22, 7, 7, 7].map(|it: usize| CATEGORY_PALETTE[it]));
    }
}
