//! Columns of a table of the user's own, in few types.

use std::fmt;

use arrow::array::ArrayRef;

/// What the values of a column are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `Boolean`.
    Boolean,
    /// `Int64`.
    Integer,
    /// `Float64`. What is NaN in the file is null, and -0 is 0.
    Number,
    /// `Utf8`.
    Text,
    /// `Date32`.
    Date,
    /// `Timestamp(Microsecond, None)`, UTC.
    Time,
    /// `Null`: no row has a value.
    Empty,
    /// What conditions and pages cannot use, such as a list: the type in words.
    Other(String),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "a yes or no",
            Self::Integer | Self::Number => "a number",
            Self::Text => "text",
            Self::Date => "a date",
            Self::Time => "a time",
            Self::Empty => "null",
            Self::Other(kind) => kind,
        })
    }
}

/// A column, with one value for each row of the feature table.
#[derive(Debug, Clone)]
pub struct Column {
    /// As in the file.
    pub name: String,
    /// What its values are.
    pub kind: Kind,
    /// Of the Arrow type that `kind` names; null for a photo without a row, and for a row without a value.
    pub values: ArrayRef,
}
