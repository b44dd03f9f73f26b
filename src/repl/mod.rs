//! The shell: statements from a terminal, one engine for as long as it is open.
//!
//! A statement may take several lines and ends with `;`. An error is shown and the shell goes on; Ctrl-C ends what runs
//! in the foreground; jobs run on in the background, and how one ended, or what is in its way, is said above the prompt. The
//! shell's own commands ([`commands`]) need no `;`. What was typed is kept per user ([`history`]), unless it holds a secret.

mod colours;
mod commands;
mod editor;
mod history;
mod known;

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustyline::error::ReadlineError;
use tidemill::error::Error;
use tidemill::runtime::Engine;

use crate::cli::Stop;
use crate::cli::args::Piece;
use crate::cli::config::{Config, folder};
use crate::cli::script;
use crate::cli::session::Session;
use crate::cli::signals::{Signals, is_interrupt};
use crate::cli::voice::{Voice, count};
use commands::Command;
use editor::LineEditor;
use known::Knowledge;

/// Between two looks at jobs in the background.
const LOOK: Duration = Duration::from_millis(200);

/// Where what was typed is kept, if it is anywhere.
pub fn history_path() -> Option<PathBuf> {
    history::path(|name| std::env::var_os(name).map(PathBuf::from))
}

/// Opens the shell and serves it until its end.
pub fn run(config: &Config, signals: Signals) -> Result<(), Stop> {
    let mut session = Session::open(config, signals.clone(), true)?;
    let knowledge = Knowledge::of(&session.engine);
    let editor = LineEditor::open(config.output.is_terminal, config.voice.color, knowledge.clone());
    let mut editor = editor.map_err(|e| terminal_error(&e))?;
    session.is_shell = true;
    session.expand(Some("auto"))?;
    greet(&session, config.voice)?;
    session.has_told_broker = true;
    let result = run_start_file(&mut session, config.voice).and_then(|goes_on| match goes_on {
        true => serve(&mut editor, &mut session, &knowledge, &signals, config.voice),
        false => Ok(()),
    });
    say_goodbye(&session.engine, config.voice);
    session.close();
    result
}

fn greet(session: &Session, voice: Voice) -> Result<(), Stop> {
    let version = env!("CARGO_PKG_VERSION");
    let broker = match session.engine.brokers()? {
        Some((servers, true)) => format!("a broker inside this process, {servers}; nothing is kept after exit"),
        Some((servers, false)) => format!("broker {servers}"),
        None => "no broker".to_owned(),
    };
    voice.say(&format!("Tidemill {version}: continuous SQL over Kafka; {broker}."));
    voice.say("Statements end with ; and may take several lines. help; says what there is, Ctrl-D quits.");
    Ok(())
}

/// Says what is going to be stopped, for that may take a moment.
fn say_goodbye(engine: &Engine, voice: Voice) {
    let running = engine.jobs().iter().filter(|job| !job.status().has_ended()).count();
    if running > 0 {
        voice.say(&format!("stopping {}", count(running as u64, "job")));
    }
}

fn serve(
    editor: &mut LineEditor,
    session: &mut Session,
    knowledge: &Knowledge,
    signals: &Signals,
    voice: Voice,
) -> Result<(), Stop> {
    loop {
        // Failures were told; here they end nothing.
        let _ = session.tell_ends();
        let engine = session.engine.clone();
        let farewell = move || {
            editor::restore_terminal();
            say_goodbye(&engine, voice);
            engine.shut_down();
        };
        let text = match signals.idle(farewell, || read(editor, session)) {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal_error(&error)),
        };
        if !obey(session, &text, voice)? {
            return Ok(());
        }
        signals.clear();
        knowledge.refresh();
    }
}

/// The next text. A job that ends meanwhile is told of above the prompt.
fn read(editor: &mut LineEditor, session: &mut Session) -> Result<String, ReadlineError> {
    thread::scope(|scope| {
        let (end, ended) = channel::<()>();
        scope.spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
                let _ = session.tell_ends();
            }
        });
        let text = editor.read();
        drop(end);
        text
    })
}

/// Does what was typed; `false` when the shell is to end.
fn obey(session: &mut Session, text: &str, voice: Voice) -> Result<bool, Stop> {
    let refuse = |error: Error| voice.error(None, &error, "");
    let Some(command) = commands::parse(text) else { return execute(session, None, text, voice).map(|()| true) };
    match command {
        Command::Quit => return Ok(false),
        Command::Help => voice.say(commands::HELP),
        Command::Statement(statement) => execute(session, None, &statement, voice)?,
        Command::Expanded(how) => match session.expand(how.as_deref()) {
            Ok(sentence) => voice.say(sentence),
            Err(error) => refuse(error),
        },
        Command::Live(how) => match session.look(how.as_deref()) {
            Ok(sentence) => voice.say(sentence),
            Err(error) => refuse(error),
        },
        Command::Timing(how) => {
            session.tells_time = how.unwrap_or(!session.tells_time);
            voice.say(if session.tells_time { "timing is on" } else { "timing is off" });
        }
        Command::Include(file) => match script::read(Piece::File(file.into())) {
            Ok(script) => return obey_file(session, &script, voice),
            Err(error) => refuse(error),
        },
        Command::Output(file) => match session.redirect(file.as_deref()) {
            Ok(()) => {}
            Err(error) => refuse(error),
        },
        Command::Wrong(what) => refuse(Error::statement(what).hint("\\? lists what there is")),
        Command::Unknown(name) => {
            refuse(Error::statement(format!("there is no command \\{name}")).hint("\\? lists what there is"));
        }
    }
    Ok(true)
}

fn execute(session: &mut Session, place: Option<&str>, text: &str, voice: Voice) -> Result<(), Stop> {
    match session.run(place, text) {
        Ok(()) | Err(Stop::Told(_)) => Ok(()),
        Err(Stop::Signal(signal)) if is_interrupt(signal) => {
            voice.say("interrupted");
            Ok(())
        }
        Err(stop) => Err(stop),
    }
}

/// Does what a file says: statements, and lines that are commands of the shell.
fn obey_file(session: &mut Session, script: &script::Text, voice: Voice) -> Result<bool, Stop> {
    // A file may include others; one that includes itself comes to an end here.
    const DEPTH_MAX: u32 = 16;
    session.depth += 1;
    let result = if session.depth > DEPTH_MAX {
        voice.error(None, &Error::statement("files include each other without end"), "");
        Ok(true)
    } else {
        obey_parts(session, script, voice)
    };
    session.depth -= 1;
    result
}

fn obey_parts(session: &mut Session, script: &script::Text, voice: Voice) -> Result<bool, Stop> {
    let place = script.place.as_deref();
    let mut statements = String::new();
    for line in script.text.split_inclusive('\n') {
        // A backslash within a statement is a part of it.
        if line.starts_with('\\') && tidemill::sql::is_complete(&statements) {
            execute(session, place, &std::mem::take(&mut statements), voice)?;
            if !obey(session, line, voice)? {
                return Ok(false);
            }
        } else {
            statements.push_str(line);
        }
    }
    execute(session, place, &statements, voice)?;
    Ok(true)
}

/// Does what the user's own file says, if there is one: `rc.sql` in the folder of the configuration.
fn run_start_file(session: &mut Session, voice: Voice) -> Result<bool, Stop> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let Some(file) = folder(variable).map(|folder| folder.join("rc.sql")).filter(|file| file.is_file()) else {
        return Ok(true);
    };
    match script::read(Piece::File(file)) {
        Ok(script) => obey_file(session, &script, voice),
        Err(error) => {
            voice.error(None, &error, "");
            Ok(true)
        }
    }
}

fn terminal_error(error: &ReadlineError) -> Stop {
    Error::usage(format!("cannot read from the terminal: {error}")).into()
}
