//! Tables and views come and go.

use arrow::datatypes::Field;

use super::jobs::create_as;
use super::{Engine, Outcome, done};
use crate::catalog::options::Options;
use crate::catalog::{Column, ColumnKind, Table, View};
use crate::connectors;
use crate::error::{Error, Result};
use crate::plan::Planner;
use crate::sql::statement::{CreateTable, CreateView, Emit, Insert, ObjectKind, Statement};
use crate::sql::types::sql_type;

impl Engine {
    /// Declares a table; `AS SELECT` runs as a job, or else is explained.
    pub(super) fn create_table(&self, create: &CreateTable, runs: bool) -> Result<Outcome> {
        let mut table = create.table.clone();
        let mut inferred = Vec::new();
        if table.columns.is_empty() && create.like.is_none() && create.query.is_none() {
            let exists = self.state().catalog.contains(&table.name);
            if !exists {
                inferred = self.infer_columns(&mut table)?;
            }
        }
        let mut state = self.state();
        if create.if_not_exists && state.catalog.contains(&table.name) {
            return done(format!("\"{}\" exists already", table.name));
        }
        if let Some(other) = &create.like {
            let like = state.catalog.table(other).ok_or_else(|| state.catalog.unknown(other))?;
            inherit(&mut table, like);
        }
        let planner = Planner::with_settings(&state.catalog, state.session.plan_settings()?);
        let plan = create.query.as_ref().map(|query| planner.query(query)).transpose()?;
        if let Some(plan) = &plan {
            if !table.columns.is_empty() {
                return Err(Error::statement("CREATE TABLE .. AS SELECT takes its columns from the query")
                    .hint("leave the list of columns out"));
            }
            table.columns = plan.schema().fields().iter().map(|f| column_of(f)).collect();
        }
        let has_connector = table.options.get("connector").is_some();
        let mut notices = connectors::options::check_options(&table).map_err(|error| match create.query {
            Some(_) if !has_connector => error.hint(format!("write {}", create_as(&table.name))),
            _ => error,
        })?;
        notices.append(&mut inferred);
        planner.resolve_table(&mut table)?;
        state.catalog.add_table(table.clone())?;
        drop(state);
        if let Some(query) = &create.query {
            let insert = Insert { table: table.name.clone(), columns: Vec::new(), query: query.clone() };
            if !runs {
                return self.explain(&Statement::Insert(insert), false);
            }
            return self.insert(&[insert], &format!("INSERT INTO {} {}", table.name, query.text)).inspect_err(|_| {
                self.state().catalog.drop_table(&table.name);
            });
        }
        Ok(Outcome::Done(format!("table {} is created", table.name), notices))
    }

    pub(super) fn create_view(&self, create: &CreateView) -> Result<Outcome> {
        let mut state = self.state();
        if create.if_not_exists && state.catalog.contains(&create.name) {
            return done(format!("\"{}\" exists already", create.name));
        }
        let view = View {
            name: create.name.clone(),
            columns: create.columns.clone(),
            query: create.query.ast.clone(),
            text: create.query.text.clone(),
            temporary: create.temporary,
        };
        if create.query.emit != Emit::default() {
            return Err(Error::statement("a view has no EMIT: whoever reads it says when rows are given out")
                .hint("write EMIT at the end of the INSERT or the SELECT that reads the view")
                .at(create.query.span.clone()));
        }
        // A view over itself is noticed only with the view in place.
        let mut catalog = state.catalog.clone();
        catalog.add_view(view, create.or_replace)?;
        let planner = Planner::new(&catalog);
        planner.query(&create.query)?;
        planner.view(&create.name)?;
        state.catalog = catalog;
        done(format!("view {} is created", create.name))
    }

    pub(super) fn drop_object(&self, kind: ObjectKind, name: &str, if_exists: bool) -> Result<Outcome> {
        let mut state = self.state();
        let (dropped, what) = match kind {
            ObjectKind::Table => (state.catalog.drop_table(name), "table"),
            ObjectKind::View => (state.catalog.drop_view(name), "view"),
        };
        if dropped {
            return done(format!("{what} {name} is dropped; its data is untouched"));
        }
        if if_exists {
            return done(format!("there is no {what} {name}"));
        }
        let error = state.catalog.unknown(name);
        Err(match state.catalog.contains(name) {
            true => {
                Error::statement(format!("\"{name}\" is not a {what}")).hint("DROP TABLE drops tables, DROP VIEW views")
            }
            false => error,
        })
    }
}

/// A table's columns, keys and options where the new one says nothing of its own.
fn inherit(table: &mut Table, like: &Table) {
    let own = std::mem::take(&mut table.columns);
    table.columns = like.columns.iter().filter(|c| own.iter().all(|o| o.name != c.name)).cloned().collect();
    table.columns.extend(own);
    if table.watermark.is_none() {
        table.watermark.clone_from(&like.watermark);
    }
    if table.primary_key.is_empty() {
        table.primary_key.clone_from(&like.primary_key);
    }
    let options = like.options.iter().chain(table.options.iter()).map(|(k, v)| (k.to_owned(), v.to_owned()));
    table.options = Options::from_pairs(options.collect::<Vec<_>>());
}

fn column_of(field: &Field) -> Column {
    Column {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        sql_type: sql_type(field.data_type()),
        not_null: false,
        kind: ColumnKind::Physical,
        comment: None,
    }
}
