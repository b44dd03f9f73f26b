//! The values of one column as a function of the row's number.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};

use super::Setting;
use crate::catalog::options::{Options, invalid};
use crate::catalog::{Column, Table};
use crate::error::{Error, Result};

/// Where event times begin unless `'fields.X.start'` says otherwise: 2024-01-01 00:00:00 UTC.
const EVENT_TIME_START_MS: i64 = 1_704_067_200_000;

/// Characters or bytes of a random value unless `'fields.X.length'` says otherwise, as in Flink.
const LENGTH: i64 = 100;

const LENGTH_MAX: i64 = 1 << 20;

const MS_PER_DAY: i64 = 86_400_000;

/// Makes the values of one column.
pub struct Generator {
    data_type: DataType,
    seed: u64,
    /// In parts of 2^32.
    null_rate: u64,
    kind: Kind,
}

enum Kind {
    Boolean,
    /// Whole numbers between two bounds, both included; also the unscaled values of decimals and times of day (ms).
    Integer {
        min: i64,
        max: i64,
    },
    Float {
        min: f64,
        max: f64,
    },
    Decimal {
        min: i128,
        max: i128,
    },
    Text {
        length: usize,
        varies: bool,
    },
    Bytes {
        length: usize,
        varies: bool,
    },
    /// `start + row`.
    Sequence {
        start: i64,
        end: i64,
    },
    /// The moment (ms) at which the row is due, less a random part of `max_past_ms`.
    Recent {
        opened_ms: i64,
        rows_per_second: i64,
        max_past_ms: i64,
    },
    /// `start_ms + row * step_ns`, less a random part of `disorder_ms`.
    EventTime {
        start_ms: i64,
        step_ns: i64,
        disorder_ms: i64,
    },
}

impl Generator {
    /// The generator of a column, by the options of its table.
    pub fn new(table: &Table, column: &Column, setting: Setting) -> Result<Self> {
        let options = &table.options;
        let key = |what: &str| format!("fields.{}.{what}", column.name);
        let data_type = column.data_type.clone();
        let kind = match options.choice(&key("kind"), &["random", "sequence", "event-time"])? {
            "sequence" => sequence(options, &key, column)?,
            "event-time" => event_time(options, &key, column, setting)?,
            _ => random(options, &key, column, setting)?,
        };
        let null_key = key("null-rate");
        let null_rate = match options.get(&null_key) {
            None => 0.0,
            Some(text) => match text.trim().parse::<f64>() {
                Ok(rate) if (0.0..=1.0).contains(&rate) => rate,
                _ => return Err(invalid(&null_key, text, "a number from 0 to 1")),
            },
        };
        if null_rate > 0.0 && column.not_null {
            return Err(Error::statement(format!("'{null_key}' makes nulls, but \"{}\" is NOT NULL", column.name))
                .hint("remove one of them"));
        }
        // By name, so that a column keeps its values when another one is added before it.
        let field = column.name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let null_rate = (null_rate * 4_294_967_296.0) as u64;
        Ok(Self { data_type, seed: mixed(setting.seed ^ mixed(field)), null_rate, kind })
    }

    /// After how many rows the column has no more values.
    pub fn rows_max(&self) -> Option<i64> {
        match self.kind {
            Kind::Sequence { start, end } => Some(end.saturating_sub(start).saturating_add(1)),
            _ => None,
        }
    }

    /// The values of `count` rows from row `start` on.
    pub fn column(&self, start: i64, count: usize) -> Result<ArrayRef> {
        let rows = || (start..).take(count);
        let array: ArrayRef = match &self.kind {
            Kind::Boolean => {
                let mut out = BooleanBuilder::with_capacity(count);
                rows().for_each(|row| out.append_option(self.unless_null(row, |chance| chance.bits() & 1 == 1)));
                Arc::new(out.finish())
            }
            Kind::Float { min, max } => {
                let mut out = Float64Builder::with_capacity(count);
                let value = |chance: &mut Chance| min + (max - min) * chance.unit();
                rows().for_each(|row| out.append_option(self.unless_null(row, value)));
                Arc::new(out.finish())
            }
            Kind::Decimal { min, max } => {
                let mut out = Decimal128Builder::with_capacity(count).with_data_type(self.data_type.clone());
                let span = max.abs_diff(*min).saturating_add(1);
                let value = |chance: &mut Chance| {
                    let wide = u128::from(chance.bits()) << 64 | u128::from(chance.bits());
                    min.wrapping_add((wide % span).cast_signed())
                };
                rows().for_each(|row| out.append_option(self.unless_null(row, value)));
                Arc::new(out.finish())
            }
            Kind::Text { length, varies } => {
                let mut out = StringBuilder::with_capacity(count, count * length);
                let mut text = String::with_capacity(*length);
                for row in rows() {
                    let made = self.unless_null(row, |chance| {
                        text.clear();
                        let digit = |c: &mut Chance| char::from_digit(c.below(16) as u32, 16).unwrap_or('0');
                        (0..chance.length(*length, *varies)).for_each(|_| text.push(digit(chance)));
                    });
                    out.append_option(made.map(|()| &text));
                }
                Arc::new(out.finish())
            }
            Kind::Bytes { length, varies } => {
                let mut out = BinaryBuilder::with_capacity(count, count * length);
                let mut bytes = Vec::with_capacity(*length);
                for row in rows() {
                    let made = self.unless_null(row, |chance| {
                        bytes.clear();
                        (0..chance.length(*length, *varies)).for_each(|_| bytes.push(chance.bits().to_le_bytes()[0]));
                    });
                    out.append_option(made.map(|()| &bytes));
                }
                Arc::new(out.finish())
            }
            whole => {
                let mut out = Int64Builder::with_capacity(count);
                for row in rows() {
                    out.append_option(self.unless_null(row, |chance| whole_number(whole, row, chance)));
                }
                Arc::new(out.finish())
            }
        };
        self.typed(array)
    }

    /// A value, or none by the column's share of nulls.
    fn unless_null<T>(&self, row: i64, value: impl FnOnce(&mut Chance) -> T) -> Option<T> {
        let mut chance = Chance(self.seed ^ mixed(row.cast_unsigned()));
        (self.null_rate == 0 || chance.bits() >> 32 >= self.null_rate).then(|| value(&mut chance))
    }

    /// Gives the values their column's type.
    fn typed(&self, array: ArrayRef) -> Result<ArrayRef> {
        if array.data_type() == &self.data_type {
            return Ok(array);
        }
        let through = match &self.data_type {
            DataType::Timestamp(_, zone) => Some(DataType::Timestamp(TimeUnit::Millisecond, zone.clone())),
            // From milliseconds: a day, or a time of day.
            DataType::Date32 => Some(DataType::Date64),
            DataType::Time32(_) | DataType::Time64(_) => {
                let narrow = cast(&array, &DataType::Int32)?;
                let time = cast(&narrow, &DataType::Time32(TimeUnit::Millisecond))?;
                return Ok(cast(&time, &self.data_type)?);
            }
            _ => None,
        };
        let array = match through {
            Some(through) => cast(&array, &through)?,
            None => array,
        };
        Ok(cast(&array, &self.data_type)?)
    }
}

fn whole_number(kind: &Kind, row: i64, chance: &mut Chance) -> i64 {
    match *kind {
        Kind::Integer { min, max } => {
            let span = max.abs_diff(min);
            let step = if span == u64::MAX { chance.bits() } else { chance.below(span + 1) };
            min.wrapping_add(step.cast_signed())
        }
        Kind::Sequence { start, .. } => start.saturating_add(row),
        Kind::Recent { opened_ms, rows_per_second, max_past_ms } => {
            let due_ms = i64::try_from(i128::from(row) * 1_000 / i128::from(rows_per_second)).unwrap_or(i64::MAX);
            opened_ms.saturating_add(due_ms) - chance.below(max_past_ms.unsigned_abs() + 1).cast_signed()
        }
        Kind::EventTime { start_ms, step_ns, disorder_ms } => {
            let passed_ms = i64::try_from(i128::from(row) * i128::from(step_ns) / 1_000_000).unwrap_or(i64::MAX);
            start_ms.saturating_add(passed_ms) - chance.below(disorder_ms.unsigned_abs() + 1).cast_signed()
        }
        Kind::Boolean | Kind::Float { .. } | Kind::Decimal { .. } | Kind::Text { .. } | Kind::Bytes { .. } => 0,
    }
}

fn random(options: &Options, key: &dyn Fn(&str) -> String, column: &Column, setting: Setting) -> Result<Kind> {
    let integers = |low: i64, high: i64| {
        let bound = |what: &str, default: i64| match options.integer(&key(what))? {
            None => Ok(default),
            Some(n) if (low..=high).contains(&n) => Ok(n),
            Some(n) => Err(invalid(&key(what), &n.to_string(), &format!("a number from {low} to {high}"))),
        };
        let (min, max) = (bound("min", low)?, bound("max", high)?);
        if min > max {
            return Err(invalid(&key("min"), &min.to_string(), &format!("a number up to {max}")));
        }
        Ok(Kind::Integer { min, max })
    };
    let length = || {
        let length = options.integer(&key("length"))?.unwrap_or(LENGTH);
        if !(0..=LENGTH_MAX).contains(&length) {
            return Err(invalid(&key("length"), &length.to_string(), &format!("a number from 0 to {LENGTH_MAX}")));
        }
        Ok((usize::try_from(length).unwrap_or(0), options.bool(&key("var-len"), false)?))
    };
    Ok(match &column.data_type {
        DataType::Boolean => Kind::Boolean,
        DataType::Int8 => integers(i64::from(i8::MIN), i64::from(i8::MAX))?,
        DataType::Int16 => integers(i64::from(i16::MIN), i64::from(i16::MAX))?,
        DataType::Int32 => integers(i64::from(i32::MIN), i64::from(i32::MAX))?,
        DataType::Int64 => integers(i64::MIN, i64::MAX)?,
        DataType::Float32 => floats(options, key, f64::from(f32::MIN), f64::from(f32::MAX))?,
        // Half the range, so that the width of the range is a number too.
        DataType::Float64 => floats(options, key, f64::MIN / 2.0, f64::MAX / 2.0)?,
        DataType::Decimal128(precision, scale) => decimals(options, key, *precision, *scale)?,
        DataType::Utf8 => length().map(|(length, varies)| Kind::Text { length, varies })?,
        DataType::Binary => length().map(|(length, varies)| Kind::Bytes { length, varies })?,
        DataType::Time32(_) | DataType::Time64(_) => Kind::Integer { min: 0, max: MS_PER_DAY - 1 },
        DataType::Timestamp(..) | DataType::Date32 => {
            let max_past = options.duration(&key("max-past"))?.unwrap_or_default();
            Kind::Recent {
                opened_ms: setting.opened_ms,
                rows_per_second: setting.rows_per_second,
                max_past_ms: i64::try_from(max_past.as_millis()).unwrap_or(i64::MAX / 2),
            }
        }
        _ => {
            return Err(Error::statement(format!(
                "datagen cannot make values of the type of column \"{}\"",
                column.name
            ))
            .hint("it makes scalars; build rows, arrays and maps from them in a query"));
        }
    })
}

fn floats(options: &Options, key: &dyn Fn(&str) -> String, low: f64, high: f64) -> Result<Kind> {
    let bound = |what: &str, default: f64| match options.get(&key(what)) {
        None => Ok(default),
        Some(text) => match text.trim().parse::<f64>() {
            Ok(n) if (low..=high).contains(&n) => Ok(n),
            _ => Err(invalid(&key(what), text, "a number that the column can hold")),
        },
    };
    let (min, max) = (bound("min", low)?, bound("max", high)?);
    if min > max {
        return Err(invalid(&key("min"), &min.to_string(), &format!("a number up to {max}")));
    }
    Ok(Kind::Float { min, max })
}

fn decimals(options: &Options, key: &dyn Fn(&str) -> String, precision: u8, scale: i8) -> Result<Kind> {
    let limit = 10_i128.pow(u32::from(precision.min(38))) - 1;
    let bound = |what: &str, default: i128| match options.get(&key(what)) {
        None => Ok(default),
        Some(text) => arrow::compute::kernels::cast_utils::parse_decimal::<arrow::datatypes::Decimal128Type>(
            text.trim(),
            precision,
            scale,
        )
        .map_err(|_| invalid(&key(what), text, "a number that the column can hold")),
    };
    let (min, max) = (bound("min", -limit)?, bound("max", limit)?);
    if min > max {
        return Err(invalid(&key("min"), options.get(&key("min")).unwrap_or(""), "a number up to the maximum"));
    }
    Ok(Kind::Decimal { min, max })
}

fn sequence(options: &Options, key: &dyn Fn(&str) -> String, column: &Column) -> Result<Kind> {
    let is_number = column.data_type.is_numeric() || column.data_type == DataType::Utf8;
    if !is_number {
        return Err(invalid(&key("kind"), "sequence", "'random': a sequence needs a column of numbers or text"));
    }
    let bound = |what: &str| {
        options.require(&key(what))?;
        Ok::<_, Error>(options.integer(&key(what))?.unwrap_or_default())
    };
    let (start, end) = (bound("start")?, bound("end")?);
    if start > end {
        return Err(invalid(&key("start"), &start.to_string(), &format!("a number up to {end}")));
    }
    let highest = match column.data_type {
        DataType::Int8 => i64::from(i8::MAX),
        DataType::Int16 => i64::from(i16::MAX),
        DataType::Int32 => i64::from(i32::MAX),
        _ => i64::MAX,
    };
    if end > highest || start < -highest {
        return Err(invalid(&key("end"), &end.to_string(), "a number that the column can hold"));
    }
    Ok(Kind::Sequence { start, end })
}

fn event_time(options: &Options, key: &dyn Fn(&str) -> String, column: &Column, setting: Setting) -> Result<Kind> {
    if !matches!(column.data_type, DataType::Timestamp(..) | DataType::Int64) {
        return Err(invalid(&key("kind"), "event-time", "'random': an event time is a TIMESTAMP, or a BIGINT (ms)"));
    }
    let start_ms = match options.get(&key("start")) {
        None => EVENT_TIME_START_MS,
        Some(text) => arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text.trim())
            .map(|nanos| nanos / 1_000_000)
            .map_err(|_| invalid(&key("start"), text, "a time such as '2024-01-01 00:00:00'"))?,
    };
    let step_ns = match options.duration(&key("step"))? {
        Some(step) => i64::try_from(step.as_nanos()).unwrap_or(i64::MAX),
        None => 1_000_000_000 / setting.rows_per_second,
    };
    let disorder = options.duration(&key("disorder"))?.unwrap_or_default();
    let disorder_ms = i64::try_from(disorder.as_millis()).unwrap_or(i64::MAX / 2);
    Ok(Kind::EventTime { start_ms, step_ns, disorder_ms })
}

/// A stream of random bits that starts anew with every row.
struct Chance(u64);

impl Chance {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// From 0 up to, not including, `bound`, which is not 0. The high bits of a product instead of a remainder.
    fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// From 0 up to, not including, 1.
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn length(&mut self, length: usize, varies: bool) -> usize {
        if varies && length > 0 { 1 + self.below(length as u64) as usize } else { length }
    }
}

/// Spreads the bits of a number over all of it (the finalizer of SplitMix64).
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
