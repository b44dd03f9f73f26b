//! Windows: which instants they hold, when they close, and the slices that they are made of.
//!
//! The windows of `TUMBLE`, `HOP` and `CUMULATE` are the same for all keys. Time is cut into *slices*, numbered without
//! gaps: a row lands in one slice, and a window is a run of whole slices. All arithmetic is on slices' numbers; only the
//! [`Axis`] knows instants. So days of a time zone, which may have 23 or 25 hours, and months are no harder than minutes.
//!
//! A window is named by the number of the slice behind its last one. Those names rise in the order in which windows
//! close, also for `CUMULATE`, where several windows have one start.

use chrono::{Datelike, Days, LocalResult, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use super::{TIME_MS_LIMIT, TimeMs};

/// The number of a slice.
pub type SliceId = i64;

/// A window by its end: the number of the slice that follows its last one.
pub type WindowId = i64;

/// The windows of a table function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Windows {
    /// Which they are.
    pub shape: WindowShape,
    /// The zone on whose clocks `window_start` and `window_end` are shown; UTC where event time has no zone.
    pub zone: Tz,
}

/// Which windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowShape {
    /// The same for all keys.
    Sliced(SlicedWindows),
    /// `SESSION`: rows of a key that follow each other within the gap, from the first to the gap behind the last.
    Session {
        /// A session ends when no row has come for so long (ms).
        gap_ms: i64,
    },
}

impl Windows {
    /// The windows, if they are the same for all keys.
    pub fn sliced(&self) -> Option<SlicedWindows> {
        match self.shape {
            WindowShape::Sliced(windows) => Some(windows),
            WindowShape::Session { .. } => None,
        }
    }

    /// How long a window is (ms), about: a session's gap, a month of 31 days.
    pub fn length_ms(&self) -> i64 {
        match self.shape {
            WindowShape::Sliced(windows) => windows.length_ms(),
            WindowShape::Session { gap_ms } => gap_ms,
        }
    }
}

/// How instants are cut into slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    /// Slices of one length.
    Fixed {
        /// The length (ms).
        slice_ms: i64,
        /// What all starts are shifted by, from 0 to the length.
        offset_ms: i64,
    },
    /// Slices of calendar units of a time zone.
    Calendar {
        /// The zone whose days and months they are.
        zone: Tz,
        /// The unit.
        unit: CalendarUnit,
        /// Units per slice.
        count: i64,
        /// What all starts are shifted by, on the zone's clocks (ms).
        offset_ms: i64,
    },
}

/// Units whose length varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CalendarUnit {
    /// From midnight to midnight.
    Day,
    /// From the first to the first.
    Month,
}

impl Axis {
    /// The slice that holds an instant.
    pub fn slice_of(&self, time: TimeMs) -> SliceId {
        match *self {
            Self::Fixed { slice_ms, offset_ms } => (time - offset_ms).div_euclid(slice_ms),
            Self::Calendar { zone, unit, count, offset_ms } => {
                let local = local_ms(zone, time) - offset_ms;
                let days = local.div_euclid(DAY_MS);
                let units = match unit {
                    CalendarUnit::Day => days,
                    CalendarUnit::Month => months_of(days),
                };
                let slice = units.div_euclid(count);
                // Where clocks are set back over midnight, an instant after it reads as one before: slices have one
                // beginning, the first.
                if self.start_of(slice + 1) <= time { slice + 1 } else { slice }
            }
        }
    }

    /// The first instant of a slice.
    pub fn start_of(&self, slice: SliceId) -> TimeMs {
        match *self {
            Self::Fixed { slice_ms, offset_ms } => slice.saturating_mul(slice_ms).saturating_add(offset_ms),
            Self::Calendar { zone, unit, count, offset_ms } => {
                let units = slice.saturating_mul(count);
                let days = match unit {
                    CalendarUnit::Day => units,
                    CalendarUnit::Month => first_day_of(units),
                };
                instant_ms(zone, days.saturating_mul(DAY_MS).saturating_add(offset_ms))
            }
        }
    }

    /// How long a slice is (ms), about.
    fn length_ms(&self) -> i64 {
        match *self {
            Self::Fixed { slice_ms, .. } => slice_ms,
            Self::Calendar { unit: CalendarUnit::Day, count, .. } => count.saturating_mul(DAY_MS),
            Self::Calendar { unit: CalendarUnit::Month, count, .. } => count.saturating_mul(31 * DAY_MS),
        }
    }
}

/// Which runs of slices are windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Run {
    /// A window starts every so many slices: `HOP`, and `TUMBLE` when it is the size.
    Slide(i64),
    /// Windows share their start and grow by a slice: `CUMULATE`.
    Grow,
}

/// The windows of a `TUMBLE`, a `HOP` or a `CUMULATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlicedWindows {
    /// How time is cut into slices.
    pub axis: Axis,
    /// Slices per window; of the longest for `CUMULATE`.
    pub size: i64,
    /// Which runs of slices are windows.
    pub run: Run,
}

impl SlicedWindows {
    /// `TUMBLE` and `HOP` with lengths in milliseconds.
    ///
    /// # Panics
    /// When a length is not positive or beyond [`TIME_MS_LIMIT`]: the planner checks both.
    pub fn hop_ms(slide_ms: i64, size_ms: i64, offset_ms: i64) -> Self {
        assert!(0 < slide_ms && slide_ms < TIME_MS_LIMIT);
        assert!(0 < size_ms && size_ms < TIME_MS_LIMIT);
        let slice_ms = greatest_common_divisor(size_ms, slide_ms);
        // The offset within a slide: which slices start a window counts, too.
        let offset_ms = offset_ms.rem_euclid(slide_ms);
        let axis = Axis::Fixed { slice_ms, offset_ms };
        Self { axis, size: size_ms / slice_ms, run: Run::Slide(slide_ms / slice_ms) }
    }

    /// `CUMULATE` with lengths in milliseconds; the size is a multiple of the step.
    ///
    /// # Panics
    /// When a length is not positive or beyond [`TIME_MS_LIMIT`], or the size no multiple: the planner checks.
    pub fn cumulate_ms(step_ms: i64, size_ms: i64, offset_ms: i64) -> Self {
        assert!(0 < step_ms && size_ms < TIME_MS_LIMIT && size_ms % step_ms == 0);
        let axis = Axis::Fixed { slice_ms: step_ms, offset_ms: offset_ms.rem_euclid(size_ms) };
        Self { axis, size: size_ms / step_ms, run: Run::Grow }
    }

    /// `TUMBLE` and `HOP` with lengths in calendar units.
    pub fn hop_calendar(zone: Tz, unit: CalendarUnit, slide: i64, size: i64, offset_ms: i64) -> Self {
        assert!(0 < slide && 0 < size);
        let count = greatest_common_divisor(size, slide);
        let axis = Axis::Calendar { zone, unit, count, offset_ms };
        Self { axis, size: size / count, run: Run::Slide(slide / count) }
    }

    /// `CUMULATE` with lengths in calendar units; the size is a multiple of the step.
    pub fn cumulate_calendar(zone: Tz, unit: CalendarUnit, step: i64, size: i64, offset_ms: i64) -> Self {
        assert!(0 < step && size % step == 0);
        Self { axis: Axis::Calendar { zone, unit, count: step, offset_ms }, size: size / step, run: Run::Grow }
    }

    /// How long a window is (ms), about; the longest for `CUMULATE`.
    pub fn length_ms(&self) -> i64 {
        self.size.saturating_mul(self.axis.length_ms())
    }

    /// Whether each window is one slice.
    pub fn is_tumbling(&self) -> bool {
        self.size == 1 && matches!(self.run, Run::Slide(1))
    }

    /// The slice that holds an instant.
    pub fn slice_of(&self, time: TimeMs) -> SliceId {
        self.axis.slice_of(time)
    }

    /// The first window over a slice. Windows over it follow in [`steps`](Self::step) up to
    /// [`last_window`](Self::last_window); there are none if that is before the first: the slide is longer than the size.
    pub fn first_window(&self, slice: SliceId) -> WindowId {
        match self.run {
            Run::Slide(slide) => ((slice - self.size).div_euclid(slide) + 1) * slide + self.size,
            Run::Grow => slice + 1,
        }
    }

    /// The last window over a slice.
    pub fn last_window(&self, slice: SliceId) -> WindowId {
        match self.run {
            Run::Slide(slide) => slice.div_euclid(slide) * slide + self.size,
            Run::Grow => (slice.div_euclid(self.size) + 1) * self.size,
        }
    }

    /// From one window to the next.
    pub fn step(&self) -> i64 {
        match self.run {
            Run::Slide(slide) => slide,
            Run::Grow => 1,
        }
    }

    /// The first window over a slice that is not before another one.
    pub fn first_window_from(&self, slice: SliceId, from: WindowId) -> WindowId {
        let first = self.first_window(slice);
        if from <= first {
            return first;
        }
        if from == WindowId::MAX {
            return from;
        }
        let step = self.step();
        first + (from - first + step - 1).div_euclid(step) * step
    }

    /// A bound for the windows that a watermark has not closed: those from it on.
    pub fn first_open(&self, watermark: TimeMs) -> WindowId {
        if watermark <= -TIME_MS_LIMIT {
            return WindowId::MIN;
        }
        if TIME_MS_LIMIT <= watermark {
            return WindowId::MAX;
        }
        self.axis.slice_of(watermark + 1) + 1
    }

    /// The first slice of a window.
    pub fn first_slice(&self, window: WindowId) -> SliceId {
        match self.run {
            Run::Slide(_) => window - self.size,
            Run::Grow => (window - 1).div_euclid(self.size) * self.size,
        }
    }

    /// The first instant of a window, and the first one after it.
    pub fn bounds(&self, window: WindowId) -> (TimeMs, TimeMs) {
        (self.axis.start_of(self.first_slice(window)), self.axis.start_of(window))
    }

    /// The last instant of a window: it closes when the watermark reaches it.
    pub fn last_instant(&self, window: WindowId) -> TimeMs {
        self.axis.start_of(window) - 1
    }
}

const DAY_MS: i64 = 86_400_000;

fn greatest_common_divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Days from 1970-01-01 to the month of year 0 plus so many months: months count from January of the year 0.
fn first_day_of(months: i64) -> i64 {
    let year = i32::try_from(months.div_euclid(12)).unwrap_or(if months < 0 { i32::MIN } else { i32::MAX });
    let month = months.rem_euclid(12) as u32 + 1;
    NaiveDate::from_ymd_opt(year, month, 1)
        .map_or(if months < 0 { -FAR_DAYS } else { FAR_DAYS }, |date| i64::from(date.to_epoch_days()))
}

fn months_of(days: i64) -> i64 {
    let epoch = NaiveDate::default();
    let date = match u64::try_from(days) {
        Ok(days) => epoch.checked_add_days(Days::new(days)),
        Err(_) => epoch.checked_sub_days(Days::new(days.unsigned_abs())),
    };
    date.map_or(if days < 0 { -FAR_MONTHS } else { FAR_MONTHS }, |d| i64::from(d.year()) * 12 + i64::from(d.month0()))
}

/// Where the calendar ends: the slices beyond it are one.
const FAR_DAYS: i64 = TIME_MS_LIMIT / DAY_MS;
const FAR_MONTHS: i64 = 1 << 40;

/// What the clocks of a zone show at an instant, as milliseconds since 1970-01-01 00:00 on them.
pub fn local_ms(zone: Tz, time: TimeMs) -> TimeMs {
    if zone == Tz::UTC {
        return time;
    }
    match Utc.timestamp_millis_opt(time) {
        LocalResult::Single(utc) => utc.with_timezone(&zone).naive_local().and_utc().timestamp_millis(),
        _ => time,
    }
}

/// The first instant at which the clocks of a zone show at least a time.
pub fn instant_ms(zone: Tz, local: TimeMs) -> TimeMs {
    if zone == Tz::UTC {
        return local;
    }
    let Some(naive) = chrono::DateTime::from_timestamp_millis(local).map(|t| t.naive_utc()) else { return local };
    earliest(zone, naive).unwrap_or(local)
}

fn earliest(zone: Tz, local: NaiveDateTime) -> Option<TimeMs> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => Some(time.timestamp_millis()),
        LocalResult::None => {
            // The clocks were set forward over this time; they show more from the moment of the change on. Before it the
            // offset was that of a day earlier.
            let before = zone.from_local_datetime(&local.checked_sub_signed(TimeDelta::days(1))?).earliest()?;
            let naive_utc = local.checked_sub_signed(TimeDelta::seconds(i64::from(
                chrono::Offset::fix(before.offset()).local_minus_utc(),
            )))?;
            let guess = naive_utc.and_utc().timestamp_millis();
            // `guess` is at or after the change: go back to the first instant whose clocks show at least `local`.
            let (mut low, mut high) = (guess - 3 * 3_600_000, guess);
            let want = local.and_utc().timestamp_millis();
            while low + 1 < high {
                let middle = low + (high - low) / 2;
                if want <= local_ms(zone, middle) { high = middle } else { low = middle }
            }
            Some(high)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_their_times() {
        // (slide, size, offset), time, the slice's start, the first window's start, the last one's
        let rows = [
            ((10, 10, 0), 9, 0, 0, 0),
            ((10, 10, 0), 10, 10, 10, 10),
            ((10, 10, 0), -1, -10, -10, -10),
            ((10, 10, 3), 12, 3, 3, 3),
            ((20, 90, 0), 85, 80, 0, 80),
            ((20, 90, 0), 95, 90, 20, 80),
            ((10, 20, 0), 0, 0, -10, 0),
            ((7, 3, 0), 5, 5, 7, 0),
            ((20, 90, 15), 85, 85, 15, 75),
        ];
        for ((slide, size, offset), time, slice, first, last) in rows {
            let w = SlicedWindows::hop_ms(slide, size, offset);
            let s = w.slice_of(time);
            let start = |window| w.bounds(window).0;
            assert_eq!(
                (w.axis.start_of(s), start(w.first_window(s)), start(w.last_window(s))),
                (slice, first, last),
                "{w:?} {time}"
            );
        }
    }

    #[test]
    fn windows_that_grow_share_their_start() {
        let w = SlicedWindows::cumulate_ms(10, 30, 0);
        let all = |time| {
            let slice = w.slice_of(time);
            (w.first_window(slice)..=w.last_window(slice)).map(|e| w.bounds(e)).collect::<Vec<_>>()
        };
        assert_eq!(all(5), [(0, 10), (0, 20), (0, 30)]);
        assert_eq!(all(25), [(0, 30)]);
        assert_eq!(all(30), [(30, 40), (30, 50), (30, 60)]);
    }

    #[test]
    fn a_window_closes_at_its_last_instant() {
        let w = SlicedWindows::hop_ms(10, 10, 0);
        assert_eq!(w.first_open(8), 1);
        assert_eq!(w.first_open(9), 2);
        assert_eq!(w.first_open(super::super::WATERMARK_MIN), i64::MIN);
        assert_eq!(w.first_open(super::super::WATERMARK_MAX), i64::MAX);
        let hop = SlicedWindows::hop_ms(20, 90, 0);
        let slice = hop.slice_of(85);
        let open = |watermark| hop.bounds(hop.first_window_from(slice, hop.first_open(watermark))).0;
        assert_eq!((open(0), open(88), open(89), open(108), open(109)), (0, 0, 20, 20, 40));
    }

    fn at(text: &str) -> TimeMs {
        chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[test]
    fn days_follow_the_clocks() {
        let zone = Tz::America__New_York;
        let days = SlicedWindows::hop_calendar(zone, CalendarUnit::Day, 1, 1, 0);
        let hours = |text| {
            let (start, end) = days.bounds(days.slice_of(at(text)) + 1);
            (end - start) / 3_600_000
        };
        assert_eq!(hours("2013-03-10T12:00:00-04:00"), 23);
        assert_eq!(hours("2013-11-03T12:00:00-05:00"), 25);
        assert_eq!(hours("2013-07-04T12:00:00-04:00"), 24);
        let slice = days.slice_of(at("2013-03-10T04:59:59.999Z"));
        assert_eq!(days.slice_of(at("2013-03-10T05:00:00Z")), slice + 1);
        assert_eq!(days.axis.start_of(slice + 1), at("2013-03-10T00:00:00-05:00"));
    }

    #[test]
    fn every_instant_is_in_its_slice() {
        // Zones that skip or repeat midnight, and one whose clocks once skipped a day.
        for zone in [Tz::America__New_York, Tz::America__Sao_Paulo, Tz::Asia__Beirut, Tz::Pacific__Apia, Tz::UTC] {
            for (unit, count) in [(CalendarUnit::Day, 1), (CalendarUnit::Day, 3), (CalendarUnit::Month, 1)] {
                let axis = Axis::Calendar { zone, unit, count, offset_ms: 0 };
                let mut time = at("2010-01-01T00:00:00Z");
                let mut before = axis.slice_of(time);
                while time < at("2014-01-01T00:00:00Z") {
                    let slice = axis.slice_of(time);
                    assert!(axis.start_of(slice) <= time && time < axis.start_of(slice + 1), "{axis:?} {time}");
                    assert!(before <= slice, "{axis:?} {time}");
                    before = slice;
                    time += 17 * 60_000;
                }
            }
        }
    }

    #[test]
    fn months_have_their_days() {
        let months = SlicedWindows::hop_calendar(Tz::UTC, CalendarUnit::Month, 1, 1, 0);
        let (start, end) = months.bounds(months.slice_of(at("2012-02-15T00:00:00Z")) + 1);
        assert_eq!((start, end), (at("2012-02-01T00:00:00Z"), at("2012-03-01T00:00:00Z")));
        let quarters = SlicedWindows::hop_calendar(Tz::UTC, CalendarUnit::Month, 3, 3, 0);
        let (start, end) = quarters.bounds(quarters.slice_of(at("1969-12-31T00:00:00Z")) + 1);
        assert_eq!((start, end), (at("1969-10-01T00:00:00Z"), at("1970-01-01T00:00:00Z")));
    }

    #[test]
    fn extremes_do_not_overflow() {
        for axis in [
            Axis::Calendar { zone: Tz::America__New_York, unit: CalendarUnit::Month, count: 1, offset_ms: 0 },
            Axis::Calendar { zone: Tz::America__New_York, unit: CalendarUnit::Day, count: 1, offset_ms: 0 },
            Axis::Fixed { slice_ms: TIME_MS_LIMIT - 1, offset_ms: 5 },
        ] {
            for time in [1 - TIME_MS_LIMIT, TIME_MS_LIMIT - 1] {
                let slice = axis.slice_of(time);
                let _ = (axis.start_of(slice), axis.start_of(slice + 1));
            }
        }
    }
}
