//! Window functions and the aggregates over them: on slices where nothing reads the bounds of windows, else on rows
//! that are repeated per window.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema};
use datafusion::common::DFSchema;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;

use super::expressions::{checked, column, in_order, physical, plain, plain_field};
use super::{Bounds, Lowering};
use crate::error::{Error, Result};
use crate::plan::aggregate::WindowAggregate;
use crate::plan::marks::{column_behind, is_bound};
use crate::plan::stream::{AggregateNode, Hidden, NodeId, Op, OutputColumn, SessionsNode, WindowsNode};
use crate::plan::windows::AssignWindows;
use crate::state::{Aggregate, AggregateLayout};
use crate::time::{SlicedWindows, WindowShape};

impl Lowering<'_> {
    pub(super) fn windows(&mut self, windows: &AssignWindows, bounds: Bounds) -> Result<NodeId> {
        // Windows below belong to another aggregate, or to none.
        let input = self.node(&windows.input, Bounds::Repeat { judge: None })?;
        self.check_final(input, "a window function")?;
        let time = column_behind(&windows.time)
            .and_then(|c| windows.input.schema().maybe_index_of_column(c))
            .ok_or_else(|| Error::bug("the time of a window function is no column of its input"))?;
        let (repeat, judge) = match bounds {
            Bounds::Slices => (false, None),
            Bounds::Repeat { judge } => (true, judge),
        };
        if let (WindowShape::Session { gap_ms }, true) = (windows.windows.shape, repeat) {
            return self.sessions(windows, gap_ms, input, time);
        }
        let (sliced, session_gap_ms) = match windows.windows.shape {
            WindowShape::Sliced(sliced) => (sliced, None),
            WindowShape::Session { gap_ms } => (SlicedWindows::hop_ms(gap_ms, gap_ms, 0), Some(gap_ms)),
        };
        let node = WindowsNode {
            windows: sliced,
            zone: windows.windows.zone,
            time,
            passed: AssignWindows::passed(windows.input.schema()).collect(),
            repeat,
            session_gap_ms,
            judge,
        };
        let visible = plain(UserDefinedLogicalNodeCore::schema(windows));
        let hidden = Hidden { time: true, window: repeat, ..self.nodes[input].hidden };
        Ok(self.push(Op::Windows(node), vec![input], visible, hidden))
    }

    /// Sessions whose rows are given out with their bounds.
    fn sessions(&mut self, windows: &AssignWindows, gap_ms: i64, input: NodeId, time: usize) -> Result<NodeId> {
        let schema = windows.input.schema();
        let Some(partition) = &windows.partition else {
            return Err(Error::statement("the bounds of a GROUP BY SESSION(..) cannot be aggregated or filtered by")
                .hint(
                    "write FROM SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' MINUTE) \
                     GROUP BY window_start, window_end, k",
                ));
        };
        let place = |e: &Expr| index_behind(e, schema).ok_or_else(|| Error::bug("sessions by what is no column"));
        let node = SessionsNode {
            gap_ms,
            zone: windows.windows.zone,
            time,
            partition: partition.iter().map(place).collect::<Result<_>>()?,
            passed: AssignWindows::passed(schema).collect(),
        };
        let visible = plain(UserDefinedLogicalNodeCore::schema(windows));
        let hidden = Hidden { time: true, raw: false, window: true, ..self.nodes[input].hidden };
        Ok(self.push(Op::Sessions(node), vec![input], visible, hidden))
    }

    pub(super) fn aggregate(&mut self, aggregate: &WindowAggregate) -> Result<NodeId> {
        let schema = aggregate.input.schema();
        let used = aggregate
            .group
            .iter()
            .zip(&aggregate.bounds)
            .filter(|(_, bound)| bound.is_none())
            .map(|(e, _)| e)
            .chain(&aggregate.aggregates);
        let reads_bounds = used.clone().any(|e| refers_to_bounds(e, schema));
        let slices = !reads_bounds && bounds_pass_through(&aggregate.input) && keeps_sessions(aggregate);
        if !slices && aggregate.windows.sliced().is_none() && !aggregate.names_sessions() {
            return Err(Error::statement(
                "sessions may begin together and end apart, so window_start alone names none",
            )
            .hint("add window_end to the GROUP BY"));
        }
        let bounds =
            if slices { Bounds::Slices } else { Bounds::Repeat { judge: Some(aggregate.emission.lateness_ms) } };
        let input = self.node(&aggregate.input, bounds)?;
        self.check_final(input, "an aggregate")?;
        let hidden = self.nodes[input].hidden;
        if !slices && !hidden.window {
            return Err(Error::bug("an aggregate per window whose rows do not know their window"));
        }

        let mut keys = Vec::new();
        let mut key_fields: Vec<FieldRef> = Vec::new();
        let mut output = Vec::new();
        let own = UserDefinedLogicalNodeCore::schema(aggregate);
        for (i, (expr, bound)) in aggregate.group.iter().zip(&aggregate.bounds).enumerate() {
            match bound {
                Some(bound) if slices => output.push(OutputColumn::Bound(*bound)),
                _ => {
                    output.push(OutputColumn::Value(keys.len()));
                    keys.push(physical(expr, schema)?);
                    let field = own.field(i);
                    key_fields.push(Arc::new(Field::new(field.name(), field.data_type().clone(), true)));
                }
            }
        }
        // Aggregates may order by the hidden columns.
        let hidden_fields = hidden.fields().into_iter().map(|f| (None, f)).collect();
        let wide = schema.as_ref().join(&DFSchema::new_with_metadata(hidden_fields, Default::default())?)?;
        let wide_arrow = Schema::new(wide.fields().iter().map(|f| Arc::new(plain_field(f))).collect::<Vec<_>>());
        let mut aggregates = Vec::new();
        let mut inputs = Vec::new();
        let mut filters = Vec::new();
        for expr in &aggregate.aggregates {
            let expr = in_order(expr.clone(), hidden);
            let props = ExecutionProps::new();
            let planning = PhysicalPlanningContext::default();
            let lowered = LoweredAggregateBuilder::new(&expr, &wide, &wide_arrow, &props, &planning).build()?;
            output.push(OutputColumn::Value(keys.len() + aggregates.len()));
            let aggregate = Aggregate::new(lowered.aggregate, &wide_arrow)?;
            inputs.push(aggregate.inputs().into_iter().map(checked).collect::<Result<_>>()?);
            aggregates.push(aggregate);
            filters.push(lowered.filter.map(checked).transpose()?);
        }
        let mut layout = AggregateLayout::new(key_fields, aggregates);
        if slices && aggregate.windows.sliced().is_none() {
            let time = hidden.time_index(schema.fields().len());
            inputs.push(vec![column(Hidden::TIME, time.ok_or_else(|| Error::bug("rows carry no event time"))?)]);
            layout = layout.with_spans();
        }
        let visible = plain(own);
        let (windows, emission, layout) = (aggregate.windows, aggregate.emission, Arc::new(layout));
        let node = AggregateNode { windows, assigned: !slices, keys, inputs, filters, layout, output, emission };
        let hidden = Hidden { time: false, raw: false, window: true, kind: emission.is_changelog(), ..self.hidden };
        Ok(self.push(Op::Aggregate(Box::new(node)), vec![input], visible, hidden))
    }
}

/// Whether the bounds of the window functions below reach this plan's output as they are, and nothing reads them.
fn bounds_pass_through(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => bounds_pass_through(&alias.input),
        LogicalPlan::Filter(filter) => {
            !refers_to_bounds(&filter.predicate, filter.input.schema()) && bounds_pass_through(&filter.input)
        }
        LogicalPlan::Projection(projection) => {
            let fine = |e: &Expr| column_behind(e).is_some() || !refers_to_bounds(e, projection.input.schema());
            projection.expr.iter().all(fine) && bounds_pass_through(&projection.input)
        }
        LogicalPlan::Union(union) => union.inputs.iter().all(|i| bounds_pass_through(i)),
        LogicalPlan::Extension(extension) => extension.node.as_any().is::<AssignWindows>(),
        _ => false,
    }
}

/// Whether an aggregate's keys are what the sessions below it are partitioned by, of all rows: then it can find them
/// itself. It is so for windows that are no sessions.
fn keeps_sessions(aggregate: &WindowAggregate) -> bool {
    if aggregate.windows.sliced().is_some() {
        return true;
    }
    let schema = aggregate.input.schema();
    let keys = aggregate.group.iter().zip(&aggregate.bounds).filter(|(_, bound)| bound.is_none()).map(|(e, _)| e);
    sessions_are_by(&aggregate.input, &keys.map(|e| index_behind(e, schema)).collect::<Vec<_>>())
}

/// Whether the rows of a plan are those of a `SESSION` that is partitioned by these columns; `None` is an expression.
fn sessions_are_by(plan: &LogicalPlan, keys: &[Option<usize>]) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => sessions_are_by(&alias.input, keys),
        LogicalPlan::Projection(projection) => {
            let below = |i: &Option<usize>| index_behind(&projection.expr[(*i)?], projection.input.schema());
            sessions_are_by(&projection.input, &keys.iter().map(below).collect::<Vec<_>>())
        }
        // Rows that a condition leaves out are part of their session nevertheless; but a WHERE comes before a GROUP BY
        // SESSION(..).
        LogicalPlan::Filter(filter) => left_to_aggregate(&filter.input) && sessions_are_by(&filter.input, keys),
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<AssignWindows>() {
            Some(AssignWindows { partition: None, .. }) => true,
            Some(AssignWindows { partition: Some(partition), input, .. }) => {
                let passed: Vec<usize> = AssignWindows::passed(input.schema()).collect();
                let place = |e: &Expr| passed.iter().position(|p| Some(*p) == index_behind(e, input.schema()));
                let partition: BTreeSet<Option<usize>> = partition.iter().map(place).collect();
                !partition.contains(&None) && partition == keys.iter().copied().collect()
            }
            None => false,
        },
        _ => false,
    }
}

/// Whether the rows are those of a `GROUP BY SESSION(..)`, whose aggregate says what sessions are partitioned by.
fn left_to_aggregate(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => left_to_aggregate(&alias.input),
        LogicalPlan::Projection(projection) => left_to_aggregate(&projection.input),
        LogicalPlan::Filter(filter) => left_to_aggregate(&filter.input),
        LogicalPlan::Extension(extension) => {
            extension.node.as_any().downcast_ref::<AssignWindows>().is_some_and(|w| w.partition.is_none())
        }
        _ => false,
    }
}

fn index_behind(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    column_behind(expr).and_then(|c| schema.maybe_index_of_column(c))
}

fn refers_to_bounds(expr: &Expr, schema: &DFSchema) -> bool {
    expr.column_refs().iter().any(|c| schema.maybe_index_of_column(c).is_some_and(|i| is_bound(schema.field(i))))
}
