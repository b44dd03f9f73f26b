//! The answer that a windowed query must give, computed as a plain batch over the same records.
//!
//! The oracle shares nothing with the engine but DataFusion's aggregates. It reads the records back from the topic, so
//! it knows the partition and the offset of each; it derives each partition's watermark, decides by the definition in
//! which windows a row is in time, repeats the row for each of them, and lets DataFusion group the lot:
//!
//! ```text
//! SELECT window_start, origin, COUNT(*) FROM t GROUP BY window_start, window_end, origin
//! ```
//!
//! `t` has the declared columns, `window_start`, `window_end`, `window_time`, and `source_partition`, `source_offset`, by
//! which an aggregate whose value depends on the order breaks ties.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMillisecondArray, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use serde_json::Value;

use super::records::Record;

/// Relative difference that sums of doubles may have, for they depend on the order of addition.
const DOUBLE_TOLERANCE: f64 = 1e-12;

/// Rows that DataFusion is given at once. More than January's flights, so that a query over those may group its groups.
const PART_ROWS: usize = 40_000;

/// Windows `[start, start + size)` with starts at `offset + k * slide` for every whole `k`.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    pub slide_ms: i64,
    pub size_ms: i64,
    pub offset_ms: i64,
}

impl Windows {
    pub fn tumble(size_ms: i64) -> Self {
        Self::hop(size_ms, size_ms)
    }

    pub fn hop(slide_ms: i64, size_ms: i64) -> Self {
        Self { slide_ms, size_ms, offset_ms: 0 }
    }

    /// The starts of the windows that hold a time.
    fn around(self, time_ms: i64) -> impl Iterator<Item = i64> {
        // start <= time, and time < start + size.
        let last = (time_ms - self.offset_ms).div_euclid(self.slide_ms);
        let first = (time_ms - self.size_ms - self.offset_ms).div_euclid(self.slide_ms) + 1;
        (first..=last).map(move |k| self.offset_ms + k * self.slide_ms)
    }
}

/// Rows as the engine is told about them: JSON records of these columns, with a watermark.
pub struct Stream {
    /// Names and types of the columns that the query uses.
    pub columns: Vec<(&'static str, DataType)>,
    /// Which of them is the event time.
    pub time: &'static str,
    /// How far the watermark is behind it.
    pub delay_ms: i64,
    /// The query's `WHERE`. Rows that it leaves out move the watermark all the same, and are never late.
    pub keep: fn(&Value) -> bool,
}

/// What must come out.
#[derive(Debug)]
pub struct Answer {
    /// The rows as JSON objects, in no particular order.
    pub rows: Vec<Value>,
    /// Records in time for at least one window.
    pub used: u64,
    /// Records late for all of their windows.
    pub late: u64,
    /// Those of the used ones that were late for some of their windows.
    pub partly_late: u64,
    /// Records that the query's `WHERE` leaves out, and those that no window holds.
    pub filtered: u64,
}

/// A time as event time columns are declared.
pub const TIME: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

impl Stream {
    /// The flights, with a watermark so far behind `scheduled`.
    pub fn flights(delay_ms: i64) -> Self {
        let columns = vec![
            ("scheduled", TIME),
            ("carrier", DataType::Utf8),
            ("flight", DataType::Int32),
            ("tailnum", DataType::Utf8),
            ("origin", DataType::Utf8),
            ("dest", DataType::Utf8),
            ("dep_delay", DataType::Int32),
            ("distance", DataType::Int32),
        ];
        Self { columns, time: "scheduled", delay_ms, keep: |_| true }
    }

    /// The answer of a batch query over `t`, given the topic's records in the order of partition and offset.
    pub fn answer(&self, records: &[Record], windows: Windows, sql: &str) -> Answer {
        let rows = self.decode(records);
        let times = self.times(&rows);
        let mut answer = Answer { rows: Vec::new(), used: 0, late: 0, partly_late: 0, filtered: 0 };
        let mut watermarks: BTreeMap<i32, i64> = BTreeMap::new();
        let (mut indices, mut starts) = (Vec::new(), Vec::new());
        for (index, record) in records.iter().enumerate() {
            let time = times.value(index);
            let watermark = watermarks.entry(record.partition).or_insert(i64::MIN);
            let (mut in_time, mut late) = (0, 0);
            let kept = (self.keep)(&record.json());
            for start in windows.around(time).filter(|_| kept) {
                // A window is closed once the watermark has reached its last millisecond.
                if *watermark >= start + windows.size_ms - 1 {
                    late += 1;
                } else {
                    in_time += 1;
                    indices.push(index as u64);
                    starts.push(start);
                }
            }
            match (in_time, late) {
                (0, 0) => answer.filtered += 1,
                (0, _) => answer.late += 1,
                (_, 0) => answer.used += 1,
                (_, _) => {
                    answer.used += 1;
                    answer.partly_late += 1;
                }
            }
            *watermark = (*watermark).max(time - self.delay_ms);
        }
        for part in in_parts(&starts) {
            let indices: Vec<_> = part.iter().map(|at| indices[*at]).collect();
            let starts: Vec<_> = part.iter().map(|at| starts[*at]).collect();
            let t = with_windows(&rows, records, &indices, &starts, windows);
            answer.rows.extend(query(&t, sql));
        }
        answer
    }

    /// The records as columns, by Arrow's reader.
    fn decode(&self, records: &[Record]) -> RecordBatch {
        let fields: Vec<_> = self.columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let mut lines = Vec::new();
        for record in records {
            lines.extend_from_slice(record.text().as_bytes());
            lines.push(b'\n');
        }
        let reader = arrow::json::ReaderBuilder::new(Arc::clone(&schema)).build(Cursor::new(lines)).expect("a schema");
        let batches: Vec<_> = reader.map(|batch| batch.expect("records of the declared columns")).collect();
        let rows = concat_batches(&schema, &batches).expect("batches of one schema");
        assert_eq!(rows.num_rows(), records.len(), "one row per record");
        rows
    }

    fn times<'a>(&self, rows: &'a RecordBatch) -> &'a TimestampMillisecondArray {
        let column = rows.column_by_name(self.time).expect("the event time is a column");
        column.as_any().downcast_ref().expect("the event time is a TIMESTAMP(3)")
    }
}

/// The places of the starts, in parts of about [`PART_ROWS`] between which no window is divided: DataFusion keeps
/// several kilobytes per group for some aggregates.
fn in_parts(starts: &[i64]) -> Vec<Vec<usize>> {
    let mut places: Vec<_> = (0..starts.len()).collect();
    places.sort_by_key(|at| starts[*at]);
    let mut parts: Vec<Vec<usize>> = Vec::new();
    for window in places.chunk_by(|one, other| starts[*one] == starts[*other]) {
        match parts.last_mut() {
            Some(part) if part.len() < PART_ROWS => part.extend(window),
            _ => parts.push(window.to_vec()),
        }
    }
    parts
}

/// The rows repeated for their windows.
fn with_windows(
    rows: &RecordBatch,
    records: &[Record],
    indices: &[u64],
    starts: &[i64],
    windows: Windows,
) -> RecordBatch {
    let bound = |shift: i64| -> ArrayRef {
        Arc::new(starts.iter().map(|start| Some(start + shift)).collect::<TimestampMillisecondArray>())
    };
    let record = |index: &u64| &records[*index as usize];
    let extra: [(&str, ArrayRef); 5] = [
        ("window_start", bound(0)),
        ("window_end", bound(windows.size_ms)),
        ("window_time", bound(windows.size_ms - 1)),
        ("source_partition", Arc::new(indices.iter().map(|i| Some(record(i).partition)).collect::<Int32Array>())),
        ("source_offset", Arc::new(indices.iter().map(|i| Some(record(i).offset)).collect::<Int64Array>())),
    ];
    let taken = take_record_batch(rows, &UInt64Array::from(indices.to_vec())).expect("indices of rows");
    let schema = taken.schema();
    let named = schema.fields().iter().map(|field| field.name().clone()).zip(taken.columns().iter().cloned());
    let named: Vec<_> = named.chain(extra.map(|(name, column)| (name.to_owned(), column))).collect();
    RecordBatch::try_from_iter(named).expect("columns of one length")
}

/// Runs a batch query over `t`; rows as JSON objects.
fn query(t: &RecordBatch, sql: &str) -> Vec<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let batches = runtime.block_on(async {
        // One batch and no exchange: DataFusion's slower aggregates walk all groups for every batch.
        let config = SessionConfig::new().with_target_partitions(1).with_batch_size(2 * PART_ROWS);
        let context = SessionContext::new_with_config(config);
        let table = MemTable::try_new(t.schema(), vec![vec![t.clone()]]).expect("a table in memory");
        context.register_table("t", Arc::new(table)).expect("a fresh name");
        let frame = context.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        frame.collect().await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    });
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::LineDelimited>(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>()).expect("rows");
    writer.finish().expect("rows");
    let text = String::from_utf8(writer.into_inner()).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// The batch form of a query as it stands in a file: the window function in FROM becomes `t`.
pub fn batch_sql(streaming: &str) -> String {
    let start = streaming.find("TABLE(").expect("TABLE(TUMBLE(..)) or TABLE(HOP(..))");
    let mut depth = 0;
    for (at, character) in streaming[start..].char_indices() {
        match character {
            '(' => depth += 1,
            ')' if depth == 1 => return format!("{}t{}", &streaming[..start], &streaming[start + at + 1..]),
            ')' => depth -= 1,
            _ => {}
        }
    }
    panic!("a parenthesis is not closed: {streaming}")
}

/// Asserts that two sets of rows are the same but for their order. Columns go by position, whatever they are called:
/// a sink table has names of its own.
pub fn assert_same_rows(got: &[Value], want: &[Value], what: &str) {
    let (got, want) = (lists(got), lists(want));
    // Doubles may differ in their last bits, so they say nothing about the order of the rows.
    let mut doubles = BTreeSet::new();
    for row in got.iter().chain(&want) {
        doubles.extend((0..row.len()).filter(|column| row[*column].is_f64()));
    }
    let (got, want) = (sorted(got, &doubles), sorted(want, &doubles));
    for (at, ((_, got), (_, want))) in got.iter().zip(&want).enumerate() {
        let same = got.len() == want.len() && got.iter().zip(want).all(|(got, want)| same_value(got, want));
        assert!(same, "{what}: row {at} in sorted order is {got:?}, and should be {want:?}");
    }
    assert_eq!(got.len(), want.len(), "{what}: the number of rows");
}

/// Rows as lists of values.
fn lists(rows: &[Value]) -> Vec<Vec<Value>> {
    rows.iter().map(|row| row.as_object().expect("rows are objects").values().map(canonical).collect()).collect()
}

/// Rows in the order of the columns that are exact.
fn sorted(rows: Vec<Vec<Value>>, doubles: &BTreeSet<usize>) -> Vec<(String, Vec<Value>)> {
    let key = |row: &Vec<Value>| {
        let exact: Vec<_> = (0..row.len()).filter(|column| !doubles.contains(column)).map(|c| &row[c]).collect();
        serde_json::to_string(&exact).expect("JSON")
    };
    let mut rows: Vec<_> = rows.into_iter().map(|row| (key(&row), row)).collect();
    rows.sort_by(|(one, _), (other, _)| one.cmp(other));
    rows
}

/// Times have several spellings: they become milliseconds.
fn canonical(value: &Value) -> Value {
    match value {
        Value::String(text) => time_ms(text).map_or_else(|| value.clone(), |ms| Value::String(format!("{ms} ms"))),
        Value::Array(values) => values.iter().map(canonical).collect(),
        _ => value.clone(),
    }
}

/// The milliseconds since 1970 of `2013-01-01 10:00:00`, with `T` or `Z` or a fraction or without.
pub fn time_ms(text: &str) -> Option<i64> {
    // Cheaper than to try: most texts are no times.
    if text.len() < 19 || text.as_bytes()[4] != b'-' || text.as_bytes()[7] != b'-' {
        return None;
    }
    let text = text.strip_suffix('Z').unwrap_or(text).replacen('T', " ", 1);
    let time = chrono::NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f").ok()?;
    Some(time.and_utc().timestamp_millis())
}

fn same_value(got: &Value, want: &Value) -> bool {
    match (got, want) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            (a - b).abs() <= DOUBLE_TOLERANCE * a.abs().max(b.abs())
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b)),
        _ => got == want,
    }
}
