//! Reads what is needed of MATLAB v5 files: one array of numbers or one cell array of texts, whatever lies beside it.
//!
//! The elements of a file are walked here, in either byte order and with or without padding, and only the variable that
//! is asked for is inflated, up to a limit, because the sizes that a file declares cannot be trusted. Its numbers are
//! read by the crate `matfile`. Source: "MAT-File Format", The `MathWorks`, chapter 1 (level 5).

use std::borrow::Cow;
use std::io::Read;

use flate2::read::ZlibDecoder;
use matfile::{MatFile, NumericData};

use super::HEADER_BYTES;
use crate::guard;

/// Maximum size of a variable in bytes, inflated: a label map of 8192 x 8192 and its name.
pub(super) const MAX_VARIABLE_BYTES: usize = (8192 * 8192) + 4096;
/// Number of bytes of a compressed variable in which its name must be found.
const HEAD_BYTES: u64 = 4096;

// Data types and array classes of the format.
const MI_INT8: u32 = 1;
const MI_UINT8: u32 = 2;
const MI_UINT16: u32 = 4;
const MI_INT32: u32 = 5;
const MI_UINT32: u32 = 6;
const MI_MATRIX: u32 = 14;
const MI_COMPRESSED: u32 = 15;
const MI_UTF8: u32 = 16;
const MI_UTF16: u32 = 17;
const MI_UTF32: u32 = 18;
const MX_CELL: u32 = 1;
const MX_CHAR: u32 = 4;
const MX_NUMBERS: std::ops::RangeInclusive<u32> = 6..=15;
const MX_OPAQUE: u32 = 17;
/// Bit of the array flags that declares imaginary parts.
const COMPLEX: u32 = 0x0800;

/// A numeric array: rows, columns, and the values in MATLAB's order, column by column.
pub(super) type Matrix = (usize, usize, Vec<u8>);

/// Reads the array `name`, of any numeric type with values from 0 to 255, from the bytes of a complete file.
pub(super) fn read_u8_matrix(bytes: &[u8], name: &str) -> Result<Matrix, String> {
    let order = Order::of(bytes)?;
    let content = order.variable(bytes, name)?;
    let array = order.array(&content)?;
    let expected = "expected real, whole numbers from 0 to 255";
    if !MX_NUMBERS.contains(&array.class) {
        return Err(format!("'{name}' is {}; {expected}", class_name(array.class)));
    }
    if array.flags & COMPLEX != 0 {
        return Err(format!("'{name}' has complex values; {expected}"));
    }
    // MATLAB drops axes of length 1 behind the second; other writers keep them.
    let kept = array.axes.iter().rposition(|&edge| edge != 1).map_or(2, |last| last.max(1) + 1);
    let &[rows, columns] = &array.axes[..kept.min(array.axes.len())] else {
        return Err(format!("'{name}' has {kept} axes; expected rows and columns"));
    };
    let (kind, data, _) = order.element(array.content)?;
    let width = width(kind).ok_or_else(|| format!("'{name}' has data of type {kind}; expected numbers"))?;
    if rows.checked_mul(columns).and_then(|count| count.checked_mul(width)) != Some(data.len()) {
        return Err(format!("'{name}' has {} bytes; expected {rows} x {columns} numbers of {width} bytes", data.len()));
    }
    if data.is_empty() {
        return Ok((rows, columns, Vec::new()));
    }
    let values = order.numbers(kind, data, width)?;
    let values = whole_numbers(&values).ok_or_else(|| format!("'{name}' has other values; {expected}"))?;
    Ok((rows, columns, values))
}

/// Reads the cell array of texts `name` from the bytes of a complete file.
pub(super) fn read_texts(bytes: &[u8], name: &str) -> Result<Vec<String>, String> {
    let order = Order::of(bytes)?;
    let content = order.variable(bytes, name)?;
    let array = order.array(&content)?;
    if array.class != MX_CELL {
        return Err(format!("'{name}' is {}; expected a cell array of texts", class_name(array.class)));
    }
    let (mut cells, mut texts) = (array.content, Vec::new());
    while !is_padding(cells) {
        let (_, cell, end) = order.element(cells)?;
        texts.push(order.text(cell).map_err(|problem| format!("'{name}' {{{}}} {problem}", texts.len() + 1))?);
        cells = order.after(cells, end);
    }
    let declared = array.axes.iter().try_fold(1_usize, |count, &edge| count.checked_mul(edge));
    if declared != Some(texts.len()) {
        return Err(format!("'{name}' has {} texts; its shape is {:?}", texts.len(), array.axes));
    }
    Ok(texts)
}

/// MATLAB stores integers in whatever type they were computed in.
fn whole_numbers(data: &NumericData) -> Option<Vec<u8>> {
    fn narrow<T: Copy + TryInto<u8>>(values: &[T]) -> Option<Vec<u8>> {
        values.iter().map(|&value| value.try_into().ok()).collect()
    }
    let whole = |value: f64| (value.fract() == 0.0 && (0.0..=255.0).contains(&value)).then_some(value as u8);
    match data {
        NumericData::UInt8 { real, .. } => Some(real.clone()),
        NumericData::Int8 { real, .. } => narrow(real),
        NumericData::UInt16 { real, .. } => narrow(real),
        NumericData::Int16 { real, .. } => narrow(real),
        NumericData::UInt32 { real, .. } => narrow(real),
        NumericData::Int32 { real, .. } => narrow(real),
        NumericData::UInt64 { real, .. } => narrow(real),
        NumericData::Int64 { real, .. } => narrow(real),
        NumericData::Double { real, .. } => real.iter().map(|&value| whole(value)).collect(),
        NumericData::Single { real, .. } => real.iter().map(|&value| whole(f64::from(value))).collect(),
    }
}

/// Number of bytes of a number of a data type; `None` if it is not a type of numbers.
fn width(kind: u32) -> Option<usize> {
    match kind {
        1 | 2 => Some(1),
        3 | 4 => Some(2),
        5..=7 => Some(4),
        9 | 12 | 13 => Some(8),
        _ => None,
    }
}

/// The array class under which `matfile` 0.5 reads numbers of a data type as they are. It reads fewer pairs of class
/// and type than MATLAB and others write (no int32 under its own class, no uint32 as double, ...), but each type under
/// this.
fn class_of(kind: u32) -> u32 {
    match kind {
        1..=4 => kind + 7,
        MI_UINT32 => 13,
        7 => 7,
        9 => 6,
        13 => 15,
        _ => 14,
    }
}

fn class_name(class: u32) -> String {
    let name = match class {
        MX_CELL => "a cell array",
        2 => "a struct",
        3 | MX_OPAQUE => "an object",
        MX_CHAR => "text",
        5 => "a sparse array",
        16 => "a function handle",
        class if MX_NUMBERS.contains(&class) => "a numeric array",
        class => return format!("an array of class {class}"),
    };
    name.to_owned()
}

/// The order of bytes in a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

/// An array element, taken apart as far as its name.
struct Array<'a> {
    class: u32,
    flags: u32,
    axes: Vec<usize>,
    name: &'a [u8],
    /// The elements after the name.
    content: &'a [u8],
}

impl Order {
    fn of(bytes: &[u8]) -> Result<Self, String> {
        match bytes.get(126..HEADER_BYTES) {
            Some(b"IM") => Ok(Self::Little),
            Some(b"MI") => Ok(Self::Big),
            _ => Err("is not a MATLAB v5 file".to_owned()),
        }
    }

    fn u16(self, bytes: [u8; 2]) -> u16 {
        if self == Self::Little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        if self == Self::Little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
    }

    fn word(self, bytes: &[u8], at: usize) -> Option<u32> {
        Some(self.u32(bytes.get(at..at + 4)?.try_into().ok()?))
    }

    fn words(self, bytes: &[u8]) -> impl Iterator<Item = u32> {
        bytes.chunks_exact(4).map(move |word| self.u32([word[0], word[1], word[2], word[3]]))
    }

    /// The content of the variable `name`: of the last one, if there are several. Variables that cannot be read are
    /// passed over, like all others.
    fn variable<'a>(self, bytes: &'a [u8], name: &str) -> Result<Cow<'a, [u8]>, String> {
        let mut rest = &bytes[HEADER_BYTES..];
        let (mut found, mut unreadable) = (None, None);
        while !is_padding(rest) {
            let (kind, content, end) = self.element(rest)?;
            let is_asked_for = |array: &Array<'_>| array.name == name.as_bytes();
            match kind {
                MI_COMPRESSED => found = self.inflate(content, is_asked_for)?.map(Cow::Owned).or(found),
                MI_MATRIX if content.is_empty() => {}
                MI_MATRIX => match self.array(content) {
                    Ok(array) if is_asked_for(&array) => found = Some(Cow::Borrowed(content)),
                    Ok(_) => {}
                    Err(problem) => unreadable = Some(problem),
                },
                1..=MI_UTF32 => {}
                _ => return Err(format!("has an element of type {kind}; was the file cut off or altered?")),
            }
            rest = self.after(rest, end);
        }
        found.ok_or_else(|| unreadable.unwrap_or_else(|| format!("has no variable '{name}'")))
    }

    /// The content of a compressed array, if it is the one asked for.
    fn inflate(self, content: &[u8], is_asked_for: impl Fn(&Array<'_>) -> bool) -> Result<Option<Vec<u8>>, String> {
        let cannot = |cause| format!("cannot be inflated ({cause}); was the file cut off or altered?");
        let mut decoder = ZlibDecoder::new(content);
        let mut plain = Vec::new();
        decoder.by_ref().take(HEAD_BYTES).read_to_end(&mut plain).map_err(cannot)?;
        let (Some(kind), Some(size)) = (self.word(&plain, 0), self.word(&plain, 4)) else { return Err(cut()) };
        match kind {
            MI_MATRIX => {}
            MI_COMPRESSED => return Err("has a compressed element inside a compressed one".to_owned()),
            _ => return Err(format!("has a compressed element of type {kind}; expected an array")),
        }
        // Not our variable either if its name is thousands of bytes away.
        if !self.array(&plain[8..]).is_ok_and(|array| is_asked_for(&array)) {
            return Ok(None);
        }
        let size = size as usize;
        if size > MAX_VARIABLE_BYTES {
            return Err(format!("has a variable of {size} bytes when inflated; at most {MAX_VARIABLE_BYTES} are read"));
        }
        // One byte more than declared, so that the checksum at the end of the stream is compared.
        let left = (size + 8 + 1).saturating_sub(plain.len()) as u64;
        decoder.take(left).read_to_end(&mut plain).map_err(cannot)?;
        plain.drain(..8);
        plain.truncate(size);
        if plain.len() == size { Ok(Some(plain)) } else { Err(cut()) }
    }

    /// Type and content of the element at the start of `bytes`, and where it ends, without padding.
    fn element(self, bytes: &[u8]) -> Result<(u32, &[u8], usize), String> {
        let tag = self.word(bytes, 0).ok_or_else(cut)?;
        // A small element has its size in the upper half of the tag, and its content in the second word.
        let size = (tag >> 16) as usize;
        if size != 0 {
            let content = bytes.get(4..4 + size).filter(|_| size <= 4).ok_or_else(cut)?;
            return Ok((tag & 0xFFFF, content, 8));
        }
        let size = self.word(bytes, 4).ok_or_else(cut)? as usize;
        Ok((tag, bytes.get(8..8 + size).ok_or_else(cut)?, 8 + size))
    }

    /// What follows the array or the compressed element that ends at `end`. Writers differ in whether they pad those to
    /// eight bytes, so it is padded only if no element begins without.
    fn after(self, bytes: &[u8], end: usize) -> &[u8] {
        let plain = &bytes[end..];
        let padded = padded(bytes, end);
        let begins = |at| self.word(at, 0).is_some_and(|kind| kind == MI_MATRIX || kind == MI_COMPRESSED);
        if begins(plain) || !(begins(padded) || is_padding(padded)) { plain } else { padded }
    }

    fn array(self, matrix: &[u8]) -> Result<Array<'_>, String> {
        let part = |bytes| self.element(bytes).map(|(_, part, end)| (part, padded(bytes, end)));
        let (flags, rest) = part(matrix)?;
        let flags = self.word(flags, 0).ok_or("has an array without a class")?;
        let class = flags & 0xFF;
        // Objects of newer kinds have no shape.
        let (axes, rest) = if class == MX_OPAQUE { (&[][..], rest) } else { part(rest)? };
        let (name, content) = part(rest)?;
        let axes = self.words(axes).map(|edge| edge as usize).collect();
        Ok(Array { class, flags, axes, name, content })
    }

    /// The text of a cell.
    fn text(self, cell: &[u8]) -> Result<String, String> {
        // An empty cell.
        if cell.is_empty() {
            return Ok(String::new());
        }
        let array = self.array(cell)?;
        if array.class != MX_CHAR {
            return Err(format!("is {}; expected text", class_name(array.class)));
        }
        let (kind, content, _) = self.element(array.content)?;
        match kind {
            MI_INT8 | MI_UINT8 | MI_UTF8 => Ok(String::from_utf8_lossy(content).into_owned()),
            MI_UINT16 | MI_UTF16 => {
                let units = content.chunks_exact(2).map(|pair| self.u16([pair[0], pair[1]]));
                Ok(String::from_utf16_lossy(&units.collect::<Vec<_>>()))
            }
            MI_UTF32 => Ok(self
                .words(content)
                .map(|unit| char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect()),
            other => Err(format!("has data of type {other}; expected text")),
        }
    }

    /// Numbers of one data type, read by `matfile` from a file with nothing else.
    fn numbers(self, kind: u32, data: &[u8], width: usize) -> Result<NumericData, String> {
        let count = (data.len() / width) as u32;
        let words = |words: &[u32]| -> Vec<u8> {
            words.iter().flat_map(|&word| self.u32(word.to_ne_bytes()).to_ne_bytes()).collect()
        };
        let end: &[u8; 4] = if self == Self::Little { b"\0\x01IM" } else { b"\x01\0MI" };
        let mut parts = words(&[MI_UINT32, 8, class_of(kind), 0, MI_INT32, 8, count, 1, MI_INT8, 1]);
        parts.extend(b"x\0\0\0\0\0\0\0");
        parts.extend(words(&[kind, data.len() as u32]));
        let size = (parts.len() + data.len()).next_multiple_of(8);
        let mut file = format!("{:124}", "MATLAB 5.0 MAT-file").into_bytes();
        file.extend(end);
        file.extend(words(&[MI_MATRIX, size as u32]));
        file.extend(parts);
        file.extend(data);
        file.resize(HEADER_BYTES + 8 + size, 0);
        let file = guard::no_panic(|| MatFile::parse(file.as_slice()).map_err(|cause| cause.to_string()))
            .unwrap_or_else(Err)
            .map_err(|cause| format!("has numbers that cannot be read ({cause})"))?;
        file.find_by_name("x").map(|array| array.data().clone()).ok_or_else(|| "has no numbers".to_owned())
    }
}

fn padded(bytes: &[u8], end: usize) -> &[u8] {
    bytes.get(end.next_multiple_of(8)..).unwrap_or_default()
}

/// Whether nothing but padding is left.
fn is_padding(bytes: &[u8]) -> bool {
    bytes.len() < 8 && bytes.iter().all(|&byte| byte == 0)
}

fn cut() -> String {
    "ends in the middle of an element; was the file cut off?".to_owned()
}
