//! Logical expressions to physical ones, and what an order of rows is where the query gives none.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::execution::context::ExecutionProps;
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, Sort};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use crate::error::Result;
use crate::plan::stream::Hidden;

/// Functions whose value depends on the order of the rows.
pub(in crate::plan) const ORDERED: [&str; 6] =
    ["first_value", "last_value", "nth_value", "array_agg", "string_agg", "any_value"];

pub(super) fn is_ordered(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_ordered(&alias.expr),
        Expr::AggregateFunction(f) => ORDERED.contains(&f.func.name()),
        _ => false,
    }
}

/// Gives an aggregate whose value depends on the order of rows one that does not depend on luck: what it asks for, then
/// event time, then the tie-breaker.
pub(in crate::plan) fn in_order(expr: Expr, hidden: Hidden) -> Expr {
    match expr {
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(in_order(*alias.expr, hidden));
            Expr::Alias(alias)
        }
        Expr::AggregateFunction(f) if ORDERED.contains(&f.func.name()) => {
            let AggregateFunction { mut func, mut params } = f;
            if func.name() == "any_value" {
                func = first_value_udaf();
                params.null_treatment = Some(NullTreatment::IgnoreNulls);
            }
            if params.distinct {
                // Equal values are one: the value itself is the only order there can be.
                if params.order_by.is_empty() {
                    params.order_by = vec![Sort::new(params.args[0].clone(), true, false)];
                }
            } else {
                let order = [(hidden.time, Hidden::TIME), (hidden.tie, Hidden::TIE)];
                let order = order.into_iter().filter(|(there, _)| *there);
                params
                    .order_by
                    .extend(order.map(|(_, name)| Sort::new(Expr::Column(Column::new_unqualified(name)), true, false)));
            }
            Expr::AggregateFunction(AggregateFunction { func, params })
        }
        other => other,
    }
}

pub(super) fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    checked(create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?)
}

/// The same expression with arithmetic that fails where DataFusion's would wrap around in silence.
pub(super) fn checked(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let check = |e: Arc<dyn PhysicalExpr>| {
        Ok(match e.downcast_ref::<BinaryExpr>() {
            Some(binary) => Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as _),
            None => Transformed::no(e),
        })
    };
    Ok(expr.transform_up(check)?.data)
}

pub(super) fn column(name: &str, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(datafusion::physical_expr::expressions::Column::new(name, index))
}

/// The Arrow schema of a logical one, without marks.
pub(super) fn plain(schema: &DFSchema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|f| Arc::new(plain_field(f))).collect::<Vec<_>>()))
}

pub(super) fn plain_field(field: &Field) -> Field {
    Field::new(field.name(), field.data_type().clone(), field.is_nullable())
}
