//! Tests of queries: the language's statements, and a few that only tests have.
//!
//! ```text
//! INSERT INTO source [PARTITION n] [(column, ..)] VALUES (..), ..     records, partition 0 unless it says otherwise
//! ADVANCE WATERMARK [OF source [PARTITION n]] TO TIMESTAMP '..'       as a record would, but without one
//! ADVANCE CLOCK BY INTERVAL '..' SECOND | TO TIMESTAMP '..'           of the test; nothing else moves it
//! END OF INPUT | source [PARTITION n]                                 as a bounded topic ends
//! EXPECT sink [IN ORDER] VALUES (..), ..                              rows since the last time
//! EXPECT [PARTLY] LATE OF source VALUES (..), ..                      records that were too late
//! EXPECT BAD OF source VALUES (..), ..                                records that went to the dead letters
//! EXPECT NOTHING FROM sink | [PARTLY] LATE OF source | BAD OF source
//! EXPECT sink | [PARTLY] LATE OF source                               still to be written
//! EXPECT FAILURE '..'                                                 a job has failed
//! EXPECT ERROR '..' FOR statement                                     the statement is refused
//! ```

use std::ops::Range;

use sqlparser::ast;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::cursor::StatementParser;
use super::interval;
use super::parser::parse_statement;
use super::source::Source;
use super::statement::{Insert, Parsed, Query};
use crate::error::{Error, Result};

/// A step of a test, with its bytes in the file, without the closing `;`.
#[derive(Clone, Debug)]
pub struct TestStep {
    /// What is to be done.
    pub kind: TestStepKind,
    /// Where it is written.
    pub span: Range<usize>,
}

/// What a test says.
#[derive(Clone, Debug)]
pub enum TestStepKind {
    /// A statement as anywhere else.
    Statement(Box<Parsed>),
    /// Records for a table that is read, or a job: whether the query reads a stream decides.
    Insert {
        /// The rows.
        insert: Box<Insert>,
        /// `PARTITION n`.
        partition: Option<usize>,
    },
    /// `ADVANCE WATERMARK`.
    Watermark {
        /// Which partitions; `None` for all of all tables.
        of: Option<Place>,
        /// The time.
        to: Box<ast::Expr>,
    },
    /// `ADVANCE CLOCK BY`, in ms.
    ClockBy(i64),
    /// `ADVANCE CLOCK TO`.
    ClockTo(Box<ast::Expr>),
    /// `END OF`; `None` for all of all tables.
    End(Option<Place>),
    /// `EXPECT` of rows.
    Rows {
        /// Which rows.
        target: ExpectTarget,
        /// The name of the sink or the source.
        table: String,
        /// `IN ORDER`.
        in_order: bool,
        /// The rows.
        rows: ExpectedRows,
    },
    /// `EXPECT FAILURE`.
    Failure(Quoted),
    /// `EXPECT ERROR .. FOR`.
    Error {
        /// A part of what the error says.
        text: Quoted,
        /// The statement that is refused.
        step: Box<TestStep>,
    },
}

/// The rows that a test expects.
#[derive(Clone, Debug)]
pub enum ExpectedRows {
    /// None.
    Nothing,
    /// They are still to be written.
    Unwritten,
    /// These.
    Values(Box<Query>),
}

/// Partitions of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The table.
    pub table: String,
    /// The partition; `None` for all.
    pub partition: Option<usize>,
}

/// A text, and where it is written, quotes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// The text.
    pub text: String,
    /// Its bytes in the file.
    pub span: Range<usize>,
}

/// Which rows a test looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExpectTarget {
    /// Those that a job has written to a sink.
    Sink,
    /// Records that were late for every window.
    Late,
    /// Records that were late for some windows and used for others.
    PartlyLate,
    /// Records without a usable event time, or over which an expression failed.
    Bad,
}

/// A partition's number is below this.
const PARTITIONS_MAX: u64 = 1_000;

/// The steps of a test, in their order.
pub fn parse_query_test(text: &str) -> Result<Vec<TestStep>> {
    let source = Source::new(text);
    let mut steps = Vec::new();
    for range in source.statements() {
        // What the text breaks off in is no statement: then the tokenizer's error says more.
        match parse_step(&source, range) {
            Ok(step) => steps.push(step),
            Err(error) => return Err(source.failure().cloned().unwrap_or(error)),
        }
    }
    match source.failure() {
        Some(error) => Err(error.clone()),
        None => Ok(steps),
    }
}

fn parse_step(source: &Source, range: Range<usize>) -> Result<TestStep> {
    let mut parser = StatementParser::new(source, range.clone());
    let first = ["ADVANCE", "END", "EXPECT", "INSERT"].into_iter().find(|word| parser.next_is(word));
    let kind = match first {
        Some("ADVANCE") => parser.advance()?,
        Some("END") => parser.end_of()?,
        Some("EXPECT") => return parser.expect(range),
        Some("INSERT") => parser.test_insert()?,
        _ => TestStepKind::Statement(Box::new(parse_statement(source, range.clone())?)),
    };
    if first.is_some() {
        parser.end()?;
    }
    Ok(TestStep { kind, span: source.span(&range) })
}

impl StatementParser<'_> {
    fn test_insert(&mut self) -> Result<TestStepKind> {
        let table = self.insert_table()?;
        let partition = self.partition()?;
        Ok(TestStepKind::Insert { insert: Box::new(self.insert_rows(table)?), partition })
    }

    fn advance(&mut self) -> Result<TestStepKind> {
        self.expect_words(&["ADVANCE"])?;
        if self.word("WATERMARK") {
            let of = if self.word("OF") { Some(self.place()?) } else { None };
            self.expect_words(&["TO"])?;
            return Ok(TestStepKind::Watermark { of, to: Box::new(self.lifted(Parser::parse_expr)?) });
        }
        if !self.word("CLOCK") {
            return Err(self.expected("WATERMARK or CLOCK"));
        }
        if self.word("TO") {
            return Ok(TestStepKind::ClockTo(Box::new(self.lifted(Parser::parse_expr)?)));
        }
        if !self.word("BY") {
            return Err(self.expected("BY or TO"));
        }
        let start = self.index_next();
        let expr = self.lifted(Parser::parse_expr)?;
        let span = self.source.span(&(start..self.index_next().max(start + 1)));
        match interval::milliseconds(&expr).and_then(|ms| i64::try_from(ms).ok()) {
            Some(ms) => Ok(TestStepKind::ClockBy(ms)),
            None => Err(Error::statement("the clock moves by an interval of days or smaller units")
                .hint("write ADVANCE CLOCK BY INTERVAL '10' SECOND")
                .at(span)),
        }
    }

    fn end_of(&mut self) -> Result<TestStepKind> {
        self.expect_words(&["END", "OF"])?;
        if self.word("INPUT") {
            return Ok(TestStepKind::End(None));
        }
        Ok(TestStepKind::End(Some(self.place()?)))
    }

    fn expect(&mut self, range: Range<usize>) -> Result<TestStep> {
        let span = self.source.span(&range);
        self.expect_words(&["EXPECT"])?;
        if self.word("ERROR") {
            let text = self.quoted("a part of the error's text")?;
            self.expect_words(&["FOR"])?;
            if self.at_end() || self.next_is("EXPECT") {
                return Err(self.expected("a statement that is refused"));
            }
            let step = Box::new(parse_step(self.source, self.index_next()..range.end)?);
            return Ok(TestStep { kind: TestStepKind::Error { text, step }, span });
        }
        let kind = if self.word("FAILURE") {
            TestStepKind::Failure(self.quoted("a part of the failure's text")?)
        } else if self.word("NOTHING") {
            let (target, table) = match self.word("FROM") {
                true => (ExpectTarget::Sink, self.object_name("the name of a sink")?),
                false => self.rejects()?.ok_or_else(|| self.expected("FROM, LATE OF, PARTLY LATE OF or BAD OF"))?,
            };
            TestStepKind::Rows { target, table, in_order: false, rows: ExpectedRows::Nothing }
        } else {
            let (target, table) = match self.rejects()? {
                Some(rejects) => rejects,
                None => {
                    (ExpectTarget::Sink, self.object_name("the name of a sink, LATE, BAD, NOTHING, FAILURE or ERROR")?)
                }
            };
            let in_order = self.word("IN");
            if in_order {
                self.expect_words(&["ORDER"])?;
            }
            let rows = match self.at_end() {
                true => ExpectedRows::Unwritten,
                false if self.next_is("VALUES") => ExpectedRows::Values(Box::new(self.query()?)),
                false => return Err(self.expected("VALUES")),
            };
            TestStepKind::Rows { target, table, in_order, rows }
        };
        self.end()?;
        Ok(TestStep { kind, span })
    }

    fn rejects(&mut self) -> Result<Option<(ExpectTarget, String)>> {
        let target = match () {
            () if self.word("PARTLY") => {
                self.expect_words(&["LATE"])?;
                ExpectTarget::PartlyLate
            }
            () if self.word("LATE") => ExpectTarget::Late,
            () if self.word("BAD") => ExpectTarget::Bad,
            () => return Ok(None),
        };
        self.expect_words(&["OF"])?;
        Ok(Some((target, self.object_name("the name of a source")?)))
    }

    fn place(&mut self) -> Result<Place> {
        Ok(Place { table: self.object_name("the name of a table")?, partition: self.partition()? })
    }

    fn partition(&mut self) -> Result<Option<usize>> {
        if !self.word("PARTITION") {
            return Ok(None);
        }
        let span = self.span_next();
        let number = self.lifted(Parser::parse_literal_uint)?;
        if number >= PARTITIONS_MAX {
            return Err(Error::statement(format!("a partition's number is below {PARTITIONS_MAX}")).at(span));
        }
        Ok(usize::try_from(number).ok())
    }

    fn quoted(&mut self, what: &str) -> Result<Quoted> {
        let span = self.span_next();
        match self.parser.peek_token_ref().token {
            Token::SingleQuotedString(_) => Ok(Quoted { text: self.string(what)?, span }),
            _ => Err(self.expected(what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> TestStepKind {
        let mut steps = parse_query_test(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(steps.len(), 1, "{text}");
        steps.remove(0).kind
    }

    #[test]
    fn what_only_tests_say() {
        let kind = one("INSERT INTO t PARTITION 2 (a, b) VALUES (1, 'x')");
        assert!(
            matches!(&kind, TestStepKind::Insert { insert, partition: Some(2) } if insert.table == "t" && insert.columns == ["a", "b"])
        );
        let place = |table: &str, partition| Some(Place { table: table.into(), partition });
        let kind = one("advance watermark of t partition 1 to timestamp '2024-01-01 00:00:00'");
        assert!(matches!(kind, TestStepKind::Watermark { of, .. } if of == place("t", Some(1))));
        assert!(matches!(one("ADVANCE WATERMARK TO '2024-01-01'"), TestStepKind::Watermark { of: None, .. }));
        assert!(matches!(one("ADVANCE CLOCK BY INTERVAL '2' MINUTE"), TestStepKind::ClockBy(120_000)));
        assert!(matches!(one("END OF INPUT;"), TestStepKind::End(None)));
        assert!(matches!(one("END OF t"), TestStepKind::End(of) if of == place("t", None)));
        let kind = one("EXPECT o IN ORDER VALUES (1), (2)");
        assert!(matches!(
            kind,
            TestStepKind::Rows { target: ExpectTarget::Sink, in_order: true, rows: ExpectedRows::Values(_), .. }
        ));
        let kind = one("EXPECT NOTHING PARTLY LATE OF t");
        assert!(matches!(
            kind,
            TestStepKind::Rows { target: ExpectTarget::PartlyLate, rows: ExpectedRows::Nothing, .. }
        ));
        let kind = one("EXPECT ERROR 'no such' FOR INSERT INTO o SELECT nope FROM t");
        let TestStepKind::Error { text, step } = kind else { panic!("{kind:?}") };
        assert_eq!((text.text.as_str(), text.span), ("no such", 13..22));
        assert_eq!(step.span, 27..59);
    }

    #[test]
    fn what_is_wrong_says_where() {
        let error = |text: &str| parse_query_test(text).unwrap_err().to_string();
        assert_eq!(error("EXPECT o ROWS (1)"), "expected VALUES, found ROWS");
        assert_eq!(error("ADVANCE TIME"), "expected WATERMARK or CLOCK, found TIME");
        assert_eq!(error("INSERT INTO t PARTITION 1000 VALUES (1)"), "a partition's number is below 1000");
        assert_eq!(error("EXPECT o VALUES ('a"), "a string is not closed");
        assert_eq!(error("EXPEKT o"), "there is no statement EXPEKT");
    }
}
