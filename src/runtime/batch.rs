//! Batch mode: everything that the tables hold at this moment is read, then a plan of DataFusion's operators runs over it.
//!
//! It shares neither operators nor state with a stream: what each row's watermark is, say, is found by a loop over the
//! rows of its partition. All rows are kept in memory, and one thread works.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::compute::{BatchCoalescer, concat_batches, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMillisecondType};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::future::Either;

use super::clock;
use super::engine::Rows;
use super::outlets::check_not_null;
use super::shared::Shared;
use crate::catalog::options::Options;
use crate::connectors::{self, Defaults, OnError, Rejects, Sink, SourceRows, SourceSpec};
use crate::error::{Blame, Error, Result};
use crate::limits::BATCH_ROWS_MAX;
use crate::plan::{BatchTable, LateRows, Planner, SinkNode, hidden_fields};
use crate::sql::statement::{Emit, Query};
use crate::time::{TimeMs, WATERMARK_MIN, is_admissible};

/// How long to wait for records before it is looked whether the batch is still wanted.
const PATIENCE: Duration = Duration::from_millis(50);

/// A batch on its way: what it goes by, and the job by which it is seen and stopped.
pub struct Batch<'a> {
    pub planner: &'a Planner<'a>,
    pub late: LateRows,
    pub defaults: &'a Defaults,
    pub shared: &'a Shared,
}

impl Batch<'_> {
    /// The rows of plans, all over the same records: each table is read once.
    pub fn rows(&self, plans: &[LogicalPlan]) -> Result<Vec<Rows>> {
        // What the clock says is said once, when the batch begins.
        clock::set_worker_clock(clock::wall_ms());
        let mut tables = Tables::new();
        for table in self.planner.batch_tables(plans)? {
            tables.insert(table.name.clone(), self.read(&table)?);
        }
        plans.iter().map(|plan| compute(&self.planner.batch(plan, &tables, self.late)?, Some(self.shared))).collect()
    }

    /// Everything that a table holds.
    fn read(&self, table: &BatchTable) -> Result<Arc<dyn TableProvider>> {
        let mut ending = table.source.table.as_ref().clone();
        if ending.options.get("connector") == Some("kafka")
            && ending.options.get("scan.bounded.mode").is_none_or(|mode| mode == "unbounded")
        {
            let now = [("scan.bounded.mode".to_owned(), "latest-offset".to_owned())];
            let others = ending.options.iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
            ending.options = Options::from_pairs(others.chain(now).collect::<Vec<_>>());
        }
        let mut spec = SourceSpec::new(ending, table.source.columns.clone());
        spec.keep_timestamps = true;
        let source = connectors::open_source(spec, self.defaults)?;
        let plans = source.partitions();
        let mut open = Vec::new();
        for (partition, plan) in plans.iter().enumerate() {
            let Some(end) = plan.end else {
                return Err(Error::statement(format!("table {} has no end, so a batch cannot read it", table.name))
                    .hint(
                        "give it one, as 'number-of-rows' for datagen, or SET 'execution.runtime-mode' = 'streaming'",
                    ));
            };
            if plan.start < end {
                open.push((partition, end));
            }
        }
        let mut reader = source.reader(&(0..plans.len()).collect::<Vec<_>>())?;
        let mut rows = TableRows::new(table)?;
        let metrics = self.shared.metrics.input(0);
        while !open.is_empty() {
            check_wanted(self.shared)?;
            let mut ended = Vec::new();
            let mut has_rows = false;
            for &(partition, end) in &open {
                let Some(got) = reader.poll(partition, BATCH_ROWS_MAX)? else { continue };
                has_rows = true;
                let id = &plans[partition].id;
                let place = || format!("topic {}, partition {}", id.topic, id.partition);
                let bad = (rows.add(partition, &got, &place)? + got.undecoded.len()) as u64;
                metrics.records.fetch_add(got.records, Ordering::Relaxed);
                metrics.bytes.fetch_add(got.bytes, Ordering::Relaxed);
                metrics.skipped.fetch_add(got.bad + bad, Ordering::Relaxed);
                metrics.tombstones.fetch_add(got.tombstones, Ordering::Relaxed);
                if end <= got.next_offset {
                    ended.push(partition);
                }
            }
            open.retain(|(partition, _)| !ended.contains(partition));
            self.shared.metrics.set_trouble(0, reader.trouble());
            if !has_rows {
                reader.wait(PATIENCE)?;
            }
        }
        rows.provider()
    }

    /// The plans that DataFusion would run, without reading anything.
    pub fn explain(&self, plans: &[LogicalPlan]) -> Result<Vec<String>> {
        let mut tables = Tables::new();
        for table in self.planner.batch_tables(plans)? {
            tables.insert(table.name.clone(), TableRows::new(&table)?.provider()?);
        }
        let explained = plans.iter().map(|plan| {
            let plan = self.planner.batch(plan, &tables, self.late)?;
            Ok(context().state().optimize(&plan)?.display_indent().to_string())
        });
        explained.collect()
    }
}

/// Writes rows to a table, up to the end; answers how many.
pub fn write(sink: &dyn Sink, node: &SinkNode, rows: &Rows, shared: &Shared) -> Result<u64> {
    let mut encoder = sink.encoder()?;
    let mut writer = sink.writer()?;
    let mut count = 0;
    for batch in rows.batches.iter().filter(|batch| batch.num_rows() > 0) {
        check_not_null(batch, &node.not_null)?;
        writer.write(encoder.encode(batch, None)?)?;
        count += batch.num_rows() as u64;
        shared.metrics.rows_out.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
    }
    writer.flush()?;
    writer.close()?;
    Ok(count)
}

/// A query's plan before anything is decided about how it runs. Which results of open windows are wanted does not matter:
/// there are none.
pub fn logical(planner: &Planner<'_>, query: &Query) -> Result<LogicalPlan> {
    planner.query(&Query { emit: Emit::OnWindowClose, ..query.clone() })
}

/// What has been read, by table.
type Tables = BTreeMap<String, Arc<dyn TableProvider>>;

fn check_wanted(shared: &Shared) -> Result<()> {
    if shared.is_stopping() { Err(Error::new(Blame::Interrupted, "the batch was stopped")) } else { Ok(()) }
}

/// One partition: then sums of doubles do not depend on luck either.
fn context() -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1))
}

/// A join makes many rows of few. DataFusion lets other tasks in where rows are read; here also where joins give them.
fn interruptible(plan: Arc<dyn ExecutionPlan>) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
    let yields = |node: Arc<dyn ExecutionPlan>| {
        Ok(match node.name().ends_with("JoinExec") {
            true => Transformed::yes(Arc::new(CooperativeExec::new(node)) as _),
            false => Transformed::no(node),
        })
    };
    plan.transform_up(yields).data()
}

/// Runs a finite plan, as long as a job is not told to stop.
fn compute(plan: &LogicalPlan, job: Option<&Shared>) -> Result<Rows> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|e| Error::new(Blame::Usage, format!("cannot start a thread: {e}")))?;
    let schema = Arc::new(plan.schema().as_arrow().clone());
    let work = async {
        let context = context();
        let plan = context.state().create_physical_plan(plan).await?;
        collect(interruptible(plan)?, context.task_ctx()).await
    };
    let unwanted = async {
        loop {
            tokio::time::sleep(PATIENCE).await;
            if let Some(Err(error)) = job.map(check_wanted) {
                return error;
            }
        }
    };
    let batches = runtime.block_on(async {
        match futures::future::select(Box::pin(work), Box::pin(unwanted)).await {
            Either::Left((batches, _)) => Ok(batches?),
            Either::Right((error, _)) => Err(error),
        }
    })?;
    let batches = batches.into_iter().map(|batch| {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&schema), batch.columns().to_vec(), &options)?)
    });
    Ok(Rows { batches: batches.collect::<Result<_>>()?, schema })
}

/// What has been read of a partition.
struct Partition {
    /// The greatest value of the watermark's expression.
    watermark: TimeMs,
    /// In batches of one size, however the records came: sums of doubles depend on it.
    rows: BatchCoalescer,
}

/// The rows of a table with their hidden columns.
struct TableRows<'a> {
    table: &'a BatchTable,
    wide: SchemaRef,
    /// All columns of the table, then the hidden ones.
    schema: SchemaRef,
    partitions: BTreeMap<usize, Partition>,
    rejects: Rejects,
}

impl<'a> TableRows<'a> {
    fn new(table: &'a BatchTable) -> Result<Self> {
        let source = &table.source;
        let computed = source.computed.iter().map(|(field, _)| field);
        let wide: Vec<_> = source.decoded.fields().iter().chain(computed).cloned().collect();
        let all = source.table.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true));
        Ok(Self {
            wide: Arc::new(Schema::new(wide)),
            schema: Arc::new(Schema::new(all.chain(hidden_fields()).collect::<Vec<_>>())),
            partitions: BTreeMap::new(),
            rejects: Rejects::of(&source.table)?,
            table,
        })
    }

    /// Adds rows of a partition, behind those added before; how many of them were bad. `place` names the
    /// partition.
    fn add(&mut self, partition: usize, got: &SourceRows, place: &dyn Fn() -> String) -> Result<usize> {
        let (decoded, offsets) = (&got.columns, &got.offsets);
        // A batch writes to no topic: bad records are only counted.
        let skips_bad = self.rejects.on_error != OnError::Fail;
        let max_ahead = self.rejects.max_ahead.map_or(i64::MAX, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        let mut written = got.timestamps.clone();
        let options = RecordBatchOptions::new().with_row_count(Some(offsets.len()));
        let decoded =
            RecordBatch::try_new_with_options(Arc::clone(&self.table.source.decoded), decoded.to_vec(), &options)?;
        let bad = |offset: i64, reason: &str| {
            Error::data(format!("the record at {}, offset {offset} is bad: {reason}", place())).hint(format!(
                "mend the producer, or set 'scan.on-error' = 'skip' on table {}",
                self.table.source.table.name
            ))
        };
        let mut good: Vec<RecordBatch> = Vec::new();
        let mut kept = Vec::new();
        match self.with_computed(&decoded) {
            Ok(all) => {
                good.push(all);
                kept.extend_from_slice(offsets);
            }
            Err(_) => {
                written.clear();
                for (row, &offset) in offsets.iter().enumerate() {
                    match self.with_computed(&decoded.slice(row, 1)) {
                        Ok(batch) => {
                            good.push(batch);
                            kept.push(offset);
                            written.extend(got.timestamps.get(row));
                        }
                        Err(_) if skips_bad => {}
                        Err(error) => return Err(bad(offset, &error.message)),
                    }
                }
            }
        }
        let mut wide = concat_batches(&self.wide, &good)?;
        let mut watermarks = vec![WATERMARK_MIN; kept.len()];
        let mut times: ArrayRef = Arc::new(Int64Array::from(vec![TimeMs::MIN; kept.len()]));
        if let Some((time, watermark)) = &self.table.source.watermark {
            let values = wide.column(*time).as_primitive::<TimestampMillisecondType>().clone();
            let usable = |row: &u32| {
                let row = *row as usize;
                let is_ahead = |time| written.get(row).is_some_and(|w| w.saturating_add(max_ahead) < time);
                values.is_valid(row) && is_admissible(values.value(row)) && !is_ahead(values.value(row))
            };
            let rows = 0..u32::try_from(values.len()).unwrap_or(u32::MAX);
            if let Some(unusable) = rows.clone().find(|row| !usable(row)).filter(|_| !skips_bad) {
                let reason = if values.is_null(unusable as usize) { "is null" } else { "is out of range" };
                let name = self.wide.field(*time).name();
                return Err(bad(kept[unusable as usize], &format!("its event time {name} {reason}")));
            }
            let rows: Vec<u32> = rows.filter(usable).collect();
            kept = rows.iter().map(|&row| kept[row as usize]).collect();
            wide = take_record_batch(&wide, &UInt32Array::from(rows))?;
            let after = watermark.evaluate(&wide)?.into_array(wide.num_rows())?;
            let greatest = &mut self.partition(partition).watermark;
            watermarks.clear();
            for after in after.as_primitive::<TimestampMillisecondType>() {
                watermarks.push(*greatest);
                *greatest = after.unwrap_or(WATERMARK_MIN).max(*greatest);
            }
            let values = wide.column(*time).as_primitive::<TimestampMillisecondType>();
            times = Arc::new(Int64Array::new(values.values().clone(), None));
        }
        let ties = kept.iter().map(|offset| {
            let source = self.table.ordinal.to_be_bytes();
            [source.as_slice(), (partition as u32).to_be_bytes().as_slice(), offset.to_be_bytes().as_slice()].concat()
        });
        // Columns that nobody asked for have not been read.
        let names = self.table.source.table.columns.iter();
        let mut columns: Vec<ArrayRef> = names
            .map(|c| match wide.column_by_name(&c.name) {
                Some(column) => Arc::clone(column),
                None => new_null_array(&c.data_type, kept.len()),
            })
            .collect();
        columns.push(Arc::new(Int64Array::from(watermarks)));
        columns.push(Arc::new(BinaryArray::from_iter_values(ties)));
        columns.push(times);
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        self.partition(partition).rows.push_batch(batch)?;
        Ok(offsets.len() - kept.len())
    }

    fn with_computed(&self, decoded: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = decoded.columns().to_vec();
        for (_, expr) in &self.table.source.computed {
            columns.push(expr.evaluate(decoded)?.into_array(decoded.num_rows())?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(decoded.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.wide), columns, &options)?)
    }

    fn partition(&mut self, partition: usize) -> &mut Partition {
        let new = || Partition {
            watermark: WATERMARK_MIN,
            rows: BatchCoalescer::new(Arc::clone(&self.schema), BATCH_ROWS_MAX),
        };
        self.partitions.entry(partition).or_insert_with(new)
    }

    fn provider(self) -> Result<Arc<dyn TableProvider>> {
        let mut batches = Vec::new();
        for mut partition in self.partitions.into_values() {
            partition.rows.finish_buffered_batch()?;
            batches.extend(std::iter::from_fn(|| partition.rows.next_completed_batch()));
        }
        Ok(Arc::new(MemTable::try_new(self.schema, vec![batches])?))
    }
}

/// Records of one partition, in the order of their offsets: columns of the table by name, at least those that a query
/// needs and that are not computed.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) struct PartitionRows {
    /// The columns.
    pub rows: RecordBatch,
    /// The offset of each row.
    pub offsets: Vec<i64>,
}

/// Per table, the records of each of its partitions.
#[cfg(test)]
pub(crate) type Recorded = BTreeMap<String, Vec<PartitionRows>>;

/// The answer to a query over these records: the rows that a bounded run of it gives in the end, in any order unless the
/// query says one.
#[cfg(test)]
pub(crate) fn answer(planner: &Planner<'_>, query: &Query, late: LateRows, recorded: &Recorded) -> Result<Rows> {
    let plan = logical(planner, query)?;
    let mut tables = Tables::new();
    for table in planner.batch_tables(std::slice::from_ref(&plan))? {
        let mut rows = TableRows::new(&table)?;
        for (partition, records) in recorded.get(&table.name).into_iter().flatten().enumerate() {
            let columns = table.source.decoded.fields().iter().map(|field| {
                let column = records.rows.column_by_name(field.name()).cloned();
                column.ok_or_else(|| Error::bug(format!("the records of {} have no {}", table.name, field.name())))
            });
            let columns = columns.collect::<Result<Vec<_>>>()?;
            let got = SourceRows { columns, offsets: records.offsets.clone(), ..SourceRows::default() };
            rows.add(partition, &got, &|| format!("partition {partition}"))?;
        }
        tables.insert(table.name.clone(), rows.provider()?);
    }
    compute(&planner.batch(&plan, &tables, late)?, None)
}
