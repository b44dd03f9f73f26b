//! The stream plan: a graph of operators over compiled expressions, inputs before their consumers.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use chrono_tz::Tz;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::PhysicalExpr;

use super::marks::Bound;
use crate::catalog::Table;
pub use crate::change::RowKind;
use crate::connectors::{Keep, Rejects, SourceColumn};
use crate::sql::statement::Emit;
use crate::state::AggregateLayout;
use crate::time::{SlicedWindows, WindowShape, Windows};

/// The index of a node in its plan.
pub type NodeId = usize;

/// The columns behind the visible ones that travel with every row to the first stateful operator.
///
/// They are the last columns of a batch, in this order, so that the visible ones keep their indices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// The watermark of the row's own source partition before the row (Int64, ms).
    pub watermark: bool,
    /// What breaks ties between rows of one event time: source, partition, offset, or a window's keys (Binary); before
    /// them the branch of each union on the way.
    pub tie: bool,
    /// The event time that the windows are over (Int64, ms).
    pub time: bool,
    /// The record as it was read ([`RawRecord`](crate::connectors::RawRecord), BinaryView), null where nobody will ask for it.
    pub raw: bool,
    /// The first instant after the row's window, where rows belong to one window each (Int64, ms).
    pub window: bool,
    /// The kind of change ([`RowKind`], Int8), where the rows are a changelog.
    pub kind: bool,
}

impl Hidden {
    /// The name of the watermark's column.
    pub const WATERMARK: &'static str = "__tidemill_watermark";
    /// The name of the tie-breaker's column.
    pub const TIE: &'static str = "__tidemill_tie";
    /// The name of the event time's column.
    pub const TIME: &'static str = "__tidemill_time";
    /// The name of the raw record's column.
    pub const RAW: &'static str = "__tidemill_raw";
    /// The name of the window's column.
    pub const WINDOW: &'static str = "__tidemill_window";
    /// The name of the kind's column.
    pub const KIND: &'static str = "__tidemill_kind";

    /// The fields, in their order.
    pub fn fields(self) -> Vec<FieldRef> {
        let all = [
            (self.watermark, Self::WATERMARK, DataType::Int64),
            (self.tie, Self::TIE, DataType::Binary),
            (self.time, Self::TIME, DataType::Int64),
            (self.raw, Self::RAW, DataType::BinaryView),
            (self.window, Self::WINDOW, DataType::Int64),
            (self.kind, Self::KIND, DataType::Int8),
        ];
        all.into_iter()
            .filter(|(there, ..)| *there)
            .map(|(_, name, t)| Arc::new(Field::new(name, t, name == Self::RAW)))
            .collect()
    }

    /// What rows of both can carry: a record and a kind are there where either has them, the rest where both have.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self {
            watermark: self.watermark && other.watermark,
            tie: self.tie && other.tie,
            time: self.time && other.time,
            raw: self.raw || other.raw,
            window: self.window && other.window,
            kind: self.kind || other.kind,
        }
    }

    /// Visible fields followed by the hidden ones.
    pub fn extend(self, visible: &Schema) -> SchemaRef {
        let mut fields: Vec<FieldRef> = visible.fields().iter().cloned().collect();
        fields.extend(self.fields());
        Arc::new(Schema::new(fields))
    }

    /// The index of a hidden column, by its name, in a batch with `visible` visible columns.
    pub fn index(self, name: &str, visible: usize) -> Option<usize> {
        self.fields().iter().position(|f| f.name() == name).map(|at| visible + at)
    }

    /// The index of the watermark's column in a batch with `visible` visible columns.
    pub fn watermark_index(self, visible: usize) -> Option<usize> {
        self.index(Self::WATERMARK, visible)
    }

    /// The index of the event time's column in a batch with `visible` visible columns.
    pub fn time_index(self, visible: usize) -> Option<usize> {
        self.index(Self::TIME, visible)
    }
}

/// What runs: the graph of one job.
#[derive(Debug)]
pub struct StreamPlan {
    /// The nodes; a node's inputs come before it.
    pub nodes: Vec<Node>,
}

/// A node of the graph.
#[derive(Debug)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// Where its rows come from.
    pub inputs: Vec<NodeId>,
    /// The columns that it gives out, without the hidden ones.
    pub visible: SchemaRef,
    /// The hidden columns that it gives out.
    pub hidden: Hidden,
}

/// What a node does.
#[derive(Debug)]
pub enum Op {
    /// Reads a table.
    Source(Arc<SourceNode>),
    /// Rows that are computed once, as a batch: `VALUES`, a `SELECT` without a stream.
    Static(Box<LogicalPlan>),
    /// Filters and projects, row by row.
    Transform(Vec<Step>),
    /// Adds windows to rows.
    Windows(WindowsNode),
    /// Finds sessions, and gives out their rows.
    Sessions(SessionsNode),
    /// All rows of all inputs.
    Union,
    /// Aggregates per window.
    Aggregate(Box<AggregateNode>),
    /// Joins windows, or computes functions over them.
    PerWindow(Box<PerWindowNode>),
    /// Writes rows out.
    Sink(SinkNode),
}

/// A table being read.
#[derive(Debug)]
pub struct SourceNode {
    /// The table.
    pub table: Arc<Table>,
    /// What the connector decodes.
    pub columns: Vec<SourceColumn>,
    /// The schema of those.
    pub decoded: SchemaRef,
    /// Computed columns, each over the decoded ones; they follow them.
    pub computed: Vec<(FieldRef, Arc<dyn PhysicalExpr>)>,
    /// The visible columns, by index into decoded and computed ones.
    pub output: Vec<usize>,
    /// The event time (an index as above) and the watermark's expression over decoded and computed columns.
    pub watermark: Option<(usize, Arc<dyn PhysicalExpr>)>,
    /// Windows are over the clock: rows are late for nothing, and time moves with the boundaries' clock.
    pub processing_time: bool,
    /// The source's place among the sources of the plan, which orders rows of one event time.
    pub ordinal: u16,
    /// What becomes of records that cannot be used.
    pub rejects: Rejects,
    /// Of which rows the records are kept, for that.
    pub keep: Keep,
}

/// A stateless step.
#[derive(Debug, Clone)]
pub enum Step {
    /// Keeps rows for which this is true.
    Filter(Arc<dyn PhysicalExpr>),
    /// Computes columns.
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
    /// Gives rows these hidden columns: ones that they have, a record that is null, and a kind that is `+I`.
    Conform(Hidden),
    /// Puts the number of a union's branch before the tie-breaker: one record may come by several of them.
    Branch(u32),
}

/// Adds `window_start`, `window_end`, `window_time` (last among the visible columns) and the hidden event time.
#[derive(Debug)]
pub struct WindowsNode {
    /// The windows.
    pub windows: SlicedWindows,
    /// The zone on whose clocks `window_start` and `window_end` are shown.
    pub zone: Tz,
    /// The event time's index in the input.
    pub time: usize,
    /// The input's visible columns that are passed on, by index.
    pub passed: Vec<usize>,
    /// Whether every row is repeated for each of its windows. If not, the bounds are columns of zeros: the
    /// aggregate above works on slices, and nothing between reads them.
    pub repeat: bool,
    /// The gap, where the windows are sessions: the aggregate above finds them, and what it takes from here are event times.
    pub session_gap_ms: Option<i64>,
    /// Rows late for a window by more than so much (ms) are dropped here, because an aggregate of repeated rows follows.
    pub judge: Option<i64>,
}

/// Keeps rows until their session has ended, then gives them out with its bounds (last among the visible columns) and the
/// hidden event time and window.
#[derive(Debug)]
pub struct SessionsNode {
    /// A session ends when no row has come for so long.
    pub gap_ms: i64,
    /// The zone on whose clocks `window_start` and `window_end` are shown.
    pub zone: Tz,
    /// The event time's index in the input.
    pub time: usize,
    /// The input's visible columns whose values have sessions of their own, by index.
    pub partition: Vec<usize>,
    /// The input's visible columns that are passed on, by index.
    pub passed: Vec<usize>,
}

/// An aggregate per window.
#[derive(Debug)]
pub struct AggregateNode {
    /// The windows, as the query has them.
    pub windows: Windows,
    /// Rows belong to one window each, which the hidden column tells; then its bounds are keys like any other.
    pub assigned: bool,
    /// The group keys, over the input's visible columns; without the windows' bounds unless rows are assigned.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Per aggregate, what its accumulators take: arguments, then what it orders by; over all columns of the input. For
    /// sessions, the event time behind those.
    pub inputs: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    /// Per aggregate, its filter.
    pub filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// Keys and aggregates.
    pub layout: Arc<AggregateLayout>,
    /// What the visible output columns are.
    pub output: Vec<OutputColumn>,
    /// When it gives out rows.
    pub emission: Emission,
}

/// When an aggregate gives out rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Emission {
    /// Of windows that are still open.
    pub emit: Emit,
    /// For how long after its end a window is kept, and corrected by late rows (ms of event time).
    pub lateness_ms: i64,
}

impl Emission {
    /// Whether rows that were given out may change.
    pub fn is_changelog(self) -> bool {
        self != Self::default()
    }
}

/// A finite plan over all rows of closed windows. Its inputs' rows belong to one window each.
#[derive(Debug)]
pub struct PerWindowNode {
    /// What is done, for people to read.
    pub title: String,
    /// The windows.
    pub windows: Windows,
    /// Per input, the table in the plan that stands for its rows: visible and hidden columns, renamed `c0`, `c1`, ..
    pub tables: Vec<(String, SchemaRef)>,
    /// Per input, the columns by index whose rows belong together, in one order; empty if only the window says so.
    pub keys: Vec<Vec<usize>>,
    /// The plan. Behind the visible columns it gives, per input that has a part in a row, its tie-breaker and its window.
    pub plan: LogicalPlan,
    /// Of which inputs those are.
    pub parts: Vec<usize>,
}

impl AggregateNode {
    /// The gap (ms), if the aggregate finds sessions itself: its keys are what they are partitioned by.
    pub fn session_gap_ms(&self) -> Option<i64> {
        match self.windows.shape {
            WindowShape::Session { gap_ms } if !self.assigned => Some(gap_ms),
            _ => None,
        }
    }
}

/// A column of an aggregate's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputColumn {
    /// A bound of the window.
    Bound(Bound),
    /// Key or aggregate, by index: keys first.
    Value(usize),
}

/// Where rows go.
#[derive(Clone, Debug)]
pub struct SinkNode {
    /// The table that is written to; `None` hands the rows to whoever asked.
    pub table: Option<Arc<Table>>,
    /// The statement that writes, for people to read.
    pub title: String,
    /// Columns that may not be null, by index.
    pub not_null: Vec<usize>,
}

impl StreamPlan {
    /// The longest window in the plan (ms), if there is any.
    pub fn longest_window_ms(&self) -> Option<i64> {
        self.nodes
            .iter()
            .filter_map(|node| match &node.op {
                Op::Aggregate(a) => Some(a.windows.length_ms()),
                Op::Windows(w) => Some(w.windows.length_ms()),
                Op::Sessions(s) => Some(s.gap_ms),
                Op::PerWindow(w) => Some(w.windows.length_ms()),
                _ => None,
            })
            .max()
    }

    /// The tables that are read, in the order of their ordinals.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<SourceNode>> {
        self.nodes.iter().filter_map(|node| match &node.op {
            Op::Source(source) => Some(source),
            _ => None,
        })
    }

    /// The hidden columns of the rows that a node takes from its first input: what a sink leaves out.
    pub fn input_hidden(&self, of: NodeId) -> Hidden {
        self.nodes[of].inputs.first().map_or(Hidden::default(), |&input| self.nodes[input].hidden)
    }

    /// The nodes that read from a node.
    pub fn consumers(&self, of: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().enumerate().filter(move |(_, n)| n.inputs.contains(&of)).map(|(i, _)| i)
    }
}
