//! A job as people see it.

use std::time::Duration;

use crate::time::TimeMs;

/// Everything that is known of a job at one moment. Counters hold from the job's beginning on, also over restarts.
#[derive(Clone, Debug, Default)]
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
    /// Why there is no output, or when there will be some: sentences, the most important first.
    pub diagnosis: Vec<String>,
    /// Records read.
    pub records_in: u64,
    /// Payload bytes read.
    pub bytes_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Records read per second, lately: in the last ten seconds.
    pub records_per_second: f64,
    /// Rows written per second, lately.
    pub rows_per_second: f64,
    /// How many offsets the sources are behind the ends of their topics, as far as is known.
    pub lag: Option<u64>,
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
    /// What each operator has done, in the order of the plan's nodes.
    pub operators: Vec<OperatorInfo>,
    /// The watermark, as a time (ms), once there is one: the least of the statements'.
    pub watermark: Option<TimeMs>,
    /// Windows that have not closed.
    pub open_windows: usize,
    /// The end of the window that closes next (ms); of a session the earliest end.
    pub next_close: Option<TimeMs>,
    /// Bytes of state in memory.
    pub state_bytes: usize,
    /// Bytes of state on disk.
    pub state_disk_bytes: usize,
    /// The last commit.
    pub commit: Option<CommitInfo>,
    /// The boundary that is on its way to its commit, and for how long (ms).
    pub under_way: Option<(u64, u64)>,
    /// For how long no boundary has been called although one was due (ms): the sinks do not take what is to be written
    /// before it.
    pub overdue_ms: Option<u64>,
    /// The last checkpoint.
    pub checkpoint: Option<CheckpointInfo>,
    /// While the job goes through what an earlier run has committed: the boundary that it is at, and the last one.
    pub replay: Option<(u64, u64)>,
    /// How often the job was taken up again by this process.
    pub restarts: u64,
    /// The last time, and why.
    pub last_restart: Option<RestartInfo>,
    /// How long ago the last rows were written (ms).
    pub silent_ms: Option<u64>,
    /// How long the job ran, or has been running (ms).
    pub elapsed_ms: u64,
}

/// A boundary that is committed: its rows are outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitInfo {
    /// The boundary's number.
    pub sequence: u64,
    /// How long ago it was committed (ms).
    pub age_ms: u64,
    /// How long the commit took (ms), from when all rows were there.
    pub duration_ms: u64,
}

/// That a job was taken up again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartInfo {
    /// How long ago (ms).
    pub age_ms: u64,
    /// What had gone wrong.
    pub reason: String,
}

/// A checkpoint that is complete: a restart goes on from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// The number of its boundary.
    pub sequence: u64,
    /// How long ago it was complete (ms).
    pub age_ms: u64,
    /// How long it took (ms).
    pub duration_ms: u64,
    /// The bytes of state in the log that a restart goes on from.
    pub bytes: u64,
}

/// What a job has read of one source, and where it is.
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
    /// Its watermark is made of its records; else it has none, or the clock is it.
    pub has_event_time: bool,
    /// How long a partition stays at its end before it holds nothing back (ms); `None` is for ever.
    pub idle_timeout_ms: Option<u64>,
    /// Whether the clock moves the watermark on while all partitions are idle.
    pub advances_when_idle: bool,
    /// Its partitions, in the order of their indices. Rows that a statement itself gives have none.
    pub partitions: Vec<PartitionInfo>,
}

/// Where a job is in a partition, at the last boundary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The topic; the path for files.
    pub topic: String,
    /// The number within the topic.
    pub partition: i32,
    /// Where reading began.
    pub start_offset: i64,
    /// The offset of the next record.
    pub next_offset: i64,
    /// The offset behind the last record, as far as is known.
    pub end_offset: Option<i64>,
    /// Its watermark (ms), once there is one.
    pub watermark: Option<TimeMs>,
    /// What it does.
    pub state: PartitionState,
    /// It is (one of) the least far of its source: its watermark is the source's.
    pub holds_back: bool,
    /// How long ago its last record came (ms); `None` if none has.
    pub silent_ms: Option<u64>,
    /// For how long everything has been read (ms), if it has.
    pub at_end_ms: Option<u64>,
}

/// What a partition does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartitionState {
    /// It is being read.
    #[default]
    Reading,
    /// Everything has been read.
    AtEnd,
    /// Everything has been read for so long, or from the beginning, that it holds nothing back.
    Idle,
    /// It is far ahead of others in event time, and left alone until they have come closer.
    Ahead,
    /// Everything up to its bounded end has been read.
    Ended,
}

impl PartitionState {
    /// A word or two.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::AtEnd => "at its end",
            Self::Idle => "idle",
            Self::Ahead => "ahead, waits for others",
            Self::Ended => "ended",
        }
    }

    /// Whether the watermark of its source waits for it.
    pub fn counts(self) -> bool {
        !matches!(self, Self::Idle | Self::Ended)
    }
}

impl PartitionInfo {
    /// How many offsets it is behind its end, if that is known. A topic may have offsets without records.
    pub fn lag(&self) -> Option<u64> {
        self.end_offset.map(|end| u64::try_from(end.saturating_sub(self.next_offset)).unwrap_or(0))
    }
}

impl SourceInfo {
    /// Finds those whose watermark is the source's.
    pub(super) fn mark_holders(&mut self) {
        let counting = self.partitions.iter().filter(|p| p.state.counts());
        let Some(least) = counting.map(|p| p.watermark).min().filter(|_| self.has_event_time) else { return };
        for partition in self.partitions.iter_mut().filter(|p| p.state.counts()) {
            partition.holds_back = partition.watermark == least;
        }
    }

    /// How many offsets its partitions are behind their ends, of those whose ends are known.
    pub fn lag(&self) -> Option<u64> {
        self.partitions.iter().filter_map(PartitionInfo::lag).reduce(u64::saturating_add)
    }
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
    /// Rows that it has given out.
    pub rows_out: u64,
    /// What of all this is of the last ten seconds.
    pub lately: Terms,
    /// Its sources, by their places in [`JobInfo::sources`].
    pub sources: Vec<usize>,
    /// Whether it has windows, whose rows come out when they close.
    pub has_windows: bool,
    /// Rows that the last of its windows have given: conditions behind them may leave those out.
    pub window_rows: u64,
    /// How far event time has come in its output.
    pub watermark: Option<TimeMs>,
    /// Windows that have not closed.
    pub open_windows: usize,
    /// The end of the window that closes next (ms).
    pub next_close: Option<TimeMs>,
}

/// The terms of a [`StatementInfo`], on their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// See [`StatementInfo::used`]; and so on.
    pub used: u64,
    /// A condition was not true.
    pub filtered: u64,
    /// In time for no window.
    pub late: u64,
    /// In time, but the window had closed without their partition.
    pub lost_to_idleness: u64,
    /// Bad, and skipped.
    pub errors: u64,
    /// Bad, and written to a topic.
    pub dead_lettered: u64,
    /// Without a value.
    pub tombstones: u64,
    /// Not a term, but what came of them.
    pub rows_out: u64,
}

impl StatementInfo {
    /// What became of all that it has read.
    pub fn terms(&self) -> Terms {
        let Self { used, filtered, late, lost_to_idleness, errors, dead_lettered, tombstones, rows_out, .. } = *self;
        Terms { used, filtered, late, lost_to_idleness, errors, dead_lettered, tombstones, rows_out }
    }
}

impl Terms {
    /// What has come to these since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            used: self.used.saturating_sub(before.used),
            filtered: self.filtered.saturating_sub(before.filtered),
            late: self.late.saturating_sub(before.late),
            lost_to_idleness: self.lost_to_idleness.saturating_sub(before.lost_to_idleness),
            errors: self.errors.saturating_sub(before.errors),
            dead_lettered: self.dead_lettered.saturating_sub(before.dead_lettered),
            tombstones: self.tombstones.saturating_sub(before.tombstones),
            rows_out: self.rows_out.saturating_sub(before.rows_out),
        }
    }
}

/// What the workers have done at one node of the plan, on one side of an exchange: an aggregate has two, where workers
/// share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorInfo {
    /// The node's number in the plan.
    pub node: usize,
    /// The stage of the workers: rows are exchanged before each stage but the first.
    pub stage: usize,
    /// The statement whose it is, by its place in [`JobInfo::statements`]; `None` for a source, which several may read.
    pub statement: Option<usize>,
    /// Rows that it took; records, for a source.
    pub rows_in: u64,
    /// Rows that it gave out.
    pub rows_out: u64,
    /// Batches that it took.
    pub batches: u64,
    /// What that took of the workers' time: reading and decoding too for a source, encoding for a sink.
    pub time: Duration,
    /// Bytes of state in memory.
    pub state_bytes: usize,
    /// Bytes of state on disk.
    pub state_disk_bytes: usize,
    /// Windows that have not closed. Where workers share windows, as many as the one has that has most.
    pub open_windows: usize,
    /// The end of the window that closes next (ms).
    pub next_close: Option<TimeMs>,
}
