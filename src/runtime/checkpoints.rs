//! The checkpoints of a job: its state on the way into the log, transaction by transaction.
//!
//! At a boundary operators give out what has changed since the checkpoint before. That is written as chunks in the
//! transactions that follow, a part in each, so that none of them gets long; once all are there, the record of the next
//! boundary says that the checkpoint is complete, and only then it counts. Now and then a checkpoint is whole: what was
//! written before it is let go of. So the log stays within a small multiple of the state.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock;
use super::failpoint;
use super::progress::{Beginning, StateRef};
use crate::connectors::JobLog;
use crate::error::{Error, Result};
use crate::exec::{End, Extent};
use crate::plan::NodeId;
use crate::state::{ChunkWriter, Piece};

/// A transaction holds a sixteenth of a checkpoint, but at least and at most so many bytes.
const PART: (usize, usize) = (4 << 20, 32 << 20);

/// A checkpoint is whole when those since the last whole one weigh more than that one and so many bytes.
const DELTA_BYTES: u64 = 32 << 20;

/// See the module's head.
pub struct Checkpoints {
    log: Arc<dyn JobLog>,
    interval: Duration,
    next: Instant,
    /// The checkpoint that is complete: the chunks that make it up, and from which offset on they are.
    complete: (Vec<StateRef>, i64),
    /// Where the log ended when somebody looked last.
    ends: [i64; 2],
    /// Being written, oldest first. There is a second one only when the job ends.
    pending: VecDeque<Pending>,
}

struct Pending {
    /// Where a job goes on from; its state is filled in when it is complete.
    at: Beginning,
    extent: Extent,
    writer: ChunkWriter,
    /// How much of it a transaction holds.
    part: usize,
    /// Where the log ended: records of progress before that are no longer needed then, nor is state, if this is whole.
    ends: [i64; 2],
    begun: Instant,
}

/// A checkpoint whose chunks have all been written.
pub struct Complete {
    /// For the record of the next boundary.
    pub at: Beginning,
    /// What is no longer needed once that is committed.
    pub before: [i64; 2],
    /// How long it took.
    pub took: Duration,
}

impl Checkpoints {
    /// For a job that goes on from there.
    pub fn new(log: Arc<dyn JobLog>, interval: Duration, from: &Beginning) -> Result<Self> {
        let (complete, ends) = ((from.state.clone(), from.state_from), log.ends()?);
        Ok(Self { log, interval, next: clock::now() + interval, complete, ends, pending: VecDeque::new() })
    }

    /// What operators give out at the boundary that is called now.
    pub fn due(&mut self, now: Instant, end: End) -> Option<Extent> {
        let is_due = match end {
            End::GoesOn => self.next <= now && self.pending.is_empty(),
            End::Stopped => true,
            End::Finished => false,
        };
        if !is_due {
            return None;
        }
        self.next = now + self.interval;
        let [first, later @ ..] = self.complete.0.as_slice() else { return Some(Extent::Delta) };
        let since: u64 = later.iter().map(|delta| delta.bytes).sum();
        // One that is still being written counts on from the one before it.
        let is_whole = self.pending.is_empty() && first.bytes + DELTA_BYTES < since;
        Some(if is_whole { Extent::Whole } else { Extent::Delta })
    }

    /// Takes what operators have given out at a boundary. Nothing of its transaction has been committed.
    pub fn begin(&mut self, at: Beginning, extent: Extent, pieces: Vec<(NodeId, Piece)>) -> Result<()> {
        let mut numbered = Vec::with_capacity(pieces.len());
        for (node, piece) in pieces {
            numbered.push((u32::try_from(node).map_err(|_| Error::bug("a plan of too many nodes"))?, piece));
        }
        // Messages are of one operator and kind.
        numbered.sort_by_key(|(node, piece)| (*node, piece.kind));
        let writer = ChunkWriter::new(at.boundary, numbered);
        let part = (writer.waiting_bytes() / 16).clamp(PART.0, PART.1);
        match self.log.ends() {
            Ok(ends) => self.ends = ends,
            // While the broker is away, what was known before is true as well: the log has only grown.
            Err(error) => tracing::debug!("the end of a job's log is not known: {error}"),
        }
        let ends = self.ends;
        self.pending.push_back(Pending { at, extent, writer, part, ends, begun: clock::now() });
        Ok(())
    }

    /// Writes a part of what is pending into the transaction at hand, or all if the job ends with it. Answers the
    /// checkpoint that is complete with it.
    pub fn write(&mut self, end: End) -> Result<Option<Complete>> {
        while let Some(pending) = self.pending.front_mut() {
            let mut written = 0;
            while end != End::GoesOn || written < pending.part {
                let Some(chunks) = pending.writer.next_message()? else { break };
                for chunk in chunks {
                    written += chunk.len();
                    self.log.write_state(chunk)?;
                    failpoint::reach("mid-checkpoint");
                }
            }
            if 0 < pending.writer.waiting_bytes() {
                return Ok(None);
            }
            let Some(Pending { mut at, extent, writer, ends, begun, .. }) = self.pending.pop_front() else { break };
            if extent == Extent::Whole || self.complete.0.is_empty() {
                self.complete = (Vec::new(), ends[1]);
            }
            let (chunks, bytes) = writer.written();
            self.complete.0.push(StateRef { boundary: at.boundary, chunks, bytes });
            (at.state, at.state_from) = self.complete.clone();
            if self.pending.is_empty() {
                let before = [ends[0], self.complete.1];
                return Ok(Some(Complete { at, before, took: clock::now() - begun }));
            }
        }
        Ok(None)
    }

    /// Lets go of what is no longer needed, once a checkpoint is committed.
    pub fn let_go(&self, before: [i64; 2]) {
        self.log.delete_before(before);
    }

    /// Lets go of all that there was when the log was taken over.
    pub fn let_go_of_all(&self) {
        self.let_go(self.ends);
    }
}
