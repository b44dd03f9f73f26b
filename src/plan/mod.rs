//! Statement and catalog to a checked stream plan.
//!
//! DataFusion plans and optimizes what is ordinary SQL; what is not (window functions, windowed aggregates, sources,
//! sinks) are nodes of ours that its rules see as opaque:
//!
//! 1. [`context`] gives the planner our tables, views and functions; [`windows`] plans `TUMBLE(..)` and `HOP(..)`.
//! 2. [`aggregate`] turns each `GROUP BY` over windows into a node of ours, *before* the optimizer could take it apart,
//!    and refuses what would have to run without end.
//! 3. [`optimize`] runs a chosen list of DataFusion's rules.
//! 4. [`lower`] makes the [`StreamPlan`]: a graph of operators over compiled expressions.
//!
//! Event time and windows are known by marks in the fields' metadata ([`marks`]), which travel with plain columns
//! through projections, filters, views and unions, and are lost in every expression.

mod aggregate;
mod batch;
mod batch_functions;
mod clock_functions;
mod context;
mod emission;
mod explain;
pub mod functions;
mod legacy;
mod lower;
mod marks;
mod optimize;
mod per_window;
mod refusal;
mod sink;
mod stream;
mod syntax;
mod windows;

pub use aggregate::reads_stream;
pub use batch::{BatchTable, LateRows, hidden_fields};
pub use batch_functions::with_checked_arithmetic;
pub use context::{PlanSettings, Planner};
pub use explain::{explain, explain_node, explain_with};
pub use marks::Bound;
pub use sink::split_limit;
pub use stream::{
    AggregateNode, Emission, Hidden, Node, NodeId, Op, OutputColumn, PerWindowNode, RowKind, SessionsNode, SinkNode,
    SourceNode, Step, StreamPlan, WindowsNode,
};
