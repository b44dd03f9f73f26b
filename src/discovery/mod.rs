//! What a topic holds, found out by looking at some of its records.
//!
//! [`bytes`] says how a key or a value is written, [`shape`] which columns JSON objects have and of which types,
//! [`disorder`] how late rows are, and [`table`] makes a table of it all. Nothing here reads a topic: a sample of its
//! records comes in, so that each of these is a function of its arguments.

pub mod bytes;
pub mod disorder;
pub mod shape;
pub mod table;

/// A record of a topic, owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRecord {
    /// The number of its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its own timestamp, if it has one.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Some records of a topic: of each partition a run of neighbours, in the order of their offsets.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The topic.
    pub topic: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// How many records it holds, by its offsets.
    pub records_held: u64,
    /// The records.
    pub records: Vec<TopicRecord>,
}
