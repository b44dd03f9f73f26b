//! The open windows of an aggregate: one pane per slice and first open window.
//!
//! A row lands in one slice. It counts for the windows over that slice which its own partition's watermark had not
//! closed, that is for those from its *first open window* on; so rows of one slice that were late for different windows
//! lie in different panes. A window is the merge of the panes of its slices whose first open window is not after it.
//!
//! A pane is a *base* and a *delta*: updates go to the delta; at a checkpoint the delta's partial is what a log would
//! keep, and is then merged into the base.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use super::layout::AggregateLayout;
use super::table::GroupTable;
use crate::error::Result;
use crate::time::{SliceId, SlicedWindows, TimeMs, WATERMARK_MIN, WindowId};

/// A slice, and the first window over it that its rows count for.
pub type PaneKey = (SliceId, WindowId);

/// Where rows of a slice may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Into this pane.
    Pane(PaneKey),
    /// Nowhere: every window over the slice has closed.
    Closed,
}

/// The rows of one closed window.
pub struct Fired {
    /// The window.
    pub window: WindowId,
    /// The number of groups.
    pub rows: usize,
    /// The keys' columns, then a column of results per aggregate.
    pub columns: Vec<ArrayRef>,
}

struct Pane {
    base: Part,
    delta: Part,
}

/// A partial that may rest. Reading a table empties it, so what a sliding window has read stays a batch until more
/// comes: then the two are one again at the next reading.
struct Part {
    live: GroupTable,
    resting: Option<RecordBatch>,
}

/// All panes of one aggregate on one worker.
pub struct Panes {
    layout: Arc<AggregateLayout>,
    windows: SlicedWindows,
    panes: BTreeMap<PaneKey, Pane>,
    /// The windows that some pane counts for and that have not fired.
    pending: BTreeSet<WindowId>,
    watermark: TimeMs,
}

impl Panes {
    /// No pane yet.
    pub fn new(layout: Arc<AggregateLayout>, windows: SlicedWindows) -> Self {
        Self { layout, windows, panes: BTreeMap::new(), pending: BTreeSet::new(), watermark: WATERMARK_MIN }
    }

    /// Where rows of this slice go, given their first open window: windows that have fired take nothing any more.
    /// They can only have fired before such rows came if the rows' partition was idle.
    pub fn admit(&self, (slice, first_open): PaneKey) -> Admission {
        admit(&self.windows, slice, first_open, self.watermark)
    }

    /// The table that takes updates for a pane.
    pub fn delta(&mut self, key: PaneKey) -> Result<&mut GroupTable> {
        use std::collections::btree_map::Entry;
        match self.panes.entry(key) {
            Entry::Occupied(entry) => Ok(&mut entry.into_mut().delta.live),
            Entry::Vacant(entry) => {
                let (slice, first_open) = key;
                let mut window = self.windows.first_window_from(slice, first_open);
                while window <= self.windows.last_window(slice) {
                    debug_assert!(self.watermark < self.windows.last_instant(window), "a fired window gets no rows");
                    self.pending.insert(window);
                    window += self.windows.step();
                }
                let pane = Pane { base: Part::new(&self.layout)?, delta: Part::new(&self.layout)? };
                Ok(&mut entry.insert(pane).delta.live)
            }
        }
    }

    /// Moves the watermark and closes every window that it has reached, in the order of their ends.
    pub fn close_until(&mut self, watermark: TimeMs, mut emit: impl FnMut(Fired) -> Result<()>) -> Result<()> {
        assert!(self.watermark <= watermark, "a watermark never falls");
        while let Some(&window) = self.pending.first() {
            if watermark < self.windows.last_instant(window) {
                break;
            }
            self.pending.pop_first();
            emit(self.close(window)?)?;
        }
        self.watermark = watermark;
        Ok(())
    }

    fn close(&mut self, window: WindowId) -> Result<Fired> {
        let slices = (self.windows.first_slice(window), WindowId::MIN)..(window, WindowId::MIN);
        let mut total: Option<GroupTable> = None;
        let mut finished = Vec::new();
        for (&key, pane) in self.panes.range_mut(slices) {
            let (slice, first_open) = key;
            // A pane's last window takes the tables themselves; others leave the pane as it is.
            let is_last = self.windows.last_window(slice) <= window;
            if is_last {
                finished.push(key);
            }
            if window < first_open {
                continue;
            }
            if is_last && total.is_none() {
                total = Some(pane.take_table(&self.layout)?);
                continue;
            }
            let total = match &mut total {
                Some(total) => total,
                None => total.insert(GroupTable::new(&self.layout)?),
            };
            for part in [&mut pane.base, &mut pane.delta] {
                if let Some(partial) = part.rest()? {
                    total.merge(partial)?;
                }
            }
        }
        for key in finished {
            self.panes.remove(&key);
        }
        let mut total = match total {
            Some(total) => total,
            None => GroupTable::new(&self.layout)?,
        };
        let (rows, columns) = total.finish()?;
        Ok(Fired { window, rows, columns })
    }

    /// A checkpoint: gives out the delta of every pane that changed since the last one, and merges it into the base.
    pub fn checkpoint(&mut self, mut log: impl FnMut(PaneKey, &RecordBatch) -> Result<()>) -> Result<()> {
        for (&key, pane) in &mut self.panes {
            if let Some(delta) = pane.delta.rest()? {
                log(key, delta)?;
                pane.base.merge_part(&mut pane.delta)?;
            }
        }
        Ok(())
    }

    /// The number of windows that have not closed yet.
    pub fn open_windows(&self) -> usize {
        self.pending.len()
    }

    /// Bytes held, as the accumulators report them.
    pub fn size_bytes(&self) -> usize {
        self.panes.values().map(Pane::size_bytes).sum()
    }
}

/// See [`Panes::admit`].
fn admit(windows: &SlicedWindows, slice: SliceId, first_open: WindowId, watermark: TimeMs) -> Admission {
    let first = windows.first_window_from(slice, first_open.max(windows.first_open(watermark)));
    if windows.last_window(slice) < first {
        return Admission::Closed;
    }
    Admission::Pane((slice, first))
}

impl Pane {
    /// Everything in the pane as a table; the pane is empty afterwards.
    fn take_table(&mut self, layout: &Arc<AggregateLayout>) -> Result<GroupTable> {
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

    fn size_bytes(&self) -> usize {
        self.base.size_bytes() + self.delta.size_bytes()
    }
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
        let Some(more) = other.resting.take() else { return Ok(()) };
        if self.live.is_empty() && self.resting.is_none() {
            self.resting = Some(more);
            return Ok(());
        }
        self.live.merge(&more)
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
