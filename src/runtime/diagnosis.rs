//! Why a job gives no rows, in words.
//!
//! A job that waits looks like one that hangs, unless it says what it waits for. The causes are looked at in the order in
//! which one hides the others: that the job has ended, that something is in its way, that nothing comes, that nothing is
//! left of what comes, and last what its windows wait for.

use super::info::{JobInfo, PartitionInfo, PartitionState, SourceInfo, StatementInfo, Terms};
use crate::time::TimeMs;
use crate::words::{count, grouped, instant, list, span};

/// A boundary that takes longer than this is worth a word.
const UNDER_WAY_MS_MIN: u64 = 2_000;

/// Whoever has given nothing for so long is worth one, even while rows come out.
const SILENT_MS_MIN: u64 = 2_000;

/// What lies behind a partition's end is a transaction's if it has been there for so long.
const BEHIND_END_MS_MIN: u64 = 1_000;

/// Event time may be ahead of the clock by so much before that is strange.
const AHEAD_MS_MAX: i64 = 3_600_000;

/// Partitions that are named; of more only how many there are.
const NAMED_MAX: usize = 4;

/// Sentences on why there is no output, or when there will be some; the most important first. `clock_ms` is the wall clock.
pub fn diagnose(info: &JobInfo, clock_ms: TimeMs) -> Vec<String> {
    if let Some(at_once) = of_job(info) {
        return vec![at_once];
    }
    let one = info.statements.len() == 1;
    let of_statement = |statement: &StatementInfo| {
        let sentences = Case { info, statement, clock_ms }.sentences();
        let named = |sentence| if one { sentence } else { format!("{}: {sentence}", statement.sink) };
        sentences.into_iter().map(named).collect::<Vec<_>>()
    };
    info.statements.iter().flat_map(of_statement).collect()
}

/// What concerns the job as a whole and leaves nothing more to say.
fn of_job(info: &JobInfo) -> Option<String> {
    let ended = match info.status.as_str() {
        "failed" => Some(format!("the job has failed: {}", info.error.as_deref().unwrap_or("nobody knows why"))),
        "finished" => Some("the job has finished: everything is read, and every window has closed".to_owned()),
        "stopped" => Some("the job was stopped; windows that were open have given no rows".to_owned()),
        _ => None,
    };
    let trouble = || info.trouble.clone();
    let replay = || {
        let (at, until) = info.replay?;
        let after = info.last_restart.as_ref().map(|last| format!(", after {}", last.reason)).unwrap_or_default();
        Some(format!(
            "the job is being restored{after}: it reads again what led to boundary {at} of {until}, and writes nothing \
             before it is there"
        ))
    };
    let under_way = || {
        let (sequence, age_ms) = info.under_way.filter(|(_, age_ms)| UNDER_WAY_MS_MIN <= *age_ms)?;
        Some(format!(
            "boundary {sequence} was called {} ago and is not committed: what came before it is still being computed, or \
             the sinks are slow to take it",
            span(age_ms)
        ))
    };
    let overdue = || {
        let overdue_ms = info.overdue_ms.filter(|overdue_ms| UNDER_WAY_MS_MIN <= *overdue_ms)?;
        Some(format!(
            "the sinks do not take the rows that are to be written: the next boundary is {} late",
            span(overdue_ms)
        ))
    };
    // Workers tell what became of records at boundaries.
    let beginning = || {
        let read = format!("{} read so far", count(info.records_in, "record"));
        match (info.statements.is_empty(), info.operators.is_empty()) {
            (true, _) => Some(read),
            (false, true) => Some(format!("{read}; what has become of them is told at the first commit")),
            (false, false) => None,
        }
    };
    ended.or_else(trouble).or_else(replay).or_else(under_way).or_else(overdue).or_else(beginning)
}

/// One statement of a job that runs.
struct Case<'a> {
    info: &'a JobInfo,
    statement: &'a StatementInfo,
    clock_ms: TimeMs,
}

impl Case<'_> {
    fn sentences(&self) -> Vec<String> {
        let Self { statement, .. } = self;
        let mut all = Vec::new();
        if 0 < statement.lately.rows_out {
            all.push(format!("rows come out: {} in the last ten seconds", grouped(statement.lately.rows_out)));
            all.extend(self.next_window());
            if self.is_silent() {
                all.extend(self.holders());
            }
            return all;
        }
        all.extend(self.transactions());
        if statement.records_in == 0 {
            all.extend(self.nothing_came());
            return all;
        }
        if let Some(lost) = self.nothing_left() {
            all.push(lost);
            all.extend(self.future());
            return all;
        }
        if !statement.has_windows {
            all.push(self.waits_for_records());
            return all;
        }
        if statement.open_windows == 0 {
            all.push(self.no_window());
            all.extend(self.future());
            return all;
        }
        all.extend(self.next_window());
        all.extend(self.holders());
        all.extend(self.future());
        all
    }

    fn sources(&self) -> impl Iterator<Item = &SourceInfo> {
        self.statement.sources.iter().map(|&source| &self.info.sources[source])
    }

    fn partitions(&self) -> impl Iterator<Item = (&SourceInfo, &PartitionInfo)> {
        self.sources().flat_map(|source| source.partitions.iter().map(move |partition| (source, partition)))
    }

    /// Records that cannot be read because a transaction has not ended.
    fn transactions(&self) -> Option<String> {
        let is_blocked = |p: &PartitionInfo| {
            p.lag().is_some_and(|lag| 0 < lag) && p.at_end_ms.is_some_and(|ms| BEHIND_END_MS_MIN <= ms)
        };
        let blocked: Vec<_> = self.partitions().filter(|(_, p)| is_blocked(p)).collect();
        let lag: u64 = blocked.iter().filter_map(|(_, p)| p.lag()).sum();
        (!blocked.is_empty()).then(|| {
            format!(
                "{} behind the position in {} cannot be read yet: a transaction of their producer is still open",
                count(lag, "offset"),
                named(&blocked)
            )
        })
    }

    fn nothing_came(&self) -> Option<String> {
        let all: Vec<_> = self.partitions().collect();
        if all.is_empty() {
            return Some("no record has come yet".to_owned());
        }
        if all.iter().any(|(_, p)| p.at_end_ms.is_none() && p.state != PartitionState::Ended) {
            let lag = all.iter().filter_map(|(_, p)| p.lag()).sum::<u64>();
            let known = if lag == 0 { String::new() } else { format!(", though {} are there", grouped(lag)) };
            return Some(format!("no record has come yet{known}: the first are being fetched"));
        }
        let tables: Vec<String> = self.sources().map(|source| source.table.clone()).collect();
        let tables = list(&tables);
        if all.iter().any(|(_, p)| 0 < p.start_offset) {
            return Some(format!(
                "no record has come yet: reading of {tables} began at the end of what was there, as 'scan.startup.mode' or \
                 the group's offsets say, and nothing has been written since"
            ));
        }
        Some(format!(
            "no record has come yet: {tables} {} empty",
            if self.statement.sources.len() == 1 { "is" } else { "are" }
        ))
    }

    /// Records come, and none of them is used.
    fn nothing_left(&self) -> Option<String> {
        let Self { statement, .. } = self;
        let is_lost = |terms: &Terms| terms.used == 0 && 0 < lost(terms);
        let (terms, when) = if is_lost(&statement.lately) {
            (statement.lately, " of the last ten seconds")
        } else if is_lost(&statement.terms()) {
            (statement.terms(), "")
        } else {
            return None;
        };
        let kinds = [
            (terms.filtered, "filtered out", "no record meets the query's condition"),
            (terms.late, "late", "the windows of such event times had closed before"),
            (terms.lost_to_idleness, "lost", "the partition had been idle, and the window has closed without it"),
            (terms.errors, "bad", "skipped, as 'scan.on-error' says"),
            (terms.dead_lettered, "bad", "written to the topic that 'scan.dead-letter.topic' names"),
            (terms.tombstones, "without a value", "such records are no rows"),
        ];
        let kinds: Vec<_> = kinds.into_iter().filter(|(n, ..)| 0 < *n).collect();
        let total = lost(&terms);
        if let [(_, what, why)] = kinds.as_slice() {
            let watermark = match self.statement.watermark {
                Some(watermark) if 0 < terms.late => format!("; the watermark is at {}", instant(watermark)),
                _ => String::new(),
            };
            let all = if total == 1 { "the only record".to_owned() } else { format!("all {} records", grouped(total)) };
            let verb = if total == 1 { "was" } else { "were" };
            return Some(format!("{all}{when} {verb} {what}: {why}{watermark}"));
        }
        let parts: Vec<String> = kinds.iter().map(|(n, what, _)| format!("{} {what}", grouped(*n))).collect();
        Some(format!("of {}{when} none was used: {}", count(total, "record"), list(&parts)))
    }

    fn waits_for_records(&self) -> String {
        let last = self.partitions().filter_map(|(_, p)| p.silent_ms).min();
        let ago = last.map(|ms| format!("; the last one came {} ago", span(ms))).unwrap_or_default();
        format!("every row has been written; the next come with the next records{ago}")
    }

    fn no_window(&self) -> String {
        let Self { statement, .. } = self;
        if statement.rows_out == 0 && 0 < statement.window_rows {
            return format!(
                "windows have closed and given {}, and none of them met the conditions behind (HAVING, WHERE)",
                count(statement.window_rows, "row")
            );
        }
        let ago =
            self.info.silent_ms.map(|ms| format!("; the last rows came out {} ago", span(ms))).unwrap_or_default();
        format!("no window is open: the next record in time opens one{ago}")
    }

    fn next_window(&self) -> Option<String> {
        let (close, statement) = (self.statement.next_close?, self.statement);
        Some(match statement.watermark {
            Some(watermark) => format!(
                "the next window closes when the watermark reaches {}: {} more of event time",
                instant(close),
                span(u64::try_from(close.saturating_sub(watermark)).unwrap_or(0))
            ),
            None => format!("the next window closes when the watermark reaches {}; there is none yet", instant(close)),
        })
    }

    /// Whether the watermark waits for partitions that have not given anything for a while.
    fn is_silent(&self) -> bool {
        let is_silent = |p: &PartitionInfo| p.silent_ms.is_none_or(|ms| SILENT_MS_MIN <= ms);
        let mut waited_for = self.partitions().filter(|(_, p)| p.holds_back || p.state == PartitionState::Idle);
        self.statement.next_close.is_some() && waited_for.all(|(_, p)| is_silent(p) || p.state == PartitionState::Idle)
    }

    /// Whoever holds the watermark back.
    fn holders(&self) -> Option<String> {
        let with_time = || self.partitions().filter(|(source, _)| source.has_event_time);
        let counting = || with_time().filter(|(_, p)| p.state.counts());
        let Some(least) = counting().map(|(_, p)| p.watermark).min() else {
            let (source, _) = with_time().find(|(_, p)| p.state == PartitionState::Idle)?;
            return Some(if source.advances_when_idle {
                "all partitions are idle: until a record comes, the watermark moves on with the clock".to_owned()
            } else {
                "all partitions are idle, and 'scan.watermark.idle-advance' = 'none': the watermark moves on with the next \
                 record"
                    .to_owned()
            });
        };
        let holders: Vec<_> = counting().filter(|(_, p)| p.watermark == least).collect();
        let (source, first) = *holders.first()?;
        let verb = if holders.len() == 1 { "holds" } else { "hold" };
        let at = least.map(|least| format!(" at {}", instant(least))).unwrap_or_default();
        let (it, its) = if holders.len() == 1 { ("it", "its") } else { ("them", "their") };
        let lag: u64 = holders.iter().filter_map(|(_, p)| p.lag()).sum();
        let is_behind = 0 < lag && holders.iter().any(|(_, p)| p.at_end_ms.is_none());
        let why = match holders.iter().filter_map(|(_, p)| p.silent_ms).min() {
            None => format!("no record has come from {it} yet"),
            Some(_) if is_behind => format!("{} are still to be read there", count(lag, "record")),
            Some(silent_ms) => format!("{its} last record came {} ago", span(silent_ms)),
        };
        let idle = match (source.idle_timeout_ms, first.at_end_ms) {
            (Some(timeout_ms), Some(_)) => format!("; one that is silent for {} holds nothing back", span(timeout_ms)),
            (None, Some(_)) => "; 'scan.watermark.idle-timeout' = '0' waits for ever".to_owned(),
            (_, None) => String::new(),
        };
        Some(format!("{} {verb} the watermark back{at}: {why}{idle}", named(&holders)))
    }

    /// A watermark that no record of today can reach: then somebody has sent a time that is not.
    fn future(&self) -> Option<String> {
        let watermark = self.statement.watermark?;
        let ahead_ms = watermark.saturating_sub(self.clock_ms);
        if ahead_ms <= AHEAD_MS_MAX {
            return None;
        }
        let with_time = self.partitions().filter(|(source, _)| source.has_event_time);
        let (source, partition) = with_time.max_by_key(|(_, p)| p.watermark)?;
        Some(format!(
            "the watermark is {} ahead of the clock: {} has had a record of such a time, and whatever is older is late; \
             'scan.event-time.max-ahead' turns such records away",
            span(u64::try_from(ahead_ms).unwrap_or(0)),
            named(&[(source, partition)])
        ))
    }
}

fn lost(terms: &Terms) -> u64 {
    terms.filtered + terms.late + terms.lost_to_idleness + terms.errors + terms.dead_lettered + terms.tombstones
}

/// `partition 2 of clicks`, `partitions 0, 1 and 2 of clicks`, `7 partitions of clicks and views`.
fn named(partitions: &[(&SourceInfo, &PartitionInfo)]) -> String {
    let mut tables: Vec<String> = partitions.iter().map(|(source, _)| source.table.clone()).collect();
    tables.dedup();
    let [table] = tables.as_slice() else {
        return format!("{} of {}", count(partitions.len() as u64, "partition"), list(&tables));
    };
    let has_topics = |(source, p): &(&SourceInfo, &PartitionInfo)| source.partitions.iter().any(|o| o.topic != p.topic);
    let numbers: Vec<String> = match partitions {
        many if NAMED_MAX < many.len() => return format!("{} of {table}", count(many.len() as u64, "partition")),
        some if some.iter().any(has_topics) => {
            some.iter().map(|(_, p)| format!("{}/{}", p.topic, p.partition)).collect()
        }
        some => some.iter().map(|(_, p)| p.partition.to_string()).collect(),
    };
    let noun = if numbers.len() == 1 { "partition" } else { "partitions" };
    format!("{noun} {} of {table}", list(&numbers))
}

#[cfg(test)]
#[path = "diagnosis_tests.rs"]
mod tests;
