//! The integration tests, in one binary: each more would link all of DataFusion once more.

#![allow(clippy::disallowed_methods, reason = "tests wait for the outside, and only so long")]

#[path = "../common/mod.rs"]
mod common;

mod batch;
mod behaviour;
mod canary;
mod cli;
mod config;
mod docs;
mod errors;
mod faults;
mod files;
mod flights;
mod harness;
mod hostile;
mod job_log;
mod kafka_tables;
mod memory;
mod nexmark;
mod packaging;
mod peers;
mod permissions;
mod queries;
mod repl;
mod security;
mod seeded;
mod sql;
mod sql_aggregates;
mod terminal;
mod topics;
