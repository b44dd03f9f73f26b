//! Scalar values as text, both ways: what JSON strings, JSON numbers and CSV fields have in common.
//!
//! Reading is exact. A number that the column's type cannot hold is a [`Misfit`], never a rounded or wrapped one; the
//! only digits that may be lost are those that the type itself does not have: a fraction beyond a `DECIMAL`'s scale
//! is rounded half up (as Flink does), floating point takes the nearest value.

use arrow::datatypes::{DataType, TimeUnit};

use super::columns::{ColumnBuilder, Full, Values};
use super::temporal;
use crate::error::{Error, Result};

/// Why a value does not go into a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// It is not a value of the type.
    Type,
    /// It is, but beyond the type's range.
    Range,
    /// The batch cannot hold more.
    Full,
}

impl Misfit {
    /// The reason in words, for a column of the given type and a value as it is to be shown.
    pub(super) fn describe(self, data_type: &DataType, found: &str) -> String {
        let name = sql_name(data_type);
        match self {
            Self::Type => format!("expected {name}, found {found}"),
            Self::Range => format!("{found} is out of range for {name}"),
            Self::Full => format!("the batch has no room for more {name} values"),
        }
    }
}

impl From<Full> for Misfit {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

/// A payload as text.
pub(super) fn utf8(payload: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(payload).map_err(|e| format!("not valid UTF-8 at byte {}", e.valid_up_to()))
}

/// Appends a value given as text: anything but `ARRAY`, `ROW` and `MAP`. Numbers may have spaces around them.
pub(super) fn append_text(column: &mut ColumnBuilder, text: &str) -> Result<(), Misfit> {
    match &mut column.values {
        Values::Boolean(v) => v.append(parse_boolean(text).ok_or(Misfit::Type)?),
        Values::Utf8(v) => v.push(text.as_bytes())?,
        Values::Binary(v) => {
            decode_base64(text.as_bytes(), v.buffer()).ok_or(Misfit::Type)?;
            v.end()?;
        }
        Values::Date(v) => v.push(temporal::parse_date(text)?),
        Values::TimeMs(v) => v.push(temporal::parse_time_ms(text)?),
        Values::Timestamp { values, unit, zone } => values.push(temporal::parse_timestamp(text, *unit, zone)?),
        Values::List { .. } | Values::Struct { .. } | Values::Map { .. } => return Err(Misfit::Type),
        _ => return append_number(column, text.trim_ascii()),
    }
    column.nulls.append_non_null();
    Ok(())
}

/// Appends a number given as text. Milliseconds since the epoch are a `TIMESTAMP`, and a `STRING` keeps the text.
pub(super) fn append_number(column: &mut ColumnBuilder, text: &str) -> Result<(), Misfit> {
    fn narrow<T: TryFrom<i64>>(text: &str) -> Result<T, Misfit> {
        T::try_from(parse_integer(text)?).map_err(|_| Misfit::Range)
    }
    match &mut column.values {
        Values::Int8(v) => v.push(narrow(text)?),
        Values::Int16(v) => v.push(narrow(text)?),
        Values::Int32(v) => v.push(narrow(text)?),
        Values::Int64(v) => v.push(parse_integer(text)?),
        Values::Float32(v) => v.push(parse_float::<f32>(text, f32::is_finite)?),
        Values::Float64(v) => v.push(match short_decimal(text.as_bytes()) {
            Some(value) => value,
            None => parse_float::<f64>(text, f64::is_finite)?,
        }),
        Values::Decimal { values, precision, scale } => values.push(parse_decimal(text, *precision, *scale)?),
        Values::Timestamp { values, unit, .. } => {
            values.push(temporal::timestamp_from_ms(parse_integer(text)?, *unit)?);
        }
        Values::Utf8(v) => v.push(text.as_bytes())?,
        _ => return Err(Misfit::Type),
    }
    column.nulls.append_non_null();
    Ok(())
}

/// Appends `true` or `false`; a `STRING` keeps the word.
pub(super) fn append_boolean(column: &mut ColumnBuilder, value: bool) -> Result<(), Misfit> {
    match &mut column.values {
        Values::Boolean(v) => v.append(value),
        Values::Utf8(v) => v.push(if value { b"true" } else { b"false" })?,
        _ => return Err(Misfit::Type),
    }
    column.nulls.append_non_null();
    Ok(())
}

fn parse_boolean(text: &str) -> Option<bool> {
    let text = text.trim_ascii();
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// So many digits always fit into 64 bits.
const INTEGER_DIGITS_SAFE: usize = 18;

/// Reads decimal digits with at most one sign. `1.0` and `1e3` are not integers.
fn parse_integer(text: &str) -> Result<i64, Misfit> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(Misfit::Type);
    }
    if digits.len() <= INTEGER_DIGITS_SAFE {
        let mut value: i64 = 0;
        for digit in digits {
            let digit = digit.wrapping_sub(b'0');
            if digit > 9 {
                return Err(Misfit::Type);
            }
            value = value * 10 + i64::from(digit);
        }
        return Ok(if negative { -value } else { value });
    }
    // Negative throughout: the least value has no positive counterpart.
    let mut value: i64 = 0;
    let mut fits = true;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Misfit::Type);
        }
        match value.checked_mul(10).and_then(|v| v.checked_sub(i64::from(digit))) {
            Some(v) => value = v,
            None => fits = false,
        }
    }
    let value = if negative { Some(value) } else { value.checked_neg() };
    value.filter(|_| fits).ok_or(Misfit::Range)
}

/// Decimals of a few digits, as nearly all are: a whole number and a power of ten that a double holds exactly, so that their
/// quotient is the nearest double. `None` for anything else.
fn short_decimal(text: &[u8]) -> Option<f64> {
    /// Whole numbers of so many digits are less than 2 to the power of 53.
    const DIGITS_MAX: usize = 15;
    const POWERS: [f64; DIGITS_MAX] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14];
    let (negative, text) = match text {
        [b'-', text @ ..] => (true, text),
        _ => (false, text),
    };
    if text.len() > DIGITS_MAX + 1 {
        return None;
    }
    let (mut value, mut digits, mut point) = (0_u64, 0, None);
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            value = value * 10 + u64::from(digit);
            digits += 1;
        } else if *byte == b'.' && point.is_none() && digits > 0 {
            point = Some(digits);
        } else {
            return None;
        }
    }
    let fraction = digits - point.unwrap_or(digits);
    if digits == 0 || digits > DIGITS_MAX || (point.is_some() && fraction == 0) {
        return None;
    }
    let value = value as f64 / POWERS[fraction];
    Some(if negative { -value } else { value })
}

fn parse_float<F: std::str::FromStr + Copy>(text: &str, is_finite: fn(F) -> bool) -> Result<F, Misfit> {
    // The standard library also takes words such as `inf`.
    if !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
        return Err(Misfit::Type);
    }
    let value = text.parse::<F>().map_err(|_| Misfit::Type)?;
    if is_finite(value) { Ok(value) } else { Err(Misfit::Range) }
}

/// Reads a decimal number exactly, rounded half up to `scale` digits of fraction.
fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Misfit> {
    let (negative, rest) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (mantissa, exponent) = match rest.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&rest[..at], parse_exponent(&rest[at + 1..])?),
        None => (rest, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|b| *b == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    let mut digits = whole.iter().chain(fraction).map(|b| b.wrapping_sub(b'0'));
    if whole.len() + fraction.len() == 0 || digits.clone().any(|d| d > 9) {
        return Err(Misfit::Type);
    }
    // The first `keep` digits are the unscaled value; the next one decides the rounding. Both are counted from the
    // first digit that is not zero, so that the bound below is about the value and not about its spelling.
    let mut keep = whole.len() as i64 + exponent + i64::from(scale);
    let mut first = digits.next();
    while first == Some(0) {
        first = digits.next();
        keep -= 1;
    }
    let Some(first) = first else { return Ok(0) };
    if keep > i64::from(precision) {
        return Err(Misfit::Range);
    }
    let mut digits = std::iter::once(first).chain(digits);
    let mut value: i128 = 0;
    for _ in 0..keep {
        // At most 38 digits.
        value = value * 10 + i128::from(digits.next().unwrap_or(0));
    }
    if keep >= 0 && digits.next().unwrap_or(0) >= 5 {
        value += 1;
    }
    if value >= 10_i128.pow(u32::from(precision)) {
        return Err(Misfit::Range);
    }
    Ok(if negative { -value } else { value })
}

fn parse_exponent(text: &[u8]) -> Result<i64, Misfit> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Misfit::Type);
    }
    // Beyond any payload's number of digits, larger exponents all mean the same.
    let value = digits.iter().fold(0_i64, |v, d| (v * 10 + i64::from(d - b'0')).min(1 << 40));
    Ok(if negative { -value } else { value })
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of each base64 digit; 255 for bytes that are none.
const BASE64_VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut i = 0;
    while i < 64 {
        values[BASE64[i] as usize] = i as u8;
        i += 1;
    }
    values
};

/// Appends the bytes that padded base64 stands for; `None` when it is not that.
fn decode_base64(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (groups, rest) = text.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    for (i, group) in groups.iter().enumerate() {
        let padding = if i + 1 < groups.len() { 0 } else { group.iter().rev().take_while(|b| **b == b'=').count() };
        let mut bits = 0_u32;
        for digit in &group[..4 - padding] {
            let value = BASE64_VALUES[usize::from(*digit)];
            if value == 255 {
                return None;
            }
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * padding;
        let bytes = bits.to_be_bytes();
        // Bits that the padding cuts off must be zero, or two texts would mean the same bytes.
        if padding > 2 || bytes[4 - padding..].iter().any(|b| *b != 0) {
            return None;
        }
        out.extend_from_slice(&bytes[1..4 - padding]);
    }
    Some(())
}

/// Appends bytes as padded base64.
pub(super) fn encode_base64(bytes: &[u8], out: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for i in 0..4 {
            let digit = BASE64[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { digit } else { b'=' });
        }
    }
}

/// Appends an unsigned number.
pub(super) fn write_unsigned(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a whole number.
pub(super) fn write_integer(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    write_unsigned(value.unsigned_abs(), out);
}

/// Appends a finite number with the fewest digits that are read back as the same number; `1.0`, not `1`.
pub(super) fn write_float64(value: f64, out: &mut Vec<u8>) -> Result<()> {
    debug_assert!(value.is_finite());
    serde_json::to_writer(out, &value).map_err(|e| Error::bug(e.to_string()))
}

/// The same in single precision, which has fewer digits.
pub(super) fn write_float32(value: f32, out: &mut Vec<u8>) -> Result<()> {
    debug_assert!(value.is_finite());
    serde_json::to_writer(out, &value).map_err(|e| Error::bug(e.to_string()))
}

/// Appends a decimal with all digits of its scale, never with an exponent.
pub(super) fn write_decimal(value: i128, scale: i8, out: &mut Vec<u8>) {
    let mut digits = [0; 40];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let digits = &digits[at..];
    if value < 0 {
        out.push(b'-');
    }
    let fraction = usize::from(scale.max(0).unsigned_abs());
    if digits.len() > fraction {
        out.extend_from_slice(&digits[..digits.len() - fraction]);
    } else {
        out.push(b'0');
    }
    if scale < 0 && value != 0 {
        out.resize(out.len() + usize::from(scale.unsigned_abs()), b'0');
    }
    if fraction > 0 {
        out.push(b'.');
        out.resize(out.len() + fraction.saturating_sub(digits.len()), b'0');
        out.extend_from_slice(&digits[digits.len().saturating_sub(fraction)..]);
    }
}

/// The type as SQL writes it.
pub(super) fn sql_name(data_type: &DataType) -> String {
    let digits = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Utf8 => "STRING".into(),
        DataType::Binary => "BYTES".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".into(),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP({})", digits(unit)),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP_LTZ({})", digits(unit)),
        DataType::List(item) => format!("ARRAY<{}>", sql_name(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|f| format!("{} {}", f.name(), sql_name(f.data_type()))).collect();
            format!("ROW<{}>", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                format!("MAP<{}, {}>", sql_name(pair[0].data_type()), sql_name(pair[1].data_type()))
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn short_decimals_are_the_nearest_doubles() {
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..100_000 {
            let limit = 10_u64.pow(rng.random_range(1..17));
            let digits = rng.random_range(0..limit).to_string();
            let mut text = digits.clone();
            if rng.random_range(0..4) > 0 {
                text.insert(rng.random_range(0..=digits.len()), '.');
            }
            if rng.random_range(0..3) == 0 {
                text.insert(0, '-');
            }
            if let Some(value) = short_decimal(text.as_bytes()) {
                assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
            } else {
                assert!(
                    digits.len() > 15 || text.ends_with('.') || text.trim_start_matches('-').starts_with('.'),
                    "{text}"
                );
            }
        }
        for text in ["", "-", ".", "-.5", "1.", "1e3", "+1", "1.2.3", "0x1", "1 "] {
            assert_eq!(short_decimal(text.as_bytes()), None, "{text}");
        }
        assert!(short_decimal(b"-0.0").is_some_and(f64::is_sign_negative));
    }

    #[test]
    fn integers_are_exact() {
        for (text, want) in [
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("+12", Ok(12)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(Misfit::Range)),
            ("-9223372036854775809", Err(Misfit::Range)),
            ("99999999999999999999999999", Err(Misfit::Range)),
            ("99999999999999999999999999x", Err(Misfit::Type)),
            ("1.0", Err(Misfit::Type)),
            ("1e3", Err(Misfit::Type)),
            ("--1", Err(Misfit::Type)),
            ("-", Err(Misfit::Type)),
            ("", Err(Misfit::Type)),
        ] {
            assert_eq!(parse_integer(text), want, "{text}");
        }
    }

    #[test]
    fn decimals_are_rounded_half_up_and_bounded() {
        let nines = "9".repeat(38);
        for (text, precision, scale, want) in [
            ("12.345", 5, 2, Ok(1_235)),
            ("-12.345", 5, 2, Ok(-1_235)),
            ("12.3449999", 5, 2, Ok(1_234)),
            ("12", 5, 2, Ok(1_200)),
            ("0.004", 5, 2, Ok(0)),
            ("0.005", 5, 2, Ok(1)),
            ("0.0005", 5, 2, Ok(0)),
            ("1.2e2", 5, 2, Ok(12_000)),
            ("12345e-4", 5, 2, Ok(123)),
            ("5e-3", 5, 2, Ok(1)),
            ("5e-4", 5, 2, Ok(0)),
            ("0e999999999999999999", 5, 2, Ok(0)),
            ("1e999999999999999999", 5, 2, Err(Misfit::Range)),
            ("1e-999999999999999999", 5, 2, Ok(0)),
            ("999.994", 5, 2, Ok(99_999)),
            ("999.995", 5, 2, Err(Misfit::Range)),
            ("1000", 5, 2, Err(Misfit::Range)),
            ("00001", 5, 2, Ok(100)),
            (&nines, 38, 0, Ok(10_i128.pow(38) - 1)),
            ("1.", 5, 2, Ok(100)),
            ("", 5, 2, Err(Misfit::Type)),
            (".", 5, 2, Err(Misfit::Type)),
            ("1.2.3", 5, 2, Err(Misfit::Type)),
            ("1e", 5, 2, Err(Misfit::Type)),
            ("ten", 5, 2, Err(Misfit::Type)),
        ] {
            assert_eq!(parse_decimal(text, precision, scale), want, "{text}");
        }
    }

    #[test]
    fn decimals_are_written_plain() {
        for (value, scale, want) in [
            (1_234, 2, "12.34"),
            (-5, 2, "-0.05"),
            (0, 2, "0.00"),
            (120, 0, "120"),
            (12, -3, "12000"),
            (0, -3, "0"),
            (100, 2, "1.00"),
        ] {
            let mut out = Vec::new();
            write_decimal(value, scale, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn floats_are_finite_numbers() {
        assert_eq!(parse_float::<f64>("1e308", f64::is_finite), Ok(1e308));
        assert_eq!(parse_float::<f64>("1e309", f64::is_finite), Err(Misfit::Range));
        assert_eq!(parse_float::<f32>("1e39", f32::is_finite), Err(Misfit::Range));
        for text in ["NaN", "inf", "Infinity", "", "1e", "-"] {
            assert_eq!(parse_float::<f64>(text, f64::is_finite), Err(Misfit::Type), "{text}");
        }
    }

    #[test]
    fn base64_both_ways() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xff\xfe\xfd\xfc", "//79/A==")]
        {
            let mut out = Vec::new();
            encode_base64(bytes, &mut out);
            assert_eq!(std::str::from_utf8(&out).unwrap(), text);
            let mut back = Vec::new();
            assert_eq!(decode_base64(text.as_bytes(), &mut back), Some(()));
            assert_eq!(back, bytes);
        }
        for text in ["Z", "Zg=", "Zg", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm9v ", "Zm-v"] {
            assert_eq!(decode_base64(text.as_bytes(), &mut Vec::new()), None, "{text}");
        }
    }
}
