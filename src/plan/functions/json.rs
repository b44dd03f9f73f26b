//! Functions of JSON in text.
//!
//! Paths are the plain ones of SQL: `$`, `.name`, `['name']`, `[0]`, with or without `lax` before. As Flink does by
//! default, what is missing, of the wrong kind, or no JSON at all is `NULL`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBuilder};
use datafusion::common::exec_err;
use datafusion::error::Result;
use serde_json::Value;

use super::function::Kind::Text;
use super::function::{Cached, Call, Function, gives};

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::new(
            "json_value",
            "JSON_VALUE(json, path [RETURNING type]): the scalar at a path such as '$.a.b[0]', as text, NULL if there is none",
            &[&[Text, Text]],
            gives::text,
            json_value,
        ),
        Function::new(
            "json_query",
            "JSON_QUERY(json, path): the object or array at a path, as JSON, NULL if there is none",
            &[&[Text, Text]],
            gives::text,
            json_query,
        ),
        Function::new(
            "json_exists",
            "JSON_EXISTS(json, path): whether there is anything at a path",
            &[&[Text, Text]],
            gives::boolean,
            json_exists,
        ),
    ]
}

/// A step of a path.
#[derive(Debug, PartialEq)]
enum Step {
    Member(String),
    Element(usize),
}

/// Parses a path.
fn parse_path(text: &str) -> Result<Vec<Step>> {
    let trimmed = text.trim();
    let path = ["lax ", "strict "].iter().find_map(|mode| trimmed.strip_prefix(mode)).unwrap_or(trimmed).trim_start();
    let Some(mut rest) = path.strip_prefix('$') else {
        return exec_err!("the JSON path '{text}' does not begin with $; write for example '$.a.b[0]'");
    };
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let Some((step, tail)) = parse_step(rest) else {
            return exec_err!("the JSON path '{text}' is not supported at '{rest}'; write for example '$.a.b[0]'");
        };
        steps.push(step);
        rest = tail;
    }
    Ok(steps)
}

/// One step and what follows it.
fn parse_step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (name, tail) = quoted.split_once('"')?;
            return Some((Step::Member(name.to_string()), tail));
        }
        let end = rest.find(['.', '[', ' ', '*', '(', '?', '@']).unwrap_or(rest.len());
        let (name, tail) = rest.split_at(end);
        return (!name.is_empty()).then(|| (Step::Member(name.to_string()), tail));
    }
    let rest = text.strip_prefix('[')?;
    for quote in ['\'', '"'] {
        if let Some(quoted) = rest.strip_prefix(quote) {
            let (name, tail) = quoted.split_once(quote)?;
            return Some((Step::Member(name.to_string()), tail.strip_prefix(']')?));
        }
    }
    let (index, tail) = rest.split_once(']')?;
    Some((Step::Element(index.trim().parse().ok()?), tail))
}

/// The value at a path.
fn follow<'v>(value: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Member(name) => value.as_object()?.get(name),
        Step::Element(index) => match value {
            Value::Array(items) => items.get(*index),
            // In lax mode, which is the default, a value is also the array of itself.
            _ => (*index == 0).then_some(value),
        },
    })
}

/// Calls `each` with the value at each row's path; with `None` for what is not there, and the outer `None` for `NULL`.
fn each_value(call: &Call, mut each: impl FnMut(Option<Option<&Value>>)) -> Result<()> {
    let (texts, paths) = (call.text(0)?, call.text(1)?);
    let mut cache = Cached::new();
    for row in 0..call.rows {
        if texts.is_null(row) || paths.is_null(row) {
            each(None);
            continue;
        }
        let steps: &Vec<Step> = cache.get(paths.value(row), parse_path)?;
        let document = serde_json::from_str::<Value>(texts.value(row)).ok();
        each(Some(document.as_ref().and_then(|document| follow(document, steps))));
    }
    Ok(())
}

fn write_values(call: &Call, write: fn(&Value, &mut String) -> bool) -> Result<ArrayRef> {
    let mut builder = arrow::array::StringBuilder::with_capacity(call.rows, call.rows * 16);
    let mut buffer = String::new();
    each_value(call, |value| {
        buffer.clear();
        match value.flatten() {
            Some(value) if write(value, &mut buffer) => builder.append_value(&buffer),
            _ => builder.append_null(),
        }
    })?;
    Ok(Arc::new(builder.finish()))
}

fn json_value(call: &Call) -> Result<ArrayRef> {
    write_values(call, |value, out| {
        match value {
            Value::String(text) => out.push_str(text),
            Value::Number(number) => out.push_str(&number.to_string()),
            Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
            Value::Null | Value::Array(_) | Value::Object(_) => return false,
        }
        true
    })
}

fn json_query(call: &Call) -> Result<ArrayRef> {
    write_values(call, |value, out| {
        let is_composite = value.is_array() || value.is_object();
        if is_composite {
            out.push_str(&value.to_string());
        }
        is_composite
    })
}

fn json_exists(call: &Call) -> Result<ArrayRef> {
    let mut builder = BooleanBuilder::with_capacity(call.rows);
    each_value(call, |value| builder.append_option(value.map(|value| value.is_some())))?;
    Ok(Arc::new(builder.finish()))
}
