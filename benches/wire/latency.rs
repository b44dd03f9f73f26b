//! How late results are: records at a fixed rate, whatever becomes of them, and the time until their rows can be read.
//!
//! Each record carries the instant at which it was due to be sent, and that is what a row's latency counts from: if anything
//! holds the sender up, the wait is part of it. A row of a window counts from the window's end, which is when the record was
//! due whose watermark closes it. The reader is an ordinary consumer beside the sender; its own fetch is part of it, too.

use std::fs;
use std::process::{Command, Stdio};
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

/// Latencies in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub name: String,
    pub rows: usize,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// Measures each kind of job for so long.
pub fn measure(broker: &Broker, seconds: u64) -> Vec<Latency> {
    let mut found = Vec::new();
    let rows = ("sent BIGINT", "SELECT sent FROM records");
    let windows = (
        "window_end TIMESTAMP(3), records BIGINT",
        "SELECT window_end, COUNT(*) FROM TABLE(TUMBLE(TABLE records, DESCRIPTOR(ts), INTERVAL '1' SECOND)) \
         GROUP BY window_start, window_end",
    );
    for (name, query, delivery, interval) in [
        ("rows, at-least-once", rows, "at-least-once", "200 ms"),
        ("rows, exactly-once, 100 ms", rows, "exactly-once", "100 ms"),
        ("rows, exactly-once, 200 ms (default)", rows, "exactly-once", "200 ms"),
        ("rows, exactly-once, 1 s", rows, "exactly-once", "1 s"),
        ("windows of 1 s, at-least-once, 50 ms", windows, "at-least-once", "50 ms"),
        ("windows of 1 s, at-least-once, 200 ms", windows, "at-least-once", "200 ms"),
        ("windows of 1 s, exactly-once, 50 ms", windows, "exactly-once", "50 ms"),
        ("windows of 1 s, exactly-once, 200 ms (default)", windows, "exactly-once", "200 ms"),
    ] {
        let latency = job(broker, name, query, delivery, interval, Duration::from_secs(seconds));
        eprintln!("{latency:?}");
        found.push(latency);
    }
    found
}

fn job(
    broker: &Broker,
    name: &str,
    (columns, select): (&str, &str),
    delivery: &str,
    interval: &str,
    time: Duration,
) -> Latency {
    let [input, output] = ["wire-latency", "wire-latency-out"].map(|hint| broker.topic(hint, PARTITIONS));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("latency.sql");
    let job = unique_name("latency");
    let sql = format!(
        "SET 'pipeline.name' = '{job}';
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
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("tidemill starts");

    let is_over = AtomicBool::new(false);
    let (sent_by, read_from) = (broker, broker);
    let latencies = thread::scope(|scope| {
        let reader = scope.spawn(|| read(read_from, &output, &is_over));
        send(sent_by, &input, WARM_UP + time);
        // What is on its way may arrive.
        thread::sleep(Duration::from_millis(1_500));
        is_over.store(true, Ordering::Relaxed);
        reader.join().expect("the reader")
    });
    child.kill().expect("a child");
    child.wait().expect("a child");
    summary(name, latencies)
}

fn summary(name: &str, latencies: Vec<(u64, f64)>) -> Latency {
    let first = latencies.iter().map(|(sent, _)| *sent).min().expect("rows came");
    let counted_from = first + WARM_UP.as_micros() as u64;
    let mut all: Vec<f64> = latencies.into_iter().filter(|(sent, _)| counted_from < *sent).map(|(_, ms)| ms).collect();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize];
    Latency { name: name.to_owned(), rows: all.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
}

fn now_us() -> u64 {
    UNIX_EPOCH.elapsed().expect("after 1970").as_micros() as u64
}

/// Sends at the fixed rate, and catches up if it was held up.
fn send(broker: &Broker, topic: &str, time: Duration) {
    let mut config = broker.client();
    config.set("linger.ms", "0").set("queue.buffering.max.messages", "500000");
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

/// Per committed row when it was due, and how late it came, in milliseconds.
fn read(broker: &Broker, topic: &str, is_over: &AtomicBool) -> Vec<(u64, f64)> {
    #[derive(Deserialize)]
    struct Row<'a> {
        sent: Option<u64>,
        window_end: Option<&'a str>,
    }
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
    while !is_over.load(Ordering::Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
        let row: Row<'_> = serde_json::from_slice(message.payload().unwrap_or_default()).expect("a row");
        let due_us = row.sent.unwrap_or_else(|| {
            let end = NaiveDateTime::parse_from_str(row.window_end.expect("a window's end"), "%Y-%m-%d %H:%M:%S%.f");
            end.expect("a time").and_utc().timestamp_micros().cast_unsigned()
        });
        found.push((due_us, (now_us() as f64 - due_us as f64) / 1_000.0));
    }
    found
}
