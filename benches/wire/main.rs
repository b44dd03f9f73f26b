//! As fast as the wire? Queries beside what the client library alone can do, beside decoding, and beside other engines.
//!
//! ```text
//! cargo bench --bench wire -- [FILTER ..] [--records N] [--rounds N] [--sinks blackhole,topic] [--json FILE] [--markdown FILE]
//! ```
//!
//! In one run, alternating and `--rounds` times, each in a process of its own: takes all records out of a topic with
//! librdkafka's batch call (`raw`); the same and decodes the columns that the queries want (`decoded`); runs each query into a
//! `blackhole` and into a topic. Reports medians of time, CPU time and peak memory, and their ratios to what the wire
//! costs; writes them as JSON and as a table. A filter is a part of a case's name; those that begin with `growth-`
//! and `delivery-` run only when asked for. What a query wrote to a topic is counted before anything is reported.
//!
//! `--peer flink,kstreams` runs each case by those engines as well, once cold and once warm, and compares what they wrote;
//! `--heaps 512m,3g` gives them so much memory, one after the other.
//!
//! `--latency SECONDS` instead measures how long rows take at a fixed rate, see `latency.rs`.
//!
//! `--draw FILE.. DIRECTORY` measures nothing, and draws pictures of what earlier runs wrote as JSON.
//!
//! The broker is the tests' one and shares the machine: hence CPU time of the measured process alone. With
//! `TIDEMILL_TEST_BROKERS` set, topics stay there for the next run. Linux only: figures are read from `/proc`.

#![allow(clippy::disallowed_methods, reason = "a benchmark is about the clock")]

mod cases;
// The tests use the rest of it.
#[allow(dead_code)]
#[path = "../../tests/common/mod.rs"]
mod common;
mod data;
mod drain;
mod draw;
mod latency;
mod measure;
mod peers;
mod report;
// The other benchmarks use the rest of it.
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use clap::Parser;

use cases::Case;
use common::broker::{Broker, shared, unique_name};
use data::{Data, Spelling};
use measure::{Median, Run, run};
use report::Report;

#[derive(Parser)]
struct Arguments {
    /// Parts of names of cases; all but the extra ones unless given.
    filters: Vec<String>,
    /// Records in a topic; fewer where they are larger.
    #[arg(long, default_value_t = 5_000_000)]
    records: u64,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where queries write to.
    #[arg(long, value_delimiter = ',', default_value = "blackhole,topic")]
    sinks: Vec<String>,
    /// Other engines to run the cases: flink, kstreams.
    #[arg(long, value_delimiter = ',')]
    peer: Vec<String>,
    /// Heaps of their Java: how little do they need?
    #[arg(long, value_delimiter = ',', default_value = "3g")]
    heaps: Vec<String>,
    /// Instead of cases, measure latencies, each for so many seconds.
    #[arg(long)]
    latency: Option<u64>,
    /// Print the names of all cases.
    #[arg(long)]
    list: bool,
    #[arg(long)]
    json: Option<PathBuf>,
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Measure nothing, and draw what `--json` files hold: the files, and then the directory of the pictures.
    #[arg(long, num_args = 2.., value_name = "FILE.. DIRECTORY")]
    draw: Vec<PathBuf>,
    /// Of cargo's.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let raw: Vec<String> = env::args().skip(1).collect();
    if raw.first().is_some_and(|first| first == "--child") {
        return drain::work(&raw[1..]);
    }
    let arguments = Arguments::parse();
    if let Some((directory, files)) = arguments.draw.split_last() {
        return draw::draw(files, directory).expect("pictures of what the files hold");
    }
    if let Some(seconds) = arguments.latency {
        let found = latency::measure(shared(), seconds);
        println!("{}", report::latencies(&found));
        if let Some(file) = arguments.json {
            fs::write(file, serde_json::to_string_pretty(&found).expect("JSON")).expect("the JSON file");
        }
        return;
    }
    let cases = cases::all(arguments.records);
    if arguments.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return;
    }
    let is_chosen = |case: &Case| match arguments.filters.is_empty() {
        true => !case.is_extra,
        false => arguments.filters.iter().any(|filter| case.name.contains(filter.as_str())),
    };
    let cases: Vec<Case> = cases.into_iter().filter(is_chosen).collect();
    assert!(!cases.is_empty(), "no case has such a name; --list prints them");

    let bench = Bench { broker: shared(), runs: BTreeMap::new(), notes: BTreeMap::new() };
    let report = bench.measure(&cases, &arguments);
    println!("{}", report.markdown());
    if let Some(file) = arguments.json {
        fs::write(file, report.json()).expect("the JSON file");
    }
    if let Some(file) = arguments.markdown {
        fs::write(file, report.markdown()).expect("the Markdown file");
    }
}

/// Partitions of the topics that are written to.
const OUTPUT_PARTITIONS: i32 = 4;

/// What is measured of a topic: `raw` and so on; or of a case: `blackhole`, `topic`.
type Key = (String, String);

struct Bench {
    broker: &'static Broker,
    runs: BTreeMap<Key, Vec<Run>>,
    notes: BTreeMap<Key, String>,
}

impl Bench {
    fn measure(mut self, cases: &[Case], arguments: &Arguments) -> Report {
        let mut topics: Vec<Data> = Vec::new();
        for case in cases {
            if case.from_files {
                case.data.prepare_files();
            }
            if !topics.contains(&case.data) {
                case.data.prepare(self.broker);
                topics.push(case.data);
            }
        }
        for round in 1..=arguments.rounds {
            for data in &topics {
                self.topic(data);
                for case in cases.iter().filter(|case| case.data == *data) {
                    for sink in &arguments.sinks {
                        self.case(case, sink, round == 1);
                    }
                }
            }
        }
        for case in cases {
            for peer in &arguments.peer {
                arguments.heaps.iter().for_each(|heap| self.peer(case, peer, heap));
            }
        }
        let medians = self.runs.iter().map(|(key, runs)| (key.clone(), Median::of(runs))).collect();
        Report { cases: cases.to_vec(), medians, notes: self.notes, rounds: arguments.rounds }
    }

    fn note(&mut self, of: &str, what: &str, run: Run) {
        eprintln!("{of}, {what}: {:.2} s, {:.2} s of CPU, {} MB", run.wall_s, run.cpu_s, run.peak_mb);
        self.runs.entry((of.to_owned(), what.to_owned())).or_default().push(run);
    }

    fn child(&self, work: &str, topic: &str, partitions: i32, records: u64, more: &[&str]) -> (Run, String) {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.args(["--child", work, self.broker.addresses(), topic]);
        command.args([&partitions.to_string(), &records.to_string()]).args(more);
        run(&mut command)
    }

    fn topic(&mut self, data: &Data) {
        let topic = data.topic();
        let mut works = vec![("batch", "raw"), ("stream", "StreamConsumer")];
        if data.spelling != Spelling::Nexmark {
            works.push(("decode", "decoded"));
        }
        for (work, name) in works {
            let (run, _) = self.child(work, &topic, data.partitions, data.records, &[data.format()]);
            self.note(&topic, name, run);
        }
    }

    fn peer(&mut self, case: &Case, peer: &str, heap: &str) {
        let brokers = self.broker.addresses();
        let new = |hint: &str| self.broker.topic(hint, OUTPUT_PARTITIONS);
        match peer {
            "flink" => {
                let topics = [new("wire-flink"), new("wire-flink")];
                let sink = |topic: &String| {
                    format!(
                        "'connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', \
                         'properties.bootstrap.servers' = '{brokers}'"
                    )
                };
                let runs = peers::flink(case, heap, brokers, &topics.each_ref().map(sink));
                for ((run, topic), start) in runs.into_iter().zip(&topics).zip(["cold", "warm"]) {
                    let what = format!("flink {heap}, {start}");
                    self.note(&case.name, &what, run);
                    self.compare(case, &what, topic);
                }
            }
            "kstreams" => {
                let output = new("wire-streams");
                if let Some(run) = peers::streams(case, heap, brokers, &unique_name("wire"), &output) {
                    let what = format!("kstreams {heap}");
                    self.note(&case.name, &what, run);
                    self.compare(case, &what, &output);
                }
            }
            other => panic!("there is no peer {other}: flink, kstreams"),
        }
    }

    /// Counts a peer's rows, and the records in them.
    fn compare(&mut self, case: &Case, what: &str, topic: &str) {
        let (_, counted) = self.child("sum", topic, OUTPUT_PARTITIONS, 0, &[]);
        let counted = counted.trim();
        let ours = self.notes.get(&(case.name.clone(), "rows".to_owned())).cloned();
        eprintln!("{}, {what}: rows, and records in them: {counted}; ours: {ours:?}", case.name);
        self.notes.insert((case.name.clone(), format!("{what}: rows, records")), counted.to_owned());
    }

    /// Runs the query by the program, as a user would, from a file.
    fn case(&mut self, case: &Case, sink: &str, is_first: bool) {
        let (sink, guarantee) = sink.split_once(':').unwrap_or((sink, ""));
        let what = if guarantee.is_empty() { sink.to_owned() } else { format!("{sink}:{guarantee}") };
        let output = (sink != "blackhole").then(|| self.broker.topic("wire-output", OUTPUT_PARTITIONS));
        let options = match &output {
            None => "'connector' = 'blackhole'".to_owned(),
            Some(topic) => {
                let delivery = match guarantee {
                    "" => String::new(),
                    guarantee => format!(", 'sink.delivery-guarantee' = '{guarantee}'"),
                };
                format!("'connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json'{delivery}")
            }
        };
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("wire.sql");
        fs::write(&file, case.script(&unique_name("wire"), &options)).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(["--quiet", "--brokers", self.broker.addresses(), "run"]).arg(&file);
        let (taken, _) = run(&mut command);
        self.note(&case.name, &what, taken);
        let Some(topic) = output.filter(|_| is_first) else { return };
        let (_, counted) = self.child("sum", &topic, OUTPUT_PARTITIONS, 0, &[]);
        let (rows, sum) = counted.trim().split_once(' ').expect("two numbers");
        if let Some(times) = case.counted {
            assert_eq!(
                sum.parse::<u64>().expect("a number"),
                case.records() * times,
                "records in rows of {}",
                case.name
            );
        }
        self.notes.insert((case.name.clone(), "rows".to_owned()), rows.to_owned());
        let again = self.broker.topic("wire-again", OUTPUT_PARTITIONS);
        let (_, printed) = self.child("produce", &topic, OUTPUT_PARTITIONS, 0, &[&again]);
        self.notes.insert((case.name.clone(), "produce".to_owned()), printed.trim().to_owned());
    }
}
