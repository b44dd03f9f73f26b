//! Rows that are turned away, with what a topic of such rows tells about them.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;

use crate::plan::Hidden;
use crate::time::TimeMs;

/// Where a row was read: what breaks ties between rows of one event time, and what names a rejected one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowOrigin {
    /// The source's place among the sources of the plan.
    pub source: u16,
    /// The index of the partition in the source.
    pub partition: u32,
    /// The offset.
    pub offset: i64,
}

impl RowOrigin {
    /// Bytes whose order is that of source, partition, offset.
    pub fn to_bytes(self) -> [u8; 14] {
        let mut bytes = [0_u8; 14];
        bytes[..2].copy_from_slice(&self.source.to_be_bytes());
        bytes[2..6].copy_from_slice(&self.partition.to_be_bytes());
        bytes[6..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// From such bytes.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (source, rest) = bytes.split_first_chunk()?;
        let (partition, offset) = rest.split_first_chunk()?;
        Some(Self {
            source: u16::from_be_bytes(*source),
            partition: u32::from_be_bytes(*partition),
            offset: i64::from_be_bytes(offset.try_into().ok()?),
        })
    }
}

/// A record as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRecord {
    /// The key's bytes, if it has any.
    pub key: Option<Vec<u8>>,
    /// The value's bytes.
    pub value: Vec<u8>,
}

impl RawRecord {
    /// Appends a record as the hidden column keeps it: the length of the key (or the greatest number for none), the key,
    /// the value.
    pub fn write(key: Option<&[u8]>, value: &[u8], to: &mut Vec<u8>) {
        let length = key.map_or(u32::MAX, |key| u32::try_from(key.len()).unwrap_or(u32::MAX - 1));
        to.extend_from_slice(&length.to_be_bytes());
        to.extend_from_slice(key.unwrap_or_default());
        to.extend_from_slice(value);
    }

    /// From such bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        match u32::from_be_bytes(*length) {
            u32::MAX => Some(Self { key: None, value: rest.to_vec() }),
            length => {
                let (key, value) = rest.split_at_checked(length as usize)?;
                Some(Self { key: Some(key.to_vec()), value: value.to_vec() })
            }
        }
    }
}

/// Why a row was turned away.
#[derive(Clone, Debug, PartialEq)]
pub enum Rejection {
    /// It is late for windows.
    Late {
        /// Its event time.
        time: TimeMs,
        /// The watermark of its partition before it.
        watermark: TimeMs,
        /// The windows that had closed: first instant, and first instant after.
        windows: Vec<(TimeMs, TimeMs)>,
        /// Whether it is in time for other windows, and used for those.
        partly: bool,
    },
    /// It does not decode, or an expression fails over it.
    Failed(String),
}

/// A row that was turned away and is wanted somewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// Where it was read.
    pub origin: RowOrigin,
    /// The record.
    pub record: RawRecord,
    /// Why.
    pub rejection: Rejection,
}

/// Finds origin and record of rows in batches of one layout.
#[derive(Clone, Copy, Debug)]
pub struct Reporter {
    tie: usize,
    raw: usize,
}

impl Reporter {
    /// For batches with so many visible columns; `None` where rows carry no records, because nobody wants them.
    pub fn new(visible: usize, hidden: Hidden) -> Option<Self> {
        Some(Self { tie: hidden.index(Hidden::TIE, visible)?, raw: hidden.index(Hidden::RAW, visible)? })
    }

    /// A rejected row of a batch, if its record is there.
    pub fn report(&self, batch: &RecordBatch, row: usize, rejection: impl FnOnce() -> Rejection) -> Option<Rejected> {
        let raw = batch.column(self.raw).as_binary_view();
        if raw.is_null(row) {
            return None;
        }
        let origin = RowOrigin::of_bytes(batch.column(self.tie).as_binary::<i32>().value(row))?;
        Some(Rejected { origin, record: RawRecord::read(raw.value(row))?, rejection: rejection() })
    }
}

/// The values of a hidden column of whole numbers.
pub(super) fn numbers(batch: &RecordBatch, column: usize) -> &[i64] {
    batch.column(column).as_primitive::<Int64Type>().values()
}
