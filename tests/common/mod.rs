//! What every integration test stands on: a real Kafka, records in and out of it, the shipped data, the program.

pub mod broker;
pub mod flights;
mod keeper;
pub mod nexmark;
pub mod oracle;
pub mod program;
pub mod proxy;
pub mod records;
pub mod screen;
pub mod security;
