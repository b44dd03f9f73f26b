//! Partials at rest: batches in memory and on disk, of which the merge is meant.
//!
//! What goes to disk and is large is dealt into parts by a hash of the keys, so that it can be merged part by part: equal
//! keys are in equal parts, whoever has written them. So a window that memory cannot hold needs no more of it, while it is
//! put together, than one of its parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, RecordBatch, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take_record_batch;
use datafusion::common::hash_utils::{RandomState, create_hashes};

use super::layout::AggregateLayout;
use super::spill::{Spill, Spilled, Stored};
use super::table::GroupTable;
use crate::error::Result;

/// Of so many parts what is large is worked on one after the other.
const PARTS: usize = 32;

/// So often something is written beside what is there before all is merged, if that is worth it.
const RUNS_MAX: usize = 8;

/// Groups that are worked on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    All,
    /// Those of one part.
    Part(usize),
}

/// See the module's head.
#[derive(Clone, Default)]
pub(super) struct Resting {
    memory: Vec<RecordBatch>,
    disk: Vec<Chunk>,
    /// How often something has been written, and the bytes of what was written first.
    runs: (usize, usize),
}

#[derive(Clone)]
struct Chunk {
    /// `None` where groups of all parts are in it.
    part: Option<usize>,
    rows: Spilled,
}

impl Resting {
    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.disk.is_empty()
    }

    pub(super) fn is_on_disk(&self) -> bool {
        !self.disk.is_empty()
    }

    pub(super) fn is_in_memory(&self) -> bool {
        !self.memory.is_empty()
    }

    pub(super) fn push(&mut self, batch: RecordBatch) {
        self.memory.push(batch);
    }

    /// Takes what a checkpoint has given out, which may be too large to stay as it is.
    pub(super) fn put(&mut self, stored: Stored, layout: &AggregateLayout, to: Option<&Spill>) -> Result<()> {
        match (stored, to) {
            (Stored::Spilled(rows), Some(to)) if rows.bytes() < to.dealt_bytes_min() => {
                self.disk.push(Chunk { part: None, rows });
            }
            (Stored::Spilled(rows), Some(to)) => self.write(&rows.read()?, layout, to)?,
            (stored, _) => self.memory.push(stored.load()?),
        }
        Ok(())
    }

    pub(super) fn append(&mut self, other: Self) {
        self.memory.extend(other.memory);
        self.runs.0 += other.runs.0;
        self.disk.extend(other.disk);
    }

    /// What is in memory.
    pub(super) fn take_memory(&mut self) -> Vec<RecordBatch> {
        std::mem::take(&mut self.memory)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.iter().map(held_bytes).sum()
    }

    pub(super) fn disk_bytes(&self) -> usize {
        self.disk.iter().map(|chunk| chunk.rows.bytes()).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.memory_bytes() + self.disk_bytes()
    }

    /// All that there is, piece by piece.
    pub(super) fn stored(&self) -> impl Iterator<Item = Stored> + '_ {
        let on_disk = self.disk.iter().map(|chunk| Stored::Spilled(chunk.rows.clone()));
        self.memory.iter().cloned().map(Stored::Batch).chain(on_disk)
    }

    /// Merges a share of it into a table.
    pub(super) fn merge_into(&self, share: Share, table: &mut GroupTable) -> Result<()> {
        let keys = table.layout().keys().fields().len();
        for batch in &self.memory {
            table.merge(&of_share(batch, share, keys)?)?;
        }
        for Chunk { part, rows } in &self.disk {
            match (share, *part) {
                (Share::Part(wanted), Some(part)) if wanted != part => {}
                (Share::Part(_), None) => table.merge(&of_share(&rows.read()?, share, keys)?)?,
                _ => table.merge(&rows.read()?)?,
            }
        }
        Ok(())
    }

    /// Puts on disk what is in memory; answers how many bytes of it that frees.
    pub(super) fn spill(&mut self, layout: &AggregateLayout, to: &Spill) -> Result<usize> {
        let bytes = self.memory_bytes();
        for batch in std::mem::take(&mut self.memory) {
            self.write(&batch, layout, to)?;
        }
        Ok(bytes)
    }

    fn write(&mut self, batch: &RecordBatch, layout: &AggregateLayout, to: &Spill) -> Result<()> {
        let before = self.disk_bytes();
        if batch.get_array_memory_size() < to.dealt_bytes_min() || layout.keys().fields().is_empty() {
            self.disk.push(Chunk { part: None, rows: to.write(batch)? });
        } else {
            for (part, rows) in (0..).zip(rows_by_part(batch, layout.keys().fields().len())?) {
                if !rows.is_empty() {
                    let rows = to.write(&take_record_batch(batch, &UInt32Array::from(rows))?)?;
                    self.disk.push(Chunk { part: Some(part), rows });
                }
            }
        }
        if self.runs.0 == 0 {
            self.runs.1 = self.disk_bytes() - before;
        }
        self.runs.0 += 1;
        Ok(())
    }

    /// Merges what has been written again and again, so that disk holds groups once, or nearly. Only once there is as much
    /// as there was after the last time, so that nothing is written more than a few times.
    pub(super) fn compact(&mut self, scratch: &mut GroupTable, to: &Spill) -> Result<()> {
        let (runs, first) = self.runs;
        if RUNS_MAX <= runs && 2 * first <= self.disk_bytes() {
            let all = merged(vec![std::mem::take(self)], scratch, Some(to))?;
            *self = all;
            self.spill(&Arc::clone(scratch.layout()), to)?;
            self.runs = (1, self.disk_bytes());
        }
        Ok(())
    }
}

impl From<RecordBatch> for Resting {
    fn from(batch: RecordBatch) -> Self {
        Self { memory: vec![batch], ..Self::default() }
    }
}

/// The merge of partials, which lies on disk if it is large and some of them do.
pub(super) fn merged(mut partials: Vec<Resting>, scratch: &mut GroupTable, to: Option<&Spill>) -> Result<Resting> {
    if let [only] = partials.as_slice()
        && only.memory.len() + only.disk.len() < 2
    {
        return Ok(only.clone());
    }
    let to = to.filter(|_| partials.iter().any(Resting::is_on_disk));
    let mut all = Resting::default();
    for share in shares(&mut partials, scratch.layout(), to)? {
        partials.iter().try_for_each(|partial| partial.merge_into(share, scratch))?;
        if scratch.is_empty() {
            continue;
        }
        let batch = scratch.take_partial()?;
        match (share, to) {
            (Share::Part(part), Some(to)) => {
                all.disk.push(Chunk { part: Some(part), rows: to.write(&batch)? });
            }
            _ => all.memory.push(batch),
        }
    }
    if all.is_on_disk() {
        all.runs = (1, all.disk_bytes());
    }
    Ok(all)
}

/// In which shares partials are to be merged: large ones part by part, for which they are all dealt into parts.
pub(super) fn shares(partials: &mut [Resting], layout: &AggregateLayout, to: Option<&Spill>) -> Result<Vec<Share>> {
    let bytes: usize = partials.iter().map(Resting::bytes).sum();
    let Some(to) = to.filter(|to| to.whole_bytes() < bytes && partials.iter().any(Resting::is_on_disk)) else {
        return Ok(vec![Share::All]);
    };
    for partial in partials.iter_mut().filter(|partial| to.dealt_bytes_min() < partial.memory_bytes()) {
        partial.spill(layout, to)?;
    }
    Ok((0..PARTS).map(Share::Part).collect())
}

/// The bytes of what a batch keeps from being freed. Its columns may share one allocation: that of the message which they
/// came in.
fn held_bytes(batch: &RecordBatch) -> usize {
    fn visit(data: &ArrayData, held: &mut BTreeMap<usize, usize>) {
        let nulls = data.nulls().map(NullBuffer::buffer);
        held.extend(data.buffers().iter().chain(nulls).map(|b| (b.data_ptr().as_ptr() as usize, b.capacity())));
        data.child_data().iter().for_each(|child| visit(child, held));
    }
    let mut held = BTreeMap::new();
    batch.columns().iter().for_each(|column| visit(&column.to_data(), &mut held));
    held.values().sum()
}

/// The rows whose keys are of a share.
fn of_share(batch: &RecordBatch, share: Share, keys: usize) -> Result<RecordBatch> {
    match share {
        Share::All => Ok(batch.clone()),
        Share::Part(part) => {
            let rows = std::mem::take(&mut rows_by_part(batch, keys)?[part]);
            Ok(take_record_batch(batch, &UInt32Array::from(rows))?)
        }
    }
}

fn rows_by_part(batch: &RecordBatch, keys: usize) -> Result<Vec<Vec<u32>>> {
    let columns: Vec<ArrayRef> = batch.columns()[..keys].to_vec();
    let mut hashes = vec![0_u64; batch.num_rows()];
    if !columns.is_empty() {
        // Not the seed by which keys are dealt to workers.
        create_hashes(&columns, &RandomState::with_seed(1), &mut hashes)?;
    }
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); PARTS];
    for (row, hash) in (0..).zip(&hashes) {
        rows[(hash % PARTS as u64) as usize].push(row);
    }
    Ok(rows)
}
