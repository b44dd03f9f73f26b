//! Statements in batch mode: each runs to its end before the next.

use std::sync::{Arc, MutexGuard};

use super::jobs::{digest, select_name, sink_table, written};
use super::{Engine, Outcome, State, done};
use crate::connectors::{self, CancelToken};
use crate::error::{Blame, Error, Result};
use crate::exec::End;
use crate::plan::{LateRows, Planner, reads_stream};
use crate::runtime::Job;
use crate::runtime::batch::{Batch, logical, write};
use crate::runtime::job::JobState;
use crate::runtime::metrics::JobMetrics;
use crate::runtime::shared::Shared;
use crate::sql::statement::{Insert, Query, Statement};

impl Engine {
    /// Whether statements run as batches: then a `SELECT` has all its rows before it shows any.
    pub fn runs_batches(&self) -> bool {
        self.state().session.batch().is_ok_and(|late| late.is_some())
    }

    /// Inserts over the same records. Nothing is written before all rows of all of them are known.
    pub(super) fn insert_batch(
        &self,
        state: MutexGuard<'_, State>,
        inserts: &[Insert],
        text: &str,
        late: LateRows,
    ) -> Result<Outcome> {
        let (catalog, defaults, settings) = (state.catalog.clone(), state.defaults(), state.session.plan_settings()?);
        let planner = Planner::with_settings(&catalog, settings);
        let mut plans = Vec::new();
        let mut sinks = Vec::new();
        for insert in inserts {
            let table = sink_table(&catalog, insert)?;
            let plan = logical(&planner, &insert.query)?;
            let sunk = planner.into_sink(plan, table, &insert.columns);
            plans.push(sunk.map_err(|e| e.at(insert.query.span.clone()))?);
            sinks.push((Planner::sink_node(table), table));
        }
        let name = state.free_name(inserts, &format!("{:04x}", digest(text) & 0xffff))?;
        drop(state);
        self.as_job(name, text, |shared| {
            // What is wrong with a sink is told before anything is read.
            connectors::check_outputs(sinks.iter().map(|(_, table)| *table))?;
            let opened = sinks.iter().map(|(node, table)| Ok((node, connectors::open_sink(table, &defaults)?)));
            let opened = opened.collect::<Result<Vec<_>>>()?;
            let batch = Batch { planner: &planner, late, defaults: &defaults, shared };
            let mut count = 0;
            for ((node, sink), rows) in opened.into_iter().zip(batch.rows(&plans)?) {
                count += write(&*sink, node, &rows, shared)?;
            }
            written(count)
        })
    }

    pub(super) fn query_batch(
        &self,
        state: MutexGuard<'_, State>,
        query: &Query,
        text: &str,
        late: LateRows,
    ) -> Result<Outcome> {
        let (catalog, defaults, settings) = (state.catalog.clone(), state.defaults(), state.session.plan_settings()?);
        drop(state);
        let planner = Planner::with_settings(&catalog, settings);
        let plan = logical(&planner, query)?;
        let has_data = reads_stream(&plan)?;
        self.as_job(select_name(text), text, |shared| {
            let batch = Batch { planner: &planner, late, defaults: &defaults, shared };
            let rows = batch.rows(&[plan]).map_err(|e| match e.blame {
                // There is no data but what the statement says.
                Blame::Data if !has_data => Error { blame: Blame::Statement, ..e },
                _ => e,
            })?;
            rows.into_iter().next().map(Outcome::Rows).ok_or_else(|| Error::bug("a query without an answer"))
        })
    }

    pub(super) fn explain_batch(state: &State, statement: &Statement, late: LateRows) -> Result<Outcome> {
        let planner = Planner::with_settings(&state.catalog, state.session.plan_settings()?);
        let inserts = match statement {
            Statement::Insert(insert) => std::slice::from_ref(insert),
            Statement::StatementSet(inserts) => inserts,
            _ => &[],
        };
        let mut titles = Vec::new();
        let mut plans = Vec::new();
        for insert in inserts {
            let table = sink_table(&state.catalog, insert)?;
            titles.push(Planner::sink_node(table).title);
            plans.push(planner.into_sink(logical(&planner, &insert.query)?, table, &insert.columns)?);
        }
        if let Statement::Query(query) = statement {
            titles.push("SELECT".to_owned());
            plans.push(logical(&planner, query)?);
        }
        if plans.is_empty() {
            return Err(Error::statement("EXPLAIN takes a SELECT, an INSERT or a statement set"));
        }
        let shared = attempt(String::new(), "");
        let batch = Batch { planner: &planner, late, defaults: &state.defaults(), shared: &shared };
        let texts = batch.explain(&plans)?.into_iter().zip(titles).map(|(plan, title)| {
            let lines = plan.lines().map(|line| format!("  {line}\n")).collect::<String>();
            format!("{title}, as a batch:\n{lines}")
        });
        Ok(Outcome::Text(texts.collect()))
    }

    /// Does the work of a batch, which can be seen and stopped meanwhile. Once it has ended nobody wants to look for it.
    fn as_job(&self, name: String, text: &str, work: impl FnOnce(&Shared) -> Result<Outcome>) -> Result<Outcome> {
        let shared = attempt(name, text);
        let job = Job::new(Arc::clone(&shared.job));
        self.state().jobs.push(job.clone());
        let result = work(&shared);
        let was_stopped = matches!(&result, Err(error) if error.blame == Blame::Interrupted && shared.is_stopping());
        shared.job.end(Ok(if was_stopped { End::Stopped } else { End::Finished }));
        self.state().jobs.retain(|j| !j.is(&job));
        if was_stopped { done("the batch is stopped; nothing is written".to_owned()) } else { result }
    }
}

/// The one attempt at a batch.
fn attempt(name: String, text: &str) -> Arc<Shared> {
    let metrics = JobMetrics::of_batch(name.clone());
    Shared::new(JobState::new(name, text.to_owned()), metrics, CancelToken::default())
}
