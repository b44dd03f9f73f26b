//! The part of a plan's graph that one worker runs: operators, and where their rows go.

use arrow::array::RecordBatch;

use super::{Boundary, Counts, Lineage, Operator, Output, Rejected};
use crate::connectors::Policies;
use crate::error::{Error, Result};
use crate::state::Piece;
use crate::time::Progress;

/// A way out of a fragment: an edge to workers of a later stage, or a sink. Numbered by whoever builds the fragment.
pub type Outlet = usize;

/// Where a node's rows go.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// A node, and which of its inputs.
    Node(usize, usize),
    Outlet(Outlet),
}

struct LocalNode {
    /// `None` passes rows on as they are: entries, unions, sinks.
    operator: Option<Box<dyn Operator>>,
    /// What rows are that enter here.
    enters: Lineage,
    /// Whether rows end here.
    is_sink: bool,
    targets: Vec<Target>,
    /// The inputs' progress at the boundary at hand.
    progress: Option<Progress>,
    counts: Counts,
}

/// A graph of operators; a node's inputs come before it.
#[derive(Default)]
pub struct Fragment {
    nodes: Vec<LocalNode>,
    policies: Policies,
}

/// What takes a fragment's output.
pub trait Outlets {
    /// Rows.
    fn rows(&mut self, outlet: Outlet, batch: RecordBatch) -> Result<()>;

    /// How far an outlet's rows have come, at a boundary: all its rows before the boundary have been handed over.
    fn progress(&mut self, outlet: Outlet, progress: Progress);

    /// Rows that a node has turned away.
    fn rejected(&mut self, node: usize, rejected: Vec<Rejected>) -> Result<()> {
        let _ = (node, rejected);
        Ok(())
    }

    /// A piece of a node's state, at a checkpoint.
    fn state(&mut self, node: usize, piece: Piece) {
        let _ = (node, piece);
    }
}

impl Fragment {
    /// An empty graph, over sources with these policies.
    pub fn new(policies: Policies) -> Self {
        Self { nodes: Vec::new(), policies }
    }

    /// Adds a node that reads from nodes added before; answers its number. Without an operator rows pass as they are.
    pub fn add(&mut self, operator: Option<Box<dyn Operator>>, inputs: &[usize]) -> usize {
        let id = self.nodes.len();
        self.nodes.push(LocalNode {
            operator,
            enters: Lineage::Records,
            is_sink: false,
            targets: Vec::new(),
            progress: None,
            counts: Counts::default(),
        });
        for (at, &input) in inputs.iter().enumerate() {
            self.nodes[input].targets.push(Target::Node(id, at));
        }
        id
    }

    /// Sends a node's rows out as well.
    pub fn send_out(&mut self, node: usize, outlet: Outlet) {
        self.nodes[node].targets.push(Target::Outlet(outlet));
    }

    /// Says what rows are that enter at a node.
    pub fn set_lineage(&mut self, node: usize, lineage: Lineage) {
        self.nodes[node].enters = lineage;
    }

    /// Rows end at a node: a record that comes this far is used.
    pub fn set_sink(&mut self, node: usize) {
        self.nodes[node].is_sink = true;
    }

    /// Rows enter at a node.
    pub fn on_batch(&mut self, node: usize, batch: RecordBatch, outlets: &mut dyn Outlets) -> Result<()> {
        self.on_input(node, 0, batch, self.nodes[node].enters, outlets)
    }

    fn on_input(
        &mut self,
        id: usize,
        input: usize,
        batch: RecordBatch,
        lineage: Lineage,
        outlets: &mut dyn Outlets,
    ) -> Result<()> {
        let node = &mut self.nodes[id];
        let Some(operator) = &mut node.operator else {
            if node.is_sink {
                let used = i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
                node.counts.add(Counts { used, ..Counts::default() }.of(lineage));
            }
            return self.hand_on(id, vec![batch], lineage, outlets);
        };
        let mut out = Output { lineage, policies: self.policies.clone(), ..Output::default() };
        operator.on_batch(input, batch, &mut out)?;
        let given = operator.lineage(lineage);
        node.counts.add(out.counts.of(lineage));
        if !out.rejected.is_empty() {
            outlets.rejected(id, out.rejected)?;
        }
        self.hand_on(id, out.batches, given, outlets)
    }

    /// A boundary, with the progress of each entry that has any.
    pub fn on_boundary(
        &mut self,
        boundary: &Boundary,
        entries: &[(usize, Progress)],
        outlets: &mut dyn Outlets,
    ) -> Result<()> {
        for &(node, progress) in entries {
            self.note_progress(node, progress);
        }
        for node in 0..self.nodes.len() {
            let Some(mut progress) = self.nodes[node].progress.take() else { continue };
            if let Some(operator) = &mut self.nodes[node].operator {
                let mut out = Output::default();
                progress = operator.on_boundary(boundary, progress, &mut out)?;
                self.nodes[node].counts.add(out.counts);
                if !out.rejected.is_empty() {
                    outlets.rejected(node, out.rejected)?;
                }
                self.hand_on(node, out.batches, Lineage::Results, outlets)?;
            }
            if let (Some(extent), Some(operator)) = (boundary.checkpoint, &mut self.nodes[node].operator) {
                operator.checkpoint(extent, &mut |piece| outlets.state(node, piece))?;
            }
            for at in 0..self.nodes[node].targets.len() {
                match self.nodes[node].targets[at] {
                    Target::Node(next, _) => self.note_progress(next, progress),
                    Target::Outlet(outlet) => outlets.progress(outlet, progress),
                }
            }
        }
        Ok(())
    }

    /// A node takes up what it has given out at checkpoints, in order. To be called before anything else.
    pub fn restore(&mut self, node: usize, checkpoints: Vec<Vec<Piece>>) -> Result<()> {
        match &mut self.nodes[node].operator {
            Some(operator) => operator.restore(checkpoints),
            None => Err(Error::bug("state of a node that keeps none")),
        }
    }

    /// What has happened to records at each node.
    pub fn counts(&self) -> impl Iterator<Item = Counts> + '_ {
        self.nodes.iter().map(|n| n.counts)
    }

    /// Open windows and bytes of state of all operators together.
    pub fn state_size(&self) -> (usize, usize) {
        self.nodes
            .iter()
            .filter_map(|n| n.operator.as_ref())
            .map(|o| o.state_size())
            .fold((0, 0), |(windows, bytes), (w, b)| (windows + w, bytes + b))
    }

    fn hand_on(
        &mut self,
        node: usize,
        batches: Vec<RecordBatch>,
        lineage: Lineage,
        outlets: &mut dyn Outlets,
    ) -> Result<()> {
        for batch in batches {
            for at in 0..self.nodes[node].targets.len() {
                match self.nodes[node].targets[at] {
                    Target::Node(next, input) => self.on_input(next, input, batch.clone(), lineage, outlets)?,
                    Target::Outlet(outlet) => outlets.rows(outlet, batch.clone())?,
                }
            }
        }
        Ok(())
    }

    fn note_progress(&mut self, node: usize, progress: Progress) {
        let slot = &mut self.nodes[node].progress;
        *slot = Some(match *slot {
            Some(other) => other.and(progress),
            None => progress,
        });
    }
}
