//! Filters and projections: compiled expressions, batch by batch. Nothing is withheld.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::cast::as_boolean_array;
use datafusion::physical_expr::PhysicalExpr;

use super::{Operator, Output};
use crate::error::Result;
use crate::plan::{Hidden, Step};

/// Applies steps to each batch.
pub struct Transform {
    steps: Vec<Prepared>,
}

enum Prepared {
    Filter(Arc<dyn PhysicalExpr>),
    /// The expressions, how many visible columns the input has, and the whole output schema.
    Project(Vec<Arc<dyn PhysicalExpr>>, usize, SchemaRef),
}

impl Transform {
    /// Steps over an input with these visible columns, and hidden ones behind them.
    pub fn new(steps: &[Step], input: &Schema, hidden: Hidden) -> Self {
        let mut visible = input.fields().len();
        let steps = steps
            .iter()
            .map(|step| match step {
                Step::Filter(predicate) => Prepared::Filter(Arc::clone(predicate)),
                Step::Project(exprs, schema) => {
                    let before = std::mem::replace(&mut visible, exprs.len());
                    Prepared::Project(exprs.clone(), before, hidden.extend(schema))
                }
            })
            .collect();
        Self { steps }
    }
}

impl Operator for Transform {
    fn on_batch(&mut self, _: usize, mut batch: RecordBatch, out: &mut Output) -> Result<()> {
        for step in &self.steps {
            batch = match step {
                Prepared::Filter(predicate) => {
                    let before = batch.num_rows();
                    let keep = predicate.evaluate(&batch)?.into_array(before)?;
                    let batch = filter_record_batch(&batch, as_boolean_array(&keep)?)?;
                    out.counts.filtered += (before - batch.num_rows()) as u64;
                    batch
                }
                Prepared::Project(exprs, visible, schema) => {
                    let rows = batch.num_rows();
                    let mut columns = evaluate_all(exprs, &batch)?;
                    columns.extend(batch.columns()[*visible..].iter().cloned());
                    let options = RecordBatchOptions::new().with_row_count(Some(rows));
                    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?
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

/// Evaluates expressions over a batch.
pub(super) fn evaluate_all(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|e| Ok(e.evaluate(batch)?.into_array(batch.num_rows())?)).collect()
}
