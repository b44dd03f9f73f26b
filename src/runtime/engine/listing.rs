//! What exists, as tables of texts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Fields, Schema};

use super::{Engine, Outcome, Rows};
use crate::catalog::{ColumnKind, Table};
use crate::error::Result;
use crate::plan::Planner;
use crate::sql::show::{show_create_table, show_create_view};
use crate::sql::statement::Show;
use crate::sql::types::sql_type;

/// Names that a statement could use: for completion.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Tables and views, with their columns.
    pub tables: BTreeMap<String, Fields>,
    /// Functions, in lower case.
    pub functions: Vec<String>,
    /// Jobs that run.
    pub jobs: Vec<String>,
}

impl Engine {
    /// What a statement could name. Asks nobody.
    pub fn names(&self) -> Names {
        let (catalog, jobs) = {
            let state = self.state();
            (state.catalog.clone(), state.jobs.clone())
        };
        let mut tables: BTreeMap<_, _> = catalog.tables().map(|table| (table.name.clone(), table.fields())).collect();
        for view in catalog.views() {
            let plan = Planner::new(&catalog).view(&view.name);
            let columns = plan.map(|plan| plan.schema().fields().clone());
            tables.insert(view.name.clone(), columns.unwrap_or_default());
        }
        let running = jobs.iter().filter(|job| !job.status().has_ended());
        Names { tables, functions: Planner::function_names(), jobs: running.map(|job| job.name().to_owned()).collect() }
    }

    /// Whether there are tables that print their rows: where they go is not for anything else to stand.
    pub fn has_print_tables(&self) -> bool {
        let is_print = |table: &Table| table.options.get("connector").is_some_and(|connector| connector == "print");
        self.state().catalog.tables().any(is_print)
    }

    pub(super) fn describe(&self, name: &str) -> Result<Outcome> {
        let state = self.state();
        let mut rows = Vec::new();
        if let Some(table) = state.catalog.table(name) {
            for column in &table.columns {
                let sql_type =
                    if column.sql_type.is_empty() { sql_type(&column.data_type) } else { column.sql_type.clone() };
                let extra = match &column.kind {
                    ColumnKind::Physical => String::new(),
                    ColumnKind::Computed(expr) => format!("AS {expr}"),
                    ColumnKind::Metadata { key, is_virtual } => {
                        format!("METADATA FROM '{key}'{}", if *is_virtual { " VIRTUAL" } else { "" })
                    }
                };
                let watermark = match &table.watermark {
                    Some(w) if w.column == column.name => w.expr.to_string(),
                    _ => String::new(),
                };
                let key = if table.primary_key.contains(&column.name) { "PRI" } else { "" };
                rows.push(vec![
                    column.name.clone(),
                    sql_type,
                    (!column.not_null).to_string(),
                    key.to_owned(),
                    extra,
                    watermark,
                ]);
            }
        } else if state.catalog.view(name).is_some() {
            let plan = Planner::new(&state.catalog).view(name)?;
            for field in plan.schema().fields() {
                let (name, sql_type) = (field.name().clone(), sql_type(field.data_type()));
                rows.push(vec![
                    name,
                    sql_type,
                    field.is_nullable().to_string(),
                    String::new(),
                    String::new(),
                    String::new(),
                ]);
            }
        } else {
            return Err(state.catalog.unknown(name));
        }
        Ok(Outcome::Rows(Rows::of_text(&["name", "type", "null", "key", "extras", "watermark"], rows)?))
    }

    pub(super) fn show(&self, show: &Show) -> Result<Outcome> {
        let state = self.state();
        let names = |title: &str, names: Vec<String>| {
            Ok(Outcome::Rows(Rows::of_text(&[title], names.into_iter().map(|n| vec![n]).collect())?))
        };
        match show {
            Show::Tables => {
                let tables = state.catalog.tables().map(|t| t.name.clone());
                let mut all: Vec<_> = tables.chain(state.catalog.views().map(|v| v.name.clone())).collect();
                all.sort_unstable();
                names("table name", all)
            }
            Show::Views => names("view name", state.catalog.views().map(|v| v.name.clone()).collect()),
            Show::Functions => names("function name", Planner::function_names()),
            Show::Create(name) => {
                if let Some(table) = state.catalog.table(name) {
                    return Ok(Outcome::Text(show_create_table(table)));
                }
                match state.catalog.view(name) {
                    Some(view) => Ok(Outcome::Text(show_create_view(view))),
                    None => Err(state.catalog.unknown(name)),
                }
            }
            Show::Jobs => {
                drop(state);
                self.show_jobs()
            }
            Show::Topics => {
                drop(state);
                self.show_topics()
            }
        }
    }
}

impl Rows {
    /// A table of texts.
    pub fn of_text(columns: &[&str], rows: Vec<Vec<String>>) -> Result<Self> {
        let fields: Vec<Field> = columns.iter().map(|c| Field::new(*c, DataType::Utf8, false)).collect();
        let schema = Arc::new(Schema::new(fields));
        let arrays = (0..columns.len())
            .map(|c| Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r[c].as_str()))) as ArrayRef)
            .collect();
        Ok(Self { batches: vec![RecordBatch::try_new(Arc::clone(&schema), arrays)?], schema })
    }
}
