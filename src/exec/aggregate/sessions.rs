//! The half of an aggregate per session that owns keys.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::partial::PartialSchema;
use super::results::{Batcher, Results};
use super::rows::Rows;
use crate::error::{Error, Result};
use crate::exec::rejected::numbers;
use crate::exec::windows::session_progress;
use crate::exec::{Boundary, End, Extent, Lineage, Operator, Output, StateSize};
use crate::plan::{AggregateNode, Hidden};
use crate::state::{Piece, PieceKind, Sessions, clock_of};
use crate::time::{Progress, WATERMARK_MAX, WatermarkClock};

/// The half of an aggregate per session that owns keys: keeps the open sessions, ends them.
pub struct SessionAggregate {
    /// `None` over the partials of [`PartialAggregate`](super::PartialAggregate)s.
    rows: Option<Rows>,
    gap_ms: i64,
    sessions: Sessions,
    clock: WatermarkClock,
    results: Results,
}

impl SessionAggregate {
    /// Over rows, if the number of the input's visible columns and its hidden ones are given, else over partials. The
    /// output has the columns of `visible`, with the hidden ones of `hidden` behind them.
    pub fn new(node: &AggregateNode, input: Option<(usize, Hidden)>, visible: &Schema, hidden: Hidden) -> Result<Self> {
        let gap_ms = node.session_gap_ms().ok_or_else(|| Error::bug("an aggregate per session without sessions"))?;
        Ok(Self {
            rows: input.map(|(visible, hidden)| Rows::new(node, visible, hidden)).transpose()?,
            gap_ms,
            sessions: Sessions::new(Arc::clone(&node.layout), gap_ms),
            clock: WatermarkClock::default(),
            results: Results::new(node, visible, hidden)?,
        })
    }

    fn merge_partials(&mut self, batch: &RecordBatch, out: &mut Output) -> Result<()> {
        let (slices, rows) = (numbers(batch, 0), numbers(batch, 2));
        let partial = batch.project(&(PartialSchema::PREFIX..batch.num_columns()).collect::<Vec<_>>())?;
        let mut from = 0;
        for run in slices.chunk_by(|a, b| a == b) {
            let to = from + run.len();
            match self.sessions.delta(run[0])? {
                Some(delta) => delta.merge(&partial.slice(from, run.len()))?,
                None => out.counts.lose(rows[from..to].iter().map(|r| r.unsigned_abs()).sum()),
            }
            from = to;
        }
        Ok(())
    }
}

impl Operator for SessionAggregate {
    fn on_batch(&mut self, _: usize, batch: RecordBatch, out: &mut Output) -> Result<()> {
        let Self { rows: Some(rows), sessions, .. } = self else { return self.merge_partials(&batch, out) };
        rows.route(&batch, out, |(slice, _), evaluated, out| {
            match sessions.delta(slice)? {
                Some(delta) => {
                    delta.update(evaluated.rows, &evaluated.keys, &evaluated.inputs, &evaluated.filters)?;
                }
                None => out.counts.lose(evaluated.rows as u64),
            }
            Ok(())
        })
    }

    fn on_boundary(&mut self, boundary: &Boundary, progress: Progress, out: &mut Output) -> Result<Progress> {
        let watermark = match boundary.end {
            End::Finished => WATERMARK_MAX,
            End::GoesOn | End::Stopped => self.clock.at_boundary(progress, boundary.clock_ms),
        };
        let Self { sessions, results, gap_ms, .. } = self;
        let mut batcher = Batcher::new(&results.schema);
        sessions.close_until(watermark, |ended| batcher.add(results.sessions(&ended, *gap_ms)?, out))?;
        batcher.flush(out)?;
        Ok(session_progress(progress, watermark))
    }

    fn checkpoint(&mut self, extent: Extent, give: &mut dyn FnMut(Piece)) -> Result<()> {
        give(Piece::of_clock(&self.clock));
        self.sessions.checkpoint(extent == Extent::Whole, give)
    }

    fn restore(&mut self, checkpoints: Vec<Vec<Piece>>) -> Result<()> {
        for mut pieces in checkpoints {
            let Some(clock) = clock_of(&pieces) else { continue };
            self.clock = clock;
            pieces.retain(|piece| piece.kind != PieceKind::Clock);
            self.sessions.restore(self.clock.now(), pieces)?;
        }
        Ok(())
    }

    fn lineage(&self, _: Lineage) -> Lineage {
        Lineage::Results
    }

    fn state_size(&self) -> StateSize {
        let Self { sessions, .. } = self;
        StateSize {
            open_windows: sessions.open_windows(),
            bytes: sessions.size_bytes(),
            disk_bytes: 0,
            next_close: sessions.next_close(),
        }
    }
}
