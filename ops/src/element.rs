//! Elements that layers with products in AVX-512 write.

use std::arch::x86_64::{
    __m128bh, __m128i, __m256, __m256bh, __m256i, __m512, _mm_storel_epi64, _mm_storeu_si128, _mm256_cvtepi32_epi8,
    _mm256_cvtneps_pbh, _mm256_cvtps_epi32, _mm256_max_ps, _mm256_min_ps, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_storeu_ps, _mm256_storeu_si256, _mm512_cvtepi32_epi8, _mm512_cvtneps_pbh, _mm512_cvtps_epi32, _mm512_max_ps,
    _mm512_min_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

/// Element type of a layer's output: u8, bf16 as raw bits in u16, or f32.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// # Safety
    /// The processor has AVX-512 and AVX-512-BF16, and 8 elements can be written to `to`.
    unsafe fn store_8(to: *mut Self, values: __m256);
    /// # Safety
    /// The processor has AVX-512 and AVX-512-BF16, and 16 elements can be written to `to`.
    unsafe fn store_16(to: *mut Self, values: __m512);
}

impl Element for u8 {
    #[inline(always)]
    unsafe fn store_8(to: *mut Self, values: __m256) {
        // SAFETY: guaranteed by the caller. The values are brought to 0 to 255 before they become whole numbers.
        unsafe {
            let values = _mm256_min_ps(_mm256_max_ps(values, _mm256_setzero_ps()), _mm256_set1_ps(255.0));
            _mm_storel_epi64(to.cast(), _mm256_cvtepi32_epi8(_mm256_cvtps_epi32(values)));
        }
    }
    #[inline(always)]
    unsafe fn store_16(to: *mut Self, values: __m512) {
        // SAFETY: as above.
        unsafe {
            let values = _mm512_min_ps(_mm512_max_ps(values, _mm512_setzero_ps()), _mm512_set1_ps(255.0));
            _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(values)));
        }
    }
}

impl Element for u16 {
    #[inline(always)]
    unsafe fn store_8(to: *mut Self, values: __m256) {
        // SAFETY: guaranteed by the caller; vectors are plain bits.
        unsafe { _mm_storeu_si128(to.cast(), transmute::<__m128bh, __m128i>(_mm256_cvtneps_pbh(values))) }
    }
    #[inline(always)]
    unsafe fn store_16(to: *mut Self, values: __m512) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(to.cast(), transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values))) }
    }
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn store_8(to: *mut Self, values: __m256) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm256_storeu_ps(to, values) }
    }
    #[inline(always)]
    unsafe fn store_16(to: *mut Self, values: __m512) {
        // SAFETY: guaranteed by the caller.
        unsafe { _mm512_storeu_ps(to, values) }
    }
}
