//! The matrix of faults: a job that writes exactly once, driven as a process against a real Kafka, goes through all that
//! can go wrong while records keep coming; then its answer is compared with the batch's, row by row.
//!
//! Each test is a row of the matrix. What it does is made from a seed; in the end it prints one line with what it has
//! survived, and a failing one the command that does the same again. `TIDEMILL_SOAK=1` gives the volumes of a long run.
//!
//! What must hold in the end, whatever has happened ([`trial`]):
//!
//! - *A* the rows of each window are those of the batch over the same topic, and rows without windows are the records;
//! - *B* rows in windows, late ones and dead letters add up to the records that were sent;
//! - *C* nothing is there twice, nor was it for a consumer that read along;
//! - *D* the numbers of the job's progress have no gap and no repetition;
//! - *E* no transaction is left open;
//! - *F* after each fault the job goes on within a limit;
//! - *G* neither memory nor threads nor open files grow while it runs.

mod coordinator;
mod data;
mod feed;
mod follower;
mod kills;
mod network;
mod outages;
mod process;
mod trial;

use std::io::Write;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

/// How long anything may take that is not a fault itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// Whether this is a long run.
fn is_soak() -> bool {
    std::env::var("TIDEMILL_SOAK").is_ok_and(|value| !value.is_empty())
}

/// How often something happens: in every run, or in a long one.
fn volume(usual: u32, soak: u32) -> u32 {
    if is_soak() { soak } else { usual }
}

/// Looks again and again until there is what is looked for; answers how long it took.
fn until(what: &str, wait: Duration, mut is: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < wait, "not within {wait:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

/// A row of the matrix while it is gone through.
struct Row {
    number: &'static str,
    /// The test that replays it.
    test: &'static str,
    seed: u64,
    begun: Instant,
    /// How often something was done to the job.
    faults: u32,
    recovery_max: Duration,
}

impl Row {
    fn new(number: &'static str, test: &'static str, seed: u64) -> Self {
        let given = std::env::var("TIDEMILL_SEED").ok().map(|seed| seed.parse().expect("TIDEMILL_SEED is a number"));
        let (seed, begun) = (given.unwrap_or(seed), Instant::now());
        Self { number, test, seed, begun, faults: 0, recovery_max: Duration::ZERO }
    }

    fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// One more fault was survived.
    fn survived(&mut self, recovery: Duration) {
        self.faults += 1;
        self.recovery_max = self.recovery_max.max(recovery);
    }

    /// The line that tells of it, past the test harness, which hides what good tests print.
    fn finish(self, rows: usize) {
        let Self { number, test, seed, begun, faults, recovery_max } = &self;
        let _ = writeln!(
            std::io::stderr(),
            "fault row {number} ({test}): seed {seed}, {faults} faults, {rows} rows compared, recovery at most {:.1} s, \
             {} s in all",
            recovery_max.as_secs_f64(),
            begun.elapsed().as_secs(),
        );
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let soak = if is_soak() { "TIDEMILL_SOAK=1 " } else { "" };
            let Self { number, test, seed, faults, .. } = self;
            eprintln!("fault row {number} failed after {faults} faults; to see it again:");
            eprintln!("{soak}TIDEMILL_SEED={seed} cargo test --release --test it -- --include-ignored faults::{test}");
        }
    }
}
