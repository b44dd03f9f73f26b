//! The clock that queries see: that of the boundary which opened the interval they run in.
//!
//! `exec` reads no clock. Whoever drives a worker sets its time at each boundary; `NOW()` and `PROCTIME()` read it.

use std::cell::Cell;

thread_local! {
    static CLOCK_MS: Cell<i64> = const { Cell::new(0) };
}

/// Sets this worker's clock (ms since the epoch).
pub fn set_ms(clock_ms: i64) {
    CLOCK_MS.set(clock_ms);
}

/// This worker's clock (ms since the epoch).
pub fn now_ms() -> i64 {
    CLOCK_MS.get()
}
