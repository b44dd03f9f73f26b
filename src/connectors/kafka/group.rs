//! What a job has done with, in the consumer group of its table: for people, and for tools that show lag.
//!
//! It is committed behind the job's own commits, and nobody waits for it. The job itself goes by it only where a table asks
//! for that when a job begins ([`positions`](super::positions)). So whatever goes wrong stops nothing: it is said once, and
//! tried again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use crate::connectors::PartitionId;

/// Until what was refused is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The offsets that a source has committed.
#[derive(Default)]
pub struct GroupOffsets {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By partition index, what was committed last.
    committed: Vec<Option<i64>>,
    /// When to commit everything again.
    retry: Option<Instant>,
    is_told: bool,
}

impl GroupOffsets {
    /// Commits the next offsets of partitions that have moved, by index. Without a group there is nothing to do.
    pub fn commit(&self, cluster: &Cluster, next_offsets: &[(usize, i64)], id: impl Fn(usize) -> Option<PartitionId>) {
        let Some(group) = cluster.properties().group() else { return };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refused) = cluster.refused_commit() {
            state.retry.get_or_insert_with(|| Instant::now() + RETRY);
            if !std::mem::replace(&mut state.is_told, true) {
                tracing::warn!(
                    "the broker at {} does not take the offsets of group \"{group}\": {refused}; the job goes on, and tools \
                     show a lag that is not there",
                    cluster.brokers()
                );
            }
        }
        if state.retry.is_some_and(|at| at <= Instant::now()) {
            state.retry = None;
            state.committed.clear();
        }
        let mut moved = Vec::new();
        for &(index, offset) in next_offsets {
            let partitions = state.committed.len().max(index + 1);
            state.committed.resize(partitions, None);
            if state.committed[index].replace(offset) != Some(offset) {
                moved.extend(id(index).map(|id| (id, offset)));
            }
        }
        // Nobody wants to hear five times a second that nothing has happened.
        if !moved.is_empty() {
            let moved: Vec<_> = moved.iter().map(|(id, offset)| (&*id.topic, id.partition, *offset)).collect();
            cluster.commit(&moved);
        }
    }
}
