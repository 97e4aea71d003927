//! AVX2 and AVX-512.
//!
//! [`Of8`] and [`Of16`] carry the tokens [`Avx2`] and [`Avx512`] that they are made from: wherever there is one of them, the
//! processor has the instructions that the intrinsics below require.

use std::arch::x86_64::{
    __m256, __m512, _CMP_EQ_OQ, _CMP_GT_OQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0,
    _MM_MANT_NORM_P5_1, _MM_MANT_SIGN_ZERO, _mm_loadu_si128, _mm_prefetch, _mm_storeu_si128, _mm256_add_epi32,
    _mm256_add_ps, _mm256_and_si256, _mm256_blendv_ps, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtps_epi32,
    _mm256_div_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps,
    _mm256_or_si256, _mm256_packus_epi32, _mm256_permute4x64_epi64, _mm256_round_ps, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_ps, _mm512_add_epi32,
    _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_epi16, _mm512_cvtepu16_epi32, _mm512_div_ps, _mm512_fmadd_ps, _mm512_getexp_ps, _mm512_getmant_ps,
    _mm512_loadu_ps, _mm512_mask_blend_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_reduce_add_ps,
    _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32, _mm512_srli_epi32,
    _mm512_storeu_ps, _mm512_sub_ps,
};

use super::simd::{Job, Simd, Vector};

/// The proof that the processor has AVX2 and FMA. Only [`Avx2::detect`] makes one, and whoever has a value of it may use
/// these instructions.
///
/// ```compile_fail,E0423
/// let made_up = lookbook_ops::Avx2(());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx2(());

/// The proof that the processor has what [`Avx2`] proves, and AVX-512 (F, BW, DQ, VL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx512(Avx2);

impl Avx2 {
    /// Asks the processor.
    #[must_use]
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    /// Runs a job with AVX2 and FMA.
    pub(super) fn run<J: Job>(self, job: J) -> J::Output {
        #[target_feature(enable = "avx2,fma")]
        fn run<J: Job>(job: J, token: Avx2) -> J::Output {
            job.run(token)
        }
        // SAFETY: the processor has the instructions, as the token proves.
        unsafe { run(job, self) }
    }
}

impl Avx512 {
    /// Asks the processor.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let is_there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        Avx2::detect().filter(|_| is_there).map(Self)
    }

    /// Runs a job with AVX-512.
    pub(super) fn run<J: Job>(self, job: J) -> J::Output {
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
        fn run<J: Job>(job: J, token: Avx512) -> J::Output {
            job.run(token)
        }
        // SAFETY: the processor has the instructions, as the token proves.
        unsafe { run(job, self) }
    }
}

impl Simd for Avx2 {
    type Wide = Of8;
    type Eight = Of8;
    const IS_512: bool = false;

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn eight(self) -> Self {
        self
    }
}

impl Simd for Avx512 {
    type Wide = Of16;
    type Eight = Of8;
    const IS_512: bool = true;

    #[inline(always)]
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn eight(self) -> Avx2 {
        self.0
    }
}

/// 8 lanes.
#[derive(Clone, Copy)]
pub(super) struct Of8(pub(super) __m256, pub(super) Avx2);

/// 16 lanes.
#[derive(Clone, Copy)]
pub(super) struct Of16(pub(super) __m512, pub(super) Avx512);

/// Everything that differs only in the vector width.
macro_rules! arithmetic {
    ($token:ident, $lanes:literal, $load:ident, $store:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $max:ident,
     $min:ident, $fmadd:ident) => {
        type Token = $token;
        const LANES: usize = $lanes;

        #[inline(always)]
        fn token(self) -> $token {
            self.1
        }

        #[inline(always)]
        unsafe fn load(token: $token, from: *const f32) -> Self {
            // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
            Self(unsafe { $load(from) }, token)
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
            unsafe { $store(to, self.0) }
        }
        #[inline(always)]
        fn prefetch<T>(_: $token, from: *const T) {
            // SAFETY: every x86-64 has the instruction, and it reads nothing: an invalid address does no harm.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
        #[inline(always)]
        fn splat(token: $token, value: f32) -> Self {
            // SAFETY: the token proves that the processor has the instructions.
            Self(unsafe { $splat(value) }, token)
        }
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: the token proves that the processor has the instructions.
            Self(unsafe { $add(self.0, other.0) }, self.1)
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: the token proves that the processor has the instructions.
            Self(unsafe { $sub(self.0, other.0) }, self.1)
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            // SAFETY: the token proves that the processor has the instructions.
            Self(unsafe { $mul(self.0, other.0) }, self.1)
        }
        #[inline(always)]
        fn over(self, other: Self) -> Self {
            // SAFETY: the token proves that the processor has the instructions.
            Self(unsafe { $div(self.0, other.0) }, self.1)
        }
        #[inline(always)]
        fn larger(self, other: Self) -> Self {
            // SAFETY: the token proves that the processor has the instructions.
            Self(unsafe { $max(self.0, other.0) }, self.1)
        }
        #[inline(always)]
        fn smaller(self, other: Self) -> Self {
            // SAFETY: the token proves that the processor has the instructions.
            Self(unsafe { $min(self.0, other.0) }, self.1)
        }
        #[inline(always)]
        fn times_plus(self, by: Self, plus: Self) -> Self {
            // SAFETY: the token proves that the processor has the instructions.
            Self(unsafe { $fmadd(self.0, by.0, plus.0) }, self.1)
        }
    };
}

impl Vector for Of8 {
    arithmetic!(
        Avx2,
        8,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_div_ps,
        _mm256_max_ps,
        _mm256_min_ps,
        _mm256_fmadd_ps
    );

    #[inline(always)]
    unsafe fn load_bf16(token: Avx2, from: *const u16) -> Self {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        unsafe {
            let bits = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())));
            Self(_mm256_castsi256_ps(bits), token)
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16) {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        unsafe {
            let bits = _mm256_castps_si256(self.0);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let bits = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let halves = _mm256_srli_epi32::<16>(bits);
            // The instruction packs each half of the register on its own.
            let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(halves, halves));
            _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(packed));
        }
    }
    #[inline(always)]
    fn if_greater(self, than: Self, yes: Self, no: Self) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, than.0)) }, self.1)
    }
    #[inline(always)]
    fn if_equal(self, other: Self, yes: Self, no: Self) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0)) }, self.1)
    }
    #[inline(always)]
    fn rounded(self) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) }, self.1)
    }
    #[inline(always)]
    fn times_power_of_two(self, exponent: Self) -> Self {
        // The exponent field of a float is biased by 127 and starts at bit 23.
        // SAFETY: the token proves that the processor has the instructions.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(exponent.0), _mm256_set1_epi32(127));
            let power = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased));
            Self(_mm256_mul_ps(self.0, power), self.1)
        }
    }
    #[inline(always)]
    fn mantissa_and_exponent(self) -> (Self, Self) {
        // SAFETY: the token proves that the processor has the instructions.
        unsafe {
            let bits = _mm256_castps_si256(self.0);
            let fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff));
            let mantissa = _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3f00_0000)));
            let exponent = _mm256_cvtepi32_ps(_mm256_srli_epi32::<23>(bits));
            (Self(mantissa, self.1), Self(_mm256_sub_ps(exponent, _mm256_set1_ps(126.0)), self.1))
        }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut lanes = [0.0; 8];
        self.put(&mut lanes);
        lanes.iter().sum()
    }
}

impl Vector for Of16 {
    arithmetic!(
        Avx512,
        16,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_div_ps,
        _mm512_max_ps,
        _mm512_min_ps,
        _mm512_fmadd_ps
    );

    #[inline(always)]
    unsafe fn load_bf16(token: Avx512, from: *const u16) -> Self {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        unsafe {
            let bits = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())));
            Self(_mm512_castsi512_ps(bits), token)
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16) {
        // SAFETY: the token proves that the processor has the instructions; the caller guarantees the pointer.
        unsafe {
            let bits = _mm512_castps_si512(self.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(bits)));
        }
    }
    #[inline(always)]
    fn if_greater(self, than: Self, yes: Self, no: Self) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, than.0), no.0, yes.0) }, self.1)
    }
    #[inline(always)]
    fn if_equal(self, other: Self, yes: Self, no: Self) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0), no.0, yes.0) }, self.1)
    }
    #[inline(always)]
    fn rounded(self) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) }, self.1)
    }
    #[inline(always)]
    fn times_power_of_two(self, exponent: Self) -> Self {
        // SAFETY: the token proves that the processor has the instructions.
        Self(unsafe { _mm512_scalef_ps(self.0, exponent.0) }, self.1)
    }
    #[inline(always)]
    fn mantissa_and_exponent(self) -> (Self, Self) {
        // SAFETY: the token proves that the processor has the instructions.
        unsafe {
            let mantissa = _mm512_getmant_ps::<_MM_MANT_NORM_P5_1, _MM_MANT_SIGN_ZERO>(self.0);
            let exponent = _mm512_add_ps(_mm512_getexp_ps(self.0), _mm512_set1_ps(1.0));
            (Self(mantissa, self.1), Self(exponent, self.1))
        }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: the token proves that the processor has the instructions.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }
}
