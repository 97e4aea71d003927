//! Work distributed over threads.

use std::cell::RefCell;
use std::sync::Mutex;
use std::thread::LocalKey;

/// Runs tasks on several threads. Inside a session ONNX Runtime's own pool implements this, so that there is no second
/// pool competing for the cores; tests and benches use rayon's.
pub trait Spread {
    /// Calls `task` once for each number below `count`, in any order, and returns when all calls have finished.
    fn each(&self, count: usize, task: &(dyn Fn(usize) + Sync));

    /// Number of threads that share the tasks.
    fn threads(&self) -> usize;
}

/// The rayon pool in which it is called.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rayon;

impl Spread for Rayon {
    fn each(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        use rayon::prelude::*;
        (0..count).into_par_iter().with_max_len(1).for_each(task);
    }

    fn threads(&self) -> usize {
        rayon::current_num_threads()
    }
}

/// Calls `task` once for each item.
pub(super) fn spread_items<T: Send>(spread: &dyn Spread, items: Vec<T>, task: impl Fn(usize, T) + Sync) {
    let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
    spread.each(items.len(), &|index| {
        let item = items[index].lock().expect("no task panics with it").take();
        task(index, item.expect("each item is taken once"));
    });
}

/// Element types of scratch memory.
pub(super) trait Scratch: Copy + Default + 'static {
    /// The thread's own scratch memory.
    const MEMORY: &'static LocalKey<RefCell<Vec<Self>>>;
}

thread_local! {
    static FLOATS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static HALVES: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Scratch for f32 {
    const MEMORY: &'static LocalKey<RefCell<Vec<Self>>> = &FLOATS;
}

impl Scratch for u16 {
    const MEMORY: &'static LocalKey<RefCell<Vec<Self>>> = &HALVES;
}

impl Scratch for u8 {
    const MEMORY: &'static LocalKey<RefCell<Vec<Self>>> = &BYTES;
}

/// Lends `len` numbers, of arbitrary values, of the thread's own scratch memory. It is kept between tasks, because
/// fresh memory of this size would be requested from the system, page by page, each time.
pub(super) fn with_scratch<T: Scratch, R>(len: usize, work: impl FnOnce(&mut [T]) -> R) -> R {
    T::MEMORY.with_borrow_mut(|scratch| {
        if scratch.len() < len {
            scratch.resize(len, T::default());
        }
        work(&mut scratch[..len])
    })
}
