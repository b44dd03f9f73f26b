//! A job under test, what is sent to it, and what must have become of it in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};

use super::feed::Feed;
use super::follower::Follower;
use super::{PATIENCE, until};
use crate::common::broker::{Broker, REQUEST_TIMEOUT, unique_name};
use crate::common::oracle::assert_same_rows;
use crate::common::program::{Running, start_tidemill_with, tidemill};
use crate::common::records::Record;

/// The queries with windows: their names, what they select, and from where.
const WINDOWED: [(&str, &str); 3] = [
    (
        "tumble",
        "SELECT window_start, k, COUNT(*), SUM(n), MAX(n) FROM TUMBLE(TABLE good, DESCRIPTOR(ts), INTERVAL '1' SECOND)
         GROUP BY window_start, window_end, k",
    ),
    (
        "hop",
        "SELECT window_start, k, COUNT(*), SUM(n), MAX(n)
         FROM HOP(TABLE good, DESCRIPTOR(ts), INTERVAL '0.5' SECOND, INTERVAL '2' SECOND)
         GROUP BY window_start, window_end, k",
    ),
    (
        "session",
        "SELECT window_start, k, COUNT(*), SUM(n), MAX(n)
         FROM SESSION(TABLE good PARTITION BY k, DESCRIPTOR(ts), INTERVAL '0.3' SECOND)
         GROUP BY window_start, window_end, k",
    ),
];

/// The one without: rows go through as they come.
const PLAIN: &str = "plain";

/// See the module's head.
pub struct Trial {
    /// Where the job finds the broker.
    pub brokers: String,
    pub name: String,
    pub topic: String,
    pub follower: Follower,
    outs: BTreeMap<&'static str, String>,
    late: String,
    dead: String,
    /// More options of all tables.
    pub options: String,
    pub commit_interval_ms: u64,
    pub checkpoint_interval_ms: u64,
}

impl Trial {
    /// Topics for a job with this number of source partitions, and what is to be sent to it.
    pub fn new(broker: &Broker, hint: &str, partitions: i32, seed: u64) -> (Self, Feed) {
        let name = unique_name(hint);
        let large = [("max.message.bytes", "12000000")];
        let topic = broker.topic_with(hint, partitions, &large);
        let sinks = WINDOWED.map(|(sink, _)| sink).into_iter().chain([PLAIN]);
        let outs: BTreeMap<_, _> = sinks.map(|sink| (sink, broker.topic(&format!("{hint}-{sink}"), 2))).collect();
        let late = broker.topic(&format!("{hint}-late"), 1);
        let dead = broker.topic_with(&format!("{hint}-dead"), 1, &large);
        let mut followed: Vec<(String, i32)> = outs.values().map(|out| (out.clone(), 2)).collect();
        followed.extend([(late.clone(), 1), (dead.clone(), 1)]);
        let follower = Follower::start(&broker.client(), &followed, &format!("tidemill-progress-{name}"));
        let feed = Feed::new(&broker.client(), &topic, partitions, seed);
        let brokers = broker.addresses().to_owned();
        let (options, commit_interval_ms, checkpoint_interval_ms) = (String::new(), 50, 700);
        let trial = Self {
            brokers,
            name,
            topic,
            follower,
            outs,
            late,
            dead,
            options,
            commit_interval_ms,
            checkpoint_interval_ms,
        };
        (trial, feed)
    }

    fn source(&self, on_error: &str) -> String {
        let Self { topic, options, .. } = self;
        format!(
            "CREATE TABLE i (p INT, seq BIGINT, k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL \
             '0.5' SECOND) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', 'scan.startup.mode' = \
             'earliest-offset', 'scan.watermark.idle-timeout' = '0 s', 'scan.topic-partition-discovery.interval' = '1 s', \
             {on_error}{options});\nCREATE VIEW good AS SELECT * FROM i WHERE k <> 'end';\n"
        )
    }

    /// The job, as a file.
    pub fn text(&self, workers: usize) -> String {
        let Self { name, outs, late, dead, options, commit_interval_ms, checkpoint_interval_ms, .. } = self;
        let on_error = format!(
            "'scan.late.topic' = '{late}', 'scan.on-error' = 'dead-letter', 'scan.dead-letter.topic' = '{dead}'"
        );
        let mut text = self.source(&on_error);
        for (sink, topic) in outs {
            let columns = match *sink {
                PLAIN => "p INT, seq BIGINT, k STRING, n BIGINT",
                _ => "w TIMESTAMP(3), k STRING, c BIGINT, s BIGINT, m BIGINT",
            };
            text += &format!(
                "CREATE TABLE {sink} ({columns}) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', \
                 'sink.delivery-guarantee' = 'exactly-once'{options});\n"
            );
        }
        text += &format!(
            "SET 'pipeline.name' = '{name}'; SET 'parallelism.default' = '{workers}';
             SET 'sink.commit-interval' = '{commit_interval_ms} ms';
             SET 'execution.checkpointing.interval' = '{checkpoint_interval_ms} ms';\nBEGIN STATEMENT SET;\n"
        );
        for (sink, query) in WINDOWED {
            text += &format!("INSERT INTO {sink} {query};\n");
        }
        text + "INSERT INTO plain SELECT p, seq, k, n FROM good;\nEND;\n"
    }

    pub fn start(&self, workers: usize) -> Running {
        self.start_with(workers, &[])
    }

    /// Starts the job as a process with variables in its environment.
    pub fn start_with(&self, workers: usize, variables: &[(&str, &str)]) -> Running {
        let text = self.text(workers);
        start_tidemill_with(variables, &["-b", &self.brokers, "-c", &text])
    }

    /// Waits until a boundary has been committed from now on; answers how long that took.
    pub fn goes_on(&self, what: &str, wait: Duration, job: &mut Running) -> Duration {
        let now = Instant::now();
        until(what, wait, || {
            assert!(job.is_running(), "{what}: the job has ended: {}", job.said());
            self.follower.boundary_after(now).is_some()
        })
    }

    /// Closes all windows, waits until all rows are outside, stops the job, and looks at everything. Answers how many
    /// rows were compared.
    pub fn check(&self, broker: &Broker, mut feed: Feed, mut job: Running) -> usize {
        feed.end();
        let records = broker.read_all(&self.topic);
        assert_eq!(records.len(), feed.sent(), "records in {}", self.topic);
        let answers = self.batch(broker);
        let mut wanted: BTreeMap<&str, usize> = answers.iter().map(|(sink, rows)| (*sink, rows.len())).collect();
        let of = |kind: &str| records.iter().filter(|record| record.key.as_deref() == Some(kind.as_bytes())).count();
        wanted.insert(PLAIN, of("good"));
        let missing = || {
            let counts = wanted.iter().map(|(sink, rows)| (*sink, self.follower.count(&self.outs[sink]), *rows));
            let dead = ("dead", self.follower.count(&self.dead), of("bad"));
            counts.chain([dead]).filter(|(_, count, rows)| count < rows).collect::<Vec<_>>()
        };
        let start = Instant::now();
        while !missing().is_empty() {
            assert!(job.is_running(), "the job has ended: {}", job.said());
            assert!(start.elapsed() < PATIENCE, "of rows, found and wanted: {:?}; {}", missing(), job.said());
            std::thread::sleep(Duration::from_millis(50));
        }
        job.signal("TERM");
        let ended = job.finish(PATIENCE);
        assert_eq!(ended.code, 143, "{ended:?}");
        self.check_topics(broker, &records, &answers)
    }

    /// Looks at everything that is outside, when the job has stopped.
    fn check_topics(&self, broker: &Broker, records: &[Record], answers: &BTreeMap<&str, Vec<Value>>) -> usize {
        let late = self.late_records(broker);
        let dead = self.check_dead(broker, records);
        let kind = |record: &&Record, kind: &str| record.key.as_deref() == Some(kind.as_bytes());
        let good: Vec<Value> = records.iter().filter(|r| kind(r, "good")).map(Record::json).collect();
        let mut compared = dead + late.len();
        for (sink, want) in answers {
            let got: Vec<Value> = broker.read_all(&self.outs[sink]).iter().map(Record::json).collect();
            assert_same_rows(&got, want, sink);
            compared += got.len();
            // The rows, the late records and the bad ones are all that was sent.
            if *sink == "tumble" || *sink == "session" {
                let in_windows: u64 = got.iter().map(|row| row["c"].as_u64().expect("a count")).sum();
                let turned_away = late.iter().filter(|(of, _)| of == sink).count() as u64;
                let others = records.iter().filter(|r| kind(r, "end") || kind(r, "none")).count() as u64;
                let sum = in_windows + turned_away + dead as u64 + others;
                assert_eq!(
                    sum,
                    records.len() as u64,
                    "{sink}: {in_windows} in windows, {turned_away} late, {dead} bad"
                );
                let sum =
                    |rows: &[Value], of: &str| rows.iter().map(|row| row[of].as_i64().expect("a number")).sum::<i64>();
                let late_sum: i64 =
                    late.iter().filter(|(of, _)| of == sink).map(|(_, row)| row["n"].as_i64().expect("n")).sum();
                assert_eq!(sum(&got, "s") + late_sum, sum(&good, "n"), "{sink}: the sum of n");
            }
        }
        let plain: Vec<Value> = broker.read_all(&self.outs[PLAIN]).iter().map(Record::json).collect();
        let through: Vec<Value> =
            good.iter().map(|r| json!({"p": r["p"], "seq": r["seq"], "k": r["k"], "n": r["n"]})).collect();
        assert_same_rows(&plain, &through, PLAIN);
        self.check_follower(broker);
        self.check_progress();
        self.check_no_open_transaction(broker);
        compared + plain.len()
    }

    /// The rows of the batch over the same topic.
    fn batch(&self, broker: &Broker) -> BTreeMap<&'static str, Vec<Value>> {
        let mut text =
            "SET 'execution.runtime-mode' = 'batch';\n".to_owned() + &self.source("'scan.on-error' = 'skip'");
        for (sink, query) in WINDOWED {
            text += &format!("{};\n", query.replacen("SELECT ", &format!("SELECT '{sink}', "), 1));
        }
        let ended = tidemill(&["-q", "-b", broker.addresses(), "-o", "jsonl", "-c", &text]);
        assert_eq!(ended.code, 0, "{ended:?}");
        let mut answers: BTreeMap<&'static str, Vec<Value>> = WINDOWED.map(|(sink, _)| (sink, Vec::new())).into();
        for line in ended.stdout.lines() {
            let row: Value = serde_json::from_str(line).expect("a line of JSON");
            let mut cells = row.as_object().expect("a row").iter();
            let sink = cells.next().expect("the first column").1.as_str().expect("the query's name");
            let row = cells.map(|(name, value)| (name.clone(), value.clone())).collect();
            answers.get_mut(sink).expect("a query").push(Value::Object(row));
        }
        assert!(answers.values().all(|rows| !rows.is_empty()), "{ended:?}");
        answers
    }

    /// The records that were late for all of their windows, and for which sink; none is told twice.
    fn late_records(&self, broker: &Broker) -> Vec<(String, Value)> {
        let (mut places, mut late) = (BTreeSet::new(), Vec::new());
        for record in broker.read_all(&self.late) {
            let [sink, partition, offset] =
                ["sink", "partition", "offset"].map(|name| header(&record, name).expect(name));
            let place = format!("{sink}/{partition}/{offset}");
            assert!(places.insert(place.clone()), "{place} is in the late topic twice");
            if header(&record, "partly").is_none() {
                late.push((sink, record.json()));
            }
        }
        assert!(!late.is_empty(), "nothing was late");
        late
    }

    /// All records that are none, each once, with all that there is to tell. Answers how many.
    fn check_dead(&self, broker: &Broker, records: &[Record]) -> usize {
        let mut wanted: BTreeMap<(String, String), &Record> = BTreeMap::new();
        for record in records.iter().filter(|record| record.key.as_deref() == Some(b"bad")) {
            wanted.insert((record.partition.to_string(), record.offset.to_string()), record);
        }
        let count = wanted.len();
        for letter in broker.read_all(&self.dead) {
            let [topic, partition, offset, reason] =
                ["topic", "partition", "offset", "reason"].map(|name| header(&letter, name).expect(name));
            assert!(topic == self.topic && !reason.is_empty(), "{:?}", letter.headers);
            let place = (partition, offset);
            let record = wanted.remove(&place).unwrap_or_else(|| panic!("{place:?} is no bad record, or there twice"));
            assert_eq!((&letter.key, &letter.value), (&record.key, &record.value), "{place:?}");
        }
        assert!(wanted.is_empty(), "bad records without a letter: {:?}", wanted.keys());
        count
    }

    /// Who read along has read what is there in the end, and each record once.
    fn check_follower(&self, broker: &Broker) {
        let topics: Vec<&String> = self.outs.values().chain([&self.late, &self.dead]).collect();
        let mut there = BTreeMap::new();
        for topic in topics {
            let places = broker.read_all(topic).into_iter().map(|r| ((topic.clone(), r.partition, r.offset), 1));
            there.extend(places);
        }
        let start = Instant::now();
        while self.follower.places().len() < there.len() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        let places = self.follower.places();
        let differ = places.iter().find(|(place, count)| there.get(*place) != Some(count));
        assert_eq!(differ, None, "who read along has read a record that is not there, or twice");
        assert_eq!(places.len(), there.len(), "records that were read along, and that are there");
    }

    /// The numbers of the job's progress follow one another.
    fn check_progress(&self) {
        let progress = self.follower.progress();
        assert!(!progress.is_empty());
        for pair in progress.windows(2) {
            let [before, next] = pair else { unreachable!("windows of two") };
            let (sequences, incarnations) = match next.kind.as_str() {
                "boundary" => (before.sequence + 1, before.incarnation),
                _ => (before.sequence, before.incarnation + 1),
            };
            // What a checkpoint has made superfluous may be gone before it was read; at least two offsets with each.
            let skipped = u64::try_from(next.offset - before.offset).expect("rising") / 2;
            let follows = (next.sequence, next.incarnation) == (sequences, incarnations)
                || (before.sequence <= next.sequence && next.sequence - before.sequence < skipped);
            assert!(follows, "{before:?} is followed by {next:?}");
        }
    }

    /// Everything that is in the topics can be read.
    fn check_no_open_transaction(&self, broker: &Broker) {
        let log = format!("tidemill-progress-{}", self.name);
        let [committed, all] = ["read_committed", "read_uncommitted"].map(|level| -> BaseConsumer {
            let mut config = broker.client();
            config.set("group.id", "nobody").set("isolation.level", level);
            config.create().expect("a consumer")
        });
        for topic in self.outs.values().chain([&self.late, &self.dead, &log]) {
            for partition in 0..broker.partition_count(topic).expect("a topic") {
                let end = |consumer: &BaseConsumer| {
                    consumer.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).expect("Kafka answers").1
                };
                assert_eq!(end(&committed), end(&all), "{topic}/{partition}: a transaction is open");
            }
        }
    }

    /// How long the job took to go on after each of these moments, if it did before the next one.
    pub fn recoveries(&self, moments: &[Instant]) -> Vec<Duration> {
        let ends = moments.iter().skip(1).copied().map(Some).chain([None]);
        let took = |(from, end): (&Instant, Option<Instant>)| {
            let first = self.follower.boundary_after(*from)?;
            end.is_none_or(|end| first < end).then(|| first - *from)
        };
        moments.iter().zip(ends).filter_map(took).collect()
    }

    /// A topic that the job writes to.
    pub fn out(&self, sink: &str) -> &str {
        &self.outs[sink]
    }
}

/// What a header of ours says.
fn header(record: &Record, name: &str) -> Option<String> {
    let found = record.headers.iter().find(|(n, _)| n.strip_prefix("tidemill.") == Some(name))?;
    Some(String::from_utf8(found.1.clone().expect("a value")).expect("UTF-8"))
}
