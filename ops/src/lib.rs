//! Native operators for CPUs: the layers of the network and their gradients in f32, NHWC.
//!
//! Functions take and return slices, whose lengths are checked against the shapes; every function works with any
//! [`Instructions`] that the processor supports. `lookbook::runtime::operators` registers them in ONNX Runtime as the operators
//! of a custom domain. `docs/kernels.md` explains how the kernels work and how close they come to the processor's peak. What else
//! runs for every pixel or every pair of photos is here too, because this crate is compiled for speed in every profile. For the same
//! reason public functions are not generic, and large or looping ones that the linker could inline are not inlined: what is
//! generic or inlined is compiled as the crate that calls it.
//!
//! Beside `lookbook-cuda` this is the only crate of the program in which `unsafe` is allowed. Its vectors are made from tokens that prove that
//! the processor has their instructions (`simd`, `x86`), so only reads and writes through pointers are left to be checked.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "only code inlined into a job is compiled for its instruction set")]

mod activation;
pub mod adam;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
pub mod bf16;
pub mod convolution;
pub mod depthwise;
pub mod dots;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod element;
pub mod hamming;
pub mod head;
mod instructions;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
pub mod int8;
pub mod inverted;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod lines;
pub mod maps;
pub mod norm;
pub mod pairs;
pub mod pointwise;
pub mod pool;
#[cfg(target_os = "linux")]
pub mod process;
mod product;
pub mod quantised;
pub mod resize;
mod simd;
pub mod spread;
pub mod squares;
pub mod up;
pub mod up_skip;
pub mod winograd;
#[cfg_attr(not(all(target_arch = "x86_64", not(feature = "portable"))), path = "absent.rs")]
mod x86;

pub use activation::{Activation, Mask};
pub use instructions::Instructions;
pub use maps::{Maps, Photos, Shape};
pub use spread::{Rayon, Spread};
pub use x86::{Avx2, Avx512};

/// The threads that do the work, and the instructions they use.
#[derive(Clone, Copy)]
pub struct Workers<'a> {
    /// Instruction set of the kernels.
    pub instructions: Instructions,
    /// Thread pool.
    pub spread: &'a dyn Spread,
}

impl Workers<'_> {
    /// Sums `len` numbers over all bands of the maps: `add` adds the contribution of one band. The bands are split into
    /// [`PARTS_PER_THREAD`] parts per thread; each part is summed in order, and then the parts are summed in order, so
    /// the result depends only on the number of threads.
    fn sum_over_bands(&self, shape: Shape, len: usize, add: impl Fn(maps::Band, &mut [f32]) + Sync) -> Vec<f32> {
        let bands = maps::Band::all(shape, self.spread.threads());
        let share = bands.len().div_ceil(self.spread.threads() * PARTS_PER_THREAD);
        let parts: Vec<_> = bands.chunks(share).collect();
        let mut sums = vec![0.0; parts.len() * len];
        spread::spread_items(self.spread, sums.chunks_exact_mut(len).collect(), |index, sums| {
            for band in parts[index] {
                add(*band, sums);
            }
        });
        let (total, others) = sums.split_at_mut(len);
        for sums in others.chunks_exact(len) {
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += sum;
            }
        }
        sums.truncate(len);
        sums
    }
}

/// Parts of a sum per thread: more parts balance the load better, but cost more memory.
const PARTS_PER_THREAD: usize = 3;
