//! A query as a plan of DataFusion's own operators over finite tables: the batch mode.
//!
//! It gives the final rows that the stream plan of the same query gives over the same records, and shares no operator
//! with it, so that each can be checked by the other. The rows of a table come with three hidden columns behind the
//! visible ones: the watermark of their partition before them, what breaks ties, and their event time. They are carried
//! through every node, with the first instant after a row's window behind them, once it has one: bounds as clocks show
//! them are the same for two windows where clocks are set back.
//!
//!
//! - window functions become plain plans: a list of windows per row that is unnested, or sums over gaps for `SESSION`;
//! - a row that is late for a window is left out of it where the stream judges lateness: at the window function below the
//!   first aggregate, join or `OVER` above a table;
//! - what depends on the order of rows (ordered aggregates, ranks, `ORDER BY`) is told by event time and tie.
//!
//! Arithmetic over whole numbers and `SUM` of them fail where DataFusion's would wrap around in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, JoinType, NullHandling, ScalarValue, UnnestOptions};
use datafusion::datasource::provider_as_source;
use datafusion::functions::core::expr_fn::{coalesce, get_field, greatest};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::expr::{GroupingSet, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, BinaryExpr, Distinct, DistinctOn, Expr, ExprFunctionExt, ExprSchemable, Extension, Filter,
    Join, Limit, LogicalPlan, LogicalPlanBuilder, Projection, Sort, SubqueryAlias, TableScan, Union, Unnest, Window,
    WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, cast, lit, when,
};

use super::batch_functions::{AFTER, bigint, checked, is_checked, shown, ties, windows_of};
use super::context::{Planner, ScannedTable};
use super::lower::in_order;
use super::optimize;
use super::per_window::{
    bound_behind, is_latest_first, joins_windows, names_window_behind, order_counts, window_function,
};
use super::stream::{Hidden, SourceNode};
use super::windows::AssignWindows;
use crate::error::{Error, Result};
use crate::time::{WATERMARK_MIN, WindowShape};

/// What happens to rows that are late for a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LateRows {
    /// The window goes without them, as on a stream.
    #[default]
    Drop,
    /// They count.
    Keep,
}

/// A table as a batch reads it.
#[derive(Clone, Debug)]
pub struct BatchTable {
    /// The name that plans call it by.
    pub name: String,
    /// What is asked of the connector, what is computed, and the watermark.
    pub source: Arc<SourceNode>,
    /// Its place among the tables, which orders rows of one event time.
    pub ordinal: u16,
}

const HIDDEN: [&str; 4] = [Hidden::WATERMARK, Hidden::TIE, Hidden::TIME, Hidden::WINDOW];
const WINDOWS: &str = "__tidemill_windows";

/// The hidden columns that rows of a table have, in this order: watermark, tie, event time.
pub fn hidden_fields() -> [Field; 3] {
    let [watermark, tie, time, _] = carried_fields();
    [watermark, tie, time]
}

/// The hidden columns that rows carry through a plan, in the order of their names.
fn carried_fields() -> [Field; 4] {
    HIDDEN.map(|name| Field::new(name, if name == Hidden::TIE { DataType::Binary } else { DataType::Int64 }, true))
}

impl Planner<'_> {
    /// The tables that plans read, in the order in which a stream plan of the same queries would have them, with the
    /// columns that they need.
    pub fn batch_tables(&self, plans: &[LogicalPlan]) -> Result<Vec<BatchTable>> {
        let mut names: Vec<(String, Arc<crate::catalog::Table>)> = Vec::new();
        let mut wanted: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for plan in plans {
            // What the optimizer's rules find out about needed columns is all that is used of them here.
            let pruned = optimize::optimize(plan.clone(), Self::config()).unwrap_or_else(|_| plan.clone());
            pruned.apply_with_subqueries(|node| {
                if let LogicalPlan::TableScan(scan) = node
                    && let Some(table) = scan.source.downcast_ref::<ScannedTable>()
                {
                    let name = scan.table_name.table().to_owned();
                    let all = 0..table.table.columns.len();
                    wanted
                        .entry(name.clone())
                        .or_default()
                        .extend(scan.projection.clone().unwrap_or_else(|| all.collect()));
                    if names.iter().all(|(n, _)| *n != name) {
                        names.push((name, Arc::clone(&table.table)));
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        names
            .into_iter()
            .enumerate()
            .map(|(ordinal, (name, table))| {
                let source = self.source_node(&table, &wanted[&name])?;
                let ordinal =
                    u16::try_from(ordinal).map_err(|_| Error::statement("a query reads at most 65,535 tables"))?;
                Ok(BatchTable { name, source, ordinal })
            })
            .collect()
    }

    /// The plan over finite tables: each has the columns of the table of its name, then the hidden ones.
    pub fn batch(
        &self,
        plan: &LogicalPlan,
        tables: &BTreeMap<String, Arc<dyn TableProvider>>,
        late: LateRows,
    ) -> Result<LogicalPlan> {
        let allowed_lateness_ms = self.settings().allowed_lateness_ms;
        // A subquery in a condition is a join, above which lateness has been judged.
        let plan = optimize::find_joins(plan.clone(), Self::config())?;
        let plan = Batching { tables, late, allowed_lateness_ms }.visible(&plan, Above::Nothing)?;
        Ok(plan)
    }
}

/// What is above a node, up to the first that is not row by row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Above {
    /// Nothing that judges lateness, or something below has done so.
    Nothing,
    /// An aggregate, a join, an `OVER`: the window function below leaves late rows out.
    Judge,
}

struct Batching<'a> {
    tables: &'a BTreeMap<String, Arc<dyn TableProvider>>,
    late: LateRows,
    allowed_lateness_ms: i64,
}

impl Batching<'_> {
    /// The plan without hidden columns.
    fn visible(&self, plan: &LogicalPlan, above: Above) -> Result<LogicalPlan> {
        let plan = self.node(plan, above)?;
        let columns = visible(&plan);
        project(plan, columns)
    }

    /// The plan with the hidden columns as its last ones, which have no qualifier.
    fn node(&self, plan: &LogicalPlan, above: Above) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
                let exprs = plan.schema().columns().into_iter().map(Expr::Column).collect();
                with_hidden(plan.clone(), exprs, nobodys())
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.node(&alias.input, above)?;
                let plan = LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(input.into(), alias.alias.clone())?);
                unqualified(plan)
            }
            LogicalPlan::Filter(filter) => {
                let input = self.node(&filter.input, above)?;
                let predicate = self.expr(&filter.predicate, input.schema())?;
                Ok(LogicalPlan::Filter(Filter::try_new(predicate, input.into())?))
            }
            LogicalPlan::Projection(projection) => {
                let input = self.node(&projection.input, above)?;
                let exprs = self.exprs(&projection.expr, input.schema())?;
                let exprs = named(exprs, &projection.schema);
                with_hidden(input, exprs, carried())
            }
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().zip(0_u32..).map(|(input, branch)| {
                    let input = self.node(input, above)?;
                    let exprs = visible(&input);
                    let [watermark, tie, time, window] = HIDDEN.map(column);
                    let hidden = [watermark, ties(vec![lit(branch), tie]), time, window];
                    Ok(Arc::new(with_hidden(input, exprs, hidden)?))
                });
                let inputs = inputs.collect::<Result<Vec<_>>>()?;
                let visible = union.schema.iter().map(|(qualifier, field)| {
                    (qualifier.cloned(), Arc::new(Field::new(field.name(), field.data_type().clone(), true)))
                });
                let hidden = carried_fields().map(|field| (None, Arc::new(field)));
                let schema = DFSchema::new_with_metadata(visible.chain(hidden).collect(), Default::default())?;
                Ok(LogicalPlan::Union(Union { inputs, schema: Arc::new(schema) }))
            }
            LogicalPlan::Sort(sort) => {
                let input = self.node(&sort.input, above)?;
                let expr = in_event_order(self.sorts(&sort.expr, input.schema())?);
                Ok(LogicalPlan::Sort(Sort { expr, input: input.into(), fetch: sort.fetch }))
            }
            LogicalPlan::Limit(limit) => {
                let input = Arc::new(self.node(&limit.input, above)?);
                Ok(LogicalPlan::Limit(Limit { skip: limit.skip.clone(), fetch: limit.fetch.clone(), input }))
            }
            LogicalPlan::Unnest(unnest) => {
                let input = self.node(&unnest.input, above)?;
                let unnest = Unnest::try_new(input.into(), unnest.exec_columns.clone(), unnest.options.clone())?;
                Ok(LogicalPlan::Unnest(unnest))
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let group: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
                self.aggregate(&Aggregate::try_new(Arc::clone(input), group, Vec::new())?)
            }
            LogicalPlan::Distinct(Distinct::On(on)) => self.distinct_on(on),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Window(window) => self.over(window),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<AssignWindows>() {
                Some(windows) => self.windows(windows, above),
                None => Err(Error::bug(format!("no batch plan for {}", extension.node.name()))),
            },
            other => Err(Error::statement(format!("{} is not available in batch mode", other.display()))),
        }
    }

    fn scan(&self, scan: &TableScan) -> Result<LogicalPlan> {
        let table = self.tables.get(scan.table_name.table());
        let table = table.ok_or_else(|| Error::bug(format!("table {} has not been read", scan.table_name)))?;
        let source = provider_as_source(Arc::clone(table));
        let all = LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?.build()?;
        let mut columns: Vec<Expr> = all.schema().columns().into_iter().map(Expr::Column).collect();
        let hidden = columns.split_off(columns.len() - hidden_fields().len());
        let wanted = match &scan.projection {
            Some(projection) => projection.iter().map(|&i| columns[i].clone()).collect(),
            None => columns,
        };
        with_hidden(all, wanted, hidden.into_iter().chain([no_window()]))
    }

    fn aggregate(&self, aggregate: &Aggregate) -> Result<LogicalPlan> {
        let sessions = sessions_of_groups(&aggregate.input, &aggregate.group_expr, Vec::new())?;
        let input = self.node(sessions.as_ref().unwrap_or(&aggregate.input), Above::Judge)?;
        let group = self.exprs(&aggregate.group_expr, input.schema())?;
        let (group, is_windowed) = per_window(group, &aggregate.input)?;
        let mut narrow = Vec::new();
        let mut aggregates = Vec::new();
        for expr in self.exprs(&aggregate.aggr_expr, input.schema())? {
            let expr = in_order(expr, Hidden { time: true, tie: true, ..Hidden::default() });
            let (expr, fits) = wide_sum(expr, input.schema())?;
            narrow.push(fits);
            aggregates.push(expr);
        }
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(input.into(), group, aggregates)?);
        let mut columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
        // The window comes first, as its group expression does.
        let window = if is_windowed { columns.remove(0) } else { no_window() };
        let (keys, values) = columns.split_at(columns.len() - narrow.len());
        let types = aggregate.schema.fields().iter().map(|field| field.data_type());
        let keys = keys.iter().zip(types).map(|(key, data_type)| {
            // The more sets are grouped by, the wider is the number of a set.
            let is_same = key.get_type(plan.schema())? == *data_type;
            Ok(if is_same { key.clone() } else { cast(key.clone(), data_type.clone()) })
        });
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let values = values.iter().zip(narrow).map(|(value, fits)| narrowed(value.clone(), fits));
        let exprs = keys.iter().cloned().chain(values).collect();
        with_hidden(plan, named(exprs, &aggregate.schema), of_keys(keys, window))
    }

    fn distinct_on(&self, on: &DistinctOn) -> Result<LogicalPlan> {
        let input = self.node(&on.input, Above::Judge)?;
        let keys = self.exprs(&on.on_expr, input.schema())?;
        let select = self.exprs(&on.select_expr, input.schema())?;
        let sort = match &on.sort_expr {
            Some(sort) => self.sorts(sort, input.schema())?,
            None => keys.iter().map(|key| key.clone().sort(true, false)).collect(),
        };
        let plan = DistinctOn::try_new(keys, select, Some(in_event_order(sort)), input.into())?;
        let plan = LogicalPlan::Distinct(Distinct::On(plan));
        let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
        with_hidden(plan, named(columns.clone(), &on.schema), of_keys(columns, no_window()))
    }

    fn over(&self, window: &Window) -> Result<LogicalPlan> {
        let input = self.node(&window.input, Above::Judge)?;
        let mut exprs = visible(&input);
        let mut functions = Vec::new();
        let mut narrow = Vec::new();
        let ordered = self.exprs(&window.window_expr, input.schema())?;
        for (expr, asked) in ordered.into_iter().zip(&window.window_expr) {
            let latest_first =
                window_function(asked).is_some_and(|f| is_latest_first(&f.params.order_by, &window.input));
            let expr = match window_function(asked) {
                Some(f) if f.params.partition_by.iter().any(|e| names_window_behind(&window.input, e)) => {
                    within_window(expr)
                }
                _ => expr,
            };
            let expr = match window_function(asked) {
                Some(f) if order_counts(f)? => rows_in_order(expr, latest_first),
                _ => expr,
            };
            let (expr, fits) = wide_sum(expr, input.schema())?;
            functions.push(expr);
            narrow.push(fits);
        }
        let plan = LogicalPlan::Window(Window::try_new(functions, input.into())?);
        let values = plan.schema().columns();
        let values = values[values.len() - narrow.len()..].iter();
        exprs.extend(values.zip(narrow).map(|(value, fits)| narrowed(Expr::Column(value.clone()), fits)));
        with_hidden(plan, named(exprs, &window.schema), carried())
    }

    fn join(&self, join: &Join) -> Result<LogicalPlan> {
        const SIDES: [[&str; 4]; 2] = [
            ["__tidemill_left_watermark", "__tidemill_left_tie", "__tidemill_left_time", "__tidemill_left_window"],
            ["__tidemill_right_watermark", "__tidemill_right_tie", "__tidemill_right_time", "__tidemill_right_window"],
        ];
        let side = |plan: &LogicalPlan, names: [&str; 4]| -> Result<LogicalPlan> {
            let plan = self.node(plan, Above::Judge)?;
            let renamed = HIDDEN.into_iter().zip(names).map(|(from, to)| column(from).alias(to));
            let exprs = visible(&plan).into_iter().chain(renamed).collect();
            project(plan, exprs)
        };
        let (left, right) = (side(&join.left, SIDES[0])?, side(&join.right, SIDES[1])?);
        let on = join.on.iter().map(|(l, r)| Ok((self.expr(l, left.schema())?, self.expr(r, right.schema())?)));
        let mut on = on.collect::<Result<Vec<_>>>()?;
        if joins_windows(join) {
            on.push((column(SIDES[0][3]), column(SIDES[1][3])));
        }
        let both = left.schema().join(right.schema())?;
        let filter = join.filter.as_ref().map(|filter| self.expr(filter, &both)).transpose()?;
        let plan = LogicalPlan::Join(Join::try_new(
            left.into(),
            right.into(),
            on,
            filter,
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?);
        let hidden = |c: &Column| SIDES.iter().flatten().any(|name| *name == c.name);
        let exprs = plan.schema().columns().into_iter().filter(|c| !hidden(c)).map(Expr::Column).collect();
        let sides = match join.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => &SIDES[..1],
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => &SIDES[1..],
            _ => &SIDES[..],
        };
        let ties_of = sides.iter().map(|[_, tie, ..]| column(tie)).collect();
        let window = coalesce(sides.iter().map(|[.., window]| column(window)).collect());
        // Rows of windows that have closed are late for nothing above.
        let hidden = [lit(WATERMARK_MIN), ties(ties_of), lit(i64::MIN), window];
        with_hidden(plan, exprs, hidden)
    }

    fn windows(&self, windows: &AssignWindows, above: Above) -> Result<LogicalPlan> {
        // Window functions below belong to another aggregate, or to none.
        let input = self.node(&windows.input, Above::Nothing)?;
        let columns = visible(&input);
        let passed: Vec<Expr> = AssignWindows::passed(windows.input.schema()).map(|i| columns[i].clone()).collect();
        let schema = datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(windows);
        let time_type = schema.field(schema.fields().len() - 1).data_type().clone();
        // Nothing is late for the clock.
        let keeps_late = self.late == LateRows::Keep || windows.is_over_processing_time();
        let watermark = match (above, self.allowed_lateness_ms) {
            (Above::Nothing, _) => lit(WATERMARK_MIN),
            _ if keeps_late => lit(WATERMARK_MIN),
            (Above::Judge, 0) => column(Hidden::WATERMARK),
            (Above::Judge, lateness) => {
                greatest(vec![column(Hidden::WATERMARK), lit(WATERMARK_MIN + lateness)]) - lit(lateness)
            }
        };
        let local = cast(windows.time.clone(), DataType::Timestamp(TimeUnit::Millisecond, None));
        let hidden = [column(Hidden::WATERMARK), column(Hidden::TIE), cast(local, DataType::Int64), no_window()];
        let zone = windows.windows.zone;
        let gap_ms = match windows.windows.shape {
            WindowShape::Session { gap_ms } => gap_ms,
            WindowShape::Sliced(sliced) => {
                let list = windows_of(sliced, zone, time_type, hidden[2].clone(), watermark).alias(WINDOWS);
                // The list precedes the hidden columns, which stay the last ones.
                let exprs = columns.into_iter().chain([list]).collect();
                let plan = with_hidden(input, exprs, hidden)?;
                let options = UnnestOptions::new().with_null_handling(NullHandling::Drop);
                let list = Column::new_unqualified(WINDOWS);
                let plan = LogicalPlan::Unnest(Unnest::try_new(plan.into(), vec![list], options)?);
                let bound = |name: &str| get_field(column(WINDOWS), name).alias(name);
                let bounds = ["window_start", "window_end", "window_time"].map(bound);
                let window = get_field(column(WINDOWS), AFTER);
                return with_hidden(plan, passed.into_iter().chain(bounds).collect(), carried_in(window));
            }
        };

        let partition = windows.partition.clone().unwrap_or_default();
        let plan = with_hidden(input, columns, hidden)?;
        let time = || column(Hidden::TIME);
        let plan = LogicalPlan::Filter(Filter::try_new(watermark.lt(time()), plan.into())?);
        let by_time = || vec![time().sort(true, false)];
        let unbounded = WindowFrameBound::Preceding(ScalarValue::Null);
        // Rows of one time are peers: all of them see the same sum.
        let so_far = WindowFrame::new_bounds(WindowFrameUnits::Range, unbounded, WindowFrameBound::CurrentRow);
        let before = lag(time(), Some(1), None).partition_by(partition.clone()).order_by(by_time()).build()?;
        let plan = and_function(plan, before, "__tidemill_before")?;
        let begins = when(column("__tidemill_before").is_null(), lit(1_i64))
            .when((time() - column("__tidemill_before")).gt(lit(gap_ms)), lit(1_i64))
            .otherwise(lit(0_i64))?;
        let exprs = visible(&plan).into_iter().chain([begins.alias("__tidemill_begins")]).collect();
        let plan = with_hidden(plan, exprs, carried())?;
        let session = over(sum_udaf(), "__tidemill_begins").partition_by(partition.clone()).order_by(by_time());
        let plan = and_function(plan, session.window_frame(so_far).build()?, "__tidemill_session")?;
        let of_session: Vec<Expr> = partition.into_iter().chain([column("__tidemill_session")]).collect();
        let plan = and_function(
            plan,
            over(min_udaf(), Hidden::TIME).partition_by(of_session.clone()).build()?,
            "__tidemill_first",
        )?;
        let plan =
            and_function(plan, over(max_udaf(), Hidden::TIME).partition_by(of_session).build()?, "__tidemill_last")?;
        let (start, end) = (column("__tidemill_first"), column("__tidemill_last") + lit(gap_ms));
        let bounds = [
            shown(zone, start).alias("window_start"),
            shown(zone, end.clone()).alias("window_end"),
            cast(end.clone() - lit(1_i64), time_type).alias("window_time"),
        ];
        with_hidden(plan, passed.into_iter().chain(bounds).collect(), carried_in(end))
    }

    fn exprs(&self, exprs: &[Expr], schema: &DFSchema) -> Result<Vec<Expr>> {
        exprs.iter().map(|expr| self.expr(expr, schema)).collect()
    }

    fn sorts(&self, sorts: &[SortExpr], schema: &DFSchema) -> Result<Vec<SortExpr>> {
        sorts.iter().map(|sort| Ok(SortExpr { expr: self.expr(&sort.expr, schema)?, ..sort.clone() })).collect()
    }

    /// An expression over the same columns: without marks, its sub-queries over finite tables, its arithmetic checked.
    fn expr(&self, expr: &Expr, schema: &DFSchema) -> Result<Expr> {
        let subquery = |subquery: &mut datafusion::logical_expr::Subquery| {
            let plan = self.visible(&subquery.subquery, Above::Nothing);
            subquery.subquery = Arc::new(plan.map_err(|e| DataFusionError::External(Box::new(e)))?);
            Ok::<_, DataFusionError>(())
        };
        let rewritten = expr.clone().transform_up(|expr| {
            Ok(Transformed::yes(match expr {
                Expr::Alias(mut alias) => {
                    alias.metadata = None;
                    Expr::Alias(alias)
                }
                Expr::OuterReferenceColumn(field, column) => {
                    let plain = Field::new(field.name(), field.data_type().clone(), true);
                    Expr::OuterReferenceColumn(Arc::new(plain), column)
                }
                Expr::ScalarSubquery(mut s) => {
                    subquery(&mut s)?;
                    Expr::ScalarSubquery(s)
                }
                Expr::Exists(mut exists) => {
                    subquery(&mut exists.subquery)?;
                    Expr::Exists(exists)
                }
                Expr::InSubquery(mut s) => {
                    subquery(&mut s.subquery)?;
                    Expr::InSubquery(s)
                }
                Expr::SetComparison(mut s) => {
                    subquery(&mut s.subquery)?;
                    Expr::SetComparison(s)
                }
                Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_checked(&left, op, &right, schema)? => {
                    checked(*left, op, *right)
                }
                other => return Ok(Transformed::no(other)),
            }))
        });
        Ok(rewritten.data()?)
    }
}

/// The plan below an aggregate, if it leads to a `GROUP BY SESSION(..)`: sessions are of what else is grouped by, and of the
/// rows for which the conditions on the way are true.
fn sessions_of_groups(plan: &LogicalPlan, keys: &[Expr], conditions: Vec<Expr>) -> Result<Option<LogicalPlan>> {
    // The same expressions over the columns of an input, whose columns are these.
    let below = |exprs: &[Expr], schema: &DFSchema, of: &[Expr]| -> Result<Vec<Expr>> {
        let replaced = exprs.iter().map(|expr| {
            let replaced = expr.clone().transform(|e| match &e {
                Expr::Column(c) => match schema.maybe_index_of_column(c).and_then(|i| of.get(i)) {
                    Some(expr) => Ok(Transformed::yes(expr.clone().unalias())),
                    None => Ok(Transformed::no(e)),
                },
                _ => Ok(Transformed::no(e)),
            });
            Ok(replaced.data()?)
        });
        replaced.collect()
    };
    let columns = |plan: &LogicalPlan| plan.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
    let of_input = |input: &LogicalPlan, of: &[Expr], conditions: Vec<Expr>| {
        let (keys, conditions) = (below(keys, plan.schema(), of)?, below(&conditions, plan.schema(), of)?);
        let input = sessions_of_groups(input, &keys, conditions)?;
        Ok::<_, Error>(input.map(|input| plan.with_new_exprs(plan.expressions(), vec![input])).transpose()?)
    };
    match plan {
        LogicalPlan::SubqueryAlias(alias) => of_input(&alias.input, &columns(&alias.input), conditions),
        LogicalPlan::Projection(projection) => of_input(&projection.input, &projection.expr, conditions),
        LogicalPlan::Filter(filter) => {
            let conditions = [conditions, vec![filter.predicate.clone()]].concat();
            // The conditions are true for all rows that come back.
            sessions_of_groups(&filter.input, keys, conditions)
        }
        LogicalPlan::Extension(extension) => {
            let Some(windows) = extension.node.as_any().downcast_ref::<AssignWindows>() else { return Ok(None) };
            if windows.partition.is_some() || windows.windows.sliced().is_some() {
                return Ok(None);
            }
            let schema = windows.input.schema();
            let is_of_input =
                |expr: &&Expr| expr.column_refs().iter().all(|c| schema.maybe_index_of_column(c).is_some());
            let partition = keys.iter().filter(is_of_input).cloned().collect();
            let mut input = LogicalPlanBuilder::from(windows.input.clone());
            for condition in conditions {
                input = input.filter(condition)?;
            }
            let (time, shape) = (windows.time.clone(), windows.windows);
            let node = AssignWindows::try_new(input.build()?, time, shape, Some(partition))?;
            Ok(Some(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
        }
        _ => Ok(None),
    }
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// All but the hidden columns of a plan.
fn visible(plan: &LogicalPlan) -> Vec<Expr> {
    let mut columns = plan.schema().columns();
    columns.truncate(columns.len() - HIDDEN.len());
    columns.into_iter().map(Expr::Column).collect()
}

fn project(plan: LogicalPlan, exprs: Vec<Expr>) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, plan.into())?))
}

/// The hidden columns as the input has them.
fn carried() -> impl Iterator<Item = Expr> {
    HIDDEN.into_iter().map(column)
}

/// The hidden columns as the input has them, but for the window.
fn carried_in(window: Expr) -> impl Iterator<Item = Expr> {
    carried().take(HIDDEN.len() - 1).chain([window])
}

/// The window of rows that have none.
fn no_window() -> Expr {
    lit(ScalarValue::Int64(None))
}

/// The hidden columns of rows that come from no partition: late for nothing, and first among equals.
fn nobodys() -> [Expr; 4] {
    of_keys(vec![], no_window())
}

/// The hidden columns of rows that keys tell apart. Rows of windows precede their end, so they are late for nothing.
fn of_keys(keys: Vec<Expr>, window: Expr) -> [Expr; 4] {
    [lit(WATERMARK_MIN), ties(keys), lit(i64::MIN), window]
}

/// Grouping by windows is by the windows themselves, not only by their bounds as clocks show them: the window is the first
/// of the group expressions then. And whether it is so.
fn per_window(group: Vec<Expr>, input: &LogicalPlan) -> Result<(Vec<Expr>, bool)> {
    let is_windowed = |set: &[Expr]| set.iter().any(|e| bound_behind(input, e).is_some());
    let with_window = |set: Vec<Expr>| [column(Hidden::WINDOW)].into_iter().chain(set).collect::<Vec<_>>();
    Ok(match <[Expr; 1]>::try_from(group) {
        Ok([Expr::GroupingSet(GroupingSet::GroupingSets(sets))]) => {
            if !sets.iter().all(|set| is_windowed(set)) {
                return Ok((vec![Expr::GroupingSet(GroupingSet::GroupingSets(sets))], false));
            }
            let sets = sets.into_iter().map(with_window).collect();
            (vec![Expr::GroupingSet(GroupingSet::GroupingSets(sets))], true)
        }
        Ok(one) if is_windowed(&one) => (with_window(one.into()), true),
        Ok(one) => (one.into(), false),
        Err(group) if is_windowed(&group) => (with_window(group), true),
        Err(group) => (group, false),
    })
}

/// A function with `OVER` whose partitions lie within windows.
fn within_window(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(within_window(*alias.expr));
            Expr::Alias(alias)
        }
        Expr::WindowFunction(mut function) => {
            function.params.partition_by.push(column(Hidden::WINDOW));
            Expr::WindowFunction(function)
        }
        other => other,
    }
}

fn with_hidden(plan: LogicalPlan, mut exprs: Vec<Expr>, hidden: impl IntoIterator<Item = Expr>) -> Result<LogicalPlan> {
    exprs.extend(hidden.into_iter().zip(HIDDEN).map(|(expr, name)| match &expr {
        Expr::Column(column) if column.relation.is_none() && column.name == name => expr,
        _ => expr.alias(name),
    }));
    project(plan, exprs)
}

/// The same plan with its hidden columns freed of a qualifier.
fn unqualified(plan: LogicalPlan) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let hidden = columns[columns.len() - HIDDEN.len()..].to_vec();
    let exprs = visible(&plan);
    with_hidden(plan, exprs, hidden.into_iter().map(Expr::Column))
}

/// Expressions under the names that a schema has for them, so that whoever reads them still finds them.
fn named(exprs: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let name = |(expr, (qualifier, field)): (Expr, (Option<&_>, &Arc<Field>))| {
        let (own_qualifier, own_name) = expr.qualified_name();
        if own_qualifier.as_ref() == qualifier && own_name == *field.name() {
            return expr;
        }
        expr.unalias().alias_qualified(qualifier.cloned(), field.name())
    };
    exprs.into_iter().zip(schema.iter()).map(name).collect()
}

/// An aggregate of a column with `OVER`.
fn over(function: Arc<AggregateUDF>, of: &str) -> Expr {
    Expr::from(WindowFunction::new(function, vec![column(of)]))
}

/// Adds a window function's value, in front of the hidden columns.
fn and_function(plan: LogicalPlan, function: Expr, name: &str) -> Result<LogicalPlan> {
    let mut exprs = visible(&plan);
    let plan = LogicalPlan::Window(Window::try_new(vec![function], plan.into())?);
    let value = plan.schema().columns().pop().ok_or_else(|| Error::bug("a window function without a value"))?;
    exprs.push(Expr::Column(value).alias(name));
    with_hidden(plan, exprs, carried())
}

/// What is asked for, then event time, then the tie-breaker.
fn in_event_order(sorts: Vec<SortExpr>) -> Vec<SortExpr> {
    ties_ordered(sorts, true)
}

fn ties_ordered(mut sorts: Vec<SortExpr>, ascending: bool) -> Vec<SortExpr> {
    sorts.extend([Hidden::TIME, Hidden::TIE].map(|name| column(name).sort(ascending, false)));
    sorts
}

/// A function with `OVER` whose value depends on which of two equal rows comes first is told by event time and tie.
fn rows_in_order(expr: Expr, latest_first: bool) -> Expr {
    match expr {
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(rows_in_order(*alias.expr, latest_first));
            Expr::Alias(alias)
        }
        Expr::WindowFunction(mut function) => {
            let params = &mut function.params;
            params.order_by = ties_ordered(std::mem::take(&mut params.order_by), !latest_first);
            Expr::WindowFunction(function)
        }
        other => other,
    }
}

/// What a wide value must fit into.
enum Narrow {
    Bigint,
    Decimal(DataType),
}

/// A `SUM` of `BIGINT` over 38 digits, or a `SUM` or `AVG` of decimals over 76, and what its value must fit into.
fn wide_sum(expr: Expr, schema: &DFSchema) -> Result<(Expr, Option<Narrow>)> {
    let of_type = expr.get_type(schema)?;
    let (name, args) = match &expr {
        Expr::Alias(alias) => return wide_sum(alias.expr.as_ref().clone(), schema),
        Expr::AggregateFunction(f) => (f.func.name(), &f.params.args),
        Expr::WindowFunction(f) => match &f.fun {
            WindowFunctionDefinition::AggregateUDF(udf) => (udf.name(), &f.params.args),
            WindowFunctionDefinition::WindowUDF(_) => return Ok((expr, None)),
        },
        _ => return Ok((expr, None)),
    };
    let [arg] = args.as_slice() else { return Ok((expr, None)) };
    let (wide, narrow) = match (name, arg.get_type(schema)?) {
        ("sum", integer) if integer.is_signed_integer() => (DataType::Decimal128(38, 0), Narrow::Bigint),
        ("sum" | "avg", DataType::Decimal128(_, scale)) => (DataType::Decimal256(66, scale), Narrow::Decimal(of_type)),
        _ => return Ok((expr, None)),
    };
    let args = vec![cast(arg.clone(), wide)];
    Ok(match expr {
        Expr::AggregateFunction(mut f) => {
            f.params.args = args;
            (Expr::AggregateFunction(f), Some(narrow))
        }
        Expr::WindowFunction(mut f) => {
            f.params.args = args;
            (Expr::WindowFunction(f), Some(narrow))
        }
        other => (other, None),
    })
}

fn narrowed(value: Expr, narrow: Option<Narrow>) -> Expr {
    match narrow {
        Some(Narrow::Bigint) => bigint(value),
        Some(Narrow::Decimal(data_type)) => cast(value, data_type),
        None => value,
    }
}
