//! Kafka, through librdkafka.
//!
//! A table is read by consumers that are *assigned* their partitions at offsets of our choosing: no group membership,
//! no rebalance, no position that anyone but the job owns. Records come in batches straight from librdkafka's queues
//! ([`batch`], the only `unsafe` code here), one queue per partition, so that a partition that runs ahead can be left
//! alone without touching the others. A table is written to by one idempotent producer, or by the transactional one of
//! its job.
//!
//! Whatever stands under `'properties.*'` of a table is handed to librdkafka after its name has been checked
//! ([`properties`]); no value of it is ever printed.

// Time-outs and outages are about the wall clock; nothing here decides about event time by it.
#![allow(clippy::disallowed_methods)]

mod access;
mod batch;
mod calls;
mod client;
mod cluster;
mod embedded;
mod group;
mod layout;
mod log;
mod metadata;
mod positions;
mod properties;
mod rows;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod tls;
mod topics;
mod transactions;
mod upsert;

pub(crate) use cluster::check_topic_name;
pub use cluster::{Cluster, Topic};
pub use embedded::Embedded;
pub use properties::{ClientProperties, property_names, property_notice};
pub use sink::{KafkaSink, brokers_of, delivery};
pub use source::KafkaSource;
pub use tls::shake_hands;
pub use topics::{TopicReader, TopicSummary};
pub use transactions::Transactions;

use crate::catalog::Table;
use crate::error::Result;

/// Whether a job's log may have this name.
pub fn check_log_name(name: &str) -> Result<()> {
    check_topic_name(name).map_err(|e| e.hint("it is made of the job's name: SET 'pipeline.name' = '..'"))
}

/// Checks the key and the formats of a table of `upsert-kafka`.
pub fn check_upsert(table: &Table) -> Result<()> {
    layout::Layout::of(table).map(|_| ())
}

/// The word that stands for the broker inside this process, in place of `host:port`.
pub const EMBEDDED: &str = "embedded";

/// The version of librdkafka, such as `2.12.1`.
pub fn client_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
