//! Jobs as texts and tables: what `SHOW JOBS`, `DESCRIBE JOB` and `EXPLAIN ANALYZE JOB` show.

use std::fmt::Write as _;
use std::time::Duration;

use super::info::{JobInfo, OperatorInfo, PartitionInfo, SourceInfo, StatementInfo};
use crate::plan::{StreamPlan, explain_with};
use crate::words::{bytes, count, grouped, instant, rate, span};

/// The columns of `SHOW JOBS`.
pub const COLUMNS: [&str; 8] =
    ["job", "status", "records/s", "rows/s", "to read", "watermark", "restarts", "statement"];

/// So much of a statement fits on a line with the rest.
const STATEMENT_CHARS_MAX: usize = 60;

/// Every boundary takes a moment; one that takes longer than this is worth a word.
const UNDER_WAY_MS_MIN: u64 = 1_000;

/// A job's row of `SHOW JOBS`.
pub fn row(info: &JobInfo) -> Vec<String> {
    let trouble = info.error.as_ref().or(info.trouble.as_ref()).map(|t| format!(" ({t})")).unwrap_or_default();
    let has_ended = matches!(info.status.as_str(), "finished" | "stopped" | "failed");
    let lately = |per_second| if has_ended { String::new() } else { rate(per_second) };
    vec![
        info.name.clone(),
        info.status.clone() + &trouble,
        lately(info.records_per_second),
        lately(info.rows_per_second),
        info.lag.map(grouped).unwrap_or_default(),
        info.watermark.map(instant).unwrap_or_default(),
        grouped(info.restarts),
        shortened(&info.statement),
    ]
}

fn shortened(statement: &str) -> String {
    match statement.char_indices().nth(STATEMENT_CHARS_MAX) {
        Some((end, _)) => format!("{} ..", statement[..end].trim_end()),
        None => statement.to_owned(),
    }
}

/// What `DESCRIBE JOB` shows.
pub fn describe(info: &JobInfo) -> String {
    let mut text = String::new();
    let lines = [
        ("job", info.name.clone()),
        ("status", format!("{}, {}", info.status, span(info.elapsed_ms))),
        ("statement", info.statement.clone()),
        ("diagnosis", info.diagnosis.join("\n")),
        ("read", read(info)),
        ("written", written(info)),
        ("watermark", info.watermark.map_or("none yet".to_owned(), instant)),
        ("windows", windows(info)),
        ("state", state(info)),
        ("commit", commit(info)),
        ("checkpoint", checkpoint(info)),
        ("restarts", restarts(info)),
    ];
    for (name, value) in lines {
        let mut name = name;
        for line in value.lines() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<11} {line}");
            name = "";
        }
    }
    for source in info.sources.iter().filter(|source| !source.partitions.is_empty()) {
        let _ = writeln!(text, "\nsource {}", source.table);
        table(&mut text, &PARTITION_COLUMNS, source.partitions.iter().map(|p| partition(source, p)).collect());
    }
    if !info.statements.is_empty() {
        text += "\nwhat became of the records\n";
        let rows: Vec<_> = info.statements.iter().map(statement).collect();
        // What befell no record of any statement is not worth a column.
        let is_told = |at: &usize| !RARE.contains(&STATEMENT_COLUMNS[*at]) || rows.iter().any(|row| row[*at] != "0");
        let told: Vec<_> = (0..STATEMENT_COLUMNS.len()).filter(is_told).collect();
        let columns: Vec<_> = told.iter().map(|&at| STATEMENT_COLUMNS[at]).collect();
        table(&mut text, &columns, rows.iter().map(|row| told.iter().map(|&at| row[at].clone()).collect()).collect());
    }
    text
}

fn read(info: &JobInfo) -> String {
    let left = info.lag.map(|lag| format!("; {} to read", grouped(lag))).unwrap_or_default();
    let (records, size) = (count(info.records_in, "record"), bytes(info.bytes_in));
    format!("{records} ({size}), {} a second lately{left}", rate(info.records_per_second))
}

fn written(info: &JobInfo) -> String {
    let last = info.silent_ms.map(|ms| format!("; the last {} ago", span(ms))).unwrap_or_default();
    format!("{}, {} a second lately{last}", count(info.rows_out, "row"), rate(info.rows_per_second))
}

fn windows(info: &JobInfo) -> String {
    if !info.statements.iter().any(|statement| statement.has_windows) {
        return String::new();
    }
    let next = info.next_close.map(|close| format!("; the next closes at {}", instant(close))).unwrap_or_default();
    format!("{} open{next}", grouped(info.open_windows as u64))
}

fn state(info: &JobInfo) -> String {
    let log = info.checkpoint.map(|c| format!(", {} in the log", bytes(c.bytes))).unwrap_or_default();
    let disk = match info.state_disk_bytes {
        0 => String::new(),
        on_disk => format!(", {} on disk", bytes(on_disk as u64)),
    };
    format!("{} in memory{disk}{log}", bytes(info.state_bytes as u64))
}

fn commit(info: &JobInfo) -> String {
    let under_way = match (info.replay, info.under_way) {
        (Some((at, until)), _) => format!("; going through boundary {at} of {until} again"),
        (None, Some((sequence, age_ms))) if UNDER_WAY_MS_MIN <= age_ms => {
            format!("; boundary {sequence} is under way for {}", span(age_ms))
        }
        (None, _) => String::new(),
    };
    match info.commit {
        Some(last) => {
            format!("boundary {}, {} ago, took {}{under_way}", last.sequence, span(last.age_ms), span(last.duration_ms))
        }
        None => format!("none yet{under_way}"),
    }
}

fn checkpoint(info: &JobInfo) -> String {
    let Some(last) = info.checkpoint else { return String::new() };
    format!("boundary {}, {} ago, took {}", last.sequence, span(last.age_ms), span(last.duration_ms))
}

fn restarts(info: &JobInfo) -> String {
    match &info.last_restart {
        Some(last) => format!("{}; the last {} ago: {}", grouped(info.restarts), span(last.age_ms), last.reason),
        None => "none".to_owned(),
    }
}

const PARTITION_COLUMNS: [&str; 7] = ["partition", "began at", "next", "end", "to read", "watermark", "state"];

fn partition(source: &SourceInfo, partition: &PartitionInfo) -> Vec<String> {
    let has_topics = source.partitions.iter().any(|other| other.topic != partition.topic);
    let number = partition.partition;
    let offset = |offset: i64| offset.to_string();
    let since = partition.at_end_ms.map(|ms| format!(" for {}", span(ms))).unwrap_or_default();
    let holds_back = if partition.holds_back { "; holds the watermark back" } else { "" };
    vec![
        if has_topics { format!("{}/{number}", partition.topic) } else { number.to_string() },
        offset(partition.start_offset),
        offset(partition.next_offset),
        partition.end_offset.map(offset).unwrap_or_default(),
        partition.lag().map(grouped).unwrap_or_default(),
        partition.watermark.map(instant).unwrap_or_default(),
        format!("{}{since}{holds_back}", partition.state.word()),
    ]
}

const STATEMENT_COLUMNS: [&str; 11] = [
    "into",
    "read",
    "used",
    "filtered",
    "late",
    "lost to idleness",
    "skipped",
    "dead-lettered",
    "without value",
    "partly late",
    "rows out",
];

/// Columns that are left out where they hold nothing but zeros.
const RARE: [&str; 5] = ["lost to idleness", "skipped", "dead-lettered", "without value", "partly late"];

fn statement(statement: &StatementInfo) -> Vec<String> {
    let StatementInfo { used, filtered, late, lost_to_idleness, errors, dead_lettered, tombstones, .. } = *statement;
    let terms = [statement.records_in, used, filtered, late, lost_to_idleness, errors, dead_lettered, tombstones];
    let more = [statement.partly_late, statement.rows_out];
    [statement.sink.clone()].into_iter().chain(terms.into_iter().chain(more).map(grouped)).collect()
}

/// Aligned columns: numbers to the right, but not the first column.
fn table(text: &mut String, columns: &[&str], rows: Vec<Vec<String>>) {
    let is_number = |cell: &str| cell.bytes().all(|byte| byte.is_ascii_digit() || byte == b',' || byte == b'-');
    let of_column = |(at, title): (usize, &&str)| {
        let cells = || rows.iter().map(|row| row[at].as_str());
        let width = cells().chain([*title]).map(|cell| cell.chars().count()).max().unwrap_or(0);
        (width, at != 0 && cells().all(is_number))
    };
    let shapes: Vec<(usize, bool)> = columns.iter().enumerate().map(of_column).collect();
    let titles = columns.iter().map(|title| (*title).to_owned()).collect();
    for row in [titles].iter().chain(&rows) {
        let mut line = String::new();
        for (cell, (width, to_the_right)) in row.iter().zip(&shapes) {
            let _ = match to_the_right {
                true => write!(line, "  {cell:>width$}"),
                false => write!(line, "  {cell:<width$}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// What `EXPLAIN ANALYZE JOB` shows: the plan, and under each node what it has done. `stages` is how many workers each has,
/// and how long they have waited for those behind them.
pub fn analyze(plan: &StreamPlan, info: &JobInfo, stages: &[(usize, Duration)]) -> String {
    let mut text = explain_with(plan, &|node| {
        let of_node: Vec<&OperatorInfo> = info.operators.iter().filter(|operator| operator.node == node).collect();
        let sides = if of_node.len() == 2 { ["before the exchange: ", "behind the exchange: "] } else { [""; 2] };
        of_node.into_iter().zip(sides).map(|(operator, side)| format!("{side}{}", work(operator))).collect()
    });
    for (stage, (workers, waited)) in stages.iter().enumerate() {
        let waited = span(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
        let _ =
            writeln!(text, "stage {stage}: {}, waited {waited} for what is behind", count(*workers as u64, "worker"));
    }
    text
}

fn work(operator: &OperatorInfo) -> String {
    let mut parts = vec![
        count(operator.rows_in, "row") + " in",
        grouped(operator.rows_out) + " out",
        grouped(operator.batches) + if operator.batches == 1 { " batch" } else { " batches" },
        elapsed(operator.time),
    ];
    if 0 < operator.state_bytes || 0 < operator.open_windows {
        parts.push(format!(
            "{} open windows, {} of state{}",
            grouped(operator.open_windows as u64),
            bytes(operator.state_bytes as u64),
            match operator.state_disk_bytes {
                0 => String::new(),
                on_disk => format!(" and {} on disk", bytes(on_disk as u64)),
            }
        ));
    }
    parts.join(", ")
}

/// A time that may be short.
fn elapsed(time: Duration) -> String {
    match time.as_micros() {
        micros if micros < 10_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        micros => span(u64::try_from(micros / 1_000).unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
#[path = "describe_tests.rs"]
mod tests;
