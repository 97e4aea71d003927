//! The table of stages: every place that has to know all of them asks here.

use crate::stage::StageConfig;
use crate::{convert, export, report, sample, segment, similarity, train};

/// The stages that a [run](crate::run) consists of, in the order of the flow.
pub const OF_A_RUN: [&str; 6] = [
    sample::Config::NAME,
    convert::Config::NAME,
    train::Config::NAME,
    segment::Config::NAME,
    similarity::Config::NAME,
    report::Config::NAME,
];

/// Something to do with the settings of any stage.
pub trait Visitor {
    /// What comes out.
    type Output;

    /// Does it for the stage whose settings are `C`.
    fn visit<C: StageConfig>(self) -> Self::Output;
}

/// Does something with the settings of the stage of that name, if it is one that publishes a folder.
pub fn visit<V: Visitor>(stage: &str, visitor: V) -> Option<V::Output> {
    Some(match stage {
        sample::Config::NAME => visitor.visit::<sample::Config>(),
        convert::Config::NAME => visitor.visit::<convert::Config>(),
        train::Config::NAME => visitor.visit::<train::Config>(),
        segment::Config::NAME => visitor.visit::<segment::Config>(),
        similarity::Config::NAME => visitor.visit::<similarity::Config>(),
        report::Config::NAME => visitor.visit::<report::Config>(),
        export::Config::NAME => visitor.visit::<export::Config>(),
        _ => return None,
    })
}
