//! What a job counts, and what its threads say of themselves.
//!
//! Workers count what they read as they read it, batch by batch, and tell everything else at boundaries: so nothing here
//! costs anything per record. Who asks for a [`JobInfo`] puts it all together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::account::{counts_of, given_of, ms, operators, partition, statement, told, totals};
use super::clock;
use super::info::{CheckpointInfo, CommitInfo, JobInfo, PartitionState, SourceInfo, StatementInfo};
use super::job::lock;
use super::rates::{Rates, Totals};
use crate::connectors::{PartitionId, TroubleProbe};
use crate::exec::{Counts, NodeReport};
use crate::plan::{NodeId, Op, StreamPlan};
use crate::time::TimeMs;

/// What threads of a job count and say.
pub struct JobMetrics {
    /// What is read, in the order of [`Layout::inputs`].
    inputs: Vec<InputMetrics>,
    /// What earlier runs had counted.
    before: Mutex<Counters>,
    layout: Layout,
    begun: Instant,
    /// Rows handed to sinks.
    pub rows_out: AtomicU64,
    /// What workers say, by stage and number: replaced at each boundary.
    workers: Mutex<BTreeMap<(usize, usize), WorkerReport>>,
    /// What they say of their shares of the sources, by source and worker: replaced likewise.
    shares: Mutex<BTreeMap<(usize, usize), Vec<PartitionReport>>>,
    /// What the committing thread says.
    commits: Mutex<Commits>,
    rates: Mutex<Rates>,
    /// What is in the way, told by readers.
    trouble: Mutex<BTreeMap<usize, String>>,
    /// What may be in the way of writers.
    writers: OnceLock<Vec<TroubleProbe>>,
}

/// What a job reads, and what its statements read of that.
#[derive(Default)]
pub struct Layout {
    /// The sources, in the order of their ordinals, then the rows that are computed once.
    pub inputs: Vec<InputLayout>,
    /// The statements, in the order of their sinks.
    pub statements: Vec<StatementLayout>,
    /// What runs.
    pub plan: Option<Arc<StreamPlan>>,
    /// Between two boundaries; `None` if there are none.
    pub commit_interval: Option<Duration>,
}

/// Something that a job reads.
#[derive(Default)]
pub struct InputLayout {
    /// What it is called.
    pub name: String,
    /// Its watermark is made of its records.
    pub has_event_time: bool,
    /// How long a partition stays at its end before it is idle; `None` is for ever.
    pub idle_timeout: Option<Duration>,
    /// Whether the clock moves the watermark on while all partitions are idle.
    pub advances_when_idle: bool,
}

/// A statement of a job.
#[derive(Default)]
pub struct StatementLayout {
    /// The table that it writes to; `SELECT` if it writes to none.
    pub sink: String,
    /// Per input, how often it reads each record: a union may read a table twice.
    pub reads: Vec<u64>,
    /// Its nodes whose rows come out when windows close.
    pub windows: Vec<NodeId>,
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
    /// Rows given out, per statement.
    pub given: Vec<u64>,
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
#[derive(Clone, Debug, Default)]
pub struct WorkerReport {
    /// Its nodes.
    pub nodes: Vec<WorkerNode>,
    /// How far the sinks have come that it feeds; the others are at the end of time.
    pub reached: Vec<TimeMs>,
    /// How long it has waited for those behind it to take its rows.
    pub waited: Duration,
}

/// A node of the plan in a worker.
#[derive(Clone, Debug)]
pub struct WorkerNode {
    /// Which node.
    pub node: NodeId,
    /// The statement whose it is.
    pub statement: Option<usize>,
    /// Rows leave here.
    pub is_sink: bool,
    /// How it is.
    pub report: NodeReport,
}

/// What a worker says of a partition at a boundary.
#[derive(Clone, Debug)]
pub struct PartitionReport {
    pub index: usize,
    pub id: PartitionId,
    pub start: i64,
    pub next_offset: i64,
    pub end: Option<i64>,
    pub watermark: TimeMs,
    pub state: PartitionState,
    pub last_record: Option<Instant>,
    pub at_end_since: Option<Instant>,
}

/// What the committing thread says.
#[derive(Default)]
struct Commits {
    /// The boundary that was called last, and when.
    called: Option<(u64, Instant)>,
    commit: Option<(u64, Instant, Duration)>,
    checkpoint: Option<(u64, Instant, Duration, u64)>,
    /// The last boundary of a replay.
    replay_until: u64,
    /// How many rows had been written at the last commit, and when there were more than before.
    rows: u64,
    rows_since: Option<Instant>,
}

impl JobMetrics {
    /// Nothing counted yet.
    pub fn new(layout: Layout) -> Self {
        let inputs = layout.inputs.iter().map(|_| InputMetrics::default()).collect();
        let nothing = Totals { statements: vec![Default::default(); layout.statements.len()], ..Totals::default() };
        Self {
            inputs,
            layout,
            begun: clock::now(),
            rows_out: AtomicU64::new(0),
            before: Mutex::default(),
            workers: Mutex::default(),
            shares: Mutex::default(),
            commits: Mutex::default(),
            rates: Mutex::new(Rates::new(clock::now(), nothing)),
            trouble: Mutex::default(),
            writers: OnceLock::new(),
        }
    }

    /// For a batch, which counts what it reads together.
    pub fn of_batch(name: String) -> Self {
        Self::new(Layout { inputs: vec![InputLayout { name, ..InputLayout::default() }], ..Layout::default() })
    }

    /// What runs, if it is a stream plan.
    pub fn plan(&self) -> Option<&Arc<StreamPlan>> {
        self.layout.plan.as_ref()
    }

    /// The counters of an input.
    pub fn input(&self, index: usize) -> &InputMetrics {
        &self.inputs[index]
    }

    /// Replaces what a worker of a stage has said before.
    pub fn report(&self, stage: usize, worker: usize, report: WorkerReport) {
        lock(&self.workers).insert((stage, worker), report);
    }

    /// Replaces what a worker has said of its share of a source.
    pub fn report_share(&self, source: usize, worker: usize, partitions: Vec<PartitionReport>) {
        lock(&self.shares).insert((source, worker), partitions);
    }

    /// What operators have counted up to the boundary at which all have reported last, per statement.
    pub fn counts(&self) -> Vec<Counts> {
        let reports = lock(&self.workers);
        let before = lock(&self.before);
        (0..self.layout.statements.len()).map(|number| counts_of(number, &before, &reports)).collect()
    }

    /// The rows that statements have given out up to there.
    pub fn given(&self) -> Vec<u64> {
        let reports = lock(&self.workers);
        let before = lock(&self.before);
        (0..self.layout.statements.len()).map(|number| given_of(number, &before, &reports)).collect()
    }

    /// Goes on from what an earlier run had counted.
    pub fn restore(&self, counters: &Counters) {
        for (input, read) in self.inputs.iter().zip(&counters.sources) {
            input.add(*read);
        }
        self.rows_out.store(counters.rows_out, Ordering::Relaxed);
        *lock(&self.before) = counters.clone();
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

    /// Boundaries up to this one are gone through again.
    pub fn set_replay(&self, until: u64) {
        lock(&self.commits).replay_until = until;
    }

    /// A boundary is called.
    pub fn note_call(&self, sequence: u64) {
        let now = clock::now();
        let mut commits = lock(&self.commits);
        let before = commits.called.replace((sequence, now)).map_or(0, |(before, _)| before);
        if before <= commits.replay_until && commits.replay_until < sequence {
            // What was gone through again is not what is done now.
            commits.rows = self.rows_out.load(Ordering::Relaxed);
            drop(commits);
            *lock(&self.rates) = Rates::new(now, totals(&self.counted()));
        }
    }

    /// A boundary is committed, which took so long from when all its rows were there.
    pub fn note_commit(&self, sequence: u64, duration: Duration) {
        let now = clock::now();
        let rows = self.rows_out.load(Ordering::Relaxed);
        let mut commits = lock(&self.commits);
        commits.commit = Some((sequence, now, duration));
        if std::mem::replace(&mut commits.rows, rows) != rows {
            commits.rows_since = Some(now);
        }
        drop(commits);
        let mut rates = lock(&self.rates);
        if rates.is_due(now) {
            let info = self.counted();
            rates.sample(now, totals(&info));
        }
    }

    /// Whether any boundary has been committed.
    pub fn has_committed(&self) -> bool {
        lock(&self.commits).commit.is_some()
    }

    /// A checkpoint is complete: a restart goes on from its boundary. It took so long, and needs so many bytes of the log.
    pub fn note_checkpoint(&self, sequence: u64, duration: Duration, bytes: u64) {
        lock(&self.commits).checkpoint = Some((sequence, clock::now(), duration, bytes));
    }

    /// Everything at this moment; the job fills in what it knows itself.
    pub fn info(&self) -> JobInfo {
        let now = clock::now();
        let mut info = self.counted();
        let totals = totals(&info);
        let lately = lock(&self.rates).lately(now, &totals);
        info.records_per_second = lately.per_second(lately.totals.records_in);
        info.rows_per_second = lately.per_second(lately.totals.rows_out);
        for (statement, lately) in info.statements.iter_mut().zip(lately.totals.statements) {
            statement.lately = lately;
        }
        self.add_partitions(&mut info, now);
        self.add_commits(&mut info, now);
        info.trouble = self.trouble();
        info
    }

    /// What is counted, and what workers say.
    fn counted(&self) -> JobInfo {
        // What is read is counted at once, what becomes of it is told at boundaries: in this order no term is ahead.
        let reports = lock(&self.workers).clone();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let source = |(layout, input): (&InputLayout, &InputMetrics)| SourceInfo {
            table: layout.name.clone(),
            records_in: load(&input.records),
            bytes_in: load(&input.bytes),
            errors: load(&input.skipped),
            dead_lettered: load(&input.dead_lettered),
            tombstones: load(&input.tombstones),
            has_event_time: layout.has_event_time,
            idle_timeout_ms: layout.idle_timeout.map(ms),
            advances_when_idle: layout.advances_when_idle,
            partitions: Vec::new(),
        };
        let sources: Vec<SourceInfo> = self.layout.inputs.iter().zip(&self.inputs).map(source).collect();
        let operators = operators(&reports, |node| self.has_own_windows(node));
        let before = lock(&self.before).clone();
        let statement = |(number, layout)| statement(number, layout, &sources, &reports, &operators, &before);
        let statements: Vec<StatementInfo> = self.layout.statements.iter().enumerate().map(statement).collect();

        let all = |term: fn(&SourceInfo) -> u64| sources.iter().map(term).sum::<u64>();
        let sum = |term: fn(&StatementInfo) -> u64| statements.iter().map(term).sum::<u64>();
        let nodes = || reports.values().flat_map(|report| &report.nodes);
        let counts: Vec<Counts> = (0..statements.len()).map(|number| counts_of(number, &before, &reports)).collect();
        let in_statements = |term: fn(&Counts) -> u64| counts.iter().map(term).sum::<u64>();
        JobInfo {
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
            watermark: told(reports.values().flat_map(|report| &report.reached).min().copied()),
            open_windows: operators.iter().map(|operator| operator.open_windows).sum(),
            next_close: operators.iter().filter_map(|operator| operator.next_close).min(),
            state_bytes: nodes().map(|n| n.report.state.bytes).sum(),
            state_disk_bytes: nodes().map(|n| n.report.state.disk_bytes).sum(),
            operators,
            sources,
            statements,
            ..JobInfo::default()
        }
    }

    /// Whether each key of a node has windows of its own: sessions.
    fn has_own_windows(&self, node: NodeId) -> bool {
        match self.plan().map(|plan| &plan.nodes[node].op) {
            Some(Op::Sessions(_)) => true,
            Some(Op::Aggregate(aggregate)) => aggregate.session_gap_ms().is_some(),
            _ => false,
        }
    }

    fn add_partitions(&self, info: &mut JobInfo, now: Instant) {
        let shares = lock(&self.shares);
        for (number, source) in info.sources.iter_mut().enumerate() {
            let of_source = shares.range((number, 0)..(number + 1, 0));
            let mut reports: Vec<&PartitionReport> = of_source.flat_map(|(_, reports)| reports).collect();
            reports.sort_by_key(|report| report.index);
            source.partitions = reports.into_iter().map(|report| partition(report, now)).collect();
            source.mark_holders();
        }
        info.lag = info.sources.iter().filter_map(SourceInfo::lag).reduce(u64::saturating_add);
    }

    fn add_commits(&self, info: &mut JobInfo, now: Instant) {
        let age_ms = |at: Instant| ms(now.saturating_duration_since(at));
        let commits = lock(&self.commits);
        info.commit = commits.commit.map(|(sequence, at, duration)| CommitInfo {
            sequence,
            age_ms: age_ms(at),
            duration_ms: ms(duration),
        });
        info.checkpoint = commits.checkpoint.map(|(sequence, at, duration, bytes)| CheckpointInfo {
            sequence,
            age_ms: age_ms(at),
            duration_ms: ms(duration),
            bytes,
        });
        let committed = commits.commit.map_or(0, |(sequence, ..)| sequence);
        let (called, at) = commits.called.unwrap_or((0, now));
        if called < commits.replay_until {
            info.replay = Some((called, commits.replay_until));
        } else if commits.replay_until.max(committed) < called {
            info.under_way = Some((called, age_ms(at)));
        } else if let Some(interval) = self.layout.commit_interval {
            let before = commits.commit.map_or(self.begun, |(_, at, _)| at);
            info.overdue_ms = age_ms(before).checked_sub(ms(interval)).filter(|overdue_ms| 0 < *overdue_ms);
        }
        info.silent_ms = commits.rows_since.map(age_ms);
    }

    /// For people who look at workers: per stage, how many there are, and how long they have waited for those behind them.
    pub fn stages(&self) -> Vec<(usize, Duration)> {
        let mut stages: Vec<(usize, Duration)> = Vec::new();
        for ((stage, _), report) in &*lock(&self.workers) {
            stages.resize(stages.len().max(stage + 1), (0, Duration::ZERO));
            stages[*stage].0 += 1;
            stages[*stage].1 += report.waited;
        }
        stages
    }
}
