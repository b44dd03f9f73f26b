//! A job without threads, brokers and a clock of its own: the operators of a stream plan, driven by hand.
//!
//! The same topology, fragments and source stages that threads run; only what lies between them is replaced. Records are
//! handed in, messages between workers wait in queues until they are delivered, a boundary is called by whoever drives,
//! with the clock it says. So a run is deterministic; and every cut into batches, every interleaving and every number of
//! workers that threads could come to can be tried out, which is what `choose` is for: it picks one of so many.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeBounds;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::clock;
use super::exchange::deal;
use super::launch::{fixed_rows, watermark_advances};
use super::outlets::check_not_null;
#[cfg(test)]
use super::state::StoredState;
use super::topology::{Part, Topology};
use super::worker::{Fixed, with_hidden};
use crate::connectors::{PartitionId, SourceRows};
use crate::error::{Error, Result};
use crate::exec::{Boundary, Outlet, Outlets, Output, Rejected, SourceStage};
#[cfg(test)]
use crate::exec::{Counts, Memory};
use crate::plan::{NodeId, Op, SourceNode, StreamPlan};
use crate::state::Piece;
#[cfg(test)]
use crate::state::{Spill, SpillSpace};
use crate::time::{Progress, TimeMs, WATERMARK_MAX};

/// Picks one of so many: which message is delivered next, which worker goes first.
pub type Choose<'a> = &'a mut dyn FnMut(usize) -> usize;

/// See the module's head.
pub struct Rehearsal {
    plan: Arc<StreamPlan>,
    topology: Topology,
    /// By stage and worker.
    parts: Vec<Vec<Part>>,
    /// In the order of the plan.
    sources: Vec<RehearsedSource>,
    /// By stage, receiver and sender: what is under way, with the edge it takes.
    channels: BTreeMap<(usize, usize, usize), VecDeque<(usize, RecordBatch)>>,
    given: Given,
    bad: u64,
}

/// A source of the plan.
struct RehearsedSource {
    node: NodeId,
    /// By worker: the entry of its part of the graph, and its stage.
    stages: Vec<(usize, SourceStage)>,
    #[cfg(test)]
    partitions: usize,
}

/// What has come out since it was last taken.
#[derive(Default)]
pub struct Given {
    /// Rows for sinks with the sink's number, in the order in which they left; what is hidden is still behind them.
    pub rows: Vec<(usize, RecordBatch)>,
    /// Rows that were turned away and are wanted somewhere, with the number of the sink that they would have led to.
    pub rejected: Vec<(Option<usize>, Rejected)>,
    /// What a checkpoint gave out: nodes of the plan, and pieces of their state.
    pub state: Vec<(NodeId, Piece)>,
}

impl Rehearsal {
    /// A job over sources with so many partitions each, in the order of the plan. Rows that read no stream are there at
    /// once.
    pub fn new(plan: Arc<StreamPlan>, partitions: &[usize], workers: usize, clock_ms: TimeMs) -> Result<Self> {
        let mut rehearsal = Self::empty(plan, partitions, workers)?;
        clock::set_worker_clock(clock_ms);
        for Fixed { entry, hidden, batches, .. } in fixed_rows(&rehearsal.plan, &rehearsal.parts[0][0].sources)? {
            for batch in batches {
                let batch = with_hidden(&batch, hidden)?;
                rehearsal.work(0, 0, |part, out| part.fragment.on_batch(entry, batch, out))?;
            }
        }
        // The planner computed those by the wall clock.
        clock::set_worker_clock(clock_ms);
        Ok(rehearsal)
    }

    /// A job that goes on from what another one has given out at its checkpoints, with the clock of the last one.
    #[cfg(test)]
    pub fn restored(
        plan: Arc<StreamPlan>,
        partitions: &[usize],
        workers: usize,
        clock_ms: TimeMs,
        state: StoredState,
        spill: Option<(&Arc<SpillSpace>, usize)>,
    ) -> Result<Self> {
        let mut rehearsal = Self::empty(plan, partitions, workers)?;
        if let Some((space, whole_bytes)) = spill {
            rehearsal.set_memory(space, whole_bytes);
        }
        let of_all = spill.map(|(space, whole_bytes)| Spill::new(space, whole_bytes));
        let mut state = state.deal(&rehearsal.topology, of_all.as_deref())?;
        for stage in &mut rehearsal.parts {
            for (worker, part) in stage.iter_mut().enumerate() {
                state.restore(part, worker)?;
            }
        }
        clock::set_worker_clock(clock_ms);
        Ok(rehearsal)
    }

    /// From now on all state goes to disk whenever that is possible.
    #[cfg(test)]
    pub fn set_memory(&mut self, space: &Arc<SpillSpace>, whole_bytes: usize) {
        for part in self.parts.iter_mut().flatten() {
            part.fragment.set_memory(Memory::none(space, whole_bytes));
        }
    }

    fn empty(plan: Arc<StreamPlan>, partitions: &[usize], workers: usize) -> Result<Self> {
        let topology = Topology::new(Arc::clone(&plan), workers);
        let mut parts = Vec::new();
        for stage in 0..topology.stages() {
            parts.push((0..workers).map(|_| topology.part(stage)).collect::<Result<Vec<_>>>()?);
        }
        let mut sources = Vec::new();
        for (node, source) in sources_of(&plan) {
            let Some(&count) = partitions.get(sources.len()) else {
                return Err(Error::bug(format!("how many partitions has {}?", source.table.name)));
            };
            let stages = (0..workers).map(|worker| {
                let entry = parts[0][worker].sources[&node];
                Ok((entry, source_stage(&plan, node, source, count, worker, workers)?))
            });
            sources.push(RehearsedSource {
                node,
                stages: stages.collect::<Result<_>>()?,
                #[cfg(test)]
                partitions: count,
            });
        }
        let channels = BTreeMap::new();
        Ok(Self { plan, topology, parts, sources, channels, given: Given::default(), bad: 0 })
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<StreamPlan> {
        &self.plan
    }

    /// The node of the plan that is a source, and what it reads.
    pub fn source(&self, source: usize) -> (NodeId, &SourceNode) {
        let node = self.sources[source].node;
        let Op::Source(source) = &self.plan.nodes[node].op else { unreachable!("a source") };
        (node, source)
    }

    /// The nodes of the plan that are sinks.
    pub fn sinks(&self) -> &[NodeId] {
        self.topology.sinks()
    }

    /// Hands in records of a partition, in the order of their offsets.
    pub fn read(&mut self, source: usize, partition: usize, rows: &SourceRows) -> Result<()> {
        let worker = partition % self.topology.workers();
        let (entry, stage) = self.stage_of(source, partition);
        let mut out = Output::default();
        let fate = stage.on_rows(partition, rows, &mut out)?;
        self.bad += rows.bad + fate.skipped + fate.dead_lettered;
        self.given.rejected.extend(out.rejected.into_iter().map(|rejected| (None, rejected)));
        for batch in out.batches {
            self.work(0, worker, |part, out| part.fragment.on_batch(entry, batch, out))?;
        }
        Ok(())
    }

    /// The stage that reads a partition.
    pub fn stage(&mut self, source: usize, partition: usize) -> &mut SourceStage {
        self.stage_of(source, partition).1
    }

    fn stage_of(&mut self, source: usize, partition: usize) -> (usize, &mut SourceStage) {
        let worker = partition % self.topology.workers();
        let (entry, stage) = &mut self.sources[source].stages[worker];
        (*entry, stage)
    }

    /// A source has one partition more, from the next boundary on.
    #[cfg(test)]
    pub fn find(&mut self, source: usize) {
        let (number, topic) = (self.sources[source].partitions, self.source(source).1.table.name.as_str().into());
        let id = PartitionId { topic, partition: i32::try_from(number).unwrap_or(i32::MAX) };
        let source = &mut self.sources[source];
        source.partitions += 1;
        let owner = number % source.stages.len();
        for (worker, (_, stage)) in source.stages.iter_mut().enumerate() {
            stage.add(id.clone(), worker == owner);
        }
    }

    /// A source that is asleep was empty when the job began: see [`SourceStage::set_asleep`].
    #[cfg(test)]
    pub fn set_asleep(&mut self, source: usize, is_asleep: bool) {
        self.sources[source].stages.iter_mut().for_each(|(_, stage)| stage.set_asleep(is_asleep));
    }

    /// Delivers a message of some channel into these stages; `false` when none is under way.
    pub fn deliver(&mut self, stages: impl RangeBounds<usize>, choose: Choose<'_>) -> Result<bool> {
        let waiting = self.channels.iter().filter(|((stage, ..), queue)| stages.contains(stage) && !queue.is_empty());
        let waiting: Vec<_> = waiting.map(|(at, _)| *at).collect();
        if waiting.is_empty() {
            return Ok(false);
        }
        let at = waiting[choose(waiting.len())];
        if let Some((edge, batch)) = self.channels.get_mut(&at).and_then(VecDeque::pop_front) {
            self.work(at.0, at.1, |part, out| part.fragment.on_batch(part.edges[&edge], batch, out))?;
        }
        Ok(true)
    }

    /// Calls a boundary; answers the least watermark of the sinks, if any told one.
    pub fn boundary(&mut self, boundary: &Boundary, choose: Choose<'_>) -> Result<Option<TimeMs>> {
        let workers = self.topology.workers();
        let mut reached: Option<Progress> = None;
        let mut of_edges: Vec<(usize, Progress)> = Vec::new();
        for stage in 0..self.topology.stages() {
            while self.deliver(stage..=stage, choose)? {}
            let mut left: Vec<usize> = (0..workers).collect();
            let mut told = Vec::new();
            while !left.is_empty() {
                let worker = left.swap_remove(choose(left.len()));
                let mut entries: Vec<(usize, Progress)> = Vec::new();
                if stage == 0 {
                    entries.extend(self.progress(worker, boundary.clock_ms));
                }
                let edges = &self.parts[stage][worker].edges;
                entries.extend(of_edges.iter().filter_map(|(edge, p)| Some((*edges.get(edge)?, *p))));
                for (outlet, progress) in
                    self.work(stage, worker, |part, out| part.fragment.on_boundary(boundary, &entries, out))?
                {
                    match self.topology.sink_of(outlet) {
                        Some(_) => reached = Some(reached.map_or(progress, |other| other.and(progress))),
                        None => told.push((outlet, progress)),
                    }
                }
            }
            of_edges.extend(told);
        }
        clock::set_worker_clock(boundary.clock_ms);
        Ok(reached.map(|(Progress::Active(watermark) | Progress::Idle { reached: watermark, .. })| watermark))
    }

    /// How far the entries of a worker of stage 0 have come. Sources that it has no share of, and rows that were computed
    /// once, hold nothing back.
    fn progress(&mut self, worker: usize, clock_ms: i64) -> Vec<(usize, Progress)> {
        let sources = &mut self.sources;
        let of_node = |(node, &entry): (&NodeId, &usize)| {
            let source = sources.iter_mut().find(|source| source.node == *node);
            let stage = source.map(|source| &mut source.stages[worker].1);
            (entry, stage.map_or(Progress::Active(WATERMARK_MAX), |stage| stage.progress(clock_ms)))
        };
        self.parts[0][worker].sources.iter().map(of_node).collect()
    }

    /// What has come out since the last time.
    pub fn take(&mut self) -> Given {
        std::mem::take(&mut self.given)
    }

    /// Records that gave no row, where their tables say to skip those.
    #[cfg(test)]
    pub fn bad(&self) -> u64 {
        self.bad
    }

    /// What has become of records, for all sinks together.
    #[cfg(test)]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.counts_by_sink().into_iter().for_each(|of_sink| counts.add(of_sink));
        counts
    }

    /// What has become of records, per sink.
    #[cfg(test)]
    pub fn counts_by_sink(&self) -> Vec<Counts> {
        let mut counts = vec![Counts::default(); self.sinks().len()];
        for part in self.parts.iter().flatten() {
            for (&node, of_node) in part.nodes.iter().zip(part.fragment.report()) {
                if let Some(sink) = self.topology.statement_of(node) {
                    counts[sink].add(of_node.counts);
                }
            }
        }
        counts
    }

    /// How often each sink's statement reads each source.
    #[cfg(test)]
    pub fn reads(&self) -> Vec<Vec<u64>> {
        let layout = super::launch::metrics_layout(&self.plan, &self.topology);
        layout.statements.into_iter().map(|statement| statement.reads).collect()
    }

    /// Something that a worker does, and what comes of it: how far its outlets have come.
    fn work(
        &mut self,
        stage: usize,
        worker: usize,
        f: impl FnOnce(&mut Part, &mut dyn Outlets) -> Result<()>,
    ) -> Result<Vec<(Outlet, Progress)>> {
        let Self { plan, topology, channels, given, .. } = self;
        let nodes = self.parts[stage][worker].nodes.clone();
        let mut taken = Taken { plan, topology, nodes, worker, channels, given, progress: Vec::new() };
        f(&mut self.parts[stage][worker], &mut taken)?;
        Ok(taken.progress)
    }
}

/// The sources of a plan, in its order.
pub fn sources_of(plan: &StreamPlan) -> impl Iterator<Item = (NodeId, &Arc<SourceNode>)> {
    plan.nodes.iter().enumerate().filter_map(|(id, node)| match &node.op {
        Op::Source(source) => Some((id, source)),
        _ => None,
    })
}

/// A worker's stage of a source.
fn source_stage(
    plan: &StreamPlan,
    node: NodeId,
    source: &Arc<SourceNode>,
    partitions: usize,
    worker: usize,
    workers: usize,
) -> Result<SourceStage> {
    let share: Vec<usize> = (0..partitions).filter(|p| p % workers == worker).collect();
    let id = |partition| PartitionId { topic: source.table.name.as_str().into(), partition };
    let ids: Vec<_> = (0..).take(partitions).map(id).collect();
    let advance = watermark_advances(&source.table)?;
    let from = &plan.nodes[node];
    Ok(SourceStage::new(Arc::clone(source), &from.visible, from.hidden, &ids, share, advance))
}

/// Takes the output of a worker.
struct Taken<'a> {
    plan: &'a StreamPlan,
    topology: &'a Topology,
    /// Per node of the fragment, the plan's.
    nodes: Vec<NodeId>,
    worker: usize,
    channels: &'a mut BTreeMap<(usize, usize, usize), VecDeque<(usize, RecordBatch)>>,
    given: &'a mut Given,
    progress: Vec<(Outlet, Progress)>,
}

impl Taken<'_> {
    fn send(&mut self, stage: usize, to: usize, edge: usize, batch: RecordBatch) {
        self.channels.entry((stage, to, self.worker)).or_default().push_back((edge, batch));
    }
}

impl Outlets for Taken<'_> {
    fn rows(&mut self, outlet: Outlet, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if let Some(sink) = self.topology.sink_of(outlet) {
            if let Op::Sink(node) = &self.plan.nodes[self.topology.sinks()[sink]].op {
                check_not_null(&batch, &node.not_null)?;
            }
            self.given.rows.push((sink, batch));
            return Ok(());
        }
        let edge = &self.topology.edges()[outlet];
        for (to, part) in deal(&edge.kind, batch, self.worker, self.topology.workers())? {
            self.send(edge.to_stage, to, outlet, part);
        }
        Ok(())
    }

    fn progress(&mut self, outlet: Outlet, progress: Progress) {
        self.progress.push((outlet, progress));
    }

    fn rejected(&mut self, node: usize, rejected: Vec<Rejected>) -> Result<()> {
        let sink = self.topology.statement_of(self.nodes[node]);
        self.given.rejected.extend(rejected.into_iter().map(|rejected| (sink, rejected)));
        Ok(())
    }

    fn state(&mut self, node: usize, piece: Piece) {
        self.given.state.push((self.nodes[node], piece));
    }
}
