//! A table made of a sample of a topic's records, and what there is to say about it.
//!
//! Values that are JSON objects give their fields as columns, all others are one column `value`. A key that no column
//! repeats is a column `__key`. The event time is a column that is a time in every record, or else the record's own
//! timestamp, as `__timestamp`; its watermark is as far behind as rows of the sample come late.

use std::fmt::Write;

use serde_json::Value;

use super::bytes::{Kind, Kinds, percent, recognise, shown};
use super::disorder::{DELAYS, Disorder};
use super::shape::{Fields, Shape, is_named_like_a_time, time_of};
use super::{Sample, TopicRecord};
use crate::catalog::Table;
use crate::error::{Error, Result};
use crate::sql::diagnostics::escape;
use crate::sql::parse_script;
use crate::sql::statement::Statement;
use crate::sql::types::quote;
use crate::words::grouped;

/// The column of a key.
const KEY: &str = "__key";

/// The column of a record's own time.
const TIMESTAMP: &str = "__timestamp";

/// Names of columns that are event times if they are times at all.
const EVENT_TIME_NAMES: [&str; 8] =
    ["event_time", "eventtime", "event_timestamp", "ts", "timestamp", "event_ts", "time", "rowtime"];

/// What a sample of a topic's records tells.
pub struct Profile<'a> {
    sample: &'a Sample,
    keys: Kinds,
    values: Kinds,
    fields: Fields,
    /// How late rows are by each column that is a time, in the order of the columns.
    disorders: Vec<(String, Disorder)>,
    /// The same by the records' own timestamps.
    own: Disorder,
    /// The key is what this field says.
    key_field: Option<String>,
}

/// A table for a topic.
#[derive(Clone, Debug)]
pub struct Inferred {
    /// The table.
    pub table: Table,
    /// What is to be said about it.
    pub notices: Vec<String>,
}

/// Columns of text that examples may take, unless one alone takes more.
const EXAMPLES_WIDTH: usize = 30;

impl<'a> Profile<'a> {
    /// Looks at a sample.
    pub fn of(sample: &'a Sample) -> Self {
        let (mut keys, mut values, mut fields) = (Kinds::default(), Kinds::default(), Fields::default());
        let mut objects = Vec::new();
        let mut own = Disorder::default();
        for record in &sample.records {
            keys.count(recognise(record.key.as_deref()).0);
            let (kind, value) = recognise(record.value.as_deref());
            values.count(kind);
            if let Some(Value::Object(object)) = value {
                fields.add(&object);
                objects.push((record, object));
            }
            if let Some(time) = record.timestamp_ms {
                own.row(record.partition, time);
            }
        }
        let times = fields.iter().filter(|(name, shape)| is_time(&shape.sql_type(name)));
        let mut disorders: Vec<_> = times.map(|(name, _)| (name.to_owned(), Disorder::default())).collect();
        for (record, object) in &objects {
            for (name, disorder) in &mut disorders {
                if let Some(time) = object.get(name).and_then(time_of) {
                    disorder.row(record.partition, time);
                }
            }
        }
        let is_key = |name: &&str| {
            let says = |(record, object): &(&TopicRecord, serde_json::Map<String, Value>)| {
                key_text(record).is_some_and(|key| object.get(*name).is_some_and(|value| text_of(value) == key))
            };
            !objects.is_empty() && objects.iter().all(says)
        };
        let key_field = fields.iter().map(|(name, _)| name).find(is_key).map(str::to_owned);
        Self { sample, keys, values, fields, disorders, own, key_field }
    }

    /// How keys and values are written, in words.
    pub fn formats(&self) -> String {
        format!("key: {}; value: {}", self.keys.describe(), self.values.describe())
    }

    /// What was looked at, in words.
    pub fn extent(&self) -> String {
        let (seen, held) = (self.sample.records.len(), self.sample.records_held);
        let partitions = self.sample.partitions;
        let noun = if partitions == 1 { "partition" } else { "partitions" };
        format!("{} of about {} records in {partitions} {noun}", grouped(seen as u64), grouped(held))
    }

    /// The titles of [`Profile::rows`].
    pub fn titles() -> Vec<String> {
        let mut titles: Vec<_> = ["part", "column", "type", "null", "examples"].map(str::to_owned).to_vec();
        // One column, so that a row fits a screen.
        titles.push(format!("late by {}", DELAYS.map(|delay| delay.name).join(", ")));
        titles
    }

    /// What there is to see: the key, the value, its columns, the record's timestamp.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![self.whole("key", &self.keys, |r| r.key.as_deref())];
        rows.push(self.whole("value", &self.values, |r| r.value.as_deref()));
        for (name, shape) in self.fields.iter() {
            let (absent, all) = self.fields.absent(shape);
            let disorder = self.disorders.iter().find(|(time, _)| time == name).map(|(_, disorder)| disorder);
            let examples = listed(shape.examples());
            rows.push(row(["value", name, &shape.sql_type(name), &percent(absent, all), &examples], disorder));
        }
        let times = self.sample.records.iter().filter_map(|r| r.timestamp_ms);
        let absent = self.sample.records.iter().filter(|r| r.timestamp_ms.is_none()).count() as u64;
        let range = match (times.clone().min(), times.max()) {
            (Some(least), Some(greatest)) => {
                let (least, greatest) = (instant(least), instant(greatest));
                match (least.split_once(' '), greatest.split_once(' ')) {
                    (Some((day, _)), Some((same, time))) if day == same => format!("{least} to {time}"),
                    _ => format!("{least} to {greatest}"),
                }
            }
            _ => String::new(),
        };
        let absent = percent(absent, self.sample.records.len() as u64);
        rows.push(row(["record", "timestamp", "TIMESTAMP_LTZ(3)", &absent, &range], Some(&self.own)));
        rows
    }

    fn whole(&self, part: &str, kinds: &Kinds, bytes: impl Fn(&TopicRecord) -> Option<&[u8]>) -> Vec<String> {
        let mut examples: Vec<String> = Vec::new();
        // Of JSON objects the columns show examples.
        let worth_showing = |kind: Kind| !matches!(kind, Kind::Json | Kind::Debezium);
        for bytes in self.sample.records.iter().filter_map(bytes) {
            let example: String = escape(&shown(bytes)).chars().take(24).collect();
            if examples.len() < 3 && !examples.contains(&example) && worth_showing(recognise(Some(bytes)).0) {
                examples.push(example);
            }
        }
        let nulls = percent(kinds.of(Kind::Null), kinds.total());
        row([part, "", &kinds.describe(), &nulls, &listed(&examples)], None)
    }

    /// A table for the topic; its options come before those that are found out.
    pub fn infer(&self, declared: &Table) -> Result<Inferred> {
        let topic = escape(&self.sample.topic).into_owned();
        if self.values.total() == self.values.of(Kind::Null) {
            let what = format!("topic \"{topic}\" has no records to infer columns from");
            return Err(Error::statement(what)
                .hint("name the columns, as in CREATE TABLE t (a BIGINT, b STRING) WITH (..), or write to it first"));
        }
        let mut notices = Vec::new();
        let objects = self.values.of(Kind::Json) + self.values.of(Kind::Debezium);
        let is_json = matches!(self.values.main(), Kind::Json | Kind::Debezium);
        let format = declared.options.get("format").or_else(|| declared.options.get("value.format"));
        if let Some(format) = format.filter(|format| !matches!((*format, is_json), ("json", true) | ("raw", _))) {
            let what = format!("columns of the format '{format}' cannot be inferred from topic \"{topic}\"");
            return Err(Error::statement(what)
                .hint(format!("name the columns, or leave '{format}' out; the topic has {}", self.formats())));
        }
        let is_json = is_json && format != Some("raw");
        let mut items = Vec::new();
        let mut options: Vec<(&str, String)> = Vec::new();
        if declared.options.get("scan.startup.mode").is_none() {
            options.push(("scan.startup.mode", "earliest-offset".to_owned()));
        }
        if is_json {
            items.extend(self.fields.iter().map(|(name, shape)| column(name, shape)));
        } else {
            let kind = raw_type(self.values.main());
            items.push(format!("{} {kind}", quote("value")));
            notices.extend(raw_notice(self.values.main(), &topic));
        }
        if format.is_none() {
            options.push(("format", if is_json { "json" } else { "raw" }.to_owned()));
        }
        if is_json && objects < self.values.total() - self.values.of(Kind::Null) {
            options.push(("scan.on-error", "skip".to_owned()));
            notices.push(format!("some values are no JSON objects ({}): those are skipped", self.values.describe()));
        }
        self.add_key(declared, &mut items, &mut options);
        self.add_event_time(&mut items, is_json);
        if items.is_empty() {
            return Err(Error::statement(format!("the JSON objects in topic \"{topic}\" have no fields")));
        }
        let table = build(declared, &items, &options)?;
        Ok(Inferred { table, notices })
    }

    fn add_key(&self, declared: &Table, items: &mut Vec<String>, options: &mut Vec<(&str, String)>) {
        let kind = self.keys.main();
        let is_declared = declared.options.iter().any(|(key, _)| key.starts_with("key."));
        if kind == Kind::Null || self.key_field.is_some() || is_declared {
            return;
        }
        items.push(format!("{KEY} {}", raw_type(kind)));
        options.push(("key.format", "raw".to_owned()));
        options.push(("key.fields", KEY.to_owned()));
        options.push(("value.fields-include", "EXCEPT_KEY".to_owned()));
    }

    fn add_event_time(&self, items: &mut Vec<String>, is_json: bool) {
        let is_whole = |name: &str| {
            let shape = self.fields.iter().find(|(field, _)| *field == name);
            shape.is_some_and(|(_, shape)| self.fields.absent(shape).0 == 0)
        };
        let times: Vec<_> = self.disorders.iter().filter(|(name, _)| is_json && is_whole(name)).collect();
        let rank = |name: &str| {
            let named = EVENT_TIME_NAMES.iter().position(|known| name.eq_ignore_ascii_case(known));
            (named.unwrap_or(EVENT_TIME_NAMES.len()), !is_named_like_a_time(name))
        };
        let (name, disorder) = match times.into_iter().min_by_key(|(name, _)| rank(name)) {
            Some((name, disorder)) => (name.as_str(), disorder),
            None => {
                items.push(format!("{TIMESTAMP} TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL"));
                (TIMESTAMP, &self.own)
            }
        };
        let name = quote(name);
        items.push(format!("WATERMARK FOR {name} AS {name} - {}", disorder.delay().sql));
    }
}

/// Parses the statement of a table, so that everything about it is as if people had written it.
fn build(declared: &Table, items: &[String], options: &[(&str, String)]) -> Result<Table> {
    let mut text = format!("CREATE TABLE {} (\n  {}\n)", quote(&declared.name), items.join(",\n  "));
    for (i, (key, value)) in options.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}'{key}' = '{}'", if i == 0 { " WITH (" } else { ", " }, value.replace('\'', "''"));
    }
    if !options.is_empty() {
        text.push(')');
    }
    let unreadable = |what: String| Error::bug(format!("an inferred table does not parse: {what}"));
    let parsed = parse_script(&text).map_err(|e| unreadable(format!("{e}: {text}")))?;
    let Some(Statement::CreateTable(create)) = parsed.into_iter().next().map(|parsed| parsed.statement) else {
        return Err(unreadable(text));
    };
    let mut table = create.table;
    for (key, value) in declared.options.iter() {
        table.options.set(key, value);
    }
    if declared.watermark.is_some() {
        table.watermark.clone_from(&declared.watermark);
    }
    Ok(Table { comment: declared.comment.clone(), temporary: declared.temporary, ..table })
}

fn column(name: &str, shape: &Shape) -> String {
    format!("{} {}", quote(name), shape.sql_type(name))
}

fn raw_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "INT",
        Kind::BigInt => "BIGINT",
        Kind::Binary | Kind::Registry => "BYTES",
        _ => "STRING",
    }
}

fn raw_notice(kind: Kind, topic: &str) -> Option<String> {
    match kind {
        Kind::Registry => Some(format!(
            "the values of topic \"{topic}\" need a schema registry (Avro or Protobuf), which cannot be read yet: \
             they are one column of bytes"
        )),
        Kind::JsonValue | Kind::Text => Some(format!("the values of topic \"{topic}\" are one column of text")),
        _ => None,
    }
}

fn is_time(sql_type: &str) -> bool {
    sql_type.starts_with("TIMESTAMP")
}

fn key_text(record: &TopicRecord) -> Option<String> {
    record.key.as_deref().map(|key| shown(key).into_owned())
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn instant(ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ms);
    time.map_or_else(|| ms.to_string(), |time| time.format("%Y-%m-%d %H:%M:%S").to_string())
}

fn row(cells: [&str; 5], disorder: Option<&Disorder>) -> Vec<String> {
    let shares = |(rows, late): (u64, &[u64])| late.iter().map(|late| percent(*late, rows)).collect::<Vec<_>>();
    let late = disorder.map(Disorder::late).map(|late| shares(late).join(", "));
    cells.into_iter().map(str::to_owned).chain([late.unwrap_or_default()]).collect()
}

/// Examples beside each other, as many as there is room for.
fn listed(examples: &[String]) -> String {
    let mut list = String::new();
    for example in examples {
        if list.is_empty() {
            list.push_str(example);
        } else if list.len() + example.len() < EXAMPLES_WIDTH {
            list = format!("{list}, {example}");
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::show::show_create_table;

    /// Key, value, and the record's own time in seconds.
    type Row<'a> = (Option<&'a str>, Option<&'a str>, i64);

    fn sample(rows: &[Row<'_>]) -> Sample {
        let record = |(at, (key, value, second)): (usize, &Row<'_>)| TopicRecord {
            offset: at as i64,
            timestamp_ms: Some(1_700_000_000_000 + second * 1_000),
            key: key.map(|key| key.as_bytes().to_vec()),
            value: value.map(|value| value.as_bytes().to_vec()),
            ..TopicRecord::default()
        };
        let records = rows.iter().enumerate().map(record).collect();
        Sample { topic: "things".to_owned(), partitions: 1, records_held: rows.len() as u64, records }
    }

    fn declared(text: &str) -> Table {
        let Statement::CreateTable(create) = parse_script(text).unwrap().remove(0).statement else { panic!("{text}") };
        create.table
    }

    #[track_caller]
    fn check(rows: &[Row<'_>], want: &str) {
        let table = declared("CREATE TABLE t WITH ('connector' = 'kafka', 'topic' = 'things')");
        let sample = sample(rows);
        let got = match Profile::of(&sample).infer(&table) {
            Ok(inferred) => show_create_table(&inferred.table),
            Err(error) => error.message,
        };
        assert_eq!(got.split_whitespace().collect::<Vec<_>>().join(" "), want);
    }

    #[test]
    fn json_objects_give_columns_and_an_event_time() {
        check(
            &[
                (Some("a"), Some(r#"{"id": "a", "made": "2024-01-01T00:00:00Z", "ts": "2024-01-01 00:00:05"}"#), 0),
                (Some("b"), Some(r#"{"id": "b", "made": "2024-01-01T00:00:00Z", "ts": "2024-01-01 00:00:00"}"#), 0),
            ],
            "CREATE TABLE t ( id STRING, made TIMESTAMP_LTZ(3), ts TIMESTAMP(3), \
             WATERMARK FOR ts AS ts - INTERVAL '10' SECOND ) WITH ( 'connector' = 'kafka', 'format' = 'json', \
             'scan.startup.mode' = 'earliest-offset', 'topic' = 'things' )",
        );
        check(
            &[(Some("k"), Some(r#"{"n": 1, "from": null}"#), 0), (None, None, 1)],
            "CREATE TABLE t ( n BIGINT, `from` STRING, __key STRING, \
             __timestamp TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL, \
             WATERMARK FOR __timestamp AS __timestamp - INTERVAL '1' SECOND ) WITH ( 'connector' = 'kafka', \
             'format' = 'json', 'key.fields' = '__key', 'key.format' = 'raw', \
             'scan.startup.mode' = 'earliest-offset', 'topic' = 'things', 'value.fields-include' = 'EXCEPT_KEY' )",
        );
    }

    #[test]
    fn all_else_is_one_column() {
        check(
            &[(None, Some("a line"), 0)],
            "CREATE TABLE t ( value STRING, __timestamp TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL, \
             WATERMARK FOR __timestamp AS __timestamp - INTERVAL '1' SECOND ) WITH ( 'connector' = 'kafka', \
             'format' = 'raw', 'scan.startup.mode' = 'earliest-offset', 'topic' = 'things' )",
        );
        check(&[], "topic \"things\" has no records to infer columns from");
        check(&[(Some("k"), None, 0)], "topic \"things\" has no records to infer columns from");
    }

    #[test]
    fn what_is_declared_comes_first() {
        let text = "CREATE TABLE t WITH ('topic' = 'things', 'scan.startup.mode' = 'latest-offset', 'format' = 'raw')";
        let records = sample(&[(None, Some("{\"a\": 1}"), 0)]);
        let shown = show_create_table(&Profile::of(&records).infer(&declared(text)).unwrap().table);
        assert!(shown.contains("value STRING") && shown.contains("'latest-offset'"), "{shown}");
        let csv = declared("CREATE TABLE t WITH ('topic' = 'things', 'format' = 'csv')");
        let error = Profile::of(&records).infer(&csv).unwrap_err();
        assert!(error.message.contains("'csv' cannot be inferred"), "{error}");
    }

    #[test]
    fn bad_neighbours_are_skipped_and_named() {
        let records = sample(&[(None, Some("{\"a\": 1}"), 0), (None, Some("{\"a\": 2}"), 0), (None, Some("oops"), 0)]);
        let inferred = Profile::of(&records).infer(&declared("CREATE TABLE t WITH ('topic' = 'x')")).unwrap();
        assert_eq!(inferred.table.options.get("scan.on-error"), Some("skip"));
        assert!(inferred.notices[0].contains("mixed: json 66.7 %, text 33.3 %"), "{:?}", inferred.notices);
    }

    #[test]
    fn a_profile_shows_types_nulls_examples_and_lateness() {
        let records = sample(&[
            (Some("k"), Some(r#"{"n": 1, "ts": "2024-01-01 00:01:05"}"#), 5),
            (None, Some(r#"{"ts": "2024-01-01 00:00:00"}"#), 6),
        ]);
        let profile = Profile::of(&records);
        let rows = profile.rows();
        let shown: Vec<_> = rows.iter().map(|row| row.join("|")).collect();
        assert_eq!(
            shown[..4],
            [
                "key||text|50 %|k|",
                "value||json|0 %||",
                "value|n|BIGINT|50 %|1|",
                "value|ts|TIMESTAMP(3)|0 %|2024-01-01 00:01:05|50 %, 50 %, 50 %, 0 %",
            ]
        );
        assert_eq!(
            shown[4],
            "record|timestamp|TIMESTAMP_LTZ(3)|0 %|2023-11-14 22:13:25 to 22:13:26|0 %, 0 %, 0 %, 0 %"
        );
        assert_eq!(rows[0].len(), Profile::titles().len());
        assert_eq!(profile.formats(), "key: text; value: json");
        assert_eq!(profile.extent(), "2 of about 2 records in 1 partition");
    }
}
