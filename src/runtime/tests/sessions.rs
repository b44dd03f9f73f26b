//! Sessions, against their plain definition: rows of a key sorted by time, cut where more than the gap is between two.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};

use super::{Case, Record, Seen, WATERMARK_BEHIND_MS, for_seeds, plan, same_however_it_runs, texts};
use crate::exec::{Counts, End};
use crate::plan::{Op, StreamPlan};
use crate::time::{TimeMs, WATERMARK_MIN};

/// Gaps (ms).
const GAPS: [i64; 2] = [7, 40];

/// What has sessions of its own.
type Key = (Option<String>, Option<i64>);

fn by_k(record: &Record) -> Key {
    (record.key.clone(), None)
}

fn by_both(record: &Record) -> Key {
    (record.key.clone(), Some(record.n))
}

fn by_nothing(_: &Record) -> Key {
    (None, None)
}

/// A session by the definition.
struct Session {
    key: Key,
    first: TimeMs,
    last: TimeMs,
    count: i64,
    sum: i64,
}

/// What the definition says of a case at a boundary: sessions that have ended, those that are open, and what was late.
fn sessions_at(case: &Case, stop: usize, gap: i64, key: fn(&Record) -> Key) -> (Vec<Session>, Vec<Session>, Counts) {
    let stop = &case.stops[stop];
    let mut rows: BTreeMap<Key, Vec<(TimeMs, i64)>> = BTreeMap::new();
    let mut counts = Counts::default();
    let mut least = TimeMs::MAX;
    for (records, &read) in case.log[0].iter().zip(&stop.read[0]) {
        let mut watermark = WATERMARK_MIN;
        for record in &records[..read] {
            if record.ts <= watermark {
                counts.late += 1;
            } else {
                counts.used += 1;
                rows.entry(key(record)).or_default().push((record.ts, record.n));
            }
            watermark = watermark.max(record.ts - WATERMARK_BEHIND_MS);
        }
        if !case.bounded || read < records.len() {
            least = least.min(watermark);
        }
    }
    let watermark = if stop.end == End::Finished { TimeMs::MAX } else { least };
    let (mut ended, mut open) = (Vec::new(), Vec::new());
    for (key, mut rows) in rows {
        rows.sort_unstable();
        for session in rows.chunk_by(|a, b| b.0 - a.0 <= gap) {
            let (first, last) = (session[0].0, session[session.len() - 1].0);
            let (count, sum) = (session.len() as i64, session.iter().map(|(_, n)| n).sum());
            let session = Session { key: key.clone(), first, last, count, sum };
            if last + gap <= watermark { &mut ended } else { &mut open }.push(session);
        }
    }
    (ended, open, counts)
}

fn shown(ms: TimeMs) -> String {
    let array: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values([ms]));
    texts(&[array]).remove(0)
}

fn or_null(value: &Option<impl ToString>) -> String {
    value.as_ref().map_or_else(|| "NULL".to_owned(), ToString::to_string)
}

/// Compares each boundary of a trace; `row` is what the query gives for a session, `state` what is kept for one.
fn check(
    case: &Case,
    trace: &[Seen],
    gap: i64,
    key: fn(&Record) -> Key,
    row: impl Fn(&Session) -> String,
    state: Option<fn(&Session) -> String>,
) {
    for (number, seen) in trace.iter().enumerate() {
        let (ended, open, counts) = sessions_at(case, number, gap, key);
        let sorted = |sessions: &[Session], row: &dyn Fn(&Session) -> String| {
            let mut rows: Vec<String> = sessions.iter().map(row).collect();
            rows.sort_unstable();
            rows
        };
        assert_eq!(seen.rows, sorted(&ended, &|session| format!("0: {}", row(session))), "boundary {}", number + 1);
        assert_eq!(seen.counts, counts, "boundary {}", number + 1);
        if let (Some(state), true) = (state, case.stops[number].checkpoint) {
            let got: Vec<String> = seen.state.values().flatten().cloned().collect();
            assert_eq!(got, sorted(&open, &state), "state at boundary {}", number + 1);
        }
    }
}

/// Each query has a fifth of the seeds, each seed some of the queries: slices are short here, so that runs take long.
fn for_seeds_of(query: usize, test: &str, check: impl Fn(u64)) {
    for_seeds(&format!("sessions::{test}"), |seed| {
        if (seed as usize + query).is_multiple_of(5) {
            check(seed);
        }
    });
}

fn finds_sessions_itself(plan: &StreamPlan) -> bool {
    !plan.nodes.iter().any(|node| matches!(node.op, Op::Sessions(_)))
}

#[test]
fn aggregates_of_sessions_are_what_the_definition_says() {
    for gap in GAPS {
        let interval = format!("INTERVAL '0.{gap:03}' SECOND");
        let table = format!("SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), {interval})");
        let queries = [
            (
                format!("SELECT window_start, k, count(*), sum(n) FROM {table} GROUP BY window_start, window_end, k"),
                true,
            ),
            (
                format!(
                    "SELECT SESSION_START(ts, {interval}), k, count(*), sum(n) FROM a GROUP BY SESSION(ts, {interval}), k"
                ),
                true,
            ),
            // The condition reads a bound, so rows are kept.
            (
                format!(
                    "SELECT window_start, k, count(*), sum(n) FROM {table} WHERE window_end > TIMESTAMP '1900-01-01 00:00:00'
                     GROUP BY window_start, window_end, k"
                ),
                false,
            ),
        ];
        for (number, (query, itself)) in queries.into_iter().enumerate() {
            let plan = Arc::new(plan(&format!("INSERT INTO o {query}")));
            assert_eq!(finds_sessions_itself(&plan), itself, "{query}");
            let state = |s: &Session| format!("{} {} {} {} {}", or_null(&s.key.0), s.count, s.sum, s.first, s.last);
            for_seeds_of(number, "aggregates_of_sessions_are_what_the_definition_says", |seed| {
                let case = Case::new(seed, 1);
                let trace = same_however_it_runs(&plan, &case, seed);
                if !case.has_idleness {
                    let row = |s: &Session| format!("{} {} {} {}", shown(s.first), or_null(&s.key.0), s.count, s.sum);
                    check(&case, &trace, gap, by_k, row, itself.then_some(state));
                }
            });
        }
    }
}

#[test]
fn sessions_are_of_what_they_are_partitioned_by() {
    let gap = 15;
    let both = "SESSION(TABLE a PARTITION BY (k, n), DESCRIPTOR(ts), INTERVAL '0.015' SECOND)";
    let none = "SESSION(TABLE a, DESCRIPTOR(ts), INTERVAL '0.015' SECOND)";
    /// A query, whether its aggregate finds sessions itself, what they are of, and what it gives for one.
    type Asked = (String, bool, fn(&Record) -> Key, fn(&Session) -> String);
    let queries: [Asked; 4] = [
        (
            format!("SELECT window_end, k, count(*), n FROM {both} GROUP BY n, window_start, k, window_end"),
            true,
            by_both,
            |s| format!("{} {} {} {}", shown(s.last + 15), or_null(&s.key.0), s.count, or_null(&s.key.1)),
        ),
        (
            format!("SELECT window_time, 'all', count(*), sum(n) FROM {none} GROUP BY window_time"),
            true,
            by_nothing,
            |s| format!("{} all {} {}", shown(s.last + 14), s.count, s.sum),
        ),
        (
            "SELECT SESSION_ROWTIME(ts, INTERVAL '0.015' SECOND), 'all', count(*), sum(n) FROM a
             GROUP BY SESSION(ts, INTERVAL '0.015' SECOND)"
                .to_owned(),
            true,
            by_nothing,
            |s| format!("{} all {} {}", shown(s.last + 14), s.count, s.sum),
        ),
        // Rows as they are, put together again: each counts once.
        (
            format!(
                "SELECT window_start, k, count(*), sum(x) FROM (SELECT k, window_start, window_end, n + 0 * n AS x FROM {both}
                 WHERE window_start < window_end) GROUP BY window_start, window_end, k, x"
            ),
            false,
            by_both,
            |s| format!("{} {} {} {}", shown(s.first), or_null(&s.key.0), s.count, s.sum),
        ),
    ];
    for (number, (query, itself, key, row)) in queries.into_iter().enumerate() {
        let plan = Arc::new(plan(&format!("INSERT INTO o {query}")));
        assert_eq!(finds_sessions_itself(&plan), itself, "{query}");
        for_seeds_of(number, "sessions_are_of_what_they_are_partitioned_by", |seed| {
            let case = Case::new(seed, 1);
            let trace = same_however_it_runs(&plan, &case, seed);
            if !case.has_idleness {
                check(&case, &trace, gap, key, row, None);
            }
        });
    }
}

#[test]
fn a_condition_leaves_no_row_out_of_its_session() {
    let count = |from: &str| {
        let query = format!("INSERT INTO o SELECT window_start, k, count(*), sum(n) FROM {from}");
        finds_sessions_itself(&plan(&query))
    };
    let session = "SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '1' SECOND)";
    let keys = "GROUP BY window_start, window_end, k";
    assert!(count(&format!("{session} WHERE k <> 'k1' {keys}")), "whole sessions are left out");
    assert!(count(&format!("(SELECT k, n + 1 AS n, window_start, window_end FROM {session}) {keys}")), "columns");
    assert!(!count(&format!("{session} WHERE n > 3 {keys}")), "some rows of a session");
    assert!(!count(&format!("{session} {keys}, n % 2")), "more keys");
    assert!(
        !count(&format!("(SELECT * FROM {session} UNION ALL SELECT * FROM {session}) {keys}")),
        "two of each session"
    );
    let older =
        "INSERT INTO o SELECT SESSION_START(ts, INTERVAL '1' SECOND), upper(k), count(*), sum(n) FROM a WHERE n > 3
        GROUP BY SESSION(ts, INTERVAL '1' SECOND), upper(k)";
    assert!(finds_sessions_itself(&plan(older)), "the older spelling's sessions are of what WHERE leaves");
}

/// Also where partitions were idle: an aggregate that finds sessions itself and one over kept rows give the same.
#[test]
fn kept_rows_and_partials_make_the_same_sessions() {
    let table = "SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '0.020' SECOND)";
    let [itself, kept] = ["", "WHERE window_start < window_end"].map(|condition| {
        Arc::new(plan(&format!(
            "INSERT INTO o SELECT window_start, k, count(*), sum(n) FROM {table} {condition}
             GROUP BY window_start, window_end, k"
        )))
    });
    assert!(finds_sessions_itself(&itself) && !finds_sessions_itself(&kept));
    for_seeds_of(0, "kept_rows_and_partials_make_the_same_sessions", |seed| {
        let case = Case::new(seed * 2 + 1, 1);
        let (a, b) = (same_however_it_runs(&itself, &case, seed), same_however_it_runs(&kept, &case, seed));
        for (number, (a, b)) in a.iter().zip(&b).enumerate() {
            assert_eq!((&a.rows, a.counts), (&b.rows, b.counts), "boundary {}", number + 1);
        }
    });
}

#[test]
fn sessions_under_and_over_other_windows() {
    let session = "SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '0.020' SECOND)";
    let queries = [
        // Sessions counted per tumbling window of their last instants.
        format!(
            "SELECT window_start, k, count(*), sum(c) FROM TUMBLE((SELECT window_time AS wt, k, count(*) AS c FROM {session}
             GROUP BY window_start, window_end, window_time, k), wt, INTERVAL '0.050' SECOND)
             GROUP BY window_start, window_end, k"
        ),
        // Sessions of sessions.
        "SELECT window_start, k, count(*), sum(c) FROM SESSION((SELECT window_time AS wt, k, count(*) AS c
         FROM TUMBLE(a, ts, INTERVAL '0.010' SECOND) GROUP BY window_start, window_end, window_time, k), wt,
         INTERVAL '0.020' SECOND) GROUP BY window_start, window_end, k"
            .to_owned(),
        // All sessions that end together.
        format!(
            "SELECT window_end, 'all', count(*), sum(c) FROM (SELECT window_end, k, count(*) AS c FROM {session}
             GROUP BY window_start, window_end, k) GROUP BY window_end"
        ),
        // Rows of sessions in other windows.
        format!(
            "SELECT window_start, k, count(*), sum(n) FROM TUMBLE((SELECT window_time AS wt, k, n FROM {session}), wt,
             INTERVAL '0.030' SECOND) GROUP BY window_start, window_end, k"
        ),
        format!("SELECT window_start, k, n, n FROM {session} WHERE n % 2 = 0"),
        format!(
            "SELECT window_start, k, first_value(n), last_value(n) FROM {session} GROUP BY window_start, window_end, k"
        ),
    ];
    for (number, query) in queries.into_iter().enumerate() {
        let plan = Arc::new(plan(&format!("INSERT INTO o {query}")));
        for_seeds_of(number, "sessions_under_and_over_other_windows", |seed| {
            let case = Case::new(seed, 1);
            let trace = same_however_it_runs(&plan, &case, seed);
            let lost: u64 = trace.last().map_or(0, |seen| seen.counts.lost_to_idleness);
            assert!(case.has_idleness || lost == 0, "{query}");
        });
    }
}

#[test]
fn sessions_that_touch_are_one() {
    let session = |times: &[TimeMs]| {
        let record = |(offset, ts): (i64, &TimeMs)| Record { offset, ts: *ts, key: Some("k".to_owned()), n: 1 };
        let log = vec![vec![(0..).zip(times).map(record).collect::<Vec<_>>()]];
        let read = vec![vec![times.len()]];
        let stop = super::Stop { read, idle: vec![], clock_ms: 0, checkpoint: true, end: End::Finished };
        let case =
            Case { log, stops: vec![stop], found: vec![vec![0]], begun: vec![0], has_idleness: false, bounded: true };
        let query = "INSERT INTO o SELECT window_start, k, count(*), sum(n) FROM
            SESSION(TABLE a PARTITION BY k, DESCRIPTOR(ts), INTERVAL '0.010' SECOND) GROUP BY window_start, window_end, k";
        same_however_it_runs(&Arc::new(plan(query)), &case, 1).remove(0).rows
    };
    let rows = |of: &[(TimeMs, i64)]| -> Vec<String> {
        of.iter().map(|(start, count)| format!("0: {} k {count} {count}", shown(*start))).collect()
    };
    assert_eq!(session(&[0, 10]), rows(&[(0, 2)]), "exactly the gap");
    assert_eq!(session(&[0, 11]), rows(&[(0, 1), (11, 1)]), "more than the gap");
    assert_eq!(session(&[0, 20, 10]), rows(&[(0, 3)]), "a bridge");
    assert_eq!(session(&[-5, 4, 13, 22, 31]), rows(&[(-5, 5)]), "a chain over many slices, and before 1970");
    assert_eq!(session(&[0, 40, 10]), rows(&[(0, 1), (40, 1)]), "a bridge that is late: its partition was at 10");
    assert_eq!(session(&[0, 39, 10]), rows(&[(0, 2), (39, 1)]), "one that is just in time");
}
