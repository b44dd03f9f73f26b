//! What DataFusion and Arrow say, in the words of the language: `BIGINT`, not `Int64`; a sentence, and what to do.
//!
//! Their messages have no codes, so the common ones are known by their wording. One that is not known loses its prefix
//! and its Rust types, and is shown as it is.

use std::sync::LazyLock;

use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use regex::{Captures, Regex};

use crate::catalog::options::nearest;

/// A sentence, and what to do about it.
pub(super) type Worded = (String, Option<String>);

/// Columns that a hint lists, at most.
const COLUMNS_LISTED_MAX: usize = 20;

/// The message of the error at the root.
pub(super) fn of_datafusion(root: &DataFusionError) -> Worded {
    match root {
        DataFusionError::SchemaError(error, _) => of_schema(error),
        DataFusionError::ArrowError(error, _) => of_arrow(error),
        DataFusionError::Plan(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Execution(text)
        | DataFusionError::Configuration(text) => of_text(text),
        other => of_text(&other.strip_backtrace()),
    }
}

fn of_schema(error: &SchemaError) -> Worded {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => unknown_column(field, valid_fields),
        SchemaError::DuplicateQualifiedField { qualifier, name } => (
            format!("the column {name} of {qualifier} is there twice"),
            Some("give one of the tables, or one of the columns, another name with AS".to_owned()),
        ),
        SchemaError::DuplicateUnqualifiedField { name } => {
            (format!("the column {name} is there twice"), Some("give one of them another name with AS".to_owned()))
        }
        SchemaError::AmbiguousReference { field } => (
            format!("{} could be several columns", plain(field)),
            Some("write the table's name before the column's".to_owned()),
        ),
    }
}

fn plain(column: &Column) -> String {
    match &column.relation {
        Some(relation) => format!("{relation}.{}", column.name),
        None => column.name.clone(),
    }
}

fn unknown_column(column: &Column, known: &[Column]) -> Worded {
    let message = format!("there is no column {}", plain(column));
    let near = nearest(&column.name, known.iter().map(|c| c.name.as_str()));
    let hint = match near {
        Some(near) if near == column.name => {
            let own = known.iter().find(|c| c.name == near).map_or(near.to_owned(), plain);
            format!("did you mean {own}?")
        }
        Some(near) if near.eq_ignore_ascii_case(&column.name) => {
            format!("did you mean {near}? Names are told apart by their case")
        }
        Some(near) => format!("did you mean {near}?"),
        None if ["window_start", "window_end", "window_time"].contains(&&*column.name) => {
            "TUMBLE, HOP, CUMULATE and SESSION give it: FROM TUMBLE(t, ts, INTERVAL '1' MINUTE)".to_owned()
        }
        None if known.is_empty() => return (message, None),
        None => {
            let more = if COLUMNS_LISTED_MAX < known.len() { ", .." } else { "" };
            let names: Vec<_> = known.iter().take(COLUMNS_LISTED_MAX).map(|c| c.name.as_str()).collect();
            format!("there are {}{more}", names.join(", "))
        }
    };
    (message, Some(hint))
}

/// The message of an error of Arrow's kernels.
pub(super) fn of_arrow(error: &ArrowError) -> Worded {
    match error {
        ArrowError::DivideByZero => {
            ("division by zero".to_owned(), Some("x / NULLIF(y, 0) is NULL instead".to_owned()))
        }
        ArrowError::ArithmeticOverflow(text) => (
            format!("arithmetic overflow: {}", sql_words(text.trim_start_matches("Overflow happened on: "))),
            Some("compute in a wider type, such as CAST(x AS BIGINT) or CAST(x AS DECIMAL(38, 2))".to_owned()),
        ),
        ArrowError::CastError(text)
        | ArrowError::ParseError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::InvalidArgumentError(text) => of_text(text),
        other => of_text(&other.to_string()),
    }
}

/// A known wording, and what is said instead; `$1` and so on are its parts.
struct Known {
    pattern: Regex,
    message: &'static str,
    hint: &'static str,
}

static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    const CAST: &str = "convert with CAST(x AS type)";
    let rows = [
        (
            r#"column "(?:[^".]+\.)?(window_(?:start|end|time))" must (?:appear|be)"#,
            "the column $1 is neither grouped by nor aggregated",
            "a window is named by its start and its end: GROUP BY window_start, window_end, ..",
        ),
        (
            r#"column "(?:[^".]+\.)?([^"]+)" must (?:appear|be)"#,
            "the column $1 is neither grouped by nor aggregated",
            "add it to GROUP BY, or aggregate it, such as MAX($1)",
        ),
        (
            r"Function '(\w+)' expects (\d+) arguments? but received (\d+)",
            "$1 takes another number of arguments: $2, not $3",
            "",
        ),
        (r"No function matches the given name and argument types '(\w+)\(\)'", "$1 takes arguments", ""),
        (
            r"(?s)No function matches the given name and argument types '(\w+)\((.*?)\)'\.",
            "$1 does not take ($2)",
            "convert the arguments with CAST(x AS type)",
        ),
        (r"Cannot coerce arithmetic expression (.+) to valid types", "$1 cannot be computed", CAST),
        (
            r"Cannot infer common argument type for comparison operation (.+) (\S+|IS \S+ \S+) (.+)",
            "$1 and $3 cannot be compared",
            CAST,
        ),
        (
            r"Cannot create filter with non-boolean predicate '(.*)' returning (.+)",
            "the condition $1 is $2, not BOOLEAN",
            "compare it with something",
        ),
        (
            r#"Projections require unique expression names but the expression "(.+?)" at position \d+ and"#,
            "two columns of the SELECT have the same name: $1",
            "give one of them another name with AS",
        ),
        (r"Field (.+) not found in struct", "there is no field $1 in the row", "DESCRIBE lists the fields"),
        (r"Invalid qualifier (\S+)", "there is no table $1 in FROM", "fields of a row are named one by one"),
        (
            r"Aggregate function calls cannot be nested",
            "an aggregate function cannot stand in another",
            "aggregate in a sub-query, and its results outside",
        ),
        (
            r"Aggregate functions are not allowed in the WHERE clause",
            "aggregate functions cannot stand in WHERE",
            "filter groups with HAVING",
        ),
        (
            r"Inconsistent data type across values list at row (\d+) column \d+\. Was (.+) but found (.+)",
            "the rows of VALUES differ in their types: row $1 has $3 where others have $2",
            CAST,
        ),
        (
            r"Inconsistent data length across values list: got (\d+) values in row (\d+) but expected (\d+)",
            "the rows of VALUES differ in length: row $2 has $1 values, others have $3",
            "",
        ),
        (
            r"UNION queries have different number of columns",
            "the queries of a UNION have different numbers of columns",
            "SELECT as many columns in each, in the same order",
        ),
        (
            r"Incompatible inputs for Union: Previous inputs were of type (.+), but got incompatible type (.+) on column '(.+)'",
            "the queries of a UNION differ in type: $3 is $2, where others have $1",
            CAST,
        ),
        (r"Unsupported CAST from (.+) to (.+)", "$1 cannot be cast to $2", ""),
        (r"Cannot cast string '(?s)(.*)' to value of (.+) type", "'$1' is no $2", "TRY_CAST gives NULL instead"),
        (r"Can't cast value (.+) to type (.+)", "$1 does not fit $2", "TRY_CAST gives NULL instead"),
        (
            r"Error parsing timestamp from '(?s)(.*?)': (.+)",
            "'$1' is no TIMESTAMP",
            "write TIMESTAMP '2024-01-31 10:00:00'; TRY_CAST gives NULL instead",
        ),
    ];
    let known = |(pattern, message, hint): (&str, &'static str, &'static str)| Known {
        pattern: Regex::new(pattern).expect("a constant pattern"),
        message,
        hint,
    };
    rows.into_iter().map(known).collect()
});

fn of_text(text: &str) -> Worded {
    static UNKNOWN_FUNCTION: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^Invalid function '(.+)'\.\s*Did you mean '(.+)'\?").expect("a constant pattern")
    });
    let text = text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(text);
    let text = without_prefixes(text);
    if let Some(parts) = UNKNOWN_FUNCTION.captures(text) {
        let hint = match nearest(&parts[1], [&parts[2]]) {
            Some(near) => format!("did you mean {near}?"),
            None => "SHOW FUNCTIONS lists those that exist".to_owned(),
        };
        return (format!("there is no function {}", &parts[1]), Some(hint));
    }
    for known in KNOWN.iter() {
        let Some(parts) = known.pattern.captures(text) else { continue };
        let fill = |template: &str| {
            let mut filled = String::new();
            parts.expand(template, &mut filled);
            sql_words(&filled)
        };
        return (fill(known.message), Some(known.hint).filter(|h| !h.is_empty()).map(fill));
    }
    let text = PREFIXES.iter().fold(text.to_owned(), |text, prefix| text.replace(prefix, ""));
    let text = sql_words(text.trim_end_matches(['.', '\n', ' ']));
    (text.lines().map(str::trim).collect::<Vec<_>>().join("; "), None)
}

/// What DataFusion and Arrow put before their messages.
const PREFIXES: [&str; 10] = [
    "Error during planning: ",
    "Schema error: ",
    "This feature is not implemented: ",
    "Execution error: ",
    "Arrow error: ",
    "Cast error: ",
    "Parser error: ",
    "Compute error: ",
    "Invalid argument error: ",
    "Optimizer rule 'simplify_expressions' failed\ncaused by\n",
];

fn without_prefixes(mut text: &str) -> &str {
    while let Some(rest) = PREFIXES.iter().find_map(|p| text.strip_prefix(p)) {
        text = rest;
    }
    text
}

/// A text with Arrow's types and DataFusion's literals as SQL writes them.
pub fn sql_words(text: &str) -> String {
    static WORDS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let rows = [
            (r"\b(?:U?Int(?:8|16|32|64)|Float(?:32|64)|Boolean)\(([^()]*)\)", "$1"),
            (r#"\b(?:Utf8|LargeUtf8|Utf8View)\("((?:[^"\\]|\\.)*)"\)"#, "'$1'"),
            (r"\b(?:Utf8|LargeUtf8|Utf8View)\b", "STRING"),
            (r"\bInt8\b", "TINYINT"),
            (r"\bInt16\b", "SMALLINT"),
            (r"\bInt32\b", "INT"),
            (r"\bU?Int64\b", "BIGINT"),
            (r"\bFloat32\b", "FLOAT"),
            (r"\bFloat64\b", "DOUBLE"),
            (r"\bBoolean\b", "BOOLEAN"),
            (r"\bDate32\b", "DATE"),
            (r"\b(?:Large)?Binary(?:View)?\b", "BYTES"),
            (r"\bDecimal(?:128|256)\(", "DECIMAL("),
            (r#"\bTimestamp\(ms, "[^"]*"\)"#, "TIMESTAMP_LTZ(3)"),
            (r#"\bTimestamp\(µs, "[^"]*"\)"#, "TIMESTAMP_LTZ(6)"),
            (r#"\bTimestamp\(ns, "[^"]*"\)"#, "TIMESTAMP_LTZ(9)"),
            (r"\bTimestamp\(s\)", "TIMESTAMP(0)"),
            (r"\bTimestamp\(ms\)", "TIMESTAMP(3)"),
            (r"\bTimestamp\(µs\)", "TIMESTAMP(6)"),
            (r"\bTimestamp\(ns\)", "TIMESTAMP(9)"),
            (r"\bInterval\(MonthDayNano\)", "INTERVAL"),
            (r"\bcount\(1\)", "count(*)"),
        ];
        rows.into_iter().map(|(p, w)| (Regex::new(p).expect("a constant pattern"), w)).collect()
    });
    let mut text = intervals(text);
    for (pattern, word) in WORDS.iter() {
        if let std::borrow::Cow::Owned(replaced) = pattern.replace_all(&text, *word) {
            text = replaced;
        }
    }
    text
}

/// `IntervalMonthDayNano { months: 0, days: 0, nanoseconds: 5000000000 }` as `INTERVAL '5' SECOND`.
fn intervals(text: &str) -> String {
    static INTERVAL: LazyLock<Regex> = LazyLock::new(|| {
        let value = r"IntervalMonthDayNano \{ months: (-?\d+), days: (-?\d+), nanoseconds: (-?\d+) \}";
        Regex::new(&format!(r#"IntervalMonthDayNano\("{value}"\)|{value}"#)).expect("a constant pattern")
    });
    let word = |parts: &Captures| {
        let number = |i: usize| {
            let text = parts.get(i).or_else(|| parts.get(i + 3)).map_or("0", |m| m.as_str());
            text.parse::<i64>().unwrap_or_default()
        };
        interval(number(1), number(2), number(3))
    };
    INTERVAL.replace_all(text, word).into_owned()
}

fn interval(months: i64, days: i64, nanoseconds: i64) -> String {
    const SECOND: i64 = 1_000_000_000;
    let (count, unit) = match (months, days, nanoseconds) {
        (m, 0, 0) if m != 0 && m % 12 == 0 => (m / 12, "YEAR"),
        (m, 0, 0) if m != 0 => (m, "MONTH"),
        (0, d, 0) if d != 0 => (d, "DAY"),
        (0, 0, n) if n % (3_600 * SECOND) == 0 && n != 0 => (n / (3_600 * SECOND), "HOUR"),
        (0, 0, n) if n % (60 * SECOND) == 0 && n != 0 => (n / (60 * SECOND), "MINUTE"),
        (0, 0, n) if n % SECOND == 0 => (n / SECOND, "SECOND"),
        (0, 0, n) => return format!("INTERVAL '{}' SECOND", n as f64 / SECOND as f64),
        (m, d, n) => return format!("INTERVAL '{m} months {d} days {} seconds'", n as f64 / SECOND as f64),
    };
    format!("INTERVAL '{count}' {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_planner_says_is_said_in_sql() {
        fn check(text: &str, want: &str, hint: &str) {
            let (message, got) = of_text(text);
            assert_eq!((message.as_str(), got.unwrap_or_default().as_str()), (want, hint), "{text}");
        }
        let cast = "convert with CAST(x AS type)";
        check("Invalid function 'uper'.\nDid you mean 'upper'?", "there is no function uper", "did you mean upper?");
        check(
            "Invalid function 'frobnicate'.\nDid you mean 'date_part'?",
            "there is no function frobnicate",
            "SHOW FUNCTIONS lists those that exist",
        );
        check(
            "Cannot coerce arithmetic expression Utf8 + Int64 to valid types",
            "STRING + BIGINT cannot be computed",
            cast,
        );
        check(
            "Internal error: Function 'sum' failed to match any signature, errors: Error during planning: no.\n\
             This issue was likely caused by a bug. No function matches the given name and argument types 'sum(Utf8)'. \
             You might need to add explicit type casts.\n\tCandidate functions:\n\tsum(Decimal)",
            "sum does not take (STRING)",
            "convert the arguments with CAST(x AS type)",
        );
        check(
            "Column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column \"t.v\" must \
             appear in the GROUP BY clause or must be part of an aggregate function, currently only \"x\" appears",
            "the column v is neither grouped by nor aggregated",
            "add it to GROUP BY, or aggregate it, such as MAX(v)",
        );
        check(
            "Cannot infer common argument type for comparison operation Utf8 = Boolean",
            "STRING and BOOLEAN cannot be compared",
            cast,
        );
        check("Cannot cast string 'a b' to value of Int32 type", "'a b' is no INT", "TRY_CAST gives NULL instead");
        check(
            "Arrow error: Cast error: Can't cast value 200 to type Int8",
            "200 does not fit TINYINT",
            "TRY_CAST gives NULL instead",
        );
        check("Something\n\telse with Decimal128(10, 2).", "Something; else with DECIMAL(10, 2)", "");
    }

    #[test]
    fn literals_and_types_are_those_of_sql() {
        fn check(text: &str, want: &str) {
            assert_eq!(sql_words(text), want);
        }
        check("t.v * Int64(-5) + Float64(1.5)", "t.v * -5 + 1.5");
        check("Utf8(\"a\") || Utf8(\"b\")", "'a' || 'b'");
        check("count(Int64(1))", "count(*)");
        let value = |n: &str| format!("IntervalMonthDayNano {{ {n} }}");
        check(&format!("ts - {}", value("months: 0, days: 0, nanoseconds: 5000000000")), "ts - INTERVAL '5' SECOND");
        check(
            &format!("IntervalMonthDayNano(\"{}\")", value("months: 0, days: 0, nanoseconds: 3600000000000")),
            "INTERVAL '1' HOUR",
        );
        check(&value("months: 14, days: 0, nanoseconds: 0"), "INTERVAL '14' MONTH");
        check(&value("months: 0, days: -1, nanoseconds: 0"), "INTERVAL '-1' DAY");
        check(&value("months: 0, days: 0, nanoseconds: 1500000"), "INTERVAL '0.0015' SECOND");
    }

    #[test]
    fn an_unknown_column_names_the_nearest() {
        fn check(column: &str, want: &str) {
            let known = ["t.id", "t.price", "u.Name"].map(Column::from_qualified_name_ignore_case);
            let (_, hint) = unknown_column(&Column::from_qualified_name_ignore_case(column), &known);
            assert_eq!(hint.as_deref(), Some(want), "{column}");
        }
        check("pric", "did you mean price?");
        check("x.id", "did you mean t.id?");
        check("PRICE", "did you mean price? Names are told apart by their case");
        check("zzz", "there are id, price, Name");
    }
}
