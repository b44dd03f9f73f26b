//! Aggregates per window.
//!
//! Rows become partials keyed by slice, first open window and keys ([`Rows`]). With one worker they go straight into the
//! panes of a [`WindowAggregate`]; with several, each worker's [`PartialAggregate`] collects them up to the next boundary
//! and ships partials to the workers that own the keys, whose [`WindowAggregate`]s merge them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, SortField};
use chrono_tz::Tz;
use datafusion::common::cast::as_boolean_array;
use datafusion::physical_expr::PhysicalExpr;

use super::rejected::numbers;
use super::transform::evaluate_all;
use super::windows::{ShownBounds, WindowFinder, with_type};
use super::{Boundary, End, Operator, Output, Reporter};
use crate::error::{Error, Result};
use crate::limits::BATCH_ROWS_MAX;
use crate::plan::{AggregateNode, Bound, Hidden, OutputColumn};
use crate::state::{Admission, AggregateLayout, Fired, GroupTable, PaneKey, Panes};
use crate::time::{Progress, SlicedWindows, TimeMs, WATERMARK_MAX, WATERMARK_MIN, WatermarkClock};

/// Groups that a [`PartialAggregate`] collects before it ships them without waiting for a boundary.
const PARTIAL_GROUPS_MAX: usize = 64 * 1024;

/// The windows of an aggregate as its panes have them. Where rows belong to one window each, that is one slice, named by
/// its end.
fn sliced_windows(node: &AggregateNode) -> Result<SlicedWindows> {
    match node.windows.sliced() {
        _ if node.assigned => Ok(SlicedWindows::hop_ms(1, 1, 0)),
        Some(windows) => Ok(windows),
        None => Err(Error::bug("sessions have no slices")),
    }
}

/// Takes batches of rows apart by pane, with everything that the accumulators want evaluated.
struct Rows {
    windows: SlicedWindows,
    /// Where rows belong to one window each: the index of the hidden column that tells the first instant after it.
    assigned: Option<usize>,
    /// The indices of the hidden columns.
    time: Option<usize>,
    watermark: usize,
    reporter: Option<Reporter>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    inputs: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// Scratch: the pane of each row in time, and its row.
    panes: Vec<(PaneKey, u32)>,
}

/// What accumulators take of some rows.
struct Evaluated {
    rows: usize,
    keys: Vec<ArrayRef>,
    inputs: Vec<Vec<ArrayRef>>,
    filters: Vec<Option<BooleanArray>>,
}

impl Evaluated {
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
    fn new(node: &AggregateNode, visible: usize, hidden: Hidden) -> Result<Self> {
        Ok(Self {
            windows: sliced_windows(node)?,
            assigned: if node.assigned { hidden.index(Hidden::WINDOW, visible) } else { None },
            reporter: Reporter::new(visible, hidden),
            time: hidden.time_index(visible),
            watermark: hidden
                .watermark_index(visible)
                .ok_or_else(|| Error::bug("an aggregate's rows carry no watermark"))?,
            keys: node.keys.clone(),
            inputs: node.inputs.clone(),
            filters: node.filters.clone(),
            panes: Vec::new(),
        })
    }

    /// Gives each pane its rows.
    fn route(
        &mut self,
        batch: &RecordBatch,
        out: &mut Output,
        mut take_rows: impl FnMut(PaneKey, &Evaluated, &mut Output) -> Result<()>,
    ) -> Result<()> {
        self.find_panes(batch, out)?;
        let Some(&(first, _)) = self.panes.first() else { return Ok(()) };
        let evaluated = self.evaluate(batch)?;
        let all_in_time = self.panes.len() == batch.num_rows();
        if all_in_time && self.panes.iter().all(|(pane, _)| *pane == first) {
            return take_rows(first, &evaluated, out);
        }
        // Rows keep their order within a pane.
        self.panes.sort_unstable();
        let order = UInt32Array::from_iter_values(self.panes.iter().map(|(_, row)| *row));
        let sorted = evaluated.map(order.len(), |a| Ok(take(a, &order, None)?))?;
        let mut from = 0;
        for run in self.panes.chunk_by(|a, b| a.0 == b.0) {
            take_rows(run[0].0, &sorted.slice(from, run.len())?, out)?;
            from += run.len();
        }
        Ok(())
    }

    /// Fills `self.panes` with the rows that are in time for some window.
    fn find_panes(&mut self, batch: &RecordBatch, out: &mut Output) -> Result<()> {
        self.panes.clear();
        if let Some(column) = self.assigned {
            // The window's only slice is its last instant.
            self.panes.extend(numbers(batch, column).iter().zip(0..).map(|(&after, row)| ((after - 1, after), row)));
            return Ok(());
        }
        let Some(time) = self.time else { return Err(Error::bug("an aggregate's rows carry no event time")) };
        let (times, watermarks) = (numbers(batch, time), numbers(batch, self.watermark));
        let mut finder = WindowFinder::new(self.windows);
        for ((&time, &watermark), row) in times.iter().zip(watermarks).zip(0..) {
            let found = finder.find(time, watermark);
            found.count(&mut out.counts);
            if let Some(reporter) = &self.reporter {
                out.rejected.extend(found.report(reporter, &self.windows, batch, row as usize, time, watermark));
            }
            if found.is_used() {
                self.panes.push(((found.slice, found.open), row));
            }
        }
        Ok(())
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

/// Rows of partials on their way between workers: slice, first open window, rows, then the partial's columns.
pub struct PartialSchema;

impl PartialSchema {
    /// The columns before those of the layout.
    pub const PREFIX: usize = 3;

    /// The schema for a layout.
    pub fn of(layout: &AggregateLayout) -> SchemaRef {
        let mut fields: Vec<_> = ["slice", "first_open", "rows"]
            .into_iter()
            .map(|name| Arc::new(Field::new(format!("__{name}"), DataType::Int64, false)))
            .collect();
        fields.extend(layout.partial().fields().iter().cloned());
        Arc::new(Schema::new(fields))
    }
}

/// The worker-local half of an aggregate.
pub struct PartialAggregate {
    rows: Rows,
    layout: Arc<AggregateLayout>,
    schema: SchemaRef,
    tables: BTreeMap<PaneKey, (GroupTable, u64)>,
    groups: usize,
}

impl PartialAggregate {
    /// Over an input with so many visible columns, and hidden ones behind them.
    pub fn new(node: &AggregateNode, visible: usize, hidden: Hidden) -> Result<Self> {
        Ok(Self {
            rows: Rows::new(node, visible, hidden)?,
            layout: Arc::clone(&node.layout),
            schema: PartialSchema::of(&node.layout),
            tables: BTreeMap::new(),
            groups: 0,
        })
    }

    fn ship(&mut self, out: &mut Output) -> Result<()> {
        let mut partials = Vec::new();
        for ((slice, first_open), (mut table, rows)) in std::mem::take(&mut self.tables) {
            let partial = table.take_partial()?;
            let count = partial.num_rows();
            let constant = |value: i64| Arc::new(Int64Array::from(vec![value; count])) as ArrayRef;
            // Rows are counted per pane: the first group of it speaks for all.
            let mut of_rows = vec![0_i64; count];
            if let Some(first) = of_rows.first_mut() {
                *first = i64::try_from(rows).unwrap_or(i64::MAX);
            }
            let mut columns = vec![constant(slice), constant(first_open), Arc::new(Int64Array::from(of_rows))];
            columns.extend(partial.columns().iter().cloned());
            partials.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        }
        self.groups = 0;
        if !partials.is_empty() {
            out.batches.push(concat_batches(&self.schema, &partials)?);
        }
        Ok(())
    }
}

impl Operator for PartialAggregate {
    fn on_batch(&mut self, _: usize, batch: RecordBatch, out: &mut Output) -> Result<()> {
        let Self { rows, layout, tables, groups, .. } = self;
        rows.route(&batch, out, |pane, evaluated, _| {
            let (table, count) = match tables.entry(pane) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert((GroupTable::new(layout)?, 0)),
            };
            let before = table.len();
            table.update(evaluated.rows, &evaluated.keys, &evaluated.inputs, &evaluated.filters)?;
            *groups += table.len() - before;
            *count += evaluated.rows as u64;
            Ok(())
        })?;
        if PARTIAL_GROUPS_MAX < self.groups {
            self.ship(out)?;
        }
        Ok(())
    }

    fn on_boundary(&mut self, _: &Boundary, progress: Progress, out: &mut Output) -> Result<Progress> {
        self.ship(out)?;
        Ok(progress)
    }
}

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
            panes: Panes::new(Arc::clone(&node.layout), sliced_windows(node)?),
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

/// Makes rows of closed windows.
struct Results {
    windows: SlicedWindows,
    zone: Tz,
    output: Vec<OutputColumn>,
    keys: usize,
    schema: SchemaRef,
    hidden: Hidden,
    /// Makes the tie-breaker of result rows from their keys, where somebody above needs one.
    ties: Option<RowConverter>,
}

impl Results {
    fn new(node: &AggregateNode, visible: &Schema, hidden: Hidden) -> Result<Self> {
        let keys = node.layout.keys().fields();
        let ties = if hidden.tie {
            Some(RowConverter::new(keys.iter().map(|f| SortField::new(f.data_type().clone())).collect())?)
        } else {
            None
        };
        let schema = hidden.extend(visible);
        let (windows, zone) = (sliced_windows(node)?, node.windows.zone);
        Ok(Self { windows, zone, output: node.output.clone(), keys: keys.len(), schema, hidden, ties })
    }

    fn batch(&self, fired: &Fired) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        let (start, end, after) = ShownBounds::new(self.zone).of(&self.windows, fired.window);
        for (i, output) in self.output.iter().enumerate() {
            columns.push(match output {
                OutputColumn::Value(at) => Arc::clone(&fired.columns[*at]),
                OutputColumn::Bound(bound) => {
                    let value = match bound {
                        Bound::Start => start,
                        Bound::End => end,
                        Bound::Time => after - 1,
                    };
                    bound_column(value, fired.rows, self.schema.field(i).data_type())?
                }
            });
        }
        // Rows of a window precede its end: they are late for nothing above.
        if self.hidden.watermark {
            columns.push(Arc::new(Int64Array::from(vec![WATERMARK_MIN; fired.rows])));
        }
        if self.keys == 0 && self.ties.is_some() {
            // Without keys a window has one row, and nothing to tell apart; no columns would convert to no rows.
            columns.push(Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(b"", fired.rows))));
        } else if let Some(ties) = &self.ties {
            let rows = ties.convert_columns(&fired.columns[..self.keys])?;
            columns.push(Arc::new(rows.try_into_binary()?));
        }
        if self.hidden.window {
            columns.push(Arc::new(Int64Array::from(vec![after; fired.rows])));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// Puts small batches together and cuts large ones, so that what follows works on batches of a good size.
struct Batcher<'a> {
    schema: &'a SchemaRef,
    waiting: Vec<RecordBatch>,
    rows: usize,
}

impl Batcher<'_> {
    fn add(&mut self, batch: RecordBatch, out: &mut Output) -> Result<()> {
        self.rows += batch.num_rows();
        self.waiting.push(batch);
        if BATCH_ROWS_MAX <= self.rows { self.flush(out) } else { Ok(()) }
    }

    fn flush(&mut self, out: &mut Output) -> Result<()> {
        if self.rows > 0 {
            let all = concat_batches(self.schema, &self.waiting)?;
            for from in (0..self.rows).step_by(BATCH_ROWS_MAX) {
                out.batches.push(all.slice(from, BATCH_ROWS_MAX.min(self.rows - from)));
            }
        }
        self.waiting.clear();
        self.rows = 0;
        Ok(())
    }
}

fn bound_column(value: TimeMs, rows: usize, data_type: &DataType) -> Result<ArrayRef> {
    let values: ArrayRef = Arc::new(arrow::array::TimestampMillisecondArray::from(vec![value; rows]));
    match data_type {
        DataType::Timestamp(TimeUnit::Millisecond, None) => Ok(values),
        other => with_type(&values, other),
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
        let mut batcher = Batcher { schema: &results.schema, waiting: Vec::new(), rows: 0 };
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
