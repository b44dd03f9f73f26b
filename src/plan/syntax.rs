//! What is rewritten in a query's syntax tree before DataFusion plans it.
//!
//! - Columns that were given no name get one that people recognise: `COUNT(*)` as it was written, `price` for
//!   `bid.price`; DataFusion's own would be `t.bid[price]`.
//! - `FETCH FIRST n ROWS ONLY` is `LIMIT n`.

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

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
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

fn has_no_limit(clause: &ast::LimitClause) -> bool {
    matches!(clause, ast::LimitClause::LimitOffset { limit: None, .. })
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
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let candidates = match &*expr {
            Expr::Identifier(_) => continue,
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
