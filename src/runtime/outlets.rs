//! Where a worker's output goes: to workers of later stages, and to the sinks.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int8Type;
use crossbeam_channel::Sender;

use super::clock;
use super::commit::CommitMessage;
use super::exchange::{Message, deal, send};
use super::metrics::{WorkerNode, WorkerReport};
use super::rejects::RejectLanes;
use super::shared::Shared;
use super::topology::{Part, Topology};
use crate::connectors::{SinkEncoder, SinkRows};
use crate::error::{Error, Result};
use crate::exec::{Boundary, NodeReport, Outlet, Outlets, Rejected};
use crate::plan::NodeId;
use crate::state::Piece;
use crate::time::{Progress, TimeMs, WATERMARK_MAX};

/// Where a worker's output goes.
pub struct WorkerOutlets {
    pub shared: Arc<Shared>,
    pub topology: Arc<Topology>,
    pub stage: usize,
    pub worker: usize,
    /// Per later stage that this one has edges to, the channels to its workers.
    pub stages: Vec<(usize, Vec<Sender<Message>>)>,
    /// Per sink of the plan, how its rows leave.
    pub sinks: Vec<SinkLane>,
    /// To the committing thread, if this stage feeds sinks or its state is kept.
    pub commit: Option<Sender<CommitMessage>>,
    /// The ways out for rows that are turned away.
    pub rejects: Arc<RejectLanes>,
    /// Per node of the worker's fragment, the statement whose it is.
    pub statements: Vec<Option<usize>>,
    /// Per node of the worker's fragment, the plan's.
    pub nodes: Vec<NodeId>,
    /// What operators have given out at the boundary at hand.
    pub state: Vec<(NodeId, Piece)>,
    /// The progress of edges at the boundary at hand.
    pub progress: Vec<(usize, Progress)>,
    /// Per sink, its watermark at the boundary at hand; the end of time where this worker does not feed it.
    pub reached: Vec<TimeMs>,
}

impl Outlets for WorkerOutlets {
    fn rows(&mut self, outlet: Outlet, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if let Some(sink) = self.topology.sink_of(outlet) {
            return self.write(sink, &batch);
        }
        let edge = &self.topology.edges()[outlet];
        let channels = self.stages.iter().find(|(stage, _)| *stage == edge.to_stage).map(|(_, c)| c);
        let Some(channels) = channels else { return Err(Error::bug("an edge without channels")) };
        for (to, part) in deal(&edge.kind, batch, self.worker, channels.len())? {
            send(&channels[to], Message::Batch(outlet, part), &self.shared)?;
        }
        Ok(())
    }

    fn progress(&mut self, outlet: Outlet, progress: Progress) {
        let Some(sink) = self.topology.sink_of(outlet) else {
            self.progress.push((outlet, progress));
            return;
        };
        let (Progress::Active(reached) | Progress::Idle { reached, .. }) = progress;
        self.reached[sink] = self.reached[sink].min(reached);
    }

    fn state(&mut self, node: usize, piece: Piece) {
        self.state.push((self.nodes[node], piece));
    }

    fn rejected(&mut self, node: usize, rejected: Vec<Rejected>) -> Result<()> {
        self.turn_away(self.statements[node], rejected)
    }
}

impl WorkerOutlets {
    /// Sends rows that were turned away to the topics of such rows, if their tables have any. `statement` is the one that
    /// they are no good to; without it they are no good to anybody.
    pub fn turn_away(&mut self, statement: Option<usize>, rejected: Vec<Rejected>) -> Result<()> {
        if rejected.is_empty() {
            return Ok(());
        }
        let Some(commit) = &self.commit else { return Err(Error::bug("a topic without a committing thread")) };
        for (topic, rows) in self.rejects.encode(statement, &rejected) {
            send(commit, CommitMessage::Rejected(topic, rows), &self.shared)?;
        }
        Ok(())
    }

    fn write(&mut self, sink: usize, batch: &RecordBatch) -> Result<()> {
        let rows = self.sinks[sink].encode(batch)?;
        let Some(commit) = &self.commit else { return Err(Error::bug("a sink without a committing thread")) };
        send(commit, CommitMessage::Rows(sink, rows, batch.num_rows()), &self.shared)
    }

    /// Sends a boundary on, behind everything before it.
    pub fn boundary(&mut self, boundary: &Boundary) -> Result<()> {
        let progress = std::mem::take(&mut self.progress);
        for (stage, channels) in &self.stages {
            let of_stage = |(edge, _): &&(usize, Progress)| self.topology.edges()[*edge].to_stage == *stage;
            let of_stage: Vec<_> = progress.iter().filter(of_stage).copied().collect();
            for channel in channels {
                send(channel, Message::Boundary(*boundary, of_stage.clone()), &self.shared)?;
            }
        }
        let Some(commit) = &self.commit else { return Ok(()) };
        if boundary.checkpoint.is_some() {
            send(commit, CommitMessage::State(std::mem::take(&mut self.state)), &self.shared)?;
        }
        send(commit, CommitMessage::Boundary(*boundary), &self.shared)
    }

    /// Says how the worker is.
    pub fn report(&mut self, part: &Part) {
        let sinks = self.topology.sinks();
        let reached = std::mem::replace(&mut self.reached, vec![WATERMARK_MAX; sinks.len()]);
        let of_node = |(at, report): (usize, NodeReport)| {
            let (node, statement) = (part.nodes[at], self.statements[at]);
            // What only hands on what another stage has sent is not the node itself.
            let is_inlet = report.is_passage && part.edges.values().any(|&inlet| inlet == at);
            (!is_inlet).then(|| WorkerNode { node, statement, is_sink: sinks.contains(&node), report })
        };
        let nodes = part.fragment.report().enumerate().filter_map(of_node).collect();
        let report = WorkerReport { nodes, reached, waited: clock::waited() };
        self.shared.metrics.report(self.stage, self.worker, report);
    }
}

/// How rows leave for one sink.
pub struct SinkLane {
    /// The sink's encoder.
    pub encoder: Box<dyn SinkEncoder>,
    /// The number of the sink's columns: what rows carry behind them ends here.
    pub visible: usize,
    /// The column of the rows' kinds, if they are a changelog.
    pub kind: Option<usize>,
    /// The columns that may not be null.
    pub not_null: Vec<usize>,
}

impl SinkLane {
    /// Encodes a batch, once it is known that its columns have the values they must have.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<SinkRows> {
        check_not_null(batch, &self.not_null)?;
        if batch.num_columns() == self.visible {
            return self.encoder.encode(batch, None);
        }
        let kinds = self.kind.map(|kind| batch.column(kind).as_primitive::<Int8Type>());
        let columns: Vec<usize> = (0..self.visible).collect();
        self.encoder.encode(&batch.project(&columns)?, kinds)
    }
}

/// The columns of a sink that may not be null are not.
pub fn check_not_null(batch: &RecordBatch, columns: &[usize]) -> Result<()> {
    for &column in columns {
        if batch.column(column).null_count() > 0 {
            let name = batch.schema().field(column).name().clone();
            return Err(Error::data(format!("column {name} is NOT NULL in the sink, and a row has no value for it"))
                .hint(format!("leave such rows out with WHERE {name} IS NOT NULL, or give a value with COALESCE")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int8Array, Int64Array};

    use super::*;
    use crate::runtime::commit::AsTheyAre;

    #[test]
    fn what_rows_carry_behind_their_columns_ends_at_the_sink_and_their_kinds_are_heard() {
        let columns: [(&str, ArrayRef); 3] = [
            ("n", Arc::new(Int64Array::from(vec![7, 8]))),
            ("__tidemill_watermark", Arc::new(Int64Array::from(vec![0, 0]))),
            ("__tidemill_kind", Arc::new(Int8Array::from(vec![1, 2]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        for (kind, want) in [(None, &["n"][..]), (Some(2), &["op", "n"])] {
            let mut lane = SinkLane { encoder: Box::new(AsTheyAre), visible: 1, kind, not_null: vec![0] };
            let SinkRows::Batch(rows) = lane.encode(&batch).unwrap() else { panic!("encoded") };
            let names: Vec<_> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
            assert_eq!(names, want);
            assert_eq!(rows.column(want.len() - 1), batch.column(0));
        }
    }
}
