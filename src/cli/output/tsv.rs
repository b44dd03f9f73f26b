//! Values with tabs between, a header first. In a value a tab, a line break and a backslash are `\t`, `\n`, `\r` and `\\`,
//! and a null is `\N`, as PostgreSQL writes and reads it.

use std::borrow::Cow;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill::error::Result;
use tidemill::sql::diagnostics::escape;

use super::{RowWriter, VALUES, formatters};

pub struct TsvWriter {
    header: Option<Vec<String>>,
    is_escaped: bool,
}

impl TsvWriter {
    /// With `is_escaped` for the eyes: what steers a terminal is shown as an escape.
    pub fn new(schema: &SchemaRef, is_escaped: bool) -> Self {
        Self { header: Some(schema.fields().iter().map(|f| f.name().clone()).collect()), is_escaped }
    }

    fn value(&self, index: usize, text: &str, out: &mut Vec<u8>) {
        if index > 0 {
            out.push(b'\t');
        }
        let mut safe = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '\t' => safe.push_str("\\t"),
                '\n' => safe.push_str("\\n"),
                '\r' => safe.push_str("\\r"),
                '\\' => safe.push_str("\\\\"),
                c => safe.push(c),
            }
        }
        let safe = if self.is_escaped { escape(&safe) } else { Cow::Borrowed(safe.as_str()) };
        out.extend_from_slice(safe.as_bytes());
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        let Some(names) = self.header.take() else { return };
        names.iter().enumerate().for_each(|(i, name)| self.value(i, name, out));
        out.push(b'\n');
    }
}

impl RowWriter for TsvWriter {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        self.begin(out);
        let formatters = formatters(batch, &VALUES)?;
        for row in 0..batch.num_rows() {
            for (i, (formatter, column)) in formatters.iter().zip(batch.columns()).enumerate() {
                if column.is_null(row) {
                    out.extend_from_slice(if i > 0 { b"\t\\N" } else { b"\\N" });
                } else {
                    self.value(i, &formatter.value(row).try_to_string()?, out);
                }
            }
            out.push(b'\n');
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.begin(out);
        Ok(())
    }
}
