//! Photos with channels of zeros, so that instructions that multiply several channels at once can read them.

/// Copies pixels of photos, with `own` channels, to ones with `held`, the rest of which are zeros.
pub(crate) fn copy_photo<T: Copy + Default>(
    [own, held]: [usize; 2],
    pixels: &[u8],
    to: &mut [T],
    element: impl Fn(u8) -> T,
) {
    match [own, held] {
        _ if own == held => to.iter_mut().zip(pixels).for_each(|(to, &byte)| *to = element(byte)),
        [3, 4] => copy_photo_of::<T, 3, 4>(pixels, to, element),
        [3, 8] => copy_photo_of::<T, 3, 8>(pixels, to, element),
        [12, 16] => copy_photo_of::<T, 12, 16>(pixels, to, element),
        _ => {
            for (to, pixel) in to.chunks_exact_mut(held).zip(pixels.chunks_exact(own)) {
                to.fill(T::default());
                to.iter_mut().zip(pixel).for_each(|(to, &byte)| *to = element(byte));
            }
        }
    }
}

/// The same for numbers that are known, without calls for each pixel.
fn copy_photo_of<T: Copy + Default, const OWN: usize, const HELD: usize>(
    pixels: &[u8],
    to: &mut [T],
    element: impl Fn(u8) -> T,
) {
    for (to, pixel) in to.as_chunks_mut::<HELD>().0.iter_mut().zip(pixels.as_chunks::<OWN>().0) {
        *to = std::array::from_fn(|at| if at < OWN { element(pixel[at]) } else { T::default() });
    }
}
