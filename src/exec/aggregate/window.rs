//! The half of an aggregate that owns keys.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, Schema};

use super::changes::Given;
use super::partial::PartialSchema;
use super::results::{Batcher, Results};
use super::rows::Rows;
use super::sliced_windows;
use crate::error::Result;
use crate::exec::{Boundary, End, Extent, Lineage, Operator, Output, StateSize};
use crate::plan::{AggregateNode, Emission, Hidden};
use crate::sql::statement::Emit;
use crate::state::{Admission, Fired, GroupTable, KeptPanes, PaneKey, Panes, Piece, PieceKind, Spill, clock_of};
use crate::time::{Progress, TimeMs, WATERMARK_MAX, WatermarkClock};

/// What is kept of the windows.
enum State {
    /// Each gives its rows once, when it closes.
    Final(Box<Panes>),
    /// Rows are given out before that, or corrected after it.
    Changing(Box<Changing>),
}

struct Changing {
    panes: KeptPanes,
    given: Given,
    emit: Emit,
    /// With `EMIT EVERY`, the clock of the boundary that gave out open windows last.
    emitted_ms: Option<i64>,
}

impl State {
    fn new(node: &AggregateNode) -> Result<Self> {
        let (layout, windows) = (Arc::clone(&node.layout), sliced_windows(node));
        let Emission { emit, lateness_ms } = node.emission;
        if !node.emission.is_changelog() {
            return Ok(Self::Final(Box::new(Panes::new(layout, windows)?)));
        }
        let given = Given::new(&layout)?;
        let panes = KeptPanes::new(layout, windows, lateness_ms)?;
        Ok(Self::Changing(Box::new(Changing { panes, given, emit, emitted_ms: None })))
    }

    fn admit(&self, key: PaneKey) -> Admission {
        match self {
            Self::Final(panes) => panes.admit(key),
            Self::Changing(changing) => changing.panes.admit(key),
        }
    }

    fn delta(&mut self, key: PaneKey) -> Result<&mut GroupTable> {
        match self {
            Self::Final(panes) => panes.delta(key),
            Self::Changing(changing) => changing.panes.delta(key),
        }
    }

    fn checkpoint(&mut self, whole: bool, give: &mut dyn FnMut(Piece)) -> Result<()> {
        match self {
            Self::Final(panes) => panes.checkpoint(whole, give),
            Self::Changing(changing) => changing.checkpoint(whole, give),
        }
    }
}

impl Changing {
    /// What was given out of a window that was evaluated at the last boundary is what evaluating it gives.
    fn checkpoint(&mut self, whole: bool, give: &mut dyn FnMut(Piece)) -> Result<()> {
        self.panes.checkpoint(whole, give)?;
        if let Emit::EveryMs(_) = self.emit {
            for (window, rows) in self.given.windows_from(self.panes.first_open()) {
                give(Piece::new(PieceKind::Given, (window, 0), rows?));
            }
        }
        if let Some(emitted_ms) = self.emitted_ms {
            give(Piece { kind: PieceKind::Emitted, key: (emitted_ms, 0), batch: None });
        }
        Ok(())
    }

    fn restore(&mut self, watermark: TimeMs, checkpoints: Vec<Vec<Piece>>) -> Result<()> {
        let Self { panes, given, emit, emitted_ms } = self;
        let (mut partials, mut rows) = (Vec::new(), Vec::new());
        for pieces in checkpoints {
            // Each checkpoint says anew what was given out.
            rows.clear();
            for piece in pieces {
                match piece.kind {
                    PieceKind::Clock => {}
                    PieceKind::Given => rows.push(piece),
                    PieceKind::Emitted => *emitted_ms = Some(piece.key.0),
                    _ => partials.push(piece),
                }
            }
        }
        panes.restore(watermark, *emit == Emit::OnUpdate, partials, |fired| given.changes(&fired).map(drop))?;
        for piece in rows {
            let window = piece.key.0;
            let rows = piece.rows()?;
            given.changes(&Fired { window, rows: rows.num_rows(), columns: rows.columns().to_vec() })?;
        }
        Ok(())
    }

    /// Whether a boundary gives out what has changed in windows that are open.
    fn emits_open(&mut self, clock_ms: i64) -> bool {
        match self.emit {
            Emit::OnWindowClose => false,
            Emit::OnUpdate => true,
            Emit::EveryMs(every_ms) => {
                // The first interval begins with the first boundary; a clock that steps back begins another one.
                let before = *self.emitted_ms.get_or_insert(clock_ms);
                let is_due = i64::try_from(every_ms).is_ok_and(|every_ms| every_ms <= clock_ms.saturating_sub(before));
                if is_due || clock_ms < before {
                    self.emitted_ms = Some(clock_ms);
                }
                is_due
            }
        }
    }
}

/// Bytes of rows of closed windows that are given out at once, about.
const BYTES_AT_ONCE: usize = 8 << 20;

/// Gives out rows of windows that the watermark has closed, but not more than a few; `false` when those were the last ones.
fn give_closed(panes: &mut Panes, results: &Results, out: &mut Output) -> Result<bool> {
    let mut batcher = Batcher::new(&results.schema);
    let mut bytes = 0;
    let mut is_more = true;
    while is_more && bytes < BYTES_AT_ONCE {
        match panes.next_fired()? {
            Some(fired) if 0 < fired.rows => {
                let batch = results.batch(&fired, None)?;
                bytes += batch.get_array_memory_size();
                batcher.add(batch, out)?;
            }
            fired => is_more = fired.is_some(),
        }
    }
    batcher.flush(out)?;
    Ok(is_more)
}

/// The half of an aggregate that owns keys: keeps panes, closes windows.
pub struct WindowAggregate {
    /// `None` over the partials of [`PartialAggregate`](super::PartialAggregate)s.
    rows: Option<Rows>,
    state: State,
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
        Self::new(node, Some(Rows::new(node, input_visible, input_hidden)?), visible, hidden_out)
    }

    /// Over the partials of [`PartialAggregate`](super::PartialAggregate)s.
    pub fn over_partials(node: &AggregateNode, visible: &Schema, hidden_out: Hidden) -> Result<Self> {
        Self::new(node, None, visible, hidden_out)
    }

    fn new(node: &AggregateNode, rows: Option<Rows>, visible: &Schema, hidden: Hidden) -> Result<Self> {
        Ok(Self {
            rows,
            state: State::new(node)?,
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
            match self.state.admit(key) {
                Admission::Pane(pane) => self.state.delta(pane)?.merge(&partial.slice(from, to - from))?,
                Admission::Closed => {
                    out.counts.lose(rows[from..to].iter().map(|r| r.unsigned_abs()).sum());
                }
            }
            from = to;
        }
        Ok(())
    }
}

impl Operator for WindowAggregate {
    fn on_batch(&mut self, _: usize, batch: RecordBatch, out: &mut Output) -> Result<()> {
        let Self { rows, state, .. } = self;
        match rows {
            None => self.merge_partials(&batch, out),
            Some(rows) => rows.route(&batch, out, |pane, evaluated, out| {
                match state.admit(pane) {
                    Admission::Pane(pane) => state.delta(pane)?.update(
                        evaluated.rows,
                        &evaluated.keys,
                        &evaluated.inputs,
                        &evaluated.filters,
                    )?,
                    Admission::Closed => out.counts.lose(evaluated.rows as u64),
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
        let Self { state, results, .. } = self;
        match state {
            State::Final(panes) => {
                panes.advance(watermark);
                give_closed(panes, results, out)?;
            }
            State::Changing(changing) => {
                let open_too = changing.emits_open(boundary.clock_ms);
                let Changing { panes, given, .. } = &mut **changing;
                let mut batcher = Batcher::new(&results.schema);
                let first_kept = panes.advance(watermark, open_too, |fired| {
                    let (changes, kinds) = given.changes(&fired)?;
                    match changes.rows {
                        0 => Ok(()),
                        _ => batcher.add(results.batch(&changes, Some(kinds))?, out),
                    }
                })?;
                batcher.flush(out)?;
                given.forget_before(first_kept);
            }
        }
        Ok(progress.applied(watermark))
    }

    fn go_on(&mut self, out: &mut Output) -> Result<bool> {
        match &mut self.state {
            State::Final(panes) => give_closed(panes, &self.results, out),
            State::Changing(_) => Ok(false),
        }
    }

    fn set_spill(&mut self, to: &Arc<Spill>) {
        match &mut self.state {
            State::Final(panes) => panes.set_spill(to),
            State::Changing(changing) => changing.panes.set_spill(to),
        }
    }

    fn spill(&mut self, bytes: usize) -> Result<usize> {
        match &mut self.state {
            State::Final(panes) => panes.spill(bytes),
            State::Changing(changing) => changing.panes.spill(bytes),
        }
    }

    fn checkpoint(&mut self, extent: Extent, give: &mut dyn FnMut(Piece)) -> Result<()> {
        give(Piece::of_clock(&self.clock));
        self.state.checkpoint(extent == Extent::Whole, give)
    }

    fn restore(&mut self, checkpoints: Vec<Vec<Piece>>) -> Result<()> {
        let Some(clock) = checkpoints.last().and_then(|last| clock_of(last)) else { return Ok(()) };
        self.clock = clock;
        match &mut self.state {
            State::Final(panes) => panes.restore(self.clock.now(), checkpoints.into_iter().flatten().collect()),
            State::Changing(changing) => changing.restore(self.clock.now(), checkpoints),
        }
    }

    fn lineage(&self, _: Lineage) -> Lineage {
        Lineage::Results
    }

    fn state_size(&self) -> StateSize {
        match &self.state {
            State::Final(panes) => StateSize {
                open_windows: panes.open_windows(),
                bytes: panes.size_bytes(),
                disk_bytes: panes.disk_bytes(),
                next_close: panes.next_close(),
            },
            State::Changing(changing) => StateSize {
                open_windows: changing.panes.open_windows(),
                bytes: changing.panes.size_bytes() + changing.given.size_bytes(),
                disk_bytes: changing.panes.disk_bytes(),
                next_close: changing.panes.next_close(),
            },
        }
    }
}
