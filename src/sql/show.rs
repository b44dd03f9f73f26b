//! `SHOW CREATE ..`: a table or view as the statement that makes it again.
//!
//! What is printed parses back to the same table, except for secrets: their values are printed as `'******'`.

use std::fmt::Write;

use super::types::quote;
use crate::catalog::secrets::{is_secret, shown};
use crate::catalog::{Column, ColumnKind, Table, View};

/// The statement that makes a table.
pub fn show_create_table(table: &Table) -> String {
    let temporary = if table.temporary { "TEMPORARY " } else { "" };
    let mut out = format!("CREATE {temporary}TABLE {}", quote(&table.name));
    let mut items: Vec<String> = table.columns.iter().map(column).collect();
    if let Some(watermark) = &table.watermark {
        items.push(format!("WATERMARK FOR {} AS {}", quote(&watermark.column), watermark.expr));
    }
    if !table.primary_key.is_empty() {
        let key: Vec<_> = table.primary_key.iter().map(|name| quote(name)).collect();
        items.push(format!("PRIMARY KEY ({}) NOT ENFORCED", key.join(", ")));
    }
    if !items.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(out, " (\n  {}\n)", items.join(",\n  "));
    }
    if let Some(comment) = &table.comment {
        let _ = write!(out, "\nCOMMENT {}", string(comment));
    }
    let options: Vec<String> = table
        .options
        .iter()
        .map(|(key, value)| format!("{} = {}", string(key), string(shown(is_secret(key), value))))
        .collect();
    if !options.is_empty() {
        let _ = write!(out, "\nWITH (\n  {}\n)", options.join(",\n  "));
    }
    out
}

/// The statement that makes a view.
pub fn show_create_view(view: &View) -> String {
    let temporary = if view.temporary { "TEMPORARY " } else { "" };
    let columns: Vec<_> = view.columns.iter().map(|name| quote(name)).collect();
    let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
    format!("CREATE {temporary}VIEW {}{columns} AS\n{}", quote(&view.name), view.text)
}

fn column(column: &Column) -> String {
    let mut out = quote(&column.name);
    match &column.kind {
        ColumnKind::Computed(expr) => {
            let _ = write!(out, " AS {expr}");
        }
        ColumnKind::Physical => out.push_str(&declared(column)),
        ColumnKind::Metadata { key, is_virtual } => {
            out.push_str(&declared(column));
            out.push_str(" METADATA");
            if *key != column.name {
                let _ = write!(out, " FROM {}", string(key));
            }
            if *is_virtual {
                out.push_str(" VIRTUAL");
            }
        }
    }
    if let Some(comment) = &column.comment {
        let _ = write!(out, " COMMENT {}", string(comment));
    }
    out
}

fn declared(column: &Column) -> String {
    format!(" {}{}", column.sql_type, if column.not_null { " NOT NULL" } else { "" })
}

fn string(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parser::parse_script;
    use crate::sql::statement::Statement;

    fn table(text: &str) -> Table {
        match parse_script(text).unwrap().remove(0).statement {
            Statement::CreateTable(create) => create.table,
            other => panic!("not a table: {other:?}"),
        }
    }

    #[test]
    fn what_is_printed_makes_the_same_table_again() {
        fn check(text: &str) {
            let first = table(text);
            let printed = show_create_table(&first);
            let again = table(&printed);
            assert_eq!(show_create_table(&again), printed, "{text}");
            assert_eq!(format!("{:?}", again.options), format!("{:?}", first.options), "{printed}");
            assert_eq!(again.primary_key, first.primary_key);
            assert_eq!(again.comment, first.comment);
            assert_eq!(again.watermark, first.watermark, "{printed}");
            assert_eq!(again, first, "{printed}");
        }
        check("CREATE TABLE t");
        check(
            "CREATE TABLE `a-b` (`select` INT, `x``y` STRING NOT NULL COMMENT 'it''s', \"C d\" BYTES) WITH ('a' = '''')",
        );
        check(
            "CREATE TEMPORARY TABLE t (a INT, ts TIMESTAMP(3) METADATA FROM 'timestamp' VIRTUAL, `offset` BIGINT METADATA,
             b AS a + 1 COMMENT 'more', r ROW<x INT COMMENT 'c', `y z` ARRAY<INT NOT NULL>>, m MAP<STRING, INT>,
             c AS CAST(r.x AS ROW<a TIMESTAMP_LTZ(3)>), d AS TRY_CAST(JSON_VALUE(b, '$.a') AS INT),
             WATERMARK FOR ts AS ts - INTERVAL '1:30' MINUTE TO SECOND, PRIMARY KEY (a, `offset`) NOT ENFORCED)
             COMMENT 'what' WITH ('connector' = 'kafka', 'topic' = 'x')",
        );
        check(
            "CREATE TABLE t (e AS TIMESTAMPDIFF(SECOND, a, b), f AS MAP['k', 1], g AS CASE WHEN a THEN 'x''y' ELSE b END)",
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown =
            show_create_table(&table("CREATE TABLE t WITH ('properties.sasl.password' = 'hunter2', 'topic' = 'x')"));
        assert!(shown.contains("'properties.sasl.password' = '******'") && !shown.contains("hunter2"), "{shown}");
    }
}
