//! A table as Markdown writes it, for reports and issues.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill::error::Result;
use tidemill::sql::diagnostics::escape;

use super::table::OPTIONS;
use super::{RowWriter, formatters};

pub struct MarkdownWriter {
    /// `None` once it is written.
    header: Option<SchemaRef>,
}

impl MarkdownWriter {
    pub fn new(schema: &SchemaRef) -> Self {
        Self { header: Some(SchemaRef::clone(schema)) }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        let Some(schema) = self.header.take() else { return };
        let fields = schema.fields();
        line(out, fields.iter().map(|f| cell(f.name())));
        let rule = |numeric: bool| if numeric { "--:" } else { "---" }.to_owned();
        line(out, fields.iter().map(|f| rule(f.data_type().is_numeric())));
    }
}

impl RowWriter for MarkdownWriter {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        self.begin(out);
        let formatters = formatters(batch, &OPTIONS)?;
        for row in 0..batch.num_rows() {
            let cells = formatters.iter().map(|f| Ok(cell(&f.value(row).try_to_string()?)));
            line(out, cells.collect::<Result<Vec<_>>>()?.into_iter());
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.begin(out);
        Ok(())
    }
}

/// A text that is shown as it is: nothing in it ends the cell, begins a tag, or steers a terminal.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in escape(text).chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '&' => safe.push_str("&amp;"),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' => safe.extend(['\\', c]),
            c => safe.push(c),
        }
    }
    safe
}

fn line(out: &mut Vec<u8>, cells: impl Iterator<Item = String>) {
    for cell in cells {
        // Writing to a vector cannot fail.
        let _ = write!(out, "| {cell} ");
    }
    out.extend_from_slice(b"|\n");
}
