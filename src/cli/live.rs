//! Rows that come as they come: those of a query, and the records of a topic.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill::error::Error;
use tidemill::runtime::{QueryStream, TopicRows};

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
