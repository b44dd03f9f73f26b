//! Records and rows that are not as they must be.

use tidemill::error::Blame;

use super::{BOUNDED, at, by_window, counts, engine, expected, failed, finished, input, output, script, start};
use crate::common::broker::{shared, unique_name};
use crate::common::program::tidemill;
use crate::common::records::Message;

#[test]
fn a_record_that_does_not_decode_ends_the_job_with_all_that_is_known() {
    let broker = shared();
    let (topic, out) = (broker.topic("behaviour-bad", 2), unique_name("behaviour-bad-out"));
    broker.produce(&topic, [at(1, 0), at(1, 1), Message::new("{\"k\":\u{7}\u{1b}[31mwrong").partition(1), at(1, 3)]);
    let file = script(&(input("i", &topic, BOUNDED) + &output("o", &out) + &counts("i", "o", 2)));
    let ended = tidemill(&["-b", broker.addresses(), "run", file.path().to_str().expect("UTF-8")]);
    assert_eq!(ended.code, 4, "{ended:?}");
    for part in [&*topic, "partition 1", "offset 2", "begins with", r#"\x07\x1b[31mwrong"#, "'scan.on-error' = 'skip'"]
    {
        assert!(ended.stderr.contains(part), "{part:?} in {}", ended.stderr);
    }
    assert!(!ended.stderr.contains('\u{1b}'), "{ended:?}");
}

#[test]
fn event_times_that_are_none_end_the_job() {
    let broker = shared();
    for (bad, reason) in [
        (r#"{"n":1,"ts":null}"#, "null"),
        (r#"{"n":1}"#, "null"),
        (r#"{"n":1,"ts":9223372036854775807}"#, "out of range"),
        (r#"{"n":1,"ts":"soon"}"#, ""),
    ] {
        let (topic, out) = (broker.topic("behaviour-no-time", 1), unique_name("behaviour-no-time-out"));
        broker.produce(&topic, [at(0, 0), Message::new(bad), at(0, 5_000)]);
        let engine = engine(broker);
        let job = start(&engine, &(input("i", &topic, BOUNDED) + &output("o", &out) + &counts("i", "o", 2)));
        let error = failed(&job);
        assert_eq!(error.blame, Blame::Data, "{error}");
        for part in [&*topic, "partition 0", "offset 1", reason] {
            assert!(error.message.contains(part), "{part:?} in {error}");
        }
        assert_eq!(job.info().status, "failed");
        // Nothing past it was written.
        assert!(broker.read_all(&out).is_empty());
    }
}

#[test]
fn bad_records_are_skipped_and_counted() {
    let broker = shared();
    let (topic, out) = (broker.topic("behaviour-skip", 2), unique_name("behaviour-skip-out"));
    let bad = [
        "",
        "no json",
        "{}",
        "{\"ts\":1}{\"ts\":2}",
        "[1]",
        "{\"ts\":\"never\"}",
        "{\"ts\":true}",
        "{\"ts\":null}",
        "{\"ts\":-9223372036854775808}",
        "{\"ts\":1,",
        "\u{0}",
        "{\"ts\":{}}",
    ];
    let mut messages = Vec::new();
    for (n, text) in (0..).zip(bad) {
        messages.push(at(n % 2, i64::from(n) * 500));
        messages.push(Message::new(text).partition(n % 2));
    }
    messages.push(Message::tombstone().partition(0));
    broker.produce(&topic, messages);
    for workers in [1, 2] {
        let engine = engine(broker);
        let out = format!("{out}-{workers}");
        let text = format!("SET 'parallelism.default' = '{workers}';")
            + &input("i", &topic, &format!("{BOUNDED}, 'scan.on-error' = 'skip'"))
            + &output("o", &out)
            + &counts("i", "o", 2);
        let info = finished(&start(&engine, &text));
        assert_eq!((info.records_in, info.errors, info.tombstones), (25, 12, 1), "{info:?}");
        assert_eq!(by_window(&broker.read_all(&out)), expected((0..12).map(|n| n * 500), 2));
    }
}

#[test]
fn arithmetic_that_fails_is_an_error_of_the_data() {
    let broker = shared();
    let topic = broker.topic("behaviour-arithmetic", 1);
    broker.produce(&topic, [at(0, 5), at(0, 0)]);
    let engine = engine(broker);
    for (n, expr) in ["10 / n", "CAST(CAST(n AS DECIMAL(38, 0)) + 99999999999999999999999999999999999999 AS BIGINT)"]
        .into_iter()
        .enumerate()
    {
        let text = input(&format!("i{n}"), &topic, BOUNDED)
            + &format!(
                "CREATE TABLE o{n} (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO o{n} SELECT {expr} FROM i{n}"
            );
        let error = failed(&start(&engine, &text));
        assert_eq!(error.blame, Blame::Data, "{expr}: {error}");
    }
}

#[test]
fn a_row_that_is_too_large_is_an_error() {
    let broker = shared();
    let small = broker.topic_with("behaviour-small", 1, &[("max.message.bytes", "2000")]);
    let large = unique_name("behaviour-large");
    let topic = broker.topic("behaviour-wide", 1);
    broker.produce(&topic, [at(0, 1)]);
    // By the topic's own limit, and by the client's; noise, so that compression does not help.
    for (out, rows) in [(&small, 400), (&large, 200_000)] {
        let engine = engine(broker);
        let text = input("i", &topic, BOUNDED)
            + &format!(
                "CREATE TABLE o (s STRING) WITH ('connector' = 'kafka', 'topic' = '{out}', 'format' = 'raw', \
                 'properties.compression.type' = 'none', 'sink.delivery-guarantee' = 'at-least-once'); \
                 INSERT INTO o SELECT repeat('0123456789', n * {rows}) FROM i"
            );
        let error = failed(&start(&engine, &text));
        assert_eq!(error.blame, Blame::Data, "{error}");
        assert!(error.message.contains("larger than") && error.message.contains(&**out), "{error}");
    }
    // The engine had made the topic that was missing.
    assert_eq!(broker.partition_count(&large), Some(1));
}
