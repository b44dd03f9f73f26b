//! Functions of time. Instants are shown and read in UTC.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Builder, Int32Builder, Int64Builder, TimestampMillisecondBuilder};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::compute::{DatePart, cast, date_part};
use arrow::datatypes::{
    DataType, Float64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use chrono::{DateTime, Datelike, Months, NaiveDateTime, TimeZone, Utc};
use datafusion::common::{exec_datafusion_err, exec_err, plan_err};
use datafusion::error::Result;

use super::function::Kind::{Any, Float, Int, Text, Time};
use super::function::{Cached, Call, Function, build_text, gives, type_at};
use super::java_time::Pattern;
use crate::sql::types::TIME_ZONE;

const DEFAULT_PATTERN: &str = "yyyy-MM-dd HH:mm:ss";

const MS_PER_DAY: i64 = 86_400_000;

pub(super) fn functions() -> Vec<Function> {
    let part = |name, about, evaluate| Function::new(name, about, &[&[Time]], gives::bigint, evaluate);
    vec![
        Function::new(
            "date_format",
            "DATE_FORMAT(time, pattern): the time as text; patterns are Java's, such as 'yyyy-MM-dd HH:mm:ss.SSS'",
            &[&[Time, Text]],
            gives::text,
            date_format,
        ),
        Function::new(
            "to_timestamp",
            "TO_TIMESTAMP(text [, pattern]): the TIMESTAMP(3) that a text spells, NULL if it spells none",
            &[&[Text], &[Text, Text]],
            gives::timestamp,
            to_timestamp,
        ),
        Function::new(
            "to_timestamp_ltz",
            "TO_TIMESTAMP_LTZ(number [, 0 or 3]) or TO_TIMESTAMP_LTZ(text [, pattern [, zone]]): a TIMESTAMP_LTZ(3) \
             from milliseconds (3, the default), seconds (0) or text",
            &[&[Int], &[Float], &[Int, Int], &[Float, Int], &[Text], &[Text, Text], &[Text, Text, Text]],
            gives::timestamp_ltz,
            to_timestamp_ltz,
        ),
        Function::new(
            "from_unixtime",
            "FROM_UNIXTIME(seconds [, pattern]): seconds since 1970 as text",
            &[&[Int], &[Int, Text]],
            gives::text,
            from_unixtime,
        ),
        Function::new(
            "unix_timestamp",
            "UNIX_TIMESTAMP(text [, pattern]): a text as seconds since 1970, NULL if it is no time",
            &[&[Text], &[Text, Text]],
            gives::bigint,
            unix_timestamp,
        ),
        Function::new(
            "to_date",
            "TO_DATE(text [, pattern]): the DATE that a text spells, NULL if it spells none",
            &[&[Text], &[Text, Text]],
            gives::date,
            to_date,
        ),
        Function::new(
            "timestampdiff",
            "TIMESTAMPDIFF(unit, from, to): the whole SECONDs, MINUTEs, .., YEARs from one time to another",
            &[&[Text, Time, Time]],
            gives::int,
            timestampdiff,
        ),
        Function::new(
            "timestampadd",
            "TIMESTAMPADD(unit, n, time): the time n SECONDs, MINUTEs, .., YEARs later",
            &[&[Text, Int, Time]],
            |types| type_at(types, 2),
            timestampadd,
        ),
        Function::new(
            "convert_tz",
            "CONVERT_TZ(text, from, to): a time as text in one time zone, as text in another",
            &[&[Text, Text, Text]],
            gives::text,
            convert_tz,
        ),
        part("year", "YEAR(time): the year", |call| extract(call, DatePart::Year)),
        part("quarter", "QUARTER(time): the quarter, 1 to 4", |call| extract(call, DatePart::Quarter)),
        part("month", "MONTH(time): the month, 1 to 12", |call| extract(call, DatePart::Month)),
        part("week", "WEEK(time): the ISO week, 1 to 53", |call| extract(call, DatePart::Week)),
        part("dayofyear", "DAYOFYEAR(time): the day of the year, from 1", |call| extract(call, DatePart::DayOfYear)),
        part("dayofmonth", "DAYOFMONTH(time): the day of the month, from 1", |call| extract(call, DatePart::Day)),
        part("dayofweek", "DAYOFWEEK(time): the day of the week, 1 is Sunday", |call| {
            extract(call, DatePart::DayOfWeekSunday1)
        }),
        part("hour", "HOUR(time): the hour, 0 to 23", |call| extract(call, DatePart::Hour)),
        part("minute", "MINUTE(time): the minute, 0 to 59", |call| extract(call, DatePart::Minute)),
        part("second", "SECOND(time): the second, 0 to 59", |call| extract(call, DatePart::Second)),
        Function::new(
            "current_watermark",
            "CURRENT_WATERMARK(time): refused, for its answer depends on how partitions interleave",
            &[&[Any]],
            |_| plan_err!("CURRENT_WATERMARK is not supported: its answer would depend on how partitions interleave"),
            |_| exec_err!("CURRENT_WATERMARK is not supported"),
        ),
    ]
}

/// The times of a column of timestamps of any unit, without their zone (which is UTC).
struct Times<'a>(&'a ArrayRef);

impl Times<'_> {
    fn get(&self, row: usize) -> Result<Option<NaiveDateTime>> {
        let array = self.0;
        if array.is_null(row) {
            return Ok(None);
        }
        let time = match array.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => {
                DateTime::from_timestamp(array.as_primitive::<TimestampSecondType>().value(row), 0)
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                DateTime::from_timestamp_millis(array.as_primitive::<TimestampMillisecondType>().value(row))
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                DateTime::from_timestamp_micros(array.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Some(DateTime::from_timestamp_nanos(array.as_primitive::<TimestampNanosecondType>().value(row)))
            }
            other => return exec_err!("expected a timestamp, not {other}"),
        };
        match time {
            Some(time) => Ok(Some(time.naive_utc())),
            None => exec_err!("a timestamp is out of range"),
        }
    }
}

fn date_format(call: &Call) -> Result<ArrayRef> {
    let (times, patterns) = (Times(&call.columns[0]), call.text(1)?);
    let mut cache = Cached::new();
    build_text(call.rows, |row, out| {
        let (Some(time), true) = (times.get(row)?, patterns.is_valid(row)) else { return Ok(false) };
        cache.get(patterns.value(row), Pattern::compile)?.format(&time, out)?;
        Ok(true)
    })
}

fn from_unixtime(call: &Call) -> Result<ArrayRef> {
    let seconds = call.int(0)?;
    let patterns = if call.columns.len() > 1 { Some(call.text(1)?) } else { None };
    let mut cache = Cached::new();
    build_text(call.rows, |row, out| {
        let pattern = match patterns {
            Some(patterns) if patterns.is_null(row) => return Ok(false),
            Some(patterns) => patterns.value(row),
            None => DEFAULT_PATTERN,
        };
        if seconds.is_null(row) {
            return Ok(false);
        }
        let Some(time) = DateTime::from_timestamp(seconds.value(row), 0) else {
            return exec_err!("FROM_UNIXTIME: {} seconds are out of range", seconds.value(row));
        };
        cache.get(pattern, Pattern::compile)?.format(&time.naive_utc(), out)?;
        Ok(true)
    })
}

/// Calls `each` with the time that each row's text spells, by the pattern if there is one: local time, and the time in
/// UTC by the offset in the text, if it has one.
fn parse_each(
    call: &Call,
    mut each: impl FnMut(usize, Option<(NaiveDateTime, NaiveDateTime)>) -> Result<()>,
) -> Result<()> {
    let texts = call.text(0)?;
    let patterns = if call.columns.len() > 1 { Some(call.text(1)?) } else { None };
    let mut cache = Cached::new();
    for row in 0..call.rows {
        let parsed = match patterns {
            _ if texts.is_null(row) => None,
            Some(patterns) if patterns.is_null(row) => None,
            Some(patterns) => {
                let pattern: &Pattern = cache.get(patterns.value(row), Pattern::compile)?;
                pattern.parse(texts.value(row)).and_then(|parsed| {
                    let offset = chrono::TimeDelta::seconds(i64::from(parsed.offset_seconds.unwrap_or(0)));
                    Some((parsed.local, parsed.local.checked_sub_signed(offset)?))
                })
            }
            None => parse_plain(texts.value(row)),
        };
        each(row, parsed)?;
    }
    Ok(())
}

/// SQL's and ISO's spelling of a time, with or without `T`, fraction and offset.
fn parse_plain(text: &str) -> Option<(NaiveDateTime, NaiveDateTime)> {
    let text = text.trim();
    let utc = string_to_datetime(&Utc, text).ok()?.naive_utc();
    // The local time is what stands there, whatever the offset behind it.
    let end = text.len();
    let zone_at =
        text.char_indices().skip(10).find(|(_, c)| matches!(c, '+' | '-' | 'Z' | 'z')).map_or(end, |(i, _)| i);
    let local = string_to_datetime(&Utc, text[..zone_at].trim_end()).map_or(utc, |local| local.naive_utc());
    Some((local, utc))
}

fn to_timestamp(call: &Call) -> Result<ArrayRef> {
    let mut builder = TimestampMillisecondBuilder::with_capacity(call.rows);
    parse_each(call, |_, time| {
        builder.append_option(time.map(|(local, _)| local.and_utc().timestamp_millis()));
        Ok(())
    })?;
    Ok(Arc::new(builder.finish()))
}

fn to_timestamp_ltz(call: &Call) -> Result<ArrayRef> {
    let mut builder = TimestampMillisecondBuilder::with_capacity(call.rows).with_timezone(TIME_ZONE);
    match call.columns[0].data_type() {
        DataType::Utf8 if call.columns.len() == 3 => {
            let zones = call.text(2)?;
            let mut cache = Cached::new();
            parse_each(call, |row, time| {
                let instant = match time {
                    Some((local, _)) if zones.is_valid(row) => {
                        let zone: &chrono_tz::Tz = cache.get(zones.value(row), parse_zone)?;
                        zone.from_local_datetime(&local).earliest().map(|time| time.timestamp_millis())
                    }
                    _ => None,
                };
                builder.append_option(instant);
                Ok(())
            })?;
        }
        DataType::Utf8 => parse_each(call, |_, time| {
            builder.append_option(time.map(|(_, utc)| utc.and_utc().timestamp_millis()));
            Ok(())
        })?,
        _ => {
            let precisions = if call.columns.len() > 1 { Some(call.int(1)?) } else { None };
            for row in 0..call.rows {
                let factor = match precisions {
                    Some(precisions) if precisions.is_null(row) => None,
                    Some(precisions) => match precisions.value(row) {
                        0 => Some(1_000),
                        3 => Some(1),
                        other => {
                            return exec_err!("TO_TIMESTAMP_LTZ takes seconds (0) or milliseconds (3), not {other}");
                        }
                    },
                    None => Some(1),
                };
                let ms = match factor {
                    Some(factor) => scaled(&call.columns[0], row, factor)?,
                    None => None,
                };
                builder.append_option(ms);
            }
        }
    }
    Ok(Arc::new(builder.finish()))
}

/// A number times a factor as milliseconds that a time can have.
fn scaled(numbers: &ArrayRef, row: usize, factor: i64) -> Result<Option<i64>> {
    if numbers.is_null(row) {
        return Ok(None);
    }
    let ms = match numbers.as_primitive_opt::<Float64Type>() {
        Some(floats) => {
            let ms = (floats.value(row) * factor as f64).floor();
            // Far inside what converts exactly; NaN is in no range.
            if ms.abs() < 9e15 { Some(ms as i64) } else { None }
        }
        None => numbers.as_primitive::<arrow::datatypes::Int64Type>().value(row).checked_mul(factor),
    };
    match ms.filter(|ms| crate::time::is_admissible(*ms)) {
        Some(ms) => Ok(Some(ms)),
        None => {
            exec_err!("TO_TIMESTAMP_LTZ: a number is out of the range of times; is it seconds, milliseconds or less?")
        }
    }
}

fn parse_zone(name: &str) -> Result<chrono_tz::Tz> {
    name.parse().map_err(|_| exec_datafusion_err!("there is no time zone '{name}'; write for example 'Europe/Berlin'"))
}

fn unix_timestamp(call: &Call) -> Result<ArrayRef> {
    let mut builder = Int64Builder::with_capacity(call.rows);
    parse_each(call, |_, time| {
        builder.append_option(time.map(|(_, utc)| utc.and_utc().timestamp()));
        Ok(())
    })?;
    Ok(Arc::new(builder.finish()))
}

fn to_date(call: &Call) -> Result<ArrayRef> {
    let mut builder = Date32Builder::with_capacity(call.rows);
    parse_each(call, |_, time| {
        let days = time.map(|(local, _)| local.and_utc().timestamp().div_euclid(MS_PER_DAY / 1_000));
        builder.append_option(days.and_then(|days| i32::try_from(days).ok()));
        Ok(())
    })?;
    Ok(Arc::new(builder.finish()))
}

fn convert_tz(call: &Call) -> Result<ArrayRef> {
    let (texts, from, to) = (call.text(0)?, call.text(1)?, call.text(2)?);
    let (mut from_cache, mut to_cache) = (Cached::new(), Cached::new());
    let pattern = Pattern::compile(DEFAULT_PATTERN)?;
    build_text(call.rows, |row, out| {
        if texts.is_null(row) || from.is_null(row) || to.is_null(row) {
            return Ok(false);
        }
        let from: &chrono_tz::Tz = from_cache.get(from.value(row), parse_zone)?;
        let to: &chrono_tz::Tz = to_cache.get(to.value(row), parse_zone)?;
        let Some((local, _)) = parse_plain(texts.value(row)) else { return Ok(false) };
        let Some(instant) = from.from_local_datetime(&local).earliest() else { return Ok(false) };
        pattern.format(&instant.with_timezone(to).naive_local(), out)?;
        Ok(true)
    })
}

fn extract(call: &Call, part: DatePart) -> Result<ArrayRef> {
    Ok(cast(&date_part(&call.columns[0], part)?, &DataType::Int64)?)
}

/// A unit of time: so many milliseconds, or so many months.
enum Unit {
    Ms(i64),
    Months(i64),
}

fn unit(name: &str) -> Result<Unit> {
    let upper = name.to_ascii_uppercase();
    Ok(match upper.strip_suffix('S').unwrap_or(&upper) {
        "MILLISECOND" => Unit::Ms(1),
        "SECOND" => Unit::Ms(1_000),
        "MINUTE" => Unit::Ms(60_000),
        "HOUR" => Unit::Ms(3_600_000),
        "DAY" => Unit::Ms(MS_PER_DAY),
        "WEEK" => Unit::Ms(7 * MS_PER_DAY),
        "MONTH" => Unit::Months(1),
        "QUARTER" => Unit::Months(3),
        "YEAR" => Unit::Months(12),
        _ => {
            return exec_err!(
                "'{name}' is no unit of time; write SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER or YEAR"
            );
        }
    })
}

fn timestampdiff(call: &Call) -> Result<ArrayRef> {
    let (units, from, to) = (call.text(0)?, Times(&call.columns[1]), Times(&call.columns[2]));
    let mut cache = Cached::new();
    let mut builder = Int32Builder::with_capacity(call.rows);
    for row in 0..call.rows {
        let (Some(from), Some(to), true) = (from.get(row)?, to.get(row)?, units.is_valid(row)) else {
            builder.append_null();
            continue;
        };
        let count = match cache.get(units.value(row), unit)? {
            Unit::Ms(ms) => (to.and_utc().timestamp_millis() - from.and_utc().timestamp_millis()) / ms,
            Unit::Months(months) => whole_months(from, to) / months,
        };
        match i32::try_from(count) {
            Ok(count) => builder.append_value(count),
            Err(_) => return exec_err!("TIMESTAMPDIFF: {count} {}s do not fit an INT", units.value(row)),
        }
    }
    Ok(Arc::new(builder.finish()))
}

/// Whole months between two times, towards zero.
fn whole_months(from: NaiveDateTime, to: NaiveDateTime) -> i64 {
    let months = |time: NaiveDateTime| i64::from(time.year()) * 12 + i64::from(time.month0());
    let rest = |time: NaiveDateTime| (time.day(), time.time());
    let count = months(to) - months(from);
    match count {
        1.. if rest(to) < rest(from) => count - 1,
        ..=-1 if rest(to) > rest(from) => count + 1,
        _ => count,
    }
}

fn timestampadd(call: &Call) -> Result<ArrayRef> {
    let (units, counts, times) = (call.text(0)?, call.int(1)?, Times(&call.columns[2]));
    let mut cache = Cached::new();
    // Computed in microseconds, the finest that any admitted time fits.
    let mut builder = arrow::array::TimestampMicrosecondBuilder::with_capacity(call.rows);
    for row in 0..call.rows {
        let (Some(time), true, true) = (times.get(row)?, units.is_valid(row), counts.is_valid(row)) else {
            builder.append_null();
            continue;
        };
        let count = counts.value(row);
        let later = match cache.get(units.value(row), unit)? {
            Unit::Ms(ms) => count
                .checked_mul(*ms)
                .and_then(chrono::TimeDelta::try_milliseconds)
                .and_then(|delta| time.checked_add_signed(delta)),
            Unit::Months(months) => count.checked_mul(*months).and_then(|months| {
                let distance = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
                if months < 0 { time.checked_sub_months(distance) } else { time.checked_add_months(distance) }
            }),
        };
        match later {
            Some(later) => builder.append_value(later.and_utc().timestamp_micros()),
            None => return exec_err!("TIMESTAMPADD: {count} {}s are out of the range of times", units.value(row)),
        }
    }
    let micros: ArrayRef = Arc::new(builder.finish());
    match call.columns[2].data_type() {
        DataType::Timestamp(unit, zone) => {
            // Without a zone first: a cast between zones would shift the time.
            let same_unit = cast(&micros, &DataType::Timestamp(*unit, None))?;
            Ok(match zone {
                None => same_unit,
                Some(_) => cast(&cast(&same_unit, &DataType::Int64)?, call.columns[2].data_type())?,
            })
        }
        other => exec_err!("expected a timestamp, not {other}"),
    }
}
