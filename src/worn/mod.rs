//! What is worn together, by the catalogue's own photos: how often two garments occur in one outfit, and which garment
//! goes with those of a photo.
//!
//! In: a feature table. Out: `pairs_worn.parquet` ([`write_pairs`]), and for a set of garments those that are worn with it
//! more often than elsewhere ([`Outfits`]). A garment is an apparel category of the label set; skin, hair and the like are
//! none. Photos in which nothing is worn do not count.

mod association;
mod outfits;
mod pairs;

pub use association::{Association, SMOOTHING};
pub use outfits::{Garments, Outfits};
pub use pairs::{PAIRS_FILE, PairCounts, write_pairs};
