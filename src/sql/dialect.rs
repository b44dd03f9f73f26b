//! Flink's SQL as a dialect of `sqlparser`.
//!
//! It behaves as the generic dialect (which is who it says it is: much of the parser asks for that), less the
//! liberties that would turn a mistake into something else, plus what only Flink writes in expressions:
//!
//! | written | becomes |
//! |---|---|
//! | `TABLE t` as an argument | a marker that [`table_marker`] recognises |
//! | `CAST(x AS ROW<a INT>)`, any Flink type | a cast whose type is the canonical spelling, for [`super::types`] |
//! | `INTERVAL '1:30' MINUTE TO SECOND` | an interval in words |
//! | `MAP['k', v]` | a map literal |
//! | `JSON_VALUE(x, '$.a' RETURNING INT)` | a cast of the function |
//! | `TIMESTAMPDIFF(MINUTE, a, b)` | a function whose first argument is the string `'MINUTE'` |

use std::any::TypeId;

use arrow::datatypes::DataType;
use sqlparser::ast::{self, Expr, Ident, ObjectName, ObjectNamePart};
use sqlparser::dialect::{Dialect, GenericDialect};
use sqlparser::keywords::{self, Keyword};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token};

use super::source::is_word;
use super::{interval, types};

/// The name of the function call that stands for `TABLE t` in arguments.
const TABLE_MARKER: &str = "__table";

/// Separates an error's sentence from its hint on the way through `sqlparser`.
const HINT: char = '\u{1f}';

/// Flink's SQL.
#[derive(Debug, Default, Clone, Copy)]
pub struct FlinkDialect;

/// The table of `TABLE t [PARTITION BY a | (a, b)]`, and what it is partitioned by, if this is such an argument of a table
/// function.
pub fn table_marker(expr: &Expr) -> Option<(ObjectName, Vec<Expr>)> {
    let Expr::Function(function) = expr else { return None };
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return None };
    if name.value != TABLE_MARKER {
        return None;
    }
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    let mut args = list.args.iter().map(|arg| match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    let name = match args.next()?? {
        Expr::Identifier(ident) => ObjectName::from(vec![ident]),
        Expr::CompoundIdentifier(idents) => ObjectName::from(idents),
        _ => return None,
    };
    Some((name, args.collect::<Option<_>>()?))
}

/// A refusal on its way through `sqlparser`: a sentence, a place, and what to do.
pub(super) fn refusal(message: &str, hint: &str, at: Location) -> ParserError {
    ParserError::ParserError(format!("{message}{HINT}{hint}{at}"))
}

/// A `sqlparser` error taken apart again: its sentence, its place if it has one, its hint if it has one.
pub(super) fn take_apart(error: &ParserError) -> (String, Option<Location>, Option<String>) {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => {
            let hint = "split it up, for example with views".to_string();
            return ("the statement is nested too deeply".to_string(), None, Some(hint));
        }
    };
    let (text, place) = match text.rsplit_once(" at Line: ") {
        Some((before, place)) => (before, parse_place(place)),
        None => (text, None),
    };
    match text.split_once(HINT) {
        Some((message, hint)) => (message.to_string(), place, Some(hint.to_string()).filter(|hint| !hint.is_empty())),
        None => (text.to_string(), place, None),
    }
}

fn parse_place(text: &str) -> Option<Location> {
    let (line, column) = text.split_once(", Column: ")?;
    Some(Location::new(line.parse().ok()?, column.parse().ok()?))
}

/// Whether the word just read begins `EMIT ..`, which ends a query and is never an alias.
fn is_emit(parser: &Parser) -> bool {
    is_word(&parser.get_current_token().token, "EMIT")
}

type Hook = Option<Result<Expr, ParserError>>;

impl FlinkDialect {
    /// `TABLE t` and `TABLE (SELECT ..)` as arguments.
    fn table_argument(self, parser: &mut Parser) -> Hook {
        match &parser.peek_nth_token_ref(1).token {
            Token::LParen => {
                let is_query = ["SELECT", "WITH", "VALUES"];
                let inner = parser.peek_nth_token_ref(2).token.clone();
                if !is_query.iter().any(|word| is_word(&inner, word)) {
                    return None;
                }
                parser.advance_token();
                Some(parser.parse_prefix())
            }
            Token::Word(_) => {
                parser.advance_token();
                Some(parser.parse_object_name(false).and_then(|name| mark(name, parser)))
            }
            _ => None,
        }
    }

    /// `CAST(x AS type)` and `TRY_CAST(x AS type)` with Flink's types.
    fn cast(self, parser: &mut Parser, kind: ast::CastKind) -> Hook {
        if parser.peek_nth_token_ref(1).token != Token::LParen {
            return None;
        }
        let parse = || {
            parser.advance_token();
            parser.expect_token(&Token::LParen)?;
            let expr = parser.parse_expr()?;
            parser.expect_keyword_is(Keyword::AS)?;
            let target = types::parse_type(parser)?;
            parser.expect_token(&Token::RParen)?;
            Ok(cast_to(kind, expr, target.to_ast(), &target.arrow))
        };
        Some(parse())
    }

    /// `MAP['a', 1, 'b', 2]`.
    fn map(self, parser: &mut Parser) -> Hook {
        if parser.peek_nth_token_ref(1).token != Token::LBracket {
            return None;
        }
        let mut parse = || {
            let start = parser.next_token().span.start;
            parser.expect_token(&Token::LBracket)?;
            let mut items = parser.parse_comma_separated0(Parser::parse_expr, Token::RBracket)?.into_iter();
            parser.expect_token(&Token::RBracket)?;
            let mut entries = Vec::with_capacity(items.len() / 2);
            while let Some(key) = items.next() {
                let Some(value) = items.next() else {
                    return Err(refusal("the last key of this map has no value", "write MAP['key', value, ..]", start));
                };
                entries.push(ast::MapEntry { key: Box::new(key), value: Box::new(value) });
            }
            Ok(Expr::Map(ast::Map { entries }))
        };
        Some(parse())
    }

    /// `JSON_VALUE(x, '$.a' RETURNING type)`, with the clauses that say what happens anyway.
    fn json_value(self, parser: &mut Parser) -> Hook {
        if parser.peek_nth_token_ref(1).token != Token::LParen {
            return None;
        }
        let mut parse = || {
            let name = parser.parse_identifier()?;
            parser.expect_token(&Token::LParen)?;
            let args = parser.parse_comma_separated(Parser::parse_expr)?;
            let returning = match is_word(&parser.peek_token_ref().token, "RETURNING") {
                true => {
                    parser.advance_token();
                    Some(types::parse_type(parser)?.to_ast())
                }
                false => None,
            };
            while parser.parse_keyword(Keyword::NULL) {
                parser.expect_keyword_is(Keyword::ON)?;
                if !parser.parse_keyword(Keyword::ERROR) {
                    parser.expect_keyword_is(Keyword::EMPTY)?;
                }
            }
            let next = parser.peek_token_ref();
            if is_word(&next.token, "DEFAULT") || is_word(&next.token, "ERROR") {
                let message = "of the ON EMPTY and ON ERROR clauses of JSON_VALUE only NULL is supported";
                return Err(refusal(message, "write COALESCE(JSON_VALUE(..), ..)", next.span.start));
            }
            parser.expect_token(&Token::RParen)?;
            let function = call(name, args);
            Ok(match returning {
                None => function,
                Some(data_type) => Expr::Cast {
                    kind: ast::CastKind::TryCast,
                    expr: Box::new(function),
                    data_type,
                    array: false,
                    format: None,
                },
            })
        };
        Some(parse())
    }

    /// `TIMESTAMPDIFF(MINUTE, a, b)` and `TIMESTAMPADD(MINUTE, 3, a)`: the unit is a word, not a column.
    fn timestamp_arithmetic(self, parser: &mut Parser) -> Hook {
        if parser.peek_nth_token_ref(1).token != Token::LParen {
            return None;
        }
        let mut parse = || {
            let name = parser.parse_identifier()?;
            parser.expect_token(&Token::LParen)?;
            let unit = parser.next_token();
            let word = match &unit.token {
                Token::Word(word) => word.value.to_ascii_uppercase(),
                // As this call is printed again.
                Token::SingleQuotedString(word) => word.to_ascii_uppercase(),
                _ => {
                    return parser
                        .expected("a unit of time (SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER or YEAR)", unit);
                }
            };
            let word = word.strip_prefix("SQL_TSI_").unwrap_or(&word);
            let mut args = vec![Expr::Value(ast::Value::SingleQuotedString(word.to_string()).with_span(unit.span))];
            parser.expect_token(&Token::Comma)?;
            args.extend(parser.parse_comma_separated(Parser::parse_expr)?);
            parser.expect_token(&Token::RParen)?;
            Ok(call(name, args))
        };
        Some(parse())
    }
}

/// A cast. That of `ROW(x, y)` to a row type gives each field its name and type: DataFusion casts rows by the names of
/// their fields, which this one does not have yet.
fn cast_to(kind: ast::CastKind, expr: Expr, data_type: ast::DataType, arrow: &DataType) -> Expr {
    let (args, fields) = match (row_arguments(&expr), arrow) {
        (Some(args), DataType::Struct(fields)) if args.len() == fields.len() => (args, fields),
        _ => return Expr::Cast { kind, expr: Box::new(expr), data_type, array: false, format: None },
    };
    let mut named = Vec::with_capacity(2 * args.len());
    for (arg, field) in args.into_iter().zip(fields) {
        named.push(Expr::Value(ast::Value::SingleQuotedString(field.name().clone()).into()));
        let field_type = types::custom(&types::sql_type(field.data_type()));
        named.push(cast_to(kind.clone(), arg.clone(), field_type, field.data_type()));
    }
    call(Ident::new("named_struct"), named)
}

/// The values of `ROW(x, y)`.
fn row_arguments(expr: &Expr) -> Option<Vec<&Expr>> {
    let Expr::Function(function) = expr else { return None };
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return None };
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    let values = list.args.iter().map(|arg| match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(value)) => Some(value),
        _ => None,
    });
    if name.value.eq_ignore_ascii_case("ROW") { values.collect() } else { None }
}

/// A call of a function with plain arguments.
fn call(name: Ident, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(ast::Function {
        name: ObjectName::from(vec![name]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The marker that stands for `TABLE name`; what it is partitioned by follows, if anything.
fn mark(name: ObjectName, parser: &mut Parser) -> Result<Expr, ParserError> {
    let idents: Option<Vec<Ident>> = name.0.iter().map(|part| part.as_ident().cloned()).collect();
    let Some(mut idents) = idents else { return parser.expected_ref("a table's name", parser.peek_token_ref()) };
    let name = if idents.len() == 1 { Expr::Identifier(idents.remove(0)) } else { Expr::CompoundIdentifier(idents) };
    let mut args = vec![name];
    if parser.parse_keywords(&[Keyword::PARTITION, Keyword::BY]) {
        match parser.parse_expr()? {
            Expr::Tuple(list) => args.extend(list),
            Expr::Nested(one) => args.push(*one),
            one => args.push(one),
        }
    }
    Ok(call(Ident::new(TABLE_MARKER), args))
}

/// Answers `true` to each of the questions named.
macro_rules! yes {
    ($($question:ident)*) => {
        $(fn $question(&self) -> bool {
            true
        })*
    };
}

impl Dialect for FlinkDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, c: char) -> bool {
        c == '"' || c == '`'
    }

    fn is_identifier_start(&self, c: char) -> bool {
        c.is_alphabetic() || c == '_' || c == '@'
    }

    fn is_identifier_part(&self, c: char) -> bool {
        c.is_alphanumeric() || c == '_' || c == '$' || c == '@'
    }

    fn identifier_quote_style(&self, _identifier: &str) -> Option<char> {
        Some('`')
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let Token::Word(word) = &parser.peek_token_ref().token else { return None };
        if word.quote_style.is_some() {
            return None;
        }
        match word.keyword {
            Keyword::CAST => self.cast(parser, ast::CastKind::Cast),
            Keyword::TRY_CAST => self.cast(parser, ast::CastKind::TryCast),
            Keyword::TABLE => self.table_argument(parser),
            Keyword::INTERVAL => interval::parse(parser),
            Keyword::MAP => self.map(parser),
            _ if word.value.eq_ignore_ascii_case("JSON_VALUE") => self.json_value(parser),
            _ if word.value.eq_ignore_ascii_case("TIMESTAMPDIFF") => self.timestamp_arithmetic(parser),
            _ if word.value.eq_ignore_ascii_case("TIMESTAMPADD") => self.timestamp_arithmetic(parser),
            _ => None,
        }
    }

    fn is_column_alias(&self, keyword: &Keyword, parser: &mut Parser) -> bool {
        !keywords::RESERVED_FOR_COLUMN_ALIAS.contains(keyword) && !is_emit(parser)
    }

    fn is_table_alias(&self, keyword: &Keyword, parser: &mut Parser) -> bool {
        !keywords::RESERVED_FOR_TABLE_ALIAS.contains(keyword) && !is_emit(parser)
    }

    // Of what the generic dialect allows, left out is what would let a slip of the pen pass as something else: commas
    // that trail, SELECT without columns or before FROM without SELECT, WITH without AS, and whole clauses of other
    // engines, whose words are likelier to be misplaced aliases.
    yes! {
        supports_unicode_string_literal
        supports_partition_by_after_order_by
        supports_array_join_syntax
        supports_group_by_expr
        supports_left_associative_joins_without_parens
        supports_match_recognize
        supports_window_function_null_treatment_arg
        supports_window_clause_named_window_reference
        supports_select_wildcard_except
        supports_select_wildcard_exclude
        supports_select_wildcard_replace
        support_map_literal_syntax
        allow_extract_custom
        allow_extract_single_quotes
        supports_extract_comma_syntax
        supports_parens_around_table_factor
        supports_values_as_table_factor
        supports_try_convert
        supports_bitwise_shift_operators
        supports_named_fn_args_with_assignment_operator
        supports_array_typedef_with_brackets
        supports_filter_during_aggregation
        supports_comma_separated_trim
        supports_interval_options
        supports_table_versioning
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlparser::tokenizer::Tokenizer;

    fn parse(text: &str) -> Result<Expr, ParserError> {
        let tokens = Tokenizer::new(&FlinkDialect, text).tokenize_with_location()?;
        Parser::new(&FlinkDialect).with_tokens_with_locations(tokens).parse_expr()
    }

    #[test]
    fn what_only_flink_writes_becomes_what_every_planner_knows() {
        fn check(text: &str, want: &str) {
            assert_eq!(parse(text).map(|expr| expr.to_string()), Ok(want.to_string()), "{text}");
        }
        check("f(TABLE t, DESCRIPTOR(ts))", "f(__table(t), DESCRIPTOR(ts))");
        check("f(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts))", "f(DATA => __table(t), TIMECOL => DESCRIPTOR(ts))");
        check("f(SIZE => x, \"OFFSET\" => y)", "f(SIZE => x, \"OFFSET\" => y)");
        check("f(SIZE => x, OFFSET => y, SLIDE => z)", "f(SIZE => x, OFFSET => y, SLIDE => z)");
        check("f(TABLE `a-b`)", "f(__table(`a-b`))");
        check("f(TABLE (SELECT 1))", "f((SELECT 1))");
        check("f((SELECT 1), 2)", "f((SELECT 1), 2)");
        check("CAST(x AS STRING)", "CAST(x AS STRING)");
        check("cast(x as row<a int, b array<string>>)", "CAST(x AS ROW<a INT, b ARRAY<STRING>>)");
        check("TRY_CAST(x AS TIMESTAMP_LTZ(3))", "TRY_CAST(x AS TIMESTAMP_LTZ(3))");
        check("CAST(x AS TIMESTAMP(3) WITH LOCAL TIME ZONE)", "CAST(x AS TIMESTAMP_LTZ(3))");
        check(
            "CAST(ROW(1, ROW(b)) AS ROW<x INT, y ROW<z STRING>>)",
            "named_struct('x', CAST(1 AS INT), 'y', named_struct('z', CAST(b AS STRING)))",
        );
        check("CAST(x AS MAP<STRING, ARRAY<INT>>) IS NULL", "CAST(x AS MAP<STRING, ARRAY<INT>>) IS NULL");
        check("MAP['k', v, 'l', 1]", "MAP {'k': v, 'l': 1}");
        check("MAP[]", "MAP {}");
        check("ARRAY[1, 2]", "ARRAY[1, 2]");
        check("ROW(a, b)", "ROW(a, b)");
        check("a IS NOT DISTINCT FROM b || 'x'", "a IS NOT DISTINCT FROM b || 'x'");
        check("`bid`.`price`", "`bid`.`price`");
        check("JSON_VALUE(x, '$.a')", "JSON_VALUE(x, '$.a')");
        check("JSON_VALUE(x, '$.a' RETURNING INT NULL ON EMPTY)", "TRY_CAST(JSON_VALUE(x, '$.a') AS INT)");
        check("timestampdiff(minute, a, b)", "timestampdiff('MINUTE', a, b)");
        check("TIMESTAMPDIFF('MINUTE', a, b)", "TIMESTAMPDIFF('MINUTE', a, b)");
        check("TIMESTAMPADD(DAY, 1, a)", "TIMESTAMPADD('DAY', 1, a)");
        check("IF(a > 1, 'x', 'y')", "IF(a > 1, 'x', 'y')");
        check("LEFT(a, 1) || RIGHT(b, 2)", "LEFT(a, 1) || RIGHT(b, 2)");
        check("HOUR(ts) + SECOND(ts)", "HOUR(ts) + SECOND(ts)");
    }

    #[test]
    fn refusals_keep_their_place_and_hint() {
        let (message, place, hint) = take_apart(&parse("1 + MAP['a']").unwrap_err());
        assert_eq!(message, "the last key of this map has no value");
        assert_eq!(place, Some(Location::new(1, 5)));
        assert_eq!(hint.as_deref(), Some("write MAP['key', value, ..]"));
    }

    #[test]
    fn only_the_marker_is_a_marker() {
        let marked = parse("f(TABLE a.b)").unwrap();
        let Expr::Function(function) = marked else { panic!("a function") };
        let ast::FunctionArguments::List(list) = function.args else { panic!("a list") };
        let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(arg)) = &list.args[0] else { panic!("an expression") };
        assert_eq!(table_marker(arg).map(|(name, _)| name.to_string()), Some("a.b".to_string()));
        assert_eq!(table_marker(&parse("f(a)").unwrap()), None);
    }
}
