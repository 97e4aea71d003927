//! Integration tests, one binary: the library is linked once.

mod shared;
mod training_step;
