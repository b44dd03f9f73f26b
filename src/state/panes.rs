//! The open windows of an aggregate whose results are final: one pane per slice and first open window.
//!
//! A row lands in one slice. It counts for the windows over that slice which its own partition's watermark had not
//! closed, that is for those from its *first open window* on; so rows of one slice that were late for different windows
//! lie in different panes. A window is the merge of the panes of its slices whose first open window is not after it.
//!
//! Windows close in the order of their ends. A pane gets rows until its first open window closes; then it is folded into
//! what that window and those after it share ([`stacks`](super::stacks)). So a window is never put together from all
//! its slices again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::ArrayRef;

use super::layout::AggregateLayout;
use super::pane::Pane;
use super::piece::{Piece, PieceKind, unexpected};
use super::resting::{Resting, Share, shares};
use super::spill::Spill;
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

/// Rows of a window: all, or some of its groups, if it is too large for memory.
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

/// A window that is put together part by part.
struct Closing {
    window: WindowId,
    partials: Vec<Resting>,
    shares: VecDeque<Share>,
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
    unlogged: BTreeMap<PaneKey, Resting>,
    watermark: TimeMs,
    /// What is left of a window that closes part by part.
    closing: Option<Closing>,
    spill: Option<Arc<Spill>>,
    /// In which partials are merged; empty between two uses.
    scratch: GroupTable,
    /// The same for windows: they see the same keys again as long as nobody else has used it.
    results: GroupTable,
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
            scratch: GroupTable::scratch(&layout)?,
            results: GroupTable::scratch(&layout)?,
            layout,
            windows,
            open: BTreeMap::new(),
            folded,
            newest: None,
            closed: WindowId::MIN,
            unlogged: BTreeMap::new(),
            watermark: WATERMARK_MIN,
            closing: None,
            spill: None,
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
        self.advance(watermark);
        while let Some(fired) = self.next_fired()? {
            emit(fired)?;
        }
        Ok(())
    }

    /// Moves the watermark: [`Panes::next_fired`] gives the rows of every window that it has reached, and nothing else may
    /// come before those.
    pub fn advance(&mut self, watermark: TimeMs) {
        assert!(self.watermark <= watermark, "a watermark never falls");
        self.watermark = watermark;
    }

    /// Closes the next window that the watermark has reached, in the order of their ends, or goes on with one.
    pub fn next_fired(&mut self) -> Result<Option<Fired>> {
        loop {
            if let Some(fired) = self.go_on_closing()? {
                return Ok(Some(fired));
            }
            match self.next_window() {
                Some(window) if self.windows.last_instant(window) <= self.watermark => {
                    if let Some(fired) = self.close(window)? {
                        return Ok(Some(fired));
                    }
                }
                _ => return Ok(None),
            }
        }
    }

    fn go_on_closing(&mut self) -> Result<Option<Fired>> {
        let Some(Closing { window, partials, shares }) = &mut self.closing else { return Ok(None) };
        while let Some(share) = shares.pop_front() {
            partials.iter().try_for_each(|partial| partial.merge_into(share, &mut self.results))?;
            if !self.results.is_empty() {
                let (rows, columns) = self.results.finish()?;
                return Ok(Some(Fired { window: *window, rows, columns }));
            }
        }
        self.closing = None;
        Ok(None)
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

    /// Closes a window. Its rows are there, or come by [`Self::go_on_closing`].
    fn close(&mut self, window: WindowId) -> Result<Option<Fired>> {
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
        let is_disjoint = matches!(self.folded, Folded::Disjoint);
        let fired = if is_disjoint && !ready.iter().any(|(_, pane)| pane.is_on_disk()) {
            let (rows, columns) = self.finish_disjoint(ready)?;
            Some(Fired { window, rows, columns })
        } else {
            let mut partials = self.fold(window, ready)?;
            let shares = shares(&mut partials, &self.layout, self.spill.as_deref())?.into();
            self.closing = Some(Closing { window, partials, shares });
            None
        };
        if self.folded_windows().is_none() {
            self.newest = None;
            match &mut self.folded {
                Folded::Disjoint => {}
                Folded::Growing(total) => *total = Total::default(),
                Folded::Sliding(stacks) => *stacks = Stacks::default(),
            }
        }
        Ok(fired)
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

    /// Folds panes that get no more rows; answers what makes up the window.
    fn fold(&mut self, window: WindowId, panes: Vec<(PaneKey, Pane)>) -> Result<Vec<Resting>> {
        let mut partials = Vec::with_capacity(panes.len());
        for (key, pane) in panes {
            let (whole, delta) = pane.into_partials()?;
            if !whole.is_empty() {
                partials.push((key, whole));
            }
            if !delta.is_empty() {
                self.unlogged.insert(key, delta);
            }
        }
        // Nobody restores what no window wants.
        while let Some(entry) = self.unlogged.first_entry() {
            if window < self.windows.last_window(entry.key().0) {
                break;
            }
            entry.remove();
        }
        let (table, to) = (&mut self.scratch, self.spill.as_deref());
        match &mut self.folded {
            Folded::Disjoint => Ok(partials.into_iter().map(|(_, partial)| partial).collect()),
            Folded::Growing(total) => {
                total.push(partials, table, to)?;
                Ok(vec![total.all()])
            }
            Folded::Sliding(stacks) => {
                let first = self.windows.first_slice(window);
                stacks.evict(first, table, to)?;
                stacks.push(partials, table, to)?;
                Ok(stacks.from(first))
            }
        }
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
            for (key, delta) in unlogged {
                delta.stored().for_each(|rows| give(Piece::new(PieceKind::Pane, key, rows)));
            }
        }
        for (&(first_open, slice), pane) in &mut self.open {
            pane.checkpoint(whole, &mut |rows| give(Piece::new(PieceKind::Pane, (slice, first_open), rows)))?;
        }
        Ok(())
    }

    /// Takes up what checkpoints have given out, with the watermark of the last one. There are no panes yet.
    pub fn restore(&mut self, watermark: TimeMs, pieces: Vec<Piece>) -> Result<()> {
        self.watermark = watermark;
        let first_open_now = self.windows.first_open(watermark);
        let to = self.spill.clone();
        let to = to.as_deref();
        let mut folded: BTreeMap<PaneKey, Pane> = BTreeMap::new();
        let mut fronts = Vec::new();
        let is_sliding = matches!(self.folded, Folded::Sliding(_));
        let is_wanted = |slice| first_open_now <= self.windows.last_window(slice);
        for piece in pieces {
            match piece.kind {
                PieceKind::Clock => continue,
                PieceKind::Pane => {}
                PieceKind::Turn | PieceKind::Suffix | PieceKind::Older if is_sliding => {
                    fronts.push(piece);
                    continue;
                }
                _ => return Err(unexpected(&piece)),
            }
            let (slice, first_open) = piece.key;
            let pane = if !is_wanted(slice) {
                continue;
            } else if first_open_now <= first_open {
                entry_or(self.open.entry((first_open, slice)), &self.layout)?
            } else {
                entry_or(folded.entry(piece.key), &self.layout)?
            };
            pane.restore(piece.stored()?, &self.layout, to)?;
        }
        self.newest = folded.keys().map(|(slice, _)| *slice).max();
        if let Folded::Sliding(stacks) = &mut self.folded {
            self.newest = self.newest.max(stacks.restore(&self.layout, fronts, to, is_wanted)?);
        }
        let Some(newest) = self.newest else { return Ok(()) };
        self.closed = self.windows.first_window_from(newest, first_open_now) - self.windows.step();
        let mut partials = Vec::with_capacity(folded.len());
        for (key, pane) in folded {
            partials.push((key, pane.into_partials()?.0));
        }
        match &mut self.folded {
            Folded::Disjoint => Err(Error::bug("windows that share no slice have folded panes")),
            Folded::Growing(total) => total.push(partials, &mut self.scratch, to),
            Folded::Sliding(stacks) => stacks.push(partials, &mut self.scratch, to),
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

    /// Where state may go that is too large for memory.
    pub fn set_spill(&mut self, to: &Arc<Spill>) {
        self.spill = Some(Arc::clone(to));
    }

    /// Puts on disk what is needed last, until so many bytes of memory are free. Answers how many are.
    pub fn spill(&mut self, bytes: usize) -> Result<usize> {
        let Some(to) = self.spill.clone() else { return Ok(0) };
        let mut freed = spill_panes(self.open.values_mut().rev(), bytes, true, &mut self.scratch, &to)?;
        for unlogged in self.unlogged.values_mut() {
            freed += unlogged.spill(&self.layout, &to)?;
        }
        if freed < bytes {
            freed += match &mut self.folded {
                Folded::Disjoint => 0,
                Folded::Growing(total) => total.spill(&self.layout, &to)?,
                Folded::Sliding(stacks) => stacks.spill(bytes - freed, &self.layout, &to)?,
            };
        }
        if freed < bytes {
            freed += spill_panes(self.open.values_mut().rev(), bytes - freed, false, &mut self.scratch, &to)?;
        }
        self.open.values_mut().for_each(Pane::cool_down);
        Ok(freed)
    }

    /// Bytes held in memory, as the accumulators report them.
    pub fn size_bytes(&self) -> usize {
        let folded = match &self.folded {
            Folded::Disjoint => 0,
            Folded::Growing(total) => total.size_bytes(),
            Folded::Sliding(stacks) => stacks.size_bytes(),
        };
        let unlogged: usize = self.unlogged.values().map(Resting::memory_bytes).sum();
        folded + unlogged + self.open.values().map(Pane::size_bytes).sum::<usize>()
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> usize {
        let folded = match &self.folded {
            Folded::Disjoint => 0,
            Folded::Growing(total) => total.disk_bytes(),
            Folded::Sliding(stacks) => stacks.disk_bytes(),
        };
        let others = self.unlogged.values().chain(self.closing.iter().flat_map(|closing| &closing.partials));
        let others: usize = others.map(Resting::disk_bytes).sum();
        folded + others + self.open.values().map(Pane::disk_bytes).sum::<usize>()
    }
}

/// What a pane has at least that is put on disk before others.
const PANE_BYTES_MIN: usize = 16 << 10;

/// Puts panes on disk, in this order, until so many bytes of memory are free: with `cold`, large ones that nothing came for.
/// Answers how many are.
pub(super) fn spill_panes<'a>(
    panes: impl Iterator<Item = &'a mut Pane>,
    bytes: usize,
    cold: bool,
    scratch: &mut GroupTable,
    to: &Spill,
) -> Result<usize> {
    let mut panes: Vec<&mut Pane> = panes.filter(|pane| !cold || !pane.is_hot()).collect();
    if !cold {
        panes.sort_by_key(|pane| std::cmp::Reverse(pane.size_bytes()));
    }
    let mut freed = 0;
    for pane in panes {
        if bytes <= freed {
            break;
        }
        if !cold || PANE_BYTES_MIN <= pane.size_bytes() {
            freed += pane.spill(scratch, to)?;
        }
    }
    Ok(freed)
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
