//! Feeds an aggregate that needs its input in order (`nth_value`) from batches that are in none.
//!
//! Each batch is sorted and becomes a partial of its own; partials merge by their ordering values.

use arrow::array::ArrayRef;
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Accumulator;

/// Makes empty accumulators.
type Factory = Box<dyn Fn() -> Result<Box<dyn Accumulator>> + Send + Sync>;

/// See the module's head.
pub(super) struct SortingAccumulator {
    inner: Box<dyn Accumulator>,
    fresh: Factory,
    /// How the last columns of the input, one per entry, are ordered.
    ordering: Vec<SortOptions>,
}

impl std::fmt::Debug for SortingAccumulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SortingAccumulator").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl SortingAccumulator {
    pub(super) fn new(fresh: Factory, ordering: Vec<SortOptions>) -> Result<Self> {
        Ok(Self { inner: fresh()?, fresh, ordering })
    }
}

impl Accumulator for SortingAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let by: Vec<SortColumn> = values[values.len() - self.ordering.len()..]
            .iter()
            .zip(&self.ordering)
            .map(|(values, options)| SortColumn { values: values.clone(), options: Some(*options) })
            .collect();
        let order = lexsort_to_indices(&by, None)?;
        let sorted = values.iter().map(|v| take(v, &order, None)).collect::<Result<Vec<_>, _>>()?;
        let mut batch = (self.fresh)()?;
        batch.update_batch(&sorted)?;
        let state = batch.state()?.into_iter().map(|s| s.to_array()).collect::<Result<Vec<_>>>()?;
        self.inner.merge_batch(&state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.inner.evaluate()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}
