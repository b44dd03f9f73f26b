//! What was typed, kept per user: `$XDG_STATE_HOME/tidemill/history`, else `~/.local/state/tidemill/history`.
//!
//! Only the user may read it, and statements that hold a secret are never written. That nothing can be kept is no reason
//! not to work.

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};

use rustyline::history::FileHistory;
use rustyline::{Editor, Helper};
use tidemill::catalog::secrets::is_secret;

/// Where the history is, if it is anywhere.
pub struct History {
    path: Option<PathBuf>,
}

impl History {
    /// Statements that are kept.
    pub const ENTRIES_MAX: usize = 10_000;

    /// Finds the place and makes it.
    pub fn open() -> Self {
        let path = path(|name| std::env::var_os(name).map(PathBuf::from));
        let usable = path.filter(|path| match path.parent().map(make_directory) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::debug!("no history is kept: {}: {error}", path.display());
                false
            }
            None => false,
        });
        Self { path: usable }
    }

    /// Reads what was typed before.
    pub fn load<H: Helper>(&self, editor: &mut Editor<H, FileHistory>) {
        if let Some(path) = self.path.as_deref().filter(|path| path.exists())
            && let Err(error) = editor.load_history(path)
        {
            tracing::debug!("the history cannot be read: {}: {error}", path.display());
        }
    }

    /// Keeps a text, unless it holds a secret. It is written at once, so that a crash loses nothing.
    pub fn add<H: Helper>(&self, editor: &mut Editor<H, FileHistory>, text: &str) {
        if text.trim().is_empty() || holds_secret(text) {
            return;
        }
        let kept = editor.add_history_entry(text).and_then(|_| match &self.path {
            Some(path) => editor.append_history(path),
            None => Ok(()),
        });
        if let Err(error) = kept {
            tracing::debug!("the history cannot be written: {error}");
        }
    }
}

/// `$XDG_STATE_HOME/tidemill/history` or its like.
pub fn path(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // A relative path is to be ignored, says the standard for these folders.
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(variable("HOME").filter(|path| path.is_absolute())?.join(".local/state")))?;
    Some(state.join("tidemill/history"))
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

/// Whether a text sets something that may be a secret: `'..password' = ..`, quoted or not, in SQL that need not be right.
fn holds_secret(text: &str) -> bool {
    text.match_indices('=').any(|(at, _)| {
        let before = text[..at].trim_end();
        let quote = before.chars().next_back().filter(|c| matches!(c, '\'' | '"' | '`'));
        let key = match quote {
            Some(quote) => before[..before.len() - 1].rsplit(quote).next().unwrap_or_default(),
            // A column called `token` is no secret; an option's name has dots.
            None => before.rsplit(char::is_whitespace).next().filter(|word| word.contains('.')).unwrap_or_default(),
        };
        is_secret(key)
    })
}
