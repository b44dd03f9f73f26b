//! Brokers that stop, die, stay away for longer than a transaction may last, or have no space left.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use super::process::{MEMORY_MB, Usage};
use super::trial::Trial;
use super::{PATIENCE, Row, until, volume};
use crate::common::broker::Broker;

/// How long a job may take from the moment at which its broker answers again.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

#[test]
fn row_3_brokers_that_stop_or_die() {
    let mut row = Row::new("3", "outages::row_3", 103);
    let mut broker = Broker::start_own();
    let (trial, mut feed) = Trial::new(&broker, "restart", 3, row.seed);
    feed.send(300);
    feed.flush();
    let feed = feed.run(500);
    let mut job = trial.start(2);
    trial.goes_on("at first", PATIENCE, &mut job);
    let before = Usage::of(job.id());
    for round in 0..volume(3, 30) {
        match round % 2 {
            0 => broker.kill(),
            _ => broker.stop(),
        }
        broker.start();
        row.survived(trial.goes_on("after the broker came back", RECOVERY_MAX, &mut job));
        std::thread::sleep(Duration::from_millis(500));
    }
    before.check(job.id());
    let feed = feed.stop();
    let rows = trial.check(&broker, feed, job);
    row.finish(rows);
}

#[test]
fn row_4_a_broker_that_is_away_for_longer_than_a_transaction_may_last() {
    let mut row = Row::new("4", "outages::row_4", 104);
    let mut broker = Broker::start_own();
    let (mut trial, mut feed) = Trial::new(&broker, "away", 3, row.seed);
    trial.options = ", 'properties.transaction.timeout.ms' = '20000'".into();
    feed.send(300);
    feed.flush();
    let feed = feed.run(300);
    let mut job = trial.start(2);
    trial.goes_on("at first", PATIENCE, &mut job);
    let before = Usage::of(job.id());
    for _ in 0..volume(1, 5) {
        broker.kill();
        std::thread::sleep(Duration::from_secs(60));
        assert!(job.is_running(), "{}", job.said());
        assert!(job.said().contains("cannot be reached"), "{}", job.said());
        let now = Usage::of(job.id());
        assert!(now.memory_mb <= MEMORY_MB, "{now:?}");
        broker.start();
        row.survived(trial.goes_on("after the broker came back", RECOVERY_MAX, &mut job));
    }
    before.check(job.id());
    let feed = feed.stop();
    let rows = trial.check(&broker, feed, job);
    row.finish(rows);
}

/// A small disk; it is unmounted when this value goes.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this is not allowed.
    fn mount(at: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a directory in target/");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }

    /// Takes all space that is left.
    fn fill(&self) {
        let ballast = std::fs::File::create(self.0.join("ballast")).expect("a file");
        let zeros = vec![0; 1 << 16];
        while std::io::Write::write_all(&mut &ballast, &zeros).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("the ballast");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the broker may still be there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn row_12_a_broker_without_space() {
    let mut row = Row::new("12", "outages::row_12", 112);
    let disk = Mutex::new(None);
    let mut broker = Broker::start_with(0, |directory| {
        *disk.lock().expect("one thread") = Disk::mount(&directory.join("data"), 400);
    });
    let disk = disk.into_inner().expect("one thread");
    let Some(disk) = disk else {
        eprintln!("row 12 is skipped: nobody but root may mount a small disk");
        return;
    };
    let (trial, mut feed) = Trial::new(&broker, "full", 3, row.seed);
    feed.send(300);
    feed.flush();
    let feed = feed.run(500);
    let mut job = trial.start(2);
    for _ in 0..volume(1, 50) {
        trial.goes_on("before there is no space", PATIENCE, &mut job);
        disk.fill();
        // The broker gives up its only disk, and ends.
        until("the broker's end", PATIENCE, || broker.has_exited());
        std::thread::sleep(Duration::from_secs(2));
        assert!(job.is_running(), "{}", job.said());
        broker.kill();
        disk.make_room();
        broker.start();
        row.survived(trial.goes_on("with space again", RECOVERY_MAX, &mut job));
    }
    let feed = feed.stop();
    let rows = trial.check(&broker, feed, job);
    row.finish(rows);
}
