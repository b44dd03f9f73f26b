//! Patterns of Java's `DateTimeFormatter`, as Flink's functions take them: `yyyy-MM-dd HH:mm:ss.SSS`.
//!
//! A pattern is compiled once and formats or parses many values. Parsing is strict: the text matches the whole
//! pattern, and every field has a value that exists; what the pattern does not name is that of 1970-01-01 00:00:00.

use std::fmt::Write;

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use datafusion::common::exec_err;
use datafusion::error::Result;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A field of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Year,
    Month,
    MonthName,
    Day,
    DayOfYear,
    DayName,
    DayNumber,
    Quarter,
    HalfDay,
    Hour,
    /// 1 to 24.
    HourFrom1,
    /// 1 to 12.
    HalfHourFrom1,
    /// 0 to 11.
    HalfHour,
    Minute,
    Second,
    Fraction,
    /// An offset, `Z` for none; with a colon or not.
    Offset,
    /// An offset, never `Z`.
    OffsetNumbers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Literal(String),
    /// A field and the number of its letters.
    Field(Field, usize),
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Item>);

/// A time read from a text, and the offset that the text gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) local: NaiveDateTime,
    pub(super) offset_seconds: Option<i32>,
}

impl Pattern {
    pub(super) fn compile(text: &str) -> Result<Self> {
        let mut items: Vec<Item> = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c == '\'' {
                quoted(&mut chars, &mut literal, text)?;
                continue;
            }
            if !c.is_ascii_alphabetic() {
                if matches!(c, '{' | '}' | '#' | '[' | ']') {
                    return exec_err!("the pattern '{text}' has a '{c}', which is not supported; quote it: '''{c}'''");
                }
                literal.push(c);
                continue;
            }
            let mut count = 1;
            while chars.next_if_eq(&c).is_some() {
                count += 1;
            }
            if !literal.is_empty() {
                items.push(Item::Literal(std::mem::take(&mut literal)));
            }
            items.push(Item::Field(field(c, count, text)?, count));
        }
        if !literal.is_empty() {
            items.push(Item::Literal(literal));
        }
        Ok(Self(items))
    }

    /// Appends the time, as it is in the zone with this offset to UTC.
    pub(super) fn format(&self, time: &NaiveDateTime, out: &mut String) -> Result<()> {
        for item in &self.0 {
            let written = match item {
                Item::Literal(text) => out.write_str(text),
                Item::Field(field, count) => write_field(*field, *count, time, out),
            };
            if written.is_err() {
                return exec_err!("the time {time} cannot be formatted");
            }
        }
        Ok(())
    }

    /// The time that a text spells; `None` when it does not match.
    pub(super) fn parse(&self, text: &str) -> Option<Parsed> {
        let mut fields = Fields::default();
        let mut rest = text;
        for (i, item) in self.0.iter().enumerate() {
            match item {
                Item::Literal(literal) => rest = rest.strip_prefix(literal.as_str())?,
                Item::Field(field, count) => {
                    let next_is_number = matches!(self.0.get(i + 1), Some(Item::Field(next, _)) if is_number(*next));
                    rest = fields.read(*field, *count, next_is_number, rest)?;
                }
            }
        }
        if rest.is_empty() { fields.finish() } else { None }
    }
}

/// Text in quotes after the opening one; `''` is a quote, in and out of quotes.
fn quoted(chars: &mut std::iter::Peekable<std::str::Chars>, literal: &mut String, text: &str) -> Result<()> {
    if chars.next_if_eq(&'\'').is_some() {
        literal.push('\'');
        return Ok(());
    }
    loop {
        match chars.next() {
            None => return exec_err!("the pattern '{text}' has a quote that is not closed"),
            Some('\'') if chars.next_if_eq(&'\'').is_none() => return Ok(()),
            Some(c) => literal.push(c),
        }
    }
}

fn field(letter: char, count: usize, text: &str) -> Result<Field> {
    let (field, count_max) = match letter {
        'y' | 'u' => (Field::Year, 9),
        'M' | 'L' if count <= 2 => (Field::Month, 2),
        'M' | 'L' => (Field::MonthName, 4),
        'd' => (Field::Day, 2),
        'D' => (Field::DayOfYear, 3),
        'E' => (Field::DayName, 4),
        'e' => (Field::DayNumber, 1),
        'Q' | 'q' => (Field::Quarter, 2),
        'a' => (Field::HalfDay, 1),
        'H' => (Field::Hour, 2),
        'k' => (Field::HourFrom1, 2),
        'h' => (Field::HalfHourFrom1, 2),
        'K' => (Field::HalfHour, 2),
        'm' => (Field::Minute, 2),
        's' => (Field::Second, 2),
        'S' => (Field::Fraction, 9),
        'X' => (Field::Offset, 3),
        'x' | 'Z' => (Field::OffsetNumbers, 3),
        _ => return exec_err!("the pattern '{text}' has the letter '{letter}', which is not supported"),
    };
    if count > count_max {
        return exec_err!("the pattern '{text}' has {count} letters '{letter}'; there are at most {count_max}");
    }
    Ok(field)
}

fn is_number(field: Field) -> bool {
    !matches!(field, Field::MonthName | Field::DayName | Field::HalfDay | Field::Offset | Field::OffsetNumbers)
}

fn write_field(field: Field, count: usize, time: &NaiveDateTime, out: &mut String) -> std::fmt::Result {
    let number = match field {
        Field::Year if count == 2 => time.year().rem_euclid(100) as u32,
        Field::Year => {
            let sign = if time.year() < 0 { "-" } else { "" };
            return write!(out, "{sign}{:0count$}", time.year().unsigned_abs());
        }
        Field::Month => time.month(),
        Field::MonthName => return out.write_str(name(&MONTHS, time.month0() as usize, count)),
        Field::Day => time.day(),
        Field::DayOfYear => time.ordinal(),
        Field::DayName => return out.write_str(name(&DAYS, time.weekday().num_days_from_monday() as usize, count)),
        // As in Java with the locale of the United States: the week starts on Sunday.
        Field::DayNumber => time.weekday().number_from_sunday(),
        Field::Quarter => time.month0() / 3 + 1,
        Field::HalfDay => return out.write_str(if time.hour() < 12 { "AM" } else { "PM" }),
        Field::Hour => time.hour(),
        Field::HourFrom1 => (time.hour() + 23) % 24 + 1,
        Field::HalfHourFrom1 => (time.hour() + 11) % 12 + 1,
        Field::HalfHour => time.hour() % 12,
        Field::Minute => time.minute(),
        Field::Second => time.second(),
        Field::Fraction => {
            // Digits of the second's fraction, cut, not rounded. A leap second is never stored.
            let digits = (time.nanosecond() % 1_000_000_000) / 10_u32.pow(9 - count as u32);
            return write!(out, "{digits:0count$}");
        }
        Field::Offset => return out.write_str("Z"),
        Field::OffsetNumbers => {
            return out.write_str(match count {
                1 => "+00",
                2 => "+0000",
                _ => "+00:00",
            });
        }
    };
    write!(out, "{number:0count$}")
}

/// A name, in full for four letters, else its first three.
fn name(names: &[&'static str], index: usize, count: usize) -> &'static str {
    let full = names.get(index).copied().unwrap_or_default();
    if count == 4 { full } else { full.get(..3).unwrap_or(full) }
}

/// The fields of a time as they are read.
#[derive(Default)]
struct Fields {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    ordinal: Option<u32>,
    hour: Option<u32>,
    half_hour: Option<u32>,
    afternoon: Option<bool>,
    minute: Option<u32>,
    second: Option<u32>,
    nanosecond: Option<u32>,
    offset_seconds: Option<i32>,
}

impl Fields {
    /// Reads a field; what follows it.
    fn read<'t>(&mut self, field: Field, count: usize, next_is_number: bool, text: &'t str) -> Option<&'t str> {
        match field {
            Field::MonthName => {
                let (month, rest) = read_name(&MONTHS, count, text)?;
                self.month = Some(month + 1);
                return Some(rest);
            }
            Field::DayName => return read_name(&DAYS, count, text).map(|(_, rest)| rest),
            Field::HalfDay => {
                let head = text.get(..2)?;
                self.afternoon = Some(head.eq_ignore_ascii_case("PM"));
                return (self.afternoon == Some(true) || head.eq_ignore_ascii_case("AM")).then(|| &text[2..]);
            }
            Field::Offset | Field::OffsetNumbers => {
                let (offset, rest) = read_offset(text)?;
                self.offset_seconds = Some(offset);
                return Some(rest);
            }
            _ => {}
        }
        // One letter takes as many digits as there are, unless digits of another field follow at once.
        let digit_count = text.bytes().take_while(u8::is_ascii_digit).count();
        let (least, most) = match (field, count) {
            (Field::Year, 1 | 3..) if !next_is_number => (count, 9),
            (_, 1) if !next_is_number => (1, 19),
            _ => (count, count),
        };
        let take = digit_count.min(most);
        if take < least {
            return None;
        }
        let (digits, rest) = text.split_at(take);
        let number: u32 = digits.parse().ok()?;
        match field {
            Field::Year if count == 2 => self.year = Some(2000 + number as i32),
            Field::Year => self.year = Some(i32::try_from(number).ok()?),
            Field::Month => self.month = Some(number),
            Field::Day => self.day = Some(number),
            Field::DayOfYear => self.ordinal = Some(number),
            Field::Hour => self.hour = Some(number),
            Field::HourFrom1 if (1..=24).contains(&number) => self.hour = Some(number % 24),
            Field::HalfHourFrom1 if (1..=12).contains(&number) => self.half_hour = Some(number % 12),
            Field::HalfHour if number < 12 => self.half_hour = Some(number),
            Field::Minute => self.minute = Some(number),
            Field::Second => self.second = Some(number),
            Field::Fraction => {
                self.nanosecond = Some(number * 10_u32.pow(9_u32.checked_sub(u32::try_from(take).ok()?)?));
            }
            Field::DayNumber | Field::Quarter => {}
            _ => return None,
        }
        Some(rest)
    }

    fn finish(self) -> Option<Parsed> {
        let year = self.year.unwrap_or(1970);
        let date = match self.ordinal {
            Some(ordinal) if self.month.is_none() && self.day.is_none() => NaiveDate::from_yo_opt(year, ordinal)?,
            _ => NaiveDate::from_ymd_opt(year, self.month.unwrap_or(1), self.day.unwrap_or(1))?,
        };
        let half = self.half_hour.map(|hour| hour + if self.afternoon == Some(true) { 12 } else { 0 });
        let hour = self.hour.or(half).unwrap_or(0);
        let (minute, second) = (self.minute.unwrap_or(0), self.second.unwrap_or(0));
        let time = NaiveTime::from_hms_nano_opt(hour, minute, second, self.nanosecond.unwrap_or(0))?;
        Some(Parsed { local: date.and_time(time), offset_seconds: self.offset_seconds })
    }
}

fn read_name<'t>(names: &[&'static str], count: usize, text: &'t str) -> Option<(u32, &'t str)> {
    for index in 0..names.len() {
        let name = name(names, index, count);
        if text.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name)) {
            return Some((index as u32, &text[name.len()..]));
        }
    }
    None
}

/// `Z`, `+01`, `+0130` or `+01:30`.
fn read_offset(text: &str) -> Option<(i32, &str)> {
    if let Some(rest) = text.strip_prefix('Z') {
        return Some((0, rest));
    }
    let sign = match text.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let two = |text: &str| -> Option<i32> {
        let digits = text.get(..2)?;
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let hours = two(&text[1..])?;
    let rest = &text[3..];
    let behind_colon = rest.strip_prefix(':').unwrap_or(rest);
    let (minutes, rest) = match two(behind_colon) {
        Some(minutes) => (minutes, &behind_colon[2..]),
        None => (0, rest),
    };
    (hours <= 18 && minutes < 60).then_some((sign * (hours * 3600 + minutes * 60), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_format_as_java_does() {
        fn check(pattern: &str, want: &str) {
            let time = NaiveDate::from_ymd_opt(2013, 1, 5).unwrap().and_hms_nano_opt(15, 4, 9, 78_900_000).unwrap();
            let mut out = String::new();
            Pattern::compile(pattern).unwrap().format(&time, &mut out).unwrap();
            assert_eq!(out, want, "{pattern}");
        }
        check("yyyy-MM-dd HH:mm:ss", "2013-01-05 15:04:09");
        check("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "2013-01-05T15:04:09.078Z");
        check("yyMMddHHmmss", "130105150409");
        check("d/M/y h:mm a", "5/1/2013 3:04 PM");
        check("EEE, dd MMM yyyy", "Sat, 05 Jan 2013");
        check("EEEE MMMM k K", "Saturday January 15 3");
        check("D DDD Q '''x''' 'it''s' ''", "5 005 1 'x' it's '");
        check("S SSSSSS SSSSSSSSS", "0 078900 078900000");
        check("xx Z", "+0000 +00");
    }

    #[test]
    fn patterns_parse_what_matches_whole() {
        fn check(pattern: &str, text: &str, want: Option<&str>) {
            let got = Pattern::compile(pattern).unwrap().parse(text);
            assert_eq!(got.map(|parsed| parsed.local.to_string()).as_deref(), want, "{pattern} {text}");
        }
        check("yyyy-MM-dd HH:mm:ss", "2013-01-05 15:04:09", Some("2013-01-05 15:04:09"));
        check("yyyy-MM-dd", "2013-01-05", Some("2013-01-05 00:00:00"));
        check("yyyy-MM-dd", "2013-01-05 ", None);
        check("yyyy-MM-dd", "2013-1-5", None);
        check("y-M-d", "2013-1-5", Some("2013-01-05 00:00:00"));
        check("yyyyMMddHHmmssSSS", "20130105150409123", Some("2013-01-05 15:04:09.123"));
        check("yyyy-MM-dd", "2013-02-29", None);
        check("HH:mm", "24:00", None);
        check("hh:mm a", "12:30 AM", Some("1970-01-01 00:30:00"));
        check("dd MMM yyyy", "05 jan 2013", Some("2013-01-05 00:00:00"));
        check("yyyy-MM-dd'T'HH:mm:ssXXX", "2013-01-05T15:04:09+01:30", Some("2013-01-05 15:04:09"));
        check("yyyy-MM-dd", "日本日本", None);
        check("a", "é", None);
        check("X", "+é", None);
        check("X", "+1é2", None);
        check("yyyyyyyyy", "999999999", None);
    }

    #[test]
    fn patterns_that_mean_nothing_are_errors() {
        for pattern in ["yyyy-mm-DD'", "bb", "n", "[yyyy]", "HHH", "SSSSSSSSSS"] {
            assert!(Pattern::compile(pattern).is_err(), "{pattern}");
        }
    }
}
