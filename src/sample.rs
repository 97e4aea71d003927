//! `sample`.
