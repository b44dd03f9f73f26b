//! Records that keep coming while faults happen: from a seed, some out of order, some late, some bad.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// The event time of the first record (ms).
const FIRST_MS: i64 = 1_700_000_000_000;

/// The event time of records that close all windows: of the key `end`, which no query counts.
const END_MS: i64 = FIRST_MS + 10_000_000_000;

/// Event time between two records of a partition (ms).
const STEP_MS: i64 = 10;

/// Longer than any fault: a record that was sent is in the topic in the end.
const DELIVERY_MS: &str = "600000";

/// Records of a batch, between two of which a moment passes.
const BATCH: u64 = 60;

/// Sends records to a topic.
pub struct Feed {
    producer: BaseProducer,
    topic: String,
    rng: StdRng,
    /// Per partition, the number of the next record.
    next: Vec<i64>,
    sent: usize,
    /// How many of a hundred records are bad.
    pub bad_percent: u32,
}

impl Feed {
    pub fn new(client: &ClientConfig, topic: &str, partitions: i32, seed: u64) -> Self {
        let mut config = client.clone();
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("message.timeout.ms", DELIVERY_MS);
        config.set("reconnect.backoff.max.ms", "500").set("queue.buffering.max.messages", "1000000");
        config.set("message.max.bytes", "12000000").set("topic.metadata.refresh.interval.ms", "500");
        let producer = config.create().expect("a producer");
        let (topic, rng) = (topic.to_owned(), StdRng::seed_from_u64(seed));
        let next = vec![0; usize::try_from(partitions).expect("few")];
        Self { producer, topic, rng, next, sent: 0, bad_percent: 2 }
    }

    /// How many records have been sent.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// From now on there are so many partitions. Each new one gets a record, by which it holds the watermark back.
    pub fn grow(&mut self, partitions: usize) {
        // They go on at the time that the others have come to.
        let now = *self.next.iter().max().expect("a partition");
        for partition in self.next.len()..partitions {
            self.next.push(now);
            let value = format!(r#"{{"p":{partition},"seq":{now},"k":"k0","n":1,"ts":{}}}"#, time_of(now));
            self.put(partition, "good", Some(value.as_bytes()));
        }
        self.flush();
    }

    /// Sends some records, to all partitions in turn.
    pub fn send(&mut self, count: u64) {
        for _ in 0..count {
            let least = (0..self.next.len()).min_by_key(|partition| self.next[*partition]).expect("a partition");
            let (key, value) = self.record(least);
            self.put(least, key, value.as_deref());
        }
        self.producer.poll(Duration::ZERO);
    }

    /// Sends one record that is none, of this size.
    pub fn large_bad(&mut self, bytes: usize) {
        let value = vec![b'#'; bytes];
        self.put(0, "bad", Some(&value));
    }

    fn record(&mut self, partition: usize) -> (&'static str, Option<Vec<u8>>) {
        let seq = self.next[partition];
        let rng = &mut self.rng;
        let now = time_of(seq);
        let ts = match rng.random_range(0..100) {
            // Within the watermark's delay.
            0..20 => now - rng.random_range(0..450),
            // Too late for some windows, or for all.
            20..24 => now - rng.random_range(600..6_000),
            _ => now,
        };
        let (k, n) = (rng.random_range(0..8_i64).min(5), rng.random_range(-100..1_000));
        let good = format!(r#"{{"p":{partition},"seq":{seq},"k":"k{k}","n":{n},"ts":{ts}}}"#);
        match rng.random_range(0..100) < self.bad_percent {
            true => bad(&good, rng),
            false => ("good", Some(good.into_bytes())),
        }
    }

    /// Sends one record to each partition that closes every window.
    pub fn end(&mut self) {
        for partition in 0..self.next.len() {
            let value = format!(r#"{{"p":{partition},"seq":-1,"k":"end","n":0,"ts":{END_MS}}}"#);
            self.put(partition, "end", Some(value.as_bytes()));
        }
        self.flush();
    }

    /// Waits until everything is in the topic.
    pub fn flush(&self) {
        self.producer.flush(Duration::from_secs(300)).expect("Kafka acknowledges what was sent");
    }

    fn put(&mut self, partition: usize, key: &str, value: Option<&[u8]>) {
        let mut record = BaseRecord::to(&self.topic).key(key);
        record.partition = Some(i32::try_from(partition).expect("few"));
        record.payload = value;
        while let Err((error, refused)) = self.producer.send(record) {
            // A partition that is new becomes known in a moment.
            let passes = [RDKafkaErrorCode::QueueFull, RDKafkaErrorCode::UnknownPartition];
            assert!(passes.map(KafkaError::MessageProduction).contains(&error), "{error}");
            self.producer.poll(Duration::from_millis(10));
            record = refused;
        }
        self.next[partition] += 1;
        self.sent += 1;
    }

    /// Goes on sending on a thread of its own, about so many records a second, until it is told to stop.
    pub fn run(mut self, rate: u32) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                self.send(BATCH);
                let pause = Duration::from_secs(BATCH) / rate;
                thread::sleep(pause.mul_f64(self.rng.random_range(0.0..2.0)));
            }
            self
        });
        Running { stop, thread }
    }
}

/// A feed that goes on by itself.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Feed>,
}

impl Running {
    pub fn stop(self) -> Feed {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the feed does not panic")
    }
}

/// The event time that a partition has come to with this record. There are gaps, so that sessions end.
fn time_of(seq: i64) -> i64 {
    FIRST_MS + seq * STEP_MS + seq / 200 * 1_500
}

/// A record that no row can be made of, and which kind it is.
fn bad(good: &str, rng: &mut StdRng) -> (&'static str, Option<Vec<u8>>) {
    let text = match rng.random_range(0..10) {
        0 => String::new(),
        1 => good[..good.len() / 2].to_owned(),
        2 => format!("{good}{good}"),
        3 => good.replace("\"ts\":1", "\"ts\":null,\"was\":1"),
        4 => good.replace("\"n\":", "\"n\":\"much\",\"m\":"),
        5 => good.replace("\"k\":\"", &format!("\"k\":{}1{},\"l\":\"", "[".repeat(10_000), "]".repeat(10_000))),
        6 => return ("bad", Some([&good.as_bytes()[..20], &[0xff, 0xfe, b'}']].concat())),
        7 => return ("none", None),
        8 if rng.random_range(0..10) == 0 => format!("{}{}", &good[..good.len() - 1], "#".repeat(600_000)),
        _ => good.replace("\"ts\":1", "\"ts\":\"a while ago\",\"was\":1"),
    };
    ("bad", Some(text.into_bytes()))
}
