//! Keys that are pressed while a live table stands: they are not shown, and wait for whoever reads next.
//!
//! Ctrl-C is a signal as ever. Ctrl-Z stops the program too, but only when the table has been left.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::SIGTSTP;
use signal_hook::{flag, low_level};

/// The terminal as it was found.
static FOUND: Mutex<Option<Termios>> = Mutex::new(None);

static STOPS: LazyLock<Stops> = LazyLock::new(Stops::new);

/// Ctrl-Z.
struct Stops {
    /// It stops the program as ever.
    at_once: Arc<AtomicBool>,
    wanted: Arc<AtomicBool>,
}

impl Stops {
    fn new() -> Self {
        let stops = Self { at_once: Arc::new(AtomicBool::new(true)), wanted: Arc::default() };
        // Where these cannot be had, Ctrl-Z stops the program as ever, and the table is not what it was.
        if flag::register_conditional_default(SIGTSTP, Arc::clone(&stops.at_once)).is_ok() {
            let _ = flag::register(SIGTSTP, Arc::clone(&stops.wanted));
        }
        stops
    }
}

/// Keys are not shown for as long as this is kept.
pub struct Silent(());

impl Silent {
    /// Silences the keyboard, if there is one.
    pub fn new() -> Self {
        STOPS.wanted.store(false, Ordering::Release);
        STOPS.at_once.store(false, Ordering::Release);
        silence();
        Self(())
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        STOPS.at_once.store(true, Ordering::Release);
        restore();
    }
}

/// Whether somebody has pressed Ctrl-Z; asking forgets it.
pub fn is_stop_wanted() -> bool {
    STOPS.wanted.swap(false, Ordering::AcqRel)
}

/// Stops the program, until somebody lets it go on.
pub fn stop() {
    restore();
    // Without this it goes on, which is no harm.
    let _ = low_level::emulate_default_handler(SIGTSTP);
    silence();
}

/// Gives the terminal back as it was found, if a live table has it; also where the program ends at once.
pub fn restore() {
    if let Some(found) = FOUND.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &found);
        let _ = io::stderr().lock().write_all(b"\x1b[?25h");
    }
}

fn silence() {
    let Ok(found) = tcgetattr(io::stdin()) else { return };
    let mut silent = found.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    if tcsetattr(io::stdin(), OptionalActions::Now, &silent).is_ok() {
        *FOUND.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }
}
