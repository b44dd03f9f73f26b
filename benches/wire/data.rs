//! What lies in the topics.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use chrono::DateTime;
use futures::executor::block_on;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::common::broker::{Broker, REQUEST_TIMEOUT, repository};
use crate::common::nexmark::Nexmark;

/// 2026-01-01 00:00:00 UTC.
const FIRST_MS: u64 = 1_767_225_600_000;

/// How a record is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// Six fields of JSON, about 110 bytes.
    Json,
    /// The same fields as CSV.
    Csv,
    /// The same, with a text that makes it a kilobyte.
    Kilobyte,
    /// An auction house's events as JSON.
    Nexmark,
}

/// A topic: how many records, and what they are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    pub spelling: Spelling,
    pub records: u64,
    pub keys: u64,
    /// Of event time.
    pub per_second: u64,
    pub partitions: i32,
}

impl Data {
    /// The topic of this data.
    pub fn topic(&self) -> String {
        let Self { spelling, records, keys, per_second, partitions } = self;
        format!("wire-{spelling:?}-{records}-{keys}-{per_second}-{partitions}").to_lowercase()
    }

    /// Makes sure that the topic is there: it may be from an earlier run.
    pub fn prepare(&self, broker: &Broker) {
        let topic = self.topic();
        match broker.partition_count(&topic) {
            Some(_) => assert_eq!(self.count(broker), self.records, "topic {topic} is there and incomplete: delete it"),
            None => self.produce(broker, &topic),
        }
    }

    /// Where the same records lie in files.
    pub fn directory(&self) -> PathBuf {
        repository().join("target/wire-files").join(self.topic())
    }

    /// Makes sure that the files are there.
    pub fn prepare_files(&self) {
        let directory = self.directory();
        if directory.exists() {
            return;
        }
        // Complete or not there.
        let unfinished = directory.with_extension("unfinished");
        fs::create_dir_all(&unfinished).expect("a directory");
        for partition in 0..self.partitions as u64 {
            let file = File::create(unfinished.join(format!("{partition}.json"))).expect("a file");
            let (mut file, mut line) = (BufWriter::new(file), String::new());
            for number in (partition..self.records).step_by(self.partitions as usize) {
                line.clear();
                self.write(number, &mut line);
                line.push('\n');
                file.write_all(line.as_bytes()).expect("room on the disk");
            }
            file.flush().expect("room on the disk");
        }
        fs::rename(unfinished, directory).expect("a directory");
    }

    fn count(&self, broker: &Broker) -> u64 {
        let consumer: BaseConsumer = broker.client().create().expect("a consumer");
        let held = |partition| {
            let (low, high) = consumer.fetch_watermarks(&self.topic(), partition, REQUEST_TIMEOUT).expect("an answer");
            (high - low).cast_unsigned()
        };
        (0..self.partitions).map(held).sum()
    }

    fn produce(&self, broker: &Broker, topic: &str) {
        let began = Instant::now();
        let new = NewTopic::new(topic, self.partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        for created in block_on(broker.admin().create_topics(&[new], &options)).expect("Kafka answers") {
            created.unwrap_or_else(|(topic, code)| panic!("Kafka does not create {topic}: {code}"));
        }
        while broker.partition_count(topic) != Some(self.partitions) {
            thread::sleep(Duration::from_millis(10));
        }
        let mut config = broker.client();
        config.set("linger.ms", "20").set("enable.idempotence", "true").set("queue.buffering.max.messages", "500000");
        let producer: BaseProducer = config.create().expect("a producer");
        let mut value = String::new();
        let mut event = Vec::new();
        let nexmark = Nexmark { events_per_second: self.per_second, ..Nexmark::default() };
        for number in 0..self.records {
            let payload = match self.spelling {
                Spelling::Nexmark => {
                    event.clear();
                    nexmark.event(number).write(&mut event);
                    &event[..]
                }
                _ => {
                    value.clear();
                    self.write(number, &mut value);
                    value.as_bytes()
                }
            };
            let partition = i32::try_from(number % self.partitions as u64).expect("few");
            let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(payload);
            while let Err((_, refused)) = producer.send(record) {
                producer.poll(Duration::from_millis(10));
                record = refused;
            }
            if number.is_multiple_of(1_024) {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(Duration::from_secs(60)).expect("Kafka acknowledges what was sent");
        eprintln!("{topic}: {} records produced in {:.1?}", self.records, began.elapsed());
    }

    /// Writes a record. Keys come in an order without a pattern, the same in every run.
    fn write(&self, number: u64, out: &mut String) {
        let time_ms = FIRST_MS + number * 1_000 / self.per_second;
        let time = DateTime::from_timestamp_millis(time_ms.cast_signed()).expect("in range").format("%F %T%.3f");
        let mixed = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24;
        let (key, cents, flag) = (mixed % self.keys, mixed / self.keys % 100_000, mixed.is_multiple_of(3));
        let (whole, part) = (cents / 100, cents % 100);
        match self.spelling {
            Spelling::Csv => write!(out, r#"{number},k{key:05},{time},{whole}.{part:02},{flag},the quick fox"#),
            _ => write!(
                out,
                r#"{{"id":{number},"key":"k{key:05}","ts":"{time}","amount":{whole}.{part:02},"flag":{flag},"text":"the quick fox"#
            ),
        }
        .expect("a string takes all");
        if self.spelling == Spelling::Kilobyte {
            for _ in 0..44 {
                out.push_str(" jumps over the dog,");
            }
        }
        if self.spelling != Spelling::Csv {
            out.push_str(r#""}"#);
        }
    }

    /// The name of the format, for SQL and for decoders.
    pub fn format(&self) -> &'static str {
        if self.spelling == Spelling::Csv { "csv" } else { "json" }
    }
}
