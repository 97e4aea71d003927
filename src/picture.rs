//! Pictures for people: overlays, legends, contact sheets. Takes values, returns RGB pixels.
//!
//! All text is drawn in a font embedded in the program, so that a picture is the same on every machine.

use std::sync::OnceLock;

use image::ImageEncoder;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{Error, Result};
use crate::labels::{BACKGROUND, LabelSet, category_rgb};
use crate::photo::{self, Photo};

/// Weight of the palette's colour in a coloured pixel of an overlay; the rest is the photo.
pub const OVERLAY_STRENGTH: f32 = 0.55;
/// The colour of pixels that a model is unsure of.
pub const UNSURE_RGB: [u8; 3] = [255, 60, 0];
/// Largest width and height of a picture on a contact sheet.
pub const TILE_PX: (u32, u32) = (200, 300);
/// Maximum number of lines of a caption, unless a sheet says otherwise.
pub const CAPTION_LINES: usize = 2;
/// Width of the outline of a garment in pixels of the photo, within the garment.
const OUTLINE_PX: usize = 4;

/// Name under which the font is registered.
const FONT: &str = "lookbook";
const CAPTION_SIZE: f64 = 17.0;
const LINE_PX: i32 = 19;
const GAP_PX: i32 = 14;
const INK: RGBColor = RGBColor(40, 44, 52);

/// Drawing area of the plotting crate.
pub(crate) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// A captioned picture of a contact sheet.
#[derive(Debug, Clone)]
pub struct Panel {
    /// The picture.
    pub photo: Photo,
    /// One or two lines below it.
    pub caption: String,
}

/// Lays out captioned pictures in rows of `columns`, in cells of equal size; pictures keep their aspect ratio. A
/// caption is wrapped at spaces and cut off after [`CAPTION_LINES`] lines.
///
/// # Errors
/// [`Error::Input`] if drawing fails.
pub fn contact_sheet(tiles: &[Panel], columns: usize) -> Result<Photo> {
    contact_sheet_of(tiles, columns, CAPTION_LINES)
}

/// As [`contact_sheet`], with captions of at most `lines` lines.
///
/// # Errors
/// As [`contact_sheet`].
pub fn contact_sheet_of(tiles: &[Panel], columns: usize, lines: usize) -> Result<Photo> {
    let columns = columns.clamp(1, tiles.len().max(1));
    let rows = tiles.len().div_ceil(columns).max(1);
    let pictures: Vec<Photo> = tiles.iter().map(|tile| photo::fit(&tile.photo, TILE_PX.0, TILE_PX.1)).collect();
    let cell_width = pictures.iter().map(|it| it.width_px).max().unwrap_or(1) as i32;
    let picture_height = pictures.iter().map(|it| it.height_px).max().unwrap_or(1) as i32;
    let captions: Vec<_> = tiles.iter().map(|tile| wrapped(&tile.caption, cell_width as u32, lines)).collect();
    let cell_height =
        picture_height + LINE_PX * captions.iter().map(Vec::len).fold(CAPTION_LINES, usize::max) as i32 + 4;
    let width = columns as i32 * (cell_width + GAP_PX) + GAP_PX;
    let height = rows as i32 * (cell_height + GAP_PX) + GAP_PX;
    let corner = |index: usize| {
        let (column, row) = ((index % columns) as i32, (index / columns) as i32);
        (GAP_PX + column * (cell_width + GAP_PX), GAP_PX + row * (cell_height + GAP_PX))
    };
    let mut sheet = draw(width as u32, height as u32, |area| {
        area.fill(&WHITE)?;
        for (index, caption) in captions.iter().enumerate() {
            let (x, y) = corner(index);
            let style = text(CAPTION_SIZE).color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
            for (line, words) in caption.iter().enumerate() {
                let below = y + picture_height + 4 + line as i32 * LINE_PX;
                area.draw_text(words, &style, (x + cell_width / 2, below))?;
            }
        }
        Ok(())
    })?;
    for (index, picture) in pictures.iter().enumerate() {
        let (x, y) = corner(index);
        let x = x + (cell_width - picture.width_px as i32) / 2;
        let y = y + picture_height - picture.height_px as i32;
        paste(&mut sheet, picture, x as usize, y as usize);
    }
    Ok(sheet)
}

/// The photo overlaid with the palette's colours of its categories; `label_map` is `[height, width]`, the photo's size.
/// The background is left unchanged; each region has a dark border.
///
/// # Panics
/// If the label map does not have the photo's size.
#[must_use]
pub fn overlay(photo: &Photo, label_map: &[u8]) -> Photo {
    let (width, height) = (photo.width_px as usize, photo.height_px as usize);
    assert_eq!(label_map.len(), width * height, "a label map has its photo's size");
    let mut drawn = photo.clone();
    for (index, pixel) in drawn.rgb.chunks_exact_mut(3).enumerate() {
        let (x, y, label) = (index % width, index / width, label_map[index]);
        let differs = |other: usize| label_map[other] != label;
        let border = (x > 0 && differs(index - 1)) || (y > 0 && differs(index - width));
        if label == BACKGROUND && !border {
            continue;
        }
        for (value, of_palette) in pixel.iter_mut().zip(category_rgb(label)) {
            let mixed = f32::from(of_palette) * OVERLAY_STRENGTH + f32::from(*value) * (1.0 - OVERLAY_STRENGTH);
            *value = if border { mixed * 0.35 } else { mixed }.round() as u8;
        }
    }
    drawn
}

/// The photo with an outline, in the palette's colour, around what `is_shown` accepts of its categories; `label_map` is
/// `[height, width]`, the photo's size. A dark line outside sets it off.
///
/// # Panics
/// If the label map does not have the photo's size.
#[must_use]
pub fn outlined(photo: &Photo, label_map: &[u8], is_shown: impl Fn(u8) -> bool) -> Photo {
    let (width, height) = (photo.width_px as usize, photo.height_px as usize);
    assert_eq!(label_map.len(), width * height, "a label map has its photo's size");
    let mut drawn = photo.clone();
    for (index, pixel) in drawn.rgb.chunks_exact_mut(3).enumerate() {
        let (x, y, label) = (index % width, index / width, label_map[index]);
        // The labels so far away, in the four directions; the edge of the photo does not count as a border.
        let around = |away: usize| {
            let across = [x.checked_sub(away), Some(x + away).filter(|it| *it < width)];
            let along = [y.checked_sub(away), Some(y + away).filter(|it| *it < height)];
            let across = across.into_iter().flatten().map(move |x| y * width + x);
            across.chain(along.into_iter().flatten().map(move |y| y * width + x)).map(|it| label_map[it])
        };
        if is_shown(label) {
            if (1..=OUTLINE_PX).any(|away| around(away).any(|it| it != label)) {
                pixel.copy_from_slice(&category_rgb(label));
            }
        } else if around(1).any(&is_shown) {
            pixel.fill(0);
        }
    }
    drawn
}

/// The photo in grey, with [`UNSURE_RGB`] where a model is unsure; `certainty` is the largest probability of each pixel,
/// `[height, width]`, 0 to 255 for 0 to 1. A pixel of probability p is p of the grey photo and 1 - p of the colour.
///
/// # Panics
/// If the map does not have the photo's size.
#[must_use]
pub fn certainty(photo: &Photo, certainty: &[u8]) -> Photo {
    assert_eq!(certainty.len() * 3, photo.rgb.len(), "a map of certainty has its photo's size");
    let mut drawn = photo.clone();
    for (pixel, &certainty) in drawn.rgb.chunks_exact_mut(3).zip(certainty) {
        // Luma of ITU-R BT.601.
        let [r, g, b] = [0, 1, 2].map(|channel| f32::from(pixel[channel]));
        let grey = 0.299 * r + 0.587 * g + 0.114 * b;
        let sure = f32::from(certainty) / f32::from(u8::MAX);
        for (value, unsure) in pixel.iter_mut().zip(UNSURE_RGB) {
            *value = (grey * sure + f32::from(unsure) * (1.0 - sure)).round() as u8;
        }
    }
    drawn
}

/// Swatches with the names of `categories` (ids of `labels`), in rows of at most `width_px`.
///
/// # Errors
/// [`Error::Input`] if drawing fails.
pub fn legend(labels: &LabelSet, categories: &[u8], width_px: u32) -> Result<Photo> {
    const SWATCH_PX: i32 = 14;
    const ROW_PX: i32 = 24;
    let mut entries = Vec::new();
    let (mut x, mut y) = (GAP_PX, GAP_PX / 2);
    for &category in categories.iter().filter(|&&category| usize::from(category) < labels.category_count()) {
        let name = labels.category_name(category);
        let entry_width = SWATCH_PX + 6 + text_width(name) as i32 + GAP_PX;
        if x + entry_width > width_px as i32 && x > GAP_PX {
            (x, y) = (GAP_PX, y + ROW_PX);
        }
        entries.push((x, y, name, category_rgb(category)));
        x += entry_width;
    }
    draw(width_px, (y + ROW_PX + GAP_PX / 2) as u32, |area| {
        area.fill(&WHITE)?;
        let style = text(CAPTION_SIZE).color(&INK).pos(Pos::new(HPos::Left, VPos::Top));
        for &(x, y, name, [r, g, b]) in &entries {
            let swatch = [(x, y + 3), (x + SWATCH_PX, y + 3 + SWATCH_PX)];
            area.draw(&Rectangle::new(swatch, RGBColor(r, g, b).filled()))?;
            area.draw_text(name, &style, (x + SWATCH_PX + 6, y + 5))?;
        }
        Ok(())
    })
}

/// Stacks pictures vertically on white.
#[must_use]
pub fn stacked(pictures: &[Photo]) -> Photo {
    let width = pictures.iter().map(|picture| picture.width_px).max().unwrap_or(0);
    let height = pictures.iter().map(|picture| picture.height_px).sum();
    let mut sheet = blank(width, height);
    let mut y = 0;
    for picture in pictures {
        paste(&mut sheet, picture, 0, y);
        y += picture.height_px as usize;
    }
    sheet
}

/// `count` distinct numbers below `total`, evenly spaced: a sample of a long list.
pub(crate) fn spaced(total: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(total);
    (0..count).map(move |index| (2 * index + 1) * total / (2 * count))
}

/// Encodes as PNG.
#[must_use]
pub fn png(photo: &Photo) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder
        .write_image(&photo.rgb, photo.width_px, photo.height_px, image::ExtendedColorType::Rgb8)
        .expect("writing to memory does not fail");
    bytes
}

/// Encodes as JPEG of `quality` 1 to 100, with colours in full resolution.
#[must_use]
pub fn jpeg(photo: &Photo, quality: u8) -> Vec<u8> {
    let (width, height) = (photo.width_px as usize, photo.height_px as usize);
    let format = turbojpeg::PixelFormat::RGB;
    let image = turbojpeg::Image { pixels: &*photo.rgb, width, pitch: width * format.size(), height, format };
    let encoded = turbojpeg::compress(image, i32::from(quality), turbojpeg::Subsamp::None);
    encoded.expect("writing to memory does not fail").to_vec()
}

/// Error type of drawing: the memory behind a picture cannot fail, so in practice this is about fonts.
pub(crate) type DrawError = DrawingAreaErrorKind<<BitMapBackend<'static> as DrawingBackend>::ErrorType>;

/// Draws a picture; what is not drawn is white.
pub(crate) fn draw(width: u32, height: u32, content: impl FnOnce(&Area<'_>) -> Result<(), DrawError>) -> Result<Photo> {
    register_font();
    let mut picture = blank(width, height);
    let area = BitMapBackend::with_buffer(&mut picture.rgb, (width, height)).into_drawing_area();
    let drawn = content(&area).and_then(|()| area.present());
    drop(area);
    drawn.map_err(|cause| Error::input("picture", format!("cannot be drawn: {cause}")))?;
    Ok(picture)
}

fn register_font() {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        let font = plotters::style::register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
        assert!(font.is_ok(), "the font is embedded in the program");
    });
}

/// The font of all text.
pub(crate) fn text(size: f64) -> FontDesc<'static> {
    (FONT, size).into_font()
}

fn text_width(words: &str) -> u32 {
    register_font();
    text(CAPTION_SIZE).box_size(words).map_or(0, |(width, _)| width)
}

/// Wraps a caption at line breaks and spaces into lines that fit; what does not fit is cut off with an ellipsis.
fn wrapped(caption: &str, width_px: u32, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in caption.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if line.is_empty() || text_width(&longer) <= width_px {
                line = longer;
            } else {
                lines.push(std::mem::replace(&mut line, word.to_owned()));
            }
        }
        lines.push(line);
    }
    let more = lines.len() > most;
    lines.truncate(most);
    let last = lines.len().saturating_sub(1);
    lines.into_iter().enumerate().map(|(index, line)| cut(line, width_px, more && index == last)).collect()
}

fn cut(mut line: String, width_px: u32, more: bool) -> String {
    if !more && text_width(&line) <= width_px {
        return line;
    }
    while !line.is_empty() && text_width(&format!("{line}…")) > width_px {
        line.pop();
    }
    line + "…"
}

fn blank(width_px: u32, height_px: u32) -> Photo {
    Photo { width_px, height_px, rgb: vec![255; width_px as usize * height_px as usize * 3] }
}

fn paste(sheet: &mut Photo, picture: &Photo, x: usize, y: usize) {
    let row_bytes = picture.width_px as usize * 3;
    for (row, pixels) in picture.rgb.chunks_exact(row_bytes.max(1)).enumerate() {
        let start = ((y + row) * sheet.width_px as usize + x) * 3;
        sheet.rgb[start..start + row_bytes].copy_from_slice(pixels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_evenly_spaced() {
        assert_eq!(spaced(10, 2).collect::<Vec<_>>(), [2, 7]);
        assert_eq!(spaced(3, 6).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spaced(0, 6).count(), 0);
    }

    fn plain(width_px: u32, height_px: u32, color: [u8; 3]) -> Photo {
        Photo { width_px, height_px, rgb: color.repeat((width_px * height_px) as usize) }
    }

    fn pixel(photo: &Photo, x: u32, y: u32) -> [u8; 3] {
        let start = ((y * photo.width_px + x) * 3) as usize;
        [photo.rgb[start], photo.rgb[start + 1], photo.rgb[start + 2]]
    }

    #[test]
    fn an_overlay_mixes_the_palette_and_leaves_the_background() {
        let photo = plain(4, 1, [100, 200, 0]);
        let drawn = overlay(&photo, &[0, 0, 1, 1]);
        assert_eq!(pixel(&drawn, 0, 0), [100, 200, 0], "background");
        // Category 1 is (230, 25, 75): the result is 0.55 of it plus 0.45 of the photo.
        assert_eq!(pixel(&drawn, 3, 0), [172, 104, 41]);
        assert!(pixel(&drawn, 2, 0)[0] < 80, "the border is dark");
    }

    #[test]
    fn an_outline_lies_within_the_garment() {
        let mut labels = vec![0; 20 * 20];
        for y in 4..16 {
            labels[y * 20 + 4..y * 20 + 16].fill(1);
        }
        labels[19 * 20 + 19] = 2;
        let drawn = outlined(&plain(20, 20, [100, 200, 0]), &labels, |label| label == 1);
        let at = |x, y| pixel(&drawn, x, y);
        assert_eq!((at(4, 4), at(7, 10)), (category_rgb(1), category_rgb(1)));
        assert_eq!((at(8, 10), at(2, 2), at(19, 19)), ([100, 200, 0], [100, 200, 0], [100, 200, 0]));
        assert_eq!(at(3, 10), [0; 3], "the dark line outside");
    }

    #[test]
    fn certainty_mixes_the_grey_photo_with_the_colour_of_what_is_unsure() {
        let drawn = certainty(&plain(3, 1, [100, 200, 0]), &[255, 0, 51]);
        // The luma is 0.299 * 100 + 0.587 * 200 = 147.3; a fifth of it and four fifths of (255, 60, 0) are (233.46, 77.46, 29.46).
        assert_eq!([0, 1, 2].map(|x| pixel(&drawn, x, 0)), [[147; 3], [255, 60, 0], [233, 77, 29]]);
    }

    #[test]
    fn captions_are_broken_at_blanks_and_cut() {
        assert_eq!(wrapped("a b", 200, CAPTION_LINES), ["a b"]);
        assert_eq!(wrapped("one\ntwo", 200, CAPTION_LINES), ["one", "two"]);
        let long = wrapped(&"word ".repeat(40), 120, CAPTION_LINES);
        assert_eq!(long.len(), CAPTION_LINES);
        assert!(long[1].ends_with('…'), "{long:?}");
        let name = wrapped(&"x".repeat(100), 120, CAPTION_LINES);
        assert!(name.iter().all(|line| text_width(line) <= 120), "{name:?}");
    }

    #[test]
    fn a_sheet_keeps_aspect_and_order() -> Result<()> {
        let tile = |color, caption: &str| Panel { photo: plain(400, 600, color), caption: caption.to_owned() };
        let wide = Panel { photo: plain(300, 100, [0, 0, 255]), caption: String::new() };
        let sheet = contact_sheet(&[tile([255, 0, 0], "first"), tile([0, 255, 0], "second"), wide], 2)?;
        assert_eq!(sheet.width_px, 2 * 200 + 3 * GAP_PX as u32);
        let (x, y) = (GAP_PX as u32 + 5, GAP_PX as u32 + 5);
        assert_eq!(pixel(&sheet, x, y), [255, 0, 0]);
        assert_eq!(pixel(&sheet, x + 200 + GAP_PX as u32, y), [0, 255, 0]);
        let second_row = y + 300 + 2 * LINE_PX as u32 + 4 + GAP_PX as u32;
        assert_eq!(pixel(&sheet, x, second_row), [255, 255, 255], "above the wide picture");
        assert_eq!(pixel(&sheet, x, second_row + 280), [0, 0, 255]);
        contact_sheet(&[], 3).map(drop)
    }

    #[test]
    fn encoded_pictures_read_back() -> Result<()> {
        let sheet = stacked(&[plain(30, 10, [9, 8, 7]), legend(&LabelSet::cfpd(), &[1, 2, 22, 99], 300)?]);
        let read = image::load_from_memory(&png(&sheet)).expect("a PNG").to_rgb8();
        assert_eq!(read.as_raw(), &sheet.rgb);
        let read = image::load_from_memory(&jpeg(&sheet, 90)).expect("a JPEG").to_rgb8();
        assert_eq!(read.dimensions(), (sheet.width_px, sheet.height_px));
        Ok(())
    }

    /// Writes the pictures to the folder `LOOKBOOK_PICTURES`, for visual inspection.
    #[test]
    fn pictures_to_look_at() -> Result<()> {
        let checks: Vec<u8> = (0..400 * 600).map(|i| ((i % 400) / 100 + (i / 400) / 100 * 4) as u8 % 23).collect();
        let shown = overlay(&plain(400, 600, [190, 180, 170]), &checks);
        let captions =
            ["photo", "truth_0001.jpg\nr = 0.93, 7 cells", "a long caption that does not fit into two lines"];
        let tiles: Vec<Panel> =
            captions.iter().map(|caption| Panel { photo: shown.clone(), caption: (*caption).to_owned() }).collect();
        let all: Vec<u8> = (0..23).collect();
        let sheet = stacked(&[contact_sheet(&tiles, 3)?, legend(&LabelSet::cfpd(), &all, 650)?]);
        assert!(sheet.rgb.iter().any(|&value| value < 100), "something is drawn");
        if let Some(folder) = std::env::var_os("LOOKBOOK_PICTURES") {
            crate::files::write(&std::path::Path::new(&folder).join("sheet.png"), &png(&sheet))?;
        }
        Ok(())
    }
}
