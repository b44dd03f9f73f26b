//! Marks on fields: which column is event time or processing time, which are a window's bounds.
//!
//! They are kept in the Arrow field's metadata. A column that is only passed on or renamed keeps its mark; the result
//! of an expression has none.

use std::collections::HashMap;

use arrow::datatypes::Field;
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan};

use chrono_tz::Tz;

use crate::time::{Axis, CalendarUnit, Run, SlicedWindows, WindowShape, Windows};

/// The function that gives processing time.
pub const PROCTIME: &str = "proctime";

const PROCESSING_TIME: &str = "tidemill.processing_time";
const EVENT_TIME: &str = "tidemill.event_time";
const WINDOW: &str = "tidemill.window";
const BOUND: &str = "tidemill.window.bound";

/// Which bound of its window a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bound {
    /// `window_start`.
    Start,
    /// `window_end`, exclusive.
    End,
    /// `window_time`, the last instant; also the event time of the window's row.
    Time,
}

impl Bound {
    /// The column's name, as the window functions call it.
    pub fn column(self) -> &'static str {
        match self {
            Self::Start => "window_start",
            Self::End => "window_end",
            Self::Time => "window_time",
        }
    }
}

/// Marks a field as event time.
pub fn mark_event_time(field: Field) -> Field {
    with(field, [(EVENT_TIME, "true".to_owned())])
}

/// Marks a field as processing time: the clock when the row was read.
pub fn mark_processing_time(field: Field) -> Field {
    with(field, [(PROCESSING_TIME, "true".to_owned())])
}

/// Marks a field as a bound of these windows.
pub fn mark_bound(field: Field, bound: Bound, windows: &Windows) -> Field {
    let field = with(field, [(BOUND, bound.column().to_owned()), (WINDOW, to_text(windows))]);
    if bound == Bound::Time { mark_event_time(field) } else { field }
}

fn with<const N: usize>(field: Field, marks: [(&str, String); N]) -> Field {
    let mut metadata: HashMap<String, String> = field.metadata().clone();
    metadata.extend(marks.map(|(k, v)| (k.to_owned(), v)));
    field.with_metadata(metadata)
}

/// The field without any mark.
pub fn unmarked(field: &Field) -> Field {
    Field::new(field.name(), field.data_type().clone(), field.is_nullable())
}

/// Whether a column of a plan is event time.
///
/// DataFusion's `UNION` lets the marks of one branch speak for all, and writes them into the branches' projections; so
/// the places are asked that the column comes from.
pub fn is_event_time(plan: &LogicalPlan, index: usize) -> bool {
    plan.schema().field(index).metadata().contains_key(EVENT_TIME)
        && at_origins(plan, index, &|p, i| p.schema().field(i).metadata().contains_key(EVENT_TIME))
}

/// Whether a column of a plan is processing time: a table's column of it, or a call of `PROCTIME()` in a query.
pub fn is_processing_time(plan: &LogicalPlan, index: usize) -> bool {
    let is_marked = |p: &LogicalPlan, i: usize| p.schema().field(i).metadata().contains_key(PROCESSING_TIME);
    is_marked(plan, index) && at_origins(plan, index, &is_marked)
}

/// The windows whose bound a column of a plan is.
pub fn bound_of(plan: &LogicalPlan, index: usize) -> Option<(Bound, Windows)> {
    let read = |p: &LogicalPlan, i: usize| parse_bound(p.schema().field(i));
    let found = read(plan, index)?;
    at_origins(plan, index, &|p, i| read(p, i) == Some(found)).then_some(found)
}

fn parse_bound(field: &Field) -> Option<(Bound, Windows)> {
    let bound = match field.metadata().get(BOUND)?.as_str() {
        "window_start" => Bound::Start,
        "window_end" => Bound::End,
        "window_time" => Bound::Time,
        _ => return None,
    };
    Some((bound, of_text(field.metadata().get(WINDOW)?)?))
}

fn to_text(windows: &Windows) -> String {
    let shown = windows.zone;
    match windows.shape {
        WindowShape::Session { gap_ms } => format!("session,{shown},{gap_ms}"),
        WindowShape::Sliced(SlicedWindows { axis, size, run }) => {
            let run = match run {
                Run::Slide(slide) => slide,
                Run::Grow => 0,
            };
            match axis {
                Axis::Fixed { slice_ms, offset_ms } => format!("fixed,{shown},{size},{run},{offset_ms},{slice_ms}"),
                Axis::Calendar { zone, unit, count, offset_ms } => {
                    let unit = if unit == CalendarUnit::Day { "day" } else { "month" };
                    format!("{unit},{shown},{size},{run},{offset_ms},{count},{zone}")
                }
            }
        }
    }
}

fn of_text(text: &str) -> Option<Windows> {
    let parts: Vec<&str> = text.split(',').collect();
    let number = |at: usize| parts.get(at)?.parse::<i64>().ok();
    let kind = *parts.first()?;
    let shown: Tz = parts.get(1)?.parse().ok()?;
    if kind == "session" {
        return Some(Windows { shape: WindowShape::Session { gap_ms: number(2)? }, zone: shown });
    }
    let (size, offset_ms, count) = (number(2)?, number(4)?, number(5)?);
    let run = match number(3)? {
        0 => Run::Grow,
        slide => Run::Slide(slide),
    };
    let axis = match kind {
        "fixed" => Axis::Fixed { slice_ms: count, offset_ms },
        _ => {
            let unit = if kind == "day" { CalendarUnit::Day } else { CalendarUnit::Month };
            Axis::Calendar { zone: parts.get(6)?.parse().ok()?, unit, count, offset_ms }
        }
    };
    Some(Windows { shape: WindowShape::Sliced(SlicedWindows { axis, size, run }), zone: shown })
}

/// Whether a column holds a bound of any window.
pub fn is_bound(field: &Field) -> bool {
    field.metadata().contains_key(BOUND)
}

/// Whether something holds for a column at all the places that it comes from.
fn at_origins(plan: &LogicalPlan, index: usize, holds: &dyn Fn(&LogicalPlan, usize) -> bool) -> bool {
    match plan {
        LogicalPlan::Union(union) => union.inputs.iter().all(|i| at_origins(i, index, holds)),
        LogicalPlan::Projection(projection) if is_proctime(&projection.expr[index]) => holds(plan, index),
        LogicalPlan::Projection(projection) => column_behind(&projection.expr[index])
            .and_then(|column| projection.input.schema().maybe_index_of_column(column))
            .is_some_and(|inner| at_origins(&projection.input, inner, holds)),
        LogicalPlan::SubqueryAlias(alias) => at_origins(&alias.input, index, holds),
        LogicalPlan::Filter(filter) => at_origins(&filter.input, index, holds),
        _ => holds(plan, index),
    }
}

fn is_proctime(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(function) => function.name() == PROCTIME,
        Expr::Alias(alias) => is_proctime(&alias.expr),
        _ => false,
    }
}

/// The column that an expression only renames.
pub fn column_behind(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => column_behind(&alias.expr),
        _ => None,
    }
}
