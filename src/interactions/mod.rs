//! Who chose which photos: scores from photo to photo, by the people who chose both.
//!
//! In: a table of events (`user`, a photo, `weight`), as Parquet or CSV, and the photos of a catalogue. Out:
//! [`Interactions`], which scores every photo of the catalogue for one or several of them, and `blend`, which blends such
//! scores with correlations of looks.

mod blend;
mod events;
mod photos;
mod read;
mod scores;

pub use blend::{Blended, blend};
pub use events::{Event, MAX_PHOTOS_PER_USER, Users};
pub use read::{Read, read};
pub use scores::{Interactions, SHRINKAGE};
