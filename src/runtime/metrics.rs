//! What a job counts, and how it is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use serde::{Deserialize, Serialize};

use super::job::lock;
use crate::connectors::TroubleProbe;
use crate::exec::Counts;
use crate::time::{TIME_MS_LIMIT, TimeMs, WATERMARK_MAX, WATERMARK_MIN};

/// Counters that threads of a job add to. Rates are for readers to derive.
#[derive(Default)]
pub struct JobMetrics {
    /// What is read, in the order of [`Layout::inputs`].
    inputs: Vec<InputMetrics>,
    layout: Layout,
    /// Rows handed to sinks.
    pub rows_out: AtomicU64,
    /// Boundaries whose rows are outside.
    pub boundaries: AtomicU64,
    /// The wall clock of the last one (ms).
    pub last_boundary_ms: AtomicI64,
    /// What operators count, per worker: replaced at each boundary.
    per_worker: Mutex<BTreeMap<(usize, usize), WorkerReport>>,
    /// What is in the way, told by readers.
    trouble: Mutex<BTreeMap<usize, String>>,
    /// What may be in the way of writers.
    writers: OnceLock<Vec<TroubleProbe>>,
}

/// What a job reads, and what its statements read of that.
#[derive(Default)]
pub struct Layout {
    /// The sources, in the order of their ordinals, then the rows that are computed once: what they are called.
    pub inputs: Vec<String>,
    /// The statements, in the order of their sinks.
    pub statements: Vec<StatementLayout>,
}

/// A statement of a job.
pub struct StatementLayout {
    /// The table that it writes to; `SELECT` if it writes to none.
    pub sink: String,
    /// Per input, how often it reads each record: a union may read a table twice.
    pub reads: Vec<u64>,
}

impl InputMetrics {
    /// Adds what a worker has read.
    pub fn add(&self, read: ReadCounts) {
        let add = |counter: &AtomicU64, more| counter.fetch_add(more, Ordering::Relaxed);
        add(&self.records, read.records);
        add(&self.bytes, read.bytes);
        add(&self.skipped, read.skipped);
        add(&self.dead_lettered, read.dead_lettered);
        add(&self.tombstones, read.tombstones);
    }
}

/// What has been read of one input.
#[derive(Default)]
pub struct InputMetrics {
    /// Records.
    pub records: AtomicU64,
    /// Payload bytes.
    pub bytes: AtomicU64,
    /// Bad records that gave no row.
    pub skipped: AtomicU64,
    /// Bad records that went to a topic.
    pub dead_lettered: AtomicU64,
    /// Records without a value.
    pub tombstones: AtomicU64,
}

/// What had been counted at a boundary, for whoever goes on from there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Per source.
    pub sources: Vec<ReadCounts>,
    /// Per statement.
    pub statements: Vec<Counts>,
    /// Rows written.
    pub rows_out: u64,
}

/// What has been read of one source, by one worker or all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCounts {
    /// Records.
    pub records: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Bad records that gave no row.
    pub skipped: u64,
    /// Bad records that went to a topic.
    pub dead_lettered: u64,
    /// Records without a value.
    pub tombstones: u64,
}

impl ReadCounts {
    /// Adds another count.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.skipped += other.skipped;
        self.dead_lettered += other.dead_lettered;
        self.tombstones += other.tombstones;
    }
}

/// What one worker says of itself at a boundary.
#[derive(Clone, Debug)]
pub struct WorkerReport {
    /// Per statement, what became of records.
    pub counts: Vec<Counts>,
    /// How far the worker's sinks have come.
    pub watermark: TimeMs,
    /// Windows that have not closed.
    pub open_windows: usize,
    /// Bytes of state.
    pub state_bytes: usize,
}

/// A job as people see it.
#[derive(Clone, Debug)]
pub struct JobInfo {
    /// The job's name.
    pub name: String,
    /// Its statement, on one line.
    pub statement: String,
    /// `running`, `stopping`, `finished`, `stopped`, `failed`.
    pub status: String,
    /// Why it failed.
    pub error: Option<String>,
    /// What is in the way at this moment, such as a broker that is away.
    pub trouble: Option<String>,
    /// How often it has started over by itself, from its last commit.
    pub restarts: u64,
    /// Why it did so last.
    pub last_restart: Option<String>,
    /// Records read.
    pub records_in: u64,
    /// Payload bytes read.
    pub bytes_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Records that count for a window or were written, once per statement that reads them; as all that follow.
    pub used: u64,
    /// Rows for which a condition was not true.
    pub filtered: u64,
    /// Rows in time for no window.
    pub late: u64,
    /// Rows late for some of their windows and used for others.
    pub partly_late: u64,
    /// Rows lost because their partition had been idle when the window closed.
    pub lost_to_idleness: u64,
    /// Bad records that were skipped: in a source once, in a statement's expressions once per statement.
    pub errors: u64,
    /// Bad records that went to a topic, counted likewise.
    pub dead_lettered: u64,
    /// Records skipped: without a value.
    pub tombstones: u64,
    /// What was read of each source.
    pub sources: Vec<SourceInfo>,
    /// What became of it in each statement.
    pub statements: Vec<StatementInfo>,
    /// The watermark, as a time (ms), once there is one.
    pub watermark: Option<TimeMs>,
    /// Windows that have not closed.
    pub open_windows: usize,
    /// Bytes of state.
    pub state_bytes: usize,
    /// How long the job ran, or has been running (ms).
    pub elapsed_ms: u64,
}

/// What a job has read of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceInfo {
    /// The table.
    pub table: String,
    /// Records read.
    pub records_in: u64,
    /// Payload bytes read.
    pub bytes_in: u64,
    /// Records that are no rows and were skipped.
    pub errors: u64,
    /// Records that are no rows and went to a topic.
    pub dead_lettered: u64,
    /// Records without a value.
    pub tombstones: u64,
}

/// What became of the records that a statement reads. Each is in one of the terms:
/// `records_in = used + filtered + late + lost_to_idleness + errors + dead_lettered + tombstones`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatementInfo {
    /// The table that it writes to; `SELECT` if it writes to none.
    pub sink: String,
    /// Records read, from all its sources; twice where a union reads a table twice.
    pub records_in: u64,
    /// Records that count for a window or were written.
    pub used: u64,
    /// Rows for which a condition was not true.
    pub filtered: u64,
    /// Rows in time for no window.
    pub late: u64,
    /// Of those used, rows that were late for some of their windows.
    pub partly_late: u64,
    /// Rows lost because their partition had been idle when the window closed.
    pub lost_to_idleness: u64,
    /// Bad records that were skipped.
    pub errors: u64,
    /// Bad records that went to a topic.
    pub dead_lettered: u64,
    /// Records without a value.
    pub tombstones: u64,
}

impl JobMetrics {
    /// Nothing counted yet.
    pub fn new(layout: Layout) -> Self {
        let inputs = layout.inputs.iter().map(|_| InputMetrics::default()).collect();
        Self { inputs, layout, ..Self::default() }
    }

    /// For a batch, which counts what it reads together.
    pub fn of_batch(name: String) -> Self {
        Self::new(Layout { inputs: vec![name], statements: Vec::new() })
    }

    /// The counters of an input.
    pub fn input(&self, index: usize) -> &InputMetrics {
        &self.inputs[index]
    }

    /// Replaces what a worker of a stage has said before.
    pub fn report(&self, stage: usize, worker: usize, report: WorkerReport) {
        lock(&self.per_worker).insert((stage, worker), report);
    }

    /// What operators have counted up to the boundary at which all have reported last, per statement.
    pub fn counts(&self) -> Vec<Counts> {
        let mut counts = vec![Counts::default(); self.layout.statements.len()];
        for report in lock(&self.per_worker).values() {
            counts.iter_mut().zip(&report.counts).for_each(|(sum, of_worker)| sum.add(*of_worker));
        }
        counts
    }

    /// Goes on from what an earlier run had counted.
    pub fn restore(&self, counters: &Counters) {
        for (input, read) in self.inputs.iter().zip(&counters.sources) {
            input.add(*read);
        }
        self.rows_out.store(counters.rows_out, Ordering::Relaxed);
        // As if by one worker more.
        let counts = counters.statements.clone();
        let report = WorkerReport { counts, watermark: WATERMARK_MAX, open_windows: 0, state_bytes: 0 };
        self.report(0, usize::MAX, report);
    }

    /// A reader's sentence on why nothing arrives, or that it is well again.
    pub fn set_trouble(&self, worker: usize, trouble: Option<String>) {
        let mut all = lock(&self.trouble);
        match trouble {
            Some(trouble) => all.insert(worker, trouble),
            None => all.remove(&worker),
        };
    }

    /// How to ask writers what is in their way.
    pub fn set_writers(&self, probes: Vec<TroubleProbe>) {
        // A job opens its writers once.
        let _ = self.writers.set(probes);
    }

    fn trouble(&self) -> Option<String> {
        let of_reader = lock(&self.trouble).values().next().cloned();
        of_reader.or_else(|| self.writers.get()?.iter().find_map(|probe| probe()))
    }

    /// The counters at this moment; the job fills in what it knows itself.
    pub fn info(&self) -> JobInfo {
        // What is read is counted at once, what becomes of it is told at boundaries: in this order no term is ahead.
        let reports = lock(&self.per_worker).clone();
        let mut counts = vec![Counts::default(); self.layout.statements.len()];
        let (mut open_windows, mut state_bytes) = (0, 0);
        let mut watermark: Option<TimeMs> = None;
        let last_stage = reports.keys().map(|(stage, _)| *stage).max().unwrap_or(0);
        for ((stage, _), report) in &reports {
            counts.iter_mut().zip(&report.counts).for_each(|(sum, of_worker)| sum.add(*of_worker));
            open_windows += report.open_windows;
            state_bytes += report.state_bytes;
            if *stage == last_stage {
                watermark = Some(watermark.map_or(report.watermark, |w| w.min(report.watermark)));
            }
        }
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let source = |(table, input): (&String, &InputMetrics)| SourceInfo {
            table: table.clone(),
            records_in: load(&input.records),
            bytes_in: load(&input.bytes),
            errors: load(&input.skipped),
            dead_lettered: load(&input.dead_lettered),
            tombstones: load(&input.tombstones),
        };
        let sources: Vec<SourceInfo> = self.layout.inputs.iter().zip(&self.inputs).map(source).collect();
        let statement = |(layout, counts): (&StatementLayout, &Counts)| {
            let read = |term: fn(&SourceInfo) -> u64| sources.iter().zip(&layout.reads).map(|(s, n)| n * term(s)).sum();
            let in_sources: (u64, u64) = (read(|s| s.errors), read(|s| s.dead_lettered));
            StatementInfo {
                sink: layout.sink.clone(),
                records_in: read(|s| s.records_in),
                used: u64::try_from(counts.used).unwrap_or(0),
                filtered: counts.filtered,
                late: counts.late,
                partly_late: counts.partly_late,
                lost_to_idleness: counts.lost_to_idleness,
                errors: counts.skipped + in_sources.0,
                dead_lettered: counts.dead_lettered + in_sources.1,
                tombstones: read(|s| s.tombstones),
            }
        };
        let statements: Vec<StatementInfo> = self.layout.statements.iter().zip(&counts).map(statement).collect();
        let all = |term: fn(&SourceInfo) -> u64| sources.iter().map(term).sum::<u64>();
        let sum = |term: fn(&StatementInfo) -> u64| statements.iter().map(term).sum::<u64>();
        let in_statements = |term: fn(&Counts) -> u64| counts.iter().map(term).sum::<u64>();
        JobInfo {
            name: String::new(),
            statement: String::new(),
            status: String::new(),
            error: None,
            trouble: self.trouble(),
            restarts: 0,
            last_restart: None,
            records_in: all(|s| s.records_in),
            bytes_in: all(|s| s.bytes_in),
            rows_out: load(&self.rows_out),
            used: sum(|s| s.used),
            filtered: sum(|s| s.filtered),
            late: sum(|s| s.late),
            partly_late: sum(|s| s.partly_late),
            lost_to_idleness: sum(|s| s.lost_to_idleness),
            errors: all(|s| s.errors) + in_statements(|c| c.skipped),
            dead_lettered: all(|s| s.dead_lettered) + in_statements(|c| c.dead_lettered),
            tombstones: all(|s| s.tombstones),
            watermark: watermark.filter(|w| *w != WATERMARK_MIN && *w < TIME_MS_LIMIT),
            open_windows,
            state_bytes,
            elapsed_ms: 0,
            sources,
            statements,
        }
    }
}
