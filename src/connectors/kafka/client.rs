//! What all clients share: hearing librdkafka's errors and log, and ending under a deadline.
//!
//! librdkafka reports why a broker cannot be reached through callbacks, long before (or instead of) an error from the
//! call that waits for it. A [`Watcher`] keeps the last such report, so that the error which people see can name the
//! cause; and it turns a stream of reports into one warning per outage and one notice at its end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::admin::AdminClient;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};

use super::access::Report;
use super::properties::ClientProperties;
use crate::error::Error;

/// How long a client may take to end before it is left behind.
pub const END_WAIT_MAX: Duration = Duration::from_secs(5);

/// How long a look takes whether a consumer has closed.
const CLOSE_SLICE: Duration = Duration::from_millis(1);

/// Clusters that some client of this process has found to be away. Many clients lead to one cluster (a reader per worker,
/// a producer per sink): an outage is said once, by whoever notices it first, and so is its end.
static AWAY: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// How long a broker must have been away before people are told. Reports can be old news: they are served only when
/// somebody polls the client, and a thread that waited for another client may find an outage that is over.
const UNTOLD_MAX: Duration = Duration::from_millis(500);

/// How long a wait may take before people who ask hear of it. A burst of rows takes its time, too.
const UNSAID_MAX: Duration = Duration::from_secs(5);

#[derive(Default)]
struct State {
    /// The last report that names a cause.
    cause: Option<Report>,
    /// Since when no broker can be reached.
    away_since: Option<SystemTime>,
    /// When that was noticed, and whether people have been told.
    noticed: Option<(Instant, bool)>,
    /// The first record that could not be delivered.
    undelivered: Option<RDKafkaErrorCode>,
    /// Set when the client has given up for good.
    fatal: Option<Report>,
    /// A topic of a transaction that the broker has not let this user write to.
    write_denied: Option<String>,
    /// Why offsets were not committed to the group.
    uncommitted: Option<RDKafkaErrorCode>,
}

/// Listens to one client.
pub struct Watcher {
    /// What the client is for, in words: `the source "clicks"`.
    what: String,
    properties: ClientProperties,
    state: Mutex<State>,
    /// Mirrors `away_since` and `undelivered`, so that the hot paths need no lock.
    away: AtomicBool,
    failed: AtomicBool,
    /// A connection broke, or a request got no answer, since somebody asked.
    disturbed: AtomicBool,
    /// The broker has not let this user use the consumer group.
    group_denied: AtomicBool,
    /// Since when somebody waits for this client's answers.
    waiting: Mutex<Option<SystemTime>>,
    /// Whoever asks reports an outage as an error; nothing is said on the way.
    is_quiet: bool,
}

impl Watcher {
    pub fn new(what: impl Into<String>, properties: &ClientProperties) -> Self {
        Self {
            what: what.into(),
            properties: properties.without_broker(),
            state: Mutex::default(),
            away: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            disturbed: AtomicBool::new(false),
            group_denied: AtomicBool::new(false),
            waiting: Mutex::default(),
            is_quiet: false,
        }
    }

    /// For a client whose outages are its caller's to tell.
    pub fn quiet(what: impl Into<String>, properties: &ClientProperties) -> Self {
        let mut watcher = Self::new(what, properties);
        watcher.is_quiet = true;
        watcher
    }

    /// The cluster's address.
    pub fn brokers(&self) -> &str {
        self.properties.brokers()
    }

    /// Whether somebody waits for this client's answers from now on.
    pub fn set_waiting(&self, waiting: bool) {
        let mut since = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if waiting { since.or_else(|| Some(SystemTime::now())) } else { None };
    }

    /// If somebody waits for this client's answers, and that takes long: a sentence on why.
    pub fn trouble_of_wait(&self) -> Option<String> {
        let since = (*self.waiting.lock().unwrap_or_else(PoisonError::into_inner))?;
        let is_long = since.elapsed().is_ok_and(|waited| UNSAID_MAX <= waited);
        let slow = || format!("waiting for the broker at {} since {}", self.brokers(), shown(since));
        self.trouble().or_else(|| is_long.then(slow))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last report that names a cause.
    pub fn cause(&self) -> Option<Report> {
        self.state().cause.clone()
    }

    /// Whether no broker can be reached at the moment, as far as is known.
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Whether a delivery failed, or the client is beyond repair.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether a connection broke, or a request got no answer, since this was asked last.
    pub fn take_disturbed(&self) -> bool {
        self.disturbed.swap(false, Ordering::AcqRel)
    }

    /// A topic of a transaction that the broker has not let this user write to.
    pub fn write_denied(&self) -> Option<String> {
        self.state().write_denied.clone()
    }

    /// Whether the broker has not let this user use the consumer group.
    pub fn is_group_denied(&self) -> bool {
        self.group_denied.load(Ordering::Acquire)
    }

    /// Why offsets were not committed to the group, if that has happened since this was asked last.
    pub fn take_uncommitted(&self) -> Option<RDKafkaErrorCode> {
        self.state().uncommitted.take()
    }

    /// The first failed delivery.
    pub fn undelivered(&self) -> Option<RDKafkaErrorCode> {
        self.state().undelivered
    }

    /// Why the client has given up for good.
    pub fn fatal(&self) -> Option<Report> {
        self.state().fatal.clone()
    }

    /// Something arrived: whatever outage there was is over.
    pub fn note_alive(&self) {
        if !self.is_away() {
            return;
        }
        self.away.store(false, Ordering::Relaxed);
        let mut state = self.state();
        state.cause = None;
        state.away_since = None;
        let was_told = state.noticed.take().is_some_and(|(_, told)| told);
        if was_told && away().remove(self.brokers()) {
            tracing::info!("{}: the broker at {} is back", self.what, self.brokers());
        }
    }

    /// Tells people of an outage, if there is one that lasts. To be called again and again while waiting.
    pub fn tell(&self) {
        if !self.is_away() || self.is_quiet {
            return;
        }
        let mut state = self.state();
        let Some((since, told @ false)) = &mut state.noticed else { return };
        if since.elapsed() < UNTOLD_MAX {
            return;
        }
        *told = true;
        if away().insert(self.brokers().to_owned()) {
            let cause = state.cause.as_ref().map(|c| format!(" ({})", c.text)).unwrap_or_default();
            tracing::warn!("{}: the broker at {} cannot be reached{cause}; waiting", self.what, self.brokers());
        }
    }

    /// A sentence on the outage, if there is one.
    pub fn trouble(&self) -> Option<String> {
        if !self.is_away() {
            return None;
        }
        self.tell();
        let state = self.state();
        let since = shown(state.away_since?);
        let cause = state.cause.as_ref().map(|c| format!(" ({})", c.text)).unwrap_or_default();
        Some(format!("broker {} is away since {since}{cause}; waiting", self.brokers()))
    }

    /// The error for a call that got no answer, naming the cause if one was reported.
    pub fn unreachable(&self, waited: Duration) -> Error {
        self.properties.unreachable(self.cause().as_ref(), waited)
    }

    /// The error that waiting longer cannot help against, if there is one.
    pub fn verdict(&self) -> Option<Error> {
        self.properties.verdict(&self.cause()?)
    }

    /// How the client reaches its cluster, and as whom.
    pub fn properties(&self) -> &ClientProperties {
        &self.properties
    }
}

fn shown(time: SystemTime) -> String {
    chrono::DateTime::<chrono::Utc>::from(time).format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn away() -> MutexGuard<'static, BTreeSet<String>> {
    AWAY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Whoever notices the next outage shall say so, even if this client never saw the end of its own.
        if self.state().noticed.is_some_and(|(_, told)| told) {
            away().remove(self.brokers());
        }
    }
}

/// Reports that name a cause, rather than only its consequence.
fn names_a_cause(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::BrokerTransportFailure
    )
}

/// Whether waiting longer may be of no help.
fn is_hopeless(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::SSL
    )
}

impl ClientContext for Watcher {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if facility == "REQTMOUT" {
            self.disturbed.store(true, Ordering::Release);
        }
        // Only the log tells which topic it is: the rows of all topics are then reported as thrown away.
        if facility == "ADDPARTS" && text.contains("Topic authorization failed") {
            self.state().write_denied = text.split('"').nth(1).map(str::to_owned);
        }
        // Each of these comes again as an error, which is where it is judged; so it is not said twice.
        match level {
            RDKafkaLogLevel::Debug => tracing::trace!(target: "librdkafka", "{}: {facility} {text}", self.what),
            _ => tracing::debug!(target: "librdkafka", "{}: {facility} {text}", self.what),
        }
    }

    fn stats(&self, _: Statistics) {}

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        tracing::debug!(target: "librdkafka", "{}: {code:?}: {reason}", self.what);
        if code == RDKafkaErrorCode::GroupAuthorizationFailed {
            self.group_denied.store(true, Ordering::Release);
        }
        let report = Report::new(code, reason);
        let code = report.code;
        if matches!(
            code,
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
        ) {
            self.disturbed.store(true, Ordering::Release);
        }
        let mut state = self.state();
        if code == RDKafkaErrorCode::Fatal {
            state.fatal.get_or_insert(report);
            self.failed.store(true, Ordering::Relaxed);
        } else if code == RDKafkaErrorCode::AllBrokersDown {
            if state.away_since.is_none() {
                state.away_since = Some(SystemTime::now());
                state.noticed = Some((Instant::now(), false));
                self.away.store(true, Ordering::Relaxed);
            }
        } else if names_a_cause(code) {
            // A refused password must not be hidden by the broken connection that follows it.
            let keep = state.cause.as_ref().is_some_and(|c| is_hopeless(c.code) && !is_hopeless(code));
            if !keep {
                state.cause = Some(report);
            }
        }
    }
}

impl ConsumerContext for Watcher {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(e) = result {
            tracing::debug!("{}: offsets were not committed to the group: {e}", self.what);
            self.state().uncommitted = e.rdkafka_error_code();
        }
    }
}

impl ProducerContext for Watcher {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.note_alive(),
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                self.state().undelivered.get_or_insert(code);
                self.failed.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Drops a client on a thread of its own: ending one can hang for ever when the broker is away. After the deadline it
/// is left behind, to end with the process.
pub fn end<T: Send + 'static>(client: T) {
    let (done, ended) = channel();
    let spawned = thread::Builder::new().name("kafka-end".to_owned()).spawn(move || {
        drop(client);
        // Nobody waits any more when the deadline has passed.
        let _ = done.send(());
    });
    // Without a thread the closure, and the client in it, have been dropped already.
    if spawned.is_ok() && ended.recv_timeout(END_WAIT_MAX).is_err() {
        tracing::warn!("a Kafka client did not end within {} s and is left behind", END_WAIT_MAX.as_secs());
    }
}

/// Drops a client that is asked nothing more, and waits for nothing: the bindings look every 100 ms only whether an admin's
/// thread is to end.
pub fn end_admin(admin: AdminClient<Watcher>) {
    // Without a thread the closure, and the client in it, are dropped here.
    let _ = thread::Builder::new().name("kafka-end".to_owned()).spawn(move || drop(admin));
}

/// The same as [`end`] for a consumer, and what must outlive it. The bindings wait for its end in slices of 100 ms.
pub fn end_consumer<C, T>(consumer: BaseConsumer<C>, survivor: T)
where
    C: ConsumerContext + 'static,
    T: Send + 'static,
{
    end(Closing { consumer, _survivor: survivor });
}

/// A consumer that leaves its group, if it has one, as it is dropped.
struct Closing<C: ConsumerContext + 'static, T> {
    consumer: BaseConsumer<C>,
    _survivor: T,
}

impl<C: ConsumerContext + 'static, T> Drop for Closing<C, T> {
    fn drop(&mut self) {
        // One without a group says no. The bindings close it once more, and log that it was closed: see where logging starts.
        if self.consumer.close_queue().is_ok() {
            while !self.consumer.closed() {
                self.consumer.poll(CLOSE_SLICE);
            }
        }
    }
}
