//! The facade that every surface calls: statements in, outcomes out.

mod batches;
mod ddl;
mod jobs;
mod listing;
mod topics;
mod watching;

pub use listing::Names;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::job::Job;
use super::query::QueryStream;
use super::session::Session;
use super::topic_rows::TopicRows;
use crate::catalog::Catalog;
use crate::connectors::kafka::Embedded;
use crate::connectors::{self, Defaults};
use crate::error::{Error, Result};
use crate::plan::{PlanSettings, StreamPlan};
use crate::sql::Script;
use crate::sql::statement::{Insert, Parsed, Statement};

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
    /// Records of a topic as they come.
    Topic(TopicRows),
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
    /// What is to be said beside the next outcome.
    notices: Vec<String>,
}

impl Engine {
    /// Opens an engine. Nothing is connected to yet; a broker inside this process starts when a statement first needs it.
    pub fn open(config: EngineConfig) -> Result<Self> {
        let wants_embedded = match &config.brokers {
            Some(brokers) => brokers == "embedded",
            None => config.embedded_if_none,
        };
        let embedded = wants_embedded.then(Arc::<Embedded>::default);
        let brokers = config.brokers.filter(|b| b != "embedded");
        let defaults = Defaults { brokers, properties: config.properties, embedded, ..Defaults::default() };
        let (catalog, session) = (Catalog::default(), Session::default());
        let state = State { catalog, session, defaults, jobs: Vec::new(), notices: Vec::new() };
        Ok(Self(Arc::new(Inner { state: Mutex::new(state) })))
    }

    /// Where Kafka tables go that name no servers: the servers' addresses, and whether they are inside this process.
    pub fn brokers(&self) -> Result<Option<(String, bool)>> {
        let state = self.state();
        Ok(match (&state.defaults.brokers, &state.defaults.embedded) {
            (Some(brokers), _) => Some((brokers.clone(), false)),
            (None, Some(embedded)) => Some((embedded.brokers()?.to_owned(), true)),
            (None, None) => None,
        })
    }

    /// Where the broker inside this process is, if a statement has needed it.
    pub fn embedded(&self) -> Option<String> {
        let embedded = self.state().defaults.embedded.clone().filter(|embedded| embedded.has_started())?;
        Some(embedded.brokers().ok()?.to_owned())
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
    ///
    /// A name that no table has may be a topic's: then a table is made of what the topic holds, and what there is to say
    /// about it is among the [notices](Self::take_notices).
    pub fn execute(&self, statement: &Parsed) -> Result<Outcome> {
        self.with_topics(statement, || self.dispatch(&statement.statement, &statement.text))
    }

    /// Looks at a statement without running it: tables and views are declared, queries and inserts are planned, and their
    /// plan is the outcome.
    pub fn check(&self, statement: &Parsed) -> Result<Outcome> {
        self.with_topics(statement, || match &statement.statement {
            Statement::CreateTable(create) => self.create_table(create, false),
            Statement::Insert(_) | Statement::StatementSet(_) | Statement::Query(_) => {
                self.explain(&statement.statement, false)
            }
            Statement::CreateView(_)
            | Statement::Drop { .. }
            | Statement::Explain { .. }
            | Statement::Set(_)
            | Statement::Reset(_) => self.dispatch(&statement.statement, &statement.text),
            Statement::Describe(_)
            | Statement::DescribeTopic(_)
            | Statement::Show(_)
            | Statement::Print { .. }
            | Statement::StopJob { .. }
            | Statement::DescribeJob(_)
            | Statement::ExplainJob(_) => done(String::new()),
        })
    }

    /// Does something with a statement, again and again while it reads topics that no table is declared for.
    fn with_topics(&self, statement: &Parsed, act: impl Fn() -> Result<Outcome>) -> Result<Outcome> {
        let mut inferred = Vec::new();
        loop {
            let error = match act() {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error.at(statement.span.clone()).narrowed(&statement.text, statement.span.start),
            };
            let name = error.unknown_table.clone().filter(|_| reads_tables(&statement.statement));
            match name {
                Some(name) if !inferred.contains(&name) => match self.infer_topic(&name) {
                    Ok(Some(true)) => inferred.push(name),
                    Ok(None) => return Err(error),
                    Ok(Some(false)) => return Err(self.with_nearest_topic(error, &name)),
                    Err(other) => return Err(Error { span: error.span, ..other }),
                },
                _ => return Err(error),
            }
        }
    }

    /// What is to be said beside the outcome of the last statement; nothing the next time.
    pub fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut self.state().notices)
    }

    fn notice(&self, notice: String) {
        self.state().notices.push(notice);
    }

    fn dispatch(&self, statement: &Statement, text: &str) -> Result<Outcome> {
        match statement {
            Statement::CreateTable(create) => self.create_table(create, true),
            Statement::CreateView(create) => self.create_view(create),
            Statement::Drop { kind, name, if_exists } => self.drop_object(*kind, name, *if_exists),
            Statement::Insert(insert) => self.insert(std::slice::from_ref(insert), text),
            Statement::StatementSet(inserts) => self.insert(inserts, text),
            Statement::Query(query) => self.query(query, text),
            Statement::Explain { statement, analyze } => self.explain(statement, *analyze),
            Statement::Describe(name) => self.describe(name),
            Statement::DescribeTopic(topic) => self.describe_topic(topic),
            Statement::Show(show) => self.show(show),
            Statement::Print { topic, from_beginning, limit } => self.print(topic, *from_beginning, *limit),
            Statement::DescribeJob(name) => self.describe_job(name.as_deref()),
            Statement::ExplainJob(name) => self.explain_job(name.as_deref()),
            Statement::StopJob { name, drain } => self.stop_job(name, *drain),
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

    /// What the next statement is planned against.
    pub(in crate::runtime) fn planning(&self) -> Result<(Catalog, PlanSettings)> {
        let state = self.state();
        Ok((state.catalog.clone(), state.session.plan_settings()?))
    }

    /// The plan of inserts that run as one job.
    pub(in crate::runtime) fn plan(&self, inserts: &[Insert]) -> Result<StreamPlan> {
        Self::plan_inserts(&self.state(), inserts)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The catalog as statements read it: with tables that end where their topics end now, if the session says so.
    fn catalog_to_read(&self) -> Result<Catalog> {
        let mut catalog = self.catalog.clone();
        if self.session.until_caught_up()? {
            catalog.end_topics_now();
        }
        Ok(catalog)
    }

    /// What the engine was opened with, under what the session has set.
    fn defaults(&self) -> Defaults {
        let mut defaults = self.defaults.clone();
        defaults.own_topics = self.session.topic_prefix().to_owned();
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

/// Whether a name in a statement that no table has may be meant as a topic's.
fn reads_tables(statement: &Statement) -> bool {
    match statement {
        Statement::CreateTable(create) => create.query.is_some() || create.like.is_some(),
        Statement::CreateView(_)
        | Statement::Insert(_)
        | Statement::StatementSet(_)
        | Statement::Query(_)
        | Statement::Explain { .. }
        | Statement::Describe(_) => true,
        _ => false,
    }
}

fn done(sentence: String) -> Result<Outcome> {
    Ok(Outcome::Done(sentence, Vec::new()))
}
