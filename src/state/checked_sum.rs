//! `SUM` of whole numbers that notices when its result does not fit.
//!
//! DataFusion's wraps around in silence. Here sums are kept in 128 bits, which no number of rows overflows, and checked
//! when they are given out: so whether a sum fits does not depend on the order of the rows either.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result, not_impl_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

/// See the module's head. A group without values has no sum.
#[derive(Default)]
pub(super) struct CheckedSum {
    sums: Vec<i128>,
    has_values: Vec<bool>,
}

impl CheckedSum {
    /// The state's only column.
    pub(super) fn state_field(name: &str) -> FieldRef {
        Arc::new(Field::new(format!("{name}[sum]"), DataType::Decimal128(38, 0), true))
    }

    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, 0);
        self.has_values.resize(groups, false);
    }

    fn add(&mut self, group: usize, value: i128) {
        self.sums[group] += value;
        self.has_values[group] = true;
    }

    fn give(&mut self, emit_to: EmitTo) -> impl Iterator<Item = Option<i128>> {
        let sums = emit_to.take_needed(&mut self.sums);
        let has_values = emit_to.take_needed(&mut self.has_values);
        sums.into_iter().zip(has_values).map(|(sum, has_value)| has_value.then_some(sum))
    }
}

impl GroupsAccumulator for CheckedSum {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.resize(total_num_groups);
        let values = values[0].as_primitive::<Int64Type>();
        if values.null_count() == 0 && opt_filter.is_none() {
            for (&group, &value) in group_indices.iter().zip(values.values()) {
                self.add(group, i128::from(value));
            }
            return Ok(());
        }
        for (row, &group) in group_indices.iter().enumerate() {
            let wanted = opt_filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            if wanted && values.is_valid(row) {
                self.add(group, i128::from(values.value(row)));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let fits = |sum: Option<i128>| match sum.map(i64::try_from) {
            None => Ok(None),
            Some(Ok(sum)) => Ok(Some(sum)),
            Some(Err(_)) => Err(DataFusionError::External(Box::new(
                crate::error::Error::data("a SUM does not fit into BIGINT")
                    .hint("write SUM(CAST(x AS DECIMAL(38, 0)))"),
            ))),
        };
        let sums = self.give(emit_to).map(fits).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Int64Array::from(sums)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let sums = Decimal128Array::from_iter(self.give(emit_to)).with_precision_and_scale(38, 0)?;
        Ok(vec![Arc::new(sums)])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.resize(total_num_groups);
        let sums = values[0].as_primitive::<Decimal128Type>();
        for (row, &group) in group_indices.iter().enumerate() {
            if sums.is_valid(row) {
                self.add(group, sums.value(row));
            }
        }
        Ok(())
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        not_impl_err!("partials are made by updating")
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.has_values.capacity()
    }
}
