//! How a plan's graph is laid out over stages of workers.
//!
//! With one worker everything is one stage on one thread. With several, a stage ends at every aggregate: its local half
//! stays behind, its partials cross to the workers that own the keys. Stages form no cycle.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::connectors::Policies;
use crate::error::Result;
use crate::exec::{
    Fragment, Lineage, Operator, Outlet, PartialAggregate, PerWindow, RepeatWindows, SessionAggregate, SessionRows,
    Transform, WindowAggregate,
};
use crate::plan::{AggregateNode, Hidden, Node, NodeId, Op, StreamPlan};
use crate::state::{Piece, PieceKind, unexpected};

/// What crosses from one stage to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeKind {
    /// Partial aggregates, each to the worker that owns its key.
    Partials {
        /// The number of key columns, behind the prefix.
        keys: usize,
    },
    /// Rows, to the worker of the same number.
    Rows,
    /// Rows, each to the worker that owns the values of some columns.
    Keyed {
        /// The columns, by index.
        columns: Vec<usize>,
    },
}

/// A way from one stage to another.
#[derive(Clone, Debug)]
pub struct Edge {
    pub from: NodeId,
    pub to: NodeId,
    pub from_stage: usize,
    pub to_stage: usize,
    pub kind: EdgeKind,
}

/// The stages of a plan.
pub struct Topology {
    plan: Arc<StreamPlan>,
    workers: usize,
    stage_of: Vec<usize>,
    edges: Vec<Edge>,
    /// The sinks' nodes, in order: sink i is the outlet `edges.len() + i`.
    sinks: Vec<NodeId>,
    /// Per node, what its rows are, and the sink that they lead to.
    lineages: Vec<Lineage>,
    statements: Vec<Option<usize>>,
    policies: Policies,
}

/// A worker's part of the graph, and where rows enter it.
pub struct Part {
    pub fragment: Fragment,
    /// Per source or static node of the plan, its entry.
    pub sources: BTreeMap<NodeId, usize>,
    /// Per edge into this stage, its entry.
    pub edges: BTreeMap<usize, usize>,
    /// Per node of the fragment, the node of the plan that it is or leads to.
    pub nodes: Vec<NodeId>,
    /// Per node of the plan that is here, and keeps its state here if it has any, the fragment's.
    pub own: BTreeMap<NodeId, usize>,
}

impl Part {
    fn add(&mut self, id: NodeId, operator: Option<Box<dyn Operator>>, inputs: &[usize]) -> usize {
        self.nodes.push(id);
        self.fragment.add(operator, inputs)
    }
}

/// What a node's rows are to those who count records. Where rows of windows are mixed with records, they count as records.
fn lineages(plan: &StreamPlan) -> Vec<Lineage> {
    let mut lineages: Vec<Lineage> = Vec::with_capacity(plan.nodes.len());
    for node in &plan.nodes {
        let of_inputs = node.inputs.iter().map(|&input| lineages[input]).min().unwrap_or_default();
        lineages.push(match &node.op {
            Op::Aggregate(_) | Op::PerWindow(_) | Op::Sessions(_) => Lineage::Results,
            Op::Windows(windows) if windows.repeat => of_inputs.max(Lineage::Copies),
            _ => of_inputs,
        });
    }
    lineages
}

/// Per node that is no source, the number of the sink that its rows lead to: each has one consumer.
fn statements(plan: &StreamPlan, sinks: &[NodeId]) -> Vec<Option<usize>> {
    let mut statements = vec![None; plan.nodes.len()];
    for (number, &sink) in sinks.iter().enumerate() {
        statements[sink] = Some(number);
    }
    for (id, node) in plan.nodes.iter().enumerate().rev() {
        for &input in node.inputs.iter().filter(|&&input| !plan.nodes[input].inputs.is_empty()) {
            statements[input] = statements[id];
        }
    }
    statements
}

/// Per input of a node, the columns whose rows must come together at one worker; `None` if rows may be anywhere.
fn key_columns(plan: &StreamPlan, id: NodeId) -> Option<Vec<Vec<usize>>> {
    let work = match &plan.nodes[id].op {
        Op::PerWindow(work) => work,
        Op::Sessions(sessions) => return Some(vec![sessions.partition.clone()]),
        _ => return None,
    };
    let of_input = |(at, &input): (usize, &NodeId)| {
        let below = &plan.nodes[input];
        let keys = work.keys[at].clone();
        if keys.is_empty() {
            below.hidden.index(Hidden::WINDOW, below.visible.fields().len()).into_iter().collect()
        } else {
            keys
        }
    };
    Some(plan.nodes[id].inputs.iter().enumerate().map(of_input).collect())
}

/// The half of an aggregate that owns keys: over the rows of a node, or over partials.
fn owner(aggregate: &AggregateNode, below: Option<&Node>, node: &Node) -> Result<Box<dyn Operator>> {
    let input = below.map(|below| (below.visible.fields().len(), below.hidden));
    Ok(match (aggregate.session_gap_ms(), input) {
        (Some(_), input) => Box::new(SessionAggregate::new(aggregate, input, &node.visible, node.hidden)?),
        (None, Some((visible, hidden))) => {
            Box::new(WindowAggregate::over_rows(aggregate, visible, hidden, &node.visible, node.hidden)?)
        }
        (None, None) => Box::new(WindowAggregate::over_partials(aggregate, &node.visible, node.hidden)?),
    })
}

impl Topology {
    /// Lays a plan out for so many workers per stage.
    pub fn new(plan: Arc<StreamPlan>, workers: usize) -> Self {
        let mut stage_of: Vec<usize> = Vec::with_capacity(plan.nodes.len());
        let mut edges = Vec::new();
        let mut sinks = Vec::new();
        for (id, node) in plan.nodes.iter().enumerate() {
            let inputs_stage = node.inputs.iter().map(|&i| stage_of[i]).max().unwrap_or(0);
            let keys = match &node.op {
                Op::Aggregate(aggregate) if 1 < workers => Some(aggregate.layout.keys().fields().len()),
                _ => None,
            };
            let by_key = if 1 < workers { key_columns(&plan, id) } else { None };
            let stage = inputs_stage + usize::from(keys.is_some() || by_key.is_some());
            for (at, &from) in node.inputs.iter().enumerate() {
                let kind = match (keys, &by_key) {
                    (Some(keys), _) => EdgeKind::Partials { keys },
                    (None, Some(columns)) => EdgeKind::Keyed { columns: columns[at].clone() },
                    (None, None) if stage_of[from] < stage => EdgeKind::Rows,
                    (None, None) => continue,
                };
                edges.push(Edge { from, to: id, from_stage: stage_of[from], to_stage: stage, kind });
            }
            if matches!(node.op, Op::Sink(_)) {
                sinks.push(id);
            }
            stage_of.push(stage);
        }
        let (lineages, statements) = (lineages(&plan), statements(&plan, &sinks));
        let policies = Policies::new(plan.sources().map(|source| (&source.rejects).into()));
        Self { plan, workers, stage_of, edges, sinks, lineages, statements, policies }
    }

    /// The number of stages.
    pub fn stages(&self) -> usize {
        self.stage_of.iter().max().map_or(1, |s| s + 1)
    }

    /// The number of workers in each stage.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// All edges between stages; an edge's number is its outlet.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The sinks' nodes.
    pub fn sinks(&self) -> &[NodeId] {
        &self.sinks
    }

    /// Whether some sink is fed by this stage.
    pub fn feeds_sinks(&self, stage: usize) -> bool {
        self.sinks.iter().any(|&s| self.stage_of[s] == stage)
    }

    /// The columns by which rows of a node's state belong to workers, as what it is made of does.
    pub fn owner_columns(&self, node: NodeId, piece: &Piece) -> Result<Vec<usize>> {
        if let Op::Aggregate(aggregate) = &self.plan.nodes[node].op {
            return Ok((0..aggregate.layout.keys().fields().len()).collect());
        }
        let input = if piece.kind == PieceKind::Rows { usize::try_from(piece.key.1).ok() } else { Some(0) };
        let columns = input.and_then(|input| key_columns(&self.plan, node)?.into_iter().nth(input));
        columns.ok_or_else(|| unexpected(piece))
    }

    /// The number of the sink that the rows of a node lead to; `None` for a source, which several statements may read.
    pub fn statement_of(&self, node: NodeId) -> Option<usize> {
        self.statements[node]
    }

    /// The sink that an outlet leads to, if it leads to one.
    pub fn sink_of(&self, outlet: Outlet) -> Option<usize> {
        outlet.checked_sub(self.edges.len())
    }

    /// The part of the graph that one worker of a stage runs.
    pub fn part(&self, stage: usize) -> Result<Part> {
        let mut part = Part {
            fragment: Fragment::new(self.policies.clone()),
            sources: BTreeMap::new(),
            edges: BTreeMap::new(),
            nodes: Vec::new(),
            own: BTreeMap::new(),
        };
        for (id, node) in self.plan.nodes.iter().enumerate() {
            if let (Op::Aggregate(aggregate), true) = (&node.op, 1 < self.workers) {
                let input = node.inputs[0];
                let below = &self.plan.nodes[input];
                if self.stage_of[input] == stage {
                    let partial = PartialAggregate::new(aggregate, below.visible.fields().len(), below.hidden)?;
                    let at = part.add(id, Some(Box::new(partial)), &[part.own[&input]]);
                    part.fragment.send_out(at, self.edge(input, id));
                }
                if self.stage_of[id] == stage {
                    let at = part.add(id, Some(owner(aggregate, None, node)?), &[]);
                    part.fragment.set_lineage(at, self.lineages[input]);
                    part.edges.insert(self.edge(input, id), at);
                    part.own.insert(id, at);
                }
                continue;
            }
            // Rows that a later stage reads leave here.
            for &input in &node.inputs {
                if self.stage_of[input] == stage && stage < self.stage_of[id] {
                    part.fragment.send_out(part.own[&input], self.edge(input, id));
                }
            }
            if self.stage_of[id] != stage {
                continue;
            }
            let inputs: Vec<usize> = node
                .inputs
                .iter()
                .map(|&input| match part.own.get(&input) {
                    Some(&at) => at,
                    None => {
                        let at = part.add(id, None, &[]);
                        part.fragment.set_lineage(at, self.lineages[input]);
                        part.edges.insert(self.edge(input, id), at);
                        at
                    }
                })
                .collect();
            if let Op::Sink(_) = &node.op {
                let sink = self.sinks.iter().position(|&s| s == id).unwrap_or_default();
                let at = part.add(id, None, &inputs);
                part.fragment.set_sink(at);
                part.fragment.send_out(at, self.edges.len() + sink);
                continue;
            }
            let at = part.add(id, self.operator(id)?, &inputs);
            if node.inputs.is_empty() {
                part.sources.insert(id, at);
            }
            part.own.insert(id, at);
        }
        Ok(part)
    }

    fn operator(&self, id: NodeId) -> Result<Option<Box<dyn Operator>>> {
        let node = &self.plan.nodes[id];
        let below = node.inputs.first().map(|&input| &self.plan.nodes[input]);
        Ok(match (&node.op, below) {
            (Op::Transform(steps), Some(below)) => Some(Box::new(Transform::new(steps, &below.visible, below.hidden))),
            (Op::Windows(windows), Some(below)) => {
                Some(Box::new(RepeatWindows::new(windows, &below.visible, &node.visible, below.hidden)))
            }
            (Op::Aggregate(aggregate), Some(below)) => Some(owner(aggregate, Some(below), node)?),
            (Op::Sessions(sessions), Some(below)) => {
                let (input, output) = (&below.visible, &node.visible);
                Some(Box::new(SessionRows::new(sessions, input, output, below.hidden, node.hidden)?))
            }
            (Op::PerWindow(work), _) => {
                let inputs = node.inputs.iter().map(|&input| &self.plan.nodes[input]);
                let inputs: Vec<_> = inputs.map(|below| (below.visible.fields().len(), below.hidden)).collect();
                Some(Box::new(PerWindow::new(work, &inputs, &node.visible, node.hidden)?))
            }
            _ => None,
        })
    }

    fn edge(&self, from: NodeId, to: NodeId) -> usize {
        self.edges.iter().position(|e| e.from == from && e.to == to).expect("every crossing has an edge")
    }
}
