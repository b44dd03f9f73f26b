//! `GROUP BY` over windows as a node of ours, and the refusal of what would run without end.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::{Distinct, Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use super::marks::{Bound, bound_of, column_behind, is_bound, mark_bound};
use super::refusal::{Clause, Refusal, refuse};
use crate::time::Windows;

/// An aggregate whose groups end: each belongs to a window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WindowAggregate {
    /// The rows, with the windows' bounds among their columns.
    pub input: LogicalPlan,
    /// What is grouped by, bounds included.
    pub group: Vec<Expr>,
    /// Which of the group expressions are bounds.
    pub bounds: Vec<Option<Bound>>,
    /// The aggregate functions.
    pub aggregates: Vec<Expr>,
    /// The windows.
    pub windows: Windows,
    schema: DFSchemaRef,
}

impl PartialOrd for WindowAggregate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl WindowAggregate {
    fn try_new(input: LogicalPlan, group: Vec<Expr>, aggregates: Vec<Expr>, schema: &DFSchema) -> Result<Self> {
        let mut bounds = Vec::with_capacity(group.len());
        let mut windows: Option<Windows> = None;
        for expr in &group {
            let found = column_behind(expr)
                .and_then(|c| input.schema().maybe_index_of_column(c))
                .and_then(|i| bound_of(&input, i));
            if let Some((_, found)) = found {
                if windows.is_some_and(|w| w != found) {
                    return refuse("the bounds that are grouped by belong to different windows")
                        .clause(Clause::GroupBy)
                        .into();
                }
                windows = Some(found);
            }
            bounds.push(found.map(|(bound, _)| bound));
        }
        let Some(windows) = windows else {
            return without_window(&input, &group, &aggregates).into();
        };
        let fields = schema
            .iter()
            .enumerate()
            .map(|(i, (qualifier, field))| {
                let plain = Field::new(field.name(), field.data_type().clone(), field.is_nullable());
                let field = match bounds.get(i) {
                    Some(Some(bound)) => mark_bound(plain, *bound, &windows),
                    _ => plain,
                };
                (qualifier.cloned(), Arc::new(field))
            })
            .collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, schema.metadata().clone())?);
        Ok(Self { input, group, bounds, aggregates, windows, schema })
    }
}

fn without_window(input: &LogicalPlan, group: &[Expr], aggregates: &[Expr]) -> Refusal {
    let fields = input.schema().fields();
    let refusal = if (0..fields.len()).any(|i| bound_of(input, i).is_some()) {
        refuse("this GROUP BY leaves out the window, so its groups would never end")
            .hint("add window_start, window_end to it")
    } else if fields.iter().any(|f| is_bound(f)) {
        refuse("the rows come from windows of several lengths, so their groups have no common end")
            .hint("aggregate each of them, then put the results together with UNION ALL")
    } else {
        refuse("an aggregate over a stream without windows would never end").hint(
            "take the rows FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE) \
             and GROUP BY window_start, window_end",
        )
    };
    match (group, aggregates) {
        ([], [_, ..]) => refusal.clause(Clause::Aggregate),
        _ => refusal.clause(Clause::GroupBy),
    }
}

impl UserDefinedLogicalNodeCore for WindowAggregate {
    fn name(&self) -> &str {
        "WindowAggregate"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.group.iter().chain(&self.aggregates).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |exprs: &[Expr]| exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "WindowAggregate: group=[{}], aggregates=[{}]", list(&self.group), list(&self.aggregates))
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Some(input) = inputs.pop() else { return plan_err!("an aggregate has one input") };
        let aggregates = exprs.split_off(self.group.len());
        Ok(Self { input, group: exprs, aggregates, ..self.clone() })
    }

    fn necessary_children_exprs(&self, _: &[usize]) -> Option<Vec<Vec<usize>>> {
        // What the expressions need is added by the rule that asks.
        Some(vec![vec![]])
    }
}

/// Makes every aggregate over a stream a windowed one, and refuses what cannot run continuously.
pub fn check_continuous(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.transform_up(|node| if reads_stream(&node)? { check_node(node) } else { Ok(Transformed::no(node)) })?.data)
}

fn check_node(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    refuse_subqueries(&node)?;
    match node {
        LogicalPlan::Aggregate(aggregate) => {
            if aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
                return refuse("GROUPING SETS, ROLLUP and CUBE are not available yet")
                    .hint("write one INSERT per grouping, in one statement set")
                    .clause(Clause::GroupBy)
                    .into();
            }
            let node = WindowAggregate::try_new(
                Arc::unwrap_or_clone(aggregate.input),
                aggregate.group_expr,
                aggregate.aggr_expr,
                &aggregate.schema,
            )?;
            Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let group: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
            let schema = Arc::clone(input.schema());
            let has_bound = (0..schema.fields().len()).any(|i| bound_of(&input, i).is_some());
            if !has_bound {
                return refuse(
                    "SELECT DISTINCT (or UNION without ALL) over a stream would have to remember every row for ever",
                )
                .hint("select window_start, window_end of a TUMBLE as well, and it is per window; write UNION ALL")
                .clause(Clause::Distinct)
                .into();
            }
            let node = WindowAggregate::try_new(Arc::unwrap_or_clone(input), group, vec![], &schema)?;
            Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
        }
        LogicalPlan::Join(join) if unnests(&join.left)? || unnests(&join.right)? => unnest().into(),
        LogicalPlan::Join(_) => refuse("joins of streams are not available yet")
            .hint("a lookup of few rows can be written as CASE, streams of one shape as UNION ALL")
            .clause(Clause::Join)
            .into(),
        LogicalPlan::Window(_) => refuse("OVER is not available yet on a stream")
            .hint("aggregate per window with TUMBLE or HOP instead")
            .clause(Clause::Over)
            .into(),
        LogicalPlan::Sort(_) => refuse("ORDER BY would have to wait for the end of the stream")
            .hint("leave it out (windows come in the order of their end), or sort where you read")
            .clause(Clause::OrderBy)
            .into(),
        LogicalPlan::Limit(_) => {
            refuse("LIMIT is for a SELECT on its own: a stream that goes on has no first rows to stop at")
                .hint("leave it out, or write it at the end of the SELECT that you read from")
                .clause(Clause::Limit)
                .into()
        }
        LogicalPlan::Distinct(Distinct::On(_)) => {
            refuse("DISTINCT ON is not available on a stream").clause(Clause::Distinct).into()
        }
        LogicalPlan::RecursiveQuery(_) => refuse("a recursive query cannot run over a stream").into(),
        LogicalPlan::Unnest(_) => unnest().into(),
        node => Ok(Transformed::no(node)),
    }
}

fn unnest() -> Refusal {
    refuse("UNNEST is not available yet on a stream").hint("take elements by their index, as in a[1]")
}

fn unnests(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Unnest(_))))
}

fn refuse_subqueries(node: &LogicalPlan) -> Result<()> {
    for expr in node.expressions() {
        let mut found = false;
        expr.apply(|e| {
            found |= matches!(
                e,
                Expr::ScalarSubquery(_)
                    | Expr::InSubquery(_)
                    | Expr::Exists(_)
                    | Expr::SetComparison(_)
                    | Expr::OuterReferenceColumn(..)
            );
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if found {
            return refuse("a subquery inside an expression is not available on a stream")
                .hint("sub-queries may stand in FROM")
                .clause(Clause::Subquery)
                .into();
        }
    }
    Ok(())
}

/// Whether any table is read below; a plan without is computed once, as a batch.
pub fn reads_stream(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::TableScan(_))))
}
