//! Rows in columns, for people.
//!
//! ```text
//!  origin | flights
//! --------+---------
//!  EWR    |   9,893
//! ```
//!
//! The widths are those of the first batch, for nobody knows what will come; a later value that is wider pushes its
//! line's rest to the right. Numbers stand to the right.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::FormatOptions;
use tidemill::error::Result;
use tidemill::sql::diagnostics::{escape, width};

use super::{RowWriter, VALUES, cells};

pub(super) const OPTIONS: FormatOptions<'static> = VALUES.with_null("NULL");

/// No column is padded to more than this: one long value must not push all others off the screen.
const COLUMN_WIDTH_MAX: usize = 60;

pub struct TableWriter {
    columns: Vec<Column>,
    has_header: bool,
}

struct Column {
    /// Its name, escaped.
    name: String,
    to_the_right: bool,
    width: usize,
}

impl TableWriter {
    pub fn new(schema: &SchemaRef) -> Self {
        let column = |name: &str, data_type: &DataType| Column {
            name: escape(name).into_owned(),
            to_the_right: data_type.is_numeric(),
            width: width(&escape(name)).max(width_least(data_type)),
        };
        let columns = schema.fields().iter().map(|field| column(field.name(), field.data_type())).collect();
        Self { columns, has_header: false }
    }

    fn header(&mut self, out: &mut Vec<u8>) {
        self.has_header = true;
        for (i, column) in self.columns.iter().enumerate() {
            cell(out, i, &column.name, column.width, false);
        }
        end_line(out);
        for (i, column) in self.columns.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"-" } else { b"-+-" });
            out.resize(out.len() + column.width, b'-');
        }
        out.extend_from_slice(b"-\n");
    }
}

impl RowWriter for TableWriter {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let cells = cells(batch)?;
        if !self.has_header {
            for row in cells.chunks(self.columns.len().max(1)) {
                for (column, text) in self.columns.iter_mut().zip(row) {
                    column.width = column.width.max(width(text).min(COLUMN_WIDTH_MAX));
                }
            }
            self.header(out);
        }
        for row in cells.chunks(self.columns.len().max(1)) {
            for (i, (column, text)) in self.columns.iter().zip(row).enumerate() {
                cell(out, i, text, column.width, column.to_the_right);
            }
            end_line(out);
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if !self.has_header {
            self.header(out);
        }
        Ok(())
    }
}

/// The width that a type's values usually take, as far as it is the same for all.
fn width_least(data_type: &DataType) -> usize {
    match data_type {
        DataType::Timestamp(..) => 19,
        DataType::Date32 => 10,
        DataType::Boolean => 5,
        DataType::Null => 4,
        _ => 0,
    }
}

fn cell(out: &mut Vec<u8>, index: usize, text: &str, to: usize, to_the_right: bool) {
    out.extend_from_slice(if index == 0 { b" " } else { b" | " });
    let padding = to.saturating_sub(width(text));
    if to_the_right {
        out.resize(out.len() + padding, b' ');
    }
    out.extend_from_slice(text.as_bytes());
    if !to_the_right {
        out.resize(out.len() + padding, b' ');
    }
}

fn end_line(out: &mut Vec<u8>) {
    let end = out.iter().rposition(|b| *b != b' ').map_or(0, |at| at + 1);
    out.truncate(end);
    out.push(b'\n');
}
