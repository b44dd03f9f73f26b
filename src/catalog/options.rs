//! The options of `WITH (..)`: which keys exist, for which connector, and the nearest known key for a misspelt one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Error, Result};

/// The options of one table, as written. Keys are as they were typed; values are not interpreted here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// Options from pairs; the last value of a key wins.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The value of a key that must be there.
    pub fn require(&self, key: &str) -> Result<&str> {
        self.get(key).ok_or_else(|| {
            Error::statement(format!("the option '{key}' is missing")).hint(format!("add '{key}' = '..' to WITH (..)"))
        })
    }

    /// Sets a key.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.into(), value.into());
    }

    /// All pairs in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The pairs whose key starts with `prefix`, without it.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.iter().filter_map(move |(k, v)| k.strip_prefix(prefix).map(|k| (k, v)))
    }

    /// A value parsed as a boolean: `true` or `false`, any case.
    pub fn bool(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(v) if v.eq_ignore_ascii_case("true") => Ok(true),
            Some(v) if v.eq_ignore_ascii_case("false") => Ok(false),
            Some(v) => Err(invalid(key, v, "'true' or 'false'")),
        }
    }

    /// A value parsed as an integer.
    pub fn integer(&self, key: &str) -> Result<Option<i64>> {
        self.get(key).map(|v| v.trim().parse().map_err(|_| invalid(key, v, "a whole number"))).transpose()
    }

    /// A value parsed as a length of time, as Flink writes it: `10 s`, `200ms`, `1 min`, `2 h`, `1 d`.
    pub fn duration(&self, key: &str) -> Result<Option<Duration>> {
        self.get(key).map(|v| parse_duration(v).ok_or_else(|| invalid(key, v, "a time such as '10 s'"))).transpose()
    }

    /// A value that must be one of `allowed`, any case; the first one is the default.
    pub fn choice<'a>(&self, key: &str, allowed: &[&'a str]) -> Result<&'a str> {
        let Some(value) = self.get(key) else { return Ok(allowed[0]) };
        allowed.iter().copied().find(|a| a.eq_ignore_ascii_case(value)).ok_or_else(|| {
            let list = allowed.iter().map(|a| format!("'{a}'")).collect::<Vec<_>>().join(", ");
            invalid(key, value, &list)
        })
    }
}

/// The error for a value that an option cannot have.
pub fn invalid(key: &str, value: &str, expected: &str) -> Error {
    Error::statement(format!("'{key}' = '{value}' is not valid")).hint(format!("expected {expected}"))
}

/// Parses Flink's notation of a length of time; a bare number is milliseconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count: u64 = text[..digits].parse().ok()?;
    let ms = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return None,
    };
    count.checked_mul(ms).map(Duration::from_millis)
}

/// Parses Flink's notation of a size: `512 mb`, `10g`, `64 kb`; a bare number is bytes.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 1,
        "k" | "kb" | "kib" | "kibibytes" => 1 << 10,
        "m" | "mb" | "mib" | "mebibytes" => 1 << 20,
        "g" | "gb" | "gib" | "gibibytes" => 1 << 30,
        "t" | "tb" | "tib" | "tebibytes" => 1 << 40,
        _ => return None,
    };
    count.checked_mul(unit)
}

/// The known name nearest to `name`, if any is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(&wanted, &k.to_lowercase()), k))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}
