//! Statements to steps that can be run again and again: jobs are planned, rows computed, times resolved.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::ScalarValue;

use super::rows::{Row, quoted};
use super::said;
use crate::catalog::{Catalog, Column, ColumnKind, Table};
use crate::connectors::{Keep, OnError};
use crate::error::{Blame, Error, Result};
use crate::plan::{Op, PlanSettings, Planner, StreamPlan, reads_stream};
use crate::runtime::launch::compute;
use crate::runtime::{Engine, EngineConfig};
use crate::sql::query_test::{ExpectTarget, ExpectedRows, Place, TestStep, TestStepKind, parse_query_test};
use crate::sql::statement::{Insert, Query, Statement};
use crate::sql::types::quote;
use crate::time::TimeMs;

/// A test that can be run.
pub struct Prepared {
    pub steps: Vec<PreparedStep>,
    /// Per table that has any, the number of its partitions.
    pub partitions: BTreeMap<String, usize>,
}

/// A step, and the bytes it is written in.
pub struct PreparedStep {
    pub step: Step,
    pub span: Range<usize>,
}

/// What is to be done.
pub enum Step {
    /// Nothing: its effect was on the statements that follow.
    Done,
    /// A job starts.
    Start { plan: Arc<StreamPlan>, sinks: Vec<String> },
    /// Records: the columns that the table can be written with.
    Append { table: Arc<Table>, partition: usize, batch: RecordBatch },
    /// The watermark of partitions moves on.
    Watermark { of: Vec<(String, usize)>, to: TimeMs },
    /// The clock moves on.
    Clock { by: Option<i64>, to: Option<TimeMs> },
    /// Partitions end.
    End { of: Vec<(String, usize)> },
    /// Rows are compared.
    ExpectRows {
        target: ExpectTarget,
        table: String,
        expected: Vec<Row>,
        is_written: bool,
        head: String,
        nothing: String,
        in_order: bool,
    },
    /// A job has failed.
    ExpectFailure { text: String, at: Range<usize> },
    /// A statement was refused.
    ExpectError { text: String, at: Range<usize>, found: String },
}

impl Prepared {
    /// Plans a test.
    pub fn new(text: &str) -> Result<Self> {
        let parsed = parse_query_test(text)?;
        let mut partitions = BTreeMap::new();
        parsed.iter().for_each(|step| count_partitions(&step.kind, &mut partitions));
        let engine = Engine::open(EngineConfig::default())?;
        let mut preparing = Preparing { engine, partitions, written: BTreeMap::new(), read: BTreeMap::new() };
        let mut steps = Vec::new();
        for step in parsed {
            let span = step.span.clone();
            steps.push(PreparedStep { step: preparing.step(step)?, span });
        }
        Ok(Self { steps, partitions: preparing.partitions })
    }
}

/// Every partition that a test names exists from the beginning.
fn count_partitions(kind: &TestStepKind, partitions: &mut BTreeMap<String, usize>) {
    let mut note = |table: &str, partition: usize| {
        let count = partitions.entry(table.to_owned()).or_insert(1);
        *count = (*count).max(partition + 1);
    };
    match kind {
        TestStepKind::Insert { insert, partition } => note(&insert.table, partition.unwrap_or_default()),
        TestStepKind::Watermark { of: Some(place), .. } | TestStepKind::End(Some(place)) => {
            note(&place.table, place.partition.unwrap_or_default());
        }
        _ => {}
    }
}

/// Which records that a job turns away it tells.
#[derive(Clone, Copy, Default)]
struct Told {
    late: bool,
    bad: bool,
}

struct Preparing {
    engine: Engine,
    partitions: BTreeMap<String, usize>,
    /// Tables that jobs write to, and whether what they write is a changelog.
    written: BTreeMap<String, bool>,
    /// Tables that jobs read.
    read: BTreeMap<String, Told>,
}

impl Preparing {
    fn step(&mut self, step: TestStep) -> Result<Step> {
        let span = step.span.clone();
        self.kind(step.kind, &span).map_err(|e| e.at(span))
    }

    fn kind(&mut self, kind: TestStepKind, span: &Range<usize>) -> Result<Step> {
        let (catalog, settings) = self.engine.planning()?;
        let planner = Planner::with_settings(&catalog, settings);
        match kind {
            TestStepKind::Statement(mut parsed) => match &mut parsed.statement {
                Statement::StatementSet(inserts) => self.start(inserts),
                Statement::CreateTable(create) if create.query.is_some() => {
                    Err(Error::statement("CREATE TABLE .. AS SELECT is two things, and a test wants them apart")
                        .hint("write CREATE TABLE with its columns, then INSERT INTO it"))
                }
                Statement::CreateTable(create) => {
                    tell_late_rows(&mut create.table);
                    self.engine.execute(&parsed).map(|_| Step::Done)
                }
                Statement::CreateView(_) | Statement::Drop { .. } | Statement::Set(Some(_)) | Statement::Reset(_) => {
                    self.engine.execute(&parsed).map(|_| Step::Done)
                }
                _ => Err(Error::statement("in a test nobody looks at the result of this statement")
                    .hint("INSERT INTO a table, and EXPECT its rows")),
            },
            TestStepKind::Insert { insert, partition } => {
                let plan = planner.query(&insert.query)?;
                if reads_stream(&plan)? {
                    if partition.is_some() {
                        return Err(Error::statement("PARTITION is for rows that are written down")
                            .hint("leave it out: a job's rows are expected by their table"));
                    }
                    return self.start(std::slice::from_ref(&*insert));
                }
                self.append(&catalog, &planner, &insert, partition.unwrap_or_default())
            }
            TestStepKind::Watermark { of, to } => {
                Ok(Step::Watermark { of: self.places(of)?, to: time(&planner, &to)? })
            }
            TestStepKind::ClockBy(ms) => Ok(Step::Clock { by: Some(ms), to: None }),
            TestStepKind::ClockTo(to) => Ok(Step::Clock { by: None, to: Some(time(&planner, &to)?) }),
            TestStepKind::End(of) => Ok(Step::End { of: self.places(of)? }),
            TestStepKind::Rows { target, table, in_order, rows } => {
                self.expect_rows(&catalog, settings, target, table, in_order, &rows)
            }
            TestStepKind::Failure(text) => Ok(Step::ExpectFailure { text: text.text, at: text.span }),
            TestStepKind::Error { text, step } => {
                // What must fail must leave nothing behind if it does not.
                let (written, read) = (self.written.clone(), self.read.clone());
                let found = match self.step(*step) {
                    Err(error) => said(&error),
                    Ok(_) => return Err(Error::statement("this statement is not refused").at(span.clone())),
                };
                (self.written, self.read) = (written, read);
                Ok(Step::ExpectError { text: text.text, at: text.span, found })
            }
        }
    }

    fn start(&mut self, inserts: &[Insert]) -> Result<Step> {
        let plan = self.engine.plan(inserts)?;
        for node in &plan.nodes {
            let Op::Source(source) = &node.op else { continue };
            if self.written.contains_key(&source.table.name) {
                return Err(chained(&source.table.name));
            }
            let told = self.read.entry(source.table.name.clone()).or_default();
            told.late |= source.keep != Keep::Nothing && node.hidden.watermark;
            told.bad |= source.rejects.on_error == OnError::DeadLetter;
            self.partitions.entry(source.table.name.clone()).or_insert(1);
        }
        let mut sinks = Vec::new();
        for node in &plan.nodes {
            let Op::Sink(sink) = &node.op else { continue };
            let Some(table) = &sink.table else { return Err(Error::bug("a sink without a table")) };
            if self.read.contains_key(&table.name) {
                return Err(chained(&table.name));
            }
            let is_changelog = plan.nodes[node.inputs[0]].hidden.kind;
            self.written.insert(table.name.clone(), is_changelog);
            sinks.push(table.name.clone());
        }
        Ok(Step::Start { plan: Arc::new(plan), sinks })
    }

    fn append(&self, catalog: &Catalog, planner: &Planner, insert: &Insert, partition: usize) -> Result<Step> {
        let table = catalog.table(&insert.table).ok_or_else(|| catalog.unknown(&insert.table))?;
        if self.written.contains_key(&table.name) {
            return Err(Error::statement(format!("a job writes to {}: its rows are what it gives", table.name))
                .hint("INSERT INTO the table that the job reads"));
        }
        let batch = values(planner, &insert.query, table, &insert.columns)?;
        Ok(Step::Append { table: Arc::new(table.clone()), partition, batch })
    }

    fn places(&self, of: Option<Place>) -> Result<Vec<(String, usize)>> {
        let all = |table: &str, count: usize| (0..count).map(|p| (table.to_owned(), p)).collect::<Vec<_>>();
        let Some(place) = of else {
            return Ok(self.partitions.iter().flat_map(|(table, count)| all(table, *count)).collect());
        };
        let (catalog, _) = self.engine.planning()?;
        if catalog.table(&place.table).is_none() {
            return Err(catalog.unknown(&place.table));
        }
        let count = self.partitions.get(&place.table).copied().unwrap_or(1);
        Ok(match place.partition {
            Some(partition) => vec![(place.table, partition)],
            None => all(&place.table, count),
        })
    }

    fn expect_rows(
        &self,
        catalog: &Catalog,
        settings: PlanSettings,
        target: ExpectTarget,
        name: String,
        in_order: bool,
        rows: &ExpectedRows,
    ) -> Result<Step> {
        let mut table = catalog.table(&name).ok_or_else(|| catalog.unknown(&name))?.clone();
        let knows = match target {
            ExpectTarget::Sink => self.written.contains_key(&name),
            ExpectTarget::Late | ExpectTarget::PartlyLate | ExpectTarget::Bad => self.read.contains_key(&name),
        };
        if !knows {
            let does = if target == ExpectTarget::Sink { "writes to" } else { "reads" };
            return Err(Error::statement(format!("no job {does} {name}"))
                .hint("put the INSERT INTO .. SELECT under test before what is expected of it"));
        }
        let told = self.read.get(&name).copied().unwrap_or_default();
        match target {
            ExpectTarget::Late | ExpectTarget::PartlyLate if !told.late => {
                return Err(Error::statement(format!("no row of {name} is late for anything"))
                    .hint("only windows over the event time of a Kafka table judge its rows"));
            }
            ExpectTarget::Bad if !told.bad => {
                return Err(Error::statement(format!("no job goes on behind a bad record of {name}"))
                    .hint("add 'scan.on-error' = 'dead-letter' and a 'scan.dead-letter.topic' to the table"));
            }
            _ => {}
        }
        if target == ExpectTarget::Sink && self.written[&name] {
            table.columns.insert(0, kind_column());
        }
        let expected = match rows {
            ExpectedRows::Nothing | ExpectedRows::Unwritten => Vec::new(),
            ExpectedRows::Values(query) => {
                let batch = values(&Planner::with_settings(catalog, settings), query, &table, &[])?;
                Row::of(&batch)?
            }
        };
        let shown = quote(&name);
        let (head, nothing) = match target {
            ExpectTarget::Sink => (format!("EXPECT {shown}"), format!("EXPECT NOTHING FROM {shown}")),
            ExpectTarget::Late => (format!("EXPECT LATE OF {shown}"), format!("EXPECT NOTHING LATE OF {shown}")),
            ExpectTarget::PartlyLate => {
                (format!("EXPECT PARTLY LATE OF {shown}"), format!("EXPECT NOTHING PARTLY LATE OF {shown}"))
            }
            ExpectTarget::Bad => (format!("EXPECT BAD OF {shown}"), format!("EXPECT NOTHING BAD OF {shown}")),
        };
        let head = if in_order { head + " IN ORDER" } else { head };
        let is_written = !matches!(rows, ExpectedRows::Unwritten);
        Ok(Step::ExpectRows { target, table: name, expected, is_written, head, nothing, in_order })
    }
}

fn chained(table: &str) -> Error {
    Error::statement(format!("one job writes to {table} and another one reads it"))
        .hint("test them apart, or make the first query a view")
}

/// A row of a changelog begins with its kind: `'+I'`, `'-U'`, `'+U'`, `'-D'`.
fn kind_column() -> Column {
    Column {
        name: "kind".to_owned(),
        data_type: DataType::Utf8,
        sql_type: "STRING".to_owned(),
        not_null: false,
        kind: ColumnKind::Physical,
        comment: None,
    }
}

/// Rows that are written down, as one batch of a table's columns.
fn values(planner: &Planner, query: &Query, table: &Table, columns: &[String]) -> Result<RecordBatch> {
    let plan = planner.written_into_sink(planner.query(query)?, table, columns)?;
    // There is no data but what the test says.
    let blame = |b| if b == Blame::Data { Blame::Statement } else { b };
    let batches = compute(&plan).map_err(|e| Error { blame: blame(e.blame), ..e }.at(query.span.clone()))?;
    let fields: Vec<_> = plan.schema().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batches = batches.into_iter().map(|b| RecordBatch::try_new(Arc::clone(&schema), b.columns().to_vec()));
    let batches = batches.collect::<Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

/// A time that is written down.
fn time(planner: &Planner, expr: &sqlparser::ast::Expr) -> Result<TimeMs> {
    match planner.constant(expr, &DataType::Timestamp(TimeUnit::Millisecond, None))? {
        ScalarValue::TimestampMillisecond(Some(time), _) => Ok(time),
        _ => Err(Error::statement(format!("{} is no time", quoted(&expr.to_string())))),
    }
}

/// Has a job tell which rows of a table are late, as it does where there is a topic for them.
fn tell_late_rows(table: &mut Table) {
    const KEY: &str = "scan.late.topic";
    let is_kafka = table.options.get("connector") == Some("kafka");
    if is_kafka && table.watermark.is_some() && table.options.get(KEY).is_none() {
        table.options.set(KEY, "late-rows-of-a-test");
    }
}
