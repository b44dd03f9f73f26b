//! Filters and projections: compiled expressions, batch by batch. Nothing is withheld, and a row over which an expression
//! fails goes the way that its table says, without its neighbours.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int8Array, RecordBatch, RecordBatchOptions, new_null_array,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::cast::as_boolean_array;
use datafusion::physical_expr::PhysicalExpr;

use super::rejected::{CopiesOf, FailedRows, count_records};
use super::{Lineage, Operator, Output};
use crate::change::RowKind;
use crate::error::{Error, Result};
use crate::plan::{Hidden, Step};

/// Applies steps to each batch.
pub struct Transform {
    steps: Vec<Prepared>,
    copies: CopiesOf,
}

enum Prepared {
    Filter(Arc<dyn PhysicalExpr>, FailedRows),
    /// The expressions, how many visible columns the input has, and the whole output schema.
    Project(Vec<Arc<dyn PhysicalExpr>>, usize, SchemaRef, FailedRows),
    /// Per column of the output, the input's; one that the input lacks is a null record or the kind of a new row.
    Conform(Vec<Option<usize>>, SchemaRef),
    /// The number, and where the tie-breaker is.
    Branch(u32, Option<usize>),
}

impl Transform {
    /// Steps over an input with these visible columns, and hidden ones behind them.
    pub fn new(steps: &[Step], input: &SchemaRef, mut hidden: Hidden) -> Self {
        let (copies, mut visible) = (CopiesOf::new(hidden), Arc::clone(input));
        let mut prepare = |step: &Step| {
            let failed = FailedRows::new(hidden);
            match step {
                Step::Filter(predicate) => Prepared::Filter(Arc::clone(predicate), failed),
                Step::Project(exprs, schema) => {
                    let before = std::mem::replace(&mut visible, Arc::clone(schema));
                    Prepared::Project(exprs.clone(), before.fields().len(), hidden.extend(schema), failed)
                }
                Step::Conform(to) => {
                    let before = std::mem::replace(&mut hidden, *to);
                    let count = visible.fields().len();
                    let of_hidden = to.fields().into_iter().map(|field| before.index(field.name(), count));
                    Prepared::Conform((0..count).map(Some).chain(of_hidden).collect(), to.extend(&visible))
                }
                Step::Branch(branch) => Prepared::Branch(*branch, hidden.index(Hidden::TIE, visible.fields().len())),
            }
        };
        Self { copies, steps: steps.iter().map(&mut prepare).collect() }
    }
}

impl Operator for Transform {
    fn on_batch(&mut self, _: usize, mut batch: RecordBatch, out: &mut Output) -> Result<()> {
        // A condition on windows may leave out some copies of a record: it is filtered if all are.
        let mut copies = (out.lineage == Lineage::Copies).then(|| self.copies.number(&batch));
        for step in &self.steps {
            batch = match step {
                Prepared::Filter(predicate, failed) => {
                    let compute = |b: &RecordBatch| Ok(vec![predicate.evaluate(b)?.into_array(b.num_rows())?]);
                    let Some((batch, keep)) = failed.compute(batch, out, &compute)? else { return Ok(()) };
                    let keep = as_boolean_array(&keep[0])?;
                    let left = filter_record_batch(&batch, keep)?;
                    out.counts.filtered += match &mut copies {
                        None => batch.num_rows() - left.num_rows(),
                        Some(numbers) => {
                            if numbers.len() != batch.num_rows() {
                                // Some were turned away, and where that happens rows can be told apart.
                                *numbers = CopiesOf::new(failed.hidden()).number(&batch);
                            }
                            let before = count_records(numbers);
                            let mut kept = keep.iter().map(|keep| keep == Some(true));
                            numbers.retain(|_| kept.next() == Some(true));
                            before - count_records(numbers)
                        }
                    } as u64;
                    left
                }
                Prepared::Project(exprs, visible, schema, failed) => {
                    let compute = |b: &RecordBatch| evaluate_all(exprs, b);
                    let Some((batch, mut columns)) = failed.compute(batch, out, &compute)? else { return Ok(()) };
                    columns.extend(batch.columns()[*visible..].iter().cloned());
                    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?
                }
                Prepared::Conform(from, schema) => {
                    let rows = batch.num_rows();
                    let column = |(at, from): (usize, &Option<usize>)| match from {
                        Some(from) => Arc::clone(batch.column(*from)),
                        None if schema.field(at).name() == Hidden::KIND => {
                            Arc::new(Int8Array::from_value(RowKind::Insert as i8, rows))
                        }
                        None => new_null_array(schema.field(at).data_type(), rows),
                    };
                    let columns = from.iter().enumerate().map(column).collect();
                    let options = RecordBatchOptions::new().with_row_count(Some(rows));
                    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?
                }
                Prepared::Branch(branch, tie) => {
                    let Some(tie) = *tie else { return Err(Error::bug("rows of a union without a tie-breaker")) };
                    let mut columns = batch.columns().to_vec();
                    columns[tie] = behind_branch(*branch, columns[tie].as_binary());
                    RecordBatch::try_new(batch.schema(), columns)?
                }
            };
            if batch.num_rows() == 0 {
                return Ok(());
            }
        }
        out.batches.push(batch);
        Ok(())
    }
}

/// Tie-breakers with the number of a branch before them.
fn behind_branch(branch: u32, ties: &BinaryArray) -> ArrayRef {
    let branch = branch.to_be_bytes();
    let bytes = ties.value_data().len() + ties.len() * branch.len();
    let mut longer = BinaryBuilder::with_capacity(ties.len(), bytes);
    let mut tie = Vec::new();
    for of_row in ties.iter().map(Option::unwrap_or_default) {
        tie.clear();
        tie.extend_from_slice(&branch);
        tie.extend_from_slice(of_row);
        longer.append_value(&tie);
    }
    Arc::new(longer.finish())
}

/// Evaluates expressions over a batch.
pub(super) fn evaluate_all(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|e| Ok(e.evaluate(batch)?.into_array(batch.num_rows())?)).collect()
}
