//! Every program in queries/ does what its header says.
//!
//! Each runs as a user would run it, with the names of its topics made unique; what lies on its output topic afterwards is
//! compared with a batch over the same records, and with the rows that the header shows.

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Value, json};

use crate::common::broker::{Broker, repository, shared, unique_name};
use crate::common::flights;
use crate::common::oracle::{Answer, Stream, Windows, assert_same_rows, batch_sql};
use crate::common::program::{Finished, start_tidemill, tidemill};
use crate::common::records::{Message, Record};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A program, with the names of its topics replaced.
struct Program {
    text: String,
    /// The topic in the file to the one of this run.
    topics: BTreeMap<String, String>,
}

impl Program {
    /// Reads a program; `inputs` are the topics that exist already, the others get names of their own.
    fn new(file: &str, inputs: &[(&str, &str)]) -> Self {
        let path = repository().join("queries").join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut topics: BTreeMap<_, _> = inputs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let option = Regex::new(r"topic' = '([^']*)'").expect("a regular expression");
        for found in option.captures_iter(&text) {
            topics.entry(found[1].to_owned()).or_insert_with(|| unique_name(&found[1]));
        }
        Self { text, topics }
    }

    /// Runs it with the `tidemill` program, in the directory of the repository.
    fn run(&self, broker: &Broker) -> Finished {
        let replaced = self.topics.iter().fold(self.text.clone(), |text, (name, unique)| {
            text.replace(&format!("topic' = '{name}'"), &format!("topic' = '{unique}'"))
        });
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("program.sql");
        fs::write(&file, replaced).expect("a file");
        let finished = tidemill(&["-b", broker.addresses(), "run", file.to_str().expect("UTF-8")]);
        assert_eq!(finished.code, 0, "{finished:#?}");
        finished
    }

    /// The records of a topic that the file names.
    fn records(&self, broker: &Broker, topic: &str) -> Vec<Record> {
        broker.read_all(&self.topics[topic])
    }

    /// The query of the statement that inserts into a table, up to its end.
    fn query(&self, table: &str) -> &str {
        let (_, rest) = self.text.split_once(&format!("INSERT INTO {table}\n")).expect("the statement");
        rest.split_once(';').expect("its end").0
    }

    /// The rows that the header shows, each a line.
    fn shown(&self) -> Vec<&str> {
        let header = self.text.lines().take_while(|line| line.starts_with("--"));
        header.filter_map(|line| line.strip_prefix("--").map(str::trim).filter(|row| row.starts_with('{'))).collect()
    }

    /// Asserts that the rows in the header are among these.
    fn check_shown(&self, rows: &[String]) {
        let shown = self.shown();
        let first = &rows[..rows.len().min(6)];
        assert!(!shown.is_empty(), "the header shows no rows; there are {first:#?}");
        for shown in shown {
            assert!(rows.iter().any(|row| row == shown), "the header shows {shown}; there are {first:#?}");
        }
    }
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.text().to_owned()).collect()
}

/// A topic of four partitions with January's flights, keyed by tail number, and its records.
fn january() -> &'static (String, Vec<Record>) {
    static TOPIC: OnceLock<(String, Vec<Record>)> = OnceLock::new();
    TOPIC.get_or_init(|| {
        let topic = shared().topic("flights", 4);
        shared().produce(&topic, flights::messages(flights::january()));
        let records = shared().read_all(&topic);
        (topic, records)
    })
}

/// Runs a program over January's flights; it, and what it printed.
fn over_january(file: &str) -> (Program, Finished) {
    let program = Program::new(file, &[("flights", &january().0)]);
    let finished = program.run(shared());
    (program, finished)
}

fn answer(delay_ms: i64, windows: Windows, sql: &str) -> Answer {
    Stream::flights(delay_ms).answer(&january().1, windows, sql)
}

#[test]
fn every_program_is_tested_here() {
    let mut files: Vec<_> = fs::read_dir(repository().join("queries"))
        .expect("the directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    files.sort();
    // The last runs without end, in docker-compose.yml; a test below bounds it.
    assert_eq!(files.last().map(String::as_str), Some("compose.sql"));
    let this = include_str!("queries.rs");
    for (file, number) in files.iter().zip(1..) {
        assert!(this.contains(&format!("\"{file}\"")), "no test runs {file}");
        assert!(file == "compose.sql" || file.starts_with(&format!("{number:02}-")), "{file} is number {number}");
    }
}

#[test]
fn p01_flights_from_a_file() {
    let program = Program::new("01-flights-from-a-file.sql", &[]);
    // Nothing in it needs a broker, so nothing is told of one.
    let finished = tidemill(&["run", "queries/01-flights-from-a-file.sql"]);
    assert_eq!(finished.code, 0, "{finished:#?}");
    let lines: Vec<String> = finished.stdout.lines().filter(|l| l.starts_with('{')).map(Into::into).collect();
    let rows: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();

    // A file is one partition, whose records count from 0.
    let records = flights::january().iter().zip(0..).map(|(flight, offset)| Record {
        partition: 0,
        offset,
        timestamp_ms: 0,
        key: None,
        value: Some(flight.line.clone().into_bytes()),
        headers: Vec::new(),
    });
    let records: Vec<_> = records.collect();
    let sql = batch_sql(program.query("per_day"));
    let want = Stream::flights(DAY_MS).answer(&records, Windows::tumble(DAY_MS), &sql);
    assert_same_rows(&rows, &want.rows, "rows on the terminal");
    program.check_shown(&lines);
}

#[test]
fn p02_load_flights() {
    let program = Program::new("02-load-flights.sql", &[]);
    program.run(shared());
    let records = program.records(shared(), "flights");
    assert_eq!(shared().partition_count(&program.topics["flights"]), Some(4));
    assert_eq!(records.len(), flights::JANUARY_COUNT);
    for record in &records {
        assert_eq!(record.key.as_deref(), record.json()["tailnum"].as_str().map(str::as_bytes));
    }
    // The partitions are those that a Java client would choose, except for records without a key.
    let place = |records: &[Record]| {
        let keyed = records.iter().filter(|record| record.key.is_some());
        keyed.map(|record| (record.partition, record.key.clone())).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(place(&records), place(&january().1));
    let loaded: Vec<_> = records.iter().map(Record::json).collect();
    let shipped: Vec<_> = flights::january().iter().map(|flight| serde_json::from_str(&flight.line).unwrap()).collect();
    assert_same_rows(&loaded, &shipped, "flights");
    program.check_shown(&texts(&records));
}

#[test]
fn p03_departures_per_hour() {
    let (program, finished) = over_january("03-departures-per-hour.sql");
    let want = answer(DAY_MS, Windows::tumble(HOUR_MS), &batch_sql(program.query("departures_per_hour")));
    assert_eq!(want.late, 0);
    let records = program.records(shared(), "departures_per_hour");
    let rows: Vec<_> = records.iter().map(Record::json).collect();
    assert_same_rows(&rows, &want.rows, &finished.stderr);
    assert!(records.iter().all(|record| record.key.as_deref() == record.json()["origin"].as_str().map(str::as_bytes)));
    program.check_shown(&texts(&records));
}

#[test]
fn p04_delays_per_carrier() {
    let (program, finished) = over_january("04-delays-per-carrier.sql");
    let windows = Windows::hop(20 * MINUTE_MS, 90 * MINUTE_MS);
    let want = answer(30 * MINUTE_MS, windows, &batch_sql(program.query("delays_per_carrier")));
    assert!(0 < want.late && 0 < want.partly_late);
    let records = program.records(shared(), "delays_per_carrier");
    let rows: Vec<_> = records.iter().map(Record::json).collect();
    assert_same_rows(&rows, &want.rows, &finished.stderr);
    program.check_shown(&texts(&records));
}

#[test]
fn p05_busiest_hour() {
    let (program, _) = over_january("05-busiest-hour.sql");
    let sql = "SELECT DATE_TRUNC('day', hour), origin, COUNT(*), MAX(departures), ROUND(AVG(departures), 1) FROM (
                 SELECT window_start AS hour, origin, COUNT(dep_delay) AS departures FROM t GROUP BY window_start, origin
               ) GROUP BY DATE_TRUNC('day', hour), origin";
    let want = answer(DAY_MS, Windows::tumble(HOUR_MS), sql);
    let records = program.records(shared(), "busiest_hour");
    let rows: Vec<_> = records.iter().map(Record::json).collect();
    assert_same_rows(&rows, &want.rows, "busiest hours");
    program.check_shown(&texts(&records));
}

#[test]
fn p06_freezing_hours() {
    let program = Program::new("06-freezing-hours.sql", &[]);
    program.run(shared());
    let records = program.records(shared(), "freezing_hours");
    let rows: Vec<_> = records.iter().map(Record::json).collect();

    let file = fs::File::open(repository().join("data/weather.csv.gz")).expect("the weather");
    let text = std::io::read_to_string(flate2::read::GzDecoder::new(file)).expect("text");
    let mut want = Vec::new();
    for line in text.lines().skip(1) {
        let field: Vec<_> = line.split(',').collect();
        let (Ok(fahrenheit), Ok(time)) = (field[5].parse::<f64>(), chrono::DateTime::parse_from_rfc3339(field[14]))
        else {
            continue;
        };
        let celsius = ((fahrenheit - 32.0) / 1.8 * 10.0).round() / 10.0;
        let hour: u32 = time.format("%H").to_string().parse().expect("a number");
        if celsius < 0.0 && (10..=14).contains(&hour) {
            let new_york = time.with_timezone(&chrono_tz::America::New_York);
            let ground = field[11].parse::<f64>().map_or("unknown", |inches| if inches > 0.0 { "icy" } else { "dry" });
            want.push(json!({
                "airport": field[0],
                "utc": time.format("%Y-%m-%d %H:%M").to_string(),
                "new_york": new_york.format("%Y-%m-%d %H:%M:%S").to_string(),
                "celsius": celsius,
                "ground": ground,
            }));
        }
    }
    assert!(!want.is_empty());
    assert_same_rows(&rows, &want, "freezing hours");
    program.check_shown(&texts(&records));
}

#[test]
fn p07_hello() {
    let midnight_ms = 1_704_067_200_000;
    let topic = shared().topic("raw_data", 1);
    let line = |i: i64| Message::new(format!("Hello {i}")).timestamp_ms(midnight_ms + i * 1_000);
    shared().produce(&topic, (0..60).map(line).chain([Message::new("Goodbye").timestamp_ms(midnight_ms + 60_000)]));
    let program = Program::new("07-hello.sql", &[("raw_data", &topic)]);
    program.run(shared());
    let records = program.records(shared(), "hello_per_10_seconds");
    let want: Vec<_> = (0..6)
        .map(|i| {
            json!({
                "window_start": format!("2024-01-01 00:00:{:02}", i * 10),
                "window_end": format!("2024-01-01 00:{:02}:{:02}", (i + 1) / 6, (i + 1) % 6 * 10),
                "total": 10,
                "lowest": i * 10,
                "highest": i * 10 + 9,
            })
        })
        .collect();
    assert_eq!(records.iter().map(Record::json).collect::<Vec<_>>(), want);
    program.check_shown(&texts(&records));
}

#[test]
fn p08_two_sinks() {
    let (program, finished) = over_january("08-two-sinks.sql");
    let want = answer(DAY_MS, Windows::tumble(DAY_MS), &batch_sql(program.query("routes_per_day")));
    let routes = program.records(shared(), "routes_per_day");
    assert_same_rows(&routes.iter().map(Record::json).collect::<Vec<_>>(), &want.rows, &finished.stderr);
    let key: Value = serde_json::from_slice(routes[0].key.as_ref().expect("a key")).expect("JSON");
    assert_eq!(key.as_object().expect("an object").keys().collect::<Vec<_>>(), ["origin", "dest"]);

    let (topic, records) = january();
    let late = records
        .iter()
        .map(|record| (record, record.json()))
        .filter(|(_, flight)| flight["dep_delay"].as_i64() > Some(240));
    let want: Vec<_> = late
        .map(|(record, flight)| {
            let text = |name: &str| flight[name].as_str().expect("a text").to_owned();
            json!({
                "scheduled": text("scheduled"),
                "flight": format!("{} {}", text("carrier"), flight["flight"]),
                "route": format!("{}-{}", text("origin"), text("dest")),
                "dep_delay": flight["dep_delay"],
                "found_in": record.partition,
            })
        })
        .collect();
    assert!(!want.is_empty(), "{topic}");
    let very_late = program.records(shared(), "very_late_flights");
    assert_same_rows(&very_late.iter().map(Record::json).collect::<Vec<_>>(), &want, "very late flights");
    program.check_shown(&texts(&[routes, very_late].concat()));
}

#[test]
fn p09_happenings() {
    let (program, _) = over_january("09-happenings.sql");
    let branch = |what: &str, condition: &str| {
        format!(
            "SELECT window_start, '{what}' AS happening,
                    CASE WHEN carrier IN ('UA', 'B6', 'EV', 'DL') THEN carrier ELSE 'others' END AS airline
             FROM t WHERE {condition}"
        )
    };
    let sql = format!(
        "SELECT window_start, happening, airline, COUNT(*) AS total FROM ({} UNION ALL {} UNION ALL {})
         GROUP BY window_start, happening, airline",
        branch("departure", "dep_delay IS NOT NULL"),
        branch("delay", "dep_delay > 60"),
        branch("cancellation", "dep_delay IS NULL"),
    );
    let want = answer(DAY_MS, Windows::tumble(DAY_MS), &sql);
    let records = program.records(shared(), "happenings_per_day");
    assert_same_rows(&records.iter().map(Record::json).collect::<Vec<_>>(), &want.rows, "happenings");
    program.check_shown(&texts(&records));
}

/// The program of docker-compose.yml has no end of its own: it is told to stop once it has written.
/// What a program writes to a topic is what it writes when DataFusion runs it as a batch.
fn as_in_a_batch(file: &str, topic: &str) -> Program {
    let (program, _) = over_january(file);
    let mut batch = Program::new(file, &[("flights", &january().0)]);
    batch.text = format!("SET 'execution.runtime-mode' = 'batch';\n{}", batch.text);
    batch.run(shared());
    let sorted = |program: &Program| {
        let mut rows = texts(&program.records(shared(), topic));
        rows.sort_unstable();
        rows
    };
    let rows = sorted(&program);
    assert!(rows == sorted(&batch), "{file} gives other rows as a batch");
    program.check_shown(&rows);
    program
}

#[test]
fn p10_best_routes() {
    as_in_a_batch("10-best-routes.sql", "best_routes");
}

#[test]
fn p11_days_of_planes() {
    as_in_a_batch("11-days-of-planes.sql", "days_of_planes");
}

#[test]
fn p12_late_flights() {
    let program = as_in_a_batch("12-late-flights.sql", "departures_in_time");
    let in_time: u64 = program
        .records(shared(), "departures_in_time")
        .iter()
        .map(|record| record.json()["departures"].as_u64().expect("a number"))
        .sum();
    let late = shared().read_all(&program.topics["late_flights"]);
    assert_eq!(in_time + late.len() as u64, january().1.len() as u64);
    // Those that are late are the very records, and say which window they missed.
    let missed = |record: &Record| record.headers.iter().any(|(name, _)| name == "tidemill.windows");
    assert!(!late.is_empty() && late.iter().all(missed));
    let all: std::collections::BTreeSet<_> = january().1.iter().map(|record| &record.value).collect();
    assert!(late.iter().all(|record| all.contains(&record.value)));
}

#[test]
fn compose_writes_until_it_is_told_to_stop() {
    let mut program = Program::new("compose.sql", &[]);
    program.text = program.text.replace("INTERVAL '10' SECOND", "INTERVAL '1' SECOND");
    let topic = shared().topic("orders", 1);
    program.text = program.text.replace("'topic' = 'orders_per_10_seconds'", &format!("'topic' = '{topic}'"));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("compose.sql");
    fs::write(&file, &program.text).expect("a file");
    let running = start_tidemill(&["-b", shared().addresses(), "run", file.to_str().expect("UTF-8")]);
    let wait = std::time::Duration::from_secs(60);
    let records = shared().read_until(&topic, wait, |records| records.len() >= 5);
    for row in records.iter().map(Record::json) {
        assert!((1..=5).contains(&row["product"].as_i64().expect("a number")), "{row}");
        assert!(row["orders"].as_i64() > Some(0) && row["revenue"].as_f64() > Some(0.0), "{row}");
    }
    running.signal("TERM");
    let finished = running.finish(wait);
    // 128 and the number of the signal, as shells count.
    assert_eq!(finished.code, 143, "{finished:#?}");
    assert!(finished.stderr.contains("stopped"), "{finished:#?}");
}
