//! Results that are longer than the screen, through the user's pager.

use std::io::Write;
use std::process::{Command, Stdio};

use terminal_size::{Height, Width, terminal_size};
use tidemill::sql::diagnostics::width;

/// The lines and columns of the terminal behind standard output.
pub fn screen() -> Option<(usize, usize)> {
    terminal_size().map(|(Width(columns), Height(lines))| (usize::from(lines), usize::from(columns)))
}

/// Whether a text does not fit the terminal behind standard output.
pub fn is_longer_than_the_screen(text: &[u8]) -> bool {
    let Some((lines, columns)) = screen() else { return false };
    let text = String::from_utf8_lossy(text);
    let taken: usize = text.lines().map(|line| width(line).div_ceil(columns.max(1)).max(1)).sum();
    // The prompt wants a line, too.
    lines < taken + 1
}

/// Shows a text by `$PAGER`, or `less` if that is not set; `false` when there is no pager, or none is wanted.
pub fn show(text: &[u8]) -> bool {
    let named = std::env::var("PAGER").ok();
    let pager = named.as_deref().unwrap_or("less").trim();
    if matches!(pager, "" | "cat") {
        return false;
    }
    let mut command = Command::new("sh");
    command.args(["-c", pager]).stdin(Stdio::piped());
    if named.is_none() {
        // Without a pager in its place the shell would complain.
        command.stderr(Stdio::null());
    }
    if std::env::var_os("LESS").is_none() {
        // Wide lines are cut, and the screen stays as it was left.
        command.env("LESS", "SRX");
    }
    let Ok(mut child) = command.spawn() else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever leaves the pager early has seen enough.
        let _ = stdin.write_all(text);
    }
    // 127: the shell has found no such program.
    child.wait().is_ok_and(|status| status.code() != Some(127))
}
