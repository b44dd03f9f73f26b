//! Errors that say who must act.
//!
//! Every error carries a [`Blame`]: the author of the statement, whoever called the program, the operator of the
//! broker, the producer of the data, or us. Surfaces map the blame to an exit code in one place
//! ([`Error::exit_code`]); the text is a sentence, the hint says what to do or write instead.

pub mod codes;
mod wording;

use std::fmt;
use std::ops::Range;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

pub use wording::sql_words;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who must act for an error to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The author of a statement: a mistake in the SQL, an unknown table, option or function.
    Statement,
    /// Whoever started the program: flags, configuration, files that are not there.
    Usage,
    /// The operator of the broker: unreachable, not authorised, a topic that does not exist.
    Upstream,
    /// The producer of the data, or the query's arithmetic on it: a record that does not decode, an overflow.
    Data,
    /// Nobody: the user asked for the end.
    Interrupted,
    /// Us: a broken invariant.
    Bug,
}

/// An error: one sentence, at most one hint, and where in the statement it points.
#[derive(Clone, Debug)]
pub struct Error {
    /// Who must act.
    pub blame: Blame,
    /// One sentence, without a full stop at its end; may name values, never secrets.
    pub message: String,
    /// What to do or to write instead.
    pub hint: Option<String>,
    /// The bytes of the submitted text that the error points at.
    pub span: Option<Range<usize>>,
    /// It is about the moment: the same may go well when it is tried again, and nobody needs to act.
    pub is_transient: bool,
    /// The name that neither a table nor a view has, if that is what is wrong: a topic may have it.
    pub unknown_table: Option<Box<str>>,
}

impl Error {
    /// An error of the given blame.
    pub fn new(blame: Blame, message: impl Into<String>) -> Self {
        Self { blame, message: message.into(), hint: None, span: None, is_transient: false, unknown_table: None }
    }

    /// A mistake in a statement.
    pub fn statement(message: impl Into<String>) -> Self {
        Self::new(Blame::Statement, message)
    }

    /// A mistake in how the program was called.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Blame::Usage, message)
    }

    /// The broker, or something else outside, is not as it must be.
    pub fn upstream(message: impl Into<String>) -> Self {
        Self::new(Blame::Upstream, message)
    }

    /// The data is not as it must be.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Blame::Data, message)
    }

    /// A broken invariant of ours.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Blame::Bug, message)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that the same may go well when it is tried again.
    #[must_use]
    pub fn transient(self) -> Self {
        Self { is_transient: true, ..self }
    }

    /// Points at bytes of the submitted text, unless it points somewhere already.
    #[must_use]
    pub fn at(mut self, span: Range<usize>) -> Self {
        self.span.get_or_insert(span);
        self
    }

    /// Its code, if it is one of the common errors: `TM0101`. `tidemill explain-error` explains it.
    pub fn code(&self) -> Option<&'static str> {
        codes::of(self).map(|code| code.code)
    }

    /// Points at what the sentence names, if that stands within what it points at already. `text` is a part of the
    /// submitted text that starts at its byte `start`.
    #[must_use]
    pub(crate) fn narrowed(mut self, text: &str, start: usize) -> Self {
        let within = self.span.as_ref().and_then(|s| Some(s.start.checked_sub(start)?..s.end.checked_sub(start)?));
        if let Some(pointed) = within.clone().and_then(|within| text.get(within))
            && let (Some(subject), Some(span)) = (codes::subject(&self.message, pointed), &mut self.span)
        {
            // A name in its quotes is pointed at as exactly as can be.
            if subject.len() + 2 < span.len() {
                *span = span.start + subject.start..span.start + subject.end;
            }
        }
        self
    }

    /// The exit code of a program that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self.blame {
            Blame::Statement => 1,
            Blame::Usage => 2,
            Blame::Upstream => 3,
            Blame::Data | Blame::Bug => 4,
            Blame::Interrupted => 130,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Errors of DataFusion's planner are the statement's; those of its execution are the data's. One of ours that went
/// through it comes out as it went in.
impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = next {
            if let Some(own) = inner.downcast_ref::<Self>() {
                return own.clone();
            }
            next = inner.source();
        }
        let root = error.find_root();
        let blame = match root {
            DataFusionError::SQL(..)
            | DataFusionError::Plan(_)
            | DataFusionError::SchemaError(..)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::Configuration(_)
            | DataFusionError::Diagnostic(..) => Blame::Statement,
            DataFusionError::Internal(_) => Blame::Bug,
            _ => Blame::Data,
        };
        let (message, hint) = wording::of_datafusion(root);
        Self { hint, ..Self::new(blame, message) }
    }
}

/// Arrow's kernels fail on data: a cast, an overflow, a division by zero.
impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        let (message, hint) = wording::of_arrow(&error);
        Self { hint, ..Self::data(message) }
    }
}
