//! One pane: the partial of the rows of a slice that count from one window on.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::layout::AggregateLayout;
use super::table::GroupTable;
use crate::error::Result;

/// A *base* and a *delta*: updates go to the delta; at a checkpoint the delta's partial is what a log would keep, and is
/// then merged into the base.
pub(super) struct Pane {
    base: Part,
    delta: Part,
}

impl Pane {
    pub(super) fn new(layout: &Arc<AggregateLayout>) -> Result<Self> {
        Ok(Self { base: Part::new(layout)?, delta: Part::new(layout)? })
    }

    /// What takes updates.
    pub(super) fn live(&mut self) -> &mut GroupTable {
        &mut self.delta.live
    }

    /// Merges everything in the pane into a table; the pane stays as it is.
    pub(super) fn merge_into(&mut self, table: &mut GroupTable) -> Result<()> {
        for part in [&mut self.base, &mut self.delta] {
            if let Some(partial) = part.rest()? {
                table.merge(partial)?;
            }
        }
        Ok(())
    }

    /// Everything in the pane as a table.
    pub(super) fn into_table(mut self, layout: &Arc<AggregateLayout>) -> Result<GroupTable> {
        let (table, rest) = if self.base.live.is_empty() {
            (&mut self.delta, &mut self.base)
        } else {
            (&mut self.base, &mut self.delta)
        };
        let mut table = table.take_table(layout)?;
        if let Some(partial) = rest.rest()? {
            table.merge(partial)?;
        }
        Ok(table)
    }

    /// Everything in the pane as a batch, and the part of it that no checkpoint has given out.
    pub(super) fn into_partials(mut self) -> Result<(Option<RecordBatch>, Option<RecordBatch>)> {
        let delta = self.delta.rest()?.cloned();
        self.base.merge_part(&mut self.delta)?;
        self.base.rest()?;
        Ok((self.base.resting, delta))
    }

    /// A checkpoint: gives out the delta, if there is any, and merges it into the base; or else the whole.
    pub(super) fn checkpoint(&mut self, whole: bool) -> Result<Option<RecordBatch>> {
        let delta = self.delta.rest()?.cloned();
        self.base.merge_part(&mut self.delta)?;
        if whole { Ok(self.base.rest()?.cloned()) } else { Ok(delta) }
    }

    /// Takes up what a checkpoint has given out.
    pub(super) fn restore(&mut self, partial: RecordBatch) -> Result<()> {
        self.base.put(partial)
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.base.size_bytes() + self.delta.size_bytes()
    }
}

/// A partial that may rest. Reading a table empties it, so what has been read stays a batch until more comes: then the
/// two are one again at the next reading.
struct Part {
    live: GroupTable,
    resting: Option<RecordBatch>,
}

impl Part {
    fn new(layout: &Arc<AggregateLayout>) -> Result<Self> {
        Ok(Self { live: GroupTable::new(layout)?, resting: None })
    }

    /// The whole part as a batch, if there is anything in it.
    fn rest(&mut self) -> Result<Option<&RecordBatch>> {
        if !self.live.is_empty() {
            if let Some(resting) = self.resting.take() {
                self.live.merge(&resting)?;
            }
            self.resting = Some(self.live.take_partial()?);
        }
        Ok(self.resting.as_ref())
    }

    /// Takes everything of another part, which is empty afterwards.
    fn merge_part(&mut self, other: &mut Self) -> Result<()> {
        other.rest()?;
        other.resting.take().map_or(Ok(()), |more| self.put(more))
    }

    fn put(&mut self, partial: RecordBatch) -> Result<()> {
        if self.live.is_empty() && self.resting.is_none() {
            self.resting = Some(partial);
            return Ok(());
        }
        self.live.merge(&partial)
    }

    /// The whole part as a table; the part is empty afterwards.
    fn take_table(&mut self, layout: &Arc<AggregateLayout>) -> Result<GroupTable> {
        let mut table = std::mem::replace(&mut self.live, GroupTable::new(layout)?);
        if let Some(resting) = self.resting.take() {
            table.merge(&resting)?;
        }
        Ok(table)
    }

    fn size_bytes(&self) -> usize {
        self.live.size_bytes() + self.resting.as_ref().map_or(0, RecordBatch::get_array_memory_size)
    }
}
