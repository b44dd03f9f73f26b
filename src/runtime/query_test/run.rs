//! One run of a test: jobs rehearsed over logs in memory.
//!
//! Records wait in the logs of their partitions. What a step expects it sees behind a boundary: every job has read all
//! there is, in batches and in an interleaving that the variant chooses, and has passed on how far event time has come.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::array::{BooleanArray, TimestampMillisecondArray};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, is_not_null};
use arrow::datatypes::Int8Type;

use super::prepare::{Prepared, Step};
use super::rows::Row;
use super::{Found, said};
use crate::catalog::{ColumnKind, Table};
use crate::connectors::{RawRecords, SourceColumn, SourceRows};
use crate::error::{Error, Result};
use crate::exec::{Boundary, End, Extent, Rejected, Rejection};
use crate::plan::{Hidden, RowKind, SourceNode};
use crate::runtime::launch::idle_timeout;
use crate::runtime::rehearsal::Rehearsal;
use crate::sql::query_test::ExpectTarget;
use crate::time::{IDLE_CLOCK_STEP_MS_MAX, TimeMs};

/// `ADVANCE CLOCK` takes at most so many steps.
const CLOCK_STEPS_MAX: i64 = 10_000;

/// How a test is run.
#[derive(Clone, Copy)]
pub struct Variant {
    pub workers: usize,
    /// Rows of a batch, at most.
    pub rows_max: usize,
    /// Of interleavings and cuts; without one everything goes in order.
    pub seed: Option<u64>,
}

impl Variant {
    /// What it is called.
    pub fn title(&self) -> String {
        let workers = if self.workers == 1 { "1 worker".to_owned() } else { format!("{} workers", self.workers) };
        match self.rows_max {
            1 => format!("with {workers} and batches of one row"),
            usize::MAX => format!("with {workers}"),
            n => format!("with {workers} and batches of up to {n} rows"),
        }
    }
}

/// What the steps that expect something have seen, by their number.
pub struct Trace {
    pub observed: BTreeMap<usize, Observed>,
    pub end: Ended,
}

/// What a step has seen.
pub enum Observed {
    /// Rows.
    Rows(Found),
    /// What a job failed with, if one did.
    Failure(Option<String>),
}

/// How a run ended.
pub enum Ended {
    /// All steps are done.
    Well,
    /// A job failed at a step, and no step expected it.
    Failed(usize, Error),
}

/// What a partition holds.
enum Entry {
    Rows { offset: i64, clock_ms: TimeMs, batch: RecordBatch },
    Watermark(TimeMs),
    End,
}

/// A partition of a table.
#[derive(Default)]
struct Log {
    entries: Vec<Entry>,
    next_offset: i64,
}

/// See the module's head.
pub struct Run<'a> {
    prepared: &'a Prepared,
    variant: Variant,
    chance: Chance,
    clock_ms: TimeMs,
    logs: BTreeMap<String, Vec<Log>>,
    jobs: Vec<Job>,
    /// What came since the last time, and whether it is a changelog.
    found: BTreeMap<(ExpectTarget, String), Found>,
    failures: Vec<Error>,
}

struct Job {
    rehearsal: Rehearsal,
    sinks: Vec<String>,
    /// By source and partition.
    reading: Vec<Vec<Reading>>,
    sequence: u64,
    ended: bool,
}

/// How far a job has read a partition.
struct Reading {
    entry: usize,
    row: usize,
    /// The clock when the last record was read.
    since_ms: TimeMs,
    ended: bool,
}

impl<'a> Run<'a> {
    /// A run that has not begun.
    pub fn new(prepared: &'a Prepared, variant: Variant) -> Self {
        let logs = |count: usize| (0..count).map(|_| Log::default()).collect();
        Self {
            prepared,
            variant,
            chance: Chance(variant.seed.unwrap_or_default()),
            clock_ms: 0,
            logs: prepared.partitions.iter().map(|(table, count)| (table.clone(), logs(*count))).collect(),
            jobs: Vec::new(),
            found: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// Runs all steps.
    pub fn trace(mut self) -> Trace {
        let mut observed = BTreeMap::new();
        for (number, step) in self.prepared.steps.iter().enumerate() {
            match self.step(&step.step) {
                Ok(Some(seen)) => drop(observed.insert(number, seen)),
                Ok(None) => {}
                Err(error) => return Trace { observed, end: Ended::Failed(number, error) },
            }
        }
        self.boundary();
        let end = match (self.failures.pop(), self.prepared.steps.len()) {
            (Some(error), steps @ 1..) => Ended::Failed(steps - 1, error),
            _ => Ended::Well,
        };
        Trace { observed, end }
    }

    fn step(&mut self, step: &Step) -> Result<Option<Observed>> {
        match step {
            Step::Done | Step::ExpectError { .. } => {}
            Step::Start { plan, sinks } => {
                let partitions: Vec<usize> = crate::runtime::rehearsal::sources_of(plan)
                    .map(|(_, source)| self.prepared.partitions.get(&source.table.name).copied().unwrap_or(1))
                    .collect();
                let since_ms = self.clock_ms;
                let reading = || Reading { entry: 0, row: 0, since_ms, ended: false };
                let reading = partitions.iter().map(|count| (0..*count).map(|_| reading()).collect()).collect();
                let rehearsal = Rehearsal::new(Arc::clone(plan), &partitions, self.variant.workers, self.clock_ms)?;
                self.jobs.push(Job { rehearsal, sinks: sinks.clone(), reading, sequence: 0, ended: false });
            }
            Step::Append { table, partition, batch } => {
                let log = self.log(&table.name, *partition)?;
                let (offset, rows) = (log.next_offset, batch.num_rows());
                log.next_offset += i64::try_from(rows).unwrap_or(i64::MAX);
                let clock_ms = self.clock_ms;
                let entry = Entry::Rows { offset, clock_ms, batch: batch.clone() };
                self.log(&table.name, *partition)?.entries.push(entry);
            }
            Step::Watermark { of, to } => {
                for (table, partition) in of {
                    self.log(table, *partition)?.entries.push(Entry::Watermark(*to));
                }
            }
            Step::End { of } => {
                for (table, partition) in of {
                    self.log(table, *partition)?.entries.push(Entry::End);
                }
                self.boundary();
            }
            Step::Clock { by, to } => {
                let target = by.map_or(to.unwrap_or_default(), |by| self.clock_ms.saturating_add(by));
                self.boundary();
                if self.clock_ms == 0 || target < self.clock_ms {
                    // Nothing has happened yet; or the clock steps back.
                    self.clock_ms = if by.is_none() { target } else { self.clock_ms };
                }
                // In steps that the watermark of an idle stream can follow, but not for ever.
                let step = IDLE_CLOCK_STEP_MS_MAX.max(target.saturating_sub(self.clock_ms) / CLOCK_STEPS_MAX);
                while self.clock_ms < target {
                    self.clock_ms = self.clock_ms.saturating_add(step).min(target);
                    self.boundary();
                }
            }
            Step::ExpectRows { target, table, .. } => {
                self.boundary();
                if let Some(error) = self.failures.pop() {
                    return Err(error);
                }
                let none = Found { rows: Vec::new(), is_changelog: false };
                let found = self.found.remove(&(*target, table.clone())).unwrap_or(none);
                return Ok(Some(Observed::Rows(found)));
            }
            Step::ExpectFailure { .. } => {
                self.boundary();
                return Ok(Some(Observed::Failure(self.failures.pop().map(|error| said(&error)))));
            }
        }
        Ok(None)
    }

    fn log(&mut self, table: &str, partition: usize) -> Result<&mut Log> {
        let log = self.logs.get_mut(table).and_then(|logs| logs.get_mut(partition));
        let log = log.ok_or_else(|| Error::bug(format!("{table} has no partition {partition}")))?;
        match log.entries.last() {
            Some(Entry::End) => Err(Error::statement(format!("partition {partition} of {table} has ended"))),
            _ => Ok(log),
        }
    }

    /// All jobs read all there is, and a boundary is called.
    fn boundary(&mut self) {
        for mut job in std::mem::take(&mut self.jobs) {
            match self.turn(&mut job) {
                Ok(()) if job.ended => {}
                Ok(()) => self.jobs.push(job),
                // What it gave out before it failed has been written.
                Err(error) => {
                    let _ = self.collect(&mut job);
                    self.failures.push(error);
                }
            }
        }
    }

    fn turn(&mut self, job: &mut Job) -> Result<()> {
        while self.read(job)? {
            while self.variant.seed.is_some() && self.chance.below(5) < 2 {
                let chance = &mut self.chance;
                if !job.rehearsal.deliver(1.., &mut |n| chance.below(n))? {
                    break;
                }
            }
        }
        for (source, partitions) in job.reading.iter().enumerate() {
            let timeout = idle_timeout(&job.rehearsal.source(source).1.table)?;
            for (partition, reading) in partitions.iter().enumerate() {
                let waited = u128::try_from(self.clock_ms.saturating_sub(reading.since_ms)).unwrap_or_default();
                let stage = job.rehearsal.stage(source, partition);
                if !reading.ended && timeout.is_some_and(|t| t.as_millis() <= waited) && !stage.is_idle(partition) {
                    stage.set_idle(partition);
                }
            }
        }
        job.ended = job.reading.iter().flatten().all(|reading| reading.ended);
        job.sequence += 1;
        // State gives out its deltas now and then, which must change nothing.
        let checkpoint = (self.variant.seed.is_some() && self.chance.below(3) == 0).then_some(Extent::Delta);
        let end = if job.ended { End::Finished } else { End::GoesOn };
        let boundary = Boundary { sequence: job.sequence, clock_ms: self.clock_ms, checkpoint, end };
        job.rehearsal.boundary(&boundary, &mut |n| self.variant.seed.map_or(0, |_| self.chance.below(n)))?;
        self.collect(job)
    }

    /// Reads once from some partition that has something; `false` when none has.
    fn read(&mut self, job: &mut Job) -> Result<bool> {
        let mut open = Vec::new();
        for (source, partitions) in job.reading.iter().enumerate() {
            let logs = self.logs.get(&job.rehearsal.source(source).1.table.name);
            for (partition, reading) in partitions.iter().enumerate() {
                let entries = logs.and_then(|logs| logs.get(partition)).map_or(0, |log| log.entries.len());
                if reading.entry < entries {
                    open.push((source, partition));
                }
            }
        }
        let first = if self.variant.seed.is_some() { self.chance.below(open.len().max(1)) } else { 0 };
        let Some(&(source, partition)) = open.get(first) else { return Ok(false) };
        let node = job.rehearsal.source(source).1;
        let log = &self.logs[&node.table.name][partition];
        let reading = &mut job.reading[source][partition];
        match &log.entries[reading.entry] {
            Entry::Rows { offset, clock_ms, batch } => {
                let rows = (batch.num_rows() - reading.row).min(self.variant.rows_max);
                let from = reading.row;
                reading.row += rows;
                reading.since_ms = self.clock_ms;
                if reading.row == batch.num_rows() {
                    reading.entry += 1;
                    reading.row = 0;
                }
                let first = offset + i64::try_from(from).unwrap_or(i64::MAX);
                let rows = source_rows(node, partition, first, *clock_ms, &batch.slice(from, rows))?;
                job.rehearsal.read(source, partition, &rows)?;
            }
            Entry::Watermark(to) => {
                reading.entry += 1;
                job.rehearsal.stage(source, partition).advance_watermark(partition, *to);
            }
            Entry::End => {
                reading.entry += 1;
                reading.ended = true;
                job.rehearsal.stage(source, partition).set_ended(partition);
            }
        }
        Ok(true)
    }

    /// Sorts what a job has given out by where it belongs.
    fn collect(&mut self, job: &mut Job) -> Result<()> {
        let given = job.rehearsal.take();
        for (sink, batch) in given.rows {
            let node = &job.rehearsal.plan().nodes[job.rehearsal.sinks()[sink]];
            let visible = node.visible.fields().len();
            let below = job.rehearsal.plan().nodes[node.inputs[0]].hidden;
            let mut rows = Row::of_columns(&batch.columns()[..visible], batch.num_rows())?;
            let kind = below.index(Hidden::KIND, visible);
            if let Some(kind) = kind {
                let kinds = batch.column(kind).as_primitive::<Int8Type>().values();
                rows = rows.into_iter().zip(kinds).map(|(row, kind)| row.behind(RowKind::of(*kind).sign())).collect();
            }
            let found = self.found_mut(ExpectTarget::Sink, &job.sinks[sink]);
            found.is_changelog |= kind.is_some();
            found.rows.extend(rows);
        }
        for (_, rejected) in given.rejected {
            let Some((target, table, row)) = self.turned_away(job, &rejected)? else { continue };
            self.found_mut(target, &table).rows.push(row);
        }
        Ok(())
    }

    fn found_mut(&mut self, target: ExpectTarget, table: &str) -> &mut Found {
        let none = || Found { rows: Vec::new(), is_changelog: false };
        self.found.entry((target, table.to_owned())).or_insert_with(none)
    }

    /// The record that was turned away, as it was appended.
    fn turned_away(&self, job: &Job, rejected: &Rejected) -> Result<Option<(ExpectTarget, String, Row)>> {
        let target = match rejected.rejection {
            Rejection::Late { partly: true, .. } => ExpectTarget::PartlyLate,
            Rejection::Late { .. } => ExpectTarget::Late,
            Rejection::Failed(_) => ExpectTarget::Bad,
        };
        let origin = rejected.origin;
        let table = &job.rehearsal.source(usize::from(origin.source)).1.table.name;
        let log = self.logs.get(table).and_then(|logs| logs.get(origin.partition as usize));
        for entry in log.iter().flat_map(|log| &log.entries) {
            let Entry::Rows { offset, batch, .. } = entry else { continue };
            let Ok(at) = usize::try_from(origin.offset - offset) else { continue };
            if at < batch.num_rows() {
                let row = Row::of(&batch.slice(at, 1))?.pop();
                return Ok(row.map(|row| (target, table.clone(), row)));
            }
        }
        Err(Error::bug("a record was turned away that nobody appended"))
    }
}

/// Records as a connector would give them.
fn source_rows(
    node: &SourceNode,
    partition: usize,
    first: i64,
    clock_ms: TimeMs,
    batch: &RecordBatch,
) -> Result<SourceRows> {
    let rows = batch.num_rows();
    let offsets: Vec<i64> = (first..).take(rows).collect();
    let columns = node.columns.iter().zip(node.decoded.fields()).map(|(column, field)| -> Result<ArrayRef> {
        let array = match column {
            SourceColumn::Physical(name) => batch.column_by_name(name).cloned(),
            SourceColumn::Metadata { key, .. } => {
                let own: ArrayRef = match key.as_str() {
                    "topic" => Arc::new(StringArray::from(vec![topic(&node.table); rows])),
                    "partition" => Arc::new(Int32Array::from(vec![i32::try_from(partition).unwrap_or(i32::MAX); rows])),
                    "offset" => Arc::new(Int64Array::from(offsets.clone())),
                    "timestamp" => Arc::new(TimestampMillisecondArray::from(vec![clock_ms; rows])),
                    "timestamp-type" => Arc::new(StringArray::from(vec!["CreateTime"; rows])),
                    _ => new_null_array(field.data_type(), rows),
                };
                let own = cast(&own, field.data_type())?;
                Some(match written(&node.table, key).and_then(|name| batch.column_by_name(name)) {
                    Some(given) => {
                        let given = cast(given, field.data_type())?;
                        let is_given: BooleanArray = is_not_null(&given)?;
                        zip(&is_given, &given, &own)?
                    }
                    None => own,
                })
            }
        };
        let array = array.ok_or_else(|| Error::bug(format!("no column {} in a record", field.name())))?;
        Ok(if array.data_type() == field.data_type() { array } else { cast(&array, field.data_type())? })
    });
    // Nobody looks into the records of rows that are turned away: their offsets tell which they are.
    let mut raw = RawRecords::default();
    (0..rows).for_each(|_| raw.push(None, b""));
    Ok(SourceRows {
        raw: Some(raw.take()?),
        timestamps: vec![clock_ms; rows],
        columns: columns.collect::<Result<_>>()?,
        next_offset: first + i64::try_from(rows).unwrap_or(i64::MAX),
        offsets,
        records: rows as u64,
        at_end: true,
        ..SourceRows::default()
    })
}

fn topic(table: &Table) -> &str {
    table.options.get("topic").unwrap_or(&table.name)
}

/// The column through which a property of records is written.
fn written<'a>(table: &'a Table, property: &str) -> Option<&'a str> {
    let is_written =
        |kind: &ColumnKind| matches!(kind, ColumnKind::Metadata { key, is_virtual: false } if key == property);
    table.columns.iter().find(|column| is_written(&column.kind)).map(|column| column.name.as_str())
}

/// Chance that can be repeated (SplitMix64).
struct Chance(u64);

impl Chance {
    /// From 0 up to, not including, `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits % bound as u64) as usize
    }
}
