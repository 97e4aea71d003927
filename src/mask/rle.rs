//! COCO's run lengths: pixels counted column by column, in turn outside and inside of the mask, beginning outside. As
//! text, each number (from the fourth on its difference to the last but one) is written in groups of 5 bits, the lowest
//! first, as the characters from '0' on, with a sixth bit for all but the last (`cocoapi`, `maskApi.h`).

use super::LabelMap;

/// Bits of a number in one character.
const BITS: u32 = 5;
/// The bit that says that another character follows.
const MORE: u8 = 1 << BITS;
/// The bit of the last character that says that the number is negative.
const SIGN: u8 = 1 << (BITS - 1);
/// The character of 0.
const ZERO: u8 = b'0';

/// Paints the mask with these run lengths.
///
/// # Errors
/// What is wrong with them, if they do not add up to the map's pixels.
pub(crate) fn paint(map: &mut LabelMap, counts: &[u32], category: u8) -> Result<(), String> {
    let (sum, pixels) = (counts.iter().map(|&it| u64::from(it)).sum::<u64>(), map.categories.len() as u64);
    if sum != pixels {
        let (width, height) = (map.width_px, map.height_px);
        return Err(format!("its run lengths cover {sum} pixels, but {width} x {height} are {pixels}"));
    }
    let mut place = 0;
    for (turn, &count) in counts.iter().enumerate() {
        let end = place + count as usize;
        if turn % 2 == 1 {
            map.paint_down(place..end, category);
        }
        place = end;
    }
    Ok(())
}

/// The run lengths in a text.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn parse(text: &str) -> Result<Vec<u32>, String> {
    let mut counts: Vec<u32> = Vec::new();
    let mut letters = text.bytes().enumerate();
    while let Some((start, mut letter)) = letters.next() {
        let (mut number, mut shift) = (0_i64, 0);
        loop {
            let bits = letter.wrapping_sub(ZERO);
            if bits >= MORE << 1 || shift > 30 {
                return Err(format!("its run lengths are invalid at character {}", start + 1));
            }
            number |= i64::from(bits & (MORE - 1)) << shift;
            shift += BITS;
            if bits & MORE == 0 {
                if bits & SIGN != 0 {
                    number |= -1 << shift;
                }
                break;
            }
            letter = letters.next().ok_or("its run lengths are cut off")?.1;
        }
        if counts.len() > 2 {
            number += i64::from(counts[counts.len() - 2]);
        }
        let count = u32::try_from(number).map_err(|_| format!("has a run length of {number}"))?;
        counts.push(count);
    }
    Ok(counts)
}

/// The run lengths, as text, of the pixels of a category in a label map `[height, width]`; `None` if it has none.
pub(crate) fn encode(label_map: &[u8], width_px: usize, category: u8) -> Option<String> {
    let mut counts = vec![0_u32];
    let mut is_inside = false;
    for column in 0..width_px {
        for &label in label_map[column..].iter().step_by(width_px) {
            if (label == category) != is_inside {
                is_inside = !is_inside;
                counts.push(0);
            }
            *counts.last_mut().expect("it begins with one") += 1;
        }
    }
    (counts.len() > 1).then(|| write(&counts))
}

fn write(counts: &[u32]) -> String {
    let mut text = String::new();
    for (turn, &count) in counts.iter().enumerate() {
        let mut number = i64::from(count);
        if turn > 2 {
            number -= i64::from(counts[turn - 2]);
        }
        loop {
            let bits = (number & i64::from(MORE - 1)) as u8;
            number >>= BITS;
            let is_last = number == if bits & SIGN == 0 { 0 } else { -1 };
            text.push(char::from(ZERO + if is_last { bits } else { bits | MORE }));
            if is_last {
                break;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_of_any_shape_comes_back() -> Result<(), String> {
        for (width, height) in [(1, 1), (1, 9), (9, 1), (13, 7), (100, 150)] {
            for run in [1, 3, 50] {
                let label_map = super::super::any_label_map(width, height, run);
                let mut map = LabelMap::new(width as u32, height as u32);
                for category in 1..4 {
                    if let Some(text) = encode(&label_map, width, category) {
                        paint(&mut map, &parse(&text)?, category)?;
                    }
                }
                assert_eq!(map.categories, label_map);
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_no_mask_is_named() {
        for (text, problem) in [("a", "cut off"), ("0 0", "character 2"), ("é", "character 1"), ("O", "-1")] {
            let found = parse(text).expect_err(problem);
            assert!(found.contains(problem), "{text}: {found}");
        }
        assert!(parse(&"o".repeat(40)).is_err(), "no number has so many digits");
        let mut map = LabelMap::new(2, 3);
        for counts in [&[5][..], &[7], &[u32::MAX, u32::MAX, 8], &[]] {
            assert!(paint(&mut map, counts, 1).is_err(), "{counts:?}");
        }
    }
}
