//! Where reading starts and where it ends.

use futures::executor::block_on;
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::{
    BOUNDED, EARLIEST, at, by_window, counts, engine, expected, finished, input, output, script, start, until,
    until_job, values,
};
use crate::common::broker::{Broker, REQUEST_TIMEOUT, shared, unique_name};
use crate::common::program::tidemill;
use crate::common::records::{Ending, Message, Record};

/// What a group has committed, by partition.
fn committed(broker: &Broker, group: &str, topic: &str, partitions: i32) -> Vec<Option<i64>> {
    let consumer: BaseConsumer = broker.client().set("group.id", group).create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, partition);
    }
    let found = consumer.committed_offsets(list, REQUEST_TIMEOUT).expect("Kafka answers");
    let offset = |partition| match found.find_partition(topic, partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    (0..partitions).map(offset).collect()
}

#[test]
fn a_bounded_run_ends_whatever_its_topics_end_in() {
    let broker = shared();
    let to_commit = broker.topic("behaviour-commit", 1);
    broker.transaction(&to_commit, [at(0, 0), at(0, 1_000)], Ending::Commit);
    let to_abort = broker.topic("behaviour-abort", 1);
    broker.transaction(&to_abort, [at(0, 2_000)], Ending::Commit);
    broker.transaction(&to_abort, [at(0, 9_000_000)], Ending::Abort);
    let to_open = broker.topic("behaviour-open", 1);
    broker.produce(&to_open, [at(0, 3_000)]);
    let _open = broker.transaction(&to_open, [at(0, 9_000_000)], Ending::Open);
    let compacted = broker.compacted_topic("behaviour-compacted", 2);
    broker.produce(&compacted, [4_000, 5_000, 5_500].map(|ts| at(0, ts).key("same")));
    broker.compact(&compacted, "filler");
    // Behind the compacted part, nothing that anyone sees; and the other partition stays empty.
    broker.transaction(&compacted, [at(0, 9_000_000).key("aborted")], Ending::Abort);
    let emptied = broker.topic("behaviour-emptied", 2);
    broker.produce(&emptied, [at(0, 9_000_000)]);
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(&emptied, 0, Offset::End).expect("an offset");
    block_on(broker.admin().delete_records(&all, &AdminOptions::new())).expect("Kafka deletes records");

    let topics = [&*to_commit, &*to_abort, &*to_open, &*compacted, &*emptied].join(";");
    let out = unique_name("behaviour-bounded");
    // The compaction's fillers are no rows with an event time.
    let options = format!("{BOUNDED}, 'scan.on-error' = 'skip'");
    let engine = engine(broker);
    let job = start(&engine, &(input("i", &topics, &options) + &output("o", &out) + &counts("i", "o", 2)));
    let info = finished(&job);
    assert_eq!(info.status, "finished");
    assert_eq!((info.late, info.lost_to_idleness, info.open_windows), (0, 0, 0), "{info:?}");
    assert_eq!(by_window(&broker.read_all(&out)), expected([0, 1_000, 2_000, 3_000, 5_500], 2));
}

#[test]
fn a_bounded_run_over_nothing_ends_too() {
    let broker = shared();
    let (empty, out) = (broker.topic("behaviour-empty", 3), unique_name("behaviour-empty-out"));
    let file = script(&(input("i", &empty, BOUNDED) + &output("o", &out) + &counts("i", "o", 2)));
    let path = file.path().to_str().expect("UTF-8");
    let ended = tidemill(&["-b", broker.addresses(), "run", path]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(broker.read_all(&out).is_empty());
}

#[test]
fn reading_starts_and_ends_where_the_table_says() {
    let broker = shared();
    let topic = broker.topic("behaviour-modes", 1);
    broker
        .produce(&topic, (0..10).map(|n| Message::new(format!(r#"{{"n":{n}}}"#)).timestamp_ms(1_000_000 + 1_000 * n)));
    let read = |options: &str| {
        let table = format!(
            "CREATE TABLE i (n BIGINT) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', {options}); "
        );
        values(&engine(broker), &(table + "SELECT n FROM i"))
    };
    let (from, to) = ("'scan.startup.mode'", "'scan.bounded.mode'");
    let to_latest = format!("{to} = 'latest-offset'");
    let until_7 = format!("{to} = 'specific-offsets', 'scan.bounded.specific-offsets' = 'partition:0,offset:7'");
    let since_3 = format!("{from} = 'specific-offsets', 'scan.startup.specific-offsets' = 'partition:0,offset:3'");
    let since_4_s = format!("{from} = 'timestamp', 'scan.startup.timestamp-millis' = '1003500'");
    let until_6_s = format!("{to} = 'timestamp', 'scan.bounded.timestamp-millis' = '1006000'");
    for (options, want) in [
        (to_latest.clone(), 0..10),
        (format!("{EARLIEST}, {to_latest}"), 0..10),
        (format!("{from} = 'latest-offset', {to_latest}"), 0..0),
        (format!("{since_3}, {to_latest}"), 3..10),
        (format!("{since_3}, {until_7}"), 3..7),
        (format!("{EARLIEST}, {until_7}"), 0..7),
        (format!("{since_4_s}, {to_latest}"), 4..10),
        (format!("{since_4_s}, {until_6_s}"), 4..6),
        (format!("{from} = 'timestamp', 'scan.startup.timestamp-millis' = '1099000', {to_latest}"), 0..0),
    ] {
        assert_eq!(read(&options), want.collect::<Vec<i64>>(), "{options}");
    }
}

#[test]
fn the_latest_offset_is_that_of_the_submission() {
    let broker = shared();
    let (topic, out) = (broker.topic("behaviour-latest", 2), unique_name("behaviour-latest-out"));
    broker.produce(&topic, [at(0, 0), at(1, 0)]);
    let engine = engine(broker);
    let latest = "'scan.startup.mode' = 'latest-offset'";
    let job = start(&engine, &(input("i", &topic, latest) + &output("o", &out) + "INSERT INTO o SELECT ts, n FROM i"));
    broker.produce(&topic, [at(0, 1_000), at(1, 2_000)]);
    let records = broker.read_until(&out, super::PATIENCE, |records| records.len() == 2);
    assert_eq!(by_window(&records), [(1, 1_000), (2, 2_000)].into());
    job.stop();
    assert_eq!(finished(&job).records_in, 2);
}

#[test]
fn a_group_goes_on_where_it_was() {
    let broker = shared();
    let (topic, group) = (broker.topic("behaviour-group", 2), unique_name("behaviour-group"));
    broker.produce(&topic, (0..10).map(|n| at(0, n)));
    let table = input("i", &topic, &format!("'properties.group.id' = '{group}'"));
    let sink = "CREATE TABLE o (n BIGINT) WITH ('connector' = 'blackhole'); ";
    let insert = "INSERT INTO o SELECT n FROM i";

    // While it runs, boundaries commit.
    let one = engine(broker);
    let job = start(&one, &(table.clone() + sink + insert));
    until("ten records are committed", || (committed(broker, &group, &topic, 2)[0] == Some(10)).then_some(()));
    broker.produce(&topic, (10..15).map(|n| at(0, n)));
    until_job(&job, "fifteen records", |info| info.records_in == 15);
    // What it has read when it is stopped is committed when it has ended.
    job.stop();
    finished(&job);
    assert_eq!(committed(broker, &group, &topic, 2)[0], Some(15));

    // Another one reads only what is new, and a bounded one commits as well.
    broker.produce(&topic, [at(0, 15), at(1, 16)]);
    let bounded = format!("'properties.group.id' = '{group}', 'scan.bounded.mode' = 'latest-offset'");
    let job = start(&engine(broker), &(input("i", &topic, &bounded) + sink + insert));
    assert_eq!(finished(&job).records_in, 2);
    assert_eq!(committed(broker, &group, &topic, 2), [Some(16), Some(1)]);
}

/// Commits an offset of partition 0 to a group, as somebody else would.
fn commit(broker: &Broker, group: &str, topic: &str, offset: i64) {
    let consumer: BaseConsumer = broker.client().set("group.id", group).create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset)).expect("an offset");
    consumer.commit(&list, CommitMode::Sync).expect("Kafka takes it");
}

#[test]
fn a_group_is_told_and_only_a_new_job_asks_it() {
    let broker = shared();
    let (topic, out) = (broker.topic("behaviour-told", 1), broker.topic("behaviour-told-out", 1));
    let (group, name) = (unique_name("behaviour-told"), unique_name("told"));
    broker.produce(&topic, (0..10).map(|n| at(0, n)));
    let text = |name: &str, options: &str, guarantee: &str| {
        input("i", &topic, &format!("'properties.group.id' = '{group}'{options}"))
            + &format!(
                "CREATE TABLE o (n BIGINT) WITH ('connector' = 'kafka', 'topic' = '{out}', 'format' = 'json', \
                 'sink.delivery-guarantee' = '{guarantee}'); SET 'pipeline.name' = '{name}'; INSERT INTO o SELECT n FROM i"
            )
    };
    let exactly = text(&name, "", "exactly-once");
    let told = |offset: i64| {
        until("the group is told", || (committed(broker, &group, &topic, 1) == [Some(offset)]).then_some(()));
    };
    let numbers = |records: &[Record]| -> Vec<i64> { records.iter().filter_map(|r| r.json()["n"].as_i64()).collect() };

    let job = start(&engine(broker), &exactly);
    told(10);
    job.stop();
    finished(&job);
    assert_eq!(committed(broker, &group, &topic, 1), [Some(10)]);

    // The job goes by its log; whatever the group holds meanwhile is put right.
    commit(broker, &group, &topic, 3);
    broker.produce(&topic, (10..15).map(|n| at(0, n)));
    let job = start(&engine(broker), &exactly);
    told(15);
    job.stop();
    finished(&job);
    assert_eq!(numbers(&broker.read_all(&out)), (0..15).collect::<Vec<_>>());

    // A new one asks the group, if its table does not say otherwise.
    let bounded = ", 'scan.bounded.mode' = 'latest-offset'";
    commit(broker, &group, &topic, 12);
    let job = start(&engine(broker), &text(&unique_name("told"), bounded, "exactly-once"));
    assert_eq!(finished(&job).records_in, 3);
    commit(broker, &group, &topic, 12);
    let job = start(&engine(broker), &text("again", &format!("{bounded}, {EARLIEST}"), "at-least-once"));
    assert_eq!(finished(&job).records_in, 15);
    assert_eq!(committed(broker, &group, &topic, 1), [Some(15)]);
}
