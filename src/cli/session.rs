//! Statements to outcomes that people see: what a script and the shell have in common.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill::error::{Blame, Error};
use tidemill::runtime::{Engine, Job, JobStatus, Outcome, QueryStream};
use tidemill::sql::Script;
use tidemill::sql::statement::{Parsed, Statement};

use super::Stop;
use super::config::Config;
use super::output::Output;
use super::signals::Signals;
use super::voice::{Voice, count};

/// How often a signal is looked for while there is nothing else to do.
const TURN: Duration = Duration::from_millis(50);

/// An engine, and where its outcomes go.
pub struct Session {
    /// The engine.
    pub engine: Engine,
    output: Output,
    voice: Voice,
    signals: Signals,
    /// A broker runs inside this process although nobody asked for it by name.
    is_broker_a_surprise: bool,
    /// Say how many rows a result had, as a shell does.
    pub counts_rows: bool,
    /// Jobs whose end has been told, by their place in the engine's list: names may come again.
    told: BTreeSet<usize>,
}

impl Session {
    /// Opens an engine.
    pub fn open(config: &Config, signals: Signals, embedded_if_none: bool) -> Result<Self, Stop> {
        let engine = signals.harmless(|| Engine::open(config.engine(embedded_if_none)))?;
        let is_broker_a_surprise = config.brokers.is_none() && embedded_if_none;
        let (output, voice) = (config.output, config.voice);
        Ok(Self { engine, output, voice, signals, is_broker_a_surprise, counts_rows: false, told: BTreeSet::new() })
    }

    /// What is to be said about a broker inside this process.
    pub fn broker_note(&self) -> Option<String> {
        let (servers, true) = self.engine.brokers()? else { return None };
        Some(if self.is_broker_a_surprise {
            format!(
                "no broker is named (-b), so one runs inside this process, at {servers}; nothing is kept after exit"
            )
        } else {
            format!("the broker runs inside this process, at {servers}; nothing is kept after exit")
        })
    }

    /// Executes the statements of a text up to the first error, which is told.
    pub fn run(&mut self, place: Option<&str>, text: &str) -> Result<(), Stop> {
        for statement in Script::new(text) {
            let result = statement.map_err(Stop::from).and_then(|statement| self.statement(&statement));
            result.map_err(|stop| self.tell(stop, place, text))?;
        }
        Ok(())
    }

    /// Tells an error.
    fn tell(&self, stop: Stop, place: Option<&str>, text: &str) -> Stop {
        match stop {
            Stop::Failed(error) => {
                self.voice.error(place, &error, text);
                Stop::Told(error.exit_code())
            }
            other => other,
        }
    }

    /// Executes a statement and shows what comes of it.
    fn statement(&mut self, parsed: &Parsed) -> Result<(), Stop> {
        if let Some(signal) = self.signals.pending() {
            return Err(Stop::Signal(signal));
        }
        let outcome = self.execute(parsed)?;
        match outcome {
            Outcome::Done(sentence, notices) => {
                notices.iter().for_each(|notice| self.voice.note(notice));
                if !sentence.is_empty() {
                    self.voice.say(&sentence);
                }
                Ok(())
            }
            Outcome::Rows(rows) => {
                let rows = self.output.rows(&rows)?;
                self.tell_count(rows);
                Ok(())
            }
            Outcome::Text(text) => self.output.text(&text),
            // The session waits for jobs ('table.dml-sync').
            Outcome::Started(job) if job.status().has_ended() => match self.tell_ends() {
                Some(stop) => Err(stop),
                None => Ok(()),
            },
            Outcome::Started(job) => {
                self.voice.say(&format!("job {} started", job.name()));
                Ok(())
            }
            Outcome::Query(stream) => self.query(stream),
        }
    }

    fn execute(&self, parsed: &Parsed) -> Result<Outcome, Error> {
        let before = self.engine.jobs();
        let execute = || self.engine.execute(parsed);
        let starts_job = match &parsed.statement {
            Statement::Insert(_) | Statement::StatementSet(_) => true,
            Statement::CreateTable(create) => create.query.is_some(),
            Statement::Query(_) => self.engine.runs_batches(),
            _ => false,
        };
        if starts_job {
            // It may wait for its job, and then a signal is for that one.
            let (engine, earlier) = (self.engine.clone(), before.len());
            let stop_new_jobs = move || engine.jobs().iter().skip(earlier).for_each(Job::stop);
            return self.signals.helped(stop_new_jobs, execute);
        }
        match before.iter().all(|job| job.status().has_ended()) {
            true => self.signals.harmless(execute),
            false => execute(),
        }
    }

    fn tell_count(&self, rows: u64) {
        if self.counts_rows {
            self.voice.say(&count(rows, "row"));
        }
    }

    /// Shows the rows of a query as they come, until it ends or a signal ends it.
    fn query(&self, mut stream: QueryStream) -> Result<(), Stop> {
        let mut printer = self.output.printer(stream.schema())?;
        let mut stopped_by = None;
        while let Some(batch) = stream.next_within(TURN)? {
            printer.batch(&batch)?;
            if let (None, Some(signal)) = (stopped_by, self.signals.pending()) {
                stopped_by = Some(signal);
                stream.stop();
            }
        }
        let rows = printer.end()?;
        self.tell_count(rows);
        stopped_by.map_or(Ok(()), |signal| Err(Stop::Signal(signal)))
    }

    /// Waits until all jobs have ended: by themselves, by a signal, or because one has failed. Tells each end.
    pub fn wait_for_jobs(&mut self) -> Result<(), Stop> {
        let mut first = None;
        loop {
            let failed = self.tell_ends();
            if first.is_none() {
                first = failed.or_else(|| self.signals.pending().map(Stop::Signal));
                if first.is_some() {
                    self.stop_jobs();
                }
            }
            let jobs = self.engine.jobs();
            let Some(running) = jobs.iter().find(|job| !job.status().has_ended()) else { break };
            // The result is looked at in the next turn.
            let _ = running.wait_for(TURN);
        }
        match self.tell_ends().or(first) {
            Some(stop) => Err(stop),
            None => Ok(()),
        }
    }

    /// Tells jobs that have ended since the last time; answers why, for the first that has failed.
    pub fn tell_ends(&mut self) -> Option<Stop> {
        let mut first = None;
        for (place, job) in self.engine.jobs().into_iter().enumerate() {
            let status = job.status();
            if !status.has_ended() || !self.told.insert(place) {
                continue;
            }
            self.voice.ending(&job);
            if let JobStatus::Failed(error) = status {
                let stop = self.tell_failure(job.name(), error);
                first = first.or(Some(stop));
            }
        }
        first
    }

    fn tell_failure(&self, job: &str, error: Error) -> Stop {
        if error.blame == Blame::Interrupted {
            return Stop::OutputClosed;
        }
        // It points into a text that has been left behind.
        let error = Error { span: None, ..error };
        self.voice.error(Some(&format!("job {job}")), &error, "");
        Stop::Told(error.exit_code())
    }

    fn stop_jobs(&self) {
        self.engine.jobs().iter().for_each(Job::stop);
    }

    /// Stops jobs that are still running, cleanly, and tells their ends.
    pub fn close(&mut self) {
        self.engine.shut_down();
        let _ = self.tell_ends();
    }
}
