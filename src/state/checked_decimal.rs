//! `SUM` and `AVG` of decimals that notice when their result does not fit.
//!
//! DataFusion's wrap around in silence. Here sums are kept in 256 bits, which no number of rows overflows, and checked
//! when they are given out: so whether one fits does not depend on the order of the rows either.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array, UInt64Array};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Field, FieldRef, UInt64Type, i256};
use datafusion::common::{DataFusionError, Result, not_impl_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

/// What is computed, and the type of the result.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecimalResult {
    /// An average is the sum times this, over the number of values; a sum has none.
    factor: Option<i256>,
    precision: u8,
    scale: i8,
}

impl DecimalResult {
    /// Of a function of this name over values of this type, if it is one of these.
    pub(super) fn of(function: &str, values: &DataType, result: &DataType) -> Option<Self> {
        let (DataType::Decimal128(_, from), DataType::Decimal128(precision, scale)) = (values, result) else {
            return None;
        };
        let factor = match function {
            "sum" if from == scale => None,
            "avg" => Some(i256::from_i128(10_i128.checked_pow(u32::try_from(scale - from).ok()?)?)),
            _ => return None,
        };
        Some(Self { factor, precision: *precision, scale: *scale })
    }

    /// The columns of the state: the sum and the number of values.
    pub(super) fn state_fields(name: &str) -> Vec<FieldRef> {
        let field = |part: &str, data_type| Arc::new(Field::new(format!("{name}[{part}]"), data_type, true));
        vec![field("sum", DataType::Decimal256(76, 0)), field("count", DataType::UInt64)]
    }

    fn finish(&self, sum: i256, count: u64) -> Result<Option<i128>> {
        if count == 0 {
            return Ok(None);
        }
        let exact = match self.factor {
            None => Some(sum),
            Some(factor) => sum.checked_mul(factor).and_then(|sum| sum.checked_div(i256::from_i128(count.into()))),
        };
        let limit = 10_u128.pow(self.precision.into());
        match exact.and_then(i256::to_i128).filter(|value| value.unsigned_abs() < limit) {
            Some(value) => Ok(Some(value)),
            None => {
                let (what, DecimalResult { precision, scale, .. }) =
                    (if self.factor.is_some() { "an AVG" } else { "a SUM" }, self);
                let error =
                    crate::error::Error::data(format!("{what} does not fit into DECIMAL({precision}, {scale})"));
                Err(DataFusionError::External(Box::new(
                    error.hint("compute with DOUBLE, or with fewer digits behind the point: CAST(x AS ..)"),
                )))
            }
        }
    }
}

/// See the module's head. A group without values has no result.
pub(super) struct CheckedDecimal {
    result: DecimalResult,
    sums: Vec<i256>,
    counts: Vec<u64>,
}

impl CheckedDecimal {
    pub(super) fn new(result: DecimalResult) -> Self {
        Self { result, sums: Vec::new(), counts: Vec::new() }
    }

    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, i256::ZERO);
        self.counts.resize(groups, 0);
    }

    fn add(&mut self, group: usize, sum: i256, count: u64) {
        // 2^128 values of 38 digits would be needed to leave 256 bits.
        self.sums[group] = self.sums[group].wrapping_add(sum);
        self.counts[group] += count;
    }

    fn give(&mut self, emit_to: EmitTo) -> (Vec<i256>, Vec<u64>) {
        (emit_to.take_needed(&mut self.sums), emit_to.take_needed(&mut self.counts))
    }
}

impl GroupsAccumulator for CheckedDecimal {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.resize(total_num_groups);
        let values = values[0].as_primitive::<Decimal128Type>();
        for (row, &group) in group_indices.iter().enumerate() {
            let wanted = opt_filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            if wanted && values.is_valid(row) {
                self.add(group, i256::from_i128(values.value(row)), 1);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (sums, counts) = self.give(emit_to);
        let results = sums.into_iter().zip(counts).map(|(sum, count)| self.result.finish(sum, count));
        let results = Decimal128Array::from_iter(results.collect::<Result<Vec<_>>>()?);
        Ok(Arc::new(results.with_precision_and_scale(self.result.precision, self.result.scale)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (sums, counts) = self.give(emit_to);
        let sums = Decimal256Array::from_iter_values(sums).with_precision_and_scale(76, 0)?;
        Ok(vec![Arc::new(sums), Arc::new(UInt64Array::from(counts))])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.resize(total_num_groups);
        let (sums, counts) = (values[0].as_primitive::<Decimal256Type>(), values[1].as_primitive::<UInt64Type>());
        for (row, &group) in group_indices.iter().enumerate() {
            if sums.is_valid(row) && counts.is_valid(row) {
                self.add(group, sums.value(row), counts.value(row));
            }
        }
        Ok(())
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        not_impl_err!("partials are made by updating")
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i256>() + self.counts.capacity() * size_of::<u64>()
    }
}
