//! A partial that can be updated: groups by key, and an accumulator per aggregate over them.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::keys::Keys;
use super::layout::AggregateLayout;
use super::spans::Spans;
use crate::error::Result;
use crate::time::TimeMs;

/// Groups and their accumulators.
///
/// DataFusion's accumulators give up their state when they are read, so reading one empties the table.
pub struct GroupTable {
    layout: Arc<AggregateLayout>,
    keys: Keys,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// First and last event time per group, where the layout has them.
    spans: Option<Spans>,
    groups: usize,
    /// The group of each row of the batch at hand.
    ids: Vec<usize>,
}

impl GroupTable {
    /// An empty table.
    pub fn new(layout: &Arc<AggregateLayout>) -> Result<Self> {
        Self::with_keys(layout, Keys::new(layout.keys())?)
    }

    /// An empty table that is filled and emptied again and again, mostly with the same keys.
    pub(super) fn scratch(layout: &Arc<AggregateLayout>) -> Result<Self> {
        Self::with_keys(layout, Keys::scratch(layout.keys())?)
    }

    fn with_keys(layout: &Arc<AggregateLayout>, keys: Keys) -> Result<Self> {
        Ok(Self {
            layout: Arc::clone(layout),
            keys,
            accumulators: layout.accumulators()?,
            spans: layout.has_spans().then(Spans::default),
            groups: 0,
            ids: Vec::new(),
        })
    }

    /// Its columns.
    pub(super) fn layout(&self) -> &Arc<AggregateLayout> {
        &self.layout
    }

    /// The number of groups.
    pub fn len(&self) -> usize {
        self.groups
    }

    /// Whether no row has come.
    pub fn is_empty(&self) -> bool {
        self.groups == 0
    }

    /// Bytes held, as the accumulators report them.
    pub fn size_bytes(&self) -> usize {
        self.keys.size_bytes()
            + self.accumulators.iter().map(|a| a.size()).sum::<usize>()
            + self.spans.as_ref().map_or(0, Spans::size_bytes)
    }

    /// Per group, in the order of the partial's rows, the least and the greatest event time.
    pub fn spans(&self) -> (&[TimeMs], &[TimeMs]) {
        self.spans.as_ref().map_or((&[], &[]), Spans::of_groups)
    }

    /// The group of each of these keys; new ones are made for those that have none. A group without a row is in no
    /// partial.
    pub fn find(&mut self, rows: usize, keys: &[ArrayRef]) -> Result<&[usize]> {
        for (accumulator, aggregate) in self.accumulators.iter_mut().zip(self.layout.aggregates()) {
            aggregate.expect_groups_without_rows(accumulator.as_mut(), self.groups)?;
        }
        self.intern(rows, keys)?;
        // Accumulators must know of every group before their state is read.
        let nothing = RecordBatch::new_empty(Arc::clone(self.layout.partial()));
        let ids = std::mem::take(&mut self.ids);
        self.merge_states(&nothing)?;
        self.ids = ids;
        Ok(&self.ids)
    }

    /// Takes rows in: their keys, and per aggregate its inputs and filter; behind those, the event times, where the
    /// layout has spans.
    pub fn update(
        &mut self,
        rows: usize,
        keys: &[ArrayRef],
        inputs: &[Vec<ArrayRef>],
        filters: &[Option<BooleanArray>],
    ) -> Result<()> {
        self.intern(rows, keys)?;
        for ((accumulator, inputs), filter) in self.accumulators.iter_mut().zip(inputs).zip(filters) {
            accumulator.update_batch(inputs, &self.ids, filter.as_ref(), self.groups)?;
        }
        if let (Some(spans), Some(times)) = (&mut self.spans, inputs.get(self.accumulators.len())) {
            spans.merge(&self.ids, &times[0], &times[0], self.groups);
        }
        Ok(())
    }

    /// Takes a partial in.
    pub fn merge(&mut self, partial: &RecordBatch) -> Result<()> {
        if partial.num_rows() == 0 {
            return Ok(());
        }
        let keys = self.layout.keys().fields().len();
        self.intern(partial.num_rows(), &partial.columns()[..keys])?;
        self.merge_states(partial)
    }

    /// Takes a partial's states into the groups of `self.ids`.
    fn merge_states(&mut self, partial: &RecordBatch) -> Result<()> {
        let mut at = self.layout.keys().fields().len();
        for (accumulator, aggregate) in self.accumulators.iter_mut().zip(self.layout.aggregates()) {
            let width = aggregate.state_fields().len();
            accumulator.merge_batch(&partial.columns()[at..at + width], &self.ids, self.groups)?;
            at += width;
        }
        if let Some(spans) = &mut self.spans {
            spans.merge(&self.ids, partial.column(at), partial.column(at + 1), self.groups);
        }
        Ok(())
    }

    /// Takes the partial out; the table is empty afterwards and can be used again.
    pub fn take_partial(&mut self) -> Result<RecordBatch> {
        let rows = self.groups;
        if rows == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(self.layout.partial())));
        }
        let mut columns = self.take_keys()?;
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        let mut with_rows = None;
        if let Some(spans) = &mut self.spans {
            with_rows = spans.with_rows();
            columns.extend(spans.take());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let partial = RecordBatch::try_new_with_options(Arc::clone(self.layout.partial()), columns, &options)?;
        Ok(match with_rows {
            Some(with_rows) => filter_record_batch(&partial, &with_rows)?,
            None => partial,
        })
    }

    /// Finishes: the keys' columns, then one column of results per aggregate, then the spans, where the layout has
    /// them; the table is empty afterwards.
    pub fn finish(&mut self) -> Result<(usize, Vec<ArrayRef>)> {
        let rows = self.groups;
        let mut columns = self.take_keys()?;
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.evaluate(EmitTo::All)?);
        }
        if let Some(spans) = &mut self.spans {
            columns.extend(spans.take());
        }
        Ok((rows, columns))
    }

    fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        self.groups = 0;
        self.keys.take()
    }

    fn intern(&mut self, rows: usize, keys: &[ArrayRef]) -> Result<()> {
        // Without keys, no rows make no group and leave one.
        self.groups = self.keys.intern(rows, keys, &mut self.ids)?.max(self.groups);
        Ok(())
    }
}
