//! The transactions of a job: rows of all its sinks, and what the job has come to, become visible together or not at all.
//!
//! One producer per job. Its transactional id is the name of the job's [*log*](super::log), a topic with a record of
//! progress per transaction: so whoever begins to write to a log first fences everybody who wrote to it before, and what a
//! crash has left open is rolled back at once. The log is read to its last stable offset, and only what is in it counts:
//! what the client believed about its last commit is never asked.
//!
//! A request that got no answer may reach the broker late, and librdkafka's transactions have no number that would tell a
//! late end of one from the end of the next. So after a disturbance nothing goes on but by a new producer, whose epoch
//! makes all that is late invalid ([`JobLog::renew`]). Nor does anybody wait for ever: the coordinator gives a transaction
//! up that lasts too long, and soon after that nobody waits for it either ([`TransactionalProducer`]).
//!
//! Used by one thread at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;

use super::calls::TransactionalProducer;
use super::client::Watcher;
use super::log::{LogTopic, PROGRESS, STATE, grants};
use super::properties::ClientProperties;
use super::sink::{Lane, QUEUE_KB, QUEUE_RECORDS};
use crate::catalog::Table;
use crate::connectors::{CancelToken, Defaults, EncodedRows, JobLog, SinkRows, SinkWriter, TroubleProbe};
use crate::error::{Error, Result};
use crate::formats::Encoded;

/// How long the coordinator may take to say who the producer is: as long as a transaction that was left open may last.
const INIT_WAIT: Duration = Duration::from_secs(60);

/// Reports of the client that are served in one go, at most.
const REPORTS_MAX: usize = 64;

/// How long a transaction may last (ms), if the table does not say. While a broker is away nothing is given up before.
const TRANSACTION_MS: u64 = 30_000;

/// How much longer an answer about a transaction is waited for than the transaction may last.
const GRACE: Duration = Duration::from_secs(5);

/// See the module's head. Clones are handles on the same producer.
#[derive(Clone)]
pub struct Transactions(Arc<Inner>);

struct Inner {
    /// The log, whose name is the transactional id.
    topic: LogTopic,
    /// Ends all waits.
    cancel: CancelToken,
    state: Mutex<State>,
    /// The producer's; whoever asks it does not wait for a commit.
    watcher: Mutex<Arc<Watcher>>,
}

struct State {
    producer: TransactionalProducer,
    /// The ways of the log's records.
    progress: Lane,
    state: Lane,
}

impl Transactions {
    /// Connects to the cluster of a sink's table, makes the log if there is none, and fences all who wrote to it before.
    /// The token ends this and all later waits.
    pub fn open(
        table: &Table,
        log: &str,
        replication: Option<i32>,
        defaults: &Defaults,
        cancel: CancelToken,
    ) -> Result<Self> {
        let properties = ClientProperties::of_table(&table.options, defaults)?;
        if properties.embedded().is_some() {
            return Err(Error::statement("the embedded broker has no transactions that outlive a crash")
                .hint("name a real broker, or set 'sink.delivery-guarantee' = 'at-least-once'"));
        }
        let topic = LogTopic::open(log, properties, replication, cancel.clone())?;
        let producer = producer_of(&topic)?;
        let watcher = Mutex::new(Arc::clone(producer.client().client().context()));
        let lane = |partition| Lane::fixed(log, partition);
        let state = State { producer, progress: lane(PROGRESS), state: lane(STATE) };
        let this = Self(Arc::new(Inner { topic, cancel, state: Mutex::new(state), watcher }));
        this.init()?;
        Ok(this)
    }

    /// The records of progress in a log, with their offsets, if there is such a log. Nobody is fenced.
    pub fn look(
        table: &Table,
        log: &str,
        defaults: &Defaults,
        cancel: CancelToken,
    ) -> Result<Option<Vec<(i64, Vec<u8>)>>> {
        let properties = ClientProperties::of_table(&table.options, defaults)?;
        LogTopic::find(log, properties, cancel)?.map(|topic| topic.progress()).transpose()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn init(&self) -> Result<()> {
        let done = self.state().producer.init(&self.0.topic.name, INIT_WAIT, &self.0.cancel)?;
        done.map_err(|e| self.failed(&e, "does not begin transactions"))
    }

    /// Rows can only be in one transaction if they are on one cluster.
    pub fn check_cluster(&self, properties: &ClientProperties, topic: &str) -> Result<()> {
        let (ours, theirs) = (self.0.topic.properties.brokers(), properties.brokers());
        if ours == theirs {
            return Ok(());
        }
        Err(Error::statement(format!("topic \"{topic}\" is at {theirs}, and the job's transactions are at {ours}"))
            .hint(
                "under 'exactly-once' all topics that a job writes to, also those of late and bad records, are on one \
                   cluster, which their tables name alike",
            ))
    }

    /// A writer whose rows are in these transactions.
    pub(super) fn writer(&self, lane: Lane) -> Writer {
        Writer { transactions: self.clone(), lane }
    }

    fn begin(&self, state: &mut State) -> Result<()> {
        state.producer.begin().map_err(|e| self.failed(&e, "does not begin a transaction"))
    }

    fn failed(&self, error: &KafkaError, what: &str) -> Error {
        let LogTopic { name: topic, properties, .. } = &self.0.topic;
        let (code, text) = match error {
            KafkaError::Transaction(error) => (error.code(), error.string()),
            other => (other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), other.to_string()),
        };
        if code == RDKafkaErrorCode::TransactionalIdAuthorizationFailed {
            return properties.denied(
                &format!("use the transactional id \"{topic}\""),
                &format!("WRITE and DESCRIBE on transactional id \"{topic}\""),
            );
        }
        let error = Error::upstream(format!("the broker at {} {what} for \"{topic}\": {text}", properties.brokers()));
        match code {
            RDKafkaErrorCode::InvalidTransactionTimeout => error.hint(
                "'properties.transaction.timeout.ms' is more than the broker's transaction.max.timeout.ms allows",
            ),
            _ => error.hint("start the job again: it goes on from its last commit").transient(),
        }
    }

    /// The reason for rows that could not be written.
    fn refused(&self, producer: &TransactionalProducer, error: Error) -> Error {
        let Some(denied) = producer.client().client().context().write_denied() else { return error };
        let LogTopic { name, properties, .. } = &self.0.topic;
        if denied == *name {
            properties.denied(&format!("write to topic \"{name}\", the job's log"), &grants(name))
        } else {
            let grants = format!("WRITE and DESCRIBE on topic \"{denied}\"");
            properties.denied(&format!("write to topic \"{denied}\""), &grants)
        }
    }

    /// Asks the producer what is in its way.
    pub fn trouble(&self) -> TroubleProbe {
        // Whoever asks is no reason for the producer to stay.
        let inner = Arc::downgrade(&self.0);
        Box::new(move || {
            let inner = inner.upgrade()?;
            let watcher = Arc::clone(&inner.watcher.lock().unwrap_or_else(PoisonError::into_inner));
            watcher.trouble_of_wait()
        })
    }
}

impl JobLog for Transactions {
    fn read(&self) -> Result<Vec<(i64, Vec<u8>)>> {
        self.0.topic.progress()
    }

    fn is_cut(&self) -> Result<bool> {
        self.0.topic.is_cut()
    }

    fn read_state(&self, from: i64, take: &mut dyn FnMut(i64, &[u8]) -> Result<()>) -> Result<()> {
        self.0.topic.read(STATE, from, take)
    }

    fn write_state(&self, chunk: Vec<u8>) -> Result<()> {
        let mut state = self.state();
        self.begin(&mut state)?;
        let State { producer, state: lane, .. } = &mut *state;
        let written = lane.write(producer.client(), &one_row(chunk, None), &self.0.cancel);
        written.map_err(|error| self.refused(producer, error))
    }

    fn commit(&self, record: Vec<u8>) -> Result<()> {
        let mut state = self.state();
        self.begin(&mut state)?;
        let State { producer, progress, .. } = &mut *state;
        let written = progress.write(producer.client(), &one_row(record, Some("progress")), &self.0.cancel);
        // The client would wait for what is in flight in slices of 100 ms.
        let drained = written.and_then(|()| progress.drain(producer.client(), &self.0.cancel));
        drained.map_err(|error| self.refused(producer, error))?;
        let done =
            producer.commit(Duration::from_millis(transaction_ms(&self.0.topic.properties)) + GRACE, &self.0.cancel)?;
        done.map_err(|e| self.refused(&state.producer, self.failed(&e, "does not commit")))
    }

    fn ends(&self) -> Result<[i64; 2]> {
        self.0.topic.ends()
    }

    fn delete_before(&self, offsets: [i64; 2]) {
        self.0.topic.delete_before(offsets);
    }

    fn is_disturbed(&self) -> bool {
        let state = self.state();
        for _ in 0..REPORTS_MAX {
            // Reports come only to those who poll.
            state.producer.client().poll(Duration::ZERO);
        }
        state.producer.client().client().context().take_disturbed()
    }

    fn renew(&self) -> Result<()> {
        let new = producer_of(&self.0.topic)?;
        *self.0.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(new.client().client().context());
        drop(std::mem::replace(&mut self.state().producer, new));
        self.init()
    }

    fn is_fenced(&self) -> bool {
        let fatal = self.state().producer.client().client().fatal_error();
        let codes =
            [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::ProducerFenced, RDKafkaErrorCode::InvalidProducerEpoch];
        fatal.is_some_and(|(code, _)| codes.contains(&code))
    }
}

/// A record of the log.
fn one_row(value: Vec<u8>, key: Option<&str>) -> EncodedRows {
    let row = |bytes: Vec<u8>| {
        let mut row = Encoded { bytes, ..Encoded::default() };
        row.end_row();
        row
    };
    EncodedRows { values: row(value), keys: key.map(|key| row(key.into())), ..EncodedRows::default() }
}

/// How long a transaction may last (ms).
fn transaction_ms(properties: &ClientProperties) -> u64 {
    properties.get("transaction.timeout.ms").and_then(|value| value.parse().ok()).unwrap_or(TRANSACTION_MS)
}

/// A producer that has not yet said who it is.
fn producer_of(LogTopic { name: log, properties, .. }: &LogTopic) -> Result<TransactionalProducer> {
    let transaction_ms = transaction_ms(properties);
    // A request may not take longer than its transaction.
    let (transaction_ms, request_ms) = (transaction_ms.to_string(), transaction_ms.min(10_000).to_string());
    let config = properties.config(
        &[
            ("linger.ms", "5"),
            ("compression.type", "lz4"),
            ("queue.buffering.max.messages", QUEUE_RECORDS),
            ("queue.buffering.max.kbytes", QUEUE_KB),
            ("partitioner", "murmur2_random"),
            ("socket.timeout.ms", &request_ms),
            ("reconnect.backoff.max.ms", "2000"),
            ("transaction.timeout.ms", &transaction_ms),
        ],
        // Less would break the promise that the table's option makes.
        &[("transactional.id", log), ("acks", "all"), ("enable.idempotence", "true")],
    );
    let watcher = Watcher::new(format!("the transactions of \"{log}\""), properties);
    TransactionalProducer::new(&config, watcher)
}

/// Writes rows of one sink.
pub(super) struct Writer {
    transactions: Transactions,
    lane: Lane,
}

impl SinkWriter for Writer {
    fn write(&mut self, rows: SinkRows) -> Result<()> {
        let SinkRows::Encoded(rows) = rows else {
            return Err(Error::bug("a Kafka sink was given rows that are not encoded"));
        };
        let mut state = self.transactions.state();
        self.transactions.begin(&mut state)?;
        let written = self.lane.write(state.producer.client(), &rows, &self.transactions.0.cancel);
        written.map_err(|error| self.transactions.refused(&state.producer, error))
    }

    /// The transaction's commit is what puts rows outside.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
