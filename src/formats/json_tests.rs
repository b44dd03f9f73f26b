//! What JSON decoding and encoding promise, as tables and against an independent parser.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type, Schema, TimeUnit};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use super::*;

fn column(name: &str, data_type: DataType) -> DecodeColumn {
    DecodeColumn { name: name.into(), data_type, nullable: true }
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

fn row(fields: &[(&str, DataType)]) -> DataType {
    DataType::Struct(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect())
}

fn map(value: DataType) -> DataType {
    let pair = Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false)
}

const MS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn format(options: &[(&str, &str)]) -> Format {
    let pairs = options.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    Format::from_options("json", &Options::from_pairs(pairs), "").unwrap()
}

fn batch(columns: &[DecodeColumn], arrays: Vec<ArrayRef>) -> RecordBatch {
    let fields: Vec<_> = columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn encode(options: &[(&str, &str)], batch: &RecordBatch) -> Result<Vec<String>> {
    let mut out = Encoded::default();
    format(options).encoder(&batch.schema())?.encode(batch, &mut out)?;
    Ok((0..out.len()).map(|i| String::from_utf8(out.row(i).unwrap().to_vec()).unwrap()).collect())
}

/// Decodes one payload between two good ones; gives the row as the encoder writes it, or the reason.
fn read(columns: &[DecodeColumn], options: &[(&str, &str)], payload: &[u8]) -> String {
    let mut decoder = format(options).decoder(columns, &(0..columns.len()).collect::<Vec<_>>()).unwrap();
    let mut bad = None;
    for _ in 0..2 {
        bad = decoder.decode(payload).err();
    }
    let want_rows = if bad.is_some() { 0 } else { 2 };
    assert_eq!(decoder.len(), want_rows);
    let batch = batch(columns, decoder.take().unwrap());
    assert_eq!(batch.num_rows(), want_rows);
    match bad {
        Some(bad) => bad.to_string(),
        None => encode(options, &batch).unwrap().pop().unwrap(),
    }
}

/// One column `c` of the given type: `(value in JSON, what is written back, or the reason)`.
fn check(data_type: DataType, rows: &[(&str, &str)]) {
    for (value, want) in rows {
        let got = read(&[column("c", data_type.clone())], &[], format!("{{\"c\":{value}}}").as_bytes());
        let got = match got.strip_prefix("{\"c\":").and_then(|g| g.strip_suffix('}')) {
            Some(value) => value,
            None => got.strip_prefix("column \"c\": ").unwrap_or(&got),
        };
        assert_eq!(got, *want, "{value} as {data_type}");
    }
}

#[test]
fn numbers_are_exact() {
    check(
        DataType::Int32,
        &[
            ("12", "12"),
            ("-0", "0"),
            ("2147483647", "2147483647"),
            ("2147483648", "2147483648 is out of range for INT"),
            ("\"12\"", "12"),
            ("\" 12 \"", "12"),
            ("\"\\u0031\"", "1"),
            ("1.0", "expected INT, found 1.0"),
            ("1.9", "expected INT, found 1.9"),
            ("1e3", "expected INT, found 1e3"),
            ("\"1.0\"", "expected INT, found \"1.0\""),
            ("\"\"", "expected INT, found \"\""),
            ("true", "expected INT, found true"),
            ("[1]", "expected INT, found an array"),
            ("{}", "expected INT, found an object"),
            ("null", "null"),
        ],
    );
    check(
        DataType::Int64,
        &[
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9223372036854775808", "9223372036854775808 is out of range for BIGINT"),
            ("123456789012345678901234567890", "123456789012345678901234567890 is out of range for BIGINT"),
        ],
    );
    check(DataType::Int8, &[("-128", "-128"), ("128", "128 is out of range for TINYINT")]);
    check(DataType::Int16, &[("-32768", "-32768"), ("32768", "32768 is out of range for SMALLINT")]);
    check(
        DataType::Float64,
        &[
            ("1", "1.0"),
            ("0.1", "0.1"),
            ("1e3", "1000.0"),
            ("-1.5E-7", "-1.5e-7"),
            ("12345678901234567890", "1.2345678901234567e+19"),
            ("\"2.5\"", "2.5"),
            ("\"NaN\"", "expected DOUBLE, found \"NaN\""),
            ("1e400", "1e400 is out of range for DOUBLE"),
        ],
    );
    check(DataType::Float32, &[("0.1", "0.1"), ("16777217", "16777216.0"), ("1e39", "1e39 is out of range for FLOAT")]);
    check(
        DataType::Decimal128(20, 2),
        &[
            ("1", "1.00"),
            ("0.1", "0.10"),
            ("123456789012345678.995", "123456789012345679.00"),
            ("\"-1.005\"", "-1.01"),
            ("1e2", "100.00"),
            ("1234567890123456789", "1234567890123456789 is out of range for DECIMAL(20, 2)"),
            ("\"x\"", "expected DECIMAL(20, 2), found \"x\""),
        ],
    );
}

#[test]
fn words_and_times() {
    check(
        DataType::Utf8,
        &[
            ("\"a\"", "\"a\""),
            ("\"\"", "\"\""),
            (r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\u0001""#, "\"\\\"\\\\/\\b\\f\\n\\r\\té😀\\u0001\""),
            ("1.50", "\"1.50\""),
            ("true", "\"true\""),
            (r#"{ "a" : [ 1, "x y\" z" ] }"#, r#""{\"a\":[1,\"x y\\\" z\"]}""#),
            ("[]", "\"[]\""),
        ],
    );
    check(
        DataType::Boolean,
        &[
            ("true", "true"),
            ("\"False\"", "false"),
            ("1", "expected BOOLEAN, found 1"),
            ("\"\"", "expected BOOLEAN, found \"\""),
        ],
    );
    check(
        DataType::Binary,
        &[("\"Zm9v\"", "\"Zm9v\""), ("\"Zm9\"", "expected BYTES, found \"Zm9\""), ("1", "expected BYTES, found 1")],
    );
    check(
        DataType::Date32,
        &[
            ("\"2013-01-31\"", "\"2013-01-31\""),
            ("\"2013-02-31\"", "expected DATE, found \"2013-02-31\""),
            ("1", "expected DATE, found 1"),
        ],
    );
    check(
        DataType::Time32(TimeUnit::Millisecond),
        &[("\"10:00:00.120\"", "\"10:00:00.12\""), ("\"10:00\"", "\"10:00:00\"")],
    );
    check(
        MS,
        &[
            ("\"2013-01-01 10:00:00\"", "\"2013-01-01 10:00:00\""),
            ("\"2013-01-01T10:00:00.1239Z\"", "\"2013-01-01 10:00:00.123\""),
            ("1357034400000", "\"2013-01-01 10:00:00\""),
            ("-1", "\"1969-12-31 23:59:59.999\""),
            ("1.5", "expected TIMESTAMP(3), found 1.5"),
            ("4503599627370496", "4503599627370496 is out of range for TIMESTAMP(3)"),
            ("\"soon\"", "expected TIMESTAMP(3), found \"soon\""),
            ("false", "expected TIMESTAMP(3), found false"),
        ],
    );
    check(
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        &[
            ("\"2013-01-01T10:00:00+01:00\"", "\"2013-01-01 09:00:00Z\""),
            ("\"2013-01-01 10:00:00.000001\"", "\"2013-01-01 10:00:00.000001Z\""),
        ],
    );
}

#[test]
fn nested_values() {
    check(
        list(DataType::Int64),
        &[
            ("[1, null,\"3\"]", "[1,null,3]"),
            ("[]", "[]"),
            ("[1,x]", "not valid JSON at byte 8: expected a value"),
            ("[1,\"x\"]", "expected BIGINT, found \"x\""),
            ("1", "expected ARRAY<BIGINT>, found 1"),
        ],
    );
    let inner = row(&[("a", DataType::Int64), ("b", list(row(&[("d", DataType::Utf8)])))]);
    check(
        inner,
        &[
            (r#"{"b":[{"d":"x"},{},null],"z":{"a":1},"a":1}"#, r#"{"a":1,"b":[{"d":"x"},{"d":null},null]}"#),
            ("{}", r#"{"a":null,"b":null}"#),
            ("[]", "expected ROW<a BIGINT, b ARRAY<ROW<d STRING>>>, found an array"),
        ],
    );
    assert_eq!(
        read(&[column("c", row(&[("a", DataType::Int64)]))], &[], br#"{"c":{"a":"x"}}"#),
        "column \"c.a\": expected BIGINT, found \"x\""
    );
    check(
        map(DataType::Int64),
        &[
            (r#"{"a":1,"\u0062":null}"#, r#"{"a":1,"b":null}"#),
            (r#"{"a":1,"b":2,"\u0061":3}"#, r#"{"b":2,"a":3}"#),
            ("{}", "{}"),
            (r#"{"a":1.5}"#, "expected BIGINT, found 1.5"),
        ],
    );
    let many: String = (0..40).map(|i| format!("\"k{}\":{i},", i % 30)).collect();
    let got = read(
        &[column("c", map(DataType::Int64))],
        &[],
        format!("{{\"c\":{{{}}}}}", many.trim_end_matches(',')).as_bytes(),
    );
    let got: Value = serde_json::from_str(&got).unwrap();
    assert_eq!(got["c"].as_object().unwrap().len(), 30);
    assert_eq!((&got["c"]["k9"], &got["c"]["k10"]), (&json!(39), &json!(10)));
}

#[test]
fn the_last_of_two_fields_counts_also_for_nested_ones() {
    let columns = [
        column("l", list(DataType::Int64)),
        column("r", row(&[("x", DataType::Int64), ("l", list(DataType::Utf8))])),
        column("m", map(list(DataType::Int64))),
    ];
    let payload = br#"{"l":[1,2],"r":{"x":1,"l":["a"]},"m":{"k":[1]},"m":{"j":[2,3],"j":[4]},"r":{"l":["b"]},"l":[3]}"#;
    assert_eq!(read(&columns, &[], payload), r#"{"l":[3],"r":{"x":null,"l":["b"]},"m":{"j":[4]}}"#);
    assert_eq!(read(&columns, &[], br#"{"l":["x"],"l":[3]}"#), "column \"l\": expected BIGINT, found \"x\"");
}

#[test]
fn not_null_inside_of_nullable() {
    let inner = DataType::Struct(vec![Field::new("x", DataType::Int64, false)].into());
    let items = DataType::List(Arc::new(Field::new("item", inner.clone(), false)));
    let columns = [column("r", inner), column("l", items)];
    for (payload, want) in [
        (&br#"{"r":null,"l":[{"x":1}]}"#[..], r#"{"r":null,"l":[{"x":1}]}"#),
        (br#"{"r":{},"l":[]}"#, "column \"r.x\": the field is missing"),
        (br#"{"r":{"x":null}}"#, "column \"r.x\": null in a NOT NULL column"),
        (br#"{"l":[{"x":1},null]}"#, "column \"l\": null in a NOT NULL column"),
        (br#"{"l":[{"x":1},{}]}"#, "column \"l.x\": the field is missing"),
    ] {
        assert_eq!(read(&columns, &[], payload), want);
    }
}

#[test]
fn a_payload_is_exactly_one_object() {
    let columns = [column("a", DataType::Int64), column("b", DataType::Utf8)];
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = format!("{{\"b\":{}1{}}}", "{\"b\":".repeat(100_000), "}".repeat(100_000));
    for (payload, want) in [
        (&br#"{"a":1,"b":"x"}"#[..], r#"{"a":1,"b":"x"}"#),
        (b" \t\r\n{ \"b\" : \"x\" , \"a\" : 1 } \n", r#"{"a":1,"b":"x"}"#),
        (b"{}", r#"{"a":null,"b":null}"#),
        (br#"{"a":1,"z":[{"q":[1,2,{}]},"\n",-0.5e+3,true,null],"b":"x"}"#, r#"{"a":1,"b":"x"}"#),
        (br#"{"a":1,"a":2}"#, r#"{"a":2,"b":null}"#),
        (br#"{"b":"first","a":1,"b":"last"}"#, r#"{"a":1,"b":"last"}"#),
        (br#"{"a":1,"\u0061":null}"#, r#"{"a":null,"b":null}"#),
        (br#"{"A":1}"#, r#"{"a":null,"b":null}"#),
        (b"", "not valid JSON at byte 0: the text ends too early"),
        (b"  ", "not valid JSON at byte 2: the text ends too early"),
        (b"null", "expected a JSON object, found null"),
        (b"[]", "expected a JSON object, found an array"),
        (b"1", "expected a JSON object, found 1"),
        (br#"{"a":1}{"a":2}"#, "not valid JSON at byte 7: there is more after the object"),
        (br#"{"a":1} x"#, "not valid JSON at byte 8: there is more after the object"),
        (br#"{"a":1 "b":"x"}"#, "not valid JSON at byte 7: expected ',' or '}'"),
        (br#"{"a":1,}"#, "not valid JSON at byte 7: expected a key"),
        (br#"{"a":01}"#, "column \"a\": not valid JSON at byte 6: invalid number"),
        (br#"{"a":+1}"#, "not valid JSON at byte 5: expected a value"),
        (br#"{"a":1."#, "column \"a\": not valid JSON at byte 7: the text ends too early"),
        (br#"{"a":NaN}"#, "not valid JSON at byte 5: expected a value"),
        (br#"{"z":NaN}"#, "not valid JSON at byte 5: expected a value"),
        (br#"{"a":1"#, "not valid JSON at byte 6: the text ends too early"),
        (br#"{"b":"\ud800"}"#, "column \"b\": not valid JSON at byte 6: half of a surrogate pair"),
        (br#"{"z":"\x"}"#, "not valid JSON at byte 6: invalid escape"),
        (b"{\"z\":\"a\nb\"}", "not valid JSON at byte 7: a control character in a string"),
        (b"{\"z\":\"\xff\"}", "not valid UTF-8 at byte 6"),
        (b"{\"z\xc3\":1}", "not valid UTF-8 at byte 3"),
        (deep.as_bytes(), "not valid JSON at byte 132: nested too deeply"),
        (deep_object.as_bytes(), "column \"b\": not valid JSON at byte 640: nested too deeply"),
    ] {
        let got = read(&columns, &[], payload);
        assert_eq!(got, want, "{}", excerpt(&String::from_utf8_lossy(payload)));
    }
}

#[test]
fn missing_and_null_fields() {
    let strict = [DecodeColumn { nullable: false, ..column("a", DataType::Int64) }];
    assert_eq!(read(&strict, &[], b"{}"), "column \"a\": the field is missing");
    assert_eq!(read(&strict, &[], br#"{"a":null}"#), "column \"a\": null in a NOT NULL column");
    let columns = [column("a", DataType::Int64), column("b", row(&[("x", DataType::Int64)]))];
    let fail = [("json.fail-on-missing-field", "true")];
    assert_eq!(read(&columns, &fail, br#"{"a":null,"b":null}"#), r#"{"a":null,"b":null}"#);
    assert_eq!(read(&columns, &fail, br#"{"a":1}"#), "column \"b\": the field is missing");
    assert_eq!(read(&columns, &fail, br#"{"a":1,"b":{}}"#), "column \"b.x\": the field is missing");
}

#[test]
fn only_wanted_columns_cost_and_count() {
    let columns = [column("a", DataType::Int64), column("b", DataType::Int64), column("c", DataType::Int64)];
    let mut decoder = format(&[]).decoder(&columns, &[2, 0]).unwrap();
    decoder.decode(br#"{"a":1,"b":"not a number","c":3}"#).unwrap();
    decoder.decode(br#"{"c":6,"a":4}"#).unwrap();
    decoder.truncate(1);
    decoder.decode(br#"{"b":[],"a":7}"#).unwrap();
    let arrays = decoder.take().unwrap();
    let values = |i: usize| arrays[i].as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    assert_eq!((values(0), values(1)), (vec![Some(3), None], vec![Some(1), Some(7)]));

    let mut none = format(&[]).decoder(&columns, &[]).unwrap();
    none.decode(b"{\"a\":1}").unwrap();
    none.decode(b"{\"a\":").unwrap_err();
    assert_eq!((none.len(), none.take().unwrap().len(), none.len()), (1, 0, 0));
}

#[test]
fn keys_without_number_do_not_fill_memory_or_confuse() {
    let columns = [column("a", DataType::Int64)];
    let mut decoder = format(&[]).decoder(&columns, &[0]).unwrap();
    for i in 0..3_000 {
        decoder.decode(format!(r#"{{"k{i}":0,"a":{i},"\u006b{i}":1}}"#).as_bytes()).unwrap();
    }
    let array = decoder.take().unwrap().remove(0);
    assert_eq!(array.null_count(), 0);
    assert!(array.as_primitive::<Int64Type>().values().iter().copied().eq(0..3_000));
}

#[test]
fn objects_are_written_in_the_order_of_the_columns() {
    let columns = [column("b", MS), column("a\"", map(DataType::Int64)), column("z", list(DataType::Utf8))];
    let payload = br#"{"z":["\u0000x",null],"a\"":{"k":null},"b":"2013-01-01T10:00:00"}"#;
    for (options, want) in [
        (&[][..], r#"{"b":"2013-01-01 10:00:00","a\"":{"k":null},"z":["\u0000x",null]}"#),
        (
            &[("json.timestamp-format.standard", "ISO-8601")],
            r#"{"b":"2013-01-01T10:00:00","a\"":{"k":null},"z":["\u0000x",null]}"#,
        ),
    ] {
        assert_eq!(read(&columns, options, payload), want);
    }
    let ignore = [("json.encode.ignore-null-fields", "true")];
    assert_eq!(read(&columns, &ignore, br#"{"b":null,"a\"":null,"z":[null]}"#), r#"{"z":[null]}"#);
    assert_eq!(read(&columns, &ignore, b"{}"), "{}");
}

#[test]
fn what_json_cannot_hold_is_an_error_and_leaves_nothing() {
    let array: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![1.0, f64::NAN]));
    let batch = RecordBatch::try_from_iter([("x", array)]).unwrap();
    let mut out = Encoded::default();
    out.bytes.extend_from_slice(b"{}");
    out.end_row();
    let error = format(&[]).encoder(&batch.schema()).unwrap().encode(&batch, &mut out).unwrap_err();
    assert_eq!(error.message, "column \"x\": the value NaN has no form in JSON");
    assert_eq!((out.len(), &out.bytes[..]), (1, &b"{}"[..]));
}

/// Wanted fields of the randomized test, one of each shape.
fn random_columns() -> Vec<DecodeColumn> {
    vec![
        column("i", DataType::Int64),
        column("f", DataType::Float64),
        column("s", DataType::Utf8),
        column("b", DataType::Boolean),
        column("l", list(DataType::Int64)),
        column("r", row(&[("x", DataType::Int64), ("y", DataType::Utf8)])),
        column("m", map(DataType::Utf8)),
    ]
}

fn random_text(rng: &mut StdRng) -> String {
    const PIECES: [&str; 9] = ["a", "key", " ", "\"", "\\", "\n", "é", "😀", "\u{1}"];
    (0..rng.random_range(0..6)).map(|_| PIECES[rng.random_range(0..PIECES.len())]).collect()
}

fn random_value(rng: &mut StdRng, name: &str) -> Value {
    if rng.random_range(0..8) == 0 {
        return Value::Null;
    }
    match name {
        "i" | "x" => json!(rng.random::<i64>() >> rng.random_range(0..64)),
        "f" => json!(f64::from_bits(rng.random::<u64>() & 0xBFFF_FFFF_FFFF_FFFF)),
        "b" => json!(rng.random::<bool>()),
        "l" => (0..rng.random_range(0..4)).map(|_| random_value(rng, "i")).collect(),
        "r" => json!({ "x": random_value(rng, "x"), "y": random_value(rng, "s") }),
        "m" => (0..rng.random_range(0..4)).map(|_| (random_text(rng), random_value(rng, "s"))).collect(),
        "other" => {
            [json!([1, { "q": "\\\"" }]), json!({}), json!(-1.5e-9), json!("é\n")][rng.random_range(0..4)].clone()
        }
        _ => json!(random_text(rng)),
    }
}

/// A record of some of the columns in any order with other fields between them, and what its columns must be.
fn random_record(rng: &mut StdRng) -> (String, Value) {
    let mut want = Map::new();
    let mut members = Vec::new();
    for column in random_columns() {
        let mut value = random_value(rng, &column.name);
        let at = rng.random_range(0..=members.len());
        if rng.random_range(0..6) == 0 {
            value = Value::Null;
        } else {
            members.insert(at, (column.name.clone(), value.clone()));
        }
        want.insert(column.name, value);
    }
    for i in 0..rng.random_range(0..4) {
        let at = rng.random_range(0..=members.len());
        members.insert(at, (format!("other{i}"), random_value(rng, "other")));
    }
    let pretty = rng.random::<bool>();
    let object = Value::Object(members.into_iter().collect());
    let text = if pretty { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
    (text.unwrap(), Value::Object(want))
}

#[test]
fn decoding_agrees_with_an_independent_parser_whatever_stands_between() {
    let columns = random_columns();
    let wanted: Vec<_> = (0..columns.len()).collect();
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut decoder = format(&[]).decoder(&columns, &wanted).unwrap();
        for _batch in 0..3 {
            let mut want = Vec::new();
            for _ in 0..rng.random_range(1..60) {
                let (text, row) = random_record(&mut rng);
                assert_eq!(decoder.decode(text.as_bytes()), Ok(()), "{text}");
                want.push(row);
                // Every proper prefix of an object is bad, as is one with a byte changed to an impossible one.
                let cut = rng.random_range(0..text.len());
                decoder.decode(&text.as_bytes()[..cut]).unwrap_err();
                let mut broken = text.into_bytes();
                broken[cut] = 0xFF;
                decoder.decode(&broken).unwrap_err();
            }
            let arrays = decoder.take().unwrap();
            for array in &arrays {
                array.to_data().validate_full().unwrap();
            }
            let floats = arrays[1].as_primitive::<Float64Type>().clone();
            let rows = encode(&[], &batch(&columns, arrays)).unwrap();
            assert_eq!(rows.len(), want.len());
            for (i, (row, want)) in rows.iter().zip(&want).enumerate() {
                // The other parser reads a float but nearly; ours must give back the very bits that were written.
                let mut row: Value = serde_json::from_str(row).unwrap();
                if let Some(float) = want["f"].as_f64() {
                    assert_eq!(floats.value(i).to_bits(), float.to_bits(), "seed {seed}");
                    row["f"] = want["f"].clone();
                }
                assert_eq!(row, *want, "seed {seed}");
            }
        }
    }
}

#[test]
fn changed_bytes_never_panic_and_are_judged_as_elsewhere() {
    let columns = random_columns();
    let wanted: Vec<_> = (0..columns.len()).collect();
    let mut rng = StdRng::seed_from_u64(7);
    let mut decoder = format(&[]).decoder(&columns, &wanted).unwrap();
    let mut blind = format(&[]).decoder(&columns, &[]).unwrap();
    let mut rows = 0;
    for _ in 0..4_000 {
        let mut bytes = random_record(&mut rng).0.into_bytes();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes[at] = b"{}[]\",:\\0e-tn u"[rng.random_range(0..15)],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"{}[]\",:\\0e-tn u"[rng.random_range(0..15)]),
            }
        }
        // What is accepted is JSON, and what is JSON is accepted if nobody looks at the values.
        let is_json = match serde_json::from_slice::<Value>(&bytes) {
            Ok(value) => value.is_object(),
            // The other parser stops at a number that is too large for it.
            Err(error) if error.to_string().starts_with("number out of range") => continue,
            Err(_) => false,
        };
        let shown = String::from_utf8_lossy(&bytes);
        assert_eq!(blind.decode(&bytes).is_ok(), is_json, "{shown}");
        if decoder.decode(&bytes).is_ok() {
            rows += 1;
            assert!(is_json, "{shown}");
        }
        assert_eq!(decoder.len(), rows);
    }
    assert!(rows > 0);
    decoder.take().unwrap().iter().for_each(|a| a.to_data().validate_full().unwrap());
}

/// One payload as arrow-json reads it: the row, if it is one and nothing else.
fn read_by_arrow(columns: &[DecodeColumn], payload: &[u8]) -> Option<RecordBatch> {
    let fields: Vec<_> = columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable)).collect();
    let builder = arrow::json::ReaderBuilder::new(Arc::new(Schema::new(fields))).with_batch_size(8);
    let mut decoder = builder.build_decoder().unwrap();
    let taken = decoder.decode(payload).ok()?;
    let rows = decoder.flush().ok()??;
    (taken == payload.len() && rows.num_rows() == 1).then_some(rows)
}

/// One payload as we read it.
fn read_by_us(columns: &[DecodeColumn], payload: &[u8]) -> Option<RecordBatch> {
    let mut decoder = format(&[]).decoder(columns, &(0..columns.len()).collect::<Vec<_>>()).unwrap();
    decoder.decode(payload).ok()?;
    Some(batch(columns, decoder.take().unwrap()))
}

/// What we accept arrow-json accepts, and reads it as we do. It takes more: what is no JSON (members without a comma between
/// them, numbers that begin with a zero, control characters in strings), and a fraction as a whole number.
#[test]
fn records_are_what_arrow_json_says_but_for_what_only_it_accepts() {
    let columns = random_columns();
    let mut rng = StdRng::seed_from_u64(11);
    let (mut both, mut neither) = (0, 0);
    for round in 0..6_000 {
        let mut bytes = random_record(&mut rng).0.into_bytes();
        for _ in 0..round % 3 {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes[at] = b"{}[]\",:\\0e-tn u"[rng.random_range(0..15)],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"{}[]\",:\\0e-tn u"[rng.random_range(0..15)]),
            }
        }
        let shown = String::from_utf8_lossy(&bytes);
        match (read_by_us(&columns, &bytes), read_by_arrow(&columns, &bytes)) {
            (Some(ours), Some(theirs)) => {
                both += 1;
                assert_eq!(ours.columns(), theirs.columns(), "{shown}");
            }
            (None, None) => neither += 1,
            (Some(_), None) => panic!("only we accept {shown}"),
            (None, Some(_)) => {
                let why = read(&columns, &[], &bytes);
                let is_json = serde_json::from_slice::<Value>(&bytes).is_ok();
                assert!(!is_json || why.contains("expected BIGINT, found"), "{shown}: {why}");
            }
        }
    }
    assert!(both > 2_000 && neither > 2_000, "{both}, {neither}");
}
