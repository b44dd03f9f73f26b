//! Several topics, and several partitions that appear, run ahead or begin while a job runs.

use std::thread::sleep;
use std::time::Duration;

use super::{
    BOUNDED, EARLIEST, PATIENCE, at, by_window, counts, engine, expected, finished, input, output, start, until_job,
};
use crate::common::broker::{shared, unique_name};
use crate::common::records::Message;

/// Looks for partitions so often that no test waits for it, and takes no partition for idle.
const NOTICING: &str = "'scan.topic-partition-discovery.interval' = '50 ms', 'scan.watermark.idle-timeout' = '1 h'";

/// A table of all topics whose names begin so.
fn pattern(name: &str, prefix: &str, options: &str) -> String {
    input(name, "", options).replace("'topic' = ''", &format!("'topic-pattern' = '{prefix}.*'"))
}

#[test]
fn new_topics_and_partitions_are_noticed() {
    let broker = shared();
    for workers in [1, 3] {
        let (prefix, out) = (unique_name("behaviour-new"), unique_name("behaviour-new-out"));
        let first = broker.topic(&prefix, 1);
        broker.produce(&first, [at(0, 0), at(0, 9_999)]);
        let engine = engine(broker);
        let text = format!("SET 'parallelism.default' = '{workers}'; SET 'sink.commit-interval' = '20 ms';")
            + &pattern("i", &prefix, &format!("'scan.startup.mode' = 'earliest-offset', {NOTICING}"))
            + &output("o", &out)
            + &counts("i", "o", 10);
        let job = start(&engine, &text);
        let rows = broker.read_until(&out, PATIENCE, |rows| rows.len() == 1);
        assert_eq!(by_window(&rows), [(0, 2)].into());

        // More of a topic that is being read, and another topic; what came before they are noticed counts as well.
        broker.grow(&first, 3);
        let second = broker.topic(&prefix, 2);
        let times = |partition: i32| (0..100).map(move |n| (partition, 10_000 + n * 100));
        broker.produce(&first, (1..3).flat_map(times).map(|(p, ts)| at(p, ts)));
        broker.produce(&second, (0..2).flat_map(times).map(|(p, ts)| at(p, ts)));
        until_job(&job, "the new partitions' records", |info| info.records_in == 402);
        // From now on they hold back what they have not come to.
        broker.produce(&first, [at(0, 50_000)]);
        until_job(&job, "a record of the old partition", |info| info.records_in == 403 && info.open_windows == 2);
        sleep(Duration::from_millis(200));
        assert_eq!((job.info().rows_out, job.info().open_windows), (1, 2), "{:?}", job.info());
        broker.produce(&first, (1..3).map(|p| at(p, 50_000)));
        broker.produce(&second, (0..2).map(|p| at(p, 50_000)));
        let rows = broker.read_until(&out, PATIENCE, |rows| rows.len() == 2);
        assert_eq!(by_window(&rows), [(0, 2), (10, 400)].into());
        job.stop();
        let info = finished(&job);
        assert_eq!((info.records_in, info.late, info.lost_to_idleness), (407, 0, 0), "{info:?}");
    }
}

#[test]
fn new_partitions_are_read_from_their_beginning() {
    let broker = shared();
    let (topic, out) = (broker.topic("behaviour-grown", 2), unique_name("behaviour-grown-out"));
    broker.produce(&topic, [at(0, 0), at(1, 1)]);
    let group = unique_name("behaviour-grown-group");
    let options = format!("'scan.startup.mode' = 'latest-offset', 'properties.group.id' = '{group}', {NOTICING}");
    let text = "CREATE TABLE o (n BIGINT) WITH ('connector' = 'kafka', 'topic' = '".to_owned()
        + &out
        + "', 'format' = 'json', 'sink.delivery-guarantee' = 'at-least-once');"
        + &input("i", &topic, &options)
        + "INSERT INTO o SELECT n FROM i;";
    let engine = engine(broker);
    let job = start(&engine, &text);
    until_job(&job, "a boundary", |info| info.elapsed_ms > 500);
    broker.grow(&topic, 4);
    broker.produce(&topic, (0..4).map(|p| at(p, 100 + i64::from(p))));
    let rows = broker.read_until(&out, PATIENCE, |rows| rows.len() >= 4);
    let mut numbers: Vec<_> = rows.iter().map(|row| row.json()["n"].as_i64().expect("a number")).collect();
    numbers.sort_unstable();
    // The two records that had been there are not among them.
    assert_eq!(numbers, [100, 101, 102, 103]);
    job.stop();
    assert_eq!(finished(&job).records_in, 4);
    // A job that goes on has committed for those as well.
    let goes_on =
        input("i", &topic, &format!("'properties.group.id' = '{group}', 'scan.bounded.mode' = 'latest-offset'"));
    broker.produce(&topic, [at(3, 200)]);
    let sink = "CREATE TABLE b (n BIGINT) WITH ('connector' = 'blackhole');";
    let job = start(&super::engine(broker), &(goes_on + sink + "INSERT INTO b SELECT n FROM i;"));
    assert_eq!(finished(&job).records_in, 1);
}

#[test]
fn a_backlog_may_be_loaded_while_a_job_runs() {
    let broker = shared();
    let (topic, out) = (broker.topic("behaviour-backlog", 3), unique_name("behaviour-backlog-out"));
    let engine = engine(broker);
    let text = "SET 'sink.commit-interval' = '10 ms'; SET 'parallelism.default' = '2';".to_owned()
        + &input("i", &topic, &format!("{EARLIEST}, 'scan.watermark.idle-timeout' = '4 s'"))
        + &output("o", &out)
        + &counts("i", "o", 10);
    let job = start(&engine, &text);
    until_job(&job, "a boundary", |info| info.elapsed_ms > 500);
    // One partition after the other, and one of them never.
    let times = || (0..1_000).map(|n| n * 100);
    for partition in 0..2 {
        broker.produce(&topic, times().map(|ts| at(partition, ts)));
        sleep(Duration::from_millis(500));
    }
    let rows = broker.read_until(&out, PATIENCE, |rows| rows.len() == 9);
    let mut want = expected(times().chain(times()), 10);
    want.remove(&90);
    assert_eq!(by_window(&rows), want);
    job.stop();
    let info = finished(&job);
    assert_eq!((info.records_in, info.late, info.lost_to_idleness), (2_000, 0, 0), "{info:?}");
}

/// The greatest number of open windows that a bounded union of a large and a small topic had, and its rows.
fn peak_of_union(topics: &[String; 2], options: &str) -> usize {
    let broker = shared();
    let out = unique_name("behaviour-aligned-out");
    let text = "SET 'sink.commit-interval' = '5 ms'; SET 'parallelism.default' = '2';".to_owned()
        + &input("a", &topics[0], &format!("{BOUNDED}{options}"))
        + &input("b", &topics[1], &format!("{BOUNDED}{options}"))
        + &output("o", &out)
        + &counts("(SELECT ts FROM a UNION ALL SELECT ts FROM b)", "o", 10);
    let (windows, _) = super::flow::greatest_state(&start(&engine(broker), &text));
    let times = [150_000, 50_000].map(|records| (0..records).map(move |n| n * SPAN_MS / records));
    assert_eq!(by_window(&broker.read_all(&out)), expected(times.into_iter().flatten(), 10), "{options}");
    windows
}

const SPAN_MS: i64 = 20_000_000;

#[test]
fn tables_of_a_group_are_kept_together() {
    let broker = shared();
    let topics = [150_000_i64, 50_000].map(|records| {
        let topic = broker.topic("behaviour-aligned", 1);
        broker.produce(&topic, (0..records).map(|n| at(0, n * SPAN_MS / records)));
        topic
    });
    let [drift, group] = ["max-drift' = '10 s", "group' = 'g"].map(|o| format!(", 'scan.watermark.alignment.{o}'"));
    let alone = peak_of_union(&topics, &drift);
    let loose = peak_of_union(&topics, &format!("{group}, 'scan.watermark.alignment.max-drift' = '7 d'"));
    let together = peak_of_union(&topics, &(drift + &group));
    println!("open windows: {together} together, {alone} without a group, {loose} with a large drift");
    // Of 2,000 windows, those of the batch that the small one is ahead by are a sixth; and two intervals' rows come on top.
    assert!(together < 1_000 && together < alone && together < loose, "{together} against {alone} and {loose}");
}

#[test]
fn a_group_waits_for_nobody_who_has_nothing() {
    let broker = shared();
    let topics = ["full", "empty", "timeless"].map(|hint| broker.topic(&format!("behaviour-group-{hint}"), 2));
    broker.produce(&topics[0], (0..20_000).map(|n| at(0, n * 1_000)));
    broker.produce(&topics[2], (0..10).map(|n| Message::new(format!(r#"{{"n":{n}}}"#)).partition(n % 2)));
    let options = format!(
        "{EARLIEST}, 'scan.watermark.alignment.group' = 'g', 'scan.watermark.alignment.max-drift' = '0 s', \
         'scan.watermark.alignment.update-interval' = '1 s'"
    );
    let timeless = input("c", &topics[2], &options).replace(", WATERMARK FOR ts AS ts", "");
    let text = input("a", &topics[0], &options)
        + &input("b", &topics[1], &options)
        + &timeless
        + "CREATE TABLE o (n BIGINT) WITH ('connector' = 'blackhole');
           INSERT INTO o SELECT n FROM a UNION ALL SELECT n FROM b UNION ALL SELECT n FROM c;";
    let engine = engine(broker);
    let job = start(&engine, &text);
    until_job(&job, "all records", |info| info.records_in == 20_010);
    // Also one that begins late, and far behind.
    broker.produce(&topics[1], [at(0, 0), at(1, 5)]);
    broker.produce(&topics[0], (0..1_000).map(|n| at(1, n)));
    until_job(&job, "what came later", |info| info.records_in == 21_012);
    job.stop();
    finished(&job);
}
