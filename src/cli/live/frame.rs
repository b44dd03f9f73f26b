//! What a live table looks like at one moment.
//!
//! ```text
//!  origin | flights
//! --------+---------
//!  EWR    |   9,893
//!  LGA    |   7,950
//! 2 rows | 12,345 records/s | to read 0 | watermark 2013-01-31 23:00:00Z | 3 late | Ctrl-C ends it
//! ```
//!
//! Columns never become narrower while the screen stays as it is, for nothing can be read that moves. Where a row is
//! wider than the screen its widest columns give way first.

use arrow::datatypes::SchemaRef;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Span;
use tidemill::error::Result;
use tidemill::runtime::{JobInfo, JobStatus, Snapshot};
use tidemill::sql::diagnostics::escape;
use tidemill::words::{count, grouped, instant, rate};

use crate::cli::output::cells;

/// Lines that are no rows: names, the rule below them, and how the query is.
pub const LINES_BESIDES: u16 = 3;

/// No column takes more than this.
const COLUMN_WIDTH_MAX: usize = 60;

/// The widest columns give way down to this; a row that is still too wide is cut.
const COLUMN_WIDTH_MIN: usize = 8;

/// What stands between two columns.
const BETWEEN: &str = " | ";

const CUT: char = '…';

/// The columns of a live table.
pub struct Columns {
    columns: Vec<Column>,
    /// Whether some text is bold, some dim.
    has_styles: bool,
}

struct Column {
    name: String,
    to_the_right: bool,
    /// What its values have taken so far.
    width: usize,
}

/// A frame, ready to be drawn.
pub struct Picture {
    lines: Vec<(String, Style)>,
}

impl Columns {
    pub fn new(schema: &SchemaRef, has_styles: bool) -> Self {
        let column = |name: &str, to_the_right| {
            let name = escape(name).into_owned();
            Column { width: columns_of(&name), name, to_the_right }
        };
        let fields = schema.fields().iter();
        Self { columns: fields.map(|f| column(f.name(), f.data_type().is_numeric())).collect(), has_styles }
    }

    /// The screen has another width: everything may move.
    pub fn forget_widths(&mut self) {
        self.columns.iter_mut().for_each(|column| column.width = columns_of(&column.name));
    }

    /// What is to be seen of some rows on a screen of this width, with a line about the query below them.
    pub fn picture(&mut self, snapshot: &Snapshot, status: &str, width: usize) -> Result<Picture> {
        let cells = cells(&snapshot.rows)?;
        let rows = cells.chunks(self.columns.len().max(1));
        for row in rows.clone() {
            for (column, text) in self.columns.iter_mut().zip(row) {
                column.width = column.width.max(columns_of(text).min(COLUMN_WIDTH_MAX));
            }
        }
        let widths = self.widths(width);
        let style = |modifier| if self.has_styles { Style::new().add_modifier(modifier) } else { Style::new() };
        let names = self.columns.iter().map(|column| (column.name.as_str(), false));
        let rules: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let mut lines = vec![
            (line(names, &widths), style(Modifier::BOLD)),
            (format!("-{}-", rules.join("-+-")), style(Modifier::DIM)),
        ];
        for row in rows {
            let values = row.iter().zip(&self.columns).map(|(text, column)| (text.as_str(), column.to_the_right));
            lines.push((line(values, &widths), Style::new()));
        }
        lines.push((status.to_owned(), style(Modifier::DIM)));
        for (text, _) in &mut lines {
            *text = cut(text, width);
        }
        Ok(Picture { lines })
    }

    /// The widths with which a row fits the screen, if there are any.
    fn widths(&self, screen: usize) -> Vec<usize> {
        let besides = 2 + BETWEEN.len() * self.columns.len().saturating_sub(1);
        let at_most = |most: usize| self.columns.iter().map(move |column| column.width.min(most));
        let fits = |most: &usize| at_most(*most).sum::<usize>() + besides <= screen;
        let most = (COLUMN_WIDTH_MIN..=COLUMN_WIDTH_MAX).rev().find(fits).unwrap_or(COLUMN_WIDTH_MIN);
        at_most(most).collect()
    }
}

impl Picture {
    /// The lines that it takes.
    pub fn height(&self) -> u16 {
        u16::try_from(self.lines.len()).unwrap_or(u16::MAX)
    }

    /// Draws it. With more lines than it takes, the last one stays at the bottom.
    pub fn draw(&self, area: Rect, buffer: &mut Buffer) {
        let Some(((status, style), rows)) = self.lines.split_last() else { return };
        let lines = area.rows().zip(rows);
        for (line, (text, style)) in lines {
            buffer.set_stringn(line.x, line.y, text, line.width.into(), *style);
        }
        if let Some(last) = area.rows().next_back() {
            buffer.set_stringn(last.x, last.y, status, last.width.into(), *style);
        }
    }

    /// The lines of a screen that it takes where lines that are too long go on in the next.
    pub fn lines_above_the_last(&self, width: usize) -> usize {
        let (_, rows) = self.lines.split_last().unwrap_or((&self.lines[0], &[]));
        rows.iter().map(|(text, _)| columns_of(text.trim_end()).div_ceil(width.max(1)).max(1)).sum()
    }
}

/// How a query is, in a line.
pub fn status(info: &JobInfo, status: &JobStatus, rows: u64, shown: usize) -> String {
    let mut parts = vec![match rows.saturating_sub(shown as u64) {
        0 => count(rows, "row"),
        _ => format!("{} of {}", grouped(shown as u64), count(rows, "row")),
    }];
    if status.has_ended() {
        parts.push(format!("{} in", count(info.records_in, "record")));
    } else {
        parts.push(format!("{} records/s", rate(info.records_per_second)));
        parts.extend(info.lag.map(|lag| format!("to read {}", grouped(lag))));
    }
    parts.extend(info.watermark.map(|watermark| format!("watermark {}", instant(watermark))));
    parts.push(format!("{} late", grouped(info.late)));
    if let JobStatus::Running = status {
        parts.push("Ctrl-C ends it".to_owned());
    } else {
        parts.push(status.word().to_owned());
    }
    // What is in the way must not be cut off.
    if let Some(trouble) = info.trouble.as_deref().filter(|_| !status.has_ended()) {
        parts.insert(0, escape(trouble).into_owned());
    }
    parts.join(BETWEEN)
}

fn line<'a>(values: impl Iterator<Item = (&'a str, bool)>, widths: &[usize]) -> String {
    let padded = values.zip(widths).map(|((text, to_the_right), width)| {
        let text = cut(text, *width);
        let padding = " ".repeat(width.saturating_sub(columns_of(&text)));
        if to_the_right { padding + &text } else { text + &padding }
    });
    format!(" {}", padded.collect::<Vec<_>>().join(BETWEEN))
}

/// The columns of a screen that a text takes.
fn columns_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// As much of a text as fits, with a mark where it is cut.
fn cut(text: &str, width: usize) -> String {
    if columns_of(text) <= width {
        return text.to_owned();
    }
    let (mut kept, mut taken) = (String::new(), 1);
    for grapheme in Span::raw(text).styled_graphemes(Style::new()) {
        taken += columns_of(grapheme.symbol);
        if width < taken {
            break;
        }
        kept.push_str(grapheme.symbol);
    }
    kept.push(CUT);
    kept
}
