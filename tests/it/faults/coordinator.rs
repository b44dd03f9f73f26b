//! Ends of transactions that are late, come twice, or get no answer.

use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::network::proxied;
use super::process::Usage;
use super::trial::Trial;
use super::{PATIENCE, Row, until, volume};
use crate::common::broker::unique_name;
use crate::common::proxy::{ADD_PARTITIONS, END_TXN, Treatment};

/// How long a job may take until the coordinator's silence is over, and then some.
const RECOVERY_MAX: Duration = Duration::from_secs(40);

/// How long requests wait for their answers in these tests.
const REQUEST_MS: u64 = 2_000;

/// What the guards are for: the client alone lets a late end of one transaction end the next one. (Kafka's KAFKA-17754.)
#[test]
fn a_late_commit_tears_the_next_transaction_of_the_client_alone() {
    let broker = proxied();
    let proxy = broker.proxy(2);
    let topic = broker.topic("torn", 1);
    let mut config = broker.client();
    config.set("bootstrap.servers", proxy.address()).set("transactional.id", unique_name("torn"));
    config.set("socket.timeout.ms", REQUEST_MS.to_string());
    let producer: BaseProducer = config.create().expect("a producer");
    let send = |value: &str| {
        producer.send(BaseRecord::<(), str>::to(&topic).partition(0).payload(value)).expect("space in the queue");
        producer.flush(PATIENCE).expect("acknowledged");
    };
    producer.init_transactions(PATIENCE).expect("a producer");
    producer.begin_transaction().expect("a transaction");
    send("first");
    let late = Duration::from_millis(2 * REQUEST_MS);
    proxy.treat(END_TXN, Treatment::Delay(late), 1);
    let begun = Instant::now();
    producer.commit_transaction(PATIENCE).expect("the client tries again by itself, and says nothing");
    assert!(begun.elapsed() < late, "{:?}", begun.elapsed());
    producer.begin_transaction().expect("a transaction");
    send("half of the second");
    // The commit of the first one comes, and what was to be rolled back is there.
    let torn = until("a torn transaction", PATIENCE, || broker.read_all(&topic).len() == 2);
    let _ = producer.abort_transaction(PATIENCE);
    assert_eq!(broker.read_all(&topic).len(), 2, "after {torn:?}");
}

#[test]
fn row_6_ends_of_transactions_that_come_late_and_twice() {
    let mut row = Row::new("6", "coordinator::row_6", 106);
    let broker = proxied();
    let proxy = broker.proxy(3);
    let (mut trial, mut feed) = Trial::new(broker, "late-end", 3, row.seed);
    trial.brokers = proxy.address();
    trial.options = format!(", 'properties.socket.timeout.ms' = '{REQUEST_MS}'");
    // So that there is nearly always a transaction for what is late to end.
    trial.commit_interval_ms = 700;
    feed.send(300);
    feed.flush();
    let feed = feed.run(500);
    let mut job = trial.start(2);
    trial.goes_on("at first", PATIENCE, &mut job);
    let late = Duration::from_millis(REQUEST_MS + 1_500);
    for round in 0..volume(3, 30) {
        // The client has asked again by then: so the end comes twice, first in time and then late; or it is answered twice.
        for treatment in [Treatment::Delay(late), Treatment::Delay(late / 2), Treatment::SwallowAnswer] {
            let treated = proxy.treated() + 1;
            proxy.treat(END_TXN, treatment, 1);
            until("the end of a transaction", PATIENCE, || treated <= proxy.treated());
            let took = trial.goes_on(&format!("{treatment:?}, round {round}"), RECOVERY_MAX, &mut job);
            // What is late has come by then.
            std::thread::sleep(late);
            row.survived(took);
        }
    }
    let feed = feed.stop();
    let rows = trial.check(broker, feed, job);
    row.finish(rows);
}

#[test]
fn row_7_a_coordinator_that_gives_no_answer() {
    let mut row = Row::new("7", "coordinator::row_7", 107);
    let broker = proxied();
    let proxy = broker.proxy(4);
    let (mut trial, mut feed) = Trial::new(broker, "silent", 3, row.seed);
    trial.brokers = proxy.address();
    trial.options =
        format!(", 'properties.socket.timeout.ms' = '{REQUEST_MS}', 'properties.transaction.timeout.ms' = '6000'");
    feed.send(300);
    feed.flush();
    let feed = feed.run(300);
    let mut job = trial.start(2);
    trial.goes_on("at first", PATIENCE, &mut job);
    let before = Usage::of(job.id());
    for _ in 0..volume(1, 10) {
        for kind in [END_TXN, ADD_PARTITIONS] {
            proxy.treat(kind, Treatment::SwallowAnswer, usize::MAX);
            // Longer than a transaction may last.
            std::thread::sleep(Duration::from_secs(12));
            assert!(job.is_running(), "{}", job.said());
            proxy.clear();
            row.survived(trial.goes_on("after the silence", RECOVERY_MAX, &mut job));
        }
    }
    before.check(job.id());
    let feed = feed.stop();
    let rows = trial.check(broker, feed, job);
    row.finish(rows);
}
