//! `GROUP BY` over windows as a node of ours, and the refusal of what would run without end.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Extension, LogicalPlan, Projection, Union, UserDefinedLogicalNodeCore,
};

use super::marks::{Bound, bound_of, column_behind, is_bound, is_event_time, mark_bound};
use super::per_window::{PerWindow, bound_behind, requalified};
use super::refusal::{Clause, Refusal, refuse};
use super::stream::Emission;
use crate::sql::types::quote;
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
    /// When it gives out rows.
    pub emission: Emission,
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
        Ok(Self { input, group, bounds, aggregates, windows, emission: Emission::default(), schema })
    }

    /// The same, with another time to give out rows.
    pub(super) fn emitting(&self, emission: Emission) -> Self {
        Self { emission, ..self.clone() }
    }

    /// Whether rows with the same values of the bounds that are grouped by are of one window, if windows are sessions:
    /// those of several keys may begin together.
    pub fn names_sessions(&self) -> bool {
        self.bounds.iter().any(|bound| matches!(bound, Some(Bound::End | Bound::Time)))
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
        // The names are those of the query, as far as they are known.
        let time = (0..fields.len()).find(|i| is_event_time(input, *i)).map(|i| input.schema().qualified_field(i));
        let table = time.and_then(|(table, _)| table).map_or_else(|| "t".to_owned(), |table| quote(table.table()));
        let time = time.map_or_else(|| "ts".to_owned(), |(_, field)| quote(field.name()));
        let keys = group.iter().filter_map(|key| match key {
            Expr::Column(column) => Some(format!(", {}", quote(&column.name))),
            _ => None,
        });
        refuse("an aggregate over a stream without windows would never end").hint(format!(
            "take the rows FROM TUMBLE({table}, {time}, INTERVAL '1' MINUTE) and GROUP BY window_start, window_end{}",
            keys.collect::<String>()
        ))
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
            if let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() {
                return Ok(Transformed::yes(one_aggregate_per_set(&aggregate, sets)?));
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
        LogicalPlan::Join(join) if !reads_stream(&join.left)? || !reads_stream(&join.right)? => {
            refuse("a join of a stream with rows that are computed once is not available yet")
                .hint("a lookup of few rows can be written as CASE")
                .clause(Clause::Join)
                .into()
        }
        LogicalPlan::Join(join) => Ok(Transformed::yes(PerWindow::join(join)?)),
        LogicalPlan::Window(window) => Ok(Transformed::yes(PerWindow::over(window)?)),
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

/// `GROUPING SETS`, `ROLLUP` and `CUBE`: an aggregate per set, with nulls for what it does not group by, put together.
fn one_aggregate_per_set(aggregate: &Aggregate, sets: &GroupingSet) -> Result<LogicalPlan> {
    let all = sets.distinct_expr();
    let list: Vec<Vec<Expr>> = match sets {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(exprs) => (0..=exprs.len()).rev().map(|n| exprs[..n].to_vec()).collect(),
        GroupingSet::Cube(exprs) => {
            let of_mask =
                |mask: usize| (0..exprs.len()).filter(move |i| mask & (1 << i) != 0).map(|i| exprs[i].clone());
            (0..1_usize << exprs.len().min(12)).rev().map(|mask| of_mask(mask).collect()).collect()
        }
    };
    let id_type = aggregate.schema.field(all.len()).data_type().clone();
    let mut inputs = Vec::with_capacity(list.len());
    for set in &list {
        if !set.iter().any(|e| bound_behind(&aggregate.input, e).is_some()) {
            return refuse("one of the grouping sets leaves out the window, so its groups would never end")
                .hint("write the window before them: GROUP BY window_start, window_end, ROLLUP (..)")
                .clause(Clause::GroupBy)
                .into();
        }
        let plain = Aggregate::try_new(Arc::clone(&aggregate.input), set.clone(), aggregate.aggr_expr.clone())?;
        let input = Arc::unwrap_or_clone(plain.input);
        let node = WindowAggregate::try_new(input, plain.group_expr, plain.aggr_expr, &plain.schema)?;
        let schema = Arc::clone(&node.schema);
        let node = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        // From the first expression to the last, a bit for each that the set leaves out.
        let id = all.iter().fold(0_u64, |id, e| id << 1 | u64::from(!set.contains(e)));
        let mut exprs = Vec::new();
        for (i, field) in aggregate.schema.fields().iter().enumerate() {
            let value = if i < all.len() {
                match set.iter().position(|e| e == all[i]) {
                    Some(at) => Expr::Column(schema.qualified_field(at).into()),
                    None => Expr::Literal(ScalarValue::try_from(field.data_type())?, None),
                }
            } else if i == all.len() {
                Expr::Literal(ScalarValue::UInt64(Some(id)).cast_to(&id_type)?, None)
            } else {
                Expr::Column(schema.qualified_field(i - all.len() - 1 + set.len()).into())
            };
            exprs.push(value.alias(format!("c{i}")));
        }
        inputs.push(Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(node))?)));
    }
    let union = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
    // A union's columns have no table; those of the aggregate may.
    let exprs = requalified(&aggregate.schema);
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(union))?))
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
