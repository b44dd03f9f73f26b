//! The shell: statements from a terminal, one engine for as long as it is open.
//!
//! A statement may take several lines and ends with `;`. An error is shown and the shell goes on; Ctrl-C ends what runs
//! in the foreground; jobs run on in the background, and how one ended is said before the next prompt. The shell's own
//! commands ([`commands`]) need no `;`. What was typed is kept per user ([`history`]), unless it holds a secret.

mod commands;
mod editor;
mod history;

use rustyline::error::ReadlineError;
use tidemill::error::Error;
use tidemill::runtime::Engine;

use crate::cli::Stop;
use crate::cli::config::Config;
use crate::cli::session::Session;
use crate::cli::signals::{Signals, is_interrupt};
use crate::cli::voice::{Voice, count};
use commands::Command;
use editor::LineEditor;

/// Opens the shell and serves it until its end.
pub fn run(config: &Config, signals: Signals) -> Result<(), Stop> {
    let mut editor = LineEditor::open(config.output.is_terminal).map_err(|e| terminal_error(&e))?;
    let mut session = Session::open(config, signals.clone(), true)?;
    session.counts_rows = true;
    greet(&session, config.voice);
    let result = serve(&mut editor, &mut session, &signals, config.voice);
    say_goodbye(&session.engine, config.voice);
    session.close();
    result
}

fn greet(session: &Session, voice: Voice) {
    let version = env!("CARGO_PKG_VERSION");
    let broker = match session.engine.brokers() {
        Some((servers, true)) => format!("a broker inside this process, {servers}; nothing is kept after exit"),
        Some((servers, false)) => format!("broker {servers}"),
        None => "no broker".to_owned(),
    };
    voice.say(&format!("Tidemill {version}: continuous SQL over Kafka; {broker}."));
    voice.say("Statements end with ; and may take several lines. help; says what there is, Ctrl-D quits.");
}

/// Says what is going to be stopped, for that may take a moment.
fn say_goodbye(engine: &Engine, voice: Voice) {
    let running = engine.jobs().iter().filter(|job| !job.status().has_ended()).count();
    if running > 0 {
        voice.say(&format!("stopping {}", count(running as u64, "job")));
    }
}

fn serve(editor: &mut LineEditor, session: &mut Session, signals: &Signals, voice: Voice) -> Result<(), Stop> {
    loop {
        // Failures were told; here they end nothing.
        let _ = session.tell_ends();
        let engine = session.engine.clone();
        let farewell = move || {
            editor::restore_terminal();
            say_goodbye(&engine, voice);
            engine.shut_down();
        };
        let text = match signals.idle(farewell, || editor.read()) {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal_error(&error)),
        };
        match commands::parse(&text) {
            Some(Command::Quit) => return Ok(()),
            Some(Command::Help) => voice.say(commands::HELP),
            Some(Command::Unknown(name)) => {
                let error = Error::statement(format!("there is no command \\{name}")).hint("\\? lists what there is");
                voice.error(None, &error, "");
            }
            None => match session.run(None, &text) {
                Ok(()) | Err(Stop::Told(_)) => {}
                Err(Stop::Signal(signal)) if is_interrupt(signal) => voice.say("interrupted"),
                Err(stop) => return Err(stop),
            },
        }
        signals.clear();
    }
}

fn terminal_error(error: &ReadlineError) -> Stop {
    Error::usage(format!("cannot read from the terminal: {error}")).into()
}
