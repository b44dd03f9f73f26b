//! A text that is being written, cut into pieces that know their bytes: for colours, and for completion.
//!
//! `SELECT 'ab` is a keyword and a text that is still open. Nothing fails here: what does not tokenize is one last piece.

use std::ops::Range;

use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

use super::dialect::FlinkDialect;
use super::source::Walk;

/// What a piece of a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A word of the language.
    Keyword,
    /// A name without quotes.
    Name,
    /// A name in backticks or double quotes.
    Quoted,
    /// A text in single quotes.
    Text,
    /// A number.
    Number,
    /// A comment.
    Comment,
    /// Anything else: operators, commas, parentheses.
    Sign,
    /// A quote or a comment that is still open, from its first character on.
    Open,
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub span: Range<usize>,
}

/// Words of the language that people type.
#[rustfmt::skip]
pub const KEYWORDS: &[&str] = &[
    "ALL", "ANALYZE", "AND", "ARRAY", "AS", "ASC", "BEGIN", "BEGINNING", "BETWEEN", "BIGINT", "BOOLEAN", "BY", "BYTES",
    "CASE", "CAST", "CHANGES", "CLOSE", "COMMENT", "CREATE", "CROSS", "CUBE", "CUMULATE", "DATE", "DAY", "DECIMAL", "DESC",
    "DESCRIBE", "DESCRIPTOR", "DISTINCT", "DOUBLE", "DROP", "ELSE", "EMIT", "END", "ENFORCED", "ESCAPE", "EVERY",
    "EXECUTE", "EXISTS", "EXPLAIN", "FALSE", "FILTER", "FINAL", "FLOAT", "FOR", "FROM", "FULL", "FUNCTIONS", "GROUP",
    "GROUPING", "HAVING", "HOP", "HOUR", "IF", "IN", "INNER", "INSERT", "INT", "INTERVAL", "INTO", "IS", "JOB", "JOBS",
    "JOIN", "KEY", "LEFT", "LIKE", "LIMIT", "MAP", "METADATA", "MINUTE", "MONTH", "NOT", "NULL", "OFFSET", "ON", "OR",
    "ORDER", "OUTER", "OVER", "PARTITION", "PLAN", "PRIMARY", "PRINT", "REPLACE", "RESET", "RIGHT", "ROLLUP", "ROW",
    "SECOND", "SELECT", "SESSION", "SET", "SETS", "SHOW", "SMALLINT", "STATEMENT", "STOP", "STRING", "TABLE", "TABLES",
    "TEMPORARY", "THEN", "TIME", "TIMESTAMP", "TIMESTAMP_LTZ", "TINYINT", "TOPIC", "TOPICS", "TRUE", "TRY_CAST", "TUMBLE",
    "UNION", "UPDATE", "VALUES", "VARCHAR", "VIEW", "VIEWS", "VIRTUAL", "WATERMARK", "WHEN", "WHERE", "WINDOW", "WITH",
    "YEAR",
];

/// Whether a word is one of the language, in any case.
pub fn is_keyword(word: &str) -> bool {
    KEYWORDS.binary_search(&word.to_ascii_uppercase().as_str()).is_ok()
}

/// The pieces of a text, without the spaces between.
pub fn pieces(text: &str) -> Vec<Piece> {
    let mut tokens = Vec::new();
    let result = Tokenizer::new(&FlinkDialect, text).tokenize_with_location_into_buf(&mut tokens);
    let mut walk = Walk::new(text);
    let mut pieces = Vec::new();
    let mut end = 0;
    for token in tokens {
        let start = walk.to(token.span.start);
        end = walk.to(token.span.end);
        let kind = match &token.token {
            Token::EOF => continue,
            Token::Whitespace(Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_)) => Kind::Comment,
            Token::Whitespace(_) => continue,
            Token::Word(word) if word.quote_style.is_some() => Kind::Quoted,
            Token::Word(word) if is_keyword(&word.value) => Kind::Keyword,
            Token::Word(_) => Kind::Name,
            Token::SingleQuotedString(_) => Kind::Text,
            Token::Number(..) => Kind::Number,
            _ => Kind::Sign,
        };
        pieces.push(Piece { kind, span: start..end });
    }
    if result.is_err() {
        let rest = &text[end..];
        let start = end + (rest.len() - rest.trim_start().len());
        if start < text.len() {
            pieces.push(Piece { kind: Kind::Open, span: start..text.len() });
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_in_order() {
        assert!(KEYWORDS.is_sorted());
    }

    #[test]
    fn every_piece_knows_its_bytes() {
        fn check(text: &str, want: &[(Kind, &str)]) {
            let got: Vec<_> = pieces(text).into_iter().map(|piece| (piece.kind, &text[piece.span])).collect();
            assert_eq!(got, want, "{text}");
        }
        check(
            "SELECT ä, `b c` FROM t -- x\nWHERE n >= 1.5",
            &[
                (Kind::Keyword, "SELECT"),
                (Kind::Name, "ä"),
                (Kind::Sign, ","),
                (Kind::Quoted, "`b c`"),
                (Kind::Keyword, "FROM"),
                (Kind::Name, "t"),
                (Kind::Comment, "-- x\n"),
                (Kind::Keyword, "WHERE"),
                (Kind::Name, "n"),
                (Kind::Sign, ">="),
                (Kind::Number, "1.5"),
            ],
        );
        check("SET 'a b", &[(Kind::Keyword, "SET"), (Kind::Open, "'a b")]);
        check("x /* y", &[(Kind::Name, "x"), (Kind::Open, "/* y")]);
        check("'a' 'b''c'", &[(Kind::Text, "'a'"), (Kind::Text, "'b''c'")]);
        check("", &[]);
    }

    #[test]
    fn any_text_has_pieces_in_order() {
        for text in ["'", "`ä", "a\u{1b}b", "/*/*", "--", "\u{202e}", "1e", "$$", "SELECT \"日本\" = '日本"] {
            let mut end = 0;
            for piece in pieces(text) {
                assert!(end <= piece.span.start && piece.span.start < piece.span.end, "{text}");
                assert!(text.get(piece.span.clone()).is_some(), "{text}");
                end = piece.span.end;
            }
        }
    }
}
