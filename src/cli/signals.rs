//! Ctrl-C and SIGTERM.
//!
//! The first one is a wish: whoever is working looks at [`Signals::pending`] at every turn and ends cleanly. The second
//! one ends the program at once. Where nothing is running that could be ended uncleanly, so does the first.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator;
use signal_hook::low_level;
use tidemill::error::{Error, Result};

/// What arrived. Cloning gives another handle on the same.
#[derive(Clone, Default)]
pub struct Signals(Arc<State>);

#[derive(Default)]
struct State {
    /// The first signal since the last [`Signals::clear`]; 0 is none.
    pending: AtomicI32,
    /// Nothing runs that needs a clean end.
    at_once: AtomicBool,
    /// What SIGTERM does while the shell waits for a line, when nobody can look.
    farewell: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Signals {
    /// Takes SIGINT and SIGTERM over, for the whole program.
    pub fn install() -> Result<Self> {
        let failed = |error| Error::usage(format!("cannot listen for signals: {error}"));
        let mut arrivals = iterator::Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
        let signals = Self::default();
        let own = signals.clone();
        let listen = move || arrivals.forever().for_each(|signal| own.received(signal));
        thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(failed)?;
        Ok(signals)
    }

    /// The signal that asks for an end, if one has come.
    pub fn pending(&self) -> Option<i32> {
        match self.0.pending.load(Ordering::Acquire) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// Forgets a Ctrl-C: it was for something that has ended. SIGTERM stays.
    pub fn clear(&self) {
        let _ = self.0.pending.compare_exchange(SIGINT, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Does something that cannot look at signals. If `is_harmless`, a signal meanwhile ends the program at once.
    pub fn during<T>(&self, is_harmless: bool, work: impl FnOnce() -> T) -> T {
        self.0.at_once.store(is_harmless, Ordering::Release);
        let result = work();
        self.0.at_once.store(false, Ordering::Release);
        result
    }

    /// Waits for a line: Ctrl-C is the line editor's; SIGTERM says farewell and ends the program.
    pub fn idle<T>(&self, farewell: impl Fn() + Send + 'static, wait: impl FnOnce() -> T) -> T {
        self.set_farewell(Some(Box::new(farewell)));
        let result = wait();
        self.set_farewell(None);
        self.clear();
        result
    }

    fn set_farewell(&self, farewell: Option<Box<dyn Fn() + Send>>) {
        *self.0.farewell.lock().unwrap_or_else(PoisonError::into_inner) = farewell;
    }

    fn received(&self, signal: i32) {
        let before = self.0.pending.swap(signal, Ordering::AcqRel);
        let farewell = self.0.farewell.lock().unwrap_or_else(PoisonError::into_inner);
        match &*farewell {
            Some(farewell) if signal == SIGTERM => {
                farewell();
                low_level::exit(exit_code(signal).into());
            }
            Some(_) => self.clear(),
            // Not by way of `std::process::exit`: other threads are in the middle of things, and the libraries' exit
            // handlers would take the ground from under their feet.
            None if before != 0 || self.0.at_once.load(Ordering::Acquire) => low_level::exit(exit_code(signal).into()),
            None => {}
        }
    }
}

/// The exit code of a program that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM.
pub fn exit_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// Whether a signal is Ctrl-C.
pub fn is_interrupt(signal: i32) -> bool {
    signal == SIGINT
}
