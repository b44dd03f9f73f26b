//! Live tables.

use super::{PROMPT, Shell, count_of};
use crate::common::broker;

/// A table of clicks with a time in seconds that follows the records.
fn clicks(topic: &str) -> String {
    format!(
        "CREATE TABLE clicks (page STRING, n BIGINT, at TIMESTAMP_LTZ(3), WATERMARK FOR at AS at) WITH ('connector' = \
         'kafka', 'topic' = '{topic}', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset', \
         'json.timestamp-format.standard' = 'ISO-8601');"
    )
}

fn click(page: &str, second: u32) -> String {
    format!(r#"{{"page": "{page}", "n": 1, "at": "2026-01-01T00:00:{second:02}Z"}}"#)
}

const PER_PAGE: &str = "SELECT page, COUNT(*) AS clicks FROM TUMBLE(clicks, at, INTERVAL '1' MINUTE) \
    GROUP BY window_start, window_end, page EMIT ON UPDATE;";

#[test]
fn a_changelog_is_a_table_in_place_over_a_resize_until_control_c() {
    let kafka = broker::shared();
    let topic = kafka.topic("live", 1);
    kafka.produce(&topic, [click("home", 1), click("about", 2), click("home", 3)]);
    let mut shell = Shell::open();
    shell.answers(&clicks(&topic), "table clicks is created");
    shell.types(PER_PAGE);
    let lines = shell.terminal.sees("home  |      2");
    let place = |lines: &[String], text: &str| lines.iter().position(|line| line.contains(text));
    let (header, home, about) = (place(&lines, "page  | clicks"), place(&lines, "home  |"), place(&lines, "about |"));
    assert!(header < about && about < home && header.is_some(), "{lines:#?}");
    assert!(!shell.terminal.shows_keys(), "what is typed would stand in the table");

    kafka.produce(&topic, [click("home", 4), click("404", 5), click("404", 59)]);
    let lines = shell.terminal.sees("404   |      2");
    let lines = if count_of(&lines, "home  |      3") == 1 { lines } else { shell.terminal.sees("home  |      3") };
    assert_eq!((place(&lines, "page  | clicks"), place(&lines, "home  |")), (header, home), "{lines:#?}");
    shell.terminal.sees("3 rows | ");
    shell.terminal.sees("watermark 2026-01-01 00:00:59Z | 0 late");

    // Narrower: the line about the query is cut, and the table is still one.
    shell.terminal.resize(24, 60);
    kafka.produce(&topic, [click("home", 6)]);
    shell.terminal.sees("home  |      4");
    let lines = shell.terminal.wait_until("a cut", |lines| lines.last().is_some_and(|line| line.ends_with('…')));
    assert_eq!((count_of(&lines, "page  | clicks"), count_of(&lines, "home  |")), (1, 1), "{lines:#?}");

    // The next minute begins: the window of this one closes, and a row of it comes late.
    kafka.produce(&topic, [click("home", 60 + 1).replace("00:61", "01:01"), click("about", 7)]);
    shell.terminal.resize(20, 100);
    shell.terminal.sees("4 rows | ");
    shell.terminal.sees(" | 1 late");
    shell.terminal.keys("\x03");
    shell.terminal.sees("interrupted");
    let lines = shell.terminal.sees_last(PROMPT);
    assert_eq!((count_of(&lines, "page  | clicks"), count_of(&lines, "home  |")), (1, 2), "{lines:#?}");
    assert!(count_of(&lines, "9 records in | ") == 1 && count_of(&lines, "stopped") == 1, "{lines:#?}");
    let lines = shell.answers("SELECT 40 + 2 AS answer;", "42");
    assert!(lines[0].contains("SELECT 40 + 2"), "{lines:#?}");
    shell.types("\\q");
    assert_eq!(shell.terminal.end(), 0);
}

#[test]
fn rows_that_only_come_are_a_log_or_the_last_that_fit() {
    let kafka = broker::shared();
    let topic = kafka.topic("live-last", 1);
    kafka.produce(&topic, (0..60).map(|n| click(&format!("\\u001b[31mpage {n} 漢字{}", "x".repeat(200)), n)));
    let mut shell = Shell::open();
    shell.answers(&clicks(&topic), "table clicks is created");
    shell.types("SELECT n AS log FROM clicks LIMIT 60;");
    shell.terminal.sees("60 rows");
    shell.answers("SET 'sql-client.execution.result-mode' = 'table';", "is set");
    shell.types("SELECT page, n FROM clicks;");
    shell.terminal.sees("21 of 60 rows | ");
    let lines = shell.terminal.lines();
    assert_eq!(lines.len(), 24, "{lines:#?}");
    let want = format!(" \\x1b[31mpage 59 漢字{}… | 1", "x".repeat(60 - 21));
    assert_eq!(lines[22], want);
    // What does not fit gives way; nothing that a record holds steers the terminal.
    shell.terminal.resize(24, 30);
    let lines = shell.terminal.sees(" \\x1b[31mpage 59 漢字xxx… | 1");
    assert!(lines.iter().all(|line| line.chars().count() <= 30), "{lines:#?}");
    assert!(!shell.terminal.written().contains("\u{1b}[31m"));
    shell.terminal.keys("\x03");
    shell.terminal.sees_last(PROMPT);

    shell.terminal.resize(24, 100);
    shell.answers("\\live off", "one below the other");
    shell.answers("\\x off", "in columns");
    shell.types(PER_PAGE);
    shell.terminal.sees(" +I | \\x1b[31mpage 59 漢字");
    shell.terminal.keys("\x03");
    shell.terminal.sees_last(PROMPT);
    shell.types("\\q");
    assert_eq!(shell.terminal.end(), 0);
}

#[test]
fn a_live_table_makes_room_for_what_is_said_meanwhile() {
    let kafka = broker::shared();
    let topic = kafka.topic("live-note", 1);
    kafka.produce(&topic, [click("home", 1)]);
    let mut shell = Shell::open();
    shell.answers(&clicks(&topic), "table clicks is created");
    shell.answers("CREATE TABLE nowhere (n BIGINT) WITH ('connector' = 'blackhole');", "table nowhere is created");
    shell.answers("SET 'pipeline.name' = 'doomed';", "is set");
    shell.answers("INSERT INTO nowhere SELECT n FROM clicks;", "job doomed started");
    shell.types(PER_PAGE);
    shell.terminal.sees("home |      1");
    kafka.produce(&topic, ["no json"]);
    // Both fail by it: the job above the table, then the query below it.
    let lines = shell.terminal.wait_until("a prompt", |lines| {
        lines.last().is_some_and(|line| line == PROMPT.trim_end()) && count_of(lines, "doomed: failed") == 1
    });
    assert_eq!(count_of(&lines, "home |      1"), 1, "{lines:#?}");
    shell.types("\\q");
    shell.terminal.wait_for_end();
    assert!(shell.terminal.shows_keys());
    assert_eq!(shell.terminal.end(), 0);
}
