//! Ctrl-C and SIGTERM.
//!
//! The first one is a wish: whoever is working looks at [`Signals::pending`] at every turn and ends cleanly. The second
//! one ends the program at once. Where nothing is running that could be ended uncleanly, so does the first.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGALRM, SIGINT, SIGTERM};
use signal_hook::iterator;
use signal_hook::low_level;
use tidemill::error::{Error, Result};

use super::live::restore_terminal;

/// Between two looks at a signal that nobody has cleared.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Not sent by anybody: the time that everything may take is over.
pub const TIME_LIMIT: i32 = SIGALRM;

/// How long a clean end may take after the time limit.
const CLEAN_END_MAX: Duration = Duration::from_secs(30);

/// What arrived. Cloning gives another handle on the same.
#[derive(Clone, Default)]
pub struct Signals(Arc<State>);

#[derive(Default)]
struct State {
    /// The first signal since the last [`Signals::clear`]; 0 is none.
    pending: AtomicI32,
    /// What a signal does besides being noted.
    reaction: Mutex<Reaction>,
}

/// What a signal does besides being noted.
#[derive(Default)]
enum Reaction {
    /// Nothing, the first time: somebody looks. The second one ends the program.
    #[default]
    Wait,
    /// It ends the program at once: nothing runs that needs a clean end.
    End,
    /// As `Wait`, and this helps along whoever cannot look, again and again.
    Help(Box<dyn Fn() + Send>),
    /// The shell waits for a line, and Ctrl-C is the line editor's. SIGTERM does this and ends the program.
    Farewell(Box<dyn Fn() + Send>),
}

impl Signals {
    /// Takes SIGINT and SIGTERM over, for the whole program.
    pub fn install() -> Result<Self> {
        let failed = |error| Error::usage(format!("cannot listen for signals: {error}"));
        let mut arrivals = iterator::Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
        let signals = Self::default();
        let own = signals.clone();
        let listen = move || loop {
            if own.pending().is_none() {
                arrivals.wait().for_each(|signal| own.received(signal));
            } else {
                // What the signal is for may have begun after it.
                thread::sleep(LOOK_AGAIN);
                arrivals.pending().for_each(|signal| own.received(signal));
                own.again();
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(failed)?;
        Ok(signals)
    }

    /// Asks for an end after this time, and insists on it later.
    pub fn limit_time(&self, time: Duration) {
        let own = self.clone();
        thread::spawn(move || {
            thread::sleep(time);
            own.received(TIME_LIMIT);
            thread::sleep(CLEAN_END_MAX);
            own.received(TIME_LIMIT);
        });
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

    /// Does something that cannot look at signals and may be cut off at any time.
    pub fn harmless<T>(&self, work: impl FnOnce() -> T) -> T {
        self.reacting(Reaction::End, work)
    }

    /// Does something that cannot look at signals but ends soon after `help`.
    pub fn helped<T>(&self, help: impl Fn() + Send + 'static, work: impl FnOnce() -> T) -> T {
        self.reacting(Reaction::Help(Box::new(help)), work)
    }

    /// Waits for a line: Ctrl-C is the line editor's; SIGTERM says farewell and ends the program.
    pub fn idle<T>(&self, farewell: impl Fn() + Send + 'static, wait: impl FnOnce() -> T) -> T {
        let result = self.reacting(Reaction::Farewell(Box::new(farewell)), wait);
        self.clear();
        result
    }

    fn reacting<T>(&self, reaction: Reaction, work: impl FnOnce() -> T) -> T {
        *self.reaction() = reaction;
        let result = work();
        *self.reaction() = Reaction::Wait;
        result
    }

    fn reaction(&self) -> MutexGuard<'_, Reaction> {
        self.0.reaction.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn received(&self, signal: i32) {
        let before = self.0.pending.swap(signal, Ordering::AcqRel);
        match &*self.reaction() {
            Reaction::Farewell(_) if is_interrupt(signal) => self.clear(),
            Reaction::Farewell(farewell) => {
                farewell();
                end(signal);
            }
            Reaction::End => end(signal),
            Reaction::Wait | Reaction::Help(_) if before != 0 => end(signal),
            Reaction::Wait | Reaction::Help(_) => {}
        }
    }

    /// Looks again at a signal that came before its reaction was set.
    fn again(&self) {
        let Some(signal) = self.pending() else { return };
        match &*self.reaction() {
            Reaction::Help(help) => help(),
            Reaction::Farewell(farewell) if !is_interrupt(signal) => {
                farewell();
                end(signal);
            }
            _ => {}
        }
    }
}

fn end(signal: i32) {
    restore_terminal();
    leave(exit_code(signal));
}

/// Ends the program, not by way of `main` or `std::process::exit`: other threads may be in the middle of things, as Kafka's
/// clients are that end by themselves, and the libraries' exit handlers would take the ground from under their feet.
pub fn leave(code: u8) -> ! {
    low_level::exit(code.into())
}

/// The exit code of a program that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM; 124 when its time is over, as
/// with `timeout`.
pub fn exit_code(signal: i32) -> u8 {
    if signal == TIME_LIMIT {
        return 124;
    }
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// Whether a signal is Ctrl-C.
pub fn is_interrupt(signal: i32) -> bool {
    signal == SIGINT
}
