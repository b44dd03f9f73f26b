//! Numbers as people read them.

use crate::time::TimeMs;

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 row`, `1,000 rows`.
pub fn count(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A length of time: `40 ms`, `1.5 s`, `40 s`, `3 min 20 s`.
pub fn span(ms: u64) -> String {
    let pair = |whole: u64, unit: &str, rest: u64, of_rest: &str| match rest {
        0 => format!("{whole} {unit}"),
        rest => format!("{whole} {unit} {rest} {of_rest}"),
    };
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms} ms"),
        1..10 if ms % 1_000 >= 100 => format!("{seconds}.{} s", ms % 1_000 / 100),
        1..60 => format!("{seconds} s"),
        60..3_600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => pair(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// A number of bytes: `512 B`, `12.3 KB`. Units are steps of 1,024, as in options and settings.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KB", "MB", "GB", "TB", "PB"];
    if bytes < 1 << 10 {
        return format!("{bytes} B");
    }
    let (mut whole, mut rest, mut unit) = (bytes >> 10, bytes & 0x3ff, 0);
    while 1 << 10 <= whole && unit + 1 < UNITS.len() {
        (rest, whole, unit) = (whole & 0x3ff, whole >> 10, unit + 1);
    }
    // What does not make a tenth is left out.
    format!("{}.{} {}", grouped(whole), (rest * 10) >> 10, UNITS[unit])
}

/// How many a second, of so many in so long.
pub fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        // The greatest that is ever shown is far below what a float holds exactly.
        rate => grouped(rate.round() as u64),
    }
}

/// An instant of event time, in UTC: `2013-01-01 10:00:00Z`, with milliseconds where there are any.
pub fn instant(time: TimeMs) -> String {
    let Some(at) = chrono::DateTime::from_timestamp_millis(time) else { return format!("{time} ms") };
    let fraction = if time % 1_000 == 0 { "" } else { "%.3f" };
    at.format(&format!("%Y-%m-%d %H:%M:%S{fraction}Z")).to_string()
}

/// `a`, `a and b`, `a, b and c`.
pub fn list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let spans =
            [(0, "0 ms"), (999, "999 ms"), (1_050, "1 s"), (1_500, "1.5 s"), (40_999, "40 s"), (60_000, "1 min")];
        for (ms, want) in
            spans.into_iter().chain([(200_000, "3 min 20 s"), (7_260_000, "2 h 1 min"), (90_000_000, "1 d 1 h")])
        {
            assert_eq!(span(ms), want);
        }
        let sizes = [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KB"), (12_345, "12.0 KB"), (16 << 30, "16.0 GB")];
        for (n, want) in sizes.into_iter().chain([((1 << 20) - 1, "1,023.9 KB"), (u64::MAX, "16,383.9 PB")]) {
            assert_eq!(bytes(n), want);
        }
        for (n, want) in [(0.0, "0"), (0.25, "0.2"), (9.96, "10.0"), (1_234.4, "1,234")] {
            assert_eq!(rate(n), want);
        }
        for (time, want) in [
            (0, "1970-01-01 00:00:00Z"),
            (1_357_034_400_007, "2013-01-01 10:00:00.007Z"),
            (TimeMs::MAX, "9223372036854775807 ms"),
        ] {
            assert_eq!(instant(time), want);
        }
        let names = |n: usize| list(&["a", "b", "c"].map(str::to_owned)[..n]);
        assert_eq!([names(0), names(1), names(2), names(3)], ["", "a", "a and b", "a, b and c"]);
        assert_eq!(count(1, "row") + &count(1_000, "row"), "1 row1,000 rows");
    }
}
