//! The table of stages: the one place that knows all of them.

use crate::stage::StageConfig;
use crate::{convert, duplicates, export, report, sample, segment, similarity, train};

/// The stages of a [run](crate::run), in pipeline order: `sample` only if there is no source, and `duplicates` only if the
/// settings have its section.
pub const OF_A_RUN: [&str; 7] = [
    sample::Config::NAME,
    convert::Config::NAME,
    train::Config::NAME,
    segment::Config::NAME,
    similarity::Config::NAME,
    duplicates::Config::NAME,
    report::Config::NAME,
];

/// An operation that is generic over the stage's settings type.
pub trait Visitor {
    /// The result.
    type Output;

    /// Runs the operation for the stage with settings `C`.
    fn visit<C: StageConfig>(self) -> Self::Output;
}

/// Runs `visitor` for the stage of that name; `None` if no stage of that name publishes a folder.
pub fn visit<V: Visitor>(stage: &str, visitor: V) -> Option<V::Output> {
    Some(match stage {
        sample::Config::NAME => visitor.visit::<sample::Config>(),
        convert::Config::NAME => visitor.visit::<convert::Config>(),
        train::Config::NAME => visitor.visit::<train::Config>(),
        segment::Config::NAME => visitor.visit::<segment::Config>(),
        similarity::Config::NAME => visitor.visit::<similarity::Config>(),
        duplicates::Config::NAME => visitor.visit::<duplicates::Config>(),
        report::Config::NAME => visitor.visit::<report::Config>(),
        export::Config::NAME => visitor.visit::<export::Config>(),
        _ => return None,
    })
}
