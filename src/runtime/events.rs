//! What depends on the moment: partitions that appear, tables that begin.
//!
//! Threads that learn of such a thing note it ([`Shared::note_events`]); the committing thread puts what has been noted
//! into the next boundary that it calls. All workers take it up there, before they say how far they have come: so the
//! boundaries with their events, and the offsets, still determine everything. The record of a boundary's progress is
//! where events will be kept for a replay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock;
use super::shared::Shared;
use crate::connectors::{PartitionPlan, Source};

/// A partition that was found while the job runs.
#[derive(Clone, Debug)]
pub struct NewPartition {
    /// The source's number among the sources of the job.
    pub source: usize,
    /// Behind all that were known before.
    pub index: usize,
    pub plan: PartitionPlan,
}

/// What takes effect at one boundary, for all workers alike.
#[derive(Clone, Debug, Default)]
pub struct ClockEvents {
    /// Partitions to read from here on, in the order of their indices.
    pub found: Vec<NewPartition>,
    /// Sources that were empty when the job began and of which a record has come.
    pub begun: BTreeSet<usize>,
}

/// A source whose partitions are looked for.
pub struct Discovering {
    /// The source's number among the sources of the job.
    number: usize,
    /// The table, for people.
    table: String,
    source: Arc<dyn Source>,
    interval: Duration,
    /// When to look next.
    next: Instant,
    /// The index of the next new partition.
    index: usize,
    has_failed: bool,
}

impl Discovering {
    /// `None` for a source whose partitions are those it began with. An earlier run may have found some already: then
    /// others may have appeared since, and are looked for at once.
    pub fn new(number: usize, table: &str, source: &Arc<dyn Source>, found_earlier: Option<usize>) -> Option<Self> {
        let interval = source.discovery_interval()?;
        let (table, source) = (table.to_owned(), Arc::clone(source));
        let index = source.partitions().len() + found_earlier.unwrap_or(0);
        let next = clock::now() + if found_earlier.is_some() { Duration::ZERO } else { interval };
        Some(Self { number, table, source, interval, next, index, has_failed: false })
    }

    fn look(&mut self, shared: &Shared) {
        match self.source.discover() {
            Ok(plans) => {
                self.has_failed = false;
                let new =
                    (self.index..).zip(plans).map(|(index, plan)| NewPartition { source: self.number, index, plan });
                let new: Vec<_> = new.collect();
                self.index += new.len();
                shared.note_events(|events| events.found.extend(new));
            }
            // Said once; when a broker is away, its readers say the rest.
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                tracing::warn!("table {}: new partitions cannot be looked for: {error}", self.table);
            }
            Err(_) => {}
        }
        self.next = clock::now() + self.interval;
    }
}

/// Looks for new partitions until the job ends. Asking a cluster takes as long as it takes, so this has a thread of its
/// own.
pub fn discover(shared: &Shared, sources: &mut [Discovering]) {
    while let Some(next) = sources.iter().map(|s| s.next).min() {
        if shared.has_ended_within(next.saturating_duration_since(clock::now())) {
            return;
        }
        let now = clock::now();
        sources.iter_mut().filter(|s| s.next <= now).for_each(|s| s.look(shared));
    }
}
