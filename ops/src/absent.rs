//! In place of `x86` on other processors: proofs of instructions that nobody can have.

use super::simd::Job;

/// AVX2: not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Avx2 {}

/// AVX-512: not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Avx512 {}

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        None
    }

    pub(super) fn run<J: Job>(self, _: J) -> J::Output {
        match self {}
    }
}

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        None
    }

    pub(super) fn run<J: Job>(self, _: J) -> J::Output {
        match self {}
    }
}
