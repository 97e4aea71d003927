//! What all kernels in 8-bit integers take: the proof that the processor has the instructions, and weights.

use crate::bf16::Avx512Bf16;

/// The proof that the processor has AVX-512, AVX-512-VNNI and AVX-512-BF16, in which other layers of such a network are
/// computed. Only [`Avx512Vnni::detect`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Vnni(Avx512Bf16);

impl Avx512Vnni {
    /// Asks the processor.
    #[must_use]
    pub fn detect() -> Option<Self> {
        Avx512Bf16::detect().filter(|_| is_x86_feature_detected!("avx512vnni")).map(Self)
    }

    /// For kernels that need no products of bytes.
    pub(super) fn bf16(self) -> Avx512Bf16 {
        self.0
    }
}

/// A layer's weights, and what makes its output of their sums.
#[derive(Debug, Clone, Copy)]
pub struct Int8Parameters<'a> {
    /// Packed: [`pack`](crate::quantised::pack), or twice as many, [`pack_fine`](crate::quantised::pack_fine).
    pub weights: &'a [i8],
    /// Factor of each output's sum, `[out]`.
    pub scale: &'a [f32],
    /// What is added to it, `[out]`.
    pub bias: &'a [f32],
}
