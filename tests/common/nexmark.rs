//! Nexmark's stream of auctions: people who register, auctions that they open, bids that others make.
//!
//! The events are those of the Nexmark benchmark as Flink's edition of it makes them: of fifty in a row one is a person,
//! three are auctions and 46 are bids; half of the bids go to the hottest of the last auctions, three quarters come from the
//! busiest of the last people, and a record is filled up to the size that the benchmark names. What is random is drawn
//! otherwise, so the values are not the same.
//!
//! Event `n` is a function of the settings and of `n`: no state, no order, so several threads may write a topic together. Nothing
//! is allocated but what the caller's buffer needs.

use std::io::Write;

/// Events per person, and what they are.
const EPOCH: u64 = 50;
const AUCTIONS: u64 = 3;

/// How many of the last people and auctions are drawn from, and how far beyond the last of them: some do not exist yet.
const ACTIVE_PEOPLE: u64 = 1_000;
const OPEN_AUCTIONS: u64 = 100;
const LEAD: u64 = 10;
/// One in so many people and auctions is a hot one.
const HOT: u64 = 100;

const FIRST_PERSON: u64 = 1_000;
const FIRST_AUCTION: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;

/// The bytes of an event as JSON: the 200, 500 and 100 that the benchmark gives the values, and the names of fields.
const PERSON_BYTES: usize = 320;
const AUCTION_BYTES: usize = 650;
const BID_BYTES: usize = 240;

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [(&str, &str); 10] = [
    ("Phoenix", "AZ"),
    ("Los Angeles", "CA"),
    ("San Francisco", "CA"),
    ("Boise", "ID"),
    ("Portland", "OR"),
    ("Bend", "OR"),
    ("Redmond", "WA"),
    ("Seattle", "WA"),
    ("Kent", "WA"),
    ("Cheyenne", "WY"),
];
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// What stream to make.
#[derive(Clone, Copy, Debug)]
pub struct Nexmark {
    pub seed: u64,
    /// The first event's time, in milliseconds since 1970.
    pub first_ms: i64,
    /// In event time.
    pub events_per_second: u64,
    /// An event may be behind the time that is due by up to so much.
    pub disorder_ms: u64,
}

impl Default for Nexmark {
    /// Ten thousand events a second from the beginning of 2020, in order.
    fn default() -> Self {
        Self { seed: 0, first_ms: 1_577_836_800_000, events_per_second: 10_000, disorder_ms: 0 }
    }
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub time_ms: i64,
    pub what: What,
    /// What else it has drawn: texts without a meaning.
    noise: Random,
}

#[derive(Clone, Copy, Debug)]
pub enum What {
    Person { id: u64, first_name: &'static str, last_name: &'static str, city: &'static str, state: &'static str },
    Auction { id: u64, initial_bid: u64, reserve: u64, expires_ms: i64, seller: u64, category: u64 },
    Bid { auction: u64, bidder: u64, price: u64, channel: Channel },
}

/// Where a bid comes from: one of few that many use, or one of many.
#[derive(Clone, Copy, Debug)]
pub enum Channel {
    Known(&'static str),
    Numbered(u64),
}

impl Nexmark {
    /// Event number `n`, from 0.
    pub fn event(&self, n: u64) -> Event {
        let mut random = Random::new(self.seed, n);
        let due = self.first_ms + (n * 1_000 / self.events_per_second) as i64;
        let time_ms = due - random.below(self.disorder_ms + 1) as i64;
        let (epoch, place) = (n / EPOCH, n % EPOCH);
        let last_person = epoch;
        // Of an epoch's first event on, its person is there, and its auctions come one by one behind.
        let last_auction = (epoch * AUCTIONS + place.min(AUCTIONS)).saturating_sub(1);
        let what = match place {
            0 => {
                let (city, state) = random.choose(&CITIES);
                let first_name = random.choose(&FIRST_NAMES);
                let last_name = random.choose(&LAST_NAMES);
                What::Person { id: FIRST_PERSON + epoch, first_name, last_name, city, state }
            }
            1..=AUCTIONS => {
                let seller = if random.below(4) > 0 { last_person / HOT * HOT } else { random.person(last_person) };
                let initial_bid = random.price();
                // As long as it takes for the auctions that are open at a time to be opened, on average.
                let open_ms = OPEN_AUCTIONS * EPOCH * 1_000 / AUCTIONS / self.events_per_second;
                What::Auction {
                    id: FIRST_AUCTION + last_auction,
                    initial_bid,
                    reserve: initial_bid + random.price(),
                    expires_ms: time_ms + 1 + random.below(2 * open_ms + 1) as i64,
                    seller: FIRST_PERSON + seller,
                    category: FIRST_CATEGORY + random.below(CATEGORIES),
                }
            }
            _ => {
                let auction = if random.below(2) > 0 { last_auction / HOT * HOT } else { random.auction(last_auction) };
                let bidder = if random.below(4) > 0 { last_person / HOT * HOT + 1 } else { random.person(last_person) };
                let channel = match random.below(2) {
                    0 => Channel::Known(random.choose(&CHANNELS)),
                    _ => Channel::Numbered(random.below(10_000)),
                };
                What::Bid {
                    auction: FIRST_AUCTION + auction,
                    bidder: FIRST_PERSON + bidder,
                    price: random.price(),
                    channel,
                }
            }
        };
        Event { time_ms, what, noise: random }
    }

    /// The first events.
    pub fn events(self, count: u64) -> impl Iterator<Item = Event> {
        (0..count).map(move |n| self.event(n))
    }
}

impl Event {
    /// Appends the event as a line of JSON without its end: `event_type`, and below `person`, `auction` or `bid` what it is.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut noise = self.noise;
        let begin = out.len();
        let write = |out: &mut Vec<u8>, text: std::fmt::Arguments| out.write_fmt(text).expect("a vector takes all");
        let size = match self.what {
            What::Person { id, first_name, last_name, city, state } => {
                write(out, format_args!(r#"{{"event_type":0,"person":{{"id":{id},"name":"{first_name} {last_name}","#));
                out.extend_from_slice(br#""emailAddress":""#);
                noise.letters(7, out);
                out.push(b'@');
                noise.letters(5, out);
                out.extend_from_slice(br#".com","creditCard":""#);
                for group in 0..4 {
                    let space = if group == 0 { "" } else { " " };
                    write(out, format_args!("{space}{:04}", noise.below(10_000)));
                }
                write(out, format_args!(r#"","city":"{city}","state":"{state}""#));
                PERSON_BYTES
            }
            What::Auction { id, initial_bid, reserve, expires_ms, seller, category } => {
                write(out, format_args!(r#"{{"event_type":1,"auction":{{"id":{id},"itemName":""#));
                noise.letters(20, out);
                out.extend_from_slice(br#"","description":""#);
                noise.letters(100, out);
                write(out, format_args!(r#"","initialBid":{initial_bid},"reserve":{reserve},"expires":""#));
                write_time(expires_ms, out);
                write(out, format_args!(r#"","seller":{seller},"category":{category}"#));
                AUCTION_BYTES
            }
            What::Bid { auction, bidder, price, channel } => {
                write(
                    out,
                    format_args!(r#"{{"event_type":2,"bid":{{"auction":{auction},"bidder":{bidder},"price":{price}"#),
                );
                match channel {
                    Channel::Known(name) => write(out, format_args!(r#","channel":"{name}""#)),
                    Channel::Numbered(number) => write(out, format_args!(r#","channel":"channel-{number}""#)),
                }
                out.extend_from_slice(br#","url":"https://www.nexmark.com/"#);
                noise.letters(5, out);
                out.extend_from_slice(br#"/item.htm?query=1""#);
                BID_BYTES
            }
        };
        out.extend_from_slice(br#","dateTime":""#);
        write_time(self.time_ms, out);
        out.extend_from_slice(br#"","extra":""#);
        noise.letters((begin + size).saturating_sub(out.len()), out);
        out.extend_from_slice(br#""}}"#);
    }

    /// The line as a string of its own.
    pub fn line(&self) -> String {
        let mut line = Vec::with_capacity(AUCTION_BYTES + 50);
        self.write(&mut line);
        String::from_utf8(line).expect("ASCII")
    }
}

/// As SQL writes it: `2020-01-01 00:00:00.000`.
fn write_time(time_ms: i64, out: &mut Vec<u8>) {
    let time = chrono::DateTime::from_timestamp_millis(time_ms).expect("a time in the years of the calendar");
    write!(out, "{}", time.format("%Y-%m-%d %H:%M:%S%.3f")).expect("a vector takes all");
}

/// SplitMix64: good enough for data, and it begins anywhere.
#[derive(Clone, Copy, Debug)]
struct Random(u64);

impl Random {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    fn new(seed: u64, n: u64) -> Self {
        // The numbers of neighbouring events must not be neighbours in one sequence.
        Self(Self(seed.wrapping_mul(Self::STEP) ^ n).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn choose<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len() as u64) as usize]
    }

    /// One of the last people, or of the next few.
    fn person(&mut self, last: u64) -> u64 {
        let active = (last + 1).min(ACTIVE_PEOPLE);
        last + 1 - active + self.below(active + LEAD)
    }

    /// One of the last auctions, or of the next few.
    fn auction(&mut self, last: u64) -> u64 {
        let first = last.saturating_sub(OPEN_AUCTIONS);
        first + self.below(last - first + 1 + LEAD)
    }

    /// Evenly over the orders of magnitude from 100 to 100,000,000.
    fn price(&mut self) -> u64 {
        let share = self.next() as f64 / u64::MAX as f64;
        (10_f64.powf(share * 6.0) * 100.0).round() as u64
    }

    fn letters(&mut self, count: usize, out: &mut Vec<u8>) {
        let mut left = count;
        while left > 0 {
            // Twelve letters of a number: 26 to the power of 12 is less than 2 to the power of 64.
            let mut bits = self.next();
            for _ in 0..left.min(12) {
                out.push(b'a' + (bits % 26) as u8);
                bits /= 26;
            }
            left = left.saturating_sub(12);
        }
    }
}
