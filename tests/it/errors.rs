//! Every error that people make has a code, points at its place, and says what to do.

use tidemill::error::{Error, codes};
use tidemill::runtime::{Engine, EngineConfig, Outcome};

use crate::common::broker::{shared, unique_name};
use crate::common::program::tidemill;
use crate::common::security::{ALICE, LOGIN, secured};

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
        ("SELECT pirce FROM (VALUES (1)) AS v (price)", "TM0102", "pirce", "did you mean price?"),
        ("SELECT x.a FROM t", "TM0102", "x.a", "did you mean"),
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
        (
            "CREATE TABLE x (a INT) WITH ('connector' = 'kafka', 'topic' = 't', 'format' = 'jsn'); SELECT a FROM x",
            "TM0106",
            "",
            "json",
        ),
        ("SET 'paralelism.default' = '4'", "TM0105", "'paralelism.default'", "did you mean 'parallelism.default'?"),
        ("CREATE TABLE x (a INT) WITH ('connector' = 'kafak')", "TM0106", "'kafak'", "did you mean 'kafka'?"),
        ("CREATE TABLE sink (a INT) WITH ('connector' = 'print')", "TM0107", "sink", "IF NOT EXISTS"),
        ("SELECT ts FROM t JOIN clockless ON t.a = clockless.a", "TM0108", "ts", "the table's name before"),
        ("CREATE TABLE x (a INTT) WITH ('connector' = 'print')", "TM0109", "INTT", "did you mean INT?"),
        ("CREATE TABLE x WITH ('connector' = 'datagen')", "TM0111", "", "name them"),
        ("SELECT * FROM my-topic", "TM0201", "-", "`my-topic`"),
        ("SELECT a FROM t WHERE", "TM0202", "", "a condition behind WHERE"),
        ("SELECT a FROM", "TM0202", "", "SHOW TOPICS"),
        ("SELECT a FROM t GROUP BY", "TM0202", "", "window_start, window_end"),
        ("SELECT COUNT(a FROM t", "TM0202", "FROM", "behind COUNT is open"),
        ("SELECT a, FROM t", "TM0202", "", "a comma too many before FROM"),
        ("SELECT a FORM t", "TM0202", "FORM", "did you mean FROM?"),
        ("SELECT a FROM t WERE a > 1", "TM0202", "WERE", "did you mean WHERE?"),
        ("SELEC 1", "TM0203", "SELEC", "did you mean SELECT?"),
        ("SELECT 'abc", "TM0204", "'", "close it"),
        (
            "SELECT COUNT(*) FROM TUMBLE(clockless, ts, INTERVAL '1' HOUR) GROUP BY window_start, window_end",
            "TM0301",
            "ts",
            "WATERMARK FOR ts AS ts - INTERVAL '5' SECOND",
        ),
        ("SELECT * FROM t ORDER BY a", "TM0302", "a", "leave it out"),
        (
            "SELECT s, COUNT(*) FROM t GROUP BY s",
            "TM0303",
            "s",
            "FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) and GROUP BY window_start, window_end, s",
        ),
        (
            "INSERT INTO nowhere SELECT a FROM t",
            "TM0101",
            "nowhere",
            "CREATE TABLE nowhere WITH ('connector' = 'kafka'",
        ),
        ("CREATE TABLE x AS SELECT a FROM t", "TM0801", "x", "CREATE TABLE x WITH ('connector' = 'kafka'"),
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
        ("SELECT * FROM t WHERE ts > a", "TM0401", "", "CAST(x AS type)"),
        ("SELECT * FROM t WHERE ts BETWEEN 'a' AND 'b'", "TM0405", "", "TIMESTAMP '2024-01-31 10:00:00'"),
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
        // A sentence of ours, in SQL's words, and something to do.
        let theirs = ["Utf8", "Int64", "Float64", "LogicalPlan", "Error during", "failed to", "This feature"];
        let is_ours = !theirs.iter().any(|word| error.message.contains(word) || got_hint.contains(word));
        let is_sentence = !error.message.ends_with('.') && !error.message.contains('\n') && is_ours;
        let is_pointed = pointed.is_empty() || (pointed == "'" && !at.is_empty()) || at == pointed;
        if error.code() != Some(code) || !is_pointed || !is_sentence || !got_hint.contains(hint) {
            wrong.push(format!("{text}\n  {:?} at {at:?}: {error}; {got_hint}", error.code()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Those that are about a broker have theirs below.
    for code in codes::CODES {
        let has_case = cases.iter().any(|(_, with, ..)| *with == code.code);
        assert!(has_case != OUTSIDE.contains(&code.code), "{} has no example, or is one too many", code.code);
    }
}

/// Codes of errors that come from outside: a broker, or what its topics hold, or the program's flags.
const OUTSIDE: [&str; 7] = ["TM0110", "TM0205", "TM0501", "TM0601", "TM0602", "TM0603", "TM0604"];

#[test]
fn errors_from_outside_have_a_code_and_a_hint_too() {
    let broker = shared();
    let topic = broker.topic("errors-orders", 1);
    broker.produce(&topic, ["{\"a\":1}", "no json"]);
    let table = |topic: &str| {
        format!(
            "CREATE TABLE x (a INT) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', \
             'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'); SELECT a FROM x"
        )
    };
    let misspelt = table(&topic.replace("orders", "ordres"));
    let denied = unique_name("errors-denied");
    let secured = secured();
    let sasl = broker.sasl_address().unwrap_or(secured.broker.addresses());
    let ca = format!("ssl.ca.location={}", secured.file("ca.pem"));
    let password = format!("sasl.password={}", ALICE.1);
    let login = ["-X", "sasl.mechanism=PLAIN", "-X", "sasl.username=alice"];
    // Where, flags, statements, exit code, code, a part of the message, a part of the hint.
    let cases = [
        (broker.addresses(), &[][..], misspelt, 3, "TM0110", "there is no topic", "did you mean \"errors-orders"),
        (broker.addresses(), &[], "SELECT ${nme}".into(), 1, "TM0205", "no variable nme", "--var nme="),
        (broker.addresses(), &[], table(&topic), 4, "TM0501", "partition 0, offset 1", "'scan.on-error' = 'skip'"),
        ("127.0.0.1:1", &[], table("t"), 3, "TM0601", "no broker answered", "is it running"),
        (
            sasl,
            &[&login[..], &["-X", "security.protocol=SASL_PLAINTEXT", "-X", "sasl.password=no"]].concat(),
            table("t"),
            3,
            "TM0602",
            "does not accept the credentials of user \"alice\"",
            "an administrator",
        ),
        (
            broker.addresses(),
            &["-X", "security.protocol=SSL"],
            table("t"),
            3,
            "TM0603",
            "does not speak TLS at this port",
            "'properties.security.protocol'",
        ),
        (
            secured.broker.listener(LOGIN),
            &[&login[..], &["-X", "security.protocol=SASL_SSL", "-X", &ca, "-X", &password]].concat(),
            table(&denied),
            3,
            "TM0604",
            "does not let User:alice see topic",
            "must grant User:alice DESCRIBE",
        ),
    ];
    assert!(cases.iter().map(|case| case.4).eq(OUTSIDE));
    std::thread::scope(|scope| {
        for (address, flags, statements, exit_code, code, message, hint) in &cases {
            scope.spawn(move || {
                let arguments = [&["-b", address, "--json-errors", "-q", "-c", statements][..], flags].concat();
                let finished = tidemill(&arguments);
                let last = finished.stderr.lines().last().unwrap_or_default();
                let error: serde_json::Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{finished:#?}"));
                let error = &error["error"];
                let says = |field: &str, part: &str| error[field].as_str().is_some_and(|text| text.contains(part));
                let is_good = error["code"] == *code && says("message", message) && says("hint", hint);
                assert!(is_good && finished.code == *exit_code, "{code}: {finished:#?}");
            });
        }
    });
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
