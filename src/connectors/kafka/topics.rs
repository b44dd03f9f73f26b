//! A look at topics as they are: how much is in them, and their records one by one.
//!
//! For people who want to know what there is. Nothing here belongs to a job: readers have no group, commit nothing, and
//! end when nobody looks any more. What is committed is all that is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataPartition, MetadataTopic};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::Embedded;
use super::access::client_error;
use super::batch::{Assignment, BatchConsumer, Event, Record, TimestampKind};
use super::client::{self, Watcher};
use super::cluster::Cluster;
use super::properties::ClientProperties;
use crate::discovery::{Sample, TopicRecord};
use crate::error::{Error, Result};

/// Records of a topic that are looked at to find out what it holds.
const SAMPLE_RECORDS: i64 = 1_000;

/// Of each partition at least so many.
const SAMPLE_RECORDS_PER_PARTITION_MIN: i64 = 20;

/// Bytes of a sample after which no more is read.
const SAMPLE_BYTES_MAX: usize = 8 << 20;

/// How long reading a sample, or the newest records of all topics, may take.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often all partitions are asked where they begin and end, while topics come and go.
const HELD_ATTEMPTS_MAX: usize = 4;

/// Partitions whose newest records are read, at most, for a list of topics.
const NEWEST_PARTITIONS_MAX: usize = 2_000;

/// Records of a partition that are read in one go, at most.
const READ_RECORDS_MAX: usize = 500;

/// How often offsets are asked for that the broker cannot tell yet, and the pause between.
const OFFSETS_ATTEMPTS: usize = 5;
const OFFSETS_PAUSE: Duration = Duration::from_millis(100);

/// A transaction ends in a marker, behind the newest record.
const NEWEST_RECORDS: i64 = 2;

/// A topic, and how much is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its name.
    pub name: String,
    /// The number of its partitions.
    pub partitions: usize,
    /// The least number of replicas that one of its partitions has.
    pub replication: usize,
    /// The records in it, by its offsets: compaction and transactions make it an estimate. `None` if nobody can tell.
    pub records: Option<u64>,
    /// The greatest timestamp of its partitions' last records, as far as they were looked at.
    pub newest_ms: Option<i64>,
    /// This user may see the topic, and not read it; known of topics that hold records.
    pub is_denied: bool,
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    low: i64,
    high: i64,
}

impl Cluster {
    /// All topics that this user may see, and how much is in them.
    pub fn summaries(&self) -> Result<Vec<TopicSummary>> {
        let (metadata, held) = self.all_held()?;
        let (newest, denied) = self.newest(&held);
        let mut summaries: Vec<_> = metadata
            .topics()
            .iter()
            .map(|topic| {
                let name = topic.name();
                let replicas = topic.partitions().iter().map(|p| p.replicas().len());
                let counts = topic
                    .partitions()
                    .iter()
                    .map(|p| held.get(&(name.to_owned(), p.id())).map(|held| (held.high - held.low).unsigned_abs()));
                TopicSummary {
                    name: name.to_owned(),
                    partitions: topic.partitions().len(),
                    replication: replicas.min().unwrap_or(0),
                    records: counts.sum(),
                    newest_ms: newest.get(name).copied(),
                    is_denied: denied.contains(name),
                }
            })
            .collect();
        summaries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(summaries)
    }

    /// All topics, and where their partitions begin and end, as far as that can be told: that it cannot is no reason
    /// not to list the topics.
    fn all_held(&self) -> Result<(Metadata, BTreeMap<(String, i32), Held>)> {
        let mut attempt = 1;
        loop {
            let metadata = self.metadata(None)?;
            let led = |topic: &MetadataTopic| {
                let led = topic.partitions().iter().filter(|p| p.leader() >= 0).map(MetadataPartition::id);
                led.map(|p| (topic.name().to_owned(), p)).collect::<Vec<_>>()
            };
            let ids: Vec<_> = metadata.topics().iter().flat_map(led).collect();
            let ids: Vec<_> = ids.iter().map(|(topic, partition)| (topic.as_str(), *partition)).collect();
            match self.held(&ids) {
                Ok(held) => return Ok((metadata, held)),
                // One topic that was deleted meanwhile fails the question for all of them.
                Err(e) if attempt < HELD_ATTEMPTS_MAX => tracing::debug!("asked again for offsets: {e}"),
                Err(e) => {
                    tracing::debug!("topics are listed without offsets: {e}");
                    return Ok((metadata, BTreeMap::new()));
                }
            }
            attempt += 1;
        }
    }

    /// Where partitions begin and end, by two questions for all of them.
    fn held(&self, ids: &[(&str, i32)]) -> Result<BTreeMap<(String, i32), Held>> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ask = |at: Offset| {
            let mut list = TopicPartitionList::with_capacity(ids.len());
            for (topic, partition) in ids {
                list.add_partition_offset(topic, *partition, at).map_err(|e| Error::bug(e.to_string()))?;
            }
            // A broker that has just made a topic, or moved one, does not know its offsets yet.
            for _ in 0..OFFSETS_ATTEMPTS {
                let found = self.offsets_at(list.clone());
                let passing =
                    |e: KafkaError| e.rdkafka_error_code() != Some(RDKafkaErrorCode::TopicAuthorizationFailed);
                let is_good = match &found {
                    Ok(found) => !found.elements().iter().any(|e| e.error().is_err_and(passing)),
                    Err(error) => !error.is_transient,
                };
                if is_good {
                    return found;
                }
                std::thread::sleep(OFFSETS_PAUSE);
            }
            self.offsets_at(list)
        };
        let (lows, highs) = (ask(Offset::Beginning)?, ask(Offset::End)?);
        let offset = |list: &TopicPartitionList, (topic, partition): &(&str, i32)| match list
            .find_partition(topic, *partition)?
            .offset()
        {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        let held = ids.iter().filter_map(|id| {
            let (low, high) = (offset(&lows, id)?, offset(&highs, id)?);
            Some(((id.0.to_owned(), id.1), Held { low, high: high.max(low) }))
        });
        Ok(held.collect())
    }

    /// Per topic the greatest timestamp of its last records, and the topics that may not be read.
    fn newest(&self, held: &BTreeMap<(String, i32), Held>) -> (BTreeMap<String, i64>, BTreeSet<String>) {
        let mut filled: Vec<_> = held.iter().filter(|(_, held)| held.low < held.high).collect();
        // Where there are more than that, each topic is looked at in some of its partitions.
        filled.sort_by_key(|((_, partition), _)| *partition);
        let spans: Vec<_> = filled
            .into_iter()
            .take(NEWEST_PARTITIONS_MAX)
            .map(|((topic, partition), held)| Span {
                topic,
                partition: *partition,
                start: held.low.max(held.high - NEWEST_RECORDS),
                end: Some(held.high),
            })
            .collect();
        let mut newest = BTreeMap::new();
        let Ok(mut reader) = TopicReader::open(self.properties(), &spans) else { return (newest, BTreeSet::new()) };
        reader.passes_over_denied = true;
        // Whatever comes in time is shown; the list is worth showing without.
        let _ = reader.read_all(|topic, record| {
            if let Some(time) = record.timestamp_ms {
                newest
                    .entry(topic.to_owned())
                    .and_modify(|newest: &mut i64| *newest = time.max(*newest))
                    .or_insert(time);
            }
            true
        });
        (newest, reader.denied)
    }

    /// The newest records of a topic, some of each partition.
    pub fn sample(&self, topic: &str) -> Result<Sample> {
        let found = self.topic(topic)?;
        let ids: Vec<_> = found.partitions.iter().map(|partition| (topic, *partition)).collect();
        let held = self.held(&ids)?;
        let filled = held.values().filter(|held| held.low < held.high).count();
        let share = SAMPLE_RECORDS / (filled as i64).max(1);
        let share = share.max(SAMPLE_RECORDS_PER_PARTITION_MIN);
        let records_held = held.values().map(|held| (held.high - held.low).unsigned_abs()).sum();
        // Where compaction has left nothing near the end, more of the partition is read.
        let mut records = Vec::new();
        for reach in [share, i64::MAX] {
            let spans: Vec<_> = held
                .iter()
                .filter(|(_, held)| held.low < held.high)
                .map(|((_, partition), held)| Span {
                    topic,
                    partition: *partition,
                    start: held.low.max(held.high.saturating_sub(reach)),
                    end: Some(held.high),
                })
                .collect();
            if !records.is_empty() || spans.is_empty() {
                break;
            }
            let mut bytes = 0;
            TopicReader::open(self.properties(), &spans)?.read_all(|_, record| {
                bytes += record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len);
                records.push(record);
                bytes < SAMPLE_BYTES_MAX && (records.len() as i64) < SAMPLE_RECORDS.max(share * ids.len() as i64)
            })?;
        }
        Ok(Sample { topic: topic.to_owned(), partitions: ids.len(), records_held, records })
    }

    /// Whether this user may use transactions here: one is prepared under a name of its own that begins as those of jobs'
    /// logs do, and never begun.
    pub fn try_transactions(&self, prefix: &str) -> Result<()> {
        let id = format!("{prefix}doctor-{}", std::process::id());
        let config = self.properties().config(&[], &[("transactional.id", &id)]);
        let watcher = Watcher::quiet("a look at transactions", self.properties());
        let producer: BaseProducer<Watcher> =
            config.create_with_context(watcher).map_err(|e| client_error(&e, self.properties()))?;
        let answer = producer.init_transactions(LOOK_WAIT_MAX);
        client::end(producer);
        answer.map_err(|error| match error {
            KafkaError::Transaction(error) if error.code() == RDKafkaErrorCode::TransactionalIdAuthorizationFailed => {
                self.properties().denied(
                    &format!("use the transactional id \"{id}\""),
                    &format!("WRITE and DESCRIBE on the transactional ids that begin with \"{prefix}\""),
                )
            }
            error => Error::upstream(format!("the broker at {} does not begin transactions: {error}", self.brokers())),
        })
    }

    /// A reader of all partitions of a topic: from its beginning, or of what is written from now on; if it is bounded, to
    /// where the topic ends now.
    pub fn read_topic(&self, topic: &str, from_beginning: bool, is_bounded: bool) -> Result<TopicReader> {
        let found = self.topic(topic)?;
        let ids: Vec<_> = found.partitions.iter().map(|partition| (topic, *partition)).collect();
        let held = self.held(&ids)?;
        let span = |((_, partition), held): (&(String, i32), &Held)| Span {
            topic,
            partition: *partition,
            start: if from_beginning { held.low } else { held.high },
            end: is_bounded.then_some(held.high),
        };
        TopicReader::open(self.properties(), &held.iter().map(span).collect::<Vec<_>>())
    }
}

/// What to read of a partition.
struct Span<'a> {
    topic: &'a str,
    partition: i32,
    start: i64,
    end: Option<i64>,
}

/// Reads records of topics as they are.
pub struct TopicReader {
    batches: BatchConsumer<Watcher>,
    /// By slot: the topic, the partition, and where it ends, if it is read to an end and has not come to it.
    slots: Vec<(String, i32, Option<i64>)>,
    /// Every partition is read to an end.
    is_bounded: bool,
    /// Topics that this user may not read, and whether the others are read all the same.
    denied: BTreeSet<String>,
    passes_over_denied: bool,
    /// The in-process broker must outlive its clients.
    _embedded: Option<Arc<Embedded>>,
}

impl TopicReader {
    fn open(properties: &ClientProperties, spans: &[Span<'_>]) -> Result<Self> {
        let config = properties.config(
            &[("isolation.level", "read_committed"), ("fetch.wait.max.ms", "100")],
            &[
                ("group.id", "tidemill"),
                ("enable.auto.commit", "false"),
                ("enable.partition.eof", "true"),
                ("allow.auto.create.topics", "false"),
            ],
        );
        let watcher = Watcher::quiet("a look at a topic", properties);
        let consumer: BaseConsumer<Watcher> =
            config.create_with_context(watcher).map_err(|e| client_error(&e, properties))?;
        let assignments: Vec<_> = spans
            .iter()
            .map(|span| Assignment { topic: span.topic, partition: span.partition, start: span.start })
            .collect();
        let batches = BatchConsumer::new(consumer, &assignments)?;
        let is_bounded = spans.iter().all(|span| span.end.is_some());
        let end = |span: &Span<'_>| span.end.filter(|end| span.start < *end);
        let slots = spans.iter().map(|span| (span.topic.to_owned(), span.partition, end(span))).collect();
        let (denied, passes_over_denied) = (BTreeSet::new(), false);
        Ok(Self { batches, slots, is_bounded, denied, passes_over_denied, _embedded: properties.embedded().cloned() })
    }

    /// Whether every partition has been read to its end; never so when there is none.
    pub fn has_ended(&self) -> bool {
        self.is_bounded && self.slots.iter().all(|(.., end)| end.is_none())
    }

    /// Visits records with their topics, as far as they have arrived within `wait`: as few as none. The visit ends it by
    /// `false`, and what follows comes the next time.
    pub fn read(&mut self, wait: Duration, mut visit: impl FnMut(&str, TopicRecord) -> bool) -> Result<()> {
        let mut seen = 0;
        for round in 0..2 {
            for (slot, (topic, partition, end)) in self.slots.iter_mut().enumerate() {
                let mut goes_on = true;
                self.batches.poll(slot, READ_RECORDS_MAX, |event| {
                    if !goes_on {
                        return ControlFlow::Break(());
                    }
                    match event {
                        Event::Record(record) => {
                            seen += 1;
                            if end.is_some_and(|end| end <= record.offset() + 1) {
                                *end = None;
                            }
                            goes_on = visit(topic, owned(*partition, &record));
                        }
                        Event::End(at) if end.is_some_and(|end| end <= at) => *end = None,
                        Event::End(_) => {}
                        Event::Failed { code: RDKafkaErrorCode::TopicAuthorizationFailed, .. } => {
                            self.denied.insert(topic.clone());
                            *end = None;
                        }
                        // Outages end; what does not is told by the watcher.
                        Event::Failed { code, text } => tracing::debug!("looking at {topic}: {code}: {text}"),
                    }
                    ControlFlow::Continue(())
                });
                if !goes_on {
                    return Ok(());
                }
            }
            if seen > 0 || round > 0 {
                break;
            }
            self.batches.wait(wait);
        }
        let watcher = Consumer::client(self.batches.consumer()).context();
        if let Some(topic) = self.denied.first().filter(|_| !self.passes_over_denied) {
            let grants = format!("READ and DESCRIBE on topic \"{topic}\"");
            return Err(watcher.properties().denied(&format!("read topic \"{topic}\""), &grants));
        }
        match watcher.verdict() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Reads every partition to its end, or as far as it comes in time; until `visit` has seen enough.
    fn read_all(&mut self, mut visit: impl FnMut(&str, TopicRecord) -> bool) -> Result<()> {
        let start = Instant::now();
        let mut goes_on = true;
        while goes_on && self.slots.iter().any(|(.., end)| end.is_some()) && start.elapsed() < LOOK_WAIT_MAX {
            self.read(Duration::from_millis(100), |topic, record| {
                goes_on = visit(topic, record);
                goes_on
            })?;
        }
        Ok(())
    }
}

fn owned(partition: i32, record: &Record<'_>) -> TopicRecord {
    let mut headers = Vec::new();
    record.headers(|name, value| {
        headers.push((String::from_utf8_lossy(name).into_owned(), value.map(<[u8]>::to_vec)));
    });
    let (time, kind) = record.timestamp();
    TopicRecord {
        partition,
        offset: record.offset(),
        timestamp_ms: (kind != TimestampKind::None).then_some(time),
        key: record.key().map(<[u8]>::to_vec),
        value: record.payload().map(<[u8]>::to_vec),
        headers,
    }
}
