//! `.mat` files to plain records, and back for the built-in sample.

pub mod cfpd;
pub mod write;
