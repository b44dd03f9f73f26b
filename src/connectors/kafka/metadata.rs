//! Metadata columns: what Kafka itself says about a record.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, MapArray, StringArray, StringBuilder, StructArray,
    TimestampMillisecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Fields};

use super::batch::{Record, TimestampKind};
use crate::error::{Error, Result};
use crate::time::is_admissible;

/// The properties that a column may show.
pub const KEYS: &[&str] = &["topic", "partition", "offset", "timestamp", "timestamp-type", "headers"];

/// Collects one property of the records of one partition.
pub enum Metadata {
    Topic,
    Partition(DataType),
    Offset(DataType, Vec<i64>),
    Timestamp(DataType, Vec<Option<i64>>),
    TimestampType(Vec<&'static str>),
    Headers(Box<Headers>),
}

/// Headers under construction: of each name the last value, as in Flink.
pub struct Headers {
    entries: FieldRef,
    pair: Fields,
    /// Values are shown as text instead of bytes.
    as_text: bool,
    names: StringBuilder,
    bytes: BinaryBuilder,
    text: StringBuilder,
    ends: Vec<i32>,
    count: i32,
}

impl Metadata {
    /// A builder for a property, shown as a type. The property is known to be one of [`KEYS`].
    pub fn new(key: &str, data_type: &DataType) -> Result<Self> {
        let fits = |ok: bool, want: &str| {
            if ok {
                return Ok(());
            }
            Err(Error::statement(format!("the metadata column '{key}' cannot have this type"))
                .hint(format!("declare it {want}")))
        };
        let is_integer = matches!(data_type, DataType::Int32 | DataType::Int64);
        match key {
            "topic" => {
                fits(*data_type == DataType::Utf8, "STRING")?;
                Ok(Self::Topic)
            }
            "partition" => {
                fits(is_integer, "INT")?;
                Ok(Self::Partition(data_type.clone()))
            }
            "offset" => {
                fits(*data_type == DataType::Int64, "BIGINT")?;
                Ok(Self::Offset(data_type.clone(), Vec::new()))
            }
            "timestamp" => {
                let ok = matches!(data_type, DataType::Timestamp(..) | DataType::Int64);
                fits(ok, "TIMESTAMP_LTZ(3)")?;
                Ok(Self::Timestamp(data_type.clone(), Vec::new()))
            }
            "timestamp-type" => {
                fits(*data_type == DataType::Utf8, "STRING")?;
                Ok(Self::TimestampType(Vec::new()))
            }
            "headers" => match Headers::new(data_type) {
                Some(headers) => Ok(Self::Headers(Box::new(headers))),
                None => fits(false, "MAP<STRING, BYTES>").map(|()| Self::Topic),
            },
            _ => Err(Error::bug(format!("no metadata '{key}'"))),
        }
    }

    /// Whether a record's own time may enter the engine; a producer can write any number.
    pub fn admits(&self, record: &Record<'_>) -> bool {
        !matches!(self, Self::Timestamp(..)) || is_admissible(record.timestamp().0)
    }

    /// Adds what the record says.
    pub fn push(&mut self, record: &Record<'_>) {
        match self {
            // The same for all records of a batch.
            Self::Topic | Self::Partition(_) => {}
            Self::Offset(_, offsets) => offsets.push(record.offset()),
            Self::Timestamp(_, times) => {
                let (time, kind) = record.timestamp();
                times.push((kind != TimestampKind::None).then_some(time));
            }
            Self::TimestampType(kinds) => kinds.push(match record.timestamp().1 {
                TimestampKind::None => "NoTimestampType",
                TimestampKind::Create => "CreateTime",
                TimestampKind::LogAppend => "LogAppendTime",
            }),
            Self::Headers(headers) => headers.push(record),
        }
    }

    /// The column of all records since the last time.
    pub fn take(&mut self, topic: &str, partition: i32, rows: usize) -> Result<ArrayRef> {
        Ok(match self {
            Self::Topic => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(topic, rows))),
            Self::Partition(data_type) => cast(&Int32Array::from_value(partition, rows), data_type)?,
            Self::Offset(data_type, offsets) => cast(&Int64Array::from(std::mem::take(offsets)), data_type)?,
            Self::Timestamp(data_type, times) => {
                let times = TimestampMillisecondArray::from(std::mem::take(times));
                match data_type {
                    // A wall clock shows UTC.
                    DataType::Timestamp(_, zone) => cast(&times.with_timezone_opt(zone.clone()), data_type)?,
                    _ => cast(&times, data_type)?,
                }
            }
            Self::TimestampType(kinds) => Arc::new(StringArray::from(std::mem::take(kinds))),
            Self::Headers(headers) => headers.take()?,
        })
    }
}

impl Headers {
    /// `None` when the type is not a map from text to bytes or text.
    fn new(data_type: &DataType) -> Option<Self> {
        let DataType::Map(entries, _) = data_type else { return None };
        let DataType::Struct(pair) = entries.data_type() else { return None };
        let [name, value] = pair.iter().as_slice() else { return None };
        let as_text = *value.data_type() == DataType::Utf8;
        if *name.data_type() != DataType::Utf8 || !(as_text || *value.data_type() == DataType::Binary) {
            return None;
        }
        Some(Self {
            entries: Arc::clone(entries),
            pair: pair.clone(),
            as_text,
            names: StringBuilder::new(),
            bytes: BinaryBuilder::new(),
            text: StringBuilder::new(),
            ends: vec![0],
            count: 0,
        })
    }

    fn push(&mut self, record: &Record<'_>) {
        let mut headers: Vec<(&[u8], Option<&[u8]>)> = Vec::new();
        record.headers(|name, value| match headers.iter_mut().find(|(n, _)| *n == name) {
            Some(known) => known.1 = value,
            None => headers.push((name, value)),
        });
        for (name, value) in headers {
            self.names.append_value(String::from_utf8_lossy(name));
            if self.as_text {
                self.text.append_option(value.map(String::from_utf8_lossy));
            } else {
                self.bytes.append_option(value);
            }
            self.count += 1;
        }
        self.ends.push(self.count);
    }

    fn take(&mut self) -> Result<ArrayRef> {
        let values: ArrayRef = if self.as_text { Arc::new(self.text.finish()) } else { Arc::new(self.bytes.finish()) };
        let entries = StructArray::try_new(self.pair.clone(), vec![Arc::new(self.names.finish()), values], None)?;
        let ends = OffsetBuffer::new(std::mem::replace(&mut self.ends, vec![0]).into());
        self.count = 0;
        Ok(Arc::new(MapArray::try_new(Arc::clone(&self.entries), ends, entries, None, false)?))
    }
}
