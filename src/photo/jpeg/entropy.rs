//! Walks the entropy-coded data of a JPEG file without producing pixels, to tell whether any are missing or damaged.
//!
//! Every scan must contain all its blocks. Section and figure numbers in comments refer to ITU-T T.81.

use super::markers::{Markers, damaged};
use super::standard;
use crate::photo::problem::PhotoProblem;
use crate::reason;

/// Codes of up to this many bits are decoded with a single table lookup; nearly all codes are.
const LOOKUP_BITS: u32 = 9;
/// Coefficients per block.
const BLOCK: u32 = 64;

/// Checks all scans of a file whose markers and size have been checked.
pub(super) fn check(bytes: &[u8]) -> Result<(), PhotoProblem> {
    let mut markers = Markers::new(bytes);
    let mut tables = Tables::default();
    tables.define(&standard::TABLES).expect("the standard tables are valid");
    let mut frame = None;
    let mut restart_interval = 0;
    loop {
        let (marker, _) = markers.next()?;
        match marker {
            0x01 | 0xD0..=0xD8 => continue,
            0xD9 => return Ok(()),
            _ => {}
        }
        let segment = markers.segment()?;
        match marker {
            0xC0..=0xC2 => frame = Frame::parse(segment, marker == 0xC2),
            0xC4 => tables.define(segment).ok_or_else(|| damaged("a Huffman table"))?,
            0xDD => restart_interval = segment.get(..2).map_or(0, number),
            0xDA => {
                let frame = frame.as_mut().ok_or_else(|| damaged("the frame header"))?;
                check_scan(segment, markers.rest(), frame, &tables, restart_interval)?;
                markers.skip_data();
            }
            _ => {}
        }
    }
}

fn check_scan(
    header: &[u8],
    data: &[u8],
    frame: &mut Frame,
    tables: &Tables,
    restart_interval: u32,
) -> Result<(), PhotoProblem> {
    let scan = Scan::parse(header, frame).ok_or_else(|| damaged("a scan header"))?;
    let mut bits = Bits { data, at: 0, buffer: 0, held: 0, made_up: 0, ended: false };
    let (found, expected) = scan.walk(frame, tables, restart_interval, &mut bits)?;
    if found < expected {
        let detail = format!("a scan of the JPEG file ends after {found} of {expected} units");
        return Err(PhotoProblem::new(reason::TRUNCATED, detail));
    }
    Ok(())
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u32::from(byte))
}

/// A frame header (B.2.2).
struct Frame {
    progressive: bool,
    width: u32,
    height: u32,
    components: Vec<Component>,
}

/// A component of the picture and the state of its blocks.
struct Component {
    id: u8,
    /// Horizontal and vertical sampling factors.
    sampling: (u32, u32),
    /// Blocks per row of `nonzero`, rounded up to whole units of an interleaved scan.
    stride: usize,
    /// For each block, the coefficients that are nonzero so far (bit k for coefficient k), which refinement scans need.
    nonzero: Vec<u64>,
}

impl Frame {
    /// `None` if it is invalid.
    fn parse(segment: &[u8], progressive: bool) -> Option<Self> {
        let (height, width) = (number(segment.get(1..3)?), number(segment.get(3..5)?));
        let count = usize::from(*segment.get(5)?);
        let described = segment.get(6..6 + count * 3)?;
        let sampling = |of: &[u8]| (u32::from(of[1] >> 4), u32::from(of[1] & 15));
        let factors: Vec<_> = described.chunks_exact(3).map(sampling).collect();
        let valid = factors.iter().all(|&(h, v)| (1..=4).contains(&h) && (1..=4).contains(&v));
        if !valid || !(1..=4).contains(&count) {
            return None;
        }
        let mut frame = Self { progressive, width, height, components: Vec::new() };
        let largest = factors.iter().fold((1, 1), |most, of| (most.0.max(of.0), most.1.max(of.1)));
        let (columns, rows) = (width.div_ceil(8 * largest.0), height.div_ceil(8 * largest.1));
        for (of, &sampling) in described.chunks_exact(3).zip(&factors) {
            let stride = (columns * sampling.0) as usize;
            let blocks = if progressive { stride * (rows * sampling.1) as usize } else { 0 };
            frame.components.push(Component { id: of[0], sampling, stride, nonzero: vec![0; blocks] });
        }
        Some(frame)
    }

    fn largest_sampling(&self) -> (u32, u32) {
        self.components.iter().fold((1, 1), |most, of| (most.0.max(of.sampling.0), most.1.max(of.sampling.1)))
    }
}

/// A scan header (B.2.3).
struct Scan {
    /// For each component its index in the frame, and its tables for DC and AC.
    components: Vec<(usize, usize, usize)>,
    /// First and last coefficient.
    spectrum: (u32, u32),
    /// True for scans that add one more bit to known coefficients.
    refines: bool,
}

impl Scan {
    fn parse(header: &[u8], frame: &Frame) -> Option<Self> {
        let count = usize::from(*header.first()?);
        let mut components = Vec::with_capacity(count);
        for of in header.get(1..=count * 2)?.chunks_exact(2) {
            let index = frame.components.iter().position(|component| component.id == of[0])?;
            components.push((index, usize::from(of[1] >> 4 & 3), usize::from(of[1] & 3)));
        }
        let rest = header.get(1 + count * 2..4 + count * 2)?;
        let spectrum = if frame.progressive { (u32::from(rest[0]), u32::from(rest[1])) } else { (0, BLOCK - 1) };
        let valid = spectrum.0 <= spectrum.1 && spectrum.1 < BLOCK && !components.is_empty();
        valid.then_some(Self { components, spectrum, refines: frame.progressive && rest[2] >> 4 > 0 })
    }

    /// Columns and rows of units: of all components together, or of single blocks if there is only one component (A.2).
    fn units(&self, frame: &Frame) -> (u32, u32) {
        let most = frame.largest_sampling();
        if let [(index, ..)] = self.components[..] {
            let (h, v) = frame.components[index].sampling;
            return ((frame.width * h).div_ceil(8 * most.0), (frame.height * v).div_ceil(8 * most.1));
        }
        (frame.width.div_ceil(8 * most.0), frame.height.div_ceil(8 * most.1))
    }

    /// Walks the data; returns the number of units found and the number expected.
    fn walk(
        &self,
        frame: &mut Frame,
        tables: &Tables,
        restart_interval: u32,
        bits: &mut Bits,
    ) -> Result<(u32, u32), PhotoProblem> {
        let (columns, rows) = self.units(frame);
        let expected = columns * rows;
        let mut run = 0;
        for unit in 0..expected {
            if restart_interval > 0 && unit > 0 && unit % restart_interval == 0 {
                if !bits.restart() {
                    return Ok((unit, expected));
                }
                run = 0;
            }
            for &(index, dc, ac) in &self.components {
                let component = &mut frame.components[index];
                let (h, v) = if self.components.len() == 1 { (1, 1) } else { component.sampling };
                for (x, y) in (0..v).flat_map(|y| (0..h).map(move |x| (x, y))) {
                    let block =
                        (unit / columns * v + y) as usize * component.stride + (unit % columns * h + x) as usize;
                    let (dc, ac) = (tables.dc[dc].as_deref(), tables.ac[ac].as_deref());
                    let read = if frame.progressive {
                        self.progressive_block(dc, ac, bits, &mut component.nonzero[block], &mut run)
                    } else {
                        dc.zip(ac).and_then(|(dc, ac)| sequential_block(dc, ac, bits))
                    };
                    match read {
                        Some(()) => {}
                        None if bits.near_end() => return Ok((unit, expected)),
                        None => return Err(damaged("the coded picture")),
                    }
                }
            }
            if bits.overrun() {
                return Ok((unit, expected));
            }
        }
        Ok((expected, expected))
    }

    fn progressive_block(
        &self,
        dc: Option<&Huffman>,
        ac: Option<&Huffman>,
        bits: &mut Bits,
        nonzero: &mut u64,
        run: &mut u32,
    ) -> Option<()> {
        match (self.spectrum.0, self.refines) {
            (0, false) => {
                let size = u32::from(bits.symbol(dc?)?);
                bits.take(size);
            }
            (0, true) => _ = bits.take(1),
            (_, false) => self.first_ac(ac?, bits, nonzero, run)?,
            (_, true) => self.refine_ac(ac?, bits, nonzero, run)?,
        }
        Some(())
    }

    /// Reads the first bits of a band of coefficients (G.1.2.2).
    fn first_ac(&self, table: &Huffman, bits: &mut Bits, nonzero: &mut u64, run: &mut u32) -> Option<()> {
        if *run > 0 {
            *run -= 1;
            return Some(());
        }
        let mut k = self.spectrum.0;
        while k <= self.spectrum.1 {
            let symbol = u32::from(bits.symbol(table)?);
            match (symbol >> 4, symbol & 15) {
                (15, 0) => k += 16,
                (length, 0) => {
                    *run = (1 << length) - 1 + bits.take(length);
                    break;
                }
                (zeros, size) => {
                    k += zeros;
                    *nonzero |= 1_u64.checked_shl(k).unwrap_or(0);
                    bits.take(size);
                    k += 1;
                }
            }
        }
        Some(())
    }

    /// Reads one more bit of a band of coefficients (G.1.2.3): each known coefficient along the way has its own bit.
    fn refine_ac(&self, table: &Huffman, bits: &mut Bits, nonzero: &mut u64, run: &mut u32) -> Option<()> {
        let (mut k, last) = self.spectrum;
        while *run == 0 && k <= last {
            let symbol = u32::from(bits.symbol(table)?);
            let (mut zeros, size) = (symbol >> 4, symbol & 15);
            if size > 0 {
                bits.take(1);
            } else if zeros < 15 {
                *run = (1 << zeros) + bits.take(zeros);
                break;
            }
            while k <= last {
                if *nonzero >> k & 1 == 1 {
                    bits.take(1);
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                k += 1;
            }
            if size > 0 && k <= last {
                *nonzero |= 1 << k;
            }
            k += 1;
        }
        if *run > 0 {
            let known = (k..=last).filter(|k| *nonzero >> k & 1 == 1).count();
            (0..known).for_each(|_| _ = bits.take(1));
            *run -= 1;
        }
        Some(())
    }
}

/// Reads a block of a sequential scan (F.1.2).
fn sequential_block(dc: &Huffman, ac: &Huffman, bits: &mut Bits) -> Option<()> {
    let size = u32::from(bits.symbol(dc)?);
    bits.take(size);
    let mut k = 1;
    while k < BLOCK {
        let symbol = u32::from(bits.symbol(ac)?);
        match (symbol >> 4, symbol & 15) {
            (15, 0) => k += 16,
            (_, 0) => break,
            (zeros, size) => {
                bits.take(size);
                k += zeros + 1;
            }
        }
    }
    Some(())
}

/// The current Huffman tables.
#[derive(Default)]
struct Tables {
    dc: [Option<Box<Huffman>>; 4],
    ac: [Option<Box<Huffman>>; 4],
}

impl Tables {
    /// Adopts the tables of a DHT segment (B.2.4.2).
    fn define(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&which, rest)) = segment.split_first() {
            let counts = rest.get(..16)?;
            let total = counts.iter().map(|&count| usize::from(count)).sum::<usize>();
            let symbols = rest.get(16..16 + total)?;
            let table = Huffman::new(counts, symbols)?;
            let dc = which >> 4 == 0;
            // A symbol of DC is a number of bits.
            if dc && symbols.iter().any(|&bits| bits > 15) {
                return None;
            }
            let class = if dc { &mut self.dc } else { &mut self.ac };
            *class.get_mut(usize::from(which & 15))? = Some(Box::new(table));
            segment = &rest[16 + total..];
        }
        Some(())
    }
}

/// A Huffman table (annex C).
struct Huffman {
    /// Indexed by the next [`LOOKUP_BITS`] bits: length of the code and its symbol; length 0 if the code is longer.
    lookup: [(u8, u8); 1 << LOOKUP_BITS],
    /// Indexed by length: the first code past the codes of this length, shifted up to 16 bits.
    limit: [u32; 17],
    /// Indexed by length: the offset from a code to its index in `symbols`.
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    fn new(counts: &[u8], symbols: &[u8]) -> Option<Self> {
        let mut table =
            Self { lookup: [(0, 0); 1 << LOOKUP_BITS], limit: [0; 17], offset: [0; 17], symbols: symbols.to_vec() };
        let (mut code, mut place) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            let count = u32::from(counts[length as usize - 1]);
            table.offset[length as usize] = place as i32 - code as i32;
            if code + count > 1 << length {
                return None;
            }
            for symbol in &symbols[place..place + count as usize] {
                if length <= LOOKUP_BITS {
                    let first = (code << (LOOKUP_BITS - length)) as usize;
                    table.lookup[first..first + (1 << (LOOKUP_BITS - length))].fill((length as u8, *symbol));
                }
                code += 1;
            }
            place += count as usize;
            table.limit[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }
}

/// Reads entropy-coded data bit by bit; past their end it returns zeros, which it counts.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The low `held` bits are not consumed yet.
    buffer: u64,
    held: u32,
    /// Number of held bits, at the low end, that are padding and not from the file.
    made_up: u32,
    /// Whether a marker or the end of the file was reached at `at`.
    ended: bool,
}

impl Bits<'_> {
    fn fill(&mut self) {
        while self.held <= 48 {
            let byte = match (self.ended, self.data.get(self.at), self.data.get(self.at + 1)) {
                (false, Some(0xFF), Some(0)) => {
                    self.at += 2;
                    0xFF
                }
                (false, Some(&byte), _) if byte != 0xFF => {
                    self.at += 1;
                    byte
                }
                _ => {
                    self.ended = true;
                    self.made_up += 8;
                    0
                }
            };
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.held += 8;
        }
    }

    /// The next `count` bits, at most 16.
    fn take(&mut self, count: u32) -> u32 {
        if self.held < 32 {
            self.fill();
        }
        self.held -= count;
        (self.buffer >> self.held) as u32 & ((1 << count) - 1)
    }

    /// The next symbol; `None` if no code of the table matches.
    fn symbol(&mut self, table: &Huffman) -> Option<u8> {
        if self.held < 32 {
            self.fill();
        }
        let next = (self.buffer >> (self.held - 16)) as u32 & 0xFFFF;
        let (length, symbol) = table.lookup[(next >> (16 - LOOKUP_BITS)) as usize];
        if length > 0 {
            self.held -= u32::from(length);
            return Some(symbol);
        }
        let length = (LOOKUP_BITS as usize + 1..=16).find(|&length| next < table.limit[length])?;
        self.held -= length as u32;
        let place = (next >> (16 - length)) as i32 + table.offset[length];
        table.symbols.get(place as usize).copied()
    }

    /// Whether more bits were consumed than the file has.
    fn overrun(&self) -> bool {
        self.made_up > self.held
    }

    /// Whether the end is closer than the longest code.
    fn near_end(&self) -> bool {
        self.ended && self.held < self.made_up + 16
    }

    /// Advances past the restart marker that must come next; false if something else does.
    fn restart(&mut self) -> bool {
        (self.buffer, self.held, self.made_up, self.ended) = (0, 0, 0, false);
        let rest = self.data.get(self.at..).unwrap_or_default();
        let Some(marker) = rest.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF)) else {
            return false;
        };
        self.at += marker + 2;
        matches!(rest[marker + 1], 0xD0..=0xD7)
    }
}
