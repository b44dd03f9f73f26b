//! Functions of text. Positions count characters from 1, as SQL does, unless Flink says otherwise.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBuilder, Int32Builder};
use datafusion::common::{exec_datafusion_err, exec_err};
use datafusion::error::Result;
use regex::Regex;

use super::function::Kind::{Any, Int, Text};
use super::function::{Cached, Call, Function, build_text, gives};

/// Bytes that a compiled regular expression may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

pub(super) fn functions() -> Vec<Function> {
    let mut concat =
        Function::new("concat", "CONCAT(text, ..): the texts joined, NULL if one is", &[&[Any]], gives::text, concat);
    concat.variadic = true;
    let test = |name, about, evaluate| Function::new(name, about, &[&[Text]], gives::boolean, evaluate);
    vec![
        concat,
        substring(),
        Function { name: "substr", about: "SUBSTR(text, from [, count]): as SUBSTRING", ..substring() },
        Function::new(
            "split_index",
            "SPLIT_INDEX(text, separator, i): the part between separators, counted from 0, NULL if there is none",
            &[&[Text, Text, Int]],
            gives::text,
            split_index,
        ),
        Function::new(
            "locate",
            "LOCATE(part, text [, from]): where the part begins, counted from 1, 0 if nowhere",
            &[&[Text, Text], &[Text, Text, Int]],
            gives::int,
            locate,
        ),
        Function::new(
            "regexp",
            "REGEXP(text, regex): whether the regular expression matches anywhere",
            &[&[Text, Text]],
            gives::boolean,
            regexp,
        ),
        Function::new(
            "regexp_extract",
            "REGEXP_EXTRACT(text, regex [, group]): the first match, or a group of it, NULL if there is none",
            &[&[Text, Text], &[Text, Text, Int]],
            gives::text,
            regexp_extract,
        ),
        Function::new(
            "regexp_replace",
            "REGEXP_REPLACE(text, regex, by): all matches replaced; $1 is a group",
            &[&[Text, Text, Text]],
            gives::text,
            regexp_replace,
        ),
        test("is_digit", "IS_DIGIT(text): whether all characters are digits", |call| all_chars(call, char::is_numeric)),
        test("is_alpha", "IS_ALPHA(text): whether all characters are letters", |call| {
            all_chars(call, char::is_alphabetic)
        }),
        test("is_decimal", "IS_DECIMAL(text): whether the text spells a number", |call| test_each(call, is_decimal)),
        Function::new(
            "parse_url",
            "PARSE_URL(url, part [, key]): HOST, PATH, QUERY, REF, PROTOCOL, AUTHORITY, FILE or USERINFO of a URL",
            &[&[Text, Text], &[Text, Text, Text]],
            gives::text,
            parse_url,
        ),
    ]
}

pub(super) fn substring() -> Function {
    Function::new(
        "substring",
        "SUBSTRING(text, from [, count]): a part of the text; a negative start counts from the end",
        &[&[Text, Int], &[Text, Int, Int]],
        gives::text,
        evaluate_substring,
    )
}

fn evaluate_substring(call: &Call) -> Result<ArrayRef> {
    let (texts, starts) = (call.text(0)?, call.int(1)?);
    let counts = if call.columns.len() > 2 { Some(call.int(2)?) } else { None };
    build_text(call.rows, |row, out| {
        if texts.is_null(row) || starts.is_null(row) || counts.is_some_and(|counts| counts.is_null(row)) {
            return Ok(false);
        }
        let (text, start) = (texts.value(row), starts.value(row));
        let count = counts.map_or(i64::MAX, |counts| counts.value(row));
        // As Flink does: 0 is the first character too, and a start before the first one takes from there, with
        // what lies before counted.
        let (first, end) = match start {
            0.. => ((start - 1).max(0), (start - 1).max(0).saturating_add(count)),
            _ => {
                let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
                let first = length.saturating_add(start);
                (first.max(0), first.saturating_add(count))
            }
        };
        if end > first {
            let skip = usize::try_from(first).unwrap_or(usize::MAX);
            let take = usize::try_from(end - first).unwrap_or(usize::MAX);
            out.extend(text.chars().skip(skip).take(take));
        }
        Ok(true)
    })
}

fn concat(call: &Call) -> Result<ArrayRef> {
    let columns = call.columns.iter().map(|column| arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8));
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    build_text(call.rows, |row, out| {
        for column in &columns {
            if column.is_null(row) {
                return Ok(false);
            }
            out.push_str(arrow::array::AsArray::as_string::<i32>(column).value(row));
        }
        Ok(true)
    })
}

fn split_index(call: &Call) -> Result<ArrayRef> {
    let (texts, separators, indexes) = (call.text(0)?, call.text(1)?, call.int(2)?);
    build_text(call.rows, |row, out| {
        if texts.is_null(row) || separators.is_null(row) || indexes.is_null(row) {
            return Ok(false);
        }
        let (Ok(index), separator) = (usize::try_from(indexes.value(row)), separators.value(row)) else {
            return Ok(false);
        };
        if separator.is_empty() || texts.value(row).is_empty() {
            return Ok(false);
        }
        let part = texts.value(row).split(separator).nth(index);
        out.push_str(part.unwrap_or_default());
        Ok(part.is_some())
    })
}

fn locate(call: &Call) -> Result<ArrayRef> {
    let (parts, texts) = (call.text(0)?, call.text(1)?);
    let starts = if call.columns.len() > 2 { Some(call.int(2)?) } else { None };
    let mut builder = Int32Builder::with_capacity(call.rows);
    for row in 0..call.rows {
        if parts.is_null(row) || texts.is_null(row) || starts.is_some_and(|starts| starts.is_null(row)) {
            builder.append_null();
            continue;
        }
        let (part, text) = (parts.value(row), texts.value(row));
        let start = starts.map_or(1, |starts| starts.value(row));
        builder.append_value(position(part, text, start).and_then(|at| i32::try_from(at).ok()).unwrap_or(0));
    }
    Ok(Arc::new(builder.finish()))
}

/// Where a part begins at or after a position; both count characters from 1.
fn position(part: &str, text: &str, start: i64) -> Option<usize> {
    let skip = usize::try_from(start.checked_sub(1)?).ok()?;
    let from = text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(skip)?;
    let found = from + text[from..].find(part)?;
    Some(text[..found].chars().count() + 1)
}

fn compile(pattern: &str) -> Result<Regex> {
    let build = regex::RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
    build.map_err(|error| {
        // The error repeats the pattern over several lines; its last one says what is wrong.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        exec_datafusion_err!("the regular expression '{pattern}' is not valid: {reason}")
    })
}

fn regexp(call: &Call) -> Result<ArrayRef> {
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    let mut cache = Cached::new();
    let mut builder = BooleanBuilder::with_capacity(call.rows);
    for row in 0..call.rows {
        let matches = match texts.is_valid(row) && patterns.is_valid(row) {
            true => Some(cache.get(patterns.value(row), compile)?.is_match(texts.value(row))),
            false => None,
        };
        builder.append_option(matches);
    }
    Ok(Arc::new(builder.finish()))
}

fn regexp_extract(call: &Call) -> Result<ArrayRef> {
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    let groups = if call.columns.len() > 2 { Some(call.int(2)?) } else { None };
    let mut cache = Cached::new();
    build_text(call.rows, |row, out| {
        if texts.is_null(row) || patterns.is_null(row) || groups.is_some_and(|groups| groups.is_null(row)) {
            return Ok(false);
        }
        let regex = cache.get(patterns.value(row), compile)?;
        let Ok(group) = usize::try_from(groups.map_or(0, |groups| groups.value(row))) else { return Ok(false) };
        let found = match group {
            0 => regex.find(texts.value(row)),
            _ => regex.captures(texts.value(row)).and_then(|captures| captures.get(group)),
        };
        out.push_str(found.map_or("", |found| found.as_str()));
        Ok(found.is_some())
    })
}

fn regexp_replace(call: &Call) -> Result<ArrayRef> {
    let (texts, patterns, replacements) = (call.text(0)?, call.text(1)?, call.text(2)?);
    let (mut regexes, mut templates) = (Cached::new(), Cached::new());
    build_text(call.rows, |row, out| {
        if texts.is_null(row) || patterns.is_null(row) || replacements.is_null(row) {
            return Ok(false);
        }
        let regex: &Regex = regexes.get(patterns.value(row), compile)?;
        let template: &String = templates.get(replacements.value(row), java_replacement)?;
        out.push_str(&regex.replace_all(texts.value(row), template.as_str()));
        Ok(true)
    })
}

/// Java's notation of a replacement in ours: `$1a` is group 1 and an `a`, and a backslash makes a sign literal.
fn java_replacement(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len() + 4);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('$') => out.push_str("$$"),
                Some(c) => out.push(c),
                None => return exec_err!("the replacement '{text}' ends in a backslash; write two for one"),
            },
            '$' => {
                let mut group = String::new();
                if chars.next_if_eq(&'{').is_some() {
                    group.extend(std::iter::from_fn(|| chars.next_if(|c| *c != '}')));
                    let _ = chars.next();
                } else {
                    group.extend(std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)));
                }
                if group.is_empty() {
                    return exec_err!("the replacement '{text}' has a $ without a group; write \\$ for a dollar sign");
                }
                out.push_str(&format!("${{{group}}}"));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

fn all_chars(call: &Call, test: fn(char) -> bool) -> Result<ArrayRef> {
    test_each(call, |text| !text.is_empty() && text.chars().all(test))
}

/// A test that is `FALSE`, not `NULL`, for `NULL`, as in Flink.
fn test_each(call: &Call, test: impl Fn(&str) -> bool) -> Result<ArrayRef> {
    let texts = call.text(0)?;
    let mut builder = BooleanBuilder::with_capacity(call.rows);
    for row in 0..call.rows {
        builder.append_value(texts.is_valid(row) && test(texts.value(row)));
    }
    Ok(Arc::new(builder.finish()))
}

fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    is_number && text.parse::<f64>().is_ok_and(f64::is_finite)
}

fn parse_url(call: &Call) -> Result<ArrayRef> {
    let (urls, parts) = (call.text(0)?, call.text(1)?);
    let keys = if call.columns.len() > 2 { Some(call.text(2)?) } else { None };
    build_text(call.rows, |row, out| {
        if urls.is_null(row) || parts.is_null(row) || keys.is_some_and(|keys| keys.is_null(row)) {
            return Ok(false);
        }
        let key = keys.map(|keys| keys.value(row));
        let part = url_part(urls.value(row), parts.value(row), key);
        out.push_str(part.unwrap_or_default());
        Ok(part.is_some())
    })
}

/// A part of a URL; `None` when it has none, or is no URL.
fn url_part<'u>(url: &'u str, part: &str, key: Option<&str>) -> Option<&'u str> {
    let (before_ref, reference) = match url.split_once('#') {
        Some((before, reference)) => (before, Some(reference)),
        None => (url, None),
    };
    let (protocol, rest) = before_ref.split_once("://")?;
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, file) = rest.split_at(authority_end);
    let (path, query) = match file.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (file, None),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    match (part, key) {
        ("QUERY", Some(key)) => query?.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')),
        (_, Some(_)) => None,
        ("PROTOCOL", _) => Some(protocol),
        ("AUTHORITY", _) => Some(authority),
        ("USERINFO", _) => user,
        // An address of IP version 6 is in brackets, with colons of its own.
        ("HOST", _) if host.starts_with('[') => host.find(']').map(|end| &host[..=end]),
        ("HOST", _) => Some(host.split_once(':').map_or(host, |(host, _)| host)),
        ("FILE", _) => Some(file),
        ("PATH", _) => Some(path),
        ("QUERY", _) => query,
        ("REF", _) => reference,
        _ => None,
    }
}
