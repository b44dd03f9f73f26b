//! What a job counts, and how it is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use super::job::lock;
use crate::connectors::TroubleProbe;
use crate::exec::Counts;
use crate::time::{TIME_MS_LIMIT, TimeMs, WATERMARK_MIN};

/// Counters that threads of a job add to. Rates are for readers to derive.
#[derive(Default)]
pub struct JobMetrics {
    /// Records read from the sources.
    pub records: AtomicU64,
    /// Payload bytes read.
    pub bytes: AtomicU64,
    /// Records that gave no row because they were bad.
    pub skipped: AtomicU64,
    /// Records without a value.
    pub tombstones: AtomicU64,
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

/// What one worker says of itself at a boundary.
#[derive(Clone, Copy, Debug)]
pub struct WorkerReport {
    /// Rows that went no further.
    pub counts: Counts,
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
    /// Records read.
    pub records_in: u64,
    /// Payload bytes read.
    pub bytes_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Rows for which a condition was not true.
    pub filtered: u64,
    /// Rows in time for no window.
    pub late: u64,
    /// Rows late for some of their windows and used for others.
    pub partly_late: u64,
    /// Rows lost because their partition had been idle when the window closed.
    pub lost_to_idleness: u64,
    /// Records skipped: bad ones.
    pub errors: u64,
    /// Records skipped: without a value.
    pub tombstones: u64,
    /// The watermark, as a time (ms), once there is one.
    pub watermark: Option<TimeMs>,
    /// Windows that have not closed.
    pub open_windows: usize,
    /// Bytes of state.
    pub state_bytes: usize,
    /// How long the job ran, or has been running (ms).
    pub elapsed_ms: u64,
}

impl JobMetrics {
    /// Replaces what a worker of a stage has said before.
    pub fn report(&self, stage: usize, worker: usize, report: WorkerReport) {
        lock(&self.per_worker).insert((stage, worker), report);
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
        let reports = lock(&self.per_worker).clone();
        let mut counts = Counts::default();
        let (mut open_windows, mut state_bytes) = (0, 0);
        let mut watermark: Option<TimeMs> = None;
        let last_stage = reports.keys().map(|(stage, _)| *stage).max().unwrap_or(0);
        for ((stage, _), report) in &reports {
            counts.add(report.counts);
            open_windows += report.open_windows;
            state_bytes += report.state_bytes;
            if *stage == last_stage {
                watermark = Some(watermark.map_or(report.watermark, |w| w.min(report.watermark)));
            }
        }
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JobInfo {
            name: String::new(),
            statement: String::new(),
            status: String::new(),
            error: None,
            trouble: self.trouble(),
            records_in: load(&self.records),
            bytes_in: load(&self.bytes),
            rows_out: load(&self.rows_out),
            filtered: counts.filtered,
            late: counts.late,
            partly_late: counts.partly_late,
            lost_to_idleness: counts.lost_to_idleness,
            errors: load(&self.skipped),
            tombstones: load(&self.tombstones),
            watermark: watermark.filter(|w| *w != WATERMARK_MIN && *w < TIME_MS_LIMIT),
            open_windows,
            state_bytes,
            elapsed_ms: 0,
        }
    }
}
