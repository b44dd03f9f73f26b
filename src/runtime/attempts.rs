//! A job is run in attempts, one after the other.
//!
//! Most jobs have one. A job that writes each row once starts over when something goes wrong that is about the moment: a
//! transaction whose end is not known, one that took too long, a broker that is away. All threads of the attempt end, and
//! the next one takes the job up from its log as another process would; there is no second way back. It is tried for as
//! long as it takes, ever more seldom.
//!
//! What would go wrong again ends the job: an error of the statement or of the data, records that are gone, a permission
//! that is missing, somebody younger who has the job, a defect of ours.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::commit::Committer;
use super::events::{self, Discovering};
use super::job::JobState;
use super::shared::Shared;
use crate::error::{Blame, Error, Result};
use crate::exec::End;

/// Deep expressions are evaluated recursively.
const STACK_BYTES: usize = 16 << 20;

/// Before the second attempt. Each further one waits twice as long, until one has come to something.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Between two attempts, at most.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What a thread does.
pub type Body = Box<dyn FnMut() -> Result<()> + Send>;

/// A job made ready to run, once.
pub struct Attempt {
    pub shared: Arc<Shared>,
    /// The workers' threads, with their titles.
    pub threads: Vec<(String, Body)>,
    pub committer: Committer,
    /// The sources whose partitions are looked for.
    pub discovering: Vec<Discovering>,
}

/// Starts a job with its first attempt; `again` makes the next one ready, or says with `None` that there is nothing left to
/// do.
pub fn start(
    job: Arc<JobState>,
    first: Attempt,
    mut again: impl FnMut(&Arc<JobState>) -> Result<Option<Attempt>> + Send + 'static,
) -> Result<()> {
    spawn("commit", move || {
        let result = catch_unwind(AssertUnwindSafe(|| run_all(&job, first, &mut again)));
        job.end(result.unwrap_or_else(|panic| Err(panicked(&*panic))));
    })?;
    Ok(())
}

fn run_all(
    job: &Arc<JobState>,
    first: Attempt,
    again: &mut dyn FnMut(&Arc<JobState>) -> Result<Option<Attempt>>,
) -> Result<End> {
    let mut attempt = first;
    let mut pause = PAUSE_MIN;
    loop {
        let (shared, may_start_over) = (Arc::clone(&attempt.shared), attempt.committer.ledger.is_some());
        let mut error = match attempt.run() {
            Ok(end) => return Ok(end),
            Err(error) if may_start_over && error.is_transient => error,
            Err(error) => return Err(error),
        };
        if job.is_stopping() {
            return Err(error);
        }
        job.note_restart(&error);
        tracing::warn!("{}: {error}; the job starts over from its last commit", job.name);
        if shared.metrics.has_committed() {
            pause = PAUSE_MIN;
        }
        attempt = loop {
            job.pause(pause, &error);
            if job.is_stopping() {
                return Err(error);
            }
            pause = (pause * 2).min(PAUSE_MAX);
            match again(job) {
                Ok(Some(attempt)) => break attempt,
                Ok(None) => return Ok(End::Finished),
                Err(next) if next.is_transient => {
                    // An outage is said once.
                    tracing::debug!("{}: {next}; trying again", job.name);
                    error = next;
                }
                Err(error) => return Err(error),
            }
        };
        job.note_begun();
    }
}

impl Attempt {
    /// Runs the threads, the committing one here, until all have ended.
    fn run(self) -> Result<End> {
        let Self { shared, threads, mut committer, mut discovering } = self;
        let mut handles = Vec::new();
        for (title, mut body) in threads {
            let of_thread = Arc::clone(&shared);
            match spawn(&title, move || guard(&of_thread, &mut *body)) {
                Ok(handle) => handles.push(handle),
                Err(error) => shared.fail(error),
            }
        }
        if !discovering.is_empty() {
            let of_thread = Arc::clone(&shared);
            // Whoever waits for the end does not wait for an answer that this thread is still waiting for.
            match spawn("discovery", move || events::discover(&of_thread, &mut discovering)) {
                Ok(_) => {}
                Err(error) => shared.fail(error),
            }
        }
        let mut end = End::GoesOn;
        guard(&shared, &mut || {
            end = committer.run()?;
            Ok(())
        });
        drop(committer);
        for handle in handles {
            // What it failed with has been noted.
            let _ = handle.join();
        }
        shared.end(end)
    }
}

fn spawn<T: Send + 'static>(title: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<thread::JoinHandle<T>> {
    thread::Builder::new().name(title.to_owned()).stack_size(STACK_BYTES).spawn(body).map_err(|e| {
        Error::new(Blame::Usage, format!("cannot start a thread: {e}"))
            .hint("the system's limit of threads or memory is reached")
    })
}

/// Runs a thread's body; an error or a panic of it ends the attempt.
fn guard(shared: &Shared, body: &mut dyn FnMut() -> Result<()>) {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(&*panic)));
    if let Err(error) = result
        && error.blame != Blame::Interrupted
    {
        shared.fail(error);
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::bug(format!("a worker failed: {}", text.unwrap_or("no reason given")))
        .hint("this is a defect of Tidemill's: please report the statement and this message")
}
