//! Interval literals: `INTERVAL '10' SECONDS`, `INTERVAL -'1' DAY`, `INTERVAL '1 02:30' DAY TO MINUTE`.
//!
//! DataFusion knows one unit at a time, so a literal over a range of units is spelt out in words here: `'1 day 2 hours
//! 30 minutes'`. The numbers are checked on the way, so that a mistake is found where it stands.

use arrow::compute::kernels::cast_utils::{
    IntervalParseConfig, IntervalUnit as ArrowUnit, parse_interval_month_day_nano_config,
};
use sqlparser::ast::{DateTimeField, Expr, Interval, Value};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token};

use super::dialect::refusal;

/// The units that can follow an interval's string, from the largest: their names, and the character that stands
/// between one and the next smaller one in a literal.
static UNITS: [(&str, DateTimeField, char); 8] = [
    ("YEAR", DateTimeField::Year, '-'),
    ("QUARTER", DateTimeField::Quarter, '\0'),
    ("MONTH", DateTimeField::Month, '\0'),
    ("WEEK", DateTimeField::Week(None), '\0'),
    ("DAY", DateTimeField::Day, ' '),
    ("HOUR", DateTimeField::Hour, ':'),
    ("MINUTE", DateTimeField::Minute, ':'),
    ("SECOND", DateTimeField::Second, '\0'),
];

/// Parses an interval whose value is a string and whose unit is a word; `None`, and nothing read, for other forms.
pub(super) fn parse(parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
    let sign_count = usize::from(matches!(parser.peek_nth_token_ref(1).token, Token::Minus | Token::Plus));
    let Token::SingleQuotedString(text) = &parser.peek_nth_token_ref(1 + sign_count).token else { return None };
    let text = text.clone();
    unit(&parser.peek_nth_token_ref(2 + sign_count).token)?;
    Some(parse_known(parser, &text))
}

fn parse_known(parser: &mut Parser, text: &str) -> Result<Expr, ParserError> {
    parser.advance_token();
    let minus = parser.consume_token(&Token::Minus);
    if !minus {
        let _ = parser.consume_token(&Token::Plus);
    }
    let place = parser.next_token().span.start;
    let first = parse_unit(parser)?;
    let last = match super::source::is_word(&parser.peek_token_ref().token, "TO") {
        true => {
            parser.advance_token();
            parse_unit(parser)?
        }
        false => first,
    };
    let mut value = spell(text.trim(), minus, first, last, place)?;
    let mut field = UNITS[first].1.clone();
    if field == DateTimeField::Quarter && first == last {
        // DataFusion has no quarters; nine digits times three fit.
        field = DateTimeField::Month;
        value = value.parse::<i64>().map_or(value, |quarters| (quarters * 3).to_string());
    }
    Ok(Expr::Interval(Interval {
        value: Box::new(Expr::Value(Value::SingleQuotedString(value).into())),
        leading_field: (first == last).then_some(field),
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    }))
}

/// The milliseconds of an interval literal; `None` when it is negative, has months, or is another expression.
pub(super) fn milliseconds(expr: &Expr) -> Option<u64> {
    let Expr::Interval(interval) = expr else { return None };
    let Expr::Value(value) = interval.value.as_ref() else { return None };
    let (Value::SingleQuotedString(text) | Value::Number(text, _)) = &value.value else { return None };
    let text = match &interval.leading_field {
        Some(field) => format!("{text} {field}"),
        None => text.clone(),
    };
    let config = IntervalParseConfig::new(ArrowUnit::Second);
    let interval = parse_interval_month_day_nano_config(&text, config).ok()?;
    let ms = i64::from(interval.days).checked_mul(86_400_000)?.checked_add(interval.nanoseconds / 1_000_000)?;
    if interval.months == 0 { u64::try_from(ms).ok() } else { None }
}

/// The index in [`UNITS`] of a unit's name, singular or plural.
fn unit(token: &Token) -> Option<usize> {
    let Token::Word(word) = token else { return None };
    let name = word.value.to_ascii_uppercase();
    UNITS.iter().position(|(unit, ..)| name.strip_prefix(unit).is_some_and(|rest| rest.is_empty() || rest == "S"))
}

/// A unit and its precision, which says nothing that the number does not.
fn parse_unit(parser: &mut Parser) -> Result<usize, ParserError> {
    let token = parser.next_token();
    let Some(index) = unit(&token.token) else {
        return parser.expected("a unit of time (SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER or YEAR)", token);
    };
    if parser.consume_token(&Token::LParen) {
        parser.parse_comma_separated(Parser::parse_literal_uint)?;
        parser.expect_token(&Token::RParen)?;
    }
    Ok(index)
}

/// The value in DataFusion's words: the number alone for one unit, `1 DAY 2 HOUR` for a range.
fn spell(text: &str, minus: bool, first: usize, last: usize, place: Location) -> Result<String, ParserError> {
    let is_range = matches!((first, last), (0, 2)) || (4 <= first && first < last);
    if first != last && !is_range {
        let message = format!("there is no interval of {} TO {}", UNITS[first].0, UNITS[last].0);
        return Err(refusal(&message, "write YEAR TO MONTH, DAY TO SECOND, MINUTE TO SECOND, ..", place));
    }
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (!minus, rest),
        None => (minus, text.strip_prefix('+').unwrap_or(text)),
    };
    let sign = if negative { "-" } else { "" };
    let units: Vec<usize> = (first..=last).filter(|i| UNITS[*i].2 != '\0' || *i == last).collect();
    let mut words = Vec::new();
    for &i in &units {
        let number = match i == last {
            true => rest,
            false => match rest.split_once(UNITS[i].2) {
                Some((number, tail)) => {
                    rest = tail.trim_start();
                    number
                }
                None => return Err(malformed(text, first, last, place)),
            },
        };
        let (whole, fraction) = match number.split_once('.') {
            Some((whole, fraction)) if i == 7 => (whole, Some(fraction)),
            _ => (number, None),
        };
        let digits =
            |text: &str, most| !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_digit());
        // Nine digits of any unit up to a day stay far below the bounds of DataFusion's interval.
        if !digits(whole, 9) || fraction.is_some_and(|fraction| !digits(fraction, 9)) {
            return Err(malformed(text, first, last, place));
        }
        words.push(if first == last { format!("{sign}{number}") } else { format!("{sign}{number} {}", UNITS[i].0) });
    }
    Ok(words.join(" "))
}

fn malformed(text: &str, first: usize, last: usize, place: Location) -> ParserError {
    let names = match first == last {
        true => UNITS[first].0.to_string(),
        false => format!("{} TO {}", UNITS[first].0, UNITS[last].0),
    };
    let example = match (first, last) {
        (0, 2) => "'1-6' YEAR TO MONTH",
        (4, _) if first != last => "'1 02:30:00' DAY TO SECOND",
        (5, _) if first != last => "'2:30' HOUR TO MINUTE",
        _ if first != last => "'1:30' MINUTE TO SECOND",
        _ => "'10' MINUTE",
    };
    refusal(&format!("'{text}' is no interval of {names}"), &format!("write for example INTERVAL {example}"), place)
}

#[cfg(test)]
mod tests {
    use super::super::dialect::FlinkDialect;
    use super::*;

    fn parse_text(text: &str) -> Result<String, ParserError> {
        Parser::new(&FlinkDialect).try_with_sql(text)?.parse_expr().map(|expr| expr.to_string())
    }

    #[test]
    fn every_form_becomes_one_that_datafusion_knows() {
        fn check(text: &str, want: &str) {
            assert_eq!(parse_text(text), Ok(want.to_string()), "{text}");
        }
        check("INTERVAL '1' MINUTE", "INTERVAL '1' MINUTE");
        check("INTERVAL '10' SECONDS", "INTERVAL '10' SECOND");
        check("INTERVAL '0.5' SECOND(2, 3)", "INTERVAL '0.5' SECOND");
        check("INTERVAL -'1' DAY", "INTERVAL '-1' DAY");
        check("INTERVAL '-1' DAY(3)", "INTERVAL '-1' DAY");
        check("INTERVAL -'-1' DAY", "INTERVAL '1' DAY");
        check("INTERVAL '1:30' MINUTE TO SECOND", "INTERVAL '1 MINUTE 30 SECOND'");
        check("INTERVAL '1 2:03:04.5' DAY TO SECOND", "INTERVAL '1 DAY 2 HOUR 03 MINUTE 04.5 SECOND'");
        check("INTERVAL '-2:30' HOUR TO MINUTE", "INTERVAL '-2 HOUR -30 MINUTE'");
        check("INTERVAL '1-6' YEAR TO MONTH", "INTERVAL '1 YEAR 6 MONTH'");
        check("INTERVAL '-2' QUARTER", "INTERVAL '-6' MONTH");
        check("INTERVAL '5 seconds'", "INTERVAL '5 seconds'");
        check("INTERVAL 5 MINUTE", "INTERVAL 5 MINUTE");
        check("a - INTERVAL '5' SECOND", "a - INTERVAL '5' SECOND");
    }

    #[test]
    fn malformed_literals_are_refused_where_they_stand() {
        fn check(text: &str, want: &str) {
            let (message, place, _) = super::super::dialect::take_apart(&parse_text(text).unwrap_err());
            assert_eq!((message.as_str(), place), (want, Some(Location::new(1, 10))), "{text}");
        }
        check("INTERVAL 'x' MINUTE", "'x' is no interval of MINUTE");
        check("INTERVAL '1.5' MINUTE", "'1.5' is no interval of MINUTE");
        check("INTERVAL '' DAY", "'' is no interval of DAY");
        check("INTERVAL '1' MINUTE TO SECOND", "'1' is no interval of MINUTE TO SECOND");
        check("INTERVAL '1:2:3' MINUTE TO SECOND", "'1:2:3' is no interval of MINUTE TO SECOND");
        check("INTERVAL '1' SECOND TO DAY", "there is no interval of SECOND TO DAY");
    }
}
