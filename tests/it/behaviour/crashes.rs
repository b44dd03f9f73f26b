//! Jobs that are started again, as they were or changed: each row is outside once. What a kill at a bad moment does, and a
//! broker's death, is in `faults`.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use arrow::datatypes::DataType;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tidemill::runtime::Job;

use super::{BOUNDED, EARLIEST, PATIENCE, engine, execute, input, script, until, until_job};
use crate::common::broker::{Broker, shared, unique_name};
use crate::common::oracle::{Answer, Stream, TIME, Windows, assert_same_rows};
use crate::common::program::{Running, start_tidemill};
use crate::common::records::{Ending, Message, Record};

/// A partition is idle when nothing came for so long: longer than any that is written to waits in these tests.
const IDLE: &str = "'scan.watermark.idle-timeout' = '3 s'";

/// Two windowed queries over one topic, in one job.
pub struct Case<B = &'static Broker> {
    pub broker: B,
    pub name: String,
    topic: String,
    /// Of the tumbling windows, and of the sliding ones.
    pub outs: [String; 2],
    late: String,
    /// Options of the tables that are written to.
    pub options: &'static str,
}

/// When what a record tells of happened (ms).
fn time_of(number: i64) -> i64 {
    1_000_000 + number * 10
}

/// The record with a number, late by so many milliseconds.
fn numbered(number: i64, late: i64) -> Message {
    let (key, ts) = (number % 5, time_of(number) - late);
    Message::new(format!(r#"{{"k":"k{key}","n":{number},"ts":{ts}}}"#)).partition((number % 2) as i32)
}

impl Case {
    pub fn new(hint: &str) -> Self {
        Self::on(shared(), hint)
    }
}

impl<B: Borrow<Broker>> Case<B> {
    /// Of three partitions, the last stays empty.
    pub fn on(on: B, hint: &str) -> Self {
        let broker: &Broker = on.borrow();
        let outs = ["tumble", "hop"].map(|kind| broker.topic(&format!("{hint}-{kind}"), 2));
        let (topic, late) = (broker.topic(hint, 3), broker.topic(&format!("{hint}-late"), 1));
        Self { name: unique_name(hint), topic, outs, late, options: "", broker: on }
    }

    pub fn text(&self, workers: usize, mode: &str) -> String {
        let Self { name, topic, outs: [tumble, hop], late, options, .. } = self;
        let out = |table: &str, topic: &str| {
            format!(
                "CREATE TABLE {table} (w TIMESTAMP(3), k STRING, c BIGINT, s BIGINT) WITH ('connector' = 'kafka', 'topic' = \
                 '{topic}', 'format' = 'json', 'sink.delivery-guarantee' = 'exactly-once'{options});\n"
            )
        };
        let insert = |into: &str, windows: &str| {
            format!(
                "INSERT INTO {into} SELECT window_start, k, count(*), sum(n) FROM {windows} GROUP BY window_start, \
                 window_end, k;\n"
            )
        };
        input("i", topic, &format!("{mode}, {IDLE}, 'scan.late.topic' = '{late}'"))
            + &out("tumble", tumble)
            + &out("hop", hop)
            + &format!("SET 'pipeline.name' = '{name}'; SET 'parallelism.default' = '{workers}';\n")
            + "SET 'sink.commit-interval' = '30 ms'; SET 'execution.checkpointing.interval' = '150 ms'; BEGIN STATEMENT SET;\n"
            + &insert("tumble", "TUMBLE(i, ts, INTERVAL '1' SECOND)")
            + &insert("hop", "HOP(i, ts, INTERVAL '0.5' SECOND, INTERVAL '2' SECOND)")
            + "END;\n"
    }

    pub fn start(&self, workers: usize, mode: &str) -> Running {
        let file = script(&self.text(workers, mode));
        let running = start_tidemill(&[
            "-b",
            self.broker.borrow().addresses(),
            "run",
            file.path().to_str().expect("a temporary path"),
        ]);
        // It is read when the program starts, which may take a moment.
        std::mem::forget(file);
        running
    }

    /// Sends records with these numbers, in order: to two partitions in turn, some of them late. Some are sent in
    /// transactions, of which some are rolled back, so that offsets have holes.
    pub fn send(&self, numbers: Range<i64>, rng: &mut StdRng) {
        let records: Vec<Message> = numbers
            .map(|n| numbered(n, if rng.random_range(0..8) == 0 { rng.random_range(0..4_000) } else { 0 }))
            .collect();
        match rng.random_range(0..3) {
            0 => self.broker.borrow().produce(&self.topic, records),
            1 => {
                let in_vain = |n: i32| Message::new("never to be read").partition(n % 2);
                drop(self.broker.borrow().transaction(&self.topic, (0..6).map(in_vain), Ending::Abort));
                self.broker.borrow().produce(&self.topic, records);
            }
            _ => drop(self.broker.borrow().transaction(&self.topic, records, Ending::Commit)),
        }
    }

    /// Sends records with these numbers to partitions that may be idle. What comes to one of them after the other's records
    /// would be lost with the windows that those have closed: both are woken first.
    pub fn send_after_a_pause(&self, numbers: Range<i64>, job: &Job, rng: &mut StdRng) {
        let (first, rest) = (numbers.start..numbers.start + 2, numbers.start + 2..numbers.end);
        let woken = time_of(first.start) - 1;
        self.broker.borrow().produce(&self.topic, first.map(|n| numbered(n, 0)));
        until_job(job, "both partitions", |info| {
            let of_source = info.sources.iter().flat_map(|source| &source.partitions);
            of_source.take(2).all(|p| p.state.counts() && p.watermark.is_some_and(|ts| woken <= ts))
        });
        self.send(rest, rng);
    }

    /// What must be outside in the end.
    pub fn answers(&self) -> [Answer; 2] {
        let columns = vec![("k", DataType::Utf8), ("n", DataType::Int64), ("ts", TIME)];
        let stream = Stream { columns, time: "ts", delay_ms: 0, keep: |_| true };
        let records = self.broker.borrow().read_all(&self.topic);
        let sql = "SELECT window_start, k, count(*), sum(n) FROM t GROUP BY window_start, window_end, k";
        [Windows::tumble(1_000), Windows::hop(500, 2_000)].map(|windows| stream.answer(&records, windows, sql))
    }

    /// Waits until as many rows are outside as there must be.
    pub fn until_complete(&self, answers: &[Answer; 2]) {
        for (out, answer) in self.outs.iter().zip(answers) {
            until("all rows", || (answer.rows.len() <= self.broker.borrow().read_all(out).len()).then_some(()));
        }
    }

    /// Every row is outside once, and every late record for each statement.
    pub fn check(&self, answers: &[Answer; 2]) {
        for (out, answer) in self.outs.iter().zip(answers) {
            let rows: Vec<Value> = self.broker.borrow().read_all(out).iter().map(Record::json).collect();
            assert_same_rows(&rows, &answer.rows, out);
        }
        let mut late: BTreeMap<(String, String), usize> = BTreeMap::new();
        for record in self.broker.borrow().read_all(&self.late) {
            let header = |name: &str| {
                let found = record.headers.iter().find(|(n, _)| n == &format!("tidemill.{name}"));
                String::from_utf8(found.and_then(|(_, value)| value.clone()).expect("a header")).expect("UTF-8")
            };
            let place = format!("{}/{}", header("partition"), header("offset"));
            *late.entry((header("sink"), place)).or_default() += 1;
        }
        assert!(late.values().all(|count| *count == 1), "records are in the late topic twice: {late:?}");
        let of = |sink: &str| late.keys().filter(|(s, _)| s == sink).count() as u64;
        let [tumble, hop] = answers;
        assert_eq!((of("tumble"), of("hop")), (tumble.late, hop.late + hop.partly_late));
        assert!(0 < tumble.late && 0 < hop.partly_late);
    }
}

#[test]
fn stopped_and_started_with_other_workers_it_goes_on() {
    let case = Case::new("stop");
    let mut rng = StdRng::seed_from_u64(3);
    for (round, workers) in [1, 3, 2, 1].into_iter().enumerate() {
        let from = 500 * round as i64;
        case.send(from..from + 500, &mut rng);
        let before = case.broker.read_all(&case.outs[0]).len();
        let program = case.start(workers, EARLIEST);
        until("new rows", || (before < case.broker.read_all(&case.outs[0]).len()).then_some(()));
        program.signal("TERM");
        let ended = program.finish(PATIENCE);
        assert_eq!(ended.code, 143, "{ended:?}");
    }
    let answers = case.answers();
    let program = case.start(2, EARLIEST);
    case.until_complete(&answers);
    drop(program);
    case.check(&answers);
}

#[test]
fn a_bounded_job_ends_where_it_was_to_end_and_then_begins_again() {
    let case = Case::new("bounded");
    case.send(0..3_000, &mut StdRng::seed_from_u64(5));
    // The end is found when the job begins; what comes later is not of it.
    let answers = case.answers();
    let mut rng = StdRng::seed_from_u64(6);
    loop {
        let program = case.start(2, BOUNDED);
        std::thread::sleep(Duration::from_millis(rng.random_range(0..900)));
        // It may have ended by itself.
        if case.broker.partition_count(&format!("tidemill-progress-{}", case.name)).is_some() {
            break program.signal("KILL");
        }
    }
    let program = case.start(1, BOUNDED);
    let ended = program.finish(PATIENCE);
    assert_eq!(ended.code, 0, "{ended:?}");
    if !ended.stderr.contains("it had finished") {
        case.check(&answers);
    }
    let before = case.broker.read_all(&case.outs[0]).len();
    let again = case.start(1, BOUNDED).finish(PATIENCE);
    assert!(again.code == 0 && again.stderr.contains("it had finished, and is run again"), "{again:?}");
    assert_eq!(case.broker.read_all(&case.outs[0]).len(), before + answers[0].rows.len());
}

#[test]
fn what_cannot_go_on_in_its_place_stops_nobody() {
    let case = Case::new("intruder");
    let mut rng = StdRng::seed_from_u64(17);
    case.send(0..500, &mut rng);
    let program = case.start(1, EARLIEST);
    until("rows", || (!case.broker.read_all(&case.outs[0]).is_empty()).then_some(()));
    let changed = case.text(1, EARLIEST).replace("'1' SECOND", "'3' SECOND");
    let refused = execute(&engine(case.broker), &changed).err().expect("it is another statement");
    assert!(refused.message.contains("was begun as another statement"), "{refused:?}");
    case.send(500..1_000, &mut rng);
    let answers = case.answers();
    case.until_complete(&answers);
    program.signal("TERM");
    let ended = program.finish(PATIENCE);
    assert!(ended.code == 143 && !ended.stderr.contains("younger"), "{ended:?}");
    case.check(&answers);
}

#[test]
fn a_changed_statement_goes_on_with_what_can_be_kept() {
    let case = Case::new("changed");
    let mut rng = StdRng::seed_from_u64(13);
    let run = |text: &str, is_enough: &dyn Fn() -> bool| {
        let file = script(text);
        let path = file.path().to_str().expect("a temporary path");
        let program = start_tidemill(&["-b", case.broker.addresses(), "run", path]);
        until("enough", || is_enough().then_some(()));
        program.signal("TERM");
        let ended = program.finish(PATIENCE);
        assert_eq!(ended.code, 143, "{ended:?}");
        ended
    };
    let rows = |out: usize| case.broker.read_all(&case.outs[out]).len();
    case.send(0..1_000, &mut rng);
    run(&case.text(2, EARLIEST), &|| 0 < rows(0));
    // The other window is as long as before: what it has seen so far is kept.
    let changed = case
        .text(1, EARLIEST)
        .replace("INTERVAL '0.5' SECOND, INTERVAL '2' SECOND", "INTERVAL '2' SECOND, INTERVAL '4' SECOND");
    let refused = execute(&engine(case.broker), &changed).err().expect("it is another statement");
    assert!(refused.message.contains("of its 2 operators with state 1 would be kept"), "{refused:?}");
    case.send(1_000..2_000, &mut rng);
    let [tumble, hop] = case.answers();
    let compatible = format!("SET 'execution.restore' = 'compatible';\n{changed}");
    let ended = run(&compatible, &|| tumble.rows.len() <= rows(0));
    assert!(ended.stderr.contains("its statement has changed"), "{ended:?}");
    let found: Vec<Value> = case.broker.read_all(&case.outs[0]).iter().map(Record::json).collect();
    assert_same_rows(&found, &tumble.rows, "tumble");
    assert!(rows(1) < hop.rows.len());
    // It begins anew.
    let ended = run(&format!("SET 'execution.restore' = 'none';\n{changed}"), &|| 2 * tumble.rows.len() <= rows(0));
    assert!(ended.stderr.contains("begins anew"), "{ended:?}");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_written() {
    let case = Case::new("refused");
    case.send(0..300, &mut StdRng::seed_from_u64(1));
    let program = case.start(1, EARLIEST);
    until("rows", || (!case.broker.read_all(&case.outs[0]).is_empty()).then_some(()));
    program.signal("TERM");
    assert_eq!(program.finish(PATIENCE).code, 143);
    let before = case.broker.read_all(&case.outs[0]).len();

    let engine = || engine(case.broker);
    let text = case.text(1, EARLIEST);
    let sink = |name: &str, options: &str| format!("CREATE TABLE {name} (n BIGINT) WITH ({options});\n");
    let exactly = format!(
        "'connector' = 'kafka', 'topic' = '{}', 'format' = 'json', 'sink.delivery-guarantee' = 'exactly-once'",
        case.outs[0]
    );
    let from_topic = input("i", &case.topic, EARLIEST);
    let generated = "CREATE TABLE g (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1');\n";
    for (text, want) in [
        (text.replace("'1' SECOND", "'3' SECOND"), "was begun as another statement"),
        (text.replace(&case.late, &unique_name("other")), "was begun as another statement"),
        (
            from_topic
                + &sink("o", &exactly)
                + &sink("b", "'connector' = 'blackhole'")
                + "BEGIN STATEMENT SET; INSERT INTO o SELECT n FROM i; INSERT INTO b SELECT n FROM i; END;",
            "table o is written exactly once, and b,",
        ),
        (sink("o", &exactly) + generated + "INSERT INTO o SELECT n FROM g;", "table g is neither topic nor file"),
        (sink("o", &exactly) + "INSERT INTO o VALUES (1);", "rows that a statement itself gives"),
    ] {
        let error = execute(&engine(), &text).err().unwrap_or_else(|| panic!("{text} is not refused"));
        assert!(error.message.contains(want) && error.hint.is_some(), "{error:?}, not {want}");
    }
    assert_eq!(case.broker.read_all(&case.outs[0]).len(), before);
}
