//! The older spelling of windows: `GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)` with `TUMBLE_START(..)` and friends.
//!
//! It is rewritten before planning: the `FROM` becomes the window function over it, the grouping its bounds, and the
//! auxiliary functions the bounds' columns.

use std::ops::ControlFlow;

use datafusion::common::Result;
use sqlparser::ast::{self, Expr, Ident, ObjectName, VisitMut, VisitorMut};

use super::refusal::refuse;

/// What `SESSION` is called in the rewritten `FROM`: sessions are of whatever else the query groups by.
pub const SESSION_OF_GROUP: &str = "SESSION OF GROUP";

/// Rewrites every `SELECT` of the query that groups by `TUMBLE(..)` or `HOP(..)`.
pub fn rewrite_group_windows(query: &mut ast::Query) -> Result<()> {
    struct Selects(Result<()>);
    impl VisitorMut for Selects {
        type Break = ();

        fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
            self.0 = rewrite_select(select);
            if self.0.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        }
    }
    let mut selects = Selects(Ok(()));
    let _ = query.visit(&mut selects);
    selects.0
}

/// The window of a grouping, as it was written.
#[derive(Clone)]
struct GroupWindow {
    function: String,
    args: Vec<ast::FunctionArg>,
}

fn rewrite_select(select: &mut ast::Select) -> Result<()> {
    let ast::GroupByExpr::Expressions(group, _) = &mut select.group_by else { return Ok(()) };
    let Some(at) = group.iter().position(|e| group_window(e).is_some()) else { return Ok(()) };
    let Some(window) = group_window(&group[at]) else { return Ok(()) };
    group.splice(at..=at, ["window_start", "window_end", "window_time"].map(column));
    if let Some(second) = group.iter().find(|e| group_window(e).is_some()) {
        return refuse("a GROUP BY has one window; this is the second")
            .hint("write two queries, or one over the other's window_time")
            .at(second)
            .into();
    }

    let from = match select.from.as_mut_slice() {
        [from] if from.joins.is_empty() => from,
        _ => {
            let function = &window.function;
            return refuse(format!("GROUP BY {function}(..) takes one table in FROM"))
                .hint(format!("name it, or a sub-query: FROM TABLE({function}(TABLE t, DESCRIPTOR(ts), ..))"))
                .into();
        }
    };
    wrap_relation(&mut from.relation, &window)?;

    struct Auxiliary<'a>(&'a GroupWindow, Result<()>);
    impl VisitorMut for Auxiliary<'_> {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            match auxiliary_column(expr, self.0) {
                Ok(Some(name)) => *expr = column(name),
                Ok(None) => {}
                Err(error) => {
                    self.1 = Err(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut auxiliary = Auxiliary(&window, Ok(()));
    for item in &mut select.projection {
        let _ = item.visit(&mut auxiliary);
    }
    if let Some(having) = &mut select.having {
        let _ = having.visit(&mut auxiliary);
    }
    auxiliary.1
}

fn column(name: &str) -> Expr {
    Expr::Identifier(Ident::new(name))
}

/// The name and the arguments of a plain function call.
fn call(expr: &Expr) -> Option<(String, &[ast::FunctionArg])> {
    let Expr::Function(function) = expr else { return None };
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    Some((function.name.to_string().to_ascii_uppercase(), &list.args))
}

fn group_window(expr: &Expr) -> Option<GroupWindow> {
    let (function, args) = call(expr)?;
    let is_window = matches!(function.as_str(), "TUMBLE" | "HOP" | "SESSION" | "CUMULATE");
    is_window.then(|| GroupWindow { function, args: args.to_vec() })
}

/// An argument as it is written, whether its names are quoted or not.
fn unquoted(arg: &ast::FunctionArg) -> String {
    arg.to_string().replace(['`', '"'], "")
}

/// The bound that `TUMBLE_START(..)` and friends stand for.
fn auxiliary_column(expr: &Expr, window: &GroupWindow) -> Result<Option<&'static str>> {
    let Some((name, args)) = call(expr) else { return Ok(None) };
    let Some(which) = name.strip_prefix(&window.function).and_then(|n| n.strip_prefix('_')) else { return Ok(None) };
    let column = match which {
        "START" => "window_start",
        "END" => "window_end",
        "ROWTIME" => "window_time",
        "PROCTIME" => return refuse(format!("{name} is not available: windows are over event time")).at(expr).into(),
        _ => return Ok(None),
    };
    let same = |(a, b): (&ast::FunctionArg, &ast::FunctionArg)| unquoted(a) == unquoted(b);
    if args.len() != window.args.len() || !args.iter().zip(&window.args).all(same) {
        return refuse(format!("{name} must have the same arguments as {} in GROUP BY", window.function))
            .at(expr)
            .into();
    }
    Ok(Some(column))
}

/// Puts the window function around a table or a sub-query.
fn wrap_relation(relation: &mut ast::TableFactor, window: &GroupWindow) -> Result<()> {
    let alias = match relation {
        ast::TableFactor::Table { alias, name, args: None, .. } => {
            // Columns may be qualified by the table's name.
            let own_name = name.0.last().and_then(|part| part.as_ident().cloned());
            alias.take().or(own_name.map(table_alias))
        }
        ast::TableFactor::Derived { alias, .. } => alias.take(),
        _ => return refuse(format!("GROUP BY {}(..) takes a table or a sub-query in FROM", window.function)).into(),
    };
    let Some((ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(time)), lengths)) = window.args.split_first() else {
        return refuse(format!("{} takes a time column first", window.function)).into();
    };
    let time = match time {
        Expr::CompoundIdentifier(parts) => parts.last().cloned().map_or_else(|| time.clone(), Expr::Identifier),
        other => other.clone(),
    };
    let inner = std::mem::replace(relation, ast::TableFactor::TableFunction { expr: column("nothing"), alias: None });
    let data = Expr::Subquery(Box::new(select_all(inner)));
    let unnamed = |expr| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr));
    let mut args = vec![unnamed(data), unnamed(time)];
    args.extend(lengths.iter().cloned());
    *relation = ast::TableFactor::Table {
        name: ObjectName::from(vec![Ident::new(match window.function.as_str() {
            "SESSION" => SESSION_OF_GROUP,
            function => function,
        })]),
        alias,
        args: Some(ast::TableFunctionArgs { args, settings: None }),
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    };
    Ok(())
}

fn table_alias(name: Ident) -> ast::TableAlias {
    ast::TableAlias { explicit: true, name, columns: vec![], at: None }
}

fn select_all(relation: ast::TableFactor) -> ast::Query {
    let mut query = match sqlparser::parser::Parser::new(&crate::sql::FlinkDialect)
        .try_with_sql("SELECT * FROM t")
        .and_then(|mut parser| parser.parse_query())
    {
        Ok(query) => *query,
        Err(error) => unreachable!("a constant query parses: {error}"),
    };
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        select.from = vec![ast::TableWithJoins { relation, joins: vec![] }];
    }
    query
}
