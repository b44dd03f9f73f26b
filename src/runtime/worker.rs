//! The threads that evaluate: stage 0 reads sources, later stages read from workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, RecordBatchOptions};
use crossbeam_channel::Sender;

use super::clock;
use super::commit::CommitMessage;
use super::exchange::{Aligned, Message, Next, by_owner, cancelled, send};
use super::job::Shared;
use super::metrics::WorkerReport;
use super::topology::{EdgeKind, Part, Topology};
use crate::connectors::{PartitionPlan, SinkEncoder, SinkRows, SourceReader, SourceRows};
use crate::error::{Error, Result};
use crate::exec::{Boundary, End, Outlet, Outlets, Output, SourceStage};
use crate::limits::BATCH_ROWS_MAX;
use crate::plan::Hidden;
use crate::time::{Progress, TimeMs, WATERMARK_MAX, WATERMARK_MIN};

/// How long a worker waits for records before it looks for a boundary.
const PATIENCE: Duration = Duration::from_millis(10);

/// Where a worker's output goes.
pub struct WorkerOutlets {
    pub shared: Arc<Shared>,
    pub topology: Arc<Topology>,
    pub stage: usize,
    pub worker: usize,
    /// Per later stage that this one has edges to, the channels to its workers.
    pub stages: Vec<(usize, Vec<Sender<Message>>)>,
    /// Per sink of the plan, its encoder and the columns that may not be null.
    pub encoders: Vec<(Box<dyn SinkEncoder>, Vec<usize>)>,
    /// To the committing thread, if this stage feeds sinks.
    pub commit: Option<Sender<CommitMessage>>,
    /// The progress of edges at the boundary at hand.
    pub progress: Vec<(usize, Progress)>,
    /// The least watermark of the sinks at the boundary at hand.
    pub reached: TimeMs,
}

impl Outlets for WorkerOutlets {
    fn rows(&mut self, outlet: Outlet, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if let Some(sink) = self.topology.sink_of(outlet) {
            return self.to_sink(sink, &batch);
        }
        let edge = self.topology.edges()[outlet];
        let channels = self.stages.iter().find(|(stage, _)| *stage == edge.to_stage).map(|(_, c)| c);
        let Some(channels) = channels else { return Err(Error::bug("an edge without channels")) };
        match edge.kind {
            EdgeKind::Rows => send(&channels[self.worker], Message::Batch(outlet, batch), &self.shared),
            EdgeKind::Partials { keys } => {
                for (channel, batch) in channels.iter().zip(by_owner(&batch, keys, channels.len())?) {
                    if let Some(batch) = batch {
                        send(channel, Message::Batch(outlet, batch), &self.shared)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn progress(&mut self, outlet: Outlet, progress: Progress) {
        if self.topology.sink_of(outlet).is_none() {
            self.progress.push((outlet, progress));
            return;
        }
        let (Progress::Active(reached) | Progress::Idle { reached, .. }) = progress;
        self.reached = self.reached.min(reached);
    }
}

impl WorkerOutlets {
    fn to_sink(&mut self, sink: usize, batch: &RecordBatch) -> Result<()> {
        let (encoder, not_null) = &mut self.encoders[sink];
        for &column in not_null.iter() {
            if batch.column(column).null_count() > 0 {
                let name = batch.schema().field(column).name().clone();
                return Err(Error::data(format!(
                    "column {name} is NOT NULL in the sink, and a row has no value for it"
                ))
                .hint(format!("leave such rows out with WHERE {name} IS NOT NULL, or give a value with COALESCE")));
            }
        }
        let rows = encoder.encode(batch)?;
        let Some(commit) = &self.commit else { return Err(Error::bug("a sink without a committing thread")) };
        send(commit, CommitMessage::Rows(sink, rows, batch.num_rows()), &self.shared)
    }

    /// Sends a boundary on, behind everything before it.
    fn boundary(&mut self, boundary: &Boundary) -> Result<()> {
        let progress = std::mem::take(&mut self.progress);
        for (stage, channels) in &self.stages {
            let of_stage = |(edge, _): &&(usize, Progress)| self.topology.edges()[*edge].to_stage == *stage;
            let of_stage: Vec<_> = progress.iter().filter(of_stage).copied().collect();
            for channel in channels {
                send(channel, Message::Boundary(*boundary, of_stage.clone()), &self.shared)?;
            }
        }
        match &self.commit {
            Some(commit) => send(commit, CommitMessage::Boundary(*boundary), &self.shared),
            None => Ok(()),
        }
    }

    fn report(&mut self, part: &Part) {
        let watermark = std::mem::replace(&mut self.reached, WATERMARK_MAX);
        let (open_windows, state_bytes) = part.fragment.state_size();
        let report = WorkerReport { counts: part.fragment.counts(), watermark, open_windows, state_bytes };
        self.shared.metrics.report(self.stage, self.worker, report);
    }
}

/// A source's partitions as one worker reads them.
pub struct SourceInput {
    pub entry: usize,
    pub reader: Box<dyn SourceReader>,
    pub stage: SourceStage,
    pub partitions: Vec<ReadPartition>,
    pub alignment: Arc<Alignment>,
    pub idle_timeout: Option<Duration>,
    /// The source's number among the sources of the job.
    pub source: usize,
}

/// A partition as it is being read.
pub struct ReadPartition {
    index: usize,
    next_offset: i64,
    end: Option<i64>,
    ended: bool,
    at_end_since: Option<Instant>,
}

impl ReadPartition {
    /// A partition about to be read.
    pub fn new(index: usize, plan: &PartitionPlan) -> Self {
        Self { index, next_offset: plan.start, end: plan.end, ended: false, at_end_since: None }
    }
}

/// How far all partitions of all sources have come, so that none runs far ahead while others still have records:
/// uneven partitions would otherwise pile up open windows.
pub struct Alignment {
    /// Per source, per partition: its watermark, or the maximum while it has nothing to give.
    watermarks: Vec<AtomicI64>,
    drift_ms: i64,
}

impl Alignment {
    /// Partitions may be ahead of the last one by so much event time.
    pub fn new(partitions: usize, drift_ms: i64) -> Self {
        Self { watermarks: (0..partitions).map(|_| AtomicI64::new(WATERMARK_MIN)).collect(), drift_ms }
    }

    fn set(&self, partition: usize, watermark: TimeMs) {
        self.watermarks[partition].store(watermark, Ordering::Relaxed);
    }

    /// Partitions beyond this watermark are left alone for now.
    fn limit(&self) -> TimeMs {
        let least = self.watermarks.iter().map(|w| w.load(Ordering::Relaxed)).min().unwrap_or(WATERMARK_MAX);
        least.saturating_add(self.drift_ms)
    }
}

impl SourceInput {
    /// Marks what is known before the first record: partitions with nothing to read.
    pub fn prepare(&mut self, plans: &[PartitionPlan]) {
        for at in 0..self.partitions.len() {
            let partition = &mut self.partitions[at];
            let plan = &plans[partition.index];
            if plan.end.is_some_and(|end| end <= plan.start) {
                partition.ended = true;
                self.stage.set_ended(partition.index);
            } else if plan.empty_at_start {
                partition.at_end_since = Some(clock::now());
                self.stage.set_idle(partition.index);
            }
            self.align(at);
        }
    }

    fn align(&self, at: usize) {
        let partition = &self.partitions[at];
        let has_nothing = partition.ended || partition.at_end_since.is_some();
        let watermark = if has_nothing { WATERMARK_MAX } else { self.stage.watermark(partition.index) };
        self.alignment.set(partition.index, watermark);
    }

    /// The next rows: of the partition that is least far in event time, if it has any; else of one that is not too far
    /// ahead.
    fn poll(&mut self) -> Result<Option<(usize, SourceRows)>> {
        let limit = if self.stage.has_event_time() { self.alignment.limit() } else { WATERMARK_MAX };
        let mut order: Vec<(TimeMs, usize)> = (0..self.partitions.len())
            .filter(|&at| !self.partitions[at].ended)
            .map(|at| (self.stage.watermark(self.partitions[at].index), at))
            .collect();
        order.sort_unstable();
        for (watermark, at) in order {
            if limit < watermark && self.partitions[at].at_end_since.is_none() {
                continue;
            }
            if let Some(rows) = self.reader.poll(self.partitions[at].index, BATCH_ROWS_MAX)? {
                return Ok(Some((at, rows)));
            }
        }
        Ok(None)
    }

    /// Takes rows of a partition; what they give is in `out`.
    fn take(&mut self, at: usize, rows: &SourceRows, shared: &Shared, out: &mut Output) -> Result<()> {
        let index = self.partitions[at].index;
        let fate = self.stage.on_rows(index, rows, out)?;
        let metrics = &shared.metrics;
        metrics.records.fetch_add(rows.records, Ordering::Relaxed);
        metrics.bytes.fetch_add(rows.bytes, Ordering::Relaxed);
        metrics.skipped.fetch_add(rows.bad + fate.bad, Ordering::Relaxed);
        metrics.tombstones.fetch_add(rows.tombstones, Ordering::Relaxed);
        let partition = &mut self.partitions[at];
        partition.next_offset = partition.next_offset.max(rows.next_offset);
        if partition.end.is_some_and(|end| end <= partition.next_offset) {
            partition.ended = true;
            self.stage.set_ended(index);
        }
        let had_records = rows.records > 0;
        partition.at_end_since = match (rows.at_end, partition.at_end_since) {
            (false, before) => before.filter(|_| !had_records),
            (true, Some(since)) if !had_records => Some(since),
            (true, _) => Some(clock::now()),
        };
        self.align(at);
        Ok(())
    }

    /// At a boundary: partitions that have been at their end for long enough hold nothing back any more.
    ///
    /// While the broker is away nobody knows where their end is: then none becomes idle, and the clock moves nothing.
    fn find_idle(&mut self) {
        let is_away = self.reader.trouble().is_some();
        self.stage.set_away(is_away);
        if is_away {
            let known = self.partitions.iter_mut().filter(|p| p.at_end_since.is_some());
            known.for_each(|p| p.at_end_since = Some(clock::now()));
            return;
        }
        let Some(timeout) = self.idle_timeout else { return };
        for partition in &self.partitions {
            let waited = partition.at_end_since.is_some_and(|since| timeout <= clock::now() - since);
            if waited && !partition.ended && !self.stage.is_idle(partition.index) {
                self.stage.set_idle(partition.index);
            }
        }
    }

    /// Partition indices and next offsets.
    fn positions(&self) -> Vec<(usize, i64)> {
        self.partitions.iter().map(|p| (p.index, p.next_offset)).collect()
    }
}

/// A worker of stage 0.
pub struct SourceWorker {
    pub part: Part,
    pub outlets: WorkerOutlets,
    pub inputs: Vec<SourceInput>,
    /// Rows that were computed once: their entry, the hidden columns they need, and they themselves.
    pub fixed: Vec<(usize, Hidden, Vec<RecordBatch>)>,
}

impl SourceWorker {
    /// Runs until the job ends.
    pub fn run(&mut self) -> Result<()> {
        clock::set_worker_clock(clock::wall_ms());
        for (entry, hidden, batches) in std::mem::take(&mut self.fixed) {
            for batch in batches {
                let batch = with_hidden(&batch, hidden)?;
                self.outlets.shared.metrics.records.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                self.part.fragment.on_batch(entry, batch, &mut self.outlets)?;
            }
        }
        let shared = Arc::clone(&self.outlets.shared);
        let (mut sequence, mut told_end) = (0, false);
        loop {
            if shared.is_cancelled() {
                return Err(cancelled());
            }
            if let Some(boundary) = shared.boundary_after(sequence) {
                sequence = boundary.sequence;
                self.on_boundary(&boundary)?;
                if boundary.end != End::GoesOn {
                    return Ok(());
                }
            }
            if self.inputs.iter().all(|i| i.stage.has_ended()) {
                if !std::mem::replace(&mut told_end, true) {
                    shared.note_worker_ended();
                }
                shared.wait_for_call(sequence, PATIENCE);
                continue;
            }
            // A job that is stopping reads nothing more: the boundary that ends it is on its way.
            if shared.is_stopping() || !self.read()? {
                self.wait(&shared, sequence)?;
            }
        }
    }

    /// Reads once from each source; `false` when nothing was there.
    fn read(&mut self) -> Result<bool> {
        let mut any = false;
        for input in &mut self.inputs {
            let Some((at, rows)) = input.poll()? else { continue };
            any = true;
            let mut out = Output::default();
            input.take(at, &rows, &self.outlets.shared, &mut out)?;
            for batch in out.batches {
                self.part.fragment.on_batch(input.entry, batch, &mut self.outlets)?;
            }
        }
        Ok(any)
    }

    fn wait(&mut self, shared: &Shared, sequence: u64) -> Result<()> {
        let trouble = self.inputs.iter().find_map(|input| input.reader.trouble());
        shared.metrics.set_trouble(self.outlets.worker, trouble);
        if shared.is_stopping() {
            shared.wait_for_call(sequence, PATIENCE);
            return Ok(());
        }
        let open = self.inputs.iter().filter(|i| !i.stage.has_ended()).count().max(1);
        for input in self.inputs.iter_mut().filter(|i| !i.stage.has_ended()) {
            input.reader.wait(PATIENCE / u32::try_from(open).unwrap_or(1))?;
        }
        Ok(())
    }

    fn on_boundary(&mut self, boundary: &Boundary) -> Result<()> {
        let mut progress = Vec::new();
        for input in &mut self.inputs {
            input.find_idle();
            progress.push((input.entry, input.stage.progress()));
            self.outlets.shared.note_positions(boundary.sequence, input.source, input.positions());
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
}

impl StageWorker {
    /// Runs until the job ends.
    pub fn run(&mut self) -> Result<()> {
        clock::set_worker_clock(clock::wall_ms());
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
fn with_hidden(batch: &RecordBatch, hidden: Hidden) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    if hidden.watermark {
        columns.push(Arc::new(Int64Array::from(vec![WATERMARK_MIN; rows])));
    }
    if hidden.tie {
        columns.push(Arc::new(BinaryArray::from_iter_values((0..rows as u64).map(u64::to_be_bytes))));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(hidden.extend(&batch.schema()), columns, &options)?)
}

/// Hands an encoder the columns that a sink has: what rows carry beside them ends here.
pub struct WithoutHidden {
    /// The number of the sink's columns; hidden ones come behind.
    pub visible: usize,
    /// The sink's encoder.
    pub encoder: Box<dyn SinkEncoder>,
}

impl SinkEncoder for WithoutHidden {
    fn encode(&mut self, batch: &RecordBatch) -> Result<SinkRows> {
        if batch.num_columns() == self.visible {
            return self.encoder.encode(batch);
        }
        let columns: Vec<usize> = (0..self.visible).collect();
        self.encoder.encode(&batch.project(&columns)?)
    }
}

/// An encoder for rows that stay in this process.
pub struct AsTheyAre;

impl SinkEncoder for AsTheyAre {
    fn encode(&mut self, batch: &RecordBatch) -> Result<SinkRows> {
        Ok(SinkRows::Batch(batch.clone()))
    }
}
