//! Queries, streams and runs by chance: what a stream gives is what the batch gives over the same records.
//!
//! A seed makes a query (windows, keys, aggregates, filters; cascades, joins, ranks, grouping sets; emission), a log of
//! some partitions (disorder within the bound and beyond it, duplicates, nulls, gaps) and a list of boundaries with idle
//! partitions. The stream plan is driven over the log several times, with other workers, cuts and interleavings each time;
//! all must give the rows that the batch plan gives, which shares no operator with it. Changelogs must come to them.
//! Records are added up: read = used + filtered + late + lost to idleness.
//!
//! ```text
//! cargo test --release --lib property_tests                                      256 cases
//! TIDEMILL_CASES=10000 cargo test --release --lib property_tests -- --nocapture  more, and what there was
//! TIDEMILL_SEED=17 cargo test --release --lib property_tests                     one seed
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use arrow::array::TimestampMillisecondArray;
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int8Type;
use chrono_tz::Tz;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::batch::{PartitionRows, Recorded, answer};
use super::query_test::rows::{Row, difference};
use super::rehearsal::{Rehearsal, sources_of};
use super::state::StoredState;
use crate::catalog::{Catalog, View};
use crate::connectors::{SourceColumn, SourceRows};
use crate::error::{Error, Result};
use crate::exec::{Boundary, Counts, End, Extent};
use crate::plan::{Hidden, LateRows, PlanSettings, Planner, RowKind, SinkNode, SourceNode, StreamPlan};
use crate::sql::parse_script;
use crate::sql::statement::{Query, Statement};
use crate::state::{ChunkReader, ChunkWriter, Piece, Spill, SpillSpace};
use crate::time::TimeMs;

/// Cases of a run that nobody asked for more.
const CASES: u64 = 256;

/// How far rows are behind the greatest event time of their partition, at most, in units; the watermark is behind by less.
const DISORDER: i64 = 80;
const WATERMARK_BEHIND: i64 = 30;

/// The unit of time.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    /// Milliseconds, windows of fixed size.
    Fine,
    /// Ten minutes in New York around the beginning of summer time, windows of days and months.
    Days,
    /// Ten minutes in Berlin around the end of summer time, windows of hours: clocks show two of them alike.
    Hours,
}

impl Scale {
    fn ms(self, units: i64) -> TimeMs {
        match self {
            Self::Fine => units,
            // From 7 March 2024, 00:00 UTC.
            Self::Days => 1_709_769_600_000 + units * 600_000,
            // From 26 October 2024, 00:00 UTC.
            Self::Hours => 1_729_900_800_000 + units * 600_000,
        }
    }

    fn zone(self) -> Tz {
        match self {
            Self::Fine => Tz::UTC,
            Self::Days => Tz::America__New_York,
            Self::Hours => Tz::Europe__Berlin,
        }
    }

    fn tables(self) -> String {
        let (time, behind) = match self {
            Self::Fine => ("TIMESTAMP(3)", "'0.030' SECOND"),
            Self::Days | Self::Hours => ("TIMESTAMP_LTZ(3)", "'300' MINUTE"),
        };
        ["a", "b"]
            .map(|name| {
                format!(
                    "CREATE TABLE {name} (k STRING, m BIGINT, n BIGINT, x DOUBLE, ts {time}, WATERMARK FOR ts AS ts - INTERVAL \
                     {behind}) WITH ('connector' = 'kafka', 'topic' = '{name}', 'format' = 'json');"
                )
            })
            .concat()
            + VIEWS
    }
}

/// Streams with the columns of the tables.
const VIEWS: &str = "
    CREATE VIEW s0 AS SELECT * FROM a WHERE n % 5 <> 0;
    CREATE VIEW s1 AS SELECT k, m, n + 1 AS n, x * 2 AS x, ts FROM a WHERE k IS NOT NULL;
    CREATE VIEW s2 AS SELECT m, ts, k, n, x FROM a;
    CREATE VIEW s3 AS SELECT * FROM a UNION ALL SELECT * FROM b;
    CREATE VIEW s4 AS SELECT k, m, n, x, ts FROM a WHERE m < 2 UNION ALL SELECT k, 7, n, x, ts FROM b WHERE n > 3;";

/// A query, and what is known about it.
#[derive(Clone)]
struct Asked {
    sql: String,
    scale: Scale,
    /// How many of the first columns are a key of the result, if any.
    key_columns: Option<usize>,
    /// The first aggregate counts all rows, and each row is in one window.
    counts_rows: bool,
    /// Windows are kept for so long, and late rows correct them.
    lateness_ms: i64,
    /// What it is called in a summary.
    kind: String,
}

/// Makes a query.
struct Asking<'a> {
    rng: &'a mut StdRng,
    scale: Scale,
    /// Times and sizes are multiples of it: coarse ones meet at the edges of windows and sessions.
    grid: i64,
    kind: String,
}

impl Asking<'_> {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of.choose(self.rng).expect("some")
    }

    fn note(&mut self, what: &str) {
        self.kind.push(' ');
        self.kind.push_str(what);
    }

    /// From the one up to, not including, the other.
    fn size(&mut self, from: i64, to: i64) -> i64 {
        (self.rng.random_range(from..to) / self.grid * self.grid).max(self.grid)
    }

    fn interval(ms: i64) -> String {
        let sign = if ms < 0 { "-" } else { "" };
        format!("INTERVAL '{sign}{}.{:03}' SECOND", ms.abs() / 1_000, ms.abs() % 1_000)
    }

    /// A window function over a table, without its name: the sizes.
    fn window(&mut self) -> (&'static str, String) {
        let kinds: &[&'static str] = match self.scale {
            Scale::Fine => &["TUMBLE", "TUMBLE", "HOP", "HOP", "CUMULATE"],
            Scale::Days | Scale::Hours => &["TUMBLE", "HOP", "CUMULATE"],
        };
        let kind = *kinds.choose(self.rng).expect("some");
        let sizes = match (self.scale, kind) {
            (Scale::Days, "TUMBLE") => {
                self.one(&["INTERVAL '1' DAY", "INTERVAL '2' DAY", "INTERVAL '1' MONTH"]).to_owned()
            }
            (Scale::Days, "HOP") => {
                self.one(&["INTERVAL '1' DAY, INTERVAL '3' DAY", "INTERVAL '2' DAY, INTERVAL '3' DAY"]).to_owned()
            }
            (Scale::Days, _) => "INTERVAL '1' DAY, INTERVAL '3' DAY".to_owned(),
            (Scale::Hours, "TUMBLE") => self.one(&["INTERVAL '1' HOUR", "INTERVAL '30' MINUTE"]).to_owned(),
            (Scale::Hours, "HOP") => "INTERVAL '30' MINUTE, INTERVAL '1' HOUR".to_owned(),
            (Scale::Hours, _) => "INTERVAL '30' MINUTE, INTERVAL '2' HOUR".to_owned(),
            (_, "TUMBLE") => Self::interval(self.size(1, 120)),
            (_, "HOP") => {
                let (slide, size) = (self.size(5, 60), self.size(5, 150));
                format!("{}, {}", Self::interval(slide), Self::interval(size))
            }
            _ => {
                let (step, times) = (self.size(5, 50), self.rng.random_range(1..6));
                format!("{}, {}", Self::interval(step), Self::interval(step * times))
            }
        };
        let has_offset = self.chance(25);
        let offset = match self.scale {
            Scale::Fine if has_offset => format!(", {}", Self::interval(self.rng.random_range(-40..40))),
            _ => String::new(),
        };
        self.note(kind);
        (kind, sizes + &offset)
    }

    /// Something with the columns of the tables.
    fn stream(&mut self) -> &'static str {
        ["a", "a", "a", "a", "s0", "s1", "s2", "s3", "s4"].choose(self.rng).expect("some")
    }

    fn windowed(&mut self, stream: &str) -> (&'static str, String) {
        if self.scale == Scale::Fine && !stream.starts_with('(') && self.chance(20) {
            self.note("SESSION");
            let gap = Self::interval(self.size(2, 60));
            let by = self.one(&["", " PARTITION BY k", " PARTITION BY (k, m)"]);
            return ("SESSION", format!("SESSION(TABLE {stream}{by}, DESCRIPTOR(ts), {gap})"));
        }
        let (kind, sizes) = self.window();
        (kind, format!("{kind}({stream}, ts, {sizes})"))
    }

    fn aggregate(&mut self) -> String {
        let function = self.one(&[
            "COUNT(*)",
            "COUNT(n)",
            "SUM(n)",
            "SUM(x)",
            "AVG(n)",
            "AVG(x)",
            "MIN(n)",
            "MAX(x)",
            "MAX(k)",
            "MIN(ts)",
            "COUNT(DISTINCT n)",
            "COUNT(DISTINCT k)",
            "SUM(DISTINCT n)",
            "FIRST_VALUE(n)",
            "LAST_VALUE(x)",
            "FIRST_VALUE(n ORDER BY x)",
            "LAST_VALUE(k ORDER BY n DESC)",
            "ARRAY_AGG(n)",
            "ARRAY_AGG(n ORDER BY x DESC)",
            "ARRAY_AGG(DISTINCT m)",
            "STRING_AGG(k, '+')",
            "BOOL_AND(n > 3)",
            "STDDEV_SAMP(x)",
            "SUM(n * m) - COUNT(*)",
        ]);
        let can_filter = !function.contains("- ");
        let filter = if can_filter && self.chance(20) { " FILTER (WHERE n % 2 = 0 OR k = 'k1')" } else { "" };
        format!("{function}{filter}")
    }

    fn aggregates(&mut self, first: &str) -> String {
        let mut list = format!("{first} AS v0");
        for at in 1..=self.rng.random_range(0..4) {
            let _ = write!(list, ", {} AS v{at}", self.aggregate());
        }
        list
    }

    fn keys(&mut self) -> &'static [&'static str] {
        [&[] as &[&str], &["k"], &["k"], &["m"], &["k", "m"]].choose(self.rng).expect("some")
    }

    fn any(self) -> Asked {
        match self.rng.random_range(0..100) {
            0..=54 => self.windowed_aggregate(),
            55..=69 => self.cascade(),
            70..=81 => self.join(),
            82..=93 => self.best(),
            _ => self.sets(),
        }
    }

    fn asked(self, sql: String, key_columns: Option<usize>, counts_rows: bool) -> Asked {
        Asked { sql, scale: self.scale, key_columns, counts_rows, lateness_ms: 0, kind: self.kind }
    }

    /// How a query of aggregates emits.
    fn emit(&mut self) -> &'static str {
        let emit =
            ["", "", "", " EMIT ON UPDATE", " EMIT EVERY INTERVAL '0.050' SECOND"].choose(self.rng).expect("some");
        if !emit.is_empty() {
            self.note("EMIT");
        }
        emit
    }

    /// How long windows are kept, in ms.
    fn lateness(&mut self) -> i64 {
        if !self.chance(20) {
            return 0;
        }
        self.note("lateness");
        let units = [1, 25, 60, 2_000].choose(self.rng).expect("some");
        self.scale.ms(*units) - self.scale.ms(0)
    }

    fn windowed_aggregate(mut self) -> Asked {
        let stream = self.stream();
        let (kind, window) = self.windowed(stream);
        let keys = self.keys();
        let first = if self.chance(50) { "COUNT(*)".to_owned() } else { self.aggregate() };
        let aggregates = self.aggregates(&first);
        let condition = match self.rng.random_range(0..12) {
            0 if kind != "SESSION" => " WHERE window_start < ts",
            1 => " WHERE n > 2",
            _ => "",
        };
        let having = if self.chance(15) { " HAVING COUNT(*) > 1" } else { "" };
        let (emit, lateness_ms) = match kind {
            "SESSION" => ("", 0),
            _ => (self.emit(), self.lateness()),
        };
        let by = list(keys);
        let sql = format!(
            "SELECT window_start, window_end{by}, {aggregates} FROM {window}{condition} GROUP BY window_start, window_end{by}{having}{emit}"
        );
        // A condition on windows leaves out rows that are used.
        let leaves_out = !having.is_empty() || condition.contains("window_start");
        let counts_rows = kind == "TUMBLE" && first == "COUNT(*)" && !leaves_out;
        Asked { lateness_ms, ..self.asked(sql, Some(2 + keys.len()), counts_rows) }
    }

    fn cascade(mut self) -> Asked {
        let stream = self.stream();
        let (_, window) = self.windowed(stream);
        let keys = self.keys();
        let by = list(keys);
        let n = self.one(&["SUM(n)", "COUNT(*)", "MAX(n)", "LAST_VALUE(n)"]);
        let inner = format!(
            "(SELECT window_time AS ts, k, {n} AS n, COUNT(*) AS m, SUM(x) AS x FROM {window} \
             GROUP BY window_start, window_end, window_time, k)"
        );
        let inner =
            if keys.contains(&"m") { inner.replace(", k)", ", k, m)").replace("COUNT(*) AS m", "m") } else { inner };
        let (_, sizes) = self.windowed(&inner);
        let emit = self.emit();
        let first = self.aggregate();
        let aggregates = self.aggregates(&first);
        self.note("cascade");
        let sql = format!(
            "SELECT window_start, window_end{by}, {aggregates} FROM {sizes} GROUP BY window_start, window_end{by}{emit}"
        );
        self.asked(sql, Some(2 + keys.len()), false)
    }

    fn join(mut self) -> Asked {
        let (kind, sizes) = self.window();
        let mut side = |table: &str| match self.rng.random_range(0..3) {
            0 => format!("{kind}({table}, ts, {sizes})"),
            1 => format!("(SELECT window_start, window_end, k, n FROM {kind}({table}, ts, {sizes}) WHERE n < 15)"),
            _ => format!(
                "(SELECT window_start, window_end, k, SUM(n) AS n FROM {kind}({table}, ts, {sizes}) \
                 GROUP BY window_start, window_end, k)"
            ),
        };
        let (left, right) = (side("a"), side("b"));
        let how = self.one(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let more = if self.chance(30) { " AND l.n < r.n" } else { "" };
        self.note(how);
        let sql = format!(
            "SELECT l.window_start, l.window_end, l.k, l.n, r.window_end, r.k, r.n FROM {left} l {how} {right} r \
             ON l.window_start = r.window_start AND l.window_end = r.window_end AND l.k = r.k{more}"
        );
        self.asked(sql, None, false)
    }

    fn best(mut self) -> Asked {
        let (kind, sizes) = self.window();
        let stream = self.stream();
        let rows = match self.chance(50) {
            true => format!("SELECT window_start, window_end, k, n FROM {kind}({stream}, ts, {sizes})"),
            false => format!(
                "SELECT window_start, window_end, k, SUM(n) AS n FROM {kind}({stream}, ts, {sizes}) \
                 GROUP BY window_start, window_end, k"
            ),
        };
        if self.chance(30) {
            self.note("over");
            let over = self.one(&[
                "SUM(n) OVER (PARTITION BY window_start, window_end ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
                "SUM(n) OVER (PARTITION BY window_start, window_end, k ORDER BY n ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING)",
                "COUNT(*) OVER (PARTITION BY window_start, window_end ORDER BY n)",
                "SUM(n) OVER (PARTITION BY window_start, window_end)",
                "ARRAY_AGG(n) OVER (PARTITION BY window_start, window_end)",
                "ARRAY_AGG(n) OVER (PARTITION BY window_end ORDER BY k ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)",
                "STRING_AGG(k, '+') OVER (PARTITION BY window_start, window_end ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING \
                 AND UNBOUNDED FOLLOWING)",
                "LAG(n) OVER (PARTITION BY window_start, window_end ORDER BY k)",
                "ARRAY_AGG(n) OVER (PARTITION BY window_start, window_end ORDER BY k)",
            ]);
            let sql = format!("SELECT window_start, window_end, k, n, {over} AS v FROM ({rows})");
            return self.asked(sql, None, false);
        }
        let rank = self.one(&["ROW_NUMBER()", "ROW_NUMBER()", "RANK()", "DENSE_RANK()"]);
        let by = self.one(&["", ", k"]);
        let order = self.one(&["n DESC", "n, k", "k DESC"]);
        let few = self.rng.random_range(1..4);
        self.note("best");
        let sql = format!(
            "SELECT window_start, window_end, k, n, place FROM (SELECT *, {rank} OVER (PARTITION BY window_start, window_end{by} \
             ORDER BY {order}) AS place FROM ({rows})) WHERE place <= {few}"
        );
        self.asked(sql, None, false)
    }

    fn sets(mut self) -> Asked {
        let stream = self.stream();
        let (kind, sizes) = self.window();
        let sets = self.one(&[
            "window_start, window_end, ROLLUP(k, m)",
            "window_start, window_end, CUBE(k, m)",
            "window_start, window_end, GROUPING SETS ((k), (m), ())",
        ]);
        let first = self.aggregate();
        let aggregates = self.aggregates(&first);
        self.note("sets");
        let (emit, lateness_ms) = (self.emit(), self.lateness());
        let sql = format!(
            "SELECT window_start, window_end, k, m, {aggregates} FROM {kind}({stream}, ts, {sizes}) GROUP BY {sets}{emit}"
        );
        Asked { lateness_ms, ..self.asked(sql, None, false) }
    }
}

fn list(keys: &[&str]) -> String {
    keys.iter().map(|key| format!(", {key}")).collect()
}

/// A record.
#[derive(Clone, Debug)]
struct Record {
    offset: i64,
    /// In which interval between boundaries it is read.
    interval: usize,
    ts: TimeMs,
    k: Option<String>,
    m: i64,
    n: Option<i64>,
    x: Option<f64>,
}

/// A log, and the boundaries over it.
#[derive(Clone)]
struct Case {
    /// Of tables a and b, per partition.
    log: [Vec<Vec<Record>>; 2],
    /// Per boundary, partitions of a table that are found idle, and the clock.
    boundaries: Vec<(Vec<(usize, usize)>, TimeMs)>,
    /// Partitions end with their last record, or all together in the end.
    ends_early: bool,
}

impl Case {
    fn new(rng: &mut StdRng, scale: Scale, grid: i64) -> Self {
        let intervals = rng.random_range(1..9);
        let size = *[6, 40, 150].choose(rng).expect("some");
        let mut table =
            || (0..rng.random_range(1..=4)).map(|_| partition(rng, (scale, grid), intervals, size)).collect();
        let log: [Vec<Vec<Record>>; 2] = [table(), table()];
        let has_idleness = rng.random_bool(0.4);
        let ends_early = rng.random_bool(0.5);
        let mut clock_ms = 1_000;
        let boundaries = (0..intervals).map(|interval| {
            let mut idle = Vec::new();
            for (table, partitions) in log.iter().enumerate() {
                for (partition, records) in partitions.iter().enumerate() {
                    let is_silent = records.iter().all(|r| r.interval != interval);
                    if has_idleness && is_silent && rng.random_bool(0.5) {
                        idle.push((table, partition));
                    }
                }
            }
            clock_ms += rng.random_range(-5..60);
            (idle, clock_ms)
        });
        let boundaries = boundaries.collect();
        Self { log, boundaries, ends_early }
    }

    /// Whether a partition that was found idle has records later: then rows may be lost, and the log alone does not say
    /// which.
    fn has_waking(&self) -> bool {
        self.boundaries.iter().enumerate().any(|(at, (idle, _))| {
            idle.iter().any(|&(table, partition)| self.log[table][partition].iter().any(|r| at < r.interval))
        })
    }

    fn records(&self) -> usize {
        self.log.iter().flatten().map(Vec::len).sum()
    }
}

fn partition(rng: &mut StdRng, (scale, grid): (Scale, i64), intervals: usize, size: usize) -> Vec<Record> {
    let count = if rng.random_bool(0.15) { 0 } else { rng.random_range(1..=size) };
    let (mut offset, mut now) = (rng.random_range(0..3), rng.random_range(-100..300_i64));
    let pace = rng.random_range(1..12);
    let mut cuts: Vec<usize> = (0..count).map(|_| rng.random_range(0..intervals)).collect();
    cuts.sort_unstable();
    let mut records: Vec<Record> = Vec::new();
    for interval in cuts {
        offset += rng.random_range(1..3);
        if rng.random_bool(0.1)
            && let Some(last) = records.last().cloned()
        {
            // The same once more.
            records.push(Record { offset, interval, ..last });
            continue;
        }
        now += rng.random_range(0..=pace);
        if rng.random_bool(0.03) {
            now += rng.random_range(100..700);
        }
        let behind = match rng.random_range(0..10) {
            0..=6 => 0,
            7 | 8 => rng.random_range(0..=WATERMARK_BEHIND),
            _ => rng.random_range(0..=DISORDER),
        };
        let key = rng.random_range(0..5);
        records.push(Record {
            offset,
            interval,
            ts: scale.ms((now - behind).div_euclid(grid) * grid),
            k: (key > 0).then(|| format!("k{key}")),
            m: rng.random_range(0..3),
            n: rng.random_bool(0.9).then(|| rng.random_range(-3..20)),
            // Sums of quarters are exact.
            x: rng.random_bool(0.9).then(|| f64::from(rng.random_range(-8..40)) / 4.0),
        });
    }
    records
}

fn column(name: &str, records: &[Record], scale: Scale) -> ArrayRef {
    match name {
        "k" => Arc::new(records.iter().map(|r| r.k.as_deref()).collect::<StringArray>()),
        "m" => Arc::new(Int64Array::from_iter_values(records.iter().map(|r| r.m))),
        "n" => Arc::new(records.iter().map(|r| r.n).collect::<Int64Array>()),
        "x" => Arc::new(records.iter().map(|r| r.x).collect::<Float64Array>()),
        _ => {
            let zone = (scale != Scale::Fine).then_some("UTC");
            let times = TimestampMillisecondArray::from_iter_values(records.iter().map(|r| r.ts));
            Arc::new(times.with_timezone_opt(zone))
        }
    }
}

/// What a run of the stream comes to.
struct Came {
    rows: Vec<Row>,
    counts: Counts,
    bad: u64,
    /// Records, each as often as the statement reads it.
    read: u64,
}

/// How a case is run.
#[derive(Clone, Copy, Debug)]
struct How {
    workers: usize,
    seed: u64,
    /// At checkpoints the job is sometimes ended, and another one goes on from what the log has.
    restarts: bool,
    /// State goes to disk whenever it can; `true` says that it is then worked on part by part.
    spills: Option<bool>,
}

fn run(plan: &Arc<StreamPlan>, asked: &Asked, case: &Case, how: How) -> Result<Came> {
    let mut rng = StdRng::seed_from_u64(how.seed);
    let table = |node: &SourceNode| usize::from(node.table.name == "b");
    let tables: Vec<usize> = sources_of(plan).map(|(_, node)| table(node)).collect();
    let partitions: Vec<usize> = tables.iter().map(|&table| case.log[table].len()).collect();
    let mut job = Rehearsal::new(Arc::clone(plan), &partitions, how.workers, 0)?;
    let space = SpillSpace::new(&std::env::temp_dir(), 1 << 30);
    let spill = how.spills.map(|in_parts| (&space, if in_parts { 0 } else { usize::MAX }));
    if let Some((space, whole_bytes)) = spill {
        job.set_memory(space, whole_bytes);
    }
    // What processes that are gone have counted, and what a log of checkpoints holds.
    let (mut counted, mut bad, mut state) = (Counts::default(), 0, StoredState::default());
    let mut read: Vec<Vec<usize>> = partitions.iter().map(|&count| vec![0; count]).collect();
    let batch_rows_max = *[1, 3, 1_000].choose(&mut rng).expect("some");
    let mut rows: Vec<Row> = Vec::new();
    let last = case.boundaries.len() - 1;
    for (interval, (idle, clock_ms)) in case.boundaries.iter().enumerate() {
        loop {
            let due = |source: usize, partition: usize| {
                let records: &Vec<Record> = &case.log[tables[source]][partition];
                let from = read[source][partition];
                records[from..].iter().take_while(|r| r.interval <= interval).count()
            };
            let left: Vec<(usize, usize, usize)> = (0..tables.len())
                .flat_map(|s| (0..partitions[s]).map(move |p| (s, p)))
                .map(|(s, p)| (s, p, due(s, p)))
                .filter(|(.., due)| *due > 0)
                .collect();
            let Some(&(source, partition, due)) = left.choose(&mut rng) else { break };
            let from = read[source][partition];
            let to = from + rng.random_range(1..=batch_rows_max).min(due);
            let records = &case.log[tables[source]][partition][from..to];
            let columns = job.source(source).1.columns.iter().map(|c| match c {
                SourceColumn::Physical(name) => column(name, records, asked.scale),
                SourceColumn::Metadata { .. } => unreachable!("no metadata is asked for"),
            });
            let rows = SourceRows {
                columns: columns.collect(),
                offsets: records.iter().map(|r| r.offset).collect(),
                records: records.len() as u64,
                ..SourceRows::default()
            };
            job.read(source, partition, &rows)?;
            read[source][partition] = to;
            while rng.random_bool(0.4) && job.deliver(1.., &mut |n| rng.random_range(0..n))? {}
        }
        for (source, &table) in tables.iter().enumerate() {
            for (partition, records) in case.log[table].iter().enumerate() {
                if interval == last || case.ends_early && read[source][partition] == records.len() {
                    job.stage(source, partition).set_ended(partition);
                } else if idle.contains(&(table, partition)) {
                    job.stage(source, partition).set_idle(partition);
                }
            }
        }
        let boundary = Boundary {
            sequence: interval as u64 + 1,
            clock_ms: *clock_ms,
            checkpoint: rng.random_bool(0.4).then(|| if rng.random_bool(0.3) { Extent::Whole } else { Extent::Delta }),
            end: if interval == last { End::Finished } else { End::GoesOn },
        };
        job.boundary(&boundary, &mut |n| rng.random_range(0..n))?;
        let pieces = take(&mut job, &mut rows)?;
        let Some(extent) = boundary.checkpoint.filter(|_| interval < last) else { continue };
        if extent == Extent::Whole {
            state.checkpoints.clear();
        }
        state.checkpoints.push(through_a_log(
            boundary.sequence,
            pieces,
            spill.map(|(space, whole)| Spill::new(space, whole)),
        )?);
        if how.restarts && rng.random_bool(0.5) {
            counted.add(job.counts());
            bad += job.bad();
            let workers = rng.random_range(1..=4);
            let mut next =
                Rehearsal::restored(Arc::clone(plan), &partitions, workers, *clock_ms, state.clone(), spill)?;
            for (source, read) in read.iter().enumerate() {
                for (partition, read) in read.iter().enumerate() {
                    let (before, after) = (job.stage(source, partition), next.stage(source, partition));
                    after.advance_watermark(partition, before.watermark(partition));
                    if before.is_idle(partition) {
                        after.set_idle(partition);
                    }
                    if case.ends_early && *read == case.log[tables[source]][partition].len() {
                        after.set_ended(partition);
                    }
                }
            }
            job = next;
        }
    }
    counted.add(job.counts());
    let of_table = |&table: &usize| case.log[table].iter().map(|records| records.len() as u64).sum::<u64>();
    let read = job.reads()[0].iter().zip(&tables).map(|(times, table)| times * of_table(table)).sum();
    Ok(Came { rows, counts: counted, bad: bad + job.bad(), read })
}

/// What a log of checkpoints makes of pieces of state.
fn through_a_log(checkpoint: u64, pieces: Vec<(usize, Piece)>, to: Option<Arc<Spill>>) -> Result<Vec<(usize, Piece)>> {
    let mut writer = ChunkWriter::new(checkpoint, pieces.into_iter().map(|(node, piece)| (node as u32, piece)));
    let mut chunks = Vec::new();
    while let Some(more) = writer.next_message()? {
        chunks.extend(more);
    }
    let mut reader = ChunkReader::new([(checkpoint, writer.written().0)]).spilling(to.as_ref());
    chunks.iter().try_for_each(|chunk| reader.take(chunk))?;
    Ok(reader.finish()?.concat().into_iter().map(|(node, piece)| (node as usize, piece)).collect())
}

/// Adds what a job has given out to the rows there are: changes are applied. Answers pieces of its state.
fn take(job: &mut Rehearsal, rows: &mut Vec<Row>) -> Result<Vec<(usize, Piece)>> {
    let given = job.take();
    for (sink, batch) in given.rows {
        let node = &job.plan().nodes[job.sinks()[sink]];
        let visible = node.visible.fields().len();
        let kind = job.plan().nodes[node.inputs[0]].hidden.index(Hidden::KIND, visible);
        let given = Row::of_columns(&batch.columns()[..visible], batch.num_rows())?;
        let Some(kind) = kind else {
            rows.extend(given);
            continue;
        };
        let kinds = batch.column(kind).as_primitive::<Int8Type>().values();
        for (row, kind) in given.into_iter().zip(kinds) {
            match RowKind::of(*kind) {
                RowKind::Insert | RowKind::UpdateAfter => rows.push(row),
                RowKind::UpdateBefore | RowKind::Delete => match rows.iter().position(|other| *other == row) {
                    Some(at) => drop(rows.swap_remove(at)),
                    None => return Err(Error::bug(format!("{:?} is taken back and was never given", row.cells))),
                },
            }
        }
    }
    Ok(given.state)
}

/// What became of a case.
#[derive(Debug, PartialEq)]
enum Became {
    /// All runs gave the batch's rows: so many.
    Equal(usize),
    /// All runs gave the same; the batch does not know which rows are lost to idleness.
    Same,
    /// The query is refused: why.
    Refused(String),
}

struct Prepared {
    catalog: Catalog,
    query: Query,
    plan: Arc<StreamPlan>,
}

fn planner<'a>(asked: &Asked, catalog: &'a Catalog) -> Planner<'a> {
    Planner::with_settings(catalog, PlanSettings { zone: asked.scale.zone(), allowed_lateness_ms: asked.lateness_ms })
}

fn prepare(asked: &Asked) -> Result<Prepared> {
    let mut catalog = Catalog::default();
    for parsed in parse_script(&asked.scale.tables())? {
        match parsed.statement {
            Statement::CreateTable(create) => {
                let mut table = create.table;
                Planner::new(&catalog).resolve_table(&mut table)?;
                catalog.add_table(table)?;
            }
            Statement::CreateView(view) => {
                let (ast, text) = (view.query.ast, view.query.text);
                let view = View { name: view.name, columns: view.columns, query: ast, text, temporary: false };
                catalog.add_view(view, false)?;
            }
            other => unreachable!("{other:?}"),
        }
    }
    let Statement::Query(query) = parse_script(&asked.sql)?.remove(0).statement else { unreachable!("a query") };
    let planner = planner(asked, &catalog);
    let plan = planner.continuous(planner.query(&query)?, &query)?;
    let sink = SinkNode { table: None, title: "SELECT".to_owned(), not_null: Vec::new() };
    let plan = Arc::new(planner.lower(vec![(plan, sink)])?);
    Ok(Prepared { query, plan, catalog })
}

fn expected(asked: &Asked, prepared: &Prepared, case: &Case) -> Result<Vec<Row>> {
    let mut recorded = Recorded::new();
    for (name, partitions) in ["a", "b"].into_iter().zip(&case.log) {
        let partition = |records: &Vec<Record>| {
            let columns = ["k", "m", "n", "x", "ts"].map(|name| (name, column(name, records, asked.scale), true));
            let offsets = records.iter().map(|r| r.offset).collect();
            Ok(PartitionRows { rows: RecordBatch::try_from_iter_with_nullable(columns)?, offsets })
        };
        recorded.insert(name.to_owned(), partitions.iter().map(partition).collect::<Result<_>>()?);
    }
    let rows = answer(&planner(asked, &prepared.catalog), &prepared.query, LateRows::Drop, &recorded)?;
    let rows: Vec<Vec<Row>> = rows.batches.iter().map(Row::of).collect::<Result<_>>()?;
    Ok(rows.concat())
}

/// Checks a case; an error says what is wrong.
fn check(asked: &Asked, case: &Case, seed: u64) -> Result<Became, String> {
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let prepared = match prepare(asked) {
            Ok(prepared) => prepared,
            Err(error) if error.blame == crate::error::Blame::Statement => return Ok(Became::Refused(error.message)),
            Err(error) => return Err(format!("planning: {error}")),
        };
        let hows = [1, 1, 2, 3, 4].map(|workers| How {
            workers,
            seed: seed ^ (workers as u64) << 32,
            restarts: 1 < workers,
            spills: (workers % 2 == 0).then_some(workers == 4),
        });
        let first = run(&prepared.plan, asked, case, hows[0]).map_err(|e| format!("{:?}: {e}", hows[0]))?;
        // Another cut with one worker, and another number of workers.
        let spills = (seed % 3 < 2).then_some(seed.is_multiple_of(3));
        let other = How { workers: 1 + (seed % 4) as usize, seed: !seed, restarts: true, spills };
        for how in [other, hows[1 + (seed / 4 % 4) as usize]] {
            let again = run(&prepared.plan, asked, case, how).map_err(|e| format!("{how:?}: {e}"))?;
            if let Some(found) = difference(&first.rows, &again.rows, false) {
                return Err(format!("{how:?} differs from 1 worker: {}\n{}", found.title, found.lines.join("\n")));
            }
            if first.counts != again.counts {
                return Err(format!("{how:?} counts {:?}, 1 worker {:?}", again.counts, first.counts));
            }
        }
        let Counts { used, filtered, late, lost_to_idleness, skipped, dead_lettered, .. } = first.counts;
        let accounted = filtered + late + lost_to_idleness + skipped + dead_lettered + first.bad;
        if i64::try_from(first.read) != Ok(used + i64::try_from(accounted).unwrap_or(i64::MAX)) {
            return Err(format!("{} records were read, but {:?} + bad {}", first.read, first.counts, first.bad));
        }
        if case.has_waking() {
            return Ok(Became::Same);
        }
        let want = expected(asked, &prepared, case).map_err(|e| format!("batch: {e}"))?;
        if let Some(found) = difference(&want, &first.rows, false) {
            return Err(format!("the stream differs from the batch: {}\n{}", found.title, found.lines.join("\n")));
        }
        // Bounds as clocks show them name a window, but for the hour that clocks show twice.
        if let Some(keys) = asked.key_columns.filter(|_| asked.scale != Scale::Hours) {
            let mut seen: Vec<&[String]> = first.rows.iter().map(|row| &row.cells[..keys]).collect();
            seen.sort_unstable();
            if let Some(twice) = seen.windows(2).find(|two| two[0] == two[1]) {
                return Err(format!("two rows have the key {:?}", twice[0]));
            }
        }
        if asked.counts_rows {
            let at = asked.key_columns.unwrap_or_default();
            let counted: i64 = first.rows.iter().map(|row| row.cells[at].parse::<i64>().unwrap_or_default()).sum();
            if counted != first.counts.used {
                return Err(format!("windows count {counted} rows, but {} are used", first.counts.used));
            }
        }
        Ok(Became::Equal(first.rows.len()))
    }));
    caught.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!(
            "a panic: {}",
            text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_default()
        ))
    })
}

fn make(seed: u64) -> (Asked, Case) {
    let mut rng = StdRng::seed_from_u64(seed);
    let scale = match rng.random_range(0..100) {
        0..=11 => Scale::Days,
        12..=26 => Scale::Hours,
        _ => Scale::Fine,
    };
    let grid = *[1, 1, 5, 10].choose(&mut rng).expect("some");
    let asked = Asking { rng: &mut rng, scale, grid, kind: String::new() }.any();
    let case = Case::new(&mut rng, scale, grid);
    (asked, case)
}

/// Leaves records out as long as the case still fails.
fn shrunk(asked: &Asked, case: Case, seed: u64) -> Case {
    let mut case = case;
    let mut tries = 300;
    for table in 0..2 {
        for partition in 0..case.log[table].len() {
            let mut chunk = case.log[table][partition].len();
            while chunk > 0 {
                let mut from = 0;
                while from < case.log[table][partition].len() && tries > 0 {
                    let mut less = case.clone();
                    let to = (from + chunk).min(less.log[table][partition].len());
                    less.log[table][partition].drain(from..to);
                    tries -= 1;
                    if check(asked, &less, seed).is_err() {
                        case = less;
                    } else {
                        from = to;
                    }
                }
                chunk /= 2;
            }
        }
    }
    case
}

fn told(case: &Case) -> String {
    let mut out = String::new();
    for (table, partitions) in ["a", "b"].iter().zip(&case.log) {
        for (partition, records) in partitions.iter().enumerate().filter(|(_, r)| !r.is_empty()) {
            for r in records {
                let (k, n, x) = (r.k.as_deref().unwrap_or("-"), r.n, r.x);
                let _ = writeln!(
                    out,
                    "  {table}.{partition} @{} interval {}: ts {} k {k} m {} n {n:?} x {x:?}",
                    r.offset, r.interval, r.ts, r.m
                );
            }
        }
    }
    let _ = writeln!(out, "  boundaries (idle partitions, clock): {:?}", case.boundaries);
    out
}

/// A case that fails, as small as it becomes, and how to replay it.
fn failure(asked: &Asked, case: Case, seed: u64) -> String {
    let case = shrunk(asked, case, seed);
    let why = check(asked, &case, seed).err().unwrap_or_default();
    format!(
        "seed {seed}:{}\n{} -- allowed lateness {} ms\n{why}\n{} records are left:\n{}replay it: TIDEMILL_SEED={seed} cargo test --release --lib property_tests",
        asked.kind,
        asked.sql,
        asked.lateness_ms,
        case.records(),
        told(&case)
    )
}

/// So many failures are told.
const FAILURES_MAX: usize = 20;

/// What became of all cases.
#[derive(Default)]
struct Summary {
    equal: u64,
    same: u64,
    rows: usize,
    refused: BTreeMap<String, (u64, String)>,
    kinds: BTreeMap<String, u64>,
    failed: BTreeMap<u64, String>,
}

impl Summary {
    fn add(&mut self, asked: &Asked, seed: u64, became: Result<Became, String>) {
        match became {
            Ok(Became::Equal(rows)) => (self.equal, self.rows) = (self.equal + 1, self.rows + rows),
            Ok(Became::Same) => self.same += 1,
            Ok(Became::Refused(why)) => {
                self.refused.entry(why).or_insert_with(|| (0, asked.sql.clone())).0 += 1;
                return;
            }
            Err(failure) => drop(self.failed.insert(seed, failure)),
        }
        for word in asked.kind.split_whitespace() {
            *self.kinds.entry(word.to_owned()).or_default() += 1;
        }
    }
}

#[test]
fn a_stream_gives_what_the_batch_gives() {
    let number = |name: &str| {
        std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let seeds = match (number("TIDEMILL_SEED"), number("TIDEMILL_CASES")) {
        (Some(seed), _) => seed..seed + 1,
        (None, cases) => 0..cases.unwrap_or(CASES),
    };
    let cases = seeds.end - seeds.start;
    let next = AtomicU64::new(seeds.start);
    let summary = Mutex::new(Summary::default());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let thread = thread::Builder::new().stack_size(16 << 20);
            let work = || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seeds.end <= seed || summary.lock().unwrap().failed.len() >= FAILURES_MAX {
                        return;
                    }
                    let (asked, case) = make(seed);
                    let became = check(&asked, &case, seed).map_err(|_| failure(&asked, case, seed));
                    summary.lock().unwrap().add(&asked, seed, became);
                }
            };
            thread.spawn_scoped(scope, work).unwrap();
        }
    });
    let Summary { equal, same, rows, refused, kinds, failed } = summary.into_inner().unwrap();
    println!("{cases} cases: {equal} as the batch ({rows} rows), {same} the same however they ran, of {kinds:?}");
    for (why, (count, sql)) in &refused {
        println!("{count} refused: {why}\n    {sql}");
    }
    assert!(
        failed.is_empty(),
        "{} of {cases} cases failed\n\n{}",
        failed.len(),
        failed.values().cloned().collect::<Vec<_>>().join("\n\n")
    );
    // A test that compares nothing would hold as well.
    assert!(cases == 1 || 2 * equal > cases, "only {equal} of {cases} cases were compared with the batch");
}
