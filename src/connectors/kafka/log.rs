//! The topic of a job's log: partition 0 holds its progress, partition 1 chunks of its state.
//!
//! It is read to its last stable offset by whoever asks; it is written to in the job's
//! [transactions](super::transactions) only. What is no longer needed is deleted from its beginning.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::access::client_error;
use super::batch::{Assignment, BatchConsumer, Event};
use super::client::{self, Watcher};
use super::cluster::Cluster;
use super::properties::ClientProperties;
use crate::connectors::CancelToken;
use crate::error::{Error, Result};

/// The partition of the records of progress.
pub const PROGRESS: i32 = 0;

/// The partition of the chunks of state.
pub const STATE: i32 = 1;

/// How long the end of a log may not come, while nothing is read.
const READ_WAIT: Duration = Duration::from_secs(30);

/// How long the ends of a log may take to be told.
const ENDS_WAIT: Duration = Duration::from_secs(2);

/// How long a wait for records takes at once.
const SLICE: Duration = Duration::from_millis(10);

/// Records that are taken in one go.
const RECORDS_MAX: usize = 256;

/// How long a deletion may take.
const DELETE_WAIT: Duration = Duration::from_secs(30);

/// What a log's topic is made with: nothing of it goes but what is deleted, and that in pieces of a moderate size.
const SETTINGS: &[(&str, &str)] =
    &[("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1"), ("segment.bytes", "67108864")];

/// What a job needs on the topic of its log.
pub(super) fn grants(name: &str) -> String {
    format!("READ, WRITE, DESCRIBE and DELETE on topic \"{name}\"")
}

/// Takes a record with its offset.
type Take<'a> = &'a mut dyn FnMut(i64, &[u8]) -> Result<()>;

/// See the module's head.
#[derive(Clone)]
pub struct LogTopic {
    /// The topic's name, which is the log's.
    pub name: String,
    /// How to reach its cluster.
    pub properties: ClientProperties,
    /// Its cluster.
    cluster: Arc<Cluster>,
    /// Ends what takes long.
    pub cancel: CancelToken,
}

impl LogTopic {
    /// The topic of a log, if there is one.
    pub fn find(name: &str, properties: ClientProperties, cancel: CancelToken) -> Result<Option<Self>> {
        let cluster = Arc::new(Cluster::new(properties.clone())?);
        let found = cluster.find_topic(name)?;
        Ok(found.map(|_| Self { name: name.to_owned(), properties, cluster, cancel }))
    }

    /// Finds the topic of a log, or makes it; without a replication factor, with as many replicas as the broker likes.
    pub fn open(
        name: &str,
        properties: ClientProperties,
        replication: Option<i32>,
        cancel: CancelToken,
    ) -> Result<Self> {
        let cluster = Cluster::new(properties)?;
        match cluster.find_topic(name)? {
            None => {
                cluster.create_topic_with(name, Some(2), replication.unwrap_or(-1), SETTINGS)?;
                tracing::info!("created topic \"{name}\" for the job's progress and state");
            }
            Some(found) if found.partitions == [PROGRESS, STATE] => {}
            Some(found) => {
                let count = found.partitions.len();
                return Err(Error::upstream(format!(
                    "topic \"{name}\" keeps a job's progress and state, and has {count} partitions"
                ))
                .hint("it must have two: give the job another name, SET 'pipeline.name' = '..'"));
            }
        }
        let properties = cluster.properties().clone();
        Ok(Self { name: name.to_owned(), properties, cluster: Arc::new(cluster), cancel })
    }

    /// The records of progress, with their offsets.
    pub fn progress(&self) -> Result<Vec<(i64, Vec<u8>)>> {
        let mut records = Vec::new();
        self.read(PROGRESS, 0, &mut |offset, record| {
            records.push((offset, record.to_vec()));
            Ok(())
        })?;
        Ok(records)
    }

    /// Whether records of progress were deleted.
    pub fn is_cut(&self) -> Result<bool> {
        Ok(0 < self.cluster.watermarks(&self.name, PROGRESS)?.0)
    }

    /// The committed ends of both partitions.
    pub fn ends(&self) -> Result<[i64; 2]> {
        // The committing thread asks, which has better things to do than to wait.
        let end =
            |partition| -> Result<i64> { Ok(self.cluster.watermarks_within(&self.name, partition, ENDS_WAIT)?.1) };
        Ok([end(PROGRESS)?, end(STATE)?])
    }

    /// Goes through what is committed in a partition, from an offset on or from the first record that is left.
    pub fn read(&self, partition: i32, from: i64, take: Take<'_>) -> Result<()> {
        let (mut position, mut passed_over) = (from, None);
        loop {
            let (low, high) = self.cluster.watermarks(&self.name, partition)?;
            if let Some(error) = passed_over
                && low <= position
            {
                return Err(error);
            }
            position = position.max(low);
            // Records may be deleted while those before them are read.
            passed_over = self.read_to(high, partition, &mut position, take)?;
            if passed_over.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads up to an offset; answers with an error if records are not there any more.
    fn read_to(&self, high: i64, partition: i32, position: &mut i64, take: Take<'_>) -> Result<Option<Error>> {
        let Self { name, properties, cancel, .. } = self;
        let config = properties.config(
            &[
                ("socket.timeout.ms", "10000"),
                ("fetch.wait.max.ms", "10"),
                ("fetch.message.max.bytes", "8388608"),
                ("queued.max.messages.kbytes", "65536"),
                // Unless told so, the client waits for a second when that is reached.
                ("fetch.queue.backoff.ms", "5"),
            ],
            &[
                ("isolation.level", "read_committed"),
                ("check.crcs", "true"),
                ("group.id", "tidemill"),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("enable.partition.eof", "true"),
                ("auto.offset.reset", "error"),
            ],
        );
        let watcher = Watcher::new(format!("the log \"{name}\""), properties);
        let consumer: BaseConsumer<Watcher> =
            config.create_with_context(watcher).map_err(|e| client_error(&e, properties))?;
        let mut consumer = BatchConsumer::new(consumer, &[Assignment { topic: name, partition, start: *position }])?;
        let (mut failure, mut refused) = (None, Ok(()));
        let mut heard = Instant::now();
        while *position < high {
            let events = consumer.poll(0, RECORDS_MAX, |event| {
                match event {
                    Event::Record(record) => {
                        refused = take(record.offset(), record.payload().unwrap_or_default());
                        *position = record.offset() + 1;
                    }
                    Event::End(end) => *position = end.max(*position),
                    Event::Failed { code, text } => failure = Some((code, text)),
                }
                if refused.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            std::mem::replace(&mut refused, Ok(()))?;
            if failure.as_ref().is_some_and(|(code, _)| *code == RDKafkaErrorCode::TopicAuthorizationFailed) {
                let deed = format!("read topic \"{name}\", which keeps the job's progress and state");
                return Err(properties.denied(&deed, &grants(name)));
            }
            let is_gone = failure.as_ref().is_some_and(|(code, _)| *code == RDKafkaErrorCode::AutoOffsetReset);
            if is_gone || (events == 0 && READ_WAIT < heard.elapsed()) {
                let text = failure.map(|(_, text)| format!(": {text}")).unwrap_or_default();
                let error = Error::upstream(format!(
                    "topic \"{name}\", which keeps the job's progress and state, cannot be read on in partition \
                     {partition} from offset {position} to {high}{text}"
                ))
                .hint("grant READ on the topic; if records of it were deleted, the job can only begin anew, under another \
                       'pipeline.name'");
                return if is_gone { Ok(Some(error)) } else { Err(error.transient()) };
            }
            if 0 < events {
                heard = Instant::now();
            } else {
                cancel.check()?;
                consumer.wait(SLICE);
            }
        }
        Ok(None)
    }

    /// Deletes what is before these offsets, on a thread of its own.
    pub fn delete_before(&self, offsets: [i64; 2]) {
        let this = self.clone();
        let spawned = thread::Builder::new().name("log-delete".to_owned()).spawn(move || {
            let answer = this.delete(offsets);
            let failed = |error: &dyn std::fmt::Display| {
                tracing::warn!(
                    "topic \"{}\": what is no longer needed of it was not deleted, and takes room: {error}",
                    this.name
                );
            };
            match &answer {
                Err(error) => failed(error),
                Ok(Err(error)) => failed(error),
                Ok(Ok(list)) => {
                    list.elements().iter().filter_map(|e| e.error().err()).for_each(|error| failed(&error));
                }
            }
        });
        if let Err(error) = spawned {
            tracing::warn!("topic \"{}\": nothing of it was deleted: {error}", self.name);
        }
    }

    fn delete(&self, offsets: [i64; 2]) -> Result<KafkaResult<TopicPartitionList>> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in [PROGRESS, STATE].into_iter().zip(offsets) {
            list.add_partition_offset(&self.name, partition, Offset::Offset(offset))
                .map_err(|_| Error::bug(format!("what is before offset {offset} cannot be deleted")))?;
        }
        let watcher = Watcher::quiet("the deletion", &self.properties);
        let config = self.properties.config(&[], &[]);
        let admin: AdminClient<Watcher> =
            config.create_with_context(watcher).map_err(|e| client_error(&e, &self.properties))?;
        let options = AdminOptions::new().request_timeout(Some(DELETE_WAIT)).operation_timeout(Some(DELETE_WAIT));
        let answer = futures::executor::block_on(admin.delete_records(&list, &options));
        client::end_admin(admin);
        Ok(answer)
    }
}
