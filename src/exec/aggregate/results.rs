//! Finished groups to rows of the output.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int8Array, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int8Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, SortField};
use chrono_tz::Tz;

use super::sliced_windows;
use crate::change::RowKind;
use crate::error::Result;
use crate::exec::Output;
use crate::exec::windows::{ShownBounds, with_type};
use crate::limits::BATCH_ROWS_MAX;
use crate::plan::{AggregateNode, Bound, Hidden, OutputColumn};
use crate::state::{Ended, Fired};
use crate::time::{SlicedWindows, TimeMs, WATERMARK_MIN, local_ms};

/// Makes rows of closed windows.
pub struct Results {
    windows: SlicedWindows,
    zone: Tz,
    output: Vec<OutputColumn>,
    pub schema: SchemaRef,
    hidden: Hidden,
    /// Makes the tie-breaker of result rows from columns of theirs, where somebody above needs one: what they are grouped
    /// by. Of the bounds only those of sessions tell rows of one time apart.
    ties: Option<(RowConverter, Vec<usize>)>,
}

impl Results {
    pub fn new(node: &AggregateNode, visible: &Schema, hidden: Hidden) -> Result<Self> {
        let keys = node.layout.keys().fields().len();
        let is_session = node.windows.sliced().is_none();
        let ties = if hidden.tie {
            let grouped = |i: &usize| match node.output[*i] {
                OutputColumn::Value(at) => at < keys,
                OutputColumn::Bound(_) => is_session,
            };
            let grouped: Vec<usize> = (0..node.output.len()).filter(grouped).collect();
            let fields = grouped.iter().map(|&i| SortField::new(visible.field(i).data_type().clone())).collect();
            Some((RowConverter::new(fields)?, grouped))
        } else {
            None
        };
        let schema = hidden.extend(visible);
        let (windows, zone) = (sliced_windows(node), node.windows.zone);
        Ok(Self { windows, zone, output: node.output.clone(), schema, hidden, ties })
    }

    /// The rows of a window; of a changelog, with the kind of each.
    pub fn batch(&self, fired: &Fired, kinds: Option<Int8Array>) -> Result<RecordBatch> {
        let (start, end, after) = ShownBounds::new(self.zone).of(&self.windows, fired.window);
        let repeated = |value: TimeMs| vec![value; fired.rows];
        self.rows(&fired.columns, repeated(after), kinds, |bound| {
            repeated(match bound {
                Bound::Start => start,
                Bound::End => end,
                Bound::Time => after - 1,
            })
        })
    }

    /// Rows of a session each.
    pub fn sessions(&self, ended: &Ended, gap_ms: i64) -> Result<RecordBatch> {
        let times = |from_end: usize| {
            let column = &ended.columns[ended.columns.len() - from_end];
            column.as_primitive::<Int64Type>().values().iter().copied()
        };
        let (first, after) = (times(2), times(1).map(|last| last + gap_ms));
        self.rows(&ended.columns, after.clone().collect(), None, |bound| match bound {
            Bound::Start => first.clone().map(|first| local_ms(self.zone, first)).collect(),
            Bound::End => after.clone().map(|after| local_ms(self.zone, after)).collect(),
            Bound::Time => after.clone().map(|after| after - 1).collect(),
        })
    }

    /// Rows of finished groups: their keys and results, the first instant after the window of each, and its bounds.
    fn rows(
        &self,
        values: &[ArrayRef],
        after: Vec<TimeMs>,
        kinds: Option<Int8Array>,
        bounds: impl Fn(Bound) -> Vec<TimeMs>,
    ) -> Result<RecordBatch> {
        let rows = after.len();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (i, output) in self.output.iter().enumerate() {
            columns.push(match output {
                OutputColumn::Value(at) => Arc::clone(&values[*at]),
                OutputColumn::Bound(bound) => bound_column(bounds(*bound), self.schema.field(i).data_type())?,
            });
        }
        // Rows of a window precede its end: they are late for nothing above.
        if self.hidden.watermark {
            columns.push(Arc::new(Int64Array::from(vec![WATERMARK_MIN; rows])));
        }
        match &self.ties {
            // Without keys a window has one row, and nothing to tell apart; no columns would convert to no rows.
            Some((_, grouped)) if grouped.is_empty() => {
                columns.push(Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(b"", rows))));
            }
            Some((ties, grouped)) => {
                let grouped: Vec<ArrayRef> = grouped.iter().map(|&i| Arc::clone(&columns[i])).collect();
                columns.push(Arc::new(ties.convert_columns(&grouped)?.try_into_binary()?));
            }
            None => {}
        }
        if self.hidden.window {
            columns.push(Arc::new(Int64Array::from(after)));
        }
        if let Some(kinds) = kinds {
            columns.push(Arc::new(kinds));
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
            let kinds = all.column_by_name(Hidden::KIND).map(AsArray::as_primitive::<Int8Type>);
            let mut from = 0;
            while from < self.rows {
                let mut to = self.rows.min(from + BATCH_ROWS_MAX);
                // A row and what has become of it stay together.
                if to < self.rows && kinds.is_some_and(|k| k.value(to - 1) == RowKind::UpdateBefore as i8) {
                    to -= 1;
                }
                out.batches.push(all.slice(from, to - from));
                from = to;
            }
        }
        self.waiting.clear();
        self.rows = 0;
        Ok(())
    }
}

fn bound_column(values: Vec<TimeMs>, data_type: &DataType) -> Result<ArrayRef> {
    let values: ArrayRef = Arc::new(arrow::array::TimestampMillisecondArray::from(values));
    match data_type {
        DataType::Timestamp(TimeUnit::Millisecond, None) => Ok(values),
        other => with_type(&values, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_and_what_has_become_of_it_are_in_one_batch() {
        let schema = Hidden { kind: true, ..Hidden::default() }.extend(&Schema::empty());
        let (before, after, new) = (RowKind::UpdateBefore as i8, RowKind::UpdateAfter as i8, RowKind::Insert as i8);
        for news in 0..3 {
            let kinds = std::iter::repeat_n(new, news).chain([before, after].repeat(BATCH_ROWS_MAX));
            let kinds: Int8Array = kinds.collect::<Vec<_>>().into();
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(kinds)]).unwrap();
            let (mut out, mut batcher) = (Output::default(), Batcher::new(&schema));
            batcher.add(batch.clone(), &mut out).unwrap();
            batcher.flush(&mut out).unwrap();
            assert_eq!(concat_batches(&schema, &out.batches).unwrap(), batch);
            for batch in &out.batches {
                let kinds = batch.column(0).as_primitive::<Int8Type>().values();
                assert!(!kinds.is_empty() && kinds.len() <= BATCH_ROWS_MAX && kinds.last() != Some(&before));
            }
        }
    }
}
