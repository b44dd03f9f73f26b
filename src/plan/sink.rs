//! Queries into sinks: columns by place or by name, types as the sink wants them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, FetchType, LogicalPlan, LogicalPlanBuilder, SkipType, cast};

use super::context::Planner;
use super::stream::SinkNode;
use crate::catalog::{Column, ColumnKind, Table};
use crate::error::{Error, Result};
use crate::sql::types::sql_type;

impl Planner<'_> {
    /// A query's rows as a table wants them: the table's sink columns in their order and their types. `columns` names
    /// the ones that the query gives, in its order; none means all.
    pub fn into_sink(&self, plan: LogicalPlan, table: &Table, columns: &[String]) -> Result<LogicalPlan> {
        let sink: Vec<&Column> = table.sink_columns().collect();
        if sink.is_empty() {
            return Err(Error::statement(format!("table {} has no columns to write to", table.name)));
        }
        let named = named_columns(table, &sink, columns)?;
        let given = plan.schema().fields().len();
        if given != named.len() {
            let list = |names: &mut dyn Iterator<Item = &str>| names.collect::<Vec<_>>().join(", ");
            return Err(Error::statement(format!("the query gives {given} columns, {} takes {}", table.name, named.len())).hint(
                format!(
                    "the query: {}; the sink: {}",
                    list(&mut plan.schema().fields().iter().map(|f| f.name().as_str())),
                    list(&mut named.iter().map(|&i| sink[i].name.as_str()))
                ),
            ));
        }
        let mut exprs = Vec::with_capacity(sink.len());
        for (at, column) in sink.iter().enumerate() {
            let expr = match named.iter().position(|&n| n == at) {
                Some(place) => {
                    let (qualifier, field) = plan.schema().qualified_field(place);
                    let from = Expr::Column((qualifier, field).into());
                    check_assignable(field, column, table)?;
                    if field.data_type() == &column.data_type { from } else { cast(from, column.data_type.clone()) }
                }
                None if column.not_null => {
                    return Err(Error::statement(format!("column {} of {} is NOT NULL and gets no value", column.name, table.name)));
                }
                None => Expr::Literal(ScalarValue::try_from(&column.data_type)?, None),
            };
            exprs.push(expr.alias(&column.name));
        }
        Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
    }

    /// The sink node of an `INSERT`.
    pub fn sink_node(table: &Table) -> SinkNode {
        let not_null = table.sink_columns().enumerate().filter(|(_, c)| c.not_null).map(|(i, _)| i).collect();
        SinkNode { table: Some(Arc::new(table.clone())), title: format!("INSERT INTO {}", table.name), not_null }
    }
}

/// The sink columns that a query gives values for, by index, in the query's order.
fn named_columns(table: &Table, sink: &[&Column], columns: &[String]) -> Result<Vec<usize>> {
    if columns.is_empty() {
        return Ok((0..sink.len()).collect());
    }
    let mut named = Vec::new();
    for name in columns {
        let Some(at) = sink.iter().position(|c| &c.name == name) else {
            let error = match table.column(name).map(|c| &c.kind) {
                Some(ColumnKind::Computed(_)) => Error::statement(format!("column {name} of {} is computed", table.name)),
                Some(_) => Error::statement(format!("column {name} of {} is VIRTUAL: it is only read", table.name)),
                None => Error::statement(format!("{} has no column {name}", table.name)),
            };
            let near = crate::catalog::options::nearest(name, sink.iter().map(|c| c.name.as_str()));
            return Err(match near {
                Some(near) if near != name => error.hint(format!("did you mean {near}?")),
                _ => error,
            });
        };
        if named.contains(&at) {
            return Err(Error::statement(format!("column {name} is named twice")));
        }
        named.push(at);
    }
    Ok(named)
}

/// Values are converted within a family of types; beyond that the query must say so.
fn check_assignable(from: &Field, to: &Column, table: &Table) -> Result<()> {
    let (a, b) = (from.data_type(), &to.data_type);
    let whole_into_fraction = !(a.is_floating() && b.is_integer());
    let fine = a == b
        || a.is_null()
        || (a.is_numeric() && b.is_numeric() && whole_into_fraction)
        || (a.is_string() && b.is_string())
        || (is_bytes(a) && is_bytes(b))
        || (is_time(a) && is_time(b))
        || (a.is_nested() && b.is_nested() && arrow::compute::can_cast_types(a, b));
    if fine {
        return Ok(());
    }
    Err(Error::statement(format!(
        "the query's column {} is {}, but {} of {} is {}",
        from.name(),
        sql_type(a),
        to.name,
        table.name,
        sql_type(b)
    ))
    .hint(format!("write CAST({} AS {})", from.name(), sql_type(b))))
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

/// Takes `LIMIT` and `OFFSET` off a query's top: the plan below, rows to leave out, rows to give.
pub fn split_limit(plan: LogicalPlan) -> Result<(LogicalPlan, usize, Option<usize>)> {
    let LogicalPlan::Limit(limit) = plan else { return Ok((plan, 0, None)) };
    let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?) else {
        return Err(Error::statement("LIMIT and OFFSET take whole numbers"));
    };
    Ok((Arc::unwrap_or_clone(limit.input), skip, fetch))
}
