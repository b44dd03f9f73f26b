//! Which physical columns live in a record's key and which in its value.
//!
//! `'key.fields'` names the columns of the key, `'value.fields-include'` says whether the value repeats them (`ALL`,
//! the default) or leaves them out (`EXCEPT_KEY`), and `'key.fields-prefix'` is what the table's names have before the
//! key format's own names, so that a key field and a value field may share theirs. In a table of `upsert-kafka` the key
//! is the primary key.

use crate::catalog::options::nearest;
use crate::catalog::{Column, ColumnKind, Table};
use crate::error::{Error, Result};
use crate::formats::{DecodeColumn, Format};

/// The layout of a table's records.
pub struct Layout {
    /// The value's format.
    pub value_format: Format,
    /// The value's columns: the table's name of each, in the order of the table.
    pub value: Vec<Field>,
    /// The key's format and columns, in the order of `'key.fields'`.
    pub key: Option<(Format, Vec<Field>)>,
    /// Whether the value repeats the key's columns.
    pub value_has_key: bool,
}

/// A column with the name that it has in the record.
#[derive(Clone)]
pub struct Field {
    /// The table's name of the column.
    pub column: String,
    /// How the format sees it.
    pub decode: DecodeColumn,
}

impl Layout {
    /// Reads the layout from a table's options.
    pub fn of(table: &Table) -> Result<Self> {
        let options = &table.options;
        let is_upsert = is_upsert(table);
        let value_format = match (options.get("format"), options.get("value.format")) {
            (Some(_), Some(_)) => {
                return Err(Error::statement("'format' and 'value.format' are both set").hint("keep one of them"));
            }
            (None, Some(name)) => Format::from_options(name, options, "value.")?,
            (_, None) if is_upsert => Format::from_options(options.require("value.format")?, options, "value.")?,
            (name, None) => Format::from_options(
                name.ok_or_else(|| {
                    Error::statement("the option 'format' is missing").hint("add 'format' = 'json' to WITH (..)")
                })?,
                options,
                "",
            )?,
        };
        let (key_format, key_names, named_by) = match is_upsert {
            true => {
                check_upsert(table, &value_format)?;
                let names = table.primary_key.iter().map(String::as_str).collect();
                (Some(options.require("key.format")?), names, "the primary key")
            }
            false => (options.get("key.format"), key_fields(table), "'key.fields'"),
        };
        if key_format.is_none() && !key_names.is_empty() {
            return Err(Error::statement("'key.fields' is set but 'key.format' is not")
                .hint("add 'key.format' = 'json' (or 'raw' for a single column)"));
        }
        if key_format.is_some() && key_names.is_empty() {
            return Err(Error::statement("'key.format' is set but 'key.fields' is not")
                .hint("add 'key.fields' = 'column' (several are separated by ';')"));
        }
        let value_has_key = options.choice("value.fields-include", &["ALL", "EXCEPT_KEY"])? == "ALL";
        let prefix = options.get("key.fields-prefix").unwrap_or("");
        if !prefix.is_empty() && value_has_key {
            return Err(Error::statement("'key.fields-prefix' needs 'value.fields-include' = 'EXCEPT_KEY'")
                .hint("the prefixed columns cannot be in the value too"));
        }
        let key_fields = key_names.iter().map(|name| key_field(table, name, prefix, named_by));
        let key_fields = key_fields.collect::<Result<Vec<_>>>()?;
        let value = physical(table)
            .filter(|c| value_has_key || !key_names.contains(&c.name.as_str()))
            .map(|c| Field { column: c.name.clone(), decode: decode_column(c, &c.name) })
            .collect();
        let key = key_format.map(|f| Ok::<_, Error>((Format::from_options(f, options, "key.")?, key_fields)));
        let key = key.transpose()?;
        if let Some((format, _)) = key.as_ref().filter(|(format, _)| format.has_changes()) {
            return Err(Error::statement(format!("a key cannot have the format '{}'", format.name()))
                .hint("a key says which row, not what became of it: set 'key.format' = 'json'"));
        }
        Ok(Self { value_format, value, key, value_has_key })
    }

    /// Where a column is read from: its index among the key's or the value's. The value wins when both have it.
    pub fn find(&self, column: &str) -> Option<Place> {
        let index = |fields: &[Field]| fields.iter().position(|f| f.column == column);
        let in_key = || self.key.as_ref().and_then(|(_, fields)| index(fields)).map(Place::Key);
        index(&self.value).map(Place::Value).or_else(in_key)
    }
}

/// Whether a table's records are the last states of rows, by key.
pub fn is_upsert(table: &Table) -> bool {
    table.options.get("connector") == Some("upsert-kafka")
}

/// Where a column is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Key(usize),
    Value(usize),
}

/// The columns that `'key.fields'` names.
fn key_fields(table: &Table) -> Vec<&str> {
    table.options.get("key.fields").unwrap_or("").split(';').map(str::trim).filter(|n| !n.is_empty()).collect()
}

/// What a table of `upsert-kafka` needs beyond its options.
fn check_upsert(table: &Table, value_format: &Format) -> Result<()> {
    if table.primary_key.is_empty() {
        let what = format!("table {} needs a primary key: 'upsert-kafka' keeps the last row of each key", table.name);
        return Err(Error::statement(what).hint("add PRIMARY KEY (column, ..) NOT ENFORCED behind the columns"));
    }
    if value_format.has_changes() {
        let what = format!("'upsert-kafka' does not take the format '{}'", value_format.name());
        return Err(Error::statement(what).hint(
            "its records are rows, and one without a value says that a row is gone: set 'value.format' = 'json'; \
             'connector' = 'kafka' takes this format",
        ));
    }
    Ok(())
}

fn physical(table: &Table) -> impl Iterator<Item = &Column> {
    table.columns.iter().filter(|c| c.kind == ColumnKind::Physical)
}

fn key_field(table: &Table, name: &str, prefix: &str, named_by: &str) -> Result<Field> {
    let Some(column) = physical(table).find(|c| c.name == name) else {
        let error = Error::statement(format!("{named_by} names \"{name}\", which is no physical column"));
        return Err(match nearest(name, physical(table).map(|c| c.name.as_str())) {
            Some(near) => error.hint(format!("did you mean \"{near}\"?")),
            None => error.hint("it must be a column of the table, without METADATA and without an expression"),
        });
    };
    let Some(in_record) = name.strip_prefix(prefix).filter(|n| !n.is_empty()) else {
        return Err(Error::statement(format!("the key column \"{name}\" does not start with '{prefix}'"))
            .hint(format!("with 'key.fields-prefix' all columns in {named_by} must start with it")));
    };
    Ok(Field { column: name.to_owned(), decode: decode_column(column, in_record) })
}

fn decode_column(column: &Column, name: &str) -> DecodeColumn {
    DecodeColumn { name: name.to_owned(), data_type: column.data_type.clone(), nullable: !column.not_null }
}
