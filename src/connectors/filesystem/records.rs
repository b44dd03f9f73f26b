//! A file as a sequence of records.
//!
//! A record is a line. In CSV a quoted field may hold line breaks, so a record goes on until its quotes are closed.
//! Blank lines are no records, except for raw text, where they are empty ones.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use memchr::{memchr, memchr_iter};

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
            let is_record = self.framing.keeps_blank || !is_blank(record.strip_suffix(b"\n").unwrap_or(record), 0);
            while record.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                record.pop();
            }
            if is_record {
                return Ok(true);
            }
        }
    }

    /// Passes over so many records, or as many as there are; answers how many there were.
    pub fn skip(&mut self, most: i64) -> io::Result<i64> {
        let mut skipped = 0;
        if self.framing.quote.is_some() {
            let mut record = Vec::new();
            while skipped < most && self.next(&mut record)? {
                skipped += 1;
            }
            return Ok(skipped);
        }
        // Of the line at hand: its bytes in the buffers before this one, and whether it is no record so far.
        let (mut before, mut blank) = (0, !self.framing.keeps_blank);
        while skipped < most {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(skipped + i64::from(0 < before && !blank));
            }
            let mut from = 0;
            for end in memchr_iter(b'\n', buffer) {
                let is_record = !(blank && is_blank(&buffer[from..end], before));
                skipped += i64::from(is_record);
                (from, before, blank) = (end + 1, 0, !self.framing.keeps_blank);
                if skipped == most {
                    break;
                }
            }
            if skipped < most {
                blank = blank && is_blank(&buffer[from..], before);
                before += buffer.len() - from;
                from = buffer.len();
            }
            self.input.consume(from);
        }
        Ok(skipped)
    }

    /// Appends a line with its end; `false` when there is none. What is too long is cut off.
    fn line(&mut self, record: &mut Vec<u8>) -> io::Result<bool> {
        let mut any = false;
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(any);
            }
            any = true;
            let end = memchr(b'\n', buffer);
            let len = end.map_or(buffer.len(), |end| end + 1);
            let room = (PAYLOAD_BYTES_MAX + 2).saturating_sub(record.len());
            record.extend_from_slice(&buffer[..len.min(room)]);
            self.input.consume(len);
            if end.is_some() {
                return Ok(true);
            }
        }
    }
}

/// Whether the rest of a line, behind so many blank bytes, leaves it no record.
fn is_blank(rest: &[u8], before: usize) -> bool {
    before + rest.len() <= PAYLOAD_BYTES_MAX && rest.iter().all(u8::is_ascii_whitespace)
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
    use std::io::Read;

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

        // Whatever is passed over, in buffers of whatever size, the next record is the same.
        for (capacity, passed) in (1..9).flat_map(|capacity| (0..=want.len()).map(move |n| (capacity, n))) {
            let input = BufReader::with_capacity(capacity, io::Cursor::new(text.as_bytes().to_vec()));
            let mut records = Records { input: Box::new(input), framing };
            let start = text.len() - text.trim_start_matches('\u{feff}').len();
            records.input.read_exact(&mut vec![0; start]).unwrap();
            let header = i64::from(framing.skips_header);
            assert_eq!(records.skip(header + passed as i64).unwrap(), header + passed as i64, "{format} {text:?}");
            assert_eq!(records.next(&mut record).unwrap(), passed < want.len(), "{format} {text:?}");
            assert_eq!(want.get(passed).copied().unwrap_or_default().as_bytes(), record, "{format} {text:?}");
        }
        let mut records = Records::new(Box::new(io::Cursor::new(text.as_bytes().to_vec())), framing).unwrap();
        assert_eq!(records.skip(i64::MAX).unwrap(), want.len() as i64, "{format} {text:?}");
    }

    #[test]
    fn records_are_lines() {
        check("json", &[], "{}\n{}\r\n\n  \n{}", &["{}", "{}", "{}"]);
        check("json", &[], "\u{feff}{}\n", &["{}"]);
        check("json", &[], "", &[]);
        check("raw", &[], "a\n\nb\n", &["a", "", "b"]);
        check("raw", &[], "\n\n \n", &["", "", " "]);
        check("json", &[], " \t\n   1\n\r\n2\n   ", &["   1", "2"]);
        check("json", &[], "\n\n1\n\n", &["1"]);
        check("csv", &[], "a,\"b\nc\"\nd,e\n", &["a,\"b\nc\"", "d,e"]);
        check("csv", &[], "a,\"b\"\"\nc\"\nd\n", &["a,\"b\"\"\nc\"", "d"]);
        check("csv", &[("csv.skip-header", "true")], "h1,h2\n1,2\n", &["1,2"]);
        check("csv", &[("csv.disable-quote-character", "true")], "a\"\nb\n", &["a\"", "b"]);
        check("csv", &[("csv.escape-character", "\\")], "a\\\"\nb\n", &["a\\\"", "b"]);
        check("csv", &[], "a,\"never closed\nb\n", &["a,\"never closed\nb"]);
    }
}
