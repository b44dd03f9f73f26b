//! Batches between workers: by bounded channels, boundaries in-band, keys to their owners.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use crossbeam_channel::{Receiver, Select, SendTimeoutError, Sender, TrySendError};
use datafusion::common::hash_utils::{RandomState, create_hashes};

use super::clock;
use super::shared::Shared;
use super::topology::EdgeKind;
use crate::error::{Blame, Error, Result};
use crate::exec::{Boundary, PartialSchema};
use crate::time::Progress;

/// How long a thread waits before it looks whether the job goes on.
const PATIENCE: Duration = Duration::from_millis(50);

/// What flows from one worker to another.
pub enum Message {
    /// Rows or partials of an edge.
    Batch(usize, RecordBatch),
    /// A boundary, with the progress of each edge.
    Boundary(Boundary, Vec<(usize, Progress)>),
}

/// The error of a thread that ends because another one has failed.
pub fn cancelled() -> Error {
    Error::new(Blame::Interrupted, "the job has ended")
}

/// Sends, waiting while the receiver is slow; ends when the job does.
pub fn send<T>(channel: &Sender<T>, message: T, shared: &Shared) -> Result<()> {
    match channel.try_send(message) {
        Ok(()) => Ok(()),
        Err(TrySendError::Disconnected(_)) => Err(cancelled()),
        Err(TrySendError::Full(message)) => clock::wait(|| send_later(channel, message, shared)),
    }
}

fn send_later<T>(channel: &Sender<T>, message: T, shared: &Shared) -> Result<()> {
    let mut message = message;
    loop {
        match channel.send_timeout(message, PATIENCE) {
            Ok(()) => return Ok(()),
            Err(SendTimeoutError::Disconnected(_)) => return Err(cancelled()),
            Err(SendTimeoutError::Timeout(_)) if shared.is_cancelled() => return Err(cancelled()),
            Err(SendTimeoutError::Timeout(same)) => message = same,
        }
    }
}

/// Which workers of the stage behind an edge get what of a batch that a worker sends.
pub fn deal(kind: &EdgeKind, batch: RecordBatch, worker: usize, workers: usize) -> Result<Vec<(usize, RecordBatch)>> {
    let parts = match kind {
        EdgeKind::Rows => return Ok(vec![(worker, batch)]),
        EdgeKind::Partials { keys } => by_owner(&batch, *keys, workers)?,
        EdgeKind::Keyed { columns } => by_columns(&batch, columns, workers)?,
    };
    Ok(parts.into_iter().enumerate().filter_map(|(to, part)| Some((to, part?))).collect())
}

/// Cuts partials by the owner of their key.
pub fn by_owner(batch: &RecordBatch, keys: usize, workers: usize) -> Result<Vec<Option<RecordBatch>>> {
    let columns: Vec<usize> = (PartialSchema::PREFIX..PartialSchema::PREFIX + keys).collect();
    by_columns(batch, &columns, workers)
}

/// Cuts rows by the owner of the values of some columns.
pub fn by_columns(batch: &RecordBatch, columns: &[usize], workers: usize) -> Result<Vec<Option<RecordBatch>>> {
    let columns: Vec<ArrayRef> = columns.iter().map(|&c| Arc::clone(batch.column(c))).collect();
    let mut hashes = vec![0_u64; batch.num_rows()];
    if !columns.is_empty() {
        // One seed for all workers of the process; nothing that is kept depends on it.
        create_hashes(&columns, &RandomState::with_seed(0), &mut hashes)?;
    }
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); workers];
    for (row, hash) in (0..).zip(&hashes) {
        rows[(hash % workers as u64) as usize].push(row);
    }
    rows.into_iter()
        .map(|rows| match rows.len() {
            0 => Ok(None),
            n if n == batch.num_rows() => Ok(Some(batch.clone())),
            _ => Ok(Some(take_record_batch(batch, &UInt32Array::from(rows))?)),
        })
        .collect()
}

/// Many channels read as one, aligned at boundaries: an input that has given one waits for the others.
pub struct Aligned<T> {
    inputs: Vec<Receiver<T>>,
    waiting: Vec<bool>,
}

/// What came from [`Aligned::next`].
pub enum Next<T> {
    /// A message; if it is a boundary, tell [`Aligned::arrived`].
    Message(usize, T),
    /// Nothing within the time.
    Nothing,
    /// An input is gone.
    Gone,
}

impl<T> Aligned<T> {
    /// Reads from these channels.
    pub fn new(inputs: Vec<Receiver<T>>) -> Self {
        let waiting = vec![false; inputs.len()];
        Self { inputs, waiting }
    }

    /// The next message of any input that is not waiting, within `wait`.
    pub fn next(&self, wait: Duration) -> Next<T> {
        let mut select = Select::new();
        let open: Vec<usize> = (0..self.inputs.len()).filter(|&i| !self.waiting[i]).collect();
        for &i in &open {
            select.recv(&self.inputs[i]);
        }
        match select.select_timeout(wait.min(PATIENCE)) {
            Err(_) => Next::Nothing,
            Ok(operation) => {
                let input = open[operation.index()];
                match operation.recv(&self.inputs[input]) {
                    Ok(message) => Next::Message(input, message),
                    Err(_) => Next::Gone,
                }
            }
        }
    }

    /// An input has given its boundary; `true` when it was the last one, and all go on.
    pub fn arrived(&mut self, input: usize) -> bool {
        self.waiting[input] = true;
        let all = self.waiting.iter().all(|w| *w);
        if all {
            self.waiting.fill(false);
        }
        all
    }
}
