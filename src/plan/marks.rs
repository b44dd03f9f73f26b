//! Marks on fields: which column is event time, which are a window's bounds.
//!
//! They are kept in the Arrow field's metadata. A column that is only passed on or renamed keeps its mark; the result
//! of an expression has none.

use std::collections::HashMap;

use arrow::datatypes::Field;
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::time::Windows;

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

/// Marks a field as a bound of these windows.
pub fn mark_bound(field: Field, bound: Bound, windows: &Windows) -> Field {
    let text = format!("{},{},{}", windows.slide_ms, windows.size_ms, windows.offset_ms);
    let field = with(field, [(BOUND, bound.column().to_owned()), (WINDOW, text)]);
    if bound == Bound::Time { mark_event_time(field) } else { field }
}

fn with<const N: usize>(field: Field, marks: [(&str, String); N]) -> Field {
    let mut metadata: HashMap<String, String> = field.metadata().clone();
    metadata.extend(marks.map(|(k, v)| (k.to_owned(), v)));
    field.with_metadata(metadata)
}

/// Whether a column of a plan is event time.
///
/// DataFusion's `UNION` lets the marks of one branch speak for all, and writes them into the branches' projections; so
/// the places are asked that the column comes from.
pub fn is_event_time(plan: &LogicalPlan, index: usize) -> bool {
    plan.schema().field(index).metadata().contains_key(EVENT_TIME)
        && at_origins(plan, index, &|p, i| p.schema().field(i).metadata().contains_key(EVENT_TIME))
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
    let mut numbers = field.metadata().get(WINDOW)?.split(',').map(str::parse);
    let (slide, size, offset) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((bound, Windows::new(slide, size, offset)))
}

/// Whether a column holds a bound of any window.
pub fn is_bound(field: &Field) -> bool {
    field.metadata().contains_key(BOUND)
}

/// Whether something holds for a column at all the places that it comes from.
fn at_origins(plan: &LogicalPlan, index: usize, holds: &dyn Fn(&LogicalPlan, usize) -> bool) -> bool {
    match plan {
        LogicalPlan::Union(union) => union.inputs.iter().all(|i| at_origins(i, index, holds)),
        LogicalPlan::Projection(projection) => column_behind(&projection.expr[index])
            .and_then(|column| projection.input.schema().maybe_index_of_column(column))
            .is_some_and(|inner| at_origins(&projection.input, inner, holds)),
        LogicalPlan::SubqueryAlias(alias) => at_origins(&alias.input, index, holds),
        LogicalPlan::Filter(filter) => at_origins(&filter.input, index, holds),
        _ => holds(plan, index),
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
