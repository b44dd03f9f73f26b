//! What goes wrong for a moment ends no job that writes each row once: it starts over from its last commit, in the same
//! process, for as often as it takes.

use std::time::{Duration, Instant};

use futures::executor::block_on;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rdkafka::admin::AdminOptions;
use tidemill::runtime::{Job, JobStatus};

use super::crashes::Case;
use super::{EARLIEST, engine, failed, start, until, until_job};
use crate::common::broker::Broker;

/// Transactions that take long are given up after this, so that tests need not wait for half a minute.
const SHORT: &str = ", 'properties.transaction.timeout.ms' = '3000'";

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
        case.send_after_a_pause(from..from + 500, &job, &mut rng);
        until("more rows", || (rows < case.broker.read_all(&case.outs[0]).len()).then_some(()));
    }
    check(&case, &job);
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
