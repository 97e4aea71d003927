//! The values of one data set of an HDF5 file: numbers, text, or references, as MATLAB and other writers store them.
//!
//! What a data set declares is checked against the file before memory is asked for.

use hdf5_pure::{AttrValue, DType, Dataset, Layout};

use super::bytes::number;
use super::objects::explain;

/// Maximum number of references in a list, which is of photos in a data set.
const MAX_REFERENCES: u64 = 1 << 22;
/// The most that compression can shrink data by (deflate, 1:1032), roughly.
const MAX_INFLATION: u64 = 1100;
/// What a file of any size may declare.
const SMALL_BYTES: u64 = 1 << 20;
/// Bytes of a text in a type of texts of the file: four for each character, and an end.
const MAX_TEXT_BYTES: u64 = 4 * 256;

/// A data set whose declared size the file can hold.
pub(super) struct Field {
    set: Dataset,
    /// The axes in the file's order: reversed from MATLAB's.
    pub(super) shape: Vec<u64>,
    /// Number of elements.
    pub(super) count: u64,
    kind: DType,
    file_bytes: u64,
}

impl Field {
    /// Checks what the data set declares.
    pub(super) fn new(set: Dataset, file_bytes: u64) -> Result<Self, String> {
        let explained = |cause| explain(&cause);
        let kind = set.dtype().map_err(explained)?;
        let mut shape = set.shape().map_err(explained)?;
        // MATLAB stores an empty array as its shape, in whole numbers.
        if kind == DType::U64 && shape.len() == 1 && shape[0] <= 32 && is_marked_empty(&set) {
            shape = vec![0];
        }
        let count = shape.iter().try_fold(1_u64, |count, &edge| count.checked_mul(edge));
        let count =
            count.or_else(|| shape.contains(&0).then_some(0)).ok_or_else(|| format!("has the shape {shape:?}"))?;
        Ok(Self { set, shape, count, kind, file_bytes })
    }

    /// Whether the values are references to objects.
    pub(super) fn has_references(&self) -> bool {
        self.kind == DType::ObjectReference
    }

    /// Whether the values are numbers.
    pub(super) fn has_numbers(&self) -> bool {
        use DType::{F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        [F32, F64, I8, I16, I32, I64, U8, U16, U32, U64].contains(&self.kind)
    }

    /// The numbers.
    pub(super) fn numbers(&self) -> Result<Vec<f64>, String> {
        self.check_size()?;
        self.set.read_f64().map_err(|cause| explain(&cause))
    }

    /// The numbers as f32, in which integers up to 2^24 are exact.
    pub(super) fn numbers_f32(&self) -> Result<Vec<f32>, String> {
        if self.kind == DType::F32 {
            self.check_size()?;
            return self.set.read_f32().map_err(|cause| explain(&cause));
        }
        Ok(self.numbers()?.into_iter().map(|value| value as f32).collect())
    }

    /// The text, of at most `most` characters: MATLAB stores UTF-16, others bytes, UTF-32, or text of HDF5.
    pub(super) fn text(&self, most: u64) -> Result<String, String> {
        let explained = |cause| explain(&cause);
        if self.count > most {
            return Err(format!("has {} characters; at most {most} are allowed", self.count));
        }
        if self.count == 0 {
            return Err("is empty".to_owned());
        }
        self.check_size()?;
        let unreadable = || "is not UTF-16 text".to_owned();
        match self.kind {
            DType::U16 => String::from_utf16(&self.set.read_u16().map_err(explained)?).map_err(|_| unreadable()),
            DType::U8 => String::from_utf8(self.set.read_u8().map_err(explained)?).map_err(|_| unreadable()),
            DType::U32 => {
                let units = self.set.read_u32().map_err(explained)?;
                units.into_iter().map(char::from_u32).collect::<Option<_>>().ok_or_else(unreadable)
            }
            DType::String | DType::VariableLengthString if self.count == 1 => self.hdf5_text(),
            _ => Err("is not text".to_owned()),
        }
    }

    fn hdf5_text(&self) -> Result<String, String> {
        let explained = |cause| explain(&cause);
        let bytes = match self.kind {
            DType::String => self.set.element_size(),
            _ => self.set.vlen_string_payload_size(),
        };
        let bytes = bytes.map_err(explained)?;
        if bytes > MAX_TEXT_BYTES {
            return Err(format!("has {bytes} bytes; at most {MAX_TEXT_BYTES} are allowed"));
        }
        Ok(self.set.read_string().map_err(explained)?.concat())
    }

    /// The addresses that the references hold; 0 is null.
    pub(super) fn references(&self) -> Result<Vec<u64>, String> {
        if self.count == 0 {
            return Ok(Vec::new());
        }
        if !self.has_references() {
            return Err(match self.kind {
                DType::Other(_) => "holds values other than references to objects; expected a cell array".to_owned(),
                _ => "is not a cell array".to_owned(),
            });
        }
        self.check_size()?;
        if self.count > MAX_REFERENCES {
            return Err(format!("declares {} references; at most {MAX_REFERENCES} are read", self.count));
        }
        let width = self.set.element_size().map_err(|cause| explain(&cause))? as usize;
        let bytes = self.set.read_raw().map_err(|cause| explain(&cause))?;
        if width < 8 {
            return Err(format!("has references of {width} bytes; expected 8"));
        }
        Ok(bytes.chunks_exact(width).map(|reference| number(&reference[..8])).collect())
    }

    /// Compares the declared sizes with the file. Otherwise the reader would reserve memory for whatever is declared.
    fn check_size(&self) -> Result<(), String> {
        let explained = |cause| explain(&cause);
        let width = self.set.element_size().map_err(explained)?;
        let most = self.file_bytes.saturating_mul(MAX_INFLATION).max(SMALL_BYTES);
        let check = |what: &str, count: u64, most: u64| {
            let bytes = count.checked_mul(width).filter(|&bytes| bytes <= most);
            let problem = || {
                format!("{what} {count} values of {width} bytes, which a file of {} bytes cannot hold", self.file_bytes)
            };
            bytes.map(drop).ok_or_else(problem)
        };
        match self.set.layout().map_err(explained)? {
            Layout::Contiguous { address: Some(_), .. } | Layout::Compact { .. } => {
                check("declares", self.count, self.file_bytes)
            }

            Layout::Chunked { chunk_shape, .. } => {
                check("declares", self.count, most)?;
                let elements = chunk_shape.iter().try_fold(1_u64, |product, &edge| product.checked_mul(edge));
                check("has chunks of", elements.filter(|&it| it > 0).unwrap_or(u64::MAX), most)?;
                self.check_chunks()
            }
            _ => check("declares", self.count, most),
        }
    }

    fn check_chunks(&self) -> Result<(), String> {
        let chunks = self.set.chunks().map_err(|cause| explain(&cause))?;
        // The view of the file has a block more in front.
        let end = self.file_bytes + 512;
        match chunks.iter().find(|chunk| chunk.address.checked_add(chunk.storage_size).is_none_or(|it| it > end)) {
            None => Ok(()),
            Some(chunk) => Err(format!("has a chunk of {} bytes beyond the end of the file", chunk.storage_size)),
        }
    }
}

fn is_marked_empty(set: &Dataset) -> bool {
    use AttrValue::{I32, I64, U8, U32, U64};
    let mark = set.attrs().ok().and_then(|mut attributes| attributes.remove("MATLAB_empty"));
    !matches!(mark, None | Some(U8(0) | U32(0) | U64(0) | I32(0) | I64(0)))
}
