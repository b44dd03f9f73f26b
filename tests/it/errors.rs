//! Every error that people make has a code, points at its place, and says what to do.

use tidemill::error::{Error, codes};
use tidemill::runtime::{Engine, EngineConfig, Outcome};

use crate::common::program::tidemill;

const TABLES: &str = "
    CREATE TABLE t (a BIGINT, s STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
        WITH ('connector' = 'datagen', 'number-of-rows' = '3');
    CREATE TABLE clockless (a BIGINT, ts TIMESTAMP(3)) WITH ('connector' = 'datagen', 'number-of-rows' = '3');
    CREATE TABLE sink (a BIGINT, n BIGINT) WITH ('connector' = 'kafka', 'topic' = 'k', 'format' = 'json');";

/// The first error of statements, and the text that it points at.
fn error_of(text: &str) -> (Error, String) {
    let engine = Engine::open(EngineConfig::default()).expect("an engine");
    engine.run(TABLES).for_each(|outcome| drop(outcome.expect("a table")));
    let error = engine.run(text).find_map(|outcome| match outcome {
        Err(error) => Some(error),
        Ok(Outcome::Query(stream)) => stream.collect::<Result<Vec<_>, _>>().err(),
        Ok(_) => None,
    });
    let error = error.unwrap_or_else(|| panic!("no error: {text}"));
    let pointed = error.span.clone().map(|span| text[span.start..span.end.min(text.len())].to_owned());
    (error, pointed.unwrap_or_default())
}

#[test]
fn errors_have_a_code_a_place_and_a_hint() {
    // Statement, code, what the caret stands below, a part of the hint.
    let cases = [
        ("SELECT * FROM tt", "TM0101", "tt", "did you mean \"t\"?"),
        ("DROP TABLE sinc", "TM0101", "sinc", "did you mean \"sink\"?"),
        ("INSERT INTO sinc SELECT 1, 2", "TM0101", "sinc", "did you mean \"sink\"?"),
        ("SELECT b FROM t", "TM0102", "b", "there are a, s, ts"),
        ("SELECT A FROM t", "TM0102", "A", "told apart by their case"),
        ("SELECT window_end FROM t", "TM0102", "window_end", "FROM TUMBLE("),
        ("SELECT uper(s) FROM t", "TM0103", "uper", "did you mean upper?"),
        (
            "CREATE TABLE x (a INT) WITH ('connector' = 'kafka', 'tpic' = 'a')",
            "TM0104",
            "'tpic'",
            "did you mean 'topic'?",
        ),
        (
            "CREATE TABLE x (a INT) WITH ('connector' = 'kafka', 'properties.group.idd' = 'a')",
            "TM0104",
            "'properties.group.idd'",
            "did you mean 'properties.group.id'?",
        ),
        ("SET 'paralelism.default' = '4'", "TM0105", "'paralelism.default'", "did you mean 'parallelism.default'?"),
        ("CREATE TABLE x (a INT) WITH ('connector' = 'kafak')", "TM0106", "'kafak'", "did you mean 'kafka'?"),
        ("CREATE TABLE sink (a INT) WITH ('connector' = 'print')", "TM0107", "sink", "IF NOT EXISTS"),
        ("SELECT ts FROM t JOIN clockless ON t.a = clockless.a", "TM0108", "ts", "the table's name before"),
        ("CREATE TABLE x (a INTT) WITH ('connector' = 'print')", "TM0109", "INTT", "did you mean INT?"),
        ("CREATE TABLE x WITH ('connector' = 'datagen')", "TM0111", "", "name them"),
        ("SELECT * FROM my-topic", "TM0201", "-", "`my-topic`"),
        ("SELECT a FROM t WHERE", "TM0202", "", ""),
        ("SELEC 1", "TM0203", "SELEC", "did you mean SELECT?"),
        ("SELECT 'abc", "TM0204", "'", "close it"),
        (
            "SELECT COUNT(*) FROM TUMBLE(clockless, ts, INTERVAL '1' HOUR) GROUP BY window_start, window_end",
            "TM0301",
            "ts",
            "WATERMARK FOR ts AS ts - INTERVAL '5' SECOND",
        ),
        ("SELECT * FROM t ORDER BY a", "TM0302", "a", "leave it out"),
        ("SELECT a, COUNT(*) FROM t GROUP BY a", "TM0303", "a", "FROM TUMBLE("),
        (
            "SELECT a, COUNT(*) FROM TUMBLE(t, ts, INTERVAL '1' HOUR) GROUP BY a",
            "TM0304",
            "a",
            "add window_start, window_end",
        ),
        (
            "SELECT window_start, COUNT(*) FROM TUMBLE(t, ts, INTERVAL '1' HOUR) GROUP BY window_end",
            "TM0304",
            "window_start",
            "GROUP BY window_start, window_end",
        ),
        (
            "INSERT INTO sink SELECT a, COUNT(*) FROM TUMBLE(t, ts, INTERVAL '1' HOUR)
             GROUP BY window_start, window_end, a EMIT CHANGES",
            "TM0305",
            "'",
            "upsert-kafka",
        ),
        ("SELECT DISTINCT a FROM t", "TM0306", "SELECT DISTINCT a", "UNION ALL"),
        ("SELECT COUNT(*) OVER (PARTITION BY a) FROM t", "TM0306", "COUNT", "PARTITION BY window_start"),
        ("SELECT a FROM t WHERE a = (SELECT MAX(a) FROM t)", "TM0307", "SELECT MAX(a) FROM t", "FROM"),
        ("INSERT INTO sink SELECT a, a FROM t LIMIT 3", "TM0308", "3", "leave it out"),
        ("SELECT s + 1 FROM t", "TM0401", "s", "CAST(x AS type)"),
        (
            "SELECT SUM(s) FROM TUMBLE(t, ts, INTERVAL '1' HOUR) GROUP BY window_start, window_end",
            "TM0402",
            "SUM",
            "CAST(x AS type)",
        ),
        (
            "SELECT s, COUNT(*) FROM TUMBLE(t, ts, INTERVAL '1' HOUR) GROUP BY window_start, window_end",
            "TM0403",
            "s",
            "MAX(s)",
        ),
        ("SELECT a FROM t WHERE COUNT(*) > 1", "TM0404", "", "HAVING"),
        ("SELECT * FROM t WHERE ts > 'yesterday'", "TM0405", "'yesterday'", "TIMESTAMP '2024-01-31 10:00:00'"),
        ("SELECT CAST('x' AS INT)", "TM0406", "'x'", "TRY_CAST"),
        ("INSERT INTO sink SELECT a FROM t", "TM0407", "SELECT a FROM t", "the sink: a, n"),
        ("SELECT (a + 2) * 9223372036854775807 FROM t", "TM0502", "", "wider type"),
        ("SELECT 1 / 0", "TM0503", "", "NULLIF"),
        ("STOP JOB nothing", "TM0701", "", "SHOW JOBS"),
        ("INSERT INTO sink VALUES (1, 2)", "TM0801", "", "--brokers"),
        ("SET 'parallelism.default' = 'many'", "TM0802", "'many'", "a whole number"),
    ];
    let mut wrong = Vec::new();
    for (text, code, pointed, hint) in cases {
        let (error, at) = error_of(text);
        let got_hint = error.hint.clone().unwrap_or_default();
        let is_pointed = pointed.is_empty() || (pointed == "'" && !at.is_empty()) || at == pointed;
        if error.code() != Some(code) || !is_pointed || !got_hint.contains(hint) {
            wrong.push(format!("{text}\n  {:?} at {at:?}: {error}; {got_hint}", error.code()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Those that need a broker, or its absence, have their examples elsewhere.
    let elsewhere = ["TM0110", "TM0205", "TM0501", "TM0601", "TM0602", "TM0603", "TM0604"];
    for code in codes::CODES {
        let has_case = cases.iter().any(|(_, with, ..)| *with == code.code);
        assert!(has_case != elsewhere.contains(&code.code), "{} has no example, or is one too many", code.code);
    }
}

#[test]
fn what_the_broker_says_has_a_code_too() {
    let code = |error: Error| error.code();
    assert_eq!(code(Error::upstream("no broker answered at x:1 within 10 s")), Some("TM0601"));
    assert_eq!(code(Error::upstream("the broker at x:1 does not accept the credentials: no")), Some("TM0602"));
    assert_eq!(code(Error::upstream("the broker at x:1 cannot be reached over TLS: no")), Some("TM0603"));
    assert_eq!(code(Error::upstream("the broker at x:1 does not let this user see topic \"t\"")), Some("TM0604"));
    assert_eq!(code(Error::upstream("there is no topic \"t\" at x:1")), Some("TM0110"));
    assert_eq!(code(Error::data("expected a JSON object (at topic t, partition 0, offset 1)")), Some("TM0501"));
    assert_eq!(code(Error::statement("there is no variable x")), Some("TM0205"));
    assert_eq!(code(Error::statement("something new")), None);
}

#[test]
fn codes_are_shown_and_explained() {
    let finished = tidemill(&["-c", "SELECT nme FROM (VALUES (1)) AS t (name)"]);
    assert!(finished.stderr.contains("there is no column nme [TM0102]"), "{finished:#?}");
    let explained = tidemill(&["explain-error", "tm0301"]);
    assert!(explained.code == 0 && explained.stdout.starts_with("TM0301\n\nWindows close when"), "{explained:#?}");
    let all = tidemill(&["explain-error"]);
    assert_eq!(all.stdout.lines().count(), codes::CODES.len());
    let unknown = tidemill(&["explain-error", "TM9999"]);
    assert_eq!(unknown.code, 2, "{unknown:#?}");
}
