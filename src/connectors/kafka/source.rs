//! Reading a Kafka table.
//!
//! Opening resolves everything that depends on the moment: which partitions there are, where each starts and ends.
//! A reader then has a consumer of its own, assigned its share at those offsets, and decodes records where librdkafka
//! left them. A bad record is a value; only the table's `'scan.on-error'` makes it a failure.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::access::client_error;
use super::batch::{Assignment, BatchConsumer, Event, Record};
use super::client::Watcher;
use super::cluster::Cluster;
use super::group::GroupOffsets;
use super::layout::Layout;
use super::positions;
use super::properties::ClientProperties;
use super::rows::RowReader;
use crate::connectors::{
    Defaults, OnError, PartitionId, PartitionPlan, RawRecord, Rejects, Source, SourceReader, SourceRows, SourceSpec,
    Undecoded, shown,
};
use crate::error::{Error, Result};
use crate::limits::BATCH_ROWS_MAX;

/// Records that librdkafka reads ahead for one reader, about: shared by its partitions. It takes some 300 bytes a record
/// beside the record itself, and more of them only push each other out of the processor's caches.
const READ_AHEAD_RECORDS: usize = 50_000;

/// Kilobytes that librdkafka reads ahead for one reader, about: shared by its partitions.
const READ_AHEAD_KB: usize = 64 << 10;

/// How often a reader asks whether a broker that went away is back.
const PROBE_AWAY: Duration = Duration::from_secs(1);

/// How often a reader to which nothing comes asks whether its topics are still there.
const PROBE_IDLE: Duration = Duration::from_secs(10);

/// How long such a question may take.
const PROBE_WAIT: Duration = Duration::from_millis(300);

/// After how many answers in a row that a topic is gone, or holds less than was read, this is believed: a new leader's
/// knowledge may lag behind.
const MISSING_MAX: u32 = 2;

/// A Kafka table that a job reads.
pub struct KafkaSource {
    spec: SourceSpec,
    partitions: Vec<PartitionPlan>,
    properties: ClientProperties,
    /// Kept only to commit to the group, and to look for partitions.
    cluster: Option<Cluster>,
    discovery_interval: Option<Duration>,
    /// All partitions, those found while the job runs behind the others.
    known: Mutex<Vec<PartitionId>>,
    group: GroupOffsets,
    on_error: OnError,
    /// What the names of topics begin with that no pattern means.
    own_topics: String,
}

impl KafkaSource {
    /// Connects, and resolves the table's partitions.
    pub fn open(spec: SourceSpec, defaults: &Defaults) -> Result<Self> {
        let layout = Layout::of(&spec.table)?;
        let on_error = Rejects::of(&spec.table)?.on_error;
        // Mistakes in the statement come before questions to the broker.
        RowReader::new(&spec, &layout)?;
        let properties = ClientProperties::of_table(&spec.table.options, defaults)?;
        let cluster = Cluster::new(properties)?;
        let discovery_interval = positions::discovery_interval(&spec.table.options)?;
        let mut partitions =
            positions::resolve(&spec.table.options, &cluster, &defaults.own_topics, spec.resume.as_deref())?;
        if let (Some(resume), Some(_)) = (&spec.resume, &spec.found) {
            partitions.truncate(resume.len());
        }
        let properties = cluster.properties().clone();
        let is_kept = properties.group().is_some() || discovery_interval.is_some();
        let cluster = is_kept.then_some(cluster);
        let known = partitions.iter().chain(spec.found.iter().flatten()).map(|p| p.id.clone()).collect();
        let (known, group) = (Mutex::new(known), GroupOffsets::default());
        let own_topics = defaults.own_topics.clone();
        Ok(Self { spec, partitions, properties, cluster, discovery_interval, known, group, on_error, own_topics })
    }

    fn known(&self) -> MutexGuard<'_, Vec<PartitionId>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn consumer(&self, share: usize) -> Result<BaseConsumer<Watcher>> {
        let share = share.max(1);
        let records = (READ_AHEAD_RECORDS / share).max(2 * BATCH_ROWS_MAX).to_string();
        let kilobytes = (READ_AHEAD_KB / share).clamp(2 << 10, 32 << 10).to_string();
        let properties = &self.properties;
        let group = properties.group().unwrap_or("tidemill").to_owned();
        let config = properties.config(
            &[
                ("queued.min.messages", &records),
                ("queued.max.messages.kbytes", &kilobytes),
                ("fetch.message.max.bytes", "2097152"),
                // librdkafka's own second of back-off when its queue is full nearly halves the throughput.
                ("fetch.queue.backoff.ms", "5"),
                ("fetch.wait.max.ms", "100"),
                ("fetch.min.bytes", "1"),
                ("socket.timeout.ms", "10000"),
                ("reconnect.backoff.max.ms", "2000"),
                // The end of a bounded run is then the last stable offset, and aborted rows are never seen.
                ("isolation.level", "read_committed"),
            ],
            &[
                // Needed for any assignment; without one of the user's nothing is ever committed to it.
                ("group.id", &group),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("enable.partition.eof", "true"),
                ("auto.offset.reset", "error"),
            ],
        );
        let watcher = Watcher::new(format!("the source \"{}\"", self.spec.table.name), properties);
        config.create_with_context(watcher).map_err(|e| client_error(&e, properties))
    }
}

impl Source for KafkaSource {
    fn partitions(&self) -> &[PartitionPlan] {
        &self.partitions
    }

    fn partition_id(&self, index: usize) -> Option<PartitionId> {
        self.known().get(index).cloned()
    }

    fn discovery_interval(&self) -> Option<Duration> {
        self.discovery_interval
    }

    fn discover(&self) -> Result<Vec<PartitionPlan>> {
        let Some(cluster) = &self.cluster else { return Ok(Vec::new()) };
        let known: BTreeSet<PartitionId> = self.known().iter().cloned().collect();
        let found = positions::discover(&self.spec.table.options, cluster, &self.own_topics, &known)?;
        self.known().extend(found.iter().map(|p| p.id.clone()));
        Ok(found)
    }

    fn reader(&self, share: &[usize]) -> Result<Box<dyn SourceReader>> {
        let layout = Layout::of(&self.spec.table)?;
        let rows = RowReader::new(&self.spec, &layout)?;
        let consumer = self.consumer(share.len())?;
        let mut states: Vec<Option<State>> = vec![None; self.partitions.len()];
        let mut assignments = Vec::new();
        for &index in share {
            let plan = &self.partitions[index];
            let done = plan.end.is_some_and(|end| plan.start >= end);
            // A partition that has nothing to give is not fetched at all.
            let slot = (!done).then_some(assignments.len());
            if slot.is_some() {
                let (topic, partition) = (&*plan.id.topic, plan.id.partition);
                assignments.push(Assignment { topic, partition, start: plan.start });
            }
            states[index] = Some(State { plan: plan.clone(), slot, next: plan.start, limit: None, told_end: false });
        }
        let batch = BatchConsumer::new(consumer, &assignments)?;
        Ok(Box::new(Reader {
            batch,
            rows,
            states,
            on_error: self.on_error,
            probed: Instant::now(),
            probe_next: 0,
            heard: false,
            missing: 0,
            _properties: self.properties.clone(),
        }))
    }

    fn note_progress(&self, next_offsets: &[(usize, i64)]) {
        if let Some(cluster) = &self.cluster {
            self.group.commit(cluster, next_offsets, |index| self.partition_id(index));
        }
    }
}

/// Where a reader stands in one partition of its share.
#[derive(Clone)]
struct State {
    plan: PartitionPlan,
    /// The partition's slot in the consumer; `None` once there is nothing more to read for ever.
    slot: Option<usize>,
    next: i64,
    /// Nothing at or beyond this offset is wanted yet.
    limit: Option<i64>,
    /// The end of a bounded partition has been reported.
    told_end: bool,
}

struct Reader {
    batch: BatchConsumer<Watcher>,
    rows: RowReader,
    /// By partition index; `None` for those of other readers.
    states: Vec<Option<State>>,
    on_error: OnError,
    /// When the cluster was last asked, and the partition index to ask about next.
    probed: Instant,
    probe_next: usize,
    /// Something has come since.
    heard: bool,
    /// Answers in a row that a topic is gone or holds less than was read.
    missing: u32,
    /// Keeps an in-process broker alive for as long as the consumer.
    _properties: ClientProperties,
}

impl Reader {
    fn watcher(&self) -> &Arc<Watcher> {
        self.batch.consumer().client().context()
    }
}

impl SourceReader for Reader {
    fn poll(&mut self, partition: usize, rows_max: usize) -> Result<Option<SourceRows>> {
        let Some(state) = self.states.get_mut(partition).and_then(Option::as_mut) else {
            return Err(Error::bug(format!("partition {partition} is not in this reader's share")));
        };
        let Some(slot) = state.slot else {
            if std::mem::replace(&mut state.told_end, true) {
                return Ok(None);
            }
            let mut got = SourceRows { next_offset: state.next, at_end: true, ..SourceRows::default() };
            self.rows.take_into(&mut got, &state.plan.id.topic, state.plan.id.partition)?;
            return Ok(Some(got));
        };
        if state.limit.is_some_and(|limit| limit <= state.next) {
            return Ok(None);
        }
        let mut taking = Taking {
            rows: &mut self.rows,
            plan: &state.plan,
            limit: state.limit.unwrap_or(i64::MAX),
            on_error: self.on_error,
            got: SourceRows { next_offset: state.next, ..SourceRows::default() },
            ended: false,
            failure: None,
            is_alive: false,
        };
        let events = self.batch.poll(slot, rows_max.min(BATCH_ROWS_MAX), |event| taking.visit(event));
        let Taking { mut got, ended, failure, is_alive, .. } = taking;
        if events == 0 {
            let watcher = self.watcher();
            return match watcher.has_failed().then(|| watcher.fatal()).flatten() {
                Some(report) => {
                    Err(Error::upstream(format!("the Kafka client has given up: {}", report.text)).transient())
                }
                None => Ok(None),
            };
        }
        if is_alive {
            self.heard = true;
            self.watcher().note_alive();
        }
        if let Some(failure) = failure {
            return Err(self.explain(partition, failure));
        }
        let state = self.states[partition].as_mut().expect("looked up above");
        let moved = got.next_offset > state.next;
        state.next = got.next_offset;
        if ended {
            got.at_end = true;
            state.slot = None;
            state.told_end = true;
        }
        let id = &state.plan.id;
        if got.offsets.is_empty() && !got.at_end && !moved {
            return Ok(None);
        }
        self.rows.take_into(&mut got, &id.topic, id.partition)?;
        Ok(Some(got))
    }

    fn wait(&mut self, wait: Duration) -> Result<()> {
        self.batch.wait(wait);
        let interval = if self.watcher().is_away() { PROBE_AWAY } else { PROBE_IDLE };
        if self.probed.elapsed() < interval {
            return Ok(());
        }
        self.probed = Instant::now();
        // While records come there is nothing to ask.
        if std::mem::take(&mut self.heard) { Ok(()) } else { self.probe() }
    }

    fn known_end(&self, partition: usize) -> Option<i64> {
        let state = self.states.get(partition)?.as_ref()?;
        let known = || self.batch.known_end(&state.plan.id.topic, state.plan.id.partition);
        state.plan.end.or_else(known)
    }

    fn trouble(&self) -> Option<String> {
        self.watcher().trouble()
    }

    fn add(&mut self, partition: usize, plan: &PartitionPlan) -> Result<()> {
        let slot = self.batch.slots();
        self.batch.add(&[Assignment { topic: &plan.id.topic, partition: plan.id.partition, start: plan.start }])?;
        self.states.resize(self.states.len().max(partition + 1), None);
        self.states[partition] =
            Some(State { plan: plan.clone(), slot: Some(slot), next: plan.start, limit: None, told_end: false });
        Ok(())
    }

    fn set_limit(&mut self, partition: usize, limit: Option<i64>) -> Result<()> {
        let Some(state) = self.states.get_mut(partition).and_then(Option::as_mut) else {
            return Err(Error::bug(format!("partition {partition} is not in this reader's share")));
        };
        state.limit = limit;
        Ok(())
    }
}

impl Reader {
    /// Asks about one partition in turn. librdkafka tells neither that a broker is back, while no record comes, nor
    /// that a topic was deleted, nor that it was made anew and holds less than was read.
    fn probe(&mut self) -> Result<()> {
        let count = self.states.len();
        let asked = (0..count).map(|i| (self.probe_next + i) % count).find_map(|index| {
            let state = self.states[index].as_ref()?;
            state.slot.map(|_| (index, state.plan.id.clone(), state.limit.map_or(state.next, |l| l.max(state.next))))
        });
        let Some((index, id, next)) = asked else { return Ok(()) };
        self.probe_next = index + 1;
        let consumer = self.batch.consumer();
        let Ok(metadata) = consumer.fetch_metadata(Some(&id.topic), PROBE_WAIT) else { return Ok(()) };
        self.watcher().note_alive();
        let is_there = metadata.topics().iter().any(|t| t.error().is_none() && !t.partitions().is_empty());
        let shrunk = |consumer: &BaseConsumer<Watcher>| {
            let held = consumer.fetch_watermarks(&id.topic, id.partition, PROBE_WAIT);
            held.is_ok_and(|(_, high)| high < next)
        };
        let code = if !is_there {
            RDKafkaErrorCode::UnknownTopic
        } else if shrunk(self.batch.consumer()) {
            RDKafkaErrorCode::OffsetOutOfRange
        } else {
            self.missing = 0;
            return Ok(());
        };
        self.missing += 1;
        if self.missing < MISSING_MAX {
            self.probe_next = index;
            return Ok(());
        }
        let text = "the broker does not know it".to_owned();
        Err(self.explain(index, Failure::Client { code, text, next }))
    }
}

/// Why a partition cannot be read on.
enum Failure {
    /// A record does not decode and the table says that this is the end.
    Data(Error),
    /// librdkafka says so.
    Client { code: RDKafkaErrorCode, text: String, next: i64 },
}

impl Reader {
    /// The error that people see.
    fn explain(&self, partition: usize, failure: Failure) -> Error {
        let (code, text, next) = match failure {
            Failure::Data(error) => return error,
            Failure::Client { code, text, next } => (code, text, next),
        };
        let id = &self.states[partition].as_ref().expect("a partition of the share").plan.id;
        let (topic, number) = (&*id.topic, id.partition);
        match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                let held = self.batch.consumer().fetch_watermarks(topic, number, Duration::from_secs(2)).ok();
                let lost = match held {
                    Some((low, _)) if low > next => format!(": the records from {next} to {} are gone", low - 1),
                    Some((low, high)) => format!(": it holds {low} to {high}"),
                    None => String::new(),
                };
                Error::upstream(format!(
                    "topic \"{topic}\", partition {number} no longer holds offset {next}, where reading was to go on{lost}"
                ))
                .hint("the topic's retention is shorter than the reader is slow, or the topic was made anew; a new job \
                       with 'scan.startup.mode' = 'earliest-offset' reads what is left")
            }
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition => {
                Error::upstream(format!("topic \"{topic}\", partition {number} is gone from the cluster: {text}"))
                    .hint("if the topic was deleted and made again, start a new job")
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                let grants = format!("READ and DESCRIBE on topic \"{topic}\"");
                self.watcher().properties().denied(&format!("read topic \"{topic}\""), &grants)
            }
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize => Error::upstream(format!(
                "topic \"{topic}\", partition {number} has a batch at offset {next} that is larger than the client takes"
            ))
            .hint("raise 'properties.receive.message.max.bytes' and 'properties.fetch.message.max.bytes'"),
            _ => Error::upstream(format!(
                "topic \"{topic}\", partition {number} cannot be read on from offset {next}: {text}"
            ))
            .transient(),
        }
    }
}

/// One batch on its way into columns.
struct Taking<'a> {
    rows: &'a mut RowReader,
    plan: &'a PartitionPlan,
    limit: i64,
    on_error: OnError,
    got: SourceRows,
    /// The end of a bounded partition was reached.
    ended: bool,
    failure: Option<Failure>,
    /// Something came from the broker, rather than a report about it.
    is_alive: bool,
}

impl Taking<'_> {
    fn visit(&mut self, event: Event<'_>) -> ControlFlow<()> {
        self.is_alive |= !matches!(event, Event::Failed { .. });
        match event {
            Event::Record(record) => self.record(&record),
            Event::End(position) if self.limit < position => {
                self.got.next_offset = self.got.next_offset.max(self.limit);
                ControlFlow::Break(())
            }
            Event::End(position) => {
                self.got.next_offset = self.got.next_offset.max(position);
                self.got.at_end = true;
                self.end_if_at(position)
            }
            Event::Failed { code, text } if is_passing(code) => {
                let id = &self.plan.id;
                tracing::warn!("topic \"{}\", partition {}: {text}; going on", id.topic, id.partition);
                ControlFlow::Continue(())
            }
            Event::Failed { code, text } => {
                self.failure = Some(Failure::Client { code, text, next: self.got.next_offset });
                ControlFlow::Break(())
            }
        }
    }

    fn end_if_at(&mut self, position: i64) -> ControlFlow<()> {
        match self.plan.end {
            Some(end) if position >= end => {
                self.ended = true;
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn record(&mut self, record: &Record<'_>) -> ControlFlow<()> {
        let offset = record.offset();
        if self.limit <= offset {
            // Whatever holes there are, nothing before the limit is missing; the record waits.
            self.got.next_offset = self.got.next_offset.max(self.limit);
            return ControlFlow::Break(());
        }
        if let Some(end) = self.plan.end
            && offset >= end
        {
            // Nothing before the end is missing, whatever holes there are; the record itself belongs to nobody.
            self.got.next_offset = self.got.next_offset.max(end);
            self.ended = true;
            return ControlFlow::Break(());
        }
        self.got.at_end = false;
        self.got.next_offset = offset + 1;
        self.got.records += 1;
        let Some(payload) = record.payload() else {
            self.got.tombstones += 1;
            return self.end_if_at(offset + 1);
        };
        self.got.bytes += payload.len() as u64;
        match self.rows.push(record, payload) {
            Ok(()) => self.got.offsets.push(offset),
            Err(_) if self.on_error == OnError::Skip => self.got.bad += 1,
            Err(reason) if self.on_error == OnError::DeadLetter => self.got.undecoded.push(Undecoded {
                offset,
                record: RawRecord::new(record.key(), payload),
                reason: reason.to_string(),
            }),
            Err(reason) => {
                let id = &self.plan.id;
                self.failure = Some(Failure::Data(
                    Error::data(format!(
                        "the record at topic \"{}\", partition {}, offset {offset} does not decode: {reason}; it begins \
                         with \"{}\"",
                        id.topic,
                        id.partition,
                        shown(payload)
                    ))
                    .hint(
                        "'scan.on-error' = 'skip' goes on and counts such records, 'dead-letter' writes them to a topic",
                    ),
                ));
                return ControlFlow::Break(());
            }
        }
        self.end_if_at(offset + 1)
    }
}

/// Errors that librdkafka recovers from by itself.
fn is_passing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::OffsetNotAvailable
            | RDKafkaErrorCode::FencedLeaderEpoch
            | RDKafkaErrorCode::UnknownLeaderEpoch
            | RDKafkaErrorCode::Resolve
    )
}
