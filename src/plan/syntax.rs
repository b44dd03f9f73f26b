//! What is rewritten in a query's syntax tree before DataFusion plans it.
//!
//! - Columns that were given no name get one that people recognise: `COUNT(*)` as it was written, `price` for
//!   `bid.price`; DataFusion's own would be `t.bid[price]`. One that is selected twice gets a second name: `n`, `n0`.
//! - `FETCH FIRST n ROWS ONLY` is `LIMIT n`; `LISTAGG(x)` is `LISTAGG(x, ',')`; `FLOOR(ts TO HOUR)` is
//!   `DATE_TRUNC('hour', ts)`, and `CEIL(ts TO HOUR)` is made of it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::Result;
use sqlparser::ast::{self, Expr, Ident, SelectItem, VisitMut, VisitorMut};

use super::refusal::{Refusal, refuse};

/// Rewrites a query and all queries in it.
pub fn rewrite(query: &mut ast::Query) -> Result<()> {
    struct Queries(Option<Refusal>);
    impl VisitorMut for Queries {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
            if let Some(fetch) = &query.fetch
                && query.limit_clause.as_ref().is_none_or(has_no_limit)
                && !fetch.with_ties
                && !fetch.percent
            {
                let one = || Expr::Value(ast::Value::Number("1".to_owned(), false).into());
                let limit = Some(fetch.quantity.clone().unwrap_or_else(one));
                query.fetch = None;
                match &mut query.limit_clause {
                    Some(ast::LimitClause::LimitOffset { limit: slot, .. }) => *slot = limit,
                    other => *other = Some(ast::LimitClause::LimitOffset { limit, offset: None, limit_by: vec![] }),
                }
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
            name_columns(select);
            ControlFlow::Continue(())
        }

        fn pre_visit_table_factor(&mut self, relation: &mut ast::TableFactor) -> ControlFlow<()> {
            self.0 = ignored_clause(relation);
            if self.0.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Function(function) = expr {
                part_with_commas(function);
            }
            if let Some(rounded) = round_time(expr) {
                *expr = rounded;
            }
            if let Expr::Function(function) = expr
                && let ast::FunctionArguments::List(list) = &function.args
                && list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct)
                && let [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard)] = list.args.as_slice()
            {
                let name = function.name.to_string();
                let refusal = refuse(format!("{name}(DISTINCT *) does not say what is to be distinct"));
                self.0 = Some(refusal.hint(format!("name the columns: {name}(DISTINCT a, b)")).at(expr));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
    let mut queries = Queries(None);
    let _ = query.visit(&mut queries);
    queries.0.map_or(Ok(()), Into::into)
}

/// What DataFusion would pass over in silence.
fn ignored_clause(relation: &ast::TableFactor) -> Option<Refusal> {
    let refusal = match relation {
        ast::TableFactor::Table { version: Some(_), .. } => {
            refuse("FOR SYSTEM_TIME AS OF is not available yet").hint("leave it out: rows are read as they come")
        }
        ast::TableFactor::Table { sample: Some(_), .. } | ast::TableFactor::Derived { sample: Some(_), .. } => {
            refuse("TABLESAMPLE is not available on a stream").hint("filter by a column, such as WHERE MOD(id, 10) = 0")
        }
        _ => return None,
    };
    Some(refusal.at(relation))
}

fn has_no_limit(clause: &ast::LimitClause) -> bool {
    matches!(clause, ast::LimitClause::LimitOffset { limit: None, .. })
}

/// `FLOOR(ts TO unit)` and `CEIL(ts TO unit)` as what DataFusion knows.
fn round_time(expr: &Expr) -> Option<Expr> {
    use ast::CeilFloorKind::DateTimeField;
    let (is_up, value, unit) = match expr {
        Expr::Ceil { field: DateTimeField(ast::DateTimeField::NoDateTime), .. }
        | Expr::Floor { field: DateTimeField(ast::DateTimeField::NoDateTime), .. } => return None,
        Expr::Ceil { expr, field: DateTimeField(unit) } => (true, expr, unit),
        Expr::Floor { expr, field: DateTimeField(unit) } => (false, expr, unit),
        _ => return None,
    };
    let unit = unit.to_string().to_ascii_lowercase();
    let down = format!("DATE_TRUNC('{unit}', {value})");
    if !is_up {
        return crate::sql::parse_expr(&down).ok();
    }
    let length = match unit.as_str() {
        "week" => "INTERVAL '7' DAY".to_owned(),
        "quarter" => "INTERVAL '3' MONTH".to_owned(),
        unit => format!("INTERVAL '1' {unit}"),
    };
    crate::sql::parse_expr(&format!("CASE WHEN {down} = {value} THEN {value} ELSE {down} + {length} END")).ok()
}

/// `LISTAGG` may leave its separator out.
fn part_with_commas(function: &mut ast::Function) {
    if !function.name.to_string().eq_ignore_ascii_case("LISTAGG") {
        return;
    }
    if let ast::FunctionArguments::List(list) = &mut function.args
        && list.args.len() == 1
    {
        let comma = Expr::Value(ast::Value::SingleQuotedString(",".to_owned()).into());
        list.args.push(ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(comma)));
    }
}

fn name_columns(select: &mut ast::Select) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut has_wildcard = false;
    for item in &select.projection {
        match item {
            SelectItem::ExprWithAlias { alias, .. } => _ = taken.insert(alias.value.clone()),
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => _ = taken.insert(ident.value.clone()),
            SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAliases { .. } => {}
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => has_wildcard = true,
        }
    }
    let mut named: BTreeSet<String> = BTreeSet::new();
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let candidates = match &*expr {
            Expr::Identifier(ident) => {
                if named.insert(ident.value.clone()) {
                    continue;
                }
                // A column that is selected once more: `n`, `n0`, `n1`, as Flink numbers them.
                let again = (0..).map(|i| format!("{}{i}", ident.value)).find(|name| !taken.contains(name));
                let name = again.unwrap_or_else(|| ident.value.clone());
                [name.clone(), name]
            }
            // UNNEST makes several columns or rows of one.
            Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("UNNEST") => continue,
            Expr::CompoundIdentifier(parts) => {
                let short = parts.last().map(|part| part.value.clone()).filter(|_| !has_wildcard);
                let full = parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
                [short.unwrap_or_else(|| full.clone()), full]
            }
            other => {
                let text = other.to_string();
                [text.clone(), text]
            }
        };
        let numbered = (2..).map(|i| format!("{}_{i}", candidates[1]));
        let Some(name) = candidates.iter().cloned().chain(numbered).find(|name| !taken.contains(name)) else {
            continue;
        };
        taken.insert(name.clone());
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('`', name) };
    }
}
