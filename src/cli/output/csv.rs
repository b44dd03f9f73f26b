//! Comma-separated values with a header, quoted as RFC 4180 has it, lines ended by a line feed. A null is nothing, an empty text is `""`.

use std::borrow::Cow;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill::error::Result;
use tidemill::sql::diagnostics::escape;

use super::{RowWriter, VALUES, formatters};

pub struct CsvWriter {
    header: Option<Vec<String>>,
    is_escaped: bool,
}

impl CsvWriter {
    /// With `is_escaped` for the eyes: what steers a terminal is shown as an escape.
    pub fn new(schema: &SchemaRef, is_escaped: bool) -> Self {
        Self { header: Some(schema.fields().iter().map(|f| f.name().clone()).collect()), is_escaped }
    }

    fn value(&self, text: &str, out: &mut Vec<u8>) {
        let text = if self.is_escaped { escape(text) } else { Cow::Borrowed(text) };
        let is_plain = !text.is_empty() && !text.contains([',', '"', '\n', '\r']);
        if is_plain {
            out.extend_from_slice(text.as_bytes());
        } else {
            out.push(b'"');
            out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
            out.push(b'"');
        }
    }

    /// The header, once.
    fn begin(&mut self, out: &mut Vec<u8>) {
        let Some(names) = self.header.take() else { return };
        for (i, name) in names.iter().enumerate() {
            separate(i, out);
            self.value(name, out);
        }
        out.push(b'\n');
    }
}

fn separate(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

impl RowWriter for CsvWriter {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        self.begin(out);
        let formatters = formatters(batch, &VALUES)?;
        for row in 0..batch.num_rows() {
            for (i, (formatter, column)) in formatters.iter().zip(batch.columns()).enumerate() {
                separate(i, out);
                if !column.is_null(row) {
                    self.value(&formatter.value(row).try_to_string()?, out);
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
