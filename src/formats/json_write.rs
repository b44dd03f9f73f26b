//! Rows to JSON objects: the keys are the columns in their order.
//!
//! Values are written as Flink writes them: time stamps as `2013-01-01 10:00:00` (with a `T` for ISO-8601) and as many
//! digits of a fraction as there are, those with a zone in UTC with a `Z`; decimals as plain numbers with all digits of
//! their scale; bytes as base64. Floating point numbers have the fewest digits that are read back as the same number;
//! `NaN` and the infinities have no form in JSON and are an error.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};

use super::cells::{Cell, Cells, Kind, elements};
use super::text::{encode_base64, sql_name, write_decimal, write_float32, write_float64, write_integer};
use super::{Encoded, JsonOptions, RowEncoder, in_column, temporal};
use crate::error::{Error, Result};

/// Writes rows as objects.
pub struct JsonEncoder {
    options: JsonOptions,
    /// What precedes each column's value: `"name":`.
    keys: Vec<Vec<u8>>,
}

impl JsonEncoder {
    /// An encoder for batches of the given schema.
    pub fn new(schema: &Schema, options: JsonOptions) -> Result<Self> {
        for field in schema.fields() {
            let check = Cells::plain_type(field.data_type()).and_then(|t| check_type(&t));
            check.map_err(in_column(field.name()))?;
        }
        Ok(Self { options, keys: schema.fields().iter().map(|f| key(f.name())).collect() })
    }
}

impl RowEncoder for JsonEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Encoded) -> Result<()> {
        self.encode_between(batch, |_| ("", ""), out)
    }
}

impl JsonEncoder {
    /// Writes rows as objects, each between two texts.
    pub(super) fn encode_between(
        &self,
        batch: &RecordBatch,
        around: impl Fn(usize) -> (&'static str, &'static str),
        out: &mut Encoded,
    ) -> Result<()> {
        let cells = Cells::new(batch)?;
        if cells.columns.len() != self.keys.len() {
            let (found, want) = (cells.columns.len(), self.keys.len());
            return Err(Error::bug(format!("a batch of {found} columns for an encoder of {want}")));
        }
        let rows = out.len();
        for i in 0..batch.num_rows() {
            let (before, after) = around(i);
            out.bytes.extend_from_slice(before.as_bytes());
            let columns = self.keys.iter().zip(&cells.columns).map(|(key, (name, cell))| (key, name, cell));
            if let Err(error) = write_object(columns, i, &self.options, &mut out.bytes) {
                out.truncate(rows);
                return Err(error);
            }
            out.bytes.extend_from_slice(after.as_bytes());
            out.end_row();
        }
        Ok(())
    }
}

fn write_object<'a>(
    fields: impl Iterator<Item = (&'a Vec<u8>, &'a String, &'a Cell)>,
    i: usize,
    options: &JsonOptions,
    out: &mut Vec<u8>,
) -> Result<()> {
    let mut separator = b'{';
    for (key, name, cell) in fields {
        if options.ignore_null_fields && cell.is_null(i) {
            continue;
        }
        out.push(separator);
        out.extend_from_slice(key);
        write_value(cell, i, options, out).map_err(in_column(name))?;
        separator = b',';
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(())
}

fn write_value(cell: &Cell, i: usize, options: &JsonOptions, out: &mut Vec<u8>) -> Result<()> {
    if cell.is_null(i) {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    match &cell.kind {
        Kind::Null => out.extend_from_slice(b"null"),
        Kind::Boolean(v) => out.extend_from_slice(if v.value(i) { b"true" } else { b"false" }),
        Kind::Int8(v) => write_integer(v[i].into(), out),
        Kind::Int16(v) => write_integer(v[i].into(), out),
        Kind::Int32(v) => write_integer(v[i].into(), out),
        Kind::Int64(v) => write_integer(v[i], out),
        Kind::Float32(v) if v[i].is_finite() => write_float32(v[i], out)?,
        Kind::Float64(v) if v[i].is_finite() => write_float64(v[i], out)?,
        Kind::Float32(v) => return Err(no_float(v[i].into())),
        Kind::Float64(v) => return Err(no_float(v[i])),
        Kind::Decimal { values, scale } => write_decimal(values[i], *scale, out),
        Kind::Utf8(v) => write_string(v.value(i), out),
        Kind::Binary(v) => in_quotes(out, |out| encode_base64(v.value(i), out)),
        Kind::Date(v) => in_quotes(out, |out| temporal::write_date(v[i].into(), out)),
        Kind::Time(v) => in_quotes(out, |out| temporal::write_time(v[i], out)),
        Kind::Timestamp { values, unit, has_zone } => in_quotes(out, |out| {
            temporal::write_timestamp(values[i], *unit, if options.iso_8601 { b'T' } else { b' ' }, out);
            if *has_zone {
                out.push(b'Z');
            }
        }),
        Kind::List { offsets, item } => {
            let mut separator = b'[';
            for element in elements(offsets, i) {
                out.push(separator);
                write_value(item, element, options, out)?;
                separator = b',';
            }
            if separator == b'[' {
                out.push(b'[');
            }
            out.push(b']');
        }
        Kind::Struct(fields) => {
            write_object(fields.iter().map(|f| (&f.key, &f.name, &f.cell)), i, options, out)?;
        }
        Kind::Map { offsets, keys, values } => {
            // Never null: Arrow has no maps with null keys.
            let Kind::Utf8(strings) = &keys.kind else { return Err(Error::bug("a map whose keys are not strings")) };
            let mut separator = b'{';
            for entry in elements(offsets, i) {
                out.push(separator);
                write_string(strings.value(entry), out);
                out.push(b':');
                write_value(values, entry, options, out)?;
                separator = b',';
            }
            if separator == b'{' {
                out.push(b'{');
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn no_float(value: f64) -> Error {
    Error::data(format!("the value {value} has no form in JSON"))
        .hint("replace it in the query, for instance by NULLIF or CASE")
}

fn in_quotes(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// Bytes that a JSON string cannot have as they are.
const MUST_ESCAPE: [bool; 256] = {
    let mut must = [false; 256];
    let mut i = 0;
    while i < 0x20 {
        must[i] = true;
        i += 1;
    }
    must[b'"' as usize] = true;
    must[b'\\' as usize] = true;
    must
};

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| MUST_ESCAPE[usize::from(*b)]) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            control => {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(control >> 4), digit(control & 15)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// A key with its colon.
pub(super) fn key(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_string(name, &mut out);
    out.push(b':');
    out
}

fn check_type(data_type: &DataType) -> Result<()> {
    match data_type {
        DataType::List(item) => check_type(item.data_type()),
        DataType::Struct(fields) => fields.iter().try_for_each(|f| check_type(f.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 && *pair[0].data_type() == DataType::Utf8 => {
                check_type(pair[1].data_type())
            }
            _ => Err(Error::statement(format!(
                "the keys of a MAP in JSON are of type STRING, not as in {}",
                sql_name(data_type)
            ))
            .hint("CAST the keys to STRING")),
        },
        _ => Ok(()),
    }
}
