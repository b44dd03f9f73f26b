//! What a row says about what was there before: it is new, it has changed, it is gone.
//!
//! ```text
//! +I (a, 1)   -U (a, 1)   +U (a, 2)   -D (a, 2)
//! ```
//!
//! A stream of new rows only is append-only; one with other kinds is a changelog. A change is two rows, the one before
//! and directly behind it the one after.

/// What a row of a changelog says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum RowKind {
    /// `+I`: a new row.
    Insert = 0,
    /// `-U`: the row as it was before a change; its `+U` follows.
    UpdateBefore = 1,
    /// `+U`: the row as it is after a change.
    UpdateAfter = 2,
    /// `-D`: the row is gone.
    Delete = 3,
}

impl RowKind {
    /// From a value of the hidden column.
    pub fn of(value: i8) -> Self {
        match value {
            1 => Self::UpdateBefore,
            2 => Self::UpdateAfter,
            3 => Self::Delete,
            _ => Self::Insert,
        }
    }

    /// As Flink writes it: `+I`, `-U`, `+U`, `-D`.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Insert => "+I",
            Self::UpdateBefore => "-U",
            Self::UpdateAfter => "+U",
            Self::Delete => "-D",
        }
    }
}
