//! The threads that evaluate: stage 0 reads sources, later stages read from workers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::DataType;

use super::clock;
use super::events::ClockEvents;
use super::exchange::{Aligned, Message, Next, cancelled};
use super::failpoint;
use super::outlets::WorkerOutlets;
use super::progress::Recorded;
use super::reading::SourceInput;
use super::shared::{Call, Shared};
use super::topology::Part;
use crate::connectors::SourceRows;
use crate::error::Result;
use crate::exec::{Boundary, End, Output};
use crate::plan::Hidden;
use crate::time::{Progress, WATERMARK_MAX, WATERMARK_MIN};

/// How long a worker waits for records before it looks for a boundary.
const PATIENCE: Duration = Duration::from_millis(10);

/// A worker of stage 0.
pub struct SourceWorker {
    pub part: Part,
    pub outlets: WorkerOutlets,
    pub inputs: Vec<SourceInput>,
    /// Rows that were computed once.
    pub fixed: Vec<Fixed>,
    /// The boundary from which the job goes on, 0 at its start, and its clock.
    pub from: (u64, i64),
    /// The last boundary of a replay; that from which the job goes on without one.
    pub replay_until: u64,
}

/// Rows that were computed once.
pub struct Fixed {
    /// Where they enter.
    pub entry: usize,
    /// Their number among the inputs of the job.
    pub input: usize,
    /// The hidden columns that they need.
    pub hidden: Hidden,
    /// They themselves.
    pub batches: Vec<RecordBatch>,
}

impl SourceWorker {
    /// Runs until the job ends.
    pub fn run(&mut self) -> Result<()> {
        let (mut sequence, clock_ms) = self.from;
        clock::set_worker_clock(clock_ms);
        for Fixed { entry, input, hidden, batches } in std::mem::take(&mut self.fixed) {
            for batch in batches {
                let batch = with_hidden(&batch, hidden)?;
                let records = &self.outlets.shared.metrics.input(input).records;
                records.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                self.part.fragment.on_batch(entry, batch, &mut self.outlets)?;
            }
        }
        let shared = Arc::clone(&self.outlets.shared);
        let mut told_end = false;
        loop {
            if shared.is_cancelled() {
                return Err(cancelled());
            }
            if let Some(Call { boundary, events, replayed }) = shared.boundary_after(sequence) {
                sequence = boundary.sequence;
                if let Some(replayed) = &replayed {
                    self.replay_to(replayed, &shared)?;
                }
                self.on_events(&events)?;
                self.on_boundary(&boundary, replayed.as_deref())?;
                if boundary.end != End::GoesOn {
                    return Ok(());
                }
                if sequence == self.replay_until {
                    self.inputs.iter_mut().try_for_each(SourceInput::lift_limits)?;
                }
            }
            if sequence < self.replay_until {
                // Until the next boundary is known, nobody knows how far to read.
                if shared.is_stopping() {
                    shared.cancel();
                }
                shared.wait_for_call(sequence, PATIENCE);
                continue;
            }
            if self.inputs.iter().all(|i| i.stage.has_ended()) {
                if !std::mem::replace(&mut told_end, true) {
                    shared.note_worker_ended();
                }
                shared.wait_for_call(sequence, PATIENCE);
                continue;
            }
            // A job that is stopping reads nothing more: the boundary that ends it is on its way.
            if shared.is_stopping() || !self.read(SourceInput::poll)? {
                self.wait(&shared, sequence)?;
            }
        }
    }

    /// Reads on to where an earlier run stood at a boundary. A job that is told to stop on the way has nothing to write.
    fn replay_to(&mut self, boundary: &Recorded, shared: &Shared) -> Result<()> {
        self.inputs.iter_mut().try_for_each(|input| input.limit_to(boundary))?;
        loop {
            let mut all = true;
            for input in &self.inputs {
                all &= input.has_come_to(boundary)?;
            }
            if all {
                return Ok(());
            }
            if shared.is_stopping() {
                shared.cancel();
            }
            if shared.is_cancelled() {
                return Err(cancelled());
            }
            if !self.read(SourceInput::poll_replay)? {
                self.wait(shared, boundary.sequence)?;
            }
        }
    }

    /// Reads once from each source; `false` when nothing was there.
    fn read(&mut self, poll: impl Fn(&mut SourceInput) -> Result<Option<(usize, SourceRows)>>) -> Result<bool> {
        let mut any = false;
        for input in &mut self.inputs {
            let before = clock::worked();
            let Some((at, rows)) = poll(input)? else { continue };
            failpoint::reach("after-poll");
            any = true;
            let mut out = Output::default();
            input.take(at, &rows, &self.outlets.shared, &mut out)?;
            self.part.fragment.add_time(input.entry, clock::worked().saturating_sub(before));
            self.outlets.turn_away(None, out.rejected)?;
            for batch in out.batches {
                let taken = self.part.fragment.on_batch(input.entry, batch, &mut self.outlets);
                taken.map_err(|error| input.locate(error, at, &rows))?;
            }
        }
        Ok(any)
    }

    fn wait(&mut self, shared: &Shared, sequence: u64) -> Result<()> {
        let trouble = self.inputs.iter().find_map(SourceInput::trouble);
        shared.metrics.set_trouble(self.outlets.worker, trouble);
        if shared.is_stopping() {
            shared.wait_for_call(sequence, PATIENCE);
            return Ok(());
        }
        let open = self.inputs.iter().filter(|i| !i.stage.has_ended()).count().max(1);
        for input in self.inputs.iter_mut().filter(|i| !i.stage.has_ended()) {
            input.wait(PATIENCE / u32::try_from(open).unwrap_or(1))?;
        }
        Ok(())
    }

    /// What takes effect at the boundary that follows.
    fn on_events(&mut self, events: &ClockEvents) -> Result<()> {
        let (worker, workers) = (self.outlets.worker, self.outlets.topology.workers());
        for new in &events.found {
            if let Some(input) = self.inputs.iter_mut().find(|i| i.source == new.source) {
                input.add(new.index, &new.plan, new.index % workers == worker)?;
            }
        }
        for input in self.inputs.iter_mut().filter(|i| events.begun.contains(&i.source)) {
            input.wake();
        }
        Ok(())
    }

    fn on_boundary(&mut self, boundary: &Boundary, replayed: Option<&Recorded>) -> Result<()> {
        let mut progress = Vec::new();
        for input in &mut self.inputs {
            match replayed {
                Some(replayed) => input.be_as_at(replayed),
                None => input.find_idle(),
            }
            progress.push((input.entry, input.stage.progress(boundary.clock_ms)));
            self.outlets.shared.note_reached(boundary.sequence, input.source, input.positions(), input.counts);
            self.outlets.shared.metrics.report_share(input.source, self.outlets.worker, input.report());
        }
        let with_progress: Vec<usize> = progress.iter().map(|(entry, _)| *entry).collect();
        // Sources that this worker has no share of, and rows that were computed once, hold nothing back.
        let others = self.part.sources.values().filter(|e| !with_progress.contains(e));
        progress.extend(others.map(|&entry| (entry, Progress::Active(WATERMARK_MAX))));
        self.part.fragment.on_boundary(boundary, &progress, &mut self.outlets)?;
        self.outlets.report(&self.part);
        self.outlets.boundary(boundary)?;
        clock::set_worker_clock(boundary.clock_ms);
        Ok(())
    }
}

/// A worker of a later stage.
pub struct StageWorker {
    pub part: Part,
    pub outlets: WorkerOutlets,
    pub inputs: Aligned<Message>,
    /// The clock before the first boundary.
    pub clock_ms: i64,
}

impl StageWorker {
    /// Runs until the job ends.
    pub fn run(&mut self) -> Result<()> {
        clock::set_worker_clock(self.clock_ms);
        let shared = Arc::clone(&self.outlets.shared);
        let mut progress: Vec<(usize, Progress)> = Vec::new();
        loop {
            match self.inputs.next(PATIENCE) {
                Next::Nothing if shared.is_cancelled() => return Err(cancelled()),
                Next::Nothing => {}
                Next::Gone => return Err(cancelled()),
                Next::Message(_, Message::Batch(edge, batch)) => {
                    self.part.fragment.on_batch(self.part.edges[&edge], batch, &mut self.outlets)?;
                }
                Next::Message(input, Message::Boundary(boundary, edges)) => {
                    progress.extend(edges.iter().map(|&(edge, progress)| (self.part.edges[&edge], progress)));
                    if !self.inputs.arrived(input) {
                        continue;
                    }
                    self.part.fragment.on_boundary(&boundary, &std::mem::take(&mut progress), &mut self.outlets)?;
                    self.outlets.report(&self.part);
                    self.outlets.boundary(&boundary)?;
                    clock::set_worker_clock(boundary.clock_ms);
                    if boundary.end != End::GoesOn {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Rows that come from no partition: late for nothing, and first among equals.
pub fn with_hidden(batch: &RecordBatch, hidden: Hidden) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    if hidden.watermark {
        columns.push(Arc::new(Int64Array::from(vec![WATERMARK_MIN; rows])));
    }
    if hidden.tie {
        columns.push(Arc::new(BinaryArray::from_iter_values((0..rows as u64).map(u64::to_be_bytes))));
    }
    if hidden.raw {
        columns.push(new_null_array(&DataType::BinaryView, rows));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(hidden.extend(&batch.schema()), columns, &options)?)
}
