//! Lines of comma-separated values to rows.
//!
//! One payload is one line with one field per column of the table, in their order; a line break at its end is taken
//! off. Fewer or more fields, a quote that is not closed and a second line make a bad record. The usual CSV readers
//! repair all of these silently, and forget whether a field was quoted, so this one is our own: a quoted field may
//! hold delimiters and line breaks, a doubled quote in it is one quote, and where an escape character is set it takes
//! the next character as it is (`n`, `r`, `t` and `0` stand for the control characters).
//!
//! An empty field without quotes is null, except in a `STRING` column, where it is the empty string (as in Flink);
//! `'csv.null-literal'` is null everywhere. Values are spelled as in JSON strings; numbers may have spaces around
//! them, `NaN` and `Infinity` are read too, whole numbers in time columns are milliseconds since the epoch. `ARRAY`
//! and `ROW` are one field, their elements parted by `'csv.array-element-delimiter'`.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use super::columns::{ColumnBuilder, Values, end_list};
use super::text::{self, Misfit, sql_name};
use super::{BadRecord, CsvOptions, DecodeColumn, RowDecoder, excerpt};
use crate::error::{Error, Result};
use crate::limits::PAYLOAD_BYTES_MAX;

/// Reads lines into columns.
pub struct CsvDecoder {
    /// All fields of a line.
    fields: Vec<Field>,
    columns: Vec<ColumnBuilder>,
    rows: usize,
    options: CsvOptions,
    /// The text of a field that has quotes or escapes in it.
    scratch: Vec<u8>,
}

struct Field {
    name: String,
    nullable: bool,
    /// Which of the columns it goes to; none when it is not wanted.
    column: Option<usize>,
}

impl CsvDecoder {
    /// A decoder for lines with the fields `all`, of which it reads those at `wanted`.
    pub fn new(all: &[DecodeColumn], wanted: &[usize], options: CsvOptions) -> Result<Self> {
        for column in wanted.iter().map(|i| &all[*i]) {
            check_type(&column.name, &column.data_type)?;
        }
        let fields = all.iter().enumerate().map(|(i, c)| Field {
            name: c.name.clone(),
            nullable: c.nullable,
            column: wanted.iter().position(|w| *w == i),
        });
        Ok(Self {
            fields: fields.collect(),
            columns: wanted.iter().map(|i| all[*i].builder()).collect::<Result<_>>()?,
            rows: 0,
            options,
            scratch: Vec::new(),
        })
    }

    fn read(&mut self, payload: &[u8]) -> Result<(), String> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(format!("the record has {} bytes, more than {PAYLOAD_BYTES_MAX}", payload.len()));
        }
        let line = text::utf8(payload)?;
        let mut rest = Some(line);
        for (i, field) in self.fields.iter().enumerate() {
            let Some(line) = rest else {
                return Err(format!("expected {} fields, found {i}", self.fields.len()));
            };
            let read = next_field(line, &self.options, &mut self.scratch)?;
            rest = read.rest;
            let Some(column) = field.column else { continue };
            let text = match read.text {
                Some(text) => text,
                None => std::str::from_utf8(&self.scratch).map_err(|_| "not valid UTF-8".to_string())?,
            };
            append_field(&mut self.columns[column], text, read.is_quoted, field.nullable, &self.options)
                .map_err(|reason| format!("column \"{}\": {reason}", field.name))?;
        }
        if rest.is_some() {
            return Err(format!("expected {} fields, found more", self.fields.len()));
        }
        Ok(())
    }
}

impl RowDecoder for CsvDecoder {
    fn decode(&mut self, payload: &[u8]) -> Result<(), BadRecord> {
        match self.read(payload) {
            Ok(()) => {
                self.rows += 1;
                debug_assert!(self.columns.iter().all(|c| c.len() == self.rows));
                Ok(())
            }
            Err(reason) => {
                self.truncate(self.rows);
                Err(BadRecord(reason))
            }
        }
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn truncate(&mut self, len: usize) {
        self.columns.iter_mut().for_each(|c| c.truncate(len));
        self.rows = len;
    }

    fn take(&mut self) -> Result<Vec<ArrayRef>> {
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        self.truncate(0);
        arrays
    }
}

/// A field, and the line after its delimiter; no rest when it was the last.
struct FieldRead<'a> {
    /// `None`: the text is in the scratch buffer.
    text: Option<&'a str>,
    is_quoted: bool,
    rest: Option<&'a str>,
}

fn next_field<'a>(line: &'a str, options: &CsvOptions, scratch: &mut Vec<u8>) -> Result<FieldRead<'a>, String> {
    let bytes = line.as_bytes();
    let is_quoted = options.quote.is_some() && bytes.first().copied() == options.quote;
    let mut at = usize::from(is_quoted);
    // The first byte that is not in the scratch buffer yet.
    let mut start = at;
    let mut is_changed = false;
    let end = loop {
        let byte = bytes.get(at).copied();
        match byte {
            None if is_quoted => return Err("a quote is not closed".to_string()),
            None => break at,
            Some(_) if byte == options.escape => {
                if !is_changed {
                    scratch.clear();
                }
                is_changed = true;
                scratch.extend_from_slice(&bytes[start..at]);
                match bytes.get(at + 1) {
                    None => return Err("nothing follows the escape character".to_string()),
                    Some(b'n') => scratch.push(b'\n'),
                    Some(b'r') => scratch.push(b'\r'),
                    Some(b't') => scratch.push(b'\t'),
                    Some(b'0') => scratch.push(0),
                    // Of a longer character the other bytes follow by themselves.
                    Some(other) => scratch.push(*other),
                }
                at += 2;
                start = at;
            }
            Some(_) if is_quoted && byte == options.quote => {
                if bytes.get(at + 1).copied() != options.quote {
                    break at;
                }
                if !is_changed {
                    scratch.clear();
                }
                is_changed = true;
                scratch.extend_from_slice(&bytes[start..=at]);
                at += 2;
                start = at;
            }
            Some(_) if is_quoted => at += 1,
            Some(b) if b == options.field_delimiter || matches!(b, b'\n' | b'\r') => break at,
            Some(_) => at += 1,
        }
    };
    if is_changed {
        scratch.extend_from_slice(&bytes[start..end]);
    }
    let text = if is_changed { None } else { Some(&line[start..end]) };
    let after = if is_quoted { line[end + 1..].trim_start_matches(' ') } else { &line[end..] };
    let rest = match after.as_bytes() {
        [] | b"\n" | b"\r\n" | b"\r" => None,
        [delimiter, ..] if *delimiter == options.field_delimiter => Some(&after[1..]),
        [b'\n' | b'\r', ..] => return Err("the record has more than one line".to_string()),
        _ => return Err(format!("text after a closing quote: {}", excerpt(after))),
    };
    Ok(FieldRead { text, is_quoted, rest })
}

fn append_field(
    column: &mut ColumnBuilder,
    text: &str,
    is_quoted: bool,
    nullable: bool,
    options: &CsvOptions,
) -> Result<(), String> {
    if is_null(column, text, is_quoted, options) {
        return append_null(column, nullable);
    }
    match &mut column.values {
        Values::List { offsets, item, field } => {
            if !text.is_empty() {
                for part in text.split(&options.element_delimiter) {
                    append_field(item, part, false, field.is_nullable(), options)?;
                }
            }
            end_list(offsets, item.len()).map_err(|_| Misfit::Full.describe(column.data_type(), ""))?;
        }
        Values::Struct { fields, children } => {
            let count = text.split(&options.element_delimiter).count();
            if count != children.len() {
                return Err(format!("expected {} elements, found {count}", children.len()));
            }
            for ((part, child), field) in text.split(&options.element_delimiter).zip(children).zip(fields.iter()) {
                append_field(child, part, false, field.is_nullable(), options)?;
            }
        }
        _ => {
            return append_scalar(column, text).map_err(|why| why.describe(column.data_type(), &quoted(text)));
        }
    }
    column.nulls.append_non_null();
    Ok(())
}

fn is_null(column: &ColumnBuilder, text: &str, is_quoted: bool, options: &CsvOptions) -> bool {
    let is_empty = text.is_empty() && !is_quoted && *column.data_type() != DataType::Utf8;
    is_empty || options.null_literal.as_deref() == Some(text)
}

fn append_null(column: &mut ColumnBuilder, nullable: bool) -> Result<(), String> {
    if !nullable {
        return Err("null in a NOT NULL column".to_string());
    }
    column.append_null();
    Ok(())
}

fn append_scalar(column: &mut ColumnBuilder, text: &str) -> Result<(), Misfit> {
    match &mut column.values {
        Values::Float32(v) => match special_float(text) {
            // Both have these values exactly.
            Some(special) => v.push(special as f32),
            None => return text::append_text(column, text),
        },
        Values::Float64(v) => match special_float(text) {
            Some(special) => v.push(special),
            None => return text::append_text(column, text),
        },
        Values::Timestamp { .. } if text.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()) => {
            return text::append_number(column, text);
        }
        _ => return text::append_text(column, text),
    }
    column.nulls.append_non_null();
    Ok(())
}

fn special_float(text: &str) -> Option<f64> {
    match text.trim_ascii() {
        "NaN" => Some(f64::NAN),
        "Infinity" | "+Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", excerpt(text))
}

/// Errors unless one field can hold a value of the type: no `MAP`, and only scalars in `ARRAY` and `ROW`.
pub(super) fn check_type(name: &str, data_type: &DataType) -> Result<()> {
    let is_nested = |t: &DataType| matches!(t, DataType::List(_) | DataType::Struct(_) | DataType::Map(..));
    let fits = match data_type {
        DataType::Map(..) => false,
        DataType::List(item) => !is_nested(item.data_type()),
        DataType::Struct(fields) => !fields.is_empty() && fields.iter().all(|f| !is_nested(f.data_type())),
        _ => true,
    };
    if fits {
        return Ok(());
    }
    Err(Error::statement(format!("column \"{name}\" of type {} does not fit into a CSV field", sql_name(data_type)))
        .hint("CSV knows scalars, and ARRAY and ROW of scalars; use the format 'json'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::options::Options;
    use crate::formats::Format;
    use arrow::datatypes::{Field as ArrowField, TimeUnit};
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    use std::sync::Arc;

    /// Decodes one line of the given types and shows the row, or the reason.
    fn read(types: &[DataType], options: &[(&str, &str)], line: &str) -> String {
        let all: Vec<_> = types
            .iter()
            .enumerate()
            .map(|(i, t)| DecodeColumn { name: format!("c{i}"), data_type: t.clone(), nullable: true })
            .collect();
        let pairs = options.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let format = Format::from_options("csv", &Options::from_pairs(pairs), "").unwrap();
        let wanted: Vec<_> = (0..all.len()).collect();
        let mut decoder = format.decoder(&all, &wanted).unwrap();
        if let Err(bad) = decoder.decode(line.as_bytes()) {
            assert!(decoder.take().unwrap().iter().all(|c| c.is_empty()));
            return bad.to_string();
        }
        let display = FormatOptions::default().with_null("NULL");
        let show = |c: &ArrayRef| ArrayFormatter::try_new(c, &display).unwrap().value(0).to_string();
        decoder.take().unwrap().iter().map(show).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn a_line_is_exactly_one_record() {
        let types = [DataType::Int32, DataType::Utf8];
        for (line, want) in [
            ("1,a", "1|a"),
            ("1,a\n", "1|a"),
            ("1,a\r\n", "1|a"),
            (" 1 , a ", "1| a "),
            ("1,\"a,b\"", "1|a,b"),
            ("1,\"a\nb\"", "1|a\nb"),
            ("1,\"say \"\"hi\"\"\" ", "1|say \"hi\""),
            ("\"1\",5\" pipe", "1|5\" pipe"),
            ("1,é", "1|é"),
            (",", "NULL|"),
            ("1,\"\"", "1|"),
            ("\"\",a", "column \"c0\": expected INT, found ''"),
            ("1", "expected 2 fields, found 1"),
            ("", "expected 2 fields, found 1"),
            ("1,a,b", "expected 2 fields, found more"),
            ("1,a,", "expected 2 fields, found more"),
            ("1,\"a", "a quote is not closed"),
            ("1,\"a\"b", "text after a closing quote: b"),
            ("1,a\n2,b", "the record has more than one line"),
            ("1,a\n\n", "the record has more than one line"),
            ("x,a", "column \"c0\": expected INT, found 'x'"),
            ("1.5,a", "column \"c0\": expected INT, found '1.5'"),
            ("3000000000,a", "column \"c0\": '3000000000' is out of range for INT"),
        ] {
            assert_eq!(read(&types, &[], line), want, "{line:?}");
        }
    }

    #[test]
    fn options_change_the_spelling() {
        let types = [DataType::Int32, DataType::Utf8];
        for (options, line, want) in [
            (&[("csv.field-delimiter", "\\t")][..], "1\ta,b", "1|a,b"),
            (&[("csv.field-delimiter", ";")], "1;a,b", "1|a,b"),
            (&[("csv.field-delimiter", "\\u0001")], "1\u{1}a", "1|a"),
            (&[("csv.quote-character", "'")], "1,'it''s'", "1|it's"),
            (&[("csv.disable-quote-character", "true")], "1,\"a\"", "1|\"a\""),
            (&[("csv.escape-character", "\\")], "1,a\\,b\\n\\é", "1|a,b\né"),
            (&[("csv.escape-character", "\\")], "1,\"a\\\"b\"", "1|a\"b"),
            (&[("csv.escape-character", "\\")], "1,a\\", "nothing follows the escape character"),
            (&[("csv.null-literal", "n/a")], "n/a,n/a", "NULL|NULL"),
            (&[("csv.null-literal", "")], ",", "NULL|NULL"),
        ] {
            assert_eq!(read(&types, options, line), want, "{options:?} {line:?}");
        }
    }

    #[test]
    fn fields_of_all_types() {
        let item = |t| Arc::new(ArrowField::new("item", t, true));
        let row = [ArrowField::new("a", DataType::Int64, true), ArrowField::new("b", DataType::Utf8, true)];
        let ms = DataType::Timestamp(TimeUnit::Millisecond, None);
        for (data_type, line, want) in [
            (DataType::Boolean, "TRUE", "true"),
            (DataType::Boolean, "yes", "column \"c0\": expected BOOLEAN, found 'yes'"),
            (DataType::Float64, "NaN", "NaN"),
            (DataType::Float32, "-Infinity", "-inf"),
            (DataType::Float64, "1e400", "column \"c0\": '1e400' is out of range for DOUBLE"),
            (DataType::Decimal128(5, 2), "1.005", "1.01"),
            (DataType::Date32, "2013-01-31", "2013-01-31"),
            (ms.clone(), "2013-01-01 10:00:00.5", "2013-01-01T10:00:00.500"),
            (ms.clone(), "1357034400000", "2013-01-01T10:00:00"),
            (ms, "-", "column \"c0\": expected TIMESTAMP(3), found '-'"),
            (DataType::Binary, "Zm9v", "666f6f"),
            (DataType::List(item(DataType::Int32)), "1;2;;3", "[1, 2, NULL, 3]"),
            (DataType::List(item(DataType::Int32)), "\"\"", "[]"),
            (DataType::List(item(DataType::Int32)), "1;x", "column \"c0\": expected INT, found 'x'"),
            (DataType::Struct(row.to_vec().into()), "1;x", "{a: 1, b: x}"),
            (DataType::Struct(row.to_vec().into()), "1;x;y", "column \"c0\": expected 2 elements, found 3"),
        ] {
            assert_eq!(read(&[data_type], &[], line), want, "{line:?}");
        }
    }

    #[test]
    fn only_wanted_fields_are_read() {
        let columns =
            ["a", "b", "c"].map(|n| DecodeColumn { name: n.into(), data_type: DataType::Int32, nullable: n == "a" });
        let format = Format::from_options("csv", &Options::default(), "").unwrap();
        let mut decoder = format.decoder(&columns, &[2, 0]).unwrap();
        decoder.decode(b"1,not a number,3").unwrap();
        decoder.decode(b"4,5,x").unwrap_err();
        assert_eq!(decoder.decode(b"4,5,"), Err(BadRecord("column \"c\": null in a NOT NULL column".into())));
        decoder.decode(b",5,6").unwrap();
        assert_eq!(decoder.len(), 2);
        let columns = decoder.take().unwrap();
        assert_eq!(format!("{:?}", columns[0]), "PrimitiveArray<Int32>\n[\n  3,\n  6,\n]");
        assert_eq!(format!("{:?}", columns[1]), "PrimitiveArray<Int32>\n[\n  1,\n  null,\n]");
    }
}
