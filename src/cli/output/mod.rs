//! Rows to standard output: tables for people, JSON, CSV or TSV for programs.
//!
//! Rows are written as they come, and each batch goes out at once. Data may hold anything, so nothing that steers a
//! terminal reaches one: what is for people is always escaped, JSON has escapes of its own for all of it, and CSV and TSV,
//! which have none, are escaped on a terminal only.

mod csv;
mod json;
mod markdown;
pub mod pager;
mod table;
mod tsv;
mod vertical;

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill::error::{Error, Result};
use tidemill::runtime::Rows;
use tidemill::sql::diagnostics::{escape, escape_lines, width};

use super::Stop;
use super::args::Form;

/// Where rows go, and how.
#[derive(Clone, Debug)]
pub struct Output {
    /// How rows are written.
    pub form: Form,
    /// Rows that are wider than the screen have a line per value in the place of columns.
    pub fits_screen: bool,
    /// Whether standard output is a terminal.
    pub is_terminal: bool,
    /// A file that takes rows in the place of standard output.
    pub file: Option<Arc<File>>,
}

/// Turns batches of one schema into text.
trait RowWriter {
    /// Appends the rows of a batch, and before the first one whatever a result begins with.
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()>;

    /// The end: what a result without rows is shown as.
    fn end(&mut self, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
}

/// Prints the rows of one query.
pub struct Printer {
    writer: Box<dyn RowWriter>,
    output: Output,
    schema: SchemaRef,
    /// The text of one batch, kept for its memory.
    text: Vec<u8>,
    rows: u64,
}

impl Output {
    /// Whether what is written is looked at on a terminal.
    pub fn is_for_the_eyes(&self) -> bool {
        self.is_terminal && self.file.is_none()
    }

    /// A printer for rows that come as they come.
    pub fn printer(&self, schema: &SchemaRef) -> Result<Printer> {
        let (writer, schema) = (self.writer(schema)?, Arc::clone(schema));
        Ok(Printer { writer, output: self.clone(), schema, text: Vec::new(), rows: 0 })
    }

    /// What these lines of columns are to be written as instead, if they are wider than the screen.
    fn instead_of(&self, text: &[u8]) -> Option<Self> {
        let may_be_wide = self.fits_screen && self.form == Form::Table && self.is_for_the_eyes();
        let (_, columns) = pager::screen().filter(|_| may_be_wide)?;
        let is_wide = String::from_utf8_lossy(text).lines().any(|line| columns < width(line));
        is_wide.then(|| Self { form: Form::Vertical, ..self.clone() })
    }

    fn writer(&self, schema: &SchemaRef) -> Result<Box<dyn RowWriter>> {
        let is_escaped = self.is_for_the_eyes();
        Ok(match self.form {
            Form::Table => Box::new(table::TableWriter::new(schema)),
            Form::Vertical => Box::new(vertical::VerticalWriter::new(schema)),
            Form::Jsonl => Box::new(json::JsonWriter::new(schema, false)?),
            Form::Json => Box::new(json::JsonWriter::new(schema, true)?),
            Form::Csv => Box::new(csv::CsvWriter::new(schema, is_escaped)),
            Form::Tsv => Box::new(tsv::TsvWriter::new(schema, is_escaped)),
            Form::Markdown => Box::new(markdown::MarkdownWriter::new(schema)),
        })
    }

    /// A finite result as text.
    pub fn rows(&self, rows: &Rows) -> Result<Vec<u8>> {
        let mut writer = self.writer(&rows.schema)?;
        // One batch, so that a table's columns fit all rows.
        let batch = arrow::compute::concat_batches(&rows.schema, &rows.batches)?;
        let mut text = Vec::new();
        if batch.num_rows() > 0 {
            writer.write(&batch, &mut text)?;
        }
        writer.end(&mut text)?;
        match self.instead_of(&text).filter(|_| batch.num_rows() > 0) {
            Some(output) => output.rows(rows),
            None => Ok(text),
        }
    }

    /// A text that is a result (a plan, a statement), ready to be written.
    pub fn text(&self, text: &str) -> Vec<u8> {
        // A statement may be indented by tabs, and whoever reads it from a pipe may want to execute it.
        let kept = if self.is_for_the_eyes() { None } else { Some('\t') };
        let parts: Vec<_> = text.split(|c| Some(c) == kept).map(escape_lines).collect();
        format!("{}\n", parts.join("\t").trim_end_matches('\n')).into_bytes()
    }

    /// Writes what has been made ready; it is out when this returns.
    pub fn write(&self, text: &[u8]) -> Result<(), Stop> {
        let (written, what) = match &self.file {
            Some(file) => (file.as_ref().write_all(text), "the file"),
            None => {
                let mut stdout = io::stdout().lock();
                (stdout.write_all(text).and_then(|()| stdout.flush()), "standard output")
            }
        };
        written.map_err(|error| match error.kind() {
            // Whoever read has seen enough: `.. | head`.
            io::ErrorKind::BrokenPipe => Stop::OutputClosed,
            _ => Error::usage(format!("cannot write to {what}: {error}")).into(),
        })
    }
}

impl Printer {
    /// Prints the rows of a batch; they are out when this returns.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<(), Stop> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.text.clear();
        self.writer.write(batch, &mut self.text)?;
        // The first rows say how all are written.
        if let Some(output) = self.output.instead_of(&self.text).filter(|_| self.rows == 0) {
            self.writer = output.writer(&self.schema)?;
            self.text.clear();
            self.writer.write(batch, &mut self.text)?;
        }
        self.rows += batch.num_rows() as u64;
        self.output.write(&self.text)
    }

    /// The end of the rows; answers how many there were.
    pub fn end(mut self) -> Result<u64, Stop> {
        self.text.clear();
        self.writer.end(&mut self.text)?;
        self.output.write(&self.text)?;
        Ok(self.rows)
    }
}

/// How values are shown outside JSON: times as SQL writes them, with as many digits of a fraction as there are.
const VALUES: FormatOptions<'static> = FormatOptions::new()
    .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
    .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"))
    .with_datetime_format(Some("%Y-%m-%d %H:%M:%S%.f"));

/// The values of a batch as people see them, row by row, escaped.
pub fn cells(batch: &RecordBatch) -> Result<Vec<String>> {
    let formatters = formatters(batch, &table::OPTIONS)?;
    let mut cells = Vec::with_capacity(batch.num_rows() * formatters.len());
    for row in 0..batch.num_rows() {
        for formatter in &formatters {
            cells.push(escape(&formatter.value(row).try_to_string()?).into_owned());
        }
    }
    Ok(cells)
}

/// The columns of a batch, for showing their values.
fn formatters<'a>(batch: &'a RecordBatch, options: &'a FormatOptions<'a>) -> Result<Vec<ArrayFormatter<'a>>> {
    batch.columns().iter().map(|column| Ok(ArrayFormatter::try_new(column.as_ref(), options)?)).collect()
}
