//! Reading files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;

use super::records::{Framing, Records};
use super::{file_error, path_of};
use crate::catalog::ColumnKind;
use crate::catalog::options::Options;
use crate::connectors::{
    OnError, PartitionId, PartitionPlan, Rejects, Source, SourceColumn, SourceReader, SourceRows, SourceSpec, shown,
};
use crate::error::{Error, Result};
use crate::formats::{BadRecord, DecodeColumn, Format, RowDecoder};
use crate::limits::{BATCH_ROWS_MAX, PAYLOAD_BYTES_MAX};

const METADATA: &[&str] = &["file.path", "file.name"];

/// Files that a job reads, each a partition.
pub struct FileSource {
    spec: SourceSpec,
    partitions: Vec<PartitionPlan>,
    framing: Framing,
    on_error: OnError,
}

impl FileSource {
    /// Lists the files and counts their records.
    pub fn open(spec: SourceSpec) -> Result<Self> {
        let options = &spec.table.options;
        let on_error = Rejects::of(&spec.table)?.on_error;
        let framing = Framing::of(options.require("format")?, options)?;
        Columns::new(&spec)?;
        let mut partitions = Vec::new();
        let files = files_of(&path_of(options)?)?;
        for (path, count) in files.iter().zip(count_records(&files, framing)) {
            let id = PartitionId { topic: path.to_string_lossy().into(), partition: 0 };
            let count = count.map_err(|e| file_error("read", path, &e))?;
            let recorded = spec.resume.iter().flatten().find(|r| r.id == id);
            let start = recorded.map_or(0, |r| r.start);
            if start > count {
                return Err(Error::upstream(format!(
                    "the job goes on at record {start} of \"{}\", which has only {count}",
                    path.display()
                ))
                .hint("the file was replaced: start a new job"));
            }
            let end = recorded.and_then(|r| r.end).unwrap_or(count).min(count);
            partitions.push(PartitionPlan { id, start, end: Some(end), empty_at_start: start >= end });
        }
        partitions.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Self { spec, partitions, framing, on_error })
    }
}

fn format_of(options: &Options) -> Result<Format> {
    Format::from_options(options.require("format")?, options, "")
}

/// The files that a path means: itself, those in a directory (not hidden ones), or the matches of a glob.
fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    let none = |what: &str| {
        Error::usage(format!("there are no files {what} \"{}\"", path.display())).hint(
            "'path' is a file, a directory, or a pattern such as 'orders/*.json'; relative ones start at the \
                   directory that the program runs in",
        )
    };
    if path.is_dir() {
        let mut files = Vec::new();
        for entry in path.read_dir().map_err(|e| file_error("list", path, &e))? {
            let entry = entry.map_err(|e| file_error("list", path, &e))?;
            let hidden = entry.file_name().to_string_lossy().starts_with(['.', '_']);
            if !hidden && entry.path().is_file() {
                files.push(entry.path());
            }
        }
        return if files.is_empty() { Err(none("in")) } else { Ok(files) };
    }
    if path.exists() {
        return Ok(vec![path.to_owned()]);
    }
    let text = path.to_string_lossy();
    if !text.contains(['*', '?', '[']) {
        return Err(none("at"));
    }
    let matches =
        glob::glob(&text).map_err(|e| Error::statement(format!("'path' = '{text}' is not a pattern: {}", e.msg)))?;
    let files: Vec<PathBuf> = matches.filter_map(Result::ok).filter(|p| p.is_file()).collect();
    if files.is_empty() { Err(none("that match")) } else { Ok(files) }
}

/// How many records are in each file. All processors count.
fn count_records(files: &[PathBuf], framing: Framing) -> Vec<io::Result<i64>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = files.len().div_ceil(threads).max(1);
    let mut counts: Vec<io::Result<i64>> = files.iter().map(|_| Ok(0)).collect();
    let count = |path: &PathBuf| Records::open(path, framing)?.skip(i64::MAX);
    std::thread::scope(|scope| {
        for (files, counts) in files.chunks(share).zip(counts.chunks_mut(share)) {
            scope.spawn(move || files.iter().zip(counts).for_each(|(path, slot)| *slot = count(path)));
        }
    });
    counts
}

impl Source for FileSource {
    fn partitions(&self) -> &[PartitionPlan] {
        &self.partitions
    }

    fn reader(&self, share: &[usize]) -> Result<Box<dyn SourceReader>> {
        let mut files: Vec<Option<Reading>> = Vec::new();
        files.resize_with(self.partitions.len(), || None);
        for &index in share {
            let plan = self.partitions[index].clone();
            files[index] = Some(Reading { next: plan.start, plan, records: None, limit: None, told_end: false });
        }
        Ok(Box::new(Reader {
            files,
            columns: Columns::new(&self.spec)?,
            framing: self.framing,
            on_error: self.on_error,
            record: Vec::new(),
        }))
    }
}

/// A file being read.
struct Reading {
    plan: PartitionPlan,
    next: i64,
    /// `None` before the first read and after the last one.
    records: Option<Records>,
    /// Nothing is given from here on.
    limit: Option<i64>,
    told_end: bool,
}

struct Reader {
    /// By partition index; `None` for those of other readers.
    files: Vec<Option<Reading>>,
    columns: Columns,
    framing: Framing,
    on_error: OnError,
    record: Vec<u8>,
}

/// The decoder, and where each column comes from.
struct Columns {
    decoder: Box<dyn RowDecoder>,
    origins: Vec<Origin>,
}

enum Origin {
    Decoded(usize),
    Path,
    Name,
}

impl Columns {
    fn new(spec: &SourceSpec) -> Result<Self> {
        let physical: Vec<_> = spec.table.columns.iter().filter(|c| c.kind == ColumnKind::Physical).collect();
        let all: Vec<DecodeColumn> = physical
            .iter()
            .map(|c| DecodeColumn { name: c.name.clone(), data_type: c.data_type.clone(), nullable: !c.not_null })
            .collect();
        let mut wanted: Vec<usize> = Vec::new();
        let mut origins = Vec::new();
        for column in &spec.columns {
            origins.push(match column {
                SourceColumn::Physical(name) => {
                    let index = all.iter().position(|c| c.name == *name);
                    let index = index.ok_or_else(|| Error::bug(format!("\"{name}\" is no physical column")))?;
                    let place = wanted.iter().position(|w| *w == index).unwrap_or(wanted.len());
                    if place == wanted.len() {
                        wanted.push(index);
                    }
                    Origin::Decoded(place)
                }
                SourceColumn::Metadata { key, data_type } => {
                    let origin = match key.as_str() {
                        "file.path" => Origin::Path,
                        "file.name" => Origin::Name,
                        _ => return Err(spec.no_metadata(key, METADATA)),
                    };
                    if *data_type != DataType::Utf8 {
                        return Err(Error::statement(format!("the metadata column '{key}' cannot have this type"))
                            .hint("declare it STRING"));
                    }
                    origin
                }
            });
        }
        let decoder = format_of(&spec.table.options)?.decoder(&all, &wanted)?;
        Ok(Self { decoder, origins })
    }

    fn take(&mut self, path: &str) -> Result<Vec<ArrayRef>> {
        let rows = self.decoder.len();
        let decoded = self.decoder.take()?;
        let text = |text: &str| Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows))) as ArrayRef;
        let name = path.rsplit('/').next().unwrap_or(path);
        let column = |origin: &Origin| match origin {
            Origin::Decoded(i) => decoded[*i].clone(),
            Origin::Path => text(path),
            Origin::Name => text(name),
        };
        Ok(self.origins.iter().map(column).collect())
    }
}

impl SourceReader for Reader {
    fn poll(&mut self, partition: usize, rows_max: usize) -> Result<Option<SourceRows>> {
        let Some(file) = self.files.get_mut(partition).and_then(Option::as_mut) else {
            return Err(Error::bug(format!("partition {partition} is not in this reader's share")));
        };
        let end = file.plan.end.unwrap_or(i64::MAX);
        let is_at_limit = file.limit.is_some_and(|limit| limit <= file.next) && file.next < end;
        if file.told_end || is_at_limit {
            return Ok(None);
        }
        let until = file.limit.map_or(end, |limit| limit.min(end));
        let path = PathBuf::from(&*file.plan.id.topic);
        let failed = |e: io::Error| file_error("read", &path, &e);
        let mut got = SourceRows::default();
        if file.next < end && file.records.is_none() {
            let mut records = Records::open(&path, self.framing).map_err(failed)?;
            records.skip(file.next).map_err(failed)?;
            file.records = Some(records);
        }
        for _ in 0..rows_max.min(BATCH_ROWS_MAX) {
            let Some(records) = file.records.as_mut().filter(|_| file.next < until) else { break };
            if !records.next(&mut self.record).map_err(failed)? {
                return Err(Error::upstream(format!("\"{}\" became shorter while it was read", path.display())));
            }
            let offset = file.next;
            file.next += 1;
            got.records += 1;
            got.bytes += self.record.len() as u64;
            let decoded = if self.record.len() > PAYLOAD_BYTES_MAX {
                Err(BadRecord(format!("it has more than {PAYLOAD_BYTES_MAX} bytes")))
            } else {
                self.columns.decoder.decode(&self.record)
            };
            match decoded {
                Ok(()) => got.offsets.push(offset),
                Err(_) if self.on_error == OnError::Skip => got.bad += 1,
                Err(reason) => {
                    return Err(Error::data(format!(
                        "record {offset} (counted from 0) of \"{}\" does not decode: {reason}; it begins with \"{}\"",
                        path.display(),
                        shown(&self.record)
                    ))
                    .hint("'scan.on-error' = 'skip' goes on and counts such records"));
                }
            }
        }
        if file.next >= end {
            file.records = None;
            file.told_end = true;
            got.at_end = true;
        }
        got.next_offset = file.next;
        got.columns = self.columns.take(&file.plan.id.topic)?;
        Ok(Some(got))
    }

    fn set_limit(&mut self, partition: usize, limit: Option<i64>) -> Result<()> {
        let Some(file) = self.files.get_mut(partition).and_then(Option::as_mut) else {
            return Err(Error::bug(format!("partition {partition} is not in this reader's share")));
        };
        file.limit = limit;
        Ok(())
    }

    fn wait(&mut self, wait: Duration) -> Result<()> {
        // There is always something to read, until there is never anything again, or nobody may have it yet.
        if self.files.iter().flatten().all(|f| f.told_end || f.limit.is_some_and(|limit| limit <= f.next)) {
            std::thread::sleep(wait);
        }
        Ok(())
    }
}
