//! How jobs behave against a real broker: where they start and end, when windows close, what they do with bad records,
//! and what happens when somebody, or something, ends them.
//!
//! Records are `{"k": .., "n": .., "ts": ..}` with event times in milliseconds since 1970, small enough to be read;
//! results are counts per window.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tidemill::error::Error;
use tidemill::runtime::{Engine, EngineConfig, Job, JobInfo, JobStatus, Outcome};

use crate::common::broker::Broker;
use crate::common::records::{Message, Record};

mod bad_records;
mod bounds;
mod closing;
mod crashes;
mod ends;
mod flow;
mod outages;
mod rejects;
mod restores;
mod several;
mod watching;

/// How long anything may take that does not wait for a clock, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const EARLIEST: &str = "'scan.startup.mode' = 'earliest-offset'";
const BOUNDED: &str = "'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'";

fn engine(broker: &Broker) -> Engine {
    Engine::open(EngineConfig { brokers: Some(broker.addresses().into()), ..EngineConfig::default() })
        .expect("an engine")
}

/// `CREATE TABLE` for records as this module writes them, with the watermark at the event time.
fn input(name: &str, topic: &str, options: &str) -> String {
    format!(
        "CREATE TABLE {name} (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'kafka', \
         'topic' = '{topic}', 'format' = 'json', {options});\n"
    )
}

/// `CREATE TABLE` for counts per window.
fn output(name: &str, topic: &str) -> String {
    format!(
        "CREATE TABLE {name} (w TIMESTAMP(3), c BIGINT) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = \
         'json', 'sink.delivery-guarantee' = 'at-least-once');\n"
    )
}

/// `INSERT` of counts per window of so many seconds.
fn counts(from: &str, into: &str, seconds: u32) -> String {
    format!(
        "INSERT INTO {into} SELECT window_start, count(*) FROM TUMBLE({from}, ts, INTERVAL '{seconds}' SECOND) GROUP BY \
         window_start, window_end;\n"
    )
}

/// A record.
fn at(partition: i32, ts: i64) -> Message {
    Message::new(format!(r#"{{"k":"k{}","n":{ts},"ts":{ts}}}"#, ts % 7)).partition(partition)
}

/// Executes statements; the error of the first that fails.
fn execute(engine: &Engine, text: &str) -> Result<Vec<Outcome>, Error> {
    engine.run(text).collect()
}

/// Executes statements; the job that the last of them started.
fn start(engine: &Engine, text: &str) -> Job {
    match execute(engine, text).unwrap_or_else(|error| panic!("{error}: {text}")).pop() {
        Some(Outcome::Started(job)) => job,
        _ => panic!("no job was started by: {text}"),
    }
}

/// Waits for a job's end, which must be a good one.
fn finished(job: &Job) -> JobInfo {
    match job.wait_for(PATIENCE) {
        Some(Ok(())) => job.info(),
        Some(Err(error)) => panic!("{error}"),
        None => panic!("it still runs: {:?}", job.info()),
    }
}

/// Waits for a job's end, which must be a bad one.
fn failed(job: &Job) -> Error {
    match job.wait_for(PATIENCE) {
        Some(Err(error)) => error,
        Some(Ok(())) => panic!("it ended well: {:?}", job.info()),
        None => panic!("it still runs: {:?}", job.info()),
    }
}

/// Looks again and again until there is what is looked for.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a job that is running says so of itself.
fn until_job(job: &Job, what: &str, is: impl Fn(&JobInfo) -> bool) -> JobInfo {
    until(what, || {
        let info = job.info();
        if let JobStatus::Failed(error) = job.status() {
            panic!("{what}: {error}");
        }
        is(&info).then_some(info)
    })
}

/// The seconds since 1970 that an output row's window starts at.
fn window_of(record: &Record) -> i64 {
    let row = record.json();
    let start = row["w"].as_str().unwrap_or_else(|| panic!("no window in {row}"));
    let start = chrono::NaiveDateTime::parse_from_str(start, "%Y-%m-%d %H:%M:%S%.f").expect("an SQL timestamp");
    start.and_utc().timestamp()
}

/// Counts by window; a window must not come twice.
fn by_window<'a>(records: impl IntoIterator<Item = &'a Record>) -> BTreeMap<i64, i64> {
    let mut counts = BTreeMap::new();
    for record in records {
        let before = counts.insert(window_of(record), record.json()["c"].as_i64().expect("a count"));
        assert_eq!(before, None, "a second row for the window of {}", record.text());
    }
    counts
}

/// Counts by window of some event times, by the definition.
fn expected(times: impl IntoIterator<Item = i64>, seconds: i64) -> BTreeMap<i64, i64> {
    let mut counts = BTreeMap::new();
    for time in times {
        *counts.entry(time.div_euclid(seconds * 1_000) * seconds).or_default() += 1;
    }
    counts
}

/// All values of a bounded query of one BIGINT, sorted.
fn values(engine: &Engine, text: &str) -> Vec<i64> {
    let Some(Outcome::Query(stream)) = execute(engine, text).unwrap_or_else(|e| panic!("{e}: {text}")).pop() else {
        panic!("no query: {text}");
    };
    let batches: Result<Vec<_>, _> = stream.collect();
    let batches = batches.unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut values: Vec<i64> =
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    values.sort_unstable();
    values
}

/// A file with statements, for the program; it goes when the value does.
fn script(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".sql").tempfile().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a temporary file");
    file
}
