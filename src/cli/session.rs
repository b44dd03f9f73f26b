//! Statements to outcomes that people see: what a script and the shell have in common.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use tidemill::error::{Blame, Error};
use tidemill::runtime::{Engine, Job, JobStatus, Outcome, Rows, clock};
use tidemill::sql::Script;
use tidemill::sql::diagnostics::width;
use tidemill::sql::statement::{Parsed, Statement};

use super::Stop;
use super::args::Form;
use super::config::Config;
use super::live::LiveRows;
use super::output::{Output, pager};
use super::signals::Signals;
use super::variables::Variables;
use super::voice::{Voice, count};

/// How often a signal is looked for while there is nothing else to do.
const TURN: Duration = Duration::from_millis(50);

/// The setting that says how rows are written.
const RESULT_MODE: &str = "sql-client.execution.result-mode";

/// An engine, and where its outcomes go.
pub struct Session {
    /// The engine.
    pub engine: Engine,
    /// Where rows go, and how.
    pub output: Output,
    /// Rows of a result that are shown, at most.
    limit: Option<u64>,
    variables: Variables,
    /// Say how long statements take.
    pub tells_time: bool,
    /// Files that include each other.
    pub depth: u32,
    expansion: Expansion,
    /// Only look at what statements would do.
    pub only_checks: bool,
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
        for (key, value) in &config.set {
            let quoted = |text: &str| text.replace('\'', "''");
            let statement = format!("SET '{}' = '{}'", quoted(key), quoted(value));
            let unset =
                |e: Error| Error::usage(format!("the configuration's set.{key}: {e}")).hint(e.hint.unwrap_or_default());
            engine.run(&statement).try_for_each(|outcome| outcome.map(drop)).map_err(unset)?;
        }
        if config.until_caught_up {
            engine.run("SET 'execution.until-caught-up' = 'true'").try_for_each(|outcome| outcome.map(drop))?;
        }
        Ok(Self {
            engine,
            output: config.output.clone(),
            limit: config.limit,
            variables: config.variables.clone(),
            tells_time: false,
            depth: 0,
            expansion: Expansion::Off,
            only_checks: false,
            voice: config.voice,
            signals,
            is_broker_a_surprise,
            counts_rows: false,
            told: BTreeSet::new(),
        })
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
        let text = self.filled(place, text)?;
        for statement in Script::new(&text) {
            let result = statement.map_err(Stop::from).and_then(|statement| self.statement(&statement));
            result.map_err(|stop| self.tell(stop, place, &text))?;
        }
        Ok(())
    }

    /// Executes all statements of a text that parse, however many fail; each error is told.
    pub fn run_all(&mut self, place: Option<&str>, text: &str) -> Result<(), Stop> {
        let text = self.filled(place, text)?;
        let mut first = Ok(());
        for statement in Script::new(&text) {
            let result = statement.map_err(Stop::from).and_then(|statement| self.statement(&statement));
            match result.map_err(|stop| self.tell(stop, place, &text)) {
                Err(stop @ Stop::Told(_)) => first = first.and(Err(stop)),
                other => other?,
            }
        }
        first
    }

    /// A text with its variables filled in.
    fn filled<'a>(&self, place: Option<&str>, text: &'a str) -> Result<Cow<'a, str>, Stop> {
        self.variables.fill(text).map_err(|error| self.tell(error.into(), place, text))
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

    /// How rows are shown: `on` a line per value, `off` as before, `auto` by their width; else the other way round.
    /// Answers what is to be said.
    pub fn expand(&mut self, how: Option<&str>) -> Result<&'static str, Error> {
        let (expansion, sentence) = match how {
            Some("auto") => (Expansion::Auto, "rows that are wider than the screen have a line per value"),
            Some("on") => (Expansion::On, "rows have a line per value"),
            Some("off") => (Expansion::Off, "rows are shown in columns"),
            None if self.expansion == Expansion::On => (Expansion::Off, "rows are shown in columns"),
            None => (Expansion::On, "rows have a line per value"),
            Some(_) => return Err(Error::statement("\\x takes on, off or auto")),
        };
        self.expansion = expansion;
        Ok(sentence)
    }

    /// From now on rows go to a file, or again to standard output.
    pub fn redirect(&mut self, file: Option<&str>) -> Result<(), Error> {
        let open = |name| File::create(name).map_err(|e| Error::usage(format!("cannot write {name}: {e}")));
        self.output.file = file.map(open).transpose()?.map(Arc::new);
        Ok(())
    }

    /// The output as commands of the shell have it.
    fn expanded(&self) -> Output {
        let form = if self.expansion == Expansion::On { Form::Vertical } else { self.output.form };
        Output { form, ..self.output.clone() }
    }

    fn rows_as_text(&self, rows: &Rows) -> Result<Vec<u8>, Error> {
        let text = self.expanded().rows(rows)?;
        let is_too_wide = || {
            let columns = pager::screen().map_or(usize::MAX, |(_, columns)| columns);
            String::from_utf8_lossy(&text).lines().any(|line| columns < width(line))
        };
        if self.expansion == Expansion::Auto && self.output.form == Form::Table && is_too_wide() {
            return Output { form: Form::Vertical, ..self.output.clone() }.rows(rows);
        }
        Ok(text)
    }

    /// Executes a statement and shows what comes of it.
    fn statement(&mut self, parsed: &Parsed) -> Result<(), Stop> {
        let start = clock::now();
        let result = self.executed(parsed);
        if self.tells_time {
            let ms = start.elapsed().as_millis();
            self.voice.say(&format!("time: {}.{:03} s", ms / 1_000, ms % 1_000));
        }
        result
    }

    fn executed(&mut self, parsed: &Parsed) -> Result<(), Stop> {
        if let Some(signal) = self.signals.pending() {
            return Err(Stop::Signal(signal));
        }
        let outcome = if self.only_checks { self.engine.check(parsed)? } else { self.execute(parsed)? };
        self.set_form(&parsed.statement)?;
        self.engine.take_notices().iter().for_each(|notice| self.voice.note(notice));
        match outcome {
            Outcome::Done(sentence, notices) => {
                notices.iter().for_each(|notice| self.voice.note(notice));
                if !sentence.is_empty() {
                    self.voice.say(&sentence);
                }
                Ok(())
            }
            Outcome::Rows(rows) => {
                let rows = self.limited(rows);
                self.show(&self.rows_as_text(&rows)?)?;
                self.tell_count(rows.batches.iter().map(|batch| batch.num_rows() as u64).sum());
                Ok(())
            }
            Outcome::Text(text) => self.show(&self.output.text(&text)),
            // The session waits for jobs ('table.dml-sync').
            Outcome::Started(job) if job.status().has_ended() => match self.tell_ends() {
                Some(stop) => Err(stop),
                None => Ok(()),
            },
            Outcome::Started(job) => {
                self.voice.say(&format!("job {} started", job.name()));
                Ok(())
            }
            Outcome::Query(mut stream) => self.show_live(&mut stream),
            Outcome::Topic(mut records) => self.show_live(&mut records),
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

    /// A setting may say how rows are written from now on.
    fn set_form(&mut self, statement: &Statement) -> Result<(), Error> {
        let Statement::Set(Some((key, value))) = statement else { return Ok(()) };
        if key == RESULT_MODE {
            self.output.form = Form::named(value).ok_or_else(|| {
                let forms = Form::value_variants().iter().filter_map(ValueEnum::to_possible_value);
                let names = forms.map(|form| form.get_name().to_owned()).collect::<Vec<_>>().join(", ");
                Error::statement(format!("there is no result mode '{value}'")).hint(format!("there are {names}"))
            })?;
        }
        Ok(())
    }

    /// Shows a finite text, through a pager if it is longer than the screen.
    fn show(&self, text: &[u8]) -> Result<(), Stop> {
        if self.output.is_for_the_eyes() && pager::is_longer_than_the_screen(text) {
            // Ctrl-C is the pager's.
            let shown = self.signals.idle(|| {}, || pager::show(text));
            if shown {
                return Ok(());
            }
        }
        self.output.write(text)
    }

    /// The first rows, as many as are wanted.
    fn limited(&self, mut rows: Rows) -> Rows {
        if let Some(limit) = self.limit {
            let mut left = usize::try_from(limit).unwrap_or(usize::MAX);
            for batch in &mut rows.batches {
                *batch = batch.slice(0, batch.num_rows().min(left));
                left -= batch.num_rows();
            }
        }
        rows
    }

    fn tell_count(&self, rows: u64) {
        if self.counts_rows {
            self.voice.say(&count(rows, "row"));
        }
    }

    /// Shows the rows of a query, or of a topic, as they come, until it ends or a signal ends it.
    fn show_live(&self, stream: &mut dyn LiveRows) -> Result<(), Stop> {
        let mut printer = self.expanded().printer(&stream.schema())?;
        let mut stopped_by = None;
        let mut told = None;
        while let Some(batch) = stream.next_within(TURN)? {
            if let (None, true, Some(note)) = (&told, batch.num_rows() > 0, stream.note()) {
                self.voice.note(&note);
                told = Some(note);
            }
            let left = self.limit.map_or(u64::MAX, |limit| limit - printer.rows());
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(batch.num_rows());
            printer.batch(&batch.slice(0, wanted))?;
            if self.limit.is_some_and(|limit| limit == printer.rows()) {
                stream.stop();
                break;
            }
            if let (None, Some(signal)) = (stopped_by, self.signals.pending()) {
                stopped_by = Some(signal);
                stream.stop();
            }
        }
        let rows = printer.end()?;
        // Later records may have been written in other ways.
        if let Some(note) = stream.note().filter(|note| told.as_ref().is_some_and(|told| told != note)) {
            self.voice.note(&note);
        }
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

/// Whether rows have a line per value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expansion {
    Off,
    On,
    /// Where they are wider than the screen.
    Auto,
}
