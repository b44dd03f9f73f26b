//! The outside world: Kafka, files, generators, the terminal.
//!
//! A [`Source`] is a table as a job sees it: its partitions with their resolved start and end, and readers for shares of
//! them. A [`Sink`] has an encoder per worker and one writer per job, so that the writer can put everything between two
//! commit boundaries into one transaction.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};

use crate::error::Result;
use crate::formats::Encoded;

pub mod kafka;

/// A partition of a source. The order is the one that breaks ties between rows: topic, then partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The topic; the path for files, the table for generators.
    pub topic: Arc<str>,
    /// The number within the topic.
    pub partition: i32,
}

/// A partition with where a job starts and ends reading it, resolved before the first record is read.
#[derive(Clone, Debug)]
pub struct PartitionPlan {
    /// Which partition.
    pub id: PartitionId,
    /// The offset of the first record to read.
    pub start: i64,
    /// The position at which a bounded job has read everything; `None` reads for ever.
    pub end: Option<i64>,
    /// There was nothing to read when the job began, so the partition is idle until a record comes.
    pub empty_at_start: bool,
}

/// A table that is read by one job.
pub trait Source: Send + Sync {
    /// All partitions, in the order of their ids. An index into this slice names a partition everywhere else.
    fn partitions(&self) -> &[PartitionPlan];

    /// A reader for some of the partitions, by index.
    fn reader(&self, share: &[usize]) -> Result<Box<dyn SourceReader>>;

    /// Remembers outside (in the consumer group) what has been processed: the next offset per partition index.
    /// Only ever for people to look at; a failure is logged, not returned.
    fn note_progress(&self, _next_offsets: &[(usize, i64)]) {}
}

/// Rows of one partition.
#[derive(Debug, Default)]
pub struct SourceRows {
    /// The columns that were asked for, in that order.
    pub columns: Vec<ArrayRef>,
    /// The offset of each row, ascending.
    pub offsets: Vec<i64>,
    /// Where to go on reading after these rows.
    pub next_offset: i64,
    /// Records read from the partition for these rows, bad ones and tombstones included.
    pub records: u64,
    /// Records that gave no row because they did not decode and the table says to skip those.
    pub bad: u64,
    /// Records without a value, which give no row in an append-only table.
    pub tombstones: u64,
    /// Payload bytes read.
    pub bytes: u64,
    /// Nothing more is there at this moment: the position is the partition's end.
    pub at_end: bool,
}

/// Reads some partitions of a source. Used by one thread.
pub trait SourceReader: Send {
    /// Takes up to `rows_max` records that have already arrived from the partition with this index (one of the
    /// reader's share); never waits. `None` when nothing is there and nothing was learnt. An answer without rows
    /// may still say that the partition is at its end, or move its position over holes.
    fn poll(&mut self, partition: usize, rows_max: usize) -> Result<Option<SourceRows>>;

    /// Waits until some partition of the share may have something to poll, at most `wait`.
    fn wait(&mut self, wait: Duration) -> Result<()>;

    /// A sentence on why nothing arrives, if that is known: a broker that is away, for instance.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// Rows on their way from a worker to the job's writer.
pub enum SinkRows {
    /// Encoded rows.
    Encoded(EncodedRows),
    /// A batch as it is, for sinks inside this process.
    Batch(RecordBatch),
}

/// Rows as records: value, and for Kafka key, headers, timestamp.
#[derive(Debug, Default)]
pub struct EncodedRows {
    /// The records' values.
    pub values: Encoded,
    /// The records' keys, if the table has any.
    pub keys: Option<Encoded>,
    /// The records' timestamps (ms), if a metadata column gives them; `None` per row for "now".
    pub timestamps: Option<Vec<Option<i64>>>,
    /// The records' headers, if a metadata column gives them.
    pub headers: Option<Vec<Vec<(String, Option<Vec<u8>>)>>>,
}

/// A table that is written to by one job.
pub trait Sink: Send + Sync {
    /// An encoder; each worker has its own.
    fn encoder(&self) -> Result<Box<dyn SinkEncoder>>;

    /// The writer; a job has one per sink.
    fn writer(&self) -> Result<Box<dyn SinkWriter>>;
}

/// Turns batches of the sink's columns into rows to write. Runs on the workers.
pub trait SinkEncoder: Send {
    /// Encodes a batch whose columns are the table's sink columns, in their order.
    fn encode(&mut self, batch: &RecordBatch) -> Result<SinkRows>;
}

/// Writes rows outside. Runs on the job's committing thread, as does everything between two boundaries.
pub trait SinkWriter: Send {
    /// Takes rows; may buffer, may block while the outside is slow.
    fn write(&mut self, rows: SinkRows) -> Result<()>;

    /// A boundary: when this returns, everything written before is outside, or an error says that it is not.
    fn flush(&mut self) -> Result<()>;

    /// The end of the job, after the last flush.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }

    /// For downcasting in tests and facades.
    fn as_any(&mut self) -> Option<&mut dyn Any> {
        None
    }
}
