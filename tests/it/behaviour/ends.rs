//! Ctrl-C, SIGTERM and STOP JOB: what was read and has fired is written.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::{
    EARLIEST, PATIENCE, at, by_window, counts, engine, execute, expected, finished, input, output, script, start,
};
use crate::common::broker::{Broker, REQUEST_TIMEOUT, shared, unique_name};
use crate::common::program::start_tidemill;

/// The event times of records so many milliseconds apart.
fn times(count: i64) -> impl Iterator<Item = i64> + Clone {
    (0..count).map(|n| n * 100)
}

/// What is on the output topic: the windows that `read` records close, and nothing else.
fn check_fired(broker: &Broker, out: &str, read: i64) {
    let watermark = (read - 1) * 100;
    let closed = expected(times(read), 2).into_iter().filter(|(start, _)| (start + 2) * 1_000 - 1 <= watermark);
    assert_eq!(by_window(&broker.read_all(out)), closed.collect(), "after {read} records");
}

/// How many records of partition 0 the group has done with.
fn committed(broker: &Broker, group: &str, topic: &str) -> i64 {
    let consumer: BaseConsumer = broker.client().set("group.id", group).create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let found = consumer.committed_offsets(list, REQUEST_TIMEOUT).expect("Kafka answers");
    match found.elements()[0].offset() {
        Offset::Offset(offset) => offset,
        other => panic!("nothing is committed: {other:?}"),
    }
}

fn a_signal_ends_a_job_cleanly(signal: &str, code: i32) {
    let broker = shared();
    let (topic, out) = (broker.topic("behaviour-signal", 1), broker.topic("behaviour-signal-out", 1));
    let group = unique_name("behaviour-signal");
    let options = format!("{EARLIEST}, 'properties.group.id' = '{group}'");
    // A boundary only now and then: most of what has been read waits for one when the signal comes.
    let file = script(
        &("SET 'sink.commit-interval' = '3 s';\n".to_string()
            + &input("i", &topic, &options)
            + &output("o", &out)
            + &counts("i", "o", 2)),
    );
    broker.produce(&topic, times(100).map(|ts| at(0, ts)));
    let program = start_tidemill(&["-b", broker.addresses(), "run", file.path().to_str().expect("UTF-8")]);
    broker.read_until(&out, PATIENCE, |rows| !rows.is_empty());
    broker.produce(&topic, times(50_000).skip(100).map(|ts| at(0, ts)));
    let begin = Instant::now();
    program.signal(signal);
    let ended = program.finish(PATIENCE);
    let took = begin.elapsed();
    assert_eq!(ended.code, code, "{ended:?}");
    assert!(took < Duration::from_secs(2), "{took:?}: {ended:?}");
    assert!(ended.stderr.contains("stopped"), "{ended:?}");
    let read = committed(broker, &group, &topic);
    assert!(100 <= read, "{read}");
    check_fired(broker, &out, read);
}

#[test]
fn ctrl_c_ends_a_job_cleanly() {
    a_signal_ends_a_job_cleanly("INT", 130);
}

#[test]
fn sigterm_ends_a_job_cleanly() {
    a_signal_ends_a_job_cleanly("TERM", 143);
}

#[test]
fn stop_job_ends_a_job_cleanly() {
    let broker = shared();
    let (topic, out) = (broker.topic("behaviour-stop", 1), unique_name("behaviour-stop-out"));
    let engine = engine(broker);
    let setup = "SET 'pipeline.name' = 'to stop'; SET 'parallelism.default' = '2';".to_string();
    let job = start(&engine, &(setup + &input("i", &topic, EARLIEST) + &output("o", &out) + &counts("i", "o", 2)));
    broker.produce(&topic, times(20_000).map(|ts| at(0, ts)));
    broker.read_until(&out, PATIENCE, |rows| !rows.is_empty());
    let begin = Instant::now();
    execute(&engine, "STOP JOB `to stop`").expect("it stops");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    let info = finished(&job);
    assert_eq!(info.status, "stopped");
    check_fired(broker, &out, i64::try_from(info.records_in).expect("few"));
    let again = execute(&engine, "STOP JOB `to stop`").err().expect("nothing to stop");
    assert!(again.message.contains("no job named to stop is running"), "{again}");
}
