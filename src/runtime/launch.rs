//! From a stream plan to an attempt at its job: sources and sinks are opened, state is restored, threads are made ready.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, bounded};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

use super::attempts::{self, Attempt, Body};
use super::commit::{AsTheyAre, CommitMessage, Committer, Hand};
use super::events::Discovering;
use super::exchange::{Aligned, Message};
use super::guarantee::Guarantee;
use super::identity::Identity;
use super::job::{Job, JobState};
use super::ledger::{Ledger, look};
use super::metrics::{InputLayout, JobMetrics, Layout, ReadCounts, StatementLayout};
use super::outlets::{SinkLane, WorkerOutlets};
use super::progress::{Author, Restored};
use super::reading::{Alignment, IDLE_TIMEOUT, ReadPartition, SourceInput};
use super::rejects::RejectLanes;
use super::session::{Restore, Session};
use super::shared::Shared;
use super::state::StoredState;
use super::topology::Topology;
use super::worker::{Fixed, SourceWorker, StageWorker};
use crate::catalog::Table;
use crate::connectors::{
    self, CancelToken, Defaults, Keep, LogPlace, Sink, SinkEncoder, SinkWriter, Source, SourceSpec, Transactions,
};
use crate::error::{Blame, Error, Result};
use crate::exec::{Memory, SourceStage};
use crate::limits::{CHANNEL_BATCHES_MAX, COMMIT_BATCHES_MAX};
use crate::plan::{Hidden, NodeId, Op, SinkNode, SourceNode, StreamPlan, with_checked_arithmetic};
use crate::time::WATERMARK_MAX;

/// A partition may be ahead of the last one by at least so much event time (ms) before it is left alone.
const DRIFT_MS_MIN: i64 = 60_000;

/// What a job is made of.
pub struct Launch {
    pub name: String,
    pub statement: String,
    /// What the job is: the statement with the views that it names, and what planning went by.
    pub definition: String,
    pub plan: Arc<StreamPlan>,
    pub session: Session,
    pub defaults: Defaults,
}

/// A source that has been opened.
struct Opened {
    node: NodeId,
    source: Arc<dyn Source>,
}

/// Where a sink's encoders and writer come from.
enum Target {
    Table(Arc<dyn Sink>),
    Caller,
}

/// Starts a job. The receiver gives the rows of the sink that is no table, if the plan has one.
pub fn launch(launch: Launch) -> Result<(Job, Option<Receiver<RecordBatch>>)> {
    let job = JobState::new(launch.name.clone(), launch.statement.clone());
    let mut own = Author::of_process(process_number());
    let (first, rows_out) = attempt(&launch, &job, &mut own)?.ok_or_else(|| Error::bug("a job without a beginning"))?;
    attempts::start(Arc::clone(&job), first, move |job| {
        Ok(attempt(&launch, job, &mut own)?.map(|(attempt, _)| attempt))
    })?;
    Ok((Job::new(job), rows_out))
}

/// Makes an attempt ready, and the receiver of the rows that go to no table. `own` is who this process
/// was in the attempt before, if there was one, and becomes who it is now. `None` if the attempt before has turned out to have finished the job.
fn attempt(
    launch: &Launch,
    job: &Arc<JobState>,
    own: &mut Author,
) -> Result<Option<(Attempt, Option<Receiver<RecordBatch>>)>> {
    let Launch { name, plan, session, defaults, definition, .. } = launch;
    let commit_interval = session.commit_interval()?;
    let checkpoint_interval = session.checkpoint_interval()?;
    let cancel = CancelToken::default();
    let is_first = own.incarnation == 0;
    let guarantee = Guarantee::of(plan, defaults)?;
    // What was to be given up is, once there is a new beginning.
    let restore = match session.restore()? {
        Restore::None if !is_first => Restore::Strict,
        restore => restore,
    };
    let (mut ledger, mut restored, mut log) = (None, None, None);
    if let Some(table) = guarantee.log_table() {
        let identity = Identity::of(plan, definition);
        let place = LogPlace::of(table, name, session.topic_prefix(), session.topic_replication()?)?;
        if let Some(left) = look(name, &place, defaults, cancel.clone(), *own)?
            && is_first
        {
            // Somebody may be running the job: he is not stopped by what cannot go on in his place.
            let left = identity.fit(name, left, restore)?;
            open_sources(plan, defaults, left.as_ref())?;
            open_sinks(plan, &Topology::new(Arc::clone(plan), 1), defaults)?;
        }
        let transactions = place.open(defaults, cancel.clone())?;
        let opened =
            Ledger::open(name, &place.to_string(), transactions.log(), identity, restore, checkpoint_interval, own)?;
        (ledger, restored, log) = (Some(opened.0), opened.1, Some(transactions));
    }
    if restored.is_none() && !is_first {
        return Ok(None);
    }
    if let (None, Some(log)) = (&restored, &log) {
        log.begin_anew();
    }
    // Rows that may be there twice are written beside the log's transactions.
    let transactions = log.as_ref().filter(|_| matches!(guarantee, Guarantee::ExactlyOnce(_)));
    let opened = open_sources(plan, defaults, restored.as_ref())?;
    let partitions = opened.iter().map(|o| o.source.partitions().len()).max().unwrap_or(1);
    let workers = match session.workers()? {
        Some(workers) => workers,
        None => thread::available_parallelism().map_or(1, usize::from).min(partitions).max(1),
    };
    let topology = Arc::new(Topology::new(Arc::clone(plan), workers));
    let targets = open_sinks(plan, &topology, defaults)?;

    let sources = opened.iter().map(|o| Arc::clone(&o.source));
    let (rejects, mut reject_writers) = RejectLanes::open(name, plan, sources, defaults, transactions)?;
    let rejects = Arc::new(rejects);

    let layout = Layout { commit_interval: Some(commit_interval), ..metrics_layout(plan, &topology) };
    let shared = Shared::new(Arc::clone(job), JobMetrics::new(layout), cancel.clone());
    let mut rows_out = None;
    let mut writers: Vec<Box<dyn SinkWriter>> = Vec::new();
    for target in &targets {
        writers.push(match target {
            Target::Table(sink) => match transactions {
                Some(transactions) => sink.writer_in(transactions)?,
                None => sink.writer()?,
            },
            Target::Caller => {
                let (hand, rows) = Hand::new(&shared);
                rows_out = Some(rows);
                Box::new(hand)
            }
        });
    }

    writers.iter_mut().chain(&mut reject_writers).for_each(|writer| writer.cancel_by(&cancel));
    let troubles = writers.iter().chain(&reject_writers).filter_map(|w| w.trouble());
    shared.metrics.set_writers(troubles.chain(log.as_ref().and_then(Transactions::trouble)).collect());

    let beginning = restored.as_ref().map(|r| &r.beginning);
    let from = beginning.map_or_else(|| (0, super::clock::wall_ms()), |b| (b.boundary, b.clock_ms));
    let replay_until = restored.as_ref().map_or(0, Restored::last);
    let starts = beginning.filter(|beginning| 0 < beginning.boundary).map(|beginning| &beginning.sources);
    // With several workers, rows are exchanged before whatever keeps state.
    let mut memory = session.memory(workers * topology.stages().saturating_sub(1).max(1))?;
    let mut state = StoredState::default();
    if let (Some(ledger), Some(beginning)) = (&ledger, beginning) {
        state = ledger.read_state(beginning, memory.first().map(Memory::spill))?;
        shared.metrics.restore(&beginning.counters);
    }
    let mut state = state.deal(&topology, memory.first().map(|memory| &**memory.spill()))?;

    let mut channels = Channels::new(&topology);
    let mut threads: Vec<(String, Body)> = Vec::new();
    let alignments = alignments(plan, &opened)?;
    for stage in 0..topology.stages() {
        for worker in 0..workers {
            let mut part = topology.part(stage)?;
            if (stage == 0) == (topology.stages() == 1)
                && let Some(memory) = memory.pop()
            {
                part.fragment.set_memory(memory);
            }
            state.restore(&mut part, worker)?;
            part.fragment.set_timer(super::clock::worked);
            let outlets = WorkerOutlets {
                shared: Arc::clone(&shared),
                topology: Arc::clone(&topology),
                stage,
                worker,
                stages: channels.senders(stage, worker),
                sinks: sink_lanes(plan, &topology, &targets)?,
                commit: (topology.feeds_sinks(stage) || rejects.any() || ledger.is_some())
                    .then(|| channels.commit_sender()),
                rejects: Arc::clone(&rejects),
                statements: part.nodes.iter().map(|&node| topology.statement_of(node)).collect(),
                nodes: part.nodes.clone(),
                state: Vec::new(),
                progress: Vec::new(),
                reached: vec![WATERMARK_MAX; topology.sinks().len()],
            };
            let title = format!("stage {stage} worker {worker}");
            if stage == 0 {
                let mut inputs = Vec::new();
                for (source, opened) in opened.iter().enumerate() {
                    let entry = part.sources[&opened.node];
                    let input = source_input(plan, opened, source, entry, worker, workers, &alignments[source])?;
                    inputs.extend(input.map(|mut input| {
                        if let Some(starts) = starts.and_then(|starts| starts.get(source)) {
                            input.restore(starts, &shared);
                        }
                        input
                    }));
                }
                let fixed = if worker == 0 { fixed_rows(plan, &part.sources)? } else { Vec::new() };
                let mut worker = SourceWorker { part, outlets, inputs, fixed, from, replay_until };
                threads.push((title, Box::new(move || worker.run())));
            } else {
                let inputs = Aligned::new(channels.receivers(stage, worker));
                let mut worker = StageWorker { part, outlets, inputs, clock_ms: from.1 };
                threads.push((title, Box::new(move || worker.run())));
            }
        }
    }
    let discovering = discovering(plan, &opened, restored.as_ref())?;
    if let (Some(ledger), None) = (&mut ledger, &restored) {
        ledger.begin(from.1, opened.iter().map(|o| o.source.partitions().to_vec()).collect())?;
    }
    let committer = Committer {
        shared: Arc::clone(&shared),
        inputs: Aligned::new(channels.commit_receivers()),
        writers,
        reject_writers,
        sources: opened.into_iter().map(|o| o.source).collect(),
        workers,
        commit_interval,
        from,
        ledger,
        state: Vec::new(),
        replay: restored.map(|r| r.boundaries).unwrap_or_default(),
    };
    Ok(Some((Attempt { shared, threads, committer, discovering }, rows_out)))
}

/// A number that no other process has, as far as chance allows: the seed of this one's hash tables, in as many bits as any
/// reader of JSON takes for a whole number.
fn process_number() -> u64 {
    RandomState::new().hash_one(std::process::id()) >> 11
}

fn open_sources(plan: &StreamPlan, defaults: &Defaults, restored: Option<&Restored>) -> Result<Vec<Opened>> {
    let mut opened = Vec::new();
    for (node, op) in plan.nodes.iter().enumerate().map(|(i, n)| (i, &n.op)) {
        if let Op::Source(source) = op {
            let mut spec = SourceSpec::new(source.table.as_ref().clone(), source.columns.clone());
            spec.keep_records = source.keep != Keep::Nothing;
            spec.keep_timestamps = source.rejects.max_ahead.is_some();
            if let Some(restored) = restored {
                (spec.resume, spec.found) = restored.partitions(opened.len());
            }
            opened.push(Opened { node, source: connectors::open_source(spec, defaults)? });
        }
    }
    Ok(opened)
}

fn open_sinks(plan: &StreamPlan, topology: &Topology, defaults: &Defaults) -> Result<Vec<Target>> {
    topology
        .sinks()
        .iter()
        .map(|&node| match &plan.nodes[node].op {
            Op::Sink(sink) => match &sink.table {
                Some(table) => Ok(Target::Table(connectors::open_sink(table, defaults)?)),
                None => Ok(Target::Caller),
            },
            _ => Err(Error::bug("a sink that is none")),
        })
        .collect()
}

fn sink_lanes(plan: &StreamPlan, topology: &Topology, targets: &[Target]) -> Result<Vec<SinkLane>> {
    topology
        .sinks()
        .iter()
        .zip(targets)
        .map(|(&node, target)| {
            let not_null = match &plan.nodes[node].op {
                Op::Sink(sink) => sink.not_null.clone(),
                _ => Vec::new(),
            };
            let encoder: Box<dyn SinkEncoder> = match target {
                Target::Table(sink) => sink.encoder()?,
                Target::Caller => Box::new(AsTheyAre),
            };
            let visible = plan.nodes[node].visible.fields().len();
            let kind = plan.input_hidden(node).index(Hidden::KIND, visible);
            Ok(SinkLane { encoder, visible, kind, not_null })
        })
        .collect()
}

fn source_node(plan: &StreamPlan, node: NodeId) -> Result<Arc<SourceNode>> {
    match &plan.nodes[node].op {
        Op::Source(source) => Ok(Arc::clone(source)),
        _ => Err(Error::bug("a source that is none")),
    }
}

/// What each source is aligned by, and by how much it may be ahead (ms). The partitions of one table are kept together,
/// and those of tables that name the same group.
fn alignments(plan: &StreamPlan, opened: &[Opened]) -> Result<Vec<(Arc<Alignment>, i64)>> {
    let longest_ms = plan.longest_window_ms().unwrap_or(DRIFT_MS_MIN).max(DRIFT_MS_MIN);
    let mut groups: BTreeMap<String, Arc<Alignment>> = BTreeMap::new();
    let of = |opened: &Opened| {
        let node = source_node(plan, opened.node)?;
        let options = &node.table.options;
        let drift = options.duration("scan.watermark.alignment.max-drift")?;
        let drift_ms = drift.map_or(longest_ms, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        let alignment = match options.get("scan.watermark.alignment.group") {
            Some(group) => Arc::clone(groups.entry(group.to_owned()).or_default()),
            None => Arc::default(),
        };
        Ok((alignment, drift_ms))
    };
    opened.iter().map(of).collect()
}

/// The sources whose partitions may become more.
fn discovering(plan: &StreamPlan, opened: &[Opened], restored: Option<&Restored>) -> Result<Vec<Discovering>> {
    let of = |(number, opened): (usize, &Opened)| {
        let node = source_node(plan, opened.node)?;
        let found = restored.map(|r| r.found(number).len());
        Ok(Discovering::new(number, &node.table.name, &opened.source, found))
    };
    opened.iter().enumerate().map(of).filter_map(Result::transpose).collect()
}

/// A worker's share of a source; `None` when there is none, and never will be.
fn source_input(
    plan: &StreamPlan,
    opened: &Opened,
    source: usize,
    entry: usize,
    worker: usize,
    workers: usize,
    (alignment, drift_ms): &(Arc<Alignment>, i64),
) -> Result<Option<SourceInput>> {
    let plans = opened.source.partitions();
    let share: Vec<usize> = (0..plans.len()).filter(|p| p % workers == worker).collect();
    if share.is_empty() && opened.source.discovery_interval().is_none() {
        return Ok(None);
    }
    let node = source_node(plan, opened.node)?;
    let advance = watermark_advances(&node.table)?;
    let idle_timeout = idle_timeout(&node.table)?;
    let ids: Vec<_> = plans.iter().map(|p| p.id.clone()).collect();
    let from = &plan.nodes[opened.node];
    let stage = SourceStage::new(node, &from.visible, from.hidden, &ids, share.clone(), advance);
    let mut input = SourceInput {
        entry,
        opened: Arc::clone(&opened.source),
        reader: if share.is_empty() { None } else { Some(opened.source.reader(&share)?) },
        stage,
        partitions: share.iter().map(|&index| ReadPartition::new(index, &plans[index])).collect(),
        alignment: Arc::clone(alignment),
        drift_ms: *drift_ms,
        ahead_at: None,
        idle_timeout,
        listened: super::clock::now(),
        source,
        counts: ReadCounts::default(),
    };
    input.prepare(plans);
    Ok(Some(input))
}

/// Whether the clock moves the watermark of a table whose partitions are all idle.
pub fn watermark_advances(table: &Table) -> Result<bool> {
    Ok(table.options.choice("scan.watermark.idle-advance", &["clock", "none"])? == "clock")
}

/// How long a partition of a table stays at its end before it holds nothing back; `None` is for ever.
pub fn idle_timeout(table: &Table) -> Result<Option<Duration>> {
    let timeout = table.options.duration("scan.watermark.idle-timeout")?.unwrap_or(IDLE_TIMEOUT);
    Ok((!timeout.is_zero()).then_some(timeout))
}

/// What a plan reads, as it is counted: its sources, then its rows that are computed once.
fn inputs_of(plan: &StreamPlan) -> Vec<NodeId> {
    let which = |fixed: bool| {
        let is_input = move |op: &Op| if fixed { matches!(op, Op::Static(_)) } else { matches!(op, Op::Source(_)) };
        plan.nodes.iter().enumerate().filter(move |(_, n)| is_input(&n.op)).map(|(id, _)| id)
    };
    which(false).chain(which(true)).collect()
}

/// What a job counts: its inputs, and how often each statement reads them.
pub fn metrics_layout(plan: &Arc<StreamPlan>, topology: &Topology) -> Layout {
    let inputs = inputs_of(plan);
    let input = |&id: &NodeId| match &plan.nodes[id].op {
        Op::Source(source) => InputLayout {
            name: source.table.name.clone(),
            has_event_time: source.watermark.is_some() && !source.processing_time,
            // Whoever opens the source says what is wrong with its options.
            idle_timeout: idle_timeout(&source.table).unwrap_or_default(),
            advances_when_idle: watermark_advances(&source.table).unwrap_or_default(),
        },
        _ => InputLayout { name: "VALUES".to_owned(), ..InputLayout::default() },
    };
    let statement = |(number, &sink): (usize, &NodeId)| {
        let of_statement = || (0..plan.nodes.len()).filter(|&node| topology.statement_of(node) == Some(number));
        let times = |input: &NodeId| {
            of_statement().map(|n| plan.nodes[n].inputs.iter().filter(|i| *i == input).count() as u64).sum()
        };
        let name = match &plan.nodes[sink].op {
            Op::Sink(SinkNode { table: Some(table), .. }) => table.name.clone(),
            _ => "SELECT".to_owned(),
        };
        let has_windows =
            |&id: &NodeId| matches!(plan.nodes[id].op, Op::Aggregate(_) | Op::PerWindow(_) | Op::Sessions(_));
        let windows = of_statement().filter(has_windows).collect();
        StatementLayout { sink: name, reads: inputs.iter().map(times).collect(), windows }
    };
    let statements = topology.sinks().iter().enumerate().map(statement).collect();
    let plan = Some(Arc::clone(plan));
    Layout { inputs: inputs.iter().map(input).collect(), statements, plan, commit_interval: None }
}

/// The rows of the parts of a plan that read no stream.
pub fn fixed_rows(plan: &StreamPlan, entries: &BTreeMap<NodeId, usize>) -> Result<Vec<Fixed>> {
    let mut fixed = Vec::new();
    let inputs = inputs_of(plan);
    for (&node, &entry) in entries {
        if let Op::Static(logical) = &plan.nodes[node].op {
            let batches = compute(logical)?;
            let schema = &plan.nodes[node].visible;
            let batches = batches
                .into_iter()
                .map(|b| Ok(RecordBatch::try_new_with_options(Arc::clone(schema), b.columns().to_vec(), &options(&b))?))
                .collect::<Result<Vec<_>>>()?;
            let input = inputs.iter().position(|&i| i == node).unwrap_or_default();
            fixed.push(Fixed { entry, input, hidden: plan.nodes[node].hidden, batches });
        }
    }
    Ok(fixed)
}

fn options(batch: &RecordBatch) -> arrow::array::RecordBatchOptions {
    arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()))
}

/// Runs a finite plan as a batch.
pub fn compute(plan: &LogicalPlan) -> Result<Vec<RecordBatch>> {
    let plan = with_checked_arithmetic(plan.clone())?;
    super::clock::set_worker_clock(super::clock::wall_ms());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|e| Error::new(Blame::Usage, format!("cannot start a thread: {e}")))?;
    Ok(runtime.block_on(async { SessionContext::new().execute_logical_plan(plan).await?.collect().await })?)
}

/// From a stage to a later one.
type StagePair = (usize, usize);

/// The channels between the workers of two stages: by sending worker, then by receiving one.
type Matrix = Vec<Vec<(Sender<Message>, Receiver<Message>)>>;

/// The channels between stages, and to the committing thread.
struct Channels {
    stages: Vec<(StagePair, Matrix)>,
    commit: Vec<Receiver<CommitMessage>>,
}

impl Channels {
    fn new(topology: &Topology) -> Self {
        let mut pairs: Vec<(usize, usize)> = topology.edges().iter().map(|e| (e.from_stage, e.to_stage)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        let workers = topology.workers();
        let matrix = || (0..workers).map(|_| (0..workers).map(|_| bounded(CHANNEL_BATCHES_MAX)).collect()).collect();
        Self { stages: pairs.into_iter().map(|pair| (pair, matrix())).collect(), commit: Vec::new() }
    }

    fn senders(&self, stage: usize, worker: usize) -> Vec<(usize, Vec<Sender<Message>>)> {
        let from_here = self.stages.iter().filter(|((from, _), _)| *from == stage);
        from_here.map(|((_, to), matrix)| (*to, matrix[worker].iter().map(|(s, _)| s.clone()).collect())).collect()
    }

    fn receivers(&self, stage: usize, worker: usize) -> Vec<Receiver<Message>> {
        let to_here = self.stages.iter().filter(|((_, to), _)| *to == stage);
        to_here.flat_map(|(_, matrix)| matrix.iter().map(|row| row[worker].1.clone())).collect()
    }

    fn commit_sender(&mut self) -> Sender<CommitMessage> {
        let (to, from) = bounded(COMMIT_BATCHES_MAX);
        self.commit.push(from);
        to
    }

    fn commit_receivers(&mut self) -> Vec<Receiver<CommitMessage>> {
        std::mem::take(&mut self.commit)
    }
}
