//! Event time: milliseconds since the Unix epoch, and the watermarks that say how much of it has passed.
//!
//! Arithmetic only: no clock is read here.

/// Milliseconds since the Unix epoch. Sources admit only times whose distance to the epoch is below
/// [`TIME_MS_LIMIT`], so that window arithmetic cannot overflow.
pub type TimeMs = i64;

/// Event times lie strictly between `-TIME_MS_LIMIT` and `TIME_MS_LIMIT` (about 140 million years).
pub const TIME_MS_LIMIT: TimeMs = 1 << 52;

/// The watermark before any record: nothing has passed.
pub const WATERMARK_MIN: TimeMs = i64::MIN;

/// The watermark after the last record of a bounded run: everything has passed.
pub const WATERMARK_MAX: TimeMs = i64::MAX;

/// Whether a decoded event time may enter the engine.
pub fn is_admissible(time: TimeMs) -> bool {
    -TIME_MS_LIMIT < time && time < TIME_MS_LIMIT
}
