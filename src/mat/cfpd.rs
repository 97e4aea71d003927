//! The Colorful Fashion Parsing layout: one MATLAB v7.3 file and a folder of photos.

/// Name of the `.mat` file, as the data set spells it.
pub const FILE: &str = "fashon_parsing_data.mat";
