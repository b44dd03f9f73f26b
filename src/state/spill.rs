//! State outside of memory: batches in temporary files, until nobody wants them any more.
//!
//! What is written here is a job's own and lives no longer than its process: a restart goes by the log of checkpoints. So
//! files have no names (they are unlinked as they are made): nothing is left of them, however the process ends. Batches are
//! appended to *segments*; a segment gives its room back when none of its batches is wanted. All workers of a job share one
//! budget of bytes. What is read is checked against its checksum.

use std::fmt;
use std::fs::File;
use std::io::{Cursor, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::error::{Blame, Error, Result};

/// A segment takes batches until it has so many bytes, or a 128th of what all may have.
const SEGMENT_BYTES: u64 = 64 << 20;

/// What has fewer bytes, or less than an eighth of what is worked on as a whole, is not dealt into parts.
const DEALT_BYTES_MIN: usize = 256 << 10;

/// The room that a job has on disk.
pub struct SpillSpace {
    directory: PathBuf,
    limit: u64,
    used: AtomicU64,
}

impl SpillSpace {
    /// So many bytes in a directory.
    pub fn new(directory: &Path, limit: u64) -> Arc<Self> {
        Arc::new(Self { directory: directory.to_owned(), limit, used: AtomicU64::new(0) })
    }

    /// Whether files can be made there.
    pub fn check(&self) -> Result<()> {
        self.file().map(drop)
    }

    /// Bytes on disk.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A file without a name, which nobody else can have opened.
    fn file(&self) -> Result<File> {
        static FILES: AtomicU64 = AtomicU64::new(0);
        let made = loop {
            let number = FILES.fetch_add(1, Ordering::Relaxed);
            let path = self.directory.join(format!(".tidemill-{}-{number}", std::process::id()));
            match File::options().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                // What is there is not ours: a folder may be shared by processes of one number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                file => break file.and_then(|file| std::fs::remove_file(&path).map(|()| file)),
            }
        };
        made.map_err(|error| {
            let directory = self.directory.display();
            Error::usage(format!("state cannot be kept in the directory {directory}: {error}"))
                .hint("SET 'state.directory' = '..' to one that can be written to")
        })
    }

    fn take(&self, bytes: u64) -> Result<()> {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if used <= self.limit {
            return Ok(());
        }
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        let limit = self.limit.div_ceil(1 << 20);
        Err(Error::usage(format!("the job's state takes more than the {limit} MB of disk that it may have")).hint(
            "what was committed is kept: SET 'state.disk.limit' (or 'state.memory.limit') to more, and start the job \
             again; or let it have fewer groups, or shorter windows",
        ))
    }

    fn cannot_write(&self, error: &std::io::Error) -> Error {
        let directory = self.directory.display();
        let is_full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let message = format!("state cannot be written to the directory {directory}: {error}");
        Error::new(if is_full { Blame::Usage } else { Blame::Upstream }, message).hint(
            "what was committed is kept: make room, or SET 'state.directory' to another disk, and start the job again",
        )
    }
}

/// Where a worker puts batches.
pub struct Spill {
    space: Arc<SpillSpace>,
    /// Partials of at most so many bytes are worked on as a whole.
    whole_bytes: usize,
    segment: Mutex<Option<Arc<Segment>>>,
}

struct Segment {
    file: File,
    end: AtomicU64,
    space: Arc<SpillSpace>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.space.used.fetch_sub(*self.end.get_mut(), Ordering::Relaxed);
    }
}

impl Spill {
    /// For a worker; partials of at most so many bytes are worked on as a whole.
    pub fn new(space: &Arc<SpillSpace>, whole_bytes: usize) -> Arc<Self> {
        Arc::new(Self { space: Arc::clone(space), whole_bytes, segment: Mutex::new(None) })
    }

    /// Partials of at most so many bytes are worked on as a whole.
    pub fn whole_bytes(&self) -> usize {
        self.whole_bytes
    }

    /// What has fewer bytes is not dealt into parts.
    pub(super) fn dealt_bytes_min(&self) -> usize {
        DEALT_BYTES_MIN.min(self.whole_bytes / 8)
    }

    /// Writes a batch.
    pub fn write(&self, batch: &RecordBatch) -> Result<Spilled> {
        let mut bytes = Vec::new();
        let columns = batch.columns().iter().map(compacted).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let own = RecordBatch::try_new_with_options(batch.schema(), columns, &options)?;
        let mut writer = StreamWriter::try_new(&mut bytes, own.schema_ref())?;
        writer.write(&own)?;
        writer.finish()?;
        drop(writer);
        let length = bytes.len() as u64;
        let mut current = self.segment.lock().unwrap_or_else(PoisonError::into_inner);
        let full = SEGMENT_BYTES.min(self.space.limit / 128);
        let segment = match &*current {
            // One of which nobody wants anything gives its room back.
            Some(segment) if 1 < Arc::strong_count(segment) && segment.end.load(Ordering::Relaxed) < full => {
                Arc::clone(segment)
            }
            _ => {
                *current = None;
                let (file, space) = (self.space.file()?, Arc::clone(&self.space));
                let segment = Arc::new(Segment { file, end: AtomicU64::new(0), space });
                *current = Some(Arc::clone(&segment));
                segment
            }
        };
        self.space.take(length)?;
        // Only this worker appends, and under the lock.
        let at = segment.end.fetch_add(length, Ordering::Relaxed);
        segment.file.write_all_at(&bytes, at).map_err(|error| self.space.cannot_write(&error))?;
        let (sum, rows, schema) = (crc32fast::hash(&bytes), batch.num_rows(), batch.schema());
        Ok(Spilled(Arc::new(Place { segment, at, length: bytes.len(), sum, rows, schema })))
    }
}

/// A batch on disk. Its room is given back when nobody has it any more.
#[derive(Clone)]
pub struct Spilled(Arc<Place>);

struct Place {
    segment: Arc<Segment>,
    at: u64,
    length: usize,
    sum: u32,
    rows: usize,
    schema: SchemaRef,
}

impl Spilled {
    /// The batch.
    pub fn read(&self) -> Result<RecordBatch> {
        let Place { segment, at, length, sum, .. } = &*self.0;
        let damaged = |why: &str| {
            let directory = segment.space.directory.display();
            Error::upstream(format!("state that was written to the directory {directory} cannot be read: {why}")).hint(
                "what was committed is kept: look after the disk, or SET 'state.directory' to another one, and start \
                 the job again",
            )
        };
        let mut bytes = vec![0; *length];
        segment.file.read_exact_at(&mut bytes, *at).map_err(|error| damaged(&error.to_string()))?;
        if crc32fast::hash(&bytes) != *sum {
            return Err(damaged("its checksum does not fit"));
        }
        let mut batches = StreamReader::try_new(Cursor::new(bytes), None)?;
        Ok(batches.next().ok_or_else(|| damaged("it is not there"))??)
    }

    /// The number of its rows.
    pub fn num_rows(&self) -> usize {
        self.0.rows
    }

    /// Its bytes on disk, which are about those that it would have in memory.
    pub fn bytes(&self) -> usize {
        self.0.length
    }
}

impl fmt::Debug for Spilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows on disk", self.0.rows)
    }
}

/// A batch that is kept, wherever it is.
#[derive(Clone, Debug)]
pub enum Stored {
    /// In memory.
    Batch(RecordBatch),
    /// On disk.
    Spilled(Spilled),
}

impl Stored {
    /// The batch.
    pub fn load(self) -> Result<RecordBatch> {
        match self {
            Self::Batch(batch) => Ok(batch),
            Self::Spilled(spilled) => spilled.read(),
        }
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        match self {
            Self::Batch(batch) => batch.schema_ref(),
            Self::Spilled(spilled) => &spilled.0.schema,
        }
    }

    /// The number of its rows.
    pub fn num_rows(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.num_rows(),
            Self::Spilled(spilled) => spilled.num_rows(),
        }
    }

    /// Bytes in memory.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.get_array_memory_size(),
            Self::Spilled(_) => 0,
        }
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> usize {
        match self {
            Self::Batch(_) => 0,
            Self::Spilled(spilled) => spilled.bytes(),
        }
    }

    /// Puts it on disk; answers how many bytes of memory that frees.
    pub fn spill(&mut self, to: &Spill) -> Result<usize> {
        let Self::Batch(batch) = self else { return Ok(0) };
        let bytes = batch.get_array_memory_size();
        *self = Self::Spilled(to.write(batch)?);
        Ok(bytes)
    }
}

impl From<RecordBatch> for Stored {
    fn from(batch: RecordBatch) -> Self {
        Self::Batch(batch)
    }
}

/// Views share buffers with other rows, which would all be written.
pub(super) fn compacted(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    fn rows(from: i64, count: usize) -> RecordBatch {
        let names: StringViewArray =
            (from..).take(count).map(|n| Some(format!("a name that is rather long {n}"))).collect();
        let numbers: Int64Array = (from..).take(count).map(|n| (n % 7 != 0).then_some(n)).collect();
        let columns: [(&str, ArrayRef); 2] = [("name", Arc::new(names)), ("n", Arc::new(numbers))];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_room_is_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let space = SpillSpace::new(directory.path(), 1 << 20);
        space.check().unwrap();
        let spill = Spill::new(&space, 0);
        let batches: Vec<RecordBatch> = (0..20).map(|n| rows(n * 100, 300).slice(n as usize, 100)).collect();
        let mut spilled: Vec<Spilled> = batches.iter().map(|batch| spill.write(batch).unwrap()).collect();
        for (batch, spilled) in batches.iter().zip(&spilled) {
            assert_eq!(*batch, spilled.read().unwrap());
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "files have no names");
        let all = space.used();
        assert_eq!(all, spilled.iter().map(|s| s.bytes() as u64).sum::<u64>());
        spilled.truncate(3);
        assert!(space.used() < all / 2, "{} of {all}", space.used());
        // More and more is written, and nothing of it kept.
        (0..200).for_each(|n| drop(spill.write(&rows(n, 100)).unwrap()));
        drop((spilled, spill));
        assert_eq!(space.used(), 0);
    }

    #[test]
    fn what_cannot_be_kept_or_read_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let space = SpillSpace::new(directory.path(), 100_000);
        let spill = Spill::new(&space, 0);
        let kept = spill.write(&rows(0, 1_000)).unwrap();
        let error = spill.write(&rows(0, 1_000)).unwrap_err();
        assert!(error.message.contains("more than the 1 MB of disk") && error.blame == Blame::Usage, "{error:?}");
        kept.0.segment.file.write_all_at(b"?", kept.0.at + kept.0.length as u64 / 2).unwrap();
        let error = kept.read().unwrap_err();
        assert!(error.message.contains("its checksum does not fit"), "{error:?}");
        kept.0.segment.file.set_len(10).unwrap();
        assert!(kept.read().unwrap_err().message.contains("cannot be read"));
        let nowhere = SpillSpace::new(&directory.path().join("nowhere"), 1);
        assert!(nowhere.check().unwrap_err().hint.unwrap().contains("'state.directory'"));
        let full = space.cannot_write(&ErrorKind::StorageFull.into());
        assert!(full.blame == Blame::Usage && full.hint.unwrap().contains("make room"));
        drop(kept);
        assert!(rows(0, 1_000) == spill.write(&rows(0, 1_000)).unwrap().read().unwrap(), "there is room again");
    }
}
