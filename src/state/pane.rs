//! One pane: the partial of the rows of a slice that count from one window on.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::layout::AggregateLayout;
use super::resting::{Resting, Share};
use super::spill::{Spill, Stored};
use super::table::GroupTable;
use crate::error::Result;

/// What so many groups were in a checkpoint stays at rest after it was read: a job that goes on need not wait until all are
/// put into a table, which may not be needed before the window closes.
const REST_ROWS_MIN: usize = 8_192;

/// A *base* and a *delta*: updates go to the delta; at a checkpoint the delta's partial is what a log would keep, and is
/// then merged into the base.
pub(super) struct Pane {
    base: Part,
    delta: Part,
    /// Whether anything has come since the last time that panes were put on disk.
    is_hot: bool,
}

impl Pane {
    pub(super) fn new(layout: &Arc<AggregateLayout>) -> Result<Self> {
        Ok(Self { base: Part::new(layout)?, delta: Part::new(layout)?, is_hot: true })
    }

    /// What takes updates.
    pub(super) fn live(&mut self) -> &mut GroupTable {
        self.is_hot = true;
        &mut self.delta.live
    }

    /// Merges everything in the pane into a table; the pane stays as it is.
    pub(super) fn merge_into(&mut self, table: &mut GroupTable) -> Result<()> {
        for part in [&mut self.base, &mut self.delta] {
            part.rest()?.merge_into(Share::All, table)?;
        }
        Ok(())
    }

    /// Whether some of it is on disk.
    pub(super) fn is_on_disk(&self) -> bool {
        self.base.resting.is_on_disk() || self.delta.resting.is_on_disk()
    }

    /// Everything in the pane as a table.
    pub(super) fn into_table(mut self, layout: &Arc<AggregateLayout>) -> Result<GroupTable> {
        let (table, rest) = if self.base.live.is_empty() {
            (&mut self.delta, &mut self.base)
        } else {
            (&mut self.base, &mut self.delta)
        };
        let mut table = table.take_table(layout)?;
        rest.rest()?.merge_into(Share::All, &mut table)?;
        Ok(table)
    }

    /// Everything in the pane at rest, and the part of it that no checkpoint has given out.
    pub(super) fn into_partials(mut self) -> Result<(Resting, Resting)> {
        let delta = self.delta.rest()?.clone();
        self.base.merge_part(&mut self.delta)?;
        self.base.rest()?;
        Ok((self.base.resting, delta))
    }

    /// A checkpoint: gives out the delta, if there is any, and merges it into the base; or else the whole.
    pub(super) fn checkpoint(&mut self, whole: bool, give: &mut dyn FnMut(Stored)) -> Result<()> {
        if !whole {
            self.delta.rest()?.stored().for_each(&mut *give);
        }
        self.base.merge_part(&mut self.delta)?;
        if whole {
            self.base.rest()?.stored().for_each(give);
        }
        Ok(())
    }

    /// Takes up what a checkpoint has given out.
    pub(super) fn restore(&mut self, partial: Stored, layout: &AggregateLayout, to: Option<&Spill>) -> Result<()> {
        match partial {
            Stored::Batch(batch) if REST_ROWS_MIN <= batch.num_rows() => {
                self.base.resting.push(batch);
                Ok(())
            }
            Stored::Batch(batch) => self.base.put(batch),
            spilled @ Stored::Spilled(_) => self.base.resting.put(spilled, layout, to),
        }
    }

    /// Puts on disk what it keeps; answers how many bytes of memory that frees.
    pub(super) fn spill(&mut self, scratch: &mut GroupTable, to: &Spill) -> Result<usize> {
        let before = self.size_bytes();
        let layout = Arc::clone(scratch.layout());
        for part in [&mut self.base, &mut self.delta] {
            part.rest()?;
            // An emptied table keeps the room that its groups had.
            part.live = GroupTable::new(&layout)?;
            part.resting.spill(&layout, to)?;
            part.resting.compact(scratch, to)?;
        }
        self.is_hot = false;
        Ok(before.saturating_sub(self.size_bytes()))
    }

    /// Whether anything has come since the last time that panes were put on disk.
    pub(super) fn is_hot(&self) -> bool {
        self.is_hot
    }

    /// What comes from now on makes it hot.
    pub(super) fn cool_down(&mut self) {
        self.is_hot = false;
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.base.size_bytes() + self.delta.size_bytes()
    }

    pub(super) fn disk_bytes(&self) -> usize {
        self.base.resting.disk_bytes() + self.delta.resting.disk_bytes()
    }
}

/// A partial that may rest. Reading a table empties it, so what has been read stays a batch until more comes: then the
/// two are one again at the next reading. What is on disk stays there.
struct Part {
    live: GroupTable,
    resting: Resting,
}

impl Part {
    fn new(layout: &Arc<AggregateLayout>) -> Result<Self> {
        Ok(Self { live: GroupTable::new(layout)?, resting: Resting::default() })
    }

    /// The whole part at rest.
    fn rest(&mut self) -> Result<&Resting> {
        if !self.live.is_empty() {
            for resting in self.resting.take_memory() {
                self.live.merge(&resting)?;
            }
            self.resting.push(self.live.take_partial()?);
        }
        Ok(&self.resting)
    }

    /// Takes everything of another part, which is empty afterwards.
    fn merge_part(&mut self, other: &mut Self) -> Result<()> {
        other.rest()?;
        let more = other.resting.take_memory();
        self.resting.append(std::mem::take(&mut other.resting));
        more.into_iter().try_for_each(|more| self.put(more))
    }

    fn put(&mut self, partial: RecordBatch) -> Result<()> {
        if self.live.is_empty() && !self.resting.is_in_memory() {
            self.resting.push(partial);
            return Ok(());
        }
        self.live.merge(&partial)
    }

    /// The whole part as a table; the part is empty afterwards.
    fn take_table(&mut self, layout: &Arc<AggregateLayout>) -> Result<GroupTable> {
        let mut table = std::mem::replace(&mut self.live, GroupTable::new(layout)?);
        std::mem::take(&mut self.resting).merge_into(Share::All, &mut table)?;
        Ok(table)
    }

    fn size_bytes(&self) -> usize {
        self.live.size_bytes() + self.resting.memory_bytes()
    }
}
