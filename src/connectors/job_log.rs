//! A job's log: what it has come to, kept where its rows go.
//!
//! A log has two parts. The *progress* is a record per transaction, and the *state* is chunks of whatever the job keeps.
//! Rows of the job's sinks, chunks and a record of progress become visible together, or not at all. Only what is committed
//! is read, so what a log says is what happened.

use crate::error::Result;

/// A job's log, as its only writer sees it. Used by one thread at a time.
pub trait JobLog: Send + Sync {
    /// The records of progress with their offsets, in order; without those that were deleted.
    fn read(&self) -> Result<Vec<(i64, Vec<u8>)>>;

    /// Whether records of progress were deleted from the log's beginning.
    fn is_cut(&self) -> Result<bool>;

    /// Goes through the chunks of state from an offset on, in order, each with its offset; from the first one that is left
    /// if those before it were deleted. Not all of them are in memory at once.
    fn read_state(&self, from: i64, take: &mut dyn FnMut(i64, &[u8]) -> Result<()>) -> Result<()>;

    /// Puts a chunk of state into the transaction at hand. May block while the outside is slow.
    fn write_state(&self, chunk: Vec<u8>) -> Result<()>;

    /// Commits the rows and the chunks that were written since the last time, and a record of progress with them.
    fn commit(&self, record: Vec<u8>) -> Result<()>;

    /// Where the committed progress and the committed state end: nothing that is written from now on has a smaller offset.
    fn ends(&self) -> Result<[i64; 2]>;

    /// Lets go of the progress and the state before these offsets. Returns at once; that it failed is only told, as nothing
    /// but room depends on it.
    fn delete_before(&self, offsets: [i64; 2]);

    /// Whether a request of what was committed last may still be under way, and could end what comes next.
    fn is_disturbed(&self) -> bool;

    /// Goes on as a new writer; what the old one still has under way comes to nothing. This fences everybody else, too:
    /// look first that there is nobody.
    fn renew(&self) -> Result<()>;

    /// Whether somebody else has taken the log over, or a transaction took too long and was given up: a writer cannot tell
    /// these apart.
    fn is_fenced(&self) -> bool;

    /// The job has finished, and that is committed: there is nothing to go on from any more.
    fn finish(&self) {}
}
