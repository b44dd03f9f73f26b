//! Records that are none, topics that are gone or have lost what was still to be read, partitions that become more.

use std::time::Duration;

use futures::executor::block_on;
use rand::RngExt;
use rdkafka::admin::AdminOptions;
use rdkafka::{Offset, TopicPartitionList};

use super::trial::Trial;
use super::{PATIENCE, Row, until, volume};
use crate::common::broker::{REQUEST_TIMEOUT, shared};
use crate::common::records::Record;

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT))
}

#[test]
fn row_11_poison() {
    let mut row = Row::new("11", "data::row_11", 111);
    let mut rng = row.rng();
    let (mut trial, mut feed) = Trial::new(shared(), "poison", 3, row.seed);
    // A letter is as large as its record.
    trial.options = ", 'properties.message.max.bytes' = '4000000'".into();
    feed.bad_percent = 30;
    feed.send(300);
    feed.large_bad(2_000_000);
    feed.flush();
    let feed = feed.run(300);
    for _ in 0..volume(2, 30) {
        let mut job = trial.start(rng.random_range(1..4));
        row.survived(trial.goes_on("among poison", PATIENCE, &mut job));
        std::thread::sleep(Duration::from_millis(rng.random_range(0..1_500)));
        job.signal("KILL");
        drop(job);
    }
    let mut job = trial.start(2);
    trial.goes_on("at last", PATIENCE, &mut job);
    let feed = feed.stop();
    let rows = trial.check(shared(), feed, job);
    row.finish(rows);
}

#[test]
fn row_17_topics_that_are_gone_or_have_lost_what_was_to_be_read() {
    let mut row = Row::new("17", "data::row_17", 117);
    let broker = shared();
    let (trial, mut feed) = Trial::new(broker, "retention", 2, row.seed);
    feed.send(2_000);
    feed.flush();
    let mut job = trial.start(2);
    until("all that is there", PATIENCE, || 900 < trial.follower.count(trial.out("plain")));
    row.survived(trial.goes_on("at first", PATIENCE, &mut job));
    job.signal("TERM");
    assert_eq!(job.finish(PATIENCE).code, 143);
    let (before, stood) = (trial.follower.count(trial.out("plain")), 1_000_i64);
    feed.send(2_000);
    feed.flush();
    // Retention takes the rest of what was read, and the next hundred.
    let mut gone = TopicPartitionList::new();
    gone.add_partition_offset(&trial.topic, 0, Offset::Offset(stood + 100)).expect("an offset");
    block_on(broker.admin().delete_records(&gone, &options())).expect("Kafka answers");
    let job = trial.start(2);
    let ended = job.finish(PATIENCE);
    assert_eq!(ended.code, 3, "{ended:?}");
    for part in [&*trial.topic, "partition 0", &format!("the records from {stood} to {} are gone", stood + 99)] {
        assert!(ended.stderr.contains(part), "{part:?} in {}", ended.stderr);
    }
    // Nothing was passed over in silence: rows of the other partition, at most, have been committed.
    let of_partition = |wanted: i64| {
        let rows = broker.read_all(trial.out("plain"));
        rows.iter().map(Record::json).filter(|r| r["p"] == wanted && 1_100 <= r["seq"].as_i64().unwrap_or(0)).count()
    };
    assert_eq!(of_partition(0), 0);
    assert!(before <= broker.read_all(trial.out("plain")).len());

    // A topic that is deleted while it is read.
    let (trial, mut feed) = Trial::new(broker, "deleted", 2, row.seed);
    feed.send(500);
    feed.flush();
    let mut job = trial.start(2);
    row.survived(trial.goes_on("at first", PATIENCE, &mut job));
    block_on(broker.admin().delete_topics(&[&trial.topic], &options())).expect("Kafka answers");
    let ended = job.finish(PATIENCE);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains(&trial.topic) && ended.stderr.contains("gone"), "{ended:?}");
    row.finish(before);
}

#[test]
fn row_18_partitions_that_become_more() {
    let mut row = Row::new("18", "data::row_18", 118);
    let mut rng = row.rng();
    let broker = shared();
    let (trial, mut feed) = Trial::new(broker, "grow", 2, row.seed);
    feed.send(300);
    feed.flush();
    let mut feed = feed.run(500);
    let mut job = trial.start(2);
    for partitions in [4, 8] {
        trial.goes_on("before", PATIENCE, &mut job);
        // The others wait for those that are new, so that their rows are not behind all windows when they are noticed.
        let mut paused = feed.stop();
        broker.grow(&trial.topic, partitions);
        let sink = trial.out("plain").to_owned();
        if broker.partition_count(&sink) != Some(8) {
            broker.grow(&sink, 8);
            trial.follower.follow(&sink, 2..8);
        }
        let noticed = format!("\"{}\", partition {} is new", trial.topic, partitions - 1);
        job.wait_for(&noticed, PATIENCE);
        row.survived(trial.goes_on("with more of them", PATIENCE, &mut job));
        // What is in a new partition for windows that have closed by then is not counted. So these records come first.
        let before = trial.follower.count(trial.out("plain"));
        paused.grow(partitions);
        until("rows of new partitions", PATIENCE, || {
            before + partitions / 2 <= trial.follower.count(trial.out("plain"))
        });
        paused.send(500);
        feed = paused.run(500);
        if partitions == 4 {
            std::thread::sleep(Duration::from_millis(rng.random_range(0..1_500)));
            job.signal("KILL");
            drop(job);
            job = trial.start(3);
        }
    }
    let feed = feed.stop();
    let rows = trial.check(broker, feed, job);
    row.finish(rows);
}
