//! The same file as a stream and as a batch, over topics on a real broker: the same rows.

use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tidemill::runtime::{Engine, EngineConfig, Outcome};

use crate::common::broker::shared;
use crate::common::program::{Finished, tidemill};
use crate::common::records::Message;

const BATCH: &str = "SET 'execution.runtime-mode' = 'batch'";

/// What runs both ways.
const QUERIES: [&str; 11] = [
    "SELECT 'tumble', window_start, window_end, k, COUNT(*), SUM(n), AVG(v), COUNT(DISTINCT n) FILTER (WHERE v > 0)
     FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '7' SECOND) WHERE n <> 3 GROUP BY window_start, window_end, k",
    "SELECT 'hop', window_end, window_time, k, MIN(v), MAX(n), FIRST_VALUE(id), LAST_VALUE(id), ARRAY_AGG(id)
     FROM HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '4' SECOND, INTERVAL '10' SECOND, INTERVAL '1' SECOND)
     GROUP BY window_end, window_time, k",
    "SELECT 'cumulate', window_start, window_end, LISTAGG(k, '+'), SUM(n)
     FROM CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '20' SECOND) GROUP BY window_start, window_end",
    "SELECT 'session', window_start, window_end, window_time, k, COUNT(*), SUM(n), FIRST_VALUE(id)
     FROM SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY window_start, window_end, window_time, k",
    "SELECT 'older sessions', n, SESSION_START(ts, INTERVAL '2' SECOND), SESSION_END(ts, INTERVAL '2' SECOND), COUNT(*)
     FROM t WHERE k <> 'x' GROUP BY SESSION(ts, INTERVAL '2' SECOND), n",
    "SELECT 'cascade', window_start, COUNT(*), SUM(c), FIRST_VALUE(k) FROM TUMBLE(
       (SELECT window_time AS wt, k, COUNT(*) AS c FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '2' SECOND)
        GROUP BY window_start, window_end, window_time, k), DESCRIPTOR(wt), INTERVAL '8' SECOND)
     GROUP BY window_start, window_end",
    "SELECT 'union', window_start, COUNT(*), LAST_VALUE(id) FROM TUMBLE(
       (SELECT id, ts FROM t WHERE n > 5 UNION ALL SELECT id, ts FROM u), DESCRIPTOR(ts), INTERVAL '6' SECOND)
     GROUP BY window_start, window_end",
    "SELECT DISTINCT 'distinct', window_start, n FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '9' SECOND)",
    "SELECT 'older', TUMBLE_START(ts, INTERVAL '5' SECOND), TUMBLE_ROWTIME(ts, INTERVAL '5' SECOND), COUNT(*)
     FROM t GROUP BY TUMBLE(ts, INTERVAL '5' SECOND) HAVING COUNT(*) > 2",
    "SELECT 'rank', window_start, id, r FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end
       ORDER BY n DESC) AS r FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND)) WHERE r <= 3",
    "SELECT 'plain', id, twice, `partition` FROM t WHERE k IS NULL OR v < -4.5",
];

/// Two topics out of order beyond their watermark; some records of the first are no rows.
fn tables() -> String {
    let broker = shared();
    let mut rng = StdRng::seed_from_u64(17);
    let mut table = |name: &str, partitions: i32, count: i64| {
        let topic = broker.topic(&format!("batch-{name}"), partitions);
        let record = |id: i64| {
            let second = (id / 10 + rng.random_range(-4..=4)).max(0);
            let k = ["x", "y", "z"].get(rng.random_range(0..4_usize));
            let ts = match rng.random_range(0..40) {
                0 => json!(null),
                _ => json!(format!("2024-03-09 23:{:02}:{:02}", 50 + second / 60, second % 60)),
            };
            // Sums of eighths are exact, whatever their order.
            let v = f64::from(rng.random_range(-40..40)) / 8.0;
            let value = json!({"id": id, "k": k, "n": rng.random_range(0..10), "v": v, "ts": ts}).to_string();
            Message::new(value).partition(rng.random_range(0..partitions))
        };
        let messages: Vec<_> = (0..count).map(record).collect();
        broker.produce(&topic, messages);
        format!(
            "CREATE TABLE {name} (id BIGINT, k STRING, n BIGINT, v DOUBLE, ts TIMESTAMP(3), twice AS n * 2,
               `partition` INT METADATA VIRTUAL, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
             WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', 'scan.on-error' = 'skip',
               'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset');\n"
        )
    };
    table("t", 3, 2_000) + &table("u", 2, 500)
}

fn run(statements: &[&str]) -> Finished {
    let mut arguments = vec!["-q", "-b", shared().addresses(), "-o", "jsonl"];
    statements.iter().for_each(|statement| arguments.extend(["-c", statement]));
    let finished = tidemill(&arguments);
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{statements:?}");
    finished
}

fn sorted(finished: &Finished) -> Vec<&str> {
    let mut lines: Vec<_> = finished.stdout.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_batch_gives_the_rows_of_the_stream() {
    let tables = tables();
    for query in QUERIES {
        let stream = run(&["SET 'parallelism.default' = '2'", &tables, query]);
        let batch = run(&[BATCH, &tables, query]);
        assert!(stream.stdout.lines().count() > 10, "{query}");
        let (stream, batch) = (sorted(&stream), sorted(&batch));
        let differ = stream.iter().zip(&batch).find(|(a, b)| a != b);
        assert_eq!((differ, batch.len()), (None, stream.len()), "stream and batch: {query}");
    }
    let count = |statements: &[&str]| run(statements).stdout;
    let late = "SELECT COUNT(*) AS c FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' SECOND)";
    let plain = "SELECT COUNT(*) AS c FROM t";
    let keep = "SET 'execution.batch.late-rows' = 'keep'";
    assert_ne!(count(&[BATCH, &tables, late]), count(&[BATCH, &tables, plain]));
    assert_eq!(count(&[BATCH, keep, &tables, late]), count(&[BATCH, &tables, plain]));
}

#[test]
fn an_insert_has_written_when_the_next_statement_begins() {
    let broker = shared();
    let (one, two) = (broker.topic("batch-out", 2), broker.topic("batch-out", 1));
    let sink = |name: &str, topic: &str| {
        format!(
            "CREATE TABLE {name} (w TIMESTAMP(3), c BIGINT NOT NULL) WITH ('connector' = 'kafka', 'topic' = '{topic}',
             'format' = 'json', 'scan.startup.mode' = 'earliest-offset');\n"
        )
    };
    let per = |seconds: u32| {
        format!(
            "SELECT window_start, COUNT(*) FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '{seconds}' SECOND)
             GROUP BY window_start, window_end"
        )
    };
    // `one` and `two` have no end of their own: a batch reads them up to now.
    let script = format!(
        "{tables}{sink_one}{sink_two}EXECUTE STATEMENT SET BEGIN INSERT INTO one {a}; INSERT INTO two {b}; END;
         SELECT (SELECT SUM(c) FROM one) AS a, (SELECT SUM(c) FROM two) AS b, (SELECT COUNT(*) FROM one) AS n;",
        tables = tables(),
        sink_one = sink("one", &one),
        sink_two = sink("two", &two),
        a = per(10),
        b = per(60),
    );
    let finished = run(&[BATCH, &script]);
    let sums: serde_json::Value = serde_json::from_str(finished.stdout.trim()).expect("a row");
    let rows = [&one, &two].map(|topic| broker.read_all(topic));
    let sum = |at: usize| rows[at].iter().map(|record| record.json()["c"].as_i64().expect("a count")).sum::<i64>();
    assert_eq!(sums, json!({"a": sum(0), "b": sum(1), "n": rows[0].len()}));
    assert!(rows[0].len() > 15 && rows[1].len() > 2, "{finished:?}");
}

#[test]
fn what_goes_wrong_is_said_before_anything_is_written() {
    let broker = shared();
    let topic = broker.topic("batch-wrong", 1);
    broker.produce(&topic, ["{\"n\":1}", "{\"n\":9223372036854775807}", "no json"]);
    let table = |on_error: &str| {
        format!(
            "{BATCH}; CREATE TABLE t (n BIGINT) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json',
             'scan.startup.mode' = 'earliest-offset', 'scan.on-error' = '{on_error}');
             CREATE TABLE o (n BIGINT) WITH ('connector' = 'print');"
        )
    };
    let skip = table("skip");
    let rows = [
        (
            table("fail"),
            "INSERT INTO o SELECT n FROM t",
            4,
            format!("topic \"{topic}\", partition 0, offset 2 does not decode"),
        ),
        (skip.clone(), "INSERT INTO o SELECT SUM(n) FROM t", 4, "a SUM does not fit into BIGINT".to_owned()),
        (
            skip.clone(),
            "EXECUTE STATEMENT SET BEGIN INSERT INTO o SELECT n FROM t; INSERT INTO o SELECT n + 1 FROM t; END",
            4,
            "overflow".to_owned(),
        ),
        (
            skip + "CREATE TABLE g (n BIGINT) WITH ('connector' = 'datagen');",
            "INSERT INTO o SELECT n FROM g",
            1,
            "table g has no end".to_owned(),
        ),
    ];
    for (tables, insert, code, message) in rows {
        let finished = tidemill(&["-b", broker.addresses(), "-c", &tables, "-c", insert]);
        assert_eq!((finished.code, finished.stdout.as_str()), (code, ""), "{insert}: {}", finished.stderr);
        assert!(finished.stderr.contains(&message), "{insert}: {}", finished.stderr);
    }
}

#[test]
fn a_batch_can_be_seen_and_stopped() {
    let engine = Engine::open(EngineConfig::default()).expect("an engine");
    let other = engine.clone();
    let work = thread::spawn(move || {
        let script = format!(
            "{BATCH}; CREATE TABLE g (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '20000');
             CREATE TABLE o (n BIGINT) WITH ('connector' = 'blackhole'); SET 'pipeline.name' = 'pairs';
             INSERT INTO o SELECT COUNT(*) FROM g a JOIN g b ON a.n < b.n JOIN g c ON b.n > c.n"
        );
        match other.run(&script).last() {
            Some(Ok(Outcome::Done(sentence, _))) => sentence,
            Some(Err(error)) => error.to_string(),
            _ => "nothing".to_owned(),
        }
    });
    let begun = Instant::now();
    let records = |engine: &Engine| engine.job("pairs").map_or(0, |job| job.info().records_in);
    while records(&engine) < 20_000 && begun.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(5));
    }
    engine.job("pairs").expect("it runs").stop();
    assert_eq!(work.join().expect("no panic"), "the batch is stopped; nothing is written");
    assert!(engine.jobs().is_empty() && begun.elapsed() < Duration::from_secs(90));
}
