//! The transactions of a job whose rows go to files: what is in the files counts as far as the job's [log](super::log) says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file_error;
use super::log::{LogFile, sync_directory};
use crate::connectors::JobLog;
use crate::error::{Error, Result};

/// See the module's head. Clones are handles on the same log.
#[derive(Clone, Debug)]
pub struct FileTransactions(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    log: LogFile,
    /// Chunks of state that are not committed.
    chunks: Vec<Vec<u8>>,
    /// How long the job's files will be.
    files: BTreeMap<PathBuf, u64>,
}

impl FileTransactions {
    /// Opens the log of a job, for this process alone.
    pub fn open(path: &Path, job: &str) -> Result<Self> {
        let log = LogFile::open(path, job)?;
        Ok(Self(Arc::new(Mutex::new(State { log, chunks: Vec::new(), files: BTreeMap::new() }))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job begins anew: its files are to be empty.
    pub fn begin_anew(&self) {
        self.state().log.forget_files();
    }

    /// A file of the job, as it was with the last transaction, to be written on.
    pub fn open_file(&self, path: &Path) -> Result<File> {
        let failed = |error: std::io::Error| file_error("write", path, &error);
        let mut state = self.state();
        if state.files.contains_key(path) {
            return Err(Error::bug(format!("\"{}\" has two writers", path.display())));
        }
        let length = state.log.length_of(path);
        let mut file = match length {
            Some(_) => File::options().write(true).open(path).map_err(failed)?,
            None => File::create(path).map_err(failed)?,
        };
        let (found, length) = (file.metadata().map_err(failed)?.len(), length.unwrap_or(0));
        if found < length {
            return Err(Error::usage(format!(
                "\"{}\" has {found} bytes, and the job had written {length}: somebody has changed it",
                path.display()
            ))
            .hint("bring it back, or begin anew with SET 'execution.restore' = 'none'"));
        }
        file.set_len(length).and_then(|()| sync_directory(path)).map_err(failed)?;
        file.seek(SeekFrom::Start(length)).map_err(failed)?;
        state.files.insert(path.to_owned(), length);
        Ok(file)
    }

    /// A file has come to this length, and will keep what it has.
    pub fn note_length(&self, path: &Path, length: u64) {
        self.state().files.insert(path.to_owned(), length);
    }
}

impl JobLog for FileTransactions {
    fn read(&self) -> Result<Vec<(i64, Vec<u8>)>> {
        self.state().log.read_progress()
    }

    fn is_cut(&self) -> Result<bool> {
        Ok(self.state().log.is_cut())
    }

    fn read_state(&self, from: i64, take: &mut dyn FnMut(i64, &[u8]) -> Result<()>) -> Result<()> {
        self.state().log.read_state(from, take)
    }

    fn write_state(&self, chunk: Vec<u8>) -> Result<()> {
        self.state().chunks.push(chunk);
        Ok(())
    }

    fn commit(&self, record: Vec<u8>) -> Result<()> {
        let mut state = self.state();
        let chunks = std::mem::take(&mut state.chunks);
        // Before its files are opened, a job that goes on has them as they were.
        let mut files = state.log.files().clone();
        files.extend(state.files.clone());
        state.log.commit(&chunks, &record, files)
    }

    fn ends(&self) -> Result<[i64; 2]> {
        Ok(self.state().log.ends())
    }

    fn delete_before(&self, offsets: [i64; 2]) {
        if let Err(error) = self.state().log.delete_before(offsets) {
            tracing::warn!("what is no longer needed of a job's log was not deleted, and takes room: {error}");
        }
    }

    /// A file has no requests under way.
    fn is_disturbed(&self) -> bool {
        false
    }

    fn renew(&self) -> Result<()> {
        Ok(())
    }

    /// The log is locked: nobody else can have it.
    fn is_fenced(&self) -> bool {
        false
    }

    fn finish(&self) {
        if let Err(error) = self.state().log.remove() {
            tracing::warn!("the job has finished, and its log is still there: {error}");
        }
    }
}
