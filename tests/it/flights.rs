//! All flights of 2013 through windowed queries: what lies on the output topic is what a batch over the same records gives.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde_json::Value;
use tidemill::runtime::{Engine, EngineConfig, JobInfo, Outcome};

use crate::common::broker::{Broker, shared};
use crate::common::flights;
use crate::common::oracle::{Stream, Windows, assert_same_rows};
use crate::common::program::tidemill;
use crate::common::records::{Message, Record};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// How an aggregate is written for the engine, and for a batch: a batch has no order but the one that it is told.
const AGGREGATES: [(&str, &str); 9] = [
    ("COUNT(*)", ""),
    ("AVG(dep_delay)", ""),
    ("SUM(distance)", ""),
    ("MIN(dep_delay)", ""),
    ("MAX(dep_delay)", ""),
    ("COUNT(DISTINCT tailnum)", ""),
    ("COUNT(*) FILTER (WHERE dep_delay > 15)", ""),
    ("FIRST_VALUE(flight)", "FIRST_VALUE(flight ORDER BY scheduled, source_partition, source_offset)"),
    ("LAST_VALUE(dest)", "LAST_VALUE(dest ORDER BY scheduled, source_partition, source_offset)"),
];

/// A topic with all flights, and its records as they lie there.
struct Topic {
    name: String,
    records: Vec<Record>,
}

impl Topic {
    fn new(partitions: i32, messages: impl Iterator<Item = Message>) -> Self {
        let broker = shared();
        let name = broker.topic("flights", partitions);
        broker.produce(&name, messages);
        let records = broker.read_all(&name);
        assert_eq!(records.len(), flights::COUNT);
        Self { name, records }
    }
}

/// Four partitions, keyed by tail number.
fn four() -> &'static Topic {
    static TOPIC: OnceLock<Topic> = OnceLock::new();
    TOPIC.get_or_init(|| Topic::new(4, flights::messages(flights::all())))
}

/// The same flights in the same order, those of the last partition in the first one, and so on.
fn four_reversed() -> &'static Topic {
    static TOPIC: OnceLock<Topic> = OnceLock::new();
    TOPIC.get_or_init(|| {
        Topic::new(4, four().records.iter().map(|record| Message::new(record.text()).partition(3 - record.partition)))
    })
}

/// Dealt out to seven partitions, the last of which stays empty.
fn seven() -> &'static Topic {
    static TOPIC: OnceLock<Topic> = OnceLock::new();
    TOPIC.get_or_init(|| {
        let all = flights::all().iter().zip((0..6).cycle());
        Topic::new(7, all.map(|(flight, partition)| Message::new(flight.line.as_str()).partition(partition)))
    })
}

/// A windowed aggregate of the flights by airport and carrier.
#[derive(Clone, Copy)]
struct Query {
    windows: Windows,
    delay_ms: i64,
}

impl Query {
    fn script(self, input: &str, output: &str, workers: usize) -> String {
        let Self { windows: Windows { slide_ms, size_ms, .. }, delay_ms } = self;
        let seconds = |ms: i64| format!("INTERVAL '{}' SECOND", ms / 1_000);
        let window = match slide_ms == size_ms {
            true => format!("TUMBLE(TABLE flights, DESCRIPTOR(scheduled), {})", seconds(size_ms)),
            false => format!("HOP(TABLE flights, DESCRIPTOR(scheduled), {}, {})", seconds(slide_ms), seconds(size_ms)),
        };
        let aggregates = AGGREGATES.map(|(streaming, _)| streaming).join(", ");
        format!(
            "SET 'parallelism.default' = '{workers}';
CREATE TABLE flights (
  scheduled TIMESTAMP_LTZ(3), carrier STRING, flight INT, tailnum STRING, origin STRING, dest STRING, dep_delay INT,
  distance INT, WATERMARK FOR scheduled AS scheduled - {delay}
) WITH ('connector' = 'kafka', 'topic' = '{input}', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset');
CREATE TABLE answers (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, carrier STRING, flights BIGINT, mean DOUBLE,
  miles BIGINT, least INT, most INT, aircraft BIGINT, delayed BIGINT, first_flight INT, last_dest STRING
) WITH ('connector' = 'kafka', 'topic' = '{output}', 'format' = 'json', 'key.format' = 'raw', 'key.fields' = 'carrier');
INSERT INTO answers
SELECT window_start, window_end, origin, carrier, {aggregates}
FROM TABLE({window}) GROUP BY window_start, window_end, origin, carrier;",
            delay = seconds(delay_ms),
        )
    }

    /// The counts and rows of the batch.
    fn answer(self, topic: &Topic) -> crate::common::oracle::Answer {
        let batch = |(streaming, batch): (&'static str, &'static str)| if batch.is_empty() { streaming } else { batch };
        let named = AGGREGATES.iter().enumerate().map(|(i, pair)| format!("{} AS a{i}", batch(*pair)));
        let aggregates = named.collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT window_start, window_end, origin, carrier, {aggregates} FROM t
             GROUP BY window_start, window_end, origin, carrier"
        );
        Stream::flights(self.delay_ms).answer(&topic.records, self.windows, &sql)
    }

    /// Runs it inside this process; the rows on the output topic, and what the job counted.
    fn run(self, topic: &Topic, workers: usize) -> (Vec<Value>, JobInfo) {
        let broker = shared();
        let output = broker.topic("answers", 3);
        let info = run_job(broker, &self.script(&topic.name, &output, workers));
        (rows(broker, &output), info)
    }

    /// Runs it with as many workers, and compares everything with the batch.
    fn check(self, topic: &Topic, workers: &[usize]) {
        let want = self.answer(topic);
        for &workers in workers {
            let what = format!("{self:?} over {} with {workers} workers", topic.name);
            let (got, info) = self.run(topic, workers);
            assert_same_rows(&got, &want.rows, &what);
            assert_eq!((info.late, info.partly_late), (want.late, want.partly_late), "{what}");
            assert_eq!((info.records_in, info.rows_out), (flights::COUNT as u64, want.rows.len() as u64), "{what}");
            assert_eq!(info.records_in, want.used + want.late, "{what}");
        }
    }
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { windows: Windows { slide_ms, size_ms, .. }, delay_ms } = self;
        write!(f, "{} min every {}, {} late", size_ms / MINUTE_MS, slide_ms / MINUTE_MS, delay_ms / MINUTE_MS)
    }
}

/// Runs a script of one job to the job's end.
pub fn run_job(broker: &Broker, script: &str) -> JobInfo {
    let config = EngineConfig { brokers: Some(broker.addresses().to_owned()), ..EngineConfig::default() };
    let engine = Engine::open(config).expect("an engine");
    let mut job = None;
    for outcome in engine.run(script) {
        match outcome {
            Ok(Outcome::Started(started)) => job = Some(started),
            Ok(_) => {}
            Err(error) => panic!("{error} ({:?}): {script}", error.hint),
        }
    }
    let job = job.expect("the script has an INSERT");
    if let Err(error) = job.wait() {
        panic!("{error} ({:?}): {script}", error.hint);
    }
    job.info()
}

/// The rows on a topic.
pub fn rows(broker: &Broker, topic: &str) -> Vec<Value> {
    broker.read_all(topic).iter().map(Record::json).collect()
}

#[test]
fn hours_equal_the_batch() {
    let query = Query { windows: Windows::tumble(60 * MINUTE_MS), delay_ms: DAY_MS };
    query.check(four(), &[1, 2]);
}

#[test]
fn sliding_windows_equal_the_batch() {
    let query = Query { windows: Windows::hop(20 * MINUTE_MS, 90 * MINUTE_MS), delay_ms: DAY_MS };
    query.check(four(), &[1, 2]);
}

#[test]
fn partitions_in_another_order_equal_the_batch() {
    let query = Query { windows: Windows::tumble(60 * MINUTE_MS), delay_ms: DAY_MS };
    query.check(four_reversed(), &[2]);
    query.check(seven(), &[1]);
}

#[test]
fn what_is_late_is_a_function_of_the_topic() {
    let delay_ms = 30 * MINUTE_MS;
    let hours = Query { windows: Windows::tumble(60 * MINUTE_MS), delay_ms };
    // Two runs, and two ways of sharing the partitions out.
    hours.check(four(), &[2, 1]);
    let want = hours.answer(four());
    assert!(0 < want.late && want.late < want.used, "{} of {} are late", want.late, flights::COUNT);

    let sliding = Query { windows: Windows::hop(20 * MINUTE_MS, 90 * MINUTE_MS), delay_ms };
    sliding.check(four(), &[2]);
    let want = sliding.answer(four());
    assert!(0 < want.late && 0 < want.partly_late);
}

#[test]
fn the_program_gives_the_same_rows_and_says_what_it_counted() {
    let broker = shared();
    let query = Query { windows: Windows::tumble(60 * MINUTE_MS), delay_ms: 30 * MINUTE_MS };
    let want = query.answer(four());
    let output = broker.topic("answers", 1);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("hours.sql");
    std::fs::write(&file, query.script(&four().name, &output, 2)).expect("a file");

    let finished = tidemill(&["-b", broker.addresses(), "run", file.to_str().expect("UTF-8")]);
    assert_eq!(finished.code, 0, "{finished:#?}");
    assert_same_rows(&rows(broker, &output), &want.rows, "the program's rows");
    let numbers = numbers(&finished.stderr);
    for (what, number) in
        [("records", flights::COUNT as u64), ("rows", want.rows.len() as u64), ("late rows", want.late)]
    {
        assert!(numbers.contains(&number), "{number} {what} are not told: {}", finished.stderr);
    }
}

/// The numbers in a text, with thousands parted or not.
fn numbers(text: &str) -> BTreeSet<u64> {
    let parts = text.split(|c: char| !c.is_ascii_digit() && c != ',' && c != '_');
    parts.filter_map(|part| part.replace([',', '_'], "").parse().ok()).collect()
}

#[test]
fn kcat_sees_one_object_per_record_with_the_keys_in_order() {
    let broker = shared();
    let output = broker.topic("answers-kcat", 1);
    let query = Query { windows: Windows::tumble(DAY_MS), delay_ms: DAY_MS };
    run_job(broker, &query.script(&four().name, &output, 2));
    let text = broker.kcat(&["-C", "-q", "-e", "-o", "beginning", "-t", &output]);
    assert_eq!(text.lines().count(), query.answer(four()).rows.len());
    let keys = [
        "window_start",
        "window_end",
        "origin",
        "carrier",
        "flights",
        "mean",
        "miles",
        "least",
        "most",
        "aircraft",
        "delayed",
        "first_flight",
        "last_dest",
    ];
    for line in text.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(object.as_object().expect("an object").keys().collect::<Vec<_>>(), keys, "{line}");
    }
}
