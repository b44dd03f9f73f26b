//! What the README and docs/ say is so: their SQL is accepted, their links lead somewhere, their names exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use tidemill::connectors::options::check_options;
use tidemill::plan::functions::flink_function_list;
use tidemill::runtime::{Engine, EngineConfig, Outcome};
use tidemill::sql::parse_script;
use tidemill::sql::statement::Statement;

use crate::common::broker::{repository, shared, unique_name};
use crate::common::program::tidemill;

// The example is a program of its own; here it runs without being linked once more.
#[path = "../../examples/embed.rs"]
#[allow(dead_code)]
mod embed;

/// Every document with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<_> = ["README.md", "CHANGELOG.md"].map(|name| repository().join(name)).into();
    let docs = fs::read_dir(repository().join("docs")).expect("docs/");
    let pages = docs.map(|entry| entry.expect("an entry").path());
    paths.extend(pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    paths.sort();
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    paths.into_iter().map(|path| (path.clone(), text(&path))).collect()
}

fn document(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The blocks of a document that are marked with a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split_once("```").expect("the block's end").0).collect()
}

/// An engine that has executed the definitions of a text, and planned its queries.
fn planned(path: &Path, text: &str) -> Engine {
    let engine = Engine::open(EngineConfig::default()).expect("an engine");
    let statements = parse_script(text).unwrap_or_else(|e| panic!("{}: {e} ({:?}): {text}", path.display(), e.hint));
    assert!(!statements.is_empty(), "{}: {text}", path.display());
    for parsed in statements {
        let statement = match parsed.statement {
            Statement::Insert(_) | Statement::StatementSet(_) | Statement::Query(_) => {
                format!("EXPLAIN {}", parsed.text)
            }
            _ => parsed.text,
        };
        for outcome in engine.run(&statement) {
            outcome.map_or_else(|e| panic!("{}: {e} ({:?}): {statement}", path.display(), e.hint), drop);
        }
    }
    engine
}

#[test]
fn every_sql_block_can_be_run() {
    let mut count = 0;
    // The tour's file reads what its topic holds, and is run by a test of its own.
    for (path, text) in documents().into_iter().filter(|(path, _)| !path.ends_with("docs/tour.md")) {
        for block in blocks(&text, "sql") {
            planned(&path, block);
            count += 1;
        }
    }
    assert!(count >= 8, "{count} blocks");
}

/// The example of a test is one of the tests.
#[test]
fn the_example_of_a_test_is_one() {
    let example = fs::read_to_string(repository().join("tests/golden/example.sql")).expect("the example");
    assert_eq!(blocks(&document("docs/testing.md"), "sql test"), [example]);
}

/// What docs/sql.md says is refused: the statement, and a part of the reason.
#[test]
fn what_is_refused_is_refused_with_a_reason() {
    let tables = "CREATE TABLE t (a INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen');
                  CREATE TABLE s (a INT) WITH ('connector' = 'blackhole');";
    let engine = planned(Path::new("these"), tables);
    let check = |statement: &str, want: &str| {
        let outcomes: Result<Vec<_>, _> = engine.run(statement).map(|outcome| outcome.map(drop)).collect();
        let error = outcomes.expect_err(statement);
        let said = format!("{error} {}", error.hint.as_deref().unwrap_or_default());
        assert!(said.contains(want), "{statement}: {said}");
        assert_eq!(error.exit_code(), 1, "{statement}: {said}");
    };
    let over = |function: &str| format!("SELECT window_end, COUNT(*) FROM TABLE({function}) GROUP BY window_end");
    check("SELECT COUNT(*) FROM t", "would never end");
    check("SELECT DISTINCT a FROM t", "remember every row");
    check("SELECT a, COUNT(*) FROM TUMBLE(t, ts, INTERVAL '1' HOUR) GROUP BY a", "leaves out the window");
    check("SELECT window_end, a FROM TUMBLE(t, ts, INTERVAL '1' HOUR) GROUP BY ROLLUP(window_end, a)", "never end");
    check(&over("CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '2' HOUR, INTERVAL '3' HOUR)"), "multiple of its step");
    check(&over("TUMBLE(TABLE t, DESCRIPTOR(a), INTERVAL '1' HOUR)"), "not an event time");
    check(&over("HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' DAY, INTERVAL '1' MONTH)"), "of different kinds");
    for emit in ["EMIT CHANGES", "EMIT ON UPDATE", "EMIT EVERY INTERVAL '1' SECOND"] {
        let query = over("SESSION(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)");
        check(&format!("{query} {emit}"), "not available for SESSION windows");
        check(&format!("SELECT a FROM t {emit}"), "about aggregates per window");
    }
    check("SELECT * FROM t JOIN t AS u ON t.a = u.a", "a join of streams without windows");
    check("SELECT * FROM t WHERE a IN (SELECT a FROM t)", "a join of streams without windows");
    check("SELECT * FROM t WHERE a = (SELECT MAX(a) FROM t)", "subquery inside an expression");
    check("SELECT ROW_NUMBER() OVER (ORDER BY ts) FROM t", "OVER without a window");
    check("SELECT UNNEST([1, 2]) FROM t", "UNNEST");
    check("SELECT * FROM t ORDER BY a", "ORDER BY");
    check("INSERT INTO s SELECT a FROM t LIMIT 3", "LIMIT");
    check("SELECT a FROM t UNION SELECT a FROM t", "remember every row");
    check("SELECT CURRENT_WATERMARK(ts) FROM t", "interleave");
    for function in ["RAND()", "UUID()"] {
        check(&format!("SELECT {function} FROM t"), "there is no function");
    }
    check("CREATE FUNCTION f AS 'x'", "cannot be created");
    check("CREATE CATALOG c", "one catalog");
    check("CREATE DATABASE d", "one database");
    check("USE d", "one catalog");
    check("UPDATE t SET a = 1", "appended");
    check("DELETE FROM t", "appended");
    check("INSERT OVERWRITE s SELECT a FROM t", "appended");
    check("EXPLAIN ANALYZE SELECT a FROM t", "not available yet");
    check("SET 'table.local-time-zone' = 'Europe/Berlinn'", "America/New_York");
    check("CREATE TABLE u WITH ('connector' = 'kafka', 'topic' = 'u', 'format' = 'json')", "no columns");
    check("CREATE TABLE u (a INT) WITH ('connector' = 'upsert-kafka')", "value.format");
}

#[test]
fn every_relative_link_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)#\s]+)(#[^)]*)?\)").expect("a regular expression");
    for (path, text) in documents() {
        for found in link.captures_iter(&text) {
            let target = &found[1];
            if !target.contains("://") {
                let directory = path.parent().expect("a file is in a directory");
                assert!(directory.join(target).exists(), "{} links to {target}", path.display());
            }
        }
    }
}

/// The words in backticks in the first column of the tables of a section.
fn first_column(text: &str, section: &str) -> Vec<String> {
    let (_, rest) = text.split_once(&format!("## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let section = rest.split("\n## ").next().and_then(|all| all.split("\n### ").next()).unwrap_or(rest);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |").map(|(first, _)| first));
    let quoted = Regex::new("`([^`]+)`").expect("a regular expression");
    rows.flat_map(|first| quoted.captures_iter(first).map(|found| found[1].to_owned()).collect::<Vec<_>>()).collect()
}

#[test]
fn the_functions_of_flink_are_those_that_there_are() {
    let documented: BTreeSet<_> =
        first_column(&document("docs/sql.md"), "Flink's functions").iter().map(|name| name.to_lowercase()).collect();
    let known: BTreeSet<_> = flink_function_list()
        .into_iter()
        .map(|(name, _)| name.to_owned())
        // Known by name only, so that its refusal can say why.
        .filter(|name| name != "current_watermark")
        .collect();
    let missing: Vec<_> = known.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&known).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "docs/sql.md leaves out {missing:?} and invents {unknown:?}");
}

#[test]
fn every_function_that_the_documents_name_exists() {
    let engine = Engine::open(EngineConfig::default()).expect("an engine");
    let Some(Ok(Outcome::Rows(rows))) = engine.run("SHOW FUNCTIONS").next() else {
        panic!("SHOW FUNCTIONS gives rows")
    };
    let names: BTreeSet<String> = rows
        .batches
        .iter()
        .flat_map(|batch| {
            let names = batch.column(0).as_any().downcast_ref::<arrow::array::StringArray>().expect("names");
            names.iter().flatten().map(str::to_lowercase).collect::<Vec<_>>()
        })
        .collect();
    let text = document("docs/sql.md");
    for section in ["Aggregates", "The clock", "Flink's functions"] {
        for name in first_column(&text, section) {
            assert!(names.contains(&name.to_lowercase()), "docs/sql.md, {section}: there is no {name}");
        }
    }
}

#[test]
fn every_option_in_the_tables_is_known() {
    let text = document("docs/connectors.md");
    for connector in ["kafka", "upsert-kafka", "filesystem", "datagen", "print"] {
        let mut keys = first_column(&text, &format!("`{connector}`"));
        assert!(!keys.is_empty(), "{connector}");
        if matches!(connector, "kafka" | "filesystem") {
            keys.extend(first_column(&text, "Formats"));
        }
        if connector == "upsert-kafka" {
            // It is checked as a whole: what matters here is that no key is unknown.
            for key in keys.iter().filter(|key| !key.ends_with('*')) {
                let text = format!("CREATE TABLE t (c INT) WITH ('connector' = '{connector}', '{key}' = '1')");
                let parsed = parse_script(&text).expect("a statement").remove(0);
                let Statement::CreateTable(create) = parsed.statement else { panic!("{text}") };
                let error = check_options(&create.table).expect_err("neither key nor formats");
                assert!(!error.message.contains("has no option"), "docs/connectors.md, {connector}: {error}");
            }
            continue;
        }
        keys.extend(first_column(&text, "Every source"));
        for key in keys.iter().filter(|key| !key.ends_with('*')) {
            let key = key.replace("fields.COLUMN.", "fields.c.");
            let text = format!("CREATE TABLE t (c INT) WITH ('connector' = '{connector}', '{key}' = '1')");
            let parsed = parse_script(&text).expect("a statement").remove(0);
            let Statement::CreateTable(create) = parsed.statement else { panic!("{text}") };
            // What a key needs beside it, or as its value, is not the question: only whether it is known.
            if let Err(error) = check_options(&create.table) {
                assert!(!error.message.contains("has no option"), "docs/connectors.md, {connector}: {error}");
            }
        }
    }
}

/// The README's first SQL is for pasting: here into the program, with a broker inside.
#[test]
fn the_readmes_sql_works_as_it_stands() {
    let text = document("README.md");
    let block = blocks(&text, "sql")[0];
    assert!(block.lines().count() <= 14, "about ten lines");
    let finished = tidemill(&["-o", "jsonl", "-c", block]);
    assert_eq!(finished.code, 0, "{finished:#?}");
    let (_, shown) = text.split_once("```json\n").expect("the README shows the rows");
    let (shown, _) = shown.split_once("```").expect("the block's end");
    assert_eq!(finished.stdout, shown);
}

#[test]
fn the_readmes_sql_works_on_a_broker_of_ones_own() {
    let text = document("README.md");
    let topic = unique_name("orders");
    let block = blocks(&text, "sql")[0].replace("'topic' = 'orders'", &format!("'topic' = '{topic}'"));
    let finished = tidemill(&["-o", "jsonl", "-b", shared().addresses(), "-c", &block]);
    assert_eq!(finished.code, 0, "{finished:#?}");
    assert_eq!(finished.stdout.lines().count(), 3, "{finished:#?}");
}

#[test]
fn the_example_of_the_library_runs() {
    embed::main().unwrap_or_else(|error| panic!("{error} ({:?})", error.hint));
}

#[test]
fn the_demo_runs_by_itself_and_on_a_real_broker() {
    for arguments in [vec!["demo"], vec!["-b", shared().addresses(), "demo"], vec!["demo", "-b", shared().addresses()]]
    {
        let started = std::time::Instant::now();
        let finished = tidemill(&arguments);
        assert_eq!(finished.code, 0, "{finished:#?}");
        assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
        for row in ["window_start", "2013-01-01 10:00:00", "EWR", "JFK", "LGA"] {
            assert!(finished.stdout.contains(row), "{row}: {finished:#?}");
        }
        let last = finished.stderr.lines().rfind(|line| line.contains("per second")).expect("a closing line");
        assert!(last.starts_with("26,865 records in, 1,631 rows out"), "{last}");
        let broker = if arguments.len() == 1 { "inside this process" } else { shared().addresses() };
        assert!(finished.stderr.contains(broker), "{finished:#?}");
    }
}
