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

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::layout::AggregateLayout;
use super::panes::PaneKey;
use super::piece::{Piece, PieceKind, unexpected};
use super::table::GroupTable;
use crate::error::Result;
use crate::time::{SliceId, WindowId};

/// See the module's head.
#[derive(Default)]
pub(super) struct Stacks {
    /// Oldest first.
    front: VecDeque<Suffix>,
    /// What came for slices that were in the front already: rows that were late for some windows.
    stragglers: BTreeMap<PaneKey, RecordBatch>,
    back: BTreeMap<PaneKey, RecordBatch>,
    back_total: Option<RecordBatch>,
    /// Slices before this one are the front's.
    turn: Option<SliceId>,
}

/// The merge of all slices of the front from one on.
struct Suffix {
    from: SliceId,
    merged: RecordBatch,
    /// Slices between the suffix before this one and `from`, as they are, oldest first; and at which row each begins.
    older: Option<RecordBatch>,
    starts: Vec<(SliceId, usize)>,
}

impl Stacks {
    /// Forgets slices before the first one of the window that closes now.
    pub(super) fn evict(&mut self, layout: &AggregateLayout, first: SliceId, scratch: &mut GroupTable) -> Result<()> {
        if self.back.first_key_value().is_some_and(|((slice, _), _)| *slice < first) {
            self.turn_over(layout, first, scratch)?;
        }
        while self.front.front().is_some_and(|suffix| suffix.from < first) {
            self.front.pop_front();
        }
        while self.stragglers.first_key_value().is_some_and(|((slice, _), _)| *slice < first) {
            self.stragglers.pop_first();
        }
        Ok(())
    }

    /// Takes panes that get no more rows.
    pub(super) fn push(&mut self, panes: Vec<(PaneKey, RecordBatch)>, scratch: &mut GroupTable) -> Result<()> {
        let mut more = Vec::new();
        for (key, partial) in panes {
            if self.turn.is_some_and(|turn| key.0 < turn) {
                self.stragglers.insert(key, partial);
            } else {
                more.push(partial.clone());
                self.back.insert(key, partial);
            }
        }
        let all: Vec<RecordBatch> =
            if more.is_empty() { more } else { self.back_total.take().into_iter().chain(more).collect() };
        if !all.is_empty() {
            self.back_total = Some(merged(all.iter(), scratch)?);
        }
        Ok(())
    }

    /// Merges all slices from one on, the first of the window that closes now.
    pub(super) fn merge_into(&self, first: SliceId, table: &mut GroupTable) -> Result<()> {
        if let Some(suffix) = self.front.front() {
            table.merge(&suffix.merged)?;
            if let (Some(older), Some((_, row))) = (&suffix.older, suffix.starts.iter().find(|(s, _)| first <= *s)) {
                table.merge(&older.slice(*row, older.num_rows() - row))?;
            }
        }
        self.back_total.iter().chain(self.stragglers.values()).try_for_each(|partial| table.merge(partial))
    }

    /// The back becomes the front.
    fn turn_over(&mut self, layout: &AggregateLayout, first: SliceId, scratch: &mut GroupTable) -> Result<()> {
        let slices = self.back.split_off(&(first, WindowId::MIN));
        self.back.clear();
        self.back_total = None;
        self.front.clear();
        let Some(((newest, _), _)) = slices.last_key_value() else { return Ok(()) };
        self.turn = Some(newest + 1);
        // Newest first; a slice may have several panes, which stay together.
        let mut waiting: Vec<(SliceId, RecordBatch)> = Vec::new();
        let mut weight = 0;
        let mut slices = slices.into_iter().rev().peekable();
        while let Some(((slice, _), partial)) = slices.next() {
            weight += partial.get_array_memory_size();
            waiting.push((slice, partial));
            if slices.peek().is_some_and(|((next, _), _)| *next == slice) {
                continue;
            }
            let newer = self.front.front_mut();
            if newer.as_ref().is_some_and(|newer| weight < newer.merged.get_array_memory_size()) {
                continue;
            }
            let all = newer.as_ref().map(|n| &n.merged).into_iter().chain(waiting.iter().map(|(_, p)| p));
            let suffix = merged(all, scratch)?;
            waiting.retain(|(s, _)| *s != slice);
            if let Some(newer) = newer {
                newer.put_before(layout, &mut waiting)?;
            }
            self.front.push_front(Suffix { from: slice, merged: suffix, older: None, starts: Vec::new() });
            weight = 0;
        }
        match self.front.front_mut() {
            Some(oldest) => oldest.put_before(layout, &mut waiting),
            None => Ok(()),
        }
    }

    /// A whole checkpoint: slices of the front are given out as they are merged, the others as panes.
    pub(super) fn checkpoint(&self, give: &mut dyn FnMut(Piece)) {
        let turn = self.turn.unwrap_or(SliceId::MIN);
        if !self.front.is_empty() {
            give(Piece { kind: PieceKind::Turn, key: (turn, 0), batch: None });
        }
        for Suffix { from, merged, older, starts } in &self.front {
            give(Piece::new(PieceKind::Suffix, (*from, turn), merged.clone()));
            let Some(older) = older else { continue };
            let ends = starts.iter().skip(1).map(|(_, row)| *row).chain([older.num_rows()]);
            for ((slice, row), end) in starts.iter().zip(ends) {
                give(Piece::new(PieceKind::Older, (*slice, *from), older.slice(*row, end - row)));
            }
        }
        for (key, partial) in self.back.iter().chain(&self.stragglers) {
            give(Piece::new(PieceKind::Pane, *key, partial.clone()));
        }
    }

    /// Takes up the slices of the front that a checkpoint has given out. Nothing has come yet.
    pub(super) fn restore(&mut self, layout: &AggregateLayout, pieces: Vec<Piece>) -> Result<()> {
        let mut front: BTreeMap<SliceId, (Option<RecordBatch>, Vec<(SliceId, RecordBatch)>)> = BTreeMap::new();
        for piece in pieces {
            let (kind, key) = (piece.kind, piece.key);
            match kind {
                PieceKind::Turn => self.turn = Some(key.0),
                PieceKind::Suffix => front.entry(key.0).or_default().0 = Some(piece.rows()?),
                PieceKind::Older => front.entry(key.1).or_default().1.push((key.0, piece.rows()?)),
                _ => return Err(unexpected(&piece)),
            }
        }
        for (from, (merged, mut slices)) in front {
            // Groups are dealt to workers: one may own some of the slices before a suffix, and none of its own.
            let merged = merged.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(layout.partial())));
            let mut suffix = Suffix { from, merged, older: None, starts: Vec::new() };
            slices.sort_by_key(|(slice, _)| std::cmp::Reverse(*slice));
            suffix.put_before(layout, &mut slices)?;
            self.front.push_back(suffix);
        }
        Ok(())
    }

    /// Bytes held.
    pub(super) fn size_bytes(&self) -> usize {
        let suffixes = self.front.iter().flat_map(|s| std::iter::once(&s.merged).chain(&s.older));
        let others = self.back.values().chain(self.stragglers.values()).chain(&self.back_total);
        suffixes.chain(others).map(RecordBatch::get_array_memory_size).sum()
    }
}

impl Suffix {
    /// Takes the slices that lie before it, newest first.
    fn put_before(&mut self, layout: &AggregateLayout, slices: &mut Vec<(SliceId, RecordBatch)>) -> Result<()> {
        if slices.is_empty() {
            return Ok(());
        }
        slices.reverse();
        let mut row = 0;
        for (slice, partial) in slices.iter() {
            self.starts.push((*slice, row));
            row += partial.num_rows();
        }
        self.older = Some(concat_batches(layout.partial(), slices.iter().map(|(_, partial)| partial))?);
        slices.clear();
        Ok(())
    }
}

/// The merge of partials, of one at least.
fn merged<'a>(mut partials: impl Iterator<Item = &'a RecordBatch>, scratch: &mut GroupTable) -> Result<RecordBatch> {
    let (first, second) = (partials.next(), partials.next());
    if let (Some(only), None) = (first, second) {
        return Ok(only.clone());
    }
    for partial in first.into_iter().chain(second).chain(partials) {
        scratch.merge(partial)?;
    }
    scratch.take_partial()
}

/// The running total of windows that share their start (`CUMULATE`): each window adds slices to the one before.
#[derive(Default)]
pub(super) struct Total(Option<RecordBatch>);

impl Total {
    /// Adds panes that get no more rows.
    pub(super) fn push(&mut self, panes: Vec<(PaneKey, RecordBatch)>, scratch: &mut GroupTable) -> Result<()> {
        if !panes.is_empty() {
            let before = self.0.take();
            self.0 = Some(merged(before.iter().chain(panes.iter().map(|(_, partial)| partial)), scratch)?);
        }
        Ok(())
    }

    /// A whole checkpoint: the pane that stands for all.
    pub(super) fn checkpoint(&self, key: PaneKey, give: &mut dyn FnMut(Piece)) {
        self.0.iter().for_each(|total| give(Piece::new(PieceKind::Pane, key, total.clone())));
    }

    /// Merges it into a table.
    pub(super) fn merge_into(&self, table: &mut GroupTable) -> Result<()> {
        self.0.iter().try_for_each(|total| table.merge(total))
    }

    /// Bytes held.
    pub(super) fn size_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, RecordBatch::get_array_memory_size)
    }
}
