//! A source's partitions as one worker reads them: which one next, and which are at their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use super::clock;
use super::job::Shared;
use crate::connectors::{PartitionPlan, SourceReader, SourceRows};
use crate::error::Result;
use crate::exec::{Output, SourceStage};
use crate::limits::BATCH_ROWS_MAX;
use crate::time::{TimeMs, WATERMARK_MAX, WATERMARK_MIN};

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
    pub fn poll(&mut self) -> Result<Option<(usize, SourceRows)>> {
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
    pub fn take(&mut self, at: usize, rows: &SourceRows, shared: &Shared, out: &mut Output) -> Result<()> {
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
    pub fn find_idle(&mut self) {
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
    pub fn positions(&self) -> Vec<(usize, i64)> {
        self.partitions.iter().map(|p| (p.index, p.next_offset)).collect()
    }
}
