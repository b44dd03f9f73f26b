//! From optimized logical plans to a stream plan.

mod expressions;
mod per_window;
mod sources;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;

use super::aggregate::{WindowAggregate, reads_stream};
use super::context::{Planner, ScannedTable};
use super::per_window::PerWindow;
use super::sink::{check_patterns, check_takes_changes};
use super::stream::{Hidden, Node, NodeId, Op, SinkNode, SourceNode, Step, StreamPlan};
use super::windows::AssignWindows;
use crate::catalog::Table;
use crate::connectors::{Keep, OnError, Rejects};
use crate::error::{Error, Result};
use expressions::{column, is_ordered, physical, plain};

pub(super) use expressions::{ORDERED, in_order};

impl Planner<'_> {
    /// The stream plan of one job: each query, already continuous, with the sink it feeds. Tables are read once,
    /// however many queries read them.
    pub fn lower(&self, queries: Vec<(LogicalPlan, SinkNode)>) -> Result<StreamPlan> {
        let mut lowering = Lowering::over(self);
        lowering.writes = queries.iter().any(|(_, sink)| sink.table.is_some());
        for (plan, _) in &queries {
            lowering.note_needs(plan)?;
        }
        lowering.note_rejects();
        for (plan, sink) in queries {
            let input = lowering.node(&plan, Bounds::Repeat { judge: None })?;
            let visible = Arc::clone(&lowering.nodes[input].visible);
            if let Some(table) = sink.table.as_ref().filter(|_| lowering.nodes[input].hidden.kind) {
                check_takes_changes(table)?;
            }
            lowering.push(Op::Sink(sink), vec![input], visible, Hidden::default());
        }
        let plan = StreamPlan { nodes: lowering.nodes };
        check_patterns(&plan)?;
        Ok(plan)
    }

    /// How some columns of a table are read, by their indices.
    pub(super) fn source_node(&self, table: &Arc<Table>, wanted: &BTreeSet<usize>) -> Result<Arc<SourceNode>> {
        let mut lowering = Lowering::over(self);
        let node = lowering.source(table, wanted)?;
        match lowering.nodes.swap_remove(node).op {
            Op::Source(source) => Ok(source),
            _ => Err(Error::bug("a source that is none")),
        }
    }
}

struct Lowering<'a> {
    planner: &'a Planner<'a>,
    nodes: Vec<Node>,
    /// Per table: the columns that any query wants, and its node once it is made.
    sources: BTreeMap<String, (BTreeSet<usize>, Option<NodeId>)>,
    /// Per table that windows are over: whether that is processing time.
    by_clock: BTreeMap<String, bool>,
    /// Per table, what becomes of records that cannot be used.
    rejects: BTreeMap<String, Rejects>,
    /// Whether rows go to tables, rather than to whoever asked.
    writes: bool,
    /// What every row carries from its source on.
    hidden: Hidden,
}

/// What an aggregate above wants of a window function below.
#[derive(Clone, Copy)]
enum Bounds {
    /// Rows once, with empty bounds: the aggregate works on slices.
    Slices,
    /// Rows once per window, with bounds.
    Repeat {
        /// Whether to drop rows that are late for their window, and by how much more they may be.
        judge: Option<i64>,
    },
}

impl<'a> Lowering<'a> {
    fn over(planner: &'a Planner<'a>) -> Self {
        Self {
            planner,
            nodes: Vec::new(),
            sources: BTreeMap::new(),
            by_clock: BTreeMap::new(),
            rejects: BTreeMap::new(),
            writes: false,
            hidden: Hidden::default(),
        }
    }

    /// Collects the columns that the plans want of each table, and what their rows must carry.
    fn note_needs(&mut self, plan: &LogicalPlan) -> Result<()> {
        let mut needs = self.hidden;
        let Self { sources, by_clock, rejects, writes, .. } = self;
        let mut conflict = None;
        plan.apply(|node| {
            match node {
                LogicalPlan::TableScan(scan) => {
                    let all = 0..scan.source.schema().fields().len();
                    let wanted = scan.projection.clone().unwrap_or_else(|| all.collect());
                    let name = scan.table_name.table();
                    sources.entry(name.to_owned()).or_default().0.extend(wanted);
                    if let Some(source) = scan.source.downcast_ref::<ScannedTable>() {
                        let all = Rejects::of(&source.table).map_err(|e| DataFusionError::External(Box::new(e)))?;
                        rejects.insert(name.to_owned(), if *writes { all } else { all.without_topics() });
                    }
                }
                LogicalPlan::Extension(extension) => {
                    if let Some(aggregate) = extension.node.as_any().downcast_ref::<WindowAggregate>() {
                        needs.watermark = true;
                        needs.tie |= aggregate.aggregates.iter().any(is_ordered);
                    }
                    if let Some(windows) = extension.node.as_any().downcast_ref::<AssignWindows>() {
                        needs.watermark |= windows.windows.sliced().is_none();
                        let is_clock = windows.is_over_processing_time();
                        for table in tables_of_rows(&windows.input) {
                            if *by_clock.entry(table.clone()).or_insert(is_clock) != is_clock {
                                conflict = Some(table);
                            }
                        }
                    }
                    if let Some(work) = extension.node.as_any().downcast_ref::<PerWindow>() {
                        needs.watermark = true;
                        needs.tie |= work.is_ordered();
                    }
                }
                _ => {}
            }
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        })?;
        self.hidden = needs;
        match conflict {
            Some(table) => Err(Error::statement(format!(
                "windows over both the event time and the processing time of {table} in one job"
            ))
            .hint("write two INSERT statements that are jobs of their own")),
            None => Ok(()),
        }
    }

    /// Rows carry where they come from if some of them may be turned away on the way, and their records if those are
    /// wanted then.
    fn note_rejects(&mut self) {
        self.hidden.tie |= self.rejects.values().any(|r| r.on_error != OnError::Fail || r.late_topic.is_some());
        self.hidden.raw = self.rejects.values().any(|r| self.keep(r) != Keep::Nothing);
    }

    fn keep(&self, rejects: &Rejects) -> Keep {
        match Keep::of(rejects) {
            // No row is late for anything.
            Keep::Disordered if !self.hidden.watermark => Keep::Nothing,
            keep => keep,
        }
    }

    fn push(&mut self, op: Op, inputs: Vec<NodeId>, visible: SchemaRef, hidden: Hidden) -> NodeId {
        self.nodes.push(Node { op, inputs, visible, hidden });
        self.nodes.len() - 1
    }

    fn node(&mut self, plan: &LogicalPlan, bounds: Bounds) -> Result<NodeId> {
        if !reads_stream(plan)? {
            return Ok(self.push(Op::Static(Box::new(plan.clone())), vec![], plain(plan.schema()), self.hidden));
        }
        match plan {
            LogicalPlan::SubqueryAlias(alias) => self.node(&alias.input, bounds),
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Filter(filter) => {
                let input = self.node(&filter.input, bounds)?;
                let predicate = physical(&filter.predicate, filter.input.schema())?;
                self.step(input, Step::Filter(predicate))
            }
            LogicalPlan::Projection(projection) => {
                let input = self.node(&projection.input, bounds)?;
                let exprs =
                    projection.expr.iter().map(|e| physical(e, projection.input.schema())).collect::<Result<_>>()?;
                self.step(input, Step::Project(exprs, plain(&projection.schema)))
            }
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|i| self.node(i, bounds)).collect::<Result<Vec<_>>>()?;
                let visible = plain(&union.schema);
                let of_inputs = inputs.iter().map(|&i| self.nodes[i].hidden);
                let hidden = of_inputs.reduce(Hidden::common).unwrap_or(self.hidden);
                // Branches may differ in the names of their columns, where the union's count, and in what is hidden.
                let branches = inputs.into_iter().zip(0..).map(|(input, branch)| {
                    let input = self.conformed(input, &visible, hidden)?;
                    if hidden.tie { self.step(input, Step::Branch(branch)) } else { Ok(input) }
                });
                let branches = branches.collect::<Result<_>>()?;
                Ok(self.push(Op::Union, branches, visible, hidden))
            }
            LogicalPlan::Extension(extension) => {
                if let Some(windows) = extension.node.as_any().downcast_ref::<AssignWindows>() {
                    self.windows(windows, bounds)
                } else if let Some(aggregate) = extension.node.as_any().downcast_ref::<WindowAggregate>() {
                    self.aggregate(aggregate)
                } else if let Some(work) = extension.node.as_any().downcast_ref::<PerWindow>() {
                    self.per_window(work)
                } else {
                    Err(Error::bug(format!("no operator for {}", extension.node.name())))
                }
            }
            other => Err(Error::statement(format!("{} is not available on a stream", other.display()))),
        }
    }

    /// Adds a stateless step, to the node below if that is one of steps and nobody else reads it.
    fn step(&mut self, input: NodeId, step: Step) -> Result<NodeId> {
        let Node { visible, hidden, .. } = &self.nodes[input];
        let (visible, hidden) = match &step {
            Step::Filter(_) => (Arc::clone(visible), *hidden),
            Step::Project(_, schema) => (Arc::clone(schema), *hidden),
            Step::Conform(hidden) => (Arc::clone(visible), *hidden),
            Step::Branch(_) => (Arc::clone(visible), *hidden),
        };
        if input + 1 == self.nodes.len()
            && let Op::Transform(steps) = &mut self.nodes[input].op
        {
            steps.push(step);
            self.nodes[input].visible = visible;
            self.nodes[input].hidden = hidden;
            return Ok(input);
        }
        Ok(self.push(Op::Transform(vec![step]), vec![input], visible, hidden))
    }

    fn conformed(&mut self, mut input: NodeId, to: &SchemaRef, hidden: Hidden) -> Result<NodeId> {
        let from = Arc::clone(&self.nodes[input].visible);
        if &from != to {
            let exprs = (0..from.fields().len()).map(|i| column(from.field(i).name(), i)).collect();
            input = self.step(input, Step::Project(exprs, Arc::clone(to)))?;
        }
        if self.nodes[input].hidden != hidden {
            input = self.step(input, Step::Conform(hidden))?;
        }
        Ok(input)
    }

    /// Refuses a changelog where final rows are needed.
    fn check_final(&self, input: NodeId, who: &str) -> Result<()> {
        if !self.nodes[input].hidden.kind {
            return Ok(());
        }
        Err(Error::statement(format!("{who} needs final rows, and those below change after they were given out"))
            .hint("leave the EMIT clause (and 'table.exec.emit.allow-lateness') out"))
    }

    /// Gives rows these hidden columns.
    fn hide(&mut self, input: NodeId, hidden: Hidden) -> Result<NodeId> {
        if self.nodes[input].hidden == hidden { Ok(input) } else { self.step(input, Step::Conform(hidden)) }
    }
}

/// The tables whose rows a plan passes on one by one.
fn tables_of_rows(plan: &LogicalPlan) -> Vec<String> {
    match plan {
        LogicalPlan::TableScan(scan) => vec![scan.table_name.table().to_owned()],
        LogicalPlan::Extension(extension) if !extension.node.as_any().is::<AssignWindows>() => vec![],
        other => other.inputs().into_iter().flat_map(tables_of_rows).collect(),
    }
}
