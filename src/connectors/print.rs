//! A sink that shows rows on the terminal: one JSON object per line, with the kind of change before it where the rows
//! are a changelog: `+U {"k":"a","n":2}`.
//!
//! JSON escapes control characters, but not those that only mean something to terminals and to eyes: DEL, the C1
//! range, and the marks that turn the direction of text. They are escaped here, so that no data can play with the
//! screen.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::{Field, Schema};

use super::{EncodedRows, Sink, SinkEncoder, SinkRows, SinkWriter};
use crate::catalog::Table;
use crate::catalog::options::Options;
use crate::change::RowKind;
use crate::error::{Error, Result};
use crate::formats::{Encoded, Format, RowEncoder};
use crate::sql::diagnostics::is_hostile;

/// `'connector' = 'print'`.
pub struct PrintSink {
    table: Table,
    to_stderr: bool,
}

impl PrintSink {
    /// Reads `'print-identifier'` and `'standard-error'`.
    pub fn open(table: &Table) -> Result<Self> {
        let sink = Self { table: table.clone(), to_stderr: table.options.bool("standard-error", false)? };
        sink.encoder()?;
        Ok(sink)
    }
}

impl Sink for PrintSink {
    fn encoder(&self) -> Result<Box<dyn SinkEncoder>> {
        let fields = self.table.sink_columns().map(|c| Field::new(&c.name, c.data_type.clone(), !c.not_null));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let encoder = Format::from_options("json", &Options::default(), "")?.encoder(&schema)?;
        Ok(Box::new(JsonLines { schema, encoder }))
    }

    fn writer(&self) -> Result<Box<dyn SinkWriter>> {
        let identifier = self.table.options.get("print-identifier").unwrap_or_default();
        let prefix = if identifier.is_empty() { String::new() } else { format!("{identifier}> ") };
        let to_stderr = self.to_stderr;
        Ok(Box::new(Writer { prefix: escaped(prefix.as_bytes()), to_stderr, lines: Vec::new() }))
    }
}

struct JsonLines {
    schema: Arc<Schema>,
    encoder: Box<dyn RowEncoder>,
}

impl SinkEncoder for JsonLines {
    fn encode(&mut self, batch: &RecordBatch, kinds: Option<&Int8Array>) -> Result<SinkRows> {
        // The columns are the table's, whatever the query called them.
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())
            .map_err(|e| Error::bug(format!("the sink's rows do not fit its table: {e}")))?;
        let mut values = Encoded::default();
        self.encoder.encode(&batch, &mut values)?;
        if let Some(kinds) = kinds {
            values = with_kinds(&values, kinds);
        }
        Ok(SinkRows::Encoded(EncodedRows { values, ..EncodedRows::default() }))
    }
}

/// Rows with their kinds before them.
fn with_kinds(rows: &Encoded, kinds: &Int8Array) -> Encoded {
    let mut out = Encoded::default();
    for (row, kind) in kinds.values().iter().enumerate() {
        out.bytes.extend_from_slice(RowKind::of(*kind).sign().as_bytes());
        out.bytes.push(b' ');
        out.bytes.extend_from_slice(rows.row(row).unwrap_or(b"null"));
        out.end_row();
    }
    out
}

struct Writer {
    prefix: Vec<u8>,
    to_stderr: bool,
    /// Lines of one write, kept for its memory.
    lines: Vec<u8>,
}

impl SinkWriter for Writer {
    fn write(&mut self, rows: SinkRows) -> Result<()> {
        let SinkRows::Encoded(rows) = rows else {
            return Err(Error::bug("a print sink was given rows that are not encoded"));
        };
        self.lines.clear();
        for row in 0..rows.values.len() {
            self.lines.extend_from_slice(&self.prefix);
            escape_into(rows.values.row(row).unwrap_or(b"null"), &mut self.lines);
            self.lines.push(b'\n');
        }
        // Under one lock, so that lines of other threads cannot come in between.
        let written = if self.to_stderr {
            io::stderr().lock().write_all(&self.lines)
        } else {
            io::stdout().lock().write_all(&self.lines)
        };
        written.map_err(|e| output_error(&e))
    }

    fn flush(&mut self) -> Result<()> {
        if self.to_stderr { Ok(()) } else { io::stdout().lock().flush().map_err(|e| output_error(&e)) }
    }
}

fn output_error(error: &io::Error) -> Error {
    match error.kind() {
        // Whoever read our output has seen enough: `.. | head`.
        io::ErrorKind::BrokenPipe => Error::new(crate::error::Blame::Interrupted, "the output was closed"),
        _ => Error::usage(format!("cannot write to the output: {error}")),
    }
}

fn escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    escape_into(text, &mut out);
    out
}

/// Appends JSON text with what terminals and eyes may misread as `\uXXXX`.
fn escape_into(text: &[u8], out: &mut Vec<u8>) {
    if text.iter().all(|b| (0x20..0x7f).contains(b)) {
        out.extend_from_slice(text);
        return;
    }
    for c in String::from_utf8_lossy(text).chars() {
        if is_hostile(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_obey() {
        for (text, want) in [
            (r#"{"a":"x"}"#, r#"{"a":"x"}"#),
            ("{\"a\":\"ü€\"}", "{\"a\":\"ü€\"}"),
            ("a\u{7f}b\u{9b}c", "a\\u007fb\\u009bc"),
            ("a\u{202e}b\u{feff}", "a\\u202eb\\ufeff"),
            ("\u{1b}[2J", "\\u001b[2J"),
            ("a\u{ad}b\u{e0041}", "a\\u00adb\\udb40\\udc41"),
        ] {
            assert_eq!(String::from_utf8(escaped(text.as_bytes())).unwrap(), want, "{text:?}");
        }
    }

    #[test]
    fn changes_have_their_kind_before_them() {
        let mut rows = Encoded::default();
        for text in ["{\"n\":1}", "{\"n\":1}", "{\"n\":2}", "{}"] {
            rows.bytes.extend_from_slice(text.as_bytes());
            rows.end_row();
        }
        let out = with_kinds(&rows, &vec![0, 1, 2, 3].into());
        let lines: Vec<_> = (0..4).map(|i| std::str::from_utf8(out.row(i).unwrap()).unwrap()).collect();
        assert_eq!(lines, ["+I {\"n\":1}", "-U {\"n\":1}", "+U {\"n\":2}", "-D {}"]);
    }
}
