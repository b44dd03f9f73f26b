//! The half of an aggregate that stays with the rows: partials up to the next boundary.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::rows::Rows;
use crate::error::Result;
use crate::exec::{Boundary, Lineage, Operator, Output};
use crate::plan::{AggregateNode, Hidden};
use crate::state::{AggregateLayout, GroupTable, PaneKey};
use crate::time::Progress;

/// Groups that a [`PartialAggregate`] collects before it ships them without waiting for a boundary.
const PARTIAL_GROUPS_MAX: usize = 64 * 1024;

/// And bytes, of groups with long keys.
const PARTIAL_BYTES_MAX: usize = 8 << 20;

/// Rows of partials on their way between workers: slice, first open window, rows, then the partial's columns.
pub struct PartialSchema;

impl PartialSchema {
    /// The columns before those of the layout.
    pub const PREFIX: usize = 3;

    /// The schema for a layout.
    pub fn of(layout: &AggregateLayout) -> SchemaRef {
        let mut fields: Vec<_> = ["slice", "first_open", "rows"]
            .into_iter()
            .map(|name| Arc::new(Field::new(format!("__{name}"), DataType::Int64, false)))
            .collect();
        fields.extend(layout.partial().fields().iter().cloned());
        Arc::new(Schema::new(fields))
    }
}

/// The worker-local half of an aggregate.
pub struct PartialAggregate {
    rows: Rows,
    layout: Arc<AggregateLayout>,
    schema: SchemaRef,
    tables: BTreeMap<PaneKey, (GroupTable, u64)>,
    groups: usize,
}

impl PartialAggregate {
    /// Over an input with so many visible columns, and hidden ones behind them.
    pub fn new(node: &AggregateNode, visible: usize, hidden: Hidden) -> Result<Self> {
        Ok(Self {
            rows: Rows::new(node, visible, hidden)?,
            layout: Arc::clone(&node.layout),
            schema: PartialSchema::of(&node.layout),
            tables: BTreeMap::new(),
            groups: 0,
        })
    }

    fn ship(&mut self, out: &mut Output) -> Result<()> {
        let mut partials = Vec::new();
        for ((slice, first_open), (mut table, rows)) in std::mem::take(&mut self.tables) {
            let partial = table.take_partial()?;
            let count = partial.num_rows();
            let constant = |value: i64| Arc::new(Int64Array::from(vec![value; count])) as ArrayRef;
            // Rows are counted per pane: the first group of it speaks for all.
            let mut of_rows = vec![0_i64; count];
            if let Some(first) = of_rows.first_mut() {
                *first = i64::try_from(rows).unwrap_or(i64::MAX);
            }
            let mut columns = vec![constant(slice), constant(first_open), Arc::new(Int64Array::from(of_rows))];
            columns.extend(partial.columns().iter().cloned());
            partials.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        }
        self.groups = 0;
        if !partials.is_empty() {
            out.batches.push(concat_batches(&self.schema, &partials)?);
        }
        Ok(())
    }
}

impl Operator for PartialAggregate {
    fn on_batch(&mut self, _: usize, batch: RecordBatch, out: &mut Output) -> Result<()> {
        let Self { rows, layout, tables, groups, .. } = self;
        rows.route(&batch, out, |pane, evaluated, _| {
            let (table, count) = match tables.entry(pane) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert((GroupTable::new(layout)?, 0)),
            };
            let before = table.len();
            table.update(evaluated.rows, &evaluated.keys, &evaluated.inputs, &evaluated.filters)?;
            *groups += table.len() - before;
            *count += evaluated.rows as u64;
            Ok(())
        })?;
        let bytes = || self.tables.values().map(|(table, _)| table.size_bytes()).sum::<usize>();
        if PARTIAL_GROUPS_MAX < self.groups || PARTIAL_BYTES_MAX < bytes() {
            self.ship(out)?;
        }
        Ok(())
    }

    fn on_boundary(&mut self, _: &Boundary, progress: Progress, out: &mut Output) -> Result<Progress> {
        self.ship(out)?;
        Ok(progress)
    }

    fn lineage(&self, _: Lineage) -> Lineage {
        Lineage::Results
    }
}
