//! `TUMBLE(..)`, `HOP(..)`, `CUMULATE(..)` and `SESSION(..)` as relations: a node that adds `window_start`, `window_end`
//! and `window_time`.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use chrono_tz::Tz;
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, ScalarValue, TableReference, plan_err};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use sqlparser::ast;

use super::legacy::SESSION_OF_GROUP;
use super::marks::{Bound, column_behind, is_event_time, is_processing_time, mark_bound};
use super::refusal::refuse;
use crate::sql::table_marker;
use crate::time::{CalendarUnit, SlicedWindows, TIME_MS_LIMIT, WindowShape, Windows};

/// Rows of the input, each in every window that holds its event time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AssignWindows {
    /// The rows.
    pub input: LogicalPlan,
    /// The event time column of the input.
    pub time: Expr,
    /// The windows.
    pub windows: Windows,
    /// The columns whose values have sessions of their own; `None` for windows that are the same for all, and until the
    /// aggregate above says what the older spelling `GROUP BY SESSION(..)` leaves to it.
    pub partition: Option<Vec<Expr>>,
    schema: DFSchemaRef,
}

impl AssignWindows {
    /// Adds the windows' bounds to the input's columns. Columns of the input that have the bounds' names are hidden.
    pub fn try_new(input: LogicalPlan, time: Expr, windows: Windows, partition: Option<Vec<Expr>>) -> Result<Self> {
        let (_, time_field) = datafusion::logical_expr::ExprSchemable::to_field(&time, input.schema().as_ref())?;
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> = Self::passed(input.schema())
            .map(|i| {
                let (qualifier, field) = input.schema().qualified_field(i);
                (qualifier.cloned(), Arc::clone(field))
            })
            .collect();
        for bound in [Bound::Start, Bound::End, Bound::Time] {
            let data_type = match bound {
                Bound::Time => time_field.data_type().clone(),
                Bound::Start | Bound::End => DataType::Timestamp(TimeUnit::Millisecond, None),
            };
            let field = Field::new(bound.column(), data_type, false);
            fields.push((None, Arc::new(mark_bound(field, bound, &windows))));
        }
        let schema = DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?;
        Ok(Self { input, time, windows, partition, schema: Arc::new(schema) })
    }

    /// Whether the windows are over the clock.
    pub fn is_over_processing_time(&self) -> bool {
        let place = column_behind(&self.time).and_then(|c| self.input.schema().maybe_index_of_column(c));
        place.is_some_and(|i| is_processing_time(&self.input, i))
    }

    /// The columns of the input that are in the output, by index, in order; the three bounds follow.
    pub fn passed(input: &DFSchema) -> impl Iterator<Item = usize> + '_ {
        const BOUNDS: [Bound; 3] = [Bound::Start, Bound::End, Bound::Time];
        (0..input.fields().len()).filter(|&i| BOUNDS.iter().all(|b| b.column() != input.field(i).name()))
    }
}

impl PartialOrd for AssignWindows {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl UserDefinedLogicalNodeCore for AssignWindows {
    fn name(&self) -> &str {
        "AssignWindows"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(self.partition.iter().flatten()).cloned().collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let bounds = [Bound::Start, Bound::End, Bound::Time].map(|b| b.column().to_owned());
        let Some(partition) = &self.partition else { return bounds.into() };
        // A row that a condition leaves out is part of its session nevertheless, unless the whole session is left out.
        let key = |e| column_behind(e).and_then(|c| self.input.schema().maybe_index_of_column(c));
        let keys: Vec<Option<usize>> = partition.iter().map(key).collect();
        let others = self.input.schema().fields().iter().enumerate().filter(|(i, _)| !keys.contains(&Some(*i)));
        bounds.into_iter().chain(others.map(|(_, field)| field.name().clone())).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AssignWindows: {:?} of {}", self.windows, self.time)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        if exprs.is_empty() {
            return plan_err!("a window function has a time column");
        }
        let partition = exprs.split_off(1);
        match (exprs.pop(), inputs.pop()) {
            (Some(time), Some(input)) => {
                Self::try_new(input, time, self.windows, self.partition.is_some().then_some(partition))
            }
            _ => plan_err!("a window function has one input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let passed: Vec<usize> = Self::passed(self.input.schema()).collect();
        Some(vec![output_columns.iter().filter_map(|&o| passed.get(o).copied()).collect()])
    }
}

/// Plans window functions in `FROM`.
#[derive(Debug)]
pub struct WindowFunctions {
    /// The zone of calendar days, and on whose clocks the windows of instants are shown.
    pub zone: Tz,
}

impl RelationPlanner for WindowFunctions {
    fn plan_relation(
        &self,
        relation: ast::TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some((name, args, alias)) = call_of(&relation) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some(function) = Function::named(&name) else {
            if matches!(relation, ast::TableFactor::Table { .. }) {
                let refusal = refuse(format!("there is no function {name} that gives a table"));
                return refusal.hint("there are TUMBLE, HOP, CUMULATE and SESSION").at(&relation).into();
            }
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let plan = plan_call(function, args, &relation, self.zone, context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Function {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

impl Function {
    fn named(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            SESSION_OF_GROUP => Some(Self::Session),
            "TUMBLE" => Some(Self::Tumble),
            "HOP" => Some(Self::Hop),
            "CUMULATE" => Some(Self::Cumulate),
            "SESSION" => Some(Self::Session),
            _ => None,
        }
    }

    /// The names of the arguments, in their order.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Tumble => &["DATA", "TIMECOL", "SIZE", "OFFSET"],
            Self::Hop => &["DATA", "TIMECOL", "SLIDE", "SIZE", "OFFSET"],
            Self::Cumulate => &["DATA", "TIMECOL", "STEP", "SIZE", "OFFSET"],
            Self::Session => &["DATA", "TIMECOL", "GAP"],
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
            Self::Hop => {
                "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '1' MINUTE), the slide before the size"
            }
            Self::Cumulate => {
                "CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '1' DAY), the step before the size"
            }
            Self::Session => "SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' MINUTE)",
        }
    }
}

type Call = (String, Vec<ast::FunctionArg>, Option<ast::TableAlias>);

/// The call behind `f(..)` or `TABLE(f(..))`.
fn call_of(relation: &ast::TableFactor) -> Option<Call> {
    match relation {
        ast::TableFactor::Table { name, args: Some(args), alias, .. } => {
            Some((name.to_string(), args.args.clone(), alias.clone()))
        }
        ast::TableFactor::TableFunction { expr: ast::Expr::Function(function), alias } => match &function.args {
            ast::FunctionArguments::List(list) => Some((function.name.to_string(), list.args.clone(), alias.clone())),
            _ => None,
        },
        _ => None,
    }
}

fn plan_call(
    function: Function,
    args: Vec<ast::FunctionArg>,
    relation: &ast::TableFactor,
    zone: Tz,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let usage = function.usage();
    let wrong = |what: &str| refuse(what).hint(format!("write {usage}")).at(relation);
    let mut slots = place_arguments(function, args)?;
    let mut take = |name: &str| {
        let at = function.parameters().iter().position(|p| *p == name);
        at.and_then(|at| slots[at].take())
    };
    let Some(data) = take("DATA") else { return wrong("a window function needs a table").into() };
    let Some(time) = take("TIMECOL") else { return wrong("a window function needs a time column").into() };

    let (table, partition) = table_argument(data, usage)?;
    let input = context.plan(table)?;
    let time = time_argument(time, &input, usage)?;
    // On clocks without a zone a day has 24 hours always.
    let (_, field) = datafusion::logical_expr::ExprSchemable::to_field(&time, input.schema().as_ref())?;
    let is_instant = matches!(field.data_type(), DataType::Timestamp(_, Some(_)));
    let zone = if is_instant { zone } else { Tz::UTC };
    let mut length = |name: &str, context: &mut dyn RelationPlannerContext| -> Result<Option<Length>> {
        take(name).map(|expr| Length::of(&expr, name, context)).transpose()
    };
    if function == Function::Session {
        let Some(gap) = length("GAP", context)? else { return wrong("the gap of the sessions is missing").into() };
        let Some(gap_ms) = gap.positive_ms() else {
            return wrong("the gap of sessions must be longer than nothing, and not in months").into();
        };
        let of_group = call_of(relation).is_some_and(|(name, ..)| name == SESSION_OF_GROUP);
        let partition =
            partition.into_iter().map(|expr| partition_column(expr, &input, context)).collect::<Result<_>>()?;
        let windows = Windows { shape: WindowShape::Session { gap_ms }, zone };
        let node = AssignWindows::try_new(input, time, windows, (!of_group).then_some(partition))?;
        return Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }));
    }
    if !partition.is_empty() {
        return refuse("only SESSION takes PARTITION BY: other windows are the same for all rows")
            .hint("leave it out, and GROUP BY the columns as well")
            .at(relation)
            .into();
    }
    let Some(size) = length("SIZE", context)? else { return wrong("the size of the windows is missing").into() };
    let (name, step) = match function {
        Function::Tumble | Function::Session => ("size", size),
        Function::Hop => match length("SLIDE", context)? {
            Some(slide) => ("slide", slide),
            None => return wrong("the slide of the windows is missing").into(),
        },
        Function::Cumulate => match length("STEP", context)? {
            Some(step) => ("step", step),
            None => return wrong("the step of the windows is missing").into(),
        },
    };
    let offset = length("OFFSET", context)?.unwrap_or(Length::Ms(0));
    let Some(offset_ms) = offset.ms() else { return wrong("an offset cannot be in months").into() };
    let (size, step) = match (size, step) {
        // Days of a zone whose clocks never change are 24 hours as well, but begin at its midnight.
        (Length::Days(a), Length::Days(b)) if zone != Tz::UTC => (Extent::Days(a), Extent::Days(b)),
        (Length::Months(a), Length::Months(b)) => (Extent::Months(a), Extent::Months(b)),
        (a, b) => match (a.ms(), b.ms()) {
            (Some(a), Some(b))
                if zone == Tz::UTC || !matches!((size, step), (Length::Days(_), _) | (_, Length::Days(_))) =>
            {
                (Extent::Ms(a), Extent::Ms(b))
            }
            _ => {
                return refuse(format!("the {name} and the size of the windows are of different kinds"))
                    .hint("days of a time zone, months, and lengths of hours or less do not go together")
                    .at(relation)
                    .into();
            }
        },
    };
    for (what, extent) in [("size", size), (name, step)] {
        let count = extent.count();
        if count <= 0 || TIME_MS_LIMIT <= count {
            let bound = if count <= 0 { "longer than nothing" } else { "shorter than 140,000 years" };
            return wrong(&format!("the {what} of a window must be {bound}")).into();
        }
    }
    if function == Function::Cumulate && size.count() % step.count() != 0 {
        return wrong("the size of a CUMULATE must be a multiple of its step").into();
    }
    let grows = function == Function::Cumulate;
    let calendar = |unit, size, step| match grows {
        true => SlicedWindows::cumulate_calendar(zone, unit, step, size, offset_ms),
        false => SlicedWindows::hop_calendar(zone, unit, step, size, offset_ms),
    };
    let windows = match (size, step) {
        (Extent::Days(size), Extent::Days(step)) => calendar(CalendarUnit::Day, size, step),
        (Extent::Months(size), Extent::Months(step)) => calendar(CalendarUnit::Month, size, step),
        (size, step) if grows => SlicedWindows::cumulate_ms(step.count(), size.count(), offset_ms),
        (size, step) => SlicedWindows::hop_ms(step.count(), size.count(), offset_ms),
    };
    let windows = Windows { shape: WindowShape::Sliced(windows), zone };
    let node = AssignWindows::try_new(input, time, windows, None)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// A length as it is written.
#[derive(Clone, Copy, Debug)]
enum Length {
    Ms(i64),
    /// Whole days, and nothing less.
    Days(i64),
    Months(i64),
}

/// A length as windows take it.
#[derive(Clone, Copy, Debug)]
enum Extent {
    Ms(i64),
    Days(i64),
    Months(i64),
}

impl Extent {
    fn count(self) -> i64 {
        let (Self::Ms(count) | Self::Days(count) | Self::Months(count)) = self;
        count
    }
}

impl Length {
    fn of(expr: &ast::Expr, what: &str, context: &mut dyn RelationPlannerContext) -> Result<Self> {
        let planned = context.sql_to_expr(expr.clone(), &DFSchema::empty())?;
        Self::literal(&planned).ok_or_else(|| {
            refuse(format!("{expr} is not a length that the {} of a window can have", what.to_lowercase()))
                .hint("write INTERVAL '10' SECOND, milliseconds are the shortest; or INTERVAL '1' MONTH")
                .at(expr)
                .into()
        })
    }

    fn literal(expr: &Expr) -> Option<Self> {
        match expr {
            Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(i)), _) => match (i.months, i.days, i.nanoseconds) {
                (months, 0, 0) if months != 0 => Some(Self::Months(i64::from(months))),
                (0, days, 0) if days != 0 => Some(Self::Days(i64::from(days))),
                (0, days, nanos) if nanos % 1_000_000 == 0 => {
                    Some(Self::Ms(i64::from(days) * DAY_MS + nanos / 1_000_000))
                }
                _ => None,
            },
            Expr::Literal(ScalarValue::IntervalDayTime(Some(i)), _) => {
                Some(Self::Ms(i64::from(i.days) * DAY_MS + i64::from(i.milliseconds)))
            }
            Expr::Literal(ScalarValue::IntervalYearMonth(Some(months)), _) => Some(Self::Months(i64::from(*months))),
            Expr::Negative(inner) => Self::literal(inner).map(|length| match length {
                Self::Ms(ms) => Self::Ms(-ms),
                Self::Days(days) => Self::Days(-days),
                Self::Months(months) => Self::Months(-months),
            }),
            _ => None,
        }
    }

    /// In milliseconds, unless it varies even without a time zone.
    fn ms(self) -> Option<i64> {
        match self {
            Self::Ms(ms) => Some(ms),
            Self::Days(days) => Some(days * DAY_MS),
            Self::Months(_) => None,
        }
    }

    fn positive_ms(self) -> Option<i64> {
        self.ms().filter(|ms| 0 < *ms && *ms < TIME_MS_LIMIT)
    }
}

const DAY_MS: i64 = 86_400_000;

/// Arguments by position, then by name, as Flink takes them.
fn place_arguments(function: Function, args: Vec<ast::FunctionArg>) -> Result<Vec<Option<ast::Expr>>> {
    let parameters = function.parameters();
    let mut slots: Vec<Option<ast::Expr>> = vec![None; parameters.len()];
    for (i, arg) in args.into_iter().enumerate() {
        let (name, value) = match arg {
            ast::FunctionArg::Unnamed(value) => (None, value),
            ast::FunctionArg::Named { name, arg, .. } => (Some(name.value), arg),
            ast::FunctionArg::ExprNamed { name, arg, .. } => (Some(name.to_string()), arg),
        };
        let ast::FunctionArgExpr::Expr(value) = value else {
            return refuse("an argument of a window function is missing")
                .hint(format!("write {}", function.usage()))
                .into();
        };
        let at = match name {
            None => i,
            Some(name) => match parameters.iter().position(|p| p.eq_ignore_ascii_case(&name)) {
                Some(at) => at,
                None => {
                    let refusal = refuse(format!("a window function has no argument {name}"));
                    return refusal.hint(format!("there are {}", parameters.join(", "))).at(&value).into();
                }
            },
        };
        match slots.get_mut(at) {
            Some(slot) if slot.is_none() => *slot = Some(value),
            _ => {
                let refusal = refuse("a window function has too many arguments");
                return refusal.hint(format!("write {}", function.usage())).into();
            }
        }
    }
    Ok(slots)
}

/// The table, and what it is partitioned by.
fn table_argument(expr: ast::Expr, usage: &str) -> Result<(ast::TableFactor, Vec<ast::Expr>)> {
    let (name, partition) = match expr {
        ast::Expr::Subquery(subquery) => {
            let table = ast::TableFactor::Derived { lateral: false, subquery, alias: None, sample: None };
            return Ok((table, vec![]));
        }
        ast::Expr::Identifier(ident) => (ast::ObjectName::from(vec![ident]), vec![]),
        ast::Expr::CompoundIdentifier(idents) => (ast::ObjectName::from(idents), vec![]),
        other => match table_marker(&other) {
            Some(marked) => marked,
            None => return refuse(format!("{other} is not a table")).hint(format!("write {usage}")).at(&other).into(),
        },
    };
    let table = ast::TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    };
    Ok((table, partition))
}

/// A column that sessions are partitioned by.
fn partition_column(expr: ast::Expr, input: &LogicalPlan, context: &mut dyn RelationPlannerContext) -> Result<Expr> {
    let planned = context.sql_to_expr(expr.clone(), input.schema())?;
    if column_behind(&planned).is_none() {
        return refuse(format!("{expr} is not a column, so sessions cannot be partitioned by it"))
            .hint("compute it as a column of the table, or in a sub-query below")
            .at(&expr)
            .into();
    }
    Ok(planned)
}

fn time_argument(expr: ast::Expr, input: &LogicalPlan, usage: &str) -> Result<Expr> {
    let wrong = |what: String| refuse(what).hint(format!("write {usage}")).at(&expr);
    let column = match &expr {
        ast::Expr::Function(f) if f.name.to_string().eq_ignore_ascii_case("DESCRIPTOR") => match &f.args {
            ast::FunctionArguments::List(list) => match list.args.as_slice() {
                [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(column))] => column,
                _ => return wrong("DESCRIPTOR takes one column".to_owned()).into(),
            },
            _ => return wrong("DESCRIPTOR takes one column".to_owned()).into(),
        },
        other => other,
    };
    let name = match column {
        ast::Expr::Identifier(ident) => &ident.value,
        // There is one table only, so its name before the column's says nothing.
        ast::Expr::CompoundIdentifier(parts) if parts.len() == 2 && has_qualifier(input, &parts[0].value) => {
            &parts[1].value
        }
        other => {
            return refuse(format!("{other} is not a column, so it cannot be the windows' time"))
                .hint("declare it as a computed column of the table, with a WATERMARK, and name that")
                .at(column)
                .into();
        }
    };
    let schema = input.schema();
    let Some(index) = (0..schema.fields().len()).find(|&i| schema.field(i).name() == name) else {
        let columns = schema.fields().iter().map(|f| f.name().as_str());
        let refusal = refuse(format!("there is no column {name} to take the windows' time from")).at(column);
        return match crate::catalog::options::nearest(name, columns) {
            Some(near) => refusal.hint(format!("did you mean {near}?")).into(),
            None => refusal.into(),
        };
    };
    if !is_event_time(input, index) && !is_processing_time(input, index) {
        let is_time = matches!(schema.field(index).data_type(), DataType::Timestamp(..));
        let hint = if is_time {
            format!(
                "declare WATERMARK FOR {name} AS {name} - INTERVAL '5' SECOND in CREATE TABLE, or take the window_time of \
                 windows below; an expression over an event time is none any more, so it must be a computed column of the table"
            )
        } else {
            "name the TIMESTAMP(3) column that has a WATERMARK in CREATE TABLE".to_owned()
        };
        return refuse(format!("{name} is not an event time, so no window over it would ever close"))
            .hint(hint)
            .at(column)
            .into();
    }
    Ok(Expr::Column(Column::from(schema.qualified_field(index))))
}

fn has_qualifier(input: &LogicalPlan, name: &str) -> bool {
    input.schema().iter().any(|(qualifier, _)| qualifier.is_some_and(|q| q.table() == name))
}
