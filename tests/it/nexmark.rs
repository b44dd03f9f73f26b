//! Nexmark's queries over its events on a real broker, against what their texts mean, computed here by hand.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::broker::{repository, shared};
use crate::common::nexmark::{Event, Nexmark, What};
use crate::common::program::tidemill;
use crate::common::records::Message;

const EVENTS: u64 = 60_000;
const PARTITIONS: u64 = 4;

/// The watermark's delay in tests/nexmark/tables.sql, and the length of its windows, sessions' gaps and slides.
const DELAY_MS: i64 = 4_000;
const SIZE_MS: i64 = 10_000;
const SLIDE_MS: i64 = 2_000;

/// A minute and a half of events.
const IN_TIME: Nexmark =
    Nexmark { seed: 1, first_ms: 1_577_836_800_000, events_per_second: 700, disorder_ms: DELAY_MS as u64 };
/// Some events are behind by more than the watermark waits for, so that they are late for some windows, or for all.
const PARTLY_LATE: Nexmark = Nexmark { seed: 2, disorder_ms: 4 * DELAY_MS as u64, ..IN_TIME };

/// An event and its partition's watermark before it.
struct Seen {
    event: Event,
    watermark: i64,
}

impl Seen {
    /// The starts of the windows that hold the event and had not been closed by its partition.
    fn windows(&self, slide_ms: i64) -> impl Iterator<Item = i64> {
        let Self { event: Event { time_ms, .. }, watermark } = *self;
        let last = time_ms.div_euclid(slide_ms);
        let first = (time_ms - SIZE_MS).div_euclid(slide_ms) + 1;
        (first..=last).map(move |k| k * slide_ms).filter(move |start| watermark < start + SIZE_MS - 1)
    }
}

/// The events as their partitions hold them: event n is in partition n modulo their number.
fn seen(nexmark: Nexmark) -> Vec<Seen> {
    let mut watermarks = [i64::MIN; PARTITIONS as usize];
    let see = |(n, event): (usize, Event)| {
        let watermark = &mut watermarks[n % PARTITIONS as usize];
        let before = *watermark;
        *watermark = before.max(event.time_ms - DELAY_MS);
        Seen { event, watermark: before }
    };
    nexmark.events(EVENTS).enumerate().map(see).collect()
}

/// What a query gives, as lines of JSON in order.
fn rows(nexmark: Nexmark, query: &str) -> Vec<String> {
    let broker = shared();
    let topic = broker.topic("nexmark", PARTITIONS as i32);
    let message = |(n, event): (usize, Event)| Message::new(event.line()).partition((n as u64 % PARTITIONS) as i32);
    broker.produce(&topic, nexmark.events(EVENTS).enumerate().map(message));
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("rows");
    let read = |name: &str| std::fs::read_to_string(repository().join("tests/nexmark").join(name)).expect("a file");
    let sink = format!("'connector' = 'filesystem', 'path' = '{}', 'format' = 'json'", output.display());
    let script = format!("{}\n{}", read("tables.sql"), read(query));
    let script = script.replace("'topic' = 'nexmark'", &format!("'topic' = '{topic}'"));
    let script = script.replace("'connector' = 'blackhole'", &sink);
    let file = directory.path().join("query.sql");
    std::fs::write(&file, script).expect("a file");
    let finished = tidemill(&["-b", broker.addresses(), "run", file.to_str().expect("UTF-8")]);
    assert_eq!(finished.code, 0, "{finished:#?}");
    let mut lines: Vec<_> = std::fs::read_to_string(&output).expect("rows").lines().map(Into::into).collect();
    lines.sort_unstable();
    lines
}

fn time(time_ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(time_ms).expect("a time");
    // As JSON has times: with as many digits of a second as there are.
    let (seconds, fraction) = (time.format("%Y-%m-%d %H:%M:%S"), format!(".{:03}", time_ms.rem_euclid(1_000)));
    format!("{seconds}{}", fraction.trim_end_matches('0').trim_end_matches('.'))
}

fn assert_same(query: &str, nexmark: Nexmark, mut want: Vec<String>) {
    want.sort_unstable();
    let got = rows(nexmark, query);
    assert!(!want.is_empty(), "{query} has an answer");
    let first = got.iter().zip(&want).find(|(got, want)| got != want);
    assert!(first.is_none() && got.len() == want.len(), "{query}: {} rows, not {}: {first:?}", got.len(), want.len());
}

/// The windows' auctions and how often each was bid for, in time.
fn bids_per_window(events: &[Seen]) -> BTreeMap<i64, BTreeMap<u64, u64>> {
    let mut windows: BTreeMap<i64, BTreeMap<u64, u64>> = BTreeMap::new();
    for seen in events {
        if let What::Bid { auction, .. } = seen.event.what {
            for start in seen.windows(SLIDE_MS) {
                *windows.entry(start).or_default().entry(auction).or_default() += 1;
            }
        }
    }
    windows
}

fn hot_items(nexmark: Nexmark) -> Vec<String> {
    let windows = bids_per_window(&seen(nexmark));
    let rows = windows.values().flat_map(|auctions| {
        let most = *auctions.values().max().expect("a window holds a bid");
        let best = auctions.iter().filter(move |(_, num)| **num == most);
        best.map(|(auction, num)| format!(r#"{{"auction":{auction},"num":{num}}}"#))
    });
    rows.collect()
}

fn highest_bids(nexmark: Nexmark) -> Vec<String> {
    let mut windows: BTreeMap<i64, (u64, Vec<String>)> = BTreeMap::new();
    for seen in seen(nexmark) {
        let What::Bid { auction, bidder, price, .. } = seen.event.what else { continue };
        for start in seen.windows(SIZE_MS) {
            let best = windows.entry(start).or_default();
            if price > best.0 {
                *best = (price, Vec::new());
            }
            if price == best.0 {
                let line: serde_json::Value = serde_json::from_str(&seen.event.line()).expect("JSON");
                let (at, extra) = (time(seen.event.time_ms), &line["bid"]["extra"]);
                best.1.push(format!(
                    r#"{{"auction":{auction},"bidder":{bidder},"price":{price},"dateTime":"{at}","extra":{extra}}}"#
                ));
            }
        }
    }
    windows.into_values().flat_map(|(_, lines)| lines).collect()
}

fn new_users(nexmark: Nexmark) -> Vec<String> {
    let (mut people, mut sellers) = (BTreeSet::new(), BTreeSet::new());
    for seen in seen(nexmark) {
        for start in seen.windows(SIZE_MS) {
            match seen.event.what {
                What::Person { id, first_name, last_name, .. } => {
                    people.insert((start, id, format!("{first_name} {last_name}")));
                }
                What::Auction { seller, .. } => {
                    sellers.insert((start, seller));
                }
                What::Bid { .. } => {}
            }
        }
    }
    let selling = people.into_iter().filter(|(start, id, _)| sellers.contains(&(*start, *id)));
    selling.map(|(start, id, name)| format!(r#"{{"id":{id},"name":"{name}","stime":"{}"}}"#, time(start))).collect()
}

fn sessions(nexmark: Nexmark) -> Vec<String> {
    let mut times: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for Seen { event, watermark } in seen(nexmark) {
        if let What::Bid { bidder, .. } = event.what
            && watermark < event.time_ms
        {
            times.entry(bidder).or_default().push(event.time_ms);
        }
    }
    let mut lines = Vec::new();
    for (bidder, mut times) in times {
        times.sort_unstable();
        // Sessions that touch are one.
        for session in times.chunk_by(|one, next| *next <= one + SIZE_MS) {
            let (start, end) = (time(session[0]), time(session[session.len() - 1] + SIZE_MS));
            let count = session.len();
            lines.push(format!(r#"{{"bidder":{bidder},"bid_count":{count},"starttime":"{start}","endtime":"{end}"}}"#));
        }
    }
    lines
}

#[test]
fn events_come_in_the_proportions_of_the_benchmark_and_only_as_late_as_asked_for() {
    let mut kinds = [0; 3];
    let (mut greatest, mut behind) = (i64::MIN, 0);
    for (n, event) in PARTLY_LATE.events(EVENTS).enumerate() {
        kinds[match event.what {
            What::Person { .. } => 0,
            What::Auction { .. } => 1,
            What::Bid { .. } => 2,
        }] += 1;
        greatest = greatest.max(event.time_ms);
        behind = behind.max(greatest - event.time_ms);
        let line = event.line();
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(parsed.as_object().expect("an object").len(), 2, "{line}");
        // An event does not depend on those before it.
        assert_eq!(PARTLY_LATE.event(n as u64).line(), line);
    }
    assert_eq!(kinds, [EVENTS / 50, EVENTS / 50 * 3, EVENTS / 50 * 46]);
    assert!((DELAY_MS + 1..=PARTLY_LATE.disorder_ms as i64).contains(&behind), "{behind}");
}

#[test]
fn q5_the_hottest_items() {
    assert_same("q5.sql", IN_TIME, hot_items(IN_TIME));
    assert_same("q5.sql", PARTLY_LATE, hot_items(PARTLY_LATE));
}

#[test]
fn q7_the_highest_bids() {
    assert_same("q7.sql", IN_TIME, highest_bids(IN_TIME));
    assert_same("q7.sql", PARTLY_LATE, highest_bids(PARTLY_LATE));
}

#[test]
fn q8_new_users_who_sell() {
    assert_same("q8.sql", IN_TIME, new_users(IN_TIME));
    assert_same("q8.sql", PARTLY_LATE, new_users(PARTLY_LATE));
}

#[test]
fn q11_sessions_of_bidders() {
    assert_same("q11.sql", IN_TIME, sessions(IN_TIME));
    assert_same("q11.sql", PARTLY_LATE, sessions(PARTLY_LATE));
}

#[test]
fn q12_windows_of_the_clock_hold_every_bid() {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for line in rows(PARTLY_LATE, "q12.sql") {
        let row: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let number = |name: &str| row[name].as_u64().expect("a whole number");
        *counts.entry(number("bidder")).or_default() += number("bid_count");
    }
    let mut want: BTreeMap<u64, u64> = BTreeMap::new();
    for event in PARTLY_LATE.events(EVENTS) {
        if let What::Bid { bidder, .. } = event.what {
            *want.entry(bidder).or_default() += 1;
        }
    }
    assert_eq!(counts, want);
}
