//! Numbers with units, as settings and flags spell them.

use serde::{Deserialize, Serialize};

/// A number of bytes, written with or without a binary unit: `1GiB`, `512 MiB`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

// By hand: the crate `bytesize` (2.7) prints 4097 bytes as `4.0 KiB`, which reads back as 4096, accepts `1GB` and
// `1.5GiB`, and turns an overflow into 16 EiB.
const BYTE_UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("", 0)];

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fits = |&&(_, shift): &&(&str, u32)| self.0 != 0 && self.0.is_multiple_of(1 << shift);
        let (unit, shift) = BYTE_UNITS.iter().find(fits).unwrap_or(&("", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let unit = |&(unit, shift): &(&str, u32)| Some((text.strip_suffix(unit)?.trim().parse::<u64>().ok()?, shift));
        let size = BYTE_UNITS.iter().find_map(unit).and_then(|(number, shift)| number.checked_mul(1 << shift));
        size.map(Self).ok_or_else(|| {
            format!("'{text}' is not a size; write a number of bytes, or use KiB, MiB, GiB or TiB, as in 1GiB")
        })
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in [("1GiB", 1 << 30), ("1536 MiB", 1536 << 20), ("100", 100), ("0", 0), ("3KiB", 3072)] {
            let size = ByteSize::try_from(text.to_owned()).expect(text);
            assert_eq!(size, ByteSize(bytes));
            assert_eq!(ByteSize::try_from(size.to_string()), Ok(size));
        }
        for bad in ["1GB", "GiB", "-1", "1.5GiB", "99999999TiB"] {
            assert!(ByteSize::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
