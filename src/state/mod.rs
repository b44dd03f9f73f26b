//! The one currency: partial aggregates.
//!
//! An aggregate is an algebra: *update* takes rows into a partial, *merge* makes one partial of several, *finish* turns a
//! partial into values. A partial at rest is a record batch: the group keys, then the accumulators' state columns. The
//! same batch travels between workers, is the delta that a checkpoint would log, and is what a sliding window merges.
//!
//! [`AggregateLayout`] says what the columns are and makes accumulators; a [`GroupTable`] is a partial that can be
//! updated; [`Panes`] keeps one pair of tables (base and delta) per slice and first open window, for windows that are
//! given out once; [`KeptPanes`] does so for windows that are given out again when they change; [`Sessions`] keeps one
//! per slice. At rest in a log state is [`Piece`]s, of which `chunks` makes bytes.

mod checked_decimal;
mod checked_sum;
mod chunks;
mod distinct;
mod kept;
mod keys;
mod layout;
mod pane;
mod panes;
mod piece;
mod resting;
mod sessions;
mod sorting;
mod spans;
mod spill;
mod stacks;
mod table;
#[cfg(test)]
mod tests;

pub use chunks::{ChunkReader, ChunkWriter};
pub use kept::KeptPanes;
pub use layout::{Aggregate, AggregateLayout};
pub use panes::{Admission, Fired, PaneKey, Panes};
pub use piece::{Piece, PieceKind, clock_of, unexpected};
pub use sessions::{Ended, Sessions};
pub use spill::{Spill, SpillSpace, Spilled, Stored};
pub use table::GroupTable;
