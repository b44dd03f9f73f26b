//! Processes that are killed, frozen, or met by another one of the same name.

use std::time::{Duration, Instant};

use rand::RngExt;
use signal_hook::consts::{SIGABRT, SIGKILL};

use super::trial::Trial;
use super::{PATIENCE, Row, until, volume};
use crate::common::broker::shared;
use crate::common::program::Running;

/// How long a job may take from its start to the first boundary that it commits. Programs under test are not optimised.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

/// Waits for the end of a process that another one has taken over from. Two that take a job up at the same moment have one
/// number between them, and then the log does not tell who is younger.
fn is_taken_over(job: Running) {
    let ended = job.finish(PATIENCE);
    assert_eq!(ended.code, 3, "{ended:?}");
    let says = ["a younger process has taken over", "another process has its name"];
    assert!(says.iter().any(|text| ended.stderr.contains(text)), "{ended:?}");
}

#[test]
fn row_1_killed_at_any_time() {
    let mut row = Row::new("1", "kills::row_1", 101);
    let mut rng = row.rng();
    let (trial, mut feed) = Trial::new(shared(), "kill", 3, row.seed);
    feed.send(300);
    feed.flush();
    let feed = feed.run(700);
    let mut starts = Vec::new();
    for _ in 0..volume(20, 500) {
        starts.push(Instant::now());
        let job = trial.start(rng.random_range(1..4));
        std::thread::sleep(Duration::from_millis(rng.random_range(100..3_000)));
        job.signal("KILL");
        assert_eq!(job.finish(PATIENCE).signal, Some(SIGKILL));
        row.survived(Duration::ZERO);
    }
    starts.push(Instant::now());
    let mut job = trial.start(2);
    trial.goes_on("after the last kill", RECOVERY_MAX, &mut job);
    let feed = feed.stop();
    row.recovery_max = trial.recoveries(&starts).into_iter().max().expect("the last one");
    assert!(row.recovery_max < RECOVERY_MAX);
    let rows = trial.check(shared(), feed, job);
    row.finish(rows);
}

#[test]
fn row_2_dead_at_every_point() {
    const POINTS: [&str; 7] =
        ["after-poll", "before-write", "before-commit", "after-commit", "mid-checkpoint", "mid-restore", "after-fence"];
    let mut row = Row::new("2", "kills::row_2", 102);
    let mut rng = row.rng();
    let (mut trial, mut feed) = Trial::new(shared(), "point", 3, row.seed);
    trial.checkpoint_interval_ms = 300;
    feed.send(300);
    feed.flush();
    let feed = feed.run(700);
    // What is restored must be there.
    let mut job = trial.start(2);
    until("a checkpoint", PATIENCE, || 10 < trial.follower.boundary());
    assert!(job.is_running(), "{}", job.said());
    job.signal("KILL");
    drop(job);
    let mut starts = Vec::new();
    for round in 0..volume(3, 20) {
        for point in POINTS {
            // Some are come to once per start.
            let often = match point {
                "after-fence" | "mid-restore" => 1,
                "mid-checkpoint" => rng.random_range(1..4),
                _ => rng.random_range(1..20),
            };
            starts.push(Instant::now());
            let at = format!("{point}:{often}");
            let job = trial.start_with(rng.random_range(1..4), &[("TIDEMILL_ABORT_AT", &at)]);
            let ended = job.finish(PATIENCE);
            assert_eq!(ended.signal, Some(SIGABRT), "{at}, round {round}: {ended:?}");
            row.survived(Duration::ZERO);
        }
    }
    starts.push(Instant::now());
    let mut job = trial.start(2);
    trial.goes_on("after the last death", RECOVERY_MAX, &mut job);
    let feed = feed.stop();
    row.recovery_max = trial.recoveries(&starts).into_iter().max().expect("the last one");
    let rows = trial.check(shared(), feed, job);
    row.finish(rows);
}

#[test]
fn row_8_frozen_for_longer_than_a_transaction_may_last() {
    let mut row = Row::new("8", "kills::row_8", 108);
    let (mut trial, mut feed) = Trial::new(shared(), "frozen", 3, row.seed);
    trial.options = ", 'properties.transaction.timeout.ms' = '4000'".into();
    // So that there is a transaction nearly always.
    trial.commit_interval_ms = 700;
    feed.send(300);
    feed.flush();
    let feed = feed.run(500);
    let mut job = trial.start(2);
    trial.goes_on("at first", PATIENCE, &mut job);
    for _ in 0..volume(2, 20) {
        job.signal("STOP");
        // The coordinator looks for transactions that take too long every ten seconds.
        std::thread::sleep(Duration::from_secs(15));
        job.signal("CONT");
        let took = trial.goes_on("after having been frozen", PATIENCE, &mut job);
        row.survived(took);
        trial.goes_on("after that", PATIENCE, &mut job);
    }
    let feed = feed.stop();
    let rows = trial.check(shared(), feed, job);
    row.finish(rows);
}

#[test]
fn row_9_of_those_with_one_name_the_youngest_goes_on() {
    let mut row = Row::new("9", "kills::row_9", 109);
    let mut rng = row.rng();
    let (trial, mut feed) = Trial::new(shared(), "zombie", 3, row.seed);
    feed.send(2_000);
    feed.flush();
    let feed = feed.run(500);
    let mut job = trial.start(2);
    trial.goes_on("the first", PATIENCE, &mut job);
    for round in 0..volume(2, 20) {
        // Whoever wakes finds what is done.
        let is_asleep = round % 2 == 1;
        if is_asleep {
            job.signal("STOP");
        }
        let second = trial.start(rng.random_range(1..4));
        // The second one may have taken over, be restoring, or not have begun.
        std::thread::sleep(Duration::from_millis(rng.random_range(0..1_500)));
        // From then on only one that is younger than both may go on.
        let mut third = trial.start(rng.random_range(1..4));
        if is_asleep {
            job.signal("CONT");
        }
        is_taken_over(job);
        // Processes that start at the same time take over in any order.
        let mut second = second;
        until("one of two", PATIENCE, || !second.is_running() || !third.is_running());
        let gone;
        (job, gone) = if second.is_running() { (second, third) } else { (third, second) };
        is_taken_over(gone);
        row.survived(trial.goes_on("the youngest", PATIENCE, &mut job));
    }
    let feed = feed.stop();
    let rows = trial.check(shared(), feed, job);
    row.finish(rows);
}
