//! Rows to what accumulators take of them, pane by pane.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, NullArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use datafusion::common::cast::as_boolean_array;
use datafusion::physical_expr::PhysicalExpr;

use super::sliced_windows;
use crate::error::{Error, Result};
use crate::exec::rejected::{FailedRows, Isolated, isolate, numbers};
use crate::exec::transform::evaluate_all;
use crate::exec::windows::{SessionJudge, WindowFinder};
use crate::exec::{Output, Reporter};
use crate::plan::{AggregateNode, Hidden};
use crate::state::PaneKey;
use crate::time::{SlicedWindows, late_from};

/// Takes batches of rows apart by pane, with everything that the accumulators want evaluated.
pub struct Rows {
    windows: SlicedWindows,
    /// The gap of sessions, where they are the windows.
    gap_ms: Option<i64>,
    /// Where rows belong to one window each: the index of the hidden column that tells the first instant after it.
    assigned: Option<usize>,
    /// The indices of the hidden columns.
    time: Option<usize>,
    watermark: usize,
    /// So much later than its window's end a row may come.
    lateness_ms: i64,
    reporter: Option<Reporter>,
    failed: FailedRows,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    inputs: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// Scratch: the pane of each row in time, and its row.
    panes: Vec<(PaneKey, u32)>,
}

/// What accumulators take of some rows.
pub struct Evaluated {
    pub rows: usize,
    pub keys: Vec<ArrayRef>,
    pub inputs: Vec<Vec<ArrayRef>>,
    pub filters: Vec<Option<BooleanArray>>,
}

impl Evaluated {
    /// Keys, inputs, filters.
    fn into_columns(self) -> Vec<ArrayRef> {
        let filters = self.filters.into_iter().flatten().map(|f| Arc::new(f) as ArrayRef);
        self.keys.into_iter().chain(self.inputs.into_iter().flatten()).chain(filters).collect()
    }

    fn map(&self, rows: usize, f: impl Fn(&ArrayRef) -> Result<ArrayRef>) -> Result<Self> {
        let all = |arrays: &[ArrayRef]| arrays.iter().map(&f).collect::<Result<Vec<_>>>();
        let filter = |filter: &Option<BooleanArray>| match filter {
            Some(filter) => {
                let array: ArrayRef = Arc::new(filter.clone());
                Ok::<_, Error>(Some(as_boolean_array(&f(&array)?)?.clone()))
            }
            None => Ok(None),
        };
        Ok(Self {
            rows,
            keys: all(&self.keys)?,
            inputs: self.inputs.iter().map(|i| all(i)).collect::<Result<_>>()?,
            filters: self.filters.iter().map(filter).collect::<Result<_>>()?,
        })
    }

    fn slice(&self, from: usize, rows: usize) -> Result<Self> {
        self.map(rows, |a| Ok(a.slice(from, rows)))
    }
}

impl Rows {
    pub fn new(node: &AggregateNode, visible: usize, hidden: Hidden) -> Result<Self> {
        Ok(Self {
            windows: sliced_windows(node),
            gap_ms: node.session_gap_ms(),
            assigned: if node.assigned { hidden.index(Hidden::WINDOW, visible) } else { None },
            reporter: Reporter::new(visible, hidden),
            failed: FailedRows::new(hidden),
            time: hidden.time_index(visible),
            watermark: hidden
                .watermark_index(visible)
                .ok_or_else(|| Error::bug("an aggregate's rows carry no watermark"))?,
            lateness_ms: node.emission.lateness_ms,
            keys: node.keys.clone(),
            inputs: node.inputs.clone(),
            filters: node.filters.clone(),
            panes: Vec::new(),
        })
    }

    /// Gives each pane its rows.
    pub fn route(
        &mut self,
        batch: &RecordBatch,
        out: &mut Output,
        mut take_rows: impl FnMut(PaneKey, &Evaluated, &mut Output) -> Result<()>,
    ) -> Result<()> {
        let (evaluated, mut bad) = self.isolate(batch)?;
        self.find_panes(batch, &mut bad, out)?;
        if !bad.is_empty() {
            let keep = self.failed.turn_away(batch, bad, out)?;
            self.panes.retain(|(_, row)| keep.value(*row as usize));
        }
        let Some(&(first, _)) = self.panes.first() else { return Ok(()) };
        let all_in_time = self.panes.len() == batch.num_rows();
        if all_in_time && self.panes.iter().all(|(pane, _)| *pane == first) {
            return take_rows(first, &evaluated, out);
        }
        // Rows keep their order within a pane. Most come in the order of their times, and are where they belong.
        let sorted = if all_in_time && self.panes.is_sorted() {
            evaluated
        } else {
            self.panes.sort_unstable();
            let order = UInt32Array::from_iter_values(self.panes.iter().map(|(_, row)| *row));
            evaluated.map(order.len(), |a| Ok(take(a, &order, None)?))?
        };
        let mut from = 0;
        for run in self.panes.chunk_by(|a, b| a.0 == b.0) {
            take_rows(run[0].0, &sorted.slice(from, run.len())?, out)?;
            from += run.len();
        }
        Ok(())
    }

    /// Fills `self.panes` with the rows that are in time for some window, and leaves those in `bad` that would be. A bad
    /// row that is late is late: nothing is computed over it.
    fn find_panes(&mut self, batch: &RecordBatch, bad: &mut Vec<(usize, Error)>, out: &mut Output) -> Result<()> {
        self.panes.clear();
        if let Some(column) = self.assigned {
            // The window's only slice is its last instant.
            self.panes.extend(numbers(batch, column).iter().zip(0..).map(|(&after, row)| ((after - 1, after), row)));
            return Ok(());
        }
        let Some(time) = self.time else { return Err(Error::bug("an aggregate's rows carry no event time")) };
        let (times, watermarks) = (numbers(batch, time), numbers(batch, self.watermark));
        if let Some(gap_ms) = self.gap_ms {
            let judge = SessionJudge { gap_ms, reporter: self.reporter };
            for (((&time, &watermark), at), row) in times.iter().zip(watermarks).zip(0..).zip(0..) {
                if is_left_out(bad, at, watermark < time) {
                    continue;
                }
                if judge.is_in_time(batch, at, time, watermark, out) {
                    let slice = self.windows.slice_of(time);
                    self.panes.push(((slice, slice + 1), row));
                }
            }
            return Ok(());
        }
        let mut finder = WindowFinder::new(self.windows);
        for ((&time, &watermark), row) in times.iter().zip(watermarks).zip(0..) {
            let found = finder.find(time, late_from(watermark, self.lateness_ms));
            if is_left_out(bad, row as usize, found.is_used()) {
                continue;
            }
            found.count(&mut out.counts);
            if let Some(reporter) = &self.reporter {
                found.report(reporter, &self.windows, batch, row as usize, (time, watermark), out);
            }
            if found.is_used() {
                self.panes.push(((found.slice, found.open), row));
            }
        }
        Ok(())
    }

    /// Evaluates everything, and finds the rows over which that fails.
    fn isolate(&self, batch: &RecordBatch) -> Result<(Evaluated, Vec<(usize, Error)>)> {
        if let Ok(evaluated) = self.evaluate(batch) {
            return Ok((evaluated, Vec::new()));
        }
        let Isolated { columns, bad } = isolate(batch, &|rows| Ok(self.evaluate(rows)?.into_columns()))?;
        let mut columns = columns.into_iter();
        let mut next = || columns.next().unwrap_or_else(|| Arc::new(NullArray::new(0)));
        let keys = self.keys.iter().map(|_| next()).collect();
        let inputs = self.inputs.iter().map(|i| i.iter().map(|_| next()).collect()).collect();
        let filters = self.filters.iter().map(|f| f.as_ref().and_then(|_| next().as_boolean_opt().cloned())).collect();
        Ok((Evaluated { rows: batch.num_rows(), keys, inputs, filters }, bad))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<Evaluated> {
        let filter = |filter: &Option<Arc<dyn PhysicalExpr>>| match filter {
            Some(filter) => {
                let mask = filter.evaluate(batch)?.into_array(batch.num_rows())?;
                Ok::<_, Error>(Some(as_boolean_array(&mask)?.clone()))
            }
            None => Ok(None),
        };
        Ok(Evaluated {
            rows: batch.num_rows(),
            keys: evaluate_all(&self.keys, batch)?,
            inputs: self.inputs.iter().map(|i| evaluate_all(i, batch)).collect::<Result<_>>()?,
            filters: self.filters.iter().map(filter).collect::<Result<_>>()?,
        })
    }
}

/// Whether a row is bad and would have been used. A bad one that would not is bad no more.
fn is_left_out(bad: &mut Vec<(usize, Error)>, row: usize, is_used: bool) -> bool {
    if bad.is_empty() {
        return false;
    }
    match bad.binary_search_by_key(&row, |(row, _)| *row) {
        Ok(_) if is_used => true,
        Ok(at) => {
            bad.remove(at);
            false
        }
        Err(_) => false,
    }
}
