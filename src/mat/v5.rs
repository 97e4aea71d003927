//! Reads what is needed of MATLAB v5 files: numeric arrays (with the crate `matfile`) and cell arrays of text, which it
//! lacks.
//!
//! Compressed elements are inflated here first, up to a limit, because the size that the file declares cannot be
//! trusted. Source: "MAT-File Format", The `MathWorks`, chapter 1 (level 5).

use std::io::Read;

use flate2::read::ZlibDecoder;
use matfile::{MatFile, NumericData};

use super::HEADER_BYTES;
use crate::guard;

/// Maximum size of an inflated file in bytes: a label map of 8192 x 8192 and its name.
const MAX_INFLATED_BYTES: usize = (8192 * 8192) + 4096;

// Data types and array classes of the format.
const MI_UINT8: u32 = 2;
const MI_UINT16: u32 = 4;
const MI_MATRIX: u32 = 14;
const MI_COMPRESSED: u32 = 15;
const MI_UTF8: u32 = 16;
const MI_UTF16: u32 = 17;
const MX_CELL: u8 = 1;

/// A numeric array: rows, columns, and the values in MATLAB's order, column by column.
pub(super) type Matrix = (usize, usize, Vec<u8>);

/// Reads the u8 array `name` from the bytes of a complete file.
pub(super) fn read_u8_matrix(bytes: &[u8], name: &str) -> Result<Matrix, String> {
    let plain = inflated(bytes)?;
    let file = guard::no_panic(|| MatFile::parse(plain.as_slice()).map_err(|cause| cause.to_string()))
        .unwrap_or_else(Err)
        .map_err(|cause| format!("is damaged ({cause})"))?;
    let array = file.find_by_name(name).ok_or_else(|| format!("has no numeric array '{name}'"))?;
    let &[rows, columns] = array.size().as_slice() else {
        return Err(format!("'{name}' has {} axes; expected rows and columns", array.ndims()));
    };
    let values = whole_numbers(array.data())
        .ok_or_else(|| format!("'{name}' has values other than real, whole numbers from 0 to 255"))?;
    if rows.checked_mul(columns) != Some(values.len()) {
        return Err(format!("'{name}' has {} numbers; expected {rows} x {columns}", values.len()));
    }
    Ok((rows, columns, values))
}

/// MATLAB stores integers in whatever type they were computed in.
fn whole_numbers(data: &NumericData) -> Option<Vec<u8>> {
    fn narrow<T: Copy + TryInto<u8>>(values: &[T]) -> Option<Vec<u8>> {
        values.iter().map(|&value| value.try_into().ok()).collect()
    }
    let whole = |value: f64| (value.fract() == 0.0 && (0.0..=255.0).contains(&value)).then_some(value as u8);
    match data {
        NumericData::UInt8 { real, imag: None } => Some(real.clone()),
        NumericData::Int8 { real, imag: None } => narrow(real),
        NumericData::UInt16 { real, imag: None } => narrow(real),
        NumericData::Int16 { real, imag: None } => narrow(real),
        NumericData::UInt32 { real, imag: None } => narrow(real),
        NumericData::Int32 { real, imag: None } => narrow(real),
        NumericData::Double { real, imag: None } => real.iter().map(|&value| whole(value)).collect(),
        NumericData::Single { real, imag: None } => real.iter().map(|&value| whole(f64::from(value))).collect(),
        _ => None,
    }
}

/// Reads the cell array of texts `name` from the bytes of a complete file.
pub(super) fn read_texts(bytes: &[u8], name: &str) -> Result<Vec<String>, String> {
    let plain = inflated(bytes)?;
    let mut rest = &plain[HEADER_BYTES..];
    while !rest.is_empty() {
        let (kind, content, after) = element(rest)?;
        if kind == MI_MATRIX
            && let Some(texts) = cell_texts(content, name)?
        {
            return Ok(texts);
        }
        rest = after;
    }
    Err(format!("has no cell array '{name}'"))
}

/// The texts of a matrix element, if it is a cell array with that name.
fn cell_texts(matrix: &[u8], name: &str) -> Result<Option<Vec<String>>, String> {
    let (class, found, mut cells) = matrix_header(matrix)?;
    if class != MX_CELL || found != name.as_bytes() {
        return Ok(None);
    }
    let mut texts = Vec::new();
    while !cells.is_empty() {
        let (_, cell, after) = element(cells)?;
        let (_, _, data) = matrix_header(cell)?;
        let (kind, content, _) = element(data)?;
        texts.push(match kind {
            MI_UINT8 | MI_UTF8 => String::from_utf8_lossy(content).into_owned(),
            MI_UINT16 | MI_UTF16 => {
                let units = content.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
                String::from_utf16_lossy(&units.collect::<Vec<_>>())
            }
            other => return Err(format!("'{name}' has data of type {other}; expected text")),
        });
        cells = after;
    }
    Ok(Some(texts))
}

/// Class and name of a matrix, and the bytes after its header.
fn matrix_header(matrix: &[u8]) -> Result<(u8, &[u8], &[u8]), String> {
    let (_, flags, after) = element(matrix)?;
    let (_, _dimensions, after) = element(after)?;
    let (_, name, after) = element(after)?;
    let class = flags.first().ok_or("an array has no class")?;
    Ok((*class, name, after))
}

/// Type and content of the element at the start of `bytes`, and the bytes after it.
fn element(bytes: &[u8]) -> Result<(u32, &[u8], &[u8]), String> {
    let cut = || "ends in the middle of an element".to_owned();
    let word = |at: usize| {
        let word = bytes.get(at..at + 4).ok_or_else(cut)?;
        Ok::<u32, String>(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    };
    let tag = word(0)?;
    // A small element has its size in the upper half of the tag, and its content in the second word.
    if tag >> 16 != 0 {
        let size = (tag >> 16) as usize;
        let content = bytes.get(4..4 + size).filter(|_| size <= 4).ok_or_else(cut)?;
        return Ok((tag & 0xFFFF, content, bytes.get(8..).unwrap_or_default()));
    }
    let size = word(4)? as usize;
    let content = bytes.get(8..8 + size).ok_or_else(cut)?;
    // All elements are padded to eight bytes, except compressed ones.
    let padded = if tag == MI_COMPRESSED { size } else { size.next_multiple_of(8) };
    Ok((tag, content, bytes.get(8 + padded..).unwrap_or_default()))
}

/// The file with its compressed elements inflated.
fn inflated(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if bytes.get(126..128) != Some(b"IM") {
        return Err("is not a little-endian MATLAB v5 file".to_owned());
    }
    let mut plain = bytes[..HEADER_BYTES].to_vec();
    let mut rest = &bytes[HEADER_BYTES..];
    while !rest.is_empty() {
        let (kind, content, after) = element(rest)?;
        let limit = (MAX_INFLATED_BYTES - plain.len().min(MAX_INFLATED_BYTES)) as u64;
        if kind == MI_COMPRESSED {
            let read = ZlibDecoder::new(content).take(limit).read_to_end(&mut plain);
            read.map_err(|cause| format!("is damaged: {cause}"))?;
        } else {
            plain.extend_from_slice(&rest[..rest.len() - after.len()]);
        }
        if plain.len() >= MAX_INFLATED_BYTES {
            return Err(format!("has more than {MAX_INFLATED_BYTES} bytes when inflated"));
        }
        rest = after;
    }
    Ok(plain)
}
