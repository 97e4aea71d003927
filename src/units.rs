//! Numbers with units: sizes and durations as settings and flags spell them, and durations for display.
//!
//! By hand: `bytesize` (2.7) prints 4097 bytes as `4.0 KiB`, which reads back as 4096, and turns an overflow into 16
//! EiB; `humantime` (2.4) reads `10M` as ten months, and shows 59.94 seconds as `59s 940ms`.

use serde::{Deserialize, Serialize};

/// A number of bytes, written with or without a binary unit: `1GiB`, `512 MiB`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

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

/// Reads a duration with its unit, `90s`, `10m` or `2h`, as seconds.
///
/// # Errors
/// A message that says what to write.
pub fn seconds(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let parsed = units.iter().find_map(|(unit, secs)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*secs));
    parsed.ok_or_else(|| format!("'{text}' is not a duration; write e.g. 90s, 10m or 2h"))
}

/// A duration for display: in seconds below two minutes, in minutes below two hours, then in hours.
#[must_use]
pub fn duration(secs: f64) -> String {
    match secs {
        secs if secs < 120.0 => format!("{secs:.1} s"),
        secs if secs < 7200.0 => format!("{:.1} min", secs / 60.0),
        secs => format!("{:.1} h", secs / 3600.0),
    }
}

/// A count with the name of what is counted, such as `2 photos`; given the plural, without its `s` for 1.
#[must_use]
pub fn counted(count: u64, plural: &str) -> String {
    let name = if count == 1 { plural.strip_suffix('s').unwrap_or(plural) } else { plural };
    format!("{count} {name}")
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

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|it| counted(it, "photos")), ["0 photos", "1 photo", "2 photos"]);
        assert_eq!(counted(1, "segmented"), "1 segmented");
    }

    #[test]
    fn durations_are_read_and_shown() {
        assert_eq!(["0s", "90s", "10m", "2h"].map(seconds), [Ok(0), Ok(90), Ok(600), Ok(7200)]);
        for bad in ["10", "10M", "500ms", "-1s", "1.5h", "h", "", "99999999999999999999s", "9999999999999999h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        let shown = [0.34, 59.94, 119.9, 150.0, 7200.0, 90_000.0].map(duration);
        assert_eq!(shown, ["0.3 s", "59.9 s", "119.9 s", "2.5 min", "2.0 h", "25.0 h"]);
    }
}
