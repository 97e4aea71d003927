//! The run lengths of Label Studio's brush: the bytes of an RGBA picture, of which the fourth of each pixel says whether
//! it is in the mask, packed by `@thi.ng/rle-pack`. A stream of bits, the highest of each byte first: the number of
//! values (32), the bits of a value less 1 (5), four lengths in bits less 1 (4 each); then runs: 1 for one value that is
//! repeated or 0 for a list of values, which of the four lengths (2), the number of values less 1, the value or values.

use super::LabelMap;

/// Values per pixel.
const CHANNELS: u64 = 4;
/// Bits of a value, and the four lengths in bits, as Label Studio's own programs write them.
const VALUE_BITS: u32 = 8;
const LENGTH_BITS: [u32; 4] = [3, 4, 8, 16];

/// Paints the mask in these bytes.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn paint(map: &mut LabelMap, bytes: &[u8], category: u8) -> Result<(), String> {
    let mut bits = Bits { bytes, at: 0 };
    let (values, wanted) = (bits.read(32)?, map.categories.len() as u64 * CHANNELS);
    if values != wanted {
        let (width, height) = (map.width_px, map.height_px);
        return Err(format!("its run lengths cover {values} values, but {width} x {height} pixels have {wanted}"));
    }
    let value_bits = bits.read(5)? as u32 + 1;
    let mut lengths = [0; 4];
    for length in &mut lengths {
        *length = bits.read(4)? as u32 + 1;
    }
    let mut place = 0;
    while place < values {
        let is_repeated = bits.read(1)? == 1;
        let length = lengths[bits.read(2)? as usize];
        let end = place + bits.read(length)? + 1;
        if end > values {
            return Err("its run lengths are longer than the picture".to_owned());
        }
        if is_repeated {
            if bits.read(value_bits)? != 0 {
                // The pixels whose fourth value is among these.
                map.categories[(place / CHANNELS) as usize..(end / CHANNELS) as usize].fill(category);
            }
        } else {
            for value in place..end {
                if bits.read(value_bits)? != 0 && value % CHANNELS == CHANNELS - 1 {
                    map.categories[(value / CHANNELS) as usize] = category;
                }
            }
        }
        place = end;
    }
    Ok(())
}

/// The bytes of the mask of a category in a label map; `None` if it has no pixels.
pub(crate) fn encode(label_map: &[u8], category: u8) -> Option<Vec<u8>> {
    if !label_map.contains(&category) {
        return None;
    }
    let mut bits = BitWriter::default();
    bits.write(label_map.len() as u64 * CHANNELS, 32);
    bits.write(u64::from(VALUE_BITS) - 1, 5);
    for length in LENGTH_BITS {
        bits.write(u64::from(length) - 1, 4);
    }
    for run in label_map.chunk_by(|a, b| (*a == category) == (*b == category)) {
        let value = if run[0] == category { u64::from(u8::MAX) } else { 0 };
        let mut left = run.len() as u64 * CHANNELS;
        while left > 0 {
            let fits = LENGTH_BITS.iter().position(|&length| left <= 1 << length).unwrap_or(LENGTH_BITS.len() - 1);
            let count = left.min(1 << LENGTH_BITS[fits]);
            bits.write(1, 1);
            bits.write(fits as u64, 2);
            bits.write(count - 1, LENGTH_BITS[fits]);
            bits.write(value, VALUE_BITS);
            left -= count;
        }
    }
    Some(bits.bytes)
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn read(&mut self, count: u32) -> Result<u64, String> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8).ok_or("its run lengths are cut off")?;
            value = value << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(value)
    }
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Number of bits in use.
    at: usize,
}

impl BitWriter {
    fn write(&mut self, value: u64, count: u32) {
        for bit in (0..count).rev() {
            if self.at.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let byte = self.bytes.last_mut().expect("one was added");
            *byte |= ((value >> bit & 1) as u8) << (7 - self.at % 8);
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_of_any_shape_comes_back() -> Result<(), String> {
        for (width, height) in [(1, 1), (1, 9), (13, 7), (300, 300)] {
            for run in [1, 3, 40_000] {
                let label_map = super::super::any_label_map(width, height, run);
                let mut map = LabelMap::new(width as u32, height as u32);
                for category in 1..4 {
                    if let Some(bytes) = encode(&label_map, category) {
                        paint(&mut map, &bytes, category)?;
                    }
                }
                assert_eq!(map.categories, label_map);
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_no_mask_is_named() {
        let bytes = encode(&[0, 0, 1, 1, 0, 1], 1).expect("three pixels");
        let mut map = LabelMap::new(2, 3);
        for length in 0..bytes.len() - 1 {
            let problem = paint(&mut map, &bytes[..length], 1).expect_err("cut off");
            assert!(problem.contains("cut off"), "{length}: {problem}");
        }
        let problem = paint(&mut LabelMap::new(3, 3), &bytes, 1).expect_err("another size");
        assert!(problem.contains("24 values, but 3 x 3 pixels have 36"), "{problem}");
        let longer = encode(&[1; 40], 1).map(|it| [&24_u32.to_be_bytes(), &it[4..]].concat()).expect("40 pixels");
        assert!(paint(&mut map, &longer, 1).expect_err("too long").contains("longer"));
    }
}
