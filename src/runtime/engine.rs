//! The facade that every surface calls: statements in, outcomes out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::job::Job;
use super::launch::{Launch, compute, launch};
use super::query::QueryStream;
use super::session::Session;
use crate::catalog::options::Options;
use crate::catalog::{Catalog, Column, ColumnKind, Table, View};
use crate::connectors::kafka::{ClientProperties, Cluster, Embedded};
use crate::connectors::{self, Defaults};
use crate::error::{Error, Result};
use crate::plan::{Op, Planner, SinkNode, StreamPlan, explain, reads_stream, split_limit};
use crate::sql::Script;
use crate::sql::show::{show_create_table, show_create_view};
use crate::sql::statement::{CreateTable, CreateView, Insert, ObjectKind, Parsed, Query, Show, Statement};
use crate::sql::types::sql_type;

/// How to open an [`Engine`].
#[derive(Clone, Debug, Default)]
pub struct EngineConfig {
    /// Bootstrap servers for Kafka tables that name none. `embedded` starts a broker inside this process, and so does
    /// `None` with `embedded_if_none`.
    pub brokers: Option<String>,
    /// Kafka client properties for all tables, such as `security.protocol`.
    pub properties: BTreeMap<String, String>,
    /// Start a broker inside this process when no servers are named.
    pub embedded_if_none: bool,
}

/// A finite result.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

/// What came of a statement.
pub enum Outcome {
    /// It is done; a sentence for people, and notices (options that change nothing here, and the like).
    Done(String, Vec<String>),
    /// A finite result.
    Rows(Rows),
    /// A text: a plan, a statement.
    Text(String),
    /// An `INSERT` runs in the background.
    Started(Job),
    /// Rows that come as they come.
    Query(QueryStream),
}

/// The engine: a catalog, settings, and jobs. Cloning gives another handle on the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
}

struct State {
    catalog: Catalog,
    session: Session,
    defaults: Defaults,
    jobs: Vec<Job>,
}

impl Engine {
    /// Opens an engine. Nothing is connected to yet, but the broker inside this process is started if it is asked for.
    pub fn open(config: EngineConfig) -> Result<Self> {
        let wants_embedded = match &config.brokers {
            Some(brokers) => brokers == "embedded",
            None => config.embedded_if_none,
        };
        let embedded = if wants_embedded { Some(Embedded::start()?) } else { None };
        let brokers = config.brokers.filter(|b| b != "embedded");
        let defaults = Defaults { brokers, properties: config.properties, embedded };
        let state = State { catalog: Catalog::default(), session: Session::default(), defaults, jobs: Vec::new() };
        Ok(Self(Arc::new(Inner { state: Mutex::new(state) })))
    }

    /// Where Kafka tables go that name no servers: the servers' addresses, and whether they are inside this process.
    pub fn brokers(&self) -> Option<(String, bool)> {
        let state = self.state();
        match (&state.defaults.brokers, &state.defaults.embedded) {
            (Some(brokers), _) => Some((brokers.clone(), false)),
            (None, Some(embedded)) => Some((embedded.brokers().to_owned(), true)),
            (None, None) => None,
        }
    }

    /// The statements of a text, one by one: each is parsed, executed, and its outcome given, before the next is looked
    /// at. The first error ends it.
    pub fn run<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Result<Outcome>> + 'a {
        let mut script = Script::new(text);
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed {
                return None;
            }
            let result = script.next()?.and_then(|statement| self.execute(&statement));
            failed = result.is_err();
            Some(result)
        })
    }

    /// Executes one statement. Errors point into the text that it was parsed from.
    pub fn execute(&self, statement: &Parsed) -> Result<Outcome> {
        self.dispatch(&statement.statement, &statement.text).map_err(|e| e.at(statement.span.clone()))
    }

    fn dispatch(&self, statement: &Statement, text: &str) -> Result<Outcome> {
        match statement {
            Statement::CreateTable(create) => self.create_table(create),
            Statement::CreateView(create) => self.create_view(create),
            Statement::Drop { kind, name, if_exists } => self.drop_object(*kind, name, *if_exists),
            Statement::Insert(insert) => self.insert(std::slice::from_ref(insert), text),
            Statement::StatementSet(inserts) => self.insert(inserts, text),
            Statement::Query(query) => self.query(query, text),
            Statement::Explain { statement, analyze } => self.explain(statement, *analyze),
            Statement::Describe(name) => self.describe(name),
            Statement::Show(show) => self.show(show),
            Statement::Print { topic, from_beginning, limit } => self.print(topic, *from_beginning, *limit),
            Statement::StopJob(name) => self.stop_job(name),
            Statement::Set(Some((key, value))) => self.set(key, value),
            Statement::Set(None) => {
                let state = self.state();
                let rows: Vec<_> = state.session.shown().map(|(k, v)| vec![k.to_owned(), v.to_owned()]).collect();
                Ok(Outcome::Rows(Rows::of_text(&["key", "value"], rows)?))
            }
            Statement::Reset(key) => {
                self.state().session.reset(key.as_deref());
                done(match key {
                    Some(key) => format!("'{key}' is back to its default"),
                    None => "all settings are back to their defaults".to_owned(),
                })
            }
        }
    }

    fn create_table(&self, create: &CreateTable) -> Result<Outcome> {
        let mut table = create.table.clone();
        let mut state = self.state();
        if create.if_not_exists && state.catalog.contains(&table.name) {
            return done(format!("\"{}\" exists already", table.name));
        }
        if let Some(other) = &create.like {
            let like = state.catalog.table(other).ok_or_else(|| state.catalog.unknown(other))?;
            inherit(&mut table, like);
        }
        let planner = Planner::new(&state.catalog);
        let plan = create.query.as_ref().map(|query| planner.query(query)).transpose()?;
        if let Some(plan) = &plan {
            if !table.columns.is_empty() {
                return Err(Error::statement("CREATE TABLE .. AS SELECT takes its columns from the query")
                    .hint("leave the list of columns out"));
            }
            table.columns = plan.schema().fields().iter().map(|f| column_of(f)).collect();
        }
        if table.columns.is_empty() {
            return Err(Error::statement(format!("table {} has no columns", table.name))
                .hint("columns cannot be inferred from a topic yet: name them, as in CREATE TABLE t (a BIGINT, b STRING) WITH (..)"));
        }
        let notices = connectors::options::check_options(&table)?;
        planner.resolve_table(&mut table)?;
        state.catalog.add_table(table.clone())?;
        drop(state);
        if let Some(query) = &create.query {
            let insert = Insert { table: table.name.clone(), columns: Vec::new(), query: query.clone() };
            return self.insert(&[insert], &format!("INSERT INTO {} {}", table.name, query.text)).inspect_err(|_| {
                self.state().catalog.drop_table(&table.name);
            });
        }
        Ok(Outcome::Done(format!("table {} is created", table.name), notices))
    }

    fn create_view(&self, create: &CreateView) -> Result<Outcome> {
        let mut state = self.state();
        if create.if_not_exists && state.catalog.contains(&create.name) {
            return done(format!("\"{}\" exists already", create.name));
        }
        let view = View {
            name: create.name.clone(),
            columns: create.columns.clone(),
            query: create.query.ast.clone(),
            text: create.query.text.clone(),
            temporary: create.temporary,
        };
        // A view over itself is noticed only with the view in place.
        let mut catalog = state.catalog.clone();
        catalog.add_view(view, create.or_replace)?;
        let planner = Planner::new(&catalog);
        planner.query(&create.query)?;
        planner.view(&create.name)?;
        state.catalog = catalog;
        done(format!("view {} is created", create.name))
    }

    fn drop_object(&self, kind: ObjectKind, name: &str, if_exists: bool) -> Result<Outcome> {
        let mut state = self.state();
        let (dropped, what) = match kind {
            ObjectKind::Table => (state.catalog.drop_table(name), "table"),
            ObjectKind::View => (state.catalog.drop_view(name), "view"),
        };
        if dropped {
            return done(format!("{what} {name} is dropped; its data is untouched"));
        }
        if if_exists {
            return done(format!("there is no {what} {name}"));
        }
        let error = state.catalog.unknown(name);
        Err(match state.catalog.contains(name) {
            true => {
                Error::statement(format!("\"{name}\" is not a {what}")).hint("DROP TABLE drops tables, DROP VIEW views")
            }
            false => error,
        })
    }

    /// The plan of inserts that run as one job.
    fn plan_inserts(state: &State, inserts: &[Insert]) -> Result<StreamPlan> {
        let planner = Planner::new(&state.catalog);
        let mut queries = Vec::new();
        for insert in inserts {
            let table = state.catalog.table(&insert.table).ok_or_else(|| {
                if state.catalog.view(&insert.table).is_some() {
                    Error::statement(format!("{} is a view, which cannot be written to", insert.table))
                } else {
                    state.catalog.unknown(&insert.table)
                }
            })?;
            let plan = planner.query(&insert.query)?;
            let plan = planner.into_sink(plan, table, &insert.columns).map_err(|e| e.at(insert.query.span.clone()))?;
            let plan = planner.continuous(plan, &insert.query)?;
            queries.push((plan, Planner::sink_node(table)));
        }
        planner.lower(queries)
    }

    fn insert(&self, inserts: &[Insert], text: &str) -> Result<Outcome> {
        let state = self.state();
        let plan = Self::plan_inserts(&state, inserts)?;
        let is_finite = !plan.nodes.iter().any(|n| matches!(n.op, Op::Source(_)));
        let name = match state.session.job_name() {
            Some(name) => name.to_owned(),
            None => job_name(inserts, text),
        };
        if state.jobs.iter().any(|j| j.name() == name && !j.status().has_ended()) {
            return Err(Error::statement(format!("a job named {name} is running already"))
                .hint(format!("STOP JOB `{name}`, or give this one a name: SET 'pipeline.name' = '..'")));
        }
        let (session, defaults) = (state.session.clone(), state.defaults());
        drop(state);
        let (job, _) =
            launch(Launch { name, statement: text.to_owned(), plan, session: &session, defaults: &defaults })?;
        if is_finite {
            // VALUES and the like: nobody wants to look for such a job.
            job.wait()?;
            let rows = job.info().rows_out;
            return done(format!("{rows} {} written", if rows == 1 { "row is" } else { "rows are" }));
        }
        self.state().jobs.push(job.clone());
        if session.waits_for_jobs()? {
            job.wait()?;
        }
        Ok(Outcome::Started(job))
    }

    fn query(&self, query: &Query, text: &str) -> Result<Outcome> {
        let state = self.state();
        let planner = Planner::new(&state.catalog);
        let plan = planner.query(query)?;
        if !reads_stream(&plan)? {
            drop(state);
            let schema = Arc::new(plan.schema().as_arrow().clone());
            return Ok(Outcome::Rows(Rows { schema, batches: compute(&plan)? }));
        }
        let (plan, skip, limit) = split_limit(plan)?;
        let plan = planner.continuous(plan, query)?;
        let sink = SinkNode { table: None, title: "SELECT".to_owned(), not_null: Vec::new() };
        let plan = planner.lower(vec![(plan, sink)])?;
        let (session, defaults) = (state.session.clone(), state.defaults());
        drop(state);
        self.stream(plan, text, &session, &defaults, skip, limit)
    }

    fn stream(
        &self,
        plan: StreamPlan,
        text: &str,
        session: &Session,
        defaults: &Defaults,
        skip: usize,
        limit: Option<usize>,
    ) -> Result<Outcome> {
        let Some(last) = plan.nodes.last() else { return Err(Error::bug("a plan without nodes")) };
        let schema = Arc::clone(&last.visible);
        let name = format!("select-{:04x}", digest(text) & 0xffff);
        let (job, rows) = launch(Launch { name, statement: text.to_owned(), plan, session, defaults })?;
        match rows {
            Some(rows) => Ok(Outcome::Query(QueryStream::new(schema, rows, job, skip, limit))),
            None => Err(Error::bug("a query whose rows go nowhere")),
        }
    }

    fn explain(&self, statement: &Statement, analyze: bool) -> Result<Outcome> {
        if analyze {
            return Err(Error::statement("EXPLAIN ANALYZE is not available yet")
                .hint("SHOW JOBS shows what running jobs count"));
        }
        let state = self.state();
        let plan = match statement {
            Statement::Insert(insert) => Self::plan_inserts(&state, std::slice::from_ref(insert))?,
            Statement::StatementSet(inserts) => Self::plan_inserts(&state, inserts)?,
            Statement::Query(query) => {
                let planner = Planner::new(&state.catalog);
                let (plan, ..) = split_limit(planner.query(query)?)?;
                let plan = planner.continuous(plan, query)?;
                let sink = SinkNode { table: None, title: "SELECT".to_owned(), not_null: Vec::new() };
                planner.lower(vec![(plan, sink)])?
            }
            _ => return Err(Error::statement("EXPLAIN takes a SELECT, an INSERT or a statement set")),
        };
        Ok(Outcome::Text(explain(&plan)))
    }

    fn describe(&self, name: &str) -> Result<Outcome> {
        let state = self.state();
        let mut rows = Vec::new();
        if let Some(table) = state.catalog.table(name) {
            for column in &table.columns {
                let sql_type =
                    if column.sql_type.is_empty() { sql_type(&column.data_type) } else { column.sql_type.clone() };
                let extra = match &column.kind {
                    ColumnKind::Physical => String::new(),
                    ColumnKind::Computed(expr) => format!("AS {expr}"),
                    ColumnKind::Metadata { key, is_virtual } => {
                        format!("METADATA FROM '{key}'{}", if *is_virtual { " VIRTUAL" } else { "" })
                    }
                };
                let watermark = match &table.watermark {
                    Some(w) if w.column == column.name => w.expr.to_string(),
                    _ => String::new(),
                };
                let key = if table.primary_key.contains(&column.name) { "PRI" } else { "" };
                rows.push(vec![
                    column.name.clone(),
                    sql_type,
                    (!column.not_null).to_string(),
                    key.to_owned(),
                    extra,
                    watermark,
                ]);
            }
        } else if state.catalog.view(name).is_some() {
            let plan = Planner::new(&state.catalog).view(name)?;
            for field in plan.schema().fields() {
                let (name, sql_type) = (field.name().clone(), sql_type(field.data_type()));
                rows.push(vec![
                    name,
                    sql_type,
                    field.is_nullable().to_string(),
                    String::new(),
                    String::new(),
                    String::new(),
                ]);
            }
        } else {
            return Err(state.catalog.unknown(name));
        }
        Ok(Outcome::Rows(Rows::of_text(&["name", "type", "null", "key", "extras", "watermark"], rows)?))
    }

    fn show(&self, show: &Show) -> Result<Outcome> {
        let state = self.state();
        let names = |title: &str, names: Vec<String>| {
            Ok(Outcome::Rows(Rows::of_text(&[title], names.into_iter().map(|n| vec![n]).collect())?))
        };
        match show {
            Show::Tables => {
                let tables = state.catalog.tables().map(|t| t.name.clone());
                let mut all: Vec<_> = tables.chain(state.catalog.views().map(|v| v.name.clone())).collect();
                all.sort_unstable();
                names("table name", all)
            }
            Show::Views => names("view name", state.catalog.views().map(|v| v.name.clone()).collect()),
            Show::Functions => names("function name", Planner::function_names()),
            Show::Create(name) => {
                if let Some(table) = state.catalog.table(name) {
                    return Ok(Outcome::Text(show_create_table(table)));
                }
                match state.catalog.view(name) {
                    Some(view) => Ok(Outcome::Text(show_create_view(view))),
                    None => Err(state.catalog.unknown(name)),
                }
            }
            Show::Jobs => {
                let jobs = state.jobs.clone();
                drop(state);
                Ok(Outcome::Rows(jobs_table(&jobs)?))
            }
            Show::Topics => {
                let defaults = state.defaults();
                drop(state);
                let cluster = Cluster::new(ClientProperties::of_defaults(&defaults)?)?;
                let mut topics = cluster.topics()?;
                topics.sort_by(|a, b| a.name.cmp(&b.name));
                let rows = topics.into_iter().map(|t| vec![t.name, t.partitions.len().to_string()]).collect();
                Ok(Outcome::Rows(Rows::of_text(&["topic", "partitions"], rows)?))
            }
        }
    }

    /// Rows of a topic as they are: a table made for the occasion.
    fn print(&self, topic: &str, from_beginning: bool, limit: Option<usize>) -> Result<Outcome> {
        let topic = topic.replace('\'', "''");
        let mode = if from_beginning { "earliest-offset" } else { "latest-offset" };
        let text = format!(
            "CREATE TABLE topic (`partition` INT METADATA VIRTUAL, `offset` BIGINT METADATA VIRTUAL, \
             `timestamp` TIMESTAMP_LTZ(3) METADATA VIRTUAL, `key` STRING, `value` STRING) WITH ('connector' = 'kafka', \
             'topic' = '{topic}', 'key.format' = 'raw', 'key.fields' = 'key', 'value.format' = 'raw', \
             'value.fields-include' = 'EXCEPT_KEY', 'scan.startup.mode' = '{mode}', 'scan.on-error' = 'skip'); \
             SELECT * FROM topic"
        );
        let statements = crate::sql::parse_script(&text).map_err(|e| Error::bug(e.message))?;
        let mut catalog = Catalog::default();
        let [create, select] = statements.as_slice() else { return Err(Error::bug("PRINT is two statements")) };
        let (Statement::CreateTable(create), Statement::Query(select)) = (&create.statement, &select.statement) else {
            return Err(Error::bug("PRINT is a table and a query"));
        };
        catalog.add_table(create.table.clone())?;
        let planner = Planner::new(&catalog);
        let plan = planner.continuous(planner.query(select)?, select)?;
        let sink = SinkNode { table: None, title: "PRINT".to_owned(), not_null: Vec::new() };
        let plan = planner.lower(vec![(plan, sink)])?;
        let (session, defaults) = {
            let state = self.state();
            (state.session.clone(), state.defaults())
        };
        self.stream(plan, &format!("PRINT '{topic}'"), &session, &defaults, 0, limit)
    }

    fn stop_job(&self, name: &str) -> Result<Outcome> {
        let jobs = self.jobs();
        let named = |j: &&Job| j.name() == name && !j.status().has_ended();
        let beginning = |j: &&Job| j.name().starts_with(name) && !j.status().has_ended();
        let job = match jobs.iter().find(named) {
            Some(job) => job,
            None => match jobs.iter().filter(beginning).collect::<Vec<_>>().as_slice() {
                [job] => *job,
                [] => {
                    let error = Error::statement(format!("no job named {name} is running"));
                    let near = crate::catalog::options::nearest(name, jobs.iter().map(Job::name));
                    return Err(match near {
                        Some(near) if near != name => error.hint(format!("did you mean {near}?")),
                        _ => error.hint("SHOW JOBS lists the jobs"),
                    });
                }
                several => {
                    let names = several.iter().map(|j| j.name()).collect::<Vec<_>>().join(", ");
                    return Err(Error::statement(format!("several jobs begin with {name}: {names}")));
                }
            },
        };
        job.stop();
        job.wait()?;
        done(format!("job {} is stopped; what had fired is written", job.name()))
    }

    fn set(&self, key: &str, value: &str) -> Result<Outcome> {
        if key.starts_with("kafka.") && key != "kafka.bootstrap.servers" {
            connectors::kafka::property_notice(&key["kafka.".len()..], value)?;
        }
        let notice = self.state().session.set(key, value)?;
        Ok(Outcome::Done(format!("'{key}' is set"), notice.into_iter().collect()))
    }

    /// All jobs of this engine, in the order of their start; ended ones too.
    pub fn jobs(&self) -> Vec<Job> {
        self.state().jobs.clone()
    }

    /// The latest job of this name.
    pub fn job(&self, name: &str) -> Option<Job> {
        self.state().jobs.iter().rev().find(|j| j.name() == name).cloned()
    }

    /// Stops all jobs and waits for their ends.
    pub fn shut_down(&self) {
        let jobs = self.jobs();
        jobs.iter().for_each(Job::stop);
        for job in jobs {
            let _ = job.wait();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What the engine was opened with, under what the session has set.
    fn defaults(&self) -> Defaults {
        let mut defaults = self.defaults.clone();
        for (key, value) in self.session.kafka_properties() {
            if key == "bootstrap.servers" {
                defaults.brokers = Some(value.to_owned());
            } else {
                defaults.properties.insert(key.to_owned(), value.to_owned());
            }
        }
        defaults
    }
}

impl Rows {
    /// A table of texts.
    fn of_text(columns: &[&str], rows: Vec<Vec<String>>) -> Result<Self> {
        let fields: Vec<Field> = columns.iter().map(|c| Field::new(*c, DataType::Utf8, false)).collect();
        let schema = Arc::new(Schema::new(fields));
        let arrays = (0..columns.len())
            .map(|c| Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r[c].as_str()))) as ArrayRef)
            .collect();
        Ok(Self { batches: vec![RecordBatch::try_new(Arc::clone(&schema), arrays)?], schema })
    }
}

fn done(sentence: String) -> Result<Outcome> {
    Ok(Outcome::Done(sentence, Vec::new()))
}

/// A table's columns, keys and options where the new one says nothing of its own.
fn inherit(table: &mut Table, like: &Table) {
    let own = std::mem::take(&mut table.columns);
    table.columns = like.columns.iter().filter(|c| own.iter().all(|o| o.name != c.name)).cloned().collect();
    table.columns.extend(own);
    if table.watermark.is_none() {
        table.watermark.clone_from(&like.watermark);
    }
    if table.primary_key.is_empty() {
        table.primary_key.clone_from(&like.primary_key);
    }
    let options = like.options.iter().chain(table.options.iter()).map(|(k, v)| (k.to_owned(), v.to_owned()));
    table.options = Options::from_pairs(options.collect::<Vec<_>>());
}

fn column_of(field: &Field) -> Column {
    Column {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        sql_type: sql_type(field.data_type()),
        not_null: false,
        kind: ColumnKind::Physical,
        comment: None,
    }
}

/// A job that was given no name is called after its sinks and its statement.
fn job_name(inserts: &[Insert], text: &str) -> String {
    let sinks = inserts.iter().map(|i| i.table.as_str()).collect::<Vec<_>>().join("-");
    format!("{sinks}-{:04x}", digest(text) & 0xffff)
}

/// FNV-1a over a statement's words: how it is laid out does not count.
fn digest(text: &str) -> u64 {
    let words = text.split_whitespace().flat_map(|word| word.bytes().chain([b' ']));
    words.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn jobs_table(jobs: &[Job]) -> Result<Rows> {
    let columns = ["job", "status", "records in", "rows out", "late", "errors", "watermark", "statement"];
    let rows = jobs
        .iter()
        .map(|job| {
            let info = job.info();
            let watermark = info.watermark.and_then(chrono::DateTime::from_timestamp_millis);
            let trouble = info.error.or(info.trouble).map(|t| format!(" ({t})")).unwrap_or_default();
            vec![
                info.name,
                info.status + &trouble,
                info.records_in.to_string(),
                info.rows_out.to_string(),
                (info.late + info.lost_to_idleness).to_string(),
                info.errors.to_string(),
                watermark.map(|w| w.format("%Y-%m-%d %H:%M:%S%.3fZ").to_string()).unwrap_or_default(),
                info.statement,
            ]
        })
        .collect();
    Rows::of_text(&columns, rows)
}
