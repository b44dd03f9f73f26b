//! docs/tour.md: what it shows is what happens to someone with a broker, a topic and an empty home.
//!
//! Blocks of `text` are what was typed at a prompt, and what came of it, as it stands on the screen; those of `console` are
//! commands and what they said; that of `sql` is the file which they name. The test types all of it again and compares.
//! What differs from run to run is masked on both sides by one rule: times of records count as one, and a run of blanks or of
//! dashes too; in commands, and in answers to statements about jobs, so does each number with its unit. As a job takes a
//! moment, such a statement is typed again until it answers so. Everything else counts; the broker is `localhost:9092` in
//! the document.
//!
//! `TIDEMILL_UPDATE=1` writes what is seen into the document in the place of what it says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use regex::Regex;
use tempfile::TempDir;

use super::{PLAIN, PROMPT, at_home, program};
use crate::common::broker::{Broker, repository};
use crate::common::flights;
use crate::common::screen::Terminal;

const DOCUMENT: &str = "docs/tour.md";

/// What the document calls its file of statements.
const FILE: &str = "delays.sql";

/// What the document calls the broker.
const BROKER: &str = "localhost:9092";

/// How long a job is given before what it says is written into the document.
const UPDATE_WAIT: Duration = Duration::from_secs(3);

/// How long a job may take to be as the document says.
const JOB_WAIT: Duration = Duration::from_secs(20);

#[test]
fn the_tour_is_what_happens() {
    let broker = Broker::start_own();
    broker.create_topic("flights", 4, &[]);
    broker.produce("flights", flights::messages(flights::january()));
    let home = tempfile::tempdir().expect("a folder");
    let mut tour = Tour::open(&home, &broker);

    let path = repository().join(DOCUMENT);
    let document = fs::read_to_string(&path).expect("the document");
    let is_update = std::env::var_os("TIDEMILL_UPDATE").is_some();
    let mut seen = String::new();
    // Every other part is a block; the first block opens the shell.
    for (place, part) in document.split("```").enumerate() {
        let text = match part.split_once('\n').filter(|_| place % 2 == 1) {
            Some(("text", block)) if block.starts_with(PROMPT) => tour.follow(block, is_update),
            Some(("text", block)) => tour.opening(block),
            Some(("console", block)) => tour.runs(block, is_update),
            Some(("sql", block)) => {
                fs::write(home.path().join(FILE), block).expect("a file");
                part.to_owned()
            }
            _ => part.to_owned(),
        };
        seen += if place == 0 { "" } else { "```" };
        seen += &text;
    }
    tour.terminal.keys("\\q\r");
    assert_eq!(tour.terminal.end(), 0);
    match is_update {
        true => fs::write(&path, seen).expect("the document"),
        false => assert_eq!(seen, document),
    }
}

struct Tour<'h> {
    home: &'h TempDir,
    terminal: Terminal,
    address: String,
    /// What the screen showed when the shell had opened.
    opened: Vec<String>,
}

impl<'h> Tour<'h> {
    fn open(home: &'h TempDir, broker: &Broker) -> Self {
        let address = broker.addresses().to_owned();
        let mut command = program(home);
        command.args(["-b", &address]).envs(PLAIN);
        let terminal = Terminal::start(command, 200, 120);
        let opened = terminal.sees_last(PROMPT);
        Self { home, terminal, address, opened }
    }

    /// The block that opens the shell: the line that did it, and what the shell said.
    fn opening(&self, block: &str) -> String {
        let command = block.lines().next().unwrap_or_default();
        let said = &self.opened[..self.opened.len() - 1];
        format!("text\n{command}\n{}\n", self.documented(said))
    }

    /// Types the statements of a block; answers the block as it is to be: as it was, if what is seen agrees.
    fn follow(&mut self, block: &str, is_update: bool) -> String {
        let mut text = "text\n".to_owned();
        for exchange in exchanges(block, PROMPT) {
            let begun = Instant::now();
            loop {
                if is_update && is_about_jobs(exchange) {
                    thread::sleep(UPDATE_WAIT);
                }
                let seen = self.types(typed(exchange));
                let mask = if is_about_jobs(exchange) { masked } else { without_times };
                if mask(exchange) == mask(&seen) || is_update || !is_about_jobs(exchange) || begun.elapsed() > JOB_WAIT
                {
                    text += agreed(exchange, &seen, mask, is_update);
                    break;
                }
                thread::sleep(Duration::from_millis(500));
            }
        }
        text
    }

    /// Runs the commands of a block; answers it as it is to be.
    fn runs(&self, block: &str, is_update: bool) -> String {
        let mut text = "console\n".to_owned();
        let folder = Path::new(env!("CARGO_BIN_EXE_tidemill")).parent().expect("a folder");
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
        for exchange in exchanges(block, "$ ") {
            let line = exchange.lines().next().unwrap_or_default();
            let mut shell = at_home(Command::new("sh"), self.home);
            shell.env("PATH", &path).current_dir(self.home.path());
            let command = line.trim_start_matches("$ ").replace(BROKER, &self.address);
            let output = shell.args(["-c", &format!("{command} 2>&1")]).output().expect("a shell");
            let said = String::from_utf8_lossy(&output.stdout).replace(&self.address, BROKER);
            text += agreed(exchange, &format!("{line}\n{said}"), masked, is_update);
        }
        text
    }

    /// Types a statement on a screen of its own; answers what is to be seen there, without the next prompt.
    fn types(&mut self, statement: &str) -> String {
        self.terminal.keys("\x0c");
        self.terminal.wait_until("an empty screen", |lines| lines == [PROMPT.trim_end()]);
        self.terminal.keys(&statement.replace('\n', "\r"));
        let least = statement.lines().count() + 1;
        let is_answered =
            |lines: &[String]| lines.len() > least && lines.last().is_some_and(|last| last == PROMPT.trim_end());
        let lines = self.terminal.wait_until("answer", is_answered);
        self.documented(&lines[..lines.len() - 1]) + "\n"
    }

    fn documented(&self, lines: &[String]) -> String {
        lines.join("\n").replace(&self.address, BROKER)
    }
}

/// What the document is to say in the place of an exchange.
fn agreed<'a>(exchange: &'a str, seen: &'a str, mask: fn(&str) -> String, is_update: bool) -> &'a str {
    let is_same = mask(exchange) == mask(seen);
    assert!(is_same || is_update, "the document says\n{exchange}\nbut there was\n{seen}");
    if is_same { exchange } else { seen }
}

/// What stands between two prompts, the first one included.
fn exchanges<'a>(block: &'a str, prompt: &str) -> impl Iterator<Item = &'a str> {
    let starts: Vec<_> =
        block.match_indices(prompt).map(|(at, _)| at).filter(|at| *at == 0 || block[..*at].ends_with('\n')).collect();
    let ends: Vec<_> = starts.iter().skip(1).copied().chain([block.len()]).collect();
    starts.into_iter().zip(ends).map(move |(start, end)| &block[start..end])
}

/// What is typed of it: up to the `;` that ends a line, or a line if it is a command.
fn typed(exchange: &str) -> &str {
    let text = &exchange[PROMPT.len()..];
    let end = if text.starts_with('\\') { text.find('\n') } else { text.find(";\n").map(|at| at + 1) };
    &text[..end.map_or(text.len(), |end| end + 1)]
}

fn is_about_jobs(exchange: &str) -> bool {
    let statement = typed(exchange);
    statement.contains("JOB")
}

/// An exchange without the times of records: those of a flight are older.
fn without_times(exchange: &str) -> String {
    let time = Regex::new(r"20[2-9]\d-\d\d-\d\d \d\d:\d\d:\d\d\S*( to \S+)?").expect("a constant pattern");
    let run = Regex::new(r" {2,}|-{2,}").expect("a constant pattern");
    let text = time.replace_all(exchange, "then");
    run.replace_all(&text, |found: &regex::Captures<'_>| found[0][..1].to_owned()).into_owned()
}

/// An exchange about jobs as it is compared.
fn masked(exchange: &str) -> String {
    let number =
        Regex::new(r"-?\d[\d,.:-]*( ?(ns|us|ms|s|min|h|B|KB|MB|batch|batches)\b)?").expect("a constant pattern");
    number.replace_all(&without_times(exchange), "0").into_owned()
}
