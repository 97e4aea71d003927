//! What all kernels in bfloat16 need: the proof that the processor has the instructions, and rounding.

use crate::{Avx512, Instructions};

/// The proof that the processor has AVX-512 and AVX-512-BF16. Only [`Avx512Bf16::detect`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Bf16(pub(super) Avx512);

impl Avx512Bf16 {
    /// Asks the processor.
    #[must_use]
    pub fn detect() -> Option<Self> {
        Avx512::detect().filter(|_| is_x86_feature_detected!("avx512bf16")).map(Self)
    }

    /// For kernels that have no use for the products of pairs.
    pub(super) fn instructions(self) -> Instructions {
        Instructions::Avx512(self.0)
    }
}

/// The nearest bf16, ties to even.
pub(super) fn rounded(value: f32) -> u16 {
    half::bf16::from_f32(value).to_bits()
}
