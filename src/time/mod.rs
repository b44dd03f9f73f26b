//! Event time: milliseconds since the Unix epoch, and the watermarks that say how much of it has passed.
//!
//! Arithmetic only: no clock is read here.

mod windows;

pub use windows::{
    Axis, CalendarUnit, Run, SliceId, SlicedWindows, WindowId, WindowShape, Windows, instant_ms, local_ms,
};

/// Milliseconds since the Unix epoch. Sources admit only times whose distance to the epoch is below
/// [`TIME_MS_LIMIT`], so that window arithmetic cannot overflow.
pub type TimeMs = i64;

/// Event times lie strictly between `-TIME_MS_LIMIT` and `TIME_MS_LIMIT` (about 140 million years).
pub const TIME_MS_LIMIT: TimeMs = 1 << 52;

/// The watermark before any record: nothing has passed.
pub const WATERMARK_MIN: TimeMs = i64::MIN;

/// The watermark after the last record of a bounded run: everything has passed.
pub const WATERMARK_MAX: TimeMs = i64::MAX;

/// The clock moves an idle stream's watermark by at most so much from one boundary to the next: twice as much as may lie
/// between two of them.
pub const IDLE_CLOCK_STEP_MS_MAX: i64 = 10_000;

/// Whether a decoded event time may enter the engine.
pub fn is_admissible(time: TimeMs) -> bool {
    -TIME_MS_LIMIT < time && time < TIME_MS_LIMIT
}

/// The watermark less what rows are allowed to be late: windows that it has reached take nothing any more.
pub fn late_from(watermark: TimeMs, allowed_lateness_ms: i64) -> TimeMs {
    match watermark {
        WATERMARK_MIN | WATERMARK_MAX => watermark,
        watermark => watermark.saturating_sub(allowed_lateness_ms),
    }
}

/// How far event time has come in a stream, or in a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The least watermark over the partitions that are not idle.
    Active(TimeMs),
    /// All partitions are idle.
    Idle {
        /// The greatest watermark that any of the partitions had, or what the clock has made of it below.
        reached: TimeMs,
        /// How it goes on.
        moves: Moves,
    },
}

/// How the watermark of an idle stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// Not at all, until a record comes.
    Not,
    /// With the clock, from the first operator on that asks for it.
    WithClock,
    /// By itself: an operator below has applied the clock, and will give rows as its windows close.
    ByItself,
}

impl Progress {
    /// The progress of two parts together. Idle parts hold nothing back; neither do those that have ended, which leave
    /// an idle rest idle: its time must not jump to the end. Where no part is active, one that moves by itself is waited
    /// for: it has rows to give, and is never far behind, as all such parts move at the clock's rate.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Active(WATERMARK_MAX), rest) | (rest, Self::Active(WATERMARK_MAX)) => rest,
            (Self::Active(a), Self::Active(b)) => Self::Active(a.min(b)),
            (Self::Active(a), Self::Idle { .. }) | (Self::Idle { .. }, Self::Active(a)) => Self::Active(a),
            (Self::Idle { reached: a, moves: x }, Self::Idle { reached: b, moves: y }) => match (x, y) {
                (Moves::ByItself, Moves::ByItself) => Self::Idle { reached: a.min(b), moves: x },
                (Moves::ByItself, _) => self,
                (_, Moves::ByItself) => other,
                (Moves::WithClock, Moves::WithClock) => Self::Idle { reached: a.max(b), moves: x },
                _ => Self::Idle { reached: a.max(b), moves: Moves::Not },
            },
        }
    }

    /// The progress behind an operator whose own watermark this progress has moved to there: the clock has been applied,
    /// and is not applied again above.
    #[must_use]
    pub fn applied(self, watermark: TimeMs) -> Self {
        match self {
            Self::Active(_) => Self::Active(watermark),
            // What has come to no time has nothing to give, and does not move.
            Self::Idle { moves: Moves::WithClock, .. } if is_admissible(watermark) => {
                Self::Idle { reached: watermark, moves: Moves::ByItself }
            }
            Self::Idle { moves, .. } => Self::Idle { reached: watermark, moves },
        }
    }
}

/// Turns progress into a watermark that never falls, and that the clock moves on while everything is idle.
///
/// Watermarks move at commit boundaries only; with the clock of each boundary on record, the watermark is a function of
/// the boundaries.
#[derive(Clone, Debug)]
pub struct WatermarkClock {
    watermark: TimeMs,
    /// The clock of the boundary before this one, while everything is idle.
    idle_since_ms: Option<i64>,
}

impl Default for WatermarkClock {
    fn default() -> Self {
        Self { watermark: WATERMARK_MIN, idle_since_ms: None }
    }
}

impl WatermarkClock {
    /// The watermark.
    pub fn now(&self) -> TimeMs {
        self.watermark
    }

    /// The watermark, and the clock since which everything has been idle, if it is.
    pub fn at_rest(&self) -> (TimeMs, Option<i64>) {
        (self.watermark, self.idle_since_ms)
    }

    /// A clock that goes on from there.
    pub fn from_rest(watermark: TimeMs, idle_since_ms: Option<i64>) -> Self {
        Self { watermark, idle_since_ms }
    }

    /// The watermark at a boundary with this progress and this wall clock.
    pub fn at_boundary(&mut self, progress: Progress, clock_ms: i64) -> TimeMs {
        match progress {
            Progress::Active(watermark) => {
                self.idle_since_ms = None;
                self.watermark = self.watermark.max(watermark);
            }
            Progress::Idle { reached, moves } => {
                self.watermark = self.watermark.max(reached);
                if let Some(before_ms) = self.idle_since_ms
                    && moves == Moves::WithClock
                    && self.watermark.unsigned_abs() < TIME_MS_LIMIT.unsigned_abs()
                {
                    // At the clock's rate, never by a jump: a clock that steps back moves nothing, and a process that
                    // was suspended does not make up for it at once.
                    self.watermark += (clock_ms - before_ms).clamp(0, IDLE_CLOCK_STEP_MS_MAX);
                }
                self.idle_since_ms = Some(clock_ms);
            }
        }
        self.watermark
    }
}

/// An instant as ISO-8601 in UTC, such as `2013-01-01T10:00:00.000Z`; one that no calendar reaches as its number.
pub fn iso_utc(time: TimeMs) -> String {
    match chrono::DateTime::from_timestamp_millis(time) {
        Some(time) => time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        None => format!("{time} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_or_is_idle_holds_nothing_back() {
        let ended = Progress::Active(WATERMARK_MAX);
        let idle = |reached| Progress::Idle { reached, moves: Moves::WithClock };
        let still = |reached| Progress::Idle { reached, moves: Moves::Not };
        let by_itself = |reached| idle(0).applied(reached);
        let rows = [
            (Progress::Active(5), Progress::Active(7), Progress::Active(5)),
            (Progress::Active(5), idle(7), Progress::Active(5)),
            (Progress::Active(5), ended, Progress::Active(5)),
            (idle(5), idle(7), idle(7)),
            (idle(5), ended, idle(5)),
            (ended, ended, ended),
            (still(5), idle(7), still(7)),
            // What gives rows when its windows close is waited for, but not by what is active.
            (by_itself(5), idle(7), by_itself(5)),
            (by_itself(5), still(7), by_itself(5)),
            (by_itself(5), by_itself(7), by_itself(5)),
            (by_itself(5), ended, by_itself(5)),
            (Progress::Active(7), by_itself(5), Progress::Active(7)),
            (still(0).applied(5), idle(7), still(7)),
            (idle(WATERMARK_MIN).applied(WATERMARK_MIN), idle(7), idle(7)),
        ];
        for (a, b, want) in rows {
            assert_eq!((a.and(b), b.and(a)), (want, want), "{a:?} {b:?}");
            for (c, ..) in rows {
                assert_eq!(a.and(b).and(c), a.and(b.and(c)), "{a:?} {b:?} {c:?}");
            }
        }
    }

    #[test]
    fn an_idle_stream_moves_with_the_clock() {
        let mut clock = WatermarkClock::default();
        assert_eq!(clock.at_boundary(Progress::Active(50), 1_000), 50);
        let idle = Progress::Idle { reached: 70, moves: Moves::WithClock };
        assert_eq!(clock.at_boundary(idle, 2_000), 70);
        assert_eq!(clock.at_boundary(idle, 2_005), 75);
        assert_eq!(clock.at_boundary(Progress::Active(60), 2_010), 75);
        assert_eq!(clock.at_boundary(idle, 3_000), 75);
        assert_eq!(clock.at_boundary(idle, 3_000_000), 75 + IDLE_CLOCK_STEP_MS_MAX);
    }
}
