//! How fast a topic drains through a windowed query, beside how fast it drains through nothing.
//!
//! ```text
//! cargo bench --bench drain -- [RECORDS] [ROUNDS]      # 5000000 and 3 unless given
//! ```
//!
//! Fills a topic of four partitions with JSON records of about 110 bytes, then, in turn and `ROUNDS` times: takes
//! everything out with librdkafka's batch call and looks at none of it; runs the query into a `blackhole`; runs it into a topic.
//! The broker is the tests' one (`TIDEMILL_TEST_BROKERS`, or one of its own) and shares the machine, so next to records a
//! second stands the CPU time of the draining process alone. What the sink topic holds is checked before anything is printed.
//! Linux only: CPU time and memory are read from `/proc`.

#![allow(clippy::disallowed_methods, reason = "a benchmark is about the clock")]

// The tests use the rest of it.
#[allow(dead_code)]
#[path = "../tests/common/mod.rs"]
mod common;
// The other benchmarks use the rest of it.
#[allow(dead_code)]
mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chrono::DateTime;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use common::broker::{Broker, shared, unique_name};
use common::records::Message;
use support::{peak_memory_mb, visit_batch};

const PARTITIONS: i32 = 4;
const KEYS: u64 = 10_000;
/// Records per second of event time: with the windows below each key gets about ten records a window.
const RECORDS_PER_SECOND: u64 = 10_000;
const WINDOW_SECONDS: u64 = 10;
/// 2026-01-01 00:00:00 UTC.
const FIRST_MS: u64 = 1_767_225_600_000;

fn main() {
    // Cargo adds `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let records = numbers.next().unwrap_or(5_000_000);
    let rounds = numbers.next().unwrap_or(3);

    let broker = shared();
    let topic = broker.topic("drain", PARTITIONS);
    let began = Instant::now();
    broker.produce(&topic, (0..records).map(message));
    eprintln!("{records} records of about {} bytes produced in {:.1?}", value(records / 2).len(), began.elapsed());

    let mut raw = Vec::new();
    let mut blackhole = Vec::new();
    let mut sink = Vec::new();
    for round in 1..=rounds {
        raw.push(raw_drain(broker, &topic, records));
        eprintln!("round {round}: raw drain {:?}", raw.last());
        blackhole.push(query(broker, &topic, "'connector' = 'blackhole'"));
        eprintln!("round {round}: query to blackhole {:?}", blackhole.last());
        let output = broker.topic("drain-output", PARTITIONS);
        sink.push(query(broker, &topic, &format!("'connector' = 'kafka', 'topic' = '{output}', 'format' = 'json'")));
        eprintln!("round {round}: query to a topic {:?}", sink.last());
        if round == rounds {
            check(broker, &output, records);
        }
    }

    println!(
        "\n{records} records, {PARTITIONS} partitions, {KEYS} keys, TUMBLE of {WINDOW_SECONDS} s; medians of {rounds}\n"
    );
    println!("| what | records/s | of the raw drain | CPU s | of the raw drain | records/CPU s | peak memory |");
    println!("|---|---|---|---|---|---|---|");
    let base = median(&mut raw);
    for (name, runs) in
        [("raw drain", &mut raw), ("query to blackhole", &mut blackhole), ("query to a topic", &mut sink)]
    {
        let run = median(runs);
        println!(
            "| {name} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {} |",
            records as f64 / run.wall_s,
            base.wall_s / run.wall_s,
            run.cpu_s,
            run.cpu_s / base.cpu_s,
            records as f64 / run.cpu_s,
            run.peak_mb.map_or("".into(), |megabytes| format!("{megabytes} MB")),
        );
    }
}

/// What one run took.
#[derive(Clone, Copy, Debug)]
struct Run {
    wall_s: f64,
    cpu_s: f64,
    peak_mb: Option<u64>,
}

/// The run in the middle, by wall time.
fn median(runs: &mut [Run]) -> Run {
    runs.sort_by(|one, other| one.wall_s.total_cmp(&other.wall_s));
    runs[runs.len() / 2]
}

fn message(number: u64) -> Message {
    let partition = i32::try_from(number % PARTITIONS as u64).expect("few");
    Message::new(value(number)).partition(partition)
}

/// A record's value. Keys come in an order without a pattern, the same in every run.
fn value(number: u64) -> String {
    let time_ms = FIRST_MS + number * 1_000 / RECORDS_PER_SECOND;
    let time = DateTime::from_timestamp_millis(time_ms.cast_signed()).expect("in range").format("%F %T%.3f");
    let mixed = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24;
    let (key, cents, flag) = (mixed % KEYS, mixed / KEYS % 100_000, mixed.is_multiple_of(3));
    let amount = format!("{}.{:02}", cents / 100, cents % 100);
    format!(
        r#"{{"id":{number},"key":"k{key:05}","ts":"{time}","amount":{amount},"flag":{flag},"text":"the quick fox"}}"#
    )
}

/// Takes every record out of the topic, and looks at none.
fn raw_drain(broker: &Broker, topic: &str, records: u64) -> Run {
    let mut config = broker.client();
    config.set("group.id", unique_name("drain")).set("enable.auto.commit", "false");
    let (began, cpu_before) = (Instant::now(), own_cpu());
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&assignment).expect("an assignment");
    let mut left = records;
    while left > 0 {
        left -= take_batch(&consumer).min(left);
    }
    Run { wall_s: began.elapsed().as_secs_f64(), cpu_s: own_cpu() - cpu_before, peak_mb: None }
}

/// Runs the query by the program, as a user would, from a file.
fn query(broker: &Broker, topic: &str, sink: &str) -> Run {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("drain.sql");
    fs::write(&file, sql(topic, sink)).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(["--brokers", broker.addresses(), "run"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null());

    let (began, cpu_before) = (Instant::now(), children_cpu());
    let mut child = command.spawn().expect("tidemill starts");
    let mut peak_mb = None;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        peak_mb = peak_memory_mb(child.id()).max(peak_mb);
        thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "tidemill ended with {status}");
    Run { wall_s: began.elapsed().as_secs_f64(), cpu_s: children_cpu() - cpu_before, peak_mb }
}

fn sql(topic: &str, sink: &str) -> String {
    format!(
        "CREATE TABLE records (
           id BIGINT, `key` STRING, ts TIMESTAMP(3), amount DOUBLE, flag BOOLEAN, text STRING,
           WATERMARK FOR ts AS ts - INTERVAL '1' SECOND
         ) WITH (
           'connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json',
           'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'
         );
         CREATE TABLE totals (
           window_start TIMESTAMP(3), `key` STRING, records BIGINT, total DOUBLE, largest DOUBLE
         ) WITH ({sink});
         INSERT INTO totals
         SELECT window_start, `key`, COUNT(*), SUM(amount), MAX(amount)
         FROM TABLE(TUMBLE(TABLE records, DESCRIPTOR(ts), INTERVAL '{WINDOW_SECONDS}' SECOND))
         GROUP BY window_start, window_end, `key`;
"
    )
}

/// Every record is in exactly one row of the sink topic.
fn check(broker: &Broker, topic: &str, records: u64) {
    let rows = broker.read_all(topic);
    let counted: u64 = rows.iter().map(|row| row.json()["records"].as_u64().expect("a count")).sum();
    assert_eq!(counted, records, "records in the {} rows of the sink topic", rows.len());
    eprintln!("{} rows on the sink topic hold all {records} records", rows.len());
}

/// CPU seconds of this process so far.
fn own_cpu() -> f64 {
    // utime and stime
    cpu_seconds(14)
}

/// CPU seconds of children that have ended.
fn children_cpu() -> f64 {
    // cutime and cstime
    cpu_seconds(16)
}

/// The sum of two neighbouring fields of `/proc/self/stat`, numbered from 1 as proc(5) does.
fn cpu_seconds(first_field: usize) -> f64 {
    /// The kernel reports to programs in hundredths of a second, whatever it counts in itself.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    // The second field, a name in parentheses, may hold blanks.
    let (_, after_name) = stat.rsplit_once(')').expect("a name");
    let fields = after_name.split_whitespace().skip(first_field - 3).take(2);
    fields.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / TICKS_PER_SECOND
}

/// How many records came in one batch call, of which nothing is looked at.
fn take_batch(consumer: &BaseConsumer) -> u64 {
    let mut count = 0;
    visit_batch(consumer, |_| count += 1);
    count
}
