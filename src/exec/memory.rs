//! How much memory the state of a job may take, and what happens when it takes more.
//!
//! Each worker of a stage has its share. When its operators hold more than that, they put state on disk until half of the
//! share is free: so that is done seldom, and a lot at a time. A few kinds of state stay in memory whatever happens; if those
//! alone are more than the whole job may have, it ends with an error instead of being ended by the system.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Operator;
use crate::error::{Error, Result};
use crate::state::{Spill, SpillSpace};

/// A worker looks after its state whenever it has taken in a sixteenth of its share, but at least so many bytes.
const TAKEN_BYTES_MIN: usize = 256 << 10;

/// A worker's share of the memory that a job's state may take.
pub struct Memory {
    limit: usize,
    share: usize,
    /// By all workers of the job.
    used: Arc<AtomicUsize>,
    own: usize,
    to: Arc<Spill>,
    /// Bytes taken in since it was looked at last, and after how many it is.
    taken: usize,
    look_after: usize,
}

impl Memory {
    /// Equal shares of so many bytes, for so many workers, with room on disk for what is more.
    pub fn shares(limit: usize, workers: usize, space: &Arc<SpillSpace>) -> Vec<Self> {
        let used: Arc<AtomicUsize> = Arc::default();
        let share = limit / workers.max(1);
        let of_worker = |_| {
            let (used, to) = (Arc::clone(&used), Spill::new(space, share / 8));
            Self { limit, share, used, own: 0, to, taken: 0, look_after: TAKEN_BYTES_MIN.max(share / 16) }
        };
        (0..workers).map(of_worker).collect()
    }

    /// For tests: all state goes to disk whenever that is possible; partials of more bytes than these are worked on in parts.
    #[cfg(test)]
    pub fn none(space: &Arc<SpillSpace>, whole_bytes: usize) -> Self {
        let (used, to) = (Arc::default(), Spill::new(space, whole_bytes));
        Self { limit: usize::MAX, share: 0, used, own: 0, to, taken: 0, look_after: 1 }
    }

    /// Where state goes.
    pub fn spill(&self) -> &Arc<Spill> {
        &self.to
    }

    /// Whether it is to be looked after now that so many bytes more have been taken in.
    pub(super) fn is_due_after(&mut self, bytes: usize) -> bool {
        self.taken += bytes;
        self.look_after <= self.taken
    }

    /// Puts state of these operators on disk if they hold more than the share.
    pub(super) fn keep(&mut self, operators: &mut [&mut Box<dyn Operator>]) -> Result<()> {
        self.taken = 0;
        if self.note(operators) <= self.share {
            return Ok(());
        }
        operators.sort_by_key(|operator| std::cmp::Reverse(operator.state_size().bytes));
        let mut wanted = self.own - self.share / 2;
        for operator in &mut *operators {
            wanted = wanted.saturating_sub(operator.spill(wanted)?);
            if wanted == 0 {
                break;
            }
        }
        if self.note(operators) <= self.share || self.used.load(Ordering::Relaxed) <= self.limit {
            return Ok(());
        }
        let [limit, own] = [self.limit, self.own].map(|bytes| bytes.div_ceil(1 << 20));
        Err(Error::usage(format!(
            "the job's state takes more than the {limit} MB of memory that it may have: {own} MB at one of its workers \
             cannot be put on disk"
        ))
        .hint(
            "open sessions, and rows that EMIT or late rows may still change, stay in memory; what was committed is kept: \
             SET 'state.memory.limit' to more, and start the job again",
        ))
    }

    fn note(&mut self, operators: &[&mut Box<dyn Operator>]) -> usize {
        let now = operators.iter().map(|operator| operator.state_size().bytes).sum();
        let before = std::mem::replace(&mut self.own, now);
        if before <= now {
            self.used.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - now, Ordering::Relaxed);
        }
        now
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.used.fetch_sub(self.own, Ordering::Relaxed);
    }
}
