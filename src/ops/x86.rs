//! AVX2 and AVX-512.
//!
//! The types here are only created within [`run_avx2`] and [`run_avx512`], which check that the processor supports the
//! instructions: the requirements of the intrinsics therefore hold wherever the types are used below.

use std::arch::x86_64::{
    __m256, __m512, _CMP_EQ_OQ, _CMP_GT_OQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_MANT_NORM_P5_1,
    _MM_MANT_SIGN_ZERO, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_blendv_ps, _mm256_castps_si256,
    _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_cvtps_epi32, _mm256_div_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_or_si256, _mm256_round_ps, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps,
    _mm512_cmp_ps_mask, _mm512_div_ps, _mm512_fmadd_ps, _mm512_getexp_ps, _mm512_getmant_ps, _mm512_loadu_ps,
    _mm512_mask_blend_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_roundscale_ps,
    _mm512_scalef_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::simd::{Job, Simd, Vector};

/// Whether the processor has AVX2 and FMA.
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Whether the processor has the parts of AVX-512 that the kernels use.
pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// Runs a job with AVX2 and FMA.
pub(super) fn run_avx2<J: Job>(job: J) -> J::Output {
    #[target_feature(enable = "avx2,fma")]
    unsafe fn run<J: Job>(job: J) -> J::Output {
        job.run::<Avx2>()
    }
    assert!(has_avx2(), "this processor has no AVX2");
    // SAFETY: the processor has the instructions, as just checked.
    unsafe { run(job) }
}

/// Runs a job with AVX-512.
pub(super) fn run_avx512<J: Job>(job: J) -> J::Output {
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn run<J: Job>(job: J) -> J::Output {
        job.run::<Avx512>()
    }
    assert!(has_avx2() && has_avx512(), "this processor has no AVX-512");
    // SAFETY: the processor has the instructions, as just checked.
    unsafe { run(job) }
}

pub(super) struct Avx2;

impl Simd for Avx2 {
    type Wide = Of8;
    type Eight = Of8;
    const IS_512: bool = false;
}

pub(super) struct Avx512;

impl Simd for Avx512 {
    type Wide = Of16;
    type Eight = Of8;
    const IS_512: bool = true;
}

/// 8 lanes.
#[derive(Clone, Copy)]
pub(super) struct Of8(__m256);

/// 16 lanes.
#[derive(Clone, Copy)]
pub(super) struct Of16(__m512);

/// Everything that differs only in the vector width. SAFETY of every block: see the module.
macro_rules! arithmetic {
    ($lanes:literal, $load:ident, $store:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $max:ident,
     $min:ident, $fmadd:ident) => {
        const LANES: usize = $lanes;

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: guaranteed by the caller.
            Self(unsafe { $load(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: guaranteed by the caller.
            unsafe { $store(to, self.0) }
        }
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
            Self(unsafe { $splat(value) })
        }
        #[inline(always)]
        fn plus(self, other: Self) -> Self {
            // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
            Self(unsafe { $add(self.0, other.0) })
        }
        #[inline(always)]
        fn minus(self, other: Self) -> Self {
            // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
            Self(unsafe { $sub(self.0, other.0) })
        }
        #[inline(always)]
        fn times(self, other: Self) -> Self {
            // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
            Self(unsafe { $mul(self.0, other.0) })
        }
        #[inline(always)]
        fn over(self, other: Self) -> Self {
            // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
            Self(unsafe { $div(self.0, other.0) })
        }
        #[inline(always)]
        fn larger(self, other: Self) -> Self {
            // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
            Self(unsafe { $max(self.0, other.0) })
        }
        #[inline(always)]
        fn smaller(self, other: Self) -> Self {
            // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
            Self(unsafe { $min(self.0, other.0) })
        }
        #[inline(always)]
        fn times_plus(self, by: Self, plus: Self) -> Self {
            // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
            Self(unsafe { $fmadd(self.0, by.0, plus.0) })
        }
    };
}

impl Vector for Of8 {
    arithmetic!(
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
    fn if_greater(self, than: Self, yes: Self, no: Self) -> Self {
        // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, than.0)) })
    }
    #[inline(always)]
    fn if_equal(self, other: Self, yes: Self, no: Self) -> Self {
        // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0)) })
    }
    #[inline(always)]
    fn rounded(self) -> Self {
        // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
        Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn times_power_of_two(self, exponent: Self) -> Self {
        // The exponent field of a float is biased by 127 and starts at bit 23.
        // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
        Self(unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(exponent.0), _mm256_set1_epi32(127));
            _mm256_mul_ps(self.0, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
        })
    }
    #[inline(always)]
    fn mantissa_and_exponent(self) -> (Self, Self) {
        // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
        unsafe {
            let bits = _mm256_castps_si256(self.0);
            let fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff));
            let mantissa = _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3f00_0000)));
            let exponent = _mm256_cvtepi32_ps(_mm256_srli_epi32::<23>(bits));
            (Self(mantissa), Self(_mm256_sub_ps(exponent, _mm256_set1_ps(126.0))))
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
    fn if_greater(self, than: Self, yes: Self, no: Self) -> Self {
        // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
        Self(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, than.0), no.0, yes.0) })
    }
    #[inline(always)]
    fn if_equal(self, other: Self, yes: Self, no: Self) -> Self {
        // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
        Self(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0), no.0, yes.0) })
    }
    #[inline(always)]
    fn rounded(self) -> Self {
        // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn times_power_of_two(self, exponent: Self) -> Self {
        // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
        Self(unsafe { _mm512_scalef_ps(self.0, exponent.0) })
    }
    #[inline(always)]
    fn mantissa_and_exponent(self) -> (Self, Self) {
        // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
        unsafe {
            let mantissa = _mm512_getmant_ps::<_MM_MANT_NORM_P5_1, _MM_MANT_SIGN_ZERO>(self.0);
            (Self(mantissa), Self(_mm512_add_ps(_mm512_getexp_ps(self.0), _mm512_set1_ps(1.0))))
        }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: values of this type exist only within `run_avx2` and `run_avx512`, which check for the instructions.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }
}
