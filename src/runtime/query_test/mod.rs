//! Tests of queries without a broker.
//!
//! A test is a file of SQL: the statements under test, records for the tables that they read, and what is expected of the
//! tables that they write ([`crate::sql::query_test`] has the grammar). Each statement is planned once ([`prepare`]); the
//! plans are then run by hand over logs in memory ([`run`]), several times: with other numbers of workers, other cuts into
//! batches and other interleavings, which must make no difference.

mod prepare;
pub(super) mod rows;
mod run;
#[cfg(test)]
mod tests;

use std::ops::Range;

use prepare::{Prepared, Step};
use rows::{Difference, Row, difference, quoted, sorted, written};
use run::{Ended, Observed, Run, Trace, Variant};

use crate::error::{Error, Result};

/// What came of a test.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many expectations there are.
    pub expectations: usize,
    /// How often the test was run.
    pub runs: usize,
    /// What is not as expected, in the order of the file.
    pub failures: Vec<Failure>,
    /// The text with what was found instead of what was expected, if that is something else.
    pub updated: Option<String>,
}

/// Something that is not as expected.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The bytes of the step in the test.
    pub span: Range<usize>,
    /// What is wrong, in a sentence.
    pub title: String,
    /// Rows, each after a sign: ` ` as expected, `-` missing, `+` not expected.
    pub lines: Vec<String>,
    /// Whether the updated text mends it.
    pub can_be_updated: bool,
}

/// Runs a test with one worker, with so many, and with batches cut differently.
///
/// An error is a mistake in the test itself, or a statement that is refused although nobody expected it.
pub fn run_query_test(text: &str, workers: usize) -> Result<Report> {
    let prepared = Prepared::new(text)?;
    let variants = [
        Variant { workers: 1, rows_max: usize::MAX, seed: None },
        Variant { workers: 1, rows_max: 1, seed: Some(1) },
        Variant { workers, rows_max: usize::MAX, seed: Some(2) },
        Variant { workers, rows_max: 2, seed: Some(3) },
    ];
    let mut report = Report { runs: variants.len(), ..Report::default() };
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let first = Run::new(&prepared, variants[0]).trace();
    for (number, step) in prepared.steps.iter().enumerate() {
        let Some((failure, edit)) = check(step, number, &first) else { continue };
        report.expectations += 1;
        report.failures.extend(failure);
        edits.extend(edit);
    }
    report.failures.extend(unexpected_end(&prepared, &first, ""));
    for variant in &variants[1..] {
        let other = Run::new(&prepared, *variant).trace();
        report.failures.extend(departure(&prepared, &first, &other, &variant.title()));
    }
    if !edits.is_empty() {
        let mut updated = text.to_owned();
        for (span, new) in edits.into_iter().rev() {
            updated.replace_range(span, &new);
        }
        report.updated = Some(updated);
    }
    Ok(report)
}

type Checked = (Option<Failure>, Option<(Range<usize>, String)>);

/// Compares what was found with what was expected; `None` for a step that expects nothing or was not reached.
fn check(step: &prepare::PreparedStep, number: usize, trace: &Trace) -> Option<Checked> {
    let failure = |title: String, lines| Some(Failure { span: step.span.clone(), title, lines, can_be_updated: true });
    match &step.step {
        Step::ExpectError { text, at, found } => Some(if found.contains(text.as_str()) {
            (None, None)
        } else {
            let title = format!("the statement is refused for another reason: {found}");
            (failure(title, vec![]), Some((at.clone(), quoted(found))))
        }),
        Step::ExpectFailure { text, at } => Some(match trace.observed.get(&number)? {
            Observed::Failure(Some(found)) if found.contains(text.as_str()) => (None, None),
            Observed::Failure(Some(found)) => {
                (failure(format!("the job failed otherwise: {found}"), vec![]), Some((at.clone(), quoted(found))))
            }
            _ => {
                let none = failure("no job has failed".to_owned(), vec![]);
                (none.map(|failure| Failure { can_be_updated: false, ..failure }), None)
            }
        }),
        Step::ExpectRows { expected, is_written, head, nothing, in_order, .. } => {
            let Observed::Rows(found) = trace.observed.get(&number)? else { return None };
            let unwritten =
                || Difference { title: "what is expected is still to be written".to_owned(), lines: vec![] };
            let difference = difference(expected, &found.rows, *in_order);
            Some(match difference.or_else(|| (!is_written).then(unwritten)) {
                None => (None, None),
                Some(difference) => {
                    let is_log = *in_order || found.is_changelog;
                    let rows = if is_log { found.rows.clone() } else { sorted(found.rows.clone()) };
                    let text = match rows.is_empty() {
                        true => nothing.clone(),
                        false => format!("{head} VALUES\n    {}", written(&rows).join(",\n    ")),
                    };
                    (failure(difference.title, difference.lines), Some((step.span.clone(), text)))
                }
            })
        }
        _ => None,
    }
}

/// A job that failed although no one expected it.
fn unexpected_end(prepared: &Prepared, trace: &Trace, how: &str) -> Option<Failure> {
    let Ended::Failed(step, error) = &trace.end else { return None };
    let hint = error.hint.iter().map(|hint| format!("= hint: {hint}"));
    let span = prepared.steps[*step].span.clone();
    Some(Failure {
        span,
        title: format!("{how}a job has failed: {error}"),
        lines: hint.collect(),
        can_be_updated: false,
    })
}

/// Where a run departs from the first one, which is the first place only.
fn departure(prepared: &Prepared, first: &Trace, other: &Trace, how: &str) -> Option<Failure> {
    let how = format!("{how}: ");
    let failure = |step: usize, title: String, lines| {
        Some(Failure { span: prepared.steps[step].span.clone(), title, lines, can_be_updated: false })
    };
    for (number, want) in &first.observed {
        let Some(got) = other.observed.get(number) else {
            return unexpected_end(prepared, other, &how);
        };
        match (want, got) {
            (Observed::Rows(want), Observed::Rows(got)) => {
                let in_order = matches!(prepared.steps[*number].step, Step::ExpectRows { in_order: true, .. });
                if let Some(difference) = difference(&want.rows, &got.rows, in_order) {
                    let title = format!("{how}other rows than with one worker: {}", difference.title);
                    return failure(*number, title, difference.lines);
                }
            }
            // Which of several bad rows is met first may differ.
            (Observed::Failure(want), Observed::Failure(got)) if want.is_some() == got.is_some() => {}
            (_, Observed::Failure(Some(got))) => {
                return failure(*number, format!("{how}a job has failed: {got}"), vec![]);
            }
            _ => return failure(*number, format!("{how}no job has failed"), vec![]),
        }
    }
    match (&first.end, &other.end) {
        (Ended::Well, Ended::Failed(..)) => unexpected_end(prepared, other, &how),
        (Ended::Failed(step, _), Ended::Well) => failure(*step, format!("{how}no job has failed"), vec![]),
        _ => None,
    }
}

/// An error's sentence, and its hint.
fn said(error: &Error) -> String {
    match &error.hint {
        Some(hint) => format!("{}; {hint}", error.message),
        None => error.message.clone(),
    }
}

/// The rows that a step found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    rows: Vec<Row>,
    /// They are changes: their order says something.
    is_changelog: bool,
}
