//! Records in batches, straight from librdkafka's buffers. The only `unsafe` code of the crate.
//!
//! The safe API of the client library gives one event and one allocation per record, which costs more than decoding a
//! small one. librdkafka itself fills an array with up to thousands of messages in one call; this file wraps that call
//! in a type that cannot be misused:
//!
//! ```text
//! BatchConsumer::new(consumer, partitions)    one queue per partition, in this order
//!   .add(partitions)                          more of them, while it reads
//!   .poll(slot, rows_max, |event| ..)         visits what has arrived; never waits
//!   .wait(timeout)                            sleeps until something arrives anywhere
//! ```
//!
//! Rules that make it sound, all kept by construction:
//! - A message's memory lives until `rd_kafka_message_destroy`. The visitor gets slices whose lifetime ends with the
//!   visit, and the batch is destroyed by a guard, also when the visitor panics.
//! - librdkafka forbids two batch calls on one consumer at a time, and seek or pause beside them: everything here
//!   takes `&mut self`, and the consumer is owned.
//! - A queue's callback may fire from librdkafka's threads until it is disabled. Its target is kept alive until then;
//!   disabling takes the queue's lock, under which the callback runs, so none is running afterwards.
//! - Queues are destroyed before the consumer, and with each the messages that are kept for its next poll.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_err2str, rd_kafka_get_watermark_offsets, rd_kafka_header_get_all,
    rd_kafka_headers_t, rd_kafka_message_destroy, rd_kafka_message_errstr, rd_kafka_message_headers,
    rd_kafka_message_t, rd_kafka_message_timestamp, rd_kafka_queue_cb_event_enable, rd_kafka_queue_destroy,
    rd_kafka_queue_forward, rd_kafka_queue_get_partition, rd_kafka_queue_length, rd_kafka_queue_t, rd_kafka_resp_err_t,
    rd_kafka_t, rd_kafka_timestamp_type_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::client;
use crate::error::{Error, Result};

/// Events of the client (errors, answers to commits) that are served in one go, at most.
const EVENTS_MAX: usize = 64;

/// What a visitor sees.
pub enum Event<'a> {
    /// A record.
    Record(Record<'a>),
    /// The position is the end of the partition, and this is it.
    End(i64),
    /// The partition cannot be read (on).
    Failed {
        /// librdkafka's class of the error.
        code: RDKafkaErrorCode,
        /// Its text.
        text: String,
    },
}

/// Which clock a record's timestamp comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampKind {
    /// There is none.
    None,
    /// The producer's.
    Create,
    /// The broker's, when it appended the record.
    LogAppend,
}

/// A record in librdkafka's memory.
pub struct Record<'a> {
    message: *mut rd_kafka_message_t,
    /// Nothing of the record may outlive the visit, after which its batch is destroyed.
    visit: PhantomData<&'a rd_kafka_message_t>,
}

impl<'a> Record<'a> {
    fn fields(&self) -> &'a rd_kafka_message_t {
        // SAFETY: the message is not destroyed before `'a` ends.
        unsafe { &*self.message }
    }

    /// The value; `None` for a tombstone.
    pub fn payload(&self) -> Option<&'a [u8]> {
        let fields = self.fields();
        // SAFETY: payload and length belong together and stay until the message is destroyed.
        unsafe { bytes(fields.payload, fields.len) }
    }

    /// The key.
    pub fn key(&self) -> Option<&'a [u8]> {
        let fields = self.fields();
        // SAFETY: as for the payload.
        unsafe { bytes(fields.key, fields.key_len) }
    }

    /// The offset.
    pub fn offset(&self) -> i64 {
        self.fields().offset
    }

    /// Milliseconds since the epoch, and whose clock it was.
    pub fn timestamp(&self) -> (i64, TimestampKind) {
        let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive, and `kind` is written before the call returns.
        let time = unsafe { rd_kafka_message_timestamp(self.message, &mut kind) };
        let kind = match kind {
            rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => TimestampKind::Create,
            rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => TimestampKind::LogAppend,
            _ => TimestampKind::None,
        };
        (time, kind)
    }

    /// Visits the headers in their order. Parsed only when asked for.
    pub fn headers(&self, mut visit: impl FnMut(&'a [u8], Option<&'a [u8]>)) {
        let mut headers: *mut rd_kafka_headers_t = ptr::null_mut();
        // SAFETY: the message is alive; the headers belong to it and live as long.
        let found = unsafe { rd_kafka_message_headers(self.message, &mut headers) };
        if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return;
        }
        for index in 0.. {
            let mut name: *const c_char = ptr::null();
            let mut value: *const c_void = ptr::null();
            let mut size = 0;
            // SAFETY: `headers` is alive and the three targets are written before the call returns.
            let found = unsafe { rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size) };
            if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            // SAFETY: a header's name is terminated by NUL; name and value live as long as the message.
            unsafe { visit(CStr::from_ptr(name).to_bytes(), bytes(value, size)) }
        }
    }
}

/// # Safety
/// A pointer that is not null must be valid for `len` bytes during `'a`.
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: promised by the caller.
    Some(unsafe { slice::from_raw_parts(start.cast::<u8>(), len) })
}

/// Wakes the one thread that waits for records.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    fn wait(&self, timeout: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, _) =
            self.heard.wait_timeout_while(rung, timeout, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

/// What a queue's callback touches.
struct Arrival {
    /// Something may be in the queue. Set by librdkafka when the queue stops being empty, and by us when a batch
    /// was cut short; cleared before the queue is emptied, so that no arrival is lost.
    pending: AtomicBool,
    bell: Arc<Bell>,
}

/// Called by librdkafka, on its threads and with the queue locked, when a queue stops being empty.
unsafe extern "C" fn arrived(_: *mut rd_kafka_t, arrival: *mut c_void) {
    // SAFETY: the pointer is that of an `Arrival` which its queue keeps alive until the callback is disabled.
    let arrival = unsafe { &*arrival.cast::<Arrival>() };
    arrival.pending.store(true, Ordering::Release);
    arrival.bell.ring();
}

/// One partition's queue.
struct Queue {
    native: *mut rd_kafka_queue_t,
    /// Boxed: librdkafka holds its address.
    arrival: Box<Arrival>,
    /// Fetched, and left by a visit that broke: ours to destroy, and none is null.
    kept: Vec<*mut rd_kafka_message_t>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        drop(Batch(&mut self.kept));
        // SAFETY: the queue is alive. After the first call no callback runs any more (see the head of this file), so
        // `arrival` may go; the second gives back the reference that `rd_kafka_queue_get_partition` took.
        unsafe {
            rd_kafka_queue_cb_event_enable(self.native, None, ptr::null_mut());
            rd_kafka_queue_destroy(self.native);
        }
    }
}

/// A partition to read, and from where.
pub struct Assignment<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub start: i64,
}

/// A consumer with one queue per assigned partition.
pub struct BatchConsumer<C: ConsumerContext + 'static> {
    /// Declared, and therefore dropped, before the consumer; `drop` does it by hand all the same.
    queues: Vec<Queue>,
    /// Filled by librdkafka; every pointer in it is null or of a message that is ours to destroy.
    messages: Vec<*mut rd_kafka_message_t>,
    bell: Arc<Bell>,
    main_pending: Arc<AtomicBool>,
    /// `None` only while it is being dropped.
    consumer: Option<BaseConsumer<C>>,
}

// SAFETY: librdkafka's handles may be used from any thread, one at a time is ensured by `&mut self`; so may messages,
// of which those that a queue keeps are carried along.
unsafe impl<C: ConsumerContext + 'static> Send for BatchConsumer<C> {}

impl<C: ConsumerContext + 'static> BatchConsumer<C> {
    /// Assigns the partitions; the index of one in `assignments` is its slot.
    pub fn new(mut consumer: BaseConsumer<C>, assignments: &[Assignment<'_>]) -> Result<Self> {
        let bell = Arc::new(Bell::default());
        let main_pending = Arc::new(AtomicBool::new(true));
        consumer.set_nonempty_callback({
            let (bell, pending) = (Arc::clone(&bell), Arc::clone(&main_pending));
            move || {
                pending.store(true, Ordering::Release);
                bell.ring();
            }
        });
        let mut this = Self { queues: Vec::new(), messages: Vec::new(), bell, main_pending, consumer: Some(consumer) };
        this.add(assignments)?;
        Ok(this)
    }

    /// Assigns further partitions: their slots follow. The others are read on undisturbed.
    pub fn add(&mut self, assignments: &[Assignment<'_>]) -> Result<()> {
        if assignments.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(assignments.len());
        for assignment in assignments {
            // The queue is cut off from the common one *before* the assignment: librdkafka then leaves it alone, and
            // no record can slip into the common queue.
            let queue = self.queue(assignment.topic, assignment.partition)?;
            self.queues.push(queue);
            list.add_partition_offset(assignment.topic, assignment.partition, Offset::Offset(assignment.start))
                .map_err(|_| Error::bug(format!("the offset {} cannot be assigned", assignment.start)))?;
        }
        self.consumer()
            .incremental_assign(&list)
            .map_err(|e| Error::upstream(format!("the partitions cannot be assigned: {e}")))
    }

    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.queues.len()
    }

    fn queue(&self, topic: &str, partition: i32) -> Result<Queue> {
        let name = CString::new(topic).map_err(|_| Error::bug("a topic's name holds a NUL byte"))?;
        let arrival = Box::new(Arrival { pending: AtomicBool::new(true), bell: Arc::clone(&self.bell) });
        // SAFETY: the client is alive and `name` is a C string; the result is null or a reference that `Queue` owns.
        let native =
            unsafe { rd_kafka_queue_get_partition(self.consumer().client().native_ptr(), name.as_ptr(), partition) };
        if native.is_null() {
            return Err(Error::upstream(format!("topic \"{topic}\", partition {partition} cannot be read")));
        }
        let queue = Queue { native, arrival, kept: Vec::new() };
        let opaque = ptr::from_ref::<Arrival>(&queue.arrival).cast_mut().cast::<c_void>();
        // SAFETY: the queue is alive; the callback's target lives in a box that `Queue` drops only after disabling
        // the callback, and is only ever shared.
        unsafe {
            rd_kafka_queue_forward(native, ptr::null_mut());
            rd_kafka_queue_cb_event_enable(native, Some(arrived), opaque);
        }
        Ok(queue)
    }

    /// The offset behind the last record of an assigned partition, also of a transaction that is still open, as the last
    /// answer of the broker told it. Asks nobody.
    pub fn known_end(&self, topic: &str, partition: i32) -> Option<i64> {
        let name = CString::new(topic).ok()?;
        let (mut low, mut high) = (-1, -1);
        let client = self.consumer().client().native_ptr();
        // SAFETY: the client is alive, `name` is a C string, and both targets outlive the call, which only reads memory.
        let found = unsafe { rd_kafka_get_watermark_offsets(client, name.as_ptr(), partition, &mut low, &mut high) };
        (found == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && 0 <= high).then_some(high)
    }

    /// The consumer, for questions to the cluster.
    pub fn consumer(&self) -> &BaseConsumer<C> {
        self.consumer.as_ref().expect("taken only by drop")
    }

    /// Visits what has arrived for a slot, at most `rows_max` events; never waits. The event at which a visit breaks, and
    /// what follows it, comes again with the next poll. Returns the number of events visited.
    pub fn poll(&mut self, slot: usize, rows_max: usize, visit: impl FnMut(Event<'_>) -> ControlFlow<()>) -> usize {
        self.serve_client();
        let queue = &mut self.queues[slot];
        if rows_max == 0 {
            return 0;
        }
        if self.messages.len() < rows_max {
            self.messages.resize(rows_max, ptr::null_mut());
        }
        if !queue.kept.is_empty() {
            let count = queue.kept.len().min(rows_max);
            self.messages[..count].copy_from_slice(&queue.kept[..count]);
            queue.kept.drain(..count);
            return Self::visit(Batch(&mut self.messages[..count]), &mut queue.kept, visit);
        }
        if !queue.arrival.pending.swap(false, Ordering::AcqRel) {
            return 0;
        }
        // SAFETY: the queue is alive, the array has room for `rows_max` pointers, and no other batch call runs on
        // this consumer, which `&mut self` ensures.
        let count = unsafe { rd_kafka_consume_batch_queue(queue.native, 0, self.messages.as_mut_ptr(), rows_max) };
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: the queue is alive.
        if count == rows_max || unsafe { rd_kafka_queue_length(queue.native) } > 0 {
            queue.arrival.pending.store(true, Ordering::Release);
            // No further arrival will ring for a queue that is not empty; so the next wait ends at once, one time.
            self.bell.ring();
        }
        Self::visit(Batch(&mut self.messages[..count]), &mut queue.kept, visit)
    }

    /// Visits the messages of a batch, all of them valid; those from a break on go to the front of what is kept.
    fn visit(
        batch: Batch<'_>,
        kept: &mut Vec<*mut rd_kafka_message_t>,
        mut visit: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> usize {
        let count = batch.0.len();
        for visited in 0..count {
            let message = &batch.0[visited];
            // SAFETY: librdkafka wrote this valid pointer, and `batch` destroys the message after the loop, or `kept`
            // after that.
            let fields = unsafe { &**message };
            let event = match fields.err {
                rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    Event::Record(Record { message: *message, visit: PhantomData })
                }
                rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => Event::End(fields.offset),
                error => Event::Failed { code: error.into(), text: error_text(*message, error) },
            };
            if visit(event).is_break() {
                let left = batch.0[visited..].iter_mut().map(|message| std::mem::replace(message, ptr::null_mut()));
                kept.splice(0..0, left);
                return visited + 1;
            }
        }
        count
    }

    /// Sleeps until something has arrived for some slot since the last wait, at most so long. A slot that is left
    /// unpolled on purpose does not keep its thread awake.
    pub fn wait(&mut self, timeout: Duration) {
        // Once whatever the flag says, which tells only that events began to come: a flood is served bit by bit.
        let _ = self.consumer().poll(Duration::ZERO);
        self.serve_client();
        self.bell.wait(timeout);
        self.serve_client();
    }

    /// Serves the client's own events: reports of errors reach the context this way.
    fn serve_client(&self) {
        if !self.main_pending.swap(false, Ordering::AcqRel) {
            return;
        }
        for _ in 0..EVENTS_MAX {
            // An answer without an error cannot be told from none, so all of the allowance is used. Records never come
            // this way: every assigned partition has its own queue.
            let _ = self.consumer().poll(Duration::ZERO);
        }
    }
}

impl<C: ConsumerContext + 'static> Drop for BatchConsumer<C> {
    fn drop(&mut self) {
        self.queues.clear();
        if let Some(consumer) = self.consumer.take() {
            client::end_consumer(consumer, ());
        }
    }
}

/// Messages that are destroyed when this goes, whatever happens in between.
struct Batch<'a>(&'a mut [*mut rd_kafka_message_t]);

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for message in self.0.iter_mut() {
            let message = std::mem::replace(message, ptr::null_mut());
            if !message.is_null() {
                // SAFETY: a valid message that nobody else destroys; set to null so that it is done once.
                unsafe { rd_kafka_message_destroy(message) };
            }
        }
    }
}

fn error_text(message: *const rd_kafka_message_t, error: rd_kafka_resp_err_t) -> String {
    // SAFETY: the message is alive; both calls return null or a C string that outlives this function.
    unsafe {
        let text = rd_kafka_message_errstr(message);
        let text = if text.is_null() { rd_kafka_err2str(error) } else { text };
        if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}
