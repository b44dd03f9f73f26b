//! Lines from the terminal.

use std::borrow::Cow;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustyline::completion::Completer;
use rustyline::config::{Behavior, ColorMode, CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, ExternalPrinter, Helper};
use tidemill::completion::complete;
use tidemill::sql::is_complete;

use super::colours::coloured;
use super::commands;
use super::history::History;
use super::known::Knowledge;
use crate::cli::screen;

const PROMPT: &str = "tidemill> ";

/// Reads statements with a line editor.
pub struct LineEditor {
    editor: Editor<Statements, FileHistory>,
    history: History,
    /// Takes lines that are to stand above the one that is being edited, where the terminal can do that.
    above: Option<Sender<String>>,
}

/// What the line editor knows of the language: where a statement ends, what may stand at the cursor, colours.
struct Statements {
    knowledge: Knowledge,
    has_colours: bool,
}

impl Completer for Statements {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        self.knowledge.want_topics_in(line);
        let known = self.knowledge.now();
        Ok(complete(&known, &line[..at], &line[at..]))
    }
}

impl Hinter for Statements {
    type Hint = String;
}

impl Highlighter for Statements {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        // The shell's own commands are no SQL.
        if !self.has_colours || line.starts_with('\\') { Cow::Borrowed(line) } else { coloured(line) }
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        self.has_colours
    }
}

impl Helper for Statements {}

impl Validator for Statements {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input();
        let is_whole = commands::parse(text).is_some() || is_complete(text);
        Ok(if is_whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl LineEditor {
    /// Opens the terminal, and the user's history as far as that works.
    pub fn open(is_output_terminal: bool, has_colours: bool, knowledge: Knowledge) -> rustyline::Result<Self> {
        // With rows redirected to a file, the prompt must not go there.
        let behavior = if is_output_terminal { Behavior::Stdio } else { Behavior::PreferTerm };
        let config = Config::builder()
            .behavior(behavior)
            .auto_add_history(false)
            .max_history_size(History::ENTRIES_MAX)?
            .history_ignore_dups(true)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .color_mode(if has_colours { ColorMode::Enabled } else { ColorMode::Disabled })
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Statements { knowledge, has_colours }));
        let history = History::open();
        history.load(&mut editor);
        let above = above(&mut editor);
        Ok(Self { editor, history, above })
    }

    /// The next text: statements that are all ended, or a command.
    pub fn read(&mut self) -> Result<String, ReadlineError> {
        let above = self.above.clone();
        let occupied = above.map(|above| {
            screen::occupy(move |line| {
                // The thread lives as long as the program.
                let _ = above.send(line.to_owned());
            })
        });
        let text = self.editor.readline(PROMPT);
        drop(occupied);
        let text = text?;
        self.history.add(&mut self.editor, text.trim_end());
        Ok(text)
    }
}

/// Begins to hand lines to the line editor. It takes them when it gets to it, and nobody else must wait for that.
fn above(editor: &mut Editor<Statements, FileHistory>) -> Option<Sender<String>> {
    let mut printer = editor.create_external_printer().ok()?;
    let (lines, said) = channel::<String>();
    let hand_over = move || said.iter().try_for_each(|line| printer.print(line + "\n"));
    thread::Builder::new().name("notices".to_owned()).spawn(hand_over).ok()?;
    Some(lines)
}

/// Gives the terminal back its usual behaviour when the program ends in the middle of a line.
pub fn restore_terminal() {
    // Without `stty` the user's shell has to cope.
    let _ = Command::new("stty").arg("sane").stdin(Stdio::inherit()).stderr(Stdio::null()).status();
    // Leaves the line that was being typed.
    let _ = writeln!(io::stderr());
}
