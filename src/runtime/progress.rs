//! What a job's log says: where it began, and what each boundary was.
//!
//! A record per transaction, as JSON, so that people can read it with any tool. Together they determine everything that
//! the job has given out: the offsets of each boundary, its clock, which partitions were idle, and what was learnt there.
//! Restoring is folding the records in order; whatever does not follow from what came before it is an error, never a
//! guess.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::events::{ClockEvents, NewPartition};
use crate::connectors::{PartitionId, PartitionPlan};
use crate::error::{Error, Result};

/// The version of the records' format.
const VERSION: u64 = 1;

/// Where a worker stands in a partition, at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The partition's index in its source.
    pub index: usize,
    /// The offset of the next record.
    pub next_offset: i64,
    /// The partition holds nothing back.
    pub idle: bool,
    /// Nobody knows if there are more records, so the clock moves nothing.
    pub away: bool,
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
}

/// Who writes to a log. Both numbers rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// How often the job has begun from its start: it does so again when it has finished.
    pub generation: u64,
    /// How often a process has taken it up.
    pub incarnation: u64,
}

/// Where a job began.
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    /// The clock of what happens before the first boundary.
    pub clock_ms: i64,
    /// What the job is.
    pub fingerprint: String,
    /// Per source, its partitions.
    pub sources: Vec<Vec<PartitionPlan>>,
}

/// What is left of a job that has not finished.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub beginning: Beginning,
    /// All its boundaries, in order.
    pub boundaries: VecDeque<Recorded>,
}

impl Restored {
    /// The number of the last boundary.
    pub fn last(&self) -> u64 {
        self.boundaries.back().map_or(0, |b| b.sequence)
    }

    /// The partitions that a source is opened with: those it began with, and those that were found later. None are known
    /// of a source that there was not.
    pub fn partitions(&self, source: usize) -> (Option<Vec<PartitionPlan>>, Option<Vec<PartitionPlan>>) {
        (self.beginning.sources.get(source).cloned(), Some(self.found(source)))
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
}

impl Author {
    fn head(self, job: &str, kind: &str, sequence: u64) -> Value {
        json!({
            "version": VERSION, "kind": kind, "job": job, "generation": self.generation,
            "incarnation": self.incarnation, "sequence": sequence,
        })
    }

    /// The record of a job that begins: its number is 0.
    pub fn begins(self, job: &str, beginning: &Beginning) -> Vec<u8> {
        let plans = |plans: &Vec<PartitionPlan>| plans.iter().map(plan_json).collect::<Value>();
        let mut record = self.head(job, "begin", 0);
        record["clock_ms"] = beginning.clock_ms.into();
        record["fingerprint"] = beginning.fingerprint.as_str().into();
        record["sources"] = beginning.sources.iter().map(plans).collect();
        record.to_string().into_bytes()
    }

    /// The record of a process that takes a job up where the last one left it.
    pub fn takes_up(self, job: &str, sequence: u64) -> Vec<u8> {
        self.head(job, "resume", sequence).to_string().into_bytes()
    }

    /// The record of a boundary. `id` names the partitions of the sources.
    pub fn comes_to(
        self,
        job: &str,
        boundary: &Recorded,
        id: impl Fn(usize, usize) -> Option<PartitionId>,
    ) -> Result<Vec<u8>> {
        let mut record = self.head(job, "boundary", boundary.sequence);
        record["clock_ms"] = boundary.clock_ms.into();
        let mut sources = Vec::new();
        for (source, positions) in boundary.positions.iter().enumerate() {
            let mut partitions = Vec::new();
            for (at, position) in positions.iter().enumerate() {
                let Some(id) = id(source, position.index).filter(|_| at == position.index) else {
                    return Err(Error::bug(format!("source {source}: no position of partition {at}")));
                };
                partitions.push(json!({
                    "topic": &*id.topic, "partition": id.partition, "next": position.next_offset,
                    "idle": position.idle, "away": position.away,
                }));
            }
            sources.push(Value::from(partitions));
        }
        record["sources"] = sources.into();
        let found = boundary.events.found.iter().map(|new| {
            let mut plan = plan_json(&new.plan);
            plan["source"] = new.source.into();
            plan["index"] = new.index.into();
            plan
        });
        record["found"] = found.collect();
        record["begun"] = boundary.events.begun.iter().copied().collect();
        record["finished"] = boundary.is_finished.into();
        Ok(record.to_string().into_bytes())
    }
}

fn plan_json(plan: &PartitionPlan) -> Value {
    json!({
        "topic": &*plan.id.topic, "partition": plan.id.partition, "start": plan.start, "end": plan.end,
        "empty": plan.empty_at_start,
    })
}

/// What a log with these records, each with its offset, comes to.
pub fn history(log: &str, job: &str, records: &[(i64, Vec<u8>)]) -> Result<History> {
    let mut history = History::default();
    for (offset, record) in records {
        let wrong = |why: &str| {
            Error::upstream(format!(
                "topic \"{log}\" is not the progress of job {job}: its record at offset {offset} {why}"
            ))
            .hint("nothing was written; give the job another name (SET 'pipeline.name' = '..') to begin anew")
        };
        let record: Value = serde_json::from_slice(record).map_err(|_| wrong("is not readable"))?;
        let version = number(&record, "version").ok_or_else(|| wrong("has no version"))?;
        if version != VERSION {
            return Err(wrong(&format!("has version {version} of the format, and this program reads {VERSION}")));
        }
        if record["job"].as_str() != Some(job) {
            return Err(wrong(&format!("is of job {}", record["job"])));
        }
        history.add(&record).map_err(|why| wrong(&why))?;
    }
    Ok(history)
}

fn number(record: &Value, key: &str) -> Option<u64> {
    record[key].as_u64()
}

impl History {
    /// Takes the next record; if it does not follow, why.
    fn add(&mut self, record: &Value) -> Result<(), String> {
        let get = |key: &str| number(record, key).ok_or_else(|| format!("has no {key}"));
        let author = Author { generation: get("generation")?, incarnation: get("incarnation")? };
        let (before, sequence) = (self.author, get("sequence")?);
        let follows = |wanted: Author, next: u64| {
            let is = (author.generation, author.incarnation, sequence);
            let want = (wanted.generation, wanted.incarnation, next);
            if is == want { Ok(()) } else { Err(format!("has the numbers {is:?}, where {want:?} follow")) }
        };
        let next_incarnation = before.incarnation + 1;
        match (record["kind"].as_str(), &mut self.unfinished) {
            (Some("begin"), None) => {
                follows(Author { generation: before.generation + 1, incarnation: next_incarnation }, 0)?;
                let beginning = beginning(record).ok_or("does not say where the job began")?;
                self.unfinished = Some(Restored { beginning, boundaries: VecDeque::new() });
            }
            (Some("resume"), Some(job)) => {
                follows(Author { incarnation: next_incarnation, ..before }, job.last())?;
            }
            (Some("boundary"), Some(job)) => {
                follows(before, job.last() + 1)?;
                let boundary = recorded(record, sequence).ok_or("does not say what the boundary was")?;
                job.check(&boundary)?;
                let is_finished = boundary.is_finished;
                job.boundaries.push_back(boundary);
                if is_finished {
                    self.unfinished = None;
                }
            }
            (kind, _) => return Err(format!("is of kind {kind:?}, which does not follow")),
        }
        self.author = author;
        Ok(())
    }
}

impl Restored {
    /// A boundary follows the one before it: nothing goes back.
    fn check(&self, next: &Recorded) -> Result<(), String> {
        if next.positions.len() != self.beginning.sources.len() {
            return Err("is of other sources".to_owned());
        }
        for (source, positions) in next.positions.iter().enumerate() {
            let before = self.boundaries.back().map(|b| b.positions[source].as_slice());
            let known = before.map_or(self.beginning.sources[source].len(), <[Position]>::len);
            let found = next.events.found.iter().filter(|new| new.source == source).count();
            if positions.len() != known + found {
                return Err("is of other partitions".to_owned());
            }
            for (before, after) in before.into_iter().flatten().zip(positions) {
                if after.next_offset < before.next_offset {
                    let (from, to) = (before.next_offset, after.next_offset);
                    return Err(format!("goes back from offset {from} to {to}"));
                }
            }
        }
        Ok(())
    }
}

fn plan(value: &Value) -> Option<PartitionPlan> {
    let id = PartitionId {
        topic: value["topic"].as_str()?.into(),
        partition: i32::try_from(value["partition"].as_i64()?).ok()?,
    };
    let end = match &value["end"] {
        Value::Null => None,
        end => Some(end.as_i64()?),
    };
    Some(PartitionPlan { id, start: value["start"].as_i64()?, end, empty_at_start: value["empty"].as_bool()? })
}

fn beginning(record: &Value) -> Option<Beginning> {
    let plans = |source: &Value| source.as_array()?.iter().map(plan).collect::<Option<Vec<_>>>();
    Some(Beginning {
        clock_ms: record["clock_ms"].as_i64()?,
        fingerprint: record["fingerprint"].as_str()?.to_owned(),
        sources: record["sources"].as_array()?.iter().map(plans).collect::<Option<_>>()?,
    })
}

fn recorded(record: &Value, sequence: u64) -> Option<Recorded> {
    let position = |(index, value): (usize, &Value)| {
        let (idle, away) = (value["idle"].as_bool()?, value["away"].as_bool()?);
        Some(Position { index, next_offset: value["next"].as_i64()?, idle, away })
    };
    let positions = |source: &Value| source.as_array()?.iter().enumerate().map(position).collect::<Option<Vec<_>>>();
    let index = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let found = |value: &Value| {
        Some(NewPartition { source: index(&value["source"])?, index: index(&value["index"])?, plan: plan(value)? })
    };
    Some(Recorded {
        sequence,
        clock_ms: record["clock_ms"].as_i64()?,
        positions: record["sources"].as_array()?.iter().map(positions).collect::<Option<_>>()?,
        events: ClockEvents {
            found: record["found"].as_array()?.iter().map(found).collect::<Option<_>>()?,
            begun: record["begun"].as_array()?.iter().map(index).collect::<Option<_>>()?,
        },
        is_finished: record["finished"].as_bool()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(partition: i32) -> PartitionPlan {
        let id = PartitionId { topic: "t".into(), partition };
        PartitionPlan { id, start: 5, end: (partition == 1).then_some(9), empty_at_start: partition == 0 }
    }

    fn boundary(sequence: u64, next: &[i64], is_finished: bool) -> Recorded {
        let position = |(index, next): (usize, &i64)| Position {
            index,
            next_offset: *next,
            idle: index == 1,
            away: sequence == 2,
        };
        let positions = vec![next.iter().enumerate().map(position).collect()];
        Recorded { sequence, clock_ms: 100, positions, events: ClockEvents::default(), is_finished }
    }

    fn begins(generation: u64, incarnation: u64) -> Vec<u8> {
        let beginning =
            Beginning { clock_ms: 7, fingerprint: "f".to_owned(), sources: vec![vec![plan_of(0), plan_of(1)]] };
        Author { generation, incarnation }.begins("j", &beginning)
    }

    fn takes_up(incarnation: u64, sequence: u64) -> Vec<u8> {
        Author { generation: 1, incarnation }.takes_up("j", sequence)
    }

    fn comes_to(incarnation: u64, boundary: &Recorded) -> Vec<u8> {
        let id = |_, index| Some(plan_of(i32::try_from(index).unwrap()).id);
        Author { generation: 1, incarnation }.comes_to("j", boundary, id).unwrap()
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
        let History { author, unfinished } = read(&records).unwrap();
        let restored = unfinished.unwrap();
        assert_eq!((author, restored.last()), (Author { generation: 1, incarnation: 2 }, 2));
        assert_eq!(restored.beginning.clock_ms, 7);
        assert_eq!(format!("{:?}", restored.beginning.sources[0][1]), format!("{:?}", plan_of(1)));
        assert_eq!(format!("{:?}", restored.boundaries[1]), format!("{second:?}"));
        assert_eq!(restored.found(0).len(), 1);

        records.push(comes_to(2, &boundary(3, &[9, 9, 9], true)));
        let finished = read(&records).unwrap();
        assert!(finished.unfinished.is_none() && finished.author.incarnation == 2);
        records.push(begins(2, 3));
        assert_eq!(read(&records).unwrap().unfinished.unwrap().last(), 0);
    }

    #[test]
    fn what_does_not_follow_is_an_error() {
        let first = || vec![begins(1, 1), comes_to(1, &boundary(1, &[6, 5], false))];
        let with = |record: Vec<u8>| [first(), vec![record]].concat();
        let cases: [(Vec<Vec<u8>>, &str); 11] = [
            (vec![takes_up(1, 0)], "does not follow"),
            (vec![b"?".to_vec()], "offset 0 is not readable"),
            (vec![br#"{"version":2}"#.to_vec()], "has version 2 of the format"),
            (vec![Author::default().begins("other", &Beginning::default())], "is of job \"other\""),
            (with(begins(1, 2)), "does not follow"),
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
