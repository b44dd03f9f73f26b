//! Batches as encoders read them: each column's type resolved once, then values by row.
//!
//! Columns of a type that has no SQL name of its own (views, dictionaries, unsigned numbers) are cast to one that has,
//! the whole batch at a time, so that writers know few kinds.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};

use super::text::sql_name;
use super::{in_column, json_write};
use crate::error::{Error, Result};

/// The columns of a batch, with their names.
pub(super) struct Cells {
    pub(super) columns: Vec<(String, Cell)>,
}

/// The values of a column.
pub(super) struct Cell {
    nulls: Option<NullBuffer>,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Null,
    Boolean(BooleanBuffer),
    Int8(ScalarBuffer<i8>),
    Int16(ScalarBuffer<i16>),
    Int32(ScalarBuffer<i32>),
    Int64(ScalarBuffer<i64>),
    Float32(ScalarBuffer<f32>),
    Float64(ScalarBuffer<f64>),
    Decimal {
        values: ScalarBuffer<i128>,
        scale: i8,
    },
    Utf8(StringArray),
    Binary(BinaryArray),
    /// Days since the epoch.
    Date(ScalarBuffer<i32>),
    /// Nanoseconds since midnight.
    Time(ScalarBuffer<i64>),
    Timestamp {
        values: ScalarBuffer<i64>,
        unit: TimeUnit,
        has_zone: bool,
    },
    List {
        offsets: OffsetBuffer<i32>,
        item: Box<Cell>,
    },
    Struct(Vec<FieldCell>),
    Map {
        offsets: OffsetBuffer<i32>,
        keys: Box<Cell>,
        values: Box<Cell>,
    },
}

/// A field of a `ROW`.
pub(super) struct FieldCell {
    pub(super) name: String,
    /// What precedes its value in a JSON object.
    pub(super) key: Vec<u8>,
    pub(super) cell: Cell,
}

impl Cells {
    /// The columns of a batch. Errors when one is of a type that has no text form.
    pub(super) fn new(batch: &RecordBatch) -> Result<Self> {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
            let plain = Self::plain_type(field.data_type()).map_err(in_column(field.name()))?;
            let column = if plain == *column.data_type() { column.clone() } else { cast(column, &plain)? };
            Ok((field.name().clone(), Cell::new(&column)?))
        });
        Ok(Self { columns: columns.collect::<Result<_>>()? })
    }

    /// The type that columns of the given type are cast to before they are written.
    pub(super) fn plain_type(data_type: &DataType) -> Result<DataType> {
        let field = |f: &FieldRef| -> Result<FieldRef> {
            Ok(Arc::new(Field::new(f.name(), Self::plain_type(f.data_type())?, f.is_nullable())))
        };
        Ok(match data_type {
            DataType::Null
            | DataType::Boolean
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(..)
            | DataType::Utf8
            | DataType::Binary
            | DataType::Date32
            | DataType::Timestamp(..) => data_type.clone(),
            DataType::UInt8 => DataType::Int16,
            DataType::UInt16 => DataType::Int32,
            DataType::UInt32 => DataType::Int64,
            DataType::UInt64 => DataType::Decimal128(20, 0),
            DataType::Float16 => DataType::Float32,
            DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
                DataType::Decimal128(*precision, *scale)
            }
            DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
            DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
            DataType::Date64 => DataType::Date32,
            DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Nanosecond),
            DataType::Dictionary(_, values) => Self::plain_type(values)?,
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => DataType::List(field(item)?),
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect::<Result<_>>()?),
            DataType::Map(entries, sorted) => DataType::Map(field(entries)?, *sorted),
            other => {
                return Err(Error::statement(format!("a value of type {} cannot be written", sql_name(other)))
                    .hint("CAST it to STRING"));
            }
        })
    }
}

impl Cell {
    fn new(array: &ArrayRef) -> Result<Self> {
        let kind = match array.data_type() {
            DataType::Null => Kind::Null,
            DataType::Boolean => Kind::Boolean(array.as_boolean().values().clone()),
            DataType::Int8 => Kind::Int8(array.as_primitive::<Int8Type>().values().clone()),
            DataType::Int16 => Kind::Int16(array.as_primitive::<Int16Type>().values().clone()),
            DataType::Int32 => Kind::Int32(array.as_primitive::<Int32Type>().values().clone()),
            DataType::Int64 => Kind::Int64(array.as_primitive::<Int64Type>().values().clone()),
            DataType::Float32 => Kind::Float32(array.as_primitive::<Float32Type>().values().clone()),
            DataType::Float64 => Kind::Float64(array.as_primitive::<Float64Type>().values().clone()),
            DataType::Decimal128(_, scale) => {
                Kind::Decimal { values: array.as_primitive::<Decimal128Type>().values().clone(), scale: *scale }
            }
            DataType::Utf8 => Kind::Utf8(array.as_string::<i32>().clone()),
            DataType::Binary => Kind::Binary(array.as_binary::<i32>().clone()),
            DataType::Date32 => Kind::Date(array.as_primitive::<Date32Type>().values().clone()),
            DataType::Time64(TimeUnit::Nanosecond) => {
                Kind::Time(array.as_primitive::<Time64NanosecondType>().values().clone())
            }
            DataType::Timestamp(unit, zone) => {
                let values = match unit {
                    TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
                    TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
                    TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values(),
                    TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values(),
                };
                Kind::Timestamp { values: values.clone(), unit: *unit, has_zone: zone.is_some() }
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Kind::List { offsets: list.offsets().clone(), item: Box::new(Self::new(list.values())?) }
            }
            DataType::Struct(fields) => {
                let columns = fields.iter().zip(array.as_struct().columns());
                let field = |(f, c): (&FieldRef, &ArrayRef)| {
                    Ok(FieldCell { name: f.name().clone(), key: json_write::key(f.name()), cell: Self::new(c)? })
                };
                Kind::Struct(columns.map(field).collect::<Result<_>>()?)
            }
            DataType::Map(..) => {
                let map = array.as_map();
                Kind::Map {
                    offsets: map.offsets().clone(),
                    keys: Box::new(Self::new(map.keys())?),
                    values: Box::new(Self::new(map.values())?),
                }
            }
            other => return Err(Error::bug(format!("{other} is not a plain type"))),
        };
        Ok(Self { nulls: array.nulls().cloned(), kind })
    }

    /// Whether the value at `i` is null.
    pub(super) fn is_null(&self, i: usize) -> bool {
        matches!(self.kind, Kind::Null) || self.nulls.as_ref().is_some_and(|n| n.is_null(i))
    }
}

/// Where the elements of the list at `i` are.
pub(super) fn elements(offsets: &OffsetBuffer<i32>, i: usize) -> std::ops::Range<usize> {
    // Offsets are never negative.
    offsets[i] as usize..offsets[i + 1] as usize
}
