//! How strongly two things that are worn go together.

/// Photos by which a lift is smoothed: as many as it takes to believe a lift half ([`Association::smoothed_lift`]).
pub const SMOOTHING: f64 = 10.0;

/// The counts of photos that say how two things, a and b, occur together. With P the share of the photos:
///
/// | measure | is |
/// | --- | --- |
/// | support | P(a, b) |
/// | confidence | P(b \| a) = P(a, b) / P(a) |
/// | lift | P(a, b) / (P(a) P(b)): 1 if they are independent (Brin et al., SIGMOD 1997, who call it interest) |
/// | PMI | log2 of the lift, in bits (Church and Hanks, Computational Linguistics 16, 1990) |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Association {
    /// Photos in which anything is worn.
    pub photos: u32,
    /// Those with a, at least one.
    pub with_a: u32,
    /// Those with b, at least one.
    pub with_b: u32,
    /// Those with both.
    pub with_both: u32,
}

impl Association {
    /// Share of the photos that have both, 0 to 1.
    #[must_use]
    pub fn support(&self) -> f64 {
        f64::from(self.with_both) / f64::from(self.photos)
    }

    /// Share of the photos with a that also have b, 0 to 1.
    #[must_use]
    pub fn confidence(&self) -> f64 {
        f64::from(self.with_both) / f64::from(self.with_a)
    }

    /// Share of all photos that have b, 0 to 1: what the confidence would be if a did not matter.
    #[must_use]
    pub fn usual(&self) -> f64 {
        f64::from(self.with_b) / f64::from(self.photos)
    }

    /// How many times as often as usual b occurs with a; 0 or more.
    #[must_use]
    pub fn lift(&self) -> f64 {
        self.confidence() / self.usual()
    }

    /// Pointwise mutual information in bits; minus infinity if they never occur together.
    #[must_use]
    pub fn pmi(&self) -> f64 {
        self.lift().log2()
    }

    /// The lift if there were [`SMOOTHING`] more photos with a, of which the usual share has b: the m-estimate of the
    /// confidence (Cestnik, ECAI 1990) over what is usual. A lift from few photos is drawn towards 1.
    #[must_use]
    pub fn smoothed_lift(&self) -> f64 {
        let usual = self.usual();
        (f64::from(self.with_both) + SMOOTHING * usual) / ((f64::from(self.with_a) + SMOOTHING) * usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measures_are_those_worked_out_by_hand() {
        // 20 of 200 photos show a hat, 40 a scarf, 10 both.
        let hat_scarf = Association { photos: 200, with_a: 20, with_b: 40, with_both: 10 };
        assert_eq!((hat_scarf.support(), hat_scarf.confidence(), hat_scarf.usual()), (0.05, 0.5, 0.2));
        assert!((hat_scarf.lift() - 2.5).abs() < 1e-12);
        assert!((hat_scarf.pmi() - 2.5f64.log2()).abs() < 1e-12);
        // (10 + 10 * 0.2) / ((20 + 10) * 0.2) = 12 / 6.
        assert!((hat_scarf.smoothed_lift() - 2.0).abs() < 1e-12);
    }

    #[test]
    fn one_photo_hardly_counts() {
        let once = Association { photos: 1000, with_a: 1, with_b: 1, with_both: 1 };
        assert_eq!(once.lift(), 1000.0);
        // (1 + 0.01) / (11 * 0.001).
        assert!((once.smoothed_lift() - 1.01 / 0.011).abs() < 1e-9);
        let independent = Association { photos: 100, with_a: 50, with_b: 20, with_both: 10 };
        assert!((independent.smoothed_lift() - 1.0).abs() < 1e-12 && independent.pmi().abs() < 1e-12);
    }
}
