//! The links of large groups of newer HDF5 files: messages in a fractal heap, listed by a B-tree of version 2.
//!
//! Source: "HDF5 File Format Specification Version 3.0", sections III.A.2 and III.G.

use super::bytes::{Bytes, UNDEFINED, number, u16_at, u32_at, u64_at};

/// Type of the records that list links by the hash of their names.
const LINKS_BY_NAME: u8 = 5;
/// Length of the hash before the heap id in such a record.
const HASH_BYTES: usize = 4;
/// Maximum number of links of a group, and of bytes of their messages.
const MAX_LINKS: usize = 1 << 20;
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Maximum depth of a B-tree.
const MAX_DEPTH: u16 = 16;

/// The link messages of the group with this heap and this index of names.
pub(super) fn messages(bytes: &Bytes, heap: u64, index: u64) -> Result<Vec<Vec<u8>>, String> {
    let heap = Heap::read(bytes, heap)?;
    let (mut messages, mut total) = (Vec::new(), 0);
    for id in ids(bytes, index)? {
        let message = heap.object(&id)?;
        total += message.len();
        if total > MAX_MESSAGE_BYTES {
            return Err("the names of a group are too long".to_owned());
        }
        messages.push(message);
    }
    Ok(messages)
}

/// The heap ids in a B-tree of version 2.
fn ids(bytes: &Bytes, index: u64) -> Result<Vec<Vec<u8>>, String> {
    let header = bytes.block(index, *b"BTHD", 38)?;
    let (node_bytes, record, depth) = (u32_at(&header, 6)?, usize::from(u16_at(&header, 10)?), u16_at(&header, 12)?);
    if header[5] != LINKS_BY_NAME || record <= HASH_BYTES || depth > MAX_DEPTH {
        return Err("the index of a group's names has an unknown form".to_owned());
    }
    let (root, used) = (u64_at(&header, 16)?, u16_at(&header, 24)?);
    // A pointer holds an address, the number of records of the node there, and above the lowest nodes of all below it:
    // each as wide as the largest number that can occur.
    let payload = u64::from(node_bytes).saturating_sub(10);
    let (mut total, mut pointers) = (payload / record as u64, vec![0]);
    let count = bytes_for(total);
    for level in 1..=usize::from(depth) {
        let pointer = 8 + count + if level > 1 { bytes_for(total) } else { 0 };
        let most = payload.saturating_sub(pointer as u64) / (record + pointer) as u64;
        total = (most + 1).saturating_mul(total).saturating_add(most);
        pointers.push(pointer);
    }
    let (mut nodes, mut ids) = (vec![(root, u64::from(used), usize::from(depth))], Vec::new());
    while let Some((address, used, level)) = nodes.pop() {
        if address == UNDEFINED || used == 0 {
            continue;
        }
        let signature = if level == 0 { *b"BTLF" } else { *b"BTIN" };
        let node = bytes.block(address, signature, u64::from(node_bytes))?;
        let end = 6 + used as usize * record;
        let records = node.get(6..end).ok_or("a node of a group's index is too small")?;
        ids.extend(records.chunks_exact(record).map(|record| record[HASH_BYTES..].to_vec()));
        if level > 0 {
            let children = node.get(end..).unwrap_or_default().chunks_exact(pointers[level]).take(used as usize + 1);
            nodes.extend(children.map(|child| (number(&child[..8]), number(&child[8..8 + count]), level - 1)));
        }
        if ids.len() > MAX_LINKS || nodes.len() > MAX_LINKS {
            return Err("the index of a group's names has too many records".to_owned());
        }
    }
    Ok(ids)
}

/// Number of bytes that hold numbers up to `largest`.
fn bytes_for(largest: u64) -> usize {
    (64 - largest.leading_zeros() as usize).div_ceil(8).max(1)
}

/// A fractal heap.
struct Heap<'a> {
    bytes: &'a Bytes,
    /// Number of bytes of an offset into the heap, and of the length of an object.
    widths: (usize, usize),
    /// Blocks in a row, size of those of the first row, largest size of one with objects.
    columns: u64,
    first_bytes: u64,
    largest_bytes: u64,
    root: u64,
    /// Rows of the root block; 0 if it holds objects itself.
    rows: u16,
}

impl<'a> Heap<'a> {
    fn read(bytes: &'a Bytes, address: u64) -> Result<Self, String> {
        let header = bytes.block(address, *b"FRHP", 144)?;
        let unknown = || Err("the heap of a group's names has an unknown form".to_owned());
        if u16_at(&header, 7)? != 0 {
            return unknown();
        }
        let largest_object = u64::from(u32_at(&header, 10)?);
        let (columns, first_bytes) = (u64::from(u16_at(&header, 110)?), u64_at(&header, 112)?);
        let (largest_bytes, heap_bits) = (u64_at(&header, 120)?, u16_at(&header, 128)?);
        let (root, rows) = (u64_at(&header, 132)?, u16_at(&header, 140)?);
        if columns == 0 || !first_bytes.is_power_of_two() || !largest_bytes.is_power_of_two() || heap_bits > 64 {
            return unknown();
        }
        let offset = usize::from(heap_bits).div_ceil(8);
        let length = (largest_bytes.ilog2() as usize).div_ceil(8).min(bytes_for(largest_object));
        Ok(Self { bytes, widths: (offset, length), columns, first_bytes, largest_bytes, root, rows })
    }

    /// The object with an id.
    fn object(&self, id: &[u8]) -> Result<Vec<u8>, String> {
        let (offset, length) = self.widths;
        // Links are small enough to lie in the heap's blocks.
        if id.first().is_none_or(|flags| flags & 0x30 != 0) || id.len() < 1 + offset + length {
            return Err("a link is stored in a form that is not read".to_owned());
        }
        let (at, length) = (number(&id[1..=offset]), number(&id[1 + offset..=offset + length]));
        self.bytes.read(self.address(at)?, length)
    }

    /// The address of an offset into the heap: each row of blocks is twice as large as the one before, from the third
    /// on.
    fn address(&self, offset: u64) -> Result<u64, String> {
        let lost = || "a link lies outside of its heap".to_owned();
        let (mut block, mut rows, mut offset) = (self.root, self.rows, offset);
        while rows > 0 {
            let (mut row, mut start, mut size) = (0, 0_u64, self.first_bytes);
            while offset - start >= size.checked_mul(self.columns).ok_or_else(lost)? {
                start += size * self.columns;
                row += 1;
                size = if row > 1 { size.checked_mul(2).ok_or_else(lost)? } else { size };
            }
            if row >= rows {
                return Err(lost());
            }
            let column = (offset - start) / size;
            let child = (u64::from(row) * self.columns + column) * 8;
            let header = 5 + 8 + self.widths.0 as u64;
            block = u64_at(&self.bytes.read(block.checked_add(header + child).ok_or_else(lost)?, 8)?, 0)?;
            offset -= start + column * size;
            // A block that is too large to hold objects has rows of its own.
            rows = if size > self.largest_bytes { rows_within(size, self.first_bytes * self.columns) } else { 0 };
        }
        block.checked_add(offset).filter(|_| block != UNDEFINED).ok_or_else(lost)
    }
}

/// Number of rows of an indirect block of `size` bytes, if its first row has `first` bytes.
fn rows_within(size: u64, first: u64) -> u16 {
    (size.checked_div(first).unwrap_or(0).max(1).ilog2() + 1) as u16
}
