//! What the parsers of statements are made of: the next word, name or string, and the error when it is another.
//!
//! The tokens are read through `sqlparser`'s parser, so that ours and its can take turns; its errors, which are text
//! with a line and a column at the end, become ours here, with the bytes they are about and a hint.

use std::ops::Range;

use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token};

use super::dialect::{FlinkDialect, take_apart};
use super::source::{Source, describe, is_word};
use super::unfinished;
use crate::error::{Error, Result};

/// Depth of nested expressions and queries that is followed.
const DEPTH_MAX: usize = 128;

/// The parser of one statement: `sqlparser` over its tokens, and where they stand.
pub(super) struct StatementParser<'s> {
    pub(super) source: &'s Source<'s>,
    pub(super) parser: Parser<'s>,
    /// The statement's tokens.
    pub(super) range: Range<usize>,
}

impl<'s> StatementParser<'s> {
    pub(super) fn new(source: &'s Source<'s>, range: Range<usize>) -> Self {
        let parser = Parser::new(&FlinkDialect)
            .with_recursion_limit(DEPTH_MAX)
            .with_tokens_with_locations(source.tokens(range.clone()).to_vec());
        Self { source, parser, range }
    }

    /// Reads a word if it comes next, in any case and without quotes.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let found = self.next_is(word);
        if found {
            self.parser.advance_token();
        }
        found
    }

    pub(super) fn next_is(&self, word: &str) -> bool {
        is_word(&self.parser.peek_token_ref().token, word)
    }

    pub(super) fn expect_words(&mut self, words: &[&str]) -> Result<()> {
        for word in words {
            if !self.word(word) {
                return Err(self.expected(word));
            }
        }
        Ok(())
    }

    pub(super) fn expect_token(&mut self, token: &Token) -> Result<()> {
        match self.parser.consume_token(token) {
            true => Ok(()),
            false => Err(self.expected(&format!("\"{token}\""))),
        }
    }

    /// A name, quoted or not.
    pub(super) fn name(&mut self, what: &str) -> Result<String> {
        match self.parser.peek_token().token {
            Token::Word(word) => {
                self.parser.advance_token();
                Ok(word.value)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// The name of a table or view, which may say `default_catalog.default_database.` first.
    pub(super) fn object_name(&mut self, what: &str) -> Result<String> {
        let start = self.index_next();
        let mut names = vec![self.name(what)?];
        while self.parser.consume_token(&Token::Period) {
            names.push(self.name(what)?);
        }
        let span = self.source.span(&(start..self.index_next()));
        if self.is_hyphenated() {
            return Err(self.expected("the end of the name"));
        }
        let name = names.pop().unwrap_or_default();
        let is_default = match names.as_slice() {
            [] => true,
            [database] => database == "default_database",
            [catalog, database] => catalog == "default_catalog" && database == "default_database",
            _ => false,
        };
        if !is_default {
            return Err(Error::statement("there is one catalog and one database; names have one part")
                .hint(format!("write \"{name}\" alone, or put a name that contains dots in backticks"))
                .at(span));
        }
        if name.is_empty() {
            return Err(Error::statement("a name cannot be empty").at(span));
        }
        Ok(name)
    }

    pub(super) fn name_list(&mut self, what: &str) -> Result<Vec<String>> {
        self.expect_token(&Token::LParen)?;
        let mut names = vec![self.name(what)?];
        while self.parser.consume_token(&Token::Comma) {
            names.push(self.name(what)?);
        }
        self.expect_token(&Token::RParen)?;
        Ok(names)
    }

    pub(super) fn string(&mut self, what: &str) -> Result<String> {
        match self.parser.peek_token().token {
            Token::SingleQuotedString(text) => {
                self.parser.advance_token();
                Ok(text)
            }
            _ => Err(self.expected(what)),
        }
    }

    pub(super) fn text_or_name(&mut self, what: &str) -> Result<String> {
        if let Ok(text) = self.string(what) {
            return Ok(text);
        }
        let start = self.index_next();
        let quoted = matches!(&self.parser.peek_token_ref().token, Token::Word(word) if word.quote_style.is_some());
        let name = self.name(what)?;
        if quoted {
            return Ok(name);
        }
        // Names of topics and jobs are full of dots and dashes; with no space between, they belong together.
        let mut end = self.index_next();
        while end < self.range.end && self.source.bytes(end - 1).end == self.source.bytes(end).start {
            self.parser.advance_token();
            end += 1;
        }
        Ok(self.source.text[self.source.span(&(start..end))].to_string())
    }

    /// Runs a parser of `sqlparser`'s.
    pub(super) fn lifted<T>(&mut self, parse: impl FnOnce(&mut Parser<'s>) -> Result<T, ParserError>) -> Result<T> {
        parse(&mut self.parser).map_err(|error| self.lift(&error))
    }

    pub(super) fn at_end(&self) -> bool {
        self.parser.peek_token_ref().token == Token::EOF
    }

    pub(super) fn end(&mut self) -> Result<()> {
        if self.at_end() { Ok(()) } else { Err(self.expected("the end of the statement")) }
    }

    /// The index in the source of the token that comes next, or one past the statement's last.
    pub(super) fn index_next(&self) -> usize {
        let next = self.parser.peek_token_ref();
        match next.token {
            Token::EOF => self.range.end,
            _ => self.source.index_at(next.span.start).unwrap_or(self.range.end),
        }
    }

    /// The bytes of the token that comes next; nothing behind the last one at the end.
    pub(super) fn span_next(&self) -> Range<usize> {
        self.span_of(self.index_next())
    }

    fn span_of(&self, index: usize) -> Range<usize> {
        if index < self.range.end {
            return self.source.bytes(index);
        }
        let end = self.source.bytes(self.range.end - 1).end;
        end..end
    }

    /// The error that the token which comes next is not what it should be.
    pub(super) fn expected(&self, what: &str) -> Error {
        let found = self.parser.peek_token_ref();
        let error = Error::statement(format!("expected {what}, found {}", describe(&found.token))).at(self.span_next());
        self.with_hint(error, self.index_next())
    }

    /// Whether the token that comes next is a `-` that touches its neighbours.
    fn is_hyphenated(&self) -> bool {
        self.hyphenated(self.index_next()).is_some()
    }

    /// The whole of an unquoted name with a `-` at this token.
    fn hyphenated(&self, index: usize) -> Option<String> {
        let touches = |i: usize| self.source.bytes(i).end == self.source.bytes(i + 1).start;
        let is_part = |i: usize| match &self.source.tokens(i..i + 1)[0].token {
            Token::Word(word) => word.quote_style.is_none(),
            Token::Number(..) => true,
            _ => false,
        };
        let is_minus = |i: usize| self.source.tokens(i..i + 1)[0].token == Token::Minus;
        let range = self.range.clone();
        if !range.contains(&index) || !is_minus(index) || index == range.start || index + 1 >= range.end {
            return None;
        }
        let (mut start, mut end) = (index - 1, index + 1);
        if !is_part(start) || !touches(start) || !touches(index) || !is_part(end) {
            return None;
        }
        while start >= range.start + 2
            && is_minus(start - 1)
            && is_part(start - 2)
            && touches(start - 1)
            && touches(start - 2)
        {
            start -= 2;
        }
        while end + 2 < range.end && is_minus(end + 1) && is_part(end + 2) && touches(end) && touches(end + 1) {
            end += 2;
        }
        Some(self.source.text[self.source.span(&(start..end + 1))].to_string())
    }

    /// The hint that what was found suggests.
    fn with_hint(&self, error: Error, index: usize) -> Error {
        if let Some(name) = self.hyphenated(index) {
            return error.hint(format!("quote a name that contains \"-\": `{name}`"));
        }
        if let Some(error) = self.misspelt(&error, index) {
            return error;
        }
        let before = self.source.tokens(self.range.start..index.clamp(self.range.start, self.range.end));
        let found = self.range.contains(&index).then(|| &self.source.tokens(index..index + 1)[0].token);
        if let Some(hint) = unfinished::hint(before, found) {
            return error.hint(hint);
        }
        let Some(token) = found else { return error };
        match token {
            Token::SingleQuotedString(text) => error.hint(format!("names are quoted with backticks: `{text}`")),
            Token::Word(word) if word.quote_style.is_none() && word.keyword != Keyword::NoKeyword => {
                // These are likelier to be where they belong than to be names.
                const CLAUSES: [&str; 12] =
                    ["SELECT", "FROM", "WHERE", "GROUP", "HAVING", "AS", "ON", "WITH", "INSERT", "CREATE", "AND", "BY"];
                if CLAUSES.iter().any(|clause| is_word(token, clause)) {
                    return error;
                }
                error.hint(format!("if this is a name, quote it with backticks: `{}`", word.value))
            }
            _ => error,
        }
    }

    /// The error that a clause is misspelt: a word that is none stands for a name, so what follows it is found wrong.
    fn misspelt(&self, error: &Error, index: usize) -> Option<Error> {
        let ends = ["expected the end of the statement", "expected \")\""];
        if !ends.iter().any(|end| error.message.starts_with(end)) {
            return None;
        }
        let places = [Some(index), index.checked_sub(1)].into_iter().flatten().filter(|at| self.range.contains(at));
        let found =
            |at: usize| unfinished::misspelt(&self.source.tokens(at..at + 1)[0].token).map(|clause| (at, clause));
        let (at, clause) = places.filter_map(found).next()?;
        let word = &self.source.text[self.source.bytes(at)];
        let error = Error::statement(format!("expected {clause}, found {word}"));
        Some(error.hint(format!("did you mean {clause}?")).at(self.source.bytes(at)))
    }

    /// An error of `sqlparser`'s as ours.
    pub(super) fn lift(&self, error: &ParserError) -> Error {
        let (message, place, hint) = take_apart(error);
        let index = place.and_then(|place| self.source.index_at(place)).unwrap_or(self.range.end);
        if message.eq_ignore_ascii_case("Expected an expression, found: FROM") && index > self.range.start {
            // This one error is reported behind its place.
            let error = Error::statement("expected an expression, found FROM").at(self.span_of(index - 1));
            return self.with_hint(error, index - 1);
        }
        let (sentence, is_expectation) =
            match message.strip_prefix("Expected: ").and_then(|m| m.split_once(", found: ")) {
                Some((expected, _)) => {
                    let found = match self.range.contains(&index) {
                        true => describe(&self.source.tokens(index..index + 1)[0].token),
                        false => describe(&Token::EOF),
                    };
                    // Words stand for themselves, signs in quotes.
                    let quote = if expected.contains(char::is_alphanumeric) { "" } else { "\"" };
                    (format!("expected {quote}{expected}{quote}, found {found}"), true)
                }
                None => (message, false),
            };
        let error = Error::statement(sentence).at(self.span_of(index));
        match hint {
            Some(hint) => error.hint(hint),
            None if is_expectation => self.with_hint(error, index),
            None => error,
        }
    }

    /// An error in a query. `sqlparser` gives up on a parenthesis that holds a broken query, and reports what is wrong
    /// with it as a list of tables; what is wrong with it as a query is found by parsing that query alone.
    pub(super) fn lift_query_error(&self, error: &ParserError) -> Error {
        let outer = self.lift(error);
        let place = take_apart(error).1;
        let index = place.and_then(|place| self.source.index_at(place)).unwrap_or(self.range.end);
        let Some(start) = self.open_query(index) else { return outer };
        let mut inner = Self::new(self.source, start..self.range.end);
        match inner.parser.parse_query() {
            Err(error) if !before(take_apart(&error).1, place) => inner.lift_query_error(&error),
            Err(_) => outer,
            Ok(_) => match inner.parser.peek_token_ref().token {
                Token::RParen => outer,
                // The query is whole: what follows it is wrong.
                _ if inner.index_next() >= index => match inner.expected("\")\"") {
                    error if error.hint.is_none() => self.with_hint(error, inner.index_next()),
                    error => error,
                },
                _ => outer,
            },
        }
    }

    /// The first token of the innermost query in parentheses that are still open at a token, but of the whole one.
    fn open_query(&self, index: usize) -> Option<usize> {
        let start = self.range.start + 1;
        let tokens = self.source.tokens(start..self.range.end.min(index + 1).max(start));
        let mut open = Vec::new();
        for (i, token) in tokens.iter().enumerate() {
            match token.token {
                Token::LParen => open.push(start + i + 1),
                Token::RParen if start + i < index => drop(open.pop()),
                _ => {}
            }
        }
        let is_query = |i: &usize| {
            let token = &self.source.tokens(*i..self.range.end).first().map(|token| &token.token);
            token.is_some_and(|token| is_word(token, "SELECT") || is_word(token, "WITH"))
        };
        open.into_iter().rev().find(is_query)
    }
}

/// Whether an error's place lies before another; no place is the end of the statement.
fn before(place: Option<Location>, other: Option<Location>) -> bool {
    place.is_some_and(|place| other.is_none_or(|other| place < other))
}
