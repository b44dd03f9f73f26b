//! `TUMBLE(..)` and `HOP(..)` as relations: a node that adds `window_start`, `window_end` and `window_time`.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, ScalarValue, TableReference, plan_err};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use sqlparser::ast;

use super::marks::{Bound, is_event_time, mark_bound};
use super::refusal::refuse;
use crate::sql::table_marker;
use crate::time::{TIME_MS_LIMIT, Windows};

/// Rows of the input, each in every window that holds its event time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AssignWindows {
    /// The rows.
    pub input: LogicalPlan,
    /// The event time column of the input.
    pub time: Expr,
    /// The windows.
    pub windows: Windows,
    schema: DFSchemaRef,
}

impl AssignWindows {
    /// Adds the windows' bounds to the input's columns. Columns of the input that have the bounds' names are hidden.
    pub fn try_new(input: LogicalPlan, time: Expr, windows: Windows) -> Result<Self> {
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
        Ok(Self { input, time, windows, schema: Arc::new(schema) })
    }

    /// The columns of the input that are in the output, by index, in order; the three bounds follow.
    pub fn passed(input: &DFSchema) -> impl Iterator<Item = usize> + '_ {
        const BOUNDS: [Bound; 3] = [Bound::Start, Bound::End, Bound::Time];
        (0..input.fields().len()).filter(|&i| BOUNDS.iter().all(|b| b.column() != input.field(i).name()))
    }
}

impl PartialOrd for AssignWindows {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (&self.windows, &self.input).partial_cmp(&(&other.windows, &other.input))
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
        vec![self.time.clone()]
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        [Bound::Start, Bound::End, Bound::Time].map(|b| b.column().to_owned()).into()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AssignWindows: {:?} of {}", self.windows, self.time)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match (exprs.pop(), inputs.pop()) {
            (Some(time), Some(input)) => Self::try_new(input, time, self.windows),
            _ => plan_err!("a window function has one input and one time column"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let passed: Vec<usize> = Self::passed(self.input.schema()).collect();
        Some(vec![output_columns.iter().filter_map(|&o| passed.get(o).copied()).collect()])
    }
}

/// Plans window functions in `FROM`.
#[derive(Debug)]
pub struct WindowFunctions;

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
                return refusal.hint("there are TUMBLE and HOP").at(&relation).into();
            }
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let plan = plan_call(function, args, &relation, context)?;
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
            Self::Cumulate | Self::Session => "TUMBLE or HOP",
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
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    if matches!(function, Function::Cumulate | Function::Session) {
        let refusal = refuse("CUMULATE and SESSION windows are not available yet");
        return refusal.hint("there are TUMBLE and HOP").at(relation).into();
    }
    let usage = function.usage();
    let wrong = |what: &str| refuse(what).hint(format!("write {usage}")).at(relation);
    let mut slots = place_arguments(function, args)?;
    let mut take = |name: &str| {
        let at = function.parameters().iter().position(|p| *p == name);
        at.and_then(|at| slots[at].take())
    };
    let Some(data) = take("DATA") else { return wrong("a window function needs a table").into() };
    let Some(time) = take("TIMECOL") else { return wrong("a window function needs a time column").into() };

    let input = context.plan(table_argument(data, usage)?)?;
    let time = time_argument(time, &input, usage)?;
    let mut length = |name: &str, context: &mut dyn RelationPlannerContext| -> Result<Option<i64>> {
        take(name).map(|expr| interval_ms(expr, name, context)).transpose()
    };
    let Some(size_ms) = length("SIZE", context)? else { return wrong("the size of the windows is missing").into() };
    let slide_ms = match function {
        Function::Hop => match length("SLIDE", context)? {
            Some(slide_ms) => slide_ms,
            None => return wrong("the slide of the windows is missing").into(),
        },
        _ => size_ms,
    };
    let offset_ms = length("OFFSET", context)?.unwrap_or(0);
    for (what, ms) in [("size", size_ms), ("slide", slide_ms)] {
        if ms <= 0 || TIME_MS_LIMIT <= ms {
            let bound = if ms <= 0 { "longer than nothing" } else { "shorter than 140,000 years" };
            return wrong(&format!("the {what} of a window must be {bound}")).into();
        }
    }
    let windows = Windows::new(slide_ms, size_ms, offset_ms);
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(AssignWindows::try_new(input, time, windows)?) }))
}

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

fn table_argument(expr: ast::Expr, usage: &str) -> Result<ast::TableFactor> {
    let name = match expr {
        ast::Expr::Subquery(subquery) => {
            return Ok(ast::TableFactor::Derived { lateral: false, subquery, alias: None, sample: None });
        }
        ast::Expr::Identifier(ident) => ast::ObjectName::from(vec![ident]),
        ast::Expr::CompoundIdentifier(idents) => ast::ObjectName::from(idents),
        other => match table_marker(&other) {
            Some(name) => name,
            None => return refuse(format!("{other} is not a table")).hint(format!("write {usage}")).at(&other).into(),
        },
    };
    Ok(ast::TableFactor::Table {
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
    })
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
    if !is_event_time(input, index) {
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

fn interval_ms(expr: ast::Expr, what: &str, context: &mut dyn RelationPlannerContext) -> Result<i64> {
    let planned = context.sql_to_expr(expr.clone(), &DFSchema::empty())?;
    literal_interval_ms(&planned).ok_or_else(|| {
        refuse(format!("{expr} is not a length that the {} of a window can have", what.to_lowercase()))
            .hint("write INTERVAL '10' SECOND; days are the longest unit, milliseconds the shortest")
            .at(&expr)
            .into()
    })
}

fn has_qualifier(input: &LogicalPlan, name: &str) -> bool {
    input.schema().iter().any(|(qualifier, _)| qualifier.is_some_and(|q| q.table() == name))
}

/// The length of an interval literal, unless it has months, whose length varies.
fn literal_interval_ms(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(i)), _) => {
            let whole = i.months == 0 && i.nanoseconds % 1_000_000 == 0;
            whole.then(|| i64::from(i.days) * 86_400_000 + i.nanoseconds / 1_000_000)
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(i)), _) => {
            Some(i64::from(i.days) * 86_400_000 + i64::from(i.milliseconds))
        }
        Expr::Negative(inner) => literal_interval_ms(inner).map(|ms| -ms),
        _ => None,
    }
}
