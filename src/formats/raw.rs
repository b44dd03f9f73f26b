//! Raw values: the payload is the one column of the table.
//!
//! `STRING` (in UTF-8, or the record is bad), `BYTES`, `BOOLEAN` (one byte, true unless zero) and numbers in as many
//! bytes as they have, big-endian unless `'raw.endianness'` says otherwise. A null is written as no payload at all.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema};

use super::cells::{Cell, Cells, Kind};
use super::columns::{ColumnBuilder, Values};
use super::text::{Misfit, sql_name, utf8};
use super::{BadRecord, DecodeColumn, Encoded, RawOptions, RowDecoder, RowEncoder};
use crate::error::{Error, Result};
use crate::limits::PAYLOAD_BYTES_MAX;

/// Reads payloads into one column.
pub struct RawDecoder {
    name: String,
    column: ColumnBuilder,
    is_wanted: bool,
    little_endian: bool,
}

impl RawDecoder {
    /// A decoder for a table of one physical column. The payload is checked even if the column is not wanted.
    pub fn new(all: &[DecodeColumn], wanted: &[usize], options: &RawOptions) -> Result<Self> {
        let [column] = all else { return Err(not_one_column(all.len())) };
        check_type(&column.name, &column.data_type)?;
        Ok(Self {
            name: column.name.clone(),
            column: column.builder()?,
            is_wanted: !wanted.is_empty(),
            little_endian: options.little_endian,
        })
    }

    fn append(&mut self, payload: &[u8]) -> Result<(), String> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(format!("the record has {} bytes, more than {PAYLOAD_BYTES_MAX}", payload.len()));
        }
        let full = |_| Misfit::Full.describe(&DataType::Binary, "");
        let little = self.little_endian;
        match &mut self.column.values {
            Values::Utf8(v) => {
                utf8(payload)?;
                v.push(payload).map_err(full)?;
            }
            Values::Binary(v) => v.push(payload).map_err(full)?,
            Values::Boolean(v) => v.append(fixed::<1>(payload, little)? != [0]),
            Values::Int8(v) => v.push(i8::from_be_bytes(fixed(payload, little)?)),
            Values::Int16(v) => v.push(i16::from_be_bytes(fixed(payload, little)?)),
            Values::Int32(v) => v.push(i32::from_be_bytes(fixed(payload, little)?)),
            Values::Int64(v) => v.push(i64::from_be_bytes(fixed(payload, little)?)),
            Values::Float32(v) => v.push(f32::from_be_bytes(fixed(payload, little)?)),
            Values::Float64(v) => v.push(f64::from_be_bytes(fixed(payload, little)?)),
            _ => return Err(format!("{} has no raw form", sql_name(self.column.data_type()))),
        }
        self.column.nulls.append_non_null();
        Ok(())
    }
}

impl RowDecoder for RawDecoder {
    fn decode(&mut self, payload: &[u8]) -> Result<(), BadRecord> {
        let rows = self.column.len();
        self.append(payload).map_err(|reason| {
            self.column.truncate(rows);
            BadRecord(format!("column \"{}\": {reason}", self.name))
        })
    }

    fn len(&self) -> usize {
        self.column.len()
    }

    fn truncate(&mut self, len: usize) {
        self.column.truncate(len);
    }

    fn take(&mut self) -> Result<Vec<ArrayRef>> {
        let array = self.column.finish()?;
        Ok(if self.is_wanted { vec![array] } else { Vec::new() })
    }
}

/// The payload as big-endian bytes of a number.
fn fixed<const N: usize>(payload: &[u8], little_endian: bool) -> Result<[u8; N], String> {
    let mut bytes: [u8; N] = payload.try_into().map_err(|_| format!("expected {N} bytes, found {}", payload.len()))?;
    if little_endian {
        bytes.reverse();
    }
    Ok(bytes)
}

/// Writes one column as payloads.
pub struct RawEncoder {
    little_endian: bool,
}

impl RawEncoder {
    /// An encoder for batches of the given schema, which must have one column.
    pub fn new(schema: &Schema, options: &RawOptions) -> Result<Self> {
        let [field] = schema.fields().iter().as_slice() else { return Err(not_one_column(schema.fields().len())) };
        check_type(field.name(), &Cells::plain_type(field.data_type())?)?;
        Ok(Self { little_endian: options.little_endian })
    }
}

impl RowEncoder for RawEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Encoded) -> Result<()> {
        let cells = Cells::new(batch)?;
        let [(name, cell)] = cells.columns.as_slice() else { return Err(not_one_column(cells.columns.len())) };
        let rows = out.len();
        for i in 0..batch.num_rows() {
            if cell.is_null(i) {
                out.push_null();
                continue;
            }
            if !write(cell, i, self.little_endian, &mut out.bytes) {
                out.truncate(rows);
                return Err(Error::bug(format!("column \"{name}\" has no raw form")));
            }
            out.end_row();
        }
        Ok(())
    }
}

fn write(cell: &Cell, i: usize, little_endian: bool, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    match &cell.kind {
        Kind::Utf8(v) => out.extend_from_slice(v.value(i).as_bytes()),
        Kind::Binary(v) => out.extend_from_slice(v.value(i)),
        Kind::Boolean(v) => out.push(u8::from(v.value(i))),
        Kind::Int8(v) => out.extend_from_slice(&v[i].to_be_bytes()),
        Kind::Int16(v) => out.extend_from_slice(&v[i].to_be_bytes()),
        Kind::Int32(v) => out.extend_from_slice(&v[i].to_be_bytes()),
        Kind::Int64(v) => out.extend_from_slice(&v[i].to_be_bytes()),
        Kind::Float32(v) => out.extend_from_slice(&v[i].to_be_bytes()),
        Kind::Float64(v) => out.extend_from_slice(&v[i].to_be_bytes()),
        _ => return false,
    }
    if little_endian && !matches!(cell.kind, Kind::Utf8(_) | Kind::Binary(_)) {
        out[start..].reverse();
    }
    true
}

fn not_one_column(count: usize) -> Error {
    Error::statement(format!("the format 'raw' is for one physical column, and there are {count}"))
        .hint("declare one column, or use the format 'json' or 'csv'")
}

fn check_type(name: &str, data_type: &DataType) -> Result<()> {
    match data_type {
        DataType::Utf8
        | DataType::Binary
        | DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64 => Ok(()),
        other => Err(Error::statement(format!("column \"{name}\" of type {} has no raw form", sql_name(other)))
            .hint("the format 'raw' knows STRING, BYTES, BOOLEAN, integers, FLOAT and DOUBLE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;
    use std::sync::Arc;

    #[test]
    fn values_are_their_bytes() {
        for (data_type, little_endian, payload, want) in [
            (DataType::Utf8, false, &b"Hello 0"[..], Ok("Hello 0")),
            (DataType::Utf8, false, b"", Ok("")),
            (DataType::Utf8, false, b"a\xff", Err("column \"c\": not valid UTF-8 at byte 1")),
            (DataType::Binary, false, b"\xff\x00", Ok("ff00")),
            (DataType::Int32, false, b"\0\0\x01\0", Ok("256")),
            (DataType::Int32, true, b"\0\x01\0\0", Ok("256")),
            (DataType::Int64, false, b"\0", Err("column \"c\": expected 8 bytes, found 1")),
            (DataType::Boolean, false, b"\x01", Ok("true")),
            (DataType::Float64, false, b"\x3f\xf0\0\0\0\0\0\0", Ok("1.0")),
        ] {
            let all = [DecodeColumn { name: "c".into(), data_type: data_type.clone(), nullable: true }];
            let options = RawOptions { little_endian };
            let mut decoder = RawDecoder::new(&all, &[0], &options).unwrap();
            let got = decoder.decode(payload);
            let arrays = decoder.take().unwrap();
            assert_eq!(arrays[0].len(), usize::from(want.is_ok()));
            match want {
                Err(reason) => assert_eq!(got, Err(BadRecord(reason.into()))),
                Ok(shown) => {
                    assert_eq!(arrow::util::display::array_value_to_string(&arrays[0], 0).unwrap(), shown);
                    let schema = Arc::new(Schema::new(vec![Field::new("c", data_type, true)]));
                    let batch = RecordBatch::try_new(schema.clone(), arrays).unwrap();
                    let mut out = Encoded::default();
                    RawEncoder::new(&schema, &options).unwrap().encode(&batch, &mut out).unwrap();
                    assert_eq!(out.row(0), Some(payload));
                }
            }
        }
    }

    #[test]
    fn nulls_are_no_payload_and_other_tables_are_refused() {
        let schema = Arc::new(Schema::new(vec![Field::new("c", DataType::Utf8, true)]));
        let column: ArrayRef = Arc::new(arrow::array::StringArray::from(vec![Some("a"), None, Some("")]));
        let batch = RecordBatch::try_new(schema.clone(), vec![column.clone()]).unwrap();
        let options = RawOptions { little_endian: false };
        let mut out = Encoded::default();
        RawEncoder::new(&schema, &options).unwrap().encode(&batch, &mut out).unwrap();
        assert_eq!((out.row(0), out.row(1), out.row(2)), (Some(&b"a"[..]), None, Some(&b""[..])));

        let two = Schema::new(vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Utf8, true)]);
        assert!(RawEncoder::new(&two, &options).err().unwrap().message.contains("there are 2"));
        let date = Schema::new(vec![Field::new("a", DataType::Date32, true)]);
        assert!(RawEncoder::new(&date, &options).err().unwrap().message.contains("DATE"));
    }
}
