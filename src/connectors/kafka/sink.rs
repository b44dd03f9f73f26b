//! Writing a Kafka table.
//!
//! Workers encode batches into slabs; one writer hands them to one idempotent producer. At-least-once: when `flush`
//! returns, every row written before it is acknowledged by all in-sync replicas. While a broker is away the writer
//! waits, and says so once; a row that can never be delivered is an error. Exactly-once: the job's writers share one
//! transactional producer ([`transactions`](super::transactions)).
//!
//! A changelog is told by the value (`debezium-json`) or by the key (`upsert-kafka`, [`upsert`](super::upsert)).

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, Int8Array, RecordBatch};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, TimestampMillisecondType};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::access::client_error;
use super::client::{self, Watcher};
use super::cluster::{Cluster, check_topic_name};
use super::layout::{Layout, is_upsert};
use super::properties::ClientProperties;
use super::upsert::Upserts;
use crate::catalog::options::invalid;
use crate::catalog::{ColumnKind, Table};
use crate::connectors::{
    CancelToken, Defaults, Delivery, EncodedRows, RecordHeaders, Sink, SinkEncoder, SinkRows, SinkWriter, Transactions,
    TroubleProbe,
};
use crate::error::{Error, Result};
use crate::formats::{Encoded, RowEncoder};

/// How long one wait for acknowledgements takes before progress is looked at: at least, and at most.
const SLICE_MIN: Duration = Duration::from_millis(1);
const SLICE_MAX: Duration = Duration::from_millis(50);

/// Records and kilobytes that wait in a producer, at most. Beside its bytes, which alone librdkafka counts, a record takes
/// some 300 there, so with small ones it is their number that bounds the memory. More would not be faster: with five requests
/// of ten thousand records on their way per partition the wire is busy.
pub(super) const QUEUE_RECORDS: &str = "250000";
pub(super) const QUEUE_KB: &str = "65536";

/// Records between two looks at acknowledgements that have come in.
const RECORDS_PER_POLL: usize = 1_024;

/// How long a flush may take before people are told what it waits for.
const SILENT_MAX: Duration = Duration::from_secs(10);

/// What a record may take, where nobody says otherwise: librdkafka's own bound, a little less than a broker's.
const RECORD_BYTES_MAX: usize = 1_000_000;

/// Bytes of a record that are neither key nor value nor headers, and those of the batch that it lies in: more than enough.
const RECORD_OVERHEAD: usize = 1_024;

/// How records find their partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Partitioner {
    /// By the key's hash, as Java's clients do; without a key any.
    ByKey,
    /// All to this one.
    Fixed(i32),
    /// In turn.
    RoundRobin,
}

/// A Kafka table that a job writes to.
pub struct KafkaSink {
    table: Table,
    topic: Arc<str>,
    partition_count: i32,
    partitioner: Partitioner,
    properties: ClientProperties,
    /// The topic is not the table's own, and takes so many bytes at once.
    beside: Option<usize>,
}

impl KafkaSink {
    /// Connects; creates the topic when it is missing.
    pub fn open(table: &Table, defaults: &Defaults) -> Result<Self> {
        let options = &table.options;
        let topic = options.require("topic")?.trim();
        if topic.contains(';') {
            return Err(Error::statement("a table with several topics cannot be written to")
                .hint("make a table with exactly one 'topic' for the output"));
        }
        check_topic_name(topic)?;
        delivery(table)?;
        Encoder::new(table)?;
        Self::open_topic(table, topic, defaults, false)
    }

    /// Connects to another topic on a table's cluster, for rows that are encoded elsewhere.
    pub fn open_beside(table: &Table, topic: &str, defaults: &Defaults) -> Result<Self> {
        check_topic_name(topic)?;
        Self::open_topic(table, topic, defaults, true)
    }

    fn open_topic(table: &Table, topic: &str, defaults: &Defaults, is_beside: bool) -> Result<Self> {
        let options = &table.options;
        let partitioner = match options.choice("sink.partitioner", &["default", "fixed", "round-robin"])? {
            "fixed" => Partitioner::Fixed(0),
            "round-robin" => Partitioner::RoundRobin,
            _ => Partitioner::ByKey,
        };
        let partitions = match options.integer("sink.topic.partitions")? {
            None => None,
            Some(n) => match i32::try_from(n) {
                Ok(n) if n > 0 => Some(n),
                _ => return Err(invalid("sink.topic.partitions", &n.to_string(), "a number above 0")),
            },
        };
        let properties = ClientProperties::of_table(options, defaults)?;
        if is_upsert(table) && properties.get("partitioner") == Some("random") {
            return Err(Error::statement("'properties.partitioner' = 'random' would scatter the changes of a key")
                .hint("remove it: records of one key must be in one partition to stay in order"));
        }
        let cluster = Cluster::new(properties)?;
        let found = match cluster.find_topic(topic)? {
            Some(found) => found,
            None => {
                // Without compaction a row that nobody changes would be gone with the retention.
                let config = if is_upsert(table) { &[("cleanup.policy", "compact")][..] } else { &[] };
                cluster.create_topic_with(topic, partitions, -1, config)?;
                tracing::info!("created topic \"{topic}\"");
                cluster.topic(topic)?
            }
        };
        let beside = is_beside.then(|| cluster.record_bytes_max(topic).unwrap_or(RECORD_BYTES_MAX));
        Ok(Self {
            table: table.clone(),
            topic: topic.into(),
            partition_count: i32::try_from(found.partitions.len()).unwrap_or(i32::MAX),
            partitioner,
            properties: cluster.properties().clone(),
            beside,
        })
    }
}

impl Sink for KafkaSink {
    fn encoder(&self) -> Result<Box<dyn SinkEncoder>> {
        Ok(Box::new(Encoder::new(&self.table)?))
    }

    fn writer_in(&self, transactions: &Transactions) -> Result<Box<dyn SinkWriter>> {
        let Transactions::Topics(transactions) = transactions else {
            return Err(Error::bug("a topic in the transactions of files"));
        };
        transactions.check_cluster(&self.properties, &self.topic)?;
        Ok(Box::new(transactions.writer(self.lane())))
    }

    fn writer(&self) -> Result<Box<dyn SinkWriter>> {
        if self.beside.is_none() && delivery(&self.table)? == Some(Delivery::ExactlyOnce) {
            return Err(Error::statement(format!(
                "table {} cannot be written exactly once in batch mode yet",
                self.table.name
            ))
            .hint("'sink.delivery-guarantee' = 'at-least-once' can: after a crash some rows may be there twice"));
        }
        let is_idempotent = may_be_idempotent(&self.properties);
        // Without idempotence a retry may overtake, and then an older state of a row would be the last one.
        let in_order = [("max.in.flight.requests.per.connection", "1")];
        let forced = if is_upsert(&self.table) && !is_idempotent { &in_order[..] } else { &[] };
        // The bounds are librdkafka's.
        let bytes_max = self.beside.unwrap_or(RECORD_BYTES_MAX).clamp(1_000, 1_000_000_000).to_string();
        let config = self.properties.config(
            &[
                ("linger.ms", "5"),
                ("message.max.bytes", &bytes_max),
                ("compression.type", "lz4"),
                ("queue.buffering.max.messages", QUEUE_RECORDS),
                ("queue.buffering.max.kbytes", QUEUE_KB),
                // The default partitioner of Java's clients, so that keys meet across languages.
                ("partitioner", "murmur2_random"),
                ("socket.timeout.ms", "10000"),
                ("reconnect.backoff.max.ms", "2000"),
                // Never give a row up: a broker that is away is waited for.
                ("message.timeout.ms", "0"),
                ("acks", "all"),
                ("enable.idempotence", if is_idempotent { "true" } else { "false" }),
            ],
            forced,
        );
        let watcher = Watcher::new(format!("the sink \"{}\"", self.table.name), &self.properties);
        let producer = config.create_with_context(watcher).map_err(|e| client_error(&e, &self.properties))?;
        let (lane, cancel, properties) = (self.lane(), CancelToken::default(), self.properties.clone());
        Ok(Box::new(Writer { producer: Some(producer), lane, cancel, properties }))
    }
}

impl KafkaSink {
    fn lane(&self) -> Lane {
        let (topic, partition_count) = (Arc::clone(&self.topic), self.partition_count.max(1));
        let leaves_out_from = self.beside.map(|max| max.saturating_sub(RECORD_OVERHEAD));
        Lane { topic, partition_count, partitioner: self.partitioner, turn: 0, leaves_out_from }
    }
}

/// What a table asks for.
pub fn delivery(table: &Table) -> Result<Option<Delivery>> {
    const KEY: &str = "sink.delivery-guarantee";
    if table.options.get(KEY).is_none() {
        return Ok(None);
    }
    Ok(Some(match table.options.choice(KEY, &["exactly-once", "at-least-once", "none"])? {
        "exactly-once" => Delivery::ExactlyOnce,
        "at-least-once" => Delivery::AtLeastOnce,
        _ => Delivery::None,
    }))
}

/// The brokers of a table's cluster; `None` for the embedded one.
pub fn brokers_of(table: &Table, defaults: &Defaults) -> Result<Option<String>> {
    let properties = ClientProperties::of_table(&table.options, defaults)?;
    Ok(properties.embedded().is_none().then(|| properties.brokers().to_owned()))
}

/// Whether what the user set admits idempotence: librdkafka refuses the combination otherwise, and a script that asks
/// for less safety gets it.
fn may_be_idempotent(properties: &ClientProperties) -> bool {
    let is = |key: &str, fits: &dyn Fn(&str) -> bool| properties.get(key).is_none_or(fits);
    is("enable.idempotence", &|wanted| wanted == "true")
        && is("acks", &|acks| matches!(acks, "all" | "-1"))
        && is("message.send.max.retries", &|retries| retries != "0")
        && is("max.in.flight.requests.per.connection", &|count| count.parse::<u32>().is_ok_and(|n| n <= 5))
}

/// Turns batches of the sink's columns into records.
struct Encoder {
    changes: Changes,
    value: Part,
    key: Option<Part>,
    timestamp: Option<usize>,
    headers: Option<usize>,
}

/// How records tell changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changes {
    /// Not at all.
    Untold,
    /// By the key: the last record of a key counts, and one without a value says that there is no row.
    ByKey,
    /// In the value.
    InValue,
}

/// Some of the sink's columns, encoded together.
struct Part {
    columns: Vec<usize>,
    schema: Arc<Schema>,
    encoder: Box<dyn RowEncoder>,
}

impl Encoder {
    fn new(table: &Table) -> Result<Self> {
        let layout = Layout::of(table)?;
        let columns: Vec<_> = table.sink_columns().collect();
        let part = |format: &crate::formats::Format, fields: &[super::layout::Field]| {
            let mut indices = Vec::with_capacity(fields.len());
            let mut schema = Vec::with_capacity(fields.len());
            for field in fields {
                let index = columns
                    .iter()
                    .position(|c| c.name == field.column && c.kind == ColumnKind::Physical)
                    .ok_or_else(|| Error::bug(format!("the sink has no column \"{}\"", field.column)))?;
                indices.push(index);
                let decode = &field.decode;
                schema.push(Field::new(decode.name.clone(), decode.data_type.clone(), decode.nullable));
            }
            let schema = Arc::new(Schema::new(schema));
            let encoder = format.encoder(&schema)?;
            Ok::<_, Error>(Part { columns: indices, schema, encoder })
        };
        let changes = match layout.value_format.has_changes() {
            _ if is_upsert(table) => Changes::ByKey,
            true => Changes::InValue,
            false => Changes::Untold,
        };
        let value = part(&layout.value_format, &layout.value)?;
        let key = layout.key.as_ref().map(|(format, fields)| part(format, fields)).transpose()?;
        let mut encoder = Self { changes, value, key, timestamp: None, headers: None };
        for (index, column) in columns.iter().enumerate() {
            let ColumnKind::Metadata { key, .. } = &column.kind else { continue };
            match (key.as_str(), &column.data_type) {
                ("timestamp", DataType::Timestamp(..) | DataType::Int64) => encoder.timestamp = Some(index),
                ("timestamp", _) => {
                    return Err(Error::statement(format!(
                        "the metadata column \"{}\" cannot have this type",
                        column.name
                    ))
                    .hint("declare it TIMESTAMP_LTZ(3) METADATA FROM 'timestamp'"));
                }
                ("headers", data_type) if is_header_map(data_type) => encoder.headers = Some(index),
                ("headers", _) => {
                    return Err(Error::statement(format!(
                        "the metadata column \"{}\" cannot have this type",
                        column.name
                    ))
                    .hint("declare it MAP<STRING, BYTES> METADATA FROM 'headers'"));
                }
                _ => {
                    return Err(Error::statement(format!("the metadata column \"{}\" cannot be written", column.name))
                        .hint("mark it VIRTUAL; only 'timestamp' and 'headers' can be set on a record"));
                }
            }
        }
        Ok(encoder)
    }
}

impl Part {
    fn encode(&mut self, batch: &RecordBatch, kinds: Option<&Int8Array>) -> Result<Encoded> {
        let columns = self.columns.iter().map(|i| batch.column(*i).clone()).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let part = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| Error::bug(format!("the sink's rows do not fit its table: {e}")))?;
        let mut out = Encoded::default();
        match kinds {
            Some(kinds) => self.encoder.encode_changes(&part, kinds, &mut out)?,
            None => self.encoder.encode(&part, &mut out)?,
        }
        Ok(out)
    }
}

impl SinkEncoder for Encoder {
    fn encode(&mut self, batch: &RecordBatch, kinds: Option<&Int8Array>) -> Result<SinkRows> {
        let keys = self.key.as_mut().map(|k| k.encode(batch, None)).transpose()?;
        let rows = match (self.changes, kinds, keys) {
            (Changes::ByKey, Some(kinds), Some(keys)) => {
                let upserts = Upserts::of(kinds, &keys);
                let keys = upserts.keys(&keys);
                let mut rows = self.rows(&take_record_batch(batch, upserts.rows())?, None, Some(keys))?;
                upserts.bury(&mut rows.values);
                rows
            }
            (Changes::Untold, Some(_), _) => return Err(Error::bug("a changelog for a topic of plain rows")),
            (_, kinds, keys) => self.rows(batch, kinds, keys)?,
        };
        Ok(SinkRows::Encoded(rows))
    }
}

impl Encoder {
    fn rows(&mut self, batch: &RecordBatch, kinds: Option<&Int8Array>, keys: Option<Encoded>) -> Result<EncodedRows> {
        Ok(EncodedRows {
            values: self.value.encode(batch, kinds)?,
            keys,
            timestamps: self.timestamp.map(|i| timestamps(batch.column(i))).transpose()?,
            headers: self.headers.map(|i| headers(batch.column(i))).transpose()?,
        })
    }
}

fn is_header_map(data_type: &DataType) -> bool {
    let DataType::Map(entries, _) = data_type else { return false };
    let DataType::Struct(pair) = entries.data_type() else { return false };
    pair.len() == 2
        && *pair[0].data_type() == DataType::Utf8
        && matches!(pair[1].data_type(), DataType::Utf8 | DataType::Binary)
}

/// The records' timestamps in milliseconds.
fn timestamps(column: &dyn Array) -> Result<Vec<Option<i64>>> {
    if *column.data_type() == DataType::Int64 {
        return Ok(column.as_primitive::<Int64Type>().iter().collect());
    }
    let DataType::Timestamp(_, zone) = column.data_type() else {
        return Err(Error::bug("a record's timestamp is no timestamp"));
    };
    let in_ms = cast(column, &DataType::Timestamp(TimeUnit::Millisecond, zone.clone()))?;
    Ok(in_ms.as_primitive::<TimestampMillisecondType>().iter().collect())
}

/// The records' headers.
fn headers(column: &dyn Array) -> Result<Vec<RecordHeaders>> {
    let map = column.as_map();
    let names = map.keys().as_string::<i32>();
    let values = map.values();
    let value = |i: usize| -> Option<Vec<u8>> {
        if values.is_null(i) {
            return None;
        }
        Some(match values.data_type() {
            DataType::Utf8 => values.as_string::<i32>().value(i).as_bytes().to_vec(),
            _ => values.as_binary::<i32>().value(i).to_vec(),
        })
    };
    let row = |row: usize| {
        if map.is_null(row) {
            return Vec::new();
        }
        let (start, end) = (map.value_offsets()[row] as usize, map.value_offsets()[row + 1] as usize);
        (start..end).map(|i| (names.value(i).to_owned(), value(i))).collect()
    };
    Ok((0..map.len()).map(row).collect())
}

/// Owns the producer.
struct Writer {
    /// `None` only while it is being dropped.
    producer: Option<BaseProducer<Watcher>>,
    lane: Lane,
    /// Cancelled when the job has failed: then nobody waits for a broker that is away.
    cancel: CancelToken,
    /// Keeps an in-process broker alive for as long as the producer.
    properties: ClientProperties,
}

/// How rows reach a topic, by whichever producer.
pub struct Lane {
    topic: Arc<str>,
    partition_count: i32,
    partitioner: Partitioner,
    /// The next partition in turn.
    turn: i32,
    /// Headers tell what a record is about, and one of more bytes goes without its value.
    leaves_out_from: Option<usize>,
}

/// What there is of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    All,
    NoValue,
    NoKeyEither,
}

impl Lane {
    /// To one partition of a topic.
    pub fn fixed(topic: &str, partition: i32) -> Self {
        let (topic, partitioner) = (topic.into(), Partitioner::Fixed(partition));
        Self { topic, partition_count: 1, partitioner, turn: 0, leaves_out_from: None }
    }

    /// Hands rows over; may wait for room until it is cancelled.
    pub fn write(&mut self, producer: &BaseProducer<Watcher>, rows: &EncodedRows, cancel: &CancelToken) -> Result<()> {
        for row in 0..rows.values.len() {
            if row % RECORDS_PER_POLL == 0 {
                producer.poll(Duration::ZERO);
            }
            self.send(producer, rows, row, cancel)?;
        }
        producer.poll(Duration::ZERO);
        self.check(producer)
    }

    /// Waits until everything that was handed over is acknowledged, or until it is cancelled.
    pub fn drain(&self, producer: &BaseProducer<Watcher>, cancel: &CancelToken) -> Result<()> {
        let mut patience = Patience::new();
        // Also with nothing to wait for: reports of an outage are not to be kept for the next row.
        producer.poll(Duration::ZERO);
        producer.client().context().set_waiting(true);
        // The client's own flush polls in slices of 100 ms, which would be the floor of every boundary.
        while producer.in_flight_count() > 0 {
            producer.poll(patience.slice());
            self.check(producer)?;
            cancel.check()?;
            patience.complain(producer, &self.topic);
        }
        producer.client().context().set_waiting(false);
        self.check(producer)
    }

    /// The error for a delivery that failed, if one did.
    fn check(&self, producer: &BaseProducer<Watcher>) -> Result<()> {
        let watcher = producer.client().context();
        if !watcher.has_failed() {
            return Ok(());
        }
        match (watcher.fatal(), watcher.undelivered()) {
            (Some(report), _) => {
                let (topic, text) = (&self.topic, &report.text);
                Err(Error::upstream(format!("the producer for topic \"{topic}\" has given up: {text}")).transient())
            }
            (None, Some(code)) => Err(self.undeliverable(code, watcher)),
            (None, None) => Ok(()),
        }
    }

    fn undeliverable(&self, code: RDKafkaErrorCode, watcher: &Watcher) -> Error {
        let topic = &self.topic;
        match code {
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize => {
                Error::data(format!("a row is larger than topic \"{topic}\" takes"))
                    .hint("raise max.message.bytes of the topic, and 'properties.message.max.bytes' here")
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                let grants = format!("WRITE and DESCRIBE on topic \"{topic}\"");
                watcher.properties().denied(&format!("write to topic \"{topic}\""), &grants)
            }
            RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition => {
                Error::upstream(format!("topic \"{topic}\" is gone from the cluster"))
                    .hint("create it again and restart the job")
            }
            RDKafkaErrorCode::UnknownPartition => {
                Error::upstream(format!("a partition of topic \"{topic}\" is gone from the cluster"))
            }
            code => Error::upstream(format!("topic \"{topic}\" does not take rows: {code}")).transient(),
        }
    }

    /// Hands one record over, waiting while the producer's queue is full. What is too large for a topic whose records are
    /// told of by headers goes there in part.
    fn send(
        &mut self,
        producer: &BaseProducer<Watcher>,
        rows: &EncodedRows,
        row: usize,
        cancel: &CancelToken,
    ) -> Result<()> {
        if self.partitioner == Partitioner::RoundRobin {
            self.turn = (self.turn + 1) % self.partition_count;
        }
        let Some(bytes_max) = self.leaves_out_from else {
            return if self.hand_over(producer, rows, row, Left::All, cancel)? {
                Ok(())
            } else {
                Err(self.undeliverable(RDKafkaErrorCode::MessageSizeTooLarge, producer.client().context()))
            };
        };
        for left in [Left::All, Left::NoValue, Left::NoKeyEither] {
            if record_bytes(rows, row, left) <= bytes_max && self.hand_over(producer, rows, row, left, cancel)? {
                return Ok(());
            }
        }
        Err(self.undeliverable(RDKafkaErrorCode::MessageSizeTooLarge, producer.client().context()))
    }

    /// Hands over what is left of a record; answers whether it is not too large.
    fn hand_over(
        &self,
        producer: &BaseProducer<Watcher>,
        rows: &EncodedRows,
        row: usize,
        left: Left,
        cancel: &CancelToken,
    ) -> Result<bool> {
        let (key, value) = key_and_value(rows, row);
        let mut headers = rows.headers.as_ref().map(|h| owned_headers(&h[row]));
        let mut leave_out = |part: &str, bytes: Option<&[u8]>| {
            let size = bytes.map_or(0, <[u8]>::len).to_string();
            let all = headers.take().unwrap_or_default();
            headers = Some(all.insert(Header { key: &format!("tidemill.{part}-bytes"), value: Some(&size) }));
        };
        if left != Left::All {
            leave_out("value", value);
        }
        if left == Left::NoKeyEither {
            leave_out("key", key);
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic);
        record.payload = value.filter(|_| left == Left::All);
        record.key = key.filter(|_| left != Left::NoKeyEither);
        record.timestamp = rows.timestamps.as_ref().and_then(|t| t[row]);
        record.headers = headers.filter(|headers| headers.count() > 0);
        record.partition = match self.partitioner {
            Partitioner::ByKey => None,
            Partitioner::Fixed(partition) => Some(partition),
            Partitioner::RoundRobin => Some(self.turn),
        };
        let mut patience = Patience::new();
        loop {
            let Err((error, refused)) = producer.send(record) else { return Ok(true) };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => {
                    record = refused;
                    producer.client().context().set_waiting(true);
                    producer.poll(patience.slice());
                    self.check(producer)?;
                    cancel.check()?;
                    patience.complain(producer, &self.topic);
                }
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => return Ok(false),
                Some(code) => return Err(self.undeliverable(code, producer.client().context())),
                None => return Err(Error::upstream(format!("topic \"{}\" does not take rows: {error}", self.topic))),
            }
        }
    }
}

fn key_and_value(rows: &EncodedRows, row: usize) -> (Option<&[u8]>, Option<&[u8]>) {
    (rows.keys.as_ref().and_then(|keys| keys.row(row)), rows.values.row(row))
}

/// The bytes of what is left of a record.
fn record_bytes(rows: &EncodedRows, row: usize, left: Left) -> usize {
    /// The lengths of a header's name and value.
    const LENGTHS: usize = 10;
    let (key, value) = key_and_value(rows, row);
    let value = value.filter(|_| left == Left::All).map_or(0, <[u8]>::len);
    let key = key.filter(|_| left != Left::NoKeyEither).map_or(0, <[u8]>::len);
    let of_header =
        |(name, value): &(String, Option<Vec<u8>>)| name.len() + value.as_ref().map_or(0, Vec::len) + LENGTHS;
    let headers: usize = rows.headers.as_ref().map_or(0, |headers| headers[row].iter().map(of_header).sum());
    key + value + headers
}

fn owned_headers(headers: &[(String, Option<Vec<u8>>)]) -> OwnedHeaders {
    let empty = OwnedHeaders::new_with_capacity(headers.len());
    headers.iter().fold(empty, |all, (name, value)| all.insert(Header { key: name, value: value.as_ref() }))
}

/// Says what a wait is for, when it gets long.
struct Patience {
    since: Instant,
    said: bool,
}

impl Patience {
    fn new() -> Self {
        Self { since: Instant::now(), said: false }
    }

    /// How long the next wait takes before progress is looked at: short at first, and then a small part of what has passed.
    /// The client waits in whole milliseconds and is busy for the rest, so that waits of one would keep a processor busy.
    fn slice(&self) -> Duration {
        (self.since.elapsed() / 8).clamp(SLICE_MIN, SLICE_MAX)
    }

    fn complain(&mut self, producer: &BaseProducer<Watcher>, topic: &str) {
        let watcher = producer.client().context();
        watcher.tell();
        // A broker that is away has been spoken of.
        if self.said || self.since.elapsed() < SILENT_MAX || watcher.is_away() {
            return;
        }
        self.said = true;
        let count = producer.in_flight_count();
        tracing::warn!("topic \"{topic}\": {count} rows wait to be acknowledged: the broker is slow");
    }
}

impl SinkWriter for Writer {
    fn write(&mut self, rows: SinkRows) -> Result<()> {
        let SinkRows::Encoded(rows) = rows else {
            return Err(Error::bug("a Kafka sink was given rows that are not encoded"));
        };
        let producer = self.producer.as_ref().expect("taken only by drop");
        self.lane.write(producer, &rows, &self.cancel)
    }

    fn flush(&mut self) -> Result<()> {
        self.lane.drain(self.producer(), &self.cancel)
    }

    fn cancel_by(&mut self, cancel: &CancelToken) {
        self.cancel = cancel.clone();
    }

    fn trouble(&self) -> Option<TroubleProbe> {
        let watcher = Arc::clone(self.producer().client().context());
        Some(Box::new(move || watcher.trouble_of_wait()))
    }

    fn close(&mut self) -> Result<()> {
        self.flush()?;
        self.end();
        Ok(())
    }
}

impl Writer {
    fn producer(&self) -> &BaseProducer<Watcher> {
        self.producer.as_ref().expect("taken only by drop")
    }

    fn end(&mut self) {
        if let Some(producer) = self.producer.take() {
            client::end((producer, self.properties.clone()));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}
