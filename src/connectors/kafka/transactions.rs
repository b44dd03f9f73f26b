//! The transactions of a job: rows of all its sinks, and what the job has come to, become visible together or not at all.
//!
//! One producer per job. Its transactional id is the name of the job's [*log*](super::log), a topic with a record of
//! progress per transaction: so whoever begins to write to a log first fences everybody who wrote to it before, and what a
//! crash has left open is rolled back at once. The log is read to its last stable offset, and only what is in it counts:
//! what the client believed about its last commit is never asked.
//!
//! A request that got no answer may reach the broker late, and librdkafka's transactions have no number that would tell a
//! late end of one from the end of the next. So after a disturbance nothing goes on but by a new producer, whose epoch
//! makes all that is late invalid ([`JobLog::renew`]).
//!
//! Used by one thread at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::util::Timeout;

use super::client::{self, Watcher};
use super::log::{LogTopic, PROGRESS, STATE};
use super::properties::{ClientProperties, client_error};
use super::sink::Lane;
use crate::catalog::Table;
use crate::connectors::{Defaults, EncodedRows, JobLog, SinkRows, SinkWriter, TroubleProbe};
use crate::error::{Error, Result};
use crate::formats::Encoded;

/// How long the coordinator may take to say who the producer is: as long as a transaction that was left open may last.
const INIT_WAIT: Duration = Duration::from_secs(60);

/// How long an abort may take when the job ends.
const ABORT_WAIT: Duration = Duration::from_secs(3);

/// Reports of the client that are served in one go, at most.
const REPORTS_MAX: usize = 64;

/// Between two tries of what the broker says can be tried again.
const RETRY_WAIT: Duration = Duration::from_millis(20);

/// See the module's head. Clones are handles on the same producer.
#[derive(Clone)]
pub struct Transactions(Arc<Inner>);

struct Inner {
    /// The log, whose name is the transactional id.
    topic: LogTopic,
    state: Mutex<State>,
    /// The producer's; whoever asks it does not wait for a commit.
    watcher: Mutex<Arc<Watcher>>,
}

struct State {
    /// `None` only while it is being dropped.
    producer: Option<BaseProducer<Watcher>>,
    /// The ways of the log's records.
    progress: Lane,
    state: Lane,
    is_open: bool,
}

impl State {
    fn producer(&self) -> &BaseProducer<Watcher> {
        self.producer.as_ref().expect("taken only by drop")
    }
}

impl Transactions {
    /// Connects to the cluster of a sink's table, makes the log if there is none, and fences all who wrote to it before.
    pub fn open(table: &Table, log: &str, replication: Option<i32>, defaults: &Defaults) -> Result<Self> {
        let properties = ClientProperties::of_table(&table.options, defaults)?;
        if properties.embedded().is_some() {
            return Err(Error::statement("the embedded broker has no transactions that outlive a crash")
                .hint("name a real broker, or set 'sink.delivery-guarantee' = 'at-least-once'"));
        }
        let topic = LogTopic::open(log, properties, replication)?;
        let producer = producer_of(&topic)?;
        let watcher = Mutex::new(Arc::clone(producer.client().context()));
        let lane = |partition| Lane::fixed(log, partition);
        let state = State { producer: Some(producer), progress: lane(PROGRESS), state: lane(STATE), is_open: false };
        let this = Self(Arc::new(Inner { topic, state: Mutex::new(state), watcher }));
        this.init()?;
        Ok(this)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn init(&self) -> Result<()> {
        let state = self.state();
        let start = Instant::now();
        loop {
            match state.producer().init_transactions(Duration::from_secs(5)) {
                Ok(()) => return Ok(()),
                Err(error) if may_try_again(&error) && start.elapsed() < INIT_WAIT => {
                    state.producer().poll(RETRY_WAIT);
                }
                Err(error) => return Err(self.failed(&error, "does not begin transactions")),
            }
        }
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
        if !state.is_open {
            state.producer().begin_transaction().map_err(|e| self.failed(&e, "does not begin a transaction"))?;
            state.is_open = true;
        }
        Ok(())
    }

    fn failed(&self, error: &KafkaError, what: &str) -> Error {
        let LogTopic { name: topic, properties } = &self.0.topic;
        let (code, text) = match error {
            KafkaError::Transaction(error) => (error.code(), error.string()),
            other => (other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), other.to_string()),
        };
        let error = Error::upstream(format!("the broker at {} {what} for \"{topic}\": {text}", properties.brokers()));
        match code {
            RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed => error.hint(format!(
                "grant WRITE and DESCRIBE on the transactional id \"{topic}\", and WRITE on the topics, to this user"
            )),
            _ => error.hint("start the job again: it goes on from its last commit"),
        }
    }

    /// Asks the producer what is in its way.
    pub fn trouble(&self) -> TroubleProbe {
        // Whoever asks is no reason for the producer to stay.
        let inner = Arc::downgrade(&self.0);
        Box::new(move || {
            let inner = inner.upgrade()?;
            let watcher = Arc::clone(&inner.watcher.lock().unwrap_or_else(PoisonError::into_inner));
            if watcher.is_waiting() { watcher.trouble() } else { None }
        })
    }
}

impl JobLog for Transactions {
    fn read(&self) -> Result<Vec<(i64, Vec<u8>)>> {
        let mut records = Vec::new();
        self.0.topic.read(PROGRESS, 0, &mut |offset, record| {
            records.push((offset, record.to_vec()));
            Ok(())
        })?;
        Ok(records)
    }

    fn read_state(&self, from: i64, take: &mut dyn FnMut(i64, &[u8]) -> Result<()>) -> Result<()> {
        self.0.topic.read(STATE, from, take)
    }

    fn write_state(&self, chunk: Vec<u8>) -> Result<()> {
        let mut state = self.state();
        self.begin(&mut state)?;
        let State { producer, state: lane, .. } = &mut *state;
        lane.write(producer.as_ref().expect("taken only by drop"), &one_row(chunk, None))
    }

    fn commit(&self, record: Vec<u8>) -> Result<()> {
        let mut state = self.state();
        self.begin(&mut state)?;
        let State { producer, progress, .. } = &mut *state;
        let producer = producer.as_ref().expect("taken only by drop");
        progress.write(producer, &one_row(record, Some("progress")))?;
        // The client would wait for what is in flight in slices of 100 ms.
        progress.drain(producer)?;
        loop {
            // Never with a deadline: the client's idea of the transaction would no longer be the coordinator's.
            match producer.commit_transaction(Timeout::Never) {
                Ok(()) => break,
                Err(error) if may_try_again(&error) => thread::sleep(RETRY_WAIT),
                Err(error) => return Err(self.failed(&error, "does not commit")),
            }
        }
        state.is_open = false;
        Ok(())
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
            state.producer().poll(Duration::ZERO);
        }
        state.producer().client().context().take_disturbed()
    }

    fn renew(&self) -> Result<()> {
        let Inner { topic, state, watcher } = &*self.0;
        let new = producer_of(topic)?;
        *watcher.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(new.client().context());
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, is_open) = (state.producer.replace(new), std::mem::take(&mut state.is_open));
        drop(state);
        if let Some(producer) = old {
            client::end(Ending { producer, is_open, _properties: topic.properties.clone() });
        }
        self.init()
    }

    fn is_fenced(&self) -> bool {
        let fatal = self.state().producer().client().fatal_error();
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

/// A producer that has not yet said who it is.
fn producer_of(LogTopic { name: log, properties }: &LogTopic) -> Result<BaseProducer<Watcher>> {
    let config = properties.config(
        &[
            ("linger.ms", "5"),
            ("compression.type", "lz4"),
            ("queue.buffering.max.messages", "1000000"),
            ("queue.buffering.max.kbytes", "262144"),
            ("partitioner", "murmur2_random"),
            ("socket.timeout.ms", "10000"),
            ("reconnect.backoff.max.ms", "2000"),
        ],
        // Less would break the promise that the table's option makes.
        &[("transactional.id", log), ("acks", "all"), ("enable.idempotence", "true")],
    );
    let watcher = Watcher::new(format!("the transactions of \"{log}\""), properties.brokers());
    config.create_with_context(watcher).map_err(|e| client_error(&e))
}

/// Whether the same call may be made again.
fn may_try_again(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable() && !error.is_fatal())
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (is_open, properties) = (state.is_open, self.topic.properties.clone());
        if let Some(producer) = state.producer.take() {
            client::end(Ending { producer, is_open, _properties: properties });
        }
    }
}

/// A producer on its way out, on a thread under a deadline.
struct Ending {
    producer: BaseProducer<Watcher>,
    is_open: bool,
    /// Keeps what the producer needs.
    _properties: ClientProperties,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.is_open {
            // Else readers would wait for the transaction until the coordinator gives it up. If this fails, they do.
            if let Err(error) = self.producer.abort_transaction(ABORT_WAIT) {
                tracing::debug!("a transaction was not rolled back: {error}");
            }
        }
    }
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
        self.lane.write(state.producer(), &rows)
    }

    /// The transaction's commit is what puts rows outside.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
