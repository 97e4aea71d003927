//! Which side of a picture is up, as EXIF tells it; read as Pillow reads it.

use std::io::Read;

use flate2::read::ZlibDecoder;
use image::ImageFormat;
use image::metadata::Orientation;

/// The EXIF tag of the orientation.
const TAG: u16 = 0x0112;
/// Largest EXIF data that are unpacked from a compressed chunk, in bytes.
const MAX_EXIF_BYTES: u64 = 1 << 20;

/// The orientation in TIFF data (TIFF 6.0, section 2), which a prefix may precede. Data without one, or with one that
/// makes no sense, leave the picture as it is.
pub(super) fn of_tiff(exif: &[u8]) -> Orientation {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    tag(tiff).and_then(|value| Orientation::from_exif(u8::try_from(value).ok()?)).unwrap_or(Orientation::NoTransforms)
}

/// The orientation of a PNG or WebP file.
pub(super) fn of_png_or_webp(format: ImageFormat, bytes: &[u8]) -> Orientation {
    let exif = if format == ImageFormat::Png { exif_of_png(bytes) } else { exif_of_webp(bytes) };
    exif.map_or(Orientation::NoTransforms, |exif| of_tiff(&exif))
}

/// The first value of the orientation's tag, of any integer type but BYTE.
fn tag(tiff: &[u8]) -> Option<i64> {
    let big = match tiff.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let number = |at: usize, bytes: usize| {
        let of = tiff.get(at..at.checked_add(bytes)?)?.iter();
        let append = |value: i64, &byte: &u8| value << 8 | i64::from(byte);
        Some(if big { of.fold(0, append) } else { of.rev().fold(0, append) })
    };
    let ifd = number(4, 4)? as usize;
    let entries = (0..number(ifd, 2)? as usize).map(|index| ifd + 2 + index * 12);
    for at in entries {
        if number(at, 2)? as u16 != TAG {
            continue;
        }
        // SHORT and SSHORT; LONG, SLONG and IFD. A negative value is no orientation either way.
        let bytes = match number(at + 2, 2)? {
            3 | 8 => 2,
            4 | 9 | 13 => 4,
            _ => continue,
        };
        let count = number(at + 4, 4)? as usize;
        let inside = count.checked_mul(bytes)? <= 4;
        let place = if inside { at + 8 } else { number(at + 8, 4)? as usize };
        return number(place, bytes).filter(|_| count > 0);
    }
    None
}

/// The eXIf chunk of a PNG file, or else the raw profile that programs wrote before there was such a chunk.
fn exif_of_png(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut profile = None;
    let mut at = 8;
    while let Some(header) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let content = bytes.get(at + 8..at + 8 + length)?;
        match &header[4..] {
            b"eXIf" => return Some(content.to_vec()),
            kind @ (b"tEXt" | b"zTXt" | b"iTXt") => profile = profile.or_else(|| raw_profile(kind, content)),
            b"IEND" => break,
            _ => {}
        }
        at += 12 + length;
    }
    profile
}

/// EXIF data in a text chunk of a PNG file, as `ImageMagick` writes them: after three lines, in hexadecimal digits.
fn raw_profile(kind: &[u8], chunk: &[u8]) -> Option<Vec<u8>> {
    let text = chunk.strip_prefix(b"Raw profile type exif\0")?;
    let unpacked = |packed: &[u8]| {
        let mut text = Vec::new();
        ZlibDecoder::new(packed).take(MAX_EXIF_BYTES * 3).read_to_end(&mut text).ok()?;
        Some(text)
    };
    let text = match (kind, text) {
        (b"tEXt", text) => text.to_vec(),
        (b"zTXt", [0, packed @ ..]) => unpacked(packed)?,
        (b"iTXt", [compressed, _, rest @ ..]) => {
            // A language and a translated keyword come first, both of which end with a zero.
            let text = rest.splitn(3, |&byte| byte == 0).nth(2)?;
            if *compressed == 1 { unpacked(text)? } else { text.to_vec() }
        }
        _ => return None,
    };
    let text = String::from_utf8(text).ok()?;
    let digits: Vec<u8> =
        text.split('\n').skip(3).flat_map(str::chars).filter_map(|it| Some(it.to_digit(16)? as u8)).collect();
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// The EXIF chunk of a WebP file (RFC 9649), if its header announces one.
fn exif_of_webp(bytes: &[u8]) -> Option<Vec<u8>> {
    const ANNOUNCED: u8 = 0x08;
    let mut announced = false;
    let mut at = 12;
    while let Some(header) = bytes.get(at..at + 8) {
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let content = bytes.get(at + 8..at + 8 + length)?;
        match &header[..4] {
            b"VP8X" => announced = content.first().is_some_and(|flags| flags & ANNOUNCED > 0),
            b"EXIF" if announced => return Some(content.to_vec()),
            _ => {}
        }
        at += 8 + length + length % 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TIFF data with one entry.
    fn tiff(big: bool, kind: u16, count: u32, value: [u8; 4], rest: &[u8]) -> Vec<u8> {
        let short = |it: u16| if big { it.to_be_bytes() } else { it.to_le_bytes() };
        let long = |it: u32| if big { it.to_be_bytes() } else { it.to_le_bytes() };
        let start: &[u8] = if big { b"MM\0*" } else { b"II*\0" };
        let entry = [&short(TAG)[..], &short(kind), &long(count), &value].concat();
        [start, &long(8), &short(1), &entry, &long(0), rest].concat()
    }

    #[test]
    fn every_integer_type_tells_an_orientation() {
        for (big, kind, count, value) in [
            (true, 3, 1, [0, 6, 0, 0]),
            (false, 3, 1, [6, 0, 0, 0]),
            (true, 4, 1, [0, 0, 0, 6]),
            (false, 4, 1, [6, 0, 0, 0]),
            (true, 8, 1, [0, 6, 0, 0]),
            (false, 9, 1, [6, 0, 0, 0]),
            (false, 3, 2, [6, 0, 1, 0]),
        ] {
            let tiff = tiff(big, kind, count, value, &[]);
            assert_eq!(of_tiff(&tiff), Orientation::Rotate90, "{big} {kind} {count}");
            assert_eq!(of_tiff(&[b"Exif\0\0", &tiff[..]].concat()), Orientation::Rotate90, "{big} {kind} {count}");
        }
        assert_eq!(of_tiff(&tiff(false, 4, 2, [26, 0, 0, 0], &[8, 0, 0, 0, 1])), Orientation::Rotate270);
    }

    #[test]
    fn anything_else_leaves_the_picture_as_it_is() {
        let whole = tiff(true, 4, 1, [0, 0, 0, 6], &[]);
        for length in 0..whole.len() - 4 {
            assert_eq!(of_tiff(&whole[..length]), Orientation::NoTransforms, "cut at {length}");
        }
        for (kind, count, value) in [
            (1, 1, [6, 0, 0, 0]),
            (2, 1, [b'6', 0, 0, 0]),
            (3, 0, [0, 6, 0, 0]),
            (3, 1, [1, 6, 0, 0]),
            (4, 1, [1, 0, 0, 6]),
            (4, u32::MAX, [0, 0, 0, 6]),
        ] {
            assert_eq!(of_tiff(&tiff(true, kind, count, value, &[])), Orientation::NoTransforms, "{kind} {count}");
        }
    }
}
