//! The boundary's invariant: what has been given out up to a boundary, and all state at it, is a function of the
//! sources' offsets there (and of the clock events on record) alone.
//!
//! A seed makes a log of some partitions, and a list of boundaries over it. The operators of a plan are then driven as
//! the threads of a job drive them, with other cuts into batches, another interleaving of partitions and messages, and
//! another number of workers each time; at every boundary rows and state must be the same. For plain counts both are
//! also compared with what the definition says.
//!
//! ```text
//! TIDEMILL_SEED=17 cargo test --release --lib runtime::tests     replays one seed
//! ```

mod sessions;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{Int8Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono_tz::Tz;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::exchange::by_owner;
use super::rehearsal::{Rehearsal, sources_of};
use crate::catalog::Catalog;
use crate::change::RowKind;
use crate::connectors::{RawRecord, RawRecords, SourceColumn, SourceRows};
use crate::error::Result;
use crate::exec::{Boundary, Counts, End, Extent};
use crate::plan::{Hidden, Op, PlanSettings, Planner, SourceNode, StreamPlan};
use crate::sql::parse_script;
use crate::sql::statement::Statement;
use crate::state::{GroupTable, PaneKey, PieceKind, Sessions};
use crate::time::{SlicedWindows, TimeMs, WATERMARK_MIN, WindowId};

/// Seeds of one run, per query.
const SEEDS: u64 = 40;

/// Event times are behind the greatest one of their partition by up to so much, and the watermark by a part of that.
const DISORDER_MS: i64 = 60;
const WATERMARK_BEHIND_MS: i64 = 30;
/// That of table `c`.
const WATERMARK_CLOSE_MS: i64 = 5;

const PANE_MIN: PaneKey = (i64::MIN, i64::MIN);
const PANE_MAX: PaneKey = (i64::MAX, i64::MAX);

const TABLES: &str = "
    CREATE TABLE a (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '0.030' SECOND)
        WITH ('connector' = 'kafka', 'topic' = 'a', 'format' = 'json');
    CREATE TABLE b (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '0.030' SECOND)
        WITH ('connector' = 'kafka', 'topic' = 'b', 'format' = 'json');
    CREATE TABLE c (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '0.005' SECOND)
        WITH ('connector' = 'kafka', 'topic' = 'c', 'format' = 'json');
    CREATE TABLE d (k STRING, n BIGINT, ms BIGINT, at AS TO_TIMESTAMP_LTZ(1362850000000 + ms * 600000, 3),
        WATERMARK FOR at AS at - INTERVAL '5' HOUR) WITH ('connector' = 'kafka', 'topic' = 'd', 'format' = 'json');
    CREATE TABLE late_and_bad (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '0.030' SECOND)
        WITH ('connector' = 'kafka', 'topic' = 'late_and_bad', 'format' = 'json', 'scan.late.topic' = 'late',
              'scan.on-error' = 'dead-letter', 'scan.dead-letter.topic' = 'bad');
    CREATE TABLE skipping (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '0.030' SECOND)
        WITH ('connector' = 'kafka', 'topic' = 'skipping', 'format' = 'json', 'scan.on-error' = 'skip');
    CREATE TABLE o (w TIMESTAMP(3), k STRING, c BIGINT, s BIGINT) WITH ('connector' = 'blackhole');
    CREATE TABLE p (w TIMESTAMP(3), k STRING, c BIGINT, s BIGINT) WITH ('connector' = 'blackhole');";

/// Windows of plain counts: (slide, size) in ms.
const COUNTED: [(i64, i64); 4] = [(50, 50), (20, 50), (70, 40), (30, 90)];

/// What else is run.
const OTHERS: [&str; 16] = [
    // No key: one owner for everything.
    "INSERT INTO o SELECT window_start, 'all', count(*), sum(n) FROM TUMBLE(a, ts, INTERVAL '0.040' SECOND)
     GROUP BY window_start, window_end",
    // Sets, and filters both before and in the aggregate.
    "INSERT INTO o SELECT window_start, k, count(DISTINCT n), max(n) FILTER (WHERE n % 2 = 0)
     FROM HOP(a, ts, INTERVAL '0.020' SECOND, INTERVAL '0.060' SECOND) WHERE n % 5 <> 0 GROUP BY window_start, window_end, k",
    // Order: event time, then partition and offset.
    "INSERT INTO o SELECT window_start, k, first_value(n), last_value(n) FROM TUMBLE(a, ts, INTERVAL '0.050' SECOND)
     GROUP BY window_start, window_end, k",
    // An aggregate of an aggregate: three stages.
    "INSERT INTO o SELECT window_start, 'all', count(*), max(c) FROM TUMBLE(
        (SELECT window_time AS wt, k, count(*) AS c FROM TUMBLE(a, ts, INTERVAL '0.020' SECOND)
         GROUP BY window_start, window_end, window_time, k), wt, INTERVAL '0.080' SECOND)
     GROUP BY window_start, window_end",
    // Two sources in one stream.
    "INSERT INTO o SELECT window_start, k, count(*), sum(n) FROM TUMBLE(
        (SELECT k, n, ts FROM a UNION ALL SELECT k, n, ts FROM b), ts, INTERVAL '0.050' SECOND)
     GROUP BY window_start, window_end, k",
    // Windows of two sources joined, rows of one side alone.
    "INSERT INTO o SELECT l.window_start, l.k, l.n, r.n FROM TUMBLE(a, ts, INTERVAL '0.040' SECOND) l
     LEFT JOIN TUMBLE(b, ts, INTERVAL '0.040' SECOND) r
     ON l.window_start = r.window_start AND l.window_end = r.window_end AND l.k = r.k AND l.n <> r.n",
    "INSERT INTO o SELECT l.window_start, l.k, l.n, 0 FROM HOP(a, ts, INTERVAL '0.020' SECOND, INTERVAL '0.060' SECOND) l
     WHERE l.n IN (SELECT r.n FROM HOP(b, ts, INTERVAL '0.020' SECOND, INTERVAL '0.060' SECOND) r
                   WHERE r.window_start = l.window_start AND r.window_end = l.window_end)",
    // The best per window, of rows and of aggregates; ties are broken by what the log says.
    "INSERT INTO o SELECT window_start, k, n, rn FROM (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, k ORDER BY n DESC) AS rn
        FROM TUMBLE(a, ts, INTERVAL '0.050' SECOND)) WHERE rn <= 2",
    "INSERT INTO o SELECT window_start, k, c, rn FROM (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY c DESC) AS rn FROM (
            SELECT window_start, window_end, k, count(*) AS c FROM TUMBLE(a, ts, INTERVAL '0.050' SECOND)
            GROUP BY window_start, window_end, k)) WHERE rn <= 2",
    // What a join gives is aggregated again, in the same windows.
    "INSERT INTO o SELECT window_start, 'all', count(*), sum(c) FROM (
        SELECT l.window_start, l.window_end, l.c FROM (
            SELECT window_start, window_end, k, count(*) AS c FROM TUMBLE(a, ts, INTERVAL '0.050' SECOND)
            GROUP BY window_start, window_end, k) l
        JOIN TUMBLE(b, ts, INTERVAL '0.050' SECOND) r ON l.window_start = r.window_start AND l.window_end = r.window_end)
     GROUP BY window_start, window_end",
    // Two sources of different disorder, and an order that depends on which is which.
    "INSERT INTO o SELECT window_start, k, first_value(n), last_value(n) FROM TUMBLE(
        (SELECT k, n, ts FROM c UNION ALL SELECT k, n, ts FROM a), ts, INTERVAL '0.050' SECOND)
     GROUP BY window_start, window_end, k",
    // Many slices in a window.
    "INSERT INTO o SELECT window_start, k, count(DISTINCT n), min(n)
     FROM HOP(a, ts, INTERVAL '0.010' SECOND, INTERVAL '0.400' SECOND) GROUP BY window_start, window_end, k",
    // Windows that share their start.
    "INSERT INTO o SELECT window_end, k, count(*), max(n)
     FROM CUMULATE(a, ts, INTERVAL '0.020' SECOND, INTERVAL '0.100' SECOND) GROUP BY window_start, window_end, k",
    // Days of 23 hours among others; three of them slide by one.
    "INSERT INTO o SELECT CAST(window_start AS TIMESTAMP(3)), k, count(*), sum(n)
     FROM HOP(d, at, INTERVAL '1' DAY, INTERVAL '3' DAY) GROUP BY window_start, window_end, k",
    "INSERT INTO o SELECT CAST(window_end AS TIMESTAMP(3)), k, count(*), sum(n)
     FROM CUMULATE(d, at, INTERVAL '1' DAY, INTERVAL '7' DAY) GROUP BY window_start, window_end, k",
    // One source, two sinks.
    "EXECUTE STATEMENT SET BEGIN
     INSERT INTO o SELECT window_start, k, count(*), sum(n) FROM TUMBLE(a, ts, INTERVAL '0.050' SECOND)
     GROUP BY window_start, window_end, k;
     INSERT INTO p SELECT ts, k, n, -n FROM a WHERE n % 3 = 0;
     END",
];

/// Rows are turned away: late ones, and those over which an expression fails before, in or between the windows.
const REJECTING: [&str; 6] = [
    "INSERT INTO o SELECT window_start, k, count(*), sum(100 / (n % 7))
     FROM HOP(late_and_bad, ts, INTERVAL '0.020' SECOND, INTERVAL '0.060' SECOND) WHERE 10 / n > 1 OR n > 5
     GROUP BY window_start, window_end, k",
    // The windows' bounds are read: rows are repeated.
    "INSERT INTO o SELECT window_start, k, count(*), max(m + 100 / (n % 7)) FROM
        (SELECT window_start, window_end, k, n, 10 / (n % 5) AS m
         FROM HOP(late_and_bad, ts, INTERVAL '0.020' SECOND, INTERVAL '0.060' SECOND)
         WHERE EXTRACT(MILLISECOND FROM window_start) % 40 = 0) GROUP BY window_start, window_end, k",
    // A table that writes them, one that skips them, and rows of windows beside both.
    "INSERT INTO o SELECT window_start, k, count(*), sum(100 / (n % 7)) FROM TUMBLE(
        (SELECT k, n, ts FROM late_and_bad UNION ALL SELECT k, n, ts FROM skipping UNION ALL SELECT k, 1 + n % 6, ts FROM
            (SELECT window_time AS ts, k, count(*) AS n FROM TUMBLE(late_and_bad, ts, INTERVAL '0.010' SECOND)
             GROUP BY window_start, window_end, window_time, k)),
        ts, INTERVAL '0.050' SECOND) GROUP BY window_start, window_end, k",
    // No windows: nothing is late.
    "INSERT INTO o SELECT ts, k, 10 / n, n FROM late_and_bad WHERE n % 4 <> 1",
    // A join keeps rows of windows, and no records.
    "INSERT INTO o SELECT l.window_start, l.k, l.n, r.n FROM
        (SELECT * FROM TUMBLE(late_and_bad, ts, INTERVAL '0.020' SECOND) WHERE 10 / n > 0) l JOIN
        (SELECT * FROM TUMBLE(skipping, ts, INTERVAL '0.020' SECOND) WHERE n < 3) r
        ON l.window_start = r.window_start AND l.window_end = r.window_end AND l.k = r.k",
    "EXECUTE STATEMENT SET BEGIN
     INSERT INTO o SELECT window_start, k, count(*), sum(10 / n) FROM TUMBLE(late_and_bad, ts, INTERVAL '0.050' SECOND)
     GROUP BY window_start, window_end, k;
     INSERT INTO p SELECT ts, k, n, 10 / (n - 3) FROM late_and_bad UNION ALL SELECT ts, k, n, 0 FROM late_and_bad WHERE n = 4;
     END",
];

pub(super) fn plan(insert: &str) -> StreamPlan {
    plan_with(insert, 0).unwrap()
}

fn plan_with(insert: &str, allowed_lateness_ms: i64) -> Result<StreamPlan> {
    let mut catalog = Catalog::default();
    for parsed in parse_script(TABLES).unwrap() {
        let Statement::CreateTable(create) = parsed.statement else { panic!("a table") };
        let mut table = create.table;
        Planner::new(&catalog).resolve_table(&mut table).unwrap();
        catalog.add_table(table).unwrap();
    }
    let settings = PlanSettings { zone: Tz::America__New_York, allowed_lateness_ms };
    let planner = Planner::with_settings(&catalog, settings);
    let inserts = match parse_script(insert).unwrap().remove(0).statement {
        Statement::Insert(insert) => vec![insert],
        Statement::StatementSet(inserts) => inserts,
        _ => panic!("an insert"),
    };
    let mut queries = Vec::new();
    for insert in &inserts {
        let table = catalog.table(&insert.table).unwrap();
        let plan = planner.into_sink(planner.query(&insert.query)?, table, &insert.columns)?;
        queries.push((planner.continuous(plan, &insert.query)?, Planner::sink_node(table)));
    }
    planner.lower(queries)
}

/// A record.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub offset: i64,
    pub ts: TimeMs,
    pub key: Option<String>,
    pub n: i64,
}

/// What happens at a boundary.
#[derive(Clone, Debug)]
struct Stop {
    /// Per source and partition, how many records have been read.
    read: Vec<Vec<usize>>,
    /// Partitions that are found idle, as (source, partition).
    idle: Vec<(usize, usize)>,
    clock_ms: i64,
    checkpoint: bool,
    end: End,
}

/// A log, and the boundaries over it.
struct Case {
    /// Per source and partition.
    log: Vec<Vec<Vec<Record>>>,
    stops: Vec<Stop>,
    /// Per source and partition, the number of the boundary at which it is found: 0 for those known from the start, which
    /// come first.
    found: Vec<Vec<usize>>,
    /// Per source, the number of the boundary at which it is known to have begun: 0 for one that was not empty.
    begun: Vec<usize>,
    has_idleness: bool,
    /// Partitions end with their last record, and the job when all have.
    bounded: bool,
}

impl Case {
    fn new(seed: u64, sources: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let log: Vec<Vec<Vec<Record>>> =
            (0..sources).map(|_| (0..rng.random_range(1..=4)).map(|_| partition(&mut rng)).collect()).collect();
        let has_idleness = seed % 2 == 1;
        let bounded = rng.random_bool(0.5);
        let mut stops = Vec::new();
        let mut read: Vec<Vec<usize>> = log.iter().map(|source| vec![0; source.len()]).collect();
        let mut clock_ms = 1_000;
        let count = rng.random_range(2..12);
        let mut found: Vec<Vec<usize>> = log.iter().map(|source| vec![0; source.len()]).collect();
        for of_source in &mut found {
            for number in &mut of_source[1..] {
                if has_idleness && !bounded && rng.random_bool(0.3) {
                    *number = rng.random_range(1..count);
                }
            }
            of_source.sort_unstable();
        }
        let is_asleep = |rng: &mut StdRng| has_idleness && rng.random_bool(0.2);
        let begun = (0..sources).map(|_| if is_asleep(&mut rng) { rng.random_range(1..=count) } else { 0 }).collect();
        for number in 1..=count {
            let last = number == count;
            let mut idle = Vec::new();
            for (source, partitions) in log.iter().enumerate() {
                for (partition, records) in partitions.iter().enumerate() {
                    if number <= found[source][partition] {
                        continue;
                    }
                    let left = records.len() - read[source][partition];
                    let silent = rng.random_bool(0.3);
                    let more = if last {
                        left
                    } else if silent {
                        0
                    } else {
                        rng.random_range(0..=left.min(60))
                    };
                    read[source][partition] += more;
                    if has_idleness && more == 0 && rng.random_bool(0.5) {
                        idle.push((source, partition));
                    }
                }
            }
            // Clocks may stand still, and step back.
            clock_ms += rng.random_range(-5..60);
            let end = match (last, bounded) {
                (false, _) => End::GoesOn,
                (true, true) => End::Finished,
                (true, false) => End::Stopped,
            };
            let checkpoint = last || rng.random_bool(0.4);
            stops.push(Stop { read: read.clone(), idle, clock_ms, checkpoint, end });
        }
        Self { log, stops, found, begun, has_idleness, bounded }
    }
}

fn partition(rng: &mut StdRng) -> Vec<Record> {
    let count = if rng.random_bool(0.15) { 0 } else { rng.random_range(1..200) };
    // Some partitions run far ahead of others.
    let (mut offset, mut now) = (rng.random_range(0..3), rng.random_range(-100..300_i64));
    let pace = rng.random_range(1..12);
    (0..count)
        .map(|_| {
            offset += rng.random_range(1..3);
            now += rng.random_range(0..=pace);
            let key = rng.random_range(0..6);
            Record {
                offset,
                ts: now - if rng.random_bool(0.3) { rng.random_range(0..=DISORDER_MS) } else { 0 },
                key: (key > 0).then(|| format!("k{key}")),
                n: rng.random_range(0..20),
            }
        })
        .collect()
}

/// What is seen at a boundary.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    /// All rows given out so far, with their sink and, of a changelog, their kind, sorted.
    rows: Vec<String>,
    /// At a checkpoint, what changed since the last one: per aggregate and pane its groups, sorted.
    deltas: BTreeMap<(usize, PaneKey), Vec<String>>,
    /// The union of all deltas so far, for panes with a window that can still close.
    state: BTreeMap<(usize, PaneKey), Vec<String>>,
    counts: Counts,
    /// Per sink, what became of records.
    by_sink: Vec<Counts>,
    /// What was turned away so far, sorted.
    rejected: Vec<String>,
    watermark: Option<TimeMs>,
    open_windows: usize,
}

/// Each row as a text.
fn texts(columns: &[ArrayRef]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let formatters: Vec<_> = columns.iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    let rows = columns.first().map_or(0, |c| c.len());
    (0..rows).map(|row| formatters.iter().map(|f| f.value(row).to_string()).collect::<Vec<_>>().join(" ")).collect()
}

/// A job over a case.
struct Job {
    rehearsal: Rehearsal,
    rows: Vec<String>,
    rejected: Vec<String>,
    deltas: BTreeMap<(usize, PaneKey), Vec<RecordBatch>>,
    all_deltas: BTreeMap<(usize, PaneKey), Vec<RecordBatch>>,
}

impl Job {
    fn new(plan: &Arc<StreamPlan>, case: &Case, workers: usize) -> Self {
        let known = |found: &Vec<usize>| found.iter().filter(|number| **number == 0).count();
        let partitions: Vec<usize> = case.found.iter().map(known).collect();
        let mut rehearsal = Rehearsal::new(Arc::clone(plan), &partitions, workers, 0).unwrap();
        for (source, begun) in case.begun.iter().enumerate() {
            rehearsal.set_asleep(source, *begun > 0);
        }
        Self { rehearsal, rows: Vec::new(), rejected: Vec::new(), deltas: BTreeMap::new(), all_deltas: BTreeMap::new() }
    }

    /// Reads some records of a partition.
    fn read(&mut self, source: usize, partition: usize, records: &[Record]) {
        let mut raw = RawRecords::default();
        records.iter().for_each(|r| raw.push(None, r.offset.to_string().as_bytes()));
        let rows = SourceRows {
            columns: columns(self.rehearsal.source(source).1, records),
            offsets: records.iter().map(|r| r.offset).collect(),
            records: records.len() as u64,
            raw: Some(raw.take().unwrap()),
            ..SourceRows::default()
        };
        self.rehearsal.read(source, partition, &rows).unwrap();
    }

    /// The groups of partials, merged.
    fn merged(&self, aggregate: usize, partials: &[RecordBatch]) -> Vec<String> {
        let Op::Aggregate(node) = &self.rehearsal.plan().nodes[aggregate].op else {
            // Rows as they are.
            let mut rows: Vec<String> = partials.iter().flat_map(|p| texts(p.columns())).collect();
            rows.sort_unstable();
            return rows;
        };
        let mut table = GroupTable::new(&node.layout).unwrap();
        for partial in partials {
            table.merge(partial).unwrap();
        }
        let (_, columns) = table.finish().unwrap();
        let mut rows = texts(&columns);
        rows.sort_unstable();
        rows
    }

    fn seen(&mut self, checkpoint: bool, watermark: Option<TimeMs>) -> Seen {
        let given = self.rehearsal.take();
        for (sink, batch) in given.rows {
            // What is hidden is not for sinks.
            let node = self.rehearsal.sinks()[sink];
            let visible = self.rehearsal.plan().nodes[node].visible.fields().len();
            let rows = texts(&batch.columns()[..visible]).into_iter().map(|row| format!("{sink}: {row}"));
            match self.rehearsal.plan().input_hidden(node).index(Hidden::KIND, visible) {
                Some(kind) => {
                    let kinds = batch.column(kind).as_primitive::<Int8Type>().values();
                    self.rows
                        .extend(kinds.iter().zip(rows).map(|(k, row)| format!("{} {row}", RowKind::of(*k).sign())));
                }
                None => self.rows.extend(rows),
            }
        }
        for (node, piece) in given.state {
            if let Some(delta) = piece.batch.filter(|_| piece.kind != PieceKind::Given) {
                self.deltas.entry((node, piece.key)).or_default().push(delta.load().unwrap());
            }
        }
        for (sink, rejected) in given.rejected {
            // The record is the offset, as it was read.
            assert_eq!(rejected.record, RawRecord::new(None, rejected.origin.offset.to_string().as_bytes()));
            self.rejected.push(format!("{}: {:?} {:?}", sink.unwrap(), rejected.origin, rejected.rejection));
        }
        let by_sink = self.rehearsal.counts_by_sink();
        let counts = self.rehearsal.counts();
        let (rows, rejected) = (self.rows.clone(), self.rejected.clone());
        let mut seen = Seen { rows, rejected, counts, by_sink, watermark, ..Seen::default() };
        seen.rows.sort_unstable();
        seen.rejected.sort_unstable();
        if !checkpoint {
            return seen;
        }
        let deltas = std::mem::take(&mut self.deltas);
        for ((aggregate, pane), partials) in deltas {
            seen.deltas.insert((aggregate, pane), self.merged(aggregate, &partials));
            self.all_deltas.entry((aggregate, pane)).or_default().extend(partials);
        }
        let Some(watermark) = seen.watermark else { return seen };
        for (&(aggregate, pane), partials) in &self.all_deltas {
            if let Op::Aggregate(node) = &self.rehearsal.plan().nodes[aggregate].op
                && let Some(gap_ms) = node.session_gap_ms()
            {
                if seen.state.contains_key(&(aggregate, PANE_MIN)) {
                    continue;
                }
                let mut open = Sessions::new(Arc::clone(&node.layout), gap_ms);
                for ((_, (slice, _)), partials) in self.all_deltas.range((aggregate, PANE_MIN)..=(aggregate, PANE_MAX))
                {
                    for partial in partials {
                        open.delta(*slice).unwrap().unwrap().merge(partial).unwrap();
                    }
                }
                // What gives out sessions is a millisecond ahead of what it has given out.
                open.close_until(watermark.saturating_add(1), |_| Ok(())).unwrap();
                let mut rows = Vec::new();
                open.close_until(TimeMs::MAX, |ended| {
                    rows.extend(texts(&ended.columns));
                    Ok(())
                })
                .unwrap();
                rows.sort_unstable();
                seen.state.insert((aggregate, PANE_MIN), rows);
                continue;
            }
            let is_open = match &self.rehearsal.plan().nodes[aggregate].op {
                Op::Aggregate(node) => {
                    let own = || node.windows.sliced().unwrap();
                    let windows = if node.assigned { SlicedWindows::hop_ms(1, 1, 0) } else { own() };
                    windows.first_open(watermark) <= windows.last_window(pane.0)
                }
                _ => watermark < pane.0 - 1,
            };
            if is_open {
                seen.state.insert((aggregate, pane), self.merged(aggregate, partials));
            }
        }
        seen
    }
}

/// The columns that a plan's source asks for.
pub(super) fn columns(source: &SourceNode, records: &[Record]) -> Vec<ArrayRef> {
    source
        .columns
        .iter()
        .map(|column| -> ArrayRef {
            let SourceColumn::Physical(name) = column else { panic!("no metadata here") };
            match name.as_str() {
                "k" => Arc::new(records.iter().map(|r| r.key.as_deref()).collect::<StringArray>()),
                "n" => Arc::new(Int64Array::from_iter_values(records.iter().map(|r| r.n))),
                "ms" => Arc::new(Int64Array::from_iter_values(records.iter().map(|r| r.ts))),
                _ => Arc::new(TimestampMillisecondArray::from_iter_values(records.iter().map(|r| r.ts))),
            }
        })
        .collect()
}

/// Runs a case with so many workers; the seed is that of cuts and interleavings.
fn run(plan: &Arc<StreamPlan>, case: &Case, workers: usize, seed: u64) -> Vec<Seen> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut job = Job::new(plan, case, workers);
    let mut read: Vec<Vec<usize>> = case.log.iter().map(|source| vec![0; source.len()]).collect();
    let batch_rows_max = [1, 5, 1_000][rng.random_range(0..3)];
    let mut trace = Vec::new();
    for (sequence, stop) in (1..).zip(&case.stops) {
        loop {
            let behind = |s: usize, p: usize| read[s][p] < stop.read[s][p];
            let left: Vec<(usize, usize)> = (0..read.len())
                .flat_map(|s| (0..read[s].len()).map(move |p| (s, p)))
                .filter(|&(s, p)| behind(s, p))
                .collect();
            if left.is_empty() {
                break;
            }
            let (source, partition) = left[rng.random_range(0..left.len())];
            let from = read[source][partition];
            let to = (from + rng.random_range(1..=batch_rows_max)).min(stop.read[source][partition]);
            job.read(source, partition, &case.log[source][partition][from..to]);
            read[source][partition] = to;
            while rng.random_bool(0.4) && job.rehearsal.deliver(1.., &mut |n| rng.random_range(0..n)).unwrap() {}
        }
        for (source, partitions) in case.log.iter().enumerate().filter(|_| case.bounded) {
            for (partition, records) in partitions.iter().enumerate() {
                if stop.read[source][partition] == records.len() {
                    job.rehearsal.stage(source, partition).set_ended(partition);
                }
            }
        }
        for &(source, partition) in &stop.idle {
            job.rehearsal.stage(source, partition).set_idle(partition);
        }
        for source in 0..case.log.len() {
            let number = usize::try_from(sequence).unwrap();
            case.found[source].iter().filter(|n| **n == number).for_each(|_| job.rehearsal.find(source));
            if case.begun[source] == number {
                job.rehearsal.set_asleep(source, false);
            }
        }
        let boundary = Boundary {
            sequence,
            clock_ms: stop.clock_ms,
            checkpoint: stop.checkpoint.then_some(Extent::Delta),
            end: stop.end,
        };
        let watermark = job.rehearsal.boundary(&boundary, &mut |n| rng.random_range(0..n)).unwrap();
        trace.push(job.seen(stop.checkpoint, watermark));
    }
    trace
}

/// Runs a test for each seed, or for that of the environment; a seed that fails is told with the way to replay it.
fn for_seeds(test: &str, check: impl Fn(u64)) {
    for_so_many_seeds(test, SEEDS, check);
}

fn for_so_many_seeds(test: &str, seeds: u64, check: impl Fn(u64)) {
    let asked = std::env::var("TIDEMILL_SEED").ok().map(|seed| seed.parse().expect("TIDEMILL_SEED is a number"));
    for seed in asked.map_or(0..seeds, |seed: u64| seed..seed + 1) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(seed))) {
            eprintln!("replay it: TIDEMILL_SEED={seed} cargo test --release --lib runtime::tests::{test}");
            resume_unwind(panic);
        }
    }
}

/// All the ways of running a case give the same; answers it.
fn same_however_it_runs(plan: &Arc<StreamPlan>, case: &Case, seed: u64) -> Vec<Seen> {
    let want = run(plan, case, 1, seed);
    for (variant, workers) in [1, 2, 2, 3].into_iter().enumerate() {
        let got = run(plan, case, workers, seed ^ (0x9e37_79b9 * (variant as u64 + 1)));
        for (number, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_eq!(got, want, "boundary {} of {:?}, {workers} workers", number + 1, case.stops);
        }
    }
    want
}

#[test]
fn rows_and_state_are_a_function_of_the_offsets() {
    for (number, insert) in OTHERS.into_iter().enumerate() {
        let plan = Arc::new(plan(insert));
        let sources = plan.nodes.iter().filter(|n| matches!(n.op, Op::Source(_))).count();
        for_seeds("rows_and_state_are_a_function_of_the_offsets", |seed| {
            let case = Case::new(seed * 1_000 + number as u64 * 2 + seed % 2, sources);
            same_however_it_runs(&plan, &case, seed);
        });
    }
}

#[test]
fn what_is_turned_away_is_a_function_of_the_offsets() {
    for (number, insert) in REJECTING.into_iter().enumerate() {
        let plan = Arc::new(plan(insert));
        let sources = plan.sources().count();
        let reads = Rehearsal::new(Arc::clone(&plan), &vec![1; sources], 1, 0).unwrap().reads();
        let (mut late, mut bad, mut skipped) = (0, 0, 0);
        for_so_many_seeds("what_is_turned_away_is_a_function_of_the_offsets", SEEDS / 4, |seed| {
            let case = Case::new(seed * 1_000 + number as u64, sources);
            for (stop, seen) in case.stops.iter().zip(same_however_it_runs(&plan, &case, seed)) {
                check_conservation(&plan, &reads, stop, &seen);
            }
        });
        for seed in 0..SEEDS / 4 {
            let case = Case::new(seed * 1_000 + number as u64, sources);
            let seen = run(&plan, &case, 1, seed).pop().unwrap();
            late += seen.rejected.iter().filter(|r| r.contains("Late {")).count();
            bad += seen.rejected.iter().filter(|r| r.contains("Failed(")).count();
            skipped += seen.counts.skipped;
        }
        // Windows are needed for lateness, and the table that skips for skipping.
        assert_eq!(
            (late > 0, bad > 0, skipped > 0),
            (number != 3, true, number == 2),
            "{late} {bad} {skipped}: {insert}"
        );
    }
}

/// Each record that a statement has read is in one of the terms, once per way that it is read by; and what is told to a
/// topic is what is counted.
fn check_conservation(plan: &StreamPlan, reads: &[Vec<u64>], stop: &Stop, seen: &Seen) {
    let read: Vec<i64> = stop.read.iter().map(|partitions| partitions.iter().sum::<usize>() as i64).collect();
    for (number, (reads, counts)) in reads.iter().zip(&seen.by_sink).enumerate() {
        let records: i64 = read.iter().zip(reads).map(|(read, times)| read * *times as i64).sum();
        let Counts { used, filtered, late, lost_to_idleness, skipped, dead_lettered, .. } = *counts;
        let others = filtered + late + lost_to_idleness + skipped + dead_lettered;
        assert_eq!(records, used + others as i64, "{counts:?}");
        let told = |what: &str| {
            seen.rejected.iter().filter(|r| r.starts_with(&format!("{number}: ")) && r.contains(what)).count() as u64
        };
        assert_eq!(told("Failed("), dead_lettered);
        if plan.sources().all(|source| source.rejects.late_topic.is_some()) {
            assert_eq!(told("Late {"), late + counts.partly_late);
        }
    }
}

#[test]
fn rows_and_state_are_what_the_definition_says() {
    for (slide, size) in COUNTED {
        let insert = format!(
            "INSERT INTO o SELECT window_start, k, count(*), sum(n) FROM HOP(a, ts, INTERVAL '0.0{slide}' SECOND, INTERVAL \
             '0.0{size}' SECOND) GROUP BY window_start, window_end, k"
        );
        let plan = Arc::new(plan(&insert));
        let windows = SlicedWindows::hop_ms(slide, size, 0);
        for_seeds("rows_and_state_are_what_the_definition_says", |seed| {
            let case = Case::new(seed, 1);
            let trace = same_however_it_runs(&plan, &case, seed);
            if !case.has_idleness {
                check_by_definition(windows, &plan, &case, &trace);
            }
        });
    }
}

#[test]
fn a_union_of_different_disorder_is_what_the_definition_says() {
    for (slide, size) in COUNTED {
        let insert = format!(
            "INSERT INTO o SELECT window_start, k, count(*), sum(n) FROM HOP((SELECT k, n, ts FROM a UNION ALL SELECT k, n, ts \
             FROM c), ts, INTERVAL '0.0{slide}' SECOND, INTERVAL '0.0{size}' SECOND) GROUP BY window_start, window_end, k"
        );
        let plan = Arc::new(plan(&insert));
        let windows = SlicedWindows::hop_ms(slide, size, 0);
        for_seeds("a_union_of_different_disorder_is_what_the_definition_says", |seed| {
            let case = Case::new(seed, 2);
            let trace = same_however_it_runs(&plan, &case, seed);
            if !case.has_idleness {
                check_by_definition(windows, &plan, &case, &trace);
            }
        });
    }
}

/// Sums per key.
type Groups = BTreeMap<Option<String>, (i64, i64)>;

fn check_by_definition(windows: SlicedWindows, plan: &StreamPlan, case: &Case, trace: &[Seen]) {
    let behind = |source: &SourceNode| if source.table.name == "c" { WATERMARK_CLOSE_MS } else { WATERMARK_BEHIND_MS };
    let behind: Vec<i64> = sources_of(plan).map(|(_, source)| behind(source)).collect();
    for (number, (stop, seen)) in case.stops.iter().zip(trace).enumerate() {
        let mut by_window: BTreeMap<WindowId, Groups> = BTreeMap::new();
        let mut by_pane: BTreeMap<PaneKey, Groups> = BTreeMap::new();
        let mut counts = Counts::default();
        let mut least = TimeMs::MAX;
        let partitions = case.log.iter().zip(&stop.read).zip(&behind).flat_map(|((log, read), behind)| {
            log.iter().zip(read).map(move |(records, read)| (records, *read, *behind))
        });
        for (records, read, behind) in partitions {
            let mut watermark = WATERMARK_MIN;
            for record in &records[..read] {
                let slice = windows.slice_of(record.ts);
                let (first, last) = (windows.first_window(slice), windows.last_window(slice));
                let open = windows.first_window_from(slice, windows.first_open(watermark));
                if last < first {
                    counts.filtered += 1;
                } else if last < open {
                    counts.late += 1;
                } else {
                    counts.used += 1;
                    counts.partly_late += u64::from(first < open);
                    let pane = by_pane.entry((slice, open)).or_default();
                    add(pane, record);
                    let mut window = open;
                    while window <= last {
                        add(by_window.entry(window).or_default(), record);
                        window += windows.step();
                    }
                }
                watermark = watermark.max(record.ts - behind);
            }
            if !case.bounded || read < records.len() {
                least = least.min(watermark);
            }
        }
        let watermark = if stop.end == End::Finished { TimeMs::MAX } else { least };
        by_window.retain(|window, _| windows.last_instant(*window) <= watermark);
        assert_eq!(seen.rows, rows_of(windows, &by_window), "boundary {}", number + 1);
        assert_eq!(seen.counts, counts, "boundary {}", number + 1);
        if stop.checkpoint {
            by_pane.retain(|(slice, _), _| windows.first_open(watermark) <= windows.last_window(*slice));
            let want: Vec<(PaneKey, Vec<String>)> = by_pane
                .iter()
                .map(|(pane, groups)| {
                    let mut rows: Vec<_> =
                        groups.iter().map(|(k, (c, s))| format!("{} {c} {s}", key_text(k))).collect();
                    rows.sort_unstable();
                    (*pane, rows)
                })
                .collect();
            let got: Vec<_> = seen.state.iter().map(|((_, pane), rows)| (*pane, rows.clone())).collect();
            assert_eq!(got, want, "state at boundary {}", number + 1);
        }
    }
}

/// The rows of windows, sorted.
fn rows_of(windows: SlicedWindows, by_window: &BTreeMap<WindowId, Groups>) -> Vec<String> {
    let start = |ms: i64| {
        let array: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values([ms]));
        texts(&[array]).remove(0)
    };
    let mut rows: Vec<String> = by_window
        .iter()
        .flat_map(|(at, groups)| {
            groups.iter().map(|(k, (c, s))| format!("0: {} {} {c} {s}", start(windows.bounds(*at).0), key_text(k)))
        })
        .collect();
    rows.sort_unstable();
    rows
}

fn key_text(key: &Option<String>) -> String {
    key.clone().unwrap_or_else(|| "NULL".to_owned())
}

fn add(groups: &mut Groups, record: &Record) {
    let group = groups.entry(record.key.clone()).or_default();
    group.0 += 1;
    group.1 += record.n;
}

/// The hash that sends partials to their owners sends all partials of a key to one.
#[test]
fn a_key_has_one_owner() {
    let plan = plan(
        "INSERT INTO o SELECT window_start, k, count(*), max(n) FROM TUMBLE(a, ts, INTERVAL '1' SECOND) GROUP BY window_start, window_end, k",
    );
    let Some(Op::Aggregate(node)) = plan.nodes.iter().map(|n| &n.op).find(|op| matches!(op, Op::Aggregate(_))) else {
        panic!("an aggregate")
    };
    let keys: ArrayRef =
        Arc::new(StringArray::from_iter((0..1_000).map(|n| (n % 10 > 0).then(|| format!("{}", n % 10)))));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
    let columns: Vec<ArrayRef> = [0, 0, 0, 1, 0, 0].map(|c| Arc::clone([&numbers, &keys][c])).to_vec();
    let batch = RecordBatch::try_new(crate::exec::PartialSchema::of(&node.layout), columns).unwrap();
    for workers in 1..5 {
        let parts = by_owner(&batch, 1, workers).unwrap();
        let mut owner: BTreeMap<Option<String>, usize> = BTreeMap::new();
        let mut total = 0;
        for (worker, part) in parts.into_iter().enumerate() {
            let Some(part) = part else { continue };
            total += part.num_rows();
            assert!(part.column(0).as_primitive::<Int64Type>().values().is_sorted(), "rows keep their order");
            for key in part.column(3).as_string::<i32>() {
                assert_eq!(*owner.entry(key.map(str::to_owned)).or_insert(worker), worker, "{key:?}");
            }
        }
        assert_eq!(total, 1_000);
    }
}

/// Queries whose rows may change, without their `EMIT`.
const CHANGING: [&str; 6] = [
    "INSERT INTO o SELECT window_start, k, count(*), sum(n) FROM TUMBLE(a, ts, INTERVAL '0.050' SECOND)
     GROUP BY window_start, window_end, k",
    // What is filtered above goes away when it changes.
    "INSERT INTO o SELECT window_start, k, count(*) AS c, max(n) FROM HOP(a, ts, INTERVAL '0.020' SECOND, INTERVAL '0.060' SECOND)
     GROUP BY window_start, window_end, k HAVING count(*) % 3 <> 1",
    "INSERT INTO o SELECT window_end, 'all', count(DISTINCT n), min(n)
     FROM CUMULATE(a, ts, INTERVAL '0.020' SECOND, INTERVAL '0.100' SECOND) GROUP BY window_start, window_end",
    // Each row in each of its windows.
    "INSERT INTO o SELECT window_start, k, count(*), sum(n)
     FROM (SELECT * FROM HOP(a, ts, INTERVAL '0.020' SECOND, INTERVAL '0.050' SECOND) WHERE window_start <> window_end)
     GROUP BY window_start, window_end, k",
    // The inner aggregate stays final.
    "INSERT INTO o SELECT window_start, 'all', count(*), max(c) FROM TUMBLE(
        (SELECT window_time AS wt, k, count(*) AS c FROM TUMBLE(a, ts, INTERVAL '0.020' SECOND)
         GROUP BY window_start, window_end, window_time, k), wt, INTERVAL '0.080' SECOND)
     GROUP BY window_start, window_end",
    // A changelog beside rows that never change.
    "INSERT INTO o SELECT window_start, k, count(*), sum(n) FROM TUMBLE(a, ts, INTERVAL '0.040' SECOND)
     GROUP BY window_start, window_end, k UNION ALL SELECT ts, k, n, -n FROM a WHERE n % 3 = 0",
];

/// What a changelog comes to: each row as often as it is there.
fn materialized(changes: &[String]) -> BTreeMap<&str, i64> {
    let mut rows = BTreeMap::new();
    for change in changes {
        let (kind, row) = change.split_at(3);
        *rows.entry(row).or_default() += if matches!(kind, "+I " | "+U ") { 1 } else { -1 };
    }
    rows.retain(|_, count| *count != 0);
    assert!(rows.values().all(|count| 0 < *count), "a row is taken back that was not there: {rows:?}");
    rows
}

fn counted(rows: &[String]) -> BTreeMap<&str, i64> {
    let mut counted = BTreeMap::new();
    rows.iter().for_each(|row| *counted.entry(row.as_str()).or_default() += 1);
    counted
}

#[test]
fn a_changelog_comes_to_the_final_rows() {
    for (number, insert) in CHANGING.into_iter().enumerate() {
        let finals = Arc::new(plan(insert));
        for emit in ["EMIT ON UPDATE", "EMIT EVERY INTERVAL '0.05' SECOND"] {
            let changing = Arc::new(plan(&format!("{insert} {emit}")));
            for_seeds("a_changelog_comes_to_the_final_rows", |seed| {
                let case = Case::new(seed * 1_000 + number as u64 * 2 + seed % 2, 1);
                let want = run(&finals, &case, 1, seed);
                let got = same_however_it_runs(&changing, &case, seed);
                for (at, (got, want)) in got.iter().zip(&want).enumerate() {
                    let (there, closed) = (materialized(&got.rows), counted(&want.rows));
                    let is_there = |(row, count): (&&str, &i64)| there.get(row).is_some_and(|there| count <= there);
                    assert!(closed.iter().all(is_there), "boundary {}: {closed:?} in {there:?}", at + 1);
                    if case.stops[at].end == End::Finished {
                        assert_eq!(there, closed);
                    }
                    let of_emission = |seen: &Seen| (seen.deltas.clone(), seen.counts.late, seen.watermark);
                    assert_eq!(of_emission(got), of_emission(want), "emission changes no state");
                }
            });
        }
    }
}

#[test]
fn late_rows_that_are_allowed_correct_closed_windows() {
    for (slide, size, lateness_ms) in [(50, 50, 25), (20, 50, 40), (30, 90, 1_000)] {
        for from in ["HOP", "(SELECT * FROM HOP"] {
            let rest = if from == "HOP" { "" } else { " WHERE window_start <> window_end)" };
            let insert = format!(
                "INSERT INTO o SELECT window_start, k, count(*), sum(n) FROM {from}(a, ts, INTERVAL '0.0{slide}' SECOND, \
                 INTERVAL '0.0{size}' SECOND){rest} GROUP BY window_start, window_end, k"
            );
            let plan = Arc::new(plan_with(&insert, lateness_ms).unwrap());
            let windows = SlicedWindows::hop_ms(slide, size, 0);
            for_seeds("late_rows_that_are_allowed_correct_closed_windows", |seed| {
                let case = Case::new(seed, 1);
                let trace = same_however_it_runs(&plan, &case, seed);
                if !case.has_idleness {
                    check_corrected(windows, lateness_ms, &case, &trace);
                }
            });
        }
    }
}

/// At each boundary the changelog comes to the closed windows over all rows so far that were allowed.
fn check_corrected(windows: SlicedWindows, lateness_ms: i64, case: &Case, trace: &[Seen]) {
    for (number, (stop, seen)) in case.stops.iter().zip(trace).enumerate() {
        let mut by_window: BTreeMap<WindowId, Groups> = BTreeMap::new();
        let mut least = TimeMs::MAX;
        for (records, &read) in case.log[0].iter().zip(&stop.read[0]) {
            let mut watermark = WATERMARK_MIN;
            for record in &records[..read] {
                let slice = windows.slice_of(record.ts);
                let mut window = windows.first_window(slice);
                while window <= windows.last_window(slice) {
                    if watermark.saturating_sub(lateness_ms) < windows.last_instant(window) {
                        add(by_window.entry(window).or_default(), record);
                    }
                    window += windows.step();
                }
                watermark = watermark.max(record.ts - WATERMARK_BEHIND_MS);
            }
            if !case.bounded || read < records.len() {
                least = least.min(watermark);
            }
        }
        let watermark = if stop.end == End::Finished { TimeMs::MAX } else { least };
        by_window.retain(|window, _| windows.last_instant(*window) <= watermark);
        let want = rows_of(windows, &by_window);
        assert_eq!(materialized(&seen.rows), counted(&want), "boundary {}", number + 1);
    }
}

#[test]
fn what_cannot_change_is_refused() {
    let inner = "SELECT window_time AS wt, count(*) AS c FROM TUMBLE(a, ts, INTERVAL '1' SECOND)
        GROUP BY window_start, window_end, window_time";
    let outer = format!(
        "INSERT INTO o SELECT window_start, 'all', count(*), max(c) FROM TUMBLE(({inner}), wt, INTERVAL '10' SECOND)
         GROUP BY window_start, window_end"
    );
    let ranked = "INSERT INTO o SELECT w, k, c, r FROM (SELECT window_start AS w, k, count(*) AS c,
            ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY count(*)) AS r
        FROM TUMBLE(a, ts, INTERVAL '1' SECOND) GROUP BY window_start, window_end, k)";
    for (insert, lateness_ms, want) in [
        ("INSERT INTO o SELECT ts, k, n, n FROM a EMIT CHANGES", 0, "EMIT ON UPDATE is about aggregates per window"),
        ("INSERT INTO o SELECT ts, k, n, n FROM a", 5, ""),
        (&outer, 5, "feeds another one, which needs final rows"),
        (&format!("{outer} EMIT ON UPDATE"), 0, ""),
        (&format!("{ranked} EMIT EVERY INTERVAL '1' SECOND"), 0, "above it need final rows"),
        (ranked, 5, "'table.exec.emit.allow-lateness' makes the aggregate's rows a changelog"),
        (ranked, 0, ""),
    ] {
        match plan_with(insert, lateness_ms) {
            Ok(_) => assert_eq!(want, "", "{insert}"),
            Err(error) => assert!(!want.is_empty() && error.message.contains(want), "{insert}: {error}"),
        }
    }
}
