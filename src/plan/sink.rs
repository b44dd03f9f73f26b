//! Queries into sinks: columns by place or by name, types as the sink wants them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::functions::core::expr_fn::{get_field, named_struct};
use datafusion::logical_expr::{Expr, FetchType, LogicalPlan, LogicalPlanBuilder, SkipType, cast, lit, when};
use sqlparser::ast;

use super::context::Planner;
use super::stream::{Op, SinkNode, StreamPlan};
use crate::catalog::{Column, ColumnKind, Table};
use crate::connectors::{Rejects, accepts_changes, matches_pattern};
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
            let columns = if given == 1 { "1 column".to_owned() } else { format!("{given} columns") };
            return Err(Error::statement(format!("the query gives {columns}, {} takes {}", table.name, named.len()))
                .hint(format!(
                    "the query: {}; the sink: {}",
                    list(&mut plan.schema().fields().iter().map(|f| f.name().as_str())),
                    list(&mut named.iter().map(|&i| sink[i].name.as_str()))
                )));
        }
        let mut exprs = Vec::with_capacity(sink.len());
        for (at, column) in sink.iter().enumerate() {
            let expr = match named.iter().position(|&n| n == at) {
                Some(place) => {
                    let (qualifier, field) = plan.schema().qualified_field(place);
                    let from = Expr::Column((qualifier, field).into());
                    check_assignable(field, column, table)?;
                    to_type(from, field.data_type(), &column.data_type)
                }
                None if table.needs_value(column) => {
                    return Err(Error::statement(format!(
                        "column {} of {} is NOT NULL and gets no value",
                        column.name, table.name
                    )));
                }
                None => Expr::Literal(ScalarValue::try_from(&column.data_type)?, None),
            };
            exprs.push(expr.alias(&column.name));
        }
        Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
    }

    /// The same for rows that are written down in a test: there a text may stand for a value of any type.
    pub fn written_into_sink(&self, plan: LogicalPlan, table: &Table, columns: &[String]) -> Result<LogicalPlan> {
        let sink: Vec<&Column> = table.sink_columns().collect();
        let named = named_columns(table, &sink, columns)?;
        if named.len() != plan.schema().fields().len() {
            return self.into_sink(plan, table, columns);
        }
        let exprs: Vec<Expr> = plan
            .schema()
            .iter()
            .zip(named)
            .map(|((qualifier, field), at)| {
                let (from, to) = (Expr::Column((qualifier, field).into()), &sink[at].data_type);
                let is_text = field.data_type().is_string() && !to.is_string();
                if is_text { cast(from, to.clone()).alias(field.name()) } else { from }
            })
            .collect();
        self.into_sink(LogicalPlanBuilder::from(plan).project(exprs)?.build()?, table, columns)
    }

    /// A constant as a value of a type.
    pub fn constant(&self, expr: &ast::Expr, to: &DataType) -> Result<ScalarValue> {
        match self.expression(expr, &DFSchema::empty())? {
            Expr::Literal(value, _) => Ok(value.cast_to(to)?),
            _ => Err(Error::statement(format!("expected a constant, found {expr}"))),
        }
    }

    /// The sink node of an `INSERT`.
    pub fn sink_node(table: &Table) -> SinkNode {
        let not_null = table.sink_columns().enumerate().filter(|(_, c)| table.needs_value(c)).map(|(i, _)| i).collect();
        SinkNode { table: Some(Arc::new(table.clone())), title: format!("INSERT INTO {}", table.name), not_null }
    }
}

/// Refuses a changelog for a table of new rows only.
pub(super) fn check_takes_changes(table: &Table) -> Result<()> {
    if accepts_changes(table)? {
        return Ok(());
    }
    let connector = table.options.get("connector").unwrap_or_default();
    let format = table.options.get("value.format").or(table.options.get("format"));
    let how = format.map_or(format!("'{connector}'"), |format| format!("'{connector}' with '{format}'"));
    Err(Error::statement(format!(
        "the query's rows change after they were written, and table {} ({how}) only takes new ones",
        table.name
    ))
    .hint(
        "write only final rows: leave the EMIT clause (and 'table.exec.emit.allow-lateness') out; or let the table hold \
         changes: 'connector' = 'upsert-kafka' with a PRIMARY KEY, or 'format' = 'debezium-json'",
    ))
}

/// Refuses a table whose pattern matches a topic that the same job writes to: it would read what it has written.
pub(super) fn check_patterns(plan: &StreamPlan) -> Result<()> {
    let mut outputs: Vec<(&Table, &str, &str)> = Vec::new();
    for node in &plan.nodes {
        match &node.op {
            Op::Sink(SinkNode { table: Some(table), .. }) => {
                outputs.extend(table.options.get("topic").map(|topic| (table.as_ref(), "topic", topic.trim())));
            }
            Op::Source(source) => {
                let Rejects { late_topic, dead_letter_topic, .. } = &source.rejects;
                let of = [("scan.late.topic", late_topic), ("scan.dead-letter.topic", dead_letter_topic)];
                let of =
                    of.into_iter().filter_map(|(key, topic)| Some((source.table.as_ref(), key, topic.as_deref()?)));
                outputs.extend(of);
            }
            _ => {}
        }
    }
    // Tables that name other brokers are of another cluster.
    let brokers = |table: &Table| table.options.get("properties.bootstrap.servers").map(str::trim).map(str::to_owned);
    for table in plan.sources().map(|source| &source.table) {
        let reads = |(of, _, topic): &&(&Table, &str, &str)| {
            matches_pattern(&table.options, topic) && brokers(of) == brokers(table)
        };
        if let Some((of, key, topic)) = outputs.iter().find(reads) {
            let (reader, writer) = (&table.name, &of.name);
            return Err(Error::statement(format!(
                "the 'topic-pattern' of table {reader} matches \"{topic}\", which this job writes to ('{key}' of {writer})"
            ))
            .hint("the job would read what it has written: narrow the pattern, or name another topic"));
        }
    }
    Ok(())
}

/// A value as another type. Rows become rows field by field in their order, whatever the fields are called: `ROW(1, 'a')`
/// has no names, and DataFusion's cast goes by them.
fn to_type(from: Expr, is: &DataType, to: &DataType) -> Expr {
    if is == to {
        return from;
    }
    let (DataType::Struct(have), DataType::Struct(want)) = (is, to) else { return cast(from, to.clone()) };
    let mut fields = Vec::with_capacity(2 * want.len());
    for (have, want) in have.iter().zip(want) {
        let value = get_field(from.clone(), have.name().clone());
        fields.push(lit(want.name().clone()));
        fields.push(to_type(value, have.data_type(), want.data_type()));
    }
    let row = named_struct(fields);
    // A row of nulls is not a null row.
    let null = Expr::Literal(ScalarValue::try_from(to).unwrap_or(ScalarValue::Null), None);
    when(from.is_null(), null).otherwise(row.clone()).unwrap_or(row)
}

/// Whether values of a type are converted to the other without being asked: within a family of types.
fn is_assignable(a: &DataType, b: &DataType) -> bool {
    if let (DataType::Struct(a), DataType::Struct(b)) = (a, b) {
        return a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_assignable(a.data_type(), b.data_type()));
    }
    let whole_into_fraction = !(a.is_floating() && b.is_integer());
    a == b
        || a.is_null()
        || (a.is_numeric() && b.is_numeric() && whole_into_fraction)
        || (a.is_string() && b.is_string())
        || (is_bytes(a) && is_bytes(b))
        || (is_time(a) && is_time(b))
        || (a.is_nested() && b.is_nested() && arrow::compute::can_cast_types(a, b))
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
                Some(ColumnKind::Computed(_)) => {
                    Error::statement(format!("column {name} of {} is computed", table.name))
                }
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

/// Beyond what is converted without being asked, the query must say so.
fn check_assignable(from: &Field, to: &Column, table: &Table) -> Result<()> {
    let (a, b) = (from.data_type(), &to.data_type);
    if is_assignable(a, b) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse_script;
    use crate::sql::statement::Statement;

    #[test]
    fn a_changelog_goes_where_it_can_be_told() {
        for (options, how) in [
            ("'connector' = 'kafka', 'topic' = 'a', 'format' = 'json'", "'kafka' with 'json'"),
            ("'connector' = 'kafka', 'topic' = 'a', 'value.format' = 'csv'", "'kafka' with 'csv'"),
            ("'connector' = 'filesystem', 'path' = 'a', 'format' = 'json'", "'filesystem' with 'json'"),
            ("'connector' = 'upsert-kafka', 'topic' = 'a', 'key.format' = 'json', 'value.format' = 'json'", ""),
            ("'connector' = 'kafka', 'topic' = 'a', 'format' = 'debezium-json'", ""),
            ("'connector' = 'kafka', 'topic' = 'a', 'value.format' = 'debezium-json'", ""),
            ("'connector' = 'filesystem', 'path' = 'a', 'format' = 'debezium-json'", ""),
            ("'connector' = 'print'", ""),
            ("'connector' = 'blackhole'", ""),
        ] {
            let text = format!("CREATE TABLE o (a INT, PRIMARY KEY (a) NOT ENFORCED) WITH ({options})");
            let Statement::CreateTable(create) = parse_script(&text).unwrap().remove(0).statement else { panic!() };
            match check_takes_changes(&create.table) {
                Ok(()) => assert_eq!(how, "", "{options}"),
                Err(error) => {
                    let want =
                        format!("the query's rows change after they were written, and table o ({how}) only takes");
                    assert!(error.message.starts_with(&want), "{error}");
                    let hint = error.hint.unwrap();
                    for way in ["leave the EMIT clause", "'upsert-kafka' with a PRIMARY KEY", "'debezium-json'"] {
                        assert!(hint.contains(way), "{hint}");
                    }
                }
            }
        }
    }
}
