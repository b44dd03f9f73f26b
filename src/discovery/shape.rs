//! The columns of JSON objects: which there are, of which types, how often they are missing.
//!
//! A type is chosen that every value seen has, and that reading will take again: whole numbers are `BIGINT`, others
//! `DOUBLE`, texts that all are times are times, an object is a `ROW` or, when its names are data, a `MAP`. What has values
//! of several kinds is a `STRING`, which takes any JSON.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::formats::{is_date, moment_ms};
use crate::sql::diagnostics::escape;
use crate::sql::types::quote;
use crate::time::TimeMs;

/// Names in an object beyond which they are taken for data: it is a map then.
const ROW_FIELDS_MAX: usize = 64;

/// Objects and arrays within each other, at most; what is deeper is text.
const DEPTH_MAX: usize = 6;

/// Different values of a column that are kept for people to look at.
const EXAMPLES_MAX: usize = 3;

/// Characters of an example.
const EXAMPLE_CHARS_MAX: usize = 24;

/// Numbers that are times in milliseconds lie in these years: 2001 to 2100.
const MILLIS: std::ops::Range<i64> = 1_000_000_000_000..4_102_444_800_000;

/// What has been seen in one place.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Objects that have it, also as null.
    seen: u64,
    nulls: u64,
    booleans: u64,
    wholes: u64,
    /// Whole numbers beyond `BIGINT`.
    huge: u64,
    /// Whole numbers that may be milliseconds of our time.
    millis: u64,
    fractions: u64,
    texts: u64,
    dates: u64,
    local_times: u64,
    zoned_times: u64,
    objects: u64,
    arrays: u64,
    fields: Fields,
    items: Option<Box<Shape>>,
    examples: Vec<String>,
}

/// The fields of objects, in the order in which they were first seen.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    names: HashMap<String, usize>,
    list: Vec<(String, Shape)>,
    /// Objects that were looked at.
    objects: u64,
}

impl Fields {
    /// Looks at an object.
    pub fn add(&mut self, object: &Map<String, Value>) {
        self.add_nested(object, 0);
    }

    fn add_nested(&mut self, object: &Map<String, Value>, depth: usize) {
        self.objects += 1;
        // A column needs a name.
        for (name, value) in object.iter().filter(|(name, _)| !name.is_empty()) {
            let at = match self.names.get(name) {
                Some(at) => *at,
                None => {
                    self.names.insert(name.clone(), self.list.len());
                    self.list.push((name.clone(), Shape::default()));
                    self.list.len() - 1
                }
            };
            self.list[at].1.add(value, depth);
        }
    }

    /// The fields by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Shape)> {
        self.list.iter().map(|(name, shape)| (name.as_str(), shape))
    }

    /// Of how many objects a field is missing or null.
    pub fn absent(&self, shape: &Shape) -> (u64, u64) {
        (self.objects - shape.seen + shape.nulls, self.objects)
    }
}

impl Shape {
    fn add(&mut self, value: &Value, depth: usize) {
        self.seen += 1;
        match value {
            Value::Null => self.nulls += 1,
            Value::Bool(_) => self.booleans += 1,
            Value::Number(number) => match (number.as_i64(), number.is_u64()) {
                (Some(whole), _) => {
                    self.wholes += 1;
                    self.millis += u64::from(MILLIS.contains(&whole));
                }
                (None, true) => self.huge += 1,
                (None, false) => self.fractions += 1,
            },
            Value::String(text) => {
                self.texts += 1;
                match moment_ms(text) {
                    Some(_) if is_date(text) => self.dates += 1,
                    Some((_, true)) => self.zoned_times += 1,
                    Some((_, false)) => self.local_times += 1,
                    None => {}
                }
            }
            Value::Object(object) => {
                self.objects += 1;
                if depth < DEPTH_MAX {
                    self.fields.add_nested(object, depth + 1);
                }
            }
            Value::Array(items) => {
                self.arrays += 1;
                if depth < DEPTH_MAX {
                    let shape = self.items.get_or_insert_default();
                    items.iter().for_each(|item| shape.add(item, depth + 1));
                }
            }
        }
        if !value.is_null() && self.examples.len() < EXAMPLES_MAX {
            let example = example(value);
            if !self.examples.contains(&example) {
                self.examples.push(example);
            }
        }
    }

    /// The type of SQL that takes all that was seen here. `name` may tell numbers that are times from others.
    pub fn sql_type(&self, name: &str) -> String {
        let numbers = self.wholes + self.huge + self.fractions;
        let kinds = [self.booleans, numbers, self.texts, self.objects, self.arrays];
        if kinds.iter().filter(|count| 0 < **count).count() != 1 {
            return "STRING".to_owned();
        }
        if 0 < self.booleans {
            return "BOOLEAN".to_owned();
        }
        if 0 < numbers {
            return self.number_type(name).to_owned();
        }
        if 0 < self.texts {
            return self.text_type().to_owned();
        }
        if 0 < self.arrays {
            return match &self.items {
                Some(items) => format!("ARRAY<{}>", items.sql_type("")),
                None => "STRING".to_owned(),
            };
        }
        self.object_type()
    }

    fn number_type(&self, name: &str) -> &'static str {
        match () {
            () if 0 < self.fractions => "DOUBLE",
            () if 0 < self.huge => "DECIMAL(20, 0)",
            () if self.millis == self.wholes && is_named_like_a_time(name) => "TIMESTAMP_LTZ(3)",
            () => "BIGINT",
        }
    }

    fn text_type(&self) -> &'static str {
        match self.texts {
            n if n == self.dates => "DATE",
            n if n == self.zoned_times => "TIMESTAMP_LTZ(3)",
            n if n == self.local_times => "TIMESTAMP(3)",
            _ => "STRING",
        }
    }

    fn object_type(&self) -> String {
        let fields = &self.fields.list;
        if fields.is_empty() {
            return "STRING".to_owned();
        }
        let field = |(name, shape): &(String, Self)| format!("{} {}", quote(name), shape.sql_type(name));
        if fields.len() <= ROW_FIELDS_MAX {
            return format!("ROW<{}>", fields.iter().map(field).collect::<Vec<_>>().join(", "));
        }
        let mut types: Vec<_> = fields.iter().map(|(_, shape)| shape.sql_type("")).collect();
        types.sort_unstable();
        types.dedup();
        match types.as_slice() {
            [one] => format!("MAP<STRING, {one}>"),
            _ => "MAP<STRING, STRING>".to_owned(),
        }
    }

    /// Some of the values, for people.
    pub fn examples(&self) -> &[String] {
        &self.examples
    }
}

/// The time that a value is, for a column of a type of times.
pub fn time_of(value: &Value) -> Option<TimeMs> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => moment_ms(text).map(|(ms, _)| ms),
        _ => None,
    }
}

/// Whether a name is one that people give to times.
pub fn is_named_like_a_time(name: &str) -> bool {
    // `createdAt` and `created_at`, but not `format`.
    if ["At", "Ts", "AT", "TS"].iter().any(|end| name.ends_with(end)) {
        return true;
    }
    let name = name.to_lowercase();
    ["time", "date", "_at", "_ts", "when"].iter().any(|part| name.contains(part)) || matches!(&*name, "ts" | "at" | "t")
}

fn example(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let text = escape(&text);
    match text.char_indices().nth(EXAMPLE_CHARS_MAX) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[&str], name: &str, want: &str) {
        let mut fields = Fields::default();
        for value in values {
            let object: Value = serde_json::from_str(&format!("{{\"{name}\": {value}}}")).unwrap();
            fields.add(object.as_object().unwrap());
        }
        let (_, shape) = fields.iter().next().unwrap();
        assert_eq!(shape.sql_type(name), want, "{values:?}");
    }

    #[test]
    fn a_type_takes_every_value_that_was_seen() {
        check(&["1", "-5", "null"], "n", "BIGINT");
        check(&["1", "1.5"], "n", "DOUBLE");
        check(&["1e3"], "n", "DOUBLE");
        check(&["18446744073709551615", "1"], "n", "DECIMAL(20, 0)");
        check(&["true", "null", "false"], "b", "BOOLEAN");
        check(&["true", "1"], "b", "STRING");
        check(&["null"], "x", "STRING");
        check(&["\"a\"", "\"2013-01-01\""], "s", "STRING");
        check(&["\"2013-01-01\"", "\"2013-12-31\""], "d", "DATE");
        check(&["\"2013-01-01 10:00\"", "\"2013-01-01T10:00:00.5\""], "t", "TIMESTAMP(3)");
        check(&["\"2013-01-01T10:00:00Z\"", "\"2013-01-01T10:00:00+02:00\""], "t", "TIMESTAMP_LTZ(3)");
        check(&["\"2013-01-01T10:00:00Z\"", "\"2013-01-01T10:00:00\""], "t", "STRING");
        check(&["1700000000000"], "created_at", "TIMESTAMP_LTZ(3)");
        check(&["1700000000000"], "createdAt", "TIMESTAMP_LTZ(3)");
        check(&["1700000000000"], "amount", "BIGINT");
        check(&["1700000000"], "created_at", "BIGINT");
        check(&["[1, 2]", "[]"], "l", "ARRAY<BIGINT>");
        check(&["[1, \"a\"]"], "l", "ARRAY<STRING>");
        check(&["{\"a\": 1}", "{\"b c\": [true]}", "{\"a\": null}"], "o", "ROW<a BIGINT, `b c` ARRAY<BOOLEAN>>");
        check(&["{}"], "o", "STRING");
        check(&["{\"a\": 1}", "[1]"], "o", "STRING");
    }

    #[test]
    fn objects_whose_names_are_data_are_maps() {
        let objects: Vec<_> = (0..100).map(|i| format!("{{\"k{i}\": {i}}}")).collect();
        check(&objects.iter().map(String::as_str).collect::<Vec<_>>(), "m", "MAP<STRING, BIGINT>");
    }

    #[test]
    fn deep_values_end() {
        let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
        check(&[&deep], "l", &format!("{}STRING{}", "ARRAY<".repeat(6), ">".repeat(6)));
    }

    #[test]
    fn what_is_missing_is_counted_as_null() {
        let mut fields = Fields::default();
        for text in ["{\"a\": 1, \"\": 2}", "{\"b\": 1}", "{\"a\": null}", "{\"a\": \"\\u001b[2J\"}"] {
            fields.add(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap());
        }
        let list: Vec<_> = fields.iter().map(|(name, shape)| (name, fields.absent(shape))).collect();
        assert_eq!(list, [("a", (2, 4)), ("b", (3, 4))]);
        let (_, a) = fields.iter().next().unwrap();
        assert_eq!(a.examples(), ["1", "\\x1b[2J"]);
    }
}
