//! A source's partitions as one worker reads them: which one next, and which are at their end.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::clock;
use super::job::{Shared, lock};
use crate::connectors::{PartitionPlan, Source, SourceReader, SourceRows};
use crate::error::Result;
use crate::exec::{Output, SourceStage};
use crate::limits::BATCH_ROWS_MAX;
use crate::time::{TimeMs, WATERMARK_MAX};

/// How long a partition stays at its end before it holds nothing back, unless its table says otherwise.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A source's partitions as one worker reads them.
pub struct SourceInput {
    pub entry: usize,
    pub opened: Arc<dyn Source>,
    /// `None` as long as there is nothing to read.
    pub reader: Option<Box<dyn SourceReader>>,
    pub stage: SourceStage,
    pub partitions: Vec<ReadPartition>,
    pub alignment: Arc<Alignment>,
    /// A partition that is further ahead than this is left alone.
    pub drift_ms: i64,
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
    /// No record has come.
    is_untouched: bool,
}

impl ReadPartition {
    /// A partition about to be read.
    pub fn new(index: usize, plan: &PartitionPlan) -> Self {
        Self { index, next_offset: plan.start, end: plan.end, ended: false, at_end_since: None, is_untouched: true }
    }
}

/// How far the partitions of some sources have come, so that none runs far ahead while others still have records:
/// uneven partitions would otherwise pile up open windows.
///
/// Nothing waits for ever: whoever is least far is always read, and what has nothing to give at the moment (a partition
/// at its end, idle, or ended; a table without event time) does not count.
#[derive(Default)]
pub struct Alignment {
    /// Per source and partition: its watermark, or the maximum while it has nothing to give.
    watermarks: Mutex<BTreeMap<(usize, usize), TimeMs>>,
}

impl Alignment {
    fn set(&self, source: usize, partition: usize, watermark: TimeMs) {
        lock(&self.watermarks).insert((source, partition), watermark);
    }

    /// Partitions beyond this watermark are left alone for now.
    fn limit(&self, drift_ms: i64) -> TimeMs {
        let least = lock(&self.watermarks).values().min().copied().unwrap_or(WATERMARK_MAX);
        least.saturating_add(drift_ms)
    }
}

impl SourceInput {
    /// Marks what is known before the first record: partitions with nothing to read.
    ///
    /// Those are idle, so that they hold nothing back. But where the whole table is empty, which of its partitions are
    /// used remains to be seen: it is asleep until its first record comes, and then all of them are waited for as long as
    /// for one that falls silent. Else a backlog that is loaded now would close windows by whichever partition got
    /// its records first, and lose those of the others.
    pub fn prepare(&mut self, plans: &[PartitionPlan]) {
        self.stage.set_asleep(plans.len() > 1 && plans.iter().all(|p| p.empty_at_start));
        for at in 0..self.partitions.len() {
            self.mark(at, &plans[self.partitions[at].index]);
        }
    }

    fn mark(&mut self, at: usize, plan: &PartitionPlan) {
        let partition = &mut self.partitions[at];
        if plan.end.is_some_and(|end| end <= plan.start) {
            partition.ended = true;
            self.stage.set_ended(partition.index);
        } else if plan.empty_at_start {
            partition.at_end_since = Some(clock::now());
            self.stage.set_idle(partition.index);
        }
        self.align(at);
    }

    /// At a boundary: a partition was found. If it is ours, it counts as any other from here on.
    pub fn add(&mut self, index: usize, plan: &PartitionPlan, ours: bool) -> Result<()> {
        self.stage.add(plan.id.clone(), ours);
        if ours {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => none.insert(self.opened.reader(&[])?),
            };
            reader.add(index, plan)?;
            self.partitions.push(ReadPartition::new(index, plan));
            self.mark(self.partitions.len() - 1, plan);
        }
        Ok(())
    }

    /// At a boundary: a table that was empty has begun. Partitions that may yet follow are waited for.
    pub fn wake(&mut self) {
        if !self.stage.is_asleep() {
            return;
        }
        self.stage.set_asleep(false);
        for partition in self.partitions.iter_mut().filter(|p| p.is_untouched && !p.ended) {
            partition.at_end_since = Some(clock::now());
            self.stage.set_active(partition.index);
        }
    }

    /// Waits until some partition may have something to poll, at most so long.
    pub fn wait(&mut self, wait: Duration) -> Result<()> {
        self.reader.as_mut().map_or(Ok(()), |reader| reader.wait(wait))
    }

    /// A sentence on why nothing arrives, if that is known.
    pub fn trouble(&self) -> Option<String> {
        self.reader.as_ref()?.trouble()
    }

    fn align(&self, at: usize) {
        let partition = &self.partitions[at];
        let has_nothing = partition.ended || partition.at_end_since.is_some() || !self.stage.has_event_time();
        let watermark = if has_nothing { WATERMARK_MAX } else { self.stage.watermark(partition.index) };
        self.alignment.set(self.source, partition.index, watermark);
    }

    /// The next rows: of the partition that is least far in event time, if it has any; else of one that is not too far
    /// ahead.
    pub fn poll(&mut self) -> Result<Option<(usize, SourceRows)>> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let limit = if self.stage.has_event_time() { self.alignment.limit(self.drift_ms) } else { WATERMARK_MAX };
        let mut order: Vec<(TimeMs, usize)> = (0..self.partitions.len())
            .filter(|&at| !self.partitions[at].ended)
            .map(|at| (self.stage.watermark(self.partitions[at].index), at))
            .collect();
        order.sort_unstable();
        for (watermark, at) in order {
            if limit < watermark && self.partitions[at].at_end_since.is_none() {
                continue;
            }
            if let Some(rows) = reader.poll(self.partitions[at].index, BATCH_ROWS_MAX)? {
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
        if had_records {
            partition.is_untouched = false;
        }
        if self.stage.is_asleep() && !rows.offsets.is_empty() {
            shared.note_events(|events| _ = events.begun.insert(self.source));
        }
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
        let is_away = self.trouble().is_some();
        self.stage.set_away(is_away);
        if is_away {
            let known = self.partitions.iter_mut().filter(|p| p.at_end_since.is_some());
            known.for_each(|p| p.at_end_since = Some(clock::now()));
            return;
        }
        for partition in &self.partitions {
            // One of which nobody knows that it will ever be used is not waited for for ever.
            let Some(timeout) = self.idle_timeout.or(partition.is_untouched.then_some(IDLE_TIMEOUT)) else { continue };
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
