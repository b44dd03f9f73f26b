//! The committing thread of a job: it calls boundaries, takes all rows for sinks, and flushes at each boundary.
//!
//! A boundary is called when the interval is over and the one before has been flushed; so the rows between two boundaries
//! are all that a transaction would hold. Workers go on while sinks are flushed, up to the bounds of the channels.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::{Int8Array, RecordBatch};
use crossbeam_channel::{Receiver, SendTimeoutError, Sender};

use super::clock;
use super::events::ClockEvents;
use super::exchange::{Aligned, Next, cancelled};
use super::failpoint;
use super::ledger::Ledger;
use super::progress::{Position, Recorded};
use super::query::with_op;
use super::shared::{Call, Shared};
use crate::connectors::{PartitionPlan, SinkEncoder, SinkRows, SinkWriter, Source};
use crate::error::{Error, Result};
use crate::exec::{Boundary, End};
use crate::plan::NodeId;
use crate::state::Piece;

/// How long the thread waits for rows before it looks whether the job goes on.
const PATIENCE: Duration = Duration::from_millis(50);

/// What flows to the committing thread.
pub enum CommitMessage {
    /// Rows for a sink, and how many.
    Rows(usize, SinkRows, usize),
    /// Rows that were turned away, for a topic of such rows.
    Rejected(usize, SinkRows),
    /// What operators have given out at the boundary that follows, by node of the plan.
    State(Vec<(NodeId, Piece)>),
    /// A boundary: all rows of the sender before it have been sent.
    Boundary(Boundary),
}

/// See the module's head.
pub struct Committer {
    pub shared: Arc<Shared>,
    pub inputs: Aligned<CommitMessage>,
    pub writers: Vec<Box<dyn SinkWriter>>,
    /// Of the topics of rows that are turned away.
    pub reject_writers: Vec<Box<dyn SinkWriter>>,
    pub sources: Vec<Arc<dyn Source>>,
    /// Workers of stage 0.
    pub workers: usize,
    pub commit_interval: Duration,
    /// The boundary from which the job goes on, 0 at its start, and its clock.
    pub from: (u64, i64),
    /// Where each boundary is committed, with its rows; without one, the sinks are flushed one by one.
    pub ledger: Option<Ledger>,
    /// What operators have given out at the boundary at hand.
    pub state: Vec<(NodeId, Piece)>,
    /// What an earlier run has committed: it is gone through again in silence.
    pub replay: VecDeque<Recorded>,
}

impl Committer {
    /// Runs until the job has ended; answers whether its sources had.
    pub fn run(&mut self) -> Result<End> {
        let (mut sequence, mut clock_ms) = self.from;
        let mut flushed = sequence;
        let replay_until = self.replay.back().map_or(sequence, |last| last.sequence);
        self.shared.metrics.set_replay(replay_until);
        let mut called = Arc::new(ClockEvents::default());
        let mut next_call = clock::now() + self.commit_interval;
        loop {
            if self.shared.is_cancelled() {
                return Err(cancelled());
            }
            let now = clock::now();
            if sequence == flushed && sequence < replay_until {
                let Some(recorded) = self.replay.pop_front() else { return Err(Error::bug("a replay with a gap")) };
                (sequence, clock_ms) = (recorded.sequence, recorded.clock_ms);
                let boundary = Boundary { sequence, clock_ms, checkpoint: None, end: End::GoesOn };
                let (events, replayed) = (Arc::new(recorded.events.clone()), Some(Arc::new(recorded)));
                self.shared.call(Call { boundary, events, replayed });
            } else if sequence == flushed
                && let Some(end) = self.due(now, next_call)
            {
                sequence += 1;
                let checkpoint = self.ledger.as_mut().and_then(|ledger| ledger.checkpoint_due(now, end));
                next_call = now + self.commit_interval;
                // A job that ends begins with nothing new.
                let events = if end == End::GoesOn { self.shared.take_events() } else { ClockEvents::default() };
                self.tell(&events);
                // Processing time never goes back, whatever the clock does.
                clock_ms = clock_ms.max(clock::wall_ms());
                called = Arc::new(events);
                let (boundary, events) = (Boundary { sequence, clock_ms, checkpoint, end }, Arc::clone(&called));
                self.shared.call(Call { boundary, events, replayed: None });
            }
            // While a boundary is on its way only messages matter; else the next call does.
            let wait = if sequence == flushed { (next_call - now).min(Duration::from_millis(5)) } else { PATIENCE };
            match self.inputs.next(wait) {
                Next::Nothing => {}
                Next::Gone => return Err(cancelled()),
                Next::Message(_, CommitMessage::Rows(sink, rows, count)) => {
                    if replay_until <= flushed {
                        failpoint::reach("before-write");
                        let written = self.writers[sink].write(rows);
                        self.explained(written)?;
                    }
                    self.shared.metrics.rows_out.fetch_add(count as u64, Ordering::Relaxed);
                }
                // What was committed is not written again.
                Next::Message(_, CommitMessage::Rejected(..)) if flushed < replay_until => {}
                Next::Message(_, CommitMessage::Rejected(topic, rows)) => {
                    let written = self.reject_writers[topic].write(rows);
                    self.explained(written)?;
                }
                Next::Message(_, CommitMessage::State(pieces)) => self.state.extend(pieces),
                Next::Message(input, CommitMessage::Boundary(boundary)) => {
                    if !self.inputs.arrived(input) {
                        continue;
                    }
                    if replay_until < boundary.sequence {
                        self.flush(&boundary, &called)?;
                    } else {
                        failpoint::reach("mid-restore");
                        // Its rows are outside, and its progress on record.
                        drop(self.shared.take_reached(boundary.sequence, self.sources.len()));
                        if boundary.sequence == replay_until {
                            tracing::info!(
                                "{}: everything up to boundary {replay_until} is replayed",
                                self.shared.job.name
                            );
                        }
                    }
                    flushed = boundary.sequence;
                    if boundary.end != End::GoesOn {
                        for writer in self.writers.iter_mut().chain(&mut self.reject_writers) {
                            writer.close()?;
                        }
                        return Ok(boundary.end);
                    }
                }
            }
        }
    }

    /// Whether a boundary is to be called now, and whether the job goes on after it.
    fn due(&self, now: Instant, next_call: Instant) -> Option<End> {
        if self.shared.ended_workers() == self.workers {
            return Some(End::Finished);
        }
        if self.shared.is_stopping() {
            return Some(if self.shared.is_draining() { End::Finished } else { End::Stopped });
        }
        (next_call <= now).then_some(End::GoesOn)
    }

    fn tell(&self, events: &ClockEvents) {
        for new in &events.found {
            let PartitionPlan { id, start, .. } = &new.plan;
            let (job, topic, partition) = (&self.shared.job.name, &id.topic, id.partition);
            tracing::info!("{job}: topic \"{topic}\", partition {partition} is new and read from offset {start} on");
        }
    }

    /// The ledger knows more of why something cannot be written.
    fn explained(&self, result: Result<()>) -> Result<()> {
        match &self.ledger {
            Some(ledger) => result.map_err(|error| ledger.explain(error)),
            None => result,
        }
    }

    fn flush(&mut self, boundary: &Boundary, events: &ClockEvents) -> Result<()> {
        let begun = clock::now();
        for writer in self.writers.iter_mut().chain(&mut self.reject_writers) {
            writer.flush()?;
        }
        let reached = self.shared.take_reached(boundary.sequence, self.sources.len());
        let next_offset = |p: &Position| (p.index, p.next_offset);
        let next_offsets: Vec<Vec<(usize, i64)>> =
            reached.iter().map(|of| of.positions.iter().map(next_offset).collect()).collect();
        if let Some(ledger) = &mut self.ledger {
            let (metrics, state) = (&self.shared.metrics, std::mem::take(&mut self.state));
            ledger.commit(boundary, events, reached, state, metrics, &self.sources)?;
        }
        for (source, next_offsets) in self.sources.iter().zip(&next_offsets) {
            source.note_progress(next_offsets);
        }
        self.shared.metrics.note_commit(boundary.sequence, begun.elapsed());
        Ok(())
    }
}

/// Hands the rows of a `SELECT` to whoever asked.
pub struct Hand {
    to: Sender<RecordBatch>,
    shared: Arc<Shared>,
}

impl Hand {
    /// The writer, and where its rows come out.
    pub fn new(shared: &Arc<Shared>) -> (Self, Receiver<RecordBatch>) {
        let (to, from) = crossbeam_channel::bounded(crate::limits::CHANNEL_BATCHES_MAX);
        (Self { to, shared: Arc::clone(shared) }, from)
    }
}

impl SinkWriter for Hand {
    fn write(&mut self, rows: SinkRows) -> Result<()> {
        let SinkRows::Batch(mut batch) = rows else { return Err(Error::bug("encoded rows for a query's result")) };
        loop {
            match self.to.send_timeout(batch, PATIENCE) {
                Ok(()) => return Ok(()),
                // Nobody wants the rest.
                Err(SendTimeoutError::Disconnected(_)) => return Ok(()),
                Err(SendTimeoutError::Timeout(_)) if self.shared.is_cancelled() => return Err(cancelled()),
                Err(SendTimeoutError::Timeout(same)) => batch = same,
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The encoder of rows that stay in this process.
pub struct AsTheyAre;

impl SinkEncoder for AsTheyAre {
    fn encode(&mut self, batch: &RecordBatch, kinds: Option<&Int8Array>) -> Result<SinkRows> {
        Ok(SinkRows::Batch(match kinds {
            Some(kinds) => with_op(batch, kinds)?,
            None => batch.clone(),
        }))
    }
}
