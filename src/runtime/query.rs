//! The rows of a `SELECT`, as they come.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int8Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::job::Job;
use crate::change::RowKind;
use crate::error::{Error, Result};

/// The rows of a running `SELECT`. Dropping it stops the query.
///
/// It is an iterator over batches; it ends when the query has (a bounded one, a `LIMIT`, or [`stop`](Self::stop)).
pub struct QueryStream {
    schema: SchemaRef,
    has_changes: bool,
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
        has_changes: bool,
        batches: Receiver<RecordBatch>,
        job: Job,
        skip: usize,
        limit: Option<usize>,
    ) -> Self {
        Self { schema, has_changes, batches, job, limit, skip }
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether the rows are a changelog. Then the first column, `op`, says of each row what it is: `+I`, `-U`, `+U`, `-D`.
    pub fn has_changes(&self) -> bool {
        self.has_changes
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

/// The columns of a changelog's rows with their kinds before them, under a name that none of them has.
pub(super) fn op_schema(rows: &Schema) -> SchemaRef {
    let mut name = "op".to_owned();
    while rows.fields().iter().any(|field| *field.name() == name) {
        name.insert(0, '_');
    }
    let op: FieldRef = Arc::new(Field::new(name, DataType::Utf8, false));
    Arc::new(Schema::new(std::iter::once(op).chain(rows.fields().iter().cloned()).collect::<Vec<_>>()))
}

/// Rows with their kinds before them.
pub(super) fn with_op(batch: &RecordBatch, kinds: &Int8Array) -> Result<RecordBatch> {
    let signs: StringArray = kinds.values().iter().map(|kind| Some(RowKind::of(*kind).sign())).collect();
    let columns = std::iter::once(Arc::new(signs) as ArrayRef).chain(batch.columns().iter().cloned()).collect();
    Ok(RecordBatch::try_new(op_schema(&batch.schema()), columns)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};

    use super::*;

    #[test]
    fn a_changelog_says_of_each_row_what_it_is() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, 2, 2]));
        for (column, op) in [("n", "op"), ("op", "_op")] {
            let batch = RecordBatch::try_from_iter([(column, Arc::clone(&numbers))]).unwrap();
            let changes = with_op(&batch, &vec![0, 1, 2, 3].into()).unwrap();
            let names: Vec<_> = changes.schema().fields().iter().map(|f| f.name().clone()).collect();
            assert_eq!(names, [op, column]);
            let signs: Vec<_> = changes.column(0).as_string::<i32>().iter().flatten().collect();
            assert_eq!(signs, ["+I", "-U", "+U", "-D"]);
            assert_eq!(changes.column(1), &numbers);
        }
    }
}
