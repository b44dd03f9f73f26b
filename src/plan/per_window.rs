//! What is computed over all rows of a closed window at once: joins of equal windows, and functions `OVER` a window.
//!
//! Such a node is what DataFusion would do in a batch, a join or a window function, with the promise that no row matters to
//! another one of a different window. So it can run whenever windows have closed, over their rows alone, as a finite plan.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, DFSchemaRef, JoinType, Result, TableReference, plan_err};
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr, Extension, Join, LogicalPlan, Operator, UserDefinedLogicalNodeCore, Window, WindowFrameUnits,
    WindowFunctionDefinition,
};

use super::lower::ORDERED;
use super::marks::{Bound, bound_of, column_behind, is_bound, is_event_time, unmarked};
use super::refusal::{Clause, Refusal, refuse};
use crate::time::{Run, WindowShape, Windows};

/// See the module's head.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PerWindow {
    /// A [`LogicalPlan::Join`] or a [`LogicalPlan::Window`].
    work: LogicalPlan,
    /// The windows whose rows belong together.
    pub windows: Windows,
    schema: DFSchemaRef,
}

impl PerWindow {
    /// A join whose condition says that both sides' windows are equal.
    pub fn join(join: Join) -> Result<LogicalPlan> {
        if join.null_aware {
            return refuse(
                "NOT IN over windows is not available: one null among the values would make it true for no row",
            )
            .hint("write NOT EXISTS (SELECT 1 FROM .. WHERE ..), or LEFT ANTI JOIN .. ON ..")
            .clause(Clause::Subquery)
            .into();
        }
        let pairs = equal_columns(&join);
        let mut other = None;
        let windows = pairs.iter().find_map(|(left, right)| {
            let (bound, windows) = bound_behind(&join.left, left)?;
            let (right_bound, right_windows) = bound_behind(&join.right, right)?;
            if bound != right_bound || windows != right_windows {
                other = Some(());
                return None;
            }
            names_window(bound, &windows).then_some(windows)
        });
        match windows {
            Some(windows) => Self::node(LogicalPlan::Join(join), windows),
            None if other.is_some() => {
                refuse("the windows that are joined differ, so their rows never belong together")
                    .hint("take the same window function, with the same lengths, on both sides")
                    .clause(Clause::Join)
                    .into()
            }
            None => without_window(&join).into(),
        }
    }

    /// Window functions whose partitions lie within windows.
    pub fn over(window: Window) -> Result<LogicalPlan> {
        let mut found: Option<Windows> = None;
        for expr in &window.window_expr {
            let Some(function) = window_function(expr) else { return plan_err!("OVER without a function") };
            order_counts(function)?;
            let bounds = function.params.partition_by.iter().filter_map(|e| bound_behind(&window.input, e));
            let bounds: Vec<(Bound, Windows)> = bounds.collect();
            match bounds.iter().find(|(bound, windows)| names_window(*bound, windows)) {
                Some((_, windows)) if found.is_none_or(|f| f == *windows) => found = Some(*windows),
                Some(_) => return refuse("functions OVER different windows").clause(Clause::Over).into(),
                None => {
                    return refuse("OVER without a window in its PARTITION BY would have to remember every row for ever")
                        .hint("write OVER (PARTITION BY window_start, window_end, .. ORDER BY ..) over rows of a TUMBLE, HOP, ..")
                        .clause(Clause::Over)
                        .into();
                }
            }
        }
        match found {
            Some(windows) => Self::node(LogicalPlan::Window(window), windows),
            None => plan_err!("OVER without a function"),
        }
    }

    fn node(work: LogicalPlan, windows: Windows) -> Result<LogicalPlan> {
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(Self::new(work, windows)?) }))
    }

    fn new(work: LogicalPlan, windows: Windows) -> Result<Self> {
        // Rows come out when their windows have closed: what was event time within the windows has passed then, and only
        // the windows' own goes on. A side that may be missing has no bounds.
        let (left, kept) = match &work {
            LogicalPlan::Join(join) => {
                let left = join.left.schema().fields().len();
                let kept = match join.join_type {
                    JoinType::Left => (true, false),
                    JoinType::Right => (false, true),
                    JoinType::Full => (false, false),
                    _ => (true, true),
                };
                (left, kept)
            }
            _ => (0, (true, true)),
        };
        let fields = work
            .schema()
            .iter()
            .enumerate()
            .map(|(i, (qualifier, field))| {
                let keeps = if i < left { kept.0 } else { kept.1 };
                let field = if keeps && is_bound(field) { Arc::clone(field) } else { Arc::new(unmarked(field)) };
                (qualifier.cloned(), field)
            })
            .collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, work.schema().metadata().clone())?);
        Ok(Self { work, windows, schema })
    }

    /// The join or the window function, over these inputs instead of its own: they have the same columns, and may have
    /// more behind them. `tie_breakers` are columns that decide between rows that are equal for the query. `windows` are
    /// the inputs' columns that tell the window itself: where clocks are set back, its bounds as they show them may be
    /// those of another one, too.
    pub fn over_inputs(
        &self,
        inputs: Vec<LogicalPlan>,
        tie_breakers: &[Expr],
        windows: &[Expr],
    ) -> Result<LogicalPlan> {
        let exprs = self.work.expressions();
        match (&self.work, windows) {
            (LogicalPlan::Window(window), [of_input]) => {
                let exprs = exprs.into_iter().map(|e| break_ties(e, &window.input, tie_breakers, of_input));
                self.work.with_new_exprs(exprs.collect::<Result<_>>()?, inputs)
            }
            (LogicalPlan::Join(_), [left, right]) => {
                let mut work = self.work.with_new_exprs(exprs, inputs)?;
                if let LogicalPlan::Join(join) = &mut work {
                    join.on.push((left.clone(), right.clone()));
                }
                Ok(work)
            }
            _ => plan_err!("rows per window that do not know their window"),
        }
    }

    /// Per input, columns by index whose rows belong together: rows of which any of these differ never meet. Empty when
    /// only the window says so.
    pub fn keys(&self) -> Vec<Vec<usize>> {
        match &self.work {
            LogicalPlan::Join(join) => {
                let mut keys = vec![Vec::new(), Vec::new()];
                for (left, right) in equal_columns(join) {
                    let place =
                        |plan: &LogicalPlan, expr: &Expr| plan.schema().maybe_index_of_column(column_behind(expr)?);
                    if let (Some(l), Some(r)) = (place(&join.left, &left), place(&join.right, &right))
                        && join.left.schema().field(l).data_type() == join.right.schema().field(r).data_type()
                    {
                        keys[0].push(l);
                        keys[1].push(r);
                    }
                }
                keys
            }
            LogicalPlan::Window(window) => {
                let partitions: Vec<Vec<usize>> = window
                    .window_expr
                    .iter()
                    .filter_map(window_function)
                    .map(|f| {
                        let place = |e: &Expr| window.input.schema().maybe_index_of_column(column_behind(e)?);
                        f.params.partition_by.iter().filter_map(place).collect()
                    })
                    .collect();
                // What all of them have in common.
                let first = partitions.first().cloned().unwrap_or_default();
                vec![first.into_iter().filter(|c| partitions.iter().all(|p| p.contains(c))).collect()]
            }
            _ => Vec::new(),
        }
    }

    /// Whether rows of the left side come out alone: there are no columns of the right one.
    pub fn gives_left_only(&self) -> bool {
        match &self.work {
            LogicalPlan::Join(join) => matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti),
            _ => true,
        }
    }

    /// Whether rows of the right side come out alone.
    pub fn gives_right_only(&self) -> bool {
        match &self.work {
            LogicalPlan::Join(join) => matches!(join.join_type, JoinType::RightSemi | JoinType::RightAnti),
            _ => false,
        }
    }

    /// Whether the order of rows matters to some function.
    pub fn is_ordered(&self) -> bool {
        matches!(&self.work, LogicalPlan::Window(_))
    }

    /// What is done, for people to read.
    pub fn title(&self) -> String {
        match &self.work {
            LogicalPlan::Join(join) => {
                let on = join.on.iter().map(|(left, right)| format!("{left} = {right}"));
                let all: Vec<String> = on.chain(join.filter.iter().map(ToString::to_string)).collect();
                format!("{} join per window ON {}", join.join_type, all.join(" AND "))
            }
            LogicalPlan::Window(window) => {
                let list: Vec<String> = window.window_expr.iter().map(ToString::to_string).collect();
                format!("Over per window: {}", list.join(", "))
            }
            _ => String::new(),
        }
    }
}

impl PartialOrd for PerWindow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.work.partial_cmp(&other.work)
    }
}

impl UserDefinedLogicalNodeCore for PerWindow {
    fn name(&self) -> &str {
        "PerWindow"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.work.inputs()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.work.expressions()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PerWindow: {}", self.work.display())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Self::new(self.work.with_new_exprs(exprs, inputs)?, self.windows)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(match &self.work {
            LogicalPlan::Join(join) => {
                let left = join.left.schema().fields().len();
                let in_right = self.gives_right_only();
                let (mut of_left, mut of_right) = (Vec::new(), Vec::new());
                for &at in output_columns {
                    match at {
                        _ if in_right => of_right.push(at),
                        at if at < left => of_left.push(at),
                        at => of_right.push(at - left),
                    }
                }
                vec![of_left, of_right]
            }
            work => {
                let inputs = work.inputs().first().map_or(0, |input| input.schema().fields().len());
                vec![output_columns.iter().copied().filter(|at| *at < inputs).collect()]
            }
        })
    }
}

/// Whether a join's condition says that the windows of both sides are equal.
pub fn joins_windows(join: &Join) -> bool {
    equal_columns(join).iter().any(|(left, right)| {
        let left = bound_behind(&join.left, left);
        left == bound_behind(&join.right, right) && left.is_some_and(|(bound, windows)| names_window(bound, &windows))
    })
}

/// Whether an expression over a plan's columns names the windows of its rows.
pub fn names_window_behind(plan: &LogicalPlan, expr: &Expr) -> bool {
    bound_behind(plan, expr).is_some_and(|(bound, windows)| names_window(bound, &windows))
}

/// Whether rows with the same value of a bound are of the same window, but for windows that clocks show alike because
/// they were set back between them.
fn names_window(bound: Bound, windows: &Windows) -> bool {
    match (bound, windows.shape) {
        (Bound::End | Bound::Time, WindowShape::Sliced(_)) => true,
        (Bound::Start, WindowShape::Sliced(sliced)) => !matches!(sliced.run, Run::Grow),
        // Rows of sessions that end together meet; those that begin together may come at different times.
        (bound, WindowShape::Session { .. }) => bound != Bound::Start,
    }
}

fn without_window(join: &Join) -> Refusal {
    let has_windows = |plan: &LogicalPlan| (0..plan.schema().fields().len()).any(|i| bound_of(plan, i).is_some());
    let refusal = match (has_windows(&join.left), has_windows(&join.right)) {
        (true, true) => refuse("the join does not say that the windows are equal, so rows would have to wait for ever")
            .hint("add ON a.window_start = b.window_start AND a.window_end = b.window_end"),
        _ => refuse("a join of streams without windows would have to remember every row for ever").hint(
            "join windows: FROM TUMBLE(TABLE a, ..) a JOIN TUMBLE(TABLE b, ..) b ON a.window_start = b.window_start AND \
             a.window_end = b.window_end AND ..",
        ),
    };
    refusal.clause(Clause::Join)
}

/// The pairs of columns that a join's condition says to be equal: of the left, of the right.
fn equal_columns(join: &Join) -> Vec<(Expr, Expr)> {
    let mut pairs: Vec<(Expr, Expr)> = join.on.clone();
    let is_of = |plan: &LogicalPlan, expr: &Expr| column_behind(expr).is_some_and(|c| plan.schema().has_column(c));
    for part in join.filter.iter().flat_map(split_conjunction) {
        if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = part {
            if is_of(&join.left, left) && is_of(&join.right, right) {
                pairs.push((left.as_ref().clone(), right.as_ref().clone()));
            } else if is_of(&join.left, right) && is_of(&join.right, left) {
                pairs.push((right.as_ref().clone(), left.as_ref().clone()));
            }
        }
    }
    pairs.retain(|(left, right)| is_of(&join.left, left) && is_of(&join.right, right));
    pairs
}

/// The bound that an expression over a plan's columns only passes on.
pub fn bound_behind(plan: &LogicalPlan, expr: &Expr) -> Option<(Bound, Windows)> {
    bound_of(plan, plan.schema().maybe_index_of_column(column_behind(expr)?)?)
}

/// The function with `OVER` that an expression is, under whatever name.
pub fn window_function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Some(function),
        Expr::Alias(alias) => window_function(&alias.expr),
        _ => None,
    }
}

/// Functions for which rows that the query's order leaves equal are equal.
const TIES_COUNT: [&str; 4] = ["rank", "dense_rank", "percent_rank", "cume_dist"];

/// Whether rows are in the order of their event times, latest first: then those of one time are, too.
pub fn is_latest_first(order_by: &[Sort], input: &LogicalPlan) -> bool {
    let [Sort { expr, asc: false, .. }] = order_by else { return false };
    let index = column_behind(expr).and_then(|column| input.schema().maybe_index_of_column(column));
    index.is_some_and(|index| is_event_time(input, index))
}

/// Whether the value of a function OVER depends on which of two rows comes first that the query's order leaves equal.
pub fn order_counts(function: &WindowFunction) -> Result<bool> {
    let frame = &function.params.window_frame;
    let is_whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
    match &function.fun {
        WindowFunctionDefinition::WindowUDF(udf) => Ok(!TIES_COUNT.contains(&udf.name())),
        WindowFunctionDefinition::AggregateUDF(udf) => match frame.units {
            _ if is_whole => Ok(ORDERED.contains(&udf.name())),
            WindowFrameUnits::Rows => Ok(true),
            // Rows that are equal for the query come together, and would have no order among them.
            _ if ORDERED.contains(&udf.name()) => {
                refuse(format!("{} OVER would list rows that ORDER BY leaves equal in no order", udf.name().to_uppercase()))
                    .hint("write ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW (or AND UNBOUNDED FOLLOWING) behind the ORDER BY")
                    .clause(Clause::Over)
                    .into()
            }
            _ => Ok(false),
        },
    }
}

/// Gives a function whose value depends on the order of rows one that does not depend on luck, among the rows of one
/// window. The result keeps its name.
fn break_ties(expr: Expr, input: &LogicalPlan, tie_breakers: &[Expr], window: &Expr) -> Result<Expr> {
    let name = expr.schema_name().to_string();
    let broken = expr
        .transform(|e| match e {
            Expr::WindowFunction(mut function) => {
                if order_counts(&function)? {
                    let ascending = !is_latest_first(&function.params.order_by, input);
                    let more = tie_breakers.iter().map(|e| Sort::new(e.clone(), ascending, false));
                    function.params.order_by.extend(more);
                }
                function.params.partition_by.push(window.clone());
                Ok(Transformed::yes(Expr::WindowFunction(function)))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()?;
    Ok(match broken {
        Expr::Alias(alias) => Expr::Alias(alias),
        broken => broken.alias(name),
    })
}

/// The columns of a schema as a projection over a table that has them under the names `c0`, `c1`, ..: with their qualifiers.
pub fn requalified(schema: &DFSchema) -> Vec<Expr> {
    let name = |(i, (qualifier, field)): (usize, (Option<&TableReference>, &Arc<Field>))| {
        let column = Expr::Column(datafusion::common::Column::new_unqualified(format!("c{i}")));
        column.alias_qualified(qualifier.cloned(), field.name())
    };
    schema.iter().enumerate().map(name).collect()
}
