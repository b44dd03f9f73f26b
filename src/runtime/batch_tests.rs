//! Batch answers against rows worked out by hand.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono_tz::Tz;

use super::batch::{PartitionRows, Recorded, answer};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::plan::{LateRows, PlanSettings, Planner};
use crate::sql::parse_script;
use crate::sql::statement::Statement;

const TABLES: &str = "
    CREATE TABLE a (k STRING, n BIGINT, ts TIMESTAMP(3), twice AS n * 2, WATERMARK FOR ts AS ts - INTERVAL '0.010' SECOND)
        WITH ('connector' = 'kafka', 'topic' = 'a', 'format' = 'json');
    CREATE TABLE b (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
        WITH ('connector' = 'kafka', 'topic' = 'b', 'format' = 'json');
    CREATE TABLE skipping (k STRING, n BIGINT, ts TIMESTAMP(3), twice AS n * 2, WATERMARK FOR ts AS ts)
        WITH ('connector' = 'kafka', 'topic' = 'c', 'format' = 'json', 'scan.on-error' = 'skip');
    CREATE TABLE instants (k STRING, n BIGINT, ts TIMESTAMP_LTZ(3), WATERMARK FOR ts AS ts)
        WITH ('connector' = 'kafka', 'topic' = 'd', 'format' = 'json');";

type Row = (&'static str, i64, Option<i64>);

/// A partition of (k, n, ts) with offsets from 0.
fn partition(rows: &[Row], zone: Option<&str>) -> PartitionRows {
    let times = TimestampMillisecondArray::from(rows.iter().map(|r| r.2).collect::<Vec<_>>());
    let columns: [(&str, ArrayRef); 3] = [
        ("k", Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.0)))),
        ("n", Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)))),
        ("ts", Arc::new(times.with_timezone_opt(zone))),
    ];
    let offsets = (0..rows.len() as i64).collect();
    PartitionRows {
        rows: RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap(),
        offsets,
    }
}

fn records(tables: &[(&str, &[&[Row]])]) -> Recorded {
    let zone = |table: &str| (table == "instants").then_some("UTC");
    let of = |table: &str, partitions: &[&[Row]]| partitions.iter().map(|p| partition(p, zone(table))).collect();
    tables.iter().map(|(table, partitions)| ((*table).to_owned(), of(table, partitions))).collect()
}

fn try_run(query: &str, settings: PlanSettings, late: LateRows, records: &Recorded) -> Result<Vec<String>> {
    let mut catalog = Catalog::default();
    for parsed in parse_script(TABLES)? {
        let Statement::CreateTable(create) = parsed.statement else { panic!("a table") };
        let mut table = create.table;
        Planner::new(&catalog).resolve_table(&mut table)?;
        catalog.add_table(table)?;
    }
    let Statement::Query(query) = parse_script(query)?.remove(0).statement else { panic!("a query") };
    let rows = answer(&Planner::with_settings(&catalog, settings), &query, late, records)?;
    let options = FormatOptions::default().with_null("NULL").with_timestamp_format(Some("%H:%M:%S%.3f"));
    let mut lines = Vec::new();
    for batch in &rows.batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        let line = |row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join(" ");
        lines.extend((0..batch.num_rows()).map(line));
    }
    if !query.text.contains("ORDER BY o") {
        lines.sort();
    }
    Ok(lines)
}

fn run(query: &str, records: &Recorded) -> Vec<String> {
    try_run(query, PlanSettings::default(), LateRows::Drop, records).unwrap_or_else(|e| panic!("{query}: {e}"))
}

/// Windows of 20 ms: the row at 5 is late for the first when the one at 35 (watermark 25) came before it in its partition.
const LATE: [&[Row]; 2] =
    [&[("x", 1, Some(3)), ("x", 2, Some(35)), ("x", 4, Some(5)), ("y", 8, Some(27))], &[("x", 16, Some(7))]];

#[test]
fn late_rows_are_left_out_unless_they_are_kept() {
    let records = records(&[("a", &LATE)]);
    let query = "SELECT window_start, window_end, k, sum(n), count(*) FROM TUMBLE(a, ts, INTERVAL '0.020' SECOND)
                 GROUP BY window_start, window_end, k";
    let want =
        ["00:00:00.000 00:00:00.020 x 17 2", "00:00:00.020 00:00:00.040 x 2 1", "00:00:00.020 00:00:00.040 y 8 1"];
    assert_eq!(run(query, &records), want);
    let kept = try_run(query, PlanSettings::default(), LateRows::Keep, &records).unwrap();
    assert_eq!(kept[0], "00:00:00.000 00:00:00.020 x 21 3");
    // Allowed lateness: the window [0, 20) is closed for the row when the watermark less it has reached 19.
    for (allowed_lateness_ms, sum) in [(6, 17), (7, 21)] {
        let settings = PlanSettings { allowed_lateness_ms, ..PlanSettings::default() };
        let rows = try_run(query, settings, LateRows::Drop, &records).unwrap();
        assert!(rows[0].contains(&format!("x {sum}")), "{allowed_lateness_ms}: {rows:?}");
    }
}

#[test]
fn lateness_is_judged_behind_views_filters_and_unions() {
    let records =
        records(&[("a", &LATE), ("b", &[&[("x", 100, Some(30)), ("x", 200, Some(19)), ("x", 400, Some(31))]])]);
    let query = "SELECT window_start, sum(m) FROM TUMBLE(
            (SELECT k, n + 0 AS m, ts FROM a WHERE n < 10 UNION ALL SELECT k, n, ts FROM b AS other), ts, INTERVAL '0.020' SECOND)
         WHERE k = 'x' GROUP BY window_start, window_end";
    // Of a, the row with 4 is late and the one with 16 is filtered; of b the one with 200.
    assert_eq!(run(query, &records), ["00:00:00.000 1", "00:00:00.020 502"]);
    // Nothing judges rows that are given as they are.
    assert_eq!(run("SELECT n FROM TUMBLE(a, ts, INTERVAL '0.020' SECOND)", &records).len(), 5);
}

#[test]
fn a_row_may_be_late_for_some_of_its_windows() {
    let records = records(&[("b", &[&[("x", 1, Some(22)), ("x", 2, Some(14))]])]);
    // The row at 14 is in the windows that end at 20, 30, 40; the watermark 22 has closed the first.
    let query = "SELECT window_start, window_end, window_time, sum(n) FROM HOP(b, ts, INTERVAL '0.010' SECOND, INTERVAL '0.030' SECOND)
         GROUP BY window_start, window_end, window_time";
    let want = [
        "00:00:00.000 00:00:00.030 00:00:00.029 3",
        "00:00:00.010 00:00:00.040 00:00:00.039 3",
        "00:00:00.020 00:00:00.050 00:00:00.049 1",
    ];
    assert_eq!(run(query, &records), want);
    let cumulate =
        "SELECT window_start, window_end, sum(n) FROM CUMULATE(b, ts, INTERVAL '0.010' SECOND, INTERVAL '0.030' SECOND)
         GROUP BY window_start, window_end";
    assert_eq!(run(cumulate, &records), ["00:00:00.000 00:00:00.030 3"]);
    // A slide longer than the size leaves times between windows.
    let gaps = "SELECT window_start, sum(n) FROM HOP(b, ts, INTERVAL '0.020' SECOND, INTERVAL '0.010' SECOND)
         GROUP BY window_start, window_end";
    assert_eq!(run(gaps, &records), ["00:00:00.020 1"]);
}

#[test]
fn sessions_end_after_a_gap_and_merge_when_they_touch() {
    let rows: [&[Row]; 2] = [
        &[("x", 1, Some(0)), ("x", 2, Some(10)), ("x", 4, Some(21)), ("y", 8, Some(5))],
        &[("x", 16, Some(50)), ("y", 32, Some(12)), ("x", 64, Some(50))],
    ];
    let records = records(&[("a", &rows)]);
    let query = "SELECT window_start, window_end, window_time, k, sum(n) FROM
         SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '0.010' SECOND) GROUP BY window_start, window_end, window_time, k";
    // 0 and 10 touch; 10 and 21 do not. The row of y at 12 is late: its partition's watermark is 40. So is that at 5: 11.
    let want = [
        "00:00:00.000 00:00:00.020 00:00:00.019 x 3",
        "00:00:00.021 00:00:00.031 00:00:00.030 x 4",
        "00:00:00.050 00:00:00.060 00:00:00.059 x 80",
    ];
    assert_eq!(run(query, &records), want);
    let kept = try_run(query, PlanSettings::default(), LateRows::Keep, &records).unwrap();
    assert_eq!(kept[1], "00:00:00.005 00:00:00.022 00:00:00.021 y 40");
    // The older spelling: sessions are of what else is grouped by, and of the rows that the condition leaves.
    let query = "SELECT SESSION_START(ts, INTERVAL '0.010' SECOND) AS s, upper(k), sum(n) FROM a WHERE n <> 2
         GROUP BY upper(k), SESSION(ts, INTERVAL '0.010' SECOND)";
    let kept = try_run(query, PlanSettings::default(), LateRows::Keep, &records).unwrap();
    assert_eq!(kept, ["00:00:00.000 X 1", "00:00:00.005 Y 40", "00:00:00.021 X 4", "00:00:00.050 X 80"]);
}

#[test]
fn days_are_those_of_the_zone() {
    let at = |text: &str| Some(chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis());
    let rows: [Row; 4] = [
        ("x", 1, at("2013-03-10T04:59:59.999Z")),
        ("x", 2, at("2013-03-10T05:00:00Z")),
        ("x", 4, at("2013-03-11T03:59:59.999Z")),
        ("x", 8, at("2013-03-11T04:00:00Z")),
    ];
    let records = records(&[("instants", &[&rows])]);
    let settings = PlanSettings { zone: Tz::America__New_York, ..PlanSettings::default() };
    let query = |window: &str| {
        let query = format!(
            "SELECT CAST(window_start AS STRING), CAST(window_end AS STRING), sum(n) FROM {window} GROUP BY window_start, window_end"
        );
        try_run(&query, settings, LateRows::Drop, &records).unwrap()
    };
    // The 10th has 23 hours.
    let days = query("TUMBLE(instants, ts, INTERVAL '1' DAY)");
    assert_eq!(days.iter().map(|row| row.rsplit(' ').next().unwrap()).collect::<Vec<_>>(), ["1", "6", "8"]);
    assert!(days[1].starts_with("2013-03-10") && days[1].contains("2013-03-11"), "{days:?}");
    let months = query("HOP(instants, ts, INTERVAL '1' MONTH, INTERVAL '2' MONTH)");
    assert_eq!(months.len(), 2);
    assert!(months[0].starts_with("2013-02-01") && months[0].contains("2013-04-01") && months[0].ends_with("15"));
}

#[test]
fn order_is_event_time_then_partition_and_offset() {
    let rows: [&[Row]; 2] = [
        &[("x", 1, Some(10)), ("x", 2, Some(5)), ("x", 3, Some(10))],
        &[("x", 4, Some(10)), ("x", 5, Some(4)), ("x", 6, Some(10))],
    ];
    let records = records(&[("a", &rows)]);
    let query = "SELECT first_value(n), last_value(n), array_agg(n), string_agg(CAST(n AS STRING), '-'),
         array_agg(n ORDER BY n DESC), array_agg(DISTINCT n % 2)
         FROM TUMBLE(a, ts, INTERVAL '0.020' SECOND) GROUP BY window_start, window_end";
    let want = "5 6 [5, 2, 1, 3, 4, 6] 5-2-1-3-4-6 [6, 5, 4, 3, 2, 1] [0, 1]";
    assert_eq!(run(query, &records), [want]);
    // Ranks over equal times too: the latest row is the last of those with its time.
    let query =
        "SELECT n FROM (SELECT n, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY ts DESC) AS r
         FROM TUMBLE(a, ts, INTERVAL '0.020' SECOND)) WHERE r <= 2";
    assert_eq!(run(query, &records), ["4", "6"]);
}

#[test]
fn what_a_stream_cannot_do_can_be_done() {
    let records = records(&[("a", &LATE), ("b", &[&[("x", 7, Some(1)), ("z", 9, Some(2))]])]);
    // Without windows nothing is late.
    assert_eq!(run("SELECT k, sum(n) FROM a GROUP BY k", &records), ["x 23", "y 8"]);
    assert_eq!(run("SELECT n AS o FROM a ORDER BY o DESC LIMIT 2", &records), ["16", "8"]);
    assert_eq!(run("SELECT a.n, b.n FROM a JOIN b ON a.k = b.k WHERE a.n < 3", &records), ["1 7", "2 7"]);
    assert_eq!(run("SELECT n FROM a WHERE n = (SELECT max(n) FROM a)", &records), ["16"]);
    assert_eq!(run("SELECT n FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)", &records), ["8"]);
    assert_eq!(run("SELECT DISTINCT k FROM a", &records), ["x", "y"]);
    assert_eq!(run("SELECT count(*) FROM a WHERE twice > 4", &records), ["3"]);
    assert_eq!(run("SELECT k, n, sum(n) OVER (PARTITION BY k ORDER BY ts) FROM b", &records), ["x 7 7", "z 9 9"]);
    let sets = "SELECT k, count(*) FROM TUMBLE(a, ts, INTERVAL '0.020' SECOND)
         GROUP BY GROUPING SETS ((window_start, window_end, k), (window_start, window_end))";
    assert_eq!(run(sets, &records), ["NULL 2", "NULL 2", "x 1", "x 2", "y 1"]);
}

#[test]
fn windows_feed_windows_and_joins() {
    let rows: [Row; 5] =
        [("x", 1, Some(1)), ("y", 2, Some(2)), ("x", 4, Some(11)), ("x", 8, Some(12)), ("y", 16, Some(31))];
    let records = records(&[("a", &[&rows])]);
    let cascade = "SELECT window_start, sum(c), first_value(k) FROM TUMBLE(
            (SELECT window_time AS wt, k, count(*) AS c FROM TUMBLE(a, ts, INTERVAL '0.010' SECOND)
             GROUP BY window_start, window_end, window_time, k), wt, INTERVAL '0.020' SECOND)
         GROUP BY window_start, window_end";
    // Of two results of one window that of the lesser key is first.
    assert_eq!(run(cascade, &records), ["00:00:00.000 4 x", "00:00:00.020 1 y"]);
    let per = |k: &str| {
        format!(
            "SELECT window_start, window_end, count(*) AS c FROM TUMBLE(a, ts, INTERVAL '0.010' SECOND) WHERE k = '{k}'
             GROUP BY window_start, window_end"
        )
    };
    let join = format!(
        "SELECT l.window_start, l.c, r.c FROM ({}) l LEFT JOIN ({}) r ON l.window_start = r.window_start
         AND l.window_end = r.window_end",
        per("x"),
        per("y")
    );
    assert_eq!(run(&join, &records), ["00:00:00.000 1 1", "00:00:00.010 2 NULL"]);
    let session = "SELECT window_start, count(*) FROM TUMBLE(
            (SELECT window_time AS wt, k FROM SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '0.005' SECOND)
             GROUP BY window_start, window_end, window_time, k), wt, INTERVAL '0.020' SECOND) GROUP BY window_start, window_end";
    assert_eq!(run(session, &records), ["00:00:00.000 3", "00:00:00.020 1"]);
}

#[test]
fn what_does_not_fit_fails() {
    let records = records(&[("a", &[&[("x", i64::MAX, Some(1)), ("x", 1, Some(2))]])]);
    for query in [
        "SELECT sum(n) FROM a",
        "SELECT sum(n) OVER (ORDER BY ts) FROM a",
        "SELECT n + 1 FROM a",
        "SELECT count(*) FROM a WHERE n * 2 > 3",
        "SELECT twice FROM a",
        "SELECT sum(CAST('60000000000000000000000000000000000000' AS DECIMAL(38, 0))) FROM a",
        "SELECT avg(CAST('6000000000000000000000000000000000000' AS DECIMAL(38, 0))) FROM a",
    ] {
        let error = try_run(query, PlanSettings::default(), LateRows::Drop, &records).err();
        let error = error.unwrap_or_else(|| panic!("{query} gives rows"));
        assert_eq!(error.blame, crate::error::Blame::Data, "{query}: {error}");
    }
    let error = try_run("SELECT sum(n) FROM a", PlanSettings::default(), LateRows::Drop, &records).unwrap_err();
    assert_eq!(error.message, "a SUM does not fit into BIGINT");
    assert_eq!(run("SELECT sum(n) FROM a WHERE n > 1", &records), [i64::MAX.to_string()]);
}

#[test]
fn bad_rows_end_it_or_are_skipped() {
    let rows: [Row; 4] = [("x", 1, Some(1)), ("x", 2, None), ("x", 4, Some(i64::MAX)), ("x", i64::MAX, Some(3))];
    let records = records(&[("skipping", &[&rows]), ("a", &[&rows[..2]])]);
    assert_eq!(run("SELECT n FROM skipping", &records), ["1", "9223372036854775807"]);
    assert_eq!(run("SELECT n, twice FROM skipping", &records), ["1 2"]);
    let error = try_run("SELECT n FROM a", PlanSettings::default(), LateRows::Drop, &records).unwrap_err();
    assert!(error.message.contains("offset 1 is bad: its event time ts is null"), "{error}");
}
