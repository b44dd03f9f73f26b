//! Dates and times as text, both ways.
//!
//! Reading takes SQL's and ISO 8601's spellings alike: `2013-01-01 10:00:00`, `2013-01-01T10:00:00.123456789+01:00`,
//! `2013-01-01T10:00Z`, a date alone (midnight). Whatever else Arrow can read (a zone's name at the end) is left to
//! it. Writing is Flink's: as many digits of the fraction as are needed and no more. The calendar is Gregorian, also
//! before its time; years beyond 9999 have a sign.

use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::TimeUnit;
use chrono::{TimeZone, Utc};

use super::columns::Zone;
use super::text::Misfit;
use crate::time::is_admissible;

const SECONDS_PER_DAY: i64 = 86_400;
const MS_PER_DAY: i64 = 86_400_000;
const NANOS_PER_DAY: i64 = 86_400_000_000_000;
/// Digits of a year, at most: more than any admissible time needs.
const YEAR_DIGITS_MAX: usize = 9;

/// Reads a date as days since the epoch.
pub(super) fn parse_date(text: &str) -> Result<i32, Misfit> {
    let (days, rest) = date_prefix(text.as_bytes()).ok_or(Misfit::Type)?;
    if !rest.is_empty() {
        return Err(Misfit::Type);
    }
    check_admissible(days.checked_mul(MS_PER_DAY))?;
    i32::try_from(days).map_err(|_| Misfit::Range)
}

/// The time that a text says in milliseconds since the epoch, and whether it names its offset.
pub(crate) fn moment_ms(text: &str) -> Option<(i64, bool)> {
    let (seconds, nanos, offset) = moment(text.as_bytes())?;
    let ms = (seconds - offset.unwrap_or(0)).checked_mul(1_000)?.checked_add(i64::from(nanos / 1_000_000))?;
    is_admissible(ms).then_some((ms, offset.is_some()))
}

/// Whether a text is a date alone.
pub(crate) fn is_date(text: &str) -> bool {
    parse_date(text).is_ok()
}

/// Reads a time of day as milliseconds since midnight.
pub(super) fn parse_time_ms(text: &str) -> Result<i32, Misfit> {
    let (seconds, nanos, rest) = time_prefix(text.as_bytes()).ok_or(Misfit::Type)?;
    match rest {
        b"" | b"Z" => Ok((seconds * 1_000) as i32 + (nanos / 1_000_000) as i32),
        _ => Err(Misfit::Type),
    }
}

/// Reads a time stamp in the given unit; digits beyond it are cut off. Without an offset it is the zone's wall clock.
pub(super) fn parse_timestamp(text: &str, unit: TimeUnit, zone: &Zone) -> Result<i64, Misfit> {
    let (mut seconds, nanos) = match moment(text.as_bytes()) {
        Some((seconds, nanos, Some(offset))) => (seconds - offset, nanos),
        Some((seconds, nanos, None)) => match zone {
            Zone::None | Zone::Utc => (seconds, nanos),
            Zone::Named(tz) => {
                let wall = chrono::DateTime::from_timestamp(seconds, 0).ok_or(Misfit::Range)?.naive_utc();
                // At the end of summer time an hour comes twice; the first is meant, as in Java.
                let moment = tz.from_local_datetime(&wall).earliest().ok_or(Misfit::Range)?;
                (moment.timestamp(), nanos)
            }
        },
        None => {
            let other = match zone {
                Zone::None | Zone::Utc => string_to_datetime(&Utc, text).ok().map(|t| t.to_utc()),
                Zone::Named(tz) => string_to_datetime(tz, text).ok().map(|t| t.to_utc()),
            };
            let other = other.ok_or(Misfit::Type)?;
            (other.timestamp(), other.timestamp_subsec_nanos())
        }
    };
    let per_second = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    check_admissible(seconds.checked_mul(1_000))?;
    let mut fraction = i64::from(nanos) / (1_000_000_000 / per_second);
    if seconds < 0 && fraction > 0 {
        // From the next second downwards, so that the least representable time does not overflow on the way.
        seconds += 1;
        fraction -= per_second;
    }
    seconds.checked_mul(per_second).and_then(|s| s.checked_add(fraction)).ok_or(Misfit::Range)
}

/// A time stamp in the given unit from milliseconds since the epoch.
pub(super) fn timestamp_from_ms(ms: i64, unit: TimeUnit) -> Result<i64, Misfit> {
    check_admissible(Some(ms))?;
    match unit {
        TimeUnit::Second => Some(ms.div_euclid(1_000)),
        TimeUnit::Millisecond => Some(ms),
        TimeUnit::Microsecond => ms.checked_mul(1_000),
        TimeUnit::Nanosecond => ms.checked_mul(1_000_000),
    }
    .ok_or(Misfit::Range)
}

fn check_admissible(ms: Option<i64>) -> Result<(), Misfit> {
    if ms.is_some_and(is_admissible) { Ok(()) } else { Err(Misfit::Range) }
}

/// Seconds since the epoch as written, nanoseconds, and the offset in seconds if there is one.
fn moment(text: &[u8]) -> Option<(i64, u32, Option<i64>)> {
    let (days, rest) = date_prefix(text)?;
    let midnight = days * SECONDS_PER_DAY;
    let Some((separator, rest)) = rest.split_first() else { return Some((midnight, 0, None)) };
    if !matches!(separator, b'T' | b' ') {
        return None;
    }
    let (seconds, nanos, rest) = time_prefix(rest)?;
    Some((midnight + seconds, nanos, offset(rest)?))
}

/// `Some(None)` when there is no offset, `None` when there is something else.
fn offset(text: &[u8]) -> Option<Option<i64>> {
    let text = match text {
        [] => return Some(None),
        [b' ', rest @ ..] => rest,
        _ => text,
    };
    let (sign, hours, minutes) = match text {
        b"Z" => return Some(Some(0)),
        [sign, h1, h2] => (sign, two(*h1, *h2)?, 0),
        [sign, h1, h2, b':', m1, m2] | [sign, h1, h2, m1, m2] => (sign, two(*h1, *h2)?, two(*m1, *m2)?),
        _ => return None,
    };
    // Java's bound: real offsets lie well within.
    if hours > 18 || minutes > 59 {
        return None;
    }
    let seconds = i64::from(hours * 3_600 + minutes * 60);
    match sign {
        b'+' => Some(Some(seconds)),
        b'-' => Some(Some(-seconds)),
        _ => None,
    }
}

/// Days since the epoch of the date that `text` starts with, and what follows it.
fn date_prefix(text: &[u8]) -> Option<(i64, &[u8])> {
    let (year, rest) = match text {
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let digits = rest.iter().take(YEAR_DIGITS_MAX + 1).take_while(|b| b.is_ascii_digit()).count();
            if !(4..=YEAR_DIGITS_MAX).contains(&digits) {
                return None;
            }
            let year = rest[..digits].iter().fold(0, |year, b| year * 10 + i64::from(b - b'0'));
            (if *sign == b'-' { -year } else { year }, &rest[digits..])
        }
        [y1, y2, y3, y4, rest @ ..] => (i64::from(two(*y1, *y2)? * 100 + two(*y3, *y4)?), rest),
        _ => return None,
    };
    let [b'-', m1, m2, b'-', d1, d2, rest @ ..] = rest else { return None };
    let (month, day) = (two(*m1, *m2)?, two(*d1, *d2)?);
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    Some((days_from_civil(year, month, day), rest))
}

/// Seconds since midnight and nanoseconds of the time that `text` starts with, and what follows it.
fn time_prefix(text: &[u8]) -> Option<(i64, u32, &[u8])> {
    let [h1, h2, b':', m1, m2, rest @ ..] = text else { return None };
    let (hours, minutes) = (two(*h1, *h2)?, two(*m1, *m2)?);
    let (seconds, rest) = match rest {
        [b':', s1, s2, rest @ ..] => (two(*s1, *s2)?, rest),
        _ => (0, rest),
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let (nanos, rest) = match rest {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            // Digits beyond the ninth carry no meaning for any type.
            let nanos = (0..9).fold(0, |n, i| n * 10 + if i < digits { u32::from(rest[i] - b'0') } else { 0 });
            (nanos, &rest[digits..])
        }
        _ => (0, rest),
    };
    Some((i64::from(hours * 3_600 + minutes * 60 + seconds), nanos, rest))
}

fn two(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| u32::from(tens * 10 + ones))
}

fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the epoch. Years are counted from March, so that a leap day is the last day of its year; eras of 400
/// years all have the same number of days.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = ((month_from_march + 2) % 12 + 1) as u32;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Writes days since the epoch as `2013-01-01`.
pub(super) fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(days);
    match year {
        0..=9_999 => {}
        10_000.. => out.push(b'+'),
        _ => out.push(b'-'),
    }
    let year = year.unsigned_abs();
    if year > 9_999 {
        super::text::write_unsigned(year / 10_000, out);
    }
    write_two((year / 100 % 100) as u32, out);
    write_two((year % 100) as u32, out);
    out.push(b'-');
    write_two(month, out);
    out.push(b'-');
    write_two(day, out);
}

/// Writes nanoseconds since midnight as `10:00:00`, with a fraction if there is one.
pub(super) fn write_time(nanos: i64, out: &mut Vec<u8>) {
    let (seconds, mut nanos) = ((nanos / 1_000_000_000) as u32, (nanos % 1_000_000_000) as u32);
    write_two(seconds / 3_600, out);
    out.push(b':');
    write_two(seconds / 60 % 60, out);
    out.push(b':');
    write_two(seconds % 60, out);
    if nanos != 0 {
        out.push(b'.');
        let mut place = 100_000_000;
        while nanos != 0 {
            out.push(b'0' + (nanos / place) as u8);
            nanos %= place;
            place /= 10;
        }
    }
}

/// Writes a time stamp as `2013-01-01 10:00:00`, with the given character between date and time.
pub(super) fn write_timestamp(value: i64, unit: TimeUnit, separator: u8, out: &mut Vec<u8>) {
    let per_day = match unit {
        TimeUnit::Second => SECONDS_PER_DAY,
        TimeUnit::Millisecond => MS_PER_DAY,
        TimeUnit::Microsecond => MS_PER_DAY * 1_000,
        TimeUnit::Nanosecond => NANOS_PER_DAY,
    };
    write_date(value.div_euclid(per_day), out);
    out.push(separator);
    write_time(value.rem_euclid(per_day) * (NANOS_PER_DAY / per_day), out);
}

fn write_two(value: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    fn ms(text: &str) -> Result<i64, Misfit> {
        parse_timestamp(text, TimeUnit::Millisecond, &Zone::Utc)
    }

    #[test]
    fn time_stamps_are_read_in_every_spelling() {
        let ten = 1_357_034_400_000;
        for (text, want) in [
            ("2013-01-01 10:00:00", Some(ten)),
            ("2013-01-01T10:00:00", Some(ten)),
            ("2013-01-01T10:00Z", Some(ten)),
            ("2013-01-01T10:00:00Z", Some(ten)),
            ("2013-01-01T10:00:00.1", Some(ten + 100)),
            ("2013-01-01 10:00:00.123456789", Some(ten + 123)),
            ("2013-01-01T11:00:00+01:00", Some(ten)),
            ("2013-01-01T09:30:00.5-0030", Some(ten + 500)),
            ("2013-01-01 10:00:00 +00", Some(ten)),
            ("2013-01-01", Some(ten - 36_000_000)),
            ("1969-12-31T23:59:59.9999Z", Some(-1)),
            ("2012-02-29 00:00:00", Some(1_330_473_600_000)),
            ("+12013-01-01 10:00:00", Some(316_926_554_400_000)),
            ("2013-02-29 00:00:00", None),
            ("2013-13-01 00:00:00", None),
            ("2013-01-00 00:00:00", None),
            ("2013-01-01 24:00:00", None),
            ("2013-01-01 10:60:00", None),
            ("2013-01-01 10:00:00x", None),
            ("2013-01-01 10:00:00+99:00", None),
            ("2013-01-01\u{e9}10:00:00", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(ms(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn a_named_zone_gives_times_without_an_offset_their_meaning() {
        let tokyo = Zone::Named(arrow::array::timezone::Tz::from_str("Asia/Tokyo").unwrap());
        let parse = |text| parse_timestamp(text, TimeUnit::Millisecond, &tokyo);
        assert_eq!(parse("2013-01-01 10:00:00"), ms("2013-01-01 01:00:00"));
        assert_eq!(parse("2013-01-01 10:00:00Z"), ms("2013-01-01 10:00:00"));
        // New York skips an hour in spring and has one twice in autumn.
        let york = Zone::Named(arrow::array::timezone::Tz::from_str("America/New_York").unwrap());
        let parse = |text| parse_timestamp(text, TimeUnit::Millisecond, &york);
        assert_eq!(parse("2013-03-10 02:30:00"), Err(Misfit::Range));
        assert_eq!(parse("2013-11-03 01:30:00"), ms("2013-11-03 05:30:00"));
    }

    #[test]
    fn times_that_no_window_can_hold_are_out_of_range() {
        assert_eq!(ms("+200000000-01-01 00:00:00"), Err(Misfit::Range));
        assert_eq!(parse_timestamp("2300-01-01", TimeUnit::Nanosecond, &Zone::None), Err(Misfit::Range));
        assert_eq!(parse_timestamp("1677-09-21 00:12:43.145224192", TimeUnit::Nanosecond, &Zone::None), Ok(i64::MIN));
        assert_eq!(timestamp_from_ms(1 << 52, TimeUnit::Millisecond), Err(Misfit::Range));
        assert_eq!(timestamp_from_ms(-1, TimeUnit::Second), Ok(-1));
        assert_eq!(parse_date("+999999999-01-01"), Err(Misfit::Range));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut value: i64 = 1;
        for _ in 0..20_000 {
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let ms_value = value >> 12;
            let mut out = Vec::new();
            write_timestamp(ms_value, TimeUnit::Millisecond, b' ', &mut out);
            assert_eq!(ms(std::str::from_utf8(&out).unwrap()), Ok(ms_value));
        }
        for (text, unit) in
            [("1969-12-31 23:59:59.999999999", TimeUnit::Nanosecond), ("0000-01-01 00:00:00", TimeUnit::Second)]
        {
            let mut out = Vec::new();
            write_timestamp(parse_timestamp(text, unit, &Zone::None).unwrap(), unit, b' ', &mut out);
            assert_eq!(std::str::from_utf8(&out).unwrap(), text);
        }
    }

    #[test]
    fn times_of_day() {
        for (text, want) in [("10:00", Ok(36_000_000)), ("23:59:59.999Z", Ok(86_399_999)), ("9:00", Err(Misfit::Type))]
        {
            assert_eq!(parse_time_ms(text), want, "{text}");
        }
    }
}
