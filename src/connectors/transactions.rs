//! Where a job's log is, and the transactions that its rows are in.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::filesystem::{FileTransactions, LogFile};
use super::{CancelToken, Defaults, JobLog, TroubleProbe, filesystem, kafka};
use crate::catalog::Table;
use crate::error::Result;

/// Where a job's log is.
#[derive(Clone, Debug)]
pub enum LogPlace<'a> {
    /// A topic on the cluster of a table, made with so many replicas.
    Topic {
        /// Whose cluster it is on.
        table: &'a Table,
        /// The topic's.
        name: String,
        /// As many as the broker likes, if none are asked for.
        replication: Option<i32>,
    },
    /// A file, which says whose log it is.
    File {
        /// Where it is.
        path: PathBuf,
        /// The job's name.
        job: String,
    },
}

impl fmt::Display for LogPlace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic { name, .. } => write!(f, "topic \"{name}\""),
            Self::File { path, .. } => write!(f, "file \"{}\"", path.display()),
        }
    }
}

impl<'a> LogPlace<'a> {
    /// The log of a job is where the rows of this table go. Topics of logs begin with the prefix.
    pub fn of(table: &'a Table, job: &str, prefix: &str, replication: Option<i32>) -> Result<Self> {
        if super::connector_of(table)? == "filesystem" {
            let path = LogFile::path_of(&filesystem::output_of(&table.options)?);
            return Ok(Self::File { path, job: job.to_owned() });
        }
        // The name of a job may be any; that of a topic may not.
        let letter = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let name = format!("{prefix}{}", job.chars().map(letter).collect::<String>());
        kafka::check_log_name(&name)?;
        Ok(Self::Topic { table, name, replication })
    }

    /// The records of progress, with their offsets, if there is a log. Nobody is fenced.
    pub fn look(&self, defaults: &Defaults, cancel: CancelToken) -> Result<Option<Vec<(i64, Vec<u8>)>>> {
        match self {
            Self::Topic { table, name, .. } => kafka::Transactions::look(table, name, defaults, cancel),
            Self::File { path, job } => LogFile::look(path, job),
        }
    }

    /// Takes the log over from whoever had it, or makes it. The token ends this and all later waits.
    pub fn open(&self, defaults: &Defaults, cancel: CancelToken) -> Result<Transactions> {
        Ok(match self {
            Self::Topic { table, name, replication } => {
                Transactions::Topics(kafka::Transactions::open(table, name, *replication, defaults, cancel)?)
            }
            Self::File { path, job } => Transactions::Files(FileTransactions::open(path, job)?),
        })
    }
}

/// The transactions of a job: rows of all its sinks, and what the job has come to, are there together or not at all.
#[derive(Clone)]
pub enum Transactions {
    /// Of a broker.
    Topics(kafka::Transactions),
    /// Of this machine.
    Files(FileTransactions),
}

impl Transactions {
    /// The job's log.
    pub fn log(&self) -> Arc<dyn JobLog> {
        match self {
            Self::Topics(topics) => Arc::new(topics.clone()),
            Self::Files(files) => Arc::new(files.clone()),
        }
    }

    /// Nothing that the log tells of what was written counts any more: the job begins at its start.
    pub fn begin_anew(&self) {
        if let Self::Files(files) = self {
            files.begin_anew();
        }
    }

    /// Asks what is in the way of the transactions, if something can be.
    pub fn trouble(&self) -> Option<TroubleProbe> {
        match self {
            Self::Topics(topics) => Some(topics.trouble()),
            Self::Files(_) => None,
        }
    }
}
