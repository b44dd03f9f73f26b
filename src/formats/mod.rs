//! Bytes to and from record batches.
//!
//! Decoding is exact and per record: one payload is one row or one [`BadRecord`], and a bad one leaves no trace in
//! the columns, so its neighbours are untouched. Decoders append straight into column builders; nothing is allocated
//! per record. Encoders turn a batch into one slab of bytes with an offset per row.
//!
//! A [`Format`] is what the options of a table say; it makes the decoder and the encoder. Each format has a file for
//! reading and one for writing; `columns` are the builders that decoders fill, `cells` what encoders read from,
//! `text` and `temporal` the spelling of values.

use std::fmt;

use arrow::array::{ArrayRef, Int8Array, RecordBatch};
use arrow::datatypes::{DataType, Schema};

use crate::catalog::options::{Options, invalid, nearest};
use crate::error::{Error, Result};
use crate::limits::BAD_RECORD_BYTES_SHOWN;

mod cells;
mod columns;
mod csv;
mod csv_write;
mod debezium;
mod json;
mod json_scan;
mod json_write;
mod raw;
mod temporal;
mod text;

#[cfg(test)]
mod json_tests;
#[cfg(test)]
mod tests;

pub use columns::ColumnBuilder;
pub use csv::CsvDecoder;
pub use csv_write::CsvEncoder;
pub use debezium::DebeziumEncoder;
pub use json::JsonDecoder;
pub use json_write::JsonEncoder;
pub use raw::{RawDecoder, RawEncoder};
pub(crate) use temporal::{is_date, moment_ms};

/// The formats there are.
pub const FORMATS: &[&str] = &["json", "csv", "raw", "debezium-json"];

const FORMATS_HINT: &str = "the formats are 'json', 'csv', 'raw', and 'debezium-json' for a table that is written to";

/// Flink's other formats: known by name, so that the answer is not a guess at a misspelling.
const FORMATS_TO_COME: &[&str] = &[
    "avro",
    "avro-confluent",
    "canal-json",
    "debezium-avro-confluent",
    "maxwell-json",
    "ogg-json",
    "orc",
    "parquet",
    "protobuf",
];

/// Every option that a format knows, without the prefix `key.` or `value.`.
pub const OPTION_KEYS: &[&str] = &[
    "csv.allow-comments",
    "csv.array-element-delimiter",
    "csv.disable-quote-character",
    "csv.escape-character",
    "csv.field-delimiter",
    "csv.ignore-parse-errors",
    "csv.null-literal",
    "csv.quote-character",
    "csv.write-bigdecimal-in-scientific-notation",
    "debezium-json.encode.decimal-as-plain-number",
    "debezium-json.encode.ignore-null-fields",
    "debezium-json.ignore-parse-errors",
    "debezium-json.map-null-key.literal",
    "debezium-json.map-null-key.mode",
    "debezium-json.schema-include",
    "debezium-json.timestamp-format.standard",
    "json.decode.json-parser.enabled",
    "json.encode.decimal-as-plain-number",
    "json.encode.ignore-null-fields",
    "json.fail-on-missing-field",
    "json.ignore-parse-errors",
    "json.map-null-key.literal",
    "json.map-null-key.mode",
    "json.timestamp-format.standard",
    "raw.charset",
    "raw.endianness",
];

/// Those of [`OPTION_KEYS`] that are accepted and change nothing: decimals are always written plain, there is one JSON
/// parser, and the keys of a map are never null.
pub const OPTION_KEYS_WITHOUT_EFFECT: &[&str] = &[
    "csv.write-bigdecimal-in-scientific-notation",
    "debezium-json.encode.decimal-as-plain-number",
    "debezium-json.map-null-key.literal",
    "debezium-json.map-null-key.mode",
    "json.decode.json-parser.enabled",
    "json.encode.decimal-as-plain-number",
    "json.map-null-key.literal",
    "json.map-null-key.mode",
];

/// How the key or the value of a record is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// One JSON object.
    Json(JsonOptions),
    /// One line of comma-separated values.
    Csv(CsvOptions),
    /// The bytes of one column.
    Raw(RawOptions),
    /// A change as one JSON object, which holds the row before or after it.
    DebeziumJson(JsonOptions),
}

/// Options of the format `json`.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonOptions {
    /// A missing field makes the record bad; else it is null.
    pub fail_on_missing_field: bool,
    /// Bad records are skipped.
    pub ignore_parse_errors: bool,
    /// Time stamps are written with a `T` between date and time; else with a space.
    pub iso_8601: bool,
    /// Null fields are left out; else they are written as `null`.
    pub ignore_null_fields: bool,
}

/// Options of the format `csv`. The characters are ASCII.
#[derive(Clone, Debug, PartialEq)]
pub struct CsvOptions {
    /// Between two fields.
    pub field_delimiter: u8,
    /// Around fields that contain special characters; `None` when quoting is disabled.
    pub quote: Option<u8>,
    /// Takes the special meaning from the character that follows.
    pub escape: Option<u8>,
    /// The text that stands for null.
    pub null_literal: Option<String>,
    /// Between two elements of an `ARRAY` or `ROW`.
    pub element_delimiter: String,
    /// Bad records are skipped.
    pub ignore_parse_errors: bool,
}

/// Options of the format `raw`.
#[derive(Clone, Debug, PartialEq)]
pub struct RawOptions {
    /// Numbers are little-endian; else big-endian.
    pub little_endian: bool,
}

impl Format {
    /// The format of the given name, with its options. Their keys carry `prefix`: nothing, `key.` or `value.`.
    pub fn from_options(name: &str, options: &Options, prefix: &str) -> Result<Self> {
        let options = Scoped { options, prefix };
        match name {
            "json" => Ok(Self::Json(json_options(&options, name)?)),
            "csv" => Ok(Self::Csv(csv_options(&options)?)),
            "raw" => Ok(Self::Raw(raw_options(&options)?)),
            "debezium-json" => Ok(Self::DebeziumJson(debezium_options(&options, name)?)),
            _ if FORMATS_TO_COME.contains(&name) => {
                Err(Error::statement(format!("the format '{name}' is not available yet")).hint(FORMATS_HINT))
            }
            _ => {
                let error = Error::statement(format!("there is no format '{name}'"));
                Err(match nearest(name, FORMATS.iter().copied()) {
                    Some(near) => error.hint(format!("did you mean '{near}'?")),
                    None => error.hint(FORMATS_HINT),
                })
            }
        }
    }

    /// The name of the format.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::Csv(_) => "csv",
            Self::Raw(_) => "raw",
            Self::DebeziumJson(_) => "debezium-json",
        }
    }

    /// Whether records can say that a row has changed or is gone, not only that there is a new one.
    pub fn has_changes(&self) -> bool {
        matches!(self, Self::DebeziumJson(_))
    }

    /// A decoder. `all` are the columns of the record in their order, `wanted` those to read, each once; the decoder's
    /// columns come in the order of `wanted`.
    pub fn decoder(&self, all: &[DecodeColumn], wanted: &[usize]) -> Result<Box<dyn RowDecoder>> {
        for (position, i) in wanted.iter().enumerate() {
            if *i >= all.len() || wanted[..position].contains(i) {
                return Err(Error::bug(format!("column {i} of {} is wanted, or twice", all.len())));
            }
        }
        Ok(match self {
            Self::Json(options) => {
                let columns: Vec<_> = wanted.iter().map(|i| all[*i].clone()).collect();
                Box::new(JsonDecoder::new(&columns, options.fail_on_missing_field)?)
            }
            Self::Csv(options) => Box::new(CsvDecoder::new(all, wanted, options.clone())?),
            Self::Raw(options) => Box::new(RawDecoder::new(all, wanted, options)?),
            Self::DebeziumJson(_) => {
                return Err(Error::statement(
                    "the format 'debezium-json' can only be written: reading a changelog is \
                                             not available yet",
                )
                .hint(
                    "'format' = 'json' reads the records as they are, with the columns `before` ROW<..>, `after` \
                     ROW<..> and `op` STRING",
                ));
            }
        })
    }

    /// An encoder for batches of the given schema.
    pub fn encoder(&self, schema: &Schema) -> Result<Box<dyn RowEncoder>> {
        Ok(match self {
            Self::Json(options) => Box::new(JsonEncoder::new(schema, options.clone())?),
            Self::Csv(options) => Box::new(CsvEncoder::new(schema, options.clone())?),
            Self::Raw(options) => Box::new(RawEncoder::new(schema, options)?),
            Self::DebeziumJson(options) => Box::new(DebeziumEncoder::new(schema, options.clone())?),
        })
    }

    /// Whether the options of the format say to skip bad records, whatever the table's error policy is.
    pub fn ignores_parse_errors(&self) -> bool {
        match self {
            Self::Json(options) | Self::DebeziumJson(options) => options.ignore_parse_errors,
            Self::Csv(options) => options.ignore_parse_errors,
            Self::Raw(_) => false,
        }
    }
}

/// Options whose keys have a prefix.
struct Scoped<'a> {
    options: &'a Options,
    prefix: &'a str,
}

impl<'a> Scoped<'a> {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.options.get(&self.key(key))
    }

    fn bool(&self, key: &str, default: bool) -> Result<bool> {
        self.options.bool(&self.key(key), default)
    }

    fn choice(&self, key: &str, allowed: &[&'static str]) -> Result<&'static str> {
        self.options.choice(&self.key(key), allowed)
    }

    /// One ASCII character, which may be written as `\\t` or `\\u0001`.
    fn character(&self, key: &str) -> Result<Option<u8>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let character = match value.as_bytes() {
            b"\\t" => Some(b'\t'),
            b"\\\\" => Some(b'\\'),
            [b'\\', b'u', hex @ ..] if hex.len() == 4 => u8::from_str_radix(&value[2..], 16).ok(),
            [character] => Some(*character),
            _ => None,
        };
        match character {
            Some(c) if c.is_ascii() && !matches!(c, b'\r' | b'\n') => Ok(Some(c)),
            _ => Err(invalid(&self.key(key), value, "one ASCII character, or '\\t', or one such as '\\u0001'")),
        }
    }
}

/// Options of JSON, whose keys start with the format's name.
fn json_options(options: &Scoped<'_>, format: &str) -> Result<JsonOptions> {
    let key = |key: &str| format!("{format}.{key}");
    let fail_on_missing_field = options.bool(&key("fail-on-missing-field"), false)?;
    let ignore_parse_errors = options.bool(&key("ignore-parse-errors"), false)?;
    if fail_on_missing_field && ignore_parse_errors {
        let (a, b) = (options.key(&key("fail-on-missing-field")), options.key(&key("ignore-parse-errors")));
        return Err(Error::statement(format!("'{a}' and '{b}' contradict each other")).hint("set only one to 'true'"));
    }
    options.bool(&key("decode.json-parser.enabled"), true)?;
    options.bool(&key("encode.decimal-as-plain-number"), true)?;
    options.choice(&key("map-null-key.mode"), &["FAIL", "DROP", "LITERAL"])?;
    Ok(JsonOptions {
        fail_on_missing_field,
        ignore_parse_errors,
        iso_8601: options.choice(&key("timestamp-format.standard"), &["SQL", "ISO-8601"])? == "ISO-8601",
        ignore_null_fields: options.bool(&key("encode.ignore-null-fields"), false)?,
    })
}

fn debezium_options(options: &Scoped<'_>, format: &str) -> Result<JsonOptions> {
    if options.bool("debezium-json.schema-include", false)? {
        let key = options.key("debezium-json.schema-include");
        return Err(Error::statement(format!("'{key}' = 'true' is not available"))
            .hint("records are written without their schema: remove the option"));
    }
    json_options(options, format)
}

fn csv_options(options: &Scoped<'_>) -> Result<CsvOptions> {
    if options.bool("csv.allow-comments", false)? {
        return Err(Error::statement(format!("'{}' is not available", options.key("csv.allow-comments")))
            .hint("every record is a row here; set 'scan.on-error' = 'skip' to pass over those that are none"));
    }
    options.bool("csv.write-bigdecimal-in-scientific-notation", true)?;
    let unquoted = options.bool("csv.disable-quote-character", false)?;
    let quote = options.character("csv.quote-character")?;
    if unquoted && quote.is_some() {
        let (a, b) = (options.key("csv.disable-quote-character"), options.key("csv.quote-character"));
        return Err(Error::statement(format!("'{a}' and '{b}' contradict each other")).hint("set only one of them"));
    }
    let parsed = CsvOptions {
        field_delimiter: options.character("csv.field-delimiter")?.unwrap_or(b','),
        quote: if unquoted { None } else { Some(quote.unwrap_or(b'"')) },
        escape: options.character("csv.escape-character")?,
        null_literal: options.get("csv.null-literal").map(str::to_string),
        element_delimiter: options.get("csv.array-element-delimiter").unwrap_or(";").to_string(),
        ignore_parse_errors: options.bool("csv.ignore-parse-errors", false)?,
    };
    let special = [Some(parsed.field_delimiter), parsed.quote, parsed.escape];
    if (0..3).any(|i| special[i].is_some() && special[i + 1..].contains(&special[i])) {
        return Err(Error::statement("the field delimiter, the quote and the escape character of CSV must differ")
            .hint(format!("set '{}' to another character", options.key("csv.field-delimiter"))));
    }
    if parsed.element_delimiter.is_empty() {
        return Err(invalid(&options.key("csv.array-element-delimiter"), "", "at least one character"));
    }
    Ok(parsed)
}

fn raw_options(options: &Scoped<'_>) -> Result<RawOptions> {
    if let Some(charset) = options.get("raw.charset").filter(|c| !c.eq_ignore_ascii_case("utf-8")) {
        return Err(invalid(&options.key("raw.charset"), charset, "'UTF-8', the only character set here"));
    }
    Ok(RawOptions {
        little_endian: options.choice("raw.endianness", &["big-endian", "little-endian"])? == "little-endian",
    })
}

/// The beginning of a text for a message: on one line, and not too long.
fn excerpt(text: &str) -> String {
    let end = (0..=text.len().min(BAD_RECORD_BYTES_SHOWN)).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    let mut shown = String::new();
    for character in text[..end].chars() {
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    if end < text.len() {
        shown.push_str("..");
    }
    shown
}

/// Adds the column to an error about its type.
fn in_column(name: &str) -> impl FnOnce(Error) -> Error {
    move |mut error| {
        error.message = format!("column \"{name}\": {}", error.message);
        error
    }
}

/// A column that a decoder fills.
#[derive(Clone, Debug)]
pub struct DecodeColumn {
    /// The field's name in the record.
    pub name: String,
    /// The type that values must have.
    pub data_type: DataType,
    /// Whether a missing field or a null is a value; else it makes the record bad.
    pub nullable: bool,
}

impl DecodeColumn {
    fn builder(&self) -> Result<ColumnBuilder> {
        ColumnBuilder::new(&self.data_type).map_err(in_column(&self.name))
    }
}

/// Why a payload is not a row. A value, not a failure: the table's error policy decides what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord(pub String);

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Payloads in, columns out.
pub trait RowDecoder: Send {
    /// Appends exactly one row, or nothing and the reason.
    fn decode(&mut self, payload: &[u8]) -> Result<(), BadRecord>;

    /// Rows appended since the last [`take`](Self::take).
    fn len(&self) -> usize;

    /// Whether no row was appended since the last [`take`](Self::take).
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the rows from `len` on: another part of the same record was bad.
    fn truncate(&mut self, len: usize);

    /// The columns in the order they were asked for, each of [`len`](Self::len) rows; the decoder is empty afterwards.
    fn take(&mut self) -> Result<Vec<ArrayRef>>;
}

/// Encoded rows: one slab of bytes, an end offset per row, and which rows are null (no bytes at all, not empty ones).
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// The bytes of all rows, one after the other, without separators.
    pub bytes: Vec<u8>,
    /// Where each row ends in `bytes`.
    pub ends: Vec<usize>,
    /// Rows that are null; empty when none is.
    pub nulls: Vec<bool>,
}

impl Encoded {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Ends a row whose bytes were appended to `bytes`.
    pub fn end_row(&mut self) {
        self.ends.push(self.bytes.len());
        if !self.nulls.is_empty() {
            self.nulls.push(false);
        }
    }

    /// Appends a null row.
    pub fn push_null(&mut self) {
        self.nulls.resize(self.ends.len(), false);
        self.nulls.push(true);
        self.ends.push(self.bytes.len());
    }

    /// Removes the rows from `len` on, and bytes that belong to none.
    pub fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.nulls.truncate(len);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// Removes all rows and keeps the room for as many.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// The bytes of a row; `None` for a null one.
    pub fn row(&self, i: usize) -> Option<&[u8]> {
        if self.nulls.get(i).copied().unwrap_or(false) {
            return None;
        }
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        Some(&self.bytes[start..self.ends[i]])
    }
}

/// Columns in, payloads out.
pub trait RowEncoder: Send {
    /// Appends one payload per row of `batch` to `out`. All columns of the batch are written, in their order.
    fn encode(&mut self, batch: &RecordBatch, out: &mut Encoded) -> Result<()>;

    /// The same for a changelog, of which each row has its [kind](crate::change::RowKind). Only formats that
    /// [have changes](Format::has_changes) can.
    fn encode_changes(&mut self, _batch: &RecordBatch, _kinds: &Int8Array, _out: &mut Encoded) -> Result<()> {
        Err(Error::bug("a changelog in a format of plain rows"))
    }
}
