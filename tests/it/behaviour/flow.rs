//! What flows through: sums that add up, state and memory that stay small, rows that come at once.

use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::{Offset, TopicPartitionList};
use tidemill::runtime::Job;

use super::{
    BOUNDED, EARLIEST, PATIENCE, at, by_window, counts, engine, expected, finished, input, output, script, start,
};
use crate::common::broker::{shared, unique_name};
use crate::common::program::Running;
use crate::common::records::Message;

#[test]
fn several_topics_are_one_table() {
    let broker = shared();
    let prefix = unique_name("behaviour-several");
    let topics = [broker.topic(&prefix, 1), broker.topic(&prefix, 3)];
    broker.produce(&topics[0], (0..100).map(|n| at(0, n * 100)));
    broker.produce(&topics[1], (0..200).map(|n| at(n % 3, i64::from(n) * 50)));
    let want = expected((0..100).map(|n| n * 100).chain((0..200).map(|n| n * 50)), 2);
    let pattern = format!("'topic-pattern' = '{prefix}.*'");
    let list = format!("'topic' = '{}'", topics.join("; "));
    for named in [pattern, list] {
        let out = unique_name("behaviour-several-out");
        let table = input("i", "", BOUNDED).replace("'topic' = ''", &named);
        let job = start(&engine(broker), &(table + &output("o", &out) + &counts("i", "o", 2)));
        assert_eq!(finished(&job).records_in, 300);
        assert_eq!(by_window(&broker.read_all(&out)), want, "{named}");
    }
}

#[test]
fn every_record_is_accounted_for() {
    let broker = shared();
    let topic = broker.topic("behaviour-conservation", 3);
    // Disorder: each seventh record is late, the more so the later it comes; each eleventh is bad.
    let record = |n: i64| {
        let ts = if n % 7 == 0 { n * 8 } else { n * 10 };
        let partition = i32::try_from(n % 3).expect("small");
        match n % 11 {
            0 => Message::new("bad").partition(partition),
            1 => Message::tombstone().partition(partition),
            _ => at(partition, ts),
        }
    };
    broker.produce(&topic, (0..6_000).map(record));
    let mut results = Vec::new();
    for workers in ["1", "2", "3"] {
        let (all, some) = (unique_name("behaviour-all"), unique_name("behaviour-some"));
        let insert = |into: &str, condition: &str| {
            format!(
                "INSERT INTO {into} SELECT window_start, count(*) FROM TUMBLE(i, ts, INTERVAL '1' SECOND) {condition} GROUP \
                 BY window_start, window_end;\n"
            )
        };
        let text = format!("SET 'parallelism.default' = '{workers}';\n")
            + &input("i", &topic, &format!("{BOUNDED}, 'scan.on-error' = 'skip'"))
            + &output("a", &all)
            + &output("b", &some)
            + "EXECUTE STATEMENT SET BEGIN\n"
            + &insert("a", "")
            + &insert("b", "WHERE n % 3 = 0")
            + "END;";
        let info = finished(&start(&engine(broker), &text));
        let rows = [&all, &some].map(|topic| by_window(&broker.read_all(topic)));
        let used: i64 = rows.iter().flat_map(|rows| rows.values()).sum();
        let read = i64::try_from(info.records_in - info.errors - info.tombstones).expect("few");
        let dropped = i64::try_from(info.filtered + info.late).expect("few");
        assert_eq!(info.records_in, 6_000);
        assert!(info.late > 0 && info.filtered > 0 && info.errors > 0 && info.tombstones > 0, "{info:?}");
        // Both statements see every row of their one source.
        assert_eq!(2 * read, used + dropped, "{info:?}");
        assert_eq!((info.lost_to_idleness, info.partly_late), (0, 0), "{info:?}");
        results.push((rows, info.late, info.filtered, info.rows_out));
    }
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "workers change the answer: {results:?}");
}

/// The greatest state that a job had, in windows and bytes, as far as it was seen.
pub fn greatest_state(job: &Job) -> (usize, usize) {
    let (mut windows, mut bytes) = (0, 0);
    while job.wait_for(Duration::from_millis(2)).is_none() {
        let info = job.info();
        windows = windows.max(info.open_windows);
        bytes = bytes.max(info.state_bytes);
    }
    finished(job);
    (windows, bytes)
}

#[test]
fn uneven_partitions_do_not_pile_up_state() {
    const RECORDS: i64 = 240_000;
    /// Of 10 s each.
    const WINDOWS: i64 = 2_000;
    const SPAN_MS: i64 = WINDOWS * 10_000;
    let broker = shared();
    let mut peaks = Vec::new();
    for shares in [[25, 25, 25, 25], [75, 25, 0, 0]] {
        let (topic, out) = (broker.topic("behaviour-skew", 4), unique_name("behaviour-skew-out"));
        let mut times = Vec::new();
        for (partition, share) in (0..).zip(shares) {
            let records = RECORDS * share / 100;
            let of_partition: Vec<i64> = (0..records).map(|n| n * SPAN_MS / records).collect();
            broker.produce(&topic, of_partition.iter().map(|ts| at(partition, *ts)));
            times.extend(of_partition);
        }
        let engine = engine(broker);
        let text = "SET 'sink.commit-interval' = '5 ms'; SET 'parallelism.default' = '2';".to_string()
            + &input("i", &topic, BOUNDED)
            + &output("o", &out)
            + &counts("i", "o", 10);
        let peak = greatest_state(&start(&engine, &text));
        assert_eq!(by_window(&broker.read_all(&out)), expected(times, 10), "{shares:?}");
        peaks.push(peak);
    }
    println!("windows and bytes, even and uneven: {peaks:?}");
    // A partition is read by the batch, and a batch of the small one covers an eighth of the time. Unless it were made to
    // wait, the small one would be through when the large one has come to a third: two thirds of the windows were open.
    assert!(peaks.iter().all(|(windows, _)| *windows < WINDOWS as usize / 2), "{peaks:?}");
}

#[test]
fn rows_are_visible_soon_after_the_watermark() {
    let broker = shared();
    let (topic, out) = (broker.topic("behaviour-latency", 1), broker.topic("behaviour-latency-out", 1));
    let engine = engine(broker);
    let text = "SET 'sink.commit-interval' = '50 ms';".to_string()
        + &input("i", &topic, EARLIEST)
        + &output("o", &out)
        + &counts("i", "o", 2);
    let job = start(&engine, &text);
    // A consumer that is connected before the first row comes: its start is not what is measured.
    let consumer: BaseConsumer = broker.client().set("group.id", unique_name("latency")).create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(&out, 0, Offset::Beginning).expect("an offset");
    consumer.assign(&assignment).expect("an assignment");
    let producer: BaseProducer = broker.client().set("linger.ms", "0").create().expect("a producer");
    let send = |ts: i64| {
        let value = format!(r#"{{"n":1,"ts":{ts}}}"#);
        let record = BaseRecord::<str, str>::to(&topic).partition(0).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    };
    let mut took = Vec::new();
    send(0);
    for n in 1..=9 {
        let begin = Instant::now();
        send(n * 2_000);
        while !matches!(consumer.poll(Duration::from_millis(1)), Some(Ok(_))) {
            producer.poll(Duration::ZERO);
            assert!(begin.elapsed() < PATIENCE, "row {n} does not come: {:?}", job.info());
        }
        took.push(begin.elapsed());
    }
    job.stop();
    finished(&job);
    took.sort_unstable();
    println!("{took:?}");
    // The half of them; others may have met a busy machine.
    assert!(took[took.len() / 2] < Duration::from_millis(300), "{took:?}");
}

/// The greatest resident memory of a bounded run, in bytes, as Linux counts it.
fn memory(topic: &str) -> u64 {
    let file = script(
        // Little is read ahead, so that it does not take a long topic to fill what may be filled.
        &(input("i", topic, &format!("{BOUNDED}, 'properties.queued.max.messages.kbytes' = '2048'"))
            + "CREATE TABLE o (k STRING, w TIMESTAMP(3), c BIGINT) WITH ('connector' = 'blackhole');\n"
            + "INSERT INTO o SELECT k, window_start, count(*) FROM TUMBLE(i, ts, INTERVAL '1' MINUTE) GROUP BY k, \
               window_start, window_end;\n"),
    );
    // GNU time is not everywhere: the shell waits beside /proc, which is there for as long as the program is not reaped.
    let program = env!("CARGO_BIN_EXE_tidemill");
    let mut command = Command::new(program);
    command.args(["-b", shared().addresses(), "run"]).arg(file.path());
    let running = Running::start(&mut command);
    let status = format!("/proc/{}/status", running.id());
    let mut peak = 0;
    let begin = Instant::now();
    // A process that has ended and was not waited for has no such line any more.
    while let Some(kilobytes) = std::fs::read_to_string(&status).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    }) {
        peak = peak.max(kilobytes * 1_024);
        assert!(begin.elapsed() < PATIENCE, "it still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = running.finish(PATIENCE);
    assert_eq!(ended.code, 0, "{ended:?}");
    peak
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads /proc")]
fn memory_does_not_grow_with_the_topic() {
    let thousands: i64 = std::env::var("TIDEMILL_MEMORY_THOUSANDS").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let broker = shared();
    let peaks = [thousands, 3 * thousands].map(|thousands| {
        let topic = broker.topic("behaviour-memory", 4);
        let padding = "x".repeat(60);
        let record = |n: i64| {
            let text = format!(r#"{{"k":"key {}","n":{n},"ts":{},"padding":"{padding}"}}"#, n % 1_000, n * 10);
            Message::new(text).partition(i32::try_from(n % 4).expect("small"))
        };
        broker.produce(&topic, (0..thousands * 1_000).map(record));
        memory(&topic)
    });
    println!("peak memory: {} MB, {} MB", peaks[0] >> 20, peaks[1] >> 20);
    assert!(peaks[1] < peaks[0] + peaks[0] / 4 + (32 << 20), "{peaks:?}");
}

#[test]
fn state_is_that_of_open_windows_for_windows_of_every_kind() {
    /// A record in every ten milliseconds of event time; several batches of each partition.
    const RECORDS: i64 = 60_000;
    /// Windows in the longer topic, of whichever kind there are fewest; every record is a session.
    const WINDOWS: usize = 10 * RECORDS as usize * 10 / 5_000;
    const SESSIONS: usize = 10 * RECORDS as usize;
    let window = |call: &str| format!("FROM {call} GROUP BY window_start, window_end, k");
    let hop = "HOP(i, ts, INTERVAL '2' SECOND, INTERVAL '20' SECOND)";
    let tumble = "TUMBLE(i, ts, INTERVAL '5' SECOND)";
    let join = format!(
        "SELECT a.window_start, a.n FROM {tumble} a LEFT ANTI JOIN {tumble} b
         ON a.window_start = b.window_start AND a.window_end = b.window_end AND a.n = b.n + 10"
    );
    let top = format!(
        "SELECT window_start, n FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, k ORDER BY n DESC)
         AS place FROM {tumble}) WHERE place = 1"
    );
    let queries = [
        (WINDOWS, format!("SELECT window_start, count(DISTINCT n) {}", window(hop))),
        (
            WINDOWS,
            format!(
                "SELECT window_end, count(*) {}",
                window("CUMULATE(i, ts, INTERVAL '2' SECOND, INTERVAL '20' SECOND)")
            ),
        ),
        (
            SESSIONS,
            format!(
                "SELECT window_start, count(*) {}",
                window("SESSION(TABLE i PARTITION BY k, DESCRIPTOR(ts), INTERVAL '0.060' SECOND)")
            ),
        ),
        (WINDOWS, format!("SELECT window_start, count(*) {} EMIT ON UPDATE", window(tumble))),
        (WINDOWS, join),
        (WINDOWS, top),
    ];
    let broker = shared();
    let topics = [1, 10].map(|times| {
        let topic = broker.topic("behaviour-state", 2);
        broker.produce(&topic, (0..times * RECORDS).map(|n| at(i32::from(n % 2 == 1), n * 10)));
        topic
    });
    for (windows, query) in queries {
        let peak = |topic: &str| {
            let text = "SET 'sink.commit-interval' = '5 ms'; SET 'parallelism.default' = '2';".to_string()
                + &input("i", topic, &format!("{BOUNDED}, 'scan.watermark.alignment.max-drift' = '1 s'"))
                + "CREATE TABLE o (w TIMESTAMP(3), c BIGINT) WITH ('connector' = 'blackhole');"
                + &format!("INSERT INTO o {query};");
            greatest_state(&start(&engine(broker), &text))
        };
        // What has closed does not count, but what is read between two boundaries does, and on a busy machine that may be
        // much: once in some runs it is little. On an idle one the shorter topic may be over before anybody has looked.
        let mut seen = Vec::new();
        let is_small = (0..5).any(|_| {
            let [short, long] = topics.each_ref().map(|topic| peak(topic));
            seen.push((short, long));
            long.0 < windows / 4 && long.1 < 3 * short.1 + (1 << 20) + 128 * windows
        });
        println!("windows and bytes, of a topic and of one ten times as long: {seen:?}\n    {query}");
        assert!(is_small, "{seen:?} {query}");
    }
}
