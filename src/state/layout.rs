//! What the columns of a partial are, and the accumulators behind them.

use std::sync::Arc;

use arrow::array::{BooleanArray, new_empty_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::logical_expr::GroupsAccumulator;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};

use super::checked_decimal::{CheckedDecimal, DecimalResult};
use super::checked_sum::CheckedSum;
use super::distinct::DistinctAccumulator;
use super::sorting::SortingAccumulator;
use crate::error::Result;

/// Functions whose accumulator for many groups takes equal values once, or whose value is the same either way.
const KNOW_DISTINCT: [&str; 8] = ["count", "min", "max", "bit_and", "bit_or", "bool_and", "bool_or", "approx_distinct"];

/// One aggregate function of a query, ready to make accumulators.
#[derive(Clone, Debug)]
pub struct Aggregate {
    function: Arc<AggregateFunctionExpr>,
    /// For `DISTINCT` where DataFusion has no accumulator for many groups: the same function without it, and the fields
    /// of its arguments.
    distinct_of: Option<(Arc<AggregateFunctionExpr>, Vec<FieldRef>)>,
    state_fields: Vec<FieldRef>,
    /// Of [`Self::inputs`].
    input_types: Vec<DataType>,
}

impl Aggregate {
    /// Prepares a function over rows of the given schema.
    pub fn new(function: Arc<AggregateFunctionExpr>, input: &Schema) -> Result<Self> {
        // DataFusion's own DISTINCT accumulators for one group at a time cost kilobytes a group, and a walk over all
        // groups per batch; one set of (group, value) pairs does the same for every function.
        // Accumulators for many groups at once mostly ignore DISTINCT, or know nothing of it (bit_xor, corr).
        let knows_distinct = function.groups_accumulator_supported() && KNOW_DISTINCT.contains(&function.fun().name());
        let own_distinct = function.is_distinct() && function.order_bys().is_empty() && !knows_distinct;
        let input_types: Vec<_> = inputs(&function).iter().map(|e| e.data_type(input)).collect::<Result<_, _>>()?;
        if !own_distinct {
            let state_fields = if sums_whole_numbers(&function) {
                vec![CheckedSum::state_field(function.name())]
            } else if of_decimals(&function, &input_types).is_some() {
                DecimalResult::state_fields(function.name())
            } else {
                function.state_fields()?
            };
            return Ok(Self { function, distinct_of: None, state_fields, input_types });
        }
        let plain = AggregateExprBuilder::new(Arc::new(function.fun().clone()), function.expressions())
            .schema(Arc::new(input.clone()))
            .alias(function.name())
            .with_ignore_nulls(function.ignore_nulls())
            .build()?;
        let fields = function.expressions().iter().map(|e| e.return_field(input)).collect::<Result<Vec<_>, _>>()?;
        let state_fields = vec![DistinctAccumulator::state_field(function.name(), &fields)];
        Ok(Self { function, distinct_of: Some((Arc::new(plain), fields)), state_fields, input_types })
    }

    /// The values that [`GroupTable::update`](super::GroupTable::update) takes for this function: its arguments, then
    /// what it orders by.
    pub fn inputs(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        inputs(&self.function)
    }

    /// Tells an accumulator of so many groups that there will be some without a row. DataFusion's take it that every group
    /// that they hear of has a value, until they have seen a null or a filter; so this shows them a filter, over no rows.
    pub(super) fn expect_groups_without_rows(
        &self,
        accumulator: &mut dyn GroupsAccumulator,
        groups: usize,
    ) -> Result<()> {
        let inputs: Vec<_> = self.input_types.iter().map(new_empty_array).collect();
        Ok(accumulator.update_batch(&inputs, &[], Some(&BooleanArray::new_null(0)), groups)?)
    }

    /// The column of results.
    pub fn field(&self) -> FieldRef {
        self.function.field()
    }

    /// The columns of its state.
    pub fn state_fields(&self) -> &[FieldRef] {
        &self.state_fields
    }

    fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if let Some((plain, fields)) = &self.distinct_of {
            return Ok(Box::new(DistinctAccumulator::new(plain_accumulator(plain, &self.input_types)?, fields)?));
        }
        plain_accumulator(&self.function, &self.input_types)
    }
}

/// A function's arguments, then what it orders by.
fn inputs(function: &AggregateFunctionExpr) -> Vec<Arc<dyn PhysicalExpr>> {
    let mut inputs = function.expressions();
    inputs.extend(function.order_bys().iter().map(|s| Arc::clone(&s.expr)));
    inputs
}

/// Whether a function's accumulator is a [`CheckedSum`].
fn sums_whole_numbers(function: &AggregateFunctionExpr) -> bool {
    function.fun().name() == "sum" && function.field().data_type() == &DataType::Int64
}

/// What a function computes, if its accumulator is a [`CheckedDecimal`].
fn of_decimals(function: &AggregateFunctionExpr, inputs: &[DataType]) -> Option<DecimalResult> {
    DecimalResult::of(function.fun().name(), inputs.first()?, function.field().data_type())
}

fn plain_accumulator(function: &Arc<AggregateFunctionExpr>, inputs: &[DataType]) -> Result<Box<dyn GroupsAccumulator>> {
    if sums_whole_numbers(function) {
        return Ok(Box::new(CheckedSum::default()));
    }
    if let Some(result) = of_decimals(function, inputs) {
        return Ok(Box::new(CheckedDecimal::new(result)));
    }
    if function.groups_accumulator_supported() {
        return Ok(function.create_groups_accumulator()?);
    }
    let function = Arc::clone(function);
    if function.order_sensitivity() == AggregateOrderSensitivity::HardRequirement {
        return Ok(Box::new(GroupsAccumulatorAdapter::new(move || {
            let ordering = function.order_bys().iter().map(|s| s.options).collect();
            let function = Arc::clone(&function);
            Ok(Box::new(SortingAccumulator::new(Box::new(move || function.create_accumulator()), ordering)?))
        })));
    }
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
}

/// The columns of a query's partials: keys, then each aggregate's state, then the spans of sessions.
#[derive(Clone, Debug)]
pub struct AggregateLayout {
    keys: SchemaRef,
    aggregates: Vec<Aggregate>,
    partial: SchemaRef,
    has_spans: bool,
}

impl AggregateLayout {
    /// A layout of these keys and aggregates.
    pub fn new(keys: Vec<FieldRef>, aggregates: Vec<Aggregate>) -> Self {
        let mut fields = keys.clone();
        for (i, aggregate) in aggregates.iter().enumerate() {
            for field in aggregate.state_fields() {
                // State names of two aggregates may collide (two sums of one column under a FILTER).
                fields.push(Arc::new(
                    field.as_ref().clone().with_name(format!("{i}:{}", field.name())).with_nullable(true),
                ));
            }
        }
        Self { keys: Arc::new(Schema::new(keys)), aggregates, partial: Arc::new(Schema::new(fields)), has_spans: false }
    }

    /// The same layout, with the first and the last event time of each group behind the aggregates.
    #[must_use]
    pub fn with_spans(mut self) -> Self {
        let mut fields: Vec<FieldRef> = self.partial.fields().iter().cloned().collect();
        fields.extend(["first", "last"].map(|name| Arc::new(Field::new(name, DataType::Int64, false))));
        self.partial = Arc::new(Schema::new(fields));
        self.has_spans = true;
        self
    }

    /// Whether groups have spans.
    pub fn has_spans(&self) -> bool {
        self.has_spans
    }

    /// The group keys.
    pub fn keys(&self) -> &SchemaRef {
        &self.keys
    }

    /// The aggregates.
    pub fn aggregates(&self) -> &[Aggregate] {
        &self.aggregates
    }

    /// The schema of a partial at rest.
    pub fn partial(&self) -> &SchemaRef {
        &self.partial
    }

    pub(super) fn accumulators(&self) -> Result<Vec<Box<dyn GroupsAccumulator>>> {
        self.aggregates.iter().map(Aggregate::accumulator).collect()
    }
}
