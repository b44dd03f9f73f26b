//! State at rest: what operators give to a log of checkpoints, and take up from it.
//!
//! A checkpoint is *whole* (everything that an operator keeps) or holds what has changed since the one before it. State is
//! what the last whole one and those after it say, taken in order: partials are merged, rows are put together. So what a
//! checkpoint costs follows from what came since the one before it, not from what is kept.

use arrow::array::RecordBatch;

use super::panes::PaneKey;
use super::spill::Stored;
use crate::error::{Error, Result};
use crate::time::{TimeMs, WATERMARK_MIN, WatermarkClock};

/// What a piece of state is, and so how it is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum PieceKind {
    /// The operator's watermark, and the clock since which everything has been idle; no rows.
    Clock = 0,
    /// A partial of a pane: it is merged with those of the same key.
    Pane = 1,
    /// The end of a front of folded slices: the slice behind its last one, and the front's number; no rows.
    Turn = 2,
    /// A suffix of a front: its first slice, and the front's number.
    Suffix = 3,
    /// A slice before a suffix: itself, and the front's number.
    Older = 4,
    /// What was given out last of an open window that is evaluated now and then.
    Given = 5,
    /// The clock of the boundary that gave out open windows last; no rows.
    Emitted = 6,
    /// Groups or rows of sessions that go on from before, by the slice of their first time.
    GoesOn = 7,
    /// Groups or rows of sessions that have begun since the checkpoint before, likewise.
    Begun = 8,
    /// Rows of a window: the first instant behind it, and the number of the input that they came by.
    Rows = 9,
}

impl PieceKind {
    const ALL: [Self; 10] = [
        Self::Clock,
        Self::Pane,
        Self::Turn,
        Self::Suffix,
        Self::Older,
        Self::Given,
        Self::Emitted,
        Self::GoesOn,
        Self::Begun,
        Self::Rows,
    ];

    /// The kind of a number in a log.
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// A piece of an operator's state.
#[derive(Clone, Debug)]
pub struct Piece {
    /// What it is.
    pub kind: PieceKind,
    /// Which one of its kind; what the numbers mean, the kind says.
    pub key: PaneKey,
    /// Its rows, in memory or on disk; `None` where the key says it all.
    pub batch: Option<Stored>,
}

impl Piece {
    /// A piece that has rows.
    pub fn new(kind: PieceKind, key: PaneKey, batch: impl Into<Stored>) -> Self {
        Self { kind, key, batch: Some(batch.into()) }
    }

    /// How far an operator has come. The same at all workers.
    pub fn of_clock(clock: &WatermarkClock) -> Self {
        let (watermark, idle_since_ms) = clock.at_rest();
        Self { kind: PieceKind::Clock, key: (watermark, idle_since_ms.unwrap_or(WATERMARK_MIN)), batch: None }
    }

    /// Its rows.
    pub fn rows(self) -> Result<RecordBatch> {
        self.stored()?.load()
    }

    /// Its rows, wherever they are.
    pub fn stored(self) -> Result<Stored> {
        self.batch.ok_or_else(|| Error::bug(format!("a piece of state, {:?}, without rows", self.kind)))
    }
}

/// The clock that the last of these checkpoints says.
pub fn clock_of(pieces: &[Piece]) -> Option<WatermarkClock> {
    let clock = pieces.iter().rfind(|piece| piece.kind == PieceKind::Clock)?;
    let (watermark, idle_since_ms): (TimeMs, i64) = clock.key;
    Some(WatermarkClock::from_rest(watermark, (idle_since_ms != WATERMARK_MIN).then_some(idle_since_ms)))
}

/// A piece that an operator of its kind does not have: the log is of another plan.
pub fn unexpected(piece: &Piece) -> Error {
    Error::bug(format!("a piece of state, {:?}, that is none of its operator's", piece.kind))
}
