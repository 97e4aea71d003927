//! Loops over a photo and many others: what the correlations of all pairs of photos are made of. They are never inlined: their
//! callers may be compiled for size, and they would be, too.

/// Photos of a block: the sums of a block fit in the first-level cache.
pub const BLOCK: usize = 2048;

/// The photos of a block by cell, of those that have the cell.
#[derive(Debug, Clone, Copy)]
pub struct Lists<'a> {
    /// Where the list of each cell starts, and the end of the last one.
    pub starts: &'a [usize],
    /// Places of the photos in the block, less than [`BLOCK`].
    pub places: &'a [u16],
    /// Their shares.
    pub shares: &'a [f32],
}

impl Lists<'_> {
    /// Adds the dot product of each photo with a row, given by its cells and their shares, to its sum. Terms are added in the
    /// order of the row's cells.
    #[inline(never)]
    pub fn add_products(&self, cells: &[u16], shares: &[f32], sums: &mut [f64; BLOCK]) {
        for (&cell, &share) in cells.iter().zip(shares) {
            let list = self.starts[usize::from(cell)]..self.starts[usize::from(cell) + 1];
            for (&place, &other) in self.places[list.clone()].iter().zip(&self.shares[list]) {
                sums[usize::from(place) % BLOCK] += f64::from(share) * f64::from(other);
            }
        }
    }

    /// Adds the cells that each photo has in common with a row to its sums, as [`Lists::add_products`].
    #[inline(never)]
    pub fn add_pairs(&self, cells: &[u16], shares: &[f32], sums: &mut [PairSums]) {
        for (&cell, &share) in cells.iter().zip(shares) {
            let list = self.starts[usize::from(cell)]..self.starts[usize::from(cell) + 1];
            for (&place, &other) in self.places[list.clone()].iter().zip(&self.shares[list]) {
                sums[usize::from(place)].add(f64::from(share), f64::from(other));
            }
        }
    }
}

/// Mean of a row, and 1 / norm of the row minus its mean.
#[derive(Debug, Clone, Copy)]
pub struct Moments {
    /// Mean of all cells.
    pub mean: f64,
    /// NaN if all cells are equal: the correlation is then undefined.
    pub scale: f64,
}

impl Moments {
    /// How much of the row of `cells` is its mean: `cells m^2 / s^2`, about 0.01 if it has few of them; NaN if all are equal.
    #[must_use]
    pub fn flatness(self, cells: f64) -> f64 {
        cells * (self.mean * self.scale).powi(2)
    }

    /// `(a . b - n m_a m_b) / (s_a s_b)`, within -1 to 1, of a row of `cells` with others, from the products `a . b`, and the means
    /// and scales of the others. NaN where a scale is.
    #[inline(never)]
    pub fn correlate(self, cells: f64, products: &[f64], means: &[f64], scales: &[f64], correlations: &mut [f32]) {
        for (((correlation, product), mean), scale) in correlations.iter_mut().zip(products).zip(means).zip(scales) {
            let covariance = product - cells * (self.mean * mean);
            *correlation = (covariance * (self.scale * scale)).clamp(-1.0, 1.0) as f32;
        }
    }
}

/// Whether any of the values is at least `floor`. They are counted rather than searched, so that the comparisons are vectorized.
#[must_use]
#[inline(never)]
pub fn any_at_least(values: &[f32], floor: f32) -> bool {
    values.iter().filter(|value| **value >= floor).count() > 0
}

/// Whether any of the values is at least its own floor; counted as by [`any_at_least`].
#[must_use]
#[inline(never)]
pub fn any_at_least_its_own(values: &[f32], floors: &[f32]) -> bool {
    values.iter().zip(floors).filter(|(value, floor)| value >= floor).count() > 0
}

/// Sums over pairs of numbers a, b: the count, and the sums of a, a^2, b, b^2 and ab.
#[derive(Debug, Clone, Copy, Default)]
pub struct PairSums(pub [f64; 6]);

/// Minimum ratio of a variance to its sum of squares. Above it, at least 10 digits of the variance are left in double
/// precision; below it, perhaps none.
const LEAST_VARIANCE: f64 = 1e-6;

impl PairSums {
    /// Adds a pair.
    pub fn add(&mut self, a: f64, b: f64) {
        let terms = [1.0, a, a * a, b, b * b, a * b];
        self.0.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    }

    /// How many pairs were added.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.0[0]
    }

    /// The correlation; `None` if one side does not vary, or by too little compared with its mean to be computed.
    #[must_use]
    #[inline(never)]
    pub fn correlation(&self) -> Option<f64> {
        let [n, a, aa, b, bb, ab] = self.0;
        let (of_a, of_b) = (n * aa - a * a, n * bb - b * b);
        let told = of_a > LEAST_VARIANCE * n * aa && of_b > LEAST_VARIANCE * n * bb;
        told.then(|| ((n * ab - a * b) / (of_a * of_b).sqrt()).clamp(-1.0, 1.0))
    }
}
