//! Round trips over the broker inside this process. What a real broker does (transactions, retention, authorisation)
//! is tested elsewhere, against one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Int64Type, Schema, TimeUnit, TimestampMillisecondType};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::{ClientProperties, Cluster, Embedded, KafkaSink};
use crate::catalog::options::Options;
use crate::catalog::{Column, ColumnKind, Table};
use crate::connectors::{CancelToken, EncodedRows, Sink, SinkRows};
use crate::connectors::{Defaults, PartitionPlan, SourceReader, SourceRows, SourceSpec, open_sink, open_source};
use crate::error::{Blame, Error, Result};
use crate::formats::Encoded;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    defaults: Defaults,
}

impl World {
    fn new() -> Self {
        Self { defaults: Defaults { embedded: Some(Arc::default()), ..Defaults::default() } }
    }

    fn embedded(&self) -> &Arc<Embedded> {
        self.defaults.embedded.as_ref().unwrap()
    }

    fn cluster(&self) -> Cluster {
        Cluster::new(ClientProperties::of_defaults(&self.defaults).unwrap()).unwrap()
    }

    fn topic(&self, name: &str, partitions: i32) {
        self.cluster().create_topic(name, Some(partitions), -1).unwrap();
    }

    /// Writes values (and keys) as they are.
    fn produce(&self, topic: &str, records: &[(Option<&str>, Option<&str>)]) {
        let table = table(&[("v", DataType::Utf8)], &[("topic", topic), ("format", "raw")]);
        let sink = open_sink(&table, &self.defaults).unwrap();
        let mut writer = sink.writer().unwrap();
        writer.write(SinkRows::Encoded(encoded(records))).unwrap();
        writer.close().unwrap();
    }

    fn read(&self, table: Table) -> Read {
        self.try_read(table).unwrap()
    }

    /// Reads a bounded table to its end.
    fn try_read(&self, table: Table) -> Result<Read> {
        let source = open_source(SourceSpec::all_columns(table), &self.defaults)?;
        let share: Vec<usize> = (0..source.partitions().len()).collect();
        let mut reader = source.reader(&share)?;
        let mut read = Read::default();
        let (start, mut done) = (Instant::now(), vec![false; share.len()]);
        while done.contains(&false) {
            assert!(start.elapsed() < PATIENCE, "not at the end: {:?}", reader.trouble());
            for &partition in &share {
                let Some(rows) = reader.poll(partition, 100)? else { continue };
                let plan = &source.partitions()[partition];
                done[partition] |= rows.at_end && plan.end.is_none_or(|end| rows.next_offset >= end);
                assert!(rows.offsets.iter().all(|o| *o < plan.end.unwrap_or(i64::MAX)));
                read.add(rows);
            }
            reader.wait(Duration::from_millis(50))?;
        }
        Ok(read)
    }
}

#[derive(Default)]
struct Read {
    batches: Vec<Vec<ArrayRef>>,
    records: u64,
    bad: u64,
    tombstones: u64,
    offsets: Vec<i64>,
}

impl Read {
    fn add(&mut self, rows: SourceRows) {
        assert!(rows.columns.iter().all(|c| c.len() == rows.offsets.len()));
        self.records += rows.records;
        self.bad += rows.bad;
        self.tombstones += rows.tombstones;
        self.offsets.extend(&rows.offsets);
        self.batches.push(rows.columns);
    }

    fn column(&self, i: usize) -> ArrayRef {
        concat(&self.batches.iter().map(|b| b[i].as_ref()).collect::<Vec<_>>()).unwrap()
    }

    fn strings(&self, i: usize) -> Vec<Option<String>> {
        self.column(i).as_string::<i32>().iter().map(|v| v.map(str::to_owned)).collect()
    }

    fn longs(&self, i: usize) -> Vec<i64> {
        self.column(i).as_primitive::<Int64Type>().values().to_vec()
    }
}

fn encoded(records: &[(Option<&str>, Option<&str>)]) -> EncodedRows {
    let slab = |pick: &dyn Fn(&(Option<&str>, Option<&str>)) -> Option<String>| {
        let mut slab = Encoded::default();
        for record in records {
            let value = pick(record);
            slab.nulls.push(value.is_none());
            slab.bytes.extend_from_slice(value.unwrap_or_default().as_bytes());
            slab.ends.push(slab.bytes.len());
        }
        slab
    };
    EncodedRows {
        values: slab(&|r| r.1.map(str::to_owned)),
        keys: Some(slab(&|r| r.0.map(str::to_owned))),
        ..EncodedRows::default()
    }
}

fn column(name: &str, data_type: DataType, kind: ColumnKind) -> Column {
    Column { name: name.to_owned(), data_type, sql_type: String::new(), not_null: false, kind, comment: None }
}

fn metadata(name: &str, data_type: DataType, is_virtual: bool) -> Column {
    column(name, data_type, ColumnKind::Metadata { key: name.to_owned(), is_virtual })
}

fn table(columns: &[(&str, DataType)], pairs: &[(&str, &str)]) -> Table {
    let pairs = [("connector", "kafka")].iter().chain(pairs);
    Table {
        name: "t".to_owned(),
        columns: columns.iter().map(|(n, t)| column(n, t.clone(), ColumnKind::Physical)).collect(),
        watermark: None,
        primary_key: Vec::new(),
        options: Options::from_pairs(pairs.map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))),
        comment: None,
        temporary: false,
    }
}

fn with(mut table: Table, pairs: &[(&str, &str)]) -> Table {
    pairs.iter().for_each(|(k, v)| table.options.set(*k, *v));
    table
}

const BOUNDED: &[(&str, &str)] = &[("scan.startup.mode", "earliest-offset"), ("scan.bounded.mode", "latest-offset")];

fn strings(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|v| Some((*v).to_owned())).collect()
}

fn header_map() -> DataType {
    let pair =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false)
}

#[test]
fn what_is_written_is_read() {
    let world = World::new();
    let columns = [("id", DataType::Int64), ("name", DataType::Utf8)];
    let written = table(&columns, &[("topic", "orders"), ("format", "json"), ("sink.topic.partitions", "3")]);
    let sink = open_sink(&written, &world.defaults).unwrap();
    let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
    let ids: ArrayRef = Arc::new(Int64Array::from((0..1_000).collect::<Vec<i64>>()));
    let names: ArrayRef = Arc::new(StringArray::from((0..1_000).map(|i| format!("n{i}")).collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(Arc::new(schema), vec![ids, names]).unwrap();
    let rows = sink.encoder().unwrap().encode(&batch, None).unwrap();
    let mut writer = sink.writer().unwrap();
    writer.write(rows).unwrap();
    writer.flush().unwrap();
    writer.close().unwrap();

    let read = world.read(with(written, BOUNDED));
    let mut ids = read.longs(0);
    ids.sort_unstable();
    assert_eq!(ids, (0..1_000).collect::<Vec<_>>());
    assert_eq!(read.records, 1_000);
    let raw =
        world.read(table(&[("v", DataType::Utf8)], &[&[("topic", "orders"), ("format", "raw")], BOUNDED].concat()));
    assert!(raw.strings(0).contains(&Some(r#"{"id":7,"name":"n7"}"#.to_owned())), "the value is exactly the object");
}

/// Writes rows `(k, n)` of these kinds into a table with these options; the records' keys and values.
fn changes(world: &World, options: &[(&str, &str)], rows: &[(i8, &str, i64)]) -> Vec<(Option<String>, Option<String>)> {
    let mut written = table(&[("k", DataType::Utf8), ("n", DataType::Int64)], options);
    written.primary_key = vec!["k".to_owned()];
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1)));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2)));
    let batch = RecordBatch::try_from_iter([("a", keys), ("b", numbers)]).unwrap();
    let kinds = rows.iter().map(|r| r.0).collect::<Vec<_>>().into();
    let sink = open_sink(&written, &world.defaults).unwrap();
    let SinkRows::Encoded(rows) = sink.encoder().unwrap().encode(&batch, Some(&kinds)).unwrap() else { panic!() };
    let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8(b.to_vec()).unwrap());
    let keys = rows.keys.as_ref();
    let records = (0..rows.values.len()).map(|i| (text(keys.and_then(|k| k.row(i))), text(rows.values.row(i))));
    let records: Vec<_> = records.collect();
    let mut writer = sink.writer().unwrap();
    writer.write(SinkRows::Encoded(rows)).unwrap();
    writer.close().unwrap();
    records
}

const CHANGES: &[(i8, &str, i64)] =
    &[(0, "a", 1), (0, "b", 5), (1, "a", 1), (2, "a", 2), (3, "b", 5), (1, "a", 2), (0, "c", 9)];

#[test]
fn an_upsert_table_has_the_last_row_of_each_key() {
    let world = World::new();
    let options = [
        ("connector", "upsert-kafka"),
        ("topic", "upserts"),
        ("key.format", "json"),
        ("value.format", "json"),
        ("sink.topic.partitions", "3"),
    ];
    let written = changes(&world, &options, CHANGES);
    let shown: Vec<_> = written.iter().map(|(k, v)| (k.as_deref().unwrap(), v.as_deref())).collect();
    let want = [
        (r#"{"k":"a"}"#, Some(r#"{"k":"a","n":1}"#)),
        (r#"{"k":"b"}"#, Some(r#"{"k":"b","n":5}"#)),
        (r#"{"k":"a"}"#, Some(r#"{"k":"a","n":2}"#)),
        (r#"{"k":"b"}"#, None),
        (r#"{"k":"a"}"#, None),
        (r#"{"k":"c"}"#, Some(r#"{"k":"c","n":9}"#)),
    ];
    assert_eq!(shown, want);
    let read = world.read(table(
        &[("k", DataType::Utf8), ("n", DataType::Int64)],
        &[&[("topic", "upserts"), ("format", "json")], BOUNDED].concat(),
    ));
    assert_eq!((read.records, read.tombstones), (6, 2));

    let options = [&options[..], &[("value.fields-include", "EXCEPT_KEY"), ("key.format", "raw")]].concat();
    let written = changes(&world, &options, &[(1, "a", 1), (2, "b", 1)]);
    let record = |key: &str, value: Option<&str>| (Some(key.to_owned()), value.map(str::to_owned));
    assert_eq!(written, [record("a", None), record("b", Some(r#"{"n":1}"#))]);
}

#[test]
fn debezium_records_tell_every_change() {
    let world = World::new();
    let options = [("topic", "changes"), ("format", "debezium-json"), ("key.format", "raw"), ("key.fields", "k")];
    let written = changes(&world, &options, &[(0, "a", 1), (1, "a", 1), (2, "a", 2), (3, "a", 2)]);
    let there = |n: i64| format!(r#"{{"before":null,"after":{{"k":"a","n":{n}}},"op":"c"}}"#);
    let gone = |n: i64| format!(r#"{{"before":{{"k":"a","n":{n}}},"after":null,"op":"d"}}"#);
    let want = [there(1), gone(1), there(2), gone(2)].map(|value| (Some("a".to_owned()), Some(value)));
    assert_eq!(written, want);
}

#[test]
fn changelogs_are_not_read_and_their_keys_stay_together() {
    let world = World::new();
    let columns = [("k", DataType::Utf8)];
    let upsert = [("connector", "upsert-kafka"), ("topic", "u"), ("key.format", "raw"), ("value.format", "json")];
    let mut upsert = table(&columns, &upsert);
    upsert.primary_key = vec!["k".to_owned()];
    let unread = |table: Table| open_source(SourceSpec::all_columns(table), &world.defaults).err().unwrap();
    let error = unread(upsert.clone());
    assert_eq!(error.message, "table t cannot be read from: reading a changelog is not available yet");
    assert!(error.hint.unwrap().contains("'connector' = 'kafka'"));
    world.topic("d", 1);
    let error = world.try_read(table(&columns, &[("topic", "d"), ("format", "debezium-json")])).err().unwrap();
    assert!(error.message.contains("'debezium-json' can only be written"), "{error}");

    let scattered = with(upsert, &[("properties.partitioner", "random")]);
    let error = open_sink(&scattered, &world.defaults).err().unwrap();
    assert_eq!(error.message, "'properties.partitioner' = 'random' would scatter the changes of a key");
}

#[test]
fn keys_and_metadata() {
    let world = World::new();
    world.topic("keyed", 1);
    let options = [
        ("topic", "keyed"),
        ("value.format", "json"),
        ("key.format", "json"),
        ("key.fields", "k_id"),
        ("key.fields-prefix", "k_"),
        ("value.fields-include", "EXCEPT_KEY"),
    ];
    let mut sink_table = table(&[("k_id", DataType::Int32), ("id", DataType::Int64)], &options);
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    sink_table.columns.push(metadata("timestamp", time, false));
    sink_table.columns.push(metadata("headers", header_map(), false));
    sink_table.columns.push(metadata("offset", DataType::Int64, true));
    sink_table.columns.push(metadata("partition", DataType::Int32, true));
    sink_table.columns.push(metadata("topic", DataType::Utf8, true));
    sink_table.columns.push(metadata("timestamp-type", DataType::Utf8, true));

    let sink = open_sink(&sink_table, &world.defaults).unwrap();
    let DataType::Map(entries, _) = header_map() else { unreachable!() };
    let DataType::Struct(pair) = entries.data_type().clone() else { unreachable!() };
    let pairs = arrow::array::StructArray::new(
        pair,
        vec![Arc::new(StringArray::from(vec!["h"])), Arc::new(BinaryArray::from(vec![b"x".as_ref()]))],
        None,
    );
    let headers = arrow::array::MapArray::new(
        entries,
        arrow::buffer::OffsetBuffer::new(vec![0, 1, 1].into()),
        pairs,
        None,
        false,
    );
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![1, 2])),
        Arc::new(Int64Array::from(vec![10, 20])),
        Arc::new(arrow::array::TimestampMillisecondArray::from(vec![1_000, 2_000]).with_timezone("UTC")),
        Arc::new(headers.clone()),
    ];
    let names = ["a", "b", "c", "d"];
    let batch = RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap();
    let mut writer = sink.writer().unwrap();
    writer.write(sink.encoder().unwrap().encode(&batch, None).unwrap()).unwrap();
    writer.close().unwrap();
    // A record without a key: its key columns are null.
    world.produce("keyed", &[(None, Some(r#"{"id":30}"#))]);

    let read = world.read(with(sink_table, BOUNDED));
    assert_eq!(read.column(0).as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(1), Some(2), None]);
    assert_eq!(read.longs(1), [10, 20, 30]);
    assert_eq!(&read.column(2).as_primitive::<TimestampMillisecondType>().values()[..2], &[1_000, 2_000]);
    assert_eq!(read.column(3).as_map().slice(0, 2), headers);
    assert_eq!(read.longs(4), [0, 1, 2]);
    assert_eq!(read.column(5).as_primitive::<Int32Type>().values(), &[0, 0, 0]);
    assert_eq!(read.strings(6), strings(&["keyed", "keyed", "keyed"]));
    assert_eq!(read.strings(7), strings(&["CreateTime", "CreateTime", "CreateTime"]));
    let keys = table(&[("k", DataType::Utf8), ("v", DataType::Utf8)], BOUNDED);
    let keys = with(
        keys,
        &[
            ("topic", "keyed"),
            ("key.format", "raw"),
            ("key.fields", "k"),
            ("value.format", "raw"),
            ("value.fields-include", "EXCEPT_KEY"),
        ],
    );
    let raw = world.read(keys);
    assert_eq!(raw.strings(0)[0].as_deref(), Some(r#"{"id":1}"#));
    assert_eq!(raw.strings(1)[0].as_deref(), Some(r#"{"id":10}"#));
}

#[test]
fn bad_records_are_values() {
    let world = World::new();
    world.topic("bad", 1);
    world.produce(
        "bad",
        &[(None, Some(r#"{"id":1}"#)), (None, Some("{\"id\":\"x\u{1b}")), (None, None), (None, Some(r#"{"id":2}"#))],
    );
    let ids = table(&[("id", DataType::Int64)], &[&[("topic", "bad"), ("format", "json")], BOUNDED].concat());
    let read = world.read(with(ids.clone(), &[("scan.on-error", "skip")]));
    assert_eq!((read.longs(0), read.records, read.bad, read.tombstones), (vec![1, 2], 4, 1, 1));
    assert_eq!(read.offsets, [0, 3]);
    let read = world.read(with(ids.clone(), &[("json.ignore-parse-errors", "true")]));
    assert_eq!((read.longs(0), read.bad), (vec![1, 2], 1));
    let error = world.try_read(ids).err().unwrap();
    assert_eq!(error.blame, Blame::Data);
    assert!(
        error.message.starts_with("the record at topic \"bad\", partition 0, offset 1 does not decode: "),
        "{error}"
    );
    assert!(error.message.ends_with(r#"it begins with "{\"id\":\"x\x1b""#), "{error}");
    assert!(error.hint.unwrap().contains("'scan.on-error' = 'skip'"));
}

#[test]
fn scan_modes() {
    let world = World::new();
    world.topic("modes", 1);
    let values: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let records: Vec<_> = values.iter().map(|v| (None, Some(v.as_str()))).collect();
    world.produce("modes", &records);
    let all = table(&[("v", DataType::Utf8)], &[("topic", "modes"), ("format", "raw")]);
    let end = ("scan.bounded.mode", "latest-offset");
    let specific =
        |at: &'static str| [("scan.startup.mode", "specific-offsets"), ("scan.startup.specific-offsets", at)];
    for (options, want) in [
        (vec![end], 0..10),
        (vec![("scan.startup.mode", "earliest-offset"), end], 0..10),
        (vec![("scan.startup.mode", "latest-offset"), end], 10..10),
        ([&specific("partition:0,offset:7")[..], &[end]].concat(), 7..10),
        (
            vec![("scan.bounded.mode", "specific-offsets"), ("scan.bounded.specific-offsets", "partition:0,offset:4")],
            0..4,
        ),
        (vec![("properties.group.id", "g"), end], 0..10),
        (vec![("properties.group.id", "g"), ("properties.auto.offset.reset", "latest"), end], 10..10),
    ] {
        let read = world.read(with(all.clone(), &options));
        let want: Vec<Option<String>> = want.map(|i: i32| Some(i.to_string())).collect();
        assert_eq!(read.strings(0), want, "{options:?}");
    }
    let message = |options: &[(&str, &str)]| world.try_read(with(all.clone(), options)).err().unwrap().message;
    assert_eq!(
        message(&specific("partition:0,offset:11")),
        "'scan.startup.specific-offsets' starts at offset 11 of topic \"modes\", partition 0, which holds 0 to 10"
    );
    assert_eq!(
        message(&specific("partition:3,offset:1")),
        "'scan.startup.specific-offsets' names partition 3, which the topic does not have"
    );
    assert_eq!(
        message(&[("properties.group.id", "g"), ("properties.auto.offset.reset", "none")]),
        "group \"g\" has no offset for topic \"modes\", partition 0"
    );
}

#[test]
fn progress_is_noted_in_the_group() {
    let world = World::new();
    world.topic("noted", 1);
    world.produce("noted", &[(None, Some("a")), (None, Some("b")), (None, Some("c"))]);
    let options =
        [("topic", "noted"), ("format", "raw"), ("properties.group.id", "g"), ("scan.bounded.mode", "latest-offset")];
    let all = table(&[("v", DataType::Utf8)], &options);
    let source = open_source(SourceSpec::all_columns(all.clone()), &world.defaults).unwrap();
    let start = Instant::now();
    loop {
        source.note_progress(&[(0, 2)]);
        std::thread::sleep(Duration::from_millis(50));
        let again = open_source(SourceSpec::all_columns(all.clone()), &world.defaults).unwrap();
        if again.partitions()[0].start == 2 {
            break;
        }
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(world.read(all).strings(0), strings(&["c"]));
}

#[test]
fn several_topics_and_patterns() {
    let world = World::new();
    for topic in ["m-b", "m-a", "other"] {
        world.topic(topic, 2);
        world.produce(topic, &[(None, Some(topic))]);
    }
    for names in [[("topic", "m-b; m-a")], [("topic-pattern", "m-.")]] {
        let all = table(&[("v", DataType::Utf8)], &[&names[..], &[("format", "raw")], BOUNDED].concat());
        let source = open_source(SourceSpec::all_columns(all.clone()), &world.defaults).unwrap();
        let ids: Vec<_> = source.partitions().iter().map(|p| (p.id.topic.to_string(), p.id.partition)).collect();
        assert_eq!(ids, [("m-a".into(), 0), ("m-a".into(), 1), ("m-b".into(), 0), ("m-b".into(), 1)]);
        assert_eq!(source.partitions().iter().filter(|p| p.empty_at_start).count(), 2);
        let mut values = world.read(all).strings(0);
        values.sort();
        assert_eq!(values, strings(&["m-a", "m-b"]));
    }
}

#[test]
fn a_pattern_never_means_topics_of_the_engine() {
    let mut world = World::new();
    for topic in ["own-job", "events", "__internal"] {
        world.topic(topic, 1);
    }
    let all = table(&[("v", DataType::Utf8)], &[("topic-pattern", ".*"), ("format", "raw")]);
    let read = |world: &World| -> Vec<String> {
        let source = open_source(SourceSpec::all_columns(all.clone()), &world.defaults).unwrap();
        source.partitions().iter().map(|p| p.id.topic.to_string()).collect()
    };
    assert_eq!(read(&world), ["events", "own-job"]);
    world.defaults.own_topics = "own-".to_owned();
    assert_eq!(read(&world), ["events"]);
}

#[test]
fn what_appears_follows_what_is_known() {
    let world = World::new();
    world.topic("n-b", 2);
    let all = |pairs: &[(&str, &str)]| {
        table(&[("v", DataType::Utf8)], &[&[("topic-pattern", "n-.*"), ("format", "raw")], pairs].concat())
    };
    let interval = |pairs: &[(&str, &str)]| {
        open_source(SourceSpec::all_columns(all(pairs)), &world.defaults).unwrap().discovery_interval()
    };
    let key = "scan.topic-partition-discovery.interval";
    assert_eq!(interval(&[]), Some(Duration::from_secs(300)));
    assert_eq!(interval(&[(key, "2 s")]), Some(Duration::from_secs(2)));
    assert_eq!(interval(&[(key, "0 s")]), None);
    assert_eq!(interval(&[(key, "-1")]), None);
    assert_eq!(interval(BOUNDED), None);

    let mut spec = SourceSpec::all_columns(all(&[("scan.startup.mode", "latest-offset")]));
    let source = open_source(spec.clone(), &world.defaults).unwrap();
    let mut reader = source.reader(&[]).unwrap();
    assert!(source.discover().unwrap().is_empty());
    world.topic("n-a", 1);
    world.topic("other", 1);
    world.produce("n-a", &[(None, Some("a")), (None, Some("b"))]);
    let found = source.discover().unwrap();
    let names = |plans: &[PartitionPlan]| -> Vec<String> {
        plans.iter().map(|p| format!("{}/{}", p.id.topic, p.id.partition)).collect()
    };
    assert_eq!(names(&found), ["n-a/0"]);
    assert_eq!((found[0].start, found[0].end, found[0].empty_at_start), (0, None, false));
    assert!(source.discover().unwrap().is_empty(), "told of once");

    // The new one has the next index, whatever its name; a reader that had nothing takes it.
    reader.add(2, &found[0]).unwrap();
    assert_eq!(source.partition_id(2), Some(found[0].id.clone()));
    source.note_progress(&[(0, 0), (2, 2)]);
    let (start, mut values) = (Instant::now(), Vec::new());
    while values.len() < 2 {
        assert!(start.elapsed() < PATIENCE);
        if let Some(rows) = reader.poll(2, 10).unwrap() {
            values.extend(rows.columns[0].as_string::<i32>().iter().map(|v| v.unwrap().to_owned()));
        }
        reader.wait(Duration::from_millis(50)).unwrap();
    }
    assert_eq!(values, ["a", "b"]);
    assert!(reader.poll(0, 10).is_err(), "not its own");

    // A job that goes on keeps the order it had.
    (spec.resume, spec.found) = (Some(source.partitions().to_vec()), Some(found.clone()));
    let same = open_source(spec.clone(), &world.defaults).unwrap();
    assert_eq!(names(same.partitions()), names(source.partitions()));
    assert_eq!(same.partition_id(2), Some(found[0].id.clone()));
    assert!(same.discover().unwrap().is_empty());
    (spec.resume, spec.found) = (Some(source.partitions().iter().chain(&found).cloned().collect()), None);
    world.topic("n-0", 1);
    let again = open_source(spec, &world.defaults).unwrap();
    assert_eq!(names(again.partitions()), ["n-b/0", "n-b/1", "n-a/0", "n-0/0"]);
}

#[test]
fn a_reader_stops_at_its_limit_and_goes_on_from_there() {
    let world = World::new();
    world.topic("limited", 1);
    let values: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    world.produce("limited", &values.iter().map(|v| (None, Some(v.as_str()))).collect::<Vec<_>>());
    let all = table(&[("v", DataType::Utf8)], &[("topic", "limited"), ("format", "raw")]);
    let source = open_source(SourceSpec::all_columns(all), &world.defaults).unwrap();
    let mut reader = source.reader(&[0]).unwrap();
    let (start, mut read, mut next) = (Instant::now(), Vec::new(), 0);
    for limit in [Some(3), Some(3), Some(4), Some(4), Some(17), None] {
        reader.set_limit(0, limit).unwrap();
        while next < limit.unwrap_or(40) {
            assert!(start.elapsed() < PATIENCE);
            if let Some(rows) = reader.poll(0, 10).unwrap() {
                next = rows.next_offset;
                read.extend(rows.columns[0].as_string::<i32>().iter().map(|v| v.unwrap().to_owned()));
            }
            reader.wait(Duration::from_millis(20)).unwrap();
        }
        assert_eq!((read.as_slice(), next), (&values[..next as usize], limit.unwrap_or(40)));
        assert!(limit.is_none() || reader.poll(0, 10).unwrap().is_none());
    }
}

#[test]
fn an_idle_reader_sleeps_until_something_comes() {
    let world = World::new();
    world.topic("idle", 1);
    let all = table(&[("v", DataType::Utf8)], &[("topic", "idle"), ("format", "raw")]);
    let source = open_source(SourceSpec::all_columns(all), &world.defaults).unwrap();
    assert!(source.partitions()[0].empty_at_start);
    let mut reader = source.reader(&[0]).unwrap();
    let take = |reader: &mut Box<dyn SourceReader>, until: &dyn Fn(&SourceRows) -> bool| {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE);
            match reader.poll(0, 10).unwrap() {
                Some(rows) if until(&rows) => return rows,
                _ => reader.wait(Duration::from_secs(1)).unwrap(),
            }
        }
    };
    assert_eq!(take(&mut reader, &|rows| rows.at_end).next_offset, 0);
    let slept = |reader: &mut Box<dyn SourceReader>| {
        // What is on its way may end one wait, or a few.
        (0..10).any(|_| {
            let start = Instant::now();
            reader.wait(Duration::from_millis(200)).unwrap();
            start.elapsed() >= Duration::from_millis(190)
        })
    };
    assert!(slept(&mut reader), "nothing is there");
    world.produce("idle", &[(None, Some("a"))]);
    let rows = take(&mut reader, &|rows| !rows.offsets.is_empty());
    assert_eq!((rows.next_offset, rows.offsets), (1, vec![0]));
    world.produce("idle", &[(None, Some("b"))]);
    assert!(slept(&mut reader), "a partition that is left alone on purpose keeps nobody awake");
    assert_eq!(take(&mut reader, &|rows| !rows.offsets.is_empty()).offsets, [1]);
}

#[test]
fn an_outage_is_named_and_survived() {
    let world = World::new();
    world.topic("away", 1);
    let all = table(&[("v", DataType::Utf8)], &[("topic", "away"), ("format", "raw")]);
    let source = open_source(SourceSpec::all_columns(all.clone()), &world.defaults).unwrap();
    let mut reader = source.reader(&[0]).unwrap();
    let mut until = |done: &dyn Fn(&mut dyn SourceReader) -> bool| {
        let start = Instant::now();
        while !done(reader.as_mut()) {
            assert!(start.elapsed() < PATIENCE, "{:?}", reader.trouble());
            reader.wait(Duration::from_millis(100)).unwrap();
        }
    };
    until(&|reader| reader.poll(0, 10).unwrap().is_some_and(|rows| rows.at_end));
    world.embedded().set_up(false).unwrap();
    until(&|reader| {
        let _ = reader.poll(0, 10).unwrap();
        reader.trouble().is_some_and(|t| t.contains("is away since"))
    });
    world.embedded().set_up(true).unwrap();
    until(&|reader| {
        let _ = reader.poll(0, 10).unwrap();
        reader.trouble().is_none()
    });
    world.produce("away", &[(None, Some("a"))]);
    until(&|reader| reader.poll(0, 10).unwrap().is_some_and(|rows| rows.offsets == [0]));
}

#[test]
fn partitioners() {
    let world = World::new();
    for (partitioner, want) in [("fixed", vec![4, 0]), ("round-robin", vec![2, 2])] {
        let topic = format!("p-{partitioner}");
        world.topic(&topic, 2);
        let options = [("topic", topic.as_str()), ("format", "raw"), ("sink.partitioner", partitioner)];
        let sink = open_sink(&table(&[("v", DataType::Utf8)], &options), &world.defaults).unwrap();
        let mut writer = sink.writer().unwrap();
        writer.write(SinkRows::Encoded(encoded(&[(None, Some("x")); 4]))).unwrap();
        writer.flush().unwrap();
        let cluster = world.cluster();
        let counts: Vec<i64> = (0..2).map(|p| cluster.watermarks(&topic, p).unwrap().1).collect();
        assert_eq!(counts, want, "{partitioner}");
    }
    // The partition of a key is that of Java's clients.
    world.topic("hashed", 1_000);
    world.produce("hashed", &[(Some("21"), Some("x"))]);
    let cluster = world.cluster();
    let hash = murmur2(b"21") & 0x7fff_ffff;
    assert_eq!(cluster.watermarks("hashed", (hash % 1_000) as i32).unwrap().1, 1);
}

/// The hash of Java's clients, from its published definition.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    for (i, byte) in rest.iter().enumerate() {
        h ^= u32::from(*byte) << (8 * i);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[test]
fn a_row_that_is_too_large_is_the_datas_fault() {
    let world = World::new();
    world.topic("large", 1);
    let options = [("topic", "large"), ("format", "raw"), ("properties.message.max.bytes", "2000")];
    let sink = open_sink(&table(&[("v", DataType::Utf8)], &options), &world.defaults).unwrap();
    let mut writer = sink.writer().unwrap();
    let long = "x".repeat(3_000);
    let error = writer.write(SinkRows::Encoded(encoded(&[(None, Some(&long))]))).err().unwrap();
    assert_eq!((error.blame, error.message.as_str()), (Blame::Data, "a row is larger than topic \"large\" takes"));
    assert!(error.hint.unwrap().contains("max.message.bytes"));
}

#[test]
fn a_record_that_is_told_of_by_headers_goes_without_what_is_too_large() {
    let world = World::new();
    for topic in ["in", "turned-away"] {
        world.topic(topic, 1);
    }
    let options = [("topic", "in"), ("format", "raw"), ("properties.message.max.bytes", "3000")];
    let of = table(&[("v", DataType::Utf8)], &options);
    let mut writer = KafkaSink::open_beside(&of, "turned-away", &world.defaults).unwrap().writer().unwrap();
    let (short, long) = ("x".repeat(10), "x".repeat(4_000));
    let mut rows = encoded(&[(Some("k"), Some(&short)), (Some("k"), Some(&long)), (Some(&long), Some(&short))]);
    let reason = || vec![("tidemill.reason".to_owned(), Some(b"it is bad".to_vec()))];
    rows.headers = Some(vec![reason(), reason(), reason()]);
    writer.write(SinkRows::Encoded(rows)).unwrap();
    writer.flush().unwrap();
    let config = ClientProperties::of_defaults(&world.defaults).unwrap().config(&[], &[("group.id", "test")]);
    let consumer: BaseConsumer = config.create().unwrap();
    let mut start = TopicPartitionList::new();
    start.add_partition_offset("turned-away", 0, Offset::Beginning).unwrap();
    consumer.assign(&start).unwrap();
    let mut got = Vec::new();
    while got.len() < 3 {
        let record = consumer.poll(PATIENCE).expect("a record").unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = record.headers().unwrap().iter();
        let headers: Vec<_> = headers.map(|h| (h.key.to_owned(), text(h.value.unwrap_or_default()))).collect();
        got.push((record.key().map(<[u8]>::len), record.payload().map(<[u8]>::len), headers));
    }
    let reason = || ("tidemill.reason".to_owned(), "it is bad".to_owned());
    let left_out = |part: &str, bytes: usize| (format!("tidemill.{part}-bytes"), bytes.to_string());
    let want = vec![
        (Some(1), Some(10), vec![reason()]),
        (Some(1), None, vec![reason(), left_out("value", 4_000)]),
        (None, None, vec![reason(), left_out("value", 10), left_out("key", 4_000)]),
    ];
    assert_eq!(got, want);
}

#[test]
fn nobody_waits_for_rows_of_a_job_that_has_failed() {
    let world = World::new();
    world.topic("out", 1);
    // Rows are kept for longer than anybody waits here.
    let options = [("topic", "out"), ("format", "raw"), ("properties.linger.ms", "60000")];
    let mut writer = open_sink(&table(&[("v", DataType::Utf8)], &options), &world.defaults).unwrap().writer().unwrap();
    let cancel = CancelToken::default();
    writer.cancel_by(&cancel);
    writer.write(SinkRows::Encoded(encoded(&[(None, Some("v"))]))).unwrap();
    cancel.cancel();
    let begun = Instant::now();
    assert_eq!(writer.flush().unwrap_err().blame, Blame::Interrupted);
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn mistakes_are_told_at_opening() {
    let world = World::new();
    world.topic("orders", 1);
    let id = [("id", DataType::Int64)];
    let source = |pairs: &[(&str, &str)]| -> Error {
        open_source(SourceSpec::all_columns(table(&id, pairs)), &world.defaults).err().expect("an error")
    };
    let sink =
        |pairs: &[(&str, &str)]| -> Error { open_sink(&table(&id, pairs), &world.defaults).err().expect("an error") };
    let json = ("format", "json");
    let orders = ("topic", "orders");
    for (error, want, hint) in [
        (source(&[("topic", "ordres"), json]), "there is no topic \"ordres\" at ", "did you mean \"orders\"?"),
        (source(&[("topic", "no such"), json]), "\"no such\" cannot be the name of a topic", "letters"),
        (source(&[("topic-pattern", "x.*"), json]), "no topic at ", "SHOW TOPICS"),
        (source(&[orders]), "the option 'format' is missing", "json"),
        (source(&[json]), "the option 'topic' is missing", "add"),
        (source(&[orders, json, ("key.fields", "id")]), "'key.fields' is set but 'key.format' is not", "add"),
        (
            source(&[orders, json, ("key.fields", "ID"), ("key.format", "json")]),
            "'key.fields' names \"ID\", which is no physical column",
            "did you mean \"id\"?",
        ),
        (
            source(&[orders, json, ("scan.on-error", "dead-letter")]),
            "'scan.on-error' = 'dead-letter' needs 'scan.dead-letter.topic', the topic that bad records go to",
            "add 'scan.dead-letter.topic'",
        ),
        (
            source(&[orders, json, ("properties.ssl.truststore.location", "/x")]),
            "the client property 'properties.ssl.truststore.location' is not available",
            "ssl.ca.location",
        ),
        (
            source(&[orders, json, ("scan.startup.mode", "begin")]),
            "'scan.startup.mode' = 'begin' is not valid",
            "expected",
        ),
        (sink(&[("topic", "a;b"), json]), "a table with several topics cannot be written to", "one"),
        (
            sink(&[orders, json, ("sink.delivery-guarantee", "twice")]),
            "'sink.delivery-guarantee' = 'twice' is not valid",
            "exactly-once",
        ),
    ] {
        assert!(error.message.starts_with(want), "{error}, not {want}");
        assert!(error.hint.clone().unwrap_or_default().contains(hint), "{error}: {:?}", error.hint);
    }
    let mut odd = table(&id, &[orders, json]);
    odd.columns.push(metadata("leader-epoch", DataType::Int32, true));
    let error = open_source(SourceSpec::all_columns(odd), &world.defaults).err().unwrap();
    assert_eq!(error.message, "connector 'kafka' has no metadata column 'leader-epoch'");
}

#[test]
fn an_unreachable_broker_is_named_with_the_cause() {
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let brokers = format!("127.0.0.1:{port}");
    let defaults = Defaults { brokers: Some(brokers.clone()), ..Defaults::default() };
    let cluster = Cluster::new(ClientProperties::of_defaults(&defaults).unwrap()).unwrap();
    let start = Instant::now();
    let error = cluster.topics().unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(15));
    assert_eq!(error.blame, Blame::Upstream);
    assert!(error.message.starts_with(&format!("no broker answered at {brokers} within 10 s: ")), "{error}");
    assert!(error.message.contains("refused"), "{error}");
}
