//! A model of a broker's transactions, in memory: what a job sees of one, and all that can go wrong.
//!
//! One transactional id over three partitions: a log's progress, its state, and an output topic. A producer has an epoch,
//! and one that is not the youngest is fenced; readers see what is before the first open transaction and was not rolled
//! back; the ends of transactions take offsets, and come to the partitions after the producer has heard of them. The end of
//! a transaction can arrive late, and nothing tells it from the end of a later one of the same epoch; that is Kafka's flaw
//! (KAFKA-17754), and what a job must not be harmed by.
//!
//! Whether something goes wrong is asked of a source of chance at every call ([`Faults`]), so a seed is a history.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::connectors::JobLog;
use crate::error::{Error, Result};

/// The partitions that there are.
pub const PROGRESS: usize = 0;
pub const STATE: usize = 1;
pub const OUTPUT: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Open,
    Committed,
    RolledBack,
}

/// A partition: records with their transactions, by offset; an end of a transaction is `None`.
#[derive(Default)]
struct Partition {
    records: Vec<Option<(usize, Vec<u8>)>>,
    /// What is before this offset was deleted.
    start: usize,
}

/// What goes wrong, each of so many in a thousand calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The process dies.
    pub death: u32,
    /// The call fails, and nothing has happened.
    pub failure: u32,
    /// A commit fails; whether it happened is not known.
    pub unknown: u32,
    /// A transaction has taken too long and is rolled back.
    pub expiry: u32,
    /// The end of a transaction was sent twice: one is still under way.
    pub repeat: u32,
    /// A client does not notice that.
    pub unnoticed: bool,
    /// A commit is undone after it has been confirmed.
    pub lie: u32,
}

/// The kinds of faults.
#[derive(Clone, Copy)]
enum Fault {
    Death,
    Failure,
    Unknown,
    Expiry,
    Repeat,
    Lie,
}

/// How often which fault has happened, in the order of their kinds.
pub type Happened = [u64; 6];

/// See the module's head.
pub struct Broker {
    partitions: [Partition; 3],
    transactions: Vec<Status>,
    /// Of the youngest producer.
    epoch: u64,
    /// The transaction that has begun, and the partitions that it has touched.
    open: Option<(usize, [bool; 3])>,
    /// The transaction that has ended, and whose partitions have not heard of it.
    ending: Option<(usize, [bool; 3], Status)>,
    /// The epochs of producers whose commits are under way.
    late: Vec<u64>,
    pub faults: Faults,
    rng: StdRng,
    /// Faults by their kinds, for a summary.
    pub happened: Happened,
}

/// Clients share it.
pub type SharedBroker = Arc<Mutex<Broker>>;

impl Broker {
    /// An empty one.
    pub fn new(seed: u64, faults: Faults) -> SharedBroker {
        Arc::new(Mutex::new(Self {
            partitions: Default::default(),
            transactions: Vec::new(),
            epoch: 0,
            open: None,
            ending: None,
            late: Vec::new(),
            faults,
            rng: StdRng::seed_from_u64(seed),
            happened: Happened::default(),
        }))
    }

    fn chance(&mut self, kind: Fault, in_a_thousand: u32) -> bool {
        let happens = self.rng.random_range(0..1_000) < in_a_thousand;
        self.happened[kind as usize] += u64::from(happens);
        happens
    }

    /// Rolls back what is open; the next producer's epoch.
    fn init(&mut self) -> u64 {
        self.finish(Status::RolledBack);
        self.settle();
        self.epoch += 1;
        self.epoch
    }

    fn append(&mut self, epoch: u64, partition: usize, record: Vec<u8>) -> Result<(), Fenced> {
        if epoch != self.epoch {
            return Err(Fenced);
        }
        // A transaction begins when the one before has come to its end everywhere.
        self.settle();
        let next = self.transactions.len();
        let (transaction, touched) = self.open.get_or_insert((next, [false; 3]));
        touched[partition] = true;
        let transaction = *transaction;
        if transaction == next {
            self.transactions.push(Status::Open);
        }
        self.partitions[partition].records.push(Some((transaction, record)));
        Ok(())
    }

    /// What the end of a transaction does when it arrives: it ends whatever this epoch has begun.
    fn end(&mut self, epoch: u64, status: Status) -> Result<(), Fenced> {
        if epoch != self.epoch {
            return Err(Fenced);
        }
        self.finish(status);
        Ok(())
    }

    fn finish(&mut self, status: Status) {
        let Some((transaction, touched)) = self.open.take() else { return };
        self.settle();
        self.ending = Some((transaction, touched, status));
    }

    fn settle(&mut self) {
        let Some((transaction, touched, status)) = self.ending.take() else { return };
        self.transactions[transaction] = status;
        let touched = self.partitions.iter_mut().zip(touched).filter(|(_, touched)| *touched);
        touched.for_each(|(partition, _)| partition.records.push(None));
    }

    /// What happens by itself between two calls.
    fn pass_time(&mut self) {
        if !self.late.is_empty() && self.rng.random_bool(0.3) {
            let at = self.rng.random_range(0..self.late.len());
            let epoch = self.late.swap_remove(at);
            // To one that is fenced there is no answer that anybody waits for.
            let _ = self.end(epoch, Status::Committed);
        }
        if self.rng.random() {
            self.settle();
        }
        if self.open.is_some() && self.chance(Fault::Expiry, self.faults.expiry) {
            self.init();
        }
    }

    /// Whatever was under way arrives.
    pub fn come_to_rest(&mut self) {
        self.settle();
    }

    /// The last stable offset: that of the first record whose transaction is open, or the end.
    fn stable(&self, partition: usize) -> usize {
        let records = &self.partitions[partition].records;
        let is_open =
            |record: &Option<(usize, _)>| record.as_ref().is_some_and(|(t, _)| self.transactions[*t] == Status::Open);
        records.iter().position(is_open).unwrap_or(records.len())
    }

    /// What a reader of committed records sees from an offset on, also of what was deleted; and where it goes on.
    pub fn read(&self, partition: usize, from: usize) -> (Vec<(i64, &[u8])>, usize) {
        let end = self.stable(partition);
        let committed = |offset: usize| match self.partitions[partition].records[offset].as_ref()? {
            (t, record) if self.transactions[*t] == Status::Committed => Some((offset as i64, record.as_slice())),
            _ => None,
        };
        ((from..end).filter_map(committed).collect(), end.max(from))
    }
}

/// Somebody younger writes.
struct Fenced;

/// A producer, and what its process knows.
struct Client {
    epoch: u64,
    is_fenced: bool,
    is_disturbed: bool,
    is_dead: bool,
}

/// A job's log on the model, in the eyes of one process.
pub struct ModelLog {
    broker: SharedBroker,
    client: Mutex<Client>,
}

impl ModelLog {
    /// The records of progress, for one who fences nobody.
    pub fn look(broker: &SharedBroker) -> Vec<(i64, Vec<u8>)> {
        let broker = lock(broker);
        let (records, _) = broker.read(PROGRESS, broker.partitions[PROGRESS].start);
        records.into_iter().map(|(offset, record)| (offset, record.to_vec())).collect()
    }

    /// Takes the log over.
    pub fn open(broker: &SharedBroker) -> Result<Self> {
        let client = Client { epoch: 0, is_fenced: false, is_disturbed: false, is_dead: false };
        let this = Self { broker: Arc::clone(broker), client: Mutex::new(client) };
        this.renew()?;
        Ok(this)
    }

    /// Writes a row.
    pub fn write(&self, row: Vec<u8>) -> Result<()> {
        self.append(OUTPUT, row)
    }

    fn append(&self, partition: usize, record: Vec<u8>) -> Result<()> {
        let mut broker = self.call()?;
        let mut client = lock(&self.client);
        let done = broker.append(client.epoch, partition, record);
        client.heard(done)
    }

    /// What happens at every call.
    fn call(&self) -> Result<MutexGuard<'_, Broker>> {
        let mut broker = lock(&self.broker);
        broker.pass_time();
        let (death, failure) = (broker.faults.death, broker.faults.failure);
        if lock(&self.client).is_dead || broker.chance(Fault::Death, death) {
            return Err(self.dies());
        }
        if broker.chance(Fault::Failure, failure) {
            return Err(away());
        }
        Ok(broker)
    }

    fn dies(&self) -> Error {
        lock(&self.client).is_dead = true;
        Error::bug(DEATH)
    }

    fn committed(&self, partition: usize, from: usize) -> Result<Vec<(i64, Vec<u8>)>> {
        let broker = self.call()?;
        let (records, _) = broker.read(partition, from.max(broker.partitions[partition].start));
        Ok(records.into_iter().map(|(offset, record)| (offset, record.to_vec())).collect())
    }
}

impl Client {
    fn heard(&mut self, answer: Result<(), Fenced>) -> Result<()> {
        answer.map_err(|Fenced| {
            self.is_fenced = true;
            Error::upstream("the producer is fenced").transient()
        })
    }
}

/// Whether an error is that the process has died.
pub fn is_death(error: &Error) -> bool {
    error.message == DEATH
}

const DEATH: &str = "the process has died";

fn away() -> Error {
    Error::upstream("the broker is away").transient()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl JobLog for ModelLog {
    fn read(&self) -> Result<Vec<(i64, Vec<u8>)>> {
        self.committed(PROGRESS, 0)
    }

    fn is_cut(&self) -> Result<bool> {
        Ok(0 < self.call()?.partitions[PROGRESS].start)
    }

    fn read_state(&self, from: i64, take: &mut dyn FnMut(i64, &[u8]) -> Result<()>) -> Result<()> {
        let chunks = self.committed(STATE, usize::try_from(from).unwrap_or(0))?;
        chunks.iter().try_for_each(|(offset, chunk)| take(*offset, chunk))
    }

    fn write_state(&self, chunk: Vec<u8>) -> Result<()> {
        self.append(STATE, chunk)
    }

    fn commit(&self, record: Vec<u8>) -> Result<()> {
        self.append(PROGRESS, record)?;
        let mut broker = self.call()?;
        let epoch = lock(&self.client).epoch;
        let Faults { death, unknown, repeat, unnoticed, lie, .. } = broker.faults;
        if broker.chance(Fault::Unknown, unknown) {
            if broker.rng.random() {
                // Whether it was fenced or not, nobody hears of it.
                let _ = broker.end(epoch, Status::Committed);
            }
            return Err(away());
        }
        let status = if broker.chance(Fault::Lie, lie) { Status::RolledBack } else { Status::Committed };
        let done = broker.end(epoch, status);
        if broker.chance(Fault::Death, death) {
            return Err(self.dies());
        }
        let mut client = lock(&self.client);
        if broker.chance(Fault::Repeat, repeat) {
            broker.late.push(epoch);
            client.is_disturbed = !unnoticed;
        }
        client.is_disturbed |= status == Status::RolledBack && !unnoticed;
        client.heard(done)
    }

    fn ends(&self) -> Result<[i64; 2]> {
        let broker = self.call()?;
        Ok([PROGRESS, STATE].map(|partition| broker.stable(partition) as i64))
    }

    fn delete_before(&self, offsets: [i64; 2]) {
        // It may never get there.
        let Ok(mut broker) = self.call() else { return };
        for (partition, offset) in [PROGRESS, STATE].into_iter().zip(offsets) {
            let start = &mut broker.partitions[partition].start;
            *start = usize::try_from(offset).unwrap_or(0).max(*start);
        }
    }

    fn is_disturbed(&self) -> bool {
        std::mem::take(&mut lock(&self.client).is_disturbed)
    }

    fn renew(&self) -> Result<()> {
        let epoch = self.call()?.init();
        let mut client = lock(&self.client);
        client.epoch = epoch;
        client.is_fenced = false;
        Ok(())
    }

    fn is_fenced(&self) -> bool {
        lock(&self.client).is_fenced
    }
}
