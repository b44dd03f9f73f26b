//! The program on a terminal, as its user sees it: the shell over a real Kafka, live tables, notices, bars.

mod live;
mod progress;
mod shell;
mod tour;

use std::process::Command;

use tempfile::TempDir;

use crate::common::broker;
use crate::common::screen::Terminal;

const PROMPT: &str = "tidemill> ";

/// Neither colours nor a pager.
const PLAIN: [(&str, &str); 2] = [("NO_COLOR", "1"), ("PAGER", "cat")];

/// A shell with a home of its own.
struct Shell {
    terminal: Terminal,
    home: TempDir,
}

impl Shell {
    /// A shell on the broker that tests share.
    fn open() -> Self {
        Self::open_with(broker::shared().addresses(), &PLAIN)
    }

    /// The same on another one, with variables in its environment.
    fn open_with(addresses: &str, variables: &[(&str, &str)]) -> Self {
        Self::open_at(tempfile::tempdir().unwrap(), addresses, variables)
    }

    fn open_at(home: TempDir, addresses: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = program(&home);
        command.args(["-b", addresses]).envs(variables.iter().copied());
        let shell = Self { terminal: Terminal::start(command, 24, 100), home };
        shell.terminal.sees_last(PROMPT);
        shell
    }

    /// Types a statement, ended by Enter.
    fn types(&mut self, text: &str) {
        self.terminal.keys(&format!("{text}\r"));
    }

    /// Types a statement and waits for what is said, and for the prompt behind it.
    #[track_caller]
    fn answers(&mut self, statement: &str, said: &str) -> Vec<String> {
        // On a screen of its own.
        self.terminal.keys("\x0c");
        self.terminal.wait_until("an empty screen", |lines| lines == [PROMPT.trim_end()]);
        self.types(statement);
        self.terminal.wait_until(said, |lines| {
            lines.last().is_some_and(|line| line == PROMPT.trim_end()) && lines.iter().any(|line| line.contains(said))
        })
    }
}

/// The program, with nothing from the environment of whoever runs the tests.
fn program(home: &TempDir) -> Command {
    at_home(Command::new(env!("CARGO_BIN_EXE_tidemill")), home)
}

/// A command that finds nothing but what is in this folder.
fn at_home(mut command: Command, home: &TempDir) -> Command {
    for variable in ["TIDEMILL_BROKERS", "KAFKA_BROKERS", "KAFKA_BOOTSTRAP_SERVERS", "RUST_LOG", "NO_COLOR", "PAGER"] {
        command.env_remove(variable);
    }
    command.env("TERM", "xterm-256color").env("XDG_STATE_HOME", home.path()).env("XDG_CONFIG_HOME", home.path());
    command
}

/// How many lines hold this.
fn count_of(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}
