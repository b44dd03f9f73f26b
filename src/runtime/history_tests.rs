//! What a job gives out, whatever happens: processes that die, sleep, are fenced or do not know whether they have
//! committed, over a [model](super::broker_model) of a broker.
//!
//! A seed makes records, faults, and an order of what processes do, one step at a time: there are no threads and no clock.
//! The processes have the real ledger, the real log of progress and checkpoints, and the real operators. In the end every
//! row is outside once, as if nothing had happened; whoever reads meanwhile sees no row that is not, and none twice; the
//! numbers of boundaries have no gap.
//!
//! ```text
//! cargo test --release --lib history_tests                                       1000 histories
//! TIDEMILL_CASES=100000 cargo test --release --lib history_tests -- --nocapture  more, and what happened in them
//! TIDEMILL_SEED=17 cargo test --release --lib history_tests                      one seed
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::broker_model::{Broker, Faults, Happened, ModelLog, OUTPUT, PROGRESS, SharedBroker, is_death};
use super::events::ClockEvents;
use super::identity::Identity;
use super::ledger::{Ledger, check_not_younger};
use super::metrics::{JobMetrics, Layout, ReadCounts};
use super::progress::{Author, Position, history, last_author};
use super::query_test::rows::Row;
use super::rehearsal::Rehearsal;
use super::session::Restore;
use super::shared::Reached;
use super::tests::{Record, columns, plan};
use crate::connectors::{PartitionId, PartitionPlan, Source, SourceReader, SourceRows};
use crate::error::{Error, Result};
use crate::exec::{Boundary, End};
use crate::plan::StreamPlan;
use crate::state::Piece;

/// Histories of a run that nobody asked for more.
const CASES: u64 = 1_000;

/// Steps of a history, after which it must have come to its end.
const STEPS_MAX: u32 = 100_000;

/// State of panes, rows that are kept for their windows, rows that leave at once.
const QUERIES: [&str; 3] = [
    "INSERT INTO o SELECT window_start, k, count(*), sum(n)
     FROM HOP(a, ts, INTERVAL '0.020' SECOND, INTERVAL '0.060' SECOND) GROUP BY window_start, window_end, k",
    "INSERT INTO o SELECT window_start, k, n, rn FROM (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, k ORDER BY n DESC) AS rn
        FROM TUMBLE(a, ts, INTERVAL '0.050' SECOND)) WHERE rn <= 2",
    "INSERT INTO o SELECT ts, k, n, -n FROM a WHERE n % 3 <> 0",
];

/// What all processes of a history have in common.
struct World {
    plan: Arc<StreamPlan>,
    input: Input,
    broker: SharedBroker,
    /// Between checkpoints: always, or never.
    checkpoint_interval: Duration,
}

/// Per partition, its records.
#[derive(Clone)]
struct Input(Vec<Vec<Record>>);

/// Rows, each as often as it is there.
type Rows = BTreeMap<Vec<u8>, usize>;

impl Input {
    fn new(rng: &mut StdRng) -> Self {
        let partition = |rng: &mut StdRng| {
            let (count, mut offset, mut now) = (rng.random_range(1..25), 0, rng.random_range(0..100_i64));
            let record = |_| {
                offset += rng.random_range(1..3);
                now += rng.random_range(0..12);
                let key = rng.random_range(0..3).to_string();
                Record { offset, ts: now - rng.random_range(0..40), key: Some(key), n: rng.random_range(0..50) }
            };
            (0..count).map(record).collect()
        };
        Self((0..rng.random_range(1..4)).map(|_| partition(rng)).collect())
    }

    /// Gives a job the records of a partition from one to another.
    fn feed(&self, job: &mut Rehearsal, partition: usize, range: Range<usize>) -> Result<()> {
        let records = &self.0[partition][range];
        let rows = SourceRows {
            columns: columns(job.source(0).1, records),
            offsets: records.iter().map(|r| r.offset).collect(),
            records: records.len() as u64,
            ..SourceRows::default()
        };
        job.read(0, partition, &rows)
    }

    fn next_offset(&self, partition: usize, read: usize) -> i64 {
        self.0[partition][..read].last().map_or(0, |record| record.offset + 1)
    }
}

/// Only its partitions are asked for.
impl Source for Input {
    fn partitions(&self) -> &[PartitionPlan] {
        &[]
    }

    fn partition_id(&self, index: usize) -> Option<PartitionId> {
        Some(PartitionId { topic: "a".into(), partition: i32::try_from(index).ok()? })
    }

    fn reader(&self, _: &[usize]) -> Result<Box<dyn SourceReader>> {
        Err(Error::bug("records are handed in"))
    }
}

/// The rows that a job has given out, as records.
fn rows_of(job: &mut Rehearsal) -> Result<(Vec<Vec<u8>>, Vec<(usize, Piece)>)> {
    let given = job.take();
    let mut rows = Vec::new();
    for (sink, batch) in given.rows {
        let visible = job.plan().nodes[job.sinks()[sink]].visible.fields().len();
        let given = Row::of_columns(&batch.columns()[..visible], batch.num_rows())?;
        rows.extend(given.into_iter().map(|row| row.cells.join(" ").into_bytes()));
    }
    Ok((rows, given.state))
}

/// What a job gives out when nothing happens.
fn undisturbed(plan: &Arc<StreamPlan>, input: &Input) -> Result<Rows> {
    let mut job = Rehearsal::new(Arc::clone(plan), &[input.0.len()], 1, 0)?;
    for (partition, records) in input.0.iter().enumerate() {
        input.feed(&mut job, partition, 0..records.len())?;
        job.stage(0, partition).set_ended(partition);
    }
    job.boundary(&Boundary { sequence: 1, clock_ms: 0, checkpoint: None, end: End::Finished }, &mut |_| 0)?;
    let mut rows = Rows::new();
    rows_of(&mut job)?.0.into_iter().for_each(|row| *rows.entry(row).or_default() += 1);
    Ok(rows)
}

/// A process, which takes the job up again after what is only about the moment.
struct Process {
    /// Who it was when it took the job up last.
    own: Author,
    running: Option<Running>,
}

/// An attempt.
struct Running {
    log: Arc<ModelLog>,
    ledger: Ledger,
    job: Rehearsal,
    /// Per partition, records that were read.
    read: Vec<usize>,
    sequence: u64,
    clock_ms: i64,
    /// Rows that have come out and are not written.
    rows: VecDeque<Vec<u8>>,
    /// A boundary that is to be committed when they are.
    boundary: Option<(Boundary, Vec<(usize, Piece)>)>,
}

/// What becomes of a process at a step.
enum Became {
    Alive,
    /// It has ended as it should, or died.
    Gone,
    TakenOver,
}

impl Process {
    /// Does a step. The error is one that ends a job for good.
    fn step(&mut self, world: &World, rng: &mut StdRng) -> Result<Became> {
        let was_new = self.own.incarnation == 0;
        let done = match &mut self.running {
            None => self.start(world, rng),
            Some(running) => running.step(world, rng).map_err(|error| running.ledger.explain(error)),
        };
        match done {
            Ok(true) => Ok(Became::Alive),
            Ok(false) => Ok(Became::Gone),
            Err(error) if is_death(&error) => Ok(Became::Gone),
            // Whoever starts a job is told that it does not start.
            Err(error) if error.is_transient && was_new => Ok(Became::Gone),
            Err(error) if error.is_transient => {
                self.running = None;
                Ok(Became::Alive)
            }
            Err(error) if error.message.contains("a younger process has taken over") => Ok(Became::TakenOver),
            Err(error) => Err(error),
        }
    }

    /// Takes the job up; `false` if there is nothing to do.
    fn start(&mut self, world: &World, rng: &mut StdRng) -> Result<bool> {
        let World { plan, input, broker, checkpoint_interval } = world;
        let was_new = self.own.incarnation == 0;
        if !was_new {
            check_not_younger("j", self.own, &ModelLog::look(broker))?;
        }
        let log = Arc::new(ModelLog::open(broker)?);
        let identity = Identity::of(plan, "");
        let of_ledger = Arc::clone(&log);
        let (mut ledger, restored) =
            Ledger::open("j", "log", of_ledger, identity, Restore::Strict, *checkpoint_interval, &mut self.own)?;
        let (partitions, workers) = ([input.0.len()], rng.random_range(1..4));
        let mut read = vec![0; input.0.len()];
        let Some(restored) = restored else {
            if !was_new {
                return Ok(false);
            }
            let plan_of = |index| PartitionPlan {
                id: input.partition_id(index).expect("few"),
                start: 0,
                end: None,
                empty_at_start: false,
            };
            ledger.begin(0, vec![(0..input.0.len()).map(plan_of).collect()])?;
            let job = Rehearsal::new(Arc::clone(plan), &partitions, workers, 0)?;
            self.running = Some(Running::new(log, ledger, job, read, 0, 0));
            return Ok(true);
        };
        let from = &restored.beginning;
        let state = ledger.read_state(from, None)?;
        let mut job = match from.boundary {
            0 => Rehearsal::new(Arc::clone(plan), &partitions, workers, from.clock_ms)?,
            _ => Rehearsal::restored(Arc::clone(plan), &partitions, workers, from.clock_ms, state, None)?,
        };
        let upto = |position: &Position| {
            input.0[position.index].iter().take_while(|r| r.offset < position.next_offset).count()
        };
        if 0 < from.boundary {
            for start in &from.sources[0] {
                job.stage(0, start.position.index).advance_watermark(start.position.index, start.position.watermark);
                read[start.position.index] = upto(&start.position);
            }
        }
        let mut clock_ms = from.clock_ms;
        for recorded in &restored.boundaries {
            for position in &recorded.positions[0] {
                let (partition, to) = (position.index, upto(position));
                input.feed(&mut job, partition, read[partition]..to)?;
                read[partition] = to;
            }
            clock_ms = recorded.clock_ms;
            let boundary = Boundary { sequence: recorded.sequence, clock_ms, checkpoint: None, end: End::GoesOn };
            job.boundary(&boundary, &mut |n| rng.random_range(0..n))?;
        }
        // It is outside.
        job.take();
        self.running = Some(Running::new(log, ledger, job, read, restored.last(), clock_ms));
        Ok(true)
    }
}

impl Running {
    fn new(log: Arc<ModelLog>, ledger: Ledger, job: Rehearsal, read: Vec<usize>, sequence: u64, clock_ms: i64) -> Self {
        Self { log, ledger, job, read, sequence, clock_ms, rows: VecDeque::new(), boundary: None }
    }

    /// Reads, writes, or commits; `false` once the job has finished.
    fn step(&mut self, world: &World, rng: &mut StdRng) -> Result<bool> {
        let input = &world.input;
        if let Some(row) = self.rows.pop_front() {
            self.log.write(row)?;
        } else if let Some((boundary, state)) = self.boundary.take() {
            self.commit(world, &boundary, state)?;
            return Ok(boundary.end == End::GoesOn);
        } else {
            let left: Vec<usize> = (0..self.read.len()).filter(|&p| self.read[p] < input.0[p].len()).collect();
            match left.choose(rng) {
                Some(&partition) if rng.random_bool(0.6) => {
                    let from = self.read[partition];
                    let to = rng.random_range(from + 1..=input.0[partition].len().min(from + 8));
                    input.feed(&mut self.job, partition, from..to)?;
                    self.read[partition] = to;
                }
                some => self.call(if some.is_none() { End::Finished } else { End::GoesOn }, rng)?,
            }
            let (rows, state) = rows_of(&mut self.job)?;
            self.rows.extend(rows);
            if let Some((_, of_boundary)) = &mut self.boundary {
                *of_boundary = state;
            }
        }
        Ok(true)
    }

    fn call(&mut self, end: End, rng: &mut StdRng) -> Result<()> {
        self.sequence += 1;
        self.clock_ms += rng.random_range(0..20);
        if end == End::Finished {
            (0..self.read.len()).for_each(|partition| self.job.stage(0, partition).set_ended(partition));
        }
        let checkpoint = self.ledger.checkpoint_due(super::clock::now(), end);
        let boundary = Boundary { sequence: self.sequence, clock_ms: self.clock_ms, checkpoint, end };
        self.job.boundary(&boundary, &mut |n| rng.random_range(0..n))?;
        self.boundary = Some((boundary, Vec::new()));
        Ok(())
    }

    fn commit(&mut self, world: &World, boundary: &Boundary, state: Vec<(usize, Piece)>) -> Result<()> {
        let position = |(index, &read): (usize, &usize)| Position {
            index,
            next_offset: world.input.next_offset(index, read),
            watermark: self.job.stage(0, index).watermark(index),
            idle: false,
            away: false,
            untouched: read == 0,
            asleep: false,
        };
        let positions = self.read.iter().enumerate().map(position).collect();
        let reached = vec![Reached { positions, counts: ReadCounts::default() }];
        let (metrics, source) = (JobMetrics::new(Layout::default()), Arc::new(world.input.clone()));
        self.ledger.commit(boundary, &ClockEvents::default(), reached, state, &metrics, &[source])
    }
}

/// Reads the output while things happen.
#[derive(Default)]
struct Reader {
    position: usize,
    rows: Rows,
}

impl Reader {
    fn read(&mut self, broker: &Broker, want: &Rows) -> Result<(), String> {
        let (rows, next) = broker.read(OUTPUT, self.position);
        self.position = next;
        for (offset, row) in rows {
            let count = self.rows.entry(row.to_vec()).or_default();
            *count += 1;
            let wanted = want.get(row).copied().unwrap_or(0);
            if wanted < *count {
                let row = String::from_utf8_lossy(row);
                return Err(format!("offset {offset} of the output is row {row} for the {count}. time, of {wanted}"));
            }
        }
        Ok(())
    }
}

/// The numbers of all boundaries that were ever committed.
fn check_numbers(broker: &Broker) -> Result<(), String> {
    let mut last = 0;
    for (offset, record) in broker.read(PROGRESS, 0).0 {
        let record: serde_json::Value = serde_json::from_slice(record).map_err(|e| e.to_string())?;
        if record["kind"] != "boundary" {
            continue;
        }
        let sequence = record["sequence"].as_u64();
        if sequence != Some(last + 1) {
            return Err(format!("a gap: offset {offset} of the progress is boundary {sequence:?}, after {last}"));
        }
        last += 1;
    }
    Ok(())
}

/// Lives through a history; the error is what should not have happened. Answers what has.
fn live(plan: &Arc<StreamPlan>, faults: Faults, seed: u64) -> Result<Happened, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let input = Input::new(&mut rng);
    let want = undisturbed(plan, &input).map_err(|e| e.to_string())?;
    let broker = Broker::new(rng.random(), faults);
    let checkpoint_interval = *[Duration::ZERO, Duration::from_secs(1 << 20)].choose(&mut rng).expect("some");
    let world = World { plan: Arc::clone(plan), input, broker, checkpoint_interval };
    let ledger_says = |error: Error| format!("the job has ended with: {error}");
    let is_finished = || {
        world.broker.lock().unwrap().come_to_rest();
        let history = history("log", "j", &ModelLog::look(&world.broker)).map_err(ledger_says)?;
        Ok::<_, String>(history.unfinished.is_none() && 0 < history.author.incarnation)
    };
    let (mut processes, mut reader): (Vec<Process>, Reader) = Default::default();
    let troubled = rng.random_range(0..300);
    for step in 0..STEPS_MAX {
        if step == troubled {
            world.broker.lock().unwrap().faults = Faults::default();
        }
        let is_twin = step < troubled && rng.random_bool(0.02);
        let mut at = rng.random_range(0..processes.len().max(1));
        if processes.is_empty() || is_twin {
            match is_finished()? {
                // It takes the job up at once: if that had finished meanwhile, it would begin again.
                false => {
                    at = processes.len();
                    processes.push(Process { own: Author::of_process(1 + u64::from(step)), running: None });
                }
                true if processes.is_empty() => break,
                true => {}
            }
        }
        match processes[at].step(&world, &mut rng).map_err(ledger_says)? {
            Became::Alive => {}
            Became::Gone => drop(processes.swap_remove(at)),
            Became::TakenOver => {
                let own = processes.swap_remove(at).own;
                if !own.is_followed_by(last_author(&ModelLog::look(&world.broker))) {
                    return Err(format!("{own:?} gave up, and there is no younger one"));
                }
            }
        }
        if rng.random_bool(0.3) {
            reader.read(&world.broker.lock().unwrap(), &want)?;
        }
    }
    let mut broker = world.broker.lock().unwrap();
    broker.come_to_rest();
    check_numbers(&broker)?;
    reader.read(&broker, &want)?;
    if reader.rows != want {
        let missing: Vec<_> = want.iter().filter(|(row, count)| reader.rows.get(*row) != Some(count)).collect();
        return Err(format!("{} rows are not outside: {missing:?}", missing.len()));
    }
    Ok(broker.happened)
}

/// Faults of a history that must do no harm, some of them often.
fn faults(seed: u64) -> Faults {
    let mut rng = StdRng::seed_from_u64(!seed);
    let mut of = |rates: [u32; 3]| *rates.choose(&mut rng).expect("some");
    Faults {
        death: of([0, 5, 40]),
        failure: of([0, 5, 40]),
        unknown: of([0, 50, 200]),
        expiry: of([0, 5, 40]),
        repeat: of([0, 50, 300]),
        lie: of([0, 0, 50]),
        unnoticed: false,
    }
}

/// Lives through histories; answers how often what has happened, and what should not have, by seed.
fn live_all(seeds: Range<u64>, faults: fn(u64) -> Faults) -> (Happened, BTreeMap<u64, String>) {
    let next = AtomicU64::new(seeds.start);
    let all = Mutex::new((Happened::default(), BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let plans = QUERIES.map(|query| Arc::new(plan(query)));
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seeds.end <= seed {
                        return;
                    }
                    let live = || live(&plans[seed as usize % plans.len()], faults(seed), seed);
                    let became = catch_unwind(AssertUnwindSafe(live)).unwrap_or_else(|_| Err("a panic".to_owned()));
                    let mut all = all.lock().unwrap();
                    match became {
                        Ok(happened) => all.0.iter_mut().zip(happened).for_each(|(sum, more)| *sum += more),
                        Err(why) => _ = all.1.insert(seed, why),
                    }
                }
            });
        }
    });
    all.into_inner().unwrap()
}

#[test]
fn whatever_happens_each_row_is_outside_once() {
    let number = |name: &str| {
        std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let seeds = match (number("TIDEMILL_SEED"), number("TIDEMILL_CASES")) {
        (Some(seed), _) => seed..seed + 1,
        (None, cases) => 0..cases.unwrap_or(CASES),
    };
    let count = seeds.end - seeds.start;
    let (happened, failed) = live_all(seeds, faults);
    let [deaths, failures, unknown, expired, repeated, undone] = happened;
    println!(
        "{count} histories: {deaths} deaths, {failures} failed calls, {unknown} commits of which nothing is known, {undone} \
         undone, {expired} transactions given up, {repeated} ends under way twice"
    );
    if let Some((seed, why)) = failed.first_key_value() {
        panic!(
            "{} of {count} histories came to a bad end; seed {seed}: {why}\n\
             TIDEMILL_SEED={seed} cargo test --release --lib history_tests",
            failed.len()
        );
    }
    assert!(count == 1 || [deaths, failures, unknown, expired, repeated, undone].iter().all(|n| count / 10 < *n));
}

/// The model knows the harm that a late end of a transaction does, and a job is saved from it by noticing that there may be
/// one: then it goes on as a new producer.
#[test]
fn a_late_end_does_harm_where_nobody_notices_that_it_is_late() {
    let noticed = |_| Faults { death: 40, repeat: 300, ..Faults::default() };
    let unnoticed = |_| Faults { death: 40, repeat: 300, unnoticed: true, ..Faults::default() };
    assert_eq!(live_all(0..200, noticed).1, BTreeMap::new());
    let (_, failed) = live_all(0..200, unnoticed);
    assert!(failed.values().any(|why| why.contains("of the output is row")), "{failed:?}");
}

/// A commit that was undone, although it was confirmed, is made again or found: by the numbers of the boundaries, or because
/// state is missing. It is never passed over.
#[test]
fn a_commit_that_is_undone_leaves_a_gap_that_is_noticed() {
    let (_, failed) = live_all(0..200, |_| Faults { lie: 30, unnoticed: true, death: 10, ..Faults::default() });
    assert!(!failed.is_empty());
    for (seed, why) in failed {
        assert!(why.contains("the job has ended with") || why.contains("a gap"), "seed {seed}: {why}");
    }
}
