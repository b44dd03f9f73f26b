//! The harness itself: what goes into a topic comes out of it, transactions are what they say, a broker can go away.

use std::process::Command;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::Producer;

use crate::common::broker::{Broker, shared};
use crate::common::flights;
use crate::common::program::Running;
use crate::common::records::{Ending, Message, Record};

fn values(records: &[Record]) -> Vec<&str> {
    records.iter().map(Record::text).collect()
}

#[test]
fn a_record_comes_back_as_it_was_sent() {
    let broker = shared();
    let topic = broker.topic("harness-record", 3);
    let full = Message::new("{}").key("k").partition(2).timestamp_ms(1_357_000_000_000);
    let full = full.header("a", Some("1")).header("b", None).header("a", Some("2"));
    broker.produce(&topic, [full, Message::tombstone().key("gone").partition(0)]);

    let records = broker.read_all(&topic);
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].partition, records[0].key.as_deref(), &records[0].value), (0, Some(&b"gone"[..]), &None));
    let headers = [("a", Some("1")), ("b", None), ("a", Some("2"))];
    let headers = headers.map(|(name, value)| (name.to_string(), value.map(|value| value.as_bytes().to_vec())));
    let want = Record {
        partition: 2,
        offset: 0,
        timestamp_ms: 1_357_000_000_000,
        key: Some(b"k".to_vec()),
        value: Some(b"{}".to_vec()),
        headers: headers.to_vec(),
    };
    assert_eq!(records[1], want);
}

#[test]
fn topics_are_apart_and_keep_their_order() {
    let broker = shared();
    let (one, two) = (broker.topic("harness-order", 1), broker.topic("harness-order", 1));
    assert_ne!(one, two);
    let lines: Vec<_> = (0..10_000).map(|number| format!("line {number}")).collect();
    broker.produce(&one, lines.iter().map(String::as_str));
    assert_eq!(values(&broker.read_all(&one)), lines);
    assert!(broker.read_all(&two).is_empty());
    assert_eq!(broker.partition_count(&one), Some(1));
    assert_eq!(broker.partition_count("harness-no-such-topic"), None);
}

#[test]
fn keys_choose_partitions_as_java_clients_do() {
    let broker = shared();
    let topic = broker.topic("harness-murmur2", 4);
    // (murmur2(key) & 0x7fffffff) % 4, by Kafka's own `Utils.murmur2`.
    let want = [("21", 0), ("foobar", 2), ("a-little-bit-long-string", 0), ("abc", 3)];
    broker.produce(&topic, want.map(|(key, _)| Message::new(key).key(key)));
    let mut got: Vec<_> =
        broker.read_all(&topic).iter().map(|record| (record.text().to_string(), record.partition)).collect();
    got.sort();
    let mut want = want.map(|(key, partition)| (key.to_string(), partition));
    want.sort();
    assert_eq!(got, want);
}

#[test]
fn only_committed_records_are_read() {
    let broker = shared();
    let topic = broker.topic("harness-transactions", 1);
    broker.transaction(&topic, ["a", "b"], Ending::Commit);
    broker.transaction(&topic, ["never"], Ending::Abort);
    broker.transaction(&topic, ["c"], Ending::Commit);
    let open = broker.transaction(&topic, ["not yet"], Ending::Open);
    let records = broker.read_all(&topic);
    assert_eq!(values(&records), ["a", "b", "c"]);
    // Markers take offsets: a, b, marker, never, marker, c.
    assert_eq!(records[2].offset, 5);

    open.commit_transaction(Duration::from_secs(30)).unwrap();
    let records = broker.read_until(&topic, Duration::from_secs(30), |records| records.len() == 4);
    assert_eq!(values(&records), ["a", "b", "c", "not yet"]);
}

#[test]
fn a_compacted_topic_has_holes() {
    let broker = shared();
    let topic = broker.compacted_topic("harness-compacted", 1);
    broker.produce(&topic, ["a", "b", "a", "a", "c"].map(|key| Message::new(key).key(key)));
    broker.compact(&topic, "filler");
    let offsets: Vec<_> = broker.read_all(&topic).iter().map(|record| record.offset).collect();
    assert_eq!(offsets[..3], [1, 3, 4]);
}

#[test]
fn a_program_is_watched_to_its_end() {
    let script = "trap 'echo bye; exit 7' TERM; echo ready >&2; while :; do sleep 0.01; done";
    let running = Running::start(Command::new("sh").args(["-c", script]));
    running.wait_for("ready", Duration::from_secs(10));
    assert_ne!(running.id(), std::process::id());
    running.signal("TERM");
    let finished = running.finish(Duration::from_secs(10));
    assert_eq!((finished.code, &*finished.stdout, &*finished.stderr), (7, "bye\n", "ready\n"));
}

#[test]
fn kcat_reads_what_was_sent() {
    let broker = shared();
    let topic = broker.topic("harness-kcat", 1);
    broker.produce(&topic, ["one", "two"]);
    assert_eq!(broker.kcat(&["-C", "-q", "-e", "-o", "beginning", "-t", &topic]), "one\ntwo\n");
    assert!(broker.kcat(&["-L", "-t", &topic]).contains(broker.addresses()));
}

#[test]
fn the_flights_are_all_there() {
    assert_eq!(flights::all().len(), flights::COUNT);
    let january: Vec<_> =
        flights::all().iter().filter(|flight| flight.line.starts_with("{\"scheduled\":\"2013-01")).collect();
    assert_eq!(january.len(), flights::JANUARY_COUNT);
    assert!(january.iter().zip(flights::january()).all(|(one, other)| one.line == other.line));

    // The file is out of order by less than a day, as its description says.
    let day_ms = 24 * 60 * 60 * 1000;
    let mut latest_ms = i64::MIN;
    for flight in flights::all() {
        latest_ms = latest_ms.max(flight.scheduled_ms);
        assert!(latest_ms - flight.scheduled_ms < day_ms, "{}", flight.line);
    }
}

#[test]
fn flights_travel_through_a_topic() {
    let broker = shared();
    let topic = broker.topic("harness-flights", 4);
    broker.produce(&topic, flights::messages(flights::january()));
    let records = broker.read_all(&topic);
    assert!(records.iter().all(|record| record.json()["tailnum"].as_str().map(str::as_bytes) == record.key.as_deref()));
    let mut got = values(&records);
    let mut want: Vec<_> = flights::january().iter().map(|flight| flight.line.as_str()).collect();
    got.sort_unstable();
    want.sort_unstable();
    assert_eq!(got, want);
    assert!((0..4).all(|partition| records.iter().any(|record| record.partition == partition)));
}

#[test]
fn a_broker_of_ones_own_goes_away_and_comes_back() {
    let mut broker = Broker::start_own();
    let topic = broker.topic("harness-outage", 1);
    broker.produce(&topic, ["before"]);
    broker.kill();
    broker.start();
    broker.produce(&topic, ["after a crash"]);
    broker.stop();
    broker.start();
    broker.pause();
    let client: BaseConsumer = broker.client().create().unwrap();
    assert!(client.fetch_metadata(None, Duration::from_millis(500)).is_err(), "a frozen broker does not answer");
    broker.resume();
    broker.produce(&topic, ["after a pause"]);
    assert_eq!(values(&broker.read_all(&topic)), ["before", "after a crash", "after a pause"]);
}
