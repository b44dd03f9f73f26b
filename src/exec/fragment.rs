//! The part of a plan's graph that one worker runs: operators, and where their rows go.

use std::time::Duration;

use arrow::array::RecordBatch;

use super::memory::Memory;
use super::{Boundary, Counts, Lineage, Operator, Output, Rejected, StateSize};
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
    work: Work,
}

/// What a node has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Rows that it took.
    pub rows_in: u64,
    /// Rows that it gave out.
    pub rows_out: u64,
    /// The batches that it took.
    pub batches: u64,
    /// What that took: its operator, and handing rows to the outlets behind it. By the fragment's timer.
    pub time: Duration,
}

impl Work {
    /// Adds what another node has done.
    pub fn add(&mut self, other: Self) {
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.batches += other.batches;
        self.time += other.time;
    }
}

/// How a node is.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeReport {
    /// What has happened to records there.
    pub counts: Counts,
    /// What it has done.
    pub work: Work,
    /// What it keeps.
    pub state: StateSize,
    /// It hands on rows as they are.
    pub is_passage: bool,
}

/// Tells a time, for differences only.
pub type Timer = fn() -> Duration;

/// A graph of operators; a node's inputs come before it.
#[derive(Default)]
pub struct Fragment {
    nodes: Vec<LocalNode>,
    policies: Policies,
    /// Operators read no clock; whoever runs them may lend one.
    timer: Option<Timer>,
    /// What its state may take; without it, all there is.
    memory: Option<Memory>,
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
        Self { nodes: Vec::new(), policies, timer: None, memory: None }
    }

    /// From now on it is measured how long nodes take: twice per node and batch this is called.
    pub fn set_timer(&mut self, timer: Timer) {
        self.timer = Some(timer);
    }

    /// From now on its state keeps to this share of memory. To be called before anything else, once all nodes are there.
    pub fn set_memory(&mut self, memory: Memory) {
        for operator in self.nodes.iter_mut().filter_map(|node| node.operator.as_mut()) {
            operator.set_spill(memory.spill());
        }
        self.memory = Some(memory);
    }

    /// Puts state on disk if there is too much of it.
    fn keep_to_memory(&mut self) -> Result<()> {
        let Some(memory) = &mut self.memory else { return Ok(()) };
        memory.keep(&mut self.nodes.iter_mut().filter_map(|node| node.operator.as_mut()).collect::<Vec<_>>())
    }

    fn now(&self) -> Duration {
        self.timer.map_or(Duration::ZERO, |timer| timer())
    }

    /// A node has taken so much more time than the fragment knows of: a source, which is read elsewhere.
    pub fn add_time(&mut self, node: usize, time: Duration) {
        self.nodes[node].work.time += time;
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
            work: Work::default(),
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
        if self.memory.as_mut().is_some_and(|memory| memory.is_due_after(batch.get_array_memory_size())) {
            self.keep_to_memory()?;
        }
        let before = self.now();
        let node = &mut self.nodes[id];
        node.work.rows_in += batch.num_rows() as u64;
        node.work.batches += 1;
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
        self.took_since(id, before);
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
            let before = self.now();
            if let Some(operator) = &mut self.nodes[node].operator {
                let mut out = Output::default();
                progress = operator.on_boundary(boundary, progress, &mut out)?;
                self.nodes[node].counts.add(out.counts);
                self.took_since(node, before);
                if !out.rejected.is_empty() {
                    outlets.rejected(node, out.rejected)?;
                }
                self.hand_on(node, out.batches, Lineage::Results, outlets)?;
                self.go_on(node, outlets)?;
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
        self.keep_to_memory()
    }

    /// A node gives out the rest of what a boundary has closed.
    fn go_on(&mut self, node: usize, outlets: &mut dyn Outlets) -> Result<()> {
        loop {
            let before = self.now();
            let mut out = Output::default();
            let Some(operator) = &mut self.nodes[node].operator else { return Ok(()) };
            let is_more = operator.go_on(&mut out)?;
            self.took_since(node, before);
            self.hand_on(node, out.batches, Lineage::Results, outlets)?;
            if !is_more {
                return Ok(());
            }
        }
    }

    /// A node takes up what it has given out at checkpoints, in order. To be called before anything else.
    pub fn restore(&mut self, node: usize, checkpoints: Vec<Vec<Piece>>) -> Result<()> {
        match &mut self.nodes[node].operator {
            Some(operator) => operator.restore(checkpoints),
            None => Err(Error::bug("state of a node that keeps none")),
        }
    }

    /// How each node is.
    pub fn report(&self) -> impl Iterator<Item = NodeReport> + '_ {
        self.nodes.iter().map(|node| NodeReport {
            counts: node.counts,
            work: node.work,
            state: node.operator.as_ref().map_or_else(StateSize::default, |operator| operator.state_size()),
            is_passage: node.operator.is_none(),
        })
    }

    fn hand_on(
        &mut self,
        node: usize,
        batches: Vec<RecordBatch>,
        lineage: Lineage,
        outlets: &mut dyn Outlets,
    ) -> Result<()> {
        for batch in batches {
            self.nodes[node].work.rows_out += batch.num_rows() as u64;
            for at in 0..self.nodes[node].targets.len() {
                match self.nodes[node].targets[at] {
                    Target::Node(next, input) => self.on_input(next, input, batch.clone(), lineage, outlets)?,
                    Target::Outlet(outlet) => {
                        let before = self.now();
                        outlets.rows(outlet, batch.clone())?;
                        self.took_since(node, before);
                    }
                }
            }
        }
        Ok(())
    }

    fn took_since(&mut self, node: usize, before: Duration) {
        let took = self.now().saturating_sub(before);
        self.nodes[node].work.time += took;
    }

    fn note_progress(&mut self, node: usize, progress: Progress) {
        let slot = &mut self.nodes[node].progress;
        *slot = Some(match *slot {
            Some(other) => other.and(progress),
            None => progress,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;
    use crate::exec::End;

    thread_local! {
        static TIME_MS: Cell<u64> = const { Cell::new(0) };
    }

    fn timer() -> Duration {
        Duration::from_millis(TIME_MS.get())
    }

    fn pass_ms(ms: u64) {
        TIME_MS.set(TIME_MS.get() + ms);
    }

    /// Gives every second row at once, and one at each boundary.
    struct Half;

    impl Operator for Half {
        fn on_batch(&mut self, _: usize, batch: RecordBatch, out: &mut Output) -> Result<()> {
            pass_ms(3);
            out.batches.push(batch.slice(0, batch.num_rows() / 2));
            Ok(())
        }

        fn on_boundary(&mut self, _: &Boundary, progress: Progress, out: &mut Output) -> Result<Progress> {
            pass_ms(5);
            out.batches.push(rows(1));
            Ok(progress)
        }

        fn state_size(&self) -> StateSize {
            StateSize { bytes: 7, ..StateSize::default() }
        }
    }

    struct Slow;

    impl Outlets for Slow {
        fn rows(&mut self, _: Outlet, _: RecordBatch) -> Result<()> {
            pass_ms(100);
            Ok(())
        }

        fn progress(&mut self, _: Outlet, _: Progress) {}
    }

    fn rows(count: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    }

    #[test]
    fn what_nodes_do_is_counted_and_measured() {
        let mut fragment = Fragment::default();
        let source = fragment.add(None, &[]);
        let half = fragment.add(Some(Box::new(Half)), &[source]);
        let sink = fragment.add(None, &[half]);
        fragment.set_sink(sink);
        fragment.send_out(sink, 0);
        fragment.set_timer(timer);
        for count in [10, 20] {
            fragment.on_batch(source, rows(count), &mut Slow).unwrap();
        }
        fragment.add_time(source, Duration::from_millis(2));
        let boundary = Boundary { sequence: 1, clock_ms: 0, checkpoint: None, end: End::GoesOn };
        fragment.on_boundary(&boundary, &[(source, Progress::Active(0))], &mut Slow).unwrap();
        let work =
            |rows_in, rows_out, batches, ms| Work { rows_in, rows_out, batches, time: Duration::from_millis(ms) };
        let reports: Vec<_> = fragment.report().map(|r| (r.work, r.state.bytes, r.is_passage)).collect();
        let want = [
            (work(30, 30, 2, 2), 0, true),
            (work(30, 16, 2, 2 * 3 + 5), 7, false),
            (work(16, 16, 3, 3 * 100), 0, true),
        ];
        assert_eq!(reports, want);
    }
}
