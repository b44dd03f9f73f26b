//! Random inputs, windows, keys and aggregates against the oracle. A failing case prints the command that replays it.

use arrow::datatypes::DataType;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::flights::{rows, run_job};
use crate::common::broker::shared;
use crate::common::oracle::{Stream, TIME, Windows, assert_same_rows};
use crate::common::records::Message;

/// Cases of one run.
const CASES: u64 = 24;

/// For the engine, for the batch (the same if empty), and the type of the sink's column.
const AGGREGATES: [(&str, &str, &str); 17] = [
    ("COUNT(*)", "", "BIGINT"),
    ("COUNT(n)", "", "BIGINT"),
    ("SUM(n)", "", "BIGINT"),
    ("SUM(v)", "", "DOUBLE"),
    ("AVG(v)", "", "DOUBLE"),
    ("MIN(n)", "", "INT"),
    ("MAX(v)", "", "DOUBLE"),
    ("MIN(k)", "", "STRING"),
    ("MAX(ts)", "", "TIMESTAMP(3)"),
    ("COUNT(DISTINCT k)", "", "BIGINT"),
    ("COUNT(DISTINCT n) FILTER (WHERE v > 0)", "", "BIGINT"),
    ("SUM(DISTINCT n)", "", "BIGINT"),
    ("SUM(v) FILTER (WHERE n % 2 = 0)", "", "DOUBLE"),
    ("FIRST_VALUE(n)", "FIRST_VALUE(n ORDER BY ts, source_partition, source_offset)", "INT"),
    ("LAST_VALUE(k)", "LAST_VALUE(k ORDER BY ts, source_partition, source_offset)", "STRING"),
    ("ARRAY_AGG(n)", "ARRAY_AGG(n ORDER BY ts, source_partition, source_offset)", "ARRAY<INT>"),
    ("LISTAGG(k, '+')", "STRING_AGG(k, '+' ORDER BY ts, source_partition, source_offset)", "STRING"),
];

/// What is grouped by beside the window, and the type of the sink's column.
const KEYS: [(&str, &str); 4] = [("k", "STRING"), ("n", "INT"), ("n % 3", "INT"), ("CHARACTER_LENGTH(k)", "INT")];

#[derive(Debug)]
struct Case {
    partitions: i32,
    messages: Vec<Message>,
    windows: Windows,
    delay_ms: i64,
    filtered: bool,
    keys: Vec<(&'static str, &'static str)>,
    aggregates: Vec<(&'static str, &'static str, &'static str)>,
    workers: usize,
    commit_interval_ms: u64,
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let size_ms = *[1_000, 7, 999, 60_000, rng.random_range(1..20_000)].choose(&mut rng).expect("some");
        let slide_ms = match rng.random_range(0..3) {
            0 => size_ms,
            // At most some twenty windows per row; sometimes longer than the window, so that there are gaps.
            _ => rng.random_range((size_ms / 20).max(1)..=size_ms + size_ms / 4),
        };
        let offset_ms = if rng.random() { rng.random_range(-2 * slide_ms..=2 * slide_ms) } else { 0 };
        let partitions = rng.random_range(1..=5);
        let step_ms = rng.random_range(0..=size_ms / 5 + 1);
        let disorder_ms = if rng.random() { rng.random_range(0..=3 * size_ms) } else { 0 };
        let delay_ms = *[0, disorder_ms / 2, disorder_ms].choose(&mut rng).expect("some");
        let first_ms = *[0, -rng.random_range(0..200_000_i64), 1_577_836_800_000].choose(&mut rng).expect("some");
        let count = *[0, 1, 50, 400].choose(&mut rng).expect("some");
        // Some partitions get nothing.
        let used: Vec<i32> = (0..partitions).filter(|_| rng.random_bool(0.8)).collect();
        let messages = (0..count).filter_map(|i| {
            let time_ms = first_ms + i * step_ms + rng.random_range(-disorder_ms..=disorder_ms);
            let partition = *used.choose(&mut rng)?;
            Some(Message::new(record(time_ms, &mut rng)).partition(partition))
        });
        let messages = messages.collect();
        let mut aggregates: Vec<_> = AGGREGATES.sample(&mut rng, 5).copied().collect();
        // A row with a count and nothing else is the smallest there is.
        if rng.random_bool(0.1) {
            aggregates = vec![AGGREGATES[0]];
        }
        let key_count = rng.random_range(0..=2);
        Self {
            partitions,
            messages,
            windows: Windows { slide_ms, size_ms, offset_ms },
            delay_ms,
            filtered: rng.random_bool(0.3),
            keys: KEYS.sample(&mut rng, key_count).copied().collect(),
            aggregates,
            workers: rng.random_range(1..=3),
            commit_interval_ms: *[1, 5, 50].choose(&mut rng).expect("some"),
        }
    }

    fn script(&self, input: &str, output: &str) -> String {
        let Windows { slide_ms, size_ms, offset_ms } = self.windows;
        let rows = if self.filtered { "(SELECT * FROM t WHERE n < 5)" } else { "TABLE t" };
        let offset = if offset_ms == 0 { String::new() } else { format!(", {}", interval(offset_ms)) };
        let window = match slide_ms == size_ms {
            true => format!("TUMBLE({rows}, DESCRIPTOR(ts), {}{offset})", interval(size_ms)),
            false => format!("HOP({rows}, DESCRIPTOR(ts), {}, {}{offset})", interval(slide_ms), interval(size_ms)),
        };
        let keys = self.keys.iter().map(|(key, _)| format!(", {key}")).collect::<String>();
        let aggregates = self.aggregates.iter().map(|(call, ..)| format!(", {call}")).collect::<String>();
        let key_columns = self.keys.iter().enumerate().map(|(i, (_, kind))| format!(", k{i} {kind}"));
        let aggregate_columns = self.aggregates.iter().enumerate().map(|(i, (.., kind))| format!(", a{i} {kind}"));
        format!(
            "SET 'parallelism.default' = '{workers}';
SET 'sink.commit-interval' = '{commit} ms';
CREATE TABLE t (k STRING, n INT, v DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - {delay}) WITH (
  'connector' = 'kafka', 'topic' = '{input}', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset');
CREATE TABLE answers (window_start TIMESTAMP(3), window_end TIMESTAMP(3){columns}) WITH (
  'connector' = 'kafka', 'topic' = '{output}', 'format' = 'json');
INSERT INTO answers SELECT window_start, window_end{keys}{aggregates}
FROM TABLE({window}) GROUP BY window_start, window_end{keys};",
            workers = self.workers,
            commit = self.commit_interval_ms,
            delay = interval(self.delay_ms),
            columns = key_columns.chain(aggregate_columns).collect::<String>(),
        )
    }

    fn batch(&self) -> String {
        let keys = self.keys.iter().enumerate().map(|(i, (key, _))| format!(", {key} AS k{i}")).collect::<String>();
        let group = self.keys.iter().map(|(key, _)| format!(", {key}")).collect::<String>();
        let aggregates = self.aggregates.iter().enumerate().map(|(i, (streaming, batch, _))| {
            format!(", {} AS a{i}", if batch.is_empty() { streaming } else { batch })
        });
        let aggregates = aggregates.collect::<String>();
        format!("SELECT window_start, window_end{keys}{aggregates} FROM t GROUP BY window_start, window_end{group}")
    }

    fn check(&self) {
        let broker = shared();
        let (input, output) = (broker.topic("seeded-in", self.partitions), broker.topic("seeded-out", 2));
        broker.produce(&input, self.messages.iter().cloned());
        let stream = Stream {
            columns: vec![("k", DataType::Utf8), ("n", DataType::Int32), ("v", DataType::Float64), ("ts", TIME)],
            time: "ts",
            delay_ms: self.delay_ms,
            keep: if self.filtered { |row| row["n"].as_i64().is_some_and(|n| n < 5) } else { |_| true },
        };
        let want = stream.answer(&broker.read_all(&input), self.windows, &self.batch());
        let info = run_job(broker, &self.script(&input, &output));
        assert_same_rows(&rows(broker, &output), &want.rows, "the rows");
        assert_eq!(
            (info.records_in, info.rows_out, info.filtered, info.late, info.partly_late, info.errors),
            (self.messages.len() as u64, want.rows.len() as u64, want.filtered, want.late, want.partly_late, 0),
            "records, rows, filtered, late, partly late, errors"
        );
        assert_eq!(info.records_in, want.used + want.filtered + want.late);
    }
}

/// A record of a few keys, with nulls among everything but the time. The doubles add up without rounding.
fn record(time_ms: i64, rng: &mut StdRng) -> String {
    let time = chrono::DateTime::from_timestamp_millis(time_ms).expect("a time near 1970 or 2020");
    let time = match rng.random_range(0..3) {
        0 => time.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
        1 => time.format("%Y-%m-%dT%H:%M:%S%.3f"),
        _ => time.format("%Y-%m-%d %H:%M:%S%.3f"),
    };
    let k = *[Some("a"), Some("b"), Some("cc"), Some("ü\"\\"), Some(""), None].choose(rng).expect("some");
    let n = rng.random_bool(0.9).then(|| rng.random_range(-9..10));
    let v = rng.random_bool(0.9).then(|| f64::from(rng.random_range(-400..400)) / 4.0);
    json!({"k": k, "unused": [1, {"k": 2}], "n": n, "ts": time.to_string(), "v": v}).to_string()
}

/// An interval literal of so many milliseconds.
fn interval(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("INTERVAL {sign}'{}.{:03}' SECOND", ms.abs() / 1_000, ms.abs() % 1_000)
}

#[test]
fn random_queries_equal_the_batch() {
    let one = std::env::var("TIDEMILL_SEED").ok().map(|seed| seed.parse().expect("TIDEMILL_SEED is a number"));
    for seed in one.map_or(0..CASES, |seed: u64| seed..seed + 1) {
        let case = Case::new(seed);
        let checked = std::panic::catch_unwind(|| case.check());
        if let Err(panic) = checked {
            eprintln!("{}", case.script("in", "out"));
            eprintln!("to see it again: TIDEMILL_SEED={seed} cargo test --release --test it random_queries");
            std::panic::resume_unwind(panic);
        }
    }
}
