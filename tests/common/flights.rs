//! The flights that ship with the project: see data/README.md.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::OnceLock;

use flate2::read::GzDecoder;
use serde_json::Value;

use super::broker::repository;
use super::records::Message;

/// One flight, as the line of JSON that it is in the file, and the fields that tests ask for most.
#[derive(Clone, Debug)]
pub struct Flight {
    pub line: String,
    pub tailnum: Option<String>,
    /// The `scheduled` field: milliseconds since the Unix epoch.
    pub scheduled_ms: i64,
}

/// How many flights [`all`] gives.
pub const COUNT: usize = 336_776;
/// How many flights [`january`] gives.
pub const JANUARY_COUNT: usize = 26_865;

/// All flights of 2013 in the order of the file.
pub fn all() -> &'static [Flight] {
    static ALL: OnceLock<Vec<Flight>> = OnceLock::new();
    ALL.get_or_init(|| read("data/flights.jsonl.gz"))
}

/// The flights scheduled in January 2013, in the order of the file.
pub fn january() -> &'static [Flight] {
    static JANUARY: OnceLock<Vec<Flight>> = OnceLock::new();
    JANUARY.get_or_init(|| read("data/flights-2013-01.jsonl.gz"))
}

/// A record per flight, keyed by tail number; those without one have no key.
pub fn messages(flights: &[Flight]) -> impl Iterator<Item = Message> {
    flights.iter().map(|flight| {
        let message = Message::new(flight.line.as_str());
        match &flight.tailnum {
            Some(tailnum) => message.key(tailnum.as_str()),
            None => message,
        }
    })
}

fn read(path: &str) -> Vec<Flight> {
    let file = File::open(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let lines = BufReader::new(GzDecoder::new(file)).lines();
    lines.map(|line| flight(line.expect("lines of UTF-8"))).collect()
}

fn flight(line: String) -> Flight {
    let fields: Value = serde_json::from_str(&line).expect("a line of JSON");
    let scheduled = fields["scheduled"].as_str().expect("every flight is scheduled");
    let scheduled = chrono::DateTime::parse_from_rfc3339(scheduled).expect("an ISO 8601 timestamp");
    let tailnum = fields["tailnum"].as_str().map(Into::into);
    Flight { scheduled_ms: scheduled.timestamp_millis(), tailnum, line }
}
