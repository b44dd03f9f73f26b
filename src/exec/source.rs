//! The first step after a connector: computed columns, event time, the partition's watermark, the hidden columns.
//!
//! The watermark of a partition after a row is the greatest value that the watermark's expression has taken in that
//! partition. Each row carries its partition's watermark *before* it, taken before any filter: whether it is late depends
//! on its own partition's log alone, not on how partitions interleave.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef, TimestampMillisecondType};

use super::{Output, RowOrigin};
use crate::connectors::{PartitionId, SourceRows};
use crate::error::{Error, Result};
use crate::plan::{Hidden, SourceNode};
use crate::time::{Progress, TimeMs, WATERMARK_MAX, WATERMARK_MIN, is_admissible};

/// What happened to the rows of a batch in the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowFate {
    /// Rows given out.
    pub passed: u64,
    /// Rows without a usable event time, or whose computed columns failed, where the table says to skip those.
    pub bad: u64,
}

/// The state of one partition.
#[derive(Clone, Debug)]
struct Partition {
    id: PartitionId,
    watermark: TimeMs,
    idle: bool,
    ended: bool,
}

/// See the module's head. One per worker and table; partitions are named by their index in the source.
pub struct SourceStage {
    node: Arc<SourceNode>,
    wide: SchemaRef,
    schema: SchemaRef,
    hidden: Hidden,
    /// Indexed as the source's partitions are; those of other workers stay untouched.
    partitions: Vec<Partition>,
    share: Vec<usize>,
    skip_bad: bool,
    advance_when_idle: bool,
    is_away: bool,
    /// The greatest clock of a boundary so far.
    clock_ms: i64,
    is_asleep: bool,
}

impl SourceStage {
    /// A stage for a share of the partitions. `skip_bad` drops rows without a usable event time instead of failing.
    pub fn new(
        node: Arc<SourceNode>,
        visible: &Schema,
        hidden: Hidden,
        partitions: &[PartitionId],
        share: Vec<usize>,
        skip_bad: bool,
        advance_when_idle: bool,
    ) -> Self {
        let wide = node.decoded.fields().iter().cloned().chain(node.computed.iter().map(|(f, _)| Arc::clone(f)));
        let wide = Arc::new(Schema::new(wide.collect::<Vec<_>>()));
        let state =
            |id: &PartitionId| Partition { id: id.clone(), watermark: WATERMARK_MIN, idle: false, ended: false };
        Self {
            wide,
            schema: hidden.extend(visible),
            hidden,
            partitions: partitions.iter().map(state).collect(),
            share,
            skip_bad,
            advance_when_idle,
            is_away: false,
            clock_ms: WATERMARK_MIN + 1,
            is_asleep: false,
            node,
        }
    }

    /// A partition that was found later; its index is the next one. `ours` if it belongs to the share.
    pub fn add(&mut self, id: PartitionId, ours: bool) {
        if ours {
            self.share.push(self.partitions.len());
        }
        self.partitions.push(Partition { id, watermark: WATERMARK_MIN, idle: false, ended: false });
    }

    /// Rows of one partition, in the order of their offsets.
    pub fn on_rows(&mut self, partition: usize, rows: &SourceRows, out: &mut Output) -> Result<RowFate> {
        if rows.offsets.is_empty() {
            return Ok(RowFate::default());
        }
        self.partitions[partition].idle = false;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.offsets.len()));
        let decoded =
            RecordBatch::try_new_with_options(Arc::clone(&self.node.decoded), rows.columns.clone(), &options)?;
        let (wide, offsets) = self.compute(partition, decoded, &rows.offsets)?;
        let (wide, offsets, watermarks) = self.watermarks(partition, wide, offsets)?;
        let passed = wide.num_rows();
        let fate = RowFate { passed: passed as u64, bad: (rows.offsets.len() - passed) as u64 };
        if passed == 0 {
            return Ok(fate);
        }
        let mut columns: Vec<ArrayRef> = self.node.output.iter().map(|&i| Arc::clone(wide.column(i))).collect();
        if self.hidden.watermark {
            columns.push(Arc::new(watermarks));
        }
        if self.hidden.tie {
            columns.push(self.ties(partition, &offsets));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(passed));
        out.batches.push(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?);
        Ok(fate)
    }

    /// Appends the computed columns; rows for which that fails are bad.
    fn compute(&self, partition: usize, decoded: RecordBatch, offsets: &[i64]) -> Result<(RecordBatch, Vec<i64>)> {
        if self.node.computed.is_empty() {
            return Ok((decoded, offsets.to_vec()));
        }
        if let Ok(wide) = self.with_computed(&decoded) {
            return Ok((wide, offsets.to_vec()));
        }
        // Some row is at fault: find it, the others go on.
        let mut good = Vec::new();
        let mut good_offsets = Vec::new();
        for (i, &offset) in offsets.iter().enumerate() {
            match self.with_computed(&decoded.slice(i, 1)) {
                Ok(row) => {
                    good.push(row);
                    good_offsets.push(offset);
                }
                Err(_) if self.skip_bad => {}
                Err(error) => return Err(self.bad_row(partition, offset, &error.message)),
            }
        }
        Ok((concat_batches(&self.wide, &good)?, good_offsets))
    }

    fn with_computed(&self, decoded: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = decoded.columns().to_vec();
        for (_, expr) in &self.node.computed {
            columns.push(expr.evaluate(decoded)?.into_array(decoded.num_rows())?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(decoded.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.wide), columns, &options)?)
    }

    /// The partition's watermark before each row; rows without a usable event time are bad.
    fn watermarks(
        &mut self,
        partition: usize,
        wide: RecordBatch,
        offsets: Vec<i64>,
    ) -> Result<(RecordBatch, Vec<i64>, Int64Array)> {
        let Some((time, expr)) = &self.node.watermark else {
            let none = Int64Array::from(vec![WATERMARK_MIN; if self.hidden.watermark { offsets.len() } else { 0 }]);
            return Ok((wide, offsets, none));
        };
        let times = wide.column(*time).as_primitive::<TimestampMillisecondType>();
        let usable = |i: usize| times.is_valid(i) && is_admissible(times.value(i));
        let all_usable = times.null_count() == 0 && times.values().iter().all(|t| is_admissible(*t));
        let (wide, offsets) = if all_usable {
            (wide, offsets)
        } else {
            let good: Vec<u32> = (0..times.len()).filter(|&i| usable(i)).map(|i| i as u32).collect();
            if let Some(bad) = (0..times.len()).find(|&i| !usable(i)).filter(|_| !self.skip_bad) {
                let name = self.wide.field(*time).name();
                let reason = if times.is_null(bad) { "is null" } else { "is out of range" };
                return Err(self.bad_row(partition, offsets[bad], &format!("its event time {name} {reason}")));
            }
            let kept = good.iter().map(|&i| offsets[i as usize]).collect();
            (take_record_batch(&wide, &UInt32Array::from(good))?, kept)
        };
        let values = expr.evaluate(&wide)?.into_array(wide.num_rows())?;
        let values = values.as_primitive::<TimestampMillisecondType>();
        let watermark = &mut self.partitions[partition].watermark;
        let mut before = Vec::with_capacity(values.len());
        if values.null_count() == 0 {
            for &value in values.values() {
                before.push(*watermark);
                *watermark = (*watermark).max(value);
            }
        } else {
            for value in values {
                before.push(*watermark);
                *watermark = (*watermark).max(value.unwrap_or(WATERMARK_MIN));
            }
        }
        Ok((wide, offsets, Int64Array::from(before)))
    }

    /// Bytes whose order is that of source, partition, offset.
    fn ties(&self, partition: usize, offsets: &[i64]) -> ArrayRef {
        let mut ties = BinaryBuilder::with_capacity(offsets.len(), offsets.len() * 14);
        for &offset in offsets {
            let origin = RowOrigin { source: self.node.ordinal, partition: partition as u32, offset };
            ties.append_value(origin.to_bytes());
        }
        Arc::new(ties.finish())
    }

    fn bad_row(&self, partition: usize, offset: i64, reason: &str) -> Error {
        let id = &self.partitions[partition].id;
        Error::data(format!(
            "the record at topic {}, partition {}, offset {offset} is bad: {reason}",
            id.topic, id.partition
        ))
        .hint(format!("mend the producer, or set 'scan.on-error' = 'skip' on table {}", self.node.table.name))
    }

    /// The watermark of a partition.
    pub fn watermark(&self, partition: usize) -> TimeMs {
        self.partitions[partition].watermark
    }

    /// Moves the watermark of a partition on, as a row would.
    pub fn advance_watermark(&mut self, partition: usize, to: TimeMs) {
        let partition = &mut self.partitions[partition];
        partition.watermark = partition.watermark.max(to);
    }

    /// Whether rows have an event time at all.
    pub fn has_event_time(&self) -> bool {
        self.node.watermark.is_some()
    }

    /// Whether nobody knows at this moment if there are more rows: then the clock moves nothing on.
    pub fn set_away(&mut self, is_away: bool) {
        self.is_away = is_away;
    }

    /// From the next boundary on the partition holds nothing back, until a row of it comes.
    pub fn set_idle(&mut self, partition: usize) {
        self.partitions[partition].idle = true;
    }

    /// From the next boundary on the partition holds back what it has not come to.
    pub fn set_active(&mut self, partition: usize) {
        self.partitions[partition].idle = false;
    }

    /// While a table that was empty at the start is asleep, rows of it move nothing: not all workers know of them yet.
    pub fn set_asleep(&mut self, is_asleep: bool) {
        self.is_asleep = is_asleep;
    }

    /// Whether a table that was empty at the start still counts as such.
    pub fn is_asleep(&self) -> bool {
        self.is_asleep
    }

    /// Whether the partition holds nothing back.
    pub fn is_idle(&self, partition: usize) -> bool {
        self.partitions[partition].idle
    }

    /// Everything of a bounded partition has been read.
    pub fn set_ended(&mut self, partition: usize) {
        self.partitions[partition].ended = true;
    }

    /// Whether everything of every partition of the share has been read.
    pub fn has_ended(&self) -> bool {
        self.share.iter().all(|&p| self.partitions[p].ended)
    }

    /// How far the share has come, at a boundary with this clock. Rows that are read from now on carry that clock, so time
    /// before it is over.
    pub fn progress(&mut self, clock_ms: i64) -> Progress {
        self.clock_ms = self.clock_ms.max(clock_ms);
        let open = || self.share.iter().map(|&p| &self.partitions[p]).filter(|p| !p.ended);
        if open().next().is_none() {
            return Progress::Active(WATERMARK_MAX);
        }
        if self.node.processing_time {
            return Progress::Active(self.clock_ms - 1);
        }
        match open().filter(|p| !p.idle).map(|p| p.watermark).min() {
            Some(_) if self.is_asleep => Progress::Active(WATERMARK_MIN),
            Some(least) => Progress::Active(least),
            None => {
                // Those that have ended do not count: other workers do not know of them.
                let reached = open().map(|p| p.watermark).max().unwrap_or(WATERMARK_MIN);
                Progress::Idle { reached, advance: self.advance_when_idle && !self.is_away }
            }
        }
    }
}
