//! State that memory cannot hold: the answer is the same, memory stays bounded, and disk that is not enough says so.

use std::fs::read_to_string;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::common::broker::{shared, unique_name};
use crate::common::program::{Finished, start_tidemill, tidemill};
use crate::common::records::{Message, Record};

const KEYS: usize = 150_000;

/// A window's groups take some 160 MB.
const KEY_BYTES: usize = 1_000;

const PATIENCE: Duration = Duration::from_secs(120);

/// Every key comes twice, far apart; all of them in one minute, which a last record of each partition closes.
fn messages() -> impl Iterator<Item = Message> {
    let record = |n: usize| {
        let (key, ms) = (n % KEYS, n % 59_000);
        let ts = format!("2024-01-01 00:00:{:02}.{:03}", ms / 1_000, ms % 1_000);
        Message::new(json!({ "k": format!("{key:0>KEY_BYTES$}"), "ts": ts }).to_string()).partition((key % 2) as i32)
    };
    let last = |p| Message::new(json!({ "k": "last", "ts": "2024-01-01 00:01:00" }).to_string()).partition(p);
    (0..2 * KEYS).map(record).chain([last(0), last(1)])
}

fn source(topic: &str) -> String {
    format!(
        "CREATE TABLE i (k STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' MINUTE) WITH ('connector' = 'kafka', \
         'topic' = '{topic}', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset', \
         'scan.bounded.mode' = 'latest-offset', 'properties.queued.max.messages.kbytes' = '4096');
         CREATE VIEW per_key AS SELECT window_start, window_end, k, COUNT(*) AS n
         FROM TUMBLE(i, ts, INTERVAL '1' MINUTE) GROUP BY window_start, window_end, k;"
    )
}

const TOTALS: &str = "SELECT CAST(window_start AS STRING) AS w, COUNT(*) AS ks, SUM(n) AS ns, MIN(n) AS least, \
                      MAX(n) AS most FROM per_key GROUP BY window_start, window_end";

/// Runs a script to its end; answers the greatest memory that it had (MB).
fn run(script: &str) -> (Finished, u64) {
    let mut running = start_tidemill(&["-b", shared().addresses(), "-o", "jsonl", "-c", script]);
    let mut most = 0;
    while running.is_running() {
        let status = read_to_string(format!("/proc/{}/status", running.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
        most = peak.and_then(|kb| kb.trim().parse().ok()).unwrap_or(most);
        thread::sleep(Duration::from_millis(20));
    }
    (running.finish(PATIENCE), most / 1_024)
}

#[test]
fn a_window_that_memory_cannot_hold_is_right() {
    let broker = shared();
    let topic = broker.topic("memory", 2);
    broker.produce(&topic, messages());
    let mut want = vec![
        format!(r#"{{"w":"2024-01-01 00:00:00","ks":{KEYS},"ns":{},"least":2,"most":2}}"#, 2 * KEYS),
        r#"{"w":"2024-01-01 00:01:00","ks":1,"ns":2,"least":2,"most":2}"#.to_owned(),
    ];
    want.sort();
    for workers in [1, 2] {
        let peak = |settings: &str| {
            let (done, peak) =
                run(&format!("SET 'parallelism.default' = '{workers}'; {settings} {} {TOTALS};", source(&topic)));
            assert_eq!(done.code, 0, "{}", done.stderr);
            let mut rows: Vec<&str> = done.stdout.lines().collect();
            rows.sort_unstable();
            let texts: Vec<String> = rows.iter().map(|row| row.replace(".000", "").replace("T", " ")).collect();
            assert_eq!(texts, want);
            peak
        };
        let (unlimited, limited) = (peak(""), peak("SET 'state.memory.limit' = '16 MB';"));
        let count =
            "SELECT COUNT(*) FROM TUMBLE(i, ts, INTERVAL '1' MINUTE) WHERE k <> '' GROUP BY window_start, window_end";
        let (_, nothing) = run(&format!("SET 'parallelism.default' = '{workers}'; {} {count};", source(&topic)));
        eprintln!(
            "{workers} workers: {limited} MB with a limit of 16 MB, {unlimited} MB without, {nothing} MB without state"
        );
        // With several workers, what is on its way between them is many times the limit of this test.
        let less = if workers == 1 { 60 } else { 20 };
        assert!(limited + less < unlimited, "{limited} MB with a limit, {unlimited} MB without");
    }
}

#[test]
fn a_job_whose_disk_is_not_enough_says_so_and_goes_on_with_more() {
    let broker = shared();
    let (topic, sink) = (broker.topic("memory-disk", 2), broker.topic("memory-disk-out", 1));
    broker.produce(&topic, messages());
    let name = unique_name("memory-disk");
    let script = |disk: &str| {
        format!(
            "SET 'pipeline.name' = '{name}'; SET 'state.memory.limit' = '8 MB'; SET 'state.disk.limit' = '{disk}'; \
             SET 'execution.checkpointing.interval' = '300 ms'; SET 'table.dml-sync' = 'true'; {} \
             CREATE TABLE o (w STRING, ks BIGINT, ns BIGINT, least BIGINT, most BIGINT) WITH ('connector' = 'kafka', \
             'topic' = '{sink}', 'format' = 'json', 'sink.delivery-guarantee' = 'exactly-once'); INSERT INTO o {TOTALS};",
            source(&topic)
        )
    };
    let done = tidemill(&["-b", broker.addresses(), "-c", &script("20 MB")]);
    assert_eq!(done.code, 2, "{}", done.stderr);
    let said = "the job's state takes more than the 20 MB of disk that it may have";
    assert!(done.stderr.contains(said) && done.stderr.contains("'state.disk.limit'"), "{}", done.stderr);
    assert!(broker.read_all(&sink).is_empty());
    // What it had come to is kept, and goes straight to disk when it is read.
    let done = tidemill(&["-b", broker.addresses(), "-c", &script("1 GB")]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let records = broker.read_all(&sink);
    let found = |record: &Record| ["ks", "ns", "least", "most"].map(|name| record.json()[name].as_u64().unwrap());
    let mut found: Vec<_> = records.iter().map(found).collect();
    found.sort_unstable();
    assert_eq!(found, [[1, 2, 2, 2], [KEYS as u64, 2 * KEYS as u64, 2, 2]]);
}
