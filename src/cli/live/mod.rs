//! Rows that come as they come: those of a query, and the records of a topic.
//!
//! On a terminal they can be looked at in two ways ([`View`]): as a log, a line per row or change, or as a live table
//! ([`table`]) that shows what changes have come to, drawn in place ([`frame`], [`backend`]).

mod backend;
mod frame;
mod keyboard;
pub mod table;

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill::error::Error;
use tidemill::runtime::{Job, QueryStream, TopicRows};

pub use keyboard::restore as restore_terminal;

/// How rows that come as they come are looked at on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// What may change as a live table, what only grows as a log.
    #[default]
    Auto,
    /// As a live table; of what only grows, the last rows.
    Table,
    /// As a log.
    Log,
}

impl View {
    /// The view that a result mode of Flink's names.
    pub fn of_mode(mode: &str) -> Option<Self> {
        match mode.to_ascii_lowercase().as_str() {
            "table" => Some(Self::Table),
            "changelog" | "tableau" => Some(Self::Log),
            _ => None,
        }
    }

    /// Whether rows are shown as a live table.
    pub fn is_table(self, stream: &dyn LiveRows) -> bool {
        stream.job().is_some()
            && match self {
                Self::Auto => stream.has_changes(),
                Self::Table => true,
                Self::Log => false,
            }
    }
}

/// Rows that come as they come.
pub trait LiveRows {
    /// The columns.
    fn schema(&self) -> SchemaRef;

    /// The next rows, an empty batch if there are none within `wait`, or the end.
    fn next_within(&mut self, wait: Duration) -> Result<Option<RecordBatch>, Error>;

    /// No more is wanted.
    fn stop(&mut self);

    /// What is to be said about the rows so far.
    fn note(&self) -> Option<String> {
        None
    }

    /// The job that gives the rows, if one does.
    fn job(&self) -> Option<&Job> {
        None
    }

    /// Whether the rows are a changelog, with the kind of each in the first column.
    fn has_changes(&self) -> bool {
        false
    }
}

impl LiveRows for QueryStream {
    fn schema(&self) -> SchemaRef {
        Self::schema(self).clone()
    }

    fn next_within(&mut self, wait: Duration) -> Result<Option<RecordBatch>, Error> {
        Self::next_within(self, wait)
    }

    fn stop(&mut self) {
        Self::stop(self);
    }

    fn job(&self) -> Option<&Job> {
        Some(Self::job(self))
    }

    fn has_changes(&self) -> bool {
        Self::has_changes(self)
    }
}

impl LiveRows for TopicRows {
    fn schema(&self) -> SchemaRef {
        Self::schema(self).clone()
    }

    fn next_within(&mut self, wait: Duration) -> Result<Option<RecordBatch>, Error> {
        Self::next_within(self, wait)
    }

    fn stop(&mut self) {
        Self::stop(self);
    }

    fn note(&self) -> Option<String> {
        Some(self.formats())
    }
}
