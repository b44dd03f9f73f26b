//! The outside world: Kafka, files, generators, the terminal.
//!
//! A [`Source`] is a table as a job sees it: its partitions with their resolved start and end, and readers for shares of
//! them. A [`Sink`] has an encoder per worker and one writer per job, so that the writer can put everything between two
//! commit boundaries into one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryViewArray, Int8Array, RecordBatch};
use arrow::datatypes::DataType;

use crate::catalog::options::nearest;
use crate::catalog::{Column, ColumnKind, Table};
use crate::error::{Blame, Error, Result};
use crate::formats::Encoded;
use kafka::Embedded;

pub mod blackhole;
pub mod datagen;
pub mod filesystem;
mod job_log;
pub mod kafka;
pub mod options;
pub mod print;
mod rejects;
mod transactions;

pub use job_log::JobLog;
pub use rejects::{Keep, OnError, Policies, Policy, RawRecord, RawRecords, Rejects, Undecoded, matches_pattern};
pub use transactions::{LogPlace, Transactions};

/// The connectors that exist here.
pub const CONNECTORS: &[&str] = &["kafka", "upsert-kafka", "filesystem", "datagen", "print", "blackhole"];

/// Connectors of Flink's that scripts may name and that do not exist here.
const CONNECTORS_ELSEWHERE: &[&str] = &["jdbc", "hbase-2.2", "elasticsearch-7", "kinesis", "mongodb"];

/// What the engine was started with, for tables that do not say otherwise.
#[derive(Clone, Default)]
pub struct Defaults {
    /// Bootstrap servers for Kafka tables that name none.
    pub brokers: Option<String>,
    /// Client properties (without the prefix `properties.`) for Kafka tables that do not set them.
    pub properties: BTreeMap<String, String>,
    /// The broker inside this process, if there may be one: for tables whose servers are `embedded`, or for all
    /// tables when no server is named anywhere.
    pub embedded: Option<Arc<Embedded>>,
    /// What the names of topics begin with in which jobs keep what they have come to: no pattern means these. Empty if
    /// there are none.
    pub own_topics: String,
}

/// Names only: values may be secret.
impl fmt::Debug for Defaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Defaults")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("embedded", &self.embedded.is_some())
            .finish()
    }
}

/// A column that a job asks a source for.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceColumn {
    /// A physical column of the table, by its name; the connector knows whether it is in the key or in the value.
    Physical(String),
    /// A property of the record itself.
    Metadata {
        /// The property: `topic`, `partition`, `offset`, `timestamp`, `timestamp-type`, `headers`.
        key: String,
        /// The type to give it.
        data_type: DataType,
    },
}

impl SourceColumn {
    /// How to ask for a column of a table; `None` for a computed one.
    pub fn of(column: &Column) -> Option<Self> {
        match &column.kind {
            ColumnKind::Physical => Some(Self::Physical(column.name.clone())),
            ColumnKind::Computed(_) => None,
            ColumnKind::Metadata { key, .. } => {
                Some(Self::Metadata { key: key.clone(), data_type: column.data_type.clone() })
            }
        }
    }
}

/// What a job wants to read.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// The table.
    pub table: Table,
    /// The columns that the readers give, in this order.
    pub columns: Vec<SourceColumn>,
    /// The positions that an earlier run recorded. They replace the table's scan modes, and their order is that of the
    /// source's partitions; a partition that is not among them appeared since, follows, and is read from its beginning.
    pub resume: Option<Vec<PartitionPlan>>,
    /// The partitions that the earlier run found while it ran, in their order. They are known, and read only when a reader
    /// is told to add them; those that have appeared since are then left to be discovered, too.
    pub found: Option<Vec<PartitionPlan>>,
    /// Whether rows come with their records' bytes.
    pub keep_records: bool,
    /// Whether rows come with their records' own timestamps.
    pub keep_timestamps: bool,
}

impl SourceSpec {
    /// Reads the given columns from where the table's options say.
    pub fn new(table: Table, columns: Vec<SourceColumn>) -> Self {
        Self { table, columns, resume: None, found: None, keep_records: false, keep_timestamps: false }
    }

    /// Asks for every column of the table that is not computed, in their order.
    pub fn all_columns(table: Table) -> Self {
        let columns = table.columns.iter().filter_map(SourceColumn::of).collect();
        Self::new(table, columns)
    }

    /// The error for a metadata property that the table's connector does not have.
    fn no_metadata(&self, key: &str, known: &[&str]) -> Error {
        let connector = self.table.options.get("connector").unwrap_or_default();
        let error = Error::statement(format!("connector '{connector}' has no metadata column '{key}'"));
        match nearest(key, known.iter().copied()) {
            Some(near) => error.hint(format!("did you mean '{near}'?")),
            None if known.is_empty() => error.hint("remove the column, or make it a physical one"),
            None => error.hint(format!("it has {}", quoted_list(known))),
        }
    }
}

/// Opens a table for reading: resolves its partitions with their start and end.
pub fn open_source(spec: SourceSpec, defaults: &Defaults) -> Result<Arc<dyn Source>> {
    match connector_of(&spec.table)? {
        "kafka" => Ok(Arc::new(kafka::KafkaSource::open(spec, defaults)?)),
        "filesystem" => Ok(Arc::new(filesystem::FileSource::open(spec)?)),
        "datagen" => Ok(Arc::new(datagen::DatagenSource::open(spec)?)),
        "upsert-kafka" => Err(Error::statement(format!(
            "table {} cannot be read from: reading a changelog is not available yet",
            spec.table.name
        ))
        .hint("a table with 'connector' = 'kafka' over the same topic reads its records, each as a row of its own")),
        other => Err(Error::statement(format!("connector '{other}' cannot be read from"))
            .hint("it only takes rows: name the table in INSERT INTO, not in FROM")),
    }
}

/// Opens a table for writing.
pub fn open_sink(table: &Table, defaults: &Defaults) -> Result<Arc<dyn Sink>> {
    match connector_of(table)? {
        "kafka" | "upsert-kafka" => Ok(Arc::new(kafka::KafkaSink::open(table, defaults)?)),
        "filesystem" => Ok(Arc::new(filesystem::FileSink::open(table)?)),
        "print" => Ok(Arc::new(print::PrintSink::open(table)?)),
        "blackhole" => Ok(Arc::new(blackhole::BlackholeSink)),
        other => Err(Error::statement(format!("connector '{other}' cannot be written to"))
            .hint("it only makes rows: name the table in FROM, not in INSERT INTO")),
    }
}

/// A file has one writer: a job's tables are not the same one.
pub fn check_outputs<'a>(tables: impl IntoIterator<Item = &'a Table>) -> Result<()> {
    let mut outputs = BTreeSet::new();
    for table in tables {
        if connector_of(table)? == "filesystem" {
            let path = filesystem::output_of(&table.options)?;
            if !outputs.insert(path.clone()) {
                return Err(Error::statement(format!("two statements of the job write to \"{}\"", path.display()))
                    .hint(
                        "a file has one writer: bring them together with UNION ALL, or give each a file of its own",
                    ));
            }
        }
    }
    Ok(())
}

/// What a crash may leave of what is written to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Each row is there once.
    ExactlyOnce,
    /// Each row is there, some may be there twice.
    AtLeastOnce,
    /// Whatever there is.
    None,
}

/// What a table asks for, if it asks for anything.
pub fn delivery(table: &Table) -> Result<Option<Delivery>> {
    match connector_of(table)? {
        "kafka" | "upsert-kafka" => kafka::delivery(table),
        "filesystem" => filesystem::delivery(table),
        _ => Ok(None),
    }
}

/// The brokers of the cluster that a table is on; `None` if it is on none that outlives this process.
pub fn kafka_brokers(table: &Table, defaults: &Defaults) -> Result<Option<String>> {
    match connector_of(table)? {
        "kafka" | "upsert-kafka" => kafka::brokers_of(table, defaults),
        _ => Ok(None),
    }
}

/// Whether a table can hold a changelog: rows that change or go, and not only new ones.
pub fn accepts_changes(table: &Table) -> Result<bool> {
    let options = &table.options;
    Ok(match connector_of(table)? {
        "upsert-kafka" | "print" | "blackhole" => true,
        "kafka" | "filesystem" => match options.get("format").or(options.get("value.format")) {
            Some(name) => name == "debezium-json",
            None => false,
        },
        _ => false,
    })
}

/// Opens a topic beside a Kafka table, on the same cluster, for rows of the table that are turned away. It has writers, and
/// no encoder: what is written there is encoded by whoever turned it away.
pub fn open_reject_topic(table: &Table, topic: &str, defaults: &Defaults) -> Result<Arc<dyn Sink>> {
    Ok(Arc::new(kafka::KafkaSink::open_beside(table, topic, defaults)?))
}

/// The connector of a table, if it is one of ours.
pub(crate) fn connector_of(table: &Table) -> Result<&'static str> {
    let name = table.options.require("connector")?;
    if let Some(known) = CONNECTORS.iter().find(|c| **c == name) {
        return Ok(known);
    }
    if CONNECTORS_ELSEWHERE.contains(&name) {
        return Err(Error::statement(format!("connector '{name}' is not available yet"))
            .hint(format!("available are {}", quoted_list(CONNECTORS))));
    }
    let error = Error::statement(format!("there is no connector '{name}'"));
    Err(match nearest(name, CONNECTORS.iter().copied()) {
        Some(near) => error.hint(format!("did you mean '{near}'?")),
        None => error.hint(format!("available are {}", quoted_list(CONNECTORS))),
    })
}

/// `'a', 'b', 'c'`.
pub(crate) fn quoted_list(names: &[&str]) -> String {
    names.iter().map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ")
}

/// The beginning of a payload as an error message shows it: control characters and non-ASCII bytes escaped.
pub(crate) fn shown(payload: &[u8]) -> String {
    let end = payload.len().min(crate::limits::BAD_RECORD_BYTES_SHOWN);
    payload[..end].escape_ascii().to_string()
}

/// A partition of a source. The order is the one that breaks ties between rows: topic, then partition. (Those that a
/// running job finds come after the others.)
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
    /// The partitions that there were when the job began, in the order of their ids. An index into this slice names a
    /// partition everywhere else; those that are found later have the indices behind it.
    fn partitions(&self) -> &[PartitionPlan];

    /// How often to look for new partitions; `None` for a source whose partitions are those it began with.
    fn discovery_interval(&self) -> Option<Duration> {
        None
    }

    /// Looks for partitions that nobody has been told of yet. They follow all others, also those told of earlier, so
    /// that an index keeps its meaning; [`Source::partition_id`] knows them from now on. May wait for the outside; called
    /// by one thread.
    fn discover(&self) -> Result<Vec<PartitionPlan>> {
        Ok(Vec::new())
    }

    /// The name of a partition, by its index; also of one that was discovered.
    fn partition_id(&self, index: usize) -> Option<PartitionId> {
        self.partitions().get(index).map(|plan| plan.id.clone())
    }

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
    /// The record of each row, as [`RawRecord`] writes it, if they were asked for.
    pub raw: Option<BinaryViewArray>,
    /// The timestamp of each row's record (ms; the greatest number for one without), if they were asked for.
    pub timestamps: Vec<i64>,
    /// Records that gave no row because they did not decode, where the table has a topic for those.
    pub undecoded: Vec<Undecoded>,
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

    /// Takes a partition that was discovered into the share.
    fn add(&mut self, partition: usize, plan: &PartitionPlan) -> Result<()> {
        Err(Error::bug(format!("partition {partition} ({:?}) was not there when the reader was made", plan.id)))
    }

    /// Gives nothing of a partition from this offset on, until told otherwise; the position comes to it exactly, also over
    /// holes. For a replay, which stops where an earlier run stood.
    fn set_limit(&mut self, partition: usize, limit: Option<i64>) -> Result<()> {
        Err(Error::bug(format!("partition {partition} cannot be limited to {limit:?}")))
    }

    /// The offset behind a partition's last record, as far as is known without asking anybody.
    fn known_end(&self, _partition: usize) -> Option<i64> {
        None
    }

    /// A sentence on why nothing arrives, if that is known: a broker that is away, for instance.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// Tells those who wait for the outside that they need not any more: clones are of one mind.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// From now on nobody waits.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether nobody is to wait any more.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// An error for whoever still waits, if it is cancelled.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::new(Blame::Interrupted, "the job has ended")) } else { Ok(()) }
    }
}

/// Asks a client what is in its way at this moment.
pub type TroubleProbe = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// Rows on their way from a worker to the job's writer.
pub enum SinkRows {
    /// Encoded rows.
    Encoded(EncodedRows),
    /// A batch as it is, for sinks inside this process.
    Batch(RecordBatch),
}

/// The headers of one record: names with values.
pub type RecordHeaders = Vec<(String, Option<Vec<u8>>)>;

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
    pub headers: Option<Vec<RecordHeaders>>,
}

/// A table that is written to by one job.
pub trait Sink: Send + Sync {
    /// An encoder; each worker has its own.
    fn encoder(&self) -> Result<Box<dyn SinkEncoder>>;

    /// The writer; a job has one per sink.
    fn writer(&self) -> Result<Box<dyn SinkWriter>>;

    /// A writer whose rows belong to the job's transactions: they are outside when the transaction is committed.
    fn writer_in(&self, _transactions: &Transactions) -> Result<Box<dyn SinkWriter>> {
        Err(Error::bug("a sink without transactions"))
    }
}

/// Turns batches of the sink's columns into rows to write. Runs on the workers.
pub trait SinkEncoder: Send {
    /// Encodes a batch whose columns are the table's sink columns, in their order. `kinds` are the rows'
    /// [kinds](crate::change::RowKind) where they are a changelog; else all are new.
    fn encode(&mut self, batch: &RecordBatch, kinds: Option<&Int8Array>) -> Result<SinkRows>;
}

/// Writes rows outside. Runs on the job's committing thread, as does everything between two boundaries.
pub trait SinkWriter: Send {
    /// Takes rows; may buffer, may block while the outside is slow.
    fn write(&mut self, rows: SinkRows) -> Result<()>;

    /// A boundary: when this returns, everything written before is outside, or an error says that it is not.
    fn flush(&mut self) -> Result<()>;

    /// Whoever waits for the outside looks at this token, and ends with an error when it is cancelled.
    fn cancel_by(&mut self, _cancel: &CancelToken) {}

    /// Tells, also while the writer is at work, why it gets no further, if that is known: a sentence.
    fn trouble(&self) -> Option<TroubleProbe> {
        None
    }

    /// The end of the job, after the last flush.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
