//! What people type after `tidemill`, and what the program answers: flags, scripts, rows, exit codes.
//!
//! [`args`] are the flags as written, [`config`] what they come to. [`session`] executes statements and shows their
//! outcomes, for scripts ([`script`]) and for the shell. Standard output holds data only; people are spoken to on
//! standard error ([`voice`], [`log`]). [`Stop`] is why something ended, and the exit code with it.

pub mod args;
pub mod config;
mod demo;
mod doctor;
mod live;
mod log;
pub mod output;
mod progress;
pub mod screen;
pub mod script;
pub mod session;
mod settings;
pub mod signals;
mod test;
mod variables;
pub mod voice;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use tidemill::error::{Blame, Error, codes};
use tidemill::runtime::Rows;

use args::{Arguments, Command, Piece};
use config::Config;
use signals::Signals;

/// Why work ended early.
#[derive(Debug)]
pub enum Stop {
    /// Whoever read standard output wants no more: a good end.
    OutputClosed,
    /// Ctrl-C or SIGTERM.
    Signal(i32),
    /// An error that is still to be told.
    Failed(Error),
    /// An error that has been told, with its exit code.
    Told(u8),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error.blame {
            // A sink that prints found standard output closed.
            Blame::Interrupted => Self::OutputClosed,
            _ => Self::Failed(error),
        }
    }
}

/// The program.
pub fn main() -> ! {
    let code = outcome();
    // Nobody is left to be told if that fails.
    let _ = std::io::stdout().flush();
    signals::leave(code)
}

/// Runs it; answers its exit code.
fn outcome() -> u8 {
    let (arguments, pieces) = Arguments::read();
    log::start(arguments.common.verbose, arguments.common.quiet);
    let variable = |name: &str| std::env::var(name).ok();
    let config = match Config::new(&arguments.common, variable) {
        Ok(config) => config,
        Err(error) => {
            let is_json = arguments.common.json_errors;
            let voice = voice::Voice { is_quiet: false, color: false, is_json };
            voice.error(None, &error, "");
            return error.exit_code();
        }
    };
    let voice = config.voice;
    match run(arguments.command, pieces, config) {
        Ok(()) | Err(Stop::OutputClosed) => 0,
        Err(Stop::Told(code)) => code,
        Err(Stop::Signal(signals::TIME_LIMIT)) => {
            voice.error(None, &Error::new(Blame::Interrupted, "the time limit is over (--timeout)"), "");
            signals::exit_code(signals::TIME_LIMIT)
        }
        Err(Stop::Signal(signal)) => signals::exit_code(signal),
        Err(Stop::Failed(error)) => {
            // It points into a text that nobody has any more.
            let error = Error { span: None, ..error };
            voice.error(None, &error, "");
            error.exit_code()
        }
    }
}

fn run(command: Option<Command>, pieces: Vec<Piece>, config: Config) -> Result<(), Stop> {
    let signals = Signals::install()?;
    if let Some(time) = config.timeout {
        signals.limit_time(time);
    }
    match command {
        Some(Command::Demo) => signals.harmless(|| demo::run(&config)),
        Some(Command::Run { files }) => {
            let pieces = pieces.into_iter().chain(files.into_iter().map(Piece::File)).collect();
            script::run(pieces, &config, signals)
        }
        Some(Command::Config { origin }) => show_config(&config, origin),
        Some(Command::Doctor) => signals.harmless(|| doctor::run(&config)),
        Some(Command::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "tidemill", &mut text);
            config.output.write(&text)
        }
        Some(Command::Man { folder }) => write_manuals(&folder),
        Some(Command::ExplainError { code }) => explain_error(code.as_deref(), &config.output),
        Some(Command::Check { files }) => {
            let pieces = pieces.into_iter().chain(files.into_iter().map(Piece::File)).collect();
            script::check(pieces, &config, signals)
        }
        Some(Command::Test { files, update, workers }) => {
            signals.harmless(|| test::run(files, &test::How { update, workers }, &config))
        }
        None if !pieces.is_empty() => script::run(pieces, &config, signals),
        None if std::io::stdin().is_terminal() => crate::repl::run(&config, signals),
        // Not from a file that someone keeps: as forgiving as the shell.
        None => script::run_input(&config, signals),
    }
}

/// Shows the configuration, secrets masked.
fn show_config(config: &Config, with_origin: bool) -> Result<(), Stop> {
    let titles: &[&str] = if with_origin { &["key", "value", "origin"] } else { &["key", "value"] };
    let rows = config.settings.rows().into_iter().map(|row| row[..titles.len()].to_vec()).collect();
    config.output.write(&config.output.rows(&Rows::of_text(titles, rows)?)?)
}

/// Writes the manual pages: one for the program, one for each command.
fn write_manuals(folder: &Path) -> Result<(), Stop> {
    let written = std::fs::create_dir_all(folder).and_then(|()| {
        let command = Arguments::command().disable_help_subcommand(true);
        clap_mangen::generate_to(command, folder)
    });
    written.map_err(|error| Error::usage(format!("cannot write to {}: {error}", folder.display())).into())
}

/// Explains an error's code, or lists all codes.
fn explain_error(name: Option<&str>, output: &output::Output) -> Result<(), Stop> {
    let text = match name {
        Some(name) => {
            codes::named(name).map(|code| format!("{}\n\n{}\n", code.code, code.explanation)).ok_or_else(|| {
                Error::usage(format!("there is no error {name}")).hint("`tidemill explain-error` lists the codes")
            })?
        }
        None => {
            let line = |code: &codes::Code| {
                format!("{}  {}\n", code.code, code.explanation.lines().next().unwrap_or_default())
            };
            let mut lines: Vec<_> = codes::CODES.iter().map(line).collect();
            lines.sort();
            lines.concat()
        }
    };
    output.write(text.as_bytes())
}

/// How standard input is written as a file.
fn standard_input() -> PathBuf {
    PathBuf::from("-")
}
