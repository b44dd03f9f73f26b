//! How late results are: records at a fixed rate, whatever becomes of them, and the time until their rows stand in the output.
//!
//! The load is open: each record carries the instant at which it was due, and when the sender is held up it catches up and
//! re-times nothing. How late the sender itself is stands in a line of its own. The broker stamps both topics
//! (`LogAppendTime`), so a row of a record counts from the instant at which the broker had the record to that at which it had the
//! row. A row of a window counts from the instant at which the broker had the record that moved the watermark to the window's
//! end: the last among the partitions' first ones. That is `appended`. An ordinary consumer beside it reads what is committed,
//! and what it adds, a commit that is waited for among it, is in `read`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use chrono::NaiveDateTime;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::common::broker::{Broker, unique_name};

const PARTITIONS: i32 = 4;
/// Records a second.
const RATE: u64 = 10_000;
/// What comes before this is not counted: a job that has just begun is not what is meant.
const WARM_UP: Duration = Duration::from_secs(4);
/// What is on its way when the load ends may take so long.
const REST: Duration = Duration::from_millis(2_500);

/// Latencies of one job in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub name: String,
    pub rows: usize,
    /// From the broker's having the cause to its having the row; of the sender, from the instant at which a record was due.
    pub appended: Quantiles,
    /// To the instant at which a consumer of committed rows had it.
    pub read: Quantiles,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// Output columns, and the query.
type Query = (&'static str, &'static str);
const ROWS: Query = ("sent BIGINT", "SELECT sent FROM records");
const WINDOWS: Query = (
    "window_end TIMESTAMP(3), records BIGINT",
    "SELECT window_end, COUNT(*) FROM TABLE(TUMBLE(TABLE records, DESCRIPTOR(ts), INTERVAL '0.1' SECOND)) \
     GROUP BY window_start, window_end",
);

/// What a job computes, how it delivers, and how often it commits.
struct Job {
    query: Query,
    delivery: &'static str,
    interval: &'static str,
}

/// Measures each kind of job for so long.
pub fn measure(broker: &Broker, seconds: u64) -> Vec<Latency> {
    let mut found = Vec::new();
    let time = WARM_UP + Duration::from_secs(seconds);
    // A broker that has just begun holds its first sender up for seconds: that run counts for nothing.
    Job { query: ROWS, delivery: "at-least-once", interval: "200 ms" }.measure(broker, "the first".to_owned(), time);
    for (kind, query) in [("rows", ROWS), ("windows", WINDOWS)] {
        for delivery in ["at-least-once", "exactly-once"] {
            for interval in ["50 ms", "100 ms", "200 ms", "1 s"] {
                let job = Job { query, delivery, interval };
                let (sender, latency) = job.measure(broker, format!("{kind}, {delivery}, {interval}"), time);
                eprintln!("{sender:?}\n{latency:?}");
                if found.is_empty() {
                    found.push(sender);
                }
                found.push(latency);
            }
        }
    }
    found
}

/// A record or a row, as it lies in its topic.
struct Stored {
    partition: i32,
    appended_ms: i64,
    read_ms: f64,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    /// When it was due, in microseconds: no two records have the same.
    sent: Option<i64>,
    window_end: Option<String>,
}

/// What a result counts from, and the result: milliseconds since the epoch.
struct Result {
    cause_ms: f64,
    appended_ms: f64,
    read_ms: f64,
}

impl Job {
    /// How late the sender was, and the job.
    fn measure(&self, broker: &Broker, name: String, time: Duration) -> (Latency, Latency) {
        let stamped = [("message.timestamp.type", "LogAppendTime")];
        let topic = |hint| broker.topic_with(hint, PARTITIONS, &stamped);
        let (input, output) = (topic("wire-latency"), topic("wire-latency-out"));
        let directory = tempfile::tempdir().expect("a directory");
        let mut child = self.start(broker, directory.path(), &input, &output);
        let is_over = AtomicBool::new(false);
        let rows = thread::scope(|scope| {
            let reader = scope.spawn(|| read(broker, &output, |_| is_over.load(Ordering::Relaxed)));
            send(broker, &input, time);
            thread::sleep(REST);
            is_over.store(true, Ordering::Relaxed);
            reader.join().expect("the reader")
        });
        child.kill().expect("a child");
        child.wait().expect("a child");
        let count = (time.as_secs() * RATE) as usize;
        let records = read(broker, &input, |so_far| so_far == count);
        let sender = records.iter().map(|record| {
            let cause_ms = record.content.sent.expect("its stamp") as f64 / 1_000.0;
            Result { cause_ms, appended_ms: record.appended_ms as f64, read_ms: record.appended_ms as f64 }
        });
        let causes = if self.query == WINDOWS { causes_of_windows(&records, &rows) } else { causes_of_rows(&records) };
        let results = rows.iter().filter_map(|row| {
            let cause_ms = causes.get(&key(&row.content))?.to_owned();
            Some(Result { cause_ms, appended_ms: row.appended_ms as f64, read_ms: row.read_ms })
        });
        if self.query == ROWS {
            assert_eq!(rows.len(), count, "{name}: rows that came until {REST:?} after the last record");
        }
        (summary("the sender itself".to_owned(), sender), summary(name, results))
    }

    fn start(&self, broker: &Broker, directory: &Path, input: &str, output: &str) -> Child {
        let Self { query: (columns, select), delivery, interval } = self;
        let file = directory.join("latency.sql");
        let name = unique_name("latency");
        let sql = format!(
            "SET 'pipeline.name' = '{name}';
             SET 'sink.commit-interval' = '{interval}';
             CREATE TABLE records (sent BIGINT, ts TIMESTAMP(3), text STRING, WATERMARK FOR ts AS ts) WITH (
               'connector' = 'kafka', 'topic' = '{input}', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset');
             CREATE TABLE output ({columns}) WITH (
               'connector' = 'kafka', 'topic' = '{output}', 'format' = 'json', 'sink.delivery-guarantee' = '{delivery}');
             INSERT INTO output {select};\n"
        );
        fs::write(&file, sql).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(["--quiet", "--brokers", broker.addresses(), "run"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("tidemill starts")
    }
}

/// What a row is known by: its record's stamp, or its window's end in milliseconds.
fn key(content: &Content) -> i64 {
    content.sent.unwrap_or_else(|| {
        let end = content.window_end.as_deref().expect("a row of a window");
        NaiveDateTime::parse_from_str(end, "%Y-%m-%d %H:%M:%S%.f").expect("a time").and_utc().timestamp_millis()
    })
}

fn causes_of_rows(records: &[Stored]) -> HashMap<i64, f64> {
    records.iter().map(|record| (key(&record.content), record.appended_ms as f64)).collect()
}

/// Per window's end, when the broker had the record that moved the watermark there.
fn causes_of_windows(records: &[Stored], rows: &[Stored]) -> HashMap<i64, f64> {
    let mut partitions: Vec<Vec<(i64, i64)>> = vec![Vec::new(); PARTITIONS as usize];
    for record in records {
        let time_ms = key(&record.content) / 1_000;
        partitions[record.partition as usize].push((time_ms, record.appended_ms));
    }
    let reached = |end_ms: i64| {
        let first = |of: &Vec<(i64, i64)>| of.get(of.partition_point(|(time_ms, _)| *time_ms < end_ms - 1)).copied();
        let all: Option<Vec<_>> = partitions.iter().map(first).collect();
        all?.iter().map(|(_, appended_ms)| *appended_ms).max()
    };
    let ends = rows.iter().map(|row| key(&row.content));
    ends.filter_map(|end_ms| Some((end_ms, reached(end_ms)? as f64))).collect()
}

fn summary(name: String, results: impl Iterator<Item = Result>) -> Latency {
    let mut results: Vec<Result> = results.collect();
    let first = results.iter().map(|result| result.cause_ms).fold(f64::INFINITY, f64::min);
    results.retain(|result| first + WARM_UP.as_secs_f64() * 1_000.0 < result.cause_ms);
    assert!(!results.is_empty(), "{name}: nothing came");
    let quantiles = |of: fn(&Result) -> f64| {
        let mut all: Vec<f64> = results.iter().map(|result| of(result) - result.cause_ms).collect();
        all.sort_by(f64::total_cmp);
        let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize];
        Quantiles { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    };
    let (appended, read) = (quantiles(|result| result.appended_ms), quantiles(|result| result.read_ms));
    Latency { rows: results.len(), name, appended, read }
}

fn now_us() -> u64 {
    UNIX_EPOCH.elapsed().expect("after 1970").as_micros() as u64
}

/// Sends at the fixed rate, and catches up if it was held up.
fn send(broker: &Broker, topic: &str, time: Duration) {
    let mut config = broker.client();
    // Without any, each record is a request, and the broker is what is measured.
    config.set("linger.ms", "1").set("queue.buffering.max.messages", "500000");
    let producer: BaseProducer = config.create().expect("a producer");
    let (began, first_us) = (Instant::now(), now_us());
    for number in 0..time.as_secs() * RATE {
        let due_us = number * 1_000_000 / RATE;
        while (began.elapsed().as_micros() as u64) < due_us {
            producer.poll(Duration::ZERO);
            thread::sleep(Duration::from_micros(500));
        }
        let sent = first_us + due_us;
        let value =
            format!(r#"{{"sent":{sent},"ts":{},"text":"the quick fox jumps over the lazy dog"}}"#, sent / 1_000);
        let partition = i32::try_from(number % PARTITIONS as u64).expect("few");
        let record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(value.as_bytes());
        producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    }
    producer.flush(Duration::from_secs(10)).expect("Kafka acknowledges what was sent");
}

/// Reads what is committed until so many have come, or whatever else ends it; looks into nothing before the end.
fn read(broker: &Broker, topic: &str, is_over: impl Fn(usize) -> bool) -> Vec<Stored> {
    let mut config = broker.client();
    config.set("group.id", unique_name("latency")).set("enable.auto.commit", "false");
    config.set("isolation.level", "read_committed").set("fetch.wait.max.ms", "100").set("fetch.min.bytes", "1");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&assignment).expect("an assignment");
    let mut found = Vec::new();
    while !is_over(found.len()) {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else { continue };
        let (message, read_us) = (message.expect("a record").detach(), now_us());
        found.push((message, read_us));
    }
    let stored = |(message, read_us): &(rdkafka::message::OwnedMessage, u64)| Stored {
        partition: message.partition(),
        appended_ms: message.timestamp().to_millis().expect("the broker's stamp"),
        read_ms: *read_us as f64 / 1_000.0,
        content: serde_json::from_slice(message.payload().unwrap_or_default()).expect("a row"),
    };
    found.iter().map(stored).collect()
}
