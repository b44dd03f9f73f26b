//! State that checkpoints have given out, on its way back to the workers that own it.

use std::collections::BTreeMap;

use super::exchange::by_columns;
use super::topology::{Part, Topology};
use crate::error::Result;
use crate::plan::NodeId;
use crate::state::{Piece, Spill, Stored};

/// What checkpoints have given out, from the last whole one on, in order.
#[derive(Clone, Debug, Default)]
pub struct StoredState {
    /// Per checkpoint, nodes of the plan and pieces of their state.
    pub checkpoints: Vec<Vec<(NodeId, Piece)>>,
}

/// The same, by node and worker: however many workers there were, each gets what it owns now.
pub struct DealtState(BTreeMap<(NodeId, usize), Vec<Vec<Piece>>>);

impl StoredState {
    /// Deals the state to the workers of a topology; what is on disk stays there.
    pub fn deal(self, topology: &Topology, to: Option<&Spill>) -> Result<DealtState> {
        let (workers, count) = (topology.workers(), self.checkpoints.len());
        let mut dealt = DealtState(BTreeMap::new());
        for (number, pieces) in self.checkpoints.into_iter().enumerate() {
            for (node, piece) in pieces {
                let mut give = |worker: usize, piece: Piece| {
                    let checkpoints = dealt.0.entry((node, worker)).or_insert_with(|| vec![Vec::new(); count]);
                    checkpoints[number].push(piece);
                };
                let Some(rows) = piece.batch.as_ref().filter(|_| 1 < workers) else {
                    (0..workers).for_each(|worker| give(worker, piece.clone()));
                    continue;
                };
                let columns = topology.owner_columns(node, &piece)?;
                let to = to.filter(|_| matches!(rows, Stored::Spilled(_)));
                let rows = rows.clone().load()?;
                for (worker, rows) in by_columns(&rows, &columns, workers)?.into_iter().enumerate() {
                    let Some(rows) = rows.filter(|rows| 0 < rows.num_rows()) else { continue };
                    let mut rows = Stored::Batch(rows);
                    to.map_or(Ok(0), |to| rows.spill(to))?;
                    give(worker, Piece { batch: Some(rows), ..piece.clone() });
                }
            }
        }
        Ok(dealt)
    }
}

impl DealtState {
    /// A worker's part of the graph takes up what it owns.
    pub fn restore(&mut self, part: &mut Part, worker: usize) -> Result<()> {
        for (&node, &at) in &part.own {
            if let Some(checkpoints) = self.0.remove(&(node, worker)) {
                part.fragment.restore(at, checkpoints)?;
            }
        }
        Ok(())
    }
}
