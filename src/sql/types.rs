//! Flink's types and Arrow's.
//!
//! One parser reads every type, in column declarations and in casts, and gives both the canonical spelling and the
//! Arrow type: `row<a int, b timestamp>` is `ROW<a INT, b TIMESTAMP(6)>` and a struct of 32-bit integers and
//! microseconds. A cast carries the canonical spelling through DataFusion's planner, where [`FlinkTypes`] reads it
//! again, so that there is one mapping.
//!
//! Strings are `Utf8` and bytes `Binary`, whatever their declared length: the engine knows one type of each, and
//! lengths are not enforced. Times come in the coarsest of milli-, micro- and nanoseconds that holds the precision.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion::logical_expr::planner::TypePlanner;
use sqlparser::ast::{self, Ident, ObjectName};
use sqlparser::keywords::{self, Keyword};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token};

use super::dialect::{FlinkDialect, refusal, take_apart};
use super::source::is_word;
use crate::error::{Error, Result};

/// The time zone of all `TIMESTAMP_LTZ`: values are instants, shown in UTC.
pub const TIME_ZONE: &str = "UTC";

/// Depth of nested types that is followed.
const DEPTH_MAX: usize = 32;

/// A type as it was declared.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlType {
    /// The canonical spelling, without `NOT NULL`: `TIMESTAMP(3)`, `ROW<a INT, b STRING NOT NULL>`.
    pub text: String,
    /// The Arrow type.
    pub arrow: DataType,
    /// `NOT NULL` follows the type.
    pub not_null: bool,
}

impl SqlType {
    fn new(text: impl Into<String>, arrow: DataType) -> Self {
        Self { text: text.into(), arrow, not_null: false }
    }

    /// The type as a node of the syntax tree, which prints as the canonical spelling.
    pub(super) fn to_ast(&self) -> ast::DataType {
        custom(&self.text)
    }

    /// The canonical spelling as the element of another type.
    fn nested(&self) -> String {
        if self.not_null { format!("{} NOT NULL", self.text) } else { self.text.clone() }
    }
}

/// A type of a syntax tree that prints as this text.
pub(super) fn custom(text: &str) -> ast::DataType {
    ast::DataType::Custom(ObjectName::from(vec![Ident::new(text)]), Vec::new())
}

/// Parses a type and a `NOT NULL` behind it.
pub fn parse_type(parser: &mut Parser) -> Result<SqlType, ParserError> {
    let mut types = Types { parser, closed: 0 };
    let parsed = types.parse(0)?;
    match types.closed {
        0 => Ok(parsed),
        _ => types.parser.expected_ref("a type with as many \">\" as \"<\"", types.parser.get_current_token()),
    }
}

/// The type that a text spells.
pub fn type_of(text: &str) -> Result<SqlType> {
    let parse = || {
        let mut parser = Parser::new(&FlinkDialect).try_with_sql(text)?;
        let parsed = parse_type(&mut parser)?;
        parser.expect_token(&Token::EOF)?;
        Ok(parsed)
    };
    parse().map_err(|error| {
        let (message, _, hint) = take_apart(&error);
        let error = Error::statement(message);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

/// The Arrow type of a type in a syntax tree, for casts.
pub fn arrow_type(data_type: &ast::DataType) -> Result<DataType> {
    type_of(&data_type.to_string()).map(|parsed| parsed.arrow)
}

/// Flink's spelling of an Arrow type. For types that Flink does not have, of the nearest one that holds all values.
pub fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "NULL".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 | DataType::UInt8 => "SMALLINT".into(),
        DataType::Int32 | DataType::UInt16 => "INT".into(),
        DataType::Int64 | DataType::UInt32 => "BIGINT".into(),
        DataType::UInt64 => "DECIMAL(20, 0)".into(),
        DataType::Float16 | DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
            format!("DECIMAL({p}, {s})")
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "STRING".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "BYTES".into()
        }
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Time32(TimeUnit::Second) => "TIME(0)".into(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME(3)".into(),
        DataType::Timestamp(unit, zone) => {
            let name = if zone.is_some() { "TIMESTAMP_LTZ" } else { "TIMESTAMP" };
            format!("{name}({})", precision(unit))
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) => array(item),
        DataType::LargeListView(item) | DataType::FixedSizeList(item, _) => array(item),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("MAP<{}, {}>", sql_type(fields[0].data_type()), element(&fields[1]))
            }
            _ => data_type.to_string(),
        },
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|f| format!("{} {}", quote(f.name()), element(f))).collect();
            format!("ROW<{}>", fields.join(", "))
        }
        DataType::Dictionary(_, values) => sql_type(values),
        DataType::RunEndEncoded(_, values) => sql_type(values.data_type()),
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".into(),
        other => other.to_string(),
    }
}

fn array(item: &Field) -> String {
    format!("ARRAY<{}>", element(item))
}

fn element(field: &Field) -> String {
    let text = sql_type(field.data_type());
    if field.is_nullable() { text } else { format!("{text} NOT NULL") }
}

fn precision(unit: &TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// A name as it must be written: in backticks unless it reads as a plain word that means nothing else.
pub fn quote(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !is_reserved(name);
    if plain { name.to_string() } else { format!("`{}`", name.replace('`', "``")) }
}

/// Whether a plain word means something to the parser where a name is expected.
fn is_reserved(name: &str) -> bool {
    // These begin an item of a column list, or a type, or an expression with a syntax of its own.
    const OURS: [&str; 27] = [
        "AS",
        "CASE",
        "CAST",
        "COMMENT",
        "CONSTRAINT",
        "EMIT",
        "END",
        "EXISTS",
        "FALSE",
        "INTERVAL",
        "LIKE",
        "MAP",
        "METADATA",
        "NOT",
        "NULL",
        "PRIMARY",
        "ROW",
        "TABLE",
        "TRUE",
        "TRY_CAST",
        "UNIQUE",
        "WATERMARK",
        "ARRAY",
        "DATE",
        "TIME",
        "TIMESTAMP",
        "FOR",
    ];
    let upper = name.to_ascii_uppercase();
    let Token::Word(word) = Token::make_word(name, None) else { return true };
    OURS.contains(&upper.as_str())
        || keywords::RESERVED_FOR_COLUMN_ALIAS.contains(&word.keyword)
        || keywords::RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword)
        || keywords::RESERVED_FOR_IDENTIFIER.contains(&word.keyword)
}

/// DataFusion asks here what a type in a query means.
#[derive(Debug, Default, Clone, Copy)]
pub struct FlinkTypes;

impl TypePlanner for FlinkTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> datafusion::error::Result<Option<FieldRef>> {
        // `INTERVAL '..'` and what else begins a literal stays DataFusion's.
        if matches!(sql_type, ast::DataType::Interval { .. }) {
            return Ok(None);
        }
        let data_type = arrow_type(sql_type).map_err(|error| {
            let hint = error.hint.map_or_else(String::new, |hint| format!("; {hint}"));
            datafusion::error::DataFusionError::Plan(format!("{}{hint}", error.message))
        })?;
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}

/// The parser of types: `sqlparser`'s tokens, and the `>` of an outer type that were read as part of a `>>`.
struct Types<'p, 'a> {
    parser: &'p mut Parser<'a>,
    closed: usize,
}

impl Types<'_, '_> {
    fn parse(&mut self, depth: usize) -> Result<SqlType, ParserError> {
        let token = self.parser.next_token();
        let at = token.span.start;
        if depth > DEPTH_MAX {
            return Err(refusal("the type is nested too deeply", "", at));
        }
        let Token::Word(word) = &token.token else { return self.parser.expected("a type", token) };
        if word.quote_style.is_some() {
            return Err(refusal(&format!("{token} is a name, not a type"), "write types without quotes", at));
        }
        let mut parsed = self.named(&word.value.to_ascii_uppercase(), at, depth)?;
        while self.closed == 0 && self.parser.consume_tokens(&[Token::LBracket, Token::RBracket]) {
            parsed = list(&parsed);
        }
        if self.closed == 0 {
            parsed.not_null = self.parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]);
            // In `RETURNING INT NULL ON EMPTY` the NULL is not the type's.
            if !parsed.not_null && !is_word(&self.parser.peek_nth_token_ref(1).token, "ON") {
                let _ = self.parser.parse_keyword(Keyword::NULL);
            }
        }
        Ok(parsed)
    }

    fn named(&mut self, name: &str, at: Location, depth: usize) -> Result<SqlType, ParserError> {
        Ok(match name {
            "BOOLEAN" | "BOOL" => SqlType::new("BOOLEAN", DataType::Boolean),
            "TINYINT" => SqlType::new("TINYINT", DataType::Int8),
            "SMALLINT" | "INT2" => SqlType::new("SMALLINT", DataType::Int16),
            "INT" | "INTEGER" | "INT4" => SqlType::new("INT", DataType::Int32),
            "BIGINT" | "INT8" | "INT64" => SqlType::new("BIGINT", DataType::Int64),
            "FLOAT" | "REAL" | "FLOAT4" | "FLOAT32" => SqlType::new("FLOAT", DataType::Float32),
            "DOUBLE" | "FLOAT8" | "FLOAT64" => {
                let _ = self.parser.parse_keyword(Keyword::PRECISION);
                SqlType::new("DOUBLE", DataType::Float64)
            }
            "DECIMAL" | "DEC" | "NUMERIC" => self.decimal(at)?,
            "STRING" | "TEXT" => SqlType::new("STRING", DataType::Utf8),
            "CHAR" | "CHARACTER" | "VARCHAR" => {
                let varying = name == "VARCHAR" || self.word("VARYING");
                let name = if varying { "VARCHAR" } else { "CHAR" };
                self.sized(name, if varying { "STRING" } else { "CHAR" }, DataType::Utf8)?
            }
            "BYTES" | "BYTEA" | "BLOB" => SqlType::new("BYTES", DataType::Binary),
            "BINARY" => self.sized("BINARY", "BINARY", DataType::Binary)?,
            "VARBINARY" => self.sized("VARBINARY", "BYTES", DataType::Binary)?,
            "DATE" => SqlType::new("DATE", DataType::Date32),
            "TIME" => self.time(at)?,
            "TIMESTAMP" | "TIMESTAMP_NTZ" | "DATETIME" => self.timestamp(at)?,
            "TIMESTAMP_LTZ" | "TIMESTAMPTZ" => {
                let digits = self.fraction(6, at)?;
                timestamp_ltz(digits)
            }
            "ARRAY" => {
                let close = self.open(at, "ARRAY<INT>")?;
                let item = self.parse(depth + 1)?;
                self.close(close)?;
                list(&item)
            }
            "MAP" => {
                let close = self.open(at, "MAP<STRING, INT>")?;
                let key = self.parse(depth + 1)?;
                self.parser.expect_token(&Token::Comma)?;
                let value = self.parse(depth + 1)?;
                self.close(close)?;
                map(&key, &value)
            }
            "ROW" | "STRUCT" => self.row(at, depth)?,
            other => return Err(unknown(other, at)),
        })
    }

    fn decimal(&mut self, at: Location) -> Result<SqlType, ParserError> {
        let (precision, scale) = match self.numbers()?.as_slice() {
            [] => (10, 0),
            [precision] => (*precision, 0),
            [precision, scale] => (*precision, *scale),
            _ => return Err(refusal("DECIMAL takes a precision and a scale", "write DECIMAL(10, 2)", at)),
        };
        if !(1..=38).contains(&precision) || scale > precision {
            let message = format!("there is no DECIMAL({precision}, {scale})");
            return Err(refusal(&message, "the precision is 1 to 38, the scale 0 to the precision", at));
        }
        let text = format!("DECIMAL({precision}, {scale})");
        Ok(SqlType::new(text, DataType::Decimal128(precision as u8, scale as i8)))
    }

    /// A type with a length that is shown, but not enforced.
    fn sized(&mut self, name: &str, without: &str, arrow: DataType) -> Result<SqlType, ParserError> {
        let at = self.parser.get_current_token().span.start;
        Ok(match self.numbers()?.as_slice() {
            [] => SqlType::new(without, arrow),
            // Flink's own spelling of STRING and BYTES.
            [2_147_483_647] => SqlType::new(without, arrow),
            [length] if *length > 0 => SqlType::new(format!("{name}({length})"), arrow),
            _ => return Err(refusal(&format!("the length of {name} is one positive number"), "", at)),
        })
    }

    fn time(&mut self, at: Location) -> Result<SqlType, ParserError> {
        let digits = self.fraction(0, at)?;
        if digits > 3 {
            return Err(refusal(&format!("TIME({digits}) is finer than milliseconds"), "write TIME(3)", at));
        }
        if self.word("WITHOUT") {
            self.words(&["TIME", "ZONE"])?;
        }
        Ok(SqlType::new(format!("TIME({digits})"), DataType::Time32(TimeUnit::Millisecond)))
    }

    fn timestamp(&mut self, at: Location) -> Result<SqlType, ParserError> {
        let digits = self.fraction(6, at)?;
        if self.word("WITHOUT") {
            self.words(&["TIME", "ZONE"])?;
        } else if is_word(&self.parser.peek_token_ref().token, "WITH")
            && ["LOCAL", "TIME"].iter().any(|word| is_word(&self.parser.peek_nth_token_ref(1).token, word))
        {
            self.parser.advance_token();
            // WITH TIME ZONE means in DataFusion what WITH LOCAL TIME ZONE means in Flink.
            let _ = self.word("LOCAL");
            self.words(&["TIME", "ZONE"])?;
            return Ok(timestamp_ltz(digits));
        }
        Ok(SqlType::new(format!("TIMESTAMP({digits})"), DataType::Timestamp(unit(digits), None)))
    }

    fn row(&mut self, at: Location, depth: usize) -> Result<SqlType, ParserError> {
        let close = self.open(at, "ROW<a INT, b STRING>")?;
        let mut texts = Vec::new();
        let mut fields: Vec<FieldRef> = Vec::new();
        loop {
            let token = self.parser.next_token();
            let Token::Word(name) = &token.token else { return self.parser.expected("the name of a field", token) };
            let name = name.value.clone();
            let field = self.parse(depth + 1)?;
            let mut text = format!("{} {}", quote(&name), field.nested());
            if self.closed == 0 && self.word("COMMENT") {
                let comment = self.parser.parse_literal_string()?;
                text.push_str(&format!(" COMMENT '{}'", comment.replace('\'', "''")));
            }
            if fields.iter().any(|other| *other.name() == name) {
                return Err(refusal(&format!("the field \"{name}\" is there twice"), "", token.span.start));
            }
            fields.push(Arc::new(Field::new(name, field.arrow, !field.not_null)));
            texts.push(text);
            if self.closed > 0 || !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.close(close)?;
        Ok(SqlType::new(format!("ROW<{}>", texts.join(", ")), DataType::Struct(Fields::from(fields))))
    }

    /// Reads the bracket that opens a type's arguments, and gives the one that closes them.
    fn open(&mut self, at: Location, example: &str) -> Result<Token, ParserError> {
        if self.parser.consume_token(&Token::Lt) {
            Ok(Token::Gt)
        } else if self.parser.consume_token(&Token::LParen) {
            Ok(Token::RParen)
        } else {
            Err(refusal("the type's arguments are missing", &format!("write for example {example}"), at))
        }
    }

    fn close(&mut self, close: Token) -> Result<(), ParserError> {
        if close == Token::Gt {
            if self.closed > 0 {
                self.closed -= 1;
                return Ok(());
            }
            if self.parser.consume_token(&Token::ShiftRight) {
                self.closed = 1;
                return Ok(());
            }
        }
        self.parser.expect_token(&close).map(|_| ())
    }

    /// Numbers in parentheses, if there are any.
    fn numbers(&mut self) -> Result<Vec<u64>, ParserError> {
        if !self.parser.consume_token(&Token::LParen) {
            return Ok(Vec::new());
        }
        let numbers = self.parser.parse_comma_separated(Parser::parse_literal_uint)?;
        self.parser.expect_token(&Token::RParen)?;
        Ok(numbers)
    }

    /// The number of digits of a second's fraction.
    fn fraction(&mut self, default: u64, at: Location) -> Result<u64, ParserError> {
        match self.numbers()?.as_slice() {
            [] => Ok(default),
            [digits] if *digits <= 9 => Ok(*digits),
            _ => Err(refusal("the precision of a time is 0 to 9", "write TIMESTAMP(3) for milliseconds", at)),
        }
    }

    fn word(&mut self, word: &str) -> bool {
        let found = is_word(&self.parser.peek_token_ref().token, word);
        if found {
            self.parser.advance_token();
        }
        found
    }

    fn words(&mut self, words: &[&str]) -> Result<(), ParserError> {
        for word in words {
            if !self.word(word) {
                return self.parser.expected_ref(word, self.parser.peek_token_ref());
            }
        }
        Ok(())
    }
}

fn timestamp_ltz(digits: u64) -> SqlType {
    let arrow = DataType::Timestamp(unit(digits), Some(TIME_ZONE.into()));
    SqlType::new(format!("TIMESTAMP_LTZ({digits})"), arrow)
}

fn unit(digits: u64) -> TimeUnit {
    match digits {
        0..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

fn list(item: &SqlType) -> SqlType {
    let field = Field::new_list_field(item.arrow.clone(), !item.not_null);
    SqlType::new(format!("ARRAY<{}>", item.nested()), DataType::List(Arc::new(field)))
}

fn map(key: &SqlType, value: &SqlType) -> SqlType {
    let fields = Fields::from(vec![
        Field::new("key", key.arrow.clone(), false),
        Field::new("value", value.arrow.clone(), !value.not_null),
    ]);
    let entries = Field::new("entries", DataType::Struct(fields), false);
    // A map's key is never null: saying so again changes nothing.
    SqlType::new(format!("MAP<{}, {}>", key.text, value.nested()), DataType::Map(Arc::new(entries), false))
}

fn unknown(name: &str, at: Location) -> ParserError {
    const KNOWN: [&str; 22] = [
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INT",
        "INTEGER",
        "BIGINT",
        "FLOAT",
        "DOUBLE",
        "DECIMAL",
        "NUMERIC",
        "CHAR",
        "VARCHAR",
        "STRING",
        "BINARY",
        "VARBINARY",
        "BYTES",
        "DATE",
        "TIME",
        "TIMESTAMP",
        "TIMESTAMP_LTZ",
        "ARRAY",
        "ROW",
    ];
    match name {
        "MULTISET" => refusal("MULTISET is not supported", "use MAP<T, INT> or ARRAY<T>", at),
        "INTERVAL" => refusal("INTERVAL is no type of a value", "use BIGINT, or write INTERVAL '1' DAY", at),
        "JSON" | "JSONB" | "VARIANT" => {
            refusal(&format!("{name} is not supported"), "use STRING and JSON_VALUE(..)", at)
        }
        _ => {
            let hint = match crate::catalog::options::nearest(name, KNOWN) {
                Some(near) => format!("did you mean {near}?"),
                None => "types are BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p, s), STRING, BYTES, DATE, TIMESTAMP(3), \
                         TIMESTAMP_LTZ(3), ARRAY<..>, MAP<..>, ROW<..>"
                    .to_string(),
            };
            refusal(&format!("there is no type {name}"), &hint, at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_one_canonical_spelling_that_reads_back() {
        fn check(text: &str, want: &str) {
            let parsed = type_of(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parsed.text, want, "{text}");
            assert_eq!(type_of(&parsed.text).unwrap(), SqlType { not_null: false, ..parsed.clone() }, "{text}");
            let through_ast = arrow_type(&parsed.to_ast()).unwrap();
            assert_eq!(through_ast, parsed.arrow, "{text}");
        }
        check("boolean", "BOOLEAN");
        check("INTEGER", "INT");
        check("double precision", "DOUBLE");
        check("DECIMAL", "DECIMAL(10, 0)");
        check("NUMERIC(5)", "DECIMAL(5, 0)");
        check("dec(38, 18)", "DECIMAL(38, 18)");
        check("VARCHAR", "STRING");
        check("VARCHAR(20)", "VARCHAR(20)");
        check("VARCHAR(2147483647)", "STRING");
        check("CHARACTER VARYING(3)", "VARCHAR(3)");
        check("CHAR(1)", "CHAR(1)");
        check("VARBINARY(9)", "VARBINARY(9)");
        check("TIME", "TIME(0)");
        check("TIMESTAMP", "TIMESTAMP(6)");
        check("TIMESTAMP(3) WITHOUT TIME ZONE", "TIMESTAMP(3)");
        check("TIMESTAMP_LTZ", "TIMESTAMP_LTZ(6)");
        check("TIMESTAMP(3) WITH LOCAL TIME ZONE", "TIMESTAMP_LTZ(3)");
        check("ARRAY<ARRAY<INT NOT NULL>>", "ARRAY<ARRAY<INT NOT NULL>>");
        check("MAP<STRING, ARRAY<ROW<a INT>>>", "MAP<STRING, ARRAY<ROW<a INT>>>");
        check("MAP(STRING, INT)", "MAP<STRING, INT>");
        check("ROW(a INT, `b c` STRING NOT NULL)", "ROW<a INT, `b c` STRING NOT NULL>");
        check("ROW<a ROW<b ARRAY<ROW<c INT>>>>", "ROW<a ROW<b ARRAY<ROW<c INT>>>>");
        check("ROW<a INT COMMENT 'it''s', b INT>", "ROW<a INT COMMENT 'it''s', b INT>");
        check("ROW<`select` INT, time INT>", "ROW<`select` INT, `time` INT>");
        check("INT[]", "ARRAY<INT>");
        check("INT NOT NULL", "INT");
    }

    #[test]
    fn arrow_types_are_spelt_as_flink_does() {
        fn check(text: &str, want: &str) {
            assert_eq!(sql_type(&type_of(text).unwrap().arrow), want, "{text}");
        }
        check("BOOLEAN", "BOOLEAN");
        check("DECIMAL(5, 2)", "DECIMAL(5, 2)");
        check("VARCHAR(20)", "STRING");
        check("TIMESTAMP(0)", "TIMESTAMP(3)");
        check("TIMESTAMP", "TIMESTAMP(6)");
        check("TIMESTAMP(9)", "TIMESTAMP(9)");
        check("TIMESTAMP_LTZ(3)", "TIMESTAMP_LTZ(3)");
        check("TIME(2)", "TIME(3)");
        check("MAP<STRING, ARRAY<ROW<`a b` BYTES>>>", "MAP<STRING, ARRAY<ROW<`a b` BYTES>>>");
        check("ARRAY<INT NOT NULL>", "ARRAY<INT NOT NULL>");
    }

    #[test]
    fn what_is_no_type_is_refused() {
        fn check(text: &str, want: &str) {
            assert_eq!(type_of(text).unwrap_err().message, want, "{text}");
        }
        check("STRIN", "there is no type STRIN");
        check("MULTISET<INT>", "MULTISET is not supported");
        check("INTERVAL DAY", "INTERVAL is no type of a value");
        check("DECIMAL(39, 0)", "there is no DECIMAL(39, 0)");
        check("DECIMAL(3, 4)", "there is no DECIMAL(3, 4)");
        check("TIMESTAMP(10)", "the precision of a time is 0 to 9");
        check("ARRAY", "the type's arguments are missing");
        check("ARRAY<INT>>", "Expected: a type with as many \">\" as \"<\", found: >>");
        check("ROW<a INT, a INT>", "the field \"a\" is there twice");
        check(&format!("{}INT{}", "ARRAY<".repeat(100), ">".repeat(100)), "the type is nested too deeply");
    }
}
