//! What benchmarks share: librdkafka's batch call as a measure, and the memory of a process.

use std::fs;
use std::ptr;
use std::slice;

use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_message_destroy, rd_kafka_queue_destroy, rd_kafka_queue_get_consumer,
    rd_kafka_resp_err_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer};

/// Pointers that librdkafka may fill in one call.
const BATCH_MAX: usize = 8_192;

/// Shows the value of each record that came in one batch call. Not through Tidemill's own reader: that is what is measured.
#[allow(unsafe_code)]
pub fn visit_batch(consumer: &BaseConsumer, mut visit: impl FnMut(&[u8])) {
    let mut messages = [ptr::null_mut(); BATCH_MAX];
    // SAFETY: the consumer outlives the queue's reference, which is given back at the end; the array has room for
    // `BATCH_MAX` pointers; librdkafka writes as many valid messages as it says, and each is read and destroyed once. A
    // panic of `visit` leaks messages, no more.
    unsafe {
        let queue = rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        let filled = rd_kafka_consume_batch_queue(queue, 100, messages.as_mut_ptr(), BATCH_MAX);
        for message in &messages[..usize::try_from(filled).unwrap_or(0)] {
            let fields = &**message;
            if fields.err == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && !fields.payload.is_null() {
                visit(slice::from_raw_parts(fields.payload.cast::<u8>(), fields.len));
            }
            rd_kafka_message_destroy(*message);
        }
        rd_kafka_queue_destroy(queue);
    }
}

/// The largest resident memory of a process so far; `None` once it has ended.
pub fn peak_memory_mb(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?;
    Some(kilobytes.trim().parse::<u64>().ok()? / 1024)
}
