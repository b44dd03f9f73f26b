//! Rows that are turned away: which they are, what becomes of them, and what a topic of such rows tells about them.
//!
//! A row over which an expression fails is found by bisection, so that the rest of its batch goes on. It is bad if, and
//! only if, the expression fails over it alone: which rows are bad does not depend on how they were cut into batches.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat, filter, filter_record_batch, take};
use arrow::datatypes::Int64Type;

use super::{Lineage, Output};
use crate::connectors::{OnError, Policies, RawRecord};
use crate::error::{Blame, Error, Result};
use crate::plan::Hidden;
use crate::time::TimeMs;

/// Where a row was read: what breaks ties between rows of one event time, and what names a rejected one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowOrigin {
    /// The source's place among the sources of the plan.
    pub source: u16,
    /// The index of the partition in the source.
    pub partition: u32,
    /// The offset.
    pub offset: i64,
}

impl RowOrigin {
    /// How many bytes it has.
    pub const BYTES: usize = 14;

    /// Bytes whose order is that of source, partition, offset.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0_u8; Self::BYTES];
        bytes[..2].copy_from_slice(&self.source.to_be_bytes());
        bytes[2..6].copy_from_slice(&self.partition.to_be_bytes());
        bytes[6..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// From such bytes, before which a union may have put its branch.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (_, bytes) = bytes.split_last_chunk::<{ Self::BYTES }>()?;
        let (source, rest) = bytes.split_first_chunk()?;
        let (partition, offset) = rest.split_first_chunk()?;
        Some(Self {
            source: u16::from_be_bytes(*source),
            partition: u32::from_be_bytes(*partition),
            offset: i64::from_be_bytes(offset.try_into().ok()?),
        })
    }
}

/// Why a row was turned away.
#[derive(Clone, Debug, PartialEq)]
pub enum Rejection {
    /// It is late for windows.
    Late {
        /// Its event time.
        time: TimeMs,
        /// The watermark of its partition before it.
        watermark: TimeMs,
        /// The windows that had closed.
        missed: Missed,
        /// Whether it is in time for other windows, and used for those.
        partly: bool,
    },
    /// It does not decode, or an expression fails over it.
    Failed(String),
}

/// Windows that a row is late for. A row may be in thousands of windows that slide, so only their ends are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The first of them: first instant, and first instant after.
    pub first: (TimeMs, TimeMs),
    /// The last of them.
    pub last: (TimeMs, TimeMs),
    /// How many they are.
    pub count: u64,
}

/// A row that was turned away and is wanted somewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// Where it was read.
    pub origin: RowOrigin,
    /// The record.
    pub record: RawRecord,
    /// Why.
    pub rejection: Rejection,
}

/// Finds origin and record of rows in batches of one layout.
#[derive(Clone, Copy, Debug)]
pub struct Reporter {
    tie: usize,
    raw: usize,
}

impl Reporter {
    /// For batches with so many visible columns; `None` where rows carry no records, because nobody wants them.
    pub fn new(visible: usize, hidden: Hidden) -> Option<Self> {
        Some(Self { tie: hidden.index(Hidden::TIE, visible)?, raw: hidden.index(Hidden::RAW, visible)? })
    }

    /// A row of a batch that is late, if its table wants late rows.
    pub fn report_late(
        &self,
        batch: &RecordBatch,
        row: usize,
        policies: &Policies,
        rejection: impl FnOnce() -> Rejection,
    ) -> Option<Rejected> {
        let wants = |origin: RowOrigin| policies.of(origin.source).wants_late;
        if self.origin(batch, row).is_some_and(wants) { self.report(batch, row, rejection) } else { None }
    }

    /// A rejected row of a batch, if its record is there.
    pub fn report(&self, batch: &RecordBatch, row: usize, rejection: impl FnOnce() -> Rejection) -> Option<Rejected> {
        let raw = batch.column(self.raw).as_binary_view();
        if raw.is_null(row) {
            return None;
        }
        let origin = self.origin(batch, row)?;
        Some(Rejected { origin, record: RawRecord::read(raw.value(row))?, rejection: rejection() })
    }

    fn origin(&self, batch: &RecordBatch, row: usize) -> Option<RowOrigin> {
        RowOrigin::of_bytes(batch.column(self.tie).as_binary::<i32>().value(row))
    }
}

/// What expressions gave over a batch.
pub(super) struct Isolated {
    /// The columns, as long as the batch, with nulls for bad rows. There are none if all rows are bad.
    pub(super) columns: Vec<ArrayRef>,
    /// The rows over which the expressions fail, ascending, and why.
    pub(super) bad: Vec<(usize, Error)>,
}

/// What computes columns over rows.
pub(super) type Compute<'a> = &'a dyn Fn(&RecordBatch) -> Result<Vec<ArrayRef>>;

/// Computes columns, and finds the rows over which that fails.
pub(super) fn isolate(batch: &RecordBatch, compute: Compute<'_>) -> Result<Isolated> {
    let error = match compute(batch) {
        Ok(columns) => return Ok(Isolated { columns, bad: Vec::new() }),
        Err(error) => error,
    };
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    bisect(batch, 0, error, compute, &mut good, &mut bad)?;
    let Some((_, first)) = good.first() else { return Ok(Isolated { columns: Vec::new(), bad }) };
    let mut places: Vec<Option<u32>> = vec![None; batch.num_rows()];
    let mut next = 0;
    for (rows, _) in &good {
        for row in rows.clone() {
            places[row] = Some(next);
            next += 1;
        }
    }
    let places = UInt32Array::from(places);
    let column = |at: usize| {
        let parts: Vec<&dyn Array> = good.iter().map(|(_, columns)| columns[at].as_ref()).collect();
        Ok(take(&concat(&parts)?, &places, None)?)
    };
    let columns = (0..first.len()).map(column).collect::<Result<Vec<_>>>()?;
    Ok(Isolated { columns, bad })
}

/// Rows, and what was computed over them.
type Piece = (std::ops::Range<usize>, Vec<ArrayRef>);

/// Takes a batch apart over which an expression fails, into pieces that are good and single rows that are bad.
fn bisect(
    batch: &RecordBatch,
    from: usize,
    error: Error,
    compute: Compute<'_>,
    good: &mut Vec<Piece>,
    bad: &mut Vec<(usize, Error)>,
) -> Result<()> {
    let rows = batch.num_rows();
    // Whatever is not the data's fault is no row's fault.
    if error.blame != Blame::Data || rows == 0 {
        return Err(error);
    }
    if rows == 1 {
        bad.push((from, error));
        return Ok(());
    }
    let half = rows / 2;
    for (start, length) in [(0, half), (half, rows - half)] {
        let piece = batch.slice(start, length);
        let from = from + start;
        match compute(&piece) {
            Ok(columns) => good.push((from..from + length, columns)),
            Err(error) => bisect(&piece, from, error, compute, good, bad)?,
        }
    }
    Ok(())
}

/// Turns rows away over which expressions fail, as their sources' tables say.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailedRows {
    columns: Hidden,
    /// The number of hidden columns, which are the last ones, and the places of two of them.
    hidden: usize,
    tie: Option<usize>,
    raw: Option<usize>,
}

impl FailedRows {
    /// For batches with these hidden columns.
    pub(super) fn new(hidden: Hidden) -> Self {
        let place = |name| hidden.index(name, 0);
        let (tie, raw) = (place(Hidden::TIE), place(Hidden::RAW));
        Self { columns: hidden, hidden: hidden.fields().len(), tie, raw }
    }

    /// The hidden columns.
    pub(super) fn hidden(&self) -> Hidden {
        self.columns
    }

    /// Computes columns over a batch; answers them with the rows that are left, if any are.
    pub(super) fn compute(
        &self,
        batch: RecordBatch,
        out: &mut Output,
        compute: Compute<'_>,
    ) -> Result<Option<(RecordBatch, Vec<ArrayRef>)>> {
        let Isolated { columns, bad } = isolate(&batch, compute)?;
        if bad.is_empty() {
            return Ok(Some((batch, columns)));
        }
        let all = bad.len() == batch.num_rows();
        let keep = self.turn_away(&batch, bad, out)?;
        if all {
            return Ok(None);
        }
        let columns = columns.iter().map(|c| Ok(filter(c, &keep)?)).collect::<Result<Vec<_>>>()?;
        Ok(Some((filter_record_batch(&batch, &keep)?, columns)))
    }

    /// Turns rows of a batch away; answers which rows are left. The error of the first row that must not fail is the
    /// job's.
    pub(super) fn turn_away(
        &self,
        batch: &RecordBatch,
        bad: Vec<(usize, Error)>,
        out: &mut Output,
    ) -> Result<BooleanArray> {
        let first = batch.num_columns() - self.hidden;
        let ties = self.tie.map(|at| batch.column(first + at).as_binary::<i32>());
        let reporter = self.tie.zip(self.raw).map(|(tie, raw)| Reporter { tie: first + tie, raw: first + raw });
        let mut keep = vec![true; batch.num_rows()];
        for (row, error) in bad {
            if !keep[row] {
                continue;
            }
            // Rows of windows come from many records: none of them is at fault.
            let origin = ties.filter(|_| out.lineage != Lineage::Results);
            let origin = origin.and_then(|ties| RowOrigin::of_bytes(ties.value(row)));
            match origin.map_or(OnError::Fail, |origin| out.policies.of(origin.source).on_error) {
                OnError::Fail => return Err(error),
                OnError::Skip => out.counts.skipped += 1,
                OnError::DeadLetter => {
                    out.counts.dead_lettered += 1;
                    let rejection = || Rejection::Failed(error.message);
                    out.rejected.extend(reporter.and_then(|r| r.report(batch, row, rejection)));
                }
            }
            keep[row] = false;
            if let (Lineage::Copies, Some(ties)) = (out.lineage, ties) {
                leave_out_copies(ties, row, &mut keep);
            }
        }
        Ok(keep.into())
    }
}

/// Tells which rows are copies of one record.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopiesOf {
    /// The number of hidden columns, which are the last ones, and the places of some of them.
    hidden: usize,
    tie: Option<usize>,
    time: Option<usize>,
    window: Option<usize>,
}

impl CopiesOf {
    /// For batches with these hidden columns.
    pub(super) fn new(hidden: Hidden) -> Self {
        let place = |name| hidden.index(name, 0);
        let (tie, time, window) = (place(Hidden::TIE), place(Hidden::TIME), place(Hidden::WINDOW));
        Self { hidden: hidden.fields().len(), tie, time, window }
    }

    /// Numbers the records of a batch, row by row. Without a tie-breaker that takes all copies as they were made: those
    /// of one record have one time and ascending windows, and the next record of the same time begins before its end.
    pub(super) fn number(&self, batch: &RecordBatch) -> Vec<u32> {
        let first = batch.num_columns() - self.hidden;
        let ties = self.tie.map(|at| batch.column(first + at).as_binary::<i32>());
        let places = self.time.zip(self.window);
        let places = places.map(|(time, window)| (numbers(batch, first + time), numbers(batch, first + window)));
        let is_copy = |row: usize| match (ties, places) {
            (Some(ties), _) => ties.value(row - 1) == ties.value(row),
            (None, Some((times, windows))) => times[row - 1] == times[row] && windows[row - 1] < windows[row],
            (None, None) => false,
        };
        let mut number = 0;
        let next = |row: usize| {
            number += u32::from(0 < row && !is_copy(row));
            number
        };
        (0..batch.num_rows()).map(next).collect()
    }
}

/// How many records some rows are of, by their numbers.
pub(super) fn count_records(numbers: &[u32]) -> usize {
    numbers.chunk_by(|a, b| a == b).count()
}

/// A record is bad as a whole: it counts for none of its windows. Its copies lie side by side.
fn leave_out_copies(ties: &BinaryArray, row: usize, keep: &mut [bool]) {
    let is_copy = |at: &usize| ties.value(*at) == ties.value(row);
    for at in (row + 1..keep.len()).take_while(is_copy) {
        keep[at] = false;
    }
    for at in (0..row).rev().take_while(is_copy) {
        keep[at] = false;
    }
}

/// The values of a hidden column of whole numbers.
pub(super) fn numbers(batch: &RecordBatch, column: usize) -> &[i64] {
    batch.column(column).as_primitive::<Int64Type>().values()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryViewArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::connectors::Policy;

    const HIDDEN: Hidden = Hidden { watermark: false, tie: true, time: false, raw: true, window: false, kind: false };

    /// A row per number, with the source and the offset that it comes from.
    fn batch(rows: &[(i64, u16, i64)]) -> RecordBatch {
        let origin = |&(_, source, offset): &(i64, u16, i64)| RowOrigin { source, partition: 3, offset }.to_bytes();
        let raw = |&(n, ..): &(i64, u16, i64)| {
            let mut bytes = Vec::new();
            RawRecord::write(Some(b"k"), n.to_string().as_bytes(), &mut bytes);
            bytes
        };
        let visible = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
            Arc::new(BinaryArray::from_iter_values(rows.iter().map(origin))),
            Arc::new(BinaryViewArray::from_iter_values(rows.iter().map(raw))),
        ];
        RecordBatch::try_new(HIDDEN.extend(&visible), columns).unwrap()
    }

    /// Ten times the number; fails over batches that hold a 7, and over batches that hold both a 1 and a 2.
    fn tenfold(batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let numbers = numbers(batch, 0);
        let holds = |n| numbers.contains(&n);
        if holds(7) || (holds(1) && holds(2)) {
            return Err(Error::data("a number that is not liked"));
        }
        Ok(vec![Arc::new(Int64Array::from_iter_values(numbers.iter().map(|n| n * 10)))])
    }

    fn run(rows: &[(i64, u16, i64)], lineage: Lineage) -> Result<(Vec<i64>, Output)> {
        let policy = |on_error| Policy { on_error, wants_late: false };
        let policies = Policies::new([OnError::DeadLetter, OnError::Skip, OnError::Fail].map(policy));
        let mut out = Output { lineage, policies, ..Output::default() };
        let left = FailedRows::new(HIDDEN).compute(batch(rows), &mut out, &tenfold)?;
        let left = left.map_or(Vec::new(), |(rows, columns)| {
            assert_eq!(rows.num_rows(), columns[0].len());
            let tenfold = columns[0].as_primitive::<Int64Type>().values();
            assert!(numbers(&rows, 0).iter().zip(tenfold).all(|(n, tenfold)| n * 10 == *tenfold));
            numbers(&rows, 0).to_vec()
        });
        Ok((left, out))
    }

    #[test]
    fn rows_that_fail_alone_are_bad_and_no_others() {
        let rows = [(1, 0, 0), (7, 0, 1), (2, 0, 2), (3, 1, 3), (7, 1, 4), (7, 0, 5), (4, 2, 6)];
        let (left, out) = run(&rows, Lineage::Records).unwrap();
        assert_eq!(left, [1, 2, 3, 4]);
        assert_eq!((out.counts.skipped, out.counts.dead_lettered), (1, 2));
        let rejected = |offset| Rejected {
            origin: RowOrigin { source: 0, partition: 3, offset },
            record: RawRecord::new(Some(b"k"), b"7"),
            rejection: Rejection::Failed("a number that is not liked".to_owned()),
        };
        assert_eq!(out.rejected, [rejected(1), rejected(5)]);
        // Nothing but bad rows, and none at all.
        assert_eq!(run(&rows[4..6], Lineage::Records).unwrap().0, [] as [i64; 0]);
        assert_eq!(run(&rows[6..], Lineage::Records).unwrap().0, [4]);
    }

    #[test]
    fn each_source_has_its_own_say() {
        let failing = [(3, 0, 0), (7, 2, 1)];
        assert_eq!(run(&failing, Lineage::Records).err().map(|e| e.blame), Some(Blame::Data));
        // Rows of windows come from no record.
        assert!(run(&[(7, 0, 1)], Lineage::Results).is_err());
        assert!(run(&[(7, 9, 1)], Lineage::Records).is_err(), "a source that does not exist");
    }

    #[test]
    fn a_record_is_bad_for_all_its_windows() {
        let copies = [(1, 0, 0), (3, 0, 1), (7, 0, 1), (4, 0, 1), (7, 0, 1), (5, 0, 2)];
        let (left, out) = run(&copies, Lineage::Copies).unwrap();
        assert_eq!(left, [1, 5]);
        assert_eq!((out.counts.dead_lettered, out.rejected.len()), (1, 1));
        assert_eq!(out.counts.of(Lineage::Copies).used, -1);
    }

    #[test]
    fn copies_of_a_record_are_known_by_time_and_window() {
        let hidden = Hidden { time: true, window: true, ..Hidden::default() };
        // Two records of one time with two windows each, one of another time, and one that begins where it ends.
        let (times, windows) = ([5, 5, 5, 5, 6, 9], [1, 2, 1, 2, 3, 4]);
        let columns: Vec<ArrayRef> =
            [times, windows].map(|numbers| Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef).to_vec();
        let batch = RecordBatch::try_new(hidden.extend(&Schema::empty()), columns).unwrap();
        let numbers = CopiesOf::new(hidden).number(&batch);
        assert_eq!((numbers.as_slice(), count_records(&numbers)), (&[0, 0, 1, 1, 2, 3][..], 4));
        assert_eq!(count_records(&[]), 0);
    }

    #[test]
    fn what_is_not_the_datas_fault_is_no_rows() {
        let broken: Compute<'_> = &|_| Err(Error::bug("broken"));
        assert_eq!(isolate(&batch(&[(1, 0, 0), (2, 0, 1)]), broken).err().map(|e| e.blame), Some(Blame::Bug));
    }
}
