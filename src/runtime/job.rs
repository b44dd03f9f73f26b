//! A job's handle: what it is called, how it is, and how it is stopped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock;
use super::describe::analyze;
use super::diagnosis::diagnose;
use super::events::ClockEvents;
use super::info::JobInfo;
use super::metrics::{JobMetrics, ReadCounts};
use super::progress::{Position, Recorded};
use crate::connectors::CancelToken;
use crate::error::{Error, Result};
use crate::exec::{Boundary, End};

/// How a job is.
#[derive(Clone, Debug)]
pub enum JobStatus {
    /// It reads and writes.
    Running,
    /// It was told to stop and is writing what has fired.
    Stopping,
    /// Its bounded sources have ended and everything is written.
    Finished,
    /// It was stopped; everything that had fired is written.
    Stopped,
    /// It ended with an error.
    Failed(Error),
}

impl JobStatus {
    /// Whether the job has ended, well or not.
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Finished | Self::Stopped | Self::Failed(_))
    }

    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
        }
    }
}

/// A handle on a job. Cloning it gives another handle on the same job; dropping handles does not stop it.
#[derive(Clone)]
pub struct Job(Arc<Shared>);

/// What the threads of a job share.
pub(super) struct Shared {
    pub name: String,
    pub statement: String,
    pub metrics: JobMetrics,
    status: Mutex<Status>,
    changed: Condvar,
    /// Told to stop by someone.
    stop: AtomicBool,
    /// Its windows are to close before that.
    drain: AtomicBool,
    /// Something failed: every thread ends as soon as it notices.
    cancel: CancelToken,
    /// The last boundary that was called; workers look at the number at every turn.
    called: AtomicU64,
    boundary: Mutex<Option<Call>>,
    /// Wakes workers that wait for a call.
    call: Condvar,
    /// Workers of stage 0 whose sources have all ended.
    ended_workers: AtomicUsize,
    /// Per boundary and source: how far it has come, until the boundary's rows are outside.
    reached: Mutex<BTreeMap<(u64, usize), Reached>>,
    /// What has happened and belongs to the next boundary.
    events: Mutex<ClockEvents>,
    /// The first thing that went wrong.
    error: Mutex<Option<Error>>,
}

/// How far a source had come at a boundary.
#[derive(Default)]
pub(super) struct Reached {
    /// Where its partitions stood, in the order of their indices.
    pub positions: Vec<Position>,
    /// What had been read.
    pub counts: ReadCounts,
}

/// A boundary as the workers of stage 0 hear of it.
#[derive(Clone)]
pub(super) struct Call {
    pub boundary: Boundary,
    pub events: Arc<ClockEvents>,
    /// In a replay, what the boundary was.
    pub replayed: Option<Arc<Recorded>>,
}

struct Status {
    status: JobStatus,
    since: Instant,
    elapsed: Option<Duration>,
}

impl Shared {
    pub(super) fn new(name: String, statement: String, metrics: JobMetrics) -> Arc<Self> {
        Self::with(name, statement, metrics, CancelToken::default())
    }

    pub(super) fn with(name: String, statement: String, metrics: JobMetrics, cancel: CancelToken) -> Arc<Self> {
        let status = Status { status: JobStatus::Running, since: clock::now(), elapsed: None };
        Arc::new(Self {
            name,
            statement,
            metrics,
            status: Mutex::new(status),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            drain: AtomicBool::new(false),
            cancel,
            called: AtomicU64::new(0),
            boundary: Mutex::new(None),
            call: Condvar::new(),
            ended_workers: AtomicUsize::new(0),
            reached: Mutex::default(),
            events: Mutex::default(),
            error: Mutex::default(),
        })
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        lock(&self.status)
    }

    /// Calls a boundary: workers of stage 0 take it up at their next turn.
    pub(super) fn call(&self, call: Call) {
        let sequence = call.boundary.sequence;
        self.metrics.note_call(sequence);
        *lock(&self.boundary) = Some(call);
        self.called.store(sequence, Ordering::Release);
        self.call.notify_all();
    }

    /// Notes something for the next boundary that is called.
    pub(super) fn note_events(&self, note: impl FnOnce(&mut ClockEvents)) {
        note(&mut lock(&self.events));
    }

    /// What has been noted since the last call.
    pub(super) fn take_events(&self) -> ClockEvents {
        std::mem::take(&mut lock(&self.events))
    }

    /// The boundary that was called after the one with this number, if there is one.
    pub(super) fn boundary_after(&self, sequence: u64) -> Option<Call> {
        if self.called.load(Ordering::Acquire) <= sequence {
            return None;
        }
        lock(&self.boundary).clone()
    }

    /// Waits for a boundary after the one with this number, at most so long.
    pub(super) fn wait_for_call(&self, sequence: u64, wait: Duration) {
        let waiting = |call: &mut Option<Call>| call.as_ref().is_none_or(|c| c.boundary.sequence <= sequence);
        drop(self.call.wait_timeout_while(lock(&self.boundary), wait, waiting));
    }

    pub(super) fn note_worker_ended(&self) {
        self.ended_workers.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn ended_workers(&self) -> usize {
        self.ended_workers.load(Ordering::Acquire)
    }

    /// Remembers how far a worker had come in a source at a boundary.
    pub(super) fn note_reached(&self, sequence: u64, source: usize, positions: Vec<Position>, counts: ReadCounts) {
        let mut all = lock(&self.reached);
        let reached = all.entry((sequence, source)).or_default();
        reached.positions.extend(positions);
        reached.counts.add(counts);
    }

    /// How far all workers had come at a boundary, in each of so many sources.
    pub(super) fn take_reached(&self, sequence: u64, sources: usize) -> Vec<Reached> {
        let mut all = lock(&self.reached);
        let later = all.split_off(&(sequence + 1, 0));
        let mut upto = std::mem::replace(&mut *all, later);
        let of_source = |source: usize| {
            let mut reached = upto.remove(&(sequence, source)).unwrap_or_default();
            reached.positions.sort_unstable_by_key(|p| p.index);
            reached
        };
        (0..sources).map(of_source).collect()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether a job that is stopping closes its windows first.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.load(Ordering::Acquire)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Every thread ends as soon as it notices, and nothing is wrong.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Something went wrong: the first error counts, and every thread ends as soon as it notices.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.error).get_or_insert(error);
        self.cancel.cancel();
    }

    /// Whether all threads have ended, or do so within this time.
    pub(super) fn has_ended_within(&self, wait: Duration) -> bool {
        let runs = |now: &mut Status| !now.status.has_ended();
        let waited = self.changed.wait_timeout_while(self.status(), wait, runs);
        waited.unwrap_or_else(PoisonError::into_inner).0.status.has_ended()
    }

    /// All threads have ended.
    pub(super) fn end(&self, end: End) {
        let status = match (lock(&self.error).take(), end) {
            (Some(error), _) => JobStatus::Failed(error),
            (None, End::Finished) => JobStatus::Finished,
            (None, End::Stopped | End::GoesOn) => JobStatus::Stopped,
        };
        let mut now = self.status();
        now.elapsed = Some(clock::now() - now.since);
        now.status = status;
        drop(now);
        self.changed.notify_all();
    }
}

/// Locks, also after another thread has panicked: what is behind these locks is whole at every moment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// The job's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether two handles are on the same job.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How it is.
    pub fn status(&self) -> JobStatus {
        self.0.status().status.clone()
    }

    /// Tells it to stop: it reads nothing more, and writes what has fired. Returns at once.
    pub fn stop(&self) {
        let mut now = self.0.status();
        if matches!(now.status, JobStatus::Running) {
            now.status = JobStatus::Stopping;
        }
        drop(now);
        self.0.stop.store(true, Ordering::Release);
    }

    /// Tells it to end as if its sources had: it reads nothing more, all windows close with what they have, and their rows
    /// are written. Returns at once. A job that writes exactly once is then finished, and begins anew when it is started
    /// again.
    pub fn drain(&self) {
        self.0.drain.store(true, Ordering::Release);
        self.stop();
    }

    /// The plan that it runs, and what each operator has done; `None` for a batch.
    pub fn analyze(&self) -> Option<String> {
        let metrics = &self.0.metrics;
        Some(analyze(metrics.plan()?, &metrics.info(), &metrics.stages()))
    }

    /// Waits for its end; the job's error is the result's.
    pub fn wait(&self) -> Result<()> {
        loop {
            if let Some(result) = self.wait_for(Duration::from_secs(3_600)) {
                return result;
            }
        }
    }

    /// Waits for its end, at most so long; `None` when it has not ended by then.
    pub fn wait_for(&self, wait: Duration) -> Option<Result<()>> {
        let ended = |now: &mut Status| !now.status.has_ended();
        let now = self.0.status();
        let (now, _) = self.0.changed.wait_timeout_while(now, wait, ended).unwrap_or_else(PoisonError::into_inner);
        match &now.status {
            JobStatus::Failed(error) => Some(Err(error.clone())),
            JobStatus::Finished | JobStatus::Stopped => Some(Ok(())),
            JobStatus::Running | JobStatus::Stopping => None,
        }
    }

    /// What it has counted, and how it is.
    pub fn info(&self) -> JobInfo {
        let now = self.0.status();
        let elapsed = now.elapsed.unwrap_or_else(|| clock::now() - now.since);
        let error = match &now.status {
            JobStatus::Failed(error) => Some(error.message.clone()),
            _ => None,
        };
        let mut info = JobInfo {
            name: self.0.name.clone(),
            statement: self.0.statement.split_whitespace().collect::<Vec<_>>().join(" "),
            status: now.status.word().to_owned(),
            error,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            ..self.0.metrics.info()
        };
        info.diagnosis = diagnose(&info, clock::wall_ms());
        info
    }
}
