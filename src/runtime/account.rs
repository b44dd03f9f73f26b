//! What workers say of themselves, put together: per statement, per operator, per partition.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::info::{JobInfo, OperatorInfo, PartitionInfo, SourceInfo, StatementInfo, Terms};
use super::metrics::{Counters, PartitionReport, StatementLayout, WorkerNode, WorkerReport};
use super::rates::Totals;
use crate::exec::Counts;
use crate::plan::NodeId;
use crate::time::{TIME_MS_LIMIT, TimeMs, WATERMARK_MIN};

/// What operators have counted for a statement, in earlier runs and in this one.
pub fn counts_of(number: usize, before: &Counters, reports: &BTreeMap<(usize, usize), WorkerReport>) -> Counts {
    let mut counts = before.statements.get(number).copied().unwrap_or_default();
    let nodes = reports.values().flat_map(|report| &report.nodes);
    nodes.filter(|node| node.statement == Some(number)).for_each(|node| counts.add(node.report.counts));
    counts
}

/// The rows that a statement has given out, likewise.
pub fn given_of(number: usize, before: &Counters, reports: &BTreeMap<(usize, usize), WorkerReport>) -> u64 {
    let nodes = reports.values().flat_map(|report| &report.nodes);
    let given =
        nodes.filter(|node| node.is_sink && node.statement == Some(number)).map(|node| node.report.work.rows_in);
    before.given.get(number).copied().unwrap_or(0) + given.sum::<u64>()
}

/// What a statement has come to.
pub fn statement(
    number: usize,
    layout: &StatementLayout,
    sources: &[SourceInfo],
    reports: &BTreeMap<(usize, usize), WorkerReport>,
    operators: &[OperatorInfo],
    before: &Counters,
) -> StatementInfo {
    let counts = counts_of(number, before, reports);
    let read = |term: fn(&SourceInfo) -> u64| sources.iter().zip(&layout.reads).map(|(s, n)| n * term(s)).sum::<u64>();
    let of_statement = || operators.iter().filter(|operator| operator.statement == Some(number));
    // Behind an exchange, where an aggregate has two halves.
    let last_windows = operators.iter().rev().find(|operator| layout.windows.last() == Some(&operator.node));
    let reached = reports.values().filter_map(|report| report.reached.get(number)).min();
    StatementInfo {
        sink: layout.sink.clone(),
        records_in: read(|s| s.records_in),
        used: u64::try_from(counts.used).unwrap_or(0),
        filtered: counts.filtered,
        late: counts.late,
        partly_late: counts.partly_late,
        lost_to_idleness: counts.lost_to_idleness,
        errors: counts.skipped + read(|s| s.errors),
        dead_lettered: counts.dead_lettered + read(|s| s.dead_lettered),
        tombstones: read(|s| s.tombstones),
        rows_out: given_of(number, before, reports),
        lately: Terms::default(),
        sources: (0..sources.len()).filter(|&source| layout.reads.get(source).is_some_and(|n| 0 < *n)).collect(),
        has_windows: !layout.windows.is_empty(),
        window_rows: last_windows.map_or(0, |operator| operator.rows_out),
        watermark: told(reached.copied()),
        open_windows: of_statement().map(|operator| operator.open_windows).sum(),
        next_close: of_statement().filter_map(|operator| operator.next_close).min(),
    }
}

/// What all workers of a stage have done at a node, by node and stage. Windows are shared by the workers unless keys have
/// windows of their own.
pub fn operators(
    reports: &BTreeMap<(usize, usize), WorkerReport>,
    has_own_windows: impl Fn(NodeId) -> bool,
) -> Vec<OperatorInfo> {
    let mut all: BTreeMap<(NodeId, usize), OperatorInfo> = BTreeMap::new();
    for ((stage, _), report) in reports {
        for WorkerNode { node, statement, report, .. } in &report.nodes {
            let (node, statement, stage) = (*node, *statement, *stage);
            let empty = || OperatorInfo { node, stage, statement, ..OperatorInfo::default() };
            let operator = all.entry((node, stage)).or_insert_with(empty);
            operator.rows_in += report.work.rows_in;
            operator.rows_out += report.work.rows_out;
            operator.batches += report.work.batches;
            operator.time += report.work.time;
            operator.state_bytes += report.state.bytes;
            operator.state_disk_bytes += report.state.disk_bytes;
            operator.next_close = operator.next_close.into_iter().chain(report.state.next_close).min();
            operator.open_windows = match has_own_windows(node) {
                true => operator.open_windows + report.state.open_windows,
                false => operator.open_windows.max(report.state.open_windows),
            };
        }
    }
    all.into_values().collect()
}

/// Where a worker is in a partition.
pub fn partition(report: &PartitionReport, now: Instant) -> PartitionInfo {
    let since_ms = |at: Option<Instant>| at.map(|at| ms(now.saturating_duration_since(at)));
    PartitionInfo {
        topic: report.id.topic.to_string(),
        partition: report.id.partition,
        start_offset: report.start,
        next_offset: report.next_offset,
        end_offset: report.end,
        watermark: told(Some(report.watermark)),
        state: report.state,
        holds_back: false,
        silent_ms: since_ms(report.last_record),
        at_end_ms: since_ms(report.at_end_since),
    }
}

/// What is compared with a moment ago.
pub fn totals(info: &JobInfo) -> Totals {
    let statements = info.statements.iter().map(StatementInfo::terms).collect();
    Totals { records_in: info.records_in, rows_out: info.rows_out, statements }
}

/// A watermark that is a time: neither before all records nor behind the last.
pub fn told(watermark: Option<TimeMs>) -> Option<TimeMs> {
    watermark.filter(|w| *w != WATERMARK_MIN && *w < TIME_MS_LIMIT)
}

/// Whole milliseconds.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
