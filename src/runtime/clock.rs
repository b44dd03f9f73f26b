//! The only reader of the clocks.

#![allow(clippy::disallowed_methods, reason = "this is the door through which time comes in")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The wall clock, in milliseconds since the epoch.
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The clock that never steps, for deadlines and durations.
pub fn now() -> Instant {
    Instant::now()
}

/// Sets the clock that queries see on this thread.
pub fn set_worker_clock(clock_ms: i64) {
    crate::exec::clock::set_ms(clock_ms);
}
