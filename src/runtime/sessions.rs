//! One network for batches of several sizes.

use ort::session::Session;

use super::session;
use crate::engine::{Backend, Engine, Provider};
use crate::error::Result;
use crate::graph::Dialect;

/// The sessions of a network. On CUDA each size of batch has its own: for another size than before, a session selects its
/// kernels anew, which takes as long as dozens of runs.
#[derive(Debug)]
pub struct Sessions {
    name: String,
    backend: Backend,
    /// What further sessions are made of, if there may be any.
    source: Option<(Vec<u8>, Engine)>,
    /// With their sizes, once they had a batch.
    by_size: Vec<(Option<usize>, Session)>,
}

impl Sessions {
    /// Creates the first session, as [`session`] does.
    ///
    /// # Errors
    /// As [`session`].
    pub fn new(name: &str, model: impl Fn(Dialect) -> Vec<u8>, engine: Engine) -> Result<Self> {
        let (first, backend) = session(name, &model, engine)?;
        let source = (backend.provider == Provider::Cuda).then(|| (model(backend.dialect), backend.engine(engine)));
        Ok(Self { name: name.to_owned(), backend, source, by_size: vec![(None, first)] })
    }

    /// The backend actually in use.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The session for batches of `size` photos.
    ///
    /// # Errors
    /// As [`session`].
    pub fn of(&mut self, size: usize) -> Result<&mut Session> {
        let mut place = 0;
        if let Some((model, engine)) = &self.source {
            let fits = |(of, _): &(Option<usize>, Session)| of.is_none_or(|of| of == size);
            place = self.by_size.iter().position(fits).unwrap_or(self.by_size.len());
            if place == self.by_size.len() {
                let (further, _) = session(&self.name, |_| model.clone(), *engine)?;
                self.by_size.push((None, further));
            }
        }
        let (of, session) = &mut self.by_size[place];
        *of = Some(size);
        Ok(session)
    }
}
