//! The objects of an HDF5 file by address: where links and references lead, and the data sets there.
//!
//! The crate `hdf5-pure` reads data sets, but follows neither soft links nor single references, so names are resolved
//! here, in all three forms of groups. Nothing is trusted: each address and length is checked against the file, and
//! each walk is bounded. Source: "HDF5 File Format Specification Version 3.0", sections II to IV.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use hdf5_pure::{Dataset, FormatError, Source};

use super::bytes::{Bytes, MAX_BLOCK_BYTES, PositionedFile, SIGNATURE, UNDEFINED, number, u16_at, u32_at, u64_at};
use super::heap;
use crate::error::{Error, Result};

/// Maximum number of soft links on the way to an object, as in the HDF5 library.
const MAX_SOFT_LINKS: u32 = 16;
/// Maximum number of blocks of a header, or nodes of a tree.
const MAX_BLOCKS: usize = 1 << 16;
/// Groups with more links are kept once they are read, as `#refs#` is passed for every field.
const KEPT_LINKS: usize = 64;
/// Length of the block in front of the file that [`View`] adds.
const FRONT_BYTES: usize = 512;

// Types of header messages.
const LINK_INFO: u16 = 0x02;
const LINK: u16 = 0x06;
const DATA_LAYOUT: u16 = 0x08;
const CONTINUATION: u16 = 0x10;
const SYMBOL_TABLE: u16 = 0x11;

/// Where a name in a group leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// To the object at an address.
    Hard(u64),
    /// To a path in the same file.
    Soft(String),
    /// To another file.
    External(String),
}

type Links = HashMap<String, Link>;

/// An opened HDF5 file.
pub(super) struct Objects {
    pub(super) bytes: Bytes,
    root: u64,
    large_groups: Mutex<HashMap<u64, Arc<Links>>>,
}

impl Objects {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not an HDF5 file that can be read, or is cut off; [`Error::Io`].
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = Arc::new(PositionedFile::open(path)?);
        let unreadable =
            |cause: &dyn std::fmt::Display| Error::input(path, format!("cannot be read as HDF5 ({cause})"));
        let base = file.signature()?;
        let base = base.ok_or_else(|| unreadable(&"it has no HDF5 signature; was it cut off?"))?;
        let view = View::new(Bytes { file: file.clone(), base: 0 }, None);
        let opened = hdf5_pure::File::from_source(view);
        file.check()?;
        let superblock = opened.map_err(|cause| unreadable(&cause))?.superblock().clone();
        let (found, whole) = (file.bytes, superblock.eof_address);
        if whole > found {
            let problem = format!("is cut off: it has {found} of {whole} bytes; download the file again");
            return Err(Error::input(path, problem));
        }
        let (offset, length) = (superblock.offset_size, superblock.length_size);
        if (offset, length) != (8, 8) {
            return Err(unreadable(&format!("its addresses have {offset} bytes and its lengths {length}; expected 8")));
        }
        let bytes = Bytes { file, base };
        let root = bytes.root(superblock.version).map_err(|cause| unreadable(&cause))?;
        Ok(Self { bytes, root, large_groups: Mutex::default() })
    }

    /// The error that the file system reported since the file was opened.
    pub(super) fn check(&self) -> Result<()> {
        self.bytes.file.check()
    }

    pub(super) fn root(&self) -> u64 {
        self.root
    }

    /// The object at `path`, seen from a group; `None` if there is none. Soft links are followed.
    pub(super) fn find(&self, group: u64, path: &str) -> Result<Option<u64>, String> {
        self.follow(group, path, &mut 0)
    }

    fn follow(&self, group: u64, path: &str, followed: &mut u32) -> Result<Option<u64>, String> {
        let mut place = if path.starts_with('/') { self.root } else { group };
        for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
            place = match self.links(place)?.get(name) {
                None => return Ok(None),
                Some(Link::Hard(address)) => *address,
                Some(Link::External(file)) => {
                    return Err(format!(
                        "is a link into another file, '{file}'; only links inside the file are followed"
                    ));
                }
                Some(Link::Soft(_)) if *followed == MAX_SOFT_LINKS => {
                    return Err(format!("leads through more than {MAX_SOFT_LINKS} soft links; do they form a loop?"));
                }
                Some(Link::Soft(target)) => {
                    *followed += 1;
                    let dangling = || format!("is a soft link to '{target}', which does not exist");
                    self.follow(place, target, followed)?.ok_or_else(dangling)?
                }
            };
        }
        Ok(Some(place))
    }

    /// The links of the group at an address.
    fn links(&self, group: u64) -> Result<Arc<Links>, String> {
        let kept = || self.large_groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(links) = kept().get(&group) {
            return Ok(links.clone());
        }
        let links = Arc::new(self.bytes.links(group)?);
        if links.len() > KEPT_LINKS {
            kept().insert(group, links.clone());
        }
        Ok(links)
    }

    /// Whether the object at an address is a group; the message says if there is no object.
    pub(super) fn is_group(&self, address: u64) -> Result<bool, String> {
        let messages = self.bytes.messages(address)?;
        Ok(messages.iter().any(|(kind, _)| [LINK_INFO, LINK, SYMBOL_TABLE].contains(kind)))
    }

    /// The data set at an address.
    pub(super) fn dataset(&self, address: u64) -> Result<Dataset, String> {
        let messages = self.bytes.messages(address)?;
        if !messages.iter().any(|(kind, _)| *kind == DATA_LAYOUT) {
            return Err("is not an array".to_owned());
        }
        let open = || hdf5_pure::File::from_source(View::new(self.bytes.clone(), Some(address)))?.dataset("/");
        open().map_err(|cause| explain(&cause))
    }
}

impl Bytes {
    /// The address of the root group, from a superblock that was checked.
    fn root(&self, version: u8) -> Result<u64, String> {
        let at = match version {
            0 => 24 + 4 * 8 + 8,
            1 => 28 + 4 * 8 + 8,
            _ => 12 + 3 * 8,
        };
        u64_at(&self.read(at, 8)?, 0)
    }

    /// Type and content of the messages of the object header at an address.
    pub(super) fn messages(&self, address: u64) -> Result<Vec<(u16, Vec<u8>)>, String> {
        let none = |_| format!("byte {address} is not the start of an object");
        let start = self.read(address, 16).map_err(none)?;
        let (is_new, tracked, first) = if start.starts_with(b"OHDR\x02") {
            let flags = start[5];
            let times = if flags & 0x20 == 0 { 0 } else { 16 };
            let limits = if flags & 0x10 == 0 { 0 } else { 4 };
            let (at, width) = (6 + times + limits, 1_u64 << (flags & 3));
            let length = number(&self.read(address + at, width).map_err(none)?);
            (true, flags & 4 != 0, (address + at + width, length))
        } else if start.starts_with(b"\x01\0") {
            (false, false, (address + 16, u64::from(u32_at(&start, 8)?)))
        } else {
            return Err(none(String::new()));
        };
        let (mut blocks, mut messages) = (vec![first], Vec::new());
        let mut next = 0;
        while let Some(&(at, length)) = blocks.get(next) {
            let block = self.read(at, length)?;
            // A continuation block of the newer form begins with a signature and ends with a checksum.
            let frame = if is_new && next > 0 { (4, 4) } else { (0, 0) };
            let block = block.get(frame.0..block.len().saturating_sub(frame.1)).unwrap_or_default();
            for (kind, content) in block_messages(block, is_new, tracked)? {
                if kind == CONTINUATION {
                    blocks.push((u64_at(content, 0)?, u64_at(content, 8)?));
                } else {
                    messages.push((kind, content.to_vec()));
                }
            }
            next += 1;
            if blocks.len() > MAX_BLOCKS || blocks.iter().map(|block| block.1).sum::<u64>() > MAX_BLOCK_BYTES {
                return Err(format!("the object at byte {address} has too many blocks"));
            }
        }
        Ok(messages)
    }

    /// The links of the group at an address.
    fn links(&self, group: u64) -> Result<Links, String> {
        let (mut links, mut is_group) = (Links::new(), false);
        for (kind, content) in self.messages(group)? {
            is_group |= [LINK_INFO, LINK, SYMBOL_TABLE].contains(&kind);
            match kind {
                SYMBOL_TABLE => self.symbol_table(u64_at(&content, 0)?, u64_at(&content, 8)?, &mut links)?,
                LINK => links.extend([link(&content)?]),
                LINK_INFO => {
                    let at = if content.get(1).is_some_and(|flags| flags & 1 != 0) { 10 } else { 2 };
                    let (heap, index) = (u64_at(&content, at)?, u64_at(&content, at + 8)?);
                    if heap != UNDEFINED {
                        for message in heap::messages(self, heap, index)? {
                            links.extend([link(&message)?]);
                        }
                    }
                }
                _ => {}
            }
        }
        if is_group { Ok(links) } else { Err("leads through an object that is not a group".to_owned()) }
    }

    /// Adds the links of a group of the oldest form: a tree of nodes, and the names in a heap.
    fn symbol_table(&self, tree: u64, heap: u64, links: &mut Links) -> Result<(), String> {
        let header = self.block(heap, *b"HEAP", 32)?;
        let names = self.read(u64_at(&header, 24)?, u64_at(&header, 8)?)?;
        let name = |at: u64| -> Result<String, String> {
            let name = names.get(at as usize..).ok_or("a name lies outside of its heap")?;
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            Ok(String::from_utf8_lossy(&name[..end]).into_owned())
        };
        let (mut nodes, mut seen) = (vec![tree], HashSet::new());
        while let Some(node) = nodes.pop() {
            if !seen.insert(node) || seen.len() > MAX_BLOCKS {
                return Err("the names of a group form a loop".to_owned());
            }
            if self.read(node, 4)? == b"TREE" {
                let used = u64::from(u16_at(&self.read(node, 8)?, 6)?);
                let keys = self.read(node + 24, used * 16)?;
                nodes.extend((0..used as usize).map(|at| u64_at(&keys, at * 16 + 8)).collect::<Result<Vec<_>, _>>()?);
                continue;
            }
            let used = u64::from(u16_at(&self.block(node, *b"SNOD", 8)?, 6)?);
            for entry in self.read(node + 8, used * 40)?.chunks_exact(40) {
                let is_soft = u32_at(entry, 16)? == 2;
                let target = || Ok::<_, String>(Link::Soft(name(u64::from(u32_at(entry, 24)?))?));
                let link = if is_soft { target()? } else { Link::Hard(u64_at(entry, 8)?) };
                links.insert(name(u64_at(entry, 0)?)?, link);
            }
        }
        Ok(())
    }
}

/// Type and content of the messages in one block of a header; `tracked` if they have their order of creation.
fn block_messages(block: &[u8], is_new: bool, tracked: bool) -> Result<Vec<(u16, &[u8])>, String> {
    let head = if !is_new {
        8
    } else if tracked {
        6
    } else {
        4
    };
    let (mut rest, mut messages) = (block, Vec::new());
    // What is shorter than the head of a message is a gap.
    while rest.len() >= head {
        let (kind, length) =
            if is_new { (u16::from(rest[0]), u16_at(rest, 1)?) } else { (u16_at(rest, 0)?, u16_at(rest, 2)?) };
        let end = head + usize::from(length);
        messages.push((kind, rest.get(head..end).ok_or("a message is longer than its header")?));
        rest = &rest[end..];
    }
    Ok(messages)
}

/// Name and target of a link message.
fn link(message: &[u8]) -> Result<(String, Link), String> {
    let mut rest = message;
    let mut take = |length: usize| {
        let (taken, left) = rest.split_at_checked(length).ok_or("a link is cut off")?;
        rest = left;
        Ok::<&[u8], String>(taken)
    };
    let flags = take(2)?[1];
    let kind = if flags & 8 == 0 { 0 } else { take(1)?[0] };
    let skipped = if flags & 4 == 0 { 0 } else { 8 } + usize::from(flags & 0x10 != 0);
    take(skipped)?;
    let length = number(take(1 << (flags & 3))?);
    let name = String::from_utf8_lossy(take(length as usize)?).into_owned();
    if kind == 0 {
        return Ok((name, Link::Hard(u64_at(take(8)?, 0)?)));
    }
    let length = u16_at(take(2)?, 0)?;
    let target = String::from_utf8_lossy(take(usize::from(length))?).into_owned();
    if kind == 1 {
        return Ok((name, Link::Soft(target)));
    }
    // An external link: a byte of version and flags, the file, the object in it.
    Ok((name, Link::External(target.get(1..).and_then(|it| it.split('\0').next()).unwrap_or_default().to_owned())))
}

/// Says what a problem means for whoever has the file: what the reader lacks is not a fault of the file.
pub(super) fn explain(cause: &hdf5_pure::Error) -> String {
    let hdf5_pure::Error::Format(format) = cause else { return format!("cannot be read: {cause}") };
    match format {
        FormatError::InvalidLayoutVersion(version @ (0..=2 | 5..)) => {
            let library = if *version < 3 { "before 1.6.3" } else { "2.0" };
            format!(
                "is stored in a layout of HDF5 {library} (version {version}), which is not read; write the file with \
                 HDF5 1.8 to 1.14, or in h5py with libver=('earliest', 'v114')"
            )
        }
        FormatError::UnsupportedFilter(id) => {
            format!("is compressed with the filter {id}, which is not read; write it uncompressed or with gzip")
        }
        FormatError::UnsupportedVirtualLayout => "is put together from other data sets, which is not read".to_owned(),
        FormatError::UnsupportedExternalStorage => "is stored in another file, which is not read".to_owned(),
        _ => format!("cannot be read: {format}"),
    }
}

/// The file as `hdf5-pure` is to see it: with any object as its root, because that crate opens objects by path only. A
/// block with a superblock of the oldest form, which has no checksum, is put in front of the file.
struct View {
    bytes: Bytes,
    front: Vec<u8>,
}

impl View {
    /// With the object at the address `root`; unchanged if there is none.
    fn new(bytes: Bytes, root: Option<u64>) -> Self {
        let Some(root) = root else { return Self { bytes, front: Vec::new() } };
        let mut front = SIGNATURE.to_vec();
        front.extend([0, 0, 0, 0, 0, 8, 8, 0, 4, 0, 16, 0, 0, 0, 0, 0]);
        let (block, end) = (FRONT_BYTES as u64, bytes.len() + FRONT_BYTES as u64);
        for field in [block + bytes.base, UNDEFINED, end, UNDEFINED, 0, root] {
            front.extend(field.to_le_bytes());
        }
        front.resize(FRONT_BYTES, 0);
        Self { bytes, front }
    }
}

impl Source for View {
    fn len(&self) -> u64 {
        self.front.len() as u64 + self.bytes.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FormatError> {
        let front = self.front.get(offset as usize..).unwrap_or_default();
        let (first, rest) = buffer.split_at_mut(front.len().min(buffer.len()));
        first.copy_from_slice(&front[..first.len()]);
        if rest.is_empty() {
            return Ok(());
        }
        let from = offset + first.len() as u64 - self.front.len() as u64;
        self.bytes.file.read_exact_at(from, rest).map_err(|cause| FormatError::Source(format!("byte {from}: {cause}")))
    }
}
