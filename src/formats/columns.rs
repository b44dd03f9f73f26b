//! Columns under construction that can be cut back.
//!
//! A record is decoded straight into its columns, field by field, and may turn out to be bad at any point. Arrow's own
//! builders cannot forget what was appended; these can: [`ColumnBuilder::truncate`] restores any earlier length,
//! whatever half-written value follows it. So a bad record leaves no trace, and a duplicate field replaces the first.
//!
//! A builder is plain vectors in Arrow's layout. [`ColumnBuilder::finish`] moves them into an array without copying
//! and leaves the builder empty, with room for as much again.
//!
//! The rule that decoders rely on: a value counts once its validity was appended. Values may be longer than that for
//! a moment (a list whose third element is bad), never shorter.

use std::mem;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, ListArray, MapArray, NullBufferBuilder,
    PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, FieldRef, Fields, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, Time32MillisecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};

use super::text::sql_name;
use crate::error::{Error, Result};

/// A column under construction.
#[derive(Debug)]
pub struct ColumnBuilder {
    data_type: DataType,
    /// Which rows are not null; its length is the column's.
    pub(super) nulls: NullBufferBuilder,
    pub(super) values: Values,
}

/// The values of a column, in Arrow's layout. A null has a value too, of no meaning.
#[derive(Debug)]
pub(super) enum Values {
    Boolean(BooleanBufferBuilder),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    Utf8(Bytes),
    Binary(Bytes),
    /// Days since the epoch.
    Date(Vec<i32>),
    /// Milliseconds since midnight.
    TimeMs(Vec<i32>),
    Timestamp {
        values: Vec<i64>,
        unit: TimeUnit,
        zone: Zone,
    },
    List {
        offsets: Vec<i32>,
        item: Box<ColumnBuilder>,
        field: FieldRef,
    },
    Struct {
        fields: Fields,
        children: Vec<ColumnBuilder>,
    },
    Map {
        offsets: Vec<i32>,
        keys: Box<ColumnBuilder>,
        values: Box<ColumnBuilder>,
        entries: FieldRef,
        sorted: bool,
    },
}

/// How a time stamp without an offset is read.
#[derive(Debug)]
pub(super) enum Zone {
    /// A type without a zone: the wall clock itself, kept as if it were UTC.
    None,
    /// A type whose zone is UTC.
    Utc,
    /// Another zone.
    Named(Tz),
}

/// Strings or byte strings: all bytes in one vector, and where each ends.
#[derive(Debug)]
pub(super) struct Bytes {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

/// The column holds more bytes or elements than Arrow's 32-bit offsets can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Bytes {
    fn new() -> Self {
        Self { offsets: vec![0], bytes: Vec::new() }
    }

    /// Where the bytes of the value being written go. [`end`](Self::end) completes the value.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Ends the value that was written to [`buffer`](Self::buffer).
    pub(super) fn end(&mut self) -> Result<(), Full> {
        self.offsets.push(i32::try_from(self.bytes.len()).map_err(|_| Full)?);
        Ok(())
    }

    /// Appends a whole value.
    pub(super) fn push(&mut self, value: &[u8]) -> Result<(), Full> {
        self.bytes.extend_from_slice(value);
        self.end()
    }

    /// The value at `i`.
    pub(super) fn get(&self, i: usize) -> &[u8] {
        &self.bytes[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        self.bytes.truncate(last_offset(&self.offsets));
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Vec<u8>) {
        (take_offsets(&mut self.offsets), take_vec(&mut self.bytes))
    }
}

impl ColumnBuilder {
    /// An empty column. Errors when no format can fill a column of this type.
    pub fn new(data_type: &DataType) -> Result<Self> {
        let values = match data_type {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int8 => Values::Int8(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) => {
                Values::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            DataType::Utf8 => Values::Utf8(Bytes::new()),
            DataType::Binary => Values::Binary(Bytes::new()),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Time32(TimeUnit::Millisecond) => Values::TimeMs(Vec::new()),
            DataType::Timestamp(unit, zone) => {
                let zone = match zone.as_deref() {
                    None => Zone::None,
                    Some("UTC" | "Z" | "+00:00" | "Etc/UTC") => Zone::Utc,
                    Some(name) => Zone::Named(Tz::from_str(name).map_err(|_| {
                        Error::statement(format!("there is no time zone '{name}'")).hint("names are as in 'Asia/Tokyo'")
                    })?),
                };
                Values::Timestamp { values: Vec::new(), unit: *unit, zone }
            }
            DataType::List(field) => {
                Values::List { offsets: vec![0], item: Box::new(Self::new(field.data_type())?), field: field.clone() }
            }
            DataType::Struct(fields) => Values::Struct {
                fields: fields.clone(),
                children: fields.iter().map(|f| Self::new(f.data_type())).collect::<Result<_>>()?,
            },
            DataType::Map(entries, sorted) => {
                let DataType::Struct(pair) = entries.data_type() else {
                    return Err(Error::bug(format!("the entries of a map are {}", entries.data_type())));
                };
                let [key, value] = pair.iter().as_slice() else {
                    return Err(Error::bug(format!("the entries of a map have {} fields", pair.len())));
                };
                Values::Map {
                    offsets: vec![0],
                    keys: Box::new(Self::new(key.data_type())?),
                    values: Box::new(Self::new(value.data_type())?),
                    entries: entries.clone(),
                    sorted: *sorted,
                }
            }
            other => return Err(Error::statement(format!("no format can read a column of type {}", sql_name(other)))),
        };
        Ok(Self { data_type: data_type.clone(), nulls: NullBufferBuilder::new(0), values })
    }

    /// The type of the column.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a null.
    pub fn append_null(&mut self) {
        match &mut self.values {
            Values::Boolean(v) => v.append(false),
            Values::Int8(v) => v.push(0),
            Values::Int16(v) => v.push(0),
            Values::Int32(v) | Values::Date(v) | Values::TimeMs(v) => v.push(0),
            Values::Int64(v) | Values::Timestamp { values: v, .. } => v.push(0),
            Values::Float32(v) => v.push(0.0),
            Values::Float64(v) => v.push(0.0),
            Values::Decimal { values, .. } => values.push(0),
            Values::Utf8(v) | Values::Binary(v) => v.offsets.push(last_offset(&v.offsets) as i32),
            Values::List { offsets, .. } | Values::Map { offsets, .. } => offsets.push(last_offset(offsets) as i32),
            Values::Struct { children, .. } => children.iter_mut().for_each(Self::append_null),
        }
        self.nulls.append_null();
    }

    /// Removes the rows from `len` on, and whatever of a further value was written.
    pub fn truncate(&mut self, len: usize) {
        match &mut self.values {
            Values::Boolean(v) => v.truncate(len),
            Values::Int8(v) => v.truncate(len),
            Values::Int16(v) => v.truncate(len),
            Values::Int32(v) | Values::Date(v) | Values::TimeMs(v) => v.truncate(len),
            Values::Int64(v) | Values::Timestamp { values: v, .. } => v.truncate(len),
            Values::Float32(v) => v.truncate(len),
            Values::Float64(v) => v.truncate(len),
            Values::Decimal { values, .. } => values.truncate(len),
            Values::Utf8(v) | Values::Binary(v) => v.truncate(len),
            Values::List { offsets, item, .. } => {
                offsets.truncate(len + 1);
                item.truncate(last_offset(offsets));
            }
            Values::Struct { children, .. } => children.iter_mut().for_each(|c| c.truncate(len)),
            Values::Map { offsets, keys, values, .. } => {
                offsets.truncate(len + 1);
                keys.truncate(last_offset(offsets));
                values.truncate(last_offset(offsets));
            }
        }
        self.nulls.truncate(len);
    }

    /// The column as an array; the builder is empty afterwards.
    pub fn finish(&mut self) -> Result<ArrayRef> {
        let len = self.len();
        let nulls = self.nulls.finish();
        let array: ArrayRef = match &mut self.values {
            Values::Boolean(v) => Arc::new(BooleanArray::new(v.finish(), nulls)),
            Values::Int8(v) => primitive::<Int8Type>(v, nulls, &self.data_type)?,
            Values::Int16(v) => primitive::<Int16Type>(v, nulls, &self.data_type)?,
            Values::Int32(v) => primitive::<Int32Type>(v, nulls, &self.data_type)?,
            Values::Int64(v) => primitive::<Int64Type>(v, nulls, &self.data_type)?,
            Values::Float32(v) => primitive::<Float32Type>(v, nulls, &self.data_type)?,
            Values::Float64(v) => primitive::<Float64Type>(v, nulls, &self.data_type)?,
            Values::Decimal { values, .. } => primitive::<Decimal128Type>(values, nulls, &self.data_type)?,
            Values::Date(v) => primitive::<Date32Type>(v, nulls, &self.data_type)?,
            Values::TimeMs(v) => primitive::<Time32MillisecondType>(v, nulls, &self.data_type)?,
            Values::Timestamp { values, unit, .. } => match unit {
                TimeUnit::Second => primitive::<TimestampSecondType>(values, nulls, &self.data_type)?,
                TimeUnit::Millisecond => primitive::<TimestampMillisecondType>(values, nulls, &self.data_type)?,
                TimeUnit::Microsecond => primitive::<TimestampMicrosecondType>(values, nulls, &self.data_type)?,
                TimeUnit::Nanosecond => primitive::<TimestampNanosecondType>(values, nulls, &self.data_type)?,
            },
            Values::Utf8(v) => {
                let (offsets, bytes) = v.take();
                Arc::new(StringArray::try_new(offsets, bytes.into(), nulls)?)
            }
            Values::Binary(v) => {
                let (offsets, bytes) = v.take();
                Arc::new(BinaryArray::try_new(offsets, bytes.into(), nulls)?)
            }
            Values::List { offsets, item, field } => {
                Arc::new(ListArray::try_new(field.clone(), take_offsets(offsets), item.finish()?, nulls)?)
            }
            Values::Struct { fields, children } => {
                let arrays = children.iter_mut().map(Self::finish).collect::<Result<_>>()?;
                Arc::new(StructArray::try_new_with_length(fields.clone(), arrays, nulls, len)?)
            }
            Values::Map { offsets, keys, values, entries, sorted } => {
                let DataType::Struct(pair) = entries.data_type() else { unreachable!("checked in new") };
                let pairs = StructArray::try_new(pair.clone(), vec![keys.finish()?, values.finish()?], None)?;
                Arc::new(MapArray::try_new(entries.clone(), take_offsets(offsets), pairs, nulls, *sorted)?)
            }
        };
        debug_assert_eq!(array.len(), len);
        Ok(array)
    }
}

/// Ends a list or map whose elements up to `count` belong to it.
pub(super) fn end_list(offsets: &mut Vec<i32>, count: usize) -> Result<(), Full> {
    offsets.push(i32::try_from(count).map_err(|_| Full)?);
    Ok(())
}

fn last_offset(offsets: &[i32]) -> usize {
    // Offsets start with a zero and are never negative.
    offsets.last().map_or(0, |o| *o as usize)
}

fn take_offsets(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let taken = take_vec(offsets);
    offsets.push(0);
    OffsetBuffer::new(ScalarBuffer::from(taken))
}

/// Takes the vector and leaves an empty one with room for as much again: one batch is much like the next.
fn take_vec<T>(values: &mut Vec<T>) -> Vec<T> {
    let len = values.len();
    mem::replace(values, Vec::with_capacity(len))
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let array = PrimitiveArray::<T>::try_new(ScalarBuffer::from(take_vec(values)), nulls)?;
    Ok(Arc::new(array.with_data_type(data_type.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Field;

    fn text(builder: &mut ColumnBuilder, value: &str) {
        let Values::Utf8(v) = &mut builder.values else { panic!("not a string column") };
        v.push(value.as_bytes()).unwrap();
        builder.nulls.append_non_null();
    }

    #[test]
    fn truncation_forgets_rows_and_half_written_values() {
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        let mut list = ColumnBuilder::new(&DataType::List(item)).unwrap();
        let push = |list: &mut ColumnBuilder, words: &[&str], end: bool| {
            let Values::List { offsets, item, .. } = &mut list.values else { unreachable!() };
            words.iter().for_each(|w| text(item, w));
            if end {
                end_list(offsets, item.len()).unwrap();
                list.nulls.append_non_null();
            }
        };
        push(&mut list, &["a", "bc"], true);
        push(&mut list, &["x"], true);
        push(&mut list, &["half"], false);
        list.truncate(1);
        list.append_null();
        push(&mut list, &["d"], true);
        assert_eq!(list.len(), 3);
        let array = list.finish().unwrap();
        let array = array.as_list::<i32>();
        assert_eq!(array.value(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "bc"]);
        assert!(array.is_null(1));
        assert_eq!(array.value(2).as_string::<i32>().value(0), "d");
        assert!(list.is_empty());
        assert_eq!(list.finish().unwrap().len(), 0);
    }

    #[test]
    fn types_without_a_meaning_are_refused() {
        for data_type in [DataType::Null, DataType::Utf8View, DataType::Duration(TimeUnit::Second)] {
            assert!(ColumnBuilder::new(&data_type).is_err(), "{data_type}");
        }
        let zone = DataType::Timestamp(TimeUnit::Millisecond, Some("Mars/Olympus".into()));
        assert!(ColumnBuilder::new(&zone).unwrap_err().message.contains("Mars/Olympus"));
    }
}
