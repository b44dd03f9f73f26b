//! Points at which a process can be made to die, for tests of what a crash leaves.
//!
//! `TIDEMILL_ABORT_AT=before-commit:3` ends the process, as a power failure would, when it comes to the point
//! `before-commit` for the third time. Without the variable a point is a look at a value that was read once.

use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable's name.
const VARIABLE: &str = "TIDEMILL_ABORT_AT";

/// Where to die.
struct Planned {
    point: String,
    /// How often it is still come to.
    left: AtomicU64,
}

impl Planned {
    /// Reads `point:count`; what is not of this form is no plan.
    fn parse(text: &str) -> Option<Self> {
        let (point, count) = text.rsplit_once(':')?;
        let left = AtomicU64::new(count.parse().ok()?);
        Some(Self { point: point.to_owned(), left })
    }

    /// Whether this is the time.
    fn is_due(&self, point: &str) -> bool {
        self.point == point && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// The process has come to this point.
pub fn reach(point: &str) {
    static PLANNED: OnceLock<Option<Planned>> = OnceLock::new();
    let planned = PLANNED.get_or_init(|| Planned::parse(&std::env::var(VARIABLE).ok()?));
    if planned.as_ref().is_some_and(|planned| planned.is_due(point)) {
        // No destructor runs, and nothing is flushed.
        process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_due_once() {
        assert!(Planned::parse("before-commit").is_none() && Planned::parse("before-commit:x").is_none());
        let planned = Planned::parse("before-commit:2").unwrap();
        let due = ["before-commit", "after-commit", "before-commit", "before-commit"].map(|p| planned.is_due(p));
        assert_eq!(due, [false, false, true, false]);
    }
}
