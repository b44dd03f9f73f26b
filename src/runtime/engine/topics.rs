//! Topics as they are: lists, records, what they hold, and tables made of that.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{Field, Fields, Schema};

use super::{Engine, Outcome, Rows};
use crate::catalog::options::{Options, nearest};
use crate::catalog::{Catalog, Table};
use crate::connectors::kafka::{ClientProperties, Cluster, check_topic_name};
use crate::connectors::options::check_options;
use crate::discovery::table::{Inferred, Profile};
use crate::error::{Error, Result};
use crate::plan::Planner;
use crate::runtime::topic_rows::TopicRows;
use crate::sql::show::show_create_table;

/// How long a name that no table has may keep people waiting for an answer whether a topic has it.
const MAYBE_A_TOPIC_WAIT: Duration = Duration::from_secs(3);

/// Kafka's own topics begin so.
const INTERNAL: &str = "__";

impl Engine {
    fn cluster(&self) -> Result<Cluster> {
        let defaults = self.state().defaults();
        Cluster::new(ClientProperties::of_defaults(&defaults)?)
    }

    /// The names of the broker's topics, but for Kafka's own.
    pub fn topic_names(&self) -> Result<Vec<String>> {
        let topics = self.cluster()?.waiting(MAYBE_A_TOPIC_WAIT).topics()?;
        Ok(topics.into_iter().map(|topic| topic.name).filter(|name| !name.starts_with(INTERNAL)).collect())
    }

    /// The columns that a table would have which is inferred from a topic.
    pub fn topic_columns(&self, topic: &str) -> Result<Fields> {
        let sample = self.cluster()?.waiting(MAYBE_A_TOPIC_WAIT).sample(topic)?;
        let inferred = Profile::of(&sample).infer(&table_over(topic))?;
        Ok(inferred.table.fields())
    }

    pub(super) fn show_topics(&self) -> Result<Outcome> {
        let mut topics = self.cluster()?.summaries()?;
        topics.retain(|topic| !topic.name.starts_with(INTERNAL));
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let numbers = |numbers: Vec<i64>| Arc::new(Int64Array::from(numbers)) as ArrayRef;
        let records = topics.iter().map(|t| t.records.map(|records| i64::try_from(records).unwrap_or(i64::MAX)));
        let newest = TimestampMillisecondArray::from_iter(topics.iter().map(|t| t.newest_ms)).with_timezone("UTC");
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("topic", Arc::new(StringArray::from_iter_values(topics.iter().map(|t| &t.name)))),
            ("partitions", numbers(topics.iter().map(|t| count(t.partitions)).collect())),
            ("replication", numbers(topics.iter().map(|t| count(t.replication)).collect())),
            ("records", Arc::new(Int64Array::from_iter(records))),
            ("newest", Arc::new(newest)),
        ];
        let fields: Vec<_> = columns.iter().map(|(name, c)| Field::new(*name, c.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        Ok(Outcome::Rows(Rows { batches: vec![RecordBatch::try_new(Arc::clone(&schema), columns)?], schema }))
    }

    pub(super) fn print(&self, topic: &str, from_beginning: bool, limit: Option<usize>) -> Result<Outcome> {
        let is_bounded = self.state().session.until_caught_up()?;
        Ok(Outcome::Topic(TopicRows::open(&self.cluster()?, topic, from_beginning, is_bounded, limit)?))
    }

    pub(super) fn describe_topic(&self, topic: &str) -> Result<Outcome> {
        let sample = self.cluster()?.sample(topic)?;
        let profile = Profile::of(&sample);
        let titles = Profile::titles();
        let rows = Rows::of_text(&titles.iter().map(String::as_str).collect::<Vec<_>>(), profile.rows())?;
        self.notice(format!("{}; {}", profile.extent(), profile.formats()));
        Ok(Outcome::Rows(rows))
    }

    /// Gives a table without columns those that its topic's records have; answers what is to be said.
    pub(super) fn infer_columns(&self, table: &mut Table) -> Result<Vec<String>> {
        let no_columns = |hint: &str| Error::statement(format!("table {} has no columns", table.name)).hint(hint);
        const BY_HAND: &str = "name them, as in CREATE TABLE t (a BIGINT, b STRING) WITH (..)";
        let topic = match (table.options.get("connector"), table.options.get("topic")) {
            (Some("kafka"), Some(topic)) if !topic.contains(';') => topic.to_owned(),
            (Some("kafka"), None) => return Err(no_columns("add 'topic' = '..' to WITH (..), or name the columns")),
            _ => return Err(no_columns(&format!("{BY_HAND}; only those of one Kafka topic can be inferred"))),
        };
        check_options(table)?;
        let defaults = self.state().defaults();
        let Ok(properties) = ClientProperties::of_table(&table.options, &defaults) else {
            return Err(no_columns(&format!("{BY_HAND}; with a broker (--brokers) they are inferred from the topic")));
        };
        let sample = Cluster::new(properties)?.sample(&topic)?;
        let profile = Profile::of(&sample);
        let inferred = profile.infer(table)?;
        *table = inferred.table;
        Ok(inferred.notices.into_iter().chain([kept(table, &profile.extent())]).collect())
    }

    /// Makes a table of a topic whose name was meant as a table's; `None` when nobody can tell whether there is one.
    pub(super) fn infer_topic(&self, name: &str) -> Result<Option<bool>> {
        let defaults = self.state().defaults();
        let has_broker = defaults.brokers.is_some() || defaults.embedded.is_some();
        if !has_broker || check_topic_name(name).is_err() {
            return Ok(None);
        }
        let cluster = Cluster::new(ClientProperties::of_defaults(&defaults)?)?.waiting(MAYBE_A_TOPIC_WAIT);
        match cluster.find_topic(name) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Some(false)),
            // That a broker is away does not make a name right.
            Err(_) => return Ok(None),
        }
        let sample = cluster.sample(name)?;
        let profile = Profile::of(&sample);
        let Inferred { mut table, notices } = profile.infer(&table_over(name))?;
        Planner::new(&Catalog::default()).resolve_table(&mut table)?;
        notices.into_iter().for_each(|notice| self.notice(notice));
        self.notice(kept(&table, &profile.extent()));
        self.state().catalog.add_inferred(table);
        Ok(Some(true))
    }

    /// Adds to the error for a name that neither a table nor a topic has the nearest topic, if that is what was meant.
    pub(super) fn with_nearest_topic(&self, error: Error, name: &str) -> Error {
        if error.hint.as_deref().is_some_and(|hint| hint.starts_with("did you mean")) {
            return error;
        }
        let Ok(topics) = self.cluster().map(|cluster| cluster.waiting(MAYBE_A_TOPIC_WAIT)).and_then(|c| c.topics())
        else {
            return error;
        };
        match nearest(name, topics.iter().map(|topic| topic.name.as_str())) {
            Some(near) => error.hint(format!("did you mean the topic {}?", crate::sql::types::quote(near))),
            None => error,
        }
    }
}

/// A table without columns over a topic of the same name.
fn table_over(topic: &str) -> Table {
    Table {
        name: topic.to_owned(),
        columns: Vec::new(),
        watermark: None,
        primary_key: Vec::new(),
        options: Options::from_pairs([("connector", "kafka"), ("topic", topic)].map(|(k, v)| (k.into(), v.into()))),
        comment: None,
        temporary: false,
    }
}

/// What to say about a table that was inferred.
fn kept(table: &Table, extent: &str) -> String {
    let statement = show_create_table(table);
    format!("the columns of {} are inferred from {extent}; to keep them as they are:\n{statement};", table.name)
}
