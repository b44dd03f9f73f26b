//! The windows of an aggregate whose results change: they are evaluated more than once, and kept for a time after their
//! end if late rows may still correct them.
//!
//! Panes are those of [`Panes`](super::Panes), but none is folded: each evaluation merges all panes of its window. What
//! has to be evaluated is known from the panes that rows came for; a window that nothing came for is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::layout::AggregateLayout;
use super::pane::Pane;
use super::panes::{Admission, Fired, PaneKey, admit, count_windows, entry_or, spill_panes};
use super::piece::{Piece, PieceKind, unexpected};
use super::spill::Spill;
use super::table::GroupTable;
use crate::error::Result;
use crate::time::{SlicedWindows, TimeMs, WATERMARK_MIN, WindowId, late_from};

/// See the module's head.
pub struct KeptPanes {
    layout: Arc<AggregateLayout>,
    windows: SlicedWindows,
    /// Windows are kept for so long after they have closed.
    lateness_ms: i64,
    panes: BTreeMap<PaneKey, Pane>,
    /// Panes that rows came for since the last boundary.
    touched: BTreeSet<PaneKey>,
    /// Windows that have changed since they were evaluated last.
    changed: BTreeSet<WindowId>,
    watermark: TimeMs,
    spill: Option<Arc<Spill>>,
    /// Empty between two uses.
    scratch: GroupTable,
}

impl KeptPanes {
    /// No pane yet.
    pub fn new(layout: Arc<AggregateLayout>, windows: SlicedWindows, lateness_ms: i64) -> Result<Self> {
        Ok(Self {
            scratch: GroupTable::new(&layout)?,
            layout,
            windows,
            lateness_ms,
            panes: BTreeMap::new(),
            touched: BTreeSet::new(),
            changed: BTreeSet::new(),
            watermark: WATERMARK_MIN,
            spill: None,
        })
    }

    /// Where rows of this slice go, given their first open window: windows that are no longer kept take nothing.
    pub fn admit(&self, key: PaneKey) -> Admission {
        admit(&self.windows, key, late_from(self.watermark, self.lateness_ms))
    }

    /// The table that takes updates for a pane.
    pub fn delta(&mut self, key: PaneKey) -> Result<&mut GroupTable> {
        self.touched.insert(key);
        Ok(entry_or(self.panes.entry(key), &self.layout)?.live())
    }

    /// Moves the watermark and evaluates every window that has changed and is closed, or any with `open_too`; then
    /// forgets what is no longer kept. Answers the first window that is.
    pub fn advance(
        &mut self,
        watermark: TimeMs,
        open_too: bool,
        mut give: impl FnMut(Fired) -> Result<()>,
    ) -> Result<WindowId> {
        assert!(self.watermark <= watermark, "a watermark never falls");
        self.watermark = watermark;
        self.find_changed();
        let first_open = self.windows.first_open(watermark);
        while let Some(&window) = self.changed.first() {
            if !open_too && first_open <= window {
                break;
            }
            self.changed.pop_first();
            give(self.evaluate(window)?)?;
        }
        let first_kept = self.windows.first_open(late_from(watermark, self.lateness_ms));
        while let Some(entry) = self.panes.first_entry() {
            if first_kept <= self.windows.last_window(entry.key().0) {
                break;
            }
            entry.remove();
        }
        Ok(first_kept)
    }

    fn find_changed(&mut self) {
        for key in std::mem::take(&mut self.touched) {
            self.changed.extend(windows_of(&self.windows, key).step_by(self.windows.step() as usize));
        }
    }

    fn evaluate(&mut self, window: WindowId) -> Result<Fired> {
        let slices = (self.windows.first_slice(window), WindowId::MIN)..(window, WindowId::MIN);
        for ((_, first_open), pane) in self.panes.range_mut(slices) {
            if *first_open <= window {
                pane.merge_into(&mut self.scratch)?;
            }
        }
        let (rows, columns) = self.scratch.finish()?;
        Ok(Fired { window, rows, columns })
    }

    /// A checkpoint: gives out what has come for every pane since the last one, or everything.
    pub fn checkpoint(&mut self, whole: bool, give: &mut dyn FnMut(Piece)) -> Result<()> {
        for (&key, pane) in &mut self.panes {
            pane.checkpoint(whole, &mut |rows| give(Piece::new(PieceKind::Pane, key, rows)))?;
        }
        Ok(())
    }

    /// The first window that is open.
    pub fn first_open(&self) -> WindowId {
        self.windows.first_open(self.watermark)
    }

    /// Takes up panes that checkpoints have given out, with the watermark of the last one. Windows that were evaluated at
    /// every boundary are evaluated, so that it is known what was given out of them: those that have closed, and with
    /// `open_too` the others. There are no panes yet.
    pub fn restore(
        &mut self,
        watermark: TimeMs,
        open_too: bool,
        pieces: Vec<Piece>,
        mut given: impl FnMut(Fired) -> Result<()>,
    ) -> Result<()> {
        self.watermark = watermark;
        let first_kept = self.windows.first_open(late_from(watermark, self.lateness_ms));
        for piece in pieces {
            let key = piece.key;
            if piece.kind != PieceKind::Pane {
                return Err(unexpected(&piece));
            }
            if first_kept <= self.windows.last_window(key.0) {
                let pane = entry_or(self.panes.entry(key), &self.layout)?;
                pane.restore(piece.stored()?, &self.layout, self.spill.as_deref())?;
                self.touched.insert(key);
            }
        }
        self.find_changed();
        self.changed = self.changed.split_off(&first_kept);
        let not_evaluated = if open_too { BTreeSet::new() } else { self.changed.split_off(&self.first_open()) };
        let evaluated = std::mem::replace(&mut self.changed, not_evaluated);
        evaluated.into_iter().try_for_each(|window| given(self.evaluate(window)?))
    }

    /// The end of the window that closes next.
    pub fn next_close(&self) -> Option<TimeMs> {
        let first_open = self.windows.first_open(self.watermark);
        let first_of = |&(slice, first): &PaneKey| {
            let window = self.windows.first_window_from(slice, first.max(first_open));
            (window <= self.windows.last_window(slice)).then_some(window)
        };
        self.panes.keys().filter_map(first_of).min().map(|window| self.windows.bounds(window).1)
    }

    /// The number of windows with rows that are kept.
    pub fn open_windows(&self) -> usize {
        let first_kept = self.windows.first_open(late_from(self.watermark, self.lateness_ms));
        let mut ranges: Vec<(WindowId, WindowId)> = self
            .panes
            .keys()
            .map(|&(slice, first_open)| {
                let first = self.windows.first_window_from(slice, first_open.max(first_kept));
                (first, self.windows.last_window(slice))
            })
            .collect();
        ranges.sort_unstable();
        count_windows(ranges.into_iter(), self.windows.step())
    }

    /// Where state may go that is too large for memory.
    pub fn set_spill(&mut self, to: &Arc<Spill>) {
        self.spill = Some(Arc::clone(to));
    }

    /// Puts panes on disk until so many bytes of memory are free. Answers how many are.
    pub fn spill(&mut self, bytes: usize) -> Result<usize> {
        let Some(to) = self.spill.clone() else { return Ok(0) };
        let mut freed = spill_panes(self.panes.values_mut(), bytes, true, &mut self.scratch, &to)?;
        if freed < bytes {
            freed += spill_panes(self.panes.values_mut(), bytes - freed, false, &mut self.scratch, &to)?;
        }
        self.panes.values_mut().for_each(Pane::cool_down);
        Ok(freed)
    }

    /// Bytes held in memory, as the accumulators report them.
    pub fn size_bytes(&self) -> usize {
        self.panes.values().map(Pane::size_bytes).sum()
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> usize {
        self.panes.values().map(Pane::disk_bytes).sum()
    }
}

/// From the first to the last window that a pane counts for.
fn windows_of(windows: &SlicedWindows, (slice, first_open): PaneKey) -> RangeInclusive<WindowId> {
    first_open..=windows.last_window(slice)
}
