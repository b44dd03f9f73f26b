//! The open sessions of an aggregate.
//!
//! Time is cut into slices as long as the gap. Two rows of a key in one slice are always of one session, and a session
//! goes on only from a slice to its neighbour. So a session is a chain of partials, one per slice: a slice has a group
//! per key, with the first and the last time of its rows. It is the same partials that cross between workers and that a
//! checkpoint would log.
//!
//! A slice is *closed* when the watermark has passed it: nothing comes to it any more. A group of a closed slice whose
//! last time plus the gap the watermark has reached is of one of two kinds. If the key's group in the next slice begins
//! within the gap, it is carried on: merged into that, base into base and delta into delta. If not, the session has
//! ended. The other groups wait. Of all closed slices only the last one can have groups that wait, for the gap behind
//! those of an earlier one ends with the next slice at the latest.
//!
//! A checkpoint's delta has each group at the slice of its first time, from which it has been carried since the
//! checkpoint before, maybe over many. All deltas, put into their slices in order, make the same sessions again: a group
//! whose last time lies behind its slice is carried on first of all. One thing deltas alone do not tell: a row of a
//! partition that was idle may come within the gap of a session that has ended, and begins one of its own. So a delta says
//! of each group whether it has joined what was there; what has not is put in after sessions have ended as they did then.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{interleave, take_record_batch};
use arrow::datatypes::Int64Type;

use super::layout::AggregateLayout;
use super::piece::{Piece, PieceKind, unexpected};
use super::table::GroupTable;
use crate::error::Result;
use crate::time::{Axis, SliceId, TimeMs, WATERMARK_MIN};

/// When the next session ends is asked at every boundary: no more groups than this are looked at.
const LOOKED_AT_MAX: usize = 10_000;

/// All open sessions of one aggregate on one worker.
pub struct Sessions {
    layout: Arc<AggregateLayout>,
    gap_ms: i64,
    axis: Axis,
    slices: BTreeMap<SliceId, Slice>,
    watermark: TimeMs,
}

/// Sessions that have ended, by their end.
pub struct Ended {
    /// How many.
    pub rows: usize,
    /// The keys' columns, then a column of results per aggregate, then first and last times.
    pub columns: Vec<ArrayRef>,
}

/// The groups of a slice.
enum Slice {
    /// It takes updates.
    Open { base: GroupTable, delta: GroupTable },
    /// The watermark has passed it.
    Closed(Closed),
}

struct Closed {
    base: RecordBatch,
    delta: RecordBatch,
    /// Later ones first.
    groups: Vec<ClosedGroup>,
}

/// A group of a closed slice, and its rows in the two batches.
#[derive(Clone, Copy)]
struct ClosedGroup {
    last: TimeMs,
    base: Option<u32>,
    delta: Option<u32>,
}

impl Sessions {
    /// No session yet. The layout has spans.
    pub fn new(layout: Arc<AggregateLayout>, gap_ms: i64) -> Self {
        let axis = Axis::Fixed { slice_ms: gap_ms, offset_ms: 0 };
        Self { layout, gap_ms, axis, slices: BTreeMap::new(), watermark: WATERMARK_MIN }
    }

    /// The table that takes updates for a slice; `None` when the slice is closed. Rows can only come to a closed slice
    /// if their partition was idle.
    pub fn delta(&mut self, slice: SliceId) -> Result<Option<&mut GroupTable>> {
        if self.axis.start_of(slice + 1) - 1 <= self.watermark {
            return Ok(None);
        }
        match open(&mut self.slices, &self.layout, slice)? {
            Slice::Open { delta, .. } => Ok(Some(delta)),
            Slice::Closed(_) => Ok(None),
        }
    }

    /// Moves the watermark and gives out the sessions whose end it has reached, in the order of their ends.
    pub fn close_until(&mut self, watermark: TimeMs, mut emit: impl FnMut(Ended) -> Result<()>) -> Result<()> {
        assert!(self.watermark <= watermark, "a watermark never falls");
        self.watermark = watermark;
        while let Some(entry) = self.slices.first_entry() {
            let slice = *entry.key();
            if watermark < self.axis.start_of(slice + 1) {
                break;
            }
            let mut closed = entry.remove().close(&self.layout)?;
            let reaching = closed.take_reaching(self.axis.start_of(slice + 1));
            if !reaching.is_empty()
                && let Slice::Open { base, delta } = open(&mut self.slices, &self.layout, slice + 1)?
            {
                closed.merge_into(&reaching, base, delta)?;
            }
            let due = closed.take_due(watermark.saturating_sub(self.gap_ms));
            let due = match self.slices.get_mut(&(slice + 1)) {
                Some(Slice::Open { base, delta }) => closed.carry(due, self.gap_ms, base, delta, &self.layout)?,
                _ => due,
            };
            if !due.is_empty() {
                emit(closed.finish(&due, &self.layout)?)?;
            }
            if !closed.groups.is_empty() {
                self.slices.insert(slice, Slice::Closed(closed));
                break;
            }
        }
        Ok(())
    }

    /// A checkpoint: gives out what changed since the last one, or everything, each group at the slice of its first time,
    /// and merges it into the base.
    pub fn checkpoint(&mut self, whole: bool, give: &mut dyn FnMut(Piece)) -> Result<()> {
        let keys = self.layout.keys().fields().len();
        for slice in self.slices.values_mut() {
            if let Slice::Closed(closed) = slice {
                *slice = closed.open(&self.layout)?;
            }
            let Slice::Open { base, delta } = slice else { continue };
            let mut given = delta.take_partial()?;
            let mut goes_on = vec![false; given.num_rows()];
            if whole {
                base.merge(&given)?;
                given = base.take_partial()?;
                goes_on = vec![false; given.num_rows()];
            } else if 0 < given.num_rows() {
                let groups = base.find(given.num_rows(), &given.columns()[..keys])?.to_vec();
                let (first, _) = base.spans();
                goes_on.iter_mut().zip(groups).for_each(|(goes_on, group)| *goes_on = first[group] != TimeMs::MAX);
            }
            base.merge(&given)?;
            let mut groups: BTreeMap<(PieceKind, SliceId), Vec<u32>> = BTreeMap::new();
            let first = given.column(given.num_columns() - 2).as_primitive::<Int64Type>().values();
            for ((&first, goes_on), row) in first.iter().zip(goes_on).zip(0..) {
                let kind = if goes_on { PieceKind::GoesOn } else { PieceKind::Begun };
                groups.entry((kind, self.axis.slice_of(first))).or_default().push(row);
            }
            for ((kind, first), rows) in groups {
                let rows = take_record_batch(&given, &UInt32Array::from(rows))?;
                give(Piece::new(kind, (first, first + 1), rows));
            }
        }
        Ok(())
    }

    /// Takes up what a checkpoint with this watermark has given out, after those before it. Sessions that have ended since
    /// the one before are forgotten, once they have been given what joined them: what has begun since then may lie within
    /// the gap of one, and is none of it.
    pub fn restore(&mut self, watermark: TimeMs, pieces: Vec<Piece>) -> Result<()> {
        let (mut go_on, mut begun) = (Vec::new(), Vec::new());
        for piece in pieces {
            match piece.kind {
                PieceKind::GoesOn => go_on.push(piece),
                PieceKind::Begun => begun.push(piece),
                _ => return Err(unexpected(&piece)),
            }
        }
        self.put(go_on)?;
        self.close_until(watermark, |_| Ok(()))?;
        self.put(begun)
    }

    /// Puts groups into their slices, which may be closed.
    fn put(&mut self, pieces: Vec<Piece>) -> Result<()> {
        for piece in pieces {
            let slice = open(&mut self.slices, &self.layout, piece.key.0)?;
            if let Slice::Closed(closed) = slice {
                *slice = closed.open(&self.layout)?;
            }
            if let Slice::Open { base, .. } = slice {
                base.merge(&piece.rows()?)?;
            }
        }
        Ok(())
    }

    /// The earliest time at which a session may end: rows may yet prolong it. Only the first slice with any is looked
    /// at, as no session of another one ends before its own; of many groups only the slice's start.
    pub fn next_close(&self) -> Option<TimeMs> {
        let last_of = |(slice, groups): (&SliceId, &Slice)| match groups {
            Slice::Open { base, delta } if base.len() + delta.len() <= LOOKED_AT_MAX => {
                let lasts = base.spans().1.iter().chain(delta.spans().1);
                // Groups without a row have no time.
                lasts.filter(|last| **last != TimeMs::MIN).min().copied()
            }
            Slice::Open { .. } => Some(self.axis.start_of(*slice)),
            Slice::Closed(closed) => closed.groups.last().map(|group| group.last),
        };
        let last = self.slices.iter().find_map(last_of);
        last.map(|last| last.saturating_add(self.gap_ms))
    }

    /// About how many sessions are open: one that spans slices counts in each.
    pub fn open_windows(&self) -> usize {
        let groups = |slice: &Slice| match slice {
            Slice::Open { base, delta } => base.len().max(delta.len()),
            Slice::Closed(closed) => closed.groups.len(),
        };
        self.slices.values().map(groups).sum()
    }

    /// Bytes held, as the accumulators report them.
    pub fn size_bytes(&self) -> usize {
        let bytes = |slice: &Slice| match slice {
            Slice::Open { base, delta } => base.size_bytes() + delta.size_bytes(),
            Slice::Closed(closed) => closed.base.get_array_memory_size() + closed.delta.get_array_memory_size(),
        };
        self.slices.values().map(bytes).sum()
    }
}

fn open<'a>(
    slices: &'a mut BTreeMap<SliceId, Slice>,
    layout: &Arc<AggregateLayout>,
    slice: SliceId,
) -> Result<&'a mut Slice> {
    use std::collections::btree_map::Entry;
    Ok(match slices.entry(slice) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            entry.insert(Slice::Open { base: GroupTable::new(layout)?, delta: GroupTable::new(layout)? })
        }
    })
}

impl Slice {
    fn close(self, layout: &AggregateLayout) -> Result<Closed> {
        let (mut base, mut delta) = match self {
            Self::Open { base, delta } => (base, delta),
            Self::Closed(closed) => return Ok(closed),
        };
        let delta = delta.take_partial()?;
        let none = ClosedGroup { last: TimeMs::MIN, base: None, delta: None };
        let mut groups = Vec::new();
        let mut rows = 0..;
        for &last in base.spans().1 {
            groups.push(if last == TimeMs::MIN { none } else { ClosedGroup { last, base: rows.next(), delta: None } });
        }
        let lasts = delta.column(delta.num_columns() - 1).as_primitive::<Int64Type>().values();
        let keys = &delta.columns()[..layout.keys().fields().len()];
        for ((&group, &last), row) in base.find(delta.num_rows(), keys)?.iter().zip(lasts).zip(0..) {
            groups.resize(groups.len().max(group + 1), none);
            groups[group].last = groups[group].last.max(last);
            groups[group].delta = Some(row);
        }
        groups.retain(|group| group.base.is_some() || group.delta.is_some());
        groups.sort_by_key(|group| std::cmp::Reverse(group.last));
        Ok(Closed { base: base.take_partial()?, delta, groups })
    }
}

impl Closed {
    /// The groups whose last time is not behind this one, earlier ones first; they are no longer among the others.
    fn take_due(&mut self, last: TimeMs) -> Vec<ClosedGroup> {
        let mut due = self.groups.split_off(self.groups.partition_point(|group| last < group.last));
        due.reverse();
        due
    }

    /// The groups whose last time is not before this one; they are no longer among the others.
    fn take_reaching(&mut self, time: TimeMs) -> Vec<ClosedGroup> {
        let rest = self.groups.split_off(self.groups.partition_point(|group| time <= group.last));
        std::mem::replace(&mut self.groups, rest)
    }

    fn merge_into(&self, groups: &[ClosedGroup], base: &mut GroupTable, delta: &mut GroupTable) -> Result<()> {
        base.merge(&self.of_base(groups)?)?;
        delta.merge(&self.of_delta(groups)?)
    }

    /// Merges those of the groups that go on in the next slice into it; answers the others.
    fn carry(
        &self,
        due: Vec<ClosedGroup>,
        gap_ms: i64,
        base: &mut GroupTable,
        delta: &mut GroupTable,
        layout: &AggregateLayout,
    ) -> Result<Vec<ClosedGroup>> {
        if due.is_empty() {
            return Ok(due);
        }
        let keys = self.keys(&due, layout)?;
        let mut goes_on = vec![false; due.len()];
        for table in [&mut *base, &mut *delta] {
            let groups = table.find(due.len(), &keys)?.to_vec();
            let (first, _) = table.spans();
            for ((goes_on, group), due) in goes_on.iter_mut().zip(groups).zip(&due) {
                *goes_on |= first[group].saturating_sub(due.last) <= gap_ms;
            }
        }
        let (carried, ended): (Vec<_>, Vec<_>) = due.into_iter().zip(goes_on).partition(|(_, goes_on)| *goes_on);
        let carried: Vec<ClosedGroup> = carried.into_iter().map(|(group, _)| group).collect();
        self.merge_into(&carried, base, delta)?;
        Ok(ended.into_iter().map(|(group, _)| group).collect())
    }

    fn finish(&self, groups: &[ClosedGroup], layout: &Arc<AggregateLayout>) -> Result<Ended> {
        let mut table = GroupTable::new(layout)?;
        // In the order of the groups.
        table.find(groups.len(), &self.keys(groups, layout)?)?;
        for part in [self.of_base(groups)?, self.of_delta(groups)?] {
            table.merge(&part)?;
        }
        let (rows, columns) = table.finish()?;
        Ok(Ended { rows, columns })
    }

    /// As a slice whose tables can be read and changed.
    fn open(&self, layout: &Arc<AggregateLayout>) -> Result<Slice> {
        let (mut base, mut delta) = (GroupTable::new(layout)?, GroupTable::new(layout)?);
        self.merge_into(&self.groups, &mut base, &mut delta)?;
        Ok(Slice::Open { base, delta })
    }

    fn keys(&self, groups: &[ClosedGroup], layout: &AggregateLayout) -> Result<Vec<ArrayRef>> {
        let at = |group: &ClosedGroup| match (group.base, group.delta) {
            (Some(row), _) => (0, row as usize),
            (None, row) => (1, row.unwrap_or_default() as usize),
        };
        let at: Vec<(usize, usize)> = groups.iter().map(at).collect();
        (0..layout.keys().fields().len())
            .map(|key| Ok(interleave(&[self.base.column(key) as &dyn Array, self.delta.column(key)], &at)?))
            .collect()
    }

    fn of_base(&self, groups: &[ClosedGroup]) -> Result<RecordBatch> {
        let rows = UInt32Array::from_iter_values(groups.iter().filter_map(|group| group.base));
        Ok(take_record_batch(&self.base, &rows)?)
    }

    fn of_delta(&self, groups: &[ClosedGroup]) -> Result<RecordBatch> {
        let rows = UInt32Array::from_iter_values(groups.iter().filter_map(|group| group.delta));
        Ok(take_record_batch(&self.delta, &rows)?)
    }
}
