//! The log of a job that writes files: a file beside the first of them.
//!
//! It begins with `TMlog001` and goes on in frames, one per transaction. A frame is the length of its payload (8 bytes) and
//! its CRC-32 (4), both little-endian, and the payload: the length of a head (4), the head as JSON, and the chunks of state
//! and the records of progress, one behind the other. The head says how long each of them is, and how long the job's files
//! are with this transaction: a transaction is there when its frame is, and what a file has beyond is rolled back.
//!
//! A frame that is torn, or damaged in any way, ends the log for whoever opens it: an earlier transaction is the last one
//! then, from which all that came later follows again. What is no longer needed goes when the file is written anew.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file_error;
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"TMlog001";

/// The length and the checksum of a frame.
const FRAME_HEAD_BYTES: u64 = 12;

/// More is never written in one frame.
const FRAME_BYTES_MAX: u64 = 1 << 32;

/// When the file is written anew, chunks are put into frames of about so many bytes.
const COPY_BYTES: u64 = 8 << 20;

/// The file is written anew when so many bytes in it are no longer needed, and more than are.
const DEAD_BYTES_MIN: u64 = 1 << 20;

/// What a frame has, in order: chunks of state, then records of progress.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Head {
    /// The job, in the first frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// The offsets of the first record of progress and of the first chunk, in the first frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<[i64; 2]>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    state: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    progress: Vec<u32>,
    /// The lengths of the job's files.
    #[serde(default)]
    files: BTreeMap<PathBuf, u64>,
}

/// Records in the file, by offset.
#[derive(Debug, Default)]
struct Entries {
    first: i64,
    /// Where each is in the file, and how long it is.
    places: VecDeque<(u64, u32)>,
}

impl Entries {
    fn end(&self) -> i64 {
        self.first + self.places.len() as i64
    }

    /// Those from an offset on.
    fn from(&self, offset: i64) -> impl Iterator<Item = (i64, (u64, u32))> {
        let skipped = usize::try_from(offset - self.first).unwrap_or(0);
        (self.first..).zip(self.places.iter().copied()).skip(skipped)
    }

    fn forget_before(&mut self, offset: i64) {
        while self.first < offset && self.places.pop_front().is_some() {
            self.first += 1;
        }
    }

    fn bytes(&self) -> u64 {
        self.places.iter().map(|(_, len)| u64::from(*len)).sum()
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    job: String,
    progress: Entries,
    state: Entries,
    /// How long the job's files are.
    files: BTreeMap<PathBuf, u64>,
    /// Where the last frame ends.
    end: u64,
}

impl LogFile {
    /// Where the log of a job is whose first output is this file.
    pub fn path_of(output: &Path) -> PathBuf {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        output.with_file_name(format!(".{name}.tidemill"))
    }

    /// The records of progress of a job, if its log is there. Nobody is disturbed.
    pub fn look(path: &Path, job: &str) -> Result<Option<Vec<(i64, Vec<u8>)>>> {
        match File::open(path) {
            Ok(file) => Self::scan(path, file)?.filter(|log| log.job == job).map(|log| log.read_progress()).transpose(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file_error("read", path, &error)),
        }
    }

    /// Opens the log of a job, for this process alone. That of another job, which has written the same file, is replaced.
    pub fn open(path: &Path, job: &str) -> Result<Self> {
        let failed = |error: &io::Error| file_error("write", path, error);
        let file = loop {
            let options = File::options().read(true).write(true).create(true).truncate(false).clone();
            let file = options.open(path).map_err(|e| failed(&e))?;
            lock(&file, path)?;
            // It may have been replaced by whoever had it.
            let is_same = |now: fs::Metadata| file.metadata().is_ok_and(|ours| ours.ino() == now.ino());
            if fs::metadata(path).is_ok_and(is_same) {
                break file;
            }
        };
        let found = Self::scan(path, file.try_clone().map_err(|e| failed(&e))?)?;
        if let Some(log) = found.filter(|log| log.job == job) {
            let length = log.file.metadata().map_err(|e| failed(&e))?.len();
            if log.end < length {
                tracing::warn!("{job}: the last {} bytes of its log are damaged, and are given up", length - log.end);
                log.file.set_len(log.end).map_err(|e| failed(&e))?;
            }
            // The lock is that of the handle which was locked.
            return Ok(Self { file, ..log });
        }
        file.set_len(0).map_err(|e| failed(&e))?;
        let (progress, state, files) = Default::default();
        let mut log = Self { path: path.to_owned(), file, job: job.to_owned(), progress, state, files, end: 0 };
        log.begin().and_then(|()| log.file.sync_all()).map_err(|e| failed(&e))?;
        Ok(log)
    }

    /// What a file has; `None` if it has nothing yet.
    fn scan(path: &Path, file: File) -> Result<Option<Self>> {
        let failed = |error: io::Error| file_error("read", path, &error);
        let length = file.metadata().map_err(failed)?.len();
        let mut reader = BufReader::new(&file);
        let mut magic = Vec::new();
        reader.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(failed)?;
        if magic != MAGIC {
            // The beginning of a beginning.
            if MAGIC.starts_with(&magic) {
                return Ok(None);
            }
            return Err(Error::usage(format!("\"{}\" is no log of a job", path.display()))
                .hint("it is in the way of the log that the job keeps beside its output: move it"));
        }
        let (mut progress, mut state) = (Entries::default(), Entries::default());
        let (mut files, mut job, mut end) = (BTreeMap::new(), None, MAGIC.len() as u64);
        while let Some((head, mut at, next)) = read_frame(&mut reader, end, length).map_err(failed)? {
            job = head.job.or(job);
            if let Some([first_progress, first_state]) = head.from {
                (progress.first, state.first) = (first_progress, first_state);
            }
            for (entries, lengths) in [(&mut state, head.state), (&mut progress, head.progress)] {
                for len in lengths {
                    entries.places.push_back((at, len));
                    at += u64::from(len);
                }
            }
            (files, end) = (head.files, next);
        }
        drop(reader);
        Ok(job.map(|job| Self { path: path.to_owned(), file, job, progress, state, files, end }))
    }

    /// How long a file of the job is with the last transaction.
    pub fn length_of(&self, path: &Path) -> Option<u64> {
        self.files.get(path).copied()
    }

    /// How long all of them are.
    pub fn files(&self) -> &BTreeMap<PathBuf, u64> {
        &self.files
    }

    /// The job begins anew: its files are as they are opened next.
    pub fn forget_files(&mut self) {
        self.files.clear();
    }

    /// The offsets behind the last record of progress and the last chunk.
    pub fn ends(&self) -> [i64; 2] {
        [self.progress.end(), self.state.end()]
    }

    /// Whether records of progress were let go of.
    pub fn is_cut(&self) -> bool {
        0 < self.progress.first
    }

    /// The records of progress, with their offsets.
    pub fn read_progress(&self) -> Result<Vec<(i64, Vec<u8>)>> {
        self.progress.from(0).map(|(offset, place)| Ok((offset, self.read(place)?))).collect()
    }

    /// Goes through the chunks of state from an offset on, each with its own.
    pub fn read_state(&self, from: i64, take: &mut dyn FnMut(i64, &[u8]) -> Result<()>) -> Result<()> {
        self.state.from(from).try_for_each(|(offset, place)| take(offset, &self.read(place)?))
    }

    fn read(&self, (at, len): (u64, u32)) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, at).map_err(|e| file_error("read", &self.path, &e))?;
        Ok(bytes)
    }

    /// Commits a transaction: chunks, a record, and how long the job's files are now.
    pub fn commit(&mut self, chunks: &[Vec<u8>], record: &[u8], files: BTreeMap<PathBuf, u64>) -> Result<()> {
        self.files = files;
        let written = self.append(chunks, &[record]).and_then(|()| self.file.sync_data());
        written.map_err(|e| {
            // Nobody takes half of it for anything, but it is in the way of the room that somebody makes.
            let _ = self.file.set_len(self.end);
            file_error("write", &self.path, &e)
        })
    }

    /// Lets go of what is before these offsets.
    pub fn delete_before(&mut self, [progress, state]: [i64; 2]) -> Result<()> {
        self.progress.forget_before(progress);
        self.state.forget_before(state);
        let live = self.progress.bytes() + self.state.bytes();
        let dead = self.end.saturating_sub(live);
        if dead < DEAD_BYTES_MIN || dead < live {
            return Ok(());
        }
        self.write_anew().map_err(|e| file_error("write", &self.path, &e))
    }

    /// Replaces the file by one that has only what is needed.
    fn write_anew(&mut self) -> io::Result<()> {
        let beside = self.path.with_extension("tidemill-new");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&beside)?;
        file.try_lock().map_err(io::Error::from)?;
        let mut new = Self {
            path: beside.clone(),
            file,
            job: self.job.clone(),
            progress: Entries { first: self.progress.first, places: VecDeque::new() },
            state: Entries { first: self.state.first, places: VecDeque::new() },
            files: self.files.clone(),
            end: 0,
        };
        new.begin()?;
        let read = |place| self.read(place).map_err(|e| io::Error::other(e.message));
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        for &place in &self.state.places {
            chunks.push(read(place)?);
            bytes += u64::from(place.1);
            if COPY_BYTES <= bytes {
                new.append(&chunks, &[])?;
                (chunks, bytes) = (Vec::new(), 0);
            }
        }
        let records = self.progress.places.iter().map(|&place| read(place)).collect::<io::Result<Vec<_>>>()?;
        new.append(&chunks, &records.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        new.file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        sync_directory(&self.path)?;
        let path = std::mem::take(&mut self.path);
        *self = Self { path, ..new };
        Ok(())
    }

    /// The job has finished: there is nothing to go on from.
    pub fn remove(&self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|e| file_error("remove", &self.path, &e))
    }

    /// Writes the beginning of a file.
    fn begin(&mut self) -> io::Result<()> {
        self.file.write_all_at(MAGIC, 0)?;
        self.end = MAGIC.len() as u64;
        let from = Some([self.progress.first, self.state.first]);
        let head = Head { job: Some(self.job.clone()), from, files: self.files.clone(), ..Head::default() };
        self.write_frame(&head, &[], &[]).map(drop)
    }

    fn append(&mut self, chunks: &[Vec<u8>], records: &[&[u8]]) -> io::Result<()> {
        let length = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
        let head = Head {
            state: chunks.iter().map(|chunk| length(chunk.len())).collect::<io::Result<_>>()?,
            progress: records.iter().map(|record| length(record.len())).collect::<io::Result<_>>()?,
            files: self.files.clone(),
            ..Head::default()
        };
        let mut at = self.write_frame(&head, chunks, records)?;
        for (entries, lengths) in [(&mut self.state, head.state), (&mut self.progress, head.progress)] {
            for len in lengths {
                entries.places.push_back((at, len));
                at += u64::from(len);
            }
        }
        Ok(())
    }

    /// Writes a frame; answers where what follows its head begins.
    fn write_frame(&mut self, head: &Head, chunks: &[Vec<u8>], records: &[&[u8]]) -> io::Result<u64> {
        let head = serde_json::to_vec(head)?;
        let mut payload = u32::try_from(head.len()).map_err(io::Error::other)?.to_le_bytes().to_vec();
        payload.extend(&head);
        let body = self.end + FRAME_HEAD_BYTES + payload.len() as u64;
        chunks.iter().for_each(|chunk| payload.extend(chunk));
        records.iter().for_each(|record| payload.extend(*record));
        let mut frame = (payload.len() as u64).to_le_bytes().to_vec();
        frame.extend(crc32fast::hash(&payload).to_le_bytes());
        frame.append(&mut payload);
        self.file.write_all_at(&frame, self.end)?;
        self.end += frame.len() as u64;
        Ok(body)
    }
}

/// A file's names are the directory's.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes a file this process's own.
fn lock(file: &File, path: &Path) -> Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => Error::usage(format!(
            "another process has the log \"{}\": it runs this job, or writes its file",
            path.display()
        ))
        .hint("only one process at a time runs a job: stop the other one first"),
        TryLockError::Error(error) => file_error("lock", path, &error),
    })
}

/// Reads the frame at `at`: its head, where its body begins, and where it ends. `None` where there is none that is whole.
fn read_frame(reader: &mut impl Read, at: u64, length: u64) -> io::Result<Option<(Head, u64, u64)>> {
    let left = length.saturating_sub(at + FRAME_HEAD_BYTES);
    let mut frame_head = [0; FRAME_HEAD_BYTES as usize];
    if length < at + FRAME_HEAD_BYTES {
        return Ok(None);
    }
    reader.read_exact(&mut frame_head)?;
    let (size, checksum) = frame_head.split_at(8);
    let size = u64::from_le_bytes(size.try_into().unwrap_or_default());
    if left < size || FRAME_BYTES_MAX < size {
        return Ok(None);
    }
    let mut payload = vec![0; usize::try_from(size).unwrap_or_default()];
    reader.read_exact(&mut payload)?;
    if crc32fast::hash(&payload).to_le_bytes() != checksum {
        return Ok(None);
    }
    let head_of = |payload: &[u8]| {
        let (size, rest) = payload.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*size);
        let head: Head = serde_json::from_slice(rest.get(..size as usize)?).ok()?;
        Some((head, at + FRAME_HEAD_BYTES + 4 + u64::from(size)))
    };
    Ok(head_of(&payload).map(|(head, body)| (head, body, at + FRAME_HEAD_BYTES + size)))
}
