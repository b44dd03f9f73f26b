//! Records into and out of topics, by librdkafka and nothing of Tidemill.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::broker::{Broker, REQUEST_TIMEOUT, unique_name};

/// How long everything that was sent may take to be acknowledged.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// A record to send.
#[derive(Clone, Debug, Default)]
pub struct Message {
    partition: Option<i32>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp_ms: Option<i64>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Message {
    /// A record with this value.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A record without a value.
    pub fn tombstone() -> Self {
        Self::default()
    }

    /// With a key, which chooses the partition as in Java's clients unless one is named.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// To this partition. A record with neither a partition nor a key goes to one that is always the same.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// With this creation time.
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// With one more header; `None` is a header without a value.
    pub fn header(mut self, name: &str, value: Option<&str>) -> Self {
        self.headers.push((name.into(), value.map(Into::into)));
        self
    }
}

impl<T: Into<Vec<u8>>> From<T> for Message {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// A record as it lies in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The value as text.
    pub fn text(&self) -> &str {
        let value = self.value.as_deref().expect("a record with a value");
        str::from_utf8(value).expect("a value that is UTF-8")
    }

    /// The value as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.text()).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Commit,
    Abort,
    /// Not at all: the transaction stays open and holds the last stable offset back, until the producer is dropped.
    Open,
}

impl Broker {
    /// Sends the records in this order and waits until Kafka has them all.
    pub fn produce<M: Into<Message>>(&self, topic: &str, messages: impl IntoIterator<Item = M>) {
        let producer = self.producer(&[("enable.idempotence", "true")]);
        send(&producer, topic, messages);
        flush(&producer);
    }

    /// Sends the records in a transaction of their own. With [`Ending::Open`] keep the producer that this returns.
    pub fn transaction<M: Into<Message>>(
        &self,
        topic: &str,
        messages: impl IntoIterator<Item = M>,
        ending: Ending,
    ) -> BaseProducer {
        let id = unique_name("transaction");
        let producer = self.producer(&[("transactional.id", &id)]);
        producer.init_transactions(REQUEST_TIMEOUT).expect("a producer with transactions");
        producer.begin_transaction().expect("a transaction");
        send(&producer, topic, messages);
        flush(&producer);
        match ending {
            Ending::Commit => producer.commit_transaction(REQUEST_TIMEOUT).expect("the commit"),
            Ending::Abort => producer.abort_transaction(REQUEST_TIMEOUT).expect("the abort"),
            Ending::Open => {}
        }
        producer
    }

    /// All committed records from the start to the end of every partition, by partition and offset.
    pub fn read_all(&self, topic: &str) -> Vec<Record> {
        let consumer = self.reader(topic);
        let mut open = self.partition_count(topic).unwrap_or_else(|| panic!("there is no topic {topic}"));
        let mut records = Vec::new();
        // The end of a partition is an event of the client's, so that commit markers at the end do no harm.
        while open > 0 {
            match consumer.poll(REQUEST_TIMEOUT) {
                Some(Ok(message)) => records.push(record(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => panic!("reading {topic}: {error}"),
                None => panic!("reading {topic}: nothing came for {REQUEST_TIMEOUT:?}"),
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// Follows a topic that is being written, from its start, until enough committed records are there; in the order of
    /// their arrival. Panics if `wait` passes before.
    pub fn read_until(&self, topic: &str, wait: Duration, enough: impl Fn(&[Record]) -> bool) -> Vec<Record> {
        let consumer = self.reader(topic);
        let deadline = Instant::now() + wait;
        let mut records = Vec::new();
        while !enough(&records) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "within {wait:?} only {} records came to {topic}: {records:#?}", records.len());
            match consumer.poll(left) {
                Some(Ok(message)) => records.push(record(&message)),
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if is_transient(&error) => {}
                Some(Err(error)) => panic!("reading {topic}: {error}"),
            }
        }
        records
    }

    fn producer(&self, options: &[(&str, &str)]) -> BaseProducer {
        let mut config = self.client();
        // As Java's clients do for keys; without a key always the same partition, so that runs are alike.
        config.set("partitioner", "murmur2").set("linger.ms", "5").set("queue.buffering.max.messages", "500000");
        for (key, value) in options {
            config.set(*key, *value);
        }
        config.create().expect("a producer")
    }

    /// A consumer of everything in a topic.
    fn reader(&self, topic: &str) -> BaseConsumer {
        let mut config = self.client();
        // The client wants a group's name even where no group is joined.
        config.set("group.id", unique_name("reader")).set("enable.auto.commit", "false");
        config.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut assignment = TopicPartitionList::new();
        let count = self.partition_count(topic).unwrap_or_else(|| panic!("there is no topic {topic}"));
        for partition in 0..count {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&assignment).expect("an assignment");
        consumer
    }
}

fn send<M: Into<Message>>(producer: &BaseProducer, topic: &str, messages: impl IntoIterator<Item = M>) {
    for message in messages {
        let message = message.into();
        let mut record = base_record(topic, &message);
        while let Err((error, refused)) = producer.send(record) {
            // The client's own queue is full: let some of it go out.
            let full = error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            assert!(full, "sending to {topic}: {error}");
            producer.poll(Duration::from_millis(10));
            record = refused;
        }
    }
}

fn base_record<'a>(topic: &'a str, message: &'a Message) -> BaseRecord<'a, [u8], [u8]> {
    let mut record = BaseRecord::to(topic);
    record.partition = message.partition;
    record.key = message.key.as_deref();
    record.payload = message.value.as_deref();
    record.timestamp = message.timestamp_ms;
    if !message.headers.is_empty() {
        let insert = |headers: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
            headers.insert(Header { key, value: value.as_ref() })
        };
        record.headers = Some(message.headers.iter().fold(OwnedHeaders::new(), insert));
    }
    record
}

fn flush(producer: &BaseProducer) {
    producer.flush(FLUSH_TIMEOUT).expect("Kafka acknowledges what was sent");
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(Into::into),
        value: message.payload().map(Into::into),
        headers: headers.map(|header| (header.key.into(), header.value.map(Into::into))).collect(),
    }
}

/// The client goes on by itself after these, which is what tests of outages are about.
fn is_transient(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(
        error,
        KafkaError::MessageConsumption(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve)
    )
}
