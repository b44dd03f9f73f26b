//! Files of records, one per line: JSON, CSV or raw text, plain or gzipped.
//!
//! A source reads a file, a directory or a glob; each file is a partition and the records of a file are numbered from
//! 0. What is read is fixed when a job begins: the files, and how many records each has. A sink writes one file.
//!
//! ```text
//! 'connector' = 'filesystem', 'path' = 'orders/*.json.gz', 'format' = 'json'
//! ```

mod log;
#[cfg(test)]
mod log_tests;
mod records;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod transactions;

pub use log::LogFile;
pub use sink::{FileSink, delivery};
pub use source::FileSource;
pub use transactions::FileTransactions;

use std::io;
use std::path::{Path, PathBuf};

use crate::catalog::options::{Options, invalid};
use crate::error::{Error, Result};

/// The name of the file when `'path'` is a directory, as it is in Flink.
const FILE_IN_DIRECTORY: &str = "part-0";

/// The file that a table with these options is written to.
pub fn output_of(options: &Options) -> Result<PathBuf> {
    let mut path = path_of(options)?;
    if path.is_dir() || options.require("path")?.ends_with('/') {
        path.push(FILE_IN_DIRECTORY);
    }
    Ok(path)
}

/// `'path'` as a path of this machine.
fn path_of(options: &Options) -> Result<PathBuf> {
    let text = options.require("path")?;
    let path = match text.split_once("://") {
        None => text,
        Some(("file", path)) => path,
        Some(_) => return Err(invalid("path", text, "a path on this machine, or file://..")),
    };
    if path.is_empty() {
        return Err(invalid("path", text, "the path of a file or a directory"));
    }
    Ok(PathBuf::from(path))
}

fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"))
}

/// The error for something that a file does not let us do.
fn file_error(doing: &str, path: &Path, error: &io::Error) -> Error {
    let error_text = match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    let problem = Error::usage(format!("cannot {doing} \"{}\": {error_text}", path.display()));
    match error.kind() {
        io::ErrorKind::StorageFull => problem.hint("make room and start the job again"),
        io::ErrorKind::NotFound => problem.hint("paths are relative to the directory that the program runs in"),
        _ => problem,
    }
}
