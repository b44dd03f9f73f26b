//! What goes wrong for a moment ends no job that writes each row once: it starts over from its last commit, in the same
//! process, for as often as it takes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rdkafka::admin::AdminOptions;
use tidemill::runtime::{Job, JobStatus};

use super::crashes::Case;
use super::{EARLIEST, PATIENCE, at, engine, failed, input, script, start, until, until_job};
use crate::common::broker::{Broker, shared, unique_name};
use crate::common::program::start_tidemill;

/// Transactions that take long are given up after this, so that tests need not wait for half a minute.
const SHORT: &str = ", 'properties.transaction.timeout.ms' = '3000'";

/// A broker looks for transactions to give up every ten seconds.
const EXPIRY: Duration = Duration::from_secs(16);

fn running(case: &Case<Broker>) -> Job {
    let job = start(&engine(&case.broker), &case.text(2, EARLIEST));
    until("rows", || (!case.broker.read_all(&case.outs[0]).is_empty()).then_some(()));
    job
}

/// All rows are there, and nothing of what happened has ended the job.
fn check(case: &Case<Broker>, job: &Job) {
    let answers = case.answers();
    case.until_complete(&answers);
    assert!(matches!(job.status(), JobStatus::Running), "{:?}", job.status());
    job.stop();
    job.wait().expect("a good end");
    case.check(&answers);
}

#[test]
fn a_broker_may_be_silent_for_longer_than_anybody_waits() {
    let mut case = Case::on(Broker::start_own(), "silent");
    case.options = SHORT;
    let mut rng = StdRng::seed_from_u64(22);
    case.send(0..500, &mut rng);
    let job = running(&case);
    // What comes after a pause is of other windows: those before it may have been closed by the clock.
    for from in [1_500, 3_000] {
        let before = job.info().restarts;
        case.broker.pause();
        until_job(&job, "another attempt", |info| before < info.restarts);
        case.broker.resume();
        // Its other clients have lost their connections, too.
        std::thread::sleep(Duration::from_secs(3));
        let rows = case.broker.read_all(&case.outs[0]).len();
        case.send(from..from + 500, &mut rng);
        until("more rows", || (rows < case.broker.read_all(&case.outs[0]).len()).then_some(()));
    }
    check(&case, &job);
}

/// A job that copies a topic: what it reads is in a transaction at once, so one is open nearly always.
fn copying(topic: &str, out: &str, name: &str) -> String {
    input("i", topic, EARLIEST)
        + &format!(
            "CREATE TABLE o (n BIGINT) WITH ('connector' = 'kafka', 'topic' = '{out}', 'format' = 'json', \
             'sink.delivery-guarantee' = 'exactly-once'{SHORT});\n\
             SET 'pipeline.name' = '{name}'; SET 'sink.commit-interval' = '500 ms';\n\
             INSERT INTO o SELECT n FROM i;\n"
        )
}

#[test]
fn a_process_that_was_stopped_for_too_long_goes_on_unless_somebody_younger_does() {
    let broker = shared();
    let (topic, out, name) = (broker.topic("asleep", 2), broker.topic("asleep-out", 1), unique_name("asleep"));
    let file = script(&copying(&topic, &out, &name));
    let run = || start_tidemill(&["-b", broker.addresses(), "run", file.path().to_str().expect("a temporary path")]);
    let rows = || broker.read_all(&out).len();
    let is_over = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            (0..)
                .take_while(|n| {
                    broker.produce(&topic, [at(n % 2, (*n).into())]);
                    std::thread::sleep(Duration::from_millis(50));
                    !is_over.load(Ordering::Relaxed)
                })
                .count()
        });
        let older = run();
        until("rows", || (0 < rows()).then_some(()));
        for _ in 0..2 {
            older.signal("STOP");
            std::thread::sleep(EXPIRY);
            let before = rows();
            older.signal("CONT");
            until("more rows", || (before + 50 < rows()).then_some(()));
        }
        older.signal("STOP");
        let before = rows();
        let younger = run();
        until("more rows", || (before + 50 < rows()).then_some(()));
        older.signal("CONT");
        let ended = older.finish(PATIENCE);
        assert_eq!(ended.code, 3, "{ended:?}");
        assert!(ended.stderr.contains("a younger process has taken over"), "{ended:?}");
        assert!(ended.stderr.contains("starts over from its last commit"), "{ended:?}");
        is_over.store(true, Ordering::Relaxed);
        let sent = sending.join().expect("records are sent") + 1;
        until("all rows", || (sent <= rows()).then_some(()));
        younger.signal("TERM");
        assert_eq!(younger.finish(PATIENCE).code, 143);
        sent
    });
    let mut numbers: Vec<_> = broker.read_all(&out).iter().map(|record| record.json()["n"].as_u64()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq((0..sent as u64).map(Some)));
}

#[test]
fn a_job_can_be_stopped_while_it_waits_and_ends_when_waiting_is_in_vain() {
    let mut case = Case::on(Broker::start_own(), "in-vain");
    case.options = SHORT;
    case.send(0..500, &mut StdRng::seed_from_u64(24));
    let job = running(&case);
    case.broker.kill();
    until_job(&job, "another attempt", |info| 0 < info.restarts);
    job.stop();
    let stopped = Instant::now();
    let error = failed(&job);
    assert!(error.is_transient && stopped.elapsed() < Duration::from_secs(15), "{error:?}");
    case.broker.start();

    // Its log is gone: to begin anew in silence would write everything twice.
    let job = running(&case);
    let log = format!("tidemill-progress-{}", case.name);
    case.broker.kill();
    until_job(&job, "another attempt", |info| 0 < info.restarts);
    case.broker.start();
    let deleted = block_on(case.broker.admin().delete_topics(&[log.as_str()], &AdminOptions::new()));
    deleted.expect("Kafka answers").remove(0).expect("Kafka deletes a topic");
    let error = failed(&job);
    assert!(!error.is_transient, "{error:?}");
}
