//! The integration tests, in one binary: each more would link all of DataFusion once more.

#[path = "../common/mod.rs"]
mod common;

mod harness;
mod packaging;
