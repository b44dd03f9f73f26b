//! Late rows and bad records as data: what lies in their topics, and that everything adds up.

use std::collections::BTreeMap;

use tidemill::error::Blame;
use tidemill::runtime::{JobInfo, StatementInfo};

use super::{BOUNDED, at, counts, engine, execute, failed, finished, input, output, start};
use crate::common::broker::{Broker, shared, unique_name};
use crate::common::records::{Message, Record};

/// The headers of a record whose names begin as ours do, without that beginning.
fn headers(record: &Record) -> BTreeMap<&str, &str> {
    let ours = record.headers.iter().map(|(name, value)| {
        let name = name.strip_prefix("tidemill.").unwrap_or_else(|| panic!("a header {name}"));
        (name, str::from_utf8(value.as_deref().expect("a value")).expect("UTF-8"))
    });
    ours.collect()
}

/// What a record in a topic of rejected ones is, without where it lies.
fn told(record: &Record) -> String {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
    format!("{:?} {:?} {:?}", text(&record.key), text(&record.value), headers(record))
}

/// All records of a topic, sorted; none if the topic does not exist.
fn all_told(broker: &Broker, topic: &str) -> Vec<String> {
    let mut all: Vec<String> = broker.read_all(topic).iter().map(told).collect();
    all.sort_unstable();
    all
}

fn check_sums(info: &JobInfo) {
    for statement in &info.statements {
        let StatementInfo {
            records_in, used, filtered, late, lost_to_idleness, errors, dead_lettered, tombstones, ..
        } = *statement;
        let sum = used + filtered + late + lost_to_idleness + errors + dead_lettered + tombstones;
        assert_eq!(records_in, sum, "{statement:?}");
    }
}

#[test]
fn a_late_row_is_a_record_with_all_that_is_known() {
    let broker = shared();
    let (topic, out, late) = (broker.topic("rejects-late", 2), unique_name("rejects-out"), unique_name("rejects-late"));
    let keyed = |ts: i64| at(1, ts).key("the key");
    // Late for all windows; late for the first of its two windows; and in time.
    broker.produce(&topic, [at(0, 0), at(1, 0), at(1, 30_000), keyed(2_000), keyed(26_000), at(1, 31_000)]);
    let engine = engine(broker);
    let text = input("i", &topic, &format!("{BOUNDED}, 'scan.late.topic' = '{late}'"))
        + &output("o", &out)
        + "SET 'pipeline.name' = 'the job';
           INSERT INTO o SELECT window_start, count(*) FROM HOP(i, ts, INTERVAL '5' SECOND, INTERVAL '10' SECOND)
           GROUP BY window_start, window_end;";
    let info = finished(&start(&engine, &text));
    assert_eq!((info.records_in, info.used, info.late, info.partly_late), (6, 5, 1, 1), "{info:?}");
    check_sums(&info);

    let records = broker.read_all(&late);
    assert_eq!(records.len(), 2, "{records:#?}");
    assert!(records.iter().all(|r| r.key.as_deref() == Some(b"the key")));
    let mut got: Vec<_> = records.iter().map(|r| (r.text(), headers(r))).collect();
    got.sort();
    let common = [
        ("topic", topic.as_str()),
        ("partition", "1"),
        ("reason", "late"),
        ("watermark", "1970-01-01T00:00:30.000Z"),
        ("job", "the job"),
        ("sink", "o"),
    ];
    let with = |more: &[(&'static str, &'static str)]| -> BTreeMap<&str, &str> {
        common.iter().chain(more).copied().collect()
    };
    let first = [
        ("offset", "2"),
        ("event-time", "1970-01-01T00:00:02.000Z"),
        (
            "windows",
            "[1969-12-31T23:59:55.000Z, 1970-01-01T00:00:05.000Z), [1970-01-01T00:00:00.000Z, 1970-01-01T00:00:10.000Z)",
        ),
        ("windows-missed", "2"),
    ];
    let second = [
        ("offset", "3"),
        ("event-time", "1970-01-01T00:00:26.000Z"),
        ("windows", "[1970-01-01T00:00:20.000Z, 1970-01-01T00:00:30.000Z)"),
        ("windows-missed", "1"),
        ("partly", "true"),
    ];
    let value = |ts: i64| format!(r#"{{"k":"k{}","n":{ts},"ts":{ts}}}"#, ts % 7);
    let (two, twenty_six) = (value(2_000), value(26_000));
    let mut want = vec![(&*two, with(&first)), (&*twenty_six, with(&second))];
    want.sort();
    assert_eq!(got, want);
}

#[test]
fn bad_records_of_every_kind_are_dead_letters() {
    let broker = shared();
    let (topic, out, bad) = (broker.topic("rejects-bad", 1), unique_name("rejects-out"), unique_name("rejects-bad"));
    let messages = [
        at(0, 0),
        Message::new("\u{7}no json").key("k"),
        Message::new(r#"{"k":"7","n":1,"ts":null}"#),
        // The record's own time is that of 1970; this row is from the year 3000, and must close no window.
        Message::new(r#"{"k":"7","n":1,"ts":32503680000000}"#).timestamp_ms(2_000),
        Message::new(r#"{"k":"no number","n":1,"ts":1000}"#).timestamp_ms(2_000),
        Message::new(r#"{"k":"7","n":0,"ts":1000}"#),
        Message::new(r#"{"k":"7","n":5,"ts":1000}"#).timestamp_ms(0),
        Message::new(r#"{"k":"7","n":9223372036854775807,"ts":1000}"#),
        Message::tombstone().key("gone"),
    ];
    broker.produce(&topic, messages);
    let create = |options: &str| {
        format!(
            "CREATE TABLE i (k STRING, n BIGINT, ts TIMESTAMP(3), number AS CAST(REPLACE(k, 'k', '') AS BIGINT), \
             WATERMARK FOR ts AS ts) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', {BOUNDED}, \
             'scan.event-time.max-ahead' = '1 min', {options});\n"
        )
    };
    let statements = output("o", &out)
        + "INSERT INTO o SELECT window_start, sum(n + 1) FROM TUMBLE(i, ts, INTERVAL '10' SECOND)
           WHERE 10 / n + number >= 0 OR n > 5 GROUP BY window_start, window_end;";
    for workers in [1, 2] {
        let bad = format!("{bad}-{workers}");
        let table = create(&format!("'scan.on-error' = 'dead-letter', 'scan.dead-letter.topic' = '{bad}'"));
        let text = format!("SET 'parallelism.default' = '{workers}';") + &table + &statements;
        let info = finished(&start(&engine(broker), &text));
        let want = (9, 1, 7, 1, 0, 0);
        let got = (info.records_in, info.used, info.dead_lettered, info.tombstones, info.errors, info.late);
        assert_eq!(got, want, "{info:?}");
        check_sums(&info);
        let records = broker.read_all(&bad);
        let reasons: BTreeMap<i64, (String, &str)> = records
            .iter()
            .map(|r| {
                let headers = headers(r);
                assert_eq!((headers["topic"], headers["partition"]), (&*topic, "0"));
                assert!(!headers.contains_key("windows") && headers.contains_key("job"), "{headers:?}");
                (headers["offset"].parse().expect("a number"), (headers["reason"].to_owned(), r.text()))
            })
            .collect();
        assert_eq!(records.len(), 7, "{reasons:#?}");
        // Those that fail before any statement has them are nobody's; the others are the statement's.
        let sinks: BTreeMap<i64, Option<&str>> = records
            .iter()
            .map(|r| (headers(r)["offset"].parse().expect("a number"), headers(r).get("sink").copied()))
            .collect();
        for (offset, reason, value, sink) in [
            (1, "expected", "\u{7}no json", None),
            (2, "event time ts is null", r#"{"k":"7","n":1,"ts":null}"#, None),
            (
                3,
                "3000-01-01T00:00:00.000Z, is too far ahead of the record's own timestamp, 1970-01-01T00:00:02.000Z",
                "",
                None,
            ),
            (4, "no number", "", None),
            (0, "division by zero", "", Some("o")),
            (5, "division by zero", "", Some("o")),
            (7, "overflow", "", Some("o")),
        ] {
            let (got, text) = &reasons[&offset];
            assert!(got.contains(reason) || offset == 1, "{offset}: {got}, not {reason}");
            assert!(value.is_empty() || *text == value, "{offset}: {text}");
            assert_eq!(sinks[&offset], sink, "{offset}");
        }
        assert_eq!(
            records.iter().find(|r| r.text().starts_with('\u{7}')).and_then(|r| r.key.as_deref()),
            Some(&b"k"[..])
        );
    }
    // The same are skipped, or end the job.
    let info = finished(&start(&engine(broker), &(create("'scan.on-error' = 'skip'") + &statements)));
    assert_eq!((info.records_in, info.used, info.errors, info.dead_lettered), (9, 1, 7, 0), "{info:?}");
    check_sums(&info);
    let error = failed(&start(&engine(broker), &(create("'scan.on-error' = 'fail'") + &statements)));
    assert_eq!(error.blame, Blame::Data);
    // A query that only reads writes to no topic.
    let unwritten = unique_name("rejects-unwritten");
    let table = create(&format!("'scan.on-error' = 'dead-letter', 'scan.dead-letter.topic' = '{unwritten}'"));
    let values = super::values(&engine(broker), &(table + "SELECT n FROM i WHERE 10 / n >= 0"));
    assert_eq!((values, broker.partition_count(&unwritten)), (vec![1, 5, i64::MAX], None));
}

#[test]
fn a_row_that_fails_ends_the_job_with_its_place() {
    let broker = shared();
    let topic = broker.topic("rejects-place", 1);
    broker.produce(&topic, [at(0, 0)]);
    let text = input("i", &topic, BOUNDED)
        + "CREATE TABLE o (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO o SELECT 10 / n FROM i;";
    let error = failed(&start(&engine(broker), &text));
    for part in ["division by zero", &*topic, "partition 0", "offset 0"] {
        assert!(error.message.contains(part), "{part:?} in {error}");
    }
}

#[test]
fn what_is_turned_away_does_not_depend_on_the_run() {
    let broker = shared();
    let topic = broker.topic("rejects-runs", 4);
    let record = |n: i64| {
        let ts = if n % 7 == 0 { n * 8 } else { n * 10 };
        let partition = i32::try_from(n % 4).expect("small");
        match n % 13 {
            0 => Message::new(format!("bad {n}")).partition(partition),
            1 => Message::tombstone().partition(partition),
            _ => Message::new(format!(r#"{{"k":"k{}","n":{},"ts":{ts}}}"#, n % 5, n % 11)).partition(partition),
        }
    };
    broker.produce(&topic, (0..8_000).map(record));
    let mut runs = Vec::new();
    for workers in ["1", "2", "4"] {
        let [a, b, late, bad] = ["a", "b", "late", "bad"].map(|name| unique_name(&format!("rejects-runs-{name}")));
        let options = format!(
            "{BOUNDED}, 'scan.late.topic' = '{late}', 'scan.on-error' = 'dead-letter', 'scan.dead-letter.topic' = '{bad}'"
        );
        let text = format!("SET 'parallelism.default' = '{workers}';\n")
            + &input("i", &topic, &options)
            + &output("a", &a)
            + &output("b", &b)
            + "SET 'pipeline.name' = 'runs';
               EXECUTE STATEMENT SET BEGIN
               INSERT INTO a SELECT window_start, sum(100 / n) FROM HOP(i, ts, INTERVAL '1' SECOND, INTERVAL '3' SECOND)
               GROUP BY window_start, window_end;
               INSERT INTO b SELECT window_start, count(*) FROM TUMBLE(
                   (SELECT ts FROM i WHERE 10 / (n - 1) > 0 UNION ALL SELECT ts FROM i WHERE n = 3),
                   ts, INTERVAL '2' SECOND) GROUP BY window_start, window_end;
               END;";
        let info = finished(&start(&engine(broker), &text));
        check_sums(&info);
        let [of_a, of_b] = info.statements.as_slice() else { panic!("{info:?}") };
        assert_eq!((of_a.records_in, of_b.records_in, info.records_in), (8_000, 16_000, 8_000));
        for statement in [of_a, of_b] {
            assert!(0 < statement.late && 0 < statement.dead_lettered && 0 < statement.used, "{statement:?}");
        }
        assert!(0 < of_a.partly_late, "{of_a:?}");
        let (late, bad) = (all_told(broker, &late), all_told(broker, &bad));
        assert_eq!(late.len() as u64, info.late + info.partly_late);
        assert_eq!(bad.len() as u64, info.dead_lettered);
        // Keyless rows go to any partition; so rows are compared, and not where they lie.
        let terms: Vec<_> = info.statements.iter().map(|s| (s.sink.clone(), s.partly_late, s.terms())).collect();
        runs.push((late, bad, terms, all_values(broker, &a), all_values(broker, &b)));
    }
    assert!(runs.windows(2).all(|pair| pair[0] == pair[1]), "workers change the answer");
}

fn all_values(broker: &Broker, topic: &str) -> Vec<String> {
    let mut values: Vec<String> = broker.read_all(topic).iter().map(|r| r.text().to_owned()).collect();
    values.sort_unstable();
    values
}

#[test]
fn topics_that_make_no_sense_are_refused() {
    let broker = shared();
    let engine = engine(broker);
    for (options, want) in [
        ("'scan.on-error' = 'dead-letter'", "needs 'scan.dead-letter.topic'"),
        ("'scan.dead-letter.topic' = 'd'", "nothing would go there"),
        ("'scan.late.topic' = 'in'", "the table itself reads"),
    ] {
        let error = execute(&engine, &input("t", "in", options)).err().unwrap_or_else(|| panic!("{options} is taken"));
        assert_eq!(error.blame, Blame::Statement);
        assert!(error.message.contains(want), "{error}");
    }
    // A topic that does not exist is made, as for a sink.
    let (topic, late) = (broker.topic("rejects-none", 1), unique_name("rejects-none-late"));
    broker.produce(&topic, [at(0, 0)]);
    let text = input("i", &topic, &format!("{BOUNDED}, 'scan.late.topic' = '{late}'"))
        + "CREATE TABLE o (w TIMESTAMP(3), c BIGINT) WITH ('connector' = 'blackhole');"
        + &counts("i", "o", 2);
    finished(&start(&engine, &text));
    assert!(broker.read_all(&late).is_empty());
}
