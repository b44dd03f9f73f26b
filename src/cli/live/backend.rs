//! The last lines of a terminal, for ratatui.
//!
//! Where the lines stand on the screen is never asked: the answer would come by way of the keyboard, among what the user
//! types. Places are counted from where the first line began, and the cursor moves relative to where it is, which stays
//! right however the screen scrolls.

use std::io::{self, Write};

use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::style::Modifier;
use ratatui::text::Span;

/// Updates between these are shown at once, by terminals that know them; others pass over them.
const UPDATE_BEGIN: &[u8] = b"\x1b[?2026h";
const UPDATE_END: &[u8] = b"\x1b[?2026l";

/// Lines at the end of a terminal's screen.
pub struct LastLines<W> {
    out: W,
    /// What is written at the next flush.
    pending: Vec<u8>,
    /// The screen.
    size: Size,
    /// How many lines there are.
    lines: u16,
    /// Where the cursor is, from where the first line began.
    cursor: Position,
}

impl<W: Write> LastLines<W> {
    /// Lines from the cursor's on, which must be at the beginning of one.
    pub fn new(out: W, size: Size) -> Self {
        Self { out, pending: Vec::new(), size, lines: 1, cursor: Position::ORIGIN }
    }

    /// The cursor moves to the first line, which is this many above it: after the width of the screen has changed that
    /// is not what was counted. From there on all is cleared.
    pub fn erase(&mut self, lines_above: u16) {
        self.cursor.y = lines_above;
        self.go(Position::ORIGIN);
        self.pending.extend_from_slice(b"\x1b[J");
    }

    /// Text with line breaks, from the first line on; what follows begins below it.
    pub fn put_above(&mut self, text: &str) {
        for line in text.lines() {
            self.pending.extend_from_slice(line.as_bytes());
            self.pending.extend_from_slice(b"\r\n");
        }
    }

    /// The lines stay where they are, and the cursor moves below the last.
    pub fn leave(&mut self) {
        self.go(Position::new(0, self.lines.saturating_sub(1)));
        self.pending.extend_from_slice(b"\r\n\x1b[?25h");
    }

    /// Writes what is pending.
    pub fn write_out(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.out.write_all(UPDATE_BEGIN)?;
        self.out.write_all(&self.pending)?;
        self.out.write_all(UPDATE_END)?;
        self.pending.clear();
        self.out.flush()
    }

    fn go(&mut self, to: Position) {
        let from = self.cursor;
        let moves = [(to.y < from.y, from.y.abs_diff(to.y), 'A'), (from.y < to.y, from.y.abs_diff(to.y), 'B')];
        // First to the margin: behind the last column a terminal does not know where the cursor is.
        self.pending.push(b'\r');
        for (_, count, direction) in moves.into_iter().chain([(0 < to.x, to.x, 'C')]).filter(|(is, ..)| *is) {
            self.pending.extend_from_slice(format!("\x1b[{count}{direction}").as_bytes());
        }
        self.cursor = to;
    }
}

impl<W: Write> Backend for LastLines<W> {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut style = Modifier::empty();
        for (x, y, cell) in content {
            let place = Position::new(x, y);
            if self.cursor != place {
                self.go(place);
            }
            if cell.modifier != style {
                style = cell.modifier;
                self.pending.extend_from_slice(b"\x1b[0m");
                for (modifier, code) in [(Modifier::BOLD, "1"), (Modifier::DIM, "2")] {
                    if style.contains(modifier) {
                        self.pending.extend_from_slice(format!("\x1b[{code}m").as_bytes());
                    }
                }
            }
            self.pending.extend_from_slice(cell.symbol().as_bytes());
            self.cursor.x += u16::try_from(Span::raw(cell.symbol()).width()).unwrap_or(u16::MAX);
        }
        if !style.is_empty() {
            self.pending.extend_from_slice(b"\x1b[0m");
        }
        Ok(())
    }

    fn append_lines(&mut self, lines: u16) -> io::Result<()> {
        for _ in 0..lines {
            self.pending.extend_from_slice(b"\r\n");
        }
        self.cursor = Position::new(0, self.cursor.y + lines);
        self.lines = self.cursor.y + 1;
        Ok(())
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        // At the margin of the last line the cursor is found again, also after the screen's size has changed.
        self.go(Position::new(0, self.lines.saturating_sub(1)));
        self.pending.extend_from_slice(b"\x1b[?25l");
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        self.pending.extend_from_slice(b"\x1b[?25h");
        Ok(())
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(self.cursor)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        self.go(position.into());
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.erase(self.cursor.y);
        Ok(())
    }

    fn clear_region(&mut self, region: ClearType) -> io::Result<()> {
        match region {
            ClearType::All => self.erase(self.cursor.y),
            ClearType::AfterCursor => self.pending.extend_from_slice(b"\x1b[J"),
            ClearType::CurrentLine => self.pending.extend_from_slice(b"\x1b[2K"),
            ClearType::UntilNewLine => self.pending.extend_from_slice(b"\x1b[K"),
            // What is above the first line is not ours.
            ClearType::BeforeCursor => {}
        }
        Ok(())
    }

    fn size(&self) -> io::Result<Size> {
        Ok(self.size)
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()
    }
}
