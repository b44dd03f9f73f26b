//! Every golden test of the project holds; and tests that do not hold say so.

use std::fs;
use std::path::Path;

use super::run_query_test;

const TABLES: &str = "
    CREATE TABLE t (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'kafka', 'topic' = 't',
        'format' = 'json');
    CREATE TABLE o (w TIMESTAMP(3), k STRING, c BIGINT, s DOUBLE) WITH ('connector' = 'blackhole');
    INSERT INTO o SELECT window_start, k, COUNT(*), SUM(CAST(n AS DOUBLE)) FROM TUMBLE(t, ts, INTERVAL '1' SECOND)
        GROUP BY window_start, window_end, k;
    INSERT INTO t VALUES ('a', 1, '2024-01-01 00:00:00'), ('b', NULL, '2024-01-01 00:00:00.500'),
        (NULL, -3, '2024-01-01 00:00:01');
";

#[test]
fn golden_tests_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut count = 0;
    let mut failed = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        count += 1;
        match run_query_test(&text, 3) {
            Err(error) => failed.push(format!("{}: {error} {:?}", path.display(), error.hint)),
            Ok(report) => {
                assert!(report.expectations > 0, "{}", path.display());
                for failure in report.failures {
                    let line = text[..failure.span.start].lines().count() + 1;
                    let lines = failure.lines.join("\n    ");
                    failed.push(format!("{}:{line}: {}\n    {lines}", path.display(), failure.title));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(count >= 12, "{count} tests");
}

#[test]
fn what_is_not_as_expected_is_told_and_can_be_rewritten() {
    let check = |expectations: &str, want: &[(&str, &[&str])], updated: Option<&str>| {
        let report = run_query_test(&format!("{TABLES}{expectations}"), 3).unwrap();
        let got: Vec<_> = report.failures.iter().map(|f| (f.title.as_str(), f.lines.clone())).collect();
        let want: Vec<_> = want.iter().map(|(t, l)| (*t, l.iter().map(|l| (*l).to_owned()).collect())).collect();
        assert_eq!(got, want, "{expectations}");
        assert_eq!(report.updated, updated.map(|updated| format!("{TABLES}{updated}")), "{expectations}");
    };
    let rows = "EXPECT o VALUES\n    ('2024-01-01 00:00:00', 'a', 1, 1.0),\n    ('2024-01-01 00:00:00', 'b', 1, NULL);";
    check(rows, &[], None);
    // What has been expected is gone.
    check(&format!("{rows} EXPECT NOTHING FROM o;"), &[], None);
    check(
        "EXPECT o /* mind the window */ VALUES ('2024-01-01 00:00:00', 'a', 2, 1);",
        &[(
            "1 row missing, 2 rows not expected",
            &[
                "- ('2024-01-01 00:00:00', 'a', 2, 1.0)",
                "+ ('2024-01-01 00:00:00', 'a', 1, 1.0)",
                "+ ('2024-01-01 00:00:00', 'b', 1, NULL)",
            ],
        )],
        Some(rows),
    );
    check(
        "EXPECT NOTHING\n FROM o",
        &[(
            "2 rows not expected",
            &["+ ('2024-01-01 00:00:00', 'a', 1, 1.0)", "+ ('2024-01-01 00:00:00', 'b', 1, NULL)"],
        )],
        Some(&rows[..rows.len() - 1]),
    );
    check("EXPECT FAILURE 'x'; END OF INPUT;", &[("no job has failed", &[])], None);
    check(
        "EXPECT ERROR 'no such' FOR INSERT INTO o SELECT x FROM t;",
        &[("the statement is refused for another reason: there is no column x; there are k, n, ts", &[])],
        Some("EXPECT ERROR 'there is no column x; there are k, n, ts' FOR INSERT INTO o SELECT x FROM t;"),
    );
}

#[test]
fn a_job_that_fails_is_told_where_it_is_noticed() {
    let text = format!(
        "{TABLES} CREATE TABLE p (q BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO p SELECT 10 / (n - 1) FROM t;"
    );
    let failures = |more: &str| run_query_test(&format!("{text} {more}"), 3).unwrap().failures;
    let found = failures("EXPECT NOTHING FROM p;");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].title.starts_with("a job has failed: ") && found[0].title.contains("zero"), "{found:?}");
    assert!(found[0].span.start >= text.len());
    assert!(failures("EXPECT FAILURE 'zero';").is_empty());
    assert_eq!(failures("EXPECT FAILURE 'overflow';").len(), 1);
}

#[test]
fn mistakes_in_a_test_are_errors() {
    let error = |more: &str| match run_query_test(&format!("{TABLES} {more}"), 3) {
        Err(error) => error.message,
        Ok(report) => panic!("{more}: {report:?}"),
    };
    assert_eq!(error("EXPECT t VALUES ('a', 1, NULL)"), "no job writes to t");
    assert_eq!(error("EXPECT LATE OF o VALUES (NULL, 'a', 1, 1)"), "no job reads o");
    assert_eq!(error("INSERT INTO o VALUES (NULL, 'a', 1, 1)"), "a job writes to o: its rows are what it gives");
    assert_eq!(error("INSERT INTO t SELECT k, c, w FROM o"), "one job writes to o and another one reads it");
    assert_eq!(error("SELECT * FROM t"), "in a test nobody looks at the result of this statement");
    assert_eq!(error("INSERT INTO t VALUES ('a', 'b', 'c')"), "'b' is no BIGINT");
    assert_eq!(error("EXPECT ERROR 'x' FOR SET 'table.local-time-zone' = 'UTC'"), "this statement is not refused");
    assert_eq!(error("EXPECT x VALUES (1)"), "there is no table or view \"x\"");
}
