//! What a process uses, as Linux tells it.

use std::fs;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// What a job may use.
pub const MEMORY_MB: u64 = 500;

/// What more connections to the broker take than there were at first.
const THREADS_MORE: u64 = 8;
const FILES_MORE: u64 = 16;

/// What a process uses at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub memory_mb: u64,
    pub threads: u64,
    pub files: u64,
    pub cpu: Duration,
}

impl Usage {
    pub fn of(id: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{id}/status")).expect("a process");
        let number = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).expect("a line of the status");
            line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
        };
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).expect("a process");
        // Behind the name, which may have spaces; time is counted in hundredths of seconds.
        let times = stat.rsplit(')').next().expect("a name").split_whitespace().skip(11).take(2);
        let ticks: u64 = times.map(|n| n.parse::<u64>().expect("a number")).sum();
        Self {
            memory_mb: number("VmRSS:") / 1_024,
            threads: number("Threads:"),
            files: fs::read_dir(format!("/proc/{id}/fd")).expect("a process").count() as u64,
            cpu: Duration::from_millis(10 * ticks),
        }
    }

    /// A process keeps within its memory, and uses no more of the rest than before: producers that were left behind end
    /// when their broker answers.
    pub fn check(self, id: u32) {
        let start = Instant::now();
        loop {
            let now = Self::of(id);
            assert!(now.memory_mb <= MEMORY_MB, "{now:?}");
            if now.threads <= self.threads + THREADS_MORE && now.files <= self.files + FILES_MORE {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "threads or files: {self:?}, and then {now:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
