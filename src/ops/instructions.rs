//! Instruction sets, and the choice of one at run time.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::simd::{Job, Portable};

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use super::x86;

/// An instruction set that the kernels can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Instructions {
    /// Whatever the compiler makes of plain Rust, for any processor.
    Portable,
    /// AVX2 and FMA: vectors of 8.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL): vectors of 16, 32 registers.
    Avx512,
}

impl Instructions {
    /// Every set that this processor supports, the best last.
    #[must_use]
    pub fn available() -> Vec<Self> {
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        let (avx2, avx512) = (x86::has_avx2(), x86::has_avx512());
        #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
        let (avx2, avx512) = (false, false);
        let all = [(Self::Portable, true), (Self::Avx2, avx2), (Self::Avx512, avx2 && avx512)];
        all.into_iter().filter(|(_, is_there)| *is_there).map(|(instructions, _)| instructions).collect()
    }

    /// The best set that this processor supports.
    #[must_use]
    pub fn best() -> Self {
        *Self::available().last().expect("the portable form is always available")
    }

    /// Runs a job with these instructions, which must be among the [available](Self::available) ones.
    pub(super) fn run<J: Job>(self, job: J) -> J::Output {
        match self {
            Self::Portable => job.run::<Portable>(),
            #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
            Self::Avx2 => x86::run_avx2(job),
            #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
            Self::Avx512 => x86::run_avx512(job),
            #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
            Self::Avx2 | Self::Avx512 => unreachable!("not available on this processor"),
        }
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}
