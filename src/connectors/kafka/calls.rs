//! A transactional producer whose calls may hang.
//!
//! librdkafka's calls that begin or end transactions take as long as they take, some of them for ever, and cannot be
//! called off. So they run on a thread of the producer's own, and whoever needs the answer waits for it only so long. A
//! producer that has not answered is left behind with its thread: nobody uses it any more, and whatever it still does is
//! invalid as soon as another producer has taken its transactional id.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, Producer};

use super::access::client_error;
use super::client::{END_WAIT_MAX, Watcher};
use crate::connectors::CancelToken;
use crate::error::{Error, Result};

/// How long an abort may take when a producer ends.
const ABORT_WAIT: Duration = Duration::from_secs(3);

/// How long what was written may take to be with the broker before that.
const SETTLE_WAIT: Duration = Duration::from_secs(1);

/// How long a wait for an answer takes before reports of the client are served.
const SLICE: Duration = Duration::from_millis(50);

/// How long a broker may take to be connected before transactions are begun all the same.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// How long the coordinator is given to say who the producer is before it is asked again.
const INIT_SLICE: Duration = Duration::from_millis(50);

/// Between two tries of what the broker says can be tried again.
const RETRY_WAIT: Duration = Duration::from_millis(20);

type Call = Box<dyn FnOnce(&BaseProducer<Watcher>) + Send>;

/// See the module's head.
pub struct TransactionalProducer {
    /// `None` only while it is being dropped.
    producer: Option<Arc<BaseProducer<Watcher>>>,
    /// To the producer's thread, which ends when nobody can call any more.
    calls: Option<SyncSender<Call>>,
    ended: Receiver<()>,
    /// A transaction has begun.
    is_open: bool,
    /// A call got no answer.
    is_lost: bool,
}

impl TransactionalProducer {
    /// A producer that has not yet said who it is.
    pub fn new(config: &ClientConfig, watcher: Watcher) -> Result<Self> {
        let properties = watcher.properties().clone();
        let producer: BaseProducer<Watcher> =
            config.create_with_context(watcher).map_err(|e| client_error(&e, &properties))?;
        let producer = Arc::new(producer);
        let (calls, to_make) = sync_channel::<Call>(1);
        let (done, ended) = channel();
        let of_thread = Arc::clone(&producer);
        let body = move || {
            to_make.into_iter().for_each(|call| call(&of_thread));
            // Here, if nobody else has it any more, the producer ends, which can hang as well.
            drop(of_thread);
            // Nobody waits for one that was left behind.
            let _ = done.send(());
        };
        thread::Builder::new()
            .name("transactions".to_owned())
            .spawn(body)
            .map_err(|e| Error::usage(format!("cannot start a thread: {e}")))?;
        Ok(Self { producer: Some(producer), calls: Some(calls), ended, is_open: false, is_lost: false })
    }

    /// For what does not hang.
    pub fn client(&self) -> &BaseProducer<Watcher> {
        self.producer.as_ref().expect("taken only by drop")
    }

    /// Says who it is, which fences all others of its name. Any topic will do that is there.
    pub fn init(&mut self, topic: &str, wait: Duration, cancel: &CancelToken) -> Result<KafkaResult<()>> {
        // librdkafka looks for the coordinator at once, and if no broker is connected, again only after half a second. That
        // to which it was led for a start does not stay: so a question that goes to the leader of a partition.
        let topic = topic.to_owned();
        let connect = move |producer: &BaseProducer<Watcher>| {
            producer.client().fetch_watermarks(&topic, 0, CONNECT_WAIT).map(drop)
        };
        if let Err(error) = self.call_once(Instant::now() + wait, cancel, connect)? {
            tracing::debug!("no broker is connected yet: {error}");
        }
        // The call may be made again after its own time-out, and asks again at once if no answer is on its way. By itself
        // librdkafka asks again after half a second, while what a killed process has left open is rolled back in a moment.
        self.call(wait, cancel, |producer| producer.init_transactions(INIT_SLICE))
    }

    /// Begins a transaction, if none has begun.
    pub fn begin(&mut self) -> KafkaResult<()> {
        if !self.is_open {
            // This asks nobody.
            self.client().begin_transaction()?;
            self.is_open = true;
        }
        Ok(())
    }

    /// Commits the transaction that has begun.
    pub fn commit(&mut self, wait: Duration, cancel: &CancelToken) -> Result<KafkaResult<()>> {
        // Never with a deadline of its own: the client's idea of the transaction would no longer be the coordinator's.
        let done = self.call(wait, cancel, |producer| producer.commit_transaction(None))?;
        if done.is_ok() {
            self.is_open = false;
        }
        Ok(done)
    }

    /// Makes a call on the producer's thread, again while the broker says that it can be made again. The error is that
    /// there was no answer.
    fn call<F>(&mut self, wait: Duration, cancel: &CancelToken, call: F) -> Result<KafkaResult<()>>
    where
        F: Fn(&BaseProducer<Watcher>) -> KafkaResult<()> + Copy + Send + 'static,
    {
        let deadline = Instant::now() + wait;
        self.client().client().context().set_waiting(true);
        loop {
            let answer = self.call_once(deadline, cancel, call)?;
            if !answer.as_ref().is_err_and(may_try_again) || deadline < Instant::now() {
                self.client().client().context().set_waiting(false);
                return Ok(answer);
            }
            self.client().poll(RETRY_WAIT);
        }
    }

    fn call_once<F>(&mut self, deadline: Instant, cancel: &CancelToken, call: F) -> Result<KafkaResult<()>>
    where
        F: FnOnce(&BaseProducer<Watcher>) -> KafkaResult<()> + Send + 'static,
    {
        let brokers = self.client().client().context().brokers().to_owned();
        let silent = || {
            Error::upstream(format!("the broker at {brokers} does not answer a question about a transaction"))
                .hint("start the job again: it goes on from its last commit")
                .transient()
        };
        let (answer, answered) = sync_channel(1);
        // Nobody may be waiting any more.
        let call: Call = Box::new(move |producer| drop(answer.send(call(producer))));
        // The thread is not at work: one that has not answered is never called again.
        if self.is_lost || self.calls.as_ref().is_none_or(|calls| calls.send(call).is_err()) {
            return Err(silent());
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match answered.recv_timeout(left.min(SLICE)) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::bug("a call about a transaction failed")),
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Reports of an outage come only to those who poll.
            self.client().poll(Duration::ZERO);
            self.client().client().context().tell();
            if let Err(cancelled) = cancel.check() {
                self.is_lost = true;
                return Err(cancelled);
            }
            if deadline <= Instant::now() {
                self.is_lost = true;
                tracing::warn!(
                    "the broker at {brokers} does not answer; a Kafka producer that waits for it is left behind"
                );
                return Err(silent());
            }
        }
    }
}

/// Whether the same call may be made again.
fn may_try_again(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable() && !error.is_fatal())
}

/// Whether everything that was written is with the broker. Else a question whether a partition may be written to may still
/// be open, and librdkafka ends the process when the answer to one fails after its transaction was rolled back.
fn is_settled(producer: &BaseProducer<Watcher>) -> bool {
    producer.flush(SETTLE_WAIT).is_ok() && producer.client().context().undelivered().is_none()
}

impl Drop for TransactionalProducer {
    fn drop(&mut self) {
        if let (Some(calls), true, false) = (&self.calls, self.is_open, self.is_lost) {
            // Else readers would wait for the transaction until the coordinator gives it up. If this fails, they do.
            let _ = calls.send(Box::new(|producer| {
                if !is_settled(producer) {
                    tracing::debug!("a transaction is left to the coordinator");
                } else if let Err(error) = producer.abort_transaction(ABORT_WAIT) {
                    tracing::debug!("a transaction was not rolled back: {error}");
                }
            }));
        }
        drop((self.producer.take(), self.calls.take()));
        if !self.is_lost && self.ended.recv_timeout(END_WAIT_MAX).is_err() {
            tracing::warn!("a Kafka producer did not end within {} s and is left behind", END_WAIT_MAX.as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode;

    use crate::connectors::kafka::ClientProperties;

    use super::*;

    fn producer() -> TransactionalProducer {
        let mut config = ClientConfig::new();
        // Nobody listens there.
        config.set("bootstrap.servers", "127.0.0.1:9").set("transactional.id", "t");
        TransactionalProducer::new(&config, Watcher::quiet("a test", &ClientProperties::default())).unwrap()
    }

    #[test]
    fn whoever_waits_for_an_answer_waits_only_so_long() {
        let start = Instant::now();
        let mut hanging = producer();
        let hang = |_: &BaseProducer<Watcher>| loop {
            thread::park();
        };
        let wait = Duration::from_millis(120);
        let error = hanging.call(wait, &CancelToken::default(), hang).unwrap_err();
        assert!(error.message.contains("does not answer") && wait <= start.elapsed(), "{error:?}");
        // It is never called again, and its end is not waited for.
        let error = hanging.commit(wait, &CancelToken::default()).unwrap_err();
        assert!(error.message.contains("does not answer"), "{error:?}");
        drop(hanging);

        let cancel = CancelToken::default();
        let cancelled = cancel.clone();
        let mut hanging = producer();
        let canceller = thread::spawn(move || cancelled.cancel());
        let error = hanging.call(Duration::from_secs(3_600), &cancel, hang).unwrap_err();
        assert_eq!(error.blame, crate::error::Blame::Interrupted);
        canceller.join().unwrap();
        drop(hanging);
        assert!(start.elapsed() < END_WAIT_MAX);
    }

    #[test]
    fn an_answer_is_the_call_s_own() {
        let mut producer = producer();
        let cancel = CancelToken::default();
        let answer = producer.call(Duration::from_secs(60), &cancel, |_| Err(KafkaError::Canceled)).unwrap();
        assert_eq!(answer.unwrap_err(), KafkaError::Canceled);
        // Not begun: the state machine says so at once.
        let answer = producer.commit(Duration::from_secs(60), &cancel).unwrap();
        assert!(matches!(answer, Err(KafkaError::Transaction(e)) if e.code() == RDKafkaErrorCode::State));
    }
}
