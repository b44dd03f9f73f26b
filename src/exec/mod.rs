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
mod memory;
mod per_window;
mod rejected;
mod sessions;
mod source;
mod transform;
mod windows;

use std::sync::Arc;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::connectors::Policies;
use crate::error::Result;
use crate::state::{Piece, Spill, unexpected};
use crate::time::{Progress, TimeMs};

pub use crate::connectors::RawRecord;
pub use aggregate::{PartialAggregate, PartialSchema, SessionAggregate, WindowAggregate};
pub use fragment::{Fragment, NodeReport, Outlet, Outlets, Timer, Work};
pub use memory::Memory;
pub use per_window::PerWindow;
pub use rejected::{Missed, Rejected, Rejection, Reporter, RowOrigin};
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

/// What operators give out at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What has changed since the checkpoint before.
    Delta,
    /// Everything that they keep.
    Whole,
}

/// A commit boundary.
#[derive(Clone, Copy, Debug)]
pub struct Boundary {
    /// Counts from 1, without gaps.
    pub sequence: u64,
    /// The wall clock when the boundary was called (ms since the epoch): the same for every worker.
    pub clock_ms: i64,
    /// Whether operators give out their state.
    pub checkpoint: Option<Extent>,
    /// Whether the job goes on.
    pub end: End,
}

/// What the rows of a batch are to those who count records. A record is counted once, wherever it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lineage {
    /// Each is a record.
    #[default]
    Records,
    /// Records that have been counted as used, each once per window that it is used for; those of one lie side by side.
    Copies,
    /// What was made of many records: rows of windows.
    Results,
}

/// What an operator gives out, and what it must know for that.
#[derive(Default)]
pub struct Output {
    /// What the rows that it takes are.
    pub lineage: Lineage,
    /// What becomes of rows that are late, or over which an expression fails.
    pub policies: Policies,
    /// Rows, in order.
    pub batches: Vec<RecordBatch>,
    /// What happened to records.
    pub counts: Counts,
    /// Rows that were turned away and are wanted somewhere.
    pub rejected: Vec<Rejected>,
}

/// What became of records. Operators count rows as if each were a record; what counts for others is left to
/// [`Counts::of`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// In time for some window, or written. What is found later to have come to nothing is taken away again.
    pub used: i64,
    /// A condition was not true, or no window holds the row's time.
    pub filtered: u64,
    /// Late for every window.
    pub late: u64,
    /// Late for some windows, used for others.
    pub partly_late: u64,
    /// In time by their own partition, but it was idle and the window has closed without it.
    pub lost_to_idleness: u64,
    /// An expression failed over it, and its table says to skip such rows.
    pub skipped: u64,
    /// An expression failed over it, and it went to the topic of such rows.
    pub dead_lettered: u64,
}

impl Counts {
    /// Adds another count.
    pub fn add(&mut self, other: Self) {
        self.used += other.used;
        self.filtered += other.filtered;
        self.late += other.late;
        self.partly_late += other.partly_late;
        self.lost_to_idleness += other.lost_to_idleness;
        self.skipped += other.skipped;
        self.dead_lettered += other.dead_lettered;
    }

    /// Rows that were to be used have come to nothing.
    pub fn lose(&mut self, rows: u64) {
        self.lost_to_idleness += rows;
        self.used -= i64::try_from(rows).unwrap_or(i64::MAX);
    }

    /// What an operator's count of rows says about records.
    #[must_use]
    pub fn of(self, lineage: Lineage) -> Self {
        match lineage {
            Lineage::Records => self,
            // They are used already; one that is left out or turned away was not used after all. One of a record's
            // windows that it is too late for takes it all: nobody knows of the others.
            Lineage::Copies => {
                let Self { filtered, lost_to_idleness, skipped, dead_lettered, .. } = self;
                let gone = filtered + lost_to_idleness + skipped + dead_lettered;
                let used = -i64::try_from(gone).unwrap_or(i64::MAX);
                Self { used, filtered, lost_to_idleness, skipped, dead_lettered, ..Self::default() }
            }
            Lineage::Results => Self::default(),
        }
    }
}

/// What an operator keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSize {
    /// Windows that have not closed.
    pub open_windows: usize,
    /// Bytes held in memory, about.
    pub bytes: usize,
    /// Bytes on disk.
    pub disk_bytes: usize,
    /// The end of the window that closes next: it does when the watermark is at the instant before. Of a session, the
    /// earliest that it can end.
    pub next_close: Option<TimeMs>,
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

    /// Gives out more of what the boundary at hand has closed, where it is too much to be given out at once; `false` when
    /// that was all.
    fn go_on(&mut self, out: &mut Output) -> Result<bool> {
        let _ = out;
        Ok(false)
    }

    /// Where state may go that is too large for memory. To be called before anything else.
    fn set_spill(&mut self, to: &Arc<Spill>) {
        let _ = to;
    }

    /// Puts state on disk until so many bytes of memory are free, what is needed last first; answers how many are. What it
    /// gives out is the same with and without, and whenever this is called.
    fn spill(&mut self, bytes: usize) -> Result<usize> {
        let _ = bytes;
        Ok(0)
    }

    /// Gives out what it keeps, directly after a boundary: see [`piece`](crate::state::Piece).
    fn checkpoint(&mut self, extent: Extent, give: &mut dyn FnMut(Piece)) -> Result<()> {
        let _ = (extent, give);
        Ok(())
    }

    /// Takes up what an operator of the same node has given out at checkpoints, from the last whole one on. To be called
    /// before anything else.
    fn restore(&mut self, checkpoints: Vec<Vec<Piece>>) -> Result<()> {
        match checkpoints.iter().flatten().next() {
            Some(piece) => Err(unexpected(piece)),
            None => Ok(()),
        }
    }

    /// What the rows are that it gives out for such rows as it takes. What comes at a boundary is made of many records.
    fn lineage(&self, of_input: Lineage) -> Lineage {
        of_input
    }

    /// What it keeps. Asked at every boundary, so it must not cost as much as going through the state.
    fn state_size(&self) -> StateSize {
        StateSize::default()
    }
}
