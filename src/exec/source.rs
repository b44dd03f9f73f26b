//! The first step after a connector: computed columns, event time, the partition's watermark, the hidden columns.
//!
//! The watermark of a partition after a row is the greatest value that the watermark's expression has taken in that
//! partition. Each row carries its partition's watermark *before* it, taken before any filter: whether it is late depends
//! on its own partition's log alone, not on how partitions interleave.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions,
    UInt64Array, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{filter, take};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal};

use super::rejected::{Isolated, isolate};
use super::{Output, Rejected, Rejection, RowOrigin};
use crate::connectors::{Keep, OnError, PartitionId, RawRecord, SourceRows, Undecoded};
use crate::error::{Error, Result};
use crate::plan::{Hidden, SourceNode};
use crate::time::{Moves, Progress, TimeMs, WATERMARK_MAX, WATERMARK_MIN, is_admissible, iso_utc};

/// What happened to the records of a batch in the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowFate {
    /// Rows given out.
    pub passed: u64,
    /// Bad records (without a usable event time, or whose computed columns failed) where the table says to skip those.
    pub skipped: u64,
    /// Bad records, also those that do not decode, where the table has a topic for them.
    pub dead_lettered: u64,
}

/// The state of one partition.
#[derive(Clone, Debug)]
struct Partition {
    id: PartitionId,
    watermark: TimeMs,
    idle: bool,
    ended: bool,
}

impl Partition {
    /// The watermark before each row, given what its expression is of each.
    fn advance(&mut self, values: impl ExactSizeIterator<Item = TimeMs>) -> Vec<TimeMs> {
        let mut watermark = self.watermark;
        let before = values.map(|value| {
            let before = watermark;
            watermark = watermark.max(value);
            before
        });
        let before = before.collect();
        self.watermark = watermark;
        before
    }
}

/// How far behind the event time a watermark is that is the event time, or that less an interval of fixed length: as nearly
/// every table has it. Arrow goes through the calendar for that, which costs as much as reading the time.
fn constant_delay_ms(expr: &Arc<dyn PhysicalExpr>, time: usize, wide: &Schema) -> Option<i64> {
    // Of a zone's wall clock there is more to say.
    let is_plain = |data_type: &DataType| match data_type {
        DataType::Timestamp(TimeUnit::Millisecond, zone) => zone.as_deref().is_none_or(|zone| zone == "UTC"),
        _ => false,
    };
    if !is_plain(wide.field(time).data_type()) {
        return None;
    }
    let expr = match expr.downcast_ref::<CastExpr>() {
        Some(cast) if is_plain(cast.cast_type()) => cast.expr(),
        Some(_) => return None,
        None => expr,
    };
    let is_time = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().is_some_and(|c| c.index() == time);
    if is_time(expr) {
        return Some(0);
    }
    let difference = expr.downcast_ref::<BinaryExpr>().filter(|e| *e.op() == Operator::Minus && is_time(e.left()))?;
    match difference.right().downcast_ref::<Literal>()?.value() {
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 && interval.days == 0 => {
            (interval.nanoseconds % 1_000_000 == 0).then_some(interval.nanoseconds / 1_000_000)
        }
        ScalarValue::IntervalDayTime(Some(interval)) if interval.days == 0 => Some(i64::from(interval.milliseconds)),
        _ => None,
    }
}

/// The rows of a batch that are left.
struct Left<'a> {
    rows: &'a SourceRows,
    /// Their places among all rows; `None` while all are left.
    kept: Option<Vec<usize>>,
    fate: RowFate,
}

impl Left<'_> {
    fn len(&self) -> usize {
        self.kept.as_ref().map_or(self.rows.offsets.len(), Vec::len)
    }

    fn place(&self, row: usize) -> usize {
        self.kept.as_ref().map_or(row, |kept| kept[row])
    }
}

/// See the module's head. One per worker and table; partitions are named by their index in the source.
pub struct SourceStage {
    node: Arc<SourceNode>,
    wide: SchemaRef,
    /// So far behind the event time the watermark is, where its expression says no more than that.
    delay_ms: Option<i64>,
    schema: SchemaRef,
    hidden: Hidden,
    /// Indexed as the source's partitions are; those of other workers stay untouched.
    partitions: Vec<Partition>,
    share: Vec<usize>,
    advance_when_idle: bool,
    is_away: bool,
    /// The greatest clock of a boundary so far.
    clock_ms: i64,
    is_asleep: bool,
}

impl SourceStage {
    /// A stage for a share of the partitions.
    pub fn new(
        node: Arc<SourceNode>,
        visible: &Schema,
        hidden: Hidden,
        partitions: &[PartitionId],
        share: Vec<usize>,
        advance_when_idle: bool,
    ) -> Self {
        let wide = node.decoded.fields().iter().cloned().chain(node.computed.iter().map(|(f, _)| Arc::clone(f)));
        let wide = Arc::new(Schema::new(wide.collect::<Vec<_>>()));
        let state =
            |id: &PartitionId| Partition { id: id.clone(), watermark: WATERMARK_MIN, idle: false, ended: false };
        let delay_ms = node.watermark.as_ref().and_then(|(time, expr)| constant_delay_ms(expr, *time, &wide));
        Self {
            wide,
            delay_ms,
            schema: hidden.extend(visible),
            hidden,
            partitions: partitions.iter().map(state).collect(),
            share,
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
        let mut left = Left { rows, kept: None, fate: RowFate::default() };
        for Undecoded { offset, record, reason } in &rows.undecoded {
            self.turn_away(partition, *offset, reason.clone(), || Some(record.clone()), &mut left.fate, out)?;
        }
        if rows.offsets.is_empty() {
            return Ok(left.fate);
        }
        self.partitions[partition].idle = false;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.offsets.len()));
        let decoded =
            RecordBatch::try_new_with_options(Arc::clone(&self.node.decoded), rows.columns.clone(), &options)?;
        let Some(wide) = self.compute(partition, decoded, &mut left, out)? else { return Ok(left.fate) };
        let Some((wide, watermarks)) = self.watermarks(partition, wide, &mut left, out)? else { return Ok(left.fate) };
        let passed = wide.num_rows();
        left.fate.passed = passed as u64;
        let mut columns: Vec<ArrayRef> = self.node.output.iter().map(|&i| Arc::clone(wide.column(i))).collect();
        let raw = if self.hidden.raw { Some(self.raw(&wide, &watermarks, &left)?) } else { None };
        if self.hidden.watermark {
            columns.push(Arc::new(Int64Array::from(watermarks)));
        }
        if self.hidden.tie {
            columns.push(self.ties(partition, &left)?);
        }
        columns.extend(raw);
        let options = RecordBatchOptions::new().with_row_count(Some(passed));
        out.batches.push(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?);
        Ok(left.fate)
    }

    /// Appends the computed columns; rows for which that fails are bad.
    fn compute(
        &self,
        partition: usize,
        decoded: RecordBatch,
        left: &mut Left<'_>,
        out: &mut Output,
    ) -> Result<Option<RecordBatch>> {
        if self.node.computed.is_empty() {
            return Ok(Some(decoded));
        }
        let computed = |rows: &RecordBatch| {
            let column =
                |(_, expr): &(_, Arc<dyn PhysicalExpr>)| Ok(expr.evaluate(rows)?.into_array(rows.num_rows())?);
            self.node.computed.iter().map(column).collect()
        };
        let Isolated { columns, bad } = isolate(&decoded, &computed)?;
        let columns = decoded.columns().iter().cloned().chain(columns).collect();
        let bad = bad.into_iter().map(|(row, error)| (row, error.message)).collect();
        let Some(columns) = self.leave_out(partition, bad, columns, left, out)? else { return Ok(None) };
        let options = RecordBatchOptions::new().with_row_count(Some(left.len()));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.wide), columns, &options)?))
    }

    /// The partition's watermark before each row; rows without a usable event time are bad.
    fn watermarks(
        &mut self,
        partition: usize,
        mut wide: RecordBatch,
        left: &mut Left<'_>,
        out: &mut Output,
    ) -> Result<Option<(RecordBatch, Vec<TimeMs>)>> {
        let node = Arc::clone(&self.node);
        let Some((time, expr)) = &node.watermark else {
            let rows = if self.hidden.watermark { wide.num_rows() } else { 0 };
            return Ok(Some((wide, vec![WATERMARK_MIN; rows])));
        };
        let bad = self.without_time(&wide, *time, left);
        if !bad.is_empty() {
            let Some(columns) = self.leave_out(partition, bad, wide.columns().to_vec(), left, out)? else {
                return Ok(None);
            };
            wide = RecordBatch::try_new(wide.schema(), columns)?;
        }
        if let Some(delay_ms) = self.delay_ms {
            let times = wide.column(*time).as_primitive::<TimestampMillisecondType>().values();
            let before = self.partitions[partition].advance(times.iter().map(|time| time - delay_ms));
            return Ok(Some((wide, before)));
        }
        let value = |rows: &RecordBatch| Ok(vec![expr.evaluate(rows)?.into_array(rows.num_rows())?]);
        let Isolated { columns, bad } = isolate(&wide, &value)?;
        let columns = columns.into_iter().chain(wide.columns().iter().cloned()).collect();
        let bad = bad.into_iter().map(|(row, error)| (row, format!("its watermark: {}", error.message))).collect();
        let Some(mut columns) = self.leave_out(partition, bad, columns, left, out)? else { return Ok(None) };
        let values = columns.remove(0);
        let wide = RecordBatch::try_new(wide.schema(), columns)?;
        let values = values.as_primitive::<TimestampMillisecondType>();
        let state = &mut self.partitions[partition];
        let before = if values.null_count() == 0 {
            state.advance(values.values().iter().copied())
        } else {
            state.advance(values.iter().map(|value| value.unwrap_or(WATERMARK_MIN)))
        };
        Ok(Some((wide, before)))
    }

    /// Rows whose event time is null, impossible, or further ahead of their records than their table admits.
    fn without_time(&self, wide: &RecordBatch, time: usize, left: &Left<'_>) -> Vec<(usize, String)> {
        let times = wide.column(time).as_primitive::<TimestampMillisecondType>();
        let max_ahead = self.node.rejects.max_ahead.map(|ahead| i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX));
        if max_ahead.is_none() && times.null_count() == 0 && times.values().iter().all(|t| is_admissible(*t)) {
            return Vec::new();
        }
        let name = wide.schema_ref().field(time).name();
        let why = |row: usize| {
            if times.is_null(row) {
                return Some(format!("its event time {name} is null"));
            }
            let time = times.value(row);
            if !is_admissible(time) {
                return Some(format!("its event time {name} is out of range"));
            }
            let written = *left.rows.timestamps.get(left.place(row))?;
            let is_ahead = max_ahead.is_some_and(|ahead| written.saturating_add(ahead) < time);
            is_ahead.then(|| {
                let (time, written) = (iso_utc(time), iso_utc(written));
                format!("its event time {name}, {time}, is too far ahead of the record's own timestamp, {written}")
            })
        };
        (0..times.len()).filter_map(|row| Some((row, why(row)?))).collect()
    }

    /// Turns bad rows away; answers the columns of those that are left, if any are.
    fn leave_out(
        &self,
        partition: usize,
        bad: Vec<(usize, String)>,
        columns: Vec<ArrayRef>,
        left: &mut Left<'_>,
        out: &mut Output,
    ) -> Result<Option<Vec<ArrayRef>>> {
        if bad.is_empty() {
            return Ok(Some(columns));
        }
        let mut keep = vec![true; left.len()];
        let rows = left.rows;
        for (row, reason) in bad {
            keep[row] = false;
            let place = left.place(row);
            let record = || RawRecord::read(rows.raw.as_ref()?.value(place));
            self.turn_away(partition, rows.offsets[place], reason, record, &mut left.fate, out)?;
        }
        let kept: Vec<usize> = (0..keep.len()).filter(|&row| keep[row]).map(|row| left.place(row)).collect();
        let is_empty = kept.is_empty();
        left.kept = Some(kept);
        if is_empty {
            return Ok(None);
        }
        let keep = BooleanArray::from(keep);
        Ok(Some(columns.iter().map(|c| Ok(filter(c, &keep)?)).collect::<Result<_>>()?))
    }

    /// A bad record goes the way that its table says.
    fn turn_away(
        &self,
        partition: usize,
        offset: i64,
        reason: String,
        record: impl FnOnce() -> Option<RawRecord>,
        fate: &mut RowFate,
        out: &mut Output,
    ) -> Result<()> {
        match self.node.rejects.on_error {
            OnError::Fail => return Err(self.bad_row(partition, offset, &reason)),
            OnError::Skip => fate.skipped += 1,
            OnError::DeadLetter => {
                fate.dead_lettered += 1;
                let record = record().ok_or_else(|| Error::bug("a bad record was not kept"))?;
                let origin = self.origin(partition, offset);
                out.rejected.push(Rejected { origin, record, rejection: Rejection::Failed(reason) });
            }
        }
        Ok(())
    }

    /// The records that somebody may ask for later.
    fn raw(&self, wide: &RecordBatch, watermarks: &[TimeMs], left: &Left<'_>) -> Result<ArrayRef> {
        let nobody = || new_null_array(&DataType::BinaryView, left.len());
        let Some(raw) = left.rows.raw.as_ref().filter(|_| self.node.keep != Keep::Nothing) else { return Ok(nobody()) };
        let raw = match &left.kept {
            None => raw.clone(),
            Some(kept) => {
                let kept = UInt64Array::from_iter_values(kept.iter().map(|&row| row as u64));
                take(raw, &kept, None)?.as_binary_view().clone()
            }
        };
        if self.node.keep == Keep::All {
            return Ok(Arc::new(raw));
        }
        let Some((time, _)) = &self.node.watermark else { return Ok(nobody()) };
        // A row that its partition's watermark has not reached is late for nothing.
        let times = wide.column(*time).as_primitive::<TimestampMillisecondType>().values();
        let kept: NullBuffer =
            times.iter().zip(watermarks).map(|(time, watermark)| time <= watermark).collect::<Vec<_>>().into();
        if kept.null_count() == kept.len() {
            return Ok(nobody());
        }
        let (views, blocks, _) = raw.into_parts();
        Ok(Arc::new(BinaryViewArray::try_new(views, blocks, Some(kept))?))
    }

    /// Bytes whose order is that of source, partition, offset.
    fn ties(&self, partition: usize, left: &Left<'_>) -> Result<ArrayRef> {
        let rows = left.len();
        let mut ties = Vec::with_capacity(rows * RowOrigin::BYTES);
        for row in 0..rows {
            ties.extend_from_slice(&self.origin(partition, left.rows.offsets[left.place(row)]).to_bytes());
        }
        let ends = OffsetBuffer::from_repeated_length(RowOrigin::BYTES, rows);
        Ok(Arc::new(BinaryArray::try_new(ends, ties.into(), None)?))
    }

    fn origin(&self, partition: usize, offset: i64) -> RowOrigin {
        RowOrigin { source: self.node.ordinal, partition: partition as u32, offset }
    }

    fn bad_row(&self, partition: usize, offset: i64, reason: &str) -> Error {
        let id = &self.partitions[partition].id;
        Error::data(format!(
            "the record at topic {}, partition {}, offset {offset} is bad: {reason}",
            id.topic, id.partition
        ))
        .hint(format!(
            "mend the producer, or set 'scan.on-error' = 'skip' (or 'dead-letter') on table {}",
            self.node.table.name
        ))
    }

    /// The name of a partition.
    pub fn partition_id(&self, partition: usize) -> &PartitionId {
        &self.partitions[partition].id
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

    /// Whether that is so.
    pub fn is_away(&self) -> bool {
        self.is_away
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
                let moves = if self.advance_when_idle && !self.is_away { Moves::WithClock } else { Moves::Not };
                Progress::Idle { reached, moves }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMillisecondArray;
    use arrow::datatypes::{Field, IntervalMonthDayNano};
    use datafusion::physical_expr::expressions::cast;

    use super::*;

    #[test]
    fn a_constant_delay_is_what_its_expression_says() {
        const MS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);
        let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let tokyo = DataType::Timestamp(TimeUnit::Millisecond, Some("Asia/Tokyo".into()));
        let interval = |months, days, nanoseconds| {
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano { months, days, nanoseconds }))
        };
        let times: Vec<TimeMs> = (-500..500_i64).map(|n| n * n * n * 9_876_543 + n).collect();
        for (data_type, delay, want) in [
            (&MS, None, Some(0)),
            (&utc, None, Some(0)),
            (&MS, Some(interval(0, 0, 1_500_000_000)), Some(1_500)),
            (&utc, Some(interval(0, 0, -4_000_000)), Some(-4)),
            (&MS, Some(interval(0, 0, 1)), None),
            (&MS, Some(interval(0, 1, 0)), None),
            (&MS, Some(interval(1, 0, 0)), None),
            (&tokyo, Some(interval(0, 0, 1_000_000)), None),
        ] {
            let wide =
                Schema::new(vec![Field::new("x", DataType::Int64, true), Field::new("ts", data_type.clone(), true)]);
            let time: Arc<dyn PhysicalExpr> = Arc::new(Column::new("ts", 1));
            let expr = match &delay {
                None => time,
                Some(delay) => {
                    Arc::new(BinaryExpr::new(time, Operator::Minus, Arc::new(Literal::new(delay.clone())))) as _
                }
            };
            let expr = cast(expr, &wide, MS).unwrap();
            assert_eq!(constant_delay_ms(&expr, 1, &wide), want, "{data_type} less {delay:?}");
            assert_eq!(constant_delay_ms(&expr, 0, &wide), None);
            let Some(want) = want else { continue };
            let array = TimestampMillisecondArray::from(times.clone()).with_data_type(data_type.clone());
            let numbers = Int64Array::from(vec![0; times.len()]);
            let batch = RecordBatch::try_new(Arc::new(wide), vec![Arc::new(numbers), Arc::new(array)]).unwrap();
            let values = expr.evaluate(&batch).unwrap().into_array(times.len()).unwrap();
            let values = values.as_primitive::<TimestampMillisecondType>().values();
            assert!(times.iter().zip(values).all(|(time, value)| time - want == *value), "{data_type} less {delay:?}");
        }
    }
}
