//! Where reading starts and ends: Flink's scan modes, resolved to offsets before the first record is read.
//!
//! `group-offsets` is the default. A partition for which the group has nothing committed starts where
//! `'properties.auto.offset.reset'` says; when that is not set, at the earliest offset (Flink fails there), so that a
//! new job reads everything. Without a group id everything is read from the earliest offset.
//!
//! An end is a *position*, never a record's offset: a transactional topic ends in markers that no one sees.
//!
//! Partitions that appear while a job runs are read from their earliest record, whatever the modes say: nobody can have
//! meant to leave out what was not there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use super::cluster::{Cluster, Topic};
use crate::catalog::options::{Options, invalid, nearest};
use crate::connectors::{PartitionId, PartitionPlan};
use crate::error::{Error, Result};

/// What a partition holds: the offsets of its first record and of the one after its last.
#[derive(Clone, Copy)]
struct Held {
    low: i64,
    high: i64,
}

/// How often to look for new partitions, unless a table says otherwise: as in Flink.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(300);

const DISCOVERY_INTERVAL_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The topics that a table names: a list, or a pattern for whole names.
enum Topics<'a> {
    Listed(Vec<&'a str>),
    /// The pattern, and what the names of topics begin with that are the engine's own.
    Matching(&'a str, Regex, &'a str),
}

impl<'a> Topics<'a> {
    fn of(options: &'a Options, own_topics: &'a str) -> Result<Self> {
        match (options.get("topic"), options.get("topic-pattern")) {
            (Some(_), Some(_)) => {
                Err(Error::statement("'topic' and 'topic-pattern' are both set").hint("keep one of them"))
            }
            (None, None) => Err(options.require("topic").err().unwrap_or_else(|| Error::bug("no topic"))),
            (Some(names), None) => {
                let mut names: Vec<&str> = names.split(';').map(str::trim).filter(|n| !n.is_empty()).collect();
                if names.is_empty() {
                    return Err(invalid("topic", "", "the name of a topic; several are separated by ';'"));
                }
                names.sort_unstable();
                names.dedup();
                Ok(Self::Listed(names))
            }
            (None, Some(pattern)) => {
                let regex = Regex::new(&format!("^(?:{pattern})$"))
                    .map_err(|_| invalid("topic-pattern", pattern, "a regular expression"))?;
                Ok(Self::Matching(pattern, regex, own_topics))
            }
        }
    }

    /// Those that must be there when a job begins, by name.
    fn at_start(&self, cluster: &Cluster) -> Result<Vec<Topic>> {
        match self {
            Self::Listed(names) => names.iter().map(|name| cluster.topic(name)).collect(),
            Self::Matching(pattern, ..) => {
                let matching = self.now(cluster)?;
                if matching.is_empty() {
                    return Err(Error::upstream(format!("no topic at {} matches '{pattern}'", cluster.brokers()))
                        .hint("SHOW TOPICS lists those that exist; a pattern must match a whole name"));
                }
                Ok(matching)
            }
        }
    }

    /// Those that there are at this moment, by name.
    fn now(&self, cluster: &Cluster) -> Result<Vec<Topic>> {
        match self {
            Self::Listed(names) => {
                let found = names.iter().map(|name| cluster.find_topic(name)).collect::<Result<Vec<_>>>()?;
                Ok(found.into_iter().flatten().collect())
            }
            // Topics of Kafka's own (offsets, transactions), and those in which jobs keep what they have come to, are never
            // meant by a pattern.
            Self::Matching(_, regex, own) => {
                let is_own = |name: &str| name.starts_with("__") || !own.is_empty() && name.starts_with(own);
                let is_meant = |t: &Topic| !is_own(&t.name) && regex.is_match(&t.name);
                Ok(cluster.topics()?.into_iter().filter(is_meant).collect())
            }
        }
    }
}

/// The partitions of topics.
fn ids_of(topics: &[Topic]) -> Vec<PartitionId> {
    let ids = topics.iter().flat_map(|topic| {
        let name: Arc<str> = topic.name.as_str().into();
        topic.partitions.iter().map(move |p| PartitionId { topic: Arc::clone(&name), partition: *p })
    });
    ids.collect()
}

fn held(cluster: &Cluster, id: &PartitionId) -> Result<Held> {
    cluster.watermarks(&id.topic, id.partition).map(|(low, high)| Held { low, high })
}

/// A partition that appeared while, or before, a job goes on: all of it is to be read.
fn appeared(id: &PartitionId, held: Held) -> PartitionPlan {
    PartitionPlan { id: id.clone(), start: held.low, end: None, empty_at_start: held.low >= held.high }
}

/// How often a job on this table looks for new partitions; `None`: never. One that ends has its end from the start.
pub fn discovery_interval(options: &Options) -> Result<Option<Duration>> {
    const KEY: &str = "scan.topic-partition-discovery.interval";
    // Flink turns it off by zero or less.
    let is_off = options.get(KEY).is_some_and(|value| value.trim_start().starts_with('-'));
    let interval = if is_off { Duration::ZERO } else { options.duration(KEY)?.unwrap_or(DISCOVERY_INTERVAL) };
    let is_bounded = options.get("scan.bounded.mode").is_some_and(|mode| !mode.eq_ignore_ascii_case("unbounded"));
    // No clock counts further than a century.
    Ok((!interval.is_zero() && !is_bounded).then_some(interval.min(DISCOVERY_INTERVAL_MAX)))
}

/// The partitions that there are beside the known ones, by topic and number. One whose offsets nobody can tell yet,
/// because it has no leader, is left for the next time.
pub fn discover(
    options: &Options,
    cluster: &Cluster,
    own_topics: &str,
    known: &BTreeSet<PartitionId>,
) -> Result<Vec<PartitionPlan>> {
    let mut ids = ids_of(&Topics::of(options, own_topics)?.now(cluster)?);
    ids.retain(|id| !known.contains(id));
    let plan = |id: &PartitionId| match held(cluster, id) {
        Ok(held) => Some(appeared(id, held)),
        Err(error) => {
            tracing::debug!("topic \"{}\", partition {} is new, but not ready: {error}", id.topic, id.partition);
            None
        }
    };
    Ok(ids.iter().filter_map(plan).collect())
}

/// The partitions of a table with their start and end, in the order of their ids; if an earlier run recorded positions,
/// in its order.
pub fn resolve(
    options: &Options,
    cluster: &Cluster,
    own_topics: &str,
    resume: Option<&[PartitionPlan]>,
) -> Result<Vec<PartitionPlan>> {
    let topics = Topics::of(options, own_topics)?.at_start(cluster)?;
    let ids = ids_of(&topics);
    let held = ids.iter().map(|id| held(cluster, id)).collect::<Result<Vec<_>>>()?;
    let resolver = Resolver { options, cluster, ids: &ids, held: &held, one_topic: topics.len() == 1 };
    if let Some(resume) = resume {
        return resolver.resumed(resume);
    }
    let starts = resolver.starts()?;
    let ends = resolver.ends()?;
    let plan = |((id, held), (start, end)): ((&PartitionId, &Held), (i64, Option<i64>))| PartitionPlan {
        id: id.clone(),
        start,
        end,
        empty_at_start: start >= end.unwrap_or(held.high).min(held.high),
    };
    Ok(ids.iter().zip(&held).zip(starts.into_iter().zip(ends)).map(plan).collect())
}

struct Resolver<'a> {
    options: &'a Options,
    cluster: &'a Cluster,
    ids: &'a [PartitionId],
    held: &'a [Held],
    one_topic: bool,
}

impl Resolver<'_> {
    fn names(&self) -> Vec<(&str, i32)> {
        self.ids.iter().map(|id| (&*id.topic, id.partition)).collect()
    }

    fn starts(&self) -> Result<Vec<i64>> {
        let modes = ["group-offsets", "earliest-offset", "latest-offset", "timestamp", "specific-offsets"];
        let earliest = || self.held.iter().map(|h| h.low).collect();
        Ok(match self.options.choice("scan.startup.mode", &modes)? {
            "earliest-offset" => earliest(),
            "latest-offset" => self.held.iter().map(|h| h.high).collect(),
            "timestamp" => self.at_time("scan.startup.timestamp-millis")?,
            "specific-offsets" => {
                let given = self.specific("scan.startup.specific-offsets")?;
                let start = |(id, held): (&PartitionId, &Held)| match given.get(&id.partition) {
                    Some(offset) => check_range(id, *held, *offset, "'scan.startup.specific-offsets' starts"),
                    None => Ok(held.low),
                };
                self.ids.iter().zip(self.held).map(start).collect::<Result<_>>()?
            }
            _ if self.cluster.properties().group().is_none() => earliest(),
            _ => {
                let committed = self.cluster.committed(&self.names())?;
                let each = self.ids.iter().zip(self.held).zip(committed);
                each.map(|((id, held), committed)| self.where_group_goes_on(id, *held, committed))
                    .collect::<Result<_>>()?
            }
        })
    }

    /// Where the group goes on in a partition.
    fn where_group_goes_on(&self, id: &PartitionId, held: Held, committed: Option<i64>) -> Result<i64> {
        let group = self.cluster.properties().group().unwrap_or_default();
        let reset = self.cluster.properties().owned("auto.offset.reset");
        let in_range = committed.filter(|c| (held.low..=held.high).contains(c));
        if let Some(offset) = in_range {
            return Ok(offset);
        }
        if let (Some(offset), Some("earliest" | "smallest" | "latest" | "largest" | "beginning" | "end")) =
            (committed, reset)
        {
            tracing::warn!(
                "topic \"{}\", partition {}: group \"{group}\" has committed {offset}, but the topic holds {} to {}; \
                 'properties.auto.offset.reset' decides",
                id.topic,
                id.partition,
                held.low,
                held.high
            );
        }
        match (reset, committed) {
            (Some("earliest" | "smallest" | "beginning"), _) | (None, None) => Ok(held.low),
            (Some("latest" | "largest" | "end"), _) => Ok(held.high),
            (None, Some(offset)) => check_range(id, held, offset, &format!("group \"{group}\" goes on")),
            (Some("none" | "error"), Some(offset)) => {
                check_range(id, held, offset, &format!("group \"{group}\" goes on"))
            }
            (Some("none" | "error"), None) => Err(Error::upstream(format!(
                "group \"{group}\" has no offset for topic \"{}\", partition {}",
                id.topic, id.partition
            ))
            .hint("'properties.auto.offset.reset' = 'none' forbids a start without one: set 'scan.startup.mode'")),
            (Some(other), _) => Err(invalid("properties.auto.offset.reset", other, "'earliest', 'latest' or 'none'")),
        }
    }

    fn ends(&self) -> Result<Vec<Option<i64>>> {
        let modes = ["unbounded", "latest-offset", "group-offsets", "timestamp", "specific-offsets"];
        Ok(match self.options.choice("scan.bounded.mode", &modes)? {
            "latest-offset" => self.held.iter().map(|h| Some(h.high)).collect(),
            "timestamp" => self.at_time("scan.bounded.timestamp-millis")?.into_iter().map(Some).collect(),
            "specific-offsets" => {
                let given = self.specific("scan.bounded.specific-offsets")?;
                let end = |id: &PartitionId| {
                    given.get(&id.partition).copied().map(Some).ok_or_else(|| {
                        Error::statement(format!(
                            "'scan.bounded.specific-offsets' names no end for partition {}",
                            id.partition
                        ))
                        .hint("name one for every partition: 'partition:0,offset:42;partition:1,offset:300'")
                    })
                };
                self.ids.iter().map(end).collect::<Result<_>>()?
            }
            "group-offsets" => {
                let Some(group) = self.cluster.properties().group() else {
                    return Err(Error::statement("'scan.bounded.mode' = 'group-offsets' needs a group")
                        .hint("add 'properties.group.id' = '..'"));
                };
                let committed = self.cluster.committed(&self.names())?;
                let end = |(id, offset): (&PartitionId, Option<i64>)| {
                    offset.map(Some).ok_or_else(|| {
                        Error::upstream(format!(
                            "group \"{group}\" has no offset for topic \"{}\", partition {}",
                            id.topic, id.partition
                        ))
                        .hint("so there is no end to read to: set another 'scan.bounded.mode'")
                    })
                };
                self.ids.iter().zip(committed).map(end).collect::<Result<_>>()?
            }
            _ => vec![None; self.ids.len()],
        })
    }

    /// The first offset at or after the time of an option; the end where nothing is that young.
    fn at_time(&self, key: &str) -> Result<Vec<i64>> {
        self.options.require(key)?;
        let time = self.options.integer(key)?.unwrap_or_default();
        if time < 0 {
            return Err(invalid(key, &time.to_string(), "milliseconds since 1970, not negative"));
        }
        let found = self.cluster.offsets_for_time(&self.names(), time)?;
        Ok(found.into_iter().zip(self.held).map(|(offset, held)| offset.unwrap_or(held.high)).collect())
    }

    /// Parses `partition:0,offset:42;partition:1,offset:300`.
    fn specific(&self, key: &str) -> Result<BTreeMap<i32, i64>> {
        if !self.one_topic {
            return Err(Error::statement(format!("'{key}' needs a table of exactly one topic"))
                .hint("make a table per topic, and UNION ALL them"));
        }
        let given = parse_specific(key, self.options.require(key)?)?;
        let numbers: Vec<i32> = self.ids.iter().map(|id| id.partition).collect();
        match given.keys().find(|p| !numbers.contains(p)) {
            Some(partition) => {
                Err(Error::statement(format!("'{key}' names partition {partition}, which the topic does not have"))
                    .hint(format!("it has partitions 0 to {}", numbers.last().copied().unwrap_or(0))))
            }
            None => Ok(given),
        }
    }

    /// Goes on from recorded positions.
    fn resumed(&self, resume: &[PartitionPlan]) -> Result<Vec<PartitionPlan>> {
        if let Some(gone) = resume.iter().find(|r| !self.ids.contains(&r.id)) {
            let known = self.ids.iter().map(|id| &*id.topic);
            let error = Error::upstream(format!(
                "topic \"{}\" has no partition {} any more, which the job was reading",
                gone.id.topic, gone.id.partition
            ));
            return Err(match nearest(&gone.id.topic, known) {
                Some(near) if near != &*gone.id.topic => error.hint(format!("is it \"{near}\" now?")),
                _ => error.hint("a topic that was deleted and made again is another one: start a new job"),
            });
        }
        let held: BTreeMap<&PartitionId, Held> = self.ids.iter().zip(self.held.iter().copied()).collect();
        // The recorded order stays, so that an index means what it meant.
        let goes_on = |recorded: &PartitionPlan| {
            let start = check_range(&recorded.id, held[&recorded.id], recorded.start, "the job goes on");
            // It goes on from what is on record, whatever its tables say of a start.
            let start = start.map_err(|error| {
                error.hint(
                    "what the job has come to needs these records: begin a new job under another name (SET \
                     'pipeline.name' = '..'), or give up what it has come to (SET 'execution.restore' = 'none')",
                )
            })?;
            Ok(PartitionPlan { start, ..recorded.clone() })
        };
        let mut plans = resume.iter().map(goes_on).collect::<Result<Vec<_>>>()?;
        let known: BTreeSet<&PartitionId> = resume.iter().map(|r| &r.id).collect();
        let new = held.iter().filter(|(id, _)| !known.contains(**id)).map(|(id, held)| appeared(id, *held));
        plans.extend(new);
        Ok(plans)
    }
}

fn parse_specific(key: &str, text: &str) -> Result<BTreeMap<i32, i64>> {
    let wrong = || invalid(key, text, "'partition:0,offset:42;partition:1,offset:300'");
    let mut offsets = BTreeMap::new();
    for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
        let (partition, offset) = part.split_once(',').ok_or_else(wrong)?;
        let partition: i32 =
            partition.trim().strip_prefix("partition:").and_then(|p| p.trim().parse().ok()).ok_or_else(wrong)?;
        let offset: i64 =
            offset.trim().strip_prefix("offset:").and_then(|p| p.trim().parse().ok()).ok_or_else(wrong)?;
        if partition < 0 || offset < 0 || offsets.insert(partition, offset).is_some() {
            return Err(wrong());
        }
    }
    if offsets.is_empty() { Err(wrong()) } else { Ok(offsets) }
}

/// An offset that the partition must hold (or end at).
fn check_range(id: &PartitionId, held: Held, offset: i64, who: &str) -> Result<i64> {
    if (held.low..=held.high).contains(&offset) {
        return Ok(offset);
    }
    let lost = if offset < held.low {
        format!("; the records from {offset} to {} are gone", held.low - 1)
    } else {
        String::new()
    };
    Err(Error::upstream(format!(
        "{who} at offset {offset} of topic \"{}\", partition {}, which holds {} to {}{lost}",
        id.topic, id.partition, held.low, held.high
    ))
    .hint("set 'scan.startup.mode' = 'earliest-offset' to read what is there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specific_offsets_are_parsed_strictly() {
        for (text, want) in [
            ("partition:0,offset:42;partition:1,offset:300", Some(vec![(0, 42), (1, 300)])),
            ("partition:0,offset:0", Some(vec![(0, 0)])),
            (" partition:3 , offset: 7 ; ", Some(vec![(3, 7)])),
            ("", None),
            ("0:42", None),
            ("partition:0", None),
            ("partition:0,offset:-1", None),
            ("partition:0,offset:1;partition:0,offset:2", None),
            ("partition:0,offset:99999999999999999999", None),
        ] {
            let got = parse_specific("k", text).ok().map(|m| m.into_iter().collect::<Vec<_>>());
            assert_eq!(got, want, "{text}");
        }
    }
}
