//! Files written and read back.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type};

use crate::catalog::options::Options;
use crate::catalog::{Column, ColumnKind, Table};
use crate::connectors::{Defaults, PartitionPlan, SourceSpec, open_sink, open_source};
use crate::error::Result;

fn table(path: &Path, format: &str, pairs: &[(&str, &str)]) -> Table {
    let column = |name: &str, data_type: DataType| Column {
        name: name.to_owned(),
        data_type,
        sql_type: String::new(),
        not_null: false,
        kind: ColumnKind::Physical,
        comment: None,
    };
    let path = path.to_str().unwrap();
    let pairs =
        [("connector", "filesystem"), ("path", path), ("format", format)].into_iter().chain(pairs.iter().copied());
    Table {
        name: "t".to_owned(),
        columns: vec![column("id", DataType::Int64), column("name", DataType::Utf8)],
        watermark: None,
        primary_key: Vec::new(),
        options: Options::from_pairs(pairs.map(|(k, v)| (k.to_owned(), v.to_owned()))),
        comment: None,
        temporary: false,
    }
}

/// Per file its rows as `id:name`, and how many records were bad.
fn read(spec: SourceSpec) -> Result<(Vec<Vec<String>>, u64)> {
    let source = open_source(spec, &Defaults::default())?;
    let share: Vec<usize> = (0..source.partitions().len()).collect();
    let mut reader = source.reader(&share)?;
    let (mut files, mut bad) = (vec![Vec::new(); share.len()], 0);
    for &partition in &share {
        loop {
            let Some(rows) = reader.poll(partition, 3)? else { break };
            bad += rows.bad;
            let (ids, names) = (rows.columns[0].as_primitive::<Int64Type>(), rows.columns[1].as_string::<i32>());
            files[partition].extend((0..rows.offsets.len()).map(|i| format!("{}:{}", ids.value(i), names.value(i))));
            if rows.at_end {
                assert_eq!(Some(rows.next_offset), source.partitions()[partition].end);
            }
        }
        assert!(reader.poll(partition, 3)?.is_none());
    }
    reader.wait(Duration::from_millis(1))?;
    Ok((files, bad))
}

fn rows(from: i64, to: i64) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from((from..to).collect::<Vec<_>>()));
    let names: ArrayRef = Arc::new(StringArray::from((from..to).map(|i| format!("n,\"{i}\"")).collect::<Vec<_>>()));
    RecordBatch::try_from_iter([("a", ids), ("b", names)]).unwrap()
}

#[test]
fn what_is_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    for (name, format) in [("a/b.json", "json"), ("b.json.gz", "json"), ("c.csv", "csv"), ("d.csv.gz", "csv")] {
        let path = directory.path().join(name);
        let table = table(&path, format, &[]);
        let sink = open_sink(&table, &Defaults::default()).unwrap();
        let (mut encoder, mut writer) = (sink.encoder().unwrap(), sink.writer().unwrap());
        writer.write(encoder.encode(&rows(0, 5), None).unwrap()).unwrap();
        writer.flush().unwrap();
        writer.write(encoder.encode(&rows(5, 8), None).unwrap()).unwrap();
        writer.close().unwrap();
        let want: Vec<String> = (0..8).map(|i| format!("{i}:n,\"{i}\"")).collect();
        assert_eq!(read(SourceSpec::all_columns(table.clone())).unwrap(), (vec![want.clone()], 0), "{name}");

        let mut spec = SourceSpec::all_columns(table);
        let plan = open_source(spec.clone(), &Defaults::default()).unwrap().partitions()[0].clone();
        spec.resume = Some(vec![PartitionPlan { start: 6, ..plan }]);
        assert_eq!(read(spec).unwrap().0, vec![want[6..].to_vec()], "{name}, resumed");
    }
}

#[test]
fn a_directory_and_a_pattern_give_a_partition_per_file() {
    let directory = tempfile::tempdir().unwrap();
    for (name, id) in [("2.json", 2), ("1.json", 1), (".hidden", 0), ("3.txt", 3)] {
        fs::write(directory.path().join(name), format!("{{\"id\":{id},\"name\":\"x\"}}\n")).unwrap();
    }
    for (path, want) in [(directory.path().to_owned(), 3), (directory.path().join("*.json"), 2)] {
        let (files, _) = read(SourceSpec::all_columns(table(&path, "json", &[]))).unwrap();
        assert_eq!(files, (1..=want).map(|i| vec![format!("{i}:x")]).collect::<Vec<_>>());
    }
}

#[test]
fn bad_records_and_headers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    fs::write(&path, "id,name\n1,a\nx,b\n3,\"c\nd\"\n").unwrap();
    let header = ("csv.skip-header", "true");
    let skip = table(&path, "csv", &[header, ("scan.on-error", "skip")]);
    assert_eq!(read(SourceSpec::all_columns(skip)).unwrap(), (vec![vec!["1:a".into(), "3:c\nd".into()]], 1));
    let error = read(SourceSpec::all_columns(table(&path, "csv", &[header]))).unwrap_err();
    assert!(error.message.starts_with("record 1 (counted from 0) of "), "{error}");
    assert!(error.message.ends_with("it begins with \"x,b\""), "{error}");
}

#[test]
fn mistakes_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let gone = directory.path().join("gone");
    let open = |path: &Path, format: &str| {
        read(SourceSpec::all_columns(table(path, format, &[]))).map(|_| ()).unwrap_err().message
    };
    assert_eq!(open(&gone, "json"), format!("there are no files at \"{}\"", gone.display()));
    let none = gone.join("*.x");
    assert_eq!(open(&none, "json"), format!("there are no files that match \"{}\"", none.display()));
    assert_eq!(open(Path::new("s3://b/x"), "json"), "'path' = 's3://b/x' is not valid");
    fs::write(directory.path().join("bad.gz"), "not gzip").unwrap();
    assert!(open(&directory.path().join("bad.gz"), "json").starts_with("cannot read \""));
}
