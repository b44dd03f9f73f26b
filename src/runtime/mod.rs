//! Jobs, workers, clocks, commits, metrics; and the [`Engine`] that every surface calls.
//!
//! A job is the graph of one plan, run by threads:
//!
//! - *workers* of stage 0 read sources, evaluate, and (with more than one worker) ship partial aggregates by key to the
//!   workers of the next stage; stages form no cycle, channels are bounded, so a slow sink slows the sources;
//! - one *committing* thread takes all rows for sinks. It calls commit boundaries: a marker that flows through every
//!   channel behind the rows before it and is aligned at every input. When all have arrived, everything up to the
//!   boundary is with the sinks, and is flushed.

mod account;
mod attempts;
mod batch;
#[cfg(test)]
mod batch_tests;
#[cfg(test)]
mod broker_model;
mod checkpoints;
pub mod clock;
mod commit;
mod describe;
mod diagnosis;
mod engine;
mod events;
mod exchange;
mod failpoint;
mod guarantee;
#[cfg(test)]
mod history_tests;
mod identity;
mod info;
mod job;
mod launch;
mod ledger;
mod machine;
mod materialized;
mod metrics;
mod outlets;
mod progress;
#[cfg(test)]
mod property_tests;
mod query;
pub mod query_test;
mod rates;
mod reading;
mod rehearsal;
mod rejects;
mod session;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod topic_rows;
mod topology;
mod worker;

pub use engine::{Engine, EngineConfig, Names, Outcome, Rows};
pub use info::{
    CheckpointInfo, CommitInfo, JobInfo, OperatorInfo, PartitionInfo, PartitionState, RestartInfo, SourceInfo,
    StatementInfo, Terms,
};
pub use job::{Job, JobStatus};
pub use materialized::{Materialized, Snapshot};
pub use query::QueryStream;
pub use session::{Places, setting_keys, setting_values};
pub use topic_rows::TopicRows;
