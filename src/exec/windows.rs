//! Adds windows to rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray, UInt64Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use chrono_tz::Tz;

use super::rejected::numbers;
use super::{Counts, Lineage, Missed, Operator, Output, Rejection, Reporter};
use crate::error::{Error, Result};
use crate::plan::{Hidden, WindowsNode};
use crate::time::{
    Progress, SliceId, SlicedWindows, TimeMs, WATERMARK_MAX, WATERMARK_MIN, WindowId, late_from, local_ms,
};

/// See [`WindowsNode`].
pub struct RepeatWindows {
    windows: SlicedWindows,
    zone: Tz,
    time: usize,
    passed: Vec<usize>,
    repeat: bool,
    /// The index of the watermark's column, and how late rows may be, where late rows are dropped here.
    judge: Option<(usize, i64)>,
    input_visible: usize,
    input_hidden: Hidden,
    reporter: Option<Reporter>,
    schema: SchemaRef,
    /// Zeros for the bounds that nobody reads.
    zeros: ArrayRef,
}

impl RepeatWindows {
    /// `input` and `output` are the visible columns; `hidden` is what the input carries.
    pub fn new(node: &WindowsNode, input: &Schema, output: &Schema, hidden: Hidden) -> Self {
        let visible = input.fields().len();
        Self {
            windows: node.windows,
            zone: node.zone,
            time: node.time,
            passed: node.passed.clone(),
            repeat: node.repeat,
            judge: hidden.watermark_index(visible).zip(node.judge),
            input_visible: visible,
            input_hidden: hidden,
            reporter: Reporter::new(visible, hidden),
            schema: Hidden { time: true, window: node.repeat, ..hidden }.extend(output),
            zeros: Arc::new(Int64Array::from(vec![0_i64; 0])),
        }
    }

    fn bound(&self, values: ArrayRef, at: usize) -> Result<ArrayRef> {
        let data_type = self.schema.field(self.passed.len() + at).data_type();
        let ms = cast(&values, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
        Ok(if ms.data_type() == data_type { ms } else { with_type(&ms, data_type)? })
    }

    /// The batch with bounds, event time and, if rows are repeated, their windows added.
    fn with_bounds(
        &self,
        batch: &RecordBatch,
        times: ArrayRef,
        bounds: [ArrayRef; 3],
        window: Option<ArrayRef>,
    ) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = self.passed.iter().map(|&i| Arc::clone(batch.column(i))).collect();
        for (at, values) in bounds.into_iter().enumerate() {
            columns.push(self.bound(values, at)?);
        }
        // Windows over windows: the event time and the window of those below give way.
        let hidden = &self.schema.fields()[columns.len()..];
        for field in hidden {
            columns.push(match (field.name().as_str(), &window) {
                (Hidden::TIME, _) => Arc::clone(&times),
                (Hidden::WINDOW, Some(window)) => Arc::clone(window),
                (name, _) => {
                    let at = self.input_hidden.index(name, self.input_visible);
                    Arc::clone(batch.column(at.ok_or_else(|| Error::bug(format!("rows carry no {name}")))?))
                }
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// The row and the window of each row in each of its windows.
    fn assign(&self, batch: &RecordBatch, times: &[TimeMs], out: &mut Output) -> (Vec<u64>, Vec<WindowId>) {
        let watermarks = self.judge.map(|(column, lateness_ms)| (numbers(batch, column), lateness_ms));
        let (mut rows, mut windows) = (Vec::with_capacity(times.len()), Vec::with_capacity(times.len()));
        let mut finder = WindowFinder::new(self.windows);
        for (row, &time) in times.iter().enumerate() {
            let found =
                finder.find(time, watermarks.map_or(WATERMARK_MIN, |(w, lateness_ms)| late_from(w[row], lateness_ms)));
            found.count(&mut out.counts);
            if let (Some(reporter), Some((watermarks, _))) = (&self.reporter, watermarks) {
                found.report(reporter, &self.windows, batch, row, (time, watermarks[row]), out);
            }
            let mut window = found.open;
            while window <= found.last {
                rows.push(row as u64);
                windows.push(window);
                window += self.windows.step();
            }
        }
        (rows, windows)
    }
}

impl Operator for RepeatWindows {
    fn on_batch(&mut self, _: usize, batch: RecordBatch, out: &mut Output) -> Result<()> {
        let times = event_times(batch.column(self.time))?;
        if !self.repeat {
            if self.zeros.len() < batch.num_rows() {
                self.zeros = Arc::new(Int64Array::from(vec![0_i64; batch.num_rows()]));
            }
            let zeros = self.zeros.slice(0, batch.num_rows());
            let bounds = [Arc::clone(&zeros), Arc::clone(&zeros), zeros];
            out.batches.push(self.with_bounds(&batch, times, bounds, None)?);
            return Ok(());
        }
        let (rows, windows) = self.assign(&batch, times.as_primitive::<Int64Type>().values(), out);
        if rows.is_empty() {
            return Ok(());
        }
        let rows = UInt64Array::from(rows);
        let times = arrow::compute::take(&times, &rows, None)?;
        let batch = take_record_batch(&batch, &rows)?;
        let mut shown = ShownBounds::new(self.zone);
        let (mut starts, mut ends, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
        let mut after = Vec::new();
        for window in windows {
            let (start, end, instant) = shown.of(&self.windows, window);
            starts.push(start);
            ends.push(end);
            lasts.push(instant - 1);
            after.push(instant);
        }
        let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let bounds = [column(starts), column(ends), column(lasts)];
        out.batches.push(self.with_bounds(&batch, times, bounds, Some(column(after)))?);
        Ok(())
    }

    fn lineage(&self, of_input: Lineage) -> Lineage {
        if self.repeat { of_input.max(Lineage::Copies) } else { of_input }
    }
}

/// The bounds of windows as their columns show them, on the clocks of a zone.
pub(super) struct ShownBounds {
    zone: Tz,
    last: Option<(WindowId, (i64, i64, TimeMs))>,
}

impl ShownBounds {
    /// For the clocks of a zone.
    pub(super) fn new(zone: Tz) -> Self {
        Self { zone, last: None }
    }

    /// `window_start` and `window_end`, and the first instant after the window.
    pub(super) fn of(&mut self, windows: &SlicedWindows, window: WindowId) -> (i64, i64, TimeMs) {
        match self.last {
            Some((last, bounds)) if last == window => bounds,
            _ => {
                let (start, end) = windows.bounds(window);
                let bounds = (local_ms(self.zone, start), local_ms(self.zone, end), end);
                self.last = Some((window, bounds));
                bounds
            }
        }
    }
}

/// Where a row's windows are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The slice that holds its time.
    pub(super) slice: SliceId,
    /// The first window that holds it.
    first: WindowId,
    /// The first window that holds it and that its partition's watermark has not closed.
    pub(super) open: WindowId,
    /// The last window that holds it.
    pub(super) last: WindowId,
}

impl Found {
    /// Whether it counts for some window.
    pub(super) fn is_used(&self) -> bool {
        self.open <= self.last
    }

    pub(super) fn count(&self, counts: &mut Counts) {
        if self.last < self.first {
            // The slide is longer than the size, and this time lies between two windows.
            counts.filtered += 1;
        } else if self.last < self.open {
            counts.late += 1;
        } else {
            counts.used += 1;
            counts.partly_late += u64::from(self.first < self.open);
        }
    }

    /// Tells the topic of late rows of a row with this time, and the watermark of its partition, if it is late for any
    /// window and somebody wants to know.
    pub(super) fn report(
        &self,
        reporter: &Reporter,
        windows: &SlicedWindows,
        batch: &RecordBatch,
        row: usize,
        (time, watermark): (TimeMs, TimeMs),
        out: &mut Output,
    ) {
        if self.last < self.first || self.open <= self.first {
            return;
        }
        let late = || {
            // The last one that had closed is a whole number of steps behind the first.
            let steps = (self.last.min(self.open - 1) - self.first) / windows.step();
            let last = self.first + steps * windows.step();
            let (first, last) = (windows.bounds(self.first), windows.bounds(last));
            let missed = Missed { first, last, count: steps.unsigned_abs() + 1 };
            Rejection::Late { time, watermark, missed, partly: self.is_used() }
        };
        out.rejected.extend(reporter.report_late(batch, row, &out.policies, late));
    }
}

/// Finds the windows of rows. Neighbours mostly share their slice, and what their watermarks have closed.
pub(super) struct WindowFinder {
    windows: SlicedWindows,
    /// What was found last, and from when to when its slice goes.
    found: Option<(Found, TimeMs, TimeMs)>,
    /// What a watermark has left open, and the watermarks for which that is so.
    open: Option<(WindowId, TimeMs, TimeMs)>,
    /// What was open for the row before.
    open_before: WindowId,
}

impl WindowFinder {
    pub(super) fn new(windows: SlicedWindows) -> Self {
        Self { windows, found: None, open: None, open_before: WindowId::MIN }
    }

    /// The windows of a row with this event time, given its partition's watermark before it.
    pub(super) fn find(&mut self, time: TimeMs, watermark: TimeMs) -> Found {
        let open = self.first_open(watermark);
        let is_same = std::mem::replace(&mut self.open_before, open) == open;
        match self.found {
            Some((found, from, to)) if from <= time && time < to && is_same => found,
            _ => {
                let slice = self.windows.slice_of(time);
                let found = Found {
                    slice,
                    first: self.windows.first_window(slice),
                    open: self.windows.first_window_from(slice, open),
                    last: self.windows.last_window(slice),
                };
                let axis = &self.windows.axis;
                self.found = Some((found, axis.start_of(slice), axis.start_of(slice + 1)));
                found
            }
        }
    }

    fn first_open(&mut self, watermark: TimeMs) -> WindowId {
        match self.open {
            Some((open, from, to)) if from <= watermark && watermark < to => open,
            _ => {
                let open = self.windows.first_open(watermark);
                if open != WindowId::MIN && open != WindowId::MAX {
                    let from = self.windows.axis.start_of(open - 1) - 1;
                    self.open = Some((open, from, self.windows.last_instant(open)));
                }
                open
            }
        }
    }
}

/// Says which rows of sessions are late: those whose time their own partition's watermark had reached. So a row in time
/// never touches a session that has ended.
pub(super) struct SessionJudge {
    pub(super) gap_ms: i64,
    pub(super) reporter: Option<Reporter>,
}

impl SessionJudge {
    /// Whether a row is in time; if not, it is counted and reported, for the session that it would have begun.
    pub(super) fn is_in_time(
        &self,
        batch: &RecordBatch,
        row: usize,
        time: TimeMs,
        watermark: TimeMs,
        out: &mut Output,
    ) -> bool {
        if watermark < time {
            out.counts.used += 1;
            return true;
        }
        out.counts.late += 1;
        let alone = (time, time + self.gap_ms);
        let missed = Missed { first: alone, last: alone, count: 1 };
        let late = || Rejection::Late { time, watermark, missed, partly: false };
        let reported = self.reporter.as_ref().and_then(|r| r.report_late(batch, row, &out.policies, late));
        out.rejected.extend(reported);
        false
    }
}

/// How far the output of sessions has come at a watermark. A session ends when its end is reached, one millisecond
/// later than other windows close: whatever is above must not be ahead of its last instant.
pub(super) fn session_progress(input: Progress, watermark: TimeMs) -> Progress {
    let reached = if watermark == WATERMARK_MAX { watermark } else { watermark.saturating_sub(1) };
    input.applied(reached)
}

/// A timestamp column as milliseconds. Event times are never null: sources see to that.
pub(super) fn event_times(column: &ArrayRef) -> Result<ArrayRef> {
    if column.null_count() > 0 {
        return Err(Error::bug("an event time is null"));
    }
    let ms = column
        .as_primitive_opt::<TimestampMillisecondType>()
        .ok_or_else(|| Error::bug(format!("event time has the type {}", column.data_type())))?;
    Ok(Arc::new(Int64Array::new(ms.values().clone(), None)))
}

/// The same instants as a timestamp of another type in milliseconds.
pub(super) fn with_type(ms: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    match data_type {
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            let values = ms.as_primitive::<TimestampMillisecondType>().clone();
            let array: TimestampMillisecondArray = values.with_timezone_opt(zone.clone());
            Ok(Arc::new(array))
        }
        other => Err(Error::bug(format!("a window's bound cannot have the type {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, BinaryViewArray};

    use super::*;
    use crate::connectors::{OnError, Policies, Policy, RawRecord};
    use crate::exec::{Rejected, RowOrigin};

    const HIDDEN: Hidden = Hidden { watermark: false, tie: true, time: false, raw: true, window: false, kind: false };

    /// What is told of a row at this time, when its partition's watermark is that far.
    fn told(windows: SlicedWindows, time: TimeMs, watermark: TimeMs, wants_late: bool) -> Vec<Rejected> {
        let mut raw = Vec::new();
        RawRecord::write(None, b"late", &mut raw);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(BinaryArray::from_iter_values([RowOrigin::default().to_bytes()])),
            Arc::new(BinaryViewArray::from_iter_values([raw])),
        ];
        let batch = RecordBatch::try_new(HIDDEN.extend(&Schema::empty()), columns).unwrap();
        let policies = Policies::new([Policy { on_error: OnError::DeadLetter, wants_late }]);
        let mut out = Output { policies, ..Output::default() };
        let found = WindowFinder::new(windows).find(time, watermark);
        found.report(&Reporter::new(0, HIDDEN).unwrap(), &windows, &batch, 0, (time, watermark), &mut out);
        out.rejected
    }

    #[test]
    fn of_many_missed_windows_the_ends_are_told() {
        let hop = SlicedWindows::hop_ms(10, 90, 0);
        let grows = SlicedWindows::cumulate_ms(10, 90, 0);
        let many = SlicedWindows::hop_ms(1_000, 21_600_000, 0);
        // (windows, time, watermark), the first that is missed, the last, how many, whether others are not
        let rows = [
            ((hop, 85, 89), (0, 90), (0, 90), 1, true),
            ((hop, 85, 120), (0, 90), (30, 120), 4, true),
            ((hop, 85, 1_000), (0, 90), (80, 170), 9, false),
            ((grows, 5, 32), (0, 10), (0, 30), 3, true),
            ((grows, 5, WATERMARK_MAX), (0, 10), (0, 90), 9, false),
            ((SlicedWindows::hop_ms(20, 90, 0), 85, 112), (0, 90), (20, 110), 2, true),
            ((many, 500, 30_000_000), (-21_599_000, 1_000), (0, 21_600_000), 21_600, false),
        ];
        for ((windows, time, watermark), first, last, count, partly) in rows {
            let missed = Missed { first, last, count };
            let want = Rejection::Late { time, watermark, missed, partly };
            let got: Vec<_> = told(windows, time, watermark, true).into_iter().map(|r| r.rejection).collect();
            assert_eq!(got, [want], "{windows:?}");
            assert!(told(windows, time, watermark, false).is_empty());
        }
        assert!(told(hop, 85, 88, true).is_empty());
    }
}
