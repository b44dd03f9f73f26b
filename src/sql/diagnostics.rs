//! Errors as people read them: the sentence, the line it is about with a caret below, what to do.
//!
//! ```text
//! error: expected a type, found ","
//!  --> line 2, column 9
//!   |
//! 2 |   price , qty INT
//!   |         ^
//!   = hint: write for example price STRING
//! ```
//!
//! Whatever is shown may come from a record or a file that someone else wrote, so characters that steer a terminal or
//! reorder text are shown as escapes.

use std::borrow::Cow;
use std::fmt::Write;

use crate::catalog::secrets::masked;
use crate::error::Error;

/// Characters of a line that are shown around a mistake.
const LINE_CHARS_MAX: usize = 120;

/// The error with the part of `text`, the submitted text, that it points at. Ends without a line break.
pub fn render(error: &Error, text: &str, color: bool) -> String {
    let paint = |code: &str, what: &str| if color { format!("\x1b[{code}m{what}\x1b[0m") } else { what.to_string() };
    let mut out = format!("{} {}", paint("1;31", "error:"), escape_lines(&error.message));
    if let Some(code) = error.code() {
        // Writing to a string cannot fail.
        let _ = write!(out, " {}", paint("2", &format!("[{code}]")));
    }
    if let Some(span) = &error.span {
        // What is shown may be kept in some other program's log.
        let text = &*masked(text);
        let start = floor(text, span.start);
        let end = floor(text, span.end).max(start);
        let excerpt = Excerpt::new(text, start, end);
        let number = excerpt.number.to_string();
        let margin = " ".repeat(number.len());
        let bar = paint("34", "|");
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "\n{margin}{} line {number}, column {}\n{margin} {bar}\n{} {bar} {}\n{margin} {bar} {}{}",
            paint("34", "-->"),
            excerpt.column,
            paint("34", &number),
            excerpt.line,
            " ".repeat(excerpt.indent),
            paint("1;31", &"^".repeat(excerpt.carets)),
        );
    }
    if let Some(hint) = &error.hint {
        let margin = if error.span.is_some() { "  " } else { "" };
        let _ = write!(out, "\n{margin}{} {}", paint("36", "= hint:"), escape_lines(hint));
    }
    out
}

/// The line and the column, both from 1, of a byte of a text.
pub fn place_of(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..floor(text, at)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The line of a span, ready to be shown.
struct Excerpt {
    /// The line's number, from 1.
    number: usize,
    /// The column of the span's first character, from 1.
    column: usize,
    /// The line, escaped, cut to a bearable length around the span.
    line: String,
    /// Columns before the first caret.
    indent: usize,
    /// Number of carets, at least one.
    carets: usize,
}

impl Excerpt {
    fn new(text: &str, start: usize, end: usize) -> Self {
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let (number, column) = place_of(text, start);
        // A window of the line that holds the span's start, a third of it before.
        let before: Vec<char> = text[line_start..start].chars().collect();
        let skipped = before.len().saturating_sub(LINE_CHARS_MAX / 3);
        let skipped = if column + 20 > LINE_CHARS_MAX { skipped } else { 0 };
        let mut line = if skipped > 0 { "..".to_string() } else { String::new() };
        line.push_str(&show(before[skipped..].iter().copied()));
        let indent = width(&line);
        let spanned = text[start..line_end.min(end.max(start))].trim_end();
        let rest: Vec<char> = text[start..line_end].trim_end().chars().collect();
        let room = LINE_CHARS_MAX.saturating_sub(before.len() - skipped);
        let marked = show(spanned.chars().take(room));
        line.push_str(&show(rest.iter().copied().take(room)));
        if rest.len() > room {
            line.push_str("..");
        }
        Self { number, column, carets: width(&marked).max(1), line, indent }
    }
}

/// Characters as they are shown in one line; a tab is one space, so that the caret below stands right.
fn show(chars: impl Iterator<Item = char>) -> String {
    let text: String = chars.map(|c| if c == '\t' { ' ' } else { c }).collect();
    escape(&text).into_owned()
}

/// The columns that a text takes on a terminal, near enough: wide characters take two, combining ones none.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x1ab0..=0x1aff | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
        0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// The largest character boundary that is not behind `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A text with every character that steers a terminal or that cannot be seen written as an escape: control characters
/// (line breaks too), bidirectional controls, zero-width characters.
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_where(text, is_hostile)
}

/// As [`escape`], for texts of several lines: line breaks stay.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_where(text, |c| c != '\n' && is_hostile(c))
}

fn escape_where(text: &str, hostile: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if !hostile(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x100 => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    Cow::Owned(out)
}

/// Whether a character steers a terminal, turns the direction of text, or cannot be seen.
pub(crate) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_the_mistake() {
        fn check(text: &str, at: &str, want: &str) {
            let start = text.find(at).unwrap();
            let error = Error::statement("wrong").hint("do it right").at(start..start + at.len());
            assert_eq!(render(&error, text, false), want);
        }
        check(
            "SELECT\n\tprice FRM t\n;",
            "FRM",
            "error: wrong\n --> line 2, column 8\n  |\n2 |  price FRM t\n  |        ^^^\n  = hint: do it right",
        );
        check(
            "SELECT 日本 x",
            "x",
            "error: wrong\n --> line 1, column 11\n  |\n1 | SELECT 日本 x\n  |             ^\n  = hint: do it right",
        );
        check(
            "a\u{1b}[2Jb",
            "b",
            "error: wrong\n --> line 1, column 6\n  |\n1 | a\\x1b[2Jb\n  |         ^\n  = hint: do it right",
        );
    }

    #[test]
    fn any_span_in_any_text_renders() {
        for text in ["", "\n", "é", "a\nb", "SELECT 'ä", &"x é".repeat(500)] {
            for start in 0..text.len() + 2 {
                for end in [start, start + 1, text.len() + 5] {
                    let error = Error::statement("wrong").at(start..end);
                    let shown = render(&error, text, true);
                    assert!(shown.lines().all(|line| line.chars().count() < 200), "{shown}");
                }
            }
        }
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        fn check(text: &str, want: &str) {
            assert_eq!(escape(text), want);
        }
        check("plain ä 日本 🙂", "plain ä 日本 🙂");
        check("\x1b[31m\n\r\t\0\x7f", "\\x1b[31m\\n\\r\\t\\x00\\x7f");
        check("\u{9b}31m", "\\x9b31m");
        check("a\u{202e}b\u{200b}c\u{feff}\u{2066}", "a\\u{202e}b\\u{200b}c\\u{feff}\\u{2066}");
        assert!(matches!(escape("plain"), Cow::Borrowed(_)));
    }
}
