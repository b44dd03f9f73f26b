//! One JSON object per row, encoded as records of a topic are: one per line, or all of them as one array.
//!
//! What JSON allows in a string and terminals or eyes may misread (DEL, the C1 range, marks that turn the direction of
//! text) is written as `\uXXXX`, which means the same.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill::catalog::options::Options;
use tidemill::error::{Error, Result};
use tidemill::formats::{Encoded, Format, RowEncoder};
use tidemill::sql::diagnostics::escape;

use super::RowWriter;

pub struct JsonWriter {
    schema: SchemaRef,
    encoder: Box<dyn RowEncoder>,
    /// Rows are elements of one array.
    is_array: bool,
    has_rows: bool,
}

impl JsonWriter {
    pub fn new(schema: &SchemaRef, is_array: bool) -> Result<Self> {
        let format = Format::from_options("json", &Options::default(), "")?;
        // What has no form in JSON (an interval, say) is written as text.
        let writable = |field: &Arc<Field>| {
            let alone = Schema::new(vec![Arc::clone(field)]);
            match format.encoder(&alone) {
                Ok(_) => Arc::clone(field),
                Err(_) => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
            }
        };
        let schema = Arc::new(Schema::new(schema.fields().iter().map(writable).collect::<Vec<_>>()));
        let encoder = format.encoder(&schema)?;
        Ok(Self { schema, encoder, is_array, has_rows: false })
    }
}

impl RowWriter for JsonWriter {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        });
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_, _>>()?)
            .map_err(|e| Error::bug(format!("rows do not fit their schema: {e}")))?;
        let mut rows = Encoded::default();
        self.encoder.encode(&batch, &mut rows)?;
        for i in 0..rows.len() {
            if self.is_array {
                out.extend_from_slice(if self.has_rows { b",\n" } else { b"[" });
            }
            self.has_rows = true;
            append_safe(rows.row(i).unwrap_or(b"null"), out);
            if !self.is_array {
                out.push(b'\n');
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if self.is_array {
            out.extend_from_slice(if self.has_rows { b"]\n" } else { b"[]\n" });
        }
        Ok(())
    }
}

/// Appends JSON text with hostile characters as `\uXXXX`.
fn append_safe(json: &[u8], out: &mut Vec<u8>) {
    if json.iter().all(|b| (0x20..0x7f).contains(b)) {
        out.extend_from_slice(json);
        return;
    }
    let text = String::from_utf8_lossy(json);
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        let is_hostile = !c.is_ascii_graphic() && c != ' ' && escape(c.encode_utf8(&mut [0; 4])).len() != c.len_utf8();
        if is_hostile {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    out.extend_from_slice(safe.as_bytes());
}
