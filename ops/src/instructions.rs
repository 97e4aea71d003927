//! Instruction sets, and the choice of one at run time.

use std::fmt;

use super::simd::{Job, Portable};
use super::x86::{Avx2, Avx512};

/// An instruction set that the kernels can use. A set that not every processor has carries the proof that this one has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// Whatever the compiler makes of plain Rust, for any processor.
    Portable,
    /// AVX2 and FMA: vectors of 8.
    Avx2(Avx2),
    /// AVX-512 (F, BW, DQ, VL): vectors of 16, 32 registers.
    Avx512(Avx512),
}

impl Instructions {
    /// Every set that this processor supports, the best last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        all.extend(Avx2::detect().map(Self::Avx2));
        all.extend(Avx512::detect().map(Self::Avx512));
        all
    }

    /// The best set that this processor supports.
    #[must_use]
    pub fn best() -> Self {
        *Self::available().last().expect("the portable form is always available")
    }

    /// Its name, as in `--instructions`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2(_) => "avx2",
            Self::Avx512(_) => "avx512",
        }
    }

    /// Runs a job with these instructions.
    pub(super) fn run<J: Job>(self, job: J) -> J::Output {
        match self {
            Self::Portable => job.run(Portable),
            Self::Avx2(token) => token.run(job),
            Self::Avx512(token) => token.run(job),
        }
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
