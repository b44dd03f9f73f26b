//! Rows of sessions: kept until their session has ended, then given out with its bounds.
//!
//! An aggregate whose keys are what its sessions are partitioned by finds them itself, over partials. This is for
//! everything else: other keys, conditions on a session's bounds, the rows as they are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray, UInt64Array, new_null_array,
};
use arrow::compute::{interleave_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, SortField};

use super::rejected::numbers;
use super::windows::{SessionJudge, event_times, session_progress, with_type};
use super::{Boundary, End, Extent, Operator, Output, Reporter, StateSize};
use crate::error::{Error, Result};
use crate::limits::BATCH_ROWS_MAX;
use crate::plan::{Hidden, SessionsNode};
use crate::state::{Piece, PieceKind, clock_of, unexpected};
use crate::time::{Axis, Progress, SliceId, TimeMs, WATERMARK_MAX, WATERMARK_MIN, WatermarkClock, local_ms};

/// Kept batches are put together when so many rows, and three quarters of all, are of sessions that have ended.
const DEAD_ROWS_MAX: usize = 64 * 1024;

type Key = Arc<[u8]>;

/// See [`SessionsNode`].
pub struct SessionRows {
    node: Shape,
    /// Makes bytes of the values that have sessions of their own.
    converter: Option<RowConverter>,
    judge: SessionJudge,
    /// As long as the gap: in a closed one nothing is taken any more, as in an aggregate's.
    axis: Axis,
    clock: WatermarkClock,
    keys: HashMap<Key, KeyRows>,
    /// When to look at keys: no session of theirs ends before.
    due: BTreeMap<TimeMs, Vec<Key>>,
    kept: Kept,
    /// The first batch that no checkpoint has given out.
    first_new: u64,
}

/// What is constant.
struct Shape {
    gap_ms: i64,
    zone: chrono_tz::Tz,
    time: usize,
    partition: Vec<usize>,
    passed: Vec<usize>,
    input_visible: usize,
    input_hidden: Hidden,
    watermark: usize,
    schema: SchemaRef,
}

/// The open rows of a key.
struct KeyRows {
    rows: Vec<KeptRow>,
    /// Its place in [`SessionRows::due`].
    due: TimeMs,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct KeptRow {
    time: TimeMs,
    batch: u64,
    row: u32,
}

/// Batches of rows, by number.
#[derive(Default)]
struct Kept {
    /// With how many of their rows are of open sessions.
    batches: BTreeMap<u64, (RecordBatch, usize)>,
    next: u64,
    rows: usize,
    dead: usize,
    bytes: usize,
}

/// A session that has ended.
struct Session {
    end: TimeMs,
    start: TimeMs,
    rows: Vec<KeptRow>,
}

impl SessionRows {
    /// `input` and `output` are the visible columns; `hidden` is what the input carries, `hidden_out` what the output
    /// does.
    pub fn new(
        node: &SessionsNode,
        input: &Schema,
        output: &Schema,
        hidden: Hidden,
        hidden_out: Hidden,
    ) -> Result<Self> {
        let visible = input.fields().len();
        let types = node.partition.iter().map(|&i| SortField::new(input.field(i).data_type().clone()));
        let watermark = hidden.watermark_index(visible);
        let shape = Shape {
            gap_ms: node.gap_ms,
            zone: node.zone,
            time: node.time,
            partition: node.partition.clone(),
            passed: node.passed.clone(),
            input_visible: visible,
            input_hidden: hidden,
            watermark: watermark.ok_or_else(|| Error::bug("rows of sessions carry no watermark"))?,
            schema: hidden_out.extend(output),
        };
        Ok(Self {
            converter: if types.len() == 0 { None } else { Some(RowConverter::new(types.collect())?) },
            judge: SessionJudge { gap_ms: node.gap_ms, reporter: Reporter::new(visible, hidden) },
            axis: Axis::Fixed { slice_ms: node.gap_ms, offset_ms: 0 },
            clock: WatermarkClock::default(),
            keys: HashMap::new(),
            due: BTreeMap::new(),
            kept: Kept::default(),
            first_new: 0,
            node: shape,
        })
    }

    fn add(&mut self, key: &[u8], row: KeptRow) {
        let end = row.time + self.node.gap_ms;
        match self.keys.get_mut(key) {
            Some(rows) => {
                rows.rows.push(row);
                if rows.due <= end {
                    return;
                }
                rows.due = end;
            }
            None => {
                self.keys.insert(Key::from(key), KeyRows { rows: vec![row], due: end });
            }
        }
        if let Some((key, _)) = self.keys.get_key_value(key) {
            self.due.entry(end).or_default().push(Arc::clone(key));
        }
    }

    /// Takes the sessions out whose end the watermark has reached.
    fn take_ended(&mut self, watermark: TimeMs) -> Vec<Session> {
        let mut ended = Vec::new();
        while let Some(entry) = self.due.first_entry().filter(|entry| *entry.key() <= watermark) {
            let (at, keys) = entry.remove_entry();
            for key in keys {
                // A key that has an earlier place in the list, or had one, is looked at there.
                let Some(of_key) = self.keys.get_mut(&key).filter(|of_key| of_key.due == at) else { continue };
                of_key.rows.sort_unstable();
                let mut rest = std::mem::take(&mut of_key.rows);
                while let Some(first) = rest.first() {
                    let start = first.time;
                    let within = |pair: &[KeptRow]| pair[1].time - pair[0].time <= self.node.gap_ms;
                    let length = 1 + rest.windows(2).take_while(|pair| within(pair)).count();
                    let end = rest[length - 1].time + self.node.gap_ms;
                    if watermark < end {
                        of_key.due = end;
                        self.due.entry(end).or_default().push(Arc::clone(&key));
                        break;
                    }
                    let others = rest.split_off(length);
                    ended.push(Session { end, start, rows: std::mem::replace(&mut rest, others) });
                }
                of_key.rows = rest;
                if of_key.rows.is_empty() {
                    self.keys.remove(&key);
                }
            }
        }
        ended.sort_by_key(|session| session.end);
        ended
    }

    /// What came since the last checkpoint and is still open, or all that is, by slice.
    fn give_rows(&mut self, extent: Extent, give: &mut dyn FnMut(Piece)) -> Result<()> {
        let first_new = if extent == Extent::Whole { 0 } else { self.first_new };
        let mut slices: BTreeMap<(PieceKind, SliceId), Vec<KeptRow>> = BTreeMap::new();
        for of_key in self.keys.values_mut().filter(|of_key| of_key.rows.iter().any(|row| first_new <= row.batch)) {
            of_key.rows.sort_unstable();
            for session in of_key.rows.chunk_by(|one, next| next.time - one.time <= self.node.gap_ms) {
                let goes_on = session.iter().any(|row| row.batch < first_new);
                let kind = if goes_on { PieceKind::GoesOn } else { PieceKind::Begun };
                for row in session.iter().filter(|row| first_new <= row.batch) {
                    slices.entry((kind, self.axis.slice_of(row.time))).or_default().push(*row);
                }
            }
        }
        for ((kind, slice), mut rows) in slices {
            rows.sort_unstable();
            give(Piece::new(kind, (slice, slice + 1), self.kept.rows(&rows)?));
        }
        if DEAD_ROWS_MAX < self.kept.dead && self.kept.rows / 4 * 3 < self.kept.dead {
            self.compact()?;
        }
        self.first_new = self.kept.next;
        Ok(())
    }

    /// Keeps rows in time.
    fn keep(&mut self, batch: &RecordBatch, times: &[TimeMs]) -> Result<()> {
        let columns: Vec<ArrayRef> = self.node.partition.iter().map(|&i| Arc::clone(batch.column(i))).collect();
        let keys = self.converter.as_ref().map(|converter| converter.convert_columns(&columns)).transpose()?;
        let number = self.kept.push(self.node.without_records(batch)?);
        for (row, &time) in times.iter().enumerate() {
            let key = keys.as_ref().map(|keys| keys.row(row));
            let key = key.as_ref().map_or(&[][..], |key| key.as_ref());
            self.add(key, KeptRow { time, batch: number, row: row as u32 });
        }
        Ok(())
    }

    /// Takes up what a checkpoint has given out, after those before it: as [`Sessions`](crate::state::Sessions) does.
    fn take_up(&mut self, pieces: Vec<Piece>) -> Result<()> {
        let (mut go_on, mut begun) = (Vec::new(), Vec::new());
        for piece in pieces {
            match piece.kind {
                PieceKind::GoesOn => go_on.push(piece.rows()?),
                PieceKind::Begun => begun.push(piece.rows()?),
                PieceKind::Clock => {}
                _ => return Err(unexpected(&piece)),
            }
        }
        let keep = |this: &mut Self, batches: Vec<RecordBatch>| {
            batches.iter().filter(|batch| 0 < batch.num_rows()).try_for_each(|batch| {
                let times = event_times(batch.column(this.node.time))?;
                this.keep(batch, times.as_primitive::<Int64Type>().values())
            })
        };
        keep(self, go_on)?;
        let ended: Vec<KeptRow> = self.take_ended(self.clock.now()).into_iter().flat_map(|s| s.rows).collect();
        self.kept.forget(&ended);
        keep(self, begun)
    }

    /// Puts the rows of open sessions together in one batch.
    fn compact(&mut self) -> Result<()> {
        let all: Vec<KeptRow> = self.keys.values().flat_map(|of_key| of_key.rows.iter().copied()).collect();
        let together = if all.is_empty() { None } else { Some(self.kept.rows(&all)?) };
        self.kept = Kept { next: self.kept.next, ..Kept::default() };
        let Some(together) = together else { return Ok(()) };
        let batch = self.kept.push(together);
        for (row, kept) in self.keys.values_mut().flat_map(|of_key| &mut of_key.rows).enumerate() {
            (kept.batch, kept.row) = (batch, row as u32);
        }
        Ok(())
    }
}

impl Kept {
    fn push(&mut self, batch: RecordBatch) -> u64 {
        let number = self.next;
        self.next += 1;
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        let live = batch.num_rows();
        self.batches.insert(number, (batch, live));
        number
    }

    /// A batch of these rows.
    fn rows(&self, rows: &[KeptRow]) -> Result<RecordBatch> {
        let mut place: HashMap<u64, usize> = HashMap::new();
        let mut batches = Vec::new();
        let mut at = Vec::with_capacity(rows.len());
        for row in rows {
            let batch = *place.entry(row.batch).or_insert_with(|| {
                batches.extend(self.batches.get(&row.batch).map(|(batch, _)| batch));
                batches.len().saturating_sub(1)
            });
            at.push((batch, row.row as usize));
        }
        Ok(interleave_record_batch(&batches, &at)?)
    }

    /// Forgets rows.
    fn forget(&mut self, rows: &[KeptRow]) {
        for row in rows {
            let Some((_, live)) = self.batches.get_mut(&row.batch) else { continue };
            *live -= 1;
            self.dead += 1;
            if *live == 0
                && let Some((batch, _)) = self.batches.remove(&row.batch)
            {
                self.rows -= batch.num_rows();
                self.dead -= batch.num_rows();
                self.bytes -= batch.get_array_memory_size();
            }
        }
    }
}

impl Shape {
    /// The same rows, whose records are not kept for as long as sessions are.
    fn without_records(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let Some(raw) = self.input_hidden.index(Hidden::RAW, self.input_visible) else { return Ok(batch.clone()) };
        let mut columns = batch.columns().to_vec();
        columns[raw] = new_null_array(columns[raw].data_type(), batch.num_rows());
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    }

    /// Rows with the bounds of their sessions and the hidden columns that others expect.
    fn output(&self, batch: &RecordBatch, starts: &[TimeMs], ends: &[TimeMs]) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = self.passed.iter().map(|&i| Arc::clone(batch.column(i))).collect();
        let shown = |times: &[TimeMs]| times.iter().map(|&time| local_ms(self.zone, time)).collect::<Vec<_>>();
        for times in [shown(starts), shown(ends), ends.iter().map(|end| end - 1).collect()] {
            let ms: ArrayRef = Arc::new(TimestampMillisecondArray::from(times));
            let data_type = self.schema.field(columns.len()).data_type();
            let is_plain = *data_type == DataType::Timestamp(TimeUnit::Millisecond, None);
            columns.push(if is_plain { ms } else { with_type(&ms, data_type)? });
        }
        for field in &self.schema.fields()[columns.len()..] {
            columns.push(match field.name().as_str() {
                // Rows of a session precede its end: they are late for nothing above.
                Hidden::WATERMARK => Arc::new(Int64Array::from(vec![WATERMARK_MIN; batch.num_rows()])),
                Hidden::TIME => event_times(batch.column(self.time))?,
                Hidden::WINDOW => Arc::new(Int64Array::from(ends.to_vec())),
                name => {
                    let at = self.input_hidden.index(name, self.input_visible);
                    Arc::clone(batch.column(at.ok_or_else(|| Error::bug(format!("rows carry no {name}")))?))
                }
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl Operator for SessionRows {
    fn on_batch(&mut self, _: usize, batch: RecordBatch, out: &mut Output) -> Result<()> {
        let times = event_times(batch.column(self.node.time))?;
        let times = times.as_primitive::<Int64Type>().values();
        let watermarks = numbers(&batch, self.node.watermark);
        let mut rows = Vec::with_capacity(times.len());
        for (row, (&time, &watermark)) in times.iter().zip(watermarks).enumerate() {
            if !self.judge.is_in_time(&batch, row, time, watermark, out) {
                continue;
            }
            if self.axis.start_of(self.axis.slice_of(time) + 1) - 1 <= self.clock.now() {
                out.counts.lose(1);
                continue;
            }
            rows.push(row as u64);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let times: Vec<TimeMs> = rows.iter().map(|&row| times[row as usize]).collect();
        let batch =
            if rows.len() == batch.num_rows() { batch } else { take_record_batch(&batch, &UInt64Array::from(rows))? };
        self.keep(&batch, &times)
    }

    fn on_boundary(&mut self, boundary: &Boundary, progress: Progress, out: &mut Output) -> Result<Progress> {
        let watermark = match boundary.end {
            End::Finished => WATERMARK_MAX,
            End::GoesOn | End::Stopped => self.clock.at_boundary(progress, boundary.clock_ms),
        };
        let (mut rows, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for session in self.take_ended(watermark) {
            starts.extend(std::iter::repeat_n(session.start, session.rows.len()));
            ends.extend(std::iter::repeat_n(session.end, session.rows.len()));
            rows.extend(session.rows);
        }
        for from in (0..rows.len()).step_by(BATCH_ROWS_MAX) {
            let range = from..rows.len().min(from + BATCH_ROWS_MAX);
            let batch = self.kept.rows(&rows[range.clone()])?;
            out.batches.push(self.node.output(&batch, &starts[range.clone()], &ends[range])?);
        }
        self.kept.forget(&rows);
        Ok(session_progress(progress, watermark))
    }

    fn checkpoint(&mut self, extent: Extent, give: &mut dyn FnMut(Piece)) -> Result<()> {
        give(Piece::of_clock(&self.clock));
        self.give_rows(extent, give)
    }

    fn restore(&mut self, checkpoints: Vec<Vec<Piece>>) -> Result<()> {
        for pieces in checkpoints {
            let Some(clock) = clock_of(&pieces) else { continue };
            self.clock = clock;
            self.take_up(pieces)?;
        }
        self.first_new = self.kept.next;
        Ok(())
    }

    fn state_size(&self) -> StateSize {
        let next_close = self.due.first_key_value().map(|(due, _)| *due);
        StateSize { open_windows: self.keys.len(), bytes: self.kept.bytes, disk_bytes: 0, next_close }
    }
}
