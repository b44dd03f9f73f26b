//! The way out for rows that are turned away: to the topics that their tables name for late rows and for bad ones.
//!
//! A record goes there with its own key and value; what happened to it is in headers. They are a function of the log, as
//! the rows of the sinks are.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::connectors::{self, Defaults};
use crate::connectors::{EncodedRows, RecordHeaders, SinkRows, SinkWriter, Source, Transactions};
use crate::error::Result;
use crate::exec::{Missed, Rejected, Rejection};
use crate::formats::Encoded;
use crate::plan::{Op, SourceNode, StreamPlan};
use crate::time::{TimeMs, iso_utc};

/// The number of a topic among those that rows are turned away to.
pub type Topic = usize;

/// Where the rows of each source go that are turned away.
pub struct RejectLanes {
    job: String,
    /// The tables that statements write to.
    sinks: Vec<Option<String>>,
    lanes: Vec<Lane>,
}

/// Where those of one source go.
struct Lane {
    source: Arc<dyn Source>,
    late: Option<Topic>,
    dead: Option<Topic>,
}

impl RejectLanes {
    /// Opens the topics of all sources, which are in the order of their ordinals. The writers are the topics', in order.
    pub fn open(
        job: &str,
        plan: &StreamPlan,
        sources: impl Iterator<Item = Arc<dyn Source>>,
        defaults: &Defaults,
        transactions: Option<&Transactions>,
    ) -> Result<(Self, Vec<Box<dyn SinkWriter>>)> {
        let mut writers = Vec::new();
        let mut open = |node: &SourceNode, topic: &Option<String>| match topic {
            Some(topic) => {
                let topic = connectors::open_reject_topic(&node.table, topic, defaults)?;
                writers.push(match transactions {
                    Some(transactions) => topic.writer_in(transactions)?,
                    None => topic.writer()?,
                });
                Ok::<_, crate::error::Error>(Some(writers.len() - 1))
            }
            None => Ok(None),
        };
        let mut lanes = Vec::new();
        for (node, source) in plan.sources().zip(sources) {
            let late = open(node, &node.rejects.late_topic)?;
            let dead = open(node, &node.rejects.dead_letter_topic)?;
            lanes.push(Lane { source, late, dead });
        }
        let sink = |op: &Op| match op {
            Op::Sink(sink) => Some(sink.table.as_ref().map(|table| table.name.clone())),
            _ => None,
        };
        let sinks = plan.nodes.iter().filter_map(|node| sink(&node.op)).collect();
        Ok((Self { job: job.to_owned(), sinks, lanes }, writers))
    }

    /// Whether rows go anywhere at all.
    pub fn any(&self) -> bool {
        self.lanes.iter().any(|lane| lane.late.is_some() || lane.dead.is_some())
    }

    /// Rows that a statement has turned away as records, per topic.
    pub fn encode(&self, statement: Option<usize>, rejected: &[Rejected]) -> Vec<(Topic, SinkRows)> {
        let mut topics: BTreeMap<Topic, EncodedRows> = BTreeMap::new();
        for rejected in rejected {
            let Some(lane) = self.lanes.get(usize::from(rejected.origin.source)) else { continue };
            let topic = match rejected.rejection {
                Rejection::Late { .. } => lane.late,
                Rejection::Failed(_) => lane.dead,
            };
            let Some(topic) = topic else { continue };
            let rows = topics.entry(topic).or_default();
            rows.values.bytes.extend_from_slice(&rejected.record.value);
            rows.values.end_row();
            let keys = rows.keys.get_or_insert_with(Encoded::default);
            match &rejected.record.key {
                Some(key) => {
                    keys.bytes.extend_from_slice(key);
                    keys.end_row();
                }
                None => keys.push_null(),
            }
            rows.headers.get_or_insert_default().push(self.headers(lane, statement, rejected));
        }
        topics.into_iter().map(|(topic, rows)| (topic, SinkRows::Encoded(rows))).collect()
    }

    fn headers(&self, lane: &Lane, statement: Option<usize>, rejected: &Rejected) -> RecordHeaders {
        let mut headers = RecordHeaders::new();
        let mut add = |name: &str, value: String| headers.push((format!("tidemill.{name}"), Some(value.into_bytes())));
        if let Some(id) = lane.source.partition_id(rejected.origin.partition as usize) {
            add("topic", id.topic.to_string());
            add("partition", id.partition.to_string());
        }
        add("offset", rejected.origin.offset.to_string());
        match &rejected.rejection {
            Rejection::Failed(reason) => add("reason", reason.clone()),
            Rejection::Late { time, watermark, missed: Missed { first, last, count }, partly } => {
                add("reason", "late".to_owned());
                add("event-time", iso_utc(*time));
                add("watermark", iso_utc(*watermark));
                let all = if *count == 1 { shown(first) } else { format!("{}, {}", shown(first), shown(last)) };
                add("windows", all);
                add("windows-missed", count.to_string());
                if *partly {
                    add("partly", "true".to_owned());
                }
            }
        }
        add("job", self.job.clone());
        if let Some(sink) = statement.and_then(|statement| self.sinks.get(statement)?.clone()) {
            add("sink", sink);
        }
        headers
    }
}

/// `[2013-01-01T10:00:00.000Z, 2013-01-01T11:00:00.000Z)`.
fn shown((start, end): &(TimeMs, TimeMs)) -> String {
    format!("[{}, {})", iso_utc(*start), iso_utc(*end))
}
