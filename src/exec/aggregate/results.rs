//! Finished groups to rows of the output.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, SortField};
use chrono_tz::Tz;

use super::sliced_windows;
use crate::error::Result;
use crate::exec::Output;
use crate::exec::windows::{ShownBounds, with_type};
use crate::limits::BATCH_ROWS_MAX;
use crate::plan::{AggregateNode, Bound, Hidden, OutputColumn};
use crate::state::Fired;
use crate::time::{SlicedWindows, TimeMs, WATERMARK_MIN};

/// Makes rows of closed windows.
pub struct Results {
    windows: SlicedWindows,
    zone: Tz,
    output: Vec<OutputColumn>,
    keys: usize,
    pub schema: SchemaRef,
    hidden: Hidden,
    /// Makes the tie-breaker of result rows from their keys, where somebody above needs one.
    ties: Option<RowConverter>,
}

impl Results {
    pub fn new(node: &AggregateNode, visible: &Schema, hidden: Hidden) -> Result<Self> {
        let keys = node.layout.keys().fields();
        let ties = if hidden.tie {
            Some(RowConverter::new(keys.iter().map(|f| SortField::new(f.data_type().clone())).collect())?)
        } else {
            None
        };
        let schema = hidden.extend(visible);
        let (windows, zone) = (sliced_windows(node)?, node.windows.zone);
        Ok(Self { windows, zone, output: node.output.clone(), keys: keys.len(), schema, hidden, ties })
    }

    pub fn batch(&self, fired: &Fired) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        let (start, end, after) = ShownBounds::new(self.zone).of(&self.windows, fired.window);
        for (i, output) in self.output.iter().enumerate() {
            columns.push(match output {
                OutputColumn::Value(at) => Arc::clone(&fired.columns[*at]),
                OutputColumn::Bound(bound) => {
                    let value = match bound {
                        Bound::Start => start,
                        Bound::End => end,
                        Bound::Time => after - 1,
                    };
                    bound_column(value, fired.rows, self.schema.field(i).data_type())?
                }
            });
        }
        // Rows of a window precede its end: they are late for nothing above.
        if self.hidden.watermark {
            columns.push(Arc::new(Int64Array::from(vec![WATERMARK_MIN; fired.rows])));
        }
        if self.keys == 0 && self.ties.is_some() {
            // Without keys a window has one row, and nothing to tell apart; no columns would convert to no rows.
            columns.push(Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(b"", fired.rows))));
        } else if let Some(ties) = &self.ties {
            let rows = ties.convert_columns(&fired.columns[..self.keys])?;
            columns.push(Arc::new(rows.try_into_binary()?));
        }
        if self.hidden.window {
            columns.push(Arc::new(Int64Array::from(vec![after; fired.rows])));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// Puts small batches together and cuts large ones, so that what follows works on batches of a good size.
pub struct Batcher<'a> {
    schema: &'a SchemaRef,
    waiting: Vec<RecordBatch>,
    rows: usize,
}

impl<'a> Batcher<'a> {
    /// For batches of one schema.
    pub fn new(schema: &'a SchemaRef) -> Self {
        Self { schema, waiting: Vec::new(), rows: 0 }
    }

    pub fn add(&mut self, batch: RecordBatch, out: &mut Output) -> Result<()> {
        self.rows += batch.num_rows();
        self.waiting.push(batch);
        if BATCH_ROWS_MAX <= self.rows { self.flush(out) } else { Ok(()) }
    }

    pub fn flush(&mut self, out: &mut Output) -> Result<()> {
        if self.rows > 0 {
            let all = concat_batches(self.schema, &self.waiting)?;
            for from in (0..self.rows).step_by(BATCH_ROWS_MAX) {
                out.batches.push(all.slice(from, BATCH_ROWS_MAX.min(self.rows - from)));
            }
        }
        self.waiting.clear();
        self.rows = 0;
        Ok(())
    }
}

fn bound_column(value: TimeMs, rows: usize, data_type: &DataType) -> Result<ArrayRef> {
    let values: ArrayRef = Arc::new(arrow::array::TimestampMillisecondArray::from(vec![value; rows]));
    match data_type {
        DataType::Timestamp(TimeUnit::Millisecond, None) => Ok(values),
        other => with_type(&values, other),
    }
}
