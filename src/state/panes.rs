//! The open windows of an aggregate whose results are final: one pane per slice and first open window.
//!
//! A row lands in one slice. It counts for the windows over that slice which its own partition's watermark had not
//! closed, that is for those from its *first open window* on; so rows of one slice that were late for different windows
//! lie in different panes. A window is the merge of the panes of its slices whose first open window is not after it.
//!
//! Windows close in the order of their ends. A pane gets rows until its first open window closes; then it is folded into
//! what that window and those after it share ([`stacks`](super::stacks)). So a window is never put together from all
//! its slices again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use super::layout::AggregateLayout;
use super::pane::Pane;
use super::piece::{Piece, PieceKind, unexpected};
use super::stacks::{Stacks, Total};
use super::table::GroupTable;
use crate::error::{Error, Result};
use crate::time::{Run, SliceId, SlicedWindows, TimeMs, WATERMARK_MIN, WindowId};

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

/// The rows of a window.
pub struct Fired {
    /// The window.
    pub window: WindowId,
    /// The number of groups.
    pub rows: usize,
    /// The keys' columns, then a column of results per aggregate.
    pub columns: Vec<ArrayRef>,
}

/// What panes without more rows to come are kept as.
enum Folded {
    /// No two windows share a slice: not at all.
    Disjoint,
    /// Windows share their start.
    Growing(Total),
    /// Windows overlap.
    Sliding(Stacks),
}

/// All panes of one aggregate on one worker.
pub struct Panes {
    layout: Arc<AggregateLayout>,
    windows: SlicedWindows,
    /// Panes that may get rows, by first open window and slice.
    open: BTreeMap<(WindowId, SliceId), Pane>,
    folded: Folded,
    /// The newest slice that has been folded.
    newest: Option<SliceId>,
    /// The window that closed last.
    closed: WindowId,
    /// What has been folded before a checkpoint has given it out.
    unlogged: BTreeMap<PaneKey, RecordBatch>,
    watermark: TimeMs,
    /// Empty between two uses.
    scratch: GroupTable,
}

impl Panes {
    /// No pane yet.
    pub fn new(layout: Arc<AggregateLayout>, windows: SlicedWindows) -> Result<Self> {
        let folded = match windows.run {
            Run::Slide(slide) if windows.size <= slide => Folded::Disjoint,
            Run::Slide(_) => Folded::Sliding(Stacks::default()),
            Run::Grow => Folded::Growing(Total::default()),
        };
        Ok(Self {
            scratch: GroupTable::new(&layout)?,
            layout,
            windows,
            open: BTreeMap::new(),
            folded,
            newest: None,
            closed: WindowId::MIN,
            unlogged: BTreeMap::new(),
            watermark: WATERMARK_MIN,
        })
    }

    /// Where rows of this slice go, given their first open window: windows that have fired take nothing any more.
    /// They can only have fired before such rows came if the rows' partition was idle.
    pub fn admit(&self, key: PaneKey) -> Admission {
        admit(&self.windows, key, self.watermark)
    }

    /// The table that takes updates for a pane.
    pub fn delta(&mut self, (slice, first_open): PaneKey) -> Result<&mut GroupTable> {
        debug_assert!(self.watermark < self.windows.last_instant(first_open), "a fired window gets no rows");
        Ok(entry_or(self.open.entry((first_open, slice)), &self.layout)?.live())
    }

    /// Moves the watermark and closes every window that it has reached, in the order of their ends.
    pub fn close_until(&mut self, watermark: TimeMs, mut emit: impl FnMut(Fired) -> Result<()>) -> Result<()> {
        assert!(self.watermark <= watermark, "a watermark never falls");
        while let Some(window) = self.next_window() {
            if watermark < self.windows.last_instant(window) {
                break;
            }
            emit(self.close(window)?)?;
        }
        self.watermark = watermark;
        Ok(())
    }

    /// The next window with any rows.
    fn next_window(&self) -> Option<WindowId> {
        let of_open = self.open.first_key_value().map(|((first_open, _), _)| *first_open);
        let of_folded = self.folded_windows().map(|(next, _)| next);
        of_open.into_iter().chain(of_folded).min()
    }

    /// The first and the last of the windows to come over slices that have been folded.
    fn folded_windows(&self) -> Option<(WindowId, WindowId)> {
        let (next, last) = (self.closed + self.windows.step(), self.windows.last_window(self.newest?));
        (next <= last).then_some((next, last))
    }

    fn close(&mut self, window: WindowId) -> Result<Fired> {
        let mut ready = Vec::new();
        while let Some(entry) = self.open.first_entry() {
            let (first_open, slice) = *entry.key();
            if window < first_open {
                break;
            }
            ready.push(((slice, first_open), entry.remove()));
            self.newest = self.newest.max(Some(slice));
        }
        self.closed = window;
        let (rows, columns) = match self.folded {
            Folded::Disjoint => self.finish_disjoint(ready)?,
            Folded::Growing(_) | Folded::Sliding(_) => self.finish_folded(window, ready)?,
        };
        if self.folded_windows().is_none() {
            self.newest = None;
            match &mut self.folded {
                Folded::Disjoint => {}
                Folded::Growing(total) => *total = Total::default(),
                Folded::Sliding(stacks) => *stacks = Stacks::default(),
            }
        }
        Ok(Fired { window, rows, columns })
    }

    /// The tables themselves are taken.
    fn finish_disjoint(&self, panes: Vec<(PaneKey, Pane)>) -> Result<(usize, Vec<ArrayRef>)> {
        let mut panes = panes.into_iter().map(|(_, pane)| pane);
        let mut table = match panes.next() {
            Some(pane) => pane.into_table(&self.layout)?,
            None => GroupTable::new(&self.layout)?,
        };
        for mut pane in panes {
            pane.merge_into(&mut table)?;
        }
        table.finish()
    }

    fn finish_folded(&mut self, window: WindowId, panes: Vec<(PaneKey, Pane)>) -> Result<(usize, Vec<ArrayRef>)> {
        let mut partials = Vec::with_capacity(panes.len());
        for (key, pane) in panes {
            let (whole, delta) = pane.into_partials()?;
            partials.extend(whole.map(|whole| (key, whole)));
            self.unlogged.extend(delta.map(|delta| (key, delta)));
        }
        // Nobody restores what no window wants.
        while let Some(entry) = self.unlogged.first_entry() {
            if window < self.windows.last_window(entry.key().0) {
                break;
            }
            entry.remove();
        }
        let table = &mut self.scratch;
        match &mut self.folded {
            Folded::Disjoint => {}
            Folded::Growing(total) => {
                total.push(partials, table)?;
                total.merge_into(table)?;
            }
            Folded::Sliding(stacks) => {
                let first = self.windows.first_slice(window);
                stacks.evict(&self.layout, first, table)?;
                stacks.push(partials, table)?;
                stacks.merge_into(first, table)?;
            }
        }
        table.finish()
    }

    /// A checkpoint: gives out what has come for every pane since the last one, or everything.
    pub fn checkpoint(&mut self, whole: bool, give: &mut dyn FnMut(Piece)) -> Result<()> {
        let unlogged = std::mem::take(&mut self.unlogged);
        if whole {
            match (&self.folded, self.newest) {
                (Folded::Growing(total), Some(newest)) => total.checkpoint((newest, self.closed), give),
                (Folded::Sliding(stacks), _) => stacks.checkpoint(give),
                _ => {}
            }
        } else {
            unlogged.into_iter().for_each(|(key, delta)| give(Piece::new(PieceKind::Pane, key, delta)));
        }
        for (&(first_open, slice), pane) in &mut self.open {
            if let Some(partial) = pane.checkpoint(whole)? {
                give(Piece::new(PieceKind::Pane, (slice, first_open), partial));
            }
        }
        Ok(())
    }

    /// Takes up what checkpoints have given out, with the watermark of the last one. There are no panes yet.
    pub fn restore(&mut self, watermark: TimeMs, pieces: Vec<Piece>) -> Result<()> {
        self.watermark = watermark;
        let first_open_now = self.windows.first_open(watermark);
        let mut folded: BTreeMap<PaneKey, Pane> = BTreeMap::new();
        let mut front = Vec::new();
        for piece in pieces {
            let (slice, first_open) = match piece.kind {
                PieceKind::Clock => continue,
                PieceKind::Pane => piece.key,
                PieceKind::Older => (piece.key.0, WindowId::MIN),
                PieceKind::Suffix => (piece.key.1 - 1, WindowId::MIN),
                PieceKind::Turn => (piece.key.0 - 1, WindowId::MIN),
                _ => return Err(unexpected(&piece)),
            };
            // Every window over the slice has closed.
            if self.windows.last_window(slice) < first_open_now {
                continue;
            }
            if first_open_now <= first_open {
                let pane = self.open.entry((first_open, slice));
                entry_or(pane, &self.layout)?.restore(piece.rows()?)?;
                continue;
            }
            self.newest = self.newest.max(Some(slice));
            if piece.kind == PieceKind::Pane {
                entry_or(folded.entry(piece.key), &self.layout)?.restore(piece.rows()?)?;
            } else {
                front.push(piece);
            }
        }
        let Some(newest) = self.newest else { return Ok(()) };
        self.closed = self.windows.first_window_from(newest, first_open_now) - self.windows.step();
        let mut partials = Vec::with_capacity(folded.len());
        for (key, pane) in folded {
            partials.extend(pane.into_partials()?.0.map(|whole| (key, whole)));
        }
        match &mut self.folded {
            Folded::Disjoint => Err(Error::bug("windows that share no slice have folded panes")),
            Folded::Growing(total) => total.push(partials, &mut self.scratch),
            Folded::Sliding(stacks) => {
                stacks.restore(&self.layout, front)?;
                stacks.push(partials, &mut self.scratch)
            }
        }
    }

    /// The end of the window that closes next.
    pub fn next_close(&self) -> Option<TimeMs> {
        self.next_window().map(|window| self.windows.bounds(window).1)
    }

    /// The number of windows with rows that have not closed yet.
    pub fn open_windows(&self) -> usize {
        let of_open = self.open.keys().map(|&(first_open, slice)| (first_open, self.windows.last_window(slice)));
        count_windows(self.folded_windows().into_iter().chain(of_open), self.windows.step())
    }

    /// Bytes held, as the accumulators report them.
    pub fn size_bytes(&self) -> usize {
        let folded = match &self.folded {
            Folded::Disjoint => 0,
            Folded::Growing(total) => total.size_bytes(),
            Folded::Sliding(stacks) => stacks.size_bytes(),
        };
        let unlogged: usize = self.unlogged.values().map(RecordBatch::get_array_memory_size).sum();
        folded + unlogged + self.open.values().map(Pane::size_bytes).sum::<usize>()
    }
}

/// The pane of an entry; a new one if there is none.
pub(super) fn entry_or<'a, K: Ord>(entry: Entry<'a, K, Pane>, layout: &Arc<AggregateLayout>) -> Result<&'a mut Pane> {
    match entry {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => Ok(entry.insert(Pane::new(layout)?)),
    }
}

/// Where rows of this slice with this first open window go when a watermark has closed windows.
pub(super) fn admit(windows: &SlicedWindows, (slice, first_open): PaneKey, watermark: TimeMs) -> Admission {
    let first = windows.first_window_from(slice, first_open.max(windows.first_open(watermark)));
    if windows.last_window(slice) < first {
        return Admission::Closed;
    }
    Admission::Pane((slice, first))
}

/// The number of windows in ranges, both ends included, that begin in order.
pub(super) fn count_windows(ranges: impl Iterator<Item = (WindowId, WindowId)>, step: i64) -> usize {
    let (mut count, mut counted) = (0, None);
    for (first, last) in ranges {
        let from = counted.map_or(first, |counted: WindowId| first.max(counted + step));
        if from <= last {
            count += (last - from) / step + 1;
            counted = Some(last);
        }
    }
    usize::try_from(count).unwrap_or(usize::MAX)
}
