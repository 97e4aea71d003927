//! Just enough of HDF5's oldest file format to write what MATLAB v7.3 writes: superblock 0, symbol-table groups,
//! version 1 object headers and chunk trees. (`hdf5-pure` reads this format, but writes only newer ones.)
//!
//! Source: "HDF5 File Format Specification Version 1.1" and 3.0, The HDF Group. Numbers are little-endian; addresses
//! are relative to the end of the user block.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

/// Length of MATLAB's header, the user block of the file.
const USER_BLOCK_BYTES: u64 = 512;
const SUPERBLOCK_BYTES: usize = 96;
const UNDEFINED: u64 = u64::MAX;
/// Half the entries of a symbol-table leaf: HDF5's default.
const LEAF_K: usize = 4;
/// Half the children of a group's tree node: HDF5's default.
const GROUP_K: usize = 16;
/// Half the children of a chunk tree node; fixed by this version of the format.
const CHUNK_K: usize = 32;
/// Chunks along each axis of a matrix: all of them in one tree node.
const CHUNKS_PER_AXIS: usize = 8;

/// The type of a dataset's or an attribute's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    U16,
    I32,
    F32,
    F64,
    /// The address of another object.
    Reference,
    /// Text of the given length in bytes.
    Text(u32),
}

impl Type {
    fn message(self) -> Vec<u8> {
        let fixed = |size: u32, signed: u8| {
            let mut message = vec![0x10, signed, 0, 0];
            message.extend(size.to_le_bytes());
            message.extend([0, 0, (size * 8) as u8, 0]);
            message
        };
        let float = |size: u32, exponent: [u8; 2], bias: u32| {
            // The sign in the top bit, then the exponent, then a mantissa whose leading bit is implied.
            let mut message = vec![0x11, 0x20, (size * 8 - 1) as u8, 0];
            message.extend(size.to_le_bytes());
            message.extend([0, 0, (size * 8) as u8, 0, exponent[0], exponent[1], 0, exponent[0]]);
            message.extend(bias.to_le_bytes());
            message
        };
        match self {
            Self::U16 => fixed(2, 0),
            Self::I32 => fixed(4, 8),
            Self::F32 => float(4, [23, 8], 127),
            Self::F64 => float(8, [52, 11], 1023),
            Self::Reference => vec![0x17, 0, 0, 0, 8, 0, 0, 0],
            Self::Text(bytes) => [[0x13, 1, 0, 0], bytes.to_le_bytes()].concat(),
        }
    }
}

/// A scalar attribute.
#[derive(Debug, Clone)]
pub(super) struct Attribute {
    name: &'static str,
    kind: Type,
    value: Vec<u8>,
}

impl Attribute {
    /// The MATLAB class of an object.
    pub(super) fn class(class: &str) -> Self {
        Self { name: "MATLAB_class", kind: Type::Text(class.len() as u32), value: class.as_bytes().to_vec() }
    }

    /// A numeric attribute.
    pub(super) fn number(name: &'static str, value: i32) -> Self {
        Self { name, kind: Type::I32, value: value.to_le_bytes().to_vec() }
    }

    fn message(&self) -> Message {
        let name = [self.name.as_bytes(), &[0]].concat();
        let (kind, space) = (self.kind.message(), dataspace(&[]));
        let mut data = vec![1, 0];
        for part in [&name, &kind, &space] {
            data.extend((part.len() as u16).to_le_bytes());
        }
        for part in [name, kind, space] {
            data.extend(padded(part));
        }
        data.extend(&self.value);
        Message { kind: 0x0C, data }
    }
}

struct Message {
    kind: u16,
    data: Vec<u8>,
}

/// A chunked, deflated matrix of f32; it can be built on any thread before it is placed in the file.
#[derive(Debug)]
pub(super) struct Chunks {
    shape: [usize; 2],
    chunk: [usize; 2],
    deflated: Vec<Vec<u8>>,
}

impl Chunks {
    /// Splits a matrix into chunks and deflates them; row-major from HDF5's point of view.
    pub(super) fn deflate(shape: [usize; 2], level: u32, value: impl Fn(usize, usize) -> f32) -> std::io::Result<Self> {
        let chunk = shape.map(|edge| edge.div_ceil(CHUNKS_PER_AXIS).max(1));
        let mut deflated = Vec::new();
        for top in (0..shape[0]).step_by(chunk[0]) {
            for left in (0..shape[1]).step_by(chunk[1]) {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
                let mut bytes = Vec::with_capacity(chunk[0] * chunk[1] * 4);
                for row in top..top + chunk[0] {
                    for column in left..left + chunk[1] {
                        // A chunk that extends beyond the edge is padded.
                        let inside = row < shape[0] && column < shape[1];
                        bytes.extend(if inside { value(row, column) } else { 0.0 }.to_le_bytes());
                    }
                }
                encoder.write_all(&bytes)?;
                deflated.push(encoder.finish()?);
            }
        }
        Ok(Self { shape, chunk, deflated })
    }
}

/// A file under construction.
pub(super) struct OldFile {
    /// The bytes from the superblock on.
    bytes: Vec<u8>,
}

impl OldFile {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; SUPERBLOCK_BYTES] }
    }

    /// Adds a contiguous dataset and returns its address.
    pub(super) fn dataset(&mut self, shape: &[u64], kind: Type, values: &[u8], attributes: &[Attribute]) -> u64 {
        let address = self.place(values);
        let mut layout = vec![3, 1];
        layout.extend(address.to_le_bytes());
        layout.extend((values.len() as u64).to_le_bytes());
        self.dataset_header(shape, kind, 2, vec![Message { kind: 0x08, data: layout }], attributes)
    }

    /// Adds a chunked dataset and returns its address.
    pub(super) fn chunked(&mut self, chunks: &Chunks, level: u32, attributes: &[Attribute]) -> u64 {
        let tree = self.chunk_tree(chunks);
        let mut layout = vec![3, 2, 3];
        layout.extend(tree.to_le_bytes());
        for edge in chunks.chunk {
            layout.extend((edge as u32).to_le_bytes());
        }
        layout.extend(4_u32.to_le_bytes());
        // One filter: number 1, its name, optional, with one parameter: the level.
        let mut filter = vec![1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 1, 0, 1, 0];
        filter.extend(b"deflate\0");
        filter.extend(level.to_le_bytes());
        filter.extend([0; 4]);
        let messages = vec![Message { kind: 0x0B, data: filter }, Message { kind: 0x08, data: layout }];
        let shape = chunks.shape.map(|edge| edge as u64);
        self.dataset_header(&shape, Type::F32, 3, messages, attributes)
    }

    /// Adds a group with members by name and address, and returns its address.
    pub(super) fn group(&mut self, members: Vec<(String, u64)>, attributes: &[Attribute]) -> u64 {
        let (tree, heap) = self.symbol_table(members);
        self.group_header(tree, heap, attributes)
    }

    /// Finishes the file: `header`, padded to the user block's length, then everything that was added, with these root
    /// members.
    pub(super) fn finish(mut self, header: &[u8], members: Vec<(String, u64)>) -> Vec<u8> {
        let (tree, heap) = self.symbol_table(members);
        let root = self.group_header(tree, heap, &[]);
        let end = USER_BLOCK_BYTES + self.bytes.len() as u64;
        let mut block = b"\x89HDF\r\n\x1a\n".to_vec();
        block.extend([0, 0, 0, 0, 0, 8, 8, 0]);
        block.extend([LEAF_K as u8, 0, GROUP_K as u8, 0, 0, 0, 0, 0]);
        for address in [USER_BLOCK_BYTES, UNDEFINED, end, UNDEFINED] {
            block.extend(address.to_le_bytes());
        }
        // The root's symbol-table entry: no name, its object header, and (cache type 1) its tree and heap.
        for word in [0, root, 1, tree, heap] {
            block.extend(word.to_le_bytes());
        }
        self.bytes[..SUPERBLOCK_BYTES].copy_from_slice(&block);
        let mut file = header.to_vec();
        file.resize(USER_BLOCK_BYTES as usize, 0);
        file.extend(self.bytes);
        file
    }

    /// Appends bytes at the next multiple of eight and returns their address.
    fn place(&mut self, bytes: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let address = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        address
    }

    fn dataset_header(
        &mut self,
        shape: &[u64],
        kind: Type,
        allocation: u8,
        storage: Vec<Message>,
        attributes: &[Attribute],
    ) -> u64 {
        let mut messages = vec![
            Message { kind: 0x01, data: dataspace(shape) },
            Message { kind: 0x03, data: kind.message() },
            // Fill value: version 2, allocation time, written if set, the default.
            Message { kind: 0x05, data: vec![2, allocation, 2, 1, 0, 0, 0, 0] },
        ];
        messages.extend(storage);
        self.header(messages, attributes)
    }

    fn group_header(&mut self, tree: u64, heap: u64, attributes: &[Attribute]) -> u64 {
        let data = [tree.to_le_bytes(), heap.to_le_bytes()].concat();
        self.header(vec![Message { kind: 0x11, data }], attributes)
    }

    fn header(&mut self, mut messages: Vec<Message>, attributes: &[Attribute]) -> u64 {
        messages.extend(attributes.iter().map(Attribute::message));
        let mut body = Vec::new();
        for message in &messages {
            let data = padded(message.data.clone());
            body.extend(message.kind.to_le_bytes());
            body.extend((data.len() as u16).to_le_bytes());
            body.extend([0; 4]);
            body.extend(data);
        }
        let mut header = vec![1, 0];
        header.extend((messages.len() as u16).to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        header.extend((body.len() as u32).to_le_bytes());
        header.extend([0; 4]);
        header.extend(body);
        self.place(&header)
    }

    /// Writes the tree and the name heap of a group.
    fn symbol_table(&mut self, mut members: Vec<(String, u64)>) -> (u64, u64) {
        members.sort();
        // The heap starts with the empty name.
        let mut names = vec![0; 8];
        let mut children = Vec::new();
        for leaf in members.chunks(2 * LEAF_K) {
            let mut node = b"SNOD\x01\0".to_vec();
            node.extend((leaf.len() as u16).to_le_bytes());
            let mut last = 0;
            for (name, address) in leaf {
                last = names.len() as u64;
                names.extend(padded([name.as_bytes(), &[0]].concat()));
                for word in [last, *address, 0, 0, 0] {
                    node.extend(word.to_le_bytes());
                }
            }
            node.resize(8 + 2 * LEAF_K * 40, 0);
            children.push((last, self.place(&node)));
        }
        let tree = self.group_tree(children);
        let data = self.place(&names);
        let mut heap = b"HEAP\0\0\0\0".to_vec();
        // Its length, no free space (1), and its address.
        for word in [names.len() as u64, 1, data] {
            heap.extend(word.to_le_bytes());
        }
        (tree, self.place(&heap))
    }

    /// Builds the tree over leaves `(last name, address)`: nodes of at most 2 x [`GROUP_K`] children, level by level up
    /// to a single root.
    fn group_tree(&mut self, mut children: Vec<(u64, u64)>) -> u64 {
        let mut level = 0;
        loop {
            let size = 24 + (2 * GROUP_K + 1) * 8 + 2 * GROUP_K * 8;
            let count = children.len().div_ceil(2 * GROUP_K).max(1);
            self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
            // Neighbouring nodes refer to each other, so their addresses must be known in advance.
            let address = |node: usize| self.bytes.len() as u64 + (node * size) as u64;
            let beside = |node: Option<usize>| node.filter(|&node| node < count).map_or(UNDEFINED, address);
            let (mut nodes, mut parents, mut before) = (Vec::new(), Vec::new(), 0);
            for node in 0..count {
                let own = children.chunks(2 * GROUP_K).nth(node).unwrap_or_default();
                let mut bytes = node_head(0, level, own.len());
                bytes.extend(beside(node.checked_sub(1)).to_le_bytes());
                bytes.extend(beside(Some(node + 1)).to_le_bytes());
                bytes.extend(u64::to_le_bytes(before));
                for (last, child) in own {
                    bytes.extend(child.to_le_bytes());
                    bytes.extend(last.to_le_bytes());
                    before = *last;
                }
                bytes.resize(size, 0);
                parents.push((before, address(node)));
                nodes.extend(bytes);
            }
            self.bytes.extend(nodes);
            if let [(_, root)] = parents[..] {
                return root;
            }
            children = parents;
            level += 1;
        }
    }

    fn chunk_tree(&mut self, chunks: &Chunks) -> u64 {
        let addresses: Vec<u64> = chunks.deflated.iter().map(|bytes| self.place(bytes)).collect();
        let mut node = node_head(1, 0, addresses.len());
        node.extend([UNDEFINED.to_le_bytes(), UNDEFINED.to_le_bytes()].concat());
        let columns = chunks.shape[1].div_ceil(chunks.chunk[1]);
        let key = |node: &mut Vec<u8>, bytes: usize, row: usize, column: usize| {
            node.extend((bytes as u32).to_le_bytes());
            node.extend(0_u32.to_le_bytes());
            for offset in [row * chunks.chunk[0], column * chunks.chunk[1], 0] {
                node.extend((offset as u64).to_le_bytes());
            }
        };
        for (index, (bytes, address)) in chunks.deflated.iter().zip(&addresses).enumerate() {
            key(&mut node, bytes.len(), index / columns, index % columns);
            node.extend(address.to_le_bytes());
        }
        key(&mut node, 0, addresses.len().div_ceil(columns), 0);
        node.resize(24 + (2 * CHUNK_K + 1) * 32 + 2 * CHUNK_K * 8, 0);
        self.place(&node)
    }
}

fn node_head(kind: u8, level: u8, entries: usize) -> Vec<u8> {
    let mut head = b"TREE".to_vec();
    head.extend([kind, level]);
    head.extend((entries as u16).to_le_bytes());
    head
}

fn dataspace(shape: &[u64]) -> Vec<u8> {
    let mut message = vec![1, shape.len() as u8, 0, 0, 0, 0, 0, 0];
    message.extend(shape.iter().flat_map(|edge| edge.to_le_bytes()));
    message
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leaf holds 8 members, a node of the tree 32 leaves, a node above it 32 nodes: tests each exactly full, and
    /// with one more.
    #[test]
    fn a_group_of_many_members_is_found_whole_by_another_reader() {
        for count in [0, 1, 8, 9, 256, 257, 8192, 8193] {
            let mut file = OldFile::new();
            let members: Vec<(String, u64)> = (0..count)
                .map(|i: u32| (format!("m{i}"), file.dataset(&[1], Type::I32, &i.to_le_bytes(), &[])))
                .collect();
            let group = file.group(members, &[Attribute::class("struct")]);
            let bytes = file.finish(b"header", vec![("group".to_owned(), group)]);
            let read = hdf5_pure::File::from_bytes(bytes).expect("a whole file");
            let group = read.group("group").expect("the group");
            assert_eq!(group.datasets().expect("its members").len(), count as usize);
            for i in (0..count).step_by(97) {
                assert_eq!(
                    group.dataset(&format!("m{i}")).and_then(|set| set.read_i32()).expect("a member"),
                    [i as i32]
                );
            }
        }
    }

    #[test]
    fn a_matrix_that_chunks_do_not_divide_reads_back() {
        let value = |row: usize, column: usize| (row * 100 + column) as f32;
        let shape = [13, 29];
        let chunks = Chunks::deflate(shape, 3, value).expect("deflated");
        let mut file = OldFile::new();
        let set = file.chunked(&chunks, 3, &[]);
        let bytes = file.finish(b"header", vec![("x".to_owned(), set)]);
        let read = hdf5_pure::File::from_bytes(bytes).and_then(|file| file.dataset("x")?.read_f32()).expect("whole");
        let expected: Vec<f32> = (0..13).flat_map(|row| (0..29).map(move |column| value(row, column))).collect();
        assert_eq!(read, expected);
    }
}
