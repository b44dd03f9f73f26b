//! Statements to outcomes that people see: what a script and the shell have in common.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use clap::ValueEnum;
use tidemill::error::{Blame, Error};
use tidemill::runtime::{Engine, Job, JobStatus, Outcome, Rows, clock};
use tidemill::sql::Script;
use tidemill::sql::statement::{Parsed, Statement};

use super::Stop;
use super::args::Form;
use super::config::Config;
use super::live::table::{Drawn, LiveTable};
use super::live::{LiveRows, View};
use super::output::{Output, pager};
use super::progress::Progress;
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
    /// How rows that come as they come are looked at.
    view: View,
    /// Only look at what statements would do.
    pub only_checks: bool,
    voice: Voice,
    signals: Signals,
    /// A broker runs inside this process although nobody asked for it by name.
    is_broker_a_surprise: bool,
    /// That has been said.
    pub has_told_broker: bool,
    /// Somebody types statements: how many rows a result had is said, and a job's end at once.
    pub is_shell: bool,
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
        let mut session = Self {
            engine,
            output: config.output.clone(),
            limit: config.limit,
            variables: config.variables.clone(),
            tells_time: false,
            depth: 0,
            expansion: Expansion::Auto,
            view: View::Auto,
            only_checks: false,
            voice: config.voice,
            signals,
            is_broker_a_surprise,
            has_told_broker: false,
            is_shell: false,
            told: BTreeSet::new(),
        };
        // As with -o, a script that reads rows must not be surprised by what the user likes to look at.
        if let Some(mode) = config.set.get(RESULT_MODE).filter(|_| config.output.is_terminal) {
            session.set_mode(mode)?;
        }
        Ok(session)
    }

    /// Says once, when the first statement has needed it, that the broker is inside this process.
    fn tell_broker(&mut self) {
        let Some(servers) = self.engine.embedded().filter(|_| !self.has_told_broker) else { return };
        self.has_told_broker = true;
        let why = match self.is_broker_a_surprise {
            true => "no broker is named (-b), so one runs",
            false => "the broker runs",
        };
        self.voice.note(&format!("{why} inside this process, at {servers}; nothing is kept after exit"));
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
        Output { form, fits_screen: self.expansion == Expansion::Auto, ..self.output.clone() }
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
        let outcome = if self.only_checks { self.engine.check(parsed) } else { self.execute(parsed) };
        self.tell_broker();
        let outcome = outcome?;
        self.take_setting(&parsed.statement)?;
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
                self.show(&self.expanded().rows(&rows)?)?;
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
            let engine = self.engine.clone();
            let new_jobs = move || engine.jobs().split_off(earlier);
            let _progress = (!self.is_shell && self.shows_progress()).then(|| Progress::watch(new_jobs, self.voice));
            return self.signals.helped(stop_new_jobs, execute);
        }
        match before.iter().all(|job| job.status().has_ended()) {
            true => self.signals.harmless(execute),
            false => execute(),
        }
    }

    /// A setting may say how rows are written from now on.
    fn take_setting(&mut self, statement: &Statement) -> Result<(), Error> {
        match statement {
            Statement::Set(Some((key, mode))) if key == RESULT_MODE => self.set_mode(mode),
            Statement::Reset(key) if key.as_deref().is_none_or(|key| key == RESULT_MODE) => {
                self.view = View::Auto;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn set_mode(&mut self, mode: &str) -> Result<(), Error> {
        self.output.form = Form::named(mode).ok_or_else(|| {
            let forms = Form::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let names = forms.map(|form| form.get_name().to_owned()).collect::<Vec<_>>().join(", ");
            Error::statement(format!("there is no result mode '{mode}'")).hint(format!("there are {names}, changelog"))
        })?;
        self.view = View::of_mode(mode).unwrap_or(self.view);
        Ok(())
    }

    /// How rows that come as they come are looked at: `on` as a live table, `off` as a log, `auto` by what they are.
    /// Answers what is to be said.
    pub fn look(&mut self, how: Option<&str>) -> Result<&'static str, Error> {
        let (view, sentence) = match how {
            Some("auto") => (View::Auto, "rows that may change are a live table, others come one below the other"),
            Some("on") => (View::Table, "rows of a stream are a live table"),
            Some("off") => (View::Log, "rows of a stream come one below the other"),
            None if self.view == View::Table => return self.look(Some("off")),
            None => return self.look(Some("on")),
            Some(_) => return Err(Error::statement("\\live takes on, off or auto")),
        };
        self.view = view;
        Ok(sentence)
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
        if self.is_shell {
            self.voice.say(&count(rows, "row"));
        }
    }

    /// Shows the rows of a query, or of a topic, as they come, until it ends or a signal ends it.
    fn show_live(&mut self, stream: &mut dyn LiveRows) -> Result<(), Stop> {
        let output = self.expanded();
        if output.form == Form::Table
            && output.is_for_the_eyes()
            && self.view.is_table(stream)
            && LiveTable::is_possible()
            && let Some(table) = LiveTable::open(stream, self.voice.color)?
        {
            return self.show_table(stream, table);
        }
        let jobs: Vec<_> = stream.job().filter(|_| !output.is_for_the_eyes()).cloned().into_iter().collect();
        let progress = Progress::watch(move || jobs.clone(), self.voice);
        let mut printer = output.printer(&stream.schema())?;
        let mut told = None;
        let stopped_by = self.take_rows(stream, |voice, stream, batch| {
            if let (None, true, Some(note)) = (&told, batch.num_rows() > 0, stream.note()) {
                voice.note(&note);
                told = Some(note);
            }
            printer.batch(batch)
        })?;
        drop(progress);
        let rows = printer.end()?;
        // Later records may have been written in other ways.
        if let Some(note) = stream.note().filter(|note| told.as_ref().is_some_and(|told| told != note)) {
            self.voice.note(&note);
        }
        self.tell_count(rows);
        stopped_by.map_or(Ok(()), |signal| Err(Stop::Signal(signal)))
    }

    /// Shows the rows of a query as a live table.
    fn show_table(&mut self, stream: &mut dyn LiveRows, table: LiveTable) -> Result<(), Stop> {
        let stopped_by = self.take_rows(stream, |_, _, batch| match table.has_failed() {
            false => Ok(table.add(batch)?),
            // It says why.
            true => Err(Stop::OutputClosed),
        });
        match (table.end()?, stopped_by) {
            (Drawn::OutputClosed, _) => Err(Stop::OutputClosed),
            (_, Err(stop)) => Err(stop),
            (Drawn::Rows(rows), Ok(stopped_by)) => {
                self.tell_count(rows);
                stopped_by.map_or(Ok(()), |signal| Err(Stop::Signal(signal)))
            }
        }
    }

    /// Hands on rows as they come, as many as are wanted; answers the signal that has ended it, if one has.
    fn take_rows(
        &mut self,
        stream: &mut dyn LiveRows,
        mut take: impl FnMut(Voice, &dyn LiveRows, &RecordBatch) -> Result<(), Stop>,
    ) -> Result<Option<i32>, Stop> {
        let mut stopped_by = None;
        let mut taken = 0;
        while let Some(batch) = stream.next_within(TURN)? {
            let left = self.limit.map_or(u64::MAX, |limit| limit - taken);
            let batch = batch.slice(0, usize::try_from(left).unwrap_or(usize::MAX).min(batch.num_rows()));
            taken += batch.num_rows() as u64;
            take(self.voice, stream, &batch)?;
            if self.limit == Some(taken) {
                stream.stop();
                break;
            }
            if let (None, Some(signal)) = (stopped_by, self.signals.pending()) {
                stopped_by = Some(signal);
                stream.stop();
            }
            if self.is_shell {
                // Failures were told; here they end nothing.
                let _ = self.tell_ends();
            }
        }
        Ok(stopped_by)
    }

    /// Waits until all jobs have ended: by themselves, by a signal, or because one has failed. Tells each end.
    pub fn wait_for_jobs(&mut self) -> Result<(), Stop> {
        let mut first = None;
        let engine = self.engine.clone();
        let _progress = self.shows_progress().then(|| Progress::watch(move || engine.jobs(), self.voice));
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

    /// Whether bars may stand on the terminal while jobs run: not among rows that they print there.
    fn shows_progress(&self) -> bool {
        !(self.output.is_terminal && self.engine.has_print_tables())
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
