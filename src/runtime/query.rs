//! The rows of a `SELECT`, as they come.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::job::Job;
use crate::error::{Error, Result};

/// The rows of a running `SELECT`. Dropping it stops the query.
///
/// It is an iterator over batches; it ends when the query has (a bounded one, a `LIMIT`, or [`stop`](Self::stop)).
pub struct QueryStream {
    schema: SchemaRef,
    batches: Receiver<RecordBatch>,
    job: Job,
    /// Rows still wanted, for a `LIMIT`.
    limit: Option<usize>,
    /// Rows still to leave out, for an `OFFSET`.
    skip: usize,
}

impl QueryStream {
    pub(super) fn new(
        schema: SchemaRef,
        batches: Receiver<RecordBatch>,
        job: Job,
        skip: usize,
        limit: Option<usize>,
    ) -> Self {
        Self { schema, batches, job, limit, skip }
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The job behind the query.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Ends the query: what has been read and has fired still comes, then the iterator ends.
    pub fn stop(&self) {
        self.job.stop();
    }

    /// The next rows: `Ok(Some)`, the end: `Ok(None)`, or nothing within `wait`: an empty batch.
    pub fn next_within(&mut self, wait: Duration) -> Result<Option<RecordBatch>> {
        if self.limit == Some(0) {
            self.job.stop();
            return Ok(None);
        }
        match self.batches.recv_timeout(wait) {
            Ok(batch) => Ok(Some(self.cut(batch))),
            Err(RecvTimeoutError::Timeout) => Ok(Some(RecordBatch::new_empty(self.schema.clone()))),
            Err(RecvTimeoutError::Disconnected) => self.job.wait().map(|()| None),
        }
    }

    fn cut(&mut self, batch: RecordBatch) -> RecordBatch {
        let skipped = self.skip.min(batch.num_rows());
        self.skip -= skipped;
        let batch = batch.slice(skipped, batch.num_rows() - skipped);
        match &mut self.limit {
            None => batch,
            Some(limit) => {
                let rows = batch.num_rows().min(*limit);
                *limit -= rows;
                batch.slice(0, rows)
            }
        }
    }
}

impl Iterator for QueryStream {
    type Item = Result<RecordBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_within(Duration::from_secs(3_600)) {
                Ok(Some(batch)) if batch.num_rows() == 0 => {}
                other => return other.transpose(),
            }
        }
    }
}

impl Drop for QueryStream {
    fn drop(&mut self) {
        self.job.stop();
        // The job may be blocked on handing over rows: take them until it has ended.
        while self.batches.recv().is_ok() {}
    }
}
