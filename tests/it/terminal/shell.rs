//! The line that is being edited, what is said above it, and the pager.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::{PLAIN, PROMPT, Shell, count_of};
use crate::common::broker::{self, Broker};

#[test]
fn what_happens_in_the_background_is_said_above_the_line_that_is_edited() {
    let mut kafka = Broker::start_own();
    let topic = kafka.topic("above", 1);
    let mut shell = Shell::open_with(kafka.addresses(), &PLAIN);
    for (columns, format) in [("numbers (n BIGINT)", "json"), ("words (word STRING)", "raw")] {
        let create = format!(
            "CREATE TABLE {columns} WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = '{format}', \
             'scan.startup.mode' = 'earliest-offset');"
        );
        shell.answers(&create, "is created");
    }
    shell.answers("CREATE TABLE nowhere (n BIGINT) WITH ('connector' = 'blackhole');", "table nowhere is created");
    for (name, query) in [("doomed", "SELECT n FROM numbers"), ("lonely", "SELECT 1 AS n FROM words")] {
        shell.answers(&format!("SET 'pipeline.name' = '{name}';"), "is set");
        shell.answers(&format!("INSERT INTO nowhere {query};"), "started");
    }
    // Two lines of a statement that is not ended.
    shell.terminal.keys("SELECT 40 AS n,\r  2");
    shell.terminal.sees_last("  2");
    kafka.produce(&topic, ["no json"]);
    let lines = shell.terminal.sees("doomed: failed: ");
    let lines = if lines.last().is_some_and(|line| line == "  2") { lines } else { shell.terminal.sees_last("  2") };
    assert_eq!(lines[lines.len() - 2], format!("{PROMPT}SELECT 40 AS n,"), "{lines:#?}");
    assert_eq!(count_of(&lines, "SELECT 40 AS n,"), 1, "{lines:#?}");
    shell.terminal.sees("job doomed: error: ");

    shell.terminal.keys("0");
    kafka.stop();
    shell.terminal.sees("warning: the source \"words\": the broker at ");
    let lines = shell.terminal.sees_last("  20");
    assert_eq!(lines[lines.len() - 2], format!("{PROMPT}SELECT 40 AS n,"), "{lines:#?}");
    shell.types(" AS m;");
    shell.terminal.sees("40 | 20");
    shell.terminal.sees_last(PROMPT);
}

#[test]
fn statements_are_edited_completed_and_kept() {
    let kafka = broker::shared();
    let topic = kafka.topic("completed", 1);
    kafka.produce(&topic, [r#"{"zone_of_it": "UTC"}"#]);
    let mut shell = Shell::open();
    // The second line first, then back up to mend the first.
    shell.terminal.keys("SELECT 1 + 1 AS m,\r'two lines' AS n;");
    shell.terminal.keys("\x1b[A\x01\x1b[1;5C\x1b[C");
    shell.terminal.keys("4");
    shell.terminal.sees(&format!("{PROMPT}SELECT 41 + 1 AS m,"));
    shell.terminal.keys("\x1b[B\x05\r");
    shell.terminal.sees(" 42 | two lines");
    shell.terminal.sees_last(PROMPT);

    // What the broker knows is found out in the background, and the columns of a topic when it is first named.
    let unfinished = &topic[..topic.len() - 2];
    for (typed, whole) in [
        (format!("DESCRIBE TOPIC '{unfinished}"), format!("DESCRIBE TOPIC '{topic}'")),
        (format!("SELECT * FROM `{topic}` WHERE zo"), format!("SELECT * FROM `{topic}` WHERE zone_of_it")),
    ] {
        let begun = Instant::now();
        shell.terminal.keys(&typed);
        loop {
            shell.terminal.keys("\t");
            // What was not known yet may be so at the next attempt.
            let is_whole = |lines: &[String]| lines.iter().any(|line| line.ends_with(whole.as_str()));
            if shell.terminal.comes_to(Duration::from_millis(300), is_whole) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "not completed: {:#?}", shell.terminal.lines());
        }
        shell.terminal.keys("\x03");
        shell.terminal.sees_last(PROMPT);
    }
    shell.answers("SELECT 'kept' AS a,\r 'over lines' AS b;", "over lines");
    let history = shell.home.path().join("tidemill/history");
    assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    shell.types("\\q");
    let home = shell.home;
    assert_eq!(shell.terminal.end(), 0);

    let mut again = Shell::open_at(home, kafka.addresses(), &PLAIN);
    again.terminal.keys("\x12kept");
    again.terminal.sees("'kept' AS a,");
    again.terminal.keys("\r");
    again.terminal.sees("kept | over lines");
    again.terminal.sees_last(PROMPT);
    again.terminal.keys("\x04");
    assert_eq!(again.terminal.end(), 0);
}

#[test]
fn two_hundred_lines_are_pasted_at_once() {
    let mut shell = Shell::open();
    let columns: Vec<_> = (0..198).map(|n| format!("  {n} AS a_rather_long_name_{n}")).collect();
    let statement = format!("SELECT\r{};\r", columns.join(",\r"));
    let begun = Instant::now();
    shell.terminal.keys("\\x\r");
    shell.terminal.sees("a line per value");
    shell.terminal.keys(&format!("\x1b[200~{statement}\x1b[201~"));
    shell.terminal.keys("\r");
    shell.terminal.sees("a_rather_long_name_197 | 197");
    shell.terminal.sees_last(PROMPT);
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
}

#[test]
fn what_is_longer_than_the_screen_goes_through_the_pager() {
    let mut shell =
        Shell::open_with(broker::shared().addresses(), &[("NO_COLOR", "1"), ("PAGER", "sed 's/^/paged:/'")]);
    shell.answers("SELECT 1 AS n;", " 1");
    assert_eq!(count_of(&shell.terminal.lines(), "paged:"), 0);
    let lines = shell.answers("SELECT a.n * 10 + b.n AS n FROM (VALUES (0), (1), (2), (3)) a (n), (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) b (n) ORDER BY 1;", "paged: 39");
    assert!(lines.len() == 24 && count_of(&lines, "paged:") >= 20, "{lines:#?}");
    shell.types("\\q");
    assert_eq!(shell.terminal.end(), 0);
}

#[test]
fn what_is_typed_has_colours_unless_nobody_wants_them() {
    for (variables, has_colours) in [(&[("PAGER", "cat")][..], true), (&[("NO_COLOR", "1")], false)] {
        let mut shell = Shell::open_with(broker::shared().addresses(), variables);
        shell.terminal.keys("SELECT 'text', 12");
        shell.terminal.sees("SELECT 'text', 12");
        // The colour of what was typed last may follow it.
        let colours = ["\x1b[1;34mSELECT", "\x1b[32m'text'", "\x1b[36m12"];
        if has_colours {
            shell.terminal.wait_until("colours", |_| {
                let written = shell.terminal.written();
                colours.iter().all(|colour| written.contains(colour))
            });
        }
        shell.terminal.keys("\x03");
        shell.terminal.sees_last(PROMPT);
        shell.answers("SELECT 1 AS n;", " 1");
        let written = shell.terminal.written();
        let has_any = written.match_indices("\x1b[").any(|(at, _)| {
            let code = written[at + 2..].trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
            code.starts_with('m')
        });
        assert_eq!(has_any, has_colours, "{written:?}");
        shell.types("\\q");
        assert_eq!(shell.terminal.end(), 0);
    }
}
