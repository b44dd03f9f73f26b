//! Writing one file, a record per line.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::{Field, Schema};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{file_error, is_gzip, path_of};
use crate::catalog::{ColumnKind, Table};
use crate::connectors::{EncodedRows, Sink, SinkEncoder, SinkRows, SinkWriter};
use crate::error::{Error, Result};
use crate::formats::{Encoded, Format, RowEncoder};

const BUFFER_BYTES: usize = 256 << 10;

/// The name of the file when `'path'` is a directory, as it is in Flink.
const FILE_IN_DIRECTORY: &str = "part-0";

/// A file that a job writes. What the file held before is gone once the job begins.
pub struct FileSink {
    path: PathBuf,
    format: Format,
    schema: Arc<Schema>,
}

impl FileSink {
    /// Checks the options; the file is made when the writer is.
    pub fn open(table: &Table) -> Result<Self> {
        let options = &table.options;
        let mut path = path_of(options)?;
        if path.is_dir() || options.require("path")?.ends_with('/') {
            path.push(FILE_IN_DIRECTORY);
        }
        if let Some(column) = table.sink_columns().find(|c| c.kind != ColumnKind::Physical) {
            return Err(Error::statement(format!("the metadata column \"{}\" cannot be written", column.name))
                .hint("mark it VIRTUAL"));
        }
        let format = Format::from_options(options.require("format")?, options, "")?;
        let fields = table.sink_columns().map(|c| Field::new(&c.name, c.data_type.clone(), !c.not_null));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        format.encoder(&schema)?;
        Ok(Self { path, format, schema })
    }
}

impl Sink for FileSink {
    fn encoder(&self) -> Result<Box<dyn SinkEncoder>> {
        Ok(Box::new(Encoder { schema: Arc::clone(&self.schema), encoder: self.format.encoder(&self.schema)? }))
    }

    fn writer(&self) -> Result<Box<dyn SinkWriter>> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).map_err(|e| file_error("create", parent, &e))?;
        }
        let file = File::create(&self.path).map_err(|e| file_error("create", &self.path, &e))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let output = if is_gzip(&self.path) {
            Output::Gzip(GzEncoder::new(file, Compression::default()))
        } else {
            Output::Plain(file)
        };
        Ok(Box::new(Writer { path: self.path.clone(), output: Some(output) }))
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

enum Output {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl Output {
    fn inner(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(file) => file,
            Self::Gzip(file) => file,
        }
    }

    fn finish(self) -> io::Result<()> {
        let mut file = match self {
            Self::Plain(file) => file,
            Self::Gzip(file) => file.finish()?,
        };
        file.flush()?;
        file.get_ref().sync_all()
    }
}

struct Writer {
    path: PathBuf,
    /// `None` once it is closed.
    output: Option<Output>,
}

impl Writer {
    fn with(&mut self, doing: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let path: &Path = &self.path;
        let Some(output) = &mut self.output else {
            return Err(Error::bug(format!("\"{}\" is closed already", path.display())));
        };
        doing(output.inner()).map_err(|e| file_error("write", path, &e))
    }
}

impl SinkWriter for Writer {
    fn write(&mut self, rows: SinkRows) -> Result<()> {
        let SinkRows::Encoded(rows) = rows else {
            return Err(Error::bug("a file sink was given rows that are not encoded"));
        };
        self.with(|file| {
            for row in 0..rows.values.len() {
                file.write_all(rows.values.row(row).unwrap_or_default())?;
                file.write_all(b"\n")?;
            }
            Ok(())
        })
    }

    fn flush(&mut self) -> Result<()> {
        self.with(|file| file.flush())
    }

    fn close(&mut self) -> Result<()> {
        match self.output.take() {
            Some(output) => output.finish().map_err(|e| file_error("write", &self.path, &e)),
            None => Ok(()),
        }
    }
}
