//! Native operators for CPUs: the layers of the network and their gradients in f32, NHWC.
//!
//! Slices go in and out, and the shapes are checked; every function works with any [`Instructions`] that the processor has.
//! `runtime::operators` registers them in ONNX Runtime as the operators of a domain of their own. `docs/kernels.md` says how the
//! kernels work and how near they come to what the processor can do.
//!
//! This is the only room of the package in which `unsafe` is allowed.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "only what is inlined into a job is compiled for its instructions")]

pub mod adam;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
pub mod bf16;
pub mod convolution;
pub mod head;
mod instructions;
pub mod maps;
pub mod norm;
pub mod pool;
mod product;
mod simd;
pub mod spread;
pub mod up;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod x86;

pub use instructions::Instructions;
pub use maps::{Maps, Shape};
pub use spread::{Rayon, Spread};

/// Who does the work, and with which instructions.
#[derive(Clone, Copy)]
pub struct Workers<'a> {
    /// Instructions of the kernels.
    pub instructions: Instructions,
    /// Threads.
    pub spread: &'a dyn Spread,
}

impl Workers<'_> {
    /// Sums of `len` numbers over all bands of maps: `add` adds those of a band. As many bands as there are threads, times
    /// [`PARTS_PER_THREAD`], are summed in order, and then their sums: the result depends on the number of threads alone.
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

/// Parts that a thread gets of a sum: more come out more even, and cost more memory.
const PARTS_PER_THREAD: usize = 3;

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod guarded;
#[cfg(test)]
mod tests;
