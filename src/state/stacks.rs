//! Sliding windows at constant cost: the slices of a window merged by two stacks.
//!
//! A window that slides loses its oldest slices and gains new ones, and a partial cannot be taken out of a merge. So the
//! slices are kept as a *front* of suffix merges and a *back* with one running total: a window is the front from its
//! first slice on, merged with the back's total. When the last slice of the front has left, the back becomes the front.
//! Each slice is merged a fixed number of times, however many slices a window has (K. Tangwongsan, M. Hirzel,
//! S. Schneider: Low-Latency Sliding-Window Aggregation in Worst-Case Constant Time, 2017; there "two-stacks").
//!
//! Partials are tables of groups, not single values, and with many keys the suffixes of slices that share none would be
//! as many copies of the whole window. So a suffix is only merged where it saves work: once the slices in front of the
//! last one weigh as much as that one does. Between two suffixes the slices lie one behind the other in one batch, whose
//! tail is merged on top. So neither a window's cost nor the front's memory is ever more than a few times what the
//! window's result and its slices need anyway; where the slices share their keys, every slice is a suffix.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::layout::AggregateLayout;
use super::panes::PaneKey;
use super::piece::{Piece, PieceKind, unexpected};
use super::resting::{Resting, merged};
use super::spill::{Spill, Stored};
use super::table::GroupTable;
use crate::error::Result;
use crate::time::{SliceId, WindowId};

/// See the module's head.
#[derive(Default)]
pub(super) struct Stacks {
    /// One; and after a checkpoint was taken up, one of each worker that gave it out, until the back turns over. They cannot
    /// be one: each worker has its suffixes where its own groups want them.
    fronts: Vec<Front>,
    /// What came for slices that were in the front already: rows that were late for some windows.
    stragglers: BTreeMap<PaneKey, Resting>,
    back: BTreeMap<PaneKey, Resting>,
    back_total: Option<Resting>,
    /// Slices before this one are the fronts'.
    turn: Option<SliceId>,
}

/// What was the back of a worker once.
struct Front {
    /// Oldest first.
    suffixes: VecDeque<Suffix>,
    /// The slice behind the last one.
    end: SliceId,
}

/// Makes the numbers by which a checkpoint tells fronts apart: all of its pieces are of one process.
static FRONTS: AtomicI64 = AtomicI64::new(0);

/// The merge of all slices of a front from one on.
struct Suffix {
    from: SliceId,
    merged: Resting,
    /// Slices between the suffix before this one and `from`, as they are, oldest first.
    older: Older,
}

enum Older {
    /// One behind the other in a batch; and at which row each begins.
    Together(Option<RecordBatch>, Vec<(SliceId, usize)>),
    /// Each on its own: some are on disk.
    Apart(Vec<(SliceId, Resting)>),
}

impl Stacks {
    /// Forgets slices before the first one of the window that closes now.
    pub(super) fn evict(&mut self, first: SliceId, scratch: &mut GroupTable, to: Option<&Spill>) -> Result<()> {
        if self.back.first_key_value().is_some_and(|((slice, _), _)| *slice < first) {
            self.turn_over(first, scratch, to)?;
        }
        for Front { suffixes, .. } in &mut self.fronts {
            while suffixes.front().is_some_and(|suffix| suffix.from < first) {
                suffixes.pop_front();
            }
        }
        self.fronts.retain(|front| !front.suffixes.is_empty());
        while self.stragglers.first_key_value().is_some_and(|((slice, _), _)| *slice < first) {
            self.stragglers.pop_first();
        }
        Ok(())
    }

    /// Takes panes that get no more rows.
    pub(super) fn push(
        &mut self,
        panes: Vec<(PaneKey, Resting)>,
        scratch: &mut GroupTable,
        to: Option<&Spill>,
    ) -> Result<()> {
        let mut more = Vec::new();
        for (key, partial) in panes {
            if self.turn.is_some_and(|turn| key.0 < turn) {
                self.stragglers.insert(key, partial);
            } else {
                more.push(partial.clone());
                self.back.insert(key, partial);
            }
        }
        if !more.is_empty() {
            self.back_total = Some(merged(self.back_total.take().into_iter().chain(more).collect(), scratch, to)?);
        }
        Ok(())
    }

    /// What makes up all slices from one on, the first of the window that closes now.
    pub(super) fn from(&self, first: SliceId) -> Vec<Resting> {
        let mut all = Vec::new();
        for suffix in self.fronts.iter().filter_map(|front| front.suffixes.front()) {
            all.push(suffix.merged.clone());
            match &suffix.older {
                Older::Together(older, starts) => {
                    if let (Some(older), Some((_, row))) = (older, starts.iter().find(|(s, _)| first <= *s)) {
                        all.push(older.slice(*row, older.num_rows() - row).into());
                    }
                }
                Older::Apart(slices) => {
                    all.extend(slices.iter().filter(|(slice, _)| first <= *slice).map(|(_, partial)| partial.clone()));
                }
            }
        }
        all.extend(self.back_total.iter().chain(self.stragglers.values()).cloned());
        all
    }

    /// The back becomes the front.
    fn turn_over(&mut self, first: SliceId, scratch: &mut GroupTable, to: Option<&Spill>) -> Result<()> {
        let slices = self.back.split_off(&(first, WindowId::MIN));
        self.back.clear();
        self.back_total = None;
        self.fronts.clear();
        let Some(((newest, _), _)) = slices.last_key_value() else { return Ok(()) };
        let end = newest + 1;
        self.turn = Some(end);
        let mut suffixes: VecDeque<Suffix> = VecDeque::new();
        let layout = Arc::clone(scratch.layout());
        // Newest first; a slice may have several panes, which stay together.
        let mut waiting: Vec<(SliceId, Resting)> = Vec::new();
        let mut weight = 0;
        let mut slices = slices.into_iter().rev().peekable();
        while let Some(((slice, _), partial)) = slices.next() {
            weight += partial.bytes();
            waiting.push((slice, partial));
            if slices.peek().is_some_and(|((next, _), _)| *next == slice) {
                continue;
            }
            let newer = suffixes.front_mut();
            if newer.as_ref().is_some_and(|newer| weight < newer.merged.bytes()) {
                continue;
            }
            let all = newer.as_ref().map(|n| &n.merged).into_iter().chain(waiting.iter().map(|(_, p)| p));
            let suffix = merged(all.cloned().collect(), scratch, to)?;
            waiting.retain(|(s, _)| *s != slice);
            if let Some(newer) = newer {
                newer.put_before(&layout, &mut waiting)?;
            }
            suffixes.push_front(Suffix { from: slice, merged: suffix, older: Older::none() });
            weight = 0;
        }
        if let Some(oldest) = suffixes.front_mut() {
            oldest.put_before(&layout, &mut waiting)?;
        }
        self.fronts.push(Front { suffixes, end });
        Ok(())
    }

    /// A whole checkpoint: slices of the fronts are given out as they are merged, the others as panes.
    pub(super) fn checkpoint(&self, give: &mut dyn FnMut(Piece)) {
        let numbered = self.fronts.iter().map(|front| (FRONTS.fetch_add(1, Ordering::Relaxed), front));
        let numbered: Vec<(i64, &Front)> = numbered.collect();
        for (number, Front { end, .. }) in &numbered {
            give(Piece { kind: PieceKind::Turn, key: (*end, *number), batch: None });
        }
        let mut give_all = |kind, key, partial: &Resting| {
            partial.stored().for_each(|rows: Stored| give(Piece::new(kind, key, rows)));
        };
        for (front, Front { suffixes, .. }) in numbered {
            for Suffix { from, merged, older } in suffixes {
                give_all(PieceKind::Suffix, (*from, front), merged);
                for (slice, partial) in older.slices() {
                    give_all(PieceKind::Older, (slice, front), &partial);
                }
            }
        }
        for (key, partial) in self.back.iter().chain(&self.stragglers) {
            give_all(PieceKind::Pane, *key, partial);
        }
    }

    /// Takes up the slices of fronts that a checkpoint has given out, where they have some that are still wanted. Answers
    /// the newest one. Nothing has come yet.
    pub(super) fn restore(
        &mut self,
        layout: &AggregateLayout,
        pieces: Vec<Piece>,
        to: Option<&Spill>,
        is_wanted: impl Fn(SliceId) -> bool,
    ) -> Result<Option<SliceId>> {
        let of_turns = pieces.iter().filter(|piece| piece.kind == PieceKind::Turn);
        let ends: BTreeMap<i64, SliceId> = of_turns.map(|piece| (piece.key.1, piece.key.0)).collect();
        let mut fronts: BTreeMap<i64, [BTreeMap<SliceId, Resting>; 2]> = BTreeMap::new();
        for piece in pieces {
            let (kind, (slice, front)) = (piece.kind, piece.key);
            let is_suffix = match kind {
                PieceKind::Turn => continue,
                PieceKind::Suffix => true,
                PieceKind::Older => false,
                _ => return Err(unexpected(&piece)),
            };
            let Some(end) = ends.get(&front) else { return Err(unexpected(&piece)) };
            if is_wanted(if is_suffix { end - 1 } else { slice }) {
                let [suffixes, slices] = fronts.entry(front).or_default();
                let partials = if is_suffix { suffixes } else { slices };
                partials.entry(slice).or_default().put(piece.stored()?, layout, to)?;
            }
        }
        for (front, [mut merged, mut slices]) in fronts {
            let end = ends[&front];
            self.turn = self.turn.max(Some(end));
            // Groups are dealt to workers: one may own some of a slice before a suffix, and none of the suffix. Then the slice
            // lies before the next one, or at last before one of nothing.
            if slices.last_key_value().is_some_and(|(last, _)| merged.last_key_value().is_none_or(|(s, _)| s < last)) {
                merged.insert(end, Resting::default());
            }
            let mut suffixes = VecDeque::with_capacity(merged.len());
            for (from, merged) in merged {
                let mut suffix = Suffix { from, merged, older: Older::none() };
                let newer = slices.split_off(&from);
                let before = std::mem::replace(&mut slices, newer);
                suffix.put_before(layout, &mut before.into_iter().rev().collect())?;
                suffixes.push_back(suffix);
            }
            self.fronts.push(Front { suffixes, end });
        }
        Ok(self.turn.map(|turn| turn - 1))
    }

    /// Puts on disk what it keeps, what is needed last first, until so many bytes of memory are free. Answers how many are.
    pub(super) fn spill(&mut self, bytes: usize, layout: &AggregateLayout, to: &Spill) -> Result<usize> {
        let before = self.size_bytes();
        let is_enough = |this: &Self| bytes <= before.saturating_sub(this.size_bytes());
        for partial in self.back.values_mut().rev() {
            partial.spill(layout, to)?;
        }
        for front in 0..self.fronts.len() {
            for at in (0..self.fronts[front].suffixes.len()).rev() {
                if is_enough(self) {
                    break;
                }
                let suffix = &mut self.fronts[front].suffixes[at];
                suffix.merged.spill(layout, to)?;
                suffix.older.spill(layout, to)?;
            }
        }
        if !is_enough(self) {
            for partial in self.stragglers.values_mut().chain(&mut self.back_total) {
                partial.spill(layout, to)?;
            }
        }
        Ok(before.saturating_sub(self.size_bytes()))
    }

    fn suffixes(&self) -> impl Iterator<Item = &Suffix> {
        self.fronts.iter().flat_map(|front| &front.suffixes)
    }

    fn all(&self) -> impl Iterator<Item = &Resting> {
        let of_fronts = self.suffixes().flat_map(|suffix| {
            let apart = match &suffix.older {
                Older::Together(..) => &[][..],
                Older::Apart(slices) => slices,
            };
            std::iter::once(&suffix.merged).chain(apart.iter().map(|(_, partial)| partial))
        });
        of_fronts.chain(self.back.values()).chain(self.stragglers.values()).chain(&self.back_total)
    }

    /// Bytes held in memory.
    pub(super) fn size_bytes(&self) -> usize {
        let together = self.suffixes().map(|suffix| match &suffix.older {
            Older::Together(Some(older), _) => older.get_array_memory_size(),
            _ => 0,
        });
        self.all().map(Resting::memory_bytes).chain(together).sum()
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> usize {
        self.all().map(Resting::disk_bytes).sum()
    }
}

impl Suffix {
    /// Takes the slices that lie before it, newest first.
    fn put_before(&mut self, layout: &AggregateLayout, slices: &mut Vec<(SliceId, Resting)>) -> Result<()> {
        if slices.is_empty() {
            return Ok(());
        }
        slices.reverse();
        let mut slices = std::mem::take(slices);
        if slices.iter().any(|(_, partial)| partial.is_on_disk()) {
            self.older = Older::Apart(slices);
            return Ok(());
        }
        let (mut row, mut starts, mut batches) = (0, Vec::with_capacity(slices.len()), Vec::new());
        for (slice, partial) in &mut slices {
            starts.push((*slice, row));
            let more = partial.take_memory();
            row += more.iter().map(RecordBatch::num_rows).sum::<usize>();
            batches.extend(more);
        }
        self.older = Older::Together(Some(concat_batches(layout.partial(), &batches)?), starts);
        Ok(())
    }
}

impl Older {
    fn none() -> Self {
        Self::Together(None, Vec::new())
    }

    fn slices(&self) -> Vec<(SliceId, Resting)> {
        match self {
            Self::Apart(slices) => slices.clone(),
            Self::Together(None, _) => Vec::new(),
            Self::Together(Some(older), starts) => {
                let ends = starts.iter().skip(1).map(|(_, row)| *row).chain([older.num_rows()]);
                starts
                    .iter()
                    .zip(ends)
                    .map(|((slice, row), end)| (*slice, older.slice(*row, end - row).into()))
                    .collect()
            }
        }
    }

    fn spill(&mut self, layout: &AggregateLayout, to: &Spill) -> Result<()> {
        let mut slices = self.slices();
        for (_, partial) in &mut slices {
            partial.spill(layout, to)?;
        }
        *self = Self::Apart(slices);
        Ok(())
    }
}

/// The running total of windows that share their start (`CUMULATE`): each window adds slices to the one before.
#[derive(Default)]
pub(super) struct Total(Resting);

impl Total {
    /// Adds panes that get no more rows.
    pub(super) fn push(
        &mut self,
        panes: Vec<(PaneKey, Resting)>,
        scratch: &mut GroupTable,
        to: Option<&Spill>,
    ) -> Result<()> {
        if !panes.is_empty() {
            let before = Some(std::mem::take(&mut self.0)).filter(|before| !before.is_empty());
            self.0 = merged(before.into_iter().chain(panes.into_iter().map(|(_, p)| p)).collect(), scratch, to)?;
        }
        Ok(())
    }

    /// A whole checkpoint: the pane that stands for all.
    pub(super) fn checkpoint(&self, key: PaneKey, give: &mut dyn FnMut(Piece)) {
        self.0.stored().for_each(|rows| give(Piece::new(PieceKind::Pane, key, rows)));
    }

    /// What makes it up.
    pub(super) fn all(&self) -> Resting {
        self.0.clone()
    }

    /// Puts it on disk; answers how many bytes of memory that frees.
    pub(super) fn spill(&mut self, layout: &AggregateLayout, to: &Spill) -> Result<usize> {
        self.0.spill(layout, to)
    }

    /// Bytes held in memory.
    pub(super) fn size_bytes(&self) -> usize {
        self.0.memory_bytes()
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> usize {
        self.0.disk_bytes()
    }
}
