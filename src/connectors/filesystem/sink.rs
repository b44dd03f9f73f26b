//! Writing one file, a record per line.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::{Field, Schema};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::transactions::FileTransactions;
use super::{file_error, is_gzip, output_of};
use crate::catalog::{ColumnKind, Table};
use crate::connectors::{Delivery, EncodedRows, Sink, SinkEncoder, SinkRows, SinkWriter, Transactions};
use crate::error::{Error, Result};
use crate::formats::{Encoded, Format, RowEncoder};

const BUFFER_BYTES: usize = 256 << 10;

/// A file that a job writes. What the file held before is gone once the job begins.
pub struct FileSink {
    path: PathBuf,
    is_exactly_once: bool,
    format: Format,
    schema: Arc<Schema>,
}

impl FileSink {
    /// Checks the options; the file is made when the writer is.
    pub fn open(table: &Table) -> Result<Self> {
        let options = &table.options;
        let path = output_of(options)?;
        if let Some(column) = table.sink_columns().find(|c| c.kind != ColumnKind::Physical) {
            return Err(Error::statement(format!("the metadata column \"{}\" cannot be written", column.name))
                .hint("mark it VIRTUAL"));
        }
        let format = Format::from_options(options.require("format")?, options, "")?;
        let fields = table.sink_columns().map(|c| Field::new(&c.name, c.data_type.clone(), !c.not_null));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        format.encoder(&schema)?;
        Ok(Self { path, is_exactly_once: delivery(table)? == Some(Delivery::ExactlyOnce), format, schema })
    }

    fn make_folder(&self) -> Result<()> {
        let Some(parent) = self.path.parent() else { return Ok(()) };
        fs::create_dir_all(parent).map_err(|e| file_error("create", parent, &e))
    }
}

/// What a table asks for.
pub fn delivery(table: &Table) -> Result<Option<Delivery>> {
    const KEY: &str = "sink.delivery-guarantee";
    if table.options.get(KEY).is_none() {
        return Ok(None);
    }
    Ok(Some(match table.options.choice(KEY, &["exactly-once", "none"])? {
        "exactly-once" => Delivery::ExactlyOnce,
        _ => Delivery::None,
    }))
}

impl Sink for FileSink {
    fn encoder(&self) -> Result<Box<dyn SinkEncoder>> {
        Ok(Box::new(Encoder { schema: Arc::clone(&self.schema), encoder: self.format.encoder(&self.schema)? }))
    }

    fn writer(&self) -> Result<Box<dyn SinkWriter>> {
        if self.is_exactly_once {
            return Err(Error::statement("files cannot be written exactly once in batch mode")
                .hint("leave 'sink.delivery-guarantee' out: a batch that is started again writes its files anew"));
        }
        self.make_folder()?;
        let file = File::create(&self.path).map_err(|e| file_error("create", &self.path, &e))?;
        let mut writer = Writer::new(self.path.clone(), file, None);
        // A file without rows is gzipped, too.
        writer.begin_member();
        Ok(Box::new(writer))
    }

    fn writer_in(&self, transactions: &Transactions) -> Result<Box<dyn SinkWriter>> {
        let Transactions::Files(files) = transactions else {
            return Err(Error::bug("a file in the transactions of a broker"));
        };
        self.make_folder()?;
        let file = files.open_file(&self.path)?;
        Ok(Box::new(Writer::new(self.path.clone(), file, Some(files.clone()))))
    }
}

struct Encoder {
    schema: Arc<Schema>,
    encoder: Box<dyn RowEncoder>,
}

impl SinkEncoder for Encoder {
    fn encode(&mut self, batch: &RecordBatch, kinds: Option<&Int8Array>) -> Result<SinkRows> {
        // The columns are the table's, whatever the query called them.
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())
            .map_err(|e| Error::bug(format!("the sink's rows do not fit its table: {e}")))?;
        let mut values = Encoded::default();
        match kinds {
            Some(kinds) => self.encoder.encode_changes(&batch, kinds, &mut values)?,
            None => self.encoder.encode(&batch, &mut values)?,
        }
        Ok(SinkRows::Encoded(EncodedRows { values, ..EncodedRows::default() }))
    }
}

/// A file as it is written. What is gzipped is a member, or several: each can be read when it has ended.
enum Output {
    File(BufWriter<File>),
    Member(GzEncoder<BufWriter<File>>),
    Closed,
}

struct Writer {
    path: PathBuf,
    output: Output,
    /// Those that the rows are in, if they are in any.
    transactions: Option<FileTransactions>,
}

impl Writer {
    fn new(path: PathBuf, file: File, transactions: Option<FileTransactions>) -> Self {
        Self { path, output: Output::File(BufWriter::with_capacity(BUFFER_BYTES, file)), transactions }
    }

    /// What is written to next is gzipped, if the file's name says so.
    fn begin_member(&mut self) {
        self.output = match std::mem::replace(&mut self.output, Output::Closed) {
            Output::File(file) if is_gzip(&self.path) => Output::Member(GzEncoder::new(file, Compression::default())),
            other => other,
        };
    }

    /// Puts everything into the file, and answers how long that is.
    fn end_member(&mut self) -> io::Result<u64> {
        let mut file = match std::mem::replace(&mut self.output, Output::Closed) {
            Output::File(file) => file,
            Output::Member(member) => member.finish()?,
            Output::Closed => return Err(io::Error::other("it is closed already")),
        };
        file.flush()?;
        file.get_ref().sync_all()?;
        let length = file.stream_position()?;
        self.output = Output::File(file);
        Ok(length)
    }

    fn with(&mut self, doing: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let done = match &mut self.output {
            Output::File(file) => doing(file),
            Output::Member(member) => doing(member),
            Output::Closed => Err(io::Error::other("it is closed already")),
        };
        done.map_err(|e| file_error("write", &self.path, &e))
    }
}

impl SinkWriter for Writer {
    fn write(&mut self, rows: SinkRows) -> Result<()> {
        let SinkRows::Encoded(rows) = rows else {
            return Err(Error::bug("a file sink was given rows that are not encoded"));
        };
        self.begin_member();
        self.with(|file| {
            for row in 0..rows.values.len() {
                file.write_all(rows.values.row(row).unwrap_or_default())?;
                file.write_all(b"\n")?;
            }
            Ok(())
        })
    }

    fn flush(&mut self) -> Result<()> {
        let Some(transactions) = &self.transactions else { return self.with(|file| file.flush()) };
        let transactions = transactions.clone();
        let length = self.end_member().map_err(|e| file_error("write", &self.path, &e))?;
        transactions.note_length(&self.path, length);
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if matches!(self.output, Output::Closed) {
            return Ok(());
        }
        let mut ended = self.end_member();
        if matches!(ended, Ok(0)) {
            self.begin_member();
            ended = self.end_member();
        }
        self.output = Output::Closed;
        ended.map(drop).map_err(|e| file_error("write", &self.path, &e))
    }
}
