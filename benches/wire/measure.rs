//! What a process took: time, CPU time, memory. Linux only.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::support::peak_memory_mb;

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What one run took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Run {
    pub wall_s: f64,
    pub cpu_s: f64,
    pub peak_mb: u64,
}

/// What the runs of one measurement took: medians, each of its own.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Median {
    pub wall_s: f64,
    pub cpu_s: f64,
    pub peak_mb: f64,
    /// The quickest and the slowest run.
    pub wall_range_s: (f64, f64),
    pub cpu_range_s: (f64, f64),
}

impl Median {
    pub fn of(runs: &[Run]) -> Self {
        let middle = |of: fn(&Run) -> f64| {
            let mut all: Vec<f64> = runs.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            (all[all.len() / 2], (all[0], all[all.len() - 1]))
        };
        let ((wall_s, wall_range_s), (cpu_s, cpu_range_s)) = (middle(|run| run.wall_s), middle(|run| run.cpu_s));
        let (peak_mb, _) = middle(|run| run.peak_mb as f64);
        Self { wall_s, cpu_s, peak_mb, wall_range_s, cpu_range_s }
    }
}

/// Runs a program to its end, which must be a good one: what it took, and what it printed.
pub fn run(command: &mut Command) -> (Run, String) {
    let output = tempfile::NamedTempFile::new().expect("a file");
    command.stdin(Stdio::null()).stdout(output.reopen().expect("a file"));
    let (began, cpu_before) = (Instant::now(), children_cpu());
    let mut child = command.spawn().expect("the program starts");
    let mut peak_mb = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        peak_mb = peak_memory_mb(child.id()).unwrap_or(0).max(peak_mb);
        thread::sleep(LOOK);
    };
    let run = Run { wall_s: began.elapsed().as_secs_f64(), cpu_s: children_cpu() - cpu_before, peak_mb };
    assert!(status.success(), "{command:?} ended with {status}");
    (run, fs::read_to_string(output.path()).expect("its output"))
}

/// CPU seconds of this process so far.
pub fn own_cpu() -> f64 {
    // utime and stime
    cpu_seconds(14)
}

/// CPU seconds of children that have ended.
fn children_cpu() -> f64 {
    // cutime and cstime
    cpu_seconds(16)
}

/// The sum of two neighbouring fields of `/proc/self/stat`, numbered from 1 as proc(5) does.
fn cpu_seconds(first_field: usize) -> f64 {
    /// The kernel reports to programs in hundredths of a second, whatever it counts in itself.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    // The second field, a name in parentheses, may hold blanks.
    let (_, after_name) = stat.rsplit_once(')').expect("a name");
    let fields = after_name.split_whitespace().skip(first_field - 3).take(2);
    fields.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / TICKS_PER_SECOND
}
