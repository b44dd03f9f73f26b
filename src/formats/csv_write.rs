//! Rows to lines of comma-separated values, without a line break at the end.
//!
//! A field is quoted where it must be: when it has a delimiter, a quote, a line break or the escape character in it,
//! or would be read back as something else. Where quoting is disabled such a field is an error, unless there is an
//! escape character. A null is the null literal, else an empty field.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::cells::{Cell, Cells, Kind, elements};
use super::csv::check_type;
use super::text::{encode_base64, write_decimal, write_float32, write_float64, write_integer};
use super::{CsvOptions, Encoded, RowEncoder, excerpt, in_column, temporal};
use crate::error::{Error, Result};

/// Writes rows as lines.
pub struct CsvEncoder {
    options: CsvOptions,
    /// A value before it is known whether it needs quotes.
    scratch: Vec<u8>,
}

impl CsvEncoder {
    /// An encoder for batches of the given schema.
    pub fn new(schema: &Schema, options: CsvOptions) -> Result<Self> {
        for field in schema.fields() {
            check_type(field.name(), &Cells::plain_type(field.data_type()).map_err(in_column(field.name()))?)?;
        }
        Ok(Self { options, scratch: Vec::new() })
    }

    fn write_row(&mut self, cells: &Cells, i: usize, out: &mut Vec<u8>) -> Result<()> {
        for (position, (name, cell)) in cells.columns.iter().enumerate() {
            if position > 0 {
                out.push(self.options.field_delimiter);
            }
            if cell.is_null(i) {
                out.extend_from_slice(self.options.null_literal.as_deref().unwrap_or("").as_bytes());
                continue;
            }
            self.write_field(cell, i, out).map_err(in_column(name))?;
        }
        Ok(())
    }

    fn write_field(&mut self, cell: &Cell, i: usize, out: &mut Vec<u8>) -> Result<()> {
        self.scratch.clear();
        match &cell.kind {
            Kind::Utf8(v) => return write_text(v.value(i).as_bytes(), &self.options, out),
            Kind::List { offsets, item } => {
                let elements = elements(offsets, i).map(|element| (&**item, element));
                write_elements(elements, &self.options, &mut self.scratch)?;
            }
            Kind::Struct(fields) => {
                let elements = fields.iter().map(|field| (&field.cell, i));
                write_elements(elements, &self.options, &mut self.scratch)?;
            }
            _ => write_scalar(cell, i, &mut self.scratch)?,
        }
        if self.scratch.is_empty() {
            // No bytes and an empty list are values, which an empty field is not.
            if let Some(quote) = self.options.quote {
                out.extend_from_slice(&[quote, quote]);
            }
            return Ok(());
        }
        write_text(&self.scratch, &self.options, out)
    }
}

impl RowEncoder for CsvEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Encoded) -> Result<()> {
        let cells = Cells::new(batch)?;
        let rows = out.len();
        for i in 0..batch.num_rows() {
            if let Err(error) = self.write_row(&cells, i, &mut out.bytes) {
                out.truncate(rows);
                return Err(error);
            }
            out.end_row();
        }
        Ok(())
    }
}

fn write_elements<'a>(
    elements: impl Iterator<Item = (&'a Cell, usize)>,
    options: &CsvOptions,
    out: &mut Vec<u8>,
) -> Result<()> {
    for (position, (cell, i)) in elements.enumerate() {
        if position > 0 {
            out.extend_from_slice(options.element_delimiter.as_bytes());
        }
        if cell.is_null(i) {
            out.extend_from_slice(options.null_literal.as_deref().unwrap_or("").as_bytes());
            continue;
        }
        let start = out.len();
        write_scalar(cell, i, out)?;
        let delimiter = options.element_delimiter.as_bytes();
        if out[start..].windows(delimiter.len()).any(|window| window == delimiter) {
            let value = excerpt(&String::from_utf8_lossy(&out[start..]));
            return Err(Error::data(format!("the element '{value}' has the element delimiter in it"))
                .hint("set 'csv.array-element-delimiter' to a text that no element has"));
        }
    }
    Ok(())
}

/// Writes a value without quotes.
fn write_scalar(cell: &Cell, i: usize, out: &mut Vec<u8>) -> Result<()> {
    match &cell.kind {
        Kind::Boolean(v) => out.extend_from_slice(if v.value(i) { b"true" } else { b"false" }),
        Kind::Int8(v) => write_integer(v[i].into(), out),
        Kind::Int16(v) => write_integer(v[i].into(), out),
        Kind::Int32(v) => write_integer(v[i].into(), out),
        Kind::Int64(v) => write_integer(v[i], out),
        Kind::Float32(v) if v[i].is_finite() => write_float32(v[i], out)?,
        Kind::Float64(v) if v[i].is_finite() => write_float64(v[i], out)?,
        Kind::Float32(v) => out.extend_from_slice(special_float(v[i].into())),
        Kind::Float64(v) => out.extend_from_slice(special_float(v[i])),
        Kind::Decimal { values, scale } => write_decimal(values[i], *scale, out),
        Kind::Utf8(v) => out.extend_from_slice(v.value(i).as_bytes()),
        Kind::Binary(v) => encode_base64(v.value(i), out),
        Kind::Date(v) => temporal::write_date(v[i].into(), out),
        Kind::Time(v) => temporal::write_time(v[i], out),
        Kind::Timestamp { values, unit, has_zone } => {
            temporal::write_timestamp(values[i], *unit, b' ', out);
            if *has_zone {
                out.push(b'Z');
            }
        }
        Kind::Null | Kind::List { .. } | Kind::Struct(_) | Kind::Map { .. } => {
            return Err(Error::bug("a nested value where CSV has a scalar"));
        }
    }
    Ok(())
}

fn special_float(value: f64) -> &'static [u8] {
    if value.is_nan() {
        b"NaN"
    } else if value > 0.0 {
        b"Infinity"
    } else {
        b"-Infinity"
    }
}

/// Writes a field's text, with quotes or escapes where it needs them.
fn write_text(text: &[u8], options: &CsvOptions, out: &mut Vec<u8>) -> Result<()> {
    let is_special = |b: &u8| {
        *b == options.field_delimiter
            || matches!(b, b'\n' | b'\r')
            || Some(*b) == options.quote
            || Some(*b) == options.escape
    };
    if !text.iter().any(is_special) {
        out.extend_from_slice(text);
        return Ok(());
    }
    if let Some(quote) = options.quote {
        out.push(quote);
        for byte in text {
            if Some(*byte) == options.escape || *byte == quote {
                // A quote is doubled, also where it could be escaped: every reader knows that.
                out.push(*byte);
            }
            out.push(*byte);
        }
        out.push(quote);
        return Ok(());
    }
    let Some(escape) = options.escape else {
        let value = excerpt(&String::from_utf8_lossy(text));
        return Err(Error::data(format!("the value '{value}' needs quotes, which are disabled"))
            .hint("set 'csv.escape-character', or leave 'csv.disable-quote-character' out"));
    };
    for byte in text {
        match byte {
            b'\n' => out.extend_from_slice(&[escape, b'n']),
            b'\r' => out.extend_from_slice(&[escape, b'r']),
            _ if is_special(byte) => out.extend_from_slice(&[escape, *byte]),
            _ => out.push(*byte),
        }
    }
    Ok(())
}
