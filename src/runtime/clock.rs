//! The only reader of the clocks.

#![allow(clippy::disallowed_methods, reason = "this is the door through which time comes in")]

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock, in milliseconds since the epoch.
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The clock that never steps, for deadlines and durations.
pub fn now() -> Instant {
    Instant::now()
}

/// When this was first asked for.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The time that this thread has worked, for differences only: it stands still while the thread waits for another one.
pub fn worked() -> Duration {
    let waited = WAITED.get();
    now().saturating_duration_since(*BEGINNING).saturating_sub(waited)
}

/// How long this thread has waited for another one to take something.
pub fn waited() -> Duration {
    WAITED.get()
}

/// Waits for another thread.
pub fn wait<T>(waiting: impl FnOnce() -> T) -> T {
    let before = now();
    let result = waiting();
    WAITED.set(WAITED.get() + before.elapsed());
    result
}

/// Sets the clock that queries see on this thread.
pub fn set_worker_clock(clock_ms: i64) {
    crate::exec::clock::set_ms(clock_ms);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_no_work() {
        let pause = Duration::from_millis(30);
        let (begin, worked_before, waited_before) = (now(), worked(), waited());
        assert_eq!(wait(|| std::thread::sleep(pause)), ());
        let (work, wait) = (worked().saturating_sub(worked_before), waited() - waited_before);
        assert!(pause <= wait && work + pause <= begin.elapsed(), "{work:?} {wait:?}");
    }
}
