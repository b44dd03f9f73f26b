//! Tables and views by name, in the order of their names. Names keep their case.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Fields};
use sqlparser::ast;

use super::options::Options;
use crate::error::{Error, Result};

/// Where a column's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnKind {
    /// A field of the record's key or value.
    Physical,
    /// An expression over other columns, evaluated in the source.
    Computed(Box<ast::Expr>),
    /// A property of the record itself: `topic`, `partition`, `offset`, `timestamp`, `headers`, ...
    Metadata {
        /// The property's name.
        key: String,
        /// Whether the column is left out when the table is written to.
        is_virtual: bool,
    },
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The name, in the case it was written.
    pub name: String,
    /// The Arrow type. Computed columns get theirs from the expression when the table is registered.
    pub data_type: DataType,
    /// The type as Flink writes it, canonical: `BIGINT`, `TIMESTAMP(3)`, `ROW<a INT>`. Empty for computed columns.
    pub sql_type: String,
    /// `NOT NULL` was declared.
    pub not_null: bool,
    /// Where the value comes from.
    pub kind: ColumnKind,
    /// `COMMENT '..'`.
    pub comment: Option<String>,
}

/// `WATERMARK FOR column AS expr`.
#[derive(Clone, Debug, PartialEq)]
pub struct Watermark {
    /// The event time column.
    pub column: String,
    /// The value that the watermark takes after a row.
    pub expr: Box<ast::Expr>,
}

/// A table: a schema over a topic, a file or a generator.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The name, in the case it was written.
    pub name: String,
    /// The columns in the order of their declaration.
    pub columns: Vec<Column>,
    /// The event time and its watermark.
    pub watermark: Option<Watermark>,
    /// `PRIMARY KEY (..) NOT ENFORCED`.
    pub primary_key: Vec<String>,
    /// `WITH (..)`.
    pub options: Options,
    /// `COMMENT '..'`.
    pub comment: Option<String>,
    /// `CREATE TEMPORARY TABLE`. Everything is forgotten at exit, so this changes nothing but what is shown.
    pub temporary: bool,
}

impl Table {
    /// The columns as Arrow has them.
    pub fn fields(&self) -> Fields {
        let field = |column: &Column| Field::new(&column.name, column.data_type.clone(), !column.not_null);
        self.columns.iter().map(field).collect()
    }

    /// The columns that are written to when the table is a sink: physical ones and non-virtual metadata.
    pub fn sink_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| match &c.kind {
            ColumnKind::Physical => true,
            ColumnKind::Computed(_) => false,
            ColumnKind::Metadata { is_virtual, .. } => !is_virtual,
        })
    }

    /// Whether a row that is written needs a value for the column: it is `NOT NULL`, or part of the primary key.
    pub fn needs_value(&self, column: &Column) -> bool {
        column.not_null || self.primary_key.contains(&column.name)
    }

    /// The column of the given name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }
}

/// A named query.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The name, in the case it was written.
    pub name: String,
    /// New names for the query's columns, or none.
    pub columns: Vec<String>,
    /// The query.
    pub query: Box<ast::Query>,
    /// The query as it was written.
    pub text: String,
    /// `CREATE TEMPORARY VIEW`.
    pub temporary: bool,
}

/// Everything that statements can name. Cheap to clone: a job plans against the catalog as it was when submitted.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    tables: BTreeMap<String, Table>,
    /// Tables that nobody declared: made of the topics of their names.
    inferred: BTreeMap<String, Table>,
    views: BTreeMap<String, View>,
}

impl Catalog {
    /// The table of this name, declared or made of a topic.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name).or_else(|| self.inferred.get(name).filter(|_| !self.views.contains_key(name)))
    }

    /// The table of this name, if it was declared: one that may be written to.
    pub fn declared_table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    /// Adds a table made of a topic. Declared tables and views of its name come before it.
    pub fn add_inferred(&mut self, table: Table) {
        self.inferred.insert(table.name.clone(), table);
    }

    /// The view of this name.
    pub fn view(&self, name: &str) -> Option<&View> {
        self.views.get(name)
    }

    /// All tables by name.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }

    /// All views by name.
    pub fn views(&self) -> impl Iterator<Item = &View> {
        self.views.values()
    }

    /// Whether a table or a view has this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tables.contains_key(name) || self.views.contains_key(name)
    }

    /// Adds a table. Errors when the name is taken.
    pub fn add_table(&mut self, table: Table) -> Result<()> {
        self.check_free(&table.name)?;
        self.tables.insert(table.name.clone(), table);
        Ok(())
    }

    /// Adds a view. Errors when the name is taken, unless it is a view that may be replaced.
    pub fn add_view(&mut self, view: View, replace: bool) -> Result<()> {
        if !(replace && self.views.contains_key(&view.name)) {
            self.check_free(&view.name)?;
        }
        self.views.insert(view.name.clone(), view);
        Ok(())
    }

    /// Makes every Kafka table that says nothing of its own end where its topics end when it is opened.
    pub fn end_topics_now(&mut self) {
        for table in self.tables.values_mut().chain(self.inferred.values_mut()) {
            let options = &mut table.options;
            let is_unbounded = options.get("scan.bounded.mode").is_none_or(|m| m.eq_ignore_ascii_case("unbounded"));
            if options.get("connector") == Some("kafka") && is_unbounded {
                options.set("scan.bounded.mode", "latest-offset");
            }
        }
    }

    /// Forgets a table; `false` when there was none.
    pub fn drop_table(&mut self, name: &str) -> bool {
        self.tables.remove(name).is_some()
    }

    /// Forgets a view; `false` when there was none.
    pub fn drop_view(&mut self, name: &str) -> bool {
        self.views.remove(name).is_some()
    }

    /// The error for a name that nothing has, with the nearest one that exists.
    pub fn unknown(&self, name: &str) -> Error {
        let names = self.tables.keys().chain(self.views.keys()).map(String::as_str);
        let error = Error::statement(format!("there is no table or view \"{name}\""));
        let error = Error { unknown_table: Some(name.into()), ..error };
        match super::options::nearest(name, names) {
            Some(near) => error.hint(format!("did you mean \"{near}\"?")),
            None => error.hint("CREATE TABLE declares one; SHOW TABLES lists those that exist"),
        }
    }

    fn check_free(&self, name: &str) -> Result<()> {
        if self.contains(name) {
            return Err(
                Error::statement(format!("\"{name}\" exists already")).hint("write IF NOT EXISTS, or DROP it first")
            );
        }
        Ok(())
    }
}
