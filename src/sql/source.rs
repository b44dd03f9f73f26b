//! The submitted text as tokens that know their bytes, cut into statements.
//!
//! `a; b 'x;y' -- c;` holds two statements: a `;` in quotes or in a comment ends nothing, for the cut is made on
//! tokens. `EXECUTE STATEMENT SET BEGIN a; b; END;` is one statement although it holds others. A text whose end does
//! not even tokenize (an open quote) still gives the statements before it: one runs a script up to its first mistake.

use std::ops::Range;

use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, TokenizerError, Whitespace};

use super::dialect::FlinkDialect;
use crate::error::{Error, Result};

/// A text and its tokens, without white space and comments.
pub(super) struct Source<'a> {
    /// The text as it was submitted.
    pub(super) text: &'a str,
    tokens: Vec<TokenWithSpan>,
    /// The bytes of each token.
    bytes: Vec<Range<usize>>,
    /// Where the text stopped to make sense: an unclosed quote or comment, a character that begins nothing.
    failure: Option<(Error, Unfinished)>,
}

/// Whether more text could repair a failure of the tokenizer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unfinished {
    /// A quote or a comment is open.
    Open,
    /// No text that follows would help.
    Broken,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut all = Vec::new();
        let result = Tokenizer::new(&FlinkDialect, text).tokenize_with_location_into_buf(&mut all);
        let mut walk = Walk::new(text);
        let mut source = Source { text, tokens: Vec::new(), bytes: Vec::new(), failure: None };
        for token in all {
            let start = walk.to(token.span.start);
            if let Token::Whitespace(Whitespace::MultiLineComment(comment)) = &token.token
                && is_options_hint(comment)
            {
                let end = walk.to(token.span.end);
                source.failure = Some((options_hint(start..end), Unfinished::Broken));
                break;
            }
            if !matches!(token.token, Token::Whitespace(_) | Token::EOF) {
                let end = walk.to(token.span.end);
                source.tokens.push(token);
                source.bytes.push(start..end);
            }
        }
        if let (Err(error), None) = (result, &source.failure) {
            source.failure = Some(lift(text, &error));
        }
        source
    }

    /// The tokens of the statements one after the other, without the `;` between them; empty statements are left out.
    pub(super) fn statements(&self) -> Vec<Range<usize>> {
        let mut statements = Vec::new();
        let mut start = 0;
        while start < self.tokens.len() {
            let end = self.statement_end(start);
            if start < end {
                statements.push(start..end);
            }
            start = end + 1;
        }
        statements
    }

    /// The error that ends the text early, if it does.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref().map(|(error, _)| error)
    }

    /// Whether what stands after the last `;` waits for more text.
    pub(super) fn is_complete(&self) -> bool {
        match &self.failure {
            Some((_, Unfinished::Open)) => false,
            Some((_, Unfinished::Broken)) => true,
            None => self.is_ended(&self.statements()),
        }
    }

    /// Whether a `;` follows the last of these statements.
    pub(super) fn is_ended(&self, statements: &[Range<usize>]) -> bool {
        statements.last().is_none_or(|last| last.end < self.tokens.len())
    }

    pub(super) fn tokens(&self, range: Range<usize>) -> &[TokenWithSpan] {
        &self.tokens[range]
    }

    /// The bytes from the first to the last token of a range that is not empty.
    pub(super) fn span(&self, range: &Range<usize>) -> Range<usize> {
        self.bytes[range.start].start..self.bytes[range.end - 1].end
    }

    /// The bytes of one token.
    pub(super) fn bytes(&self, index: usize) -> Range<usize> {
        self.bytes[index].clone()
    }

    /// The first token that ends behind a place in the text, if there is one.
    pub(super) fn index_at(&self, location: Location) -> Option<usize> {
        let index = self.tokens.partition_point(|token| token.span.end <= location);
        (index < self.tokens.len()).then_some(index)
    }

    /// The index of the `;` that ends the statement which starts at `start`, or the number of tokens.
    fn statement_end(&self, start: usize) -> usize {
        let semicolon = |i: &usize| self.tokens[*i].token == Token::SemiColon;
        let all = start..self.tokens.len();
        let first = all.clone().find(semicolon).unwrap_or(all.end);
        if !self.opens_statement_set(start..first) {
            return first;
        }
        // An END that follows a `;`, or that stands before one and closes no CASE, closes the set.
        let mut cases = 0_usize;
        for i in all.clone() {
            if is_word(&self.tokens[i].token, "CASE") {
                cases += 1;
            } else if is_word(&self.tokens[i].token, "END") {
                let after_statement = self.tokens[i - 1].token == Token::SemiColon;
                if cases == 0 || after_statement {
                    return (i..all.end).find(semicolon).unwrap_or(all.end);
                }
                cases -= 1;
            }
        }
        all.end
    }

    /// Whether a statement begins with `[EXPLAIN ..] [EXECUTE] STATEMENT SET` or `BEGIN STATEMENT SET`.
    fn opens_statement_set(&self, head: Range<usize>) -> bool {
        let words = self.tokens[head].iter().take(6).map(|token| &token.token);
        let mut previous_is_statement = false;
        for token in words {
            let known = ["EXPLAIN", "ANALYZE", "PLAN", "FOR", "EXECUTE", "BEGIN", "STATEMENT", "SET"];
            if !known.iter().any(|word| is_word(token, word)) {
                return false;
            }
            if previous_is_statement && is_word(token, "SET") {
                return true;
            }
            previous_is_statement = is_word(token, "STATEMENT");
        }
        false
    }
}

/// Whether a token is this word, in any case and without quotes.
pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// A token as error messages name it.
pub(super) fn describe(token: &Token) -> String {
    match token {
        Token::EOF => "the end of the statement".to_string(),
        Token::SemiColon => "\";\"".to_string(),
        Token::SingleQuotedString(_) | Token::Word(_) | Token::Number(..) => token.to_string(),
        other => format!("\"{other}\""),
    }
}

/// Whether a comment is Flink's hint that changes a table's options for one query.
fn is_options_hint(comment: &str) -> bool {
    comment.strip_prefix('+').is_some_and(|hint| hint.to_ascii_uppercase().contains("OPTIONS"))
}

fn options_hint(span: Range<usize>) -> Error {
    Error::statement("table options in a query, /*+ OPTIONS(..) */, are not supported")
        .hint("declare a second table: CREATE TABLE .. WITH ('scan.startup.mode' = '..') LIKE ..")
        .at(span)
}

fn lift(text: &str, error: &TokenizerError) -> (Error, Unfinished) {
    let at = Walk::new(text).to(error.location);
    let message = error.message.as_str();
    let open = |what: &str, close: &str| {
        let span = at..at + text[at..].chars().next().map_or(0, char::len_utf8);
        let error = Error::statement(format!("{what} is not closed")).at(span);
        (error.hint(format!("it starts here; close it with {close}")), Unfinished::Open)
    };
    if message.contains("multi-line comment") {
        // The tokenizer reports the end of the text; the comment's start is what helps.
        return (
            Error::statement("a comment is not closed").hint("close it with */").at(at..text.len()),
            Unfinished::Open,
        );
    }
    if message.starts_with("Unterminated") {
        return open("a string", "'");
    }
    if message.contains("before EOF") {
        let quote = if text[at..].starts_with('`') { "`" } else { "\"" };
        return open("a quoted name", quote);
    }
    let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
    (Error::statement(format!("this is no SQL: {message}")).at(at..end), Unfinished::Broken)
}

/// Turns places (line and column, ascending) into byte offsets in one pass.
pub(super) struct Walk<'a> {
    text: &'a str,
    at: usize,
    line: u64,
    column: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, column: 1 }
    }

    pub(super) fn to(&mut self, place: Location) -> usize {
        for c in self.text[self.at..].chars() {
            if (self.line, self.column) >= (place.line, place.column) {
                break;
            }
            self.at += c.len_utf8();
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.at
    }
}

/// Whether a text needs no further line: everything in it is ended by `;`, and no quote or comment is open. What is
/// wrong in a way that more text cannot repair is complete too, so that its error can be shown.
pub fn is_complete(text: &str) -> bool {
    Source::new(text).is_complete()
}

/// The bytes of the statements in a text, without the `;` that ends each. An error when the text ends in an open
/// quote or comment.
pub fn split(text: &str) -> Result<Vec<Range<usize>>> {
    let source = Source::new(text);
    match source.failure() {
        Some(error) => Err(error.clone()),
        None => Ok(source.statements().iter().map(|range| source.span(range)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_quotes_comments_and_statement_sets_end_nothing() {
        fn check(text: &str, want: &[&str]) {
            let got: Vec<&str> = split(text).unwrap().into_iter().map(|span| &text[span]).collect();
            assert_eq!(got, want, "{text}");
        }
        check("", &[]);
        check(" ;; -- nothing\n ;", &[]);
        check("SELECT 1; SELECT 2", &["SELECT 1", "SELECT 2"]);
        check("SELECT ';' /* ; */ -- ;\n ; SELECT `a;b`, \"c;d\"", &["SELECT ';'", "SELECT `a;b`, \"c;d\""]);
        check("SELECT 'ä;ö' ;\nSELECT 'é'", &["SELECT 'ä;ö'", "SELECT 'é'"]);
        check("EXECUTE STATEMENT SET BEGIN a; b; END; c", &["EXECUTE STATEMENT SET BEGIN a; b; END", "c"]);
        check(
            "EXECUTE STATEMENT SET BEGIN a CASE x END; END; c",
            &["EXECUTE STATEMENT SET BEGIN a CASE x END; END", "c"],
        );
        check("BEGIN STATEMENT SET; a; END; c;", &["BEGIN STATEMENT SET; a; END", "c"]);
        check("explain statement set begin a; end; c;", &["explain statement set begin a; end", "c"]);
    }

    #[test]
    fn a_text_is_complete_when_its_last_statement_is_ended() {
        fn check(text: &str, want: bool) {
            assert_eq!(is_complete(text), want, "{text}");
        }
        check("", true);
        check("-- a comment", true);
        check("SELECT 1", false);
        check("SELECT 1;", true);
        check("SELECT 1; -- done", true);
        check("SELECT 1; SELECT", false);
        check("SELECT ';", false);
        check("SELECT `a;", false);
        check("SELECT 1; /* open", false);
        check("EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1;", false);
        check("EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1; END;", true);
    }

    #[test]
    fn what_cannot_be_tokenized_says_where() {
        fn check(text: &str, want: Range<usize>) {
            assert_eq!(split(text).unwrap_err().span, Some(want), "{text}");
        }
        check("SELECT 'abc", 7..8);
        check("SELECT\n `abc", 8..9);
        check("SELECT é, 'abc", 11..12);
        check("SELECT * FROM t /*+ OPTIONS('a'='b') */", 16..39);
    }
}
