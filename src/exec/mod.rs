//! Plan to operators: batches and boundaries in, batches out.
//!
//! Operators are synchronous state machines. They know no clock, no channel and no thread; a test calls them directly.
//! Rows come by [`Operator::on_batch`]. Time moves by [`Operator::on_boundary`] only: at a commit boundary an operator is
//! told how far its input's event time has come, closes what that closes, and says how far its own output has come. So
//! everything given out up to boundary n, and all state at n, is a function of what the sources had given up to n.

mod aggregate;
mod batch_plan;
pub mod clock;
mod fragment;
mod per_window;
mod rejected;
mod sessions;
mod source;
mod transform;
mod windows;

use arrow::array::RecordBatch;

use crate::error::Result;
use crate::state::PaneKey;
use crate::time::Progress;

pub use aggregate::{PartialAggregate, PartialSchema, SessionAggregate, WindowAggregate};
pub use fragment::{Fragment, Outlet, Outlets};
pub use per_window::PerWindow;
pub use rejected::{RawRecord, Rejected, Rejection, Reporter, RowOrigin};
pub use sessions::SessionRows;
pub use source::{RowFate, SourceStage};
pub use transform::Transform;
pub use windows::RepeatWindows;

/// Whether a job goes on after a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It does.
    GoesOn,
    /// It was stopped: nothing more is read, open windows stay open.
    Stopped,
    /// Every source has ended: event time is over, every window closes.
    Finished,
}

/// A commit boundary.
#[derive(Clone, Copy, Debug)]
pub struct Boundary {
    /// Counts from 1, without gaps.
    pub sequence: u64,
    /// The wall clock when the boundary was called (ms since the epoch): the same for every worker.
    pub clock_ms: i64,
    /// Whether state gives out its deltas.
    pub checkpoint: bool,
    /// Whether the job goes on.
    pub end: End,
}

/// What an operator gives out.
#[derive(Default)]
pub struct Output {
    /// Rows, in order.
    pub batches: Vec<RecordBatch>,
    /// What changed in the state since the last checkpoint.
    pub deltas: Vec<(PaneKey, RecordBatch)>,
    /// What happened to rows that went no further.
    pub counts: Counts,
    /// Rows that were turned away and are wanted somewhere.
    pub rejected: Vec<Rejected>,
}

/// Rows that an operator did not pass on, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// A condition was not true, or no window holds the row's time.
    pub filtered: u64,
    /// Late for every window.
    pub late: u64,
    /// Late for some windows, used for others.
    pub partly_late: u64,
    /// In time by their own partition, but it was idle and the window has closed without it.
    pub lost_to_idleness: u64,
}

impl Counts {
    /// Adds another count.
    pub fn add(&mut self, other: Self) {
        self.filtered += other.filtered;
        self.late += other.late;
        self.partly_late += other.partly_late;
        self.lost_to_idleness += other.lost_to_idleness;
    }
}

/// A step of a stream.
pub trait Operator: Send {
    /// Takes rows of one of its inputs.
    fn on_batch(&mut self, input: usize, batch: RecordBatch, out: &mut Output) -> Result<()>;

    /// Takes a boundary, and how far the input has come; answers how far the output has.
    fn on_boundary(&mut self, boundary: &Boundary, progress: Progress, out: &mut Output) -> Result<Progress> {
        let _ = (boundary, out);
        Ok(progress)
    }

    /// Open windows and bytes of state.
    fn state_size(&self) -> (usize, usize) {
        (0, 0)
    }
}
