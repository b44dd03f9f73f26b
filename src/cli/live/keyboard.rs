//! Keys that are pressed while a live table stands: they are not shown, and wait for whoever reads next.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// The terminal as it was found.
static FOUND: Mutex<Option<Termios>> = Mutex::new(None);

/// Keys are not shown for as long as this is kept. Ctrl-C is a signal as ever.
pub struct Silent(());

impl Silent {
    /// Silences the keyboard, if there is one.
    pub fn new() -> Self {
        if let Ok(found) = tcgetattr(io::stdin()) {
            let mut silent = found.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            if tcsetattr(io::stdin(), OptionalActions::Now, &silent).is_ok() {
                *FOUND.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            }
        }
        Self(())
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was found, if a live table has it; also where the program ends at once.
pub fn restore() {
    if let Some(found) = FOUND.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &found);
        let _ = io::stderr().lock().write_all(b"\x1b[?25h");
    }
}
