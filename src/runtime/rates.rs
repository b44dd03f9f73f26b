//! What a job did lately: counters as they were a moment ago, to be compared with what they are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::info::Terms;

/// How long "lately" is.
const LATELY: Duration = Duration::from_secs(10);

/// Between two samples.
const STEP: Duration = Duration::from_secs(1);

/// What is compared.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Records read.
    pub records_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Per statement, what became of what it reads.
    pub statements: Vec<Terms>,
}

/// Samples of the last seconds, the oldest first.
pub struct Rates {
    samples: VecDeque<(Instant, Totals)>,
}

/// What a job did in so many seconds.
pub struct Lately {
    pub seconds: f64,
    pub totals: Totals,
}

impl Rates {
    /// Nothing has been done yet.
    pub fn new(now: Instant, totals: Totals) -> Self {
        Self { samples: VecDeque::from([(now, totals)]) }
    }

    /// Whether it is time for a sample.
    pub fn is_due(&self, now: Instant) -> bool {
        self.samples.back().is_none_or(|(at, _)| STEP <= now.saturating_duration_since(*at))
    }

    /// Takes a sample. Of those that are older than needed the newest is kept.
    pub fn sample(&mut self, now: Instant, totals: Totals) {
        self.samples.push_back((now, totals));
        let is_old = |sample: &(Instant, Totals)| LATELY <= now.saturating_duration_since(sample.0);
        while self.samples.get(1).is_some_and(is_old) {
            self.samples.pop_front();
        }
    }

    /// What was done lately, if these are the counters now.
    pub fn lately(&self, now: Instant, totals: &Totals) -> Lately {
        let is_old = |sample: &&(Instant, Totals)| LATELY <= now.saturating_duration_since(sample.0);
        let none = (now, totals.clone());
        let (at, before) = self.samples.iter().rev().find(is_old).or(self.samples.front()).unwrap_or(&none);
        let statements = totals.statements.iter().zip(&before.statements).map(|(now, before)| now.since(before));
        Lately {
            seconds: now.saturating_duration_since(*at).as_secs_f64(),
            totals: Totals {
                records_in: totals.records_in.saturating_sub(before.records_in),
                rows_out: totals.rows_out.saturating_sub(before.rows_out),
                statements: statements.collect(),
            },
        }
    }
}

impl Lately {
    /// So many of something per second.
    pub fn per_second(&self, count: u64) -> f64 {
        // Shorter than a boundary is too short to tell.
        if self.seconds < 0.1 { 0.0 } else { count as f64 / self.seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock;
    use super::*;

    #[test]
    fn lately_is_the_last_ten_seconds_or_all_there_is() {
        let begin = clock::now();
        let at = |seconds: f64| begin + Duration::from_secs_f64(seconds);
        let totals = |records_in: u64| Totals { records_in, ..Totals::default() };
        let mut rates = Rates::new(begin, totals(0));
        let lately = |rates: &Rates, seconds, records| {
            let lately = rates.lately(at(seconds), &totals(records));
            (lately.seconds.round() as u64, lately.totals.records_in)
        };
        assert_eq!(lately(&rates, 0.0, 0), (0, 0));
        assert!(rates.lately(at(0.01), &totals(7)).per_second(7) == 0.0);
        assert_eq!(lately(&rates, 3.0, 30), (3, 30));
        for second in 1..=60_u64 {
            let now = at(second as f64);
            assert!(rates.is_due(now) && !rates.is_due(now - Duration::from_millis(500)));
            rates.sample(now, totals(second * 10));
            assert!(rates.samples.len() <= 12, "{}", rates.samples.len());
        }
        assert_eq!(lately(&rates, 60.5, 605), (11, 105));
        // Nothing has been committed for an hour.
        assert_eq!(lately(&rates, 3_660.0, 600), (3_600, 0));
    }
}
