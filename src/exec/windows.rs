//! Adds windows to rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray, UInt64Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};

use super::{Operator, Output};
use crate::error::{Error, Result};
use crate::plan::{Hidden, WindowsNode};
use crate::time::{TimeMs, Windows};

/// See [`WindowsNode`].
pub struct RepeatWindows {
    windows: Windows,
    time: usize,
    passed: Vec<usize>,
    repeat: bool,
    /// The index of the watermark's column, where late rows are dropped here.
    judge: Option<usize>,
    input_visible: usize,
    schema: SchemaRef,
    /// Zeros for the bounds that nobody reads.
    zeros: ArrayRef,
}

impl RepeatWindows {
    /// `input` and `output` are the visible columns; `hidden` is what the input carries.
    pub fn new(node: &WindowsNode, input: &Schema, output: &Schema, hidden: Hidden) -> Self {
        let visible = input.fields().len();
        Self {
            windows: node.windows,
            time: node.time,
            passed: node.passed.clone(),
            repeat: node.repeat,
            judge: if node.judge { hidden.watermark_index(visible) } else { None },
            input_visible: visible,
            schema: Hidden { time: true, ..hidden }.extend(output),
            zeros: Arc::new(Int64Array::from(vec![0_i64; 0])),
        }
    }

    fn bound(&self, values: ArrayRef, at: usize) -> Result<ArrayRef> {
        let data_type = self.schema.field(self.passed.len() + at).data_type();
        let ms = cast(&values, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
        Ok(if ms.data_type() == data_type { ms } else { with_type(&ms, data_type)? })
    }

    /// The batch with bounds and event time added.
    fn with_bounds(&self, batch: &RecordBatch, times: ArrayRef, bounds: [ArrayRef; 3]) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = self.passed.iter().map(|&i| Arc::clone(batch.column(i))).collect();
        for (at, values) in bounds.into_iter().enumerate() {
            columns.push(self.bound(values, at)?);
        }
        // Windows over windows: the event time of those below gives way.
        let carried = self.schema.fields().len() - columns.len() - 1;
        columns.extend(batch.columns()[self.input_visible..][..carried].iter().cloned());
        columns.push(times);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// The row and the window start of each row in each of its windows.
    fn assign(&self, batch: &RecordBatch, times: &[TimeMs], out: &mut Output) -> (Vec<u64>, Vec<TimeMs>) {
        let watermarks = self.judge.map(|i| batch.column(i).as_primitive::<Int64Type>().values());
        let (mut rows, mut starts) = (Vec::with_capacity(times.len()), Vec::with_capacity(times.len()));
        for (row, &time) in times.iter().enumerate() {
            let (first, last) = (self.windows.first_start(time), self.windows.last_start(time));
            let open = match watermarks {
                Some(watermarks) => first.max(self.windows.first_open(watermarks[row])),
                None => first,
            };
            if last < first {
                out.counts.filtered += 1;
            } else if last < open {
                out.counts.late += 1;
            } else if first < open {
                out.counts.partly_late += 1;
            }
            let mut start = open;
            while start <= last {
                rows.push(row as u64);
                starts.push(start);
                start += self.windows.slide_ms;
            }
        }
        (rows, starts)
    }
}

impl Operator for RepeatWindows {
    fn on_batch(&mut self, batch: RecordBatch, out: &mut Output) -> Result<()> {
        let times = event_times(batch.column(self.time))?;
        if !self.repeat {
            if self.zeros.len() < batch.num_rows() {
                self.zeros = Arc::new(Int64Array::from(vec![0_i64; batch.num_rows()]));
            }
            let zeros = self.zeros.slice(0, batch.num_rows());
            let bounds = [Arc::clone(&zeros), Arc::clone(&zeros), zeros];
            out.batches.push(self.with_bounds(&batch, times, bounds)?);
            return Ok(());
        }
        let (rows, starts) = self.assign(&batch, times.as_primitive::<Int64Type>().values(), out);
        if rows.is_empty() {
            return Ok(());
        }
        let rows = UInt64Array::from(rows);
        let times = arrow::compute::take(&times, &rows, None)?;
        let batch = take_record_batch(&batch, &rows)?;
        let bounds = [0, self.windows.size_ms, self.windows.size_ms - 1]
            .map(|shift| Arc::new(Int64Array::from_iter_values(starts.iter().map(|s| s + shift))) as ArrayRef);
        out.batches.push(self.with_bounds(&batch, times, bounds)?);
        Ok(())
    }
}

/// A timestamp column as milliseconds. Event times are never null: sources see to that.
pub(super) fn event_times(column: &ArrayRef) -> Result<ArrayRef> {
    if column.null_count() > 0 {
        return Err(Error::bug("an event time is null"));
    }
    let ms = column
        .as_primitive_opt::<TimestampMillisecondType>()
        .ok_or_else(|| Error::bug(format!("event time has the type {}", column.data_type())))?;
    Ok(Arc::new(Int64Array::new(ms.values().clone(), None)))
}

/// The same instants as a timestamp of another type in milliseconds.
pub(super) fn with_type(ms: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    match data_type {
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            let values = ms.as_primitive::<TimestampMillisecondType>().clone();
            let array: TimestampMillisecondArray = values.with_timezone_opt(zone.clone());
            Ok(Arc::new(array))
        }
        other => Err(Error::bug(format!("a window's bound cannot have the type {other}"))),
    }
}
