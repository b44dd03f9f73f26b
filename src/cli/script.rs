//! Scripts: files, -c, standard input.
//!
//! All texts are read before the first statement is executed, so that a file that is missing spoils nothing. They form
//! one session: tables of the first are there for the second. The first error ends everything; jobs that were started
//! before it are stopped cleanly.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tidemill::error::{Error, Result};

use super::args::Piece;
use super::config::Config;
use super::session::Session;
use super::signals::Signals;
use super::{Stop, standard_input};

/// A text to execute.
pub struct Text {
    /// What errors call it; -c has no name.
    pub place: Option<String>,
    pub text: String,
}

/// Executes texts and waits for their jobs.
///
/// With a file among them, tables need a broker that is named: a job that is kept in a file is not for trying out.
pub fn run(pieces: Vec<Piece>, config: &Config, signals: Signals) -> Result<(), Stop> {
    let embedded_if_none = !pieces.iter().any(|piece| matches!(piece, Piece::File(_)));
    let texts = read_all(pieces)?;
    execute(&texts, config, signals, embedded_if_none)
}

/// Looks at texts without running them; every mistake is told.
pub fn check(pieces: Vec<Piece>, config: &Config, signals: Signals) -> Result<(), Stop> {
    let texts: Vec<_> = read_all(pieces)?;
    let mut session = Session::open(config, signals, false)?;
    session.only_checks = true;
    let mut code = 0;
    for text in &texts {
        match session.run_all(text.place.as_deref(), &text.text) {
            Ok(()) => {}
            Err(Stop::Told(found)) => code = found,
            Err(stop) => return Err(stop),
        }
    }
    match code {
        0 => Ok(()),
        code => Err(Stop::Told(code)),
    }
}

/// Executes standard input.
pub fn run_input(config: &Config, signals: Signals) -> Result<(), Stop> {
    let text = signals.harmless(|| read(Piece::File(standard_input())))?;
    execute(&[text], config, signals, true)
}

fn execute(texts: &[Text], config: &Config, signals: Signals, embedded_if_none: bool) -> Result<(), Stop> {
    let mut session = Session::open(config, signals, embedded_if_none)?;
    let result = texts.iter().try_for_each(|text| session.run(text.place.as_deref(), &text.text));
    let result = result.and_then(|()| session.wait_for_jobs());
    session.close();
    result
}

/// Reads texts; a folder stands for its files of statements.
fn read_all(pieces: Vec<Piece>) -> Result<Vec<Text>> {
    let mut texts = Vec::new();
    for piece in pieces {
        match piece {
            Piece::File(path) if path.is_dir() => {
                for file in statements_in(&path)? {
                    texts.push(read(Piece::File(file))?);
                }
            }
            piece => texts.push(read(piece)?),
        }
    }
    Ok(texts)
}

/// The files of statements in a folder, by their names; hidden ones are left out.
fn statements_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let name = folder.display().to_string();
    let unreadable = |error: io::Error| unreadable(&name, folder, &error);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && path.is_file() && path.extension().is_some_and(|extension| extension == "sql") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Error::usage(format!("there are no .sql files in {name}")).hint("name files, or another folder"));
    }
    Ok(files)
}

/// Reads a text.
pub fn read(piece: Piece) -> Result<Text> {
    let path = match piece {
        Piece::Text(text) => return Ok(Text { place: None, text }),
        Piece::File(path) => path,
    };
    let (name, bytes) = if path == standard_input() {
        let mut bytes = Vec::new();
        ("standard input".to_owned(), io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes))
    } else {
        (path.display().to_string(), fs::read(&path))
    };
    let bytes = bytes.map_err(|error| unreadable(&name, &path, &error))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::usage(format!("{name} is not UTF-8 text: see byte {at}"))
    })?;
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    Ok(Text { place: Some(name), text })
}

fn unreadable(name: &str, path: &Path, error: &io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    let error = Error::usage(format!("cannot read {name}: {reason}"));
    // `tidemill run SELECT ..` and the like.
    let is_statement = path.to_string_lossy().contains(' ');
    if is_statement { error.hint("statements on the command line follow -c") } else { error }
}
