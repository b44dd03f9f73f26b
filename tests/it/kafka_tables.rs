//! Kafka tables against a real broker: what the in-process one cannot do. Transactions end in markers that no one
//! sees, aborted rows leave holes, an open transaction holds the end back; retention passes readers, and topics are
//! deleted and made anew under them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use futures::executor::block_on;
use rdkafka::admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::producer::Producer;
use rdkafka::{Offset, TopicPartitionList};
use tidemill::catalog::options::Options;
use tidemill::catalog::{Column, ColumnKind, Table};
use tidemill::connectors::{Defaults, Source, SourceReader, SourceSpec, open_sink, open_source};
use tidemill::error::{Error, Result};
use tidemill::runtime::{Engine, EngineConfig, Outcome};

use crate::common::broker::{Broker, REQUEST_TIMEOUT, shared, unique_name};
use crate::common::records::Ending;

/// How long anything may take here, the detection of a deleted topic included.
const PATIENCE: Duration = Duration::from_secs(60);

const EARLIEST: (&str, &str) = ("scan.startup.mode", "earliest-offset");
const TO_LATEST: (&str, &str) = ("scan.bounded.mode", "latest-offset");

fn defaults(broker: &Broker) -> Defaults {
    Defaults { brokers: Some(broker.addresses().to_string()), ..Defaults::default() }
}

/// A table of one column, the value as it is.
fn table(topic: &str, pairs: &[(&str, &str)]) -> Table {
    let pairs = [("connector", "kafka"), ("topic", topic), ("format", "raw")].into_iter().chain(pairs.iter().copied());
    Table {
        name: "t".into(),
        columns: vec![Column {
            name: "v".into(),
            data_type: DataType::Utf8,
            sql_type: "STRING".into(),
            not_null: false,
            kind: ColumnKind::Physical,
            comment: None,
        }],
        watermark: None,
        primary_key: Vec::new(),
        options: Options::from_pairs(pairs.map(|(key, value)| (key.into(), value.into()))),
        comment: None,
        temporary: false,
    }
}

fn open(broker: &Broker, table: Table) -> Arc<dyn Source> {
    open_source(SourceSpec::all_columns(table), &defaults(broker)).expect("a source")
}

/// Reads partition 0 until `enough` of (offsets, position, at the end), or an error.
fn read_until(
    reader: &mut dyn SourceReader,
    enough: impl Fn(&[i64], i64, bool) -> bool,
) -> Result<(Vec<i64>, Vec<String>, i64)> {
    let (mut offsets, mut values) = (Vec::new(), Vec::new());
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "still reading after {offsets:?}: {:?}", reader.trouble());
        if let Some(rows) = reader.poll(0, 3)? {
            values.extend(rows.columns[0].as_string::<i32>().iter().flatten().map(str::to_string));
            offsets.extend(rows.offsets);
            if enough(&offsets, rows.next_offset, rows.at_end) {
                return Ok((offsets, values, rows.next_offset));
            }
        } else {
            reader.wait(Duration::from_millis(100))?;
        }
    }
}

/// The offsets of a bounded table.
fn offsets(broker: &Broker, table: Table) -> Vec<i64> {
    let mut reader = open(broker, table).reader(&[0]).expect("a reader");
    read_until(reader.as_mut(), |_, _, at_end| at_end).expect("rows").0
}

fn error(reader: &mut dyn SourceReader) -> Error {
    read_until(reader, |_, _, _| false).expect_err("an error")
}

fn delete_records_before(broker: &Broker, topic: &str, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset)).expect("an offset");
    block_on(broker.admin().delete_records(&list, &AdminOptions::new())).expect("Kafka deletes records");
}

fn delete_topic(broker: &Broker, topic: &str) {
    block_on(broker.admin().delete_topics(&[topic], &AdminOptions::new())).expect("Kafka deletes a topic");
    let start = Instant::now();
    while broker.partition_count(topic).is_some() {
        assert!(start.elapsed() < PATIENCE);
    }
}

#[test]
fn the_end_is_a_position_past_markers_and_aborted_rows() {
    let broker = shared();
    let topic = broker.topic("tables-transactions", 1);
    for ending in [Ending::Commit, Ending::Abort, Ending::Commit] {
        broker.transaction(&topic, ["a", "b", "c", "d", "e"], ending);
    }
    // 0-4, a marker at 5, 6-10 aborted, 11, 12-16, and a marker at 17.
    let seen = [0, 1, 2, 3, 4, 12, 13, 14, 15, 16];
    assert_eq!(offsets(broker, table(&topic, &[EARLIEST, TO_LATEST])), seen);
    for (end, want) in [(5, 5), (6, 5), (9, 5), (12, 5), (13, 6), (17, 10), (18, 10)] {
        let end = format!("partition:0,offset:{end}");
        let bounded =
            [EARLIEST, ("scan.bounded.mode", "specific-offsets"), ("scan.bounded.specific-offsets", end.as_str())];
        assert_eq!(offsets(broker, table(&topic, &bounded)), seen[..want], "{end}");
    }

    // What is not committed is not there: neither its rows nor its offsets.
    let transaction = broker.transaction(&topic, ["open"], Ending::Open);
    assert_eq!(open(broker, table(&topic, &[EARLIEST, TO_LATEST])).partitions()[0].end, Some(18));
    let mut reader = open(broker, table(&topic, &[EARLIEST])).reader(&[0]).expect("a reader");
    let (read, _, position) = read_until(reader.as_mut(), |_, _, at_end| at_end).expect("rows");
    assert_eq!((read.as_slice(), position), (&seen[..], 18));
    transaction.commit_transaction(REQUEST_TIMEOUT).expect("the commit");
    let (read, values, position) = read_until(reader.as_mut(), |_, _, at_end| at_end).expect("rows");
    assert_eq!((read, values, position), (vec![18], vec!["open".to_string()], 20));
}

#[test]
fn lost_ranges_are_named() {
    let broker = shared();
    let topic = broker.topic("tables-retention", 1);
    broker.produce(&topic, (0..10).map(|i| i.to_string()));
    let source = open(broker, table(&topic, &[EARLIEST]));
    delete_records_before(broker, &topic, 5);

    let mut reader = source.reader(&[0]).expect("a reader");
    let lost = error(reader.as_mut());
    assert!(lost.message.ends_with("the records from 0 to 4 are gone"), "{lost}");

    let mut spec = SourceSpec::all_columns(table(&topic, &[EARLIEST]));
    spec.resume = Some(source.partitions().to_vec());
    let lost = open_source(spec, &defaults(broker)).err().expect("an error");
    assert!(lost.message.ends_with("which holds 5 to 10; the records from 0 to 4 are gone"), "{lost}");

    let by_time = [("scan.startup.mode", "timestamp"), ("scan.startup.timestamp-millis", "1"), TO_LATEST];
    assert_eq!(offsets(broker, table(&topic, &by_time)), [5, 6, 7, 8, 9]);
}

#[test]
fn a_topic_that_is_deleted_or_made_anew_ends_its_reader() {
    let broker = shared();
    let (gone, anew) = (broker.topic("tables-gone", 1), broker.topic("tables-anew", 1));
    let mut readers = [&gone, &anew].map(|topic| {
        broker.produce(topic, ["a", "b"]);
        let mut reader = open(broker, table(topic, &[EARLIEST])).reader(&[0]).expect("a reader");
        read_until(reader.as_mut(), |_, _, at_end| at_end).expect("rows");
        delete_topic(broker, topic);
        reader
    });
    let again = NewTopic::new(&anew, 1, TopicReplication::Fixed(1));
    block_on(broker.admin().create_topics([&again], &AdminOptions::new())).expect("Kafka answers");
    broker.produce(&anew, ["c"]);

    let [gone, anew] = readers.each_mut().map(|reader| error(reader.as_mut()).message);
    assert!(gone.contains("is gone from the cluster"), "{gone}");
    assert!(anew.contains("no longer holds offset 2") || anew.contains("is gone from the cluster"), "{anew}");
}

#[test]
fn a_sink_creates_its_topic() {
    let broker = shared();
    for (partitions, want) in [(None, 1), (Some("3"), 3)] {
        let topic = unique_name("tables-created");
        let mut table = table(&topic, &[]);
        if let Some(partitions) = partitions {
            table.options.set("sink.topic.partitions", partitions);
        }
        open_sink(&table, &defaults(broker)).expect("a sink");
        assert_eq!(broker.partition_count(&topic), Some(want));
    }
}

/// A table of `k STRING` (the key) and `n BIGINT`.
fn upserts(topic: &str) -> Table {
    let mut table = table(
        topic,
        &[
            ("connector", "upsert-kafka"),
            ("key.format", "json"),
            ("value.format", "json"),
            ("sink.topic.partitions", "4"),
        ],
    );
    let pairs = table.options.iter().filter(|(key, _)| *key != "format");
    table.options =
        Options::from_pairs(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<Vec<_>>());
    let column = table.columns.remove(0);
    table.columns = vec![
        Column { name: "k".into(), not_null: true, ..column.clone() },
        Column { name: "n".into(), data_type: DataType::Int64, sql_type: "BIGINT".into(), ..column },
    ];
    table.primary_key = vec!["k".into()];
    table
}

/// What a reader that keeps the last record of each key has in the end, and per key all records in their order.
type ByKey = BTreeMap<String, (i32, Vec<Option<i64>>)>;

/// The records of a topic by key: the partition, which is one per key, and the values in their order.
fn by_key(broker: &Broker, topic: &str) -> ByKey {
    let mut keys = ByKey::new();
    for record in broker.read_all(topic) {
        let key: serde_json::Value = serde_json::from_slice(record.key.as_deref().expect("a key")).expect("JSON");
        let key = key["k"].as_str().expect("a string").to_owned();
        let value = record.value.as_ref().map(|_| record.json());
        if let Some(value) = &value {
            assert_eq!(value["k"], key, "the value has the key's columns too");
        }
        let (partition, values) = keys.entry(key).or_insert((record.partition, Vec::new()));
        assert_eq!(*partition, record.partition, "a key has one partition");
        values.push(value.map(|value| value["n"].as_i64().expect("a number")));
    }
    keys
}

#[test]
fn a_changelog_by_key_is_in_order_and_what_is_gone_has_no_value() {
    let broker = shared();
    let topic = unique_name("tables-upserts");
    let sink = open_sink(&upserts(&topic), &defaults(broker)).expect("a sink");
    let (mut encoder, mut writer) = (sink.encoder().expect("an encoder"), sink.writer().expect("a writer"));
    // Every key appears, changes 50 times; then every third one goes.
    let name = |key: i64| format!("key {key}");
    let mut write = |rows: &[(i8, i64, i64)]| {
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| name(row.1))));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)));
        let batch = RecordBatch::try_from_iter([("k", keys), ("n", numbers)]).expect("a batch");
        let kinds: Int8Array = rows.iter().map(|row| Some(row.0)).collect();
        writer.write(encoder.encode(&batch, Some(&kinds)).expect("records")).expect("written");
    };
    let (insert, before, after, delete) = (0, 1, 2, 3);
    write(&(0..30).map(|key| (insert, key, 0)).collect::<Vec<_>>());
    for n in 1..=50 {
        write(&(0..30).flat_map(|key| [(before, key, n - 1), (after, key, n)]).collect::<Vec<_>>());
    }
    write(&(0..30).step_by(3).map(|key| (delete, key, 50)).collect::<Vec<_>>());
    writer.close().expect("closed");

    let keys = by_key(broker, &topic);
    assert_eq!(keys.len(), 30);
    for key in 0..30 {
        let end = if key % 3 == 0 { vec![None] } else { Vec::new() };
        assert_eq!(keys[&name(key)].1, (0..=50).map(Some).chain(end).collect::<Vec<_>>(), "{key}");
    }
    assert!((0..4).all(|partition| keys.values().any(|(p, _)| *p == partition)), "all four partitions have keys");

    let resource = [ResourceSpecifier::Topic(&topic)];
    let configs = block_on(broker.admin().describe_configs(&resource, &AdminOptions::new())).expect("an answer");
    let config = configs.into_iter().next().expect("a topic").expect("its settings");
    let policy = config.get("cleanup.policy").and_then(|entry| entry.value.clone());
    assert_eq!(policy.as_deref(), Some("compact"), "rows that nobody changes must not expire");
}

#[test]
fn rows_that_are_only_new_overwrite_each_other_by_key() {
    let broker = shared();
    let (source, topic) = (broker.topic("tables-upsert-source", 1), unique_name("tables-upserts"));
    broker.produce(&source, (0..40).map(|n| format!(r#"{{"k":"k{}","n":{n}}}"#, n % 4)));
    let config = EngineConfig { brokers: Some(broker.addresses().into()), ..EngineConfig::default() };
    let engine = Engine::open(config).expect("an engine");
    let run = |sql: &str| -> Result<()> {
        for outcome in engine.run(sql) {
            if let Outcome::Started(job) = outcome? {
                job.wait()?;
            }
        }
        Ok(())
    };
    let tables = format!(
        "CREATE TABLE i (k STRING, n BIGINT) WITH ('connector' = 'kafka', 'topic' = '{source}', 'format' = 'json',
             'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset');
         CREATE TABLE u (k STRING, n BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'upsert-kafka',
             'topic' = '{topic}', 'key.format' = 'json', 'value.format' = 'json', 'sink.topic.partitions' = '3')"
    );
    run(&tables).expect("tables");
    run("INSERT INTO u SELECT k, n FROM i").expect("rows");
    run("INSERT INTO u VALUES ('k1', 100)").expect("a row");
    let keys = by_key(broker, &topic);
    for key in 0..4 {
        let last = if key == 1 { vec![Some(100)] } else { Vec::new() };
        let want: Vec<_> = (0..40).filter(|n| n % 4 == key).map(Some).chain(last).collect();
        assert_eq!(keys[&format!("k{key}")].1, want);
    }

    let error = run("INSERT INTO u SELECT CAST(NULL AS STRING), n FROM i").expect_err("no key");
    assert!(error.message.contains("column k is NOT NULL in the sink"), "{error}");
    let error = run("INSERT INTO u (n) SELECT n FROM i").expect_err("no key");
    assert_eq!(error.message, "column k of u is NOT NULL and gets no value");
    let error = engine.run("SELECT * FROM u").next().and_then(Result::err).expect("no reading");
    assert_eq!(error.message, "table u cannot be read from: reading a changelog is not available yet");
}
