//! Programs behind a terminal, and what is to be seen on its screen.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rexpect::process::{PtyProcess, WaitStatus};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// How long anything may take to be shown.
const WAIT: Duration = Duration::from_secs(30);

/// A program behind a terminal; it is ended when this value goes.
pub struct Terminal {
    process: PtyProcess,
    keyboard: File,
    seen: Arc<Seen>,
}

struct Seen {
    shown: Mutex<Shown>,
    changed: Condvar,
}

struct Shown {
    screen: vt100::Parser,
    /// All that was ever written to the terminal.
    written: String,
    /// The program has not closed the terminal yet.
    is_open: bool,
}

impl Seen {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Terminal {
    /// Starts a program on a screen of so many lines and columns.
    pub fn start(command: Command, lines: u16, columns: u16) -> Self {
        let mut process = PtyProcess::new(with_echo(&command)).expect("a pseudo terminal");
        process.set_kill_timeout(Some(5_000));
        let keyboard = process.get_file_handle().expect("a pseudo terminal");
        let screen = vt100::Parser::new(size(lines), size(columns), 0);
        let shown = Mutex::new(Shown { screen, written: String::new(), is_open: true });
        let seen = Arc::new(Seen { shown, changed: Condvar::new() });
        let (mut output, watching) = (process.get_file_handle().expect("a pseudo terminal"), Arc::clone(&seen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the last program on a terminal is an error here.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let mut shown = watching.shown();
                shown.written.push_str(&String::from_utf8_lossy(&bytes[..count]));
                shown.screen.process(&bytes[..count]);
                drop(shown);
                watching.changed.notify_all();
            }
            watching.shown().is_open = false;
            watching.changed.notify_all();
        });
        let terminal = Self { process, keyboard, seen };
        terminal.resize(lines, columns);
        terminal
    }

    /// Presses keys: Enter is `\r`, Ctrl-C `\x03`.
    pub fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("a program that listens");
    }

    /// Gives the screen another size.
    pub fn resize(&self, lines: u16, columns: u16) {
        self.seen.shown().screen.screen_mut().set_size(size(lines), size(columns));
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).expect("a terminal");
    }

    /// The lines on the screen, without those at the end that are empty.
    pub fn lines(&self) -> Vec<String> {
        let text = self.seen.shown().screen.screen().contents();
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// All that was ever written to the terminal, with what steers it.
    pub fn written(&self) -> String {
        self.seen.shown().written.clone()
    }

    /// Whether keys that are pressed are shown by the terminal itself.
    pub fn shows_keys(&self) -> bool {
        tcgetattr(&self.keyboard).expect("a terminal").local_modes.contains(LocalModes::ECHO)
    }

    /// Waits until the lines on the screen are such, and gives them.
    #[track_caller]
    pub fn wait_until(&self, what: &str, is: impl Fn(&[String]) -> bool) -> Vec<String> {
        let is_so = self.comes_to(WAIT, is);
        let lines = self.lines();
        assert!(is_so, "no {what} on the screen:\n{}\n{}", lines.join("\n"), self.written());
        lines
    }

    /// Whether the lines on the screen become such within this time.
    pub fn comes_to(&self, wait: Duration, is: impl Fn(&[String]) -> bool) -> bool {
        let deadline = Instant::now() + wait;
        while !is(&self.lines()) {
            let shown = self.seen.shown();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !shown.is_open {
                drop(shown);
                // The last of it may have come since.
                return is(&self.lines());
            }
            // What has changed in between is seen soon.
            drop(self.seen.changed.wait_timeout(shown, left.min(Duration::from_millis(20))));
        }
        true
    }

    /// Waits until this is somewhere on the screen.
    #[track_caller]
    pub fn sees(&self, text: &str) -> Vec<String> {
        self.wait_until(text, |lines| lines.iter().any(|line| line.contains(text)))
    }

    /// Waits until the last line is this.
    #[track_caller]
    pub fn sees_last(&self, text: &str) -> Vec<String> {
        self.wait_until(text, |lines| lines.last().is_some_and(|line| line == text.trim_end()))
    }

    /// Waits until the program has closed the terminal.
    #[track_caller]
    pub fn wait_for_end(&self) {
        let shown = self.seen.shown();
        let waited = self.seen.changed.wait_timeout_while(shown, WAIT, |shown| shown.is_open);
        let (shown, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "it does not end: {}", shown.written);
    }

    /// Waits for the end; gives the exit code.
    #[track_caller]
    pub fn end(self) -> i32 {
        let deadline = Instant::now() + WAIT;
        loop {
            match self.process.status() {
                Some(WaitStatus::Exited(_, code)) => return code,
                Some(WaitStatus::StillAlive) => {}
                other => panic!("{other:?}: {}", self.written()),
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.written());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The same program on a terminal that shows what is typed, as terminals of people do.
fn with_echo(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"stty echo && exec "$0" "$@""#]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

fn size(length: u16) -> NonZeroU16 {
    NonZeroU16::new(length).expect("a screen")
}
