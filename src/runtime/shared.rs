//! What the threads of one attempt at a job share: boundaries as they are called, how far workers have come, and the first
//! thing that goes wrong, after which all of them end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::events::ClockEvents;
use super::job::{JobState, lock};
use super::metrics::{JobMetrics, ReadCounts};
use super::progress::{Position, Recorded};
use crate::connectors::CancelToken;
use crate::error::{Error, Result};
use crate::exec::{Boundary, End};

/// What the threads of one attempt share.
pub(super) struct Shared {
    pub job: Arc<JobState>,
    pub metrics: Arc<JobMetrics>,
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
    /// All threads have ended.
    ended: Mutex<bool>,
    end: Condvar,
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

impl Shared {
    /// For an attempt of a job, which counts from here on what the attempt does. The token ends all of its waits.
    pub(super) fn new(job: Arc<JobState>, metrics: JobMetrics, cancel: CancelToken) -> Arc<Self> {
        let metrics = Arc::new(metrics);
        job.count(&metrics);
        Arc::new(Self {
            job,
            metrics,
            cancel,
            called: AtomicU64::new(0),
            boundary: Mutex::new(None),
            call: Condvar::new(),
            ended_workers: AtomicUsize::new(0),
            reached: Mutex::default(),
            events: Mutex::default(),
            error: Mutex::default(),
            ended: Mutex::default(),
            end: Condvar::new(),
        })
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
        self.job.is_stopping()
    }

    /// Whether a job that is stopping closes its windows first.
    pub(super) fn is_draining(&self) -> bool {
        self.job.is_draining()
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
        let waited = self.end.wait_timeout_while(lock(&self.ended), wait, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// All threads have ended: what the attempt has come to.
    pub(super) fn end(&self, end: End) -> Result<End> {
        *lock(&self.ended) = true;
        self.end.notify_all();
        lock(&self.error).take().map_or(Ok(end), Err)
    }
}
