//! How far jobs have come with what was there when they began, as bars on standard error.
//!
//! ```text
//! departures ━━━━━━━━━━━━━╸━━━━━━━━━━  57 % 570,000 of 1,000,000 records, 345,678/s, 1 s to go
//! ```
//!
//! The ends of topics are taken once, when they become known, so the bar has an end although the topics grow; then the job
//! is live. Records are counted by offsets, so transactions and compaction make them estimates.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidemill::runtime::{Job, JobInfo, PartitionState};
use tidemill::sql::diagnostics::escape;
use tidemill::words::{count, grouped, rate, span};

use super::screen::{self, Occupied};
use super::voice::Voice;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Looks without a backlog after which a job is live, although its topics never end.
const LOOKS_UNTIL_LIVE: u32 = 10;

const TEMPLATE: &str = "{prefix} {bar:24} {wide_msg}";

/// Bars for as long as this is kept.
pub struct Progress {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _occupied: Occupied,
}

impl Progress {
    /// Shows how far jobs are, where somebody looks.
    pub fn watch(jobs: impl Fn() -> Vec<Job> + Send + 'static, voice: Voice) -> Option<Self> {
        let is_able = std::env::var("TERM").is_ok_and(|term| !matches!(term.as_str(), "" | "dumb"));
        if voice.is_quiet || voice.is_json || !is_able || !io::stderr().is_terminal() {
            return None;
        }
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let torn = bars.clone();
        let occupied = screen::occupy(move |line| torn.suspend(|| screen::put(line)));
        let (end, ended) = channel();
        let watch = move || watch(&jobs, &bars, voice, &ended);
        // Without the thread there are no bars.
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(watch).ok()?;
        Some(Self { end: Some(end), thread: Some(thread), _occupied: occupied })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // Bars are worth no failure.
            let _ = thread.join();
        }
    }
}

fn watch(jobs: &impl Fn() -> Vec<Job>, bars: &MultiProgress, voice: Voice, ended: &Receiver<()>) {
    let mut watched: Vec<Watched> = Vec::new();
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
        for job in jobs() {
            if !watched.iter().any(|known| known.job.is(&job)) {
                watched.push(Watched {
                    job,
                    backlog: Backlog::default(),
                    bar: None,
                    looks_without_backlog: 0,
                    is_over: false,
                });
            }
        }
        watched.iter_mut().for_each(|watched| watched.look(bars, voice));
    }
    for bar in watched.iter().filter_map(|watched| watched.bar.as_ref()) {
        bar.finish_and_clear();
    }
}

struct Watched {
    job: Job,
    backlog: Backlog,
    bar: Option<ProgressBar>,
    /// Looks at which nothing of the backlog was left, one after the other.
    looks_without_backlog: u32,
    /// It is live, or has ended.
    is_over: bool,
}

impl Watched {
    fn look(&mut self, bars: &MultiProgress, voice: Voice) {
        if self.is_over {
            return;
        }
        let info = self.job.info();
        self.is_over = self.job.status().has_ended();
        let (done, all) = self.backlog.after(&info);
        if let (false, Some(all)) = (self.is_over, all) {
            let new = || {
                let bar = bars.add(new_bar(&info.name, voice.color));
                bar.set_length(all);
                bar
            };
            let bar = self.bar.get_or_insert_with(new);
            bar.set_position(done);
            bar.set_message(message(&info, done, all));
            self.looks_without_backlog = if done == all { self.looks_without_backlog + 1 } else { 0 };
            self.is_over = self.is_live(&info);
        }
        if let Some(bar) = self.bar.as_ref().filter(|_| self.is_over) {
            bar.finish_and_clear();
            if !self.job.status().has_ended() {
                let read = count(info.records_in, "record");
                voice.say(&format!("{} is live: {read} read in {}", info.name, span(info.elapsed_ms)));
            }
        }
    }

    /// Whether it has read the backlog and goes on with what comes: at the ends of its topics, or behind busy ones for a
    /// while. One that is to end there says so only a moment later.
    fn is_live(&self, info: &JobInfo) -> bool {
        let is = |states: &[PartitionState]| {
            let mut partitions = info.sources.iter().flat_map(|source| &source.partitions);
            partitions.any(|partition| states.contains(&partition.state))
        };
        let goes_on =
            is(&[PartitionState::AtEnd, PartitionState::Idle]) || LOOKS_UNTIL_LIVE < self.looks_without_backlog;
        0 < self.looks_without_backlog && goes_on && !is(&[PartitionState::Ended])
    }
}

fn new_bar(job: &str, has_colours: bool) -> ProgressBar {
    let bar = ProgressBar::no_length().with_prefix(escape(job).into_owned());
    let template = if has_colours { TEMPLATE.replace("{bar:24}", "{bar:24.cyan/dim}") } else { TEMPLATE.to_owned() };
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars(if has_colours { "━╸━" } else { "━╸ " }));
    bar
}

fn message(info: &JobInfo, done: u64, all: u64) -> String {
    let mut parts = vec![
        format!("{:>3} % {} of {}", percent(done, all), grouped(done), count(all, "record")),
        format!("{}/s", rate(info.records_per_second)),
    ];
    if let Some(trouble) = &info.trouble {
        parts.insert(0, escape(trouble).into_owned());
    } else if 1.0 <= info.records_per_second {
        let seconds = (all - done) as f64 / info.records_per_second;
        parts.push(format!("{} to go", span((seconds.ceil() as u64).saturating_mul(1_000))));
    }
    parts.join(", ")
}

fn percent(done: u64, all: u64) -> u128 {
    u128::from(done) * 100 / u128::from(all.max(1))
}

/// What was to be read when a job began: from which offset to which, by source and partition.
#[derive(Default)]
struct Backlog(BTreeMap<(usize, String, i32), (i64, i64)>);

impl Backlog {
    /// How much of it has been read, and how much there is, once that is known of all partitions.
    fn after(&mut self, info: &JobInfo) -> (u64, Option<u64>) {
        let (mut done, mut all, mut is_known) = (0, 0, true);
        for (number, source) in info.sources.iter().enumerate() {
            for partition in &source.partitions {
                let key = (number, partition.topic.clone(), partition.partition);
                let (from, to) = match (self.0.get(&key), partition.end_offset) {
                    (Some(range), _) => *range,
                    (None, Some(end)) => *self.0.entry(key).or_insert((partition.start_offset, end)),
                    (None, None) => {
                        is_known = false;
                        continue;
                    }
                };
                let length = |to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
                done += length(partition.next_offset.min(to));
                all += length(to);
            }
        }
        (done, Some(all).filter(|all| is_known && 0 < *all))
    }
}
