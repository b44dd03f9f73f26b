//! Continuous SQL over Kafka.
//!
//! The modules are the stages that a statement and its data pass, in this order.

pub mod change;
pub mod error;
pub mod limits;
pub mod time;
pub mod words;

pub mod sql;

pub mod catalog;

pub mod formats;

pub mod discovery;

pub mod connectors;

pub mod state;

pub mod plan;

pub mod exec;

pub mod runtime;

pub mod completion;
