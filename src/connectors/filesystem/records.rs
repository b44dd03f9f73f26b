//! A file as a sequence of records.
//!
//! A record is a line. In CSV a quoted field may hold line breaks, so a record goes on until its quotes are closed.
//! Blank lines are no records, except for raw text, where they are empty ones.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::is_gzip;
use crate::catalog::options::Options;
use crate::limits::PAYLOAD_BYTES_MAX;

const BUFFER_BYTES: usize = 256 << 10;

/// How records are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// The character that opens and closes fields in which a line break is data.
    quote: Option<u8>,
    /// The character that takes the meaning from a quote.
    escape: Option<u8>,
    /// Blank lines are records.
    keeps_blank: bool,
    /// The first record is a header and is passed over.
    skips_header: bool,
}

impl Framing {
    /// The framing of a format with its options.
    pub fn of(format: &str, options: &Options) -> crate::error::Result<Self> {
        let character = |key: &str| options.get(key).and_then(|v| v.bytes().next());
        let is_csv = format == "csv";
        let quoted = is_csv && !options.bool("csv.disable-quote-character", false)?;
        Ok(Self {
            quote: quoted.then(|| character("csv.quote-character").unwrap_or(b'"')),
            escape: if quoted { character("csv.escape-character") } else { None },
            keeps_blank: format == "raw",
            skips_header: is_csv && options.bool("csv.skip-header", false)?,
        })
    }
}

/// Reads the records of one file.
pub struct Records {
    input: Box<dyn BufRead + Send>,
    framing: Framing,
}

impl Records {
    /// Opens a file at its first record.
    pub fn open(path: &Path, framing: Framing) -> io::Result<Self> {
        let file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
        let input: Box<dyn BufRead + Send> = if is_gzip(path) {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        Self::new(input, framing)
    }

    fn new(mut input: Box<dyn BufRead + Send>, framing: Framing) -> io::Result<Self> {
        // A byte order mark is no part of the first record.
        if input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            input.consume(3);
        }
        let mut records = Self { input, framing };
        if framing.skips_header {
            records.next(&mut Vec::new())?;
        }
        Ok(records)
    }

    /// Reads the next record into `record`; `false` at the end of the file. A record longer than the limit for
    /// payloads is cut off beyond it, which its reader notices.
    pub fn next(&mut self, record: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            record.clear();
            if !self.line(record)? {
                return Ok(false);
            }
            if let Some(quote) = self.framing.quote {
                let mut quotes = Quotes { quote, escape: self.framing.escape, is_open: false, escaped: false };
                let mut seen = 0;
                loop {
                    quotes.read(&record[seen..]);
                    seen = record.len();
                    if !quotes.is_open || record.len() > PAYLOAD_BYTES_MAX || !self.line(record)? {
                        break;
                    }
                }
            }
            while record.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                record.pop();
            }
            if self.framing.keeps_blank || !record.iter().all(u8::is_ascii_whitespace) {
                return Ok(true);
            }
        }
    }

    /// Appends a line with its end; `false` when there is none.
    fn line(&mut self, record: &mut Vec<u8>) -> io::Result<bool> {
        let room = (PAYLOAD_BYTES_MAX + 2).saturating_sub(record.len()).max(1);
        let count = self.input.by_ref().take(room as u64).read_until(b'\n', record)?;
        if count == room && record.last() != Some(&b'\n') {
            // Too long already: the rest of the line is passed over without keeping it.
            self.pass_line()?;
        }
        Ok(count > 0)
    }

    fn pass_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            match buffer.iter().position(|b| *b == b'\n') {
                Some(at) => {
                    self.input.consume(at + 1);
                    return Ok(());
                }
                None => {
                    let len = buffer.len();
                    self.input.consume(len);
                }
            }
        }
    }
}

/// Whether a CSV record is inside quotes. A doubled quote closes and opens again, which comes to the same.
struct Quotes {
    quote: u8,
    escape: Option<u8>,
    is_open: bool,
    escaped: bool,
}

impl Quotes {
    fn read(&mut self, text: &[u8]) {
        for &byte in text {
            if std::mem::take(&mut self.escaped) {
                continue;
            }
            if Some(byte) == self.escape {
                self.escaped = true;
            } else if byte == self.quote {
                self.is_open = !self.is_open;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &str, pairs: &[(&str, &str)], text: &str, want: &[&str]) {
        let options = Options::from_pairs(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let framing = Framing::of(format, &options).unwrap();
        let mut records = Records::new(Box::new(io::Cursor::new(text.as_bytes().to_vec())), framing).unwrap();
        let (mut got, mut record) = (Vec::new(), Vec::new());
        while records.next(&mut record).unwrap() {
            got.push(String::from_utf8(record.clone()).unwrap());
        }
        assert_eq!(got, want, "{format} {text:?}");
    }

    #[test]
    fn records_are_lines() {
        check("json", &[], "{}\n{}\r\n\n  \n{}", &["{}", "{}", "{}"]);
        check("json", &[], "\u{feff}{}\n", &["{}"]);
        check("json", &[], "", &[]);
        check("raw", &[], "a\n\nb\n", &["a", "", "b"]);
        check("csv", &[], "a,\"b\nc\"\nd,e\n", &["a,\"b\nc\"", "d,e"]);
        check("csv", &[], "a,\"b\"\"\nc\"\nd\n", &["a,\"b\"\"\nc\"", "d"]);
        check("csv", &[("csv.skip-header", "true")], "h1,h2\n1,2\n", &["1,2"]);
        check("csv", &[("csv.disable-quote-character", "true")], "a\"\nb\n", &["a\"", "b"]);
        check("csv", &[("csv.escape-character", "\\")], "a\\\"\nb\n", &["a\\\"", "b"]);
        check("csv", &[], "a,\"never closed\nb\n", &["a,\"never closed\nb"]);
    }
}
