//! A source's partitions as one worker reads them: which one next, and which are at their end.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::clock;
use super::info::PartitionState;
use super::job::lock;
use super::metrics::{PartitionReport, ReadCounts};
use super::progress::{Position, Recorded, Start};
use super::shared::Shared;
use crate::connectors::{PartitionPlan, Source, SourceReader, SourceRows};
use crate::error::{Blame, Error, Result};
use crate::exec::{Output, SourceStage};
use crate::limits::BATCH_ROWS_MAX;
use crate::time::{TimeMs, WATERMARK_MAX};

/// How long a partition stays at its end before it holds nothing back, unless its table says otherwise.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A worker that takes longer than this from one turn to the next is held up.
const HELD_UP_MIN: Duration = Duration::from_secs(1);

/// A source's partitions as one worker reads them.
pub struct SourceInput {
    pub entry: usize,
    pub opened: Arc<dyn Source>,
    /// `None` as long as there is nothing to read.
    pub reader: Option<Box<dyn SourceReader>>,
    pub stage: SourceStage,
    pub partitions: Vec<ReadPartition>,
    pub alignment: Arc<Alignment>,
    /// A partition that is further ahead than this is left alone.
    pub drift_ms: i64,
    /// The least watermark of its partitions, if all of them were too far ahead for the last poll.
    pub ahead_at: Option<TimeMs>,
    pub idle_timeout: Option<Duration>,
    /// When somebody last looked whether something has come.
    pub listened: Instant,
    /// The source's number among the sources of the job.
    pub source: usize,
    /// What has been read.
    pub counts: ReadCounts,
}

/// A partition as it is being read.
pub struct ReadPartition {
    index: usize,
    next_offset: i64,
    end: Option<i64>,
    ended: bool,
    at_end_since: Option<Instant>,
    /// No record has come.
    is_untouched: bool,
    start: i64,
    last_record: Option<Instant>,
}

impl ReadPartition {
    /// A partition about to be read.
    pub fn new(index: usize, plan: &PartitionPlan) -> Self {
        Self {
            index,
            next_offset: plan.start,
            end: plan.end,
            ended: false,
            at_end_since: None,
            is_untouched: true,
            start: plan.start,
            last_record: None,
        }
    }
}

/// How far the partitions of some sources have come, so that none runs far ahead while others still have records:
/// uneven partitions would otherwise pile up open windows.
///
/// Nothing waits for ever: whoever is least far is always read, and what has nothing to give at the moment (a partition
/// at its end, idle, or ended; a table without event time) does not count.
#[derive(Default)]
pub struct Alignment {
    /// Per source and partition: its watermark, or the maximum while it has nothing to give.
    watermarks: Mutex<BTreeMap<(usize, usize), TimeMs>>,
    /// Whoever was least far has come further.
    moved: Condvar,
}

impl Alignment {
    fn set(&self, source: usize, partition: usize, watermark: TimeMs) {
        let mut watermarks = lock(&self.watermarks);
        let before = least(&watermarks);
        watermarks.insert((source, partition), watermark);
        if before < least(&watermarks) {
            self.moved.notify_all();
        }
    }

    /// Partitions beyond this watermark are left alone for now.
    fn limit(&self, drift_ms: i64) -> TimeMs {
        least(&lock(&self.watermarks)).saturating_add(drift_ms)
    }

    /// Waits until a partition with this watermark may be read, at most so long; answers whether it may.
    fn wait(&self, watermark: TimeMs, drift_ms: i64, wait: Duration) -> bool {
        let is_ahead = |watermarks: &mut _| least(watermarks).saturating_add(drift_ms) < watermark;
        let waited = self.moved.wait_timeout_while(lock(&self.watermarks), wait, is_ahead);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

fn least(watermarks: &BTreeMap<(usize, usize), TimeMs>) -> TimeMs {
    watermarks.values().min().copied().unwrap_or(WATERMARK_MAX)
}

impl SourceInput {
    /// Marks what is known before the first record: partitions with nothing to read.
    ///
    /// Those are idle, so that they hold nothing back. But where the whole table is empty, which of its partitions are
    /// used remains to be seen: it is asleep until its first record comes, and then all of them are waited for as long as
    /// for one that falls silent. Else a backlog that is loaded now would close windows by whichever partition got
    /// its records first, and lose those of the others.
    pub fn prepare(&mut self, plans: &[PartitionPlan]) {
        self.stage.set_asleep(plans.len() > 1 && plans.iter().all(|p| p.empty_at_start));
        for at in 0..self.partitions.len() {
            self.mark(at, &plans[self.partitions[at].index]);
        }
    }

    fn mark(&mut self, at: usize, plan: &PartitionPlan) {
        let partition = &mut self.partitions[at];
        if plan.end.is_some_and(|end| end <= plan.start) {
            partition.ended = true;
            self.stage.set_ended(partition.index);
        } else if plan.empty_at_start {
            partition.at_end_since = Some(clock::now());
            self.stage.set_idle(partition.index);
        }
        self.align(at);
    }

    /// Goes on from a checkpoint: partitions are as they were at its boundary. They are read from where they stood.
    pub fn restore(&mut self, starts: &[Start], shared: &Shared) {
        let is_asleep = starts.iter().any(|start| start.position.asleep);
        self.stage.set_asleep(is_asleep);
        if is_asleep && starts.iter().any(|start| !start.position.untouched) {
            // Its first record came just before that boundary, and nobody has taken it up.
            shared.note_events(|events| _ = events.begun.insert(self.source));
        }
        for at in 0..self.partitions.len() {
            let partition = &mut self.partitions[at];
            let Some(Start { position, .. }) = starts.get(partition.index) else { continue };
            partition.is_untouched = position.untouched;
            self.stage.advance_watermark(partition.index, position.watermark);
            if position.idle {
                partition.at_end_since = Some(clock::now());
                self.stage.set_idle(partition.index);
            } else {
                partition.at_end_since = None;
                self.stage.set_active(partition.index);
            }
            self.align(at);
        }
    }

    /// At a boundary: a partition was found. If it is ours, it counts as any other from here on.
    pub fn add(&mut self, index: usize, plan: &PartitionPlan, ours: bool) -> Result<()> {
        self.stage.add(plan.id.clone(), ours);
        if ours {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => none.insert(self.opened.reader(&[])?),
            };
            reader.add(index, plan)?;
            self.partitions.push(ReadPartition::new(index, plan));
            self.mark(self.partitions.len() - 1, plan);
        }
        Ok(())
    }

    /// At a boundary: a table that was empty has begun. Partitions that may yet follow are waited for.
    pub fn wake(&mut self) {
        if !self.stage.is_asleep() {
            return;
        }
        self.stage.set_asleep(false);
        for partition in self.partitions.iter_mut().filter(|p| p.is_untouched && !p.ended) {
            partition.at_end_since = Some(clock::now());
            self.stage.set_active(partition.index);
        }
    }

    /// Waits until some partition may have something to poll, at most so long.
    pub fn wait(&mut self, wait: Duration) -> Result<()> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        // When all are ahead there is nothing to hear from the reader, whose records may be waiting.
        let wait = match self.ahead_at {
            Some(watermark) if self.alignment.wait(watermark, self.drift_ms, wait) => return Ok(()),
            Some(_) => Duration::ZERO,
            None => wait,
        };
        reader.wait(wait)
    }

    /// A sentence on why nothing arrives, if that is known.
    pub fn trouble(&self) -> Option<String> {
        self.reader.as_ref()?.trouble()
    }

    fn align(&self, at: usize) {
        let partition = &self.partitions[at];
        let has_nothing = partition.ended || partition.at_end_since.is_some() || !self.stage.has_event_time();
        let watermark = if has_nothing { WATERMARK_MAX } else { self.stage.watermark(partition.index) };
        self.alignment.set(self.source, partition.index, watermark);
    }

    /// Silence counts only while somebody listens: from its beginning when the broker was away, and without the time for
    /// which this worker was held up (by a sink that waits for the same broker, for one). Answers whether it is away.
    fn listen(&mut self) -> bool {
        let now = clock::now();
        let held_up = now - std::mem::replace(&mut self.listened, now);
        let is_away = self.trouble().is_some();
        for since in self.partitions.iter_mut().filter_map(|p| p.at_end_since.as_mut()) {
            if is_away {
                *since = now;
            } else if HELD_UP_MIN < held_up {
                *since = now.min(*since + held_up);
            }
        }
        is_away
    }

    /// The next rows: of the partition that is least far in event time, if it has any; else of one that is not too far
    /// ahead.
    pub fn poll(&mut self) -> Result<Option<(usize, SourceRows)>> {
        self.listen();
        let limit = if self.stage.has_event_time() { self.alignment.limit(self.drift_ms) } else { WATERMARK_MAX };
        self.poll_within(limit)
    }

    /// In a replay: reads towards where an earlier run stood at a boundary. Whoever is there waits for the boundary, so
    /// nobody may wait for him. `None` when nothing has come.
    pub fn poll_replay(&mut self) -> Result<Option<(usize, SourceRows)>> {
        self.listen();
        self.poll_within(WATERMARK_MAX)
    }

    fn poll_within(&mut self, limit: TimeMs) -> Result<Option<(usize, SourceRows)>> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let mut order: Vec<(TimeMs, usize)> = (0..self.partitions.len())
            .filter(|&at| !self.partitions[at].ended)
            .map(|at| (self.stage.watermark(self.partitions[at].index), at))
            .collect();
        order.sort_unstable();
        let is_ahead =
            |&(watermark, at): &(TimeMs, usize)| limit < watermark && self.partitions[at].at_end_since.is_none();
        self.ahead_at = if order.iter().all(is_ahead) { order.first().map(|(watermark, _)| *watermark) } else { None };
        for (_, at) in order.into_iter().filter(|place| !is_ahead(place)) {
            if let Some(rows) = reader.poll(self.partitions[at].index, BATCH_ROWS_MAX)? {
                return Ok(Some((at, rows)));
            }
        }
        Ok(None)
    }

    /// Takes rows of a partition; what they give is in `out`.
    pub fn take(&mut self, at: usize, rows: &SourceRows, shared: &Shared, out: &mut Output) -> Result<()> {
        let index = self.partitions[at].index;
        let fate = self.stage.on_rows(index, rows, out)?;
        let read = ReadCounts {
            records: rows.records,
            bytes: rows.bytes,
            skipped: rows.bad + fate.skipped,
            dead_lettered: fate.dead_lettered,
            tombstones: rows.tombstones,
        };
        self.counts.add(read);
        shared.metrics.input(self.source).add(read);
        let partition = &mut self.partitions[at];
        partition.next_offset = partition.next_offset.max(rows.next_offset);
        if partition.end.is_some_and(|end| end <= partition.next_offset) {
            partition.ended = true;
            self.stage.set_ended(index);
        }
        let had_records = rows.records > 0;
        if had_records {
            partition.is_untouched = false;
            partition.last_record = Some(self.listened);
        }
        if self.stage.is_asleep() && !rows.offsets.is_empty() {
            shared.note_events(|events| _ = events.begun.insert(self.source));
        }
        partition.at_end_since = match (rows.at_end, partition.at_end_since) {
            (false, before) => before.filter(|_| !had_records),
            (true, Some(since)) if !had_records => Some(since),
            (true, _) => Some(clock::now()),
        };
        self.align(at);
        Ok(())
    }

    /// Says with which records an error of the data came.
    pub fn locate(&self, error: Error, at: usize, rows: &SourceRows) -> Error {
        let id = self.stage.partition_id(self.partitions[at].index);
        let (Blame::Data, [first, .., last] | [first @ last]) = (error.blame, rows.offsets.as_slice()) else {
            return error;
        };
        let offsets = if first == last { format!("offset {first}") } else { format!("offsets {first} to {last}") };
        let place = format!("topic {}, partition {}, {offsets}", id.topic, id.partition);
        Error { message: format!("{} (at {place})", error.message), ..error }
    }

    /// At a boundary: partitions that have been at their end for long enough hold nothing back any more.
    ///
    /// While the broker is away nobody knows where their end is: then none becomes idle, and the clock moves nothing.
    pub fn find_idle(&mut self) {
        let is_away = self.listen();
        self.stage.set_away(is_away);
        if is_away {
            return;
        }
        for partition in &self.partitions {
            // One of which nobody knows that it will ever be used is not waited for for ever.
            let Some(timeout) = self.idle_timeout.or(partition.is_untouched.then_some(IDLE_TIMEOUT)) else { continue };
            let waited = partition.at_end_since.is_some_and(|since| timeout <= clock::now() - since);
            if waited && !partition.ended && !self.stage.is_idle(partition.index) {
                self.stage.set_idle(partition.index);
            }
        }
    }

    /// Where the partitions stand.
    pub fn positions(&self) -> Vec<Position> {
        let position = |p: &ReadPartition| Position {
            index: p.index,
            next_offset: p.next_offset,
            idle: self.stage.is_idle(p.index),
            away: self.stage.is_away(),
            watermark: self.stage.watermark(p.index),
            untouched: p.is_untouched,
            asleep: self.stage.is_asleep(),
        };
        self.partitions.iter().map(position).collect()
    }

    /// How the partitions are, for people.
    pub fn report(&self) -> Vec<PartitionReport> {
        let limit = self.alignment.limit(self.drift_ms);
        let report = |partition: &ReadPartition| {
            let ReadPartition { index, at_end_since, .. } = *partition;
            let watermark = self.stage.watermark(index);
            let state = match () {
                () if partition.ended => PartitionState::Ended,
                () if self.stage.is_idle(index) => PartitionState::Idle,
                () if at_end_since.is_some() => PartitionState::AtEnd,
                () if self.stage.has_event_time() && limit < watermark => PartitionState::Ahead,
                () => PartitionState::Reading,
            };
            PartitionReport {
                index,
                id: self.stage.partition_id(index).clone(),
                start: partition.start,
                next_offset: partition.next_offset,
                end: partition.end.or_else(|| self.reader.as_ref()?.known_end(index)),
                watermark,
                state,
                last_record: partition.last_record,
                at_end_since,
            }
        };
        self.partitions.iter().map(report).collect()
    }

    /// The next records are read up to where an earlier run stood at a boundary, and no further.
    pub fn limit_to(&mut self, boundary: &Recorded) -> Result<()> {
        let positions = &boundary.positions[self.source];
        for partition in self.partitions.iter().filter(|p| !p.ended) {
            if let (Some(reader), Some(position)) = (&mut self.reader, positions.get(partition.index)) {
                reader.set_limit(partition.index, Some(position.next_offset))?;
            }
        }
        Ok(())
    }

    /// Whether everything up to there has been read. To have come further is impossible.
    pub fn has_come_to(&self, boundary: &Recorded) -> Result<bool> {
        let mut all = true;
        for partition in &self.partitions {
            let Some(position) = boundary.positions[self.source].get(partition.index) else { continue };
            if position.next_offset < partition.next_offset {
                return Err(Error::bug(format!(
                    "a replay came to offset {} instead of {}",
                    partition.next_offset, position.next_offset
                )));
            }
            all &= partition.next_offset == position.next_offset;
        }
        Ok(all)
    }

    /// At a boundary of a replay, in place of looking: partitions are as idle as they were.
    pub fn be_as_at(&mut self, boundary: &Recorded) {
        let mut is_away = false;
        for partition in &self.partitions {
            let Some(position) = boundary.positions[self.source].get(partition.index) else { continue };
            match position.idle {
                true => self.stage.set_idle(partition.index),
                false => self.stage.set_active(partition.index),
            }
            // Of those that have ended, another worker may have thought otherwise; they count no more.
            is_away |= position.away && !partition.ended;
        }
        self.stage.set_away(is_away);
    }

    /// The replay is over.
    pub fn lift_limits(&mut self) -> Result<()> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        self.partitions.iter().try_for_each(|partition| reader.set_limit(partition.index, None))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::super::job::JobState;
    use super::super::metrics::{InputLayout, JobMetrics, Layout};
    use super::super::rehearsal::sources_of;
    use super::super::tests::{Record, columns, plan};
    use super::*;
    use crate::connectors::{CancelToken, PartitionId};
    use crate::plan::StreamPlan;
    use crate::time::{Progress, WATERMARK_MIN};

    /// What the threads of a job over two sources share.
    fn shared_by_two() -> Arc<Shared> {
        let input = |name: &str| InputLayout { name: name.to_owned(), ..InputLayout::default() };
        let layout = Layout { inputs: vec![input("a"), input("b")], ..Layout::default() };
        Shared::new(JobState::new(String::new(), String::new()), JobMetrics::new(layout), CancelToken::default())
    }

    const UNION: &str =
        "INSERT INTO p SELECT ts, k, n, n FROM (SELECT ts, k, n FROM a UNION ALL SELECT ts, k, n FROM b)";

    /// Per partition what comes at each turn.
    type Log = Arc<Mutex<Vec<VecDeque<Option<SourceRows>>>>>;

    fn empty_log(partitions: usize) -> Log {
        Arc::new(Mutex::new((0..partitions).map(|_| VecDeque::new()).collect()))
    }

    struct Fake(Vec<PartitionPlan>, Log);

    impl Source for Fake {
        fn partitions(&self) -> &[PartitionPlan] {
            &self.0
        }

        fn reader(&self, _: &[usize]) -> Result<Box<dyn SourceReader>> {
            Ok(Box::new(FakeReader(Arc::clone(&self.1))))
        }
    }

    struct FakeReader(Log);

    impl SourceReader for FakeReader {
        fn poll(&mut self, partition: usize, _: usize) -> Result<Option<SourceRows>> {
            Ok(lock(&self.0)[partition].pop_front().flatten())
        }

        fn wait(&mut self, _: Duration) -> Result<()> {
            Ok(())
        }

        fn add(&mut self, _: usize, _: &PartitionPlan) -> Result<()> {
            Ok(())
        }
    }

    fn partition(number: usize, is_empty: bool) -> PartitionPlan {
        let id = PartitionId { topic: "t".into(), partition: number as i32 };
        PartitionPlan { id, start: 0, end: None, empty_at_start: is_empty }
    }

    fn rows(plan: &StreamPlan, from: i64, times: &[TimeMs], at_end: bool) -> SourceRows {
        let offsets: Vec<i64> = (from..).take(times.len()).collect();
        let record = |(&offset, &ts): (&i64, &TimeMs)| Record { offset, ts, key: None, n: 0 };
        let records: Vec<Record> = offsets.iter().zip(times).map(record).collect();
        let (records_read, next_offset) = (records.len() as u64, from + records.len() as i64);
        let (_, source) = sources_of(plan).next().unwrap();
        let columns = columns(source, &records);
        SourceRows { columns, offsets, next_offset, records: records_read, at_end, ..SourceRows::default() }
    }

    /// The inputs of two workers for a source of the plan.
    fn inputs(
        plan: &StreamPlan,
        source: usize,
        fake: Fake,
        alignment: &Arc<Alignment>,
        drift_ms: i64,
    ) -> [SourceInput; 2] {
        let (id, source_node) = sources_of(plan).nth(source).unwrap();
        let node = &plan.nodes[id];
        let opened: Arc<dyn Source> = Arc::new(fake);
        [0, 1].map(|worker| {
            let plans = opened.partitions();
            let ids: Vec<_> = plans.iter().map(|p| p.id.clone()).collect();
            let share: Vec<usize> = (0..plans.len()).filter(|p| p % 2 == worker).collect();
            let partitions = share.iter().map(|&p| ReadPartition::new(p, &plans[p])).collect();
            let reader = (!share.is_empty()).then(|| opened.reader(&share).unwrap());
            let stage = SourceStage::new(Arc::clone(source_node), &node.visible, node.hidden, &ids, share, true);
            let mut input = SourceInput {
                entry: 0,
                opened: Arc::clone(&opened),
                reader,
                stage,
                partitions,
                alignment: Arc::clone(alignment),
                drift_ms,
                ahead_at: None,
                idle_timeout: Some(Duration::from_millis(20)),
                listened: clock::now(),
                source,
                counts: ReadCounts::default(),
            };
            input.prepare(plans);
            input
        })
    }

    #[test]
    fn nobody_runs_ahead_and_nobody_waits_for_ever() {
        let plan = plan(UNION);
        let shared = shared_by_two();
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (alignment, drift_ms) = (Arc::default(), rng.random_range(0..200));
            let mut logs: Vec<Log> = Vec::new();
            let mut all: Vec<SourceInput> = Vec::new();
            for source in 0..2 {
                let mut log = Vec::new();
                for _ in 0..rng.random_range(1..5) {
                    let batches = rng.random_range(0..30);
                    let (mut now, mut from, mut queue) = (rng.random_range(0..500_i64), 0, VecDeque::new());
                    let pace = rng.random_range(1..100);
                    for batch in 1..=batches {
                        // Nothing has arrived, for a while.
                        (0..rng.random_range(0..3)).for_each(|_| queue.push_back(None));
                        let count = rng.random_range(1..10);
                        let times: Vec<TimeMs> = (0..count).map(|n| now + n * pace).collect();
                        queue.push_back(Some(rows(&plan, from, &times, batch == batches)));
                        now += count * pace;
                        from += count;
                    }
                    log.push(queue);
                }
                let plans = log.iter().enumerate().map(|(p, queue)| partition(p, queue.is_empty())).collect();
                let log = Arc::new(Mutex::new(log));
                logs.push(Arc::clone(&log));
                all.extend(inputs(&plan, source, Fake(plans, log), &alignment, drift_ms));
            }
            let open = |logs: &[Log], source: usize, partition: usize| !lock(&logs[source])[partition].is_empty();
            for turn in 0.. {
                if logs.iter().all(|log| lock(log).iter().all(VecDeque::is_empty)) {
                    break;
                }
                assert!(turn < 20_000, "seed {seed}: something is never read");
                let place = |input: &SourceInput| {
                    let of_partition = |p: &ReadPartition| (input.source, p.index, input.stage.watermark(p.index));
                    input.partitions.iter().map(of_partition).collect::<Vec<_>>()
                };
                let open_ones = all.iter().flat_map(place).filter(|(s, p, _)| open(&logs, *s, *p));
                let least = open_ones.map(|(.., watermark)| watermark).min().unwrap();
                let input = rng.random_range(0..all.len());
                let input = &mut all[input];
                let Some((at, rows)) = input.poll().unwrap() else { continue };
                let before = input.stage.watermark(input.partitions[at].index);
                assert!(
                    before <= least.saturating_add(drift_ms),
                    "seed {seed}: {before} against {least} and {drift_ms}"
                );
                input.take(at, &rows, &shared, &mut Output::default()).unwrap();
            }
        }
    }

    #[test]
    fn whoever_is_ahead_goes_on_as_soon_as_the_others_have_come_along() {
        let plan = plan(UNION);
        let shared = shared_by_two();
        let log = empty_log(2);
        lock(&log)[0].push_back(Some(rows(&plan, 1, &[9_000], false)));
        let plans = (0..2).map(|p| partition(p, false)).collect();
        let [mut one, mut two] = inputs(&plan, 0, Fake(plans, log), &Arc::default(), 100);
        two.take(0, &rows(&plan, 0, &[1_000], false), &shared, &mut Output::default()).unwrap();
        one.take(0, &rows(&plan, 0, &[5_000], false), &shared, &mut Output::default()).unwrap();
        assert!(one.poll().unwrap().is_none() && one.ahead_at.is_some());

        let begun = clock::now();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| one.wait(Duration::from_secs(60)));
            two.take(0, &rows(&plan, 1, &[8_000], false), &shared, &mut Output::default()).unwrap();
            waiting.join().unwrap().unwrap();
        });
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody was woken");
        assert!(one.poll().unwrap().is_some() && one.ahead_at.is_none());
    }

    #[test]
    fn an_empty_table_begins_as_one() {
        let plan = plan(UNION);
        let shared = shared_by_two();
        let log: Log = empty_log(3);
        let plans = (0..3).map(|p| partition(p, true)).collect();
        let [mut one, mut two] = inputs(&plan, 0, Fake(plans, log), &Arc::default(), 0);
        let idle = |progress| matches!(progress, Progress::Idle { reached: WATERMARK_MIN, .. });
        assert!(idle(one.stage.progress(0)) && idle(two.stage.progress(0)));
        assert!(shared.take_events().begun.is_empty());

        // The first record moves nothing: the other worker does not know of it yet.
        one.take(0, &rows(&plan, 0, &[1_000], true), &shared, &mut Output::default()).unwrap();
        assert_eq!(one.stage.progress(0), Progress::Active(WATERMARK_MIN));
        assert!(idle(two.stage.progress(0)));
        assert_eq!(shared.take_events().begun, [0].into());
        one.wake();
        two.wake();
        for input in [&mut one, &mut two] {
            input.find_idle();
            assert_eq!(input.stage.progress(0), Progress::Active(WATERMARK_MIN));
        }

        // Those of which nothing comes are waited for only so long, and no second time.
        two.take(0, &rows(&plan, 0, &[500], false), &shared, &mut Output::default()).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        one.take(0, &rows(&plan, 1, &[2_000], false), &shared, &mut Output::default()).unwrap();
        one.find_idle();
        two.find_idle();
        assert_eq!(one.stage.progress(0), Progress::Active(2_000 - 30));
        assert_eq!(two.stage.progress(0), Progress::Active(500 - 30));
        assert!(shared.take_events().begun.is_empty());
        one.wake();
        assert!(one.stage.is_idle(2));
    }

    #[test]
    fn a_partition_that_is_found_holds_back_if_there_is_something_in_it() {
        let plan = plan(UNION);
        let shared = shared_by_two();
        let log: Log = empty_log(4);
        let [mut one, mut two] =
            inputs(&plan, 0, Fake(vec![partition(0, false)], Arc::clone(&log)), &Arc::default(), 0);
        one.take(0, &rows(&plan, 0, &[1_000], false), &shared, &mut Output::default()).unwrap();
        assert!(two.reader.is_none() && two.stage.progress(0) == Progress::Active(WATERMARK_MAX));
        for (index, is_empty) in [(1, true), (2, true), (3, false)] {
            one.add(index, &partition(index, is_empty), index % 2 == 0).unwrap();
            two.add(index, &partition(index, is_empty), index % 2 == 1).unwrap();
        }
        assert_eq!(one.stage.progress(0), Progress::Active(1_000 - 30));
        assert_eq!(two.stage.progress(0), Progress::Active(WATERMARK_MIN));
        lock(&log)[3].push_back(Some(rows(&plan, 0, &[700], false)));
        let (at, rows) = two.poll().unwrap().unwrap();
        two.take(at, &rows, &shared, &mut Output::default()).unwrap();
        assert_eq!(two.stage.progress(0), Progress::Active(700 - 30));
        let stand =
            |input: &SourceInput| -> Vec<_> { input.positions().iter().map(|p| (p.index, p.next_offset)).collect() };
        assert_eq!((stand(&one), stand(&two)), (vec![(0, 1), (2, 0)], vec![(1, 0), (3, 1)]));
        // As far as the other has not come, this one is left alone.
        lock(&log)[0].push_back(Some(SourceRows::default()));
        assert!(one.poll().unwrap().is_none());
    }
}
