//! Joins of windows and functions over windows: rows are kept per window until it closes, then a finite plan runs over the
//! rows of all windows that have closed at one boundary.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};

use super::batch_plan::BatchPlan;
use super::rejected::numbers;
use super::{Boundary, End, Extent, Lineage, Operator, Output, StateSize};
use crate::error::{Error, Result};
use crate::limits::BATCH_ROWS_MAX;
use crate::plan::{Hidden, PerWindowNode};
use crate::state::{Piece, PieceKind, Spill, Stored, clock_of, unexpected};
use crate::time::{Progress, TimeMs, WATERMARK_MAX, WATERMARK_MIN, WatermarkClock};

/// See [`PerWindowNode`].
pub struct PerWindow {
    plan: BatchPlan,
    inputs: Vec<Buffer>,
    clock: WatermarkClock,
    /// Windows up to here close at the boundary at hand.
    closing: TimeMs,
    spill: Option<Arc<Spill>>,
    visible: usize,
    schema: SchemaRef,
    hidden: Hidden,
}

/// The rows of one input.
struct Buffer {
    /// The columns, as the plan's table has them.
    schema: SchemaRef,
    /// The index of the window's column.
    window: usize,
    /// By the first instant after the window.
    windows: BTreeMap<TimeMs, Rows>,
}

#[derive(Default)]
struct Rows {
    batches: Vec<Stored>,
    /// How many of the batches checkpoints have given out.
    logged: usize,
    bytes: usize,
}

impl PerWindow {
    /// Over inputs with these visible columns and these hidden ones; the output has the columns of `visible` with the
    /// hidden ones of `hidden` behind them.
    pub fn new(node: &PerWindowNode, inputs: &[(usize, Hidden)], visible: &Schema, hidden: Hidden) -> Result<Self> {
        let buffers = inputs.iter().zip(&node.tables).map(|(&(visible, hidden), (_, schema))| {
            let window = hidden.index(Hidden::WINDOW, visible);
            let window = window.ok_or_else(|| Error::bug("rows per window that do not know their window"))?;
            Ok(Buffer { schema: Arc::clone(schema), window, windows: BTreeMap::new() })
        });
        Ok(Self {
            plan: BatchPlan::new(&node.plan, &node.tables)?,
            inputs: buffers.collect::<Result<_>>()?,
            clock: WatermarkClock::default(),
            closing: WATERMARK_MIN,
            spill: None,
            visible: visible.fields().len(),
            schema: hidden.extend(visible),
            hidden,
        })
    }

    /// Gives out the rows of windows that have closed.
    fn close(&mut self, closed: Vec<Vec<RecordBatch>>, out: &mut Output) -> Result<()> {
        let batches = self.plan.run(closed)?.iter().map(|b| self.finish(b)).collect::<Result<Vec<_>>>()?;
        let all = concat_batches(&self.schema, &batches)?;
        // Windows come in the order of their ends.
        let window = self.hidden.index(Hidden::WINDOW, self.visible);
        let window = window.ok_or_else(|| Error::bug("rows per window without their window"))?;
        let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
        let ends = numbers(&all, window);
        order.sort_by_key(|&row| ends[row as usize]);
        for rows in order.chunks(BATCH_ROWS_MAX) {
            out.batches.push(take_record_batch(&all, &UInt32Array::from(rows.to_vec()))?);
        }
        Ok(())
    }

    /// Rows of closed windows with the hidden columns that others expect.
    fn finish(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let mut columns: Vec<ArrayRef> = batch.columns()[..self.visible].to_vec();
        // Behind the visible columns: per part its tie-breaker, if there are any, and its window.
        let behind = &batch.columns()[self.visible..];
        let width = 1 + usize::from(self.hidden.tie);
        for field in &self.schema.fields()[self.visible..] {
            columns.push(match field.name().as_str() {
                // Rows of a window precede its end: they are late for nothing above.
                Hidden::WATERMARK => Arc::new(Int64Array::from(vec![WATERMARK_MIN; rows])),
                Hidden::TIE => joined_ties(behind.chunks_exact(width).map(|part| &part[0]), rows),
                // A side that may be missing has no window there; the other one has.
                Hidden::WINDOW => {
                    let parts: Vec<&Int64Array> =
                        behind.chunks_exact(width).map(|part| part[width - 1].as_primitive::<Int64Type>()).collect();
                    let window = |row: usize| parts.iter().find(|p| p.is_valid(row)).map(|p| p.value(row));
                    Arc::new((0..rows).map(window).collect::<Int64Array>())
                }
                other => return Err(Error::bug(format!("rows per window do not give {other}"))),
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl Rows {
    fn is_on_disk(&self) -> bool {
        self.batches.iter().any(|rows| matches!(rows, Stored::Spilled(_)))
    }

    /// Puts all on disk; answers how many bytes of memory that frees.
    fn spill(&mut self, schema: &SchemaRef, to: &Spill) -> Result<usize> {
        let new = self.batches.split_off(self.logged.min(self.batches.len()));
        let mut kept = spilled(std::mem::take(&mut self.batches), schema, to)?;
        self.logged = kept.len();
        kept.extend(spilled(new, schema, to)?);
        self.batches = kept;
        Ok(std::mem::take(&mut self.bytes))
    }
}

/// The same rows on disk. Small batches are put together.
fn spilled(rows: Vec<Stored>, schema: &SchemaRef, to: &Spill) -> Result<Vec<Stored>> {
    let (mut on_disk, mut in_memory) = (Vec::new(), Vec::new());
    for rows in rows {
        match rows {
            Stored::Batch(batch) => in_memory.push(batch),
            spilled @ Stored::Spilled(_) => on_disk.push(spilled),
        }
    }
    if !in_memory.is_empty() {
        on_disk.push(Stored::Spilled(to.write(&concat_batches(schema, &in_memory)?)?));
    }
    Ok(on_disk)
}

impl Buffer {
    fn add(&mut self, batch: &RecordBatch, watermark: TimeMs, out: &mut Output) -> Result<()> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())?;
        let mut rows: Vec<(TimeMs, u32)> = Vec::with_capacity(batch.num_rows());
        for (&after, row) in numbers(&batch, self.window).iter().zip(0..) {
            if after - 1 <= watermark {
                // Only rows of a partition that was idle can come after their window has closed.
                out.counts.lost_to_idleness += 1;
            } else {
                rows.push((after, row));
            }
        }
        let Some(&(first, _)) = rows.first() else { return Ok(()) };
        if rows.len() == batch.num_rows() && rows.iter().all(|(after, _)| *after == first) {
            self.push(first, batch);
            return Ok(());
        }
        rows.sort_unstable();
        for run in rows.chunk_by(|a, b| a.0 == b.0) {
            let indices = UInt32Array::from_iter_values(run.iter().map(|(_, row)| *row));
            self.push(run[0].0, take_record_batch(&batch, &indices)?);
        }
        Ok(())
    }

    fn push(&mut self, after: TimeMs, batch: impl Into<Stored>) {
        let rows = self.windows.entry(after).or_default();
        let batch = batch.into();
        rows.bytes += batch.memory_bytes();
        rows.batches.push(batch);
    }

    /// Takes the rows of all windows that the watermark has closed.
    fn take_closed(&mut self, watermark: TimeMs) -> Result<Vec<RecordBatch>> {
        let open = match watermark.checked_add(2) {
            Some(first_open) => self.windows.split_off(&first_open),
            None => BTreeMap::new(),
        };
        let closed = std::mem::replace(&mut self.windows, open);
        closed.into_values().flat_map(|rows| rows.batches).map(Stored::load).collect()
    }
}

impl Operator for PerWindow {
    fn on_batch(&mut self, input: usize, batch: RecordBatch, out: &mut Output) -> Result<()> {
        let watermark = self.clock.now();
        self.inputs[input].add(&batch, watermark, out)
    }

    fn on_boundary(&mut self, boundary: &Boundary, progress: Progress, out: &mut Output) -> Result<Progress> {
        let watermark = match boundary.end {
            End::Finished => WATERMARK_MAX,
            End::GoesOn | End::Stopped => self.clock.at_boundary(progress, boundary.clock_ms),
        };
        self.closing = watermark;
        self.go_on(out)?;
        Ok(progress.applied(watermark))
    }

    fn go_on(&mut self, out: &mut Output) -> Result<bool> {
        let first_of = |input: &Buffer| input.windows.first_key_value().map(|(after, _)| *after);
        let first = self.inputs.iter().filter_map(first_of).min().filter(|after| after - 1 <= self.closing);
        let Some(first) = first else { return Ok(false) };
        // Together if they are in memory, which is faster.
        let mut closed = self.inputs.iter().flat_map(|input| input.windows.range(..=self.closing.saturating_add(1)));
        let until = if closed.any(|(_, rows)| rows.is_on_disk()) { first - 1 } else { self.closing };
        let closed = self.inputs.iter_mut().map(|input| input.take_closed(until)).collect::<Result<Vec<_>>>()?;
        self.close(closed, out)?;
        Ok(true)
    }

    fn set_spill(&mut self, to: &Arc<Spill>) {
        self.spill = Some(Arc::clone(to));
    }

    fn spill(&mut self, bytes: usize) -> Result<usize> {
        let Some(to) = &self.spill else { return Ok(0) };
        let mut freed = 0;
        let mut windows: Vec<(TimeMs, &SchemaRef, &mut Rows)> = Vec::new();
        for Buffer { schema, windows: of_input, .. } in &mut self.inputs {
            windows.extend(of_input.iter_mut().map(|(after, rows)| (*after, &*schema, rows)));
        }
        // Those that close last, first.
        windows.sort_by_key(|(after, ..)| std::cmp::Reverse(*after));
        for (_, schema, rows) in windows {
            if bytes <= freed {
                break;
            }
            freed += rows.spill(schema, to)?;
        }
        Ok(freed)
    }

    fn checkpoint(&mut self, extent: Extent, give: &mut dyn FnMut(Piece)) -> Result<()> {
        give(Piece::of_clock(&self.clock));
        for (at, input) in (0..).zip(&mut self.inputs) {
            for (&after, rows) in &mut input.windows {
                let from = if extent == Extent::Whole { 0 } else { rows.logged };
                rows.batches[from..].iter().for_each(|b| give(Piece::new(PieceKind::Rows, (after, at), b.clone())));
                rows.logged = rows.batches.len();
            }
        }
        Ok(())
    }

    fn restore(&mut self, checkpoints: Vec<Vec<Piece>>) -> Result<()> {
        let Some(clock) = checkpoints.last().and_then(|last| clock_of(last)) else { return Ok(()) };
        self.clock = clock;
        for piece in checkpoints.into_iter().flatten().filter(|piece| piece.kind != PieceKind::Clock) {
            let (after, input) = piece.key;
            let input = usize::try_from(input).ok().and_then(|input| self.inputs.get_mut(input));
            let (PieceKind::Rows, Some(input)) = (piece.kind, input) else { return Err(unexpected(&piece)) };
            if self.clock.now() < after - 1 {
                input.push(after, piece.stored()?);
            }
        }
        let restored = self.inputs.iter_mut().flat_map(|input| input.windows.values_mut());
        restored.for_each(|rows| rows.logged = rows.batches.len());
        Ok(())
    }

    fn lineage(&self, _: Lineage) -> Lineage {
        Lineage::Results
    }

    fn state_size(&self) -> StateSize {
        let rows = || self.inputs.iter().flat_map(|i| i.windows.values());
        let windows: std::collections::BTreeSet<_> = self.inputs.iter().flat_map(|i| i.windows.keys()).collect();
        StateSize {
            open_windows: windows.len(),
            bytes: rows().map(|r| r.bytes).sum(),
            disk_bytes: rows().flat_map(|r| &r.batches).map(Stored::disk_bytes).sum(),
            next_close: windows.first().map(|after| **after),
        }
    }
}

/// The tie-breakers of a row's parts in one: each with its length before it, so that no two pairs look alike.
fn joined_ties<'a>(parts: impl Iterator<Item = &'a ArrayRef>, rows: usize) -> ArrayRef {
    let parts: Vec<_> = parts.map(AsArray::as_binary::<i32>).collect();
    if let [only] = parts.as_slice() {
        return Arc::new((*only).clone());
    }
    let mut ties = BinaryBuilder::new();
    let mut tie = Vec::new();
    for row in 0..rows {
        tie.clear();
        for part in &parts {
            let bytes = if part.is_valid(row) { part.value(row) } else { b"" };
            tie.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            tie.extend_from_slice(bytes);
        }
        ties.append_value(&tie);
    }
    Arc::new(ties.finish())
}
