//! A job's log on a real broker: what is in it is what was committed, whoever wrote it, and whatever was deleted.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use tidemill::catalog::Table;
use tidemill::catalog::options::Options;
use tidemill::connectors::kafka::Transactions;
use tidemill::connectors::{CancelToken, Defaults, JobLog};
use tidemill::error::Blame;

use crate::common::broker::{Broker, shared, unique_name};

fn defaults(broker: &Broker) -> Defaults {
    Defaults { brokers: Some(broker.addresses().to_string()), ..Defaults::default() }
}

fn table(topic: &str) -> Table {
    table_with(topic, &[])
}

fn table_with(topic: &str, pairs: &[(&str, &str)]) -> Table {
    let pairs = [("connector", "kafka"), ("topic", topic), ("format", "raw")].into_iter().chain(pairs.iter().copied());
    Table {
        name: "t".into(),
        columns: Vec::new(),
        watermark: None,
        primary_key: Vec::new(),
        options: Options::from_pairs(pairs.map(|(key, value)| (key.into(), value.into()))),
        comment: None,
        temporary: false,
    }
}

fn open(broker: &Broker, name: &str) -> Transactions {
    Transactions::open(&table("out"), name, None, &defaults(broker), CancelToken::default()).expect("a log")
}

fn progress(log: &Transactions) -> Vec<String> {
    log.read().expect("records").into_iter().map(|(_, record)| String::from_utf8(record).expect("text")).collect()
}

fn state(log: &Transactions, from: i64) -> Vec<(i64, Vec<u8>)> {
    let mut chunks = Vec::new();
    let taken = log.read_state(from, &mut |offset, chunk| {
        chunks.push((offset, chunk.to_vec()));
        Ok(())
    });
    taken.expect("chunks");
    chunks
}

#[test]
fn a_log_is_what_was_committed_and_not_deleted() {
    let broker = shared();
    let name = unique_name("log");
    let log = open(broker, &name);
    assert_eq!(log.ends().unwrap(), [0, 0]);
    assert!(progress(&log).is_empty() && state(&log, 0).is_empty());

    // A chunk takes nearly a megabyte; together they are more than a reader keeps.
    let chunk = |n: u8| vec![n; 900_000];
    (0..40).for_each(|n| log.write_state(chunk(n)).unwrap());
    log.commit("one".into()).unwrap();
    log.write_state(chunk(40)).unwrap();
    log.commit("two".into()).unwrap();
    let [_, before] = log.ends().unwrap();
    log.write_state(chunk(99)).unwrap();
    // Whoever takes the log over rolls back what is open.
    let younger = open(broker, &name);
    assert!(log.commit("never".into()).is_err() && log.is_fenced());
    drop(log);
    younger.write_state(chunk(41)).unwrap();
    younger.commit("three".into()).unwrap();

    assert_eq!(progress(&younger), ["one", "two", "three"]);
    let chunks = state(&younger, 0);
    assert!(chunks.iter().map(|(_, bytes)| bytes).eq(&(0..42).map(chunk).collect::<Vec<_>>()));
    assert!(chunks.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(state(&younger, before), chunks[41..]);
    assert!(before <= chunks[41].0);

    // What is refused ends the reading.
    let mut taken = 0;
    let refused = younger.read_state(0, &mut |_, _| {
        taken += 1;
        if taken == 2 { Err(tidemill::error::Error::data("no")) } else { Ok(()) }
    });
    assert!(refused.unwrap_err().message == "no" && taken == 2);

    let offset = younger.read().unwrap()[2].0;
    younger.delete_before([offset, chunks[40].0]);
    while progress(&younger).len() != 1 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(progress(&younger), ["three"]);
    assert_eq!(state(&younger, 0), chunks[40..]);
    assert_eq!(younger.ends().unwrap().map(|end| 0 < end), [true, true]);

    // A new producer of the same writer goes on, and what is written between commits is in the next one.
    younger.write_state(vec![7]).unwrap();
    younger.renew().unwrap();
    younger.commit("four".into()).unwrap();
    assert_eq!(progress(&younger), ["three", "four"]);
    assert_eq!(state(&younger, 0), chunks[40..]);
}

#[test]
fn a_log_is_made_to_be_kept_and_must_be_one() {
    let broker = shared();
    let name = unique_name("log-made");
    drop(Transactions::open(&table("out"), &name, Some(1), &defaults(broker), CancelToken::default()).expect("a log"));
    assert_eq!(broker.partition_count(&name), Some(2));
    let admin = broker.admin();
    let described =
        futures::executor::block_on(admin.describe_configs([&ResourceSpecifier::Topic(&name)], &AdminOptions::new()));
    let settings = described.unwrap().remove(0).unwrap();
    let setting = |key: &str| settings.get(key).and_then(|entry| entry.value.clone()).unwrap_or_default();
    assert_eq!(
        ["cleanup.policy", "retention.ms", "retention.bytes", "segment.bytes"].map(setting),
        ["delete", "-1", "-1", "67108864"]
    );

    let other = broker.topic("log-other", 1);
    let error = Transactions::open(&table("out"), &other, None, &defaults(broker), CancelToken::default())
        .err()
        .expect("an error");
    assert!(error.message.contains("has 1 partitions") && error.hint.is_some(), "{error:?}");
    let name = unique_name("log-replicas");
    let error = Transactions::open(&table("out"), &name, Some(9), &defaults(broker), CancelToken::default())
        .err()
        .expect("an error");
    assert!(error.message.contains("does not create topic"), "{error:?}");
}

#[test]
fn a_broker_that_does_not_answer_is_waited_for_only_so_long() {
    let mut broker = Broker::start_own();
    let name = unique_name("log-silence");
    let table = table_with("out", &[("properties.transaction.timeout.ms", "4000")]);
    let open = |broker: &Broker, cancel| Transactions::open(&table, &name, None, &defaults(broker), cancel);
    let cancel = CancelToken::default();
    let (one, two) = (open(&broker, cancel.clone()), open(&broker, CancelToken::default()));
    let (one, two) = (one.expect("a log"), two.expect("a log"));
    two.commit("one".into()).unwrap();

    broker.pause();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            cancel.cancel();
        });
        let start = Instant::now();
        let error = one.commit("never".into()).unwrap_err();
        assert!(error.blame == Blame::Interrupted && start.elapsed() < Duration::from_secs(3), "{error:?}");
    });
    let start = Instant::now();
    let error = two.commit("who knows".into()).unwrap_err();
    assert!(error.blame == Blame::Upstream && start.elapsed() < Duration::from_secs(15), "{error:?}");
    drop((one, two));
    assert!(start.elapsed() < Duration::from_secs(30));

    broker.resume();
    let younger = open(&broker, CancelToken::default()).expect("a log");
    younger.commit("two".into()).unwrap();
    let known = progress(&younger).into_iter().filter(|record| record != "who knows").collect::<Vec<_>>();
    assert_eq!(known, ["one", "two"]);
}
