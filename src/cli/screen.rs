//! Lines for people, when something else has the last lines of their terminal.
//!
//! A line that is being edited, a live table and progress bars stand below everything else. A warning that came in
//! between would tear them. So whoever stands there says so ([`occupy`]) and is handed each line ([`say`]), to put it
//! above itself.

use std::io::{self, IsTerminal, Write};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// Takes a line that is to stand above, at once: whoever says it must not wait for the terminal.
type Above = Box<dyn Fn(&str) + Send>;

static OCCUPANT: Mutex<Option<Above>> = Mutex::new(None);

static IS_TERMINAL: LazyLock<bool> = LazyLock::new(|| io::stderr().is_terminal());

/// The last lines of the terminal are taken, for as long as this is kept.
#[must_use]
pub struct Occupied(());

/// Takes the last lines of the terminal. There is one occupant at a time.
pub fn occupy(above: impl Fn(&str) + Send + 'static) -> Occupied {
    *occupant() = Some(Box::new(above));
    Occupied(())
}

/// Says a line, which must be safe to show, on standard error.
pub fn say(line: &str) {
    match &*occupant() {
        Some(above) if *IS_TERMINAL => above(line),
        _ => put(line),
    }
}

/// Writes a line as it is, whoever is there.
pub fn put(line: &str) {
    // Nobody listens: nothing to do about it.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

impl Drop for Occupied {
    fn drop(&mut self) {
        *occupant() = None;
    }
}

fn occupant() -> MutexGuard<'static, Option<Above>> {
    OCCUPANT.lock().unwrap_or_else(PoisonError::into_inner)
}
