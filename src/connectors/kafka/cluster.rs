//! Questions to a cluster: which topics, which offsets; and the creation of topics.
//!
//! Everything here runs when a statement is submitted, so it answers or fails within seconds, and a failure says
//! which broker, which topic, and what to do.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataPartition};
use rdkafka::{Offset, TopicPartitionList};

use super::access::{client_error, denied_group, refused_question};
use super::client::{self, Watcher};
use super::properties::ClientProperties;
use crate::catalog::options::nearest;
use crate::error::{Error, Result};

/// How long a question may take.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Until the first look at why no answer comes; each next one waits twice as long.
const SLICE: Duration = Duration::from_millis(500);

/// Before a broker is asked again that has not settled.
const SETTLE_PAUSE: Duration = Duration::from_millis(10);

/// The same after it was asked a few times.
const SETTLE_PAUSE_MAX: Duration = Duration::from_millis(200);

/// A topic as the cluster describes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// The numbers of its partitions, ascending.
    pub partitions: Vec<i32>,
}

/// A cluster that answers questions.
pub struct Cluster {
    properties: ClientProperties,
    wait: Duration,
    /// `None` only while it is being dropped.
    client: Option<BaseConsumer<Watcher>>,
}

impl Cluster {
    /// A client for the cluster. Nothing is asked yet, so an unreachable broker is no error yet.
    pub fn new(properties: ClientProperties) -> Result<Self> {
        // Without a group of the user's there is none, and nobody looks for its coordinator.
        let config = properties.config(
            &[("isolation.level", "read_committed"), ("socket.timeout.ms", "10000")],
            &[("enable.auto.commit", "false"), ("allow.auto.create.topics", "false")],
        );
        let watcher = Watcher::quiet("the cluster's client", &properties);
        let client = config.create_with_context(watcher).map_err(|e| client_error(&e, &properties))?;
        Ok(Self { properties, wait: ANSWER_WAIT, client: Some(client) })
    }

    /// The same for a question that is not worth a long wait.
    #[must_use]
    pub fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How to reach the cluster.
    pub fn properties(&self) -> &ClientProperties {
        &self.properties
    }

    fn client(&self) -> &BaseConsumer<Watcher> {
        self.client.as_ref().expect("taken only by drop")
    }

    fn watcher(&self) -> &Watcher {
        Consumer::client(self.client()).context()
    }

    /// Serves librdkafka's reports, which come only to those who poll.
    fn listen(&self) {
        for _ in 0..64 {
            // Errors reach the watcher on their way; nothing is subscribed, so no record can come.
            let _ = self.client().poll(Duration::ZERO);
        }
    }

    pub(super) fn metadata(&self, topic: Option<&str>) -> Result<Metadata> {
        let start = Instant::now();
        let mut slice = SLICE;
        loop {
            match self.client().fetch_metadata(topic, slice.min(self.wait)) {
                Ok(metadata) => {
                    self.watcher().note_alive();
                    return Ok(metadata);
                }
                Err(error) => {
                    self.listen();
                    let silent = self.watcher().cause().is_none() && self.properties.embedded().is_none();
                    let missing_tls = || silent.then(|| self.properties.missing_tls()).flatten();
                    if let Some(error) = self.watcher().verdict().or_else(missing_tls) {
                        return Err(error);
                    }
                    if start.elapsed() >= self.wait {
                        return Err(self.failed(&error, "the list of topics", start.elapsed()));
                    }
                    // An answer that says no comes at once: do not ask again in a tight loop.
                    thread::sleep(Duration::from_millis(20));
                    slice = (slice * 2).min(self.wait.saturating_sub(start.elapsed())).max(SLICE);
                }
            }
        }
    }

    /// The error for a question without an answer.
    fn failed(&self, error: &KafkaError, what: &str, waited: Duration) -> Error {
        self.listen();
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve,
            )
            | None => self.watcher().unreachable(waited),
            Some(code) if let Some(error) = refused_question(code, what, &self.properties) => error,
            Some(code) => {
                Error::upstream(format!("the broker at {} does not give {what}: {code}", self.brokers())).transient()
            }
        }
    }

    /// `host:port,host:port`.
    pub fn brokers(&self) -> &str {
        self.properties.brokers()
    }

    /// All topics that this user may see, by name.
    pub fn topics(&self) -> Result<Vec<Topic>> {
        let metadata = self.metadata(None)?;
        let mut topics: Vec<Topic> = metadata.topics().iter().map(topic_of).collect();
        topics.sort();
        Ok(topics)
    }

    /// A topic, or `None` when there is none of this name.
    pub fn find_topic(&self, name: &str) -> Result<Option<Topic>> {
        check_topic_name(name)?;
        let metadata = self.metadata(Some(name))?;
        let Some(found) = metadata.topics().iter().find(|t| t.name() == name) else { return Ok(None) };
        match found.error() {
            None if found.partitions().is_empty() => Ok(None),
            None => Ok(Some(topic_of(found))),
            Some(RespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART | RespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC) => {
                Ok(None)
            }
            Some(RespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) => Err(self.properties.denied(
                &format!("see topic \"{name}\""),
                &format!("DESCRIBE, and READ or WRITE, on topic \"{name}\""),
            )),
            Some(error) => {
                let code = RDKafkaErrorCode::from(error);
                Err(Error::upstream(format!("topic \"{name}\" is not available at {}: {code}", self.brokers()))
                    .transient())
            }
        }
    }

    /// A topic that must be there.
    pub fn topic(&self, name: &str) -> Result<Topic> {
        if let Some(topic) = self.find_topic(name)? {
            return Ok(topic);
        }
        let error = Error::upstream(format!("there is no topic \"{name}\" at {}", self.brokers()));
        let topics = self.topics()?;
        Err(match nearest(name, topics.iter().map(|t| t.name.as_str())) {
            Some(near) => error.hint(format!("did you mean \"{near}\"? Else create it, or write to it first")),
            None => error.hint("create it, or write to it first; SHOW TOPICS lists those that exist"),
        })
    }

    /// Creates a topic and waits until it can be seen. `None` and -1 leave the choice to the broker.
    pub fn create_topic(&self, name: &str, partitions: Option<i32>, replication: i32) -> Result<()> {
        self.create_topic_with(name, partitions, replication, &[])
    }

    /// The same, with settings of the topic.
    pub fn create_topic_with(
        &self,
        name: &str,
        partitions: Option<i32>,
        replication: i32,
        settings: &[(&str, &str)],
    ) -> Result<()> {
        check_topic_name(name)?;
        let partitions = partitions.unwrap_or(-1);
        if let Some(embedded) = self.properties.embedded() {
            return embedded.create_topic(name, partitions);
        }
        let new = NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
        self.ask_for(settings.iter().fold(new, |new, (key, value)| new.set(key, value)), false)?;
        let start = Instant::now();
        while self.find_topic(name)?.is_none() {
            if start.elapsed() >= self.wait {
                return Err(Error::upstream(format!("topic \"{name}\" was created but cannot be seen")).hint(format!(
                    "an administrator of the broker must grant {} DESCRIBE on it",
                    self.properties.principal()
                )));
            }
            thread::sleep(SETTLE_PAUSE);
        }
        Ok(())
    }

    /// Whether this user may create a topic of this name; none is made.
    pub fn try_creation(&self, name: &str) -> Result<()> {
        check_topic_name(name)?;
        self.ask_for(NewTopic::new(name, 1, TopicReplication::Fixed(1)), true)
    }

    /// Asks for a new topic, or only whether there may be one.
    fn ask_for(&self, new: NewTopic<'_>, only_asks: bool) -> Result<()> {
        let name = new.name;
        let config = self.properties.config(&[], &[]);
        let watcher = Watcher::new("the cluster's client", &self.properties);
        let admin: AdminClient<Watcher> =
            config.create_with_context(watcher).map_err(|e| client_error(&e, &self.properties))?;
        let options = AdminOptions::new().request_timeout(Some(self.wait)).operation_timeout(Some(self.wait));
        let options = options.validate_only(only_asks);
        let answer = futures::executor::block_on(admin.create_topics([&new], &options));
        client::end_admin(admin);
        let refused = |code: RDKafkaErrorCode| match code {
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                let grants = format!("CREATE on topic \"{name}\", or create the topic");
                self.properties.denied(&format!("create topic \"{name}\""), &grants)
            }
            _ => Error::upstream(format!("the broker at {} does not create topic \"{name}\": {code}", self.brokers()))
                .hint(format!(
                    "create topic \"{name}\" by hand; 'sink.topic.partitions' sets how many partitions it gets"
                )),
        };
        match answer {
            Err(error) => return Err(self.failed(&error, "a new topic", self.wait)),
            Ok(results) => {
                for result in results {
                    match result {
                        // Somebody else was faster.
                        Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                        Err((_, code)) => return Err(refused(code)),
                    }
                }
            }
        }
        Ok(())
    }

    /// How many bytes a topic takes at once, if the cluster tells.
    pub fn record_bytes_max(&self, topic: &str) -> Option<usize> {
        if self.properties.embedded().is_some() {
            return None;
        }
        let watcher = Watcher::quiet("the cluster's client", &self.properties);
        let admin: AdminClient<Watcher> = self.properties.config(&[], &[]).create_with_context(watcher).ok()?;
        let options = AdminOptions::new().request_timeout(Some(self.wait));
        let of_topic = [ResourceSpecifier::Topic(topic)];
        let answer = futures::executor::block_on(admin.describe_configs(&of_topic, &options));
        client::end_admin(admin);
        let settings = answer.ok()?.pop()?.ok()?;
        settings.get("max.message.bytes")?.value.as_ref()?.parse().ok()
    }

    /// The offsets of the first record and of the one after the last committed one.
    pub fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        self.watermarks_within(topic, partition, self.wait)
    }

    /// The same, with a wait of its own.
    pub fn watermarks_within(&self, topic: &str, partition: i32, wait: Duration) -> Result<(i64, i64)> {
        // Some clients are asked nothing else for days; what they report is not to pile up.
        self.listen();
        let what = || format!("the offsets of topic \"{topic}\", partition {partition}");
        self.until_settled(Some(topic), what, wait, |client, left| client.fetch_watermarks(topic, partition, left))
    }

    /// Asks the leaders of partitions of a topic, or of several, until they are known and answer. A broker that has just
    /// made a topic, or has been silent for longer than its cluster bears, leads nothing for a moment.
    fn until_settled<T>(
        &self,
        topic: Option<&str>,
        what: impl Fn() -> String,
        wait: Duration,
        ask: impl Fn(&BaseConsumer<Watcher>, Duration) -> KafkaResult<T>,
    ) -> Result<T> {
        let start = Instant::now();
        let mut pause = SETTLE_PAUSE;
        loop {
            let left = wait.saturating_sub(start.elapsed());
            match ask(self.client(), left) {
                Ok(found) => {
                    self.watcher().note_alive();
                    return Ok(found);
                }
                Err(error) if is_settling(&error) && pause < left => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(SETTLE_PAUSE_MAX);
                    // The client answers such questions with what it was told last, and does not ask again for that.
                    if let Err(error) = self.client().fetch_metadata(topic, left.min(SLICE)) {
                        tracing::debug!("who leads the partitions is not known: {error}");
                    }
                }
                Err(error) => return Err(self.failed(&error, &what(), start.elapsed())),
            }
        }
    }

    /// Per partition the offset of the first record at or after a time (ms), or `None` when there is none.
    pub fn offsets_for_time(&self, partitions: &[(&str, i32)], time_ms: i64) -> Result<Vec<Option<i64>>> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition_offset(topic, *partition, Offset::Offset(time_ms))
                .map_err(|_| Error::statement(format!("the time {time_ms} ms cannot be asked for")))?;
        }
        let what = || "offsets for a time".to_owned();
        let ask = |client: &BaseConsumer<Watcher>, left| client.offsets_for_times(list.clone(), left);
        Ok(in_order(&self.until_settled(None, what, self.wait, ask)?, partitions))
    }

    /// The first or last offsets of partitions, as each entry of the list asks, in its place.
    pub(super) fn offsets_at(&self, list: TopicPartitionList) -> Result<TopicPartitionList> {
        let start = Instant::now();
        let found = self.client().offsets_for_times(list, self.wait);
        found.map_err(|e| self.failed(&e, "the offsets of its topics", start.elapsed()))
    }

    /// Per partition what the consumer group has committed, or `None` when it has not.
    pub fn committed(&self, partitions: &[(&str, i32)]) -> Result<Vec<Option<i64>>> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        let start = Instant::now();
        loop {
            // While the coordinator of a group is not known, librdkafka waits; why it is not, it only reports.
            match self.client().committed_offsets(list.clone(), SLICE.min(self.wait)) {
                Ok(found) => return Ok(in_order(&found, partitions)),
                Err(error) => {
                    self.listen();
                    if self.watcher().is_group_denied() {
                        return Err(denied_group(&self.properties));
                    }
                    let is_slow = error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut);
                    if !is_slow || self.wait <= start.elapsed() {
                        return Err(self.failed(&error, "the offsets of the consumer group", start.elapsed()));
                    }
                }
            }
        }
    }

    /// Commits next offsets to the consumer group, without waiting. What goes wrong is only logged.
    pub fn commit(&self, offsets: &[(&str, i32, i64)]) {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (topic, partition, offset) in offsets {
            if list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).is_err() {
                return;
            }
        }
        if let Err(e) = self.client().commit(&list, CommitMode::Async) {
            tracing::debug!("offsets were not committed to the group: {e}");
        }
    }

    /// Why an earlier commit was not taken, if one was not since this was asked last.
    pub fn refused_commit(&self) -> Option<RDKafkaErrorCode> {
        // The answers to earlier commits.
        for _ in 0..4 {
            let _ = self.client().poll(Duration::ZERO);
        }
        let denied = self.watcher().is_group_denied().then_some(RDKafkaErrorCode::GroupAuthorizationFailed);
        self.watcher().take_uncommitted().or(denied)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The in-process broker must outlive its clients, also one that takes long to end.
        let embedded: Option<Arc<_>> = self.properties.embedded().cloned();
        if let Some(client) = self.client.take() {
            // Waited for: the process must not end while librdkafka takes a client apart.
            client::end_consumer(client, embedded);
        }
    }
}

fn topic_of(topic: &rdkafka::metadata::MetadataTopic) -> Topic {
    let mut partitions: Vec<i32> = topic.partitions().iter().map(MetadataPartition::id).collect();
    partitions.sort_unstable();
    Topic { name: topic.name().to_owned(), partitions }
}

/// Whether a topic has just been made, or is moving. Of one that is known to be there and has no leader, librdkafka may say
/// that it does not know the partition.
fn is_settling(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition, UnknownPartition};
    let code = error.rdkafka_error_code();
    matches!(code, Some(NotLeaderForPartition | LeaderNotAvailable | UnknownPartition))
}

/// The offsets of a list in the order that was asked for.
fn in_order(list: &TopicPartitionList, partitions: &[(&str, i32)]) -> Vec<Option<i64>> {
    let offset = |(topic, partition): &(&str, i32)| match list.find_partition(topic, *partition)?.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    partitions.iter().map(offset).collect()
}

/// Kafka's rule for names; librdkafka would turn others into an obscure failure.
pub(crate) fn check_topic_name(name: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(legal) {
        return Err(Error::statement(format!("\"{}\" cannot be the name of a topic", name.escape_debug()))
            .hint("1 to 249 letters, digits, '.', '_' and '-'"));
    }
    Ok(())
}
