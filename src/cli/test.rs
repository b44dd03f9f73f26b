//! `tidemill test`: runs tests of queries, tells what is not as expected, and rewrites what is expected if asked to.

use std::fs;
use std::path::{Path, PathBuf};

use tidemill::error::{Error, Result};
use tidemill::runtime::clock;
use tidemill::runtime::query_test::{Failure, run_query_test};

use super::args::Piece;
use super::config::Config;
use super::script::{Text, read};
use super::voice::{Voice, count};
use super::{Stop, standard_input};

/// How tests are run.
pub struct How {
    /// Rewrite the rows that are expected.
    pub update: bool,
    /// Beside one worker, how many.
    pub workers: usize,
}

/// Runs the tests of all files. All are read before the first is run, so that a file that is missing spoils nothing.
pub fn run(files: Vec<PathBuf>, how: &How, config: &Config) -> Result<(), Stop> {
    if how.update && files.contains(&standard_input()) {
        return Err(Error::usage("standard input cannot be rewritten")
            .hint("leave --update out, or name a file")
            .into());
    }
    let texts = files.iter().map(|file| read(Piece::File(file.clone()))).collect::<Result<Vec<_>>>()?;
    let mut code = 0;
    for (file, text) in files.iter().zip(&texts) {
        if !one(file, text, how, config.voice)? {
            code = 1;
        }
    }
    match code {
        0 => Ok(()),
        code => Err(Stop::Told(code)),
    }
}

/// Runs the tests of one file; `false` when something is not as expected.
fn one(path: &Path, text: &Text, how: &How, voice: Voice) -> Result<bool> {
    let (place, text) = (text.place.as_deref(), text.text.as_str());
    let name = place.unwrap_or_default();
    let start = clock::now();
    let report = match run_query_test(text, how.workers) {
        Ok(report) => report,
        Err(error) => {
            voice.error(place, &error, text);
            return Ok(false);
        }
    };
    let left = |failure: &&Failure| !(how.update && failure.can_be_updated);
    let failures: Vec<_> = report.failures.iter().filter(left).collect();
    for failure in &failures {
        voice.error(place, &Error::statement(&failure.title).at(failure.span.clone()), text);
        voice.difference(&failure.lines);
    }
    if let (true, Some(updated)) = (how.update, &report.updated) {
        fs::write(path, updated).map_err(|e| Error::usage(format!("cannot write {name}: {e}")))?;
        let rewritten = report.failures.len() - failures.len();
        voice.say(&format!("{name}: {} rewritten", count(rewritten as u64, "expectation")));
    }
    let expectations = count(report.expectations as u64, "expectation");
    let runs = count(report.runs as u64, "run");
    let verdict = match failures.len() {
        0 => "well".to_owned(),
        n => count(n as u64, "failure"),
    };
    voice.say(&format!("{name}: {verdict}: {expectations}, {runs}, {} ms", start.elapsed().as_millis()));
    Ok(failures.is_empty())
}
