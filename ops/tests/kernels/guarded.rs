//! For tests: buffers with an inaccessible page right after or right before them, so that an out-of-bounds read or
//! write crashes the process instead of passing unnoticed.
#![allow(unsafe_code, reason = "pages are mapped and protected by hand")]

use std::ffi::c_void;
use std::ops::{Deref, DerefMut};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// A multiple of every page size of Linux on x86-64 and aarch64.
const PAGE_BYTES: usize = 1 << 16;

/// Numbers for which every bit pattern is a valid value.
pub(crate) trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for u8 {}
impl Plain for i8 {}
impl Plain for u16 {}

/// Which end of a buffer is guarded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Guard {
    /// The page right after its last element.
    Behind,
    /// The page right before its first element.
    Before,
}

impl Guard {
    pub(crate) const BOTH: [Self; 2] = [Self::Behind, Self::Before];
}

/// A slice with a guard page at one end.
#[derive(Debug)]
pub(crate) struct Guarded<T: Plain> {
    mapping: *mut c_void,
    mapped_bytes: usize,
    start: *mut T,
    len: usize,
}

impl<T: Plain> Guarded<T> {
    /// A copy of `values` with a guard.
    pub(crate) fn new(values: &[T], guard: Guard) -> Self {
        let bytes = size_of_val(values);
        let open_bytes = bytes.next_multiple_of(PAGE_BYTES);
        let mapped_bytes = open_bytes + 2 * PAGE_BYTES;
        // SAFETY: an anonymous mapping at an address that the kernel chooses touches no memory in use.
        let mapping =
            unsafe { mmap_anonymous(std::ptr::null_mut(), mapped_bytes, ProtFlags::empty(), MapFlags::PRIVATE) };
        let mapping = mapping.expect("memory for a guarded buffer");
        let open = mapping.wrapping_byte_add(PAGE_BYTES);
        // SAFETY: the range is whole pages of this mapping, to which no reference exists yet.
        unsafe { mprotect(open, open_bytes, MprotectFlags::READ | MprotectFlags::WRITE) }.expect("a writable buffer");
        let offset_bytes = match guard {
            Guard::Behind => open_bytes - bytes,
            Guard::Before => 0,
        };
        let start: *mut T = open.wrapping_byte_add(offset_bytes).cast();
        // SAFETY: the `bytes` bytes from `start` lie in the open pages, which nothing else refers to; `start` is
        // aligned because it is a whole number of elements away from a page boundary.
        unsafe { start.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        Self { mapping, mapped_bytes, start, len: values.len() }
    }
}

impl<T: Plain> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` wrote `len` elements there, and they live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T: Plain> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl<T: Plain> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this buffer's own, and no borrow of it is left.
        unsafe { munmap(self.mapping, self.mapped_bytes) }.expect("the mapping exists");
    }
}

mod tests {
    use super::*;

    /// Access rights of the page that holds an address, such as `rw-p`.
    fn rights(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux lists the mappings");
        let of_address = maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let [start, end] = [start, end].map(|it| usize::from_str_radix(it, 16).expect("hexadecimal"));
            (start..end).contains(&address).then(|| rest[..4].to_owned())
        });
        of_address.expect("the address is mapped")
    }

    #[test]
    fn the_guard_touches_the_buffer() {
        let values: Vec<f32> = (0..20_003).map(|it| it as f32).collect();
        for guard in Guard::BOTH {
            let mut buffer = Guarded::new(&values, guard);
            buffer[7] = -1.0;
            assert_eq!(buffer[7], -1.0);
            assert_eq!(buffer[8..], values[8..]);
            let range = buffer.as_ptr_range();
            let (first, end) = (range.start.addr(), range.end.addr());
            let guarded = match guard {
                Guard::Behind => end,
                Guard::Before => first - 1,
            };
            assert_eq!(rights(guarded), "---p");
            assert_eq!([rights(first), rights(end - 1)], ["rw-p", "rw-p"]);
        }
    }
}
