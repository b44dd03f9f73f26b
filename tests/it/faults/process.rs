//! What a process uses, as Linux tells it.

use std::fs;
use std::time::Duration;

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

    /// It has not grown, but for what a new producer and its connections may take while the old ones end.
    pub fn check(self, now: Self, memory_mb: u64) {
        assert!(now.memory_mb <= memory_mb, "{now:?} is more than {memory_mb} MB");
        assert!(now.threads <= self.threads + 12, "threads: {self:?}, and then {now:?}");
        assert!(now.files <= self.files + 24, "open files: {self:?}, and then {now:?}");
    }
}
