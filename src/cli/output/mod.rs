//! Rows to standard output: a table for people, JSON lines or CSV for programs.
//!
//! Rows are written as they come, and each batch goes out at once. Data may hold anything, so nothing that steers a
//! terminal reaches one: tables are always escaped, JSON has escapes of its own for all of it, and CSV, which has none,
//! is escaped on a terminal only.

mod csv;
mod json;
mod table;

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill::error::{Error, Result};
use tidemill::runtime::Rows;
use tidemill::sql::diagnostics::escape_lines;

use super::Stop;
use super::args::Form;

/// Where rows go, and how.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// How rows are written.
    pub form: Form,
    /// Whether standard output is a terminal.
    pub is_terminal: bool,
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
    /// The text of one batch, kept for its memory.
    text: Vec<u8>,
    rows: u64,
}

impl Output {
    /// A printer for rows that come as they come.
    pub fn printer(self, schema: &SchemaRef) -> Result<Printer> {
        let writer: Box<dyn RowWriter> = match self.form {
            Form::Table => Box::new(table::TableWriter::new(schema)),
            Form::Jsonl => Box::new(json::JsonWriter::new(schema)?),
            Form::Csv => Box::new(csv::CsvWriter::new(schema, self.is_terminal)),
        };
        Ok(Printer { writer, text: Vec::new(), rows: 0 })
    }

    /// Prints a finite result; answers the number of its rows.
    pub fn rows(self, rows: &Rows) -> Result<u64, Stop> {
        let mut printer = self.printer(&rows.schema)?;
        // One batch, so that a table's columns fit all rows.
        let batch = arrow::compute::concat_batches(&rows.schema, &rows.batches).map_err(Error::from)?;
        printer.batch(&batch)?;
        printer.end()
    }

    /// Prints a text that is a result: a plan, a statement.
    pub fn text(self, text: &str) -> Result<(), Stop> {
        let text = if self.is_terminal { escape_lines(text) } else { text.into() };
        write_out(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
    }
}

impl Printer {
    /// Prints the rows of a batch; they are out when this returns.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<(), Stop> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.rows += batch.num_rows() as u64;
        self.text.clear();
        self.writer.write(batch, &mut self.text)?;
        write_out(&self.text)
    }

    /// The end of the rows; answers how many there were.
    pub fn end(mut self) -> Result<u64, Stop> {
        self.text.clear();
        self.writer.end(&mut self.text)?;
        write_out(&self.text)?;
        Ok(self.rows)
    }
}

fn write_out(text: &[u8]) -> Result<(), Stop> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        // Whoever read has seen enough: `.. | head`.
        io::ErrorKind::BrokenPipe => Stop::OutputClosed,
        _ => Error::usage(format!("cannot write to standard output: {error}")).into(),
    })
}

/// How values are shown outside JSON: times as SQL writes them, with as many digits of a fraction as there are.
const VALUES: FormatOptions<'static> = FormatOptions::new()
    .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
    .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"))
    .with_datetime_format(Some("%Y-%m-%d %H:%M:%S%.f"));

/// The columns of a batch, for showing their values.
fn formatters<'a>(batch: &'a RecordBatch, options: &'a FormatOptions<'a>) -> Result<Vec<ArrayFormatter<'a>>> {
    batch.columns().iter().map(|column| Ok(ArrayFormatter::try_new(column.as_ref(), options)?)).collect()
}
