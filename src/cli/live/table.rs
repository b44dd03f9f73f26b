//! A live table: rows of a query, drawn in place by a thread of its own.
//!
//! Whoever takes rows from the query hands them over and goes on; the thread draws what there is, at most every
//! [`FRAME`]. So a slow terminal makes for fewer frames and never for a slower query.

use std::io::{self, Stdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use ratatui::layout::Size;
use ratatui::{Terminal, TerminalOptions, Viewport};
use tidemill::error::{Error, Result};
use tidemill::runtime::{Job, Materialized, Snapshot, clock};

use super::LiveRows;
use super::backend::LastLines;
use super::frame::{Columns, LINES_BESIDES, Picture, status};
use super::keyboard::{self, Silent};
use crate::cli::output::pager;
use crate::cli::screen::{self, Occupied};

/// Between two frames, at least.
const FRAME: Duration = Duration::from_millis(100);

/// Between two frames where nothing has come: rates and watermarks go on.
const QUIET_FRAME: Duration = Duration::from_secs(1);

/// A live table on standard output.
pub struct LiveTable {
    shared: Arc<Shared>,
    /// Gives the rows that there are in the end, and whether the terminal is still there.
    thread: Option<JoinHandle<Result<Drawn>>>,
    _occupied: Occupied,
    _silent: Silent,
}

/// How it ended.
pub enum Drawn {
    /// So many rows are there.
    Rows(u64),
    /// The terminal is gone.
    OutputClosed,
}

struct Shared {
    state: Mutex<State>,
    /// The query has ended.
    ended: Condvar,
}

struct State {
    rows: Materialized,
    /// Something has come since the last frame.
    is_new: bool,
    /// Lines to be put above.
    notes: Vec<String>,
    has_ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveTable {
    /// Whether the terminal can do this.
    pub fn is_possible() -> bool {
        let is_able = std::env::var("TERM").is_ok_and(|term| !matches!(term.as_str(), "" | "dumb"));
        is_able && size().is_some_and(|size| LINES_BESIDES < size.height && 0 < size.width)
    }

    /// Begins to draw; `None` where rows have no such view.
    pub fn open(rows: &dyn LiveRows, has_styles: bool) -> Result<Option<Self>> {
        // Rows with values that cannot be compared are not found again.
        let Ok(kept) = Materialized::new(&rows.schema(), rows.has_changes()) else { return Ok(None) };
        let Some(job) = rows.job().cloned() else { return Ok(None) };
        let columns = Columns::new(kept.schema(), has_styles);
        let state = State { rows: kept, is_new: true, notes: Vec::new(), has_ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), ended: Condvar::new() });
        let silent = Silent::new();
        let noted = Arc::clone(&shared);
        let occupied = screen::occupy(move |line| {
            let mut state = noted.state();
            state.notes.push(line.to_owned());
            state.is_new = true;
        });
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("live-table".to_owned())
            .spawn(move || Artist::new(own, job, columns).draw_on())
            .map_err(|error| Error::usage(format!("cannot start a thread: {error}")))?;
        Ok(Some(Self { shared, thread: Some(thread), _occupied: occupied, _silent: silent }))
    }

    /// Takes rows. Never waits for the terminal.
    pub fn add(&self, batch: &RecordBatch) -> Result<()> {
        let mut state = self.shared.state();
        state.is_new |= batch.num_rows() > 0;
        state.rows.add(batch)
    }

    /// Whether nobody draws any more, since that has failed.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// The end: the last frame stays.
    pub fn end(mut self) -> Result<Drawn> {
        self.finish().unwrap_or_else(|| Err(Error::bug("a live table that was ended twice")))
    }

    fn finish(&mut self) -> Option<Result<Drawn>> {
        self.shared.state().has_ended = true;
        self.shared.ended.notify_all();
        let drawn = self.thread.take()?.join();
        Some(drawn.unwrap_or_else(|_| Err(Error::bug("the thread that draws a live table has panicked"))))
    }
}

impl Drop for LiveTable {
    fn drop(&mut self) {
        // An error of the query is told below the last frame.
        let _ = self.finish();
        // What was said since.
        std::mem::take(&mut self.shared.state().notes).iter().for_each(|line| screen::put(line));
    }
}

/// Who draws.
struct Artist {
    shared: Arc<Shared>,
    job: Job,
    columns: Columns,
    size: Size,
    /// The last frame, and what drew it.
    last: Option<(Terminal<LastLines<Stdout>>, Picture)>,
    /// The lines of the frame: it grows with the rows.
    height: u16,
}

impl Artist {
    fn new(shared: Arc<Shared>, job: Job, columns: Columns) -> Self {
        let size = size().unwrap_or(Size::new(80, 24));
        Self { shared, job, columns, size, last: None, height: 0 }
    }

    fn draw_on(mut self) -> Result<Drawn> {
        let mut due = clock::now();
        loop {
            if keyboard::is_stop_wanted() {
                // When it goes on, it does below what has come in between.
                if let Some((mut terminal, _)) = self.last.take() {
                    terminal.backend_mut().leave();
                    let _ = terminal.backend_mut().write_out();
                }
                self.height = 0;
                keyboard::stop();
                due = clock::now();
            }
            let size = size().unwrap_or(self.size);
            let (snapshot, notes, has_ended) = {
                let mut state = self.shared.state();
                let is_wanted = state.is_new || state.has_ended || size != self.size || due <= clock::now();
                if !is_wanted {
                    let goes_on = |state: &mut State| !state.has_ended;
                    drop(self.shared.ended.wait_timeout_while(state, FRAME, goes_on));
                    continue;
                }
                state.is_new = false;
                let most = usize::from(size.height.saturating_sub(LINES_BESIDES));
                (state.rows.snapshot(most)?, std::mem::take(&mut state.notes), state.has_ended)
            };
            let begun = clock::now();
            let count = snapshot.count;
            match self.frame(&snapshot, &notes, size, has_ended)? {
                Ok(()) if has_ended => return Ok(Drawn::Rows(count)),
                Ok(()) => {}
                // Whoever looked at it is gone.
                Err(_) => return Ok(Drawn::OutputClosed),
            }
            due = begun + QUIET_FRAME;
            self.rest(begun);
        }
    }

    /// Waits until the next frame may be drawn, or the query has ended.
    fn rest(&self, begun: Instant) {
        let rest = FRAME.saturating_sub(begun.elapsed());
        let goes_on = |state: &mut State| !state.has_ended;
        drop(self.shared.ended.wait_timeout_while(self.shared.state(), rest, goes_on));
    }

    fn frame(&mut self, snapshot: &Snapshot, notes: &[String], size: Size, is_last: bool) -> Result<io::Result<()>> {
        if size.width != self.size.width {
            self.columns.forget_widths();
        }
        let about = status(&self.job.info(), &self.job.status(), snapshot.count, snapshot.rows.num_rows());
        let picture = self.columns.picture(snapshot, &about, size.width.into())?;
        Ok(self.show(picture, notes, size, is_last))
    }

    fn show(&mut self, picture: Picture, notes: &[String], size: Size, is_last: bool) -> io::Result<()> {
        // A frame that shrinks would leave a gap, and one that breathes cannot be read.
        let height = if is_last { picture.height() } else { picture.height().max(self.height) }.min(size.height);
        let is_in_place = height == self.height && size == self.size && notes.is_empty();
        let mut terminal = match self.last.take() {
            Some((terminal, _)) if is_in_place => terminal,
            last => self.begin(last, notes, size, height)?,
        };
        terminal.draw(|frame| picture.draw(frame.area(), frame.buffer_mut()))?;
        if is_last {
            terminal.backend_mut().leave();
            terminal.backend_mut().write_out()?;
        }
        self.last = Some((terminal, picture));
        Ok(())
    }

    /// Makes room for a frame of another size, or below notes.
    fn begin(
        &mut self,
        last: Option<(Terminal<LastLines<Stdout>>, Picture)>,
        notes: &[String],
        size: Size,
        height: u16,
    ) -> io::Result<Terminal<LastLines<Stdout>>> {
        let mut lines = LastLines::new(io::stdout(), size);
        if let Some((_, picture)) = last {
            // Terminals break lines anew that have become too long, so the first one may have moved up.
            let above = match size.width < self.size.width {
                true => picture.lines_above_the_last(size.width.into()),
                false => usize::from(self.height).saturating_sub(1),
            };
            lines.erase(u16::try_from(above).unwrap_or(u16::MAX).min(size.height.saturating_sub(1)));
        }
        notes.iter().for_each(|note| lines.put_above(note));
        (self.size, self.height) = (size, height);
        Terminal::with_options(lines, TerminalOptions { viewport: Viewport::Inline(height) })
    }
}

fn size() -> Option<Size> {
    let (lines, columns) = pager::screen()?;
    Some(Size::new(u16::try_from(columns).ok()?, u16::try_from(lines).ok()?))
}
