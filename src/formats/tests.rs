//! What all formats have in common: their options, and that what is written is read again.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, StringViewArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::*;

fn from(name: &str, options: &[(&str, &str)], prefix: &str) -> Result<Format> {
    let pairs = options.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    Format::from_options(name, &Options::from_pairs(pairs), prefix)
}

#[test]
fn options_are_checked() {
    for (name, options, message, hint) in [
        ("jsno", &[][..], "there is no format 'jsno'", "did you mean 'json'?"),
        ("xml", &[], "there is no format 'xml'", FORMATS_HINT),
        ("avro", &[], "the format 'avro' is not available yet", FORMATS_HINT),
        (
            "json",
            &[("json.ignore-parse-errors", "yes")],
            "'json.ignore-parse-errors' = 'yes' is not valid",
            "expected 'true' or 'false'",
        ),
        (
            "json",
            &[("json.ignore-parse-errors", "true"), ("json.fail-on-missing-field", "true")],
            "'json.fail-on-missing-field' and 'json.ignore-parse-errors' contradict each other",
            "set only one to 'true'",
        ),
        (
            "json",
            &[("json.timestamp-format.standard", "RFC")],
            "'json.timestamp-format.standard' = 'RFC' is not valid",
            "expected 'SQL', 'ISO-8601'",
        ),
        (
            "csv",
            &[("csv.field-delimiter", "||")],
            "'csv.field-delimiter' = '||' is not valid",
            "expected one ASCII character, or '\\t', or one such as '\\u0001'",
        ),
        (
            "csv",
            &[("csv.field-delimiter", "\"")],
            "the field delimiter, the quote and the escape character of CSV must differ",
            "set 'csv.field-delimiter' to another character",
        ),
        (
            "csv",
            &[("csv.allow-comments", "true")],
            "'csv.allow-comments' is not available",
            "every record is a row here; set 'scan.on-error' = 'skip' to pass over those that are none",
        ),
        (
            "raw",
            &[("raw.charset", "UTF-16")],
            "'raw.charset' = 'UTF-16' is not valid",
            "expected 'UTF-8', the only character set here",
        ),
    ] {
        let error = from(name, options, "").unwrap_err();
        assert_eq!((error.message.as_str(), error.hint.as_deref()), (message, Some(hint)));
    }
    let options = [("value.json.ignore-parse-errors", "true"), ("json.ignore-parse-errors", "false")];
    assert!(from("json", &options, "value.").unwrap().ignores_parse_errors());
    assert!(!from("json", &options, "").unwrap().ignores_parse_errors());
    assert!(!from("json", &options, "key.").unwrap().ignores_parse_errors());
    assert!(OPTION_KEYS.is_sorted());
    assert!(OPTION_KEYS_WITHOUT_EFFECT.iter().all(|k| OPTION_KEYS.contains(k)));
}

/// A batch of three rows (the second one null) for each type that all formats with fields know.
fn all_types() -> RecordBatch {
    let texts = |values: [Option<&str>; 3]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let columns = [
        (DataType::Boolean, ["true", "false"]),
        (DataType::Int8, ["-128", "127"]),
        (DataType::Int16, ["-32768", "32767"]),
        (DataType::Int32, ["-2147483648", "2147483647"]),
        (DataType::Int64, ["-9223372036854775808", "9223372036854775807"]),
        (DataType::Float32, ["0.1", "-3.4028235e38"]),
        (DataType::Float64, ["0.1", "5e-324"]),
        (DataType::Decimal128(38, 10), ["-0.0000000001", "9999999999999999999999999999.9999999999"]),
        (DataType::Utf8, ["a \"quoted\", é\n\\ text", "😀"]),
        (DataType::Binary, ["\u{0}bytes", "x"]),
        (DataType::Date32, ["2013-01-31", "1969-12-31"]),
        (DataType::Time32(TimeUnit::Millisecond), ["00:00:00.001", "23:59:59.999"]),
        (DataType::Timestamp(TimeUnit::Millisecond, None), ["2013-01-01T10:00:00", "1969-12-31T23:59:59.999"]),
        (DataType::Timestamp(TimeUnit::Microsecond, None), ["2013-01-01T10:00:00.000001", "0001-01-01T00:00:00"]),
        (DataType::Timestamp(TimeUnit::Nanosecond, None), ["2013-01-01T10:00:00.000000001", "1700-01-01T00:00:00"]),
        (
            DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            ["2013-01-01T10:00:00.5Z", "1970-01-01T00:00:00Z"],
        ),
        (
            DataType::Timestamp(TimeUnit::Millisecond, Some("Asia/Tokyo".into())),
            ["2013-01-01T10:00:00Z", "1970-01-01T00:00:00Z"],
        ),
    ];
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for (i, (data_type, [first, last])) in columns.into_iter().enumerate() {
        let array = cast(&texts([Some(first), None, Some(last)]), &data_type).unwrap();
        assert_eq!(array.null_count(), 1, "{data_type}");
        fields.push(Field::new(format!("c{i}"), data_type.clone(), true));
        arrays.push(array.clone());
        // The same values as elements, not for the strings: CSV has no way to quote an element.
        let item = Arc::new(Field::new("item", data_type.clone(), true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([2, 0, 1]);
        let nulls = Some(vec![true, false, true].into());
        fields.push(Field::new(format!("l{i}"), DataType::List(item.clone()), true));
        arrays.push(Arc::new(arrow::array::ListArray::new(item, offsets, array.clone(), nulls)));
        let pair = vec![Field::new("x", data_type, true), Field::new("y", DataType::Int32, true)];
        let ones: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1, 1, 1]));
        let pair = arrow::array::StructArray::new(pair.into(), vec![array, ones], None);
        fields.push(Field::new(format!("r{i}"), pair.data_type().clone(), true));
        arrays.push(Arc::new(pair));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn decode_columns(schema: &Schema) -> Vec<DecodeColumn> {
    let column = |f: &Arc<Field>| DecodeColumn {
        name: f.name().clone(),
        data_type: f.data_type().clone(),
        nullable: f.is_nullable(),
    };
    schema.fields().iter().map(column).collect()
}

#[test]
fn what_is_written_is_read_again() {
    let batch = all_types();
    let all = decode_columns(&batch.schema());
    let wanted: Vec<_> = (0..all.len()).collect();
    for (name, options) in [
        ("json", &[][..]),
        ("json", &[("json.timestamp-format.standard", "ISO-8601")]),
        ("json", &[("json.encode.ignore-null-fields", "true")]),
        ("csv", &[("csv.null-literal", "NULL")]),
        ("csv", &[("csv.null-literal", "\\N"), ("csv.field-delimiter", ":"), ("csv.quote-character", "'")]),
        ("csv", &[("csv.null-literal", "NULL"), ("csv.field-delimiter", "-"), ("csv.array-element-delimiter", "||")]),
        ("csv", &[("csv.null-literal", "NULL"), ("csv.field-delimiter", "\\t"), ("csv.escape-character", "\\")]),
        (
            "csv",
            &[
                ("csv.null-literal", "NULL"),
                ("csv.disable-quote-character", "true"),
                ("csv.field-delimiter", " "),
                ("csv.escape-character", "\\"),
            ],
        ),
    ] {
        let format = from(name, options, "").unwrap();
        let mut out = Encoded::default();
        let mut encoder = format.encoder(&batch.schema()).unwrap();
        let mut decoder = format.decoder(&all, &wanted).unwrap();
        for round in 0..2 {
            encoder.encode(&batch, &mut out).unwrap();
            assert_eq!(out.len(), 3 * (round + 1));
        }
        for i in 0..out.len() {
            let row = out.row(i).unwrap();
            decoder.decode(row).unwrap_or_else(|bad| panic!("{bad}: {}", String::from_utf8_lossy(row)));
        }
        let read = RecordBatch::try_new(batch.schema(), decoder.take().unwrap()).unwrap();
        for (i, field) in batch.schema().fields().iter().enumerate() {
            for half in [0, 3] {
                assert_eq!(&read.column(i).slice(half, 3), batch.column(i), "{name} {options:?} {field}");
            }
        }
    }
}

#[test]
fn views_dictionaries_and_unsigned_numbers_are_written_too() {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let columns: [(&str, ArrayRef); 6] = [
        ("view", Arc::new(StringViewArray::from(vec![Some("a"), None]))),
        ("large", cast(&text, &DataType::LargeUtf8).unwrap()),
        ("dictionary", cast(&text, &dictionary).unwrap()),
        ("unsigned", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("nothing", Arc::new(arrow::array::NullArray::new(2))),
        ("views", {
            let item = Arc::new(Field::new("item", DataType::Utf8View, true));
            let values = Arc::new(StringViewArray::from(vec!["x", "y"]));
            let offsets = arrow::buffer::OffsetBuffer::from_lengths([2, 0]);
            Arc::new(arrow::array::ListArray::new(item, offsets, values, None))
        }),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    for (name, want) in [
        (
            "json",
            [
                r#"{"view":"a","large":"a","dictionary":"a","unsigned":18446744073709551615,"nothing":null,"views":["x","y"]}"#,
                r#"{"view":null,"large":null,"dictionary":null,"unsigned":null,"nothing":null,"views":[]}"#,
            ],
        ),
        ("csv", ["a,a,a,18446744073709551615,,x;y", ",,,,,\"\""]),
    ] {
        let mut out = Encoded::default();
        from(name, &[], "").unwrap().encoder(&batch.schema()).unwrap().encode(&batch, &mut out).unwrap();
        let rows: Vec<_> = (0..2).map(|i| std::str::from_utf8(out.row(i).unwrap()).unwrap()).collect();
        assert_eq!(rows, want);
    }
    let interval = Schema::new(vec![Field::new("i", DataType::Duration(TimeUnit::Second), true)]);
    for name in ["json", "csv"] {
        let error = from(name, &[], "").unwrap().encoder(&interval).err().unwrap();
        assert!(error.message.starts_with("column \"i\": "), "{error}");
    }
}

#[test]
fn csv_refuses_what_it_could_not_read_again() {
    let check = |options: &[(&str, &str)], column: ArrayRef, want: Result<&str, &str>| {
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        let mut out = Encoded::default();
        let mut encoder = from("csv", options, "").unwrap().encoder(&batch.schema()).unwrap();
        match (encoder.encode(&batch, &mut out), want) {
            (Ok(()), Ok(want)) => assert_eq!(std::str::from_utf8(&out.bytes).unwrap(), want),
            (Err(error), Err(want)) => assert_eq!((error.message.as_str(), out.len()), (want, 0)),
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    };
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let plain = [("csv.disable-quote-character", "true")];
    check(&[], text("a,b"), Ok("\"a,b\""));
    check(&[], text(""), Ok(""));
    check(&plain, text("a b"), Ok("a b"));
    check(&plain, text("a,b"), Err("column \"c\": the value 'a,b' needs quotes, which are disabled"));
    let item = Arc::new(Field::new("item", DataType::Utf8, true));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([2]);
    let list = arrow::array::ListArray::new(item, offsets, Arc::new(StringArray::from(vec!["a", "b;c"])), None);
    check(&[], Arc::new(list), Err("column \"c\": the element 'b;c' has the element delimiter in it"));
}
