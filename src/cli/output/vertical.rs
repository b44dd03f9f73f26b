//! A line per value, for rows that are too wide for columns.
//!
//! ```text
//! -[ 1 ]-----------
//! origin  | EWR
//! flights | 9893
//! ```

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill::error::Result;
use tidemill::sql::diagnostics::{escape, width};

use super::table::OPTIONS;
use super::{RowWriter, formatters};

/// The length of the line above a row, at least.
const RULE_WIDTH: usize = 24;

pub struct VerticalWriter {
    names: Vec<String>,
    rows: u64,
}

impl VerticalWriter {
    pub fn new(schema: &SchemaRef) -> Self {
        Self { names: schema.fields().iter().map(|f| escape(f.name()).into_owned()).collect(), rows: 0 }
    }
}

impl RowWriter for VerticalWriter {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let formatters = formatters(batch, &OPTIONS)?;
        let widest = self.names.iter().map(|name| width(name)).max().unwrap_or(0);
        for row in 0..batch.num_rows() {
            self.rows += 1;
            let title = format!("-[ {} ]", self.rows);
            // Writing to a vector cannot fail.
            let _ = writeln!(out, "{title}{}", "-".repeat(RULE_WIDTH.saturating_sub(title.len())));
            for (name, formatter) in self.names.iter().zip(&formatters) {
                let text = formatter.value(row).try_to_string()?;
                let padding = " ".repeat(widest - width(name));
                let _ = writeln!(out, "{name}{padding} | {}", escape(&text));
            }
        }
        Ok(())
    }
}
