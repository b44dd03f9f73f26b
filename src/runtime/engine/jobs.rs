//! Statements that move rows: planned against the catalog as it is, then launched.

use std::sync::Arc;

use super::{Engine, Outcome, Rows, State, done};
use crate::catalog::{Catalog, Table, View};
use crate::connectors::Defaults;
use crate::error::{Blame, Error, Result};
use crate::plan::{Op, Planner, SinkNode, StreamPlan, explain, reads_stream, split_limit};
use crate::runtime::identity::Identity;
use crate::runtime::launch::{Launch, compute, launch};
use crate::runtime::query::{QueryStream, op_schema};
use crate::runtime::session::Session;
use crate::sql::statement::{Insert, Query, Statement};
use crate::sql::types::quote;

impl Engine {
    /// The plan of inserts that run as one job.
    pub(super) fn plan_inserts(state: &State, inserts: &[Insert]) -> Result<StreamPlan> {
        let catalog = state.catalog_to_read()?;
        let planner = Planner::with_settings(&catalog, state.session.plan_settings()?);
        let mut queries = Vec::new();
        for insert in inserts {
            let table = sink_table(&catalog, insert)?;
            let plan = planner.query(&insert.query)?;
            let plan = planner.into_sink(plan, table, &insert.columns).map_err(|e| e.at(insert.query.span.clone()))?;
            let plan = planner.continuous(plan, &insert.query)?;
            queries.push((plan, Planner::sink_node(table)));
        }
        planner.lower(queries)
    }

    pub(super) fn insert(&self, inserts: &[Insert], text: &str) -> Result<Outcome> {
        let state = self.state();
        if let Some(late) = state.session.batch()? {
            return self.insert_batch(state, inserts, text, late);
        }
        let plan = Self::plan_inserts(&state, inserts)?;
        let is_finite = !plan.nodes.iter().any(|n| matches!(n.op, Op::Source(_)));
        let definition = definition(&state.catalog, &state.session, text)?;
        let name = state.free_name(inserts, Identity::of(&plan, &definition).short())?;
        let (session, defaults) = (state.session.clone(), state.defaults());
        drop(state);
        let (statement, plan, of_job) = (text.to_owned(), Arc::new(plan), session.clone());
        let (job, _) = launch(Launch { name, statement, definition, plan, session: of_job, defaults })?;
        self.state().jobs.push(job.clone());
        if is_finite {
            // VALUES and the like. While it waits for a broker it can be seen and stopped; once written, nobody wants to
            // look for it.
            let ended = job.wait();
            self.state().jobs.retain(|j| !j.is(&job));
            ended?;
            return written(job.info().rows_out);
        }
        if session.waits_for_jobs()? {
            job.wait()?;
        }
        Ok(Outcome::Started(job))
    }

    pub(super) fn query(&self, query: &Query, text: &str) -> Result<Outcome> {
        let state = self.state();
        if let Some(late) = state.session.batch()? {
            return self.query_batch(state, query, text, late);
        }
        let catalog = state.catalog_to_read()?;
        let planner = Planner::with_settings(&catalog, state.session.plan_settings()?);
        let plan = planner.query(query)?;
        if !reads_stream(&plan)? {
            drop(state);
            let schema = Arc::new(plan.schema().as_arrow().clone());
            // There is no data but what the statement says.
            let blame = |b| if b == Blame::Data { Blame::Statement } else { b };
            let batches = compute(&plan).map_err(|e| Error { blame: blame(e.blame), ..e })?;
            return Ok(Outcome::Rows(Rows { schema, batches }));
        }
        let (plan, skip, limit) = split_limit(plan)?;
        let plan = planner.continuous(plan, query)?;
        let sink = SinkNode { table: None, title: "SELECT".to_owned(), not_null: Vec::new() };
        let plan = planner.lower(vec![(plan, sink)])?;
        let (session, defaults) = (state.session.clone(), state.defaults());
        drop(state);
        self.stream(plan, text, &session, &defaults, skip, limit)
    }

    pub(super) fn stream(
        &self,
        plan: StreamPlan,
        text: &str,
        session: &Session,
        defaults: &Defaults,
        skip: usize,
        limit: Option<usize>,
    ) -> Result<Outcome> {
        let Some(last) = plan.nodes.last() else { return Err(Error::bug("a plan without nodes")) };
        let has_changes = plan.input_hidden(plan.nodes.len() - 1).kind;
        let schema = if has_changes { op_schema(&last.visible) } else { Arc::clone(&last.visible) };
        let name = select_name(text);
        let (statement, definition, plan) = (text.to_owned(), String::new(), Arc::new(plan));
        let (session, defaults) = (session.clone(), defaults.clone());
        let (job, rows) = launch(Launch { name, statement, definition, plan, session, defaults })?;
        match rows {
            Some(rows) => Ok(Outcome::Query(QueryStream::new(schema, has_changes, rows, job, skip, limit))),
            None => Err(Error::bug("a query whose rows go nowhere")),
        }
    }

    pub(super) fn explain(&self, statement: &Statement, analyze: bool) -> Result<Outcome> {
        if analyze {
            return Err(Error::statement("EXPLAIN ANALYZE is not available yet")
                .hint("start it as a job; EXPLAIN ANALYZE JOB <name> shows what a running one does"));
        }
        let state = self.state();
        if let Some(late) = state.session.batch()? {
            return Self::explain_batch(&state, statement, late);
        }
        let plan = match statement {
            Statement::Insert(insert) => Self::plan_inserts(&state, std::slice::from_ref(insert))?,
            Statement::StatementSet(inserts) => Self::plan_inserts(&state, inserts)?,
            Statement::Query(query) => {
                let planner = Planner::with_settings(&state.catalog, state.session.plan_settings()?);
                let (plan, ..) = split_limit(planner.query(query)?)?;
                let plan = planner.continuous(plan, query)?;
                let sink = SinkNode { table: None, title: "SELECT".to_owned(), not_null: Vec::new() };
                planner.lower(vec![(plan, sink)])?
            }
            _ => return Err(Error::statement("EXPLAIN takes a SELECT, an INSERT or a statement set")),
        };
        Ok(Outcome::Text(explain(&plan)))
    }
}

impl State {
    /// The name for a job of inserts; no other that runs has it.
    pub(super) fn free_name(&self, inserts: &[Insert], mark: &str) -> Result<String> {
        let name = match self.session.job_name() {
            Some(name) => name.to_owned(),
            None => job_name(inserts, mark),
        };
        if self.jobs.iter().any(|j| j.name() == name && !j.status().has_ended()) {
            return Err(Error::statement(format!("a job named {name} is running already"))
                .hint(format!("STOP JOB `{name}`, or give this one a name: SET 'pipeline.name' = '..'")));
        }
        Ok(name)
    }
}

/// The table that an insert writes to.
pub(super) fn sink_table<'a>(catalog: &'a Catalog, insert: &Insert) -> Result<&'a Table> {
    catalog.declared_table(&insert.table).ok_or_else(|| {
        if catalog.view(&insert.table).is_some() {
            Error::statement(format!("{} is a view, which cannot be written to", insert.table))
        } else {
            // What is written to is declared: its format and its key are nobody's guess.
            let error = Error { unknown_table: None, ..catalog.unknown(&insert.table) };
            match error.hint.as_deref().is_some_and(|hint| hint.starts_with("did you mean")) {
                true => error,
                false => error.hint(format!("{} declares it and starts the job", create_as(&insert.table))),
            }
        }
    })
}

/// How a topic becomes a table that takes a query's rows.
pub(super) fn create_as(name: &str) -> String {
    let topic = name.replace('\'', "''");
    format!(
        "CREATE TABLE {} WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json') AS SELECT ..",
        quote(name)
    )
}

/// What a job is: a statement, with the views that it names and those that they name, and what planning goes by.
fn definition(catalog: &Catalog, session: &Session, text: &str) -> Result<String> {
    let mut definition = format!("{text}\n{:?}", session.plan_settings()?);
    let mut left: Vec<&View> = catalog.views().collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(at) = left.iter().position(|view| definition.split(|c| !is_word(c)).any(|word| word == view.name)) {
        let View { name, text, .. } = left.remove(at);
        definition += &format!("\n{name} AS {text}");
    }
    Ok(definition)
}

/// A job that was given no name is called after its sinks, and after what it is. The name can be that of a topic.
fn job_name(inserts: &[Insert], mark: &str) -> String {
    const LETTERS_MAX: usize = 100;
    let sinks = inserts.iter().map(|i| i.table.as_str()).collect::<Vec<_>>().join("-");
    let letter = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    format!("{}-{mark}", sinks.chars().take(LETTERS_MAX).map(letter).collect::<String>())
}

/// What the job behind a query is called.
pub(super) fn select_name(text: &str) -> String {
    format!("select-{:04x}", digest(text) & 0xffff)
}

/// How many rows an insert has written.
pub(super) fn written(rows: u64) -> Result<Outcome> {
    done(format!("{rows} {} written", if rows == 1 { "row is" } else { "rows are" }))
}

/// FNV-1a over a statement's words: how it is laid out does not count.
pub(super) fn digest(text: &str) -> u64 {
    let words = text.split_whitespace().flat_map(|word| word.bytes().chain([b' ']));
    words.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;
    use crate::plan::Hidden;
    use crate::runtime::EngineConfig;
    use crate::sql::parse_script;

    /// A plan whose rows are a changelog: the last column of a query's rows is what hides their kind.
    #[test]
    fn the_rows_of_a_changelog_come_with_what_they_are() {
        let engine = Engine::open(EngineConfig::default()).unwrap();
        let table = "CREATE TABLE t (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '4',
                     'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '3')";
        engine.run(table).for_each(|outcome| drop(outcome.unwrap()));
        let text = "SELECT n * 10 AS m, CAST(n AS TINYINT) AS `__tidemill_kind` FROM t";
        let Statement::Query(query) = parse_script(text).unwrap().remove(0).statement else { panic!() };
        let state = engine.state();
        let (session, defaults) = (state.session.clone(), state.defaults());
        let planner = Planner::new(&state.catalog);
        let plan = planner.continuous(planner.query(&query).unwrap(), &query).unwrap();
        let sink = SinkNode { table: None, title: "SELECT".to_owned(), not_null: Vec::new() };
        let mut plan = planner.lower(vec![(plan, sink)]).unwrap();
        drop(state);
        for node in plan.nodes.iter_mut().rev().take(2) {
            node.visible = Arc::new(Schema::new(node.visible.fields()[..1].to_vec()));
        }
        let rows = plan.nodes.len() - 2;
        plan.nodes[rows].hidden = Hidden { kind: true, ..Hidden::default() };

        let Outcome::Query(stream) = engine.stream(plan, text, &session, &defaults, 1, Some(2)).unwrap() else {
            panic!()
        };
        assert!(stream.has_changes());
        let schema = Arc::clone(stream.schema());
        let batches = stream.collect::<Result<Vec<_>>>().unwrap();
        let shown = arrow::util::pretty::pretty_format_batches_with_schema(schema, &batches).unwrap().to_string();
        let lines: Vec<_> = shown.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(lines, ["| op | m  |", "| -U | 10 |", "| +U | 20 |"]);
    }
}
