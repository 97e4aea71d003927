//! Vectors of f32 in which the kernels are written.
//!
//! A kernel is a [`Job`]: code generic over [`Simd`], inlined entirely into one function per instruction set.
//! [`super::Instructions`] chooses at run time which of them runs.
//!
//! A vector is made from a token, which proves that the processor has the instructions of its methods: outside `x86`
//! there is no other way to a token than to ask the processor, and none to a vector without one. Tokens have no size.

/// Work that can be done with any instruction set.
pub(super) trait Job {
    /// The result.
    type Output;

    /// Does the work. Implementations, and everything they call, must be `#[inline(always)]`: only inlined code is
    /// compiled for the instruction set.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set: the proof that the processor has it.
pub(super) trait Simd: Copy {
    /// The widest vector.
    type Wide: Vector;
    /// A vector of 8, for maps of 8 channels.
    type Eight: Vector;
    /// True if `Wide` has 16 lanes and there are 32 registers; otherwise it has 8 and there are 16.
    const IS_512: bool;

    /// The token of the widest vector.
    fn wide(self) -> <Self::Wide as Vector>::Token;
    /// The token of the vector of 8.
    fn eight(self) -> <Self::Eight as Vector>::Token;
}

/// Several f32, processed at once.
pub(super) trait Vector: Copy {
    /// The proof that the processor has the instructions of this type.
    type Token: Copy;
    /// The number of lanes.
    const LANES: usize;

    /// The proof: without it there would be no vector.
    fn token(self) -> Self::Token;
    /// # Safety
    /// `LANES` numbers can be read from `from`.
    unsafe fn load(token: Self::Token, from: *const f32) -> Self;
    /// # Safety
    /// `LANES` numbers can be written to `to`.
    unsafe fn store(self, to: *mut f32);
    /// Brings what is at an address, which may be none, into the first-level cache.
    fn prefetch<T>(token: Self::Token, from: *const T);
    /// # Safety
    /// `LANES` bf16 numbers can be read from `from`.
    unsafe fn load_bf16(token: Self::Token, from: *const u16) -> Self;
    /// Rounds to the nearest bf16 numbers, ties to even.
    ///
    /// # Safety
    /// `LANES` numbers can be written to `to`.
    unsafe fn store_bf16(self, to: *mut u16);
    fn splat(token: Self::Token, value: f32) -> Self;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn over(self, other: Self) -> Self;
    fn larger(self, other: Self) -> Self;
    fn smaller(self, other: Self) -> Self;
    /// self x by + plus, lane by lane.
    fn times_plus(self, by: Self, plus: Self) -> Self;
    /// `yes` in lanes where self > than, `no` elsewhere.
    fn if_greater(self, than: Self, yes: Self, no: Self) -> Self;
    /// `yes` in lanes where self = other, `no` elsewhere.
    fn if_equal(self, other: Self, yes: Self, no: Self) -> Self;
    /// The nearest integer.
    fn rounded(self) -> Self;
    /// self x 2^exponent, for integer exponents from -126 to 127.
    fn times_power_of_two(self, exponent: Self) -> Self;
    /// m and e such that self = m x 2^e with m from 0.5 to 1, for positive normal numbers.
    fn mantissa_and_exponent(self) -> (Self, Self);
    /// The sum of all lanes.
    fn sum(self) -> f32;

    /// Loads the first `LANES` elements of a slice.
    #[inline(always)]
    fn of(token: Self::Token, slice: &[f32]) -> Self {
        assert!(slice.len() >= Self::LANES);
        // SAFETY: the slice is long enough.
        unsafe { Self::load(token, slice.as_ptr()) }
    }

    /// Stores into the first `LANES` elements of a slice.
    #[inline(always)]
    fn put(self, slice: &mut [f32]) {
        assert!(slice.len() >= Self::LANES);
        // SAFETY: the slice is long enough.
        unsafe { self.store(slice.as_mut_ptr()) }
    }

    /// The same number in all lanes.
    #[inline(always)]
    fn all(self, value: f32) -> Self {
        Self::splat(self.token(), value)
    }

    /// e^self, to 2 units in the last place (after S. Moshier's Cephes library, `expf`).
    #[inline(always)]
    fn exp(self) -> Self {
        let x = self.larger(self.all(-87.0)).smaller(self.all(88.0));
        let n = x.times(self.all(std::f32::consts::LOG2_E)).rounded();
        // ln 2 in two parts, the first with few digits, so that the difference is exact.
        let r = n.times_plus(self.all(-0.693_359_4), x);
        let r = n.times_plus(self.all(2.121_944_4e-4), r);
        let mut series = self.all(1.987_569_1e-4);
        for next in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
            series = series.times_plus(r, self.all(next));
        }
        let series = series.times_plus(r.times(r), r.plus(self.all(1.0)));
        series.times_power_of_two(n)
    }

    /// ln self, for positive normal numbers (after S. Moshier's Cephes library, `logf`).
    #[inline(always)]
    fn ln(self) -> Self {
        let (mantissa, exponent) = self.mantissa_and_exponent();
        let one = self.all(1.0);
        // Moves m from 0.5..1 to 0.71..1.41, around 1.
        let root = self.all(std::f32::consts::FRAC_1_SQRT_2);
        let exponent = root.if_greater(mantissa, exponent.minus(one), exponent);
        let x = root.if_greater(mantissa, mantissa.plus(mantissa), mantissa).minus(one);
        let square = x.times(x);
        let mut series = self.all(7.037_683_6e-2);
        for next in [
            -0.115_146_1,
            0.116_769_99,
            -0.124_201_41,
            0.142_493_23,
            -0.166_680_58,
            0.200_007_15,
            -0.249_999_94,
            0.333_333_3,
        ] {
            series = series.times_plus(x, self.all(next));
        }
        let series = series.times(x).times(square);
        let series = exponent.times_plus(self.all(-2.121_944_4e-4), series);
        let series = square.times_plus(self.all(-0.5), series);
        exponent.times_plus(self.all(0.693_359_4), x.plus(series))
    }
}

/// Numbers as maps hold them: f32, or bf16 as raw bits.
pub(super) trait Stored: Copy + Send + Sync {
    const ZERO: Self;

    /// # Safety
    /// `LANES` numbers can be read from `from`.
    unsafe fn load<V: Vector>(token: V::Token, from: *const Self) -> V;
    /// # Safety
    /// `LANES` numbers can be written to `to`.
    unsafe fn store<V: Vector>(values: V, to: *mut Self);

    /// Loads the first `LANES` elements of a slice.
    #[inline(always)]
    fn of<V: Vector>(token: V::Token, slice: &[Self]) -> V {
        assert!(slice.len() >= V::LANES);
        // SAFETY: the slice is long enough.
        unsafe { Self::load(token, slice.as_ptr()) }
    }

    /// Stores into the first `LANES` elements of a slice.
    #[inline(always)]
    fn put<V: Vector>(values: V, slice: &mut [Self]) {
        assert!(slice.len() >= V::LANES);
        // SAFETY: the slice is long enough.
        unsafe { Self::store(values, slice.as_mut_ptr()) }
    }
}

impl Stored for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    unsafe fn load<V: Vector>(token: V::Token, from: *const Self) -> V {
        // SAFETY: guaranteed by the caller.
        unsafe { V::load(token, from) }
    }
    #[inline(always)]
    unsafe fn store<V: Vector>(values: V, to: *mut Self) {
        // SAFETY: guaranteed by the caller.
        unsafe { values.store(to) }
    }
}

impl Stored for u16 {
    const ZERO: Self = 0;

    #[inline(always)]
    unsafe fn load<V: Vector>(token: V::Token, from: *const Self) -> V {
        // SAFETY: guaranteed by the caller.
        unsafe { V::load_bf16(token, from) }
    }
    #[inline(always)]
    unsafe fn store<V: Vector>(values: V, to: *mut Self) {
        // SAFETY: guaranteed by the caller.
        unsafe { values.store_bf16(to) }
    }
}

/// Plain Rust, which needs no proof.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Simd for Portable {
    type Wide = Array;
    type Eight = Array;
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

/// A vector as an array: the compiler turns it into what the processor supports.
#[derive(Clone, Copy)]
pub(super) struct Array([f32; 8]);

impl Array {
    /// Written out: the loop of `std::array::from_fn`, in every operation of every kernel, takes the compiler longer.
    #[inline(always)]
    fn of_lanes(f: impl Fn(usize) -> f32) -> Self {
        Self([f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)])
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self::of_lanes(|lane| f(self.0[lane]))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self::of_lanes(|lane| f(self.0[lane], other.0[lane]))
    }
}

impl Vector for Array {
    type Token = Portable;
    const LANES: usize = 8;

    #[inline(always)]
    fn token(self) -> Portable {
        Portable
    }
    #[inline(always)]
    unsafe fn load(_: Portable, from: *const f32) -> Self {
        // SAFETY: guaranteed by the caller.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    fn prefetch<T>(_: Portable, _: *const T) {}
    #[inline(always)]
    unsafe fn load_bf16(_: Portable, from: *const u16) -> Self {
        // SAFETY: guaranteed by the caller.
        let halves = unsafe { from.cast::<[u16; 8]>().read_unaligned() };
        Self(halves.map(|it| f32::from_bits(u32::from(it) << 16)))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16) {
        let rounded = |value: f32| {
            let bits = value.to_bits();
            (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
        };
        // SAFETY: guaranteed by the caller.
        unsafe { to.cast::<[u16; 8]>().write_unaligned(self.0.map(rounded)) }
    }
    #[inline(always)]
    fn splat(_: Portable, value: f32) -> Self {
        Self([value; 8])
    }
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn times(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn over(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn times_plus(self, by: Self, plus: Self) -> Self {
        // Not `mul_add`: without an FMA instruction that is a function call.
        Self::of_lanes(|lane| self.0[lane] * by.0[lane] + plus.0[lane])
    }
    #[inline(always)]
    fn if_greater(self, than: Self, yes: Self, no: Self) -> Self {
        Self::of_lanes(|lane| if self.0[lane] > than.0[lane] { yes.0[lane] } else { no.0[lane] })
    }
    #[inline(always)]
    fn if_equal(self, other: Self, yes: Self, no: Self) -> Self {
        Self::of_lanes(|lane| if self.0[lane] == other.0[lane] { yes.0[lane] } else { no.0[lane] })
    }
    #[inline(always)]
    fn rounded(self) -> Self {
        // Adding 1.5 x 2^23 leaves no bits for a fraction: correct for numbers below 2^22, and no function call.
        const SHIFT: f32 = 12_582_912.0;
        self.map(|value| (value + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn times_power_of_two(self, exponent: Self) -> Self {
        self.zip(exponent, |value, exponent| value * f32::from_bits(((exponent as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn mantissa_and_exponent(self) -> (Self, Self) {
        let mantissa = self.map(|value| f32::from_bits((value.to_bits() & 0x007f_ffff) | 0x3f00_0000));
        (mantissa, self.map(|value| (value.to_bits() >> 23) as i32 as f32 - 126.0))
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        self.0.iter().sum()
    }
}
