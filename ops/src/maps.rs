//! Feature maps in NHWC, and bands of their rows padded with zeros.

/// The shape of maps, `[batch, rows, columns, channels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Photos.
    pub batch: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Channels.
    pub channels: usize,
}

impl Shape {
    /// Number of pixels.
    #[must_use]
    pub fn pixels(&self) -> usize {
        self.batch * self.rows * self.columns
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pixels() * self.channels
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of a row.
    #[must_use]
    pub fn row_len(&self) -> usize {
        self.columns * self.channels
    }

    /// The same maps with another number of channels.
    #[must_use]
    pub fn with_channels(self, channels: usize) -> Self {
        Self { channels, ..self }
    }
}

/// Maps that a convolution reads.
#[derive(Debug, Clone, Copy)]
pub enum Maps<'a> {
    /// Feature maps: zeros beyond their edge.
    Features(&'a [f32]),
    /// Photos: 255 means 1.
    Photos(Photos<'a>),
}

/// Photos, `[batch, rows, columns, channels]`.
#[derive(Debug, Clone, Copy)]
pub struct Photos<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// What lies beyond the edge, for each channel, as a share of 255; zeros if it is empty.
    pub fill: &'a [f32],
}

impl<'a> Photos<'a> {
    /// Photos with zeros beyond their edge.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, fill: &[] }
    }
}

impl Maps<'_> {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Features(elements) => elements.len(),
            Self::Photos(photos) => photos.bytes.len(),
        }
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A pixel beyond the edge.
    pub(super) fn edge(&self, channels: usize) -> Vec<f32> {
        match self {
            Self::Photos(Photos { fill, .. }) if !fill.is_empty() => {
                assert_eq!(fill.len(), channels);
                fill.to_vec()
            }
            _ => vec![0.0; channels],
        }
    }

    /// Copies elements from `start` on.
    pub(super) fn copy(&self, start: usize, to: &mut [f32]) {
        match self {
            Self::Features(elements) => to.copy_from_slice(&elements[start..start + to.len()]),
            Self::Photos(photos) => {
                for (to, &element) in to.iter_mut().zip(&photos.bytes[start..]) {
                    *to = f32::from(element) / 255.0;
                }
            }
        }
    }
}

/// Copies pixels of several maps, `[pixels, channels]` each, side by side: their channels follow one another.
pub(super) fn interleave<T: Copy>(maps: &[(&[T], usize)], to: &mut [T]) {
    let stride = maps.iter().map(|(_, channels)| channels).sum();
    let mut offset = 0;
    for &(map, channels) in maps {
        // A few elements are moved faster than by a call of `memcpy` for each pixel.
        match channels {
            6 => copy_pixels::<T, 6>(map, to, stride, offset),
            8 => copy_pixels::<T, 8>(map, to, stride, offset),
            16 => copy_pixels::<T, 16>(map, to, stride, offset),
            24 => copy_pixels::<T, 24>(map, to, stride, offset),
            32 => copy_pixels::<T, 32>(map, to, stride, offset),
            _ => {
                let pixels = to.chunks_exact_mut(stride).zip(map.chunks_exact(channels));
                pixels.for_each(|(to, from)| to[offset..][..channels].copy_from_slice(from));
            }
        }
        offset += channels;
    }
}

/// Copies pixels of `N` elements to ones of `stride`, from `offset` on.
fn copy_pixels<T: Copy, const N: usize>(from: &[T], to: &mut [T], stride: usize, offset: usize) {
    for (to, from) in to.chunks_exact_mut(stride).zip(from.as_chunks::<N>().0) {
        to[offset..][..N].copy_from_slice(from);
    }
}

/// A row that a product reads: a pixel reads `run` elements, and the next one starts `stride` further on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a, T> {
    pub(super) elements: &'a [T],
    pub(super) stride: usize,
    pub(super) run: usize,
}

impl<T> Source<'_, T> {
    /// Whether so many pixels, at least one, are in the row.
    pub(super) fn holds(&self, pixels: usize) -> bool {
        pixels > 0 && self.elements.len() >= (pixels - 1) * self.stride + self.run
    }
}

/// Rows processed at once: 8 rows and the two around them take 128 KB at every level of the network, which fits a
/// core's second-level cache.
const BAND_ROWS: usize = 8;
/// Minimum number of bands per thread, to balance the load.
const BANDS_PER_THREAD: usize = 6;

/// Consecutive rows of one photo.
#[derive(Debug, Clone, Copy)]
pub(super) struct Band {
    pub(super) photo: usize,
    pub(super) first_row: usize,
    pub(super) rows: usize,
}

impl Band {
    /// Splits maps into bands for a number of threads.
    pub(super) fn all(shape: Shape, threads: usize) -> Vec<Self> {
        let fair = (shape.batch * shape.rows).div_ceil(threads * BANDS_PER_THREAD).max(1);
        Self::of_height(shape, BAND_ROWS.min(fair))
    }

    /// Splits maps into bands of so many rows; the last of a photo may have less.
    pub(super) fn of_height(shape: Shape, height: usize) -> Vec<Self> {
        let of_photo = |photo| {
            let starts = (0..shape.rows).step_by(height);
            starts.map(move |first_row| Self { photo, first_row, rows: height.min(shape.rows - first_row) })
        };
        (0..shape.batch).flat_map(of_photo).collect()
    }

    /// Index of the band's first pixel.
    pub(super) fn first_pixel(&self, shape: Shape) -> usize {
        (self.photo * shape.rows + self.first_row) * shape.columns
    }

    pub(super) fn pixels(&self, shape: Shape) -> usize {
        self.rows * shape.columns
    }

    /// The band's part of maps.
    pub(super) fn of<'a, T>(&self, shape: Shape, maps: &'a [T]) -> &'a [T] {
        let start = self.first_pixel(shape) * shape.channels;
        &maps[start..start + self.pixels(shape) * shape.channels]
    }

    /// Number of elements of the band when padded with a pixel of zeros on all sides.
    pub(super) fn padded_len(&self, shape: Shape) -> usize {
        (self.rows + 2) * padded_row(shape)
    }

    /// Fills `to` with the band and the pixels around it; beyond the edges of the photo each is `edge`, `[channels]`.
    /// `copy` copies a row of the maps, given its first pixel.
    pub(super) fn pad<T: Copy>(&self, shape: Shape, edge: &[T], to: &mut [T], copy: impl Fn(usize, &mut [T])) {
        for (row, to) in to.chunks_exact_mut(padded_row(shape)).enumerate() {
            self.pad_row(shape, row, edge, to, &copy);
        }
    }

    /// One row of that: row 0 is the one above the band.
    pub(super) fn pad_row<T: Copy>(
        &self,
        shape: Shape,
        row: usize,
        edge: &[T],
        to: &mut [T],
        copy: impl Fn(usize, &mut [T]),
    ) {
        let (channels, row) = (shape.channels, self.first_row + row);
        assert_eq!(edge.len(), channels);
        if row == 0 || row > shape.rows {
            to.chunks_exact_mut(channels).for_each(|to| to.copy_from_slice(edge));
            return;
        }
        let (left, rest) = to.split_at_mut(channels);
        let (inner, right) = rest.split_at_mut(shape.row_len());
        left.copy_from_slice(edge);
        copy((self.photo * shape.rows + row - 1) * shape.columns, inner);
        right.copy_from_slice(edge);
    }
}

/// Number of elements of a row padded with one pixel at either end.
pub(super) fn padded_row(shape: Shape) -> usize {
    (shape.columns + 2) * shape.channels
}

/// Splits maps into the parts that belong to the bands, in order.
pub(super) fn cut<'a, T>(bands: &[Band], shape: Shape, mut maps: &'a mut [T]) -> Vec<&'a mut [T]> {
    let mut parts = Vec::with_capacity(bands.len());
    for band in bands {
        let (part, rest) = maps.split_at_mut(band.pixels(shape) * shape.channels);
        parts.push(part);
        maps = rest;
    }
    parts
}
