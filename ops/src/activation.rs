//! What follows a layer's sum, fused into whoever writes it: an activation or the way back through one, and what is added.

use super::simd::{Stored, Vector};

/// An activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The sum as it is.
    None,
    /// max(0, sum).
    Relu,
    /// min(6, max(0, sum)).
    Relu6,
}

/// The way back through the activation whose output are `maps`: a gradient is zero wherever they are not positive, and for
/// [`Activation::Relu6`] wherever they are not below 6 either.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a, T = f32> {
    /// The activation.
    pub activation: Activation,
    /// Its output, laid out like the gradient.
    pub maps: &'a [T],
}

impl<'a, T> Mask<'a, T> {
    /// The mask of a `ReLU`'s output.
    #[must_use]
    pub fn relu(maps: &'a [T]) -> Self {
        Self { activation: Activation::Relu, maps }
    }

    /// The mask of a part of the maps.
    pub(super) fn map(self, part: impl FnOnce(&'a [T]) -> &'a [T]) -> Self {
        Self { maps: part(self.maps), ..self }
    }
}

impl Activation {
    #[inline(always)]
    fn of<V: Vector>(self, sum: V) -> V {
        match self {
            Self::None => sum,
            Self::Relu => sum.larger(sum.all(0.0)),
            Self::Relu6 => sum.larger(sum.all(0.0)).smaller(sum.all(6.0)),
        }
    }

    /// The gradient before the activation, from the one after it and its output.
    #[inline(always)]
    fn back<V: Vector>(self, gradient: V, output: V) -> V {
        let zero = gradient.all(0.0);
        match self {
            Self::None => gradient,
            Self::Relu => output.if_greater(zero, gradient, zero),
            Self::Relu6 => output.if_greater(zero, gradient.all(6.0).if_greater(output, gradient, zero), zero),
        }
    }
}

/// What is done to a sum before it is written. Slices are laid out like what is written; `T` is how they hold
/// their numbers.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a, T = f32> {
    /// Of an output: the activation, then the residual connection is added.
    Output { activation: Activation, residual: Option<&'a [T]> },
    /// Of a gradient: the one that comes through a skip connection is added, then both go through the mask.
    Gradient { skip: Option<&'a [T]>, mask: Option<Mask<'a, T>> },
}

impl<'a, T: Stored> Finish<'a, T> {
    /// The sum as it is.
    pub(super) const PLAIN: Self = Self::Output { activation: Activation::None, residual: None };

    /// The same with a part of each slice.
    pub(super) fn map(self, part: impl Fn(&'a [T]) -> &'a [T]) -> Self {
        match self {
            Self::Output { activation, residual } => Self::Output { activation, residual: residual.map(part) },
            Self::Gradient { skip, mask } => {
                Self::Gradient { skip: skip.map(&part), mask: mask.map(|mask| mask.map(&part)) }
            }
        }
    }

    /// Whether all slices have this length.
    pub(super) fn fits(&self, len: usize) -> bool {
        let of = |slice: Option<&[T]>| slice.is_none_or(|it| it.len() == len);
        match self {
            Self::Output { residual, .. } => of(*residual),
            Self::Gradient { skip, mask } => of(*skip) && of(mask.map(|it| it.maps)),
        }
    }

    /// Whether there are no slices.
    pub(super) fn is_bare(&self) -> bool {
        matches!(self, Self::Output { residual: None, .. } | Self::Gradient { skip: None, mask: None })
    }

    /// Asks for what a later call for `place` reads.
    #[inline(always)]
    pub(super) fn prefetch<V: Vector>(&self, token: V::Token, place: usize) {
        let (Self::Output { residual: first, .. } | Self::Gradient { skip: first, .. }) = self;
        if let Some(slice) = first {
            V::prefetch(token, slice.as_ptr().wrapping_add(place));
        }
        if let Self::Gradient { mask: Some(mask), .. } = self {
            V::prefetch(token, mask.maps.as_ptr().wrapping_add(place));
        }
    }

    /// What is written at `place` of the output.
    #[inline(always)]
    pub(super) fn of<V: Vector>(&self, sum: V, place: usize) -> V {
        match *self {
            Self::Output { activation, residual } => {
                let output = activation.of(sum);
                match residual {
                    Some(residual) => output.plus(T::of(sum.token(), &residual[place..])),
                    None => output,
                }
            }
            Self::Gradient { skip, mask } => {
                let gradient = match skip {
                    Some(skip) => sum.plus(T::of(sum.token(), &skip[place..])),
                    None => sum,
                };
                match mask {
                    Some(mask) => mask.activation.back(gradient, T::of(sum.token(), &mask.maps[place..])),
                    None => gradient,
                }
            }
        }
    }
}
