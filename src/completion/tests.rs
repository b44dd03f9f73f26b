use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};

use super::{Known, complete};

fn known() -> Known {
    let words = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let columns =
        |names: &[&str]| names.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect::<Fields>();
    let row = |name: &str, fields| Field::new(name, DataType::Struct(fields), true);
    let nested = row("device", [row("place", columns(&["city", "country"]))].into_iter().collect());
    Known {
        tables: [
            ("flights".to_owned(), columns(&["origin", "dest", "scheduled", "tail num"])),
            ("orders".to_owned(), columns(&["id", "price", "ordered_at"])),
        ]
        .into(),
        functions: words(&["upper", "unix_timestamp", "count"]),
        topics: ["clicks", "a-topic"].map(str::to_owned).into(),
        topic_columns: [(
            "clicks".to_owned(),
            [columns(&["user", "url"]).to_vec(), vec![Arc::new(nested)]].concat().into(),
        )]
        .into(),
        jobs: words(&["job-1"]),
    }
}

/// The cursor stands at `|`. The first candidates are these; what is completed begins with `word`.
#[track_caller]
fn check(text: &str, word: &str, want: &[&str]) {
    let (before, after) = text.split_once('|').expect("a cursor");
    let (start, candidates) = complete(&known(), before, after);
    assert_eq!(&before[start..], word, "{text}: {candidates:?}");
    assert_eq!(candidates.iter().take(want.len()).map(String::as_str).collect::<Vec<_>>(), want, "{text}");
    if want.is_empty() {
        assert!(candidates.is_empty(), "{text}: {candidates:?}");
    }
}

#[test]
fn statements_begin_with_their_words() {
    check("SEL|", "SEL", &["SELECT"]);
    check("sel|", "sel", &["select"]);
    check("SELECT 1; dr|", "dr", &["drop"]);
    check("SHOW T|", "T", &["TABLES", "TOPICS"]);
    check("DROP |", "", &["TABLE", "VIEW"]);
    check("STOP JOB |", "", &["job-1"]);
    check("\\t|", "\\t", &["\\timing"]);
    check("\\d or|", "or", &["orders"]);
}

#[test]
fn tables_and_topics_stand_behind_from() {
    check("SELECT * FROM |", "", &["`a-topic`", "clicks", "flights", "orders", "CUMULATE"]);
    check("SELECT * FROM fl|", "fl", &["flights"]);
    check("SELECT * FROM `a|", "`a", &["`a-topic`"]);
    check("SELECT * FROM \"a|", "\"a", &["\"a-topic\""]);
    check("SELECT * FROM tu|", "tu", &["tumble"]);
    check("SELECT * FROM TUMBLE(|", "", &["`a-topic`", "clicks", "flights"]);
    check("SELECT * FROM TUMBLE(TABLE o|", "o", &["orders"]);
    check("INSERT INTO |", "", &["flights", "orders"]);
    check("DESCRIBE o|", "o", &["orders"]);
    check("DROP TABLE |", "", &["flights", "orders"]);
    check("PRINT 'c|", "'c", &["'clicks'"]);
    check("DESCRIBE TOPIC c|", "c", &["clicks"]);
}

#[test]
fn columns_are_those_of_the_tables_in_scope() {
    check("SELECT | FROM flights", "", &["dest", "origin", "scheduled", "`tail num`"]);
    check("SELECT o| FROM flights", "o", &["origin"]);
    check("SELECT origin FROM flights WHERE sch|", "sch", &["scheduled"]);
    check("SELECT f.| FROM flights AS f JOIN orders o ON f.origin = o.id", "", &["dest", "origin", "scheduled"]);
    check("SELECT f.dest FROM flights f JOIN orders o ON f.origin = o.|", "", &["id", "ordered_at", "price"]);
    check("SELECT u| FROM clicks", "u", &["url", "user", "upper("]);
    check("SELECT w| FROM TUMBLE(orders, ordered_at, INTERVAL '1' HOUR)", "w", &["window_end", "window_start"]);
    check("SELECT device.| FROM clicks", "", &["place"]);
    check("SELECT c.device.place.c| FROM clicks AS c", "c", &["city", "country"]);
    check("SELECT device.nothing.| FROM clicks", "", &[]);
    check("SELECT UPP|", "UPP", &["UPPER("]);
    check("SELECT `t| FROM flights", "`t", &["`tail num`"]);
}

#[test]
fn options_and_settings_have_keys_and_values() {
    check("CREATE TABLE t (a INT) WITH ('|", "'", &["'connector'"]);
    check("CREATE TABLE t (a INT) WITH ('connector' = 'k|", "'k", &["'kafka'"]);
    check("CREATE TABLE t (a INT) WITH ('connector' = 'kafka', 'scan.st|", "'scan.st", &["'scan.startup.mode'"]);
    check("CREATE TABLE t WITH ('connector' = 'kafka', 'topic' = '|", "'", &["'a-topic'", "'clicks'"]);
    check("CREATE TABLE t WITH ('connector' = 'kafka', 'scan.startup.mode' = 'e|", "'e", &["'earliest-offset'"]);
    check(
        "CREATE TABLE t WITH ('connector' = 'kafka', 'properties.sasl.u|",
        "'properties.sasl.u",
        &["'properties.sasl.username'"],
    );
    check("SET 'execution.run|", "'execution.run", &["'execution.runtime-mode'"]);
    check("SET 'execution.runtime-mode' = '|", "'", &["'streaming'", "'batch'"]);
    check("SELECT 'abc|", "'abc", &[]);
}

#[test]
fn any_text_can_be_completed() {
    let text = "CREATE TABLE `ä` (a INT) WITH ('connector' = 'kafka'); SELECT f.\"x\" FROM flights f /* ; */ WHERE '日";
    for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
        let (start, _) = complete(&known(), &text[..at], &text[at..]);
        assert!(start <= at && text.is_char_boundary(start));
    }
}
