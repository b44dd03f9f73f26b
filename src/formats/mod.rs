//! Bytes to and from record batches.
//!
//! Decoding is exact and per record: one payload is one row or one [`BadRecord`], and a bad one leaves no trace in
//! the columns, so its neighbours are untouched. Decoders append straight into column builders; nothing is allocated
//! per record. Encoders turn a batch into one slab of bytes with an offset per row.

use std::fmt;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;

use crate::error::Result;

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
}

/// Every option that a format knows.
pub const OPTION_KEYS: &[&str] = &[];

/// Those without effect.
pub const OPTION_KEYS_WITHOUT_EFFECT: &[&str] = &[];

/// A format with its options.
#[derive(Clone, Debug)]
pub struct Format;

impl Format {
    /// The format of this name, with its options from a table's, whose keys start with `prefix`.
    pub fn from_options(_name: &str, _options: &crate::catalog::options::Options, _prefix: &str) -> Result<Self> {
        Ok(Self)
    }

    /// A decoder that knows `all` columns and fills the `wanted` ones.
    pub fn decoder(&self, _all: &[DecodeColumn], _wanted: &[usize]) -> Result<Box<dyn RowDecoder>> {
        Err(crate::error::Error::bug("no formats yet"))
    }

    /// An encoder for rows of this schema.
    pub fn encoder(&self, _schema: &arrow::datatypes::Schema) -> Result<Box<dyn RowEncoder>> {
        Err(crate::error::Error::bug("no formats yet"))
    }

    /// Whether records that do not decode are skipped.
    pub fn ignores_parse_errors(&self) -> bool {
        false
    }
}
