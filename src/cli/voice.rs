//! What the program says to people: on standard error, which holds no data.
//!
//! Whatever is said may quote records, so everything is escaped. That standard error is closed is no reason to fail.

use tidemill::error::Error;
use tidemill::runtime::{Job, JobInfo};
use tidemill::sql::diagnostics::{escape_lines, place_of, render};
pub use tidemill::words::{count, grouped};

use super::screen;

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// Say only what is wrong.
    pub is_quiet: bool,
    /// Use colours.
    pub color: bool,
    /// Errors are JSON objects, one per line.
    pub is_json: bool,
}

impl Voice {
    /// A line or several for people, unless they want it quiet.
    pub fn say(self, text: &str) {
        if !self.is_quiet {
            line(&escape_lines(text));
        }
    }

    /// Something that may surprise.
    pub fn note(self, text: &str) {
        if !self.is_quiet {
            line(&format!("{} {}", self.paint("36", "note:"), escape_lines(text)));
        }
    }

    /// An error, with the part of `text` that it points at. `place` is what the text is called.
    pub fn error(self, place: Option<&str>, error: &Error, text: &str) {
        if self.is_json {
            return line(&json(place, error, text));
        }
        let place = place.map_or(String::new(), |place| format!("{}: ", escape_lines(place)));
        line(&format!("{place}{}", render(error, text, self.color)));
    }

    /// Rows after signs: what is missing (`-`) and what is not expected (`+`).
    pub fn difference(self, lines: &[String]) {
        for text in lines {
            let code = match text.chars().next() {
                Some('-') => "31",
                Some('+') => "32",
                _ => "0",
            };
            line(&format!("    {}", self.paint(code, &escape_lines(text))));
        }
    }

    /// How a job ended, in one line.
    pub fn ending(self, job: &Job) {
        self.say(&ending(&job.info()));
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// An error for programs. serde_json writes control characters of ASCII as escapes; the rest is made safe before.
fn json(place: Option<&str>, error: &Error, text: &str) -> String {
    let at = error.span.as_ref().map(|span| place_of(text, span.start));
    let fields = serde_json::json!({
        "place": place.map(|place| escape_lines(place)),
        "code": error.code(),
        "message": escape_lines(&error.message),
        "hint": error.hint.as_deref().map(escape_lines),
        "line": at.map(|(line, _)| line),
        "column": at.map(|(_, column)| column),
        "exit_code": error.exit_code(),
    });
    serde_json::json!({ "error": fields }).to_string()
}

/// Writes a line that is safe to show.
fn line(text: &str) {
    screen::say(text);
}

/// `orders: finished: 1,000 records in, 10 rows out, 2 late, 0 errors, 1.5 s`.
fn ending(info: &JobInfo) -> String {
    let mut parts = vec![count(info.records_in, "record") + " in", count(info.rows_out, "row") + " out"];
    parts.push(format!("{} late", grouped(info.late)));
    parts.push(count(info.errors, "error"));
    if info.dead_lettered > 0 {
        parts.push(format!("{} dead-lettered", grouped(info.dead_lettered)));
    }
    if info.lost_to_idleness > 0 {
        parts.push(format!("{} lost to idleness", grouped(info.lost_to_idleness)));
    }
    parts.push(format!("{}.{} s", info.elapsed_ms / 1_000, info.elapsed_ms % 1_000 / 100));
    format!("{}: {}: {}", info.name, info.status, parts.join(", "))
}
