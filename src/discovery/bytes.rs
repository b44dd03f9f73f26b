//! How a key or a value is written, judged by its bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

/// How some bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// There are none.
    Null,
    /// One JSON object.
    Json,
    /// A JSON object that says how a row has changed: `before`, `after` and `op`.
    Debezium,
    /// JSON, but no object.
    JsonValue,
    /// Text in UTF-8.
    Text,
    /// A zero byte and the number of a schema in a registry, then Avro, Protobuf or JSON.
    Registry,
    /// Four bytes that are no text: as Java's clients write an `INT`.
    Int,
    /// Eight bytes that are no text: as Java's clients write a `BIGINT`.
    BigInt,
    /// Something else.
    Binary,
}

impl Kind {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "none",
            Self::Json => "json",
            Self::Debezium => "debezium-json",
            Self::JsonValue => "JSON, but no object",
            Self::Text => "text",
            Self::Registry => "schema registry (Avro or Protobuf)",
            Self::Int => "INT, 4 bytes",
            Self::BigInt => "BIGINT, 8 bytes",
            Self::Binary => "binary",
        }
    }
}

/// How these bytes are written, and what they say if they are JSON.
pub fn recognise(bytes: Option<&[u8]>) -> (Kind, Option<Value>) {
    let Some(bytes) = bytes else { return (Kind::Null, None) };
    // A number of eight bytes often begins with zeros, too, and is likelier than three bytes of Avro.
    if 5 < bytes.len() && bytes.len() != 8 && bytes[0] == 0 {
        return (Kind::Registry, None);
    }
    match (std::str::from_utf8(bytes), bytes.len()) {
        (Ok(text), _) if !text.contains(|c: char| c.is_control() && !c.is_ascii_whitespace()) => of_text(text),
        (_, 4) => (Kind::Int, None),
        (_, 8) => (Kind::BigInt, None),
        (Ok(_), _) => (Kind::Text, None),
        (Err(_), _) => (Kind::Binary, None),
    }
}

fn of_text(text: &str) -> (Kind, Option<Value>) {
    match text.trim_start().as_bytes().first() {
        Some(b'{') => match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => {
                let is_change =
                    fields.contains_key("op") && fields.contains_key("before") && fields.contains_key("after");
                (if is_change { Kind::Debezium } else { Kind::Json }, Some(Value::Object(fields)))
            }
            _ => (Kind::Text, None),
        },
        Some(b'[' | b'"') => match serde_json::from_str(text) {
            Ok(value) => (Kind::JsonValue, Some(value)),
            Err(_) => (Kind::Text, None),
        },
        // A bare number or word reads as text as well, and a key of digits is hardly meant as JSON.
        _ => (Kind::Text, None),
    }
}

/// How many of some keys or values are written how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds(BTreeMap<Kind, u64>);

impl Kinds {
    /// Counts one.
    pub fn count(&mut self, kind: Kind) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// How many are written so.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// How most are written that there are.
    pub fn main(&self) -> Kind {
        let present = self.0.iter().filter(|(kind, _)| **kind != Kind::Null);
        present.max_by_key(|(_, count)| **count).map_or(Kind::Null, |(kind, _)| *kind)
    }

    /// In words: `json`, or `mixed: json 90 %, text 10 %`.
    pub fn describe(&self) -> String {
        let present: Vec<_> = self.0.iter().filter(|(kind, _)| **kind != Kind::Null).collect();
        match present.as_slice() {
            [] => Kind::Null.name().to_owned(),
            [(kind, _)] => kind.name().to_owned(),
            several => {
                let total: u64 = several.iter().map(|(_, count)| **count).sum();
                let share = |(kind, count): &(&Kind, &u64)| format!("{} {}", kind.name(), percent(**count, total));
                format!("mixed: {}", several.iter().map(share).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A share in percent, with as many digits as tell something: `0 %`, `<0.1 %`, `2.5 %`, `100 %`.
pub fn percent(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return "0 %".to_owned();
    }
    let percent = part as f64 * 100.0 / whole as f64;
    match percent {
        p if p < 0.1 => "<0.1 %".to_owned(),
        // Not all is never shown as all.
        p if part < whole && 99.95 <= p => ">99.9 %".to_owned(),
        p if part == whole || p.fract() == 0.0 => format!("{p:.0} %"),
        p => format!("{p:.1} %"),
    }
}

/// Bytes as people read them: text as it is, numbers as numbers, all else in hexadecimal.
pub fn shown(bytes: &[u8]) -> Cow<'_, str> {
    match recognise(Some(bytes)).0 {
        Kind::Int | Kind::BigInt => {
            let number = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
            let number = if bytes.len() == 4 { i64::from(number as u32 as i32) } else { number as i64 };
            Cow::Owned(number.to_string())
        }
        Kind::Registry | Kind::Binary => {
            let mut out = String::with_capacity(bytes.len() * 2 + 2);
            out.push_str("0x");
            for byte in bytes {
                // Writing to a string cannot fail.
                let _ = write!(out, "{byte:02x}");
            }
            Cow::Owned(out)
        }
        _ => String::from_utf8_lossy(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_known_by_what_they_begin_with() {
        fn check(bytes: &[u8], kind: Kind, text: &str) {
            assert_eq!((recognise(Some(bytes)).0, &*shown(bytes)), (kind, text), "{bytes:?}");
        }
        check(b"{\"a\": 1}", Kind::Json, "{\"a\": 1}");
        check(b" \n{}", Kind::Json, " \n{}");
        check(
            b"{\"before\":null,\"after\":{},\"op\":\"c\"}",
            Kind::Debezium,
            "{\"before\":null,\"after\":{},\"op\":\"c\"}",
        );
        check(b"[1]", Kind::JsonValue, "[1]");
        check(b"{\"a\": 1} {}", Kind::Text, "{\"a\": 1} {}");
        check(b"{oops", Kind::Text, "{oops");
        check(b"12345678", Kind::Text, "12345678");
        check("Zürich".as_bytes(), Kind::Text, "Zürich");
        check(b"", Kind::Text, "");
        check(&[0, 0, 0, 7], Kind::Int, "7");
        check(&[255, 255, 255, 254], Kind::Int, "-2");
        check(&[0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0], Kind::BigInt, "1700000000000");
        check(&[255, 255, 255, 255, 255, 255, 255, 255], Kind::BigInt, "-1");
        check(&[0, 0, 0, 0, 9, 2, 4], Kind::Registry, "0x00000000090204");
        check(&[200, 1, 2], Kind::Binary, "0xc80102");
        check(b"\x1b[31m", Kind::Text, "\x1b[31m");
        assert_eq!(recognise(None).0, Kind::Null);
    }

    #[test]
    fn shares_are_never_rounded_to_none_or_all() {
        for (part, whole, want) in [
            (0, 10, "0 %"),
            (1, 4, "25 %"),
            (1, 3, "33.3 %"),
            (1, 100_000, "<0.1 %"),
            (99_999, 100_000, ">99.9 %"),
            (3, 3, "100 %"),
            (0, 0, "0 %"),
        ] {
            assert_eq!(percent(part, whole), want);
        }
    }

    #[test]
    fn what_is_mixed_is_said() {
        let mut kinds = Kinds::default();
        assert_eq!((kinds.describe().as_str(), kinds.main()), ("none", Kind::Null));
        for kind in [Kind::Null, Kind::Null, Kind::Json, Kind::Text, Kind::Json, Kind::Json] {
            kinds.count(kind);
        }
        assert_eq!((kinds.describe().as_str(), kinds.main()), ("mixed: json 75 %, text 25 %", Kind::Json));
        assert_eq!((kinds.of(Kind::Null), kinds.total()), (2, 6));
    }
}
