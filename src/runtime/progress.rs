//! What a job's log says: where it began, and what each boundary was.
//!
//! A record per transaction, as JSON, so that people can read it with any tool. Together they determine everything that
//! the job has given out: the offsets of each boundary, its clock, which partitions were idle, and what was learnt there.
//! Restoring is folding the records in order; whatever does not follow from what came before it is an error, never a
//! guess.
//!
//! The record of a boundary may say that a *checkpoint* is complete: then the job can go on from there as if it had begun
//! there, and what is older than the checkpoint's boundary is no longer needed. So a log may have lost its first records.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::events::{ClockEvents, NewPartition};
use super::identity::Identity;
use super::metrics::Counters;
use crate::connectors::{PartitionId, PartitionPlan};
use crate::error::{Error, Result};
use crate::time::{TimeMs, WATERMARK_MIN};

/// The version of the records' format.
const VERSION: u64 = 1;

/// Where a worker stands in a partition, at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The partition's index in its source.
    #[serde(skip)]
    pub index: usize,
    /// The offset of the next record.
    #[serde(rename = "next")]
    pub next_offset: i64,
    /// The partition's watermark (ms).
    #[serde(default = "no_watermark", skip_serializing_if = "is_no_watermark")]
    pub watermark: TimeMs,
    /// The partition holds nothing back.
    #[serde(default, skip_serializing_if = "is_false")]
    pub idle: bool,
    /// Nobody knows if there are more records, so the clock moves nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub away: bool,
    /// No record has come.
    #[serde(default, skip_serializing_if = "is_false")]
    pub untouched: bool,
    /// The whole source was empty when the job began, and has not begun since.
    #[serde(default, skip_serializing_if = "is_false")]
    pub asleep: bool,
}

fn no_watermark() -> TimeMs {
    WATERMARK_MIN
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "asked for so")]
fn is_no_watermark(watermark: &TimeMs) -> bool {
    *watermark == WATERMARK_MIN
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "asked for so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A boundary as it was.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Its number.
    pub sequence: u64,
    /// Its clock.
    pub clock_ms: i64,
    /// Per source, where its partitions stood, in the order of their indices.
    pub positions: Vec<Vec<Position>>,
    /// What took effect there.
    pub events: ClockEvents,
    /// Every source had ended.
    pub is_finished: bool,
    /// The checkpoint that is complete with this boundary's transaction.
    pub checkpoint: Option<Beginning>,
}

/// Who writes to a log. The first two numbers rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// How often the job has begun from its start: it does so again when it has finished.
    pub generation: u64,
    /// How often the job has been taken up; 0 if it has not.
    pub incarnation: u64,
    /// The process, by a number of its own: two that take a job up at once may both think that it is their turn.
    pub process: u64,
}

/// Where a job begins: at its start, or at a checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Beginning {
    /// The boundary of the checkpoint; 0 at the start.
    pub boundary: u64,
    /// The clock of that boundary, or of what happens before the first one.
    pub clock_ms: i64,
    /// What the job is.
    pub identity: Identity,
    /// Per source, its partitions.
    pub sources: Vec<Vec<Start>>,
    /// The checkpoints that make up the state, from a whole one on.
    #[serde(default)]
    pub state: Vec<StateRef>,
    /// From which offset of the log their chunks are to be read.
    #[serde(default)]
    pub state_from: i64,
    /// What had been counted.
    #[serde(default)]
    pub counters: Counters,
}

/// A partition, and where it is read from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    #[serde(flatten, with = "PlanRecord")]
    pub plan: PartitionPlan,
    #[serde(flatten)]
    pub position: Position,
}

/// What the log holds of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRef {
    /// Its boundary.
    pub boundary: u64,
    /// The number of its chunks.
    pub chunks: u32,
    /// Their size.
    pub bytes: u64,
}

/// What is left of a job that has not finished.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub beginning: Beginning,
    /// All its boundaries since then, in order.
    pub boundaries: VecDeque<Recorded>,
}

impl Beginning {
    /// What is not written: positions lie in the order of their indices.
    fn numbered(mut self) -> Self {
        for of_source in &mut self.sources {
            (0..).zip(of_source).for_each(|(index, start)| start.position.index = index);
        }
        self
    }

    /// The partitions of a source as it is opened: they are read from where they stood.
    fn partitions(&self, source: usize) -> Option<Vec<PartitionPlan>> {
        let plan = |start: &Start| PartitionPlan { start: start.position.next_offset, ..start.plan.clone() };
        Some(self.sources.get(source)?.iter().map(plan).collect())
    }
}

impl Restored {
    /// Gives sources other numbers: to each the one that it had before.
    pub fn renumber(&mut self, before: &[usize]) {
        fn chosen<T: Clone + Default>(all: &mut Vec<T>, which: &[usize]) {
            *all = which.iter().map(|&at| all.get(at).cloned().unwrap_or_default()).collect();
        }
        let now = |source: usize| before.iter().position(|&old| old == source).unwrap_or(source);
        chosen(&mut self.beginning.sources, before);
        chosen(&mut self.beginning.counters.sources, before);
        for boundary in &mut self.boundaries {
            chosen(&mut boundary.positions, before);
            boundary.events.found.iter_mut().for_each(|new| new.source = now(new.source));
            boundary.events.begun = boundary.events.begun.iter().map(|&source| now(source)).collect();
        }
    }

    /// The number of the last boundary.
    pub fn last(&self) -> u64 {
        self.boundaries.back().map_or(self.beginning.boundary, |b| b.sequence)
    }

    /// The partitions that a source is opened with: those it began with, and those that were found later. None are known
    /// of a source that there was not.
    pub fn partitions(&self, source: usize) -> (Option<Vec<PartitionPlan>>, Option<Vec<PartitionPlan>>) {
        (self.beginning.partitions(source), Some(self.found(source)))
    }

    /// The partitions of a source that were found while the job ran.
    pub fn found(&self, source: usize) -> Vec<PartitionPlan> {
        let found = self.boundaries.iter().flat_map(|b| &b.events.found);
        found.filter(|new| new.source == source).map(|new| new.plan.clone()).collect()
    }
}

/// What a log comes to.
#[derive(Debug, Default)]
pub struct History {
    /// Who wrote the last record.
    pub author: Author,
    /// The job, if it has begun and has not finished.
    pub unfinished: Option<Restored>,
    /// The job's beginning has been let go of, and no checkpoint was found yet.
    is_cut: bool,
}

/// A record as it is written.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u64,
    job: String,
    generation: u64,
    incarnation: u64,
    #[serde(default)]
    process: u64,
    sequence: u64,
    #[serde(flatten)]
    content: Content,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Content {
    /// A job begins: its number is 0.
    Begin(Beginning),
    /// A process takes a job up where the last one left it.
    Resume,
    /// A boundary.
    Boundary(BoundaryRecord),
}

#[derive(Serialize, Deserialize)]
struct BoundaryRecord {
    clock_ms: i64,
    sources: Vec<Vec<PlaceRecord>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    found: Vec<FoundRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    begun: Vec<usize>,
    #[serde(default, skip_serializing_if = "is_false")]
    finished: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint: Option<Beginning>,
}

/// A position with its partition's name, which is for people.
#[derive(Serialize, Deserialize)]
struct PlaceRecord {
    topic: String,
    partition: i32,
    #[serde(flatten)]
    position: Position,
}

#[derive(Serialize, Deserialize)]
struct FoundRecord {
    source: usize,
    index: usize,
    #[serde(flatten, with = "PlanRecord")]
    plan: PartitionPlan,
}

/// How the plan of a partition is written.
#[derive(Serialize, Deserialize)]
struct PlanRecord {
    topic: String,
    partition: i32,
    start: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<i64>,
    #[serde(default, skip_serializing_if = "is_false")]
    empty: bool,
}

impl PlanRecord {
    fn serialize<S: serde::Serializer>(plan: &PartitionPlan, to: S) -> Result<S::Ok, S::Error> {
        let PartitionPlan { id: PartitionId { topic, partition }, start, end, empty_at_start: empty } = plan.clone();
        Serialize::serialize(&Self { topic: topic.to_string(), partition, start, end, empty }, to)
    }

    fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<PartitionPlan, D::Error> {
        let Self { topic, partition, start, end, empty } = Deserialize::deserialize(from)?;
        Ok(PartitionPlan { id: PartitionId { topic: topic.into(), partition }, start, end, empty_at_start: empty })
    }
}

impl Author {
    /// A process that has not taken the job up.
    pub fn of_process(process: u64) -> Self {
        Self { process, ..Self::default() }
    }

    /// Somebody else has written to the log after this one: another process, in the same turn or in a later one.
    pub fn is_followed_by(self, other: Self) -> bool {
        let is_ours = self.process == other.process;
        self.incarnation < other.incarnation || (self.incarnation == other.incarnation && !is_ours)
    }

    fn record(self, job: &str, sequence: u64, content: Content) -> Result<Vec<u8>> {
        let Self { generation, incarnation, process } = self;
        let record =
            Record { version: VERSION, job: job.to_owned(), generation, incarnation, process, sequence, content };
        serde_json::to_vec(&record).map_err(|e| Error::bug(format!("a record of progress cannot be written: {e}")))
    }

    /// The record of a job that begins.
    pub fn begins(self, job: &str, beginning: Beginning) -> Result<Vec<u8>> {
        self.record(job, 0, Content::Begin(beginning))
    }

    /// The record of a process that takes a job up where the last one left it.
    pub fn takes_up(self, job: &str, sequence: u64) -> Result<Vec<u8>> {
        self.record(job, sequence, Content::Resume)
    }

    /// The record of a boundary. `id` names the partitions of the sources.
    pub fn comes_to(
        self,
        job: &str,
        boundary: &Recorded,
        id: impl Fn(usize, usize) -> Option<PartitionId>,
    ) -> Result<Vec<u8>> {
        let mut sources = Vec::new();
        for (source, positions) in boundary.positions.iter().enumerate() {
            let mut places = Vec::new();
            for (at, position) in positions.iter().enumerate() {
                let Some(id) = id(source, position.index).filter(|_| at == position.index) else {
                    return Err(Error::bug(format!("source {source}: no position of partition {at}")));
                };
                places.push(PlaceRecord { topic: id.topic.to_string(), partition: id.partition, position: *position });
            }
            sources.push(places);
        }
        let found = boundary.events.found.iter().cloned();
        let found = found.map(|NewPartition { source, index, plan }| FoundRecord { source, index, plan });
        let content = BoundaryRecord {
            clock_ms: boundary.clock_ms,
            sources,
            found: found.collect(),
            begun: boundary.events.begun.iter().copied().collect(),
            finished: boundary.is_finished,
            checkpoint: boundary.checkpoint.clone(),
        };
        self.record(job, boundary.sequence, Content::Boundary(content))
    }
}

/// Who wrote the last of these records. What all of them come to is another question: while the end of a transaction is
/// on its way, a record may not be seen yet that stands for others which are gone.
pub fn last_author(records: &[(i64, Vec<u8>)]) -> Author {
    let last = records.last().and_then(|(_, record)| serde_json::from_slice::<Record>(record).ok());
    last.map_or_else(Author::default, |Record { generation, incarnation, process, .. }| Author {
        generation,
        incarnation,
        process,
    })
}

/// What a log with these records, each with its offset, comes to.
pub fn history(log: &str, job: &str, records: &[(i64, Vec<u8>)]) -> Result<History> {
    let mut history = History::default();
    let wrong = |why: &str| {
        Error::upstream(format!("{log} is not the progress of job {job}: {why}"))
            .hint("nothing was written; give the job another name (SET 'pipeline.name' = '..') to begin anew")
    };
    for (offset, record) in records {
        let wrong = |why: &str| wrong(&format!("its record at offset {offset} {why}"));
        let record: Value = serde_json::from_slice(record).map_err(|_| wrong("is not readable"))?;
        let version = record["version"].as_u64().ok_or_else(|| wrong("has no version"))?;
        if version != VERSION {
            return Err(wrong(&format!("has version {version} of the format, and this program reads {VERSION}")));
        }
        if record["job"].as_str() != Some(job) {
            return Err(wrong(&format!("is of job {}", record["job"])));
        }
        let record: Record =
            serde_json::from_value(record).map_err(|e| wrong(&format!("is not what was to be expected: {e}")))?;
        history.add(record, *offset).map_err(|why| wrong(&why))?;
    }
    if history.is_cut && history.unfinished.is_some() {
        return Err(wrong("its first records are gone, and no checkpoint stands for them"));
    }
    Ok(history)
}

impl History {
    /// Takes the next record; if it does not follow, why.
    fn add(&mut self, record: Record, offset: i64) -> Result<(), String> {
        let Record { generation, incarnation, process, sequence, content, .. } = record;
        let author = Author { generation, incarnation, process };
        if self.author == Author::default() && 0 < offset && !matches!(content, Content::Begin(_)) {
            // Records before it were let go of when a checkpoint was complete.
            let before = sequence - u64::from(matches!(content, Content::Boundary(_)));
            let beginning = Beginning { boundary: before, ..Beginning::default() };
            self.unfinished = Some(Restored { beginning, boundaries: VecDeque::new() });
            let resumes = u64::from(matches!(content, Content::Resume));
            self.author = Author { incarnation: incarnation.saturating_sub(resumes), ..author };
            self.is_cut = true;
        }
        let before = self.author;
        let follows = |wanted: Author, next: u64| {
            let is = (author.generation, author.incarnation, sequence);
            let want = (wanted.generation, wanted.incarnation, next);
            if is == want { Ok(()) } else { Err(format!("has the numbers {is:?}, where {want:?} follow")) }
        };
        let next_incarnation = before.incarnation + 1;
        match (content, &mut self.unfinished) {
            // One that has not finished may have been given up.
            (Content::Begin(beginning), _) => {
                if before != Author::default() || offset == 0 {
                    let turn = Author { generation: before.generation + 1, incarnation: next_incarnation, ..author };
                    follows(turn, 0)?;
                }
                self.unfinished = Some(Restored { beginning: beginning.numbered(), boundaries: VecDeque::new() });
                self.is_cut = false;
            }
            (Content::Resume, Some(job)) => {
                follows(Author { incarnation: next_incarnation, ..before }, job.last())?;
            }
            (Content::Boundary(boundary), Some(job)) => {
                follows(before, job.last() + 1)?;
                let boundary = recorded(boundary, sequence);
                job.check(&boundary, self.is_cut)?;
                if boundary.is_finished {
                    self.unfinished = None;
                } else {
                    self.is_cut &= boundary.checkpoint.is_none();
                    job.take(boundary)?;
                }
            }
            (_, None) => return Err("is of a job that has not begun".to_owned()),
        }
        self.author = author;
        Ok(())
    }
}

impl Restored {
    /// A boundary follows the one before it: nothing goes back.
    fn check(&self, next: &Recorded, is_cut: bool) -> Result<(), String> {
        if is_cut && self.boundaries.is_empty() {
            return Ok(());
        }
        let before: Vec<Vec<i64>> = match self.boundaries.back() {
            Some(last) => last.positions.iter().map(|of| of.iter().map(|p| p.next_offset).collect()).collect(),
            None => {
                self.beginning.sources.iter().map(|of| of.iter().map(|s| s.position.next_offset).collect()).collect()
            }
        };
        if next.positions.len() != before.len() {
            return Err("is of other sources".to_owned());
        }
        for (source, (before, positions)) in before.iter().zip(&next.positions).enumerate() {
            let found = next.events.found.iter().filter(|new| new.source == source).count();
            if positions.len() != before.len() + found {
                return Err("is of other partitions".to_owned());
            }
            for (&from, after) in before.iter().zip(positions) {
                if after.next_offset < from {
                    return Err(format!("goes back from offset {from} to {}", after.next_offset));
                }
            }
        }
        Ok(())
    }

    /// Takes the next boundary. With a checkpoint, the job begins there.
    fn take(&mut self, mut boundary: Recorded) -> Result<(), String> {
        let checkpoint = boundary.checkpoint.take();
        self.boundaries.push_back(boundary);
        let Some(checkpoint) = checkpoint else { return Ok(()) };
        if !(self.beginning.boundary..=self.last()).contains(&checkpoint.boundary) {
            return Err(format!("completes a checkpoint of boundary {}, which is none of its", checkpoint.boundary));
        }
        while self.boundaries.front().is_some_and(|first| first.sequence <= checkpoint.boundary) {
            self.boundaries.pop_front();
        }
        self.beginning = checkpoint.numbered();
        Ok(())
    }
}

fn recorded(record: BoundaryRecord, sequence: u64) -> Recorded {
    let BoundaryRecord { clock_ms, sources, found, begun, finished, checkpoint } = record;
    let position = |(index, place): (usize, PlaceRecord)| Position { index, ..place.position };
    let positions = sources.into_iter().map(|places| places.into_iter().enumerate().map(position).collect());
    let found = found.into_iter().map(|FoundRecord { source, index, plan }| NewPartition { source, index, plan });
    Recorded {
        sequence,
        clock_ms,
        positions: positions.collect(),
        events: ClockEvents { found: found.collect(), begun: begun.into_iter().collect() },
        is_finished: finished,
        checkpoint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(partition: i32) -> PartitionPlan {
        let id = PartitionId { topic: "t".into(), partition };
        PartitionPlan { id, start: 5, end: (partition == 1).then_some(9), empty_at_start: partition == 0 }
    }

    fn position(index: usize, next_offset: i64) -> Position {
        let (idle, untouched) = (index == 1, index == 2);
        Position { index, next_offset, watermark: 100 * next_offset, idle, away: idle, untouched, asleep: false }
    }

    fn boundary(sequence: u64, next: &[i64], is_finished: bool) -> Recorded {
        let positions = vec![next.iter().enumerate().map(|(index, next)| position(index, *next)).collect()];
        Recorded { sequence, clock_ms: 100, positions, is_finished, ..Recorded::default() }
    }

    fn beginning(boundary: u64, next: &[i64]) -> Beginning {
        let start = |(index, next): (usize, &i64)| Start {
            plan: plan_of(i32::try_from(index).unwrap()),
            position: position(index, *next),
        };
        let sources = vec![next.iter().enumerate().map(start).collect()];
        Beginning { boundary, clock_ms: 7, identity: Identity::default(), sources, ..Beginning::default() }
    }

    /// A boundary with which a checkpoint of another one is complete.
    fn complete(boundary: Recorded, of: u64, next: &[i64]) -> Recorded {
        let stored = StateRef { boundary: of, chunks: 2, bytes: 70 };
        let checkpoint = Beginning { state: vec![stored], state_from: 3, ..beginning(of, next) };
        Recorded { checkpoint: Some(checkpoint), ..boundary }
    }

    fn begins(generation: u64, incarnation: u64) -> Vec<u8> {
        Author { generation, incarnation, process: 7 }.begins("j", beginning(0, &[5, 5])).unwrap()
    }

    fn takes_up(incarnation: u64, sequence: u64) -> Vec<u8> {
        Author { generation: 1, incarnation, process: 7 }.takes_up("j", sequence).unwrap()
    }

    fn comes_to(incarnation: u64, boundary: &Recorded) -> Vec<u8> {
        let id = |_, index| Some(plan_of(i32::try_from(index).unwrap()).id);
        Author { generation: 1, incarnation, process: 7 }.comes_to("j", boundary, id).unwrap()
    }

    /// What a log with these records comes to.
    fn read(records: &[Vec<u8>]) -> Result<History> {
        history("l", "j", &(0..).zip(records.iter().cloned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_written_is_read() {
        let nothing = read(&[]).unwrap();
        assert!(nothing.unfinished.is_none() && nothing.author == Author::default());

        let mut second = boundary(2, &[6, 5, 0], false);
        second.events.found.push(NewPartition { source: 0, index: 2, plan: PartitionPlan { start: 0, ..plan_of(2) } });
        second.events.begun.insert(0);
        let mut records = vec![begins(1, 1), comes_to(1, &boundary(1, &[6, 5], false)), takes_up(2, 1)];
        records.push(comes_to(2, &second));
        let History { author, unfinished, .. } = read(&records).unwrap();
        let restored = unfinished.unwrap();
        assert_eq!((author, restored.last()), (Author { generation: 1, incarnation: 2, process: 7 }, 2));
        assert_eq!(restored.beginning.clock_ms, 7);
        assert_eq!(format!("{:?}", restored.beginning.sources[0]), format!("{:?}", beginning(0, &[5, 5]).sources[0]));
        assert_eq!(format!("{:?}", restored.boundaries[1]), format!("{second:?}"));
        assert_eq!(restored.found(0).len(), 1);

        records.push(comes_to(2, &boundary(3, &[9, 9, 9], true)));
        let finished = read(&records).unwrap();
        assert!(finished.unfinished.is_none() && finished.author.incarnation == 2);
        records.push(begins(2, 3));
        assert_eq!(read(&records).unwrap().unfinished.unwrap().last(), 0);
    }

    #[test]
    fn a_checkpoint_stands_for_all_that_was_before_it() {
        let records = [
            begins(1, 1),
            comes_to(1, &boundary(1, &[6, 5], false)),
            comes_to(1, &boundary(2, &[7, 5], false)),
            takes_up(2, 2),
            comes_to(2, &complete(boundary(3, &[7, 6], false), 2, &[7, 5])),
            comes_to(2, &boundary(4, &[8, 6], false)),
        ];
        let all: Vec<(i64, Vec<u8>)> = (0..).zip(records).collect();
        for from in 0..=4 {
            let History { author, unfinished, .. } = history("l", "j", &all[from..]).unwrap();
            let restored = unfinished.unwrap();
            assert_eq!((author.incarnation, restored.last()), (2, 4));
            let begun = restored.beginning;
            assert_eq!((begun.boundary, begun.state_from, begun.state[0].chunks), (2, 3, 2));
            assert_eq!(restored.boundaries.iter().map(|b| b.sequence).collect::<Vec<_>>(), [3, 4]);
        }
        let error = history("l", "j", &all[5..]).unwrap_err();
        assert!(error.message.contains("its first records are gone"), "{error:?}");
        // It begins anew, and what was before is let go of.
        let again = vec![(7, begins(2, 3))];
        assert_eq!(history("l", "j", &again).unwrap().unfinished.unwrap().last(), 0);
    }

    #[test]
    fn what_does_not_follow_is_an_error() {
        let first = || vec![begins(1, 1), comes_to(1, &boundary(1, &[6, 5], false))];
        let with = |record: Vec<u8>| [first(), vec![record]].concat();
        let unknown = complete(boundary(2, &[6, 5], false), 3, &[6, 5]);
        let cases: [(Vec<Vec<u8>>, &str); 12] = [
            (vec![takes_up(1, 0)], "has not begun"),
            (with(comes_to(1, &unknown)), "completes a checkpoint of boundary 3, which is none of its"),
            (vec![b"?".to_vec()], "offset 0 is not readable"),
            (vec![br#"{"version":2}"#.to_vec()], "has version 2 of the format"),
            (vec![Author::default().begins("other", Beginning::default()).unwrap()], "is of job \"other\""),
            (with(begins(1, 2)), "where (2, 2, 0) follow"),
            (with(comes_to(1, &boundary(3, &[6, 5], false))), "where (1, 1, 2) follow"),
            (with(comes_to(1, &boundary(1, &[6, 5], false))), "where (1, 1, 2) follow"),
            (with(comes_to(2, &boundary(2, &[6, 5], false))), "where (1, 1, 2) follow"),
            (with(comes_to(1, &boundary(2, &[5, 5], false))), "goes back from offset 6 to 5"),
            (with(comes_to(1, &boundary(2, &[6], false))), "is of other partitions"),
            (with(takes_up(2, 0)), "where (1, 2, 1) follow"),
        ];
        for (records, want) in cases {
            let error = read(&records).unwrap_err();
            assert!(error.message.contains(want) && error.hint.is_some(), "{want}: {error:?}");
        }
    }
}
