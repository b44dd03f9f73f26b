//! The half of an aggregate that owns keys.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, Schema};

use super::partial::PartialSchema;
use super::results::{Batcher, Results};
use super::rows::Rows;
use super::sliced_windows;
use crate::error::Result;
use crate::exec::{Boundary, End, Operator, Output};
use crate::plan::{AggregateNode, Hidden};
use crate::state::{Admission, Panes};
use crate::time::{Progress, WATERMARK_MAX, WatermarkClock};

/// Where an aggregate's input comes from.
enum Input {
    Rows(Rows),
    Partials,
}

/// The half of an aggregate that owns keys: keeps panes, closes windows.
pub struct WindowAggregate {
    input: Input,
    panes: Panes,
    clock: WatermarkClock,
    results: Results,
}

impl WindowAggregate {
    /// Over rows: an input with so many visible columns and these hidden ones. The output has the columns of `visible`,
    /// with the hidden ones of `hidden_out` behind them.
    pub fn over_rows(
        node: &AggregateNode,
        input_visible: usize,
        input_hidden: Hidden,
        visible: &Schema,
        hidden_out: Hidden,
    ) -> Result<Self> {
        Self::new(node, Input::Rows(Rows::new(node, input_visible, input_hidden)?), visible, hidden_out)
    }

    /// Over the partials of [`PartialAggregate`]s.
    pub fn over_partials(node: &AggregateNode, visible: &Schema, hidden_out: Hidden) -> Result<Self> {
        Self::new(node, Input::Partials, visible, hidden_out)
    }

    fn new(node: &AggregateNode, input: Input, visible: &Schema, hidden: Hidden) -> Result<Self> {
        Ok(Self {
            input,
            panes: Panes::new(Arc::clone(&node.layout), sliced_windows(node))?,
            clock: WatermarkClock::default(),
            results: Results::new(node, visible, hidden)?,
        })
    }

    fn merge_partials(&mut self, batch: &RecordBatch, out: &mut Output) -> Result<()> {
        let slices = batch.column(0).as_primitive::<Int64Type>().values();
        let opens = batch.column(1).as_primitive::<Int64Type>().values();
        let rows = batch.column(2).as_primitive::<Int64Type>().values();
        let partial = batch.project(&(PartialSchema::PREFIX..batch.num_columns()).collect::<Vec<_>>())?;
        let mut from = 0;
        while from < batch.num_rows() {
            let key = (slices[from], opens[from]);
            let mut to = from + 1;
            while to < batch.num_rows() && (slices[to], opens[to]) == key {
                to += 1;
            }
            match self.panes.admit(key) {
                Admission::Pane(pane) => self.panes.delta(pane)?.merge(&partial.slice(from, to - from))?,
                Admission::Closed => {
                    out.counts.lost_to_idleness += rows[from..to].iter().map(|r| r.unsigned_abs()).sum::<u64>();
                }
            }
            from = to;
        }
        Ok(())
    }
}

impl Operator for WindowAggregate {
    fn on_batch(&mut self, _: usize, batch: RecordBatch, out: &mut Output) -> Result<()> {
        let Self { input, panes, .. } = self;
        match input {
            Input::Partials => self.merge_partials(&batch, out),
            Input::Rows(rows) => rows.route(&batch, out, |pane, evaluated, out| {
                match panes.admit(pane) {
                    Admission::Pane(pane) => panes.delta(pane)?.update(
                        evaluated.rows,
                        &evaluated.keys,
                        &evaluated.inputs,
                        &evaluated.filters,
                    )?,
                    Admission::Closed => out.counts.lost_to_idleness += evaluated.rows as u64,
                }
                Ok(())
            }),
        }
    }

    fn on_boundary(&mut self, boundary: &Boundary, progress: Progress, out: &mut Output) -> Result<Progress> {
        let watermark = match boundary.end {
            End::Finished => WATERMARK_MAX,
            End::GoesOn | End::Stopped => self.clock.at_boundary(progress, boundary.clock_ms),
        };
        let Self { panes, results, .. } = self;
        let mut batcher = Batcher::new(&results.schema);
        panes.close_until(watermark, |fired| {
            if fired.rows == 0 { Ok(()) } else { batcher.add(results.batch(&fired)?, out) }
        })?;
        batcher.flush(out)?;
        if boundary.checkpoint {
            panes.checkpoint(|key, delta| {
                out.deltas.push((key, delta.clone()));
                Ok(())
            })?;
        }
        Ok(match progress {
            // The clock has been applied here; above, it is not applied again.
            Progress::Idle { .. } => Progress::Idle { reached: watermark, advance: false },
            Progress::Active(_) => Progress::Active(watermark),
        })
    }

    fn state_size(&self) -> (usize, usize) {
        (self.panes.open_windows(), self.panes.size_bytes())
    }
}
