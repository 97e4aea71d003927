//! Vectors of f32 to which products of pairs of bf16 are added.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512bh, __m512i, _mm256_add_ps, _mm256_dpbf16_ps, _mm256_loadu_si256, _mm256_set1_epi32,
    _mm256_shuffle_ps, _mm512_castps512_ps256, _mm512_dpbf16_ps, _mm512_extractf32x8_ps, _mm512_loadu_si512,
    _mm512_set1_epi32, _mm512_set1_epi64,
};
use std::mem::transmute;

use super::token::Avx512Bf16;
use crate::element::Element;
use crate::simd::{Simd, Vector};
use crate::x86::{Avx2, Avx512, Of8, Of16};

/// Where a layer's output goes.
pub enum Output<'a> {
    /// bf16, as raw bits.
    Bf16(&'a mut [u16]),
    /// f32.
    F32(&'a mut [f32]),
}

impl<'a> From<&'a mut [u16]> for Output<'a> {
    fn from(elements: &'a mut [u16]) -> Self {
        Self::Bf16(elements)
    }
}

impl<'a> From<&'a mut [f32]> for Output<'a> {
    fn from(elements: &'a mut [f32]) -> Self {
        Self::F32(elements)
    }
}

/// Sums in f32 of products of pairs of bf16.
pub(super) trait PairVector: Vector {
    type Pairs: Copy;

    /// What a vector without products is made from.
    fn token_of(token: Avx512Bf16) -> Self::Token;
    /// # Safety
    /// `2 LANES` numbers can be read from `from`.
    unsafe fn pairs(token: Avx512Bf16, from: *const u16) -> Self::Pairs;
    /// The same pair in all lanes.
    fn splat_pair(token: Avx512Bf16, pair: u32) -> Self::Pairs;
    fn plus_dot(self, token: Avx512Bf16, a: Self::Pairs, b: Self::Pairs) -> Self;
    /// # Safety
    /// `LANES` elements can be written to `to`.
    unsafe fn store_as<E: Element>(self, token: Avx512Bf16, to: *mut E);
}

impl PairVector for Of16 {
    type Pairs = __m512bh;

    #[inline(always)]
    fn token_of(token: Avx512Bf16) -> Avx512 {
        token.0
    }
    #[inline(always)]
    unsafe fn pairs(_: Avx512Bf16, from: *const u16) -> __m512bh {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer; vectors are
        // plain bits.
        unsafe { transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast())) }
    }
    #[inline(always)]
    fn splat_pair(_: Avx512Bf16, pair: u32) -> __m512bh {
        // SAFETY: the token proves that the processor has the instructions; vectors are plain bits.
        unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair.cast_signed())) }
    }
    #[inline(always)]
    fn plus_dot(self, _: Avx512Bf16, a: __m512bh, b: __m512bh) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm512_dpbf16_ps(self.0, a, b) }, self.1)
    }
    #[inline(always)]
    unsafe fn store_as<E: Element>(self, _: Avx512Bf16, to: *mut E) {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        unsafe { E::store_16(to, self.0) }
    }
}

impl Of16 {
    /// The same two pairs in all pairs of lanes.
    #[inline(always)]
    pub(super) fn splat_two(_: Avx512Bf16, pairs: u64) -> __m512bh {
        // SAFETY: the token proves that the processor has the instructions; vectors are plain bits.
        unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi64(pairs.cast_signed())) }
    }

    /// The sums of pairs of lanes: those of lanes 0 to 3, 8 to 11, 4 to 7 and 12 to 15.
    #[inline(always)]
    pub(super) fn folded(self, token: Avx512Bf16) -> Of8 {
        // SAFETY: the token proves that the processor has the instructions.
        unsafe {
            let (low, high) = (_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            let even = _mm256_shuffle_ps::<0b10_00_10_00>(low, high);
            let odd = _mm256_shuffle_ps::<0b11_01_11_01>(low, high);
            Of8(_mm256_add_ps(even, odd), Of8::token_of(token))
        }
    }
}

impl PairVector for Of8 {
    type Pairs = __m256bh;

    #[inline(always)]
    fn token_of(token: Avx512Bf16) -> Avx2 {
        token.0.eight()
    }
    #[inline(always)]
    unsafe fn pairs(_: Avx512Bf16, from: *const u16) -> __m256bh {
        // SAFETY: as above.
        unsafe { transmute::<__m256i, __m256bh>(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    fn splat_pair(_: Avx512Bf16, pair: u32) -> __m256bh {
        // SAFETY: the token proves that the processor has the instructions; vectors are plain bits.
        unsafe { transmute::<__m256i, __m256bh>(_mm256_set1_epi32(pair.cast_signed())) }
    }
    #[inline(always)]
    fn plus_dot(self, _: Avx512Bf16, a: __m256bh, b: __m256bh) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm256_dpbf16_ps(self.0, a, b) }, self.1)
    }
    #[inline(always)]
    unsafe fn store_as<E: Element>(self, _: Avx512Bf16, to: *mut E) {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        unsafe { E::store_8(to, self.0) }
    }
}
