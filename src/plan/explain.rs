//! A stream plan for people to read: a tree per sink.

use std::fmt::Write as _;
use std::sync::LazyLock;

use chrono_tz::Tz;
use regex::{Captures, Regex};

use super::stream::{AggregateNode, Emission, Hidden, NodeId, Op, OutputColumn, Step, StreamPlan};
use crate::error::sql_words;
use crate::sql::statement::Emit;
use crate::time::{Axis, CalendarUnit, Run, SlicedWindows, WindowShape, Windows};

/// The plan as text, sinks first, each followed by what it reads from.
pub fn explain(plan: &StreamPlan) -> String {
    explain_with(plan, &|_| Vec::new())
}

/// A node and all that it reads, as text.
pub fn explain_node(plan: &StreamPlan, node: NodeId) -> String {
    let mut text = String::new();
    describe(plan, node, 0, &|_| Vec::new(), &mut text);
    text
}

/// The same, with lines of the caller's under each node.
pub fn explain_with(plan: &StreamPlan, notes: &dyn Fn(NodeId) -> Vec<String>) -> String {
    let mut text = String::new();
    for (id, node) in plan.nodes.iter().enumerate() {
        if matches!(node.op, Op::Sink(_)) {
            describe(plan, id, 0, notes, &mut text);
        }
    }
    text
}

/// Expressions as people would write them: without the indices of columns, with SQL's literals and types.
fn readable(text: &str) -> String {
    static HIDDEN_ORDER: LazyLock<Regex> = LazyLock::new(|| {
        let by = |name: &str| format!(r"(?:, )?{name}(?:@\d+)? ASC NULLS LAST");
        Regex::new(&format!(r"( ORDER BY \[)?(?:{}|{})+", by(Hidden::TIME), by(Hidden::TIE)))
            .expect("a constant pattern")
    });
    static INDEX: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\b@\d+\b|([)\]])@\d+\b").expect("a constant pattern"));
    let text =
        HIDDEN_ORDER.replace_all(
            text,
            |parts: &Captures<'_>| {
                if parts.get(1).is_some() { " ORDER BY [event time" } else { ", event time" }
            },
        );
    // What stands between quotes is a text of the query.
    let parts = text.split('\'').enumerate();
    let parts = parts.map(|(at, part)| if at % 2 == 0 { INDEX.replace_all(part, "$1") } else { part.into() });
    sql_words(&parts.collect::<Vec<_>>().join("'"))
}

fn describe(plan: &StreamPlan, id: NodeId, depth: usize, notes: &dyn Fn(NodeId) -> Vec<String>, text: &mut String) {
    let node = &plan.nodes[id];
    let indent = "  ".repeat(depth);
    let columns = || node.visible.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    let line = match &node.op {
        Op::Source(source) => {
            let connector = source.table.options.get("connector").unwrap_or("?");
            let time = match &source.watermark {
                Some((time, expr)) => {
                    let wide = source.decoded.fields().iter().chain(source.computed.iter().map(|(f, _)| f));
                    let name = wide.map(|f| f.name().as_str()).nth(*time).unwrap_or("?");
                    format!(", event time {name}, watermark {expr}")
                }
                None => String::new(),
            };
            format!("Source: {} ({connector}) [{}]{time}", source.table.name, columns())
        }
        Op::Static(_) => format!("Rows: computed once [{}]", columns()),
        Op::Transform(steps) => {
            let steps = steps.iter().rev().filter_map(|step| match step {
                Step::Filter(predicate) => Some(format!("Filter: {predicate}")),
                Step::Project(exprs, schema) => {
                    let list = exprs.iter().zip(schema.fields()).map(|(e, f)| match e.to_string() {
                        e if e.split('@').next() == Some(f.name()) => f.name().clone(),
                        e => format!("{e} AS {}", f.name()),
                    });
                    Some(format!("Project: {}", list.collect::<Vec<_>>().join(", ")))
                }
                // What is hidden stays so.
                Step::Conform(_) | Step::Branch(_) => None,
            });
            let steps: Vec<String> = steps.collect();
            if steps.is_empty() {
                return describe(plan, node.inputs[0], depth, notes, text);
            }
            steps.join(&format!("\n{indent}"))
        }
        Op::Windows(windows) => {
            let how = if windows.repeat { "each row in each of its windows" } else { "by slices" };
            let name = windows.session_gap_ms.map_or_else(|| sliced(&windows.windows, windows.zone), session);
            format!("Windows: {name} over {} ({how})", plan.nodes[node.inputs[0]].visible.field(windows.time).name())
        }
        Op::Sessions(sessions) => {
            let below = &plan.nodes[node.inputs[0]].visible;
            let partition: Vec<_> = sessions.partition.iter().map(|&i| below.field(i).name().as_str()).collect();
            format!(
                "Windows: {} over {}, sessions of [{}], rows when their session ends\n{indent}  state: the rows of open \
                 sessions\n{indent}  {}",
                session(sessions.gap_ms),
                below.field(sessions.time).name(),
                partition.join(", "),
                exchange("rows", &partition),
            )
        }
        Op::Union => "Union".to_owned(),
        Op::Aggregate(aggregate) => {
            let keys: Vec<_> = aggregate.layout.keys().fields().iter().map(|f| f.name().as_str()).collect();
            let values: Vec<_> = aggregate.layout.aggregates().iter().map(|a| a.field().name().clone()).collect();
            let bounds = aggregate.output.iter().filter_map(|o| match o {
                OutputColumn::Bound(bound) => Some(bound.column()),
                OutputColumn::Value(_) => None,
            });
            format!(
                "Aggregate per window: {}, keys [{}], values [{}], bounds [{}], {}\n{indent}  {}\n{indent}  {}",
                lengths(&aggregate.windows),
                keys.join(", "),
                values.join(", "),
                bounds.collect::<Vec<_>>().join(", "),
                emission(aggregate.emission),
                aggregate_state(aggregate),
                exchange("partial aggregates", &keys),
            )
        }
        Op::PerWindow(work) => {
            let below = &plan.nodes[node.inputs[0]].visible;
            let keys: Vec<_> = work.keys[0].iter().map(|&key| below.field(key).name().as_str()).collect();
            let keys = if keys.is_empty() { vec!["the window"] } else { keys };
            format!(
                "{}: {}, {}\n{indent}  state: the rows of open windows\n{indent}  {}",
                work.title,
                lengths(&work.windows),
                emission(Emission::default()),
                exchange("rows", &keys),
            )
        }
        Op::Sink(sink) => match &sink.table {
            Some(table) => {
                format!(
                    "Sink: {} ({}) [{}], {}",
                    table.name,
                    table.options.get("connector").unwrap_or("?"),
                    columns(),
                    kind_of_stream(plan.nodes[node.inputs[0]].hidden)
                )
            }
            None => format!("Result: [{}], {}", columns(), kind_of_stream(plan.nodes[node.inputs[0]].hidden)),
        },
    };
    let _ = writeln!(text, "{indent}{}", readable(&line));
    for note in notes(id) {
        let _ = writeln!(text, "{indent}  | {note}");
    }
    for &input in &node.inputs {
        describe(plan, input, depth + 1, notes, text);
    }
}

fn kind_of_stream(hidden: Hidden) -> &'static str {
    if hidden.kind { "changelog" } else { "append-only" }
}

fn emission(emission: Emission) -> String {
    let mut text = match emission.emit {
        _ if !emission.is_changelog() => return "final rows when a window closes".to_owned(),
        Emit::OnWindowClose => "changelog: rows when a window closes".to_owned(),
        Emit::OnUpdate => "changelog: rows of open windows at every change".to_owned(),
        Emit::EveryMs(ms) => {
            format!("changelog: rows of open windows every {}", milliseconds(i64::try_from(ms).unwrap_or(i64::MAX)))
        }
    };
    if emission.lateness_ms > 0 {
        let _ = write!(text, ", corrected for {} after its end", milliseconds(emission.lateness_ms));
    }
    text
}

fn exchange(what: &str, keys: &[&str]) -> String {
    match keys {
        [] => format!("exchange: {what} to one worker"),
        keys => format!("exchange: {what} by {}", keys.join(", ")),
    }
}

/// What an aggregate keeps.
fn aggregate_state(aggregate: &AggregateNode) -> String {
    let keys = if aggregate.layout.keys().fields().is_empty() { "one group" } else { "the groups" };
    let keys = if aggregate.emission.is_changelog() { &format!("{keys}, and the rows given out,") } else { keys };
    match aggregate.windows.shape {
        _ if aggregate.assigned => format!("state: {keys} of each open window"),
        WindowShape::Session { gap_ms } => {
            format!("state: {keys} with an open session, in slices of {}", milliseconds(gap_ms))
        }
        WindowShape::Sliced(windows) if windows.is_tumbling() => format!("state: {keys} of each open window"),
        WindowShape::Sliced(windows) => format!(
            "state: {keys} of each slice of {}, {} slices in a window, from the oldest open window on",
            slice_length(&windows),
            windows.size
        ),
    }
}

fn slice_length(windows: &SlicedWindows) -> String {
    match windows.axis {
        Axis::Fixed { slice_ms, .. } => milliseconds(slice_ms),
        Axis::Calendar { unit: CalendarUnit::Day, count, .. } => format!("{count} d"),
        Axis::Calendar { unit: CalendarUnit::Month, count, .. } => format!("{count} months"),
    }
}

fn lengths(windows: &Windows) -> String {
    match windows.shape {
        WindowShape::Sliced(sliced_windows) => sliced(&sliced_windows, windows.zone),
        WindowShape::Session { gap_ms } => session(gap_ms),
    }
}

fn session(gap_ms: i64) -> String {
    format!("SESSION {}", milliseconds(gap_ms))
}

fn milliseconds(ms: i64) -> String {
    match ms {
        ms if ms % 86_400_000 == 0 => format!("{} d", ms / 86_400_000),
        ms if ms % 3_600_000 == 0 => format!("{} h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{} min", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{} s", ms / 1_000),
        ms => format!("{ms} ms"),
    }
}

/// The windows' lengths, and the zone of their days and months, or that on whose clocks their bounds are shown.
fn sliced(windows: &SlicedWindows, shown: Tz) -> String {
    let length = |slices: i64| match windows.axis {
        Axis::Fixed { slice_ms, .. } => milliseconds(slices * slice_ms),
        Axis::Calendar { unit: CalendarUnit::Day, count, .. } => format!("{} d", slices * count),
        Axis::Calendar { unit: CalendarUnit::Month, count, .. } => format!("{} months", slices * count),
    };
    let mut text = match windows.run {
        Run::Slide(slide) if slide == windows.size => format!("TUMBLE {}", length(windows.size)),
        Run::Slide(slide) => format!("HOP {} in {}", length(slide), length(windows.size)),
        Run::Grow => format!("CUMULATE {} up to {}", length(1), length(windows.size)),
    };
    let (Axis::Fixed { offset_ms, .. } | Axis::Calendar { offset_ms, .. }) = windows.axis;
    if offset_ms != 0 {
        let _ = write!(text, " offset {}", milliseconds(offset_ms));
    }
    match windows.axis {
        Axis::Calendar { zone, .. } if zone != Tz::UTC => text += &format!(" of {zone}"),
        _ if shown != Tz::UTC => text += &format!(" shown in {shown}"),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_query_stay_as_they_are() {
        let rows = [
            ("Filter: k@0 = 'a@1' AND n@12 > 3", "Filter: k = 'a@1' AND n > 3"),
            ("k@0 = 'it''s b@2' OR k@0 = ''", "k = 'it''s b@2' OR k = ''"),
        ];
        for (text, want) in rows {
            assert_eq!(readable(text), want);
        }
    }

    #[test]
    fn windows_tell_their_zone() {
        let zone = Tz::Europe__Berlin;
        let days = SlicedWindows::hop_calendar(zone, CalendarUnit::Day, 1, 3, 0);
        let months = SlicedWindows::hop_calendar(zone, CalendarUnit::Month, 1, 1, 0);
        let utc = SlicedWindows::hop_calendar(Tz::UTC, CalendarUnit::Month, 1, 1, 0);
        let hours = SlicedWindows::hop_ms(3_600_000, 3_600_000, 60_000);
        let rows = [
            (days, zone, "HOP 1 d in 3 d of Europe/Berlin"),
            (months, zone, "TUMBLE 1 months of Europe/Berlin"),
            (utc, Tz::UTC, "TUMBLE 1 months"),
            (hours, zone, "TUMBLE 1 h offset 1 min shown in Europe/Berlin"),
            (hours, Tz::UTC, "TUMBLE 1 h offset 1 min"),
        ];
        for (windows, shown, want) in rows {
            assert_eq!(sliced(&windows, shown), want);
        }
    }
}
