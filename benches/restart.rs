//! How long a job with many open groups takes to be back after it was killed, beside what must be read for that.
//!
//! ```text
//! cargo bench --bench restart -- [GROUPS] [SINCE]      # 10000000 and 200000 unless given
//! ```
//!
//! A statement set counts records in one window of a day, each record a group of its own, and passes some of them through.
//! Once a checkpoint has all groups, `SINCE` records more are read and committed; then the process is killed, one record
//! more is written, and the program is started again: the time until that record comes through is told, next to the time
//! in which librdkafka's batch call takes the log of checkpoints and the records since then out of the broker and looks at
//! none. Linux only.

#![allow(clippy::disallowed_methods, reason = "a benchmark is about the clock")]

// The tests use the rest of it.
#[allow(dead_code)]
#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use serde_json::Value;

use common::broker::{Broker, shared, unique_name};
use common::records::Message;
use support::{peak_memory_mb, visit_batch};

const PARTITIONS: i32 = 4;
/// One record of so many is passed through.
const PASSED: u64 = 1_000;

fn main() {
    // Cargo adds `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let groups = numbers.next().unwrap_or(10_000_000) / PASSED * PASSED;
    let since = numbers.next().unwrap_or(200_000) / PASSED * PASSED;

    let broker = shared();
    let [topic, totals, passed] = ["restart", "totals", "passed"].map(|hint| broker.topic(hint, PARTITIONS));
    let job = unique_name("restart");
    let log = format!("tidemill-progress-{job}");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("restart.sql");
    fs::write(&file, sql(&topic, &totals, &passed, &job)).expect("a file");

    broker.produce(&topic, (0..groups).map(message));
    eprintln!("{groups} records produced");
    let began = Instant::now();
    let mut child = start(broker, &file);
    let positions = loop {
        thread::sleep(Duration::from_millis(500));
        assert!(child.try_wait().expect("a child").is_none(), "tidemill has ended");
        if let Some(positions) = checkpoint(broker, &log, groups) {
            break positions;
        }
    };
    eprintln!("a checkpoint has all groups after {:.1?}", began.elapsed());
    broker.produce(&topic, (groups..groups + since).map(message));
    let last = |number: u64| (number - 1) / PASSED * PASSED;
    wait_for(broker, &passed, last(groups + since));
    let peak_before = peak_memory_mb(child.id());
    child.kill().expect("a child");
    child.wait().expect("a child");
    assert!(checkpoint(broker, &log, groups + since).is_none(), "a checkpoint came too early: give more records");

    broker.produce(&topic, [message(groups + since)]);
    let began = Instant::now();
    let mut child = start(broker, &file);
    wait_for(broker, &passed, groups + since);
    let back = began.elapsed();
    let peak = peak_memory_mb(child.id());
    child.kill().expect("a child");
    child.wait().expect("a child");

    let (chunks, log_bytes, log_took) = drain(broker, &[(log.clone(), 1, None)]);
    let records: Vec<_> = positions.iter().map(|&(partition, next)| (topic.clone(), partition, Some(next))).collect();
    let (read_again, _, records_took) = drain(broker, &records);
    let raw = log_took + records_took;
    println!(
        "{groups} open groups, {since} records since the checkpoint; peak {peak_before:?} MB before, {peak:?} MB after"
    );
    let log_mb = log_bytes / 1_000_000;
    println!(
        "back after {back:.2?}; raw {raw:.2?}: {chunks} chunks of {log_mb} MB in {log_took:.2?}, {read_again} records"
    );
    println!("ratio {:.2}", back.as_secs_f64() / raw.as_secs_f64());
}

fn message(number: u64) -> Message {
    let partition = i32::try_from(number % PARTITIONS as u64).expect("few");
    Message::new(format!(r#"{{"k":{number},"n":{},"ts":1767225600000}}"#, number % 97)).partition(partition)
}

fn sql(topic: &str, totals: &str, passed: &str, job: &str) -> String {
    let sink = |topic: &str| {
        format!(
            "WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', \
             'sink.delivery-guarantee' = 'exactly-once')"
        )
    };
    format!(
        "CREATE TABLE records (
           k BIGINT, n BIGINT, ts TIMESTAMP_LTZ(3), WATERMARK FOR ts AS ts
         ) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset',
                 'scan.watermark.idle-timeout' = '0 s');
         CREATE TABLE totals (k BIGINT, records BIGINT, total BIGINT) {};
         CREATE TABLE passed (k BIGINT) {};
         SET 'pipeline.name' = '{job}';
         SET 'execution.checkpointing.interval' = '20 s';
         BEGIN STATEMENT SET;
         INSERT INTO totals SELECT k, COUNT(*), SUM(n) FROM TUMBLE(records, ts, INTERVAL '1' DAY)
           GROUP BY window_start, window_end, k;
         INSERT INTO passed SELECT k FROM records WHERE k % {PASSED} = 0;
         END;",
        sink(totals),
        sink(passed)
    )
}

fn start(broker: &Broker, file: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(["--brokers", broker.addresses(), "run"]).arg(file).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().expect("tidemill starts")
}

/// Where the partitions stood at the last checkpoint that is complete, if so many records had been read then.
fn checkpoint(broker: &Broker, log: &str, records: u64) -> Option<Vec<(i32, i64)>> {
    broker.partition_count(log)?;
    let progress = progress(broker, log);
    let checkpoints = progress.into_iter().map(|mut record| record["checkpoint"].take()).filter(|c| !c.is_null());
    let last: Value = checkpoints.into_iter().next_back()?;
    let number = |value: &Value| value.as_i64().expect("a number");
    let partitions = last["sources"][0].as_array().expect("partitions");
    let positions: Vec<(i32, i64)> =
        partitions.iter().map(|p| (number(&p["partition"]) as i32, number(&p["next"]))).collect();
    let read: i64 = positions.iter().map(|(_, next)| next).sum();
    (records.cast_signed() <= read).then_some(positions)
}

/// The records of progress in a log.
fn progress(broker: &Broker, log: &str) -> Vec<Value> {
    let mut config = broker.client();
    config
        .set("group.id", unique_name("restart"))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(log, 0, Offset::Beginning).expect("an offset");
    consumer.assign(&assignment).expect("an assignment");
    // The job goes on writing: what is there now will do. The last record may be a marker, which nobody sees.
    let (_, high) = consumer.fetch_watermarks(log, 0, Duration::from_secs(10)).expect("a partition");
    let mut records = Vec::new();
    while let Some(Ok(record)) = consumer.poll(Duration::from_secs(5)) {
        records.push(serde_json::from_slice(record.payload().expect("a value")).expect("JSON"));
        if high - 2 <= record.offset() {
            break;
        }
    }
    records
}

/// Waits until a record has come through.
fn wait_for(broker: &Broker, topic: &str, k: u64) {
    let mut config = broker.client();
    config.set("group.id", unique_name("restart")).set("enable.auto.commit", "false").set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&assignment).expect("an assignment");
    let wanted = format!(r#"{{"k":{k}}}"#);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(600) {
        if let Some(Ok(record)) = consumer.poll(Duration::from_millis(50))
            && record.payload() == Some(wanted.as_bytes())
        {
            return;
        }
    }
    panic!("{wanted} did not come through");
}

/// Takes partitions out of the broker from offsets on, or from their beginnings, and looks at no record; answers how many
/// there were, their bytes, and how long they took.
fn drain(broker: &Broker, partitions: &[(String, i32, Option<i64>)]) -> (u64, usize, Duration) {
    let began = Instant::now();
    let mut config = broker.client();
    config
        .set("group.id", unique_name("restart"))
        .set("enable.auto.commit", "false")
        .set("fetch.message.max.bytes", "8388608")
        // Else the client waits for a second whenever its queue is full.
        .set("fetch.queue.backoff.ms", "1");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    let mut left = 0;
    for (topic, partition, from) in partitions {
        let timeout = Duration::from_secs(10);
        let (low, high) = consumer.fetch_watermarks(topic, *partition, timeout).expect("a partition");
        left += high - from.unwrap_or(low);
        let offset = from.map_or(Offset::Beginning, Offset::Offset);
        assignment.add_partition_offset(topic, *partition, offset).expect("an offset");
    }
    consumer.assign(&assignment).expect("an assignment");
    // Ends of transactions have offsets, too, and are no records.
    let (mut count, mut bytes, mut heard) = (0, 0, Instant::now());
    while count < left.cast_unsigned() && heard.elapsed() < Duration::from_secs(1) {
        visit_batch(&consumer, |value| {
            (count, bytes) = (count + 1, bytes + value.len());
            heard = Instant::now();
        });
    }
    (count, bytes, heard - began)
}
