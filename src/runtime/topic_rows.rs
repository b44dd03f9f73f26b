//! `PRINT`: the records of a topic as they come, as they are.
//!
//! No table stands between: a tombstone is a row, and so is a value that is no JSON or no text at all.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Int32Builder, Int64Builder, MapBuilder, MapFieldNames, RecordBatch, StringBuilder,
    TimestampMillisecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::connectors::kafka::{Cluster, TopicReader};
use crate::discovery::TopicRecord;
use crate::discovery::bytes::{Kinds, recognise, shown};
use crate::error::Result;

/// Records that are shown at once, at most.
const ROWS_MAX: usize = 1_000;

/// The records of a topic as they come.
pub struct TopicRows {
    reader: TopicReader,
    schema: SchemaRef,
    limit: Option<usize>,
    is_stopped: bool,
    keys: Kinds,
    values: Kinds,
}

impl TopicRows {
    /// Reads all partitions of a topic: from its beginning or what comes, and to where it ends now if it is bounded.
    pub(super) fn open(
        cluster: &Cluster,
        topic: &str,
        from_beginning: bool,
        is_bounded: bool,
        limit: Option<usize>,
    ) -> Result<Self> {
        let reader = cluster.read_topic(topic, from_beginning, is_bounded)?;
        let (keys, values) = (Kinds::default(), Kinds::default());
        Ok(Self { reader, schema: schema(), limit, is_stopped: false, keys, values })
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// No more is wanted.
    pub fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// How keys and values were written so far, in words.
    pub fn formats(&self) -> String {
        format!("key: {}; value: {}", self.keys.describe(), self.values.describe())
    }

    /// The next records: `Ok(Some)`, the end: `Ok(None)`, or nothing within `wait`: an empty batch.
    pub fn next_within(&mut self, wait: Duration) -> Result<Option<RecordBatch>> {
        if self.is_stopped || self.limit == Some(0) || self.reader.has_ended() {
            return Ok(None);
        }
        let rows_max = self.limit.unwrap_or(usize::MAX).min(ROWS_MAX);
        let mut records = Vec::new();
        self.reader.read(wait, |_, record| {
            records.push(record);
            records.len() < rows_max
        })?;
        if let Some(limit) = &mut self.limit {
            *limit -= records.len();
        }
        for record in &records {
            self.keys.count(recognise(record.key.as_deref()).0);
            self.values.count(recognise(record.value.as_deref()).0);
        }
        rows(&self.schema, &records).map(Some)
    }
}

fn header_names() -> MapFieldNames {
    MapFieldNames { entry: "entries".to_owned(), key: "key".to_owned(), value: "value".to_owned() }
}

fn headers_builder() -> MapBuilder<StringBuilder, StringBuilder> {
    MapBuilder::new(Some(header_names()), StringBuilder::new(), StringBuilder::new())
}

fn schema() -> SchemaRef {
    let headers = arrow::array::Array::data_type(&headers_builder().finish()).clone();
    let instant = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", instant, true),
        Field::new("headers", headers, true),
        Field::new("key", DataType::Utf8, true),
        Field::new("value", DataType::Utf8, true),
    ]))
}

fn rows(schema: &SchemaRef, records: &[TopicRecord]) -> Result<RecordBatch> {
    let (mut partitions, mut offsets) = (Int32Builder::new(), Int64Builder::new());
    let mut times = TimestampMillisecondBuilder::new().with_timezone("UTC");
    let (mut keys, mut values, mut headers) = (StringBuilder::new(), StringBuilder::new(), headers_builder());
    for record in records {
        partitions.append_value(record.partition);
        offsets.append_value(record.offset);
        times.append_option(record.timestamp_ms);
        keys.append_option(record.key.as_deref().map(shown));
        values.append_option(record.value.as_deref().map(shown));
        for (name, value) in &record.headers {
            headers.keys().append_value(name);
            headers.values().append_option(value.as_deref().map(shown));
        }
        headers.append(!record.headers.is_empty())?;
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(partitions.finish()),
        Arc::new(offsets.finish()),
        Arc::new(times.finish()),
        Arc::new(headers.finish()),
        Arc::new(keys.finish()),
        Arc::new(values.finish()),
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_every_kind_are_rows() {
        let tombstone = TopicRecord { key: Some(b"k".to_vec()), ..TopicRecord::default() };
        let binary = TopicRecord {
            partition: 2,
            offset: 7,
            timestamp_ms: Some(1_357_000_000_000),
            value: Some(vec![0xc8, 1]),
            headers: vec![("a".to_owned(), Some(b"1".to_vec())), ("b".to_owned(), None)],
            ..TopicRecord::default()
        };
        let batch = rows(&schema(), &[tombstone, binary]).unwrap();
        let shown = arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string();
        for want in ["| 0         | 0      |", "| k   |", "2013-01-01T00:26:40Z", "{a: 1, b: }", "0xc801"] {
            assert!(shown.contains(want), "{want}: {shown}");
        }
    }
}
