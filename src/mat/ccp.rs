//! The Clothing Co-Parsing layout.

use std::path::Path;

use super::Annotation;
use crate::error::Result;
use crate::table::rejects::Reject;

/// Name of the list of tags.
pub const LABEL_LIST: &str = "label_list.mat";
/// Name of the folder of photos.
pub const PHOTOS: &str = "photos";

/// An opened folder.
#[derive(Debug)]
pub struct Ccp {}

impl Ccp {
    /// Opens.
    pub fn open(_folder: &Path, _fold: Option<&Path>) -> Result<Self> {
        unimplemented!()
    }
    /// Len
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    /// Annotation
    pub fn annotation(&self, _index: usize) -> Result<Annotation, Reject> {
        unimplemented!()
    }
    /// Unlabelled
    pub fn unlabelled(&self) -> &[Reject] {
        unimplemented!()
    }
}
