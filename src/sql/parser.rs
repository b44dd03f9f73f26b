//! Tokens to statements, one at a time.
//!
//! The statements are Flink's, so their parsers are ours; the queries and expressions inside are `sqlparser`'s, read by
//! the [dialect](super::dialect). A [`Script`] gives the statements of a text one after the other and stops after the
//! first mistake: whoever runs a script executes what stands before it. Each error points at the bytes in the submitted
//! text where something else was expected.

use std::ops::Range;

use sqlparser::ast;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::cursor::StatementParser;
use super::source::{Source, is_word};
use super::statement::{Emit, Insert, Parsed, Query, Show, Statement};
use crate::catalog::options::nearest;
use crate::error::{Error, Result};

/// The words that statements begin with.
const FIRST_WORDS: [&str; 18] = [
    "SELECT", "INSERT", "CREATE", "DROP", "EXPLAIN", "DESCRIBE", "SHOW", "SET", "RESET", "PRINT", "STOP", "WITH",
    "VALUES", "EXECUTE", "BEGIN", "DESC", "TABLE", "FROM",
];

/// Statements of other systems, why they are not here, and what is.
const REFUSED: [(&str, &str, &str); 22] = [
    ("UPDATE", "UPDATE is not supported: topics are only appended to", "write INSERT INTO .. SELECT"),
    ("DELETE", "DELETE is not supported: topics are only appended to", "write INSERT INTO .. SELECT with a WHERE"),
    ("MERGE", "MERGE is not supported: topics are only appended to", "write INSERT INTO .. SELECT"),
    (
        "TRUNCATE",
        "TRUNCATE is not supported: topics are only appended to",
        "delete the topic's records with Kafka's tools",
    ),
    ("COPY", "COPY is not supported", "declare a table WITH ('connector' = 'filesystem', ..) and INSERT INTO it"),
    ("ALTER", "ALTER is not supported", "DROP the table or view and CREATE it again; its topic stays as it is"),
    ("USE", "USE is not supported: there is one catalog and one database", "leave the statement out"),
    ("ADD", "ADD JAR is not supported: nothing here runs Java", "the connectors and formats are built in"),
    ("REMOVE", "REMOVE JAR is not supported: nothing here runs Java", "the connectors and formats are built in"),
    ("LOAD", "LOAD MODULE is not supported", "SHOW FUNCTIONS lists what is built in"),
    ("UNLOAD", "UNLOAD MODULE is not supported", "SHOW FUNCTIONS lists what is built in"),
    ("ANALYZE", "ANALYZE TABLE is not supported", "EXPLAIN ANALYZE JOB shows what a running job does"),
    ("CALL", "CALL is not supported", "there are no procedures"),
    ("GRANT", "GRANT is not supported", "access is governed by the Kafka brokers"),
    ("REVOKE", "REVOKE is not supported", "access is governed by the Kafka brokers"),
    ("COMMIT", "COMMIT is not supported", "jobs commit by themselves, see 'sink.commit-interval'"),
    ("ROLLBACK", "ROLLBACK is not supported", "STOP JOB ends a job"),
    ("START", "START is not supported", "INSERT INTO starts a job"),
    ("KILL", "KILL is not supported", "write STOP JOB <name>"),
    ("CANCEL", "CANCEL is not supported", "write STOP JOB <name>"),
    ("COMPILE", "COMPILE PLAN is not supported", "EXPLAIN shows a plan"),
    ("REPLACE", "REPLACE is not supported", "DROP the table and CREATE it again"),
];

/// The statements of a text, in their order. Ends after the first error.
pub struct Script<'a> {
    source: Source<'a>,
    statements: std::vec::IntoIter<Range<usize>>,
    failed: bool,
}

impl<'a> Script<'a> {
    /// The statements of `text`. Nothing is parsed yet.
    pub fn new(text: &'a str) -> Self {
        let source = Source::new(text);
        let mut statements = source.statements();
        // What the text breaks off in is no statement; its error is the tokenizer's.
        if source.failure().is_some() && !source.is_ended(&statements) {
            statements.pop();
        }
        Self { source, statements: statements.into_iter(), failed: false }
    }
}

impl Iterator for Script<'_> {
    type Item = Result<Parsed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = match self.statements.next() {
            Some(range) => parse_statement(&self.source, range),
            None => {
                self.failed = true;
                return self.source.failure().cloned().map(Err);
            }
        };
        self.failed = result.is_err();
        Some(result)
    }
}

/// All statements of a text, or its first error.
pub fn parse_script(text: &str) -> Result<Vec<Parsed>> {
    Script::new(text).collect()
}

pub(super) fn parse_statement(source: &Source, range: Range<usize>) -> Result<Parsed> {
    let span = source.span(&range);
    let mut parser = StatementParser::new(source, range);
    let statement = parser.statement()?;
    parser.end()?;
    Ok(Parsed { statement, text: source.text[span.clone()].to_string(), span })
}

impl StatementParser<'_> {
    fn statement(&mut self) -> Result<Statement> {
        let first = self.parser.peek_token();
        let Token::Word(word) = &first.token else {
            return match first.token {
                Token::LParen => Ok(Statement::Query(self.query()?)),
                _ => Err(self.expected("a statement").hint("statements begin with SELECT, INSERT, CREATE, SHOW, ..")),
            };
        };
        let name = word.value.to_ascii_uppercase();
        match name.as_str() {
            "SELECT" | "WITH" | "VALUES" => Ok(Statement::Query(self.query()?)),
            "INSERT" => Ok(Statement::Insert(self.insert()?)),
            "CREATE" => self.create(),
            "DROP" => self.drop_statement(),
            "EXECUTE" | "BEGIN" | "STATEMENT" => self.statement_set(),
            "EXPLAIN" => self.explain(),
            "DESCRIBE" | "DESC" => self.describe(),
            "SHOW" => self.show(),
            "PRINT" => self.print(),
            "STOP" => self.stop(),
            "SET" => self.set(),
            "RESET" => self.reset(),
            name => Err(self.unknown_statement(name)),
        }
    }

    fn unknown_statement(&self, name: &str) -> Error {
        let at = self.span_next();
        if let Some((_, message, hint)) = REFUSED.iter().find(|(word, ..)| *word == name) {
            return Error::statement(*message).hint(*hint).at(at);
        }
        let known = FIRST_WORDS.into_iter().chain(REFUSED.iter().map(|(word, ..)| *word));
        let error = Error::statement(format!("there is no statement {name}")).at(at);
        match nearest(name, known) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint("statements begin with SELECT, INSERT, CREATE, DROP, EXPLAIN, DESCRIBE, SHOW, SET, .."),
        }
    }

    /// A query and its trailing `EMIT`.
    pub(super) fn query(&mut self) -> Result<Query> {
        let start = self.index_next();
        let ast = match self.parser.parse_query() {
            Ok(ast) => ast,
            Err(error) => return Err(self.lift_query_error(&error)),
        };
        let span = self.source.span(&(start..self.index_next()));
        let emit = self.emit()?;
        let origin = self.source.tokens(start..start + 1)[0].span.start;
        Ok(Query {
            ast,
            text: self.source.text[span.clone()].to_string(),
            span,
            origin: (origin.line, origin.column),
            emit,
        })
    }

    fn emit(&mut self) -> Result<Emit> {
        if !self.word("EMIT") {
            return Ok(Emit::default());
        }
        if self.word("CHANGES") {
            return Ok(Emit::OnUpdate);
        }
        if self.word("FINAL") {
            return Ok(Emit::OnWindowClose);
        }
        if self.word("ON") {
            if self.word("UPDATE") {
                return Ok(Emit::OnUpdate);
            }
            self.expect_words(&["WINDOW", "CLOSE"])?;
            return Ok(Emit::OnWindowClose);
        }
        if self.word("EVERY") {
            let start = self.index_next();
            let expr = self.lifted(Parser::parse_expr)?;
            let span = self.source.span(&(start..self.index_next().max(start + 1)));
            return match super::interval::milliseconds(&expr) {
                Some(ms) if ms > 0 => Ok(Emit::EveryMs(ms)),
                _ => Err(Error::statement("EMIT EVERY needs a positive interval of days or smaller units")
                    .hint("write EMIT EVERY INTERVAL '10' SECOND")
                    .at(span)),
            };
        }
        Err(self.expected("CHANGES, FINAL, ON UPDATE, ON WINDOW CLOSE or EVERY"))
    }

    fn insert(&mut self) -> Result<Insert> {
        let table = self.insert_table()?;
        if self.next_is("PARTITION") {
            return Err(Error::statement("INSERT INTO .. PARTITION is not supported").at(self.span_next()));
        }
        self.insert_rows(table)
    }

    /// `INSERT INTO table`.
    pub(super) fn insert_table(&mut self) -> Result<String> {
        self.expect_words(&["INSERT"])?;
        if self.next_is("OVERWRITE") {
            return Err(Error::statement("INSERT OVERWRITE is not supported: topics are only appended to")
                .hint("write INSERT INTO")
                .at(self.span_next()));
        }
        self.expect_words(&["INTO"])?;
        let _ = self.next_is("TABLE") && self.word("TABLE");
        self.object_name("the name of a table")
    }

    /// What follows the table.
    pub(super) fn insert_rows(&mut self, table: String) -> Result<Insert> {
        let columns = match self.parser.peek_token_ref().token == Token::LParen && !self.opens_query() {
            true => self.name_list("the name of a column")?,
            false => Vec::new(),
        };
        if !["SELECT", "WITH", "VALUES", "TABLE"].iter().any(|word| self.next_is(word))
            && self.parser.peek_token_ref().token != Token::LParen
        {
            return Err(self.expected("SELECT, WITH or VALUES"));
        }
        Ok(Insert { table, columns, query: self.query()? })
    }

    /// Whether the parenthesis that comes next holds a query, not a list of names.
    fn opens_query(&self) -> bool {
        let inner = &self.parser.peek_nth_token_ref(1).token;
        *inner == Token::LParen || ["SELECT", "WITH", "VALUES"].iter().any(|word| is_word(inner, word))
    }

    fn statement_set(&mut self) -> Result<Statement> {
        if self.word("BEGIN") {
            self.expect_words(&["STATEMENT", "SET"])?;
            self.expect_token(&Token::SemiColon)?;
        } else {
            let _ = self.word("EXECUTE");
            self.expect_words(&["STATEMENT", "SET", "BEGIN"])?;
        }
        let mut inserts = Vec::new();
        loop {
            while self.parser.consume_token(&Token::SemiColon) {}
            if self.next_is("END") {
                break;
            }
            if !self.next_is("INSERT") {
                return Err(self.expected("INSERT INTO or END"));
            }
            inserts.push(self.insert()?);
            if !self.next_is("END") {
                self.expect_token(&Token::SemiColon)?;
            }
        }
        if inserts.is_empty() {
            return Err(Error::statement("the statement set is empty")
                .hint("put INSERT INTO between BEGIN and END")
                .at(self.span_next()));
        }
        self.expect_words(&["END"])?;
        Ok(Statement::StatementSet(inserts))
    }

    fn explain(&mut self) -> Result<Statement> {
        self.expect_words(&["EXPLAIN"])?;
        let analyze = self.word("ANALYZE");
        if !analyze && self.word("PLAN") {
            self.expect_words(&["FOR"])?;
        }
        let at = self.span_next();
        if ["CHANGELOG_MODE", "ESTIMATED_COST", "JSON_EXECUTION_PLAN", "PLAN_ADVICE"]
            .iter()
            .any(|word| self.next_is(word))
        {
            return Err(Error::statement("EXPLAIN takes no details here")
                .hint("write EXPLAIN or EXPLAIN ANALYZE")
                .at(at));
        }
        if self.next_is("JOB") {
            if !analyze {
                return Err(self
                    .expected("a statement")
                    .hint("write EXPLAIN ANALYZE JOB <name>, or DESCRIBE JOB <name>"));
            }
            return Ok(Statement::ExplainJob(self.job()?));
        }
        let statement = self.statement()?;
        match statement {
            Statement::Insert(_) | Statement::StatementSet(_) | Statement::Query(_) => {
                Ok(Statement::Explain { statement: Box::new(statement), analyze })
            }
            _ => Err(Error::statement("only a query, INSERT INTO or a statement set can be explained").at(at)),
        }
    }

    /// `JOB`, and its name if there is one.
    fn job(&mut self) -> Result<Option<String>> {
        self.expect_words(&["JOB"])?;
        if self.at_end() { Ok(None) } else { self.text_or_name("the name of a job").map(Some) }
    }

    fn describe(&mut self) -> Result<Statement> {
        self.parser.advance_token();
        if self.next_is("JOB") && self.parser.peek_nth_token_ref(1).token != Token::Period {
            return Ok(Statement::DescribeJob(self.job()?));
        }
        let is_prefix = !matches!(self.parser.peek_nth_token_ref(1).token, Token::EOF | Token::Period);
        if is_prefix && self.word("TOPIC") {
            return Ok(Statement::DescribeTopic(self.text_or_name("the name of a topic")?));
        }
        let _ = is_prefix && (self.word("TABLE") || self.word("EXTENDED"));
        Ok(Statement::Describe(self.object_name("the name of a table or view")?))
    }

    fn show(&mut self) -> Result<Statement> {
        const WORDS: [&str; 6] = ["TABLES", "VIEWS", "TOPICS", "JOBS", "FUNCTIONS", "CREATE"];
        self.expect_words(&["SHOW"])?;
        let _ = self.next_is("USER") && self.word("USER");
        let show = match () {
            () if self.word("TABLES") => Show::Tables,
            () if self.word("VIEWS") => Show::Views,
            () if self.word("TOPICS") => Show::Topics,
            () if self.word("JOBS") => Show::Jobs,
            () if self.word("FUNCTIONS") => Show::Functions,
            () if self.word("CREATE") => {
                if !self.word("TABLE") && !self.word("VIEW") {
                    return Err(self.expected("TABLE or VIEW"));
                }
                Show::Create(self.object_name("the name of a table or view")?)
            }
            () => {
                let error = self.expected("TABLES, VIEWS, TOPICS, JOBS, FUNCTIONS, CREATE TABLE or CREATE VIEW");
                let found = self.parser.peek_token_ref().token.to_string();
                return Err(match nearest(&found, WORDS) {
                    Some(near) => error.hint(format!("did you mean SHOW {near}?")),
                    None => error,
                });
            }
        };
        Ok(Statement::Show(show))
    }

    fn print(&mut self) -> Result<Statement> {
        self.expect_words(&["PRINT"])?;
        let topic = self.text_or_name("the name of a topic")?;
        let mut from_beginning = false;
        let mut limit = None;
        loop {
            if !from_beginning && self.word("FROM") {
                self.expect_words(&["BEGINNING"])?;
                from_beginning = true;
            } else if limit.is_none() && self.word("LIMIT") {
                let number = self.lifted(Parser::parse_literal_uint)?;
                limit = Some(usize::try_from(number).unwrap_or(usize::MAX));
            } else {
                return Ok(Statement::Print { topic, from_beginning, limit });
            }
        }
    }

    fn stop(&mut self) -> Result<Statement> {
        self.expect_words(&["STOP", "JOB"])?;
        let name = self.text_or_name("the name of a job")?;
        let mut drain = false;
        while self.word("WITH") {
            if self.next_is("SAVEPOINT") {
                return Err(Error::statement("STOP JOB takes no WITH SAVEPOINT")
                    .hint("a job that writes exactly once goes on where it ended; leave the clause out")
                    .at(self.span_next()));
            }
            self.expect_words(&["DRAIN"])?;
            drain = true;
        }
        Ok(Statement::StopJob { name, drain })
    }

    fn set(&mut self) -> Result<Statement> {
        self.expect_words(&["SET"])?;
        if self.at_end() {
            return Ok(Statement::Set(None));
        }
        let key = self.key(&Token::Eq)?;
        if self.parser.peek_token_ref().token != Token::Eq {
            return Err(self.expected("\"=\"").hint("write SET 'key' = 'value'"));
        }
        self.parser.advance_token();
        if self.at_end() {
            return Err(self.expected("a value").hint("write SET 'key' = 'value'"));
        }
        let value = self.key(&Token::EOF)?;
        Ok(Statement::Set(Some((key, value))))
    }

    fn reset(&mut self) -> Result<Statement> {
        self.expect_words(&["RESET"])?;
        if self.at_end() {
            return Ok(Statement::Reset(None));
        }
        Ok(Statement::Reset(Some(self.key(&Token::EOF)?)))
    }

    /// A string, or what stands up to `stop` as it was written: `table.local-time-zone`, `10 s`.
    fn key(&mut self, stop: &Token) -> Result<String> {
        let start = self.index_next();
        let is_single = self.parser.peek_nth_token_ref(1).token == *stop;
        if let (Token::SingleQuotedString(text), true) = (self.parser.peek_token().token, is_single) {
            self.parser.advance_token();
            return Ok(text);
        }
        while !self.at_end() && self.parser.peek_token_ref().token != *stop {
            if matches!(self.parser.peek_token_ref().token, Token::SingleQuotedString(_)) {
                return Err(self.expected("one string").hint("write SET 'key' = 'value'"));
            }
            self.parser.advance_token();
        }
        let end = self.index_next();
        if start == end {
            return Err(self.expected("a key").hint("write SET 'key' = 'value'"));
        }
        let text = self.source.text[self.source.span(&(start..end))].to_string();
        // A single name in backticks is that name.
        Ok(text.trim_matches('`').to_string())
    }
}

/// The syntax tree of one expression, for tests and for expressions that options hold.
pub fn parse_expr(text: &str) -> Result<ast::Expr> {
    let source = Source::new(text);
    if let Some(error) = source.failure() {
        return Err(error.clone());
    }
    let Some(range) = source.statements().into_iter().next() else {
        return Err(Error::statement("expected an expression, found nothing"));
    };
    let mut parser = StatementParser::new(&source, range);
    let expr = parser.lifted(Parser::parse_expr)?;
    parser.end()?;
    Ok(expr)
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
