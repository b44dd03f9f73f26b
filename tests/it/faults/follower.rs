//! A consumer of committed records that reads along while faults happen.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use crate::common::broker::unique_name;

/// A record of a job's progress, as it arrived.
#[derive(Clone, Debug)]
pub struct Progress {
    pub at: Instant,
    pub offset: i64,
    pub sequence: u64,
    pub incarnation: u64,
    pub kind: String,
}

/// Where a record of a sink lies: topic, partition, offset.
pub type Place = (String, i32, i64);

#[derive(Default)]
struct Read {
    places: BTreeMap<Place, usize>,
    counts: BTreeMap<String, usize>,
    progress: Vec<Progress>,
}

/// See the module's head. It reads until it is dropped.
pub struct Follower {
    read: Arc<Mutex<Read>>,
    stop: Arc<AtomicBool>,
    consumer: Arc<BaseConsumer>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Follows topics from their starts; the log may not exist yet.
    pub fn start(client: &ClientConfig, topics: &[(String, i32)], log: &str) -> Self {
        let mut config = client.clone();
        config.set("group.id", unique_name("follower")).set("enable.auto.commit", "false");
        config.set("isolation.level", "read_committed").set("auto.offset.reset", "earliest");
        config.set("reconnect.backoff.max.ms", "500").set("topic.metadata.refresh.interval.ms", "1000");
        config.set("fetch.wait.max.ms", "50").set("allow.auto.create.topics", "false");
        let consumer: Arc<BaseConsumer> = Arc::new(config.create().expect("a consumer"));
        let mut assignment = TopicPartitionList::new();
        for (topic, partitions) in topics {
            for partition in 0..*partitions {
                assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
            }
        }
        consumer.assign(&assignment).expect("an assignment");
        let (read, stop) = (Arc::<Mutex<Read>>::default(), Arc::new(AtomicBool::new(false)));
        let (to, stopped, log) = (Arc::clone(&read), Arc::clone(&stop), log.to_owned());
        let of_thread = Arc::clone(&consumer);
        let thread = thread::spawn(move || {
            let mut has_log = false;
            while !stopped.load(Ordering::Acquire) {
                if !has_log && follow_log(&of_thread, &log) {
                    has_log = true;
                }
                // Errors are outages: the client goes on by itself, and what is missing in the end is found missing.
                let Some(Ok(message)) = of_thread.poll(Duration::from_millis(50)) else { continue };
                let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
                if message.topic() == log {
                    let value: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
                    let number = |name: &str| value[name].as_u64().expect("a number");
                    let (sequence, incarnation) = (number("sequence"), number("incarnation"));
                    let kind = value["kind"].as_str().expect("a kind").to_owned();
                    to.progress.push(Progress {
                        at: Instant::now(),
                        offset: message.offset(),
                        sequence,
                        incarnation,
                        kind,
                    });
                    continue;
                }
                let place = (message.topic().to_owned(), message.partition(), message.offset());
                *to.places.entry(place).or_default() += 1;
                *to.counts.entry(message.topic().to_owned()).or_default() += 1;
            }
        });
        Self { read, stop, consumer, thread: Some(thread) }
    }

    /// Follows partitions that have been added to a topic.
    pub fn follow(&self, topic: &str, partitions: Range<i32>) {
        let mut more = TopicPartitionList::new();
        for partition in partitions {
            more.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
        }
        self.consumer.incremental_assign(&more).expect("an assignment");
    }

    fn read<T>(&self, look: impl FnOnce(&Read) -> T) -> T {
        look(&self.read.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many records of a topic have come.
    pub fn count(&self, topic: &str) -> usize {
        self.read(|read| read.counts.get(topic).copied().unwrap_or(0))
    }

    /// Everything that has come from the sinks, and how often.
    pub fn places(&self) -> BTreeMap<Place, usize> {
        self.read(|read| read.places.clone())
    }

    /// The records of progress that have come, in order.
    pub fn progress(&self) -> Vec<Progress> {
        self.read(|read| read.progress.clone())
    }

    /// The number of the last boundary.
    pub fn boundary(&self) -> u64 {
        self.read(|read| read.progress.last().map_or(0, |last| last.sequence))
    }

    /// When the first boundary after a moment came.
    pub fn boundary_after(&self, moment: Instant) -> Option<Instant> {
        self.read(|read| {
            let from = read.progress.partition_point(|p| p.at < moment);
            read.progress[from..].iter().find(|p| p.kind == "boundary").map(|p| p.at)
        })
    }
}

/// Follows the first partition of the log as well, if it is there by now.
fn follow_log(consumer: &BaseConsumer, log: &str) -> bool {
    let Ok(metadata) = consumer.fetch_metadata(Some(log), Duration::from_secs(2)) else { return false };
    if !metadata.topics().iter().any(|topic| topic.error().is_none() && !topic.partitions().is_empty()) {
        return false;
    }
    let mut more = TopicPartitionList::new();
    more.add_partition_offset(log, 0, Offset::Beginning).expect("an offset");
    consumer.incremental_assign(&more).is_ok()
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It has panicked if the log was not JSON.
            let _ = thread.join();
        }
    }
}
