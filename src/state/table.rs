//! A partial that can be updated: groups by key, and an accumulator per aggregate over them.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_plan::aggregates::group_values::GroupValues;

use super::layout::AggregateLayout;
use crate::error::Result;

/// Groups and their accumulators.
///
/// DataFusion's accumulators give up their state when they are read, so reading one empties the table.
pub struct GroupTable {
    layout: Arc<AggregateLayout>,
    /// `None` when there are no keys: then everything is one group.
    keys: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    groups: usize,
    /// The group of each row of the batch at hand.
    ids: Vec<usize>,
}

impl GroupTable {
    /// An empty table.
    pub fn new(layout: &Arc<AggregateLayout>) -> Result<Self> {
        Ok(Self {
            layout: Arc::clone(layout),
            keys: layout.group_values()?,
            accumulators: layout.accumulators()?,
            groups: 0,
            ids: Vec::new(),
        })
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
        self.keys.as_ref().map_or(0, |k| k.size()) + self.accumulators.iter().map(|a| a.size()).sum::<usize>()
    }

    /// Takes rows in: their keys, and per aggregate its inputs and filter.
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
        Ok(())
    }

    /// Takes a partial in.
    pub fn merge(&mut self, partial: &RecordBatch) -> Result<()> {
        if partial.num_rows() == 0 {
            return Ok(());
        }
        let keys = self.layout.keys().fields().len();
        self.intern(partial.num_rows(), &partial.columns()[..keys])?;
        let mut at = keys;
        for (accumulator, aggregate) in self.accumulators.iter_mut().zip(self.layout.aggregates()) {
            let width = aggregate.state_fields().len();
            accumulator.merge_batch(&partial.columns()[at..at + width], &self.ids, self.groups)?;
            at += width;
        }
        Ok(())
    }

    /// Takes the partial out; the table is empty afterwards and can be used again.
    pub fn take_partial(&mut self) -> Result<RecordBatch> {
        let rows = self.groups;
        let mut columns = self.take_keys()?;
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(self.layout.partial()), columns, &options)?)
    }

    /// Finishes: the keys' columns, then one column of results per aggregate; the table is empty afterwards.
    pub fn finish(&mut self) -> Result<(usize, Vec<ArrayRef>)> {
        let rows = self.groups;
        let mut columns = self.take_keys()?;
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.evaluate(EmitTo::All)?);
        }
        Ok((rows, columns))
    }

    fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        self.groups = 0;
        match &mut self.keys {
            Some(keys) => {
                let columns = keys.emit(EmitTo::All)?;
                // Some kinds keep their index into the groups that have just been given out.
                keys.clear_shrink(0);
                Ok(columns)
            }
            None => Ok(Vec::new()),
        }
    }

    fn intern(&mut self, rows: usize, keys: &[ArrayRef]) -> Result<()> {
        match &mut self.keys {
            Some(values) => {
                values.intern(keys, &mut self.ids)?;
                self.groups = values.len();
            }
            None => {
                self.ids.clear();
                self.ids.resize(rows, 0);
                if rows > 0 {
                    self.groups = 1;
                }
            }
        }
        Ok(())
    }
}
