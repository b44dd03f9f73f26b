//! What every integration test stands on: a real Kafka, records in and out of it, the shipped data.

pub mod broker;
pub mod flights;
mod keeper;
pub mod records;
