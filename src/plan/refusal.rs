//! Refusals on their way through DataFusion's planner: an error of ours, and which part of the query it is about.
//!
//! Logical plans do not know where in the text they come from. So a refusal names a clause, and whoever holds the query
//! looks for it: if there is only one such clause, the error points at it, else at the whole query.

use std::fmt;
use std::ops::{ControlFlow, Range};

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use sqlparser::ast::{self, Expr, Spanned, Visit, Visitor, visit_expressions};
use sqlparser::tokenizer::Span;

use super::context::Planner;
use crate::error::{Blame, Error};
use crate::sql::statement::Query;

/// A kind of clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clause {
    /// A call of an aggregate function.
    Aggregate,
    /// `SELECT DISTINCT`.
    Distinct,
    /// `GROUP BY` without a window.
    GroupBy,
    /// What is joined.
    Join,
    /// `LIMIT`, `OFFSET` or `FETCH`.
    Limit,
    /// `ORDER BY`.
    OrderBy,
    /// A function with `OVER`.
    Over,
    /// A query inside an expression.
    Subquery,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Query,
    Span(Span),
    Clause(Clause),
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Refusal {
    error: Error,
    place: Place,
}

/// A statement that cannot run.
pub(super) fn refuse(message: impl Into<String>) -> Refusal {
    Refusal { error: Error::statement(message), place: Place::Query }
}

impl Refusal {
    /// What to write instead.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.error = self.error.hint(hint);
        self
    }

    /// The clause it is about.
    pub(super) fn clause(mut self, clause: Clause) -> Self {
        self.place = Place::Clause(clause);
        self
    }

    /// The part of the syntax tree it is about.
    pub(super) fn at(mut self, node: &impl Spanned) -> Self {
        self.place = Place::Span(node.span());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<Refusal> for DataFusionError {
    fn from(refusal: Refusal) -> Self {
        Self::External(Box::new(refusal))
    }
}

impl<T> From<Refusal> for Result<T, DataFusionError> {
    fn from(refusal: Refusal) -> Self {
        Err(refusal.into())
    }
}

/// An error of the planner that points into the submitted text, as exactly as can be known.
pub(super) fn located(error: DataFusionError, query: &Query) -> Error {
    let span = match place_of(&error) {
        Some(Place::Span(span)) => Some(span),
        Some(Place::Clause(clause)) => find(&query.ast, clause),
        Some(Place::Query) => None,
        None => {
            let place = |l: datafusion::common::Location| sqlparser::tokenizer::Location::new(l.line, l.column);
            let told = error.diagnostic().and_then(|d| d.span);
            told.map(|span| Span::new(place(span.start), place(span.end)))
                .or_else(|| unknown_column(&error, &query.ast))
        }
    };
    let bytes = span.and_then(|span| bytes_of(span, query)).unwrap_or_else(|| query.span.clone());
    let error = Error::from(error);
    // Constants are computed while planning: what fails there is the statement's, not the data's.
    let blame = if error.blame == Blame::Data { Blame::Statement } else { error.blame };
    Error { blame, ..error }.at(bytes)
}

fn place_of(error: &DataFusionError) -> Option<Place> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = next {
        if let Some(refusal) = inner.downcast_ref::<Refusal>() {
            return Some(refusal.place);
        }
        next = inner.source();
    }
    None
}

fn bytes_of(span: Span, query: &Query) -> Option<Range<usize>> {
    let start = query.byte_at(span.start.line, span.start.column)?;
    let end = query.byte_at(span.end.line, span.end.column)?;
    (start < end).then_some(start..end)
}

/// The place of a column that is not there, if it is named once.
fn unknown_column(error: &DataFusionError, query: &ast::Query) -> Option<Span> {
    let DataFusionError::SchemaError(error, _) = error.find_root() else { return None };
    let SchemaError::FieldNotFound { field, .. } = error.as_ref() else { return None };
    let mut found = Vec::new();
    let _ = visit_expressions(query, |expr| {
        let name = match expr {
            Expr::Identifier(name) => Some(name),
            Expr::CompoundIdentifier(names) => names.last(),
            _ => None,
        };
        found.extend(name.filter(|name| name.value == field.name).map(|_| expr.span()));
        ControlFlow::<()>::Continue(())
    });
    if let [span] = found.as_slice() { Some(*span) } else { None }
}

/// The place of the clause, if there is one only.
fn find(query: &ast::Query, clause: Clause) -> Option<Span> {
    struct Search {
        clause: Clause,
        found: Vec<Span>,
    }
    impl Visitor for Search {
        type Break = ();

        fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
            match self.clause {
                Clause::OrderBy => self.found.extend(query.order_by.as_ref().map(Spanned::span)),
                Clause::Limit => self.found.extend(query.limit_clause.as_ref().map(Spanned::span)),
                _ => {}
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<()> {
            match self.clause {
                Clause::Distinct if select.distinct.is_some() => {
                    let all = select.projection.iter().map(Spanned::span);
                    self.found.push(all.fold(select.select_token.0.span, |a, b| a.union(&b)));
                }
                Clause::GroupBy => {
                    let span = select.group_by.span();
                    if span != Span::empty() && !select.group_by.to_string().contains("window_") {
                        self.found.push(span);
                    }
                }
                Clause::Join => {
                    self.found.extend(select.from.iter().skip(1).map(|f| f.relation.span()));
                    self.found.extend(select.from.iter().flat_map(|f| &f.joins).map(|j| j.relation.span()));
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let is_it = match (self.clause, expr) {
                (Clause::Subquery, Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. }) => true,
                (Clause::Over, Expr::Function(function)) => function.over.is_some(),
                (Clause::Aggregate, Expr::Function(function)) => Planner::is_aggregate(&function.name.to_string()),
                _ => false,
            };
            // The first of several aggregate functions stands for all.
            if is_it && (self.clause != Clause::Aggregate || self.found.is_empty()) {
                self.found.push(expr.span());
            }
            ControlFlow::Continue(())
        }
    }
    let mut search = Search { clause, found: Vec::new() };
    let _ = query.visit(&mut search);
    match search.found.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}
