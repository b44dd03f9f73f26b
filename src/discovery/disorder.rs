//! How late rows are: the share of them that watermarks of several delays would call late.
//!
//! As in a running query each row is judged by its own partition: it is late when the greatest time seen there before it,
//! less the delay, has reached it.

/// The delays that are tried, with what they are called and how SQL writes them.
pub const DELAYS: [Delay; 4] = [
    Delay { ms: 1_000, name: "1 s", sql: "INTERVAL '1' SECOND" },
    Delay { ms: 10_000, name: "10 s", sql: "INTERVAL '10' SECOND" },
    Delay { ms: 60_000, name: "1 min", sql: "INTERVAL '1' MINUTE" },
    Delay { ms: 600_000, name: "10 min", sql: "INTERVAL '10' MINUTE" },
];

/// How far a watermark is behind the greatest time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// In milliseconds.
    pub ms: i64,
    /// For people.
    pub name: &'static str,
    /// For a statement.
    pub sql: &'static str,
}

/// Delays for a watermark when none of [`DELAYS`] will do.
const LONG_DELAYS: [Delay; 2] = [
    Delay { ms: 3_600_000, name: "1 h", sql: "INTERVAL '1' HOUR" },
    Delay { ms: 86_400_000, name: "1 d", sql: "INTERVAL '1' DAY" },
];

/// Of a thousand rows so many may be late for a delay to be proposed.
const LATE_PER_THOUSAND_MAX: u64 = 1;

/// How far behind rows come.
#[derive(Clone, Debug, Default)]
pub struct Disorder {
    /// Per partition, the greatest time so far.
    greatest_ms: std::collections::BTreeMap<i32, i64>,
    rows: u64,
    late: [u64; DELAYS.len() + LONG_DELAYS.len()],
}

impl Disorder {
    /// Judges the next row of a partition.
    pub fn row(&mut self, partition: i32, time_ms: i64) {
        self.rows += 1;
        let greatest = self.greatest_ms.entry(partition).or_insert(time_ms);
        if time_ms < *greatest {
            for (late, delay) in self.late.iter_mut().zip(DELAYS.iter().chain(&LONG_DELAYS)) {
                *late += u64::from(time_ms <= greatest.saturating_sub(delay.ms));
            }
        }
        *greatest = time_ms.max(*greatest);
    }

    /// Of how many rows how many would be late, per delay.
    pub fn late(&self) -> (u64, &[u64]) {
        (self.rows, &self.late[..DELAYS.len()])
    }

    /// The least delay that calls next to no row late; the greatest if there is none.
    pub fn delay(&self) -> Delay {
        let all = || DELAYS.iter().chain(&LONG_DELAYS).copied();
        let fits = |late: &u64| *late * 1_000 <= self.rows * LATE_PER_THOUSAND_MAX;
        let found = all().zip(&self.late).find(|(_, late)| fits(late)).map(|(delay, _)| delay);
        found.or_else(|| all().last()).unwrap_or(DELAYS[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_is_judged_by_itself() {
        fn check(rows: &[(i32, i64)], late: [u64; 4], delay: &str) {
            let mut disorder = Disorder::default();
            rows.iter().for_each(|(partition, time)| disorder.row(*partition, *time));
            assert_eq!((disorder.late().1, disorder.delay().name), (&late[..], delay), "{rows:?}");
        }
        check(&[], [0; 4], "1 s");
        check(&[(0, 5_000), (0, 4_001), (0, 5_000)], [0; 4], "1 s");
        // A watermark of 4 s has reached a row of 4 s.
        check(&[(0, 5_000), (0, 4_000)], [1, 0, 0, 0], "10 s");
        check(&[(0, 5_000_000), (1, 0), (0, 5_000_001)], [0; 4], "1 s");
        check(&[(0, 600_000), (0, 0)], [1; 4], "1 h");
        check(&[(0, i64::MAX), (0, i64::MIN)], [1; 4], "1 d");
    }
}
