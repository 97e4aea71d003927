//! What a program of this workspace can only do with `unsafe`: end with a message if it gets no memory, waste none where it is
//! limited, and know whether its standard output was closed before it began.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// A larger request is not due to a limit: a library asked for what a damaged file declares, and is told no.
const ABSURD_BYTES: usize = 1 << 36;

unsafe extern "C" {
    /// `_exit(2)`: ends the process at once, as a kill would, but with an exit code.
    safe fn _exit(code: i32) -> !;
}

/// The system's allocator. If it refuses memory, the program says which limit that is and ends with exit code 1, where Rust
/// would abort, and where a decoder would take a good photo for a bad one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory;

// SAFETY: hands everything on to the system's allocator, and returns what that returns.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that the system's allocator needs.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.realloc(memory, layout, bytes) }, bytes)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[inline]
fn given(memory: *mut u8, bytes: usize) -> *mut u8 {
    if memory.is_null() && bytes < ABSURD_BYTES {
        refused(bytes);
    }
    memory
}

/// Ends the program. Nothing here allocates or waits for a lock.
#[cold]
fn refused(bytes: usize) -> ! {
    let mut text = [0; 256];
    let mut rest = &mut text[..];
    let _ = writeln!(
        rest,
        "lookbook: memory: this process may have no {bytes} bytes more; raise its limit (`ulimit -v`), or use fewer `threads`; \
         what was published before stays"
    );
    let unused = rest.len();
    let len = text.len() - unused;
    let _ = rustix::io::write(standard(2), &text[..len]);
    _exit(1)
}

/// Address space for each heap where it is limited.
#[cfg(target_env = "gnu")]
const BYTES_PER_HEAP: u64 = 1 << 30;

/// Lets threads share heaps if the address space is limited (`ulimit -v`), to be called before any is started: the C library
/// would give each a heap of its own, 64 MiB, until nothing is left for what else threads need.
#[cfg(target_env = "gnu")]
pub fn limit_heaps() {
    unsafe extern "C" {
        /// `mallopt(3)`: sets a parameter of the allocator.
        safe fn mallopt(parameter: i32, value: i32) -> i32;
    }
    /// `M_ARENA_MAX` of `malloc.h`.
    const ARENA_MAX: i32 = -8;
    if let Some(bytes) = rustix::process::getrlimit(rustix::process::Resource::As).current {
        mallopt(ARENA_MAX, i32::try_from(bytes / BYTES_PER_HEAP).unwrap_or(i32::MAX).max(1));
    }
}

/// Other C libraries have no such parameter.
#[cfg(not(target_env = "gnu"))]
pub fn limit_heaps() {}

static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether the process was started without a standard output (`>&-`): Rust puts `/dev/null` in its place before `main`, so
/// that what is printed would get lost unnoticed.
#[must_use]
pub fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}

/// The loader calls what this section lists before Rust's own start-up.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn look() {
        STDOUT_WAS_CLOSED.store(rustix::io::fcntl_getfd(standard(1)).is_err(), Ordering::Relaxed);
    }
    look
};

/// A standard stream, which may be closed.
fn standard(number: i32) -> BorrowedFd<'static> {
    // SAFETY: nothing closes it while this program uses it; if it is closed already, calls on it fail.
    unsafe { BorrowedFd::borrow_raw(number) }
}
