//! A job's handle: what it is called, how it is, and how it is stopped.
//!
//! A job that writes each row once may run in several [attempts](super::attempts), one after the other. Its handle, and
//! what it counts, outlive them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::account::ms;
use super::clock;
use super::describe::analyze;
use super::diagnosis::diagnose;
use super::info::{JobInfo, RestartInfo};
use super::metrics::{JobMetrics, Layout};
use crate::error::{Error, Result};
use crate::exec::End;

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
pub struct Job(Arc<JobState>);

/// A job, over all its attempts.
pub(super) struct JobState {
    pub name: String,
    statement: String,
    status: Mutex<Status>,
    changed: Condvar,
    /// Told to stop by someone.
    stop: AtomicBool,
    /// Its windows are to close before that.
    drain: AtomicBool,
}

struct Status {
    status: JobStatus,
    since: Instant,
    elapsed: Option<Duration>,
    /// What the attempt counts that is under way.
    metrics: Arc<JobMetrics>,
    /// Attempts that were begun because the one before had come to nothing, and why the last of them was.
    restarts: (u64, Option<(Instant, String)>),
    /// Why no attempt is under way.
    waiting: Option<String>,
}

impl JobState {
    pub(super) fn new(name: String, statement: String) -> Arc<Self> {
        let status = Status {
            status: JobStatus::Running,
            since: clock::now(),
            elapsed: None,
            metrics: Arc::new(JobMetrics::new(Layout::default())),
            restarts: (0, None),
            waiting: None,
        };
        let (status, changed) = (Mutex::new(status), Condvar::new());
        Arc::new(Self { name, statement, status, changed, stop: AtomicBool::default(), drain: AtomicBool::default() })
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        lock(&self.status)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether a job that is stopping closes its windows first.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.load(Ordering::Acquire)
    }

    /// From now on this is what it counts.
    pub(super) fn count(&self, metrics: &Arc<JobMetrics>) {
        self.status().metrics = Arc::clone(metrics);
    }

    /// An attempt has come to nothing, and there will be another one.
    pub(super) fn note_restart(&self, reason: &Error) {
        let mut now = self.status();
        now.restarts = (now.restarts.0 + 1, Some((clock::now(), reason.message.clone())));
    }

    /// Waits before the next attempt, unless somebody says that it is to stop.
    pub(super) fn pause(&self, wait: Duration, reason: &Error) {
        let mut now = self.status();
        now.waiting = Some(format!("{}; trying again", reason.message));
        let goes_on = |now: &mut Status| matches!(now.status, JobStatus::Running);
        drop(self.changed.wait_timeout_while(now, wait, goes_on));
    }

    /// An attempt is under way.
    pub(super) fn note_begun(&self) {
        self.status().waiting = None;
    }

    /// There will be no other attempt.
    pub(super) fn end(&self, result: Result<End>) {
        let mut now = self.status();
        now.elapsed = Some(clock::now() - now.since);
        now.waiting = None;
        now.status = match result {
            Err(error) => JobStatus::Failed(error),
            Ok(End::Finished) => JobStatus::Finished,
            Ok(End::Stopped | End::GoesOn) => JobStatus::Stopped,
        };
        drop(now);
        self.changed.notify_all();
    }
}

/// Locks, also after another thread has panicked: what is behind these locks is whole at every moment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    pub(super) fn new(state: Arc<JobState>) -> Self {
        Self(state)
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
        self.0.changed.notify_all();
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
        let metrics = Arc::clone(&self.0.status().metrics);
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
        let counted = now.metrics.info();
        let (restarts, last) = now.restarts.clone();
        let last_restart = last.map(|(at, reason)| RestartInfo { age_ms: ms(clock::now() - at), reason });
        let mut info = JobInfo {
            name: self.0.name.clone(),
            statement: self.0.statement.split_whitespace().collect::<Vec<_>>().join(" "),
            status: now.status.word().to_owned(),
            error,
            elapsed_ms: ms(elapsed),
            trouble: now.waiting.clone().or(counted.trouble.clone()),
            restarts,
            last_restart,
            ..counted
        };
        info.diagnosis = diagnose(&info, clock::wall_ms());
        info
    }
}
