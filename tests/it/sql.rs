//! The language, form by form, over the broker inside the process: each row of a table here is a query and its rows.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill::error::Error;
use tidemill::runtime::{Engine, EngineConfig, Outcome};

/// An engine with a broker of its own, and a table `t` over these records. Records go to the partition of their `p`.
pub struct Bench {
    engine: Engine,
}

/// Columns of every type that queries group and aggregate by.
pub const COLUMNS: &str = "id BIGINT, k STRING, v INT, d DOUBLE, m DECIMAL(10, 2), b BOOLEAN,
    bid ROW<price DOUBLE, who ROW<name STRING, `a b` INT>>, arr ARRAY<INT>, mp MAP<STRING, INT>,
    ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND";

const BOUNDED: &str = "'connector' = 'kafka', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset',
    'scan.bounded.mode' = 'latest-offset'";

impl Bench {
    /// Three partitions with these records; what each is sent to is chosen by its place.
    pub fn new(records: &[impl AsRef<str>]) -> Self {
        let config = EngineConfig { brokers: Some("embedded".into()), ..EngineConfig::default() };
        let bench = Self { engine: Engine::open(config).expect("an engine") };
        bench.run("SET 'sink.commit-interval' = '5 ms'");
        bench.run(&format!("CREATE TABLE t ({COLUMNS}) WITH ({BOUNDED}, 'topic' = 't')"));
        bench.run(
            "CREATE TABLE raw (p STRING, v STRING) WITH ('connector' = 'kafka', 'topic' = 't', 'key.format' = 'raw',
             'key.fields' = 'p', 'value.format' = 'raw', 'value.fields-include' = 'EXCEPT_KEY', 'sink.topic.partitions' = '3')",
        );
        for records in records.chunks(500) {
            let row = |(i, record): (usize, &_)| format!("('{}', '{}')", i % 7, AsRef::<str>::as_ref(record));
            let rows: Vec<_> = records.iter().enumerate().map(row).collect();
            bench.run(&format!("INSERT INTO raw VALUES {}", rows.join(", ")));
        }
        bench
    }

    /// Runs statements to their ends; the rows of the last one.
    pub fn try_run(&self, sql: &str) -> Result<Vec<RecordBatch>, Error> {
        let mut last = Vec::new();
        for outcome in self.engine.run(sql) {
            last = match outcome? {
                Outcome::Query(stream) => stream.collect::<Result<_, _>>()?,
                Outcome::Rows(rows) => rows.batches,
                Outcome::Started(job) => job.wait().map(|()| Vec::new())?,
                Outcome::Done(..) | Outcome::Text(_) | Outcome::Topic(_) => Vec::new(),
            };
        }
        Ok(last)
    }

    /// As [`try_run`](Self::try_run), for what cannot fail.
    pub fn run(&self, sql: &str) -> Vec<RecordBatch> {
        self.try_run(sql).unwrap_or_else(|error| panic!("{sql}\n{error} {:?}", error.hint))
    }

    /// The text that statements end in.
    fn text(&self, sql: &str) -> String {
        match self.engine.run(sql).last() {
            Some(Ok(Outcome::Text(text))) => text,
            Some(Ok(Outcome::Done(text, _))) => text,
            Some(Err(error)) => panic!("{sql}\n{error} {:?}", error.hint),
            _ => panic!("{sql}\ngives no text"),
        }
    }

    /// The last statement's rows, cells parted by `|`, are these, in any order.
    fn check(&self, sql: &str, want: &[&str]) {
        let mut got = lines(&self.run(sql));
        let mut want: Vec<_> = want.iter().map(ToString::to_string).collect();
        got.sort_unstable();
        want.sort_unstable();
        assert_eq!(got, want, "{sql}");
    }

    /// The statements end in an error: its message and hint, one behind the other, hold `want`; it points at `at`.
    fn refuses(&self, sql: &str, want: &str, at: &str) {
        let error = self.try_run(sql).err().unwrap_or_else(|| panic!("{sql}\nis not refused"));
        let said = format!("{} | {}", error.message, error.hint.as_deref().unwrap_or_default());
        assert!(said.contains(want), "{sql}\n{said}");
        for leak in ["Utf8", "Int64", "Int32", "DataFusion", "Error during", "Schema", "Arrow", "planning"] {
            assert!(!said.contains(leak), "{sql}\n{said}");
        }
        let pointed = error.span.clone().map_or("", |span| &sql[span]);
        assert_eq!((pointed, error.exit_code()), (at, 1), "{sql}\n{said}");
    }

    /// The job ends with an error that the data is to blame for.
    fn fails(&self, sql: &str, want: &str) {
        let error = self.try_run(sql).err().unwrap_or_else(|| panic!("{sql}\ndoes not fail"));
        assert!(error.message.contains(want), "{sql}\n{error}");
        assert_eq!((error.exit_code(), error.blame), (4, tidemill::error::Blame::Data), "{sql}\n{error}");
    }
}

/// Queries mostly wait for the broker, so several run at once.
pub fn at_once<T: Sync>(items: &[T], check: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(item);
                }
            });
        }
    });
}

/// Rows as texts: cells parted by `|`, times without their day unless it is not the usual one.
pub fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default()
        .with_null("null")
        .with_timestamp_format(Some("%F %T%.f"))
        .with_timestamp_tz_format(Some("%F %T%.fZ"));
    let mut lines = Vec::new();
    for batch in batches {
        let cells: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).expect("a known type")).collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<_> = cells.iter().map(|c| c.value(row).to_string().replace("2020-01-01 ", "")).collect();
            lines.push(cells.join("|"));
        }
    }
    lines
}

fn five() -> Bench {
    Bench::new(&[
        r#"{"id":1,"k":"a","v":1,"d":1.5,"m":2.25,"b":true,"bid":{"price":1.5,"who":{"name":"x","a b":7}},"arr":[1,2],"mp":{"k":5},"ts":"2020-01-01 00:00:01"}"#,
        r#"{"id":2,"k":"b","v":2,"d":-0.0,"m":1,"b":false,"bid":{"price":2.5,"who":{"name":"y","a b":8}},"arr":[3],"mp":{"j":5},"ts":"2020-01-01 00:00:31"}"#,
        r#"{"id":3,"d":0.0,"ts":"2020-01-01 00:00:32"}"#,
        r#"{"id":4,"k":"a","v":3,"d":3.5,"m":7.5,"b":true,"bid":{"price":4.5,"who":{"name":"x","a b":9}},"arr":[4,5,6],"mp":{"k":6},"ts":"2020-01-01 00:01:02"}"#,
        r#"{"id":5,"k":"a","v":4,"d":4.5,"m":8.5,"b":true,"bid":{"price":5.5,"who":{"name":"z","a b":9}},"arr":[],"mp":{"k":7},"ts":"2020-01-01 00:01:32"}"#,
    ])
}

#[test]
fn windows_in_every_spelling() {
    let bench = five();
    let minutes = ["00:00:00|3", "00:01:00|2"];
    let group = "GROUP BY window_start, window_end";
    at_once(
        &[
            "TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE))",
            "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)",
            "TUMBLE(t, ts, INTERVAL '60' SECOND)",
            "tumble(`t`, DESCRIPTOR(`ts`), INTERVAL '1' MINUTE) AS w",
            "TABLE(TUMBLE(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '1' MINUTE))",
            "TABLE(TUMBLE(SIZE => INTERVAL '1' MINUTE, DATA => TABLE t, TIMECOL => DESCRIPTOR(ts)))",
            "TUMBLE(t, t.ts, INTERVAL '1' MINUTE)",
            "TUMBLE((SELECT * FROM t), ts, INTERVAL '1' MINUTE)",
            "TABLE(TUMBLE(TABLE (SELECT ts AS tt, id FROM t), DESCRIPTOR(tt), INTERVAL '1' MINUTE))",
            "HOP(t, ts, INTERVAL '1' MINUTE, INTERVAL '1' MINUTE)",
            "(SELECT * FROM TUMBLE(t, ts, INTERVAL '1' MINUTE))",
            "(SELECT id, window_end, window_start FROM TUMBLE(t, ts, INTERVAL '1' MINUTE)) AS x",
            "TUMBLE(t, ts, INTERVAL '1' MINUTE, INTERVAL '0' SECOND)",
            "TUMBLE(t, ts, INTERVAL '1' MINUTE, INTERVAL '-1' MINUTE)",
            "TUMBLE(default_catalog.default_database.t, ts, INTERVAL '1' MINUTE)",
        ],
        |&from| {
            bench.check(&format!("SELECT window_start, COUNT(*) FROM {from} {group}"), &minutes);
        },
    );
    at_once(
        &[
            ("TUMBLE(t, ts, INTERVAL '1' MINUTE)", "window_start", &minutes[..]),
            ("TUMBLE(t, ts, INTERVAL '1' MINUTE)", "window_start, window_time", &minutes[..]),
            ("TUMBLE(t, ts, INTERVAL '1' MINUTE)", "1", &minutes[..]),
            (
                "TUMBLE(t, ts, INTERVAL '1' MINUTE, INTERVAL '10' SECOND)",
                "window_start, window_end",
                &["2019-12-31 23:59:10|1", "00:00:10|3", "00:01:10|1"],
            ),
            (
                "TABLE(TUMBLE(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '1' MINUTE, `OFFSET` => INTERVAL '10' SECOND))",
                "window_start, window_end",
                &["2019-12-31 23:59:10|1", "00:00:10|3", "00:01:10|1"],
            ),
            (
                "HOP(t, ts, INTERVAL '30' SECOND, INTERVAL '1' MINUTE)",
                "window_start, window_end",
                &["2019-12-31 23:59:30|1", "00:00:00|3", "00:00:30|3", "00:01:00|2", "00:01:30|1"],
            ),
            // The size is no multiple of the slide.
            (
                "TABLE(HOP(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SLIDE => INTERVAL '20' SECOND, SIZE => INTERVAL '50' SECOND))",
                "window_start, window_end",
                &[
                    "2019-12-31 23:59:20|1",
                    "2019-12-31 23:59:40|1",
                    "00:00:00|3",
                    "00:00:20|3",
                    "00:00:40|1",
                    "00:01:00|2",
                    "00:01:20|1",
                ],
            ),
            // Windows that leave gaps.
            (
                "HOP(t, ts, INTERVAL '60' SECOND, INTERVAL '30' SECOND)",
                "window_end, window_start",
                &["00:00:00|1", "00:01:00|1"],
            ),
            (
                "HOP(t, ts, INTERVAL '60' SECOND, INTERVAL '90' SECOND, INTERVAL '15' SECOND)",
                "window_start",
                &["2019-12-31 23:59:15|3", "00:00:15|4", "00:01:15|1"],
            ),
            ("TUMBLE(t, ts, INTERVAL '1' DAY)", "window_start", &["00:00:00|5"]),
        ],
        |&(from, group, want)| {
            bench.check(&format!("SELECT window_start, COUNT(*) FROM {from} GROUP BY {group}"), want);
        },
    );
    // The bounds as they come, and over a TIMESTAMP_LTZ.
    bench.check(
        "SELECT id, window_start, window_end, window_time FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) WHERE id > 3",
        &["4|00:01:00|00:02:00|00:01:59.999", "5|00:01:00|00:02:00|00:01:59.999"],
    );
    bench.run(&format!(
        "CREATE TABLE z (id BIGINT, at AS TO_TIMESTAMP_LTZ(id * 40000, 3), WATERMARK FOR at AS at) WITH ({BOUNDED}, 'topic' = 't')"
    ));
    bench.check(
        "SELECT window_start, window_time, COUNT(*), MAX(at) FROM TUMBLE(z, at, INTERVAL '1' MINUTE) WHERE id < 3
         GROUP BY window_start, window_time",
        &[
            "1970-01-01 00:00:00|1970-01-01 00:00:59.999Z|1|1970-01-01 00:00:40Z",
            "1970-01-01 00:01:00|1970-01-01 00:01:59.999Z|1|1970-01-01 00:01:20Z",
        ],
    );
}

#[test]
fn windows_in_group_by() {
    let bench = five();
    at_once(&[
        ("TUMBLE_START(ts, INTERVAL '1' MINUTE), COUNT(*) FROM t GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)", &["00:00:00|3", "00:01:00|2"][..]),
        ("COUNT(*) FROM t GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)", &["3", "2"]),
        (
            "TUMBLE_END(t.ts, INTERVAL '1' MINUTE) e, TUMBLE_ROWTIME(t.ts, INTERVAL '1' MINUTE), k, SUM(v)
             FROM t GROUP BY k, TUMBLE(t.ts, INTERVAL '1' MINUTE) HAVING SUM(v) > 1",
            &["00:01:00|00:00:59.999|b|2", "00:02:00|00:01:59.999|a|7"],
        ),
        (
            "HOP_START(ts, INTERVAL '1' MINUTE, INTERVAL '2' MINUTE), COUNT(*) FROM (SELECT * FROM t WHERE v > 0) AS x
             GROUP BY HOP(ts, INTERVAL '1' MINUTE, INTERVAL '2' MINUTE)",
            &["2019-12-31 23:59:00|2", "00:00:00|4", "00:01:00|2"],
        ),
        (
            "EXTRACT(MINUTE FROM TUMBLE_START(`ts`, INTERVAL '1' MINUTE)), COUNT(*) FROM t GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)",
            &["0|3", "1|2"],
        ),
        (
            "TUMBLE_START(rt, INTERVAL '1' HOUR), SUM(c) FROM (SELECT TUMBLE_ROWTIME(ts, INTERVAL '10' SECOND) AS rt,
             COUNT(*) AS c FROM t GROUP BY TUMBLE(ts, INTERVAL '10' SECOND)) GROUP BY TUMBLE(rt, INTERVAL '1' HOUR)",
            &["00:00:00|5"],
        ),
    ], |&(select, want)| {
        bench.check(&format!("SELECT {select}"), want);
    });
}

#[test]
fn groups_of_every_kind() {
    let bench = five();
    let from = "FROM TUMBLE(t, ts, INTERVAL '1' MINUTE)";
    at_once(
        &[
            ("k, COUNT(*)", "k", &["a|1", "b|1", "null|1", "a|2"][..]),
            ("d, COUNT(*)", "d", &["1.5|1", "0.0|2", "3.5|1", "4.5|1"]),
            ("CAST('NaN' AS DOUBLE) * d, COUNT(*)", "CAST('NaN' AS DOUBLE) * d", &["NaN|3", "NaN|2"]),
            ("m, b, COUNT(*)", "m, b", &["2.25|true|1", "1.00|false|1", "null|null|1", "7.50|true|1", "8.50|true|1"]),
            ("bid.who.name, COUNT(*)", "bid.who.name", &["x|1", "y|1", "null|1", "x|1", "z|1"]),
            ("`bid`.`price` > 2, COUNT(*)", "`bid`.`price` > 2", &["false|1", "true|1", "null|1", "true|2"]),
            (
                "bid.who, COUNT(*)",
                "bid.who",
                &["{name: x, a b: 7}|1", "{name: y, a b: 8}|1", "null|1", "{name: x, a b: 9}|1", "{name: z, a b: 9}|1"],
            ),
            ("arr, COUNT(*)", "arr", &["[1, 2]|1", "[3]|1", "null|1", "[4, 5, 6]|1", "[]|1"]),
            ("MOD(id, 2) AS odd, UPPER(k) AS u, COUNT(*)", "odd, u", &["1|A|1", "0|B|1", "1|null|1", "0|A|1", "1|A|1"]),
            (
                "CASE WHEN v > 2 THEN 'hi' ELSE 'lo' END, COUNT(*)",
                "CASE WHEN v > 2 THEN 'hi' ELSE 'lo' END",
                &["lo|3", "hi|2"],
            ),
            ("CASE WHEN v > 2 THEN 'hi' ELSE 'lo' END AS c, COUNT(*)", "c", &["lo|3", "hi|2"]),
            ("ts, COUNT(*)", "ts", &["00:00:01|1", "00:00:31|1", "00:00:32|1", "00:01:02|1", "00:01:32|1"]),
            ("EXTRACT(MINUTE FROM window_start), COUNT(*)", "EXTRACT(MINUTE FROM window_start)", &["0|3", "1|2"]),
            (
                "window_start + INTERVAL '1' HOUR, COUNT(*)",
                "window_start + INTERVAL '1' HOUR",
                &["01:00:00|3", "01:01:00|2"],
            ),
            ("COUNT(*), COUNT(v), COUNT(DISTINCT k), COUNT(DISTINCT (k, b))", "window_time", &["3|2|2|3", "2|2|1|1"]),
            ("BIT_XOR(1), BIT_XOR(DISTINCT 1)", "window_time", &["1|1", "0|1"]),
            (
                "COUNT(*) FILTER (WHERE b), SUM(v) FILTER (WHERE NOT b OR v > 3), AVG(v) FILTER (WHERE v > 100)",
                "window_time",
                &["1|2|null", "2|4|null"],
            ),
            ("k, COUNT(*)", "k HAVING COUNT(*) > 1 AND window_start > TIMESTAMP '2020-01-01 00:00:00'", &["a|2"]),
        ],
        |&(select, group, want)| {
            bench.check(&format!("SELECT {select} {from} GROUP BY window_start, window_end, {group}"), want);
        },
    );
    at_once(&[
        ("SELECT window_start, COUNT(*) FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) WHERE v > 1 GROUP BY window_start", &["00:00:00|1", "00:01:00|2"][..]),
        (
            "SELECT window_end, COUNT(*) FROM HOP(t, ts, INTERVAL '30' SECOND, INTERVAL '1' MINUTE)
             WHERE window_start >= TIMESTAMP '2020-01-01 00:00:30' AND v > 0 GROUP BY window_end",
            &["00:01:30|2", "00:02:00|2", "00:02:30|1"],
        ),
        ("SELECT DISTINCT window_start, k FROM TUMBLE(t, ts, INTERVAL '1' MINUTE)", &["00:00:00|a", "00:00:00|b", "00:00:00|null", "00:01:00|a"]),
        ("SELECT window_start, window_end, MAX(window_end - ts) FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) GROUP BY window_start, window_end", &["00:00:00|00:01:00|PT59S", "00:01:00|00:02:00|PT58S"]),
        (
            "SELECT * FROM (SELECT window_start, window_end, k, COUNT(*) AS c FROM TUMBLE(t, ts, INTERVAL '1' MINUTE)
             GROUP BY window_start, window_end, k) WHERE c > 1",
            &["00:01:00|00:02:00|a|2"],
        ),
    ], |&(sql, want)| {
        bench.check(sql, want);
    });
}

#[test]
fn aggregates_of_aggregates_views_and_unions() {
    let bench = five();
    bench.run(
        "CREATE VIEW tens AS SELECT window_start, window_end, window_time AS rt, k, COUNT(*) AS c
         FROM TUMBLE(t, ts, INTERVAL '10' SECOND) GROUP BY window_start, window_end, window_time, k;
         CREATE VIEW positive AS SELECT id, k, ts, v FROM t WHERE v > 0;
         CREATE VIEW renamed (a, b, c) AS SELECT k, ts, v FROM positive",
    );
    at_once(
        &[
            (
                "SELECT window_start, SUM(c), MAX(c) FROM TABLE(TUMBLE(TABLE tens, DESCRIPTOR(rt), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end",
                &["00:00:00|3|1", "00:01:00|2|1"][..],
            ),
            // The window_time of one is the event time of the other, in whatever spelling.
            (
                "SELECT TUMBLE_START(rt, INTERVAL '1' HOUR), SUM(c) FROM tens GROUP BY TUMBLE(rt, INTERVAL '1' HOUR)",
                &["00:00:00|5"],
            ),
            // Straight by the upstream's windows.
            (
                "SELECT window_start, window_end, SUM(c), COUNT(*) FROM tens GROUP BY window_start, window_end",
                &["00:00:00|00:00:10|1|1", "00:00:30|00:00:40|2|2", "00:01:00|00:01:10|1|1", "00:01:30|00:01:40|1|1"],
            ),
            (
                "SELECT MAX(n) FROM (SELECT window_start, window_end, k, SUM(v) AS n FROM HOP(t, ts, INTERVAL '1' MINUTE, INTERVAL '2' MINUTE) GROUP BY window_start, window_end, k) GROUP BY window_start, window_end",
                &["2", "8", "7"],
            ),
            (
                "WITH p AS (SELECT * FROM positive), q AS (SELECT * FROM p WHERE v > 1) SELECT window_start, COUNT(*) FROM TUMBLE(TABLE q, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start",
                &["00:00:00|1", "00:01:00|2"],
            ),
            (
                "SELECT window_start, a, SUM(c) FROM TUMBLE(TABLE renamed, DESCRIPTOR(b), INTERVAL '1' MINUTE) GROUP BY window_start, window_end, a",
                &["00:00:00|a|1", "00:00:00|b|2", "00:01:00|a|7"],
            ),
            (
                "SELECT window_start, COUNT(*), SUM(v) FROM TUMBLE((SELECT ts, v FROM t UNION ALL SELECT ts, v * 10 FROM t), ts, INTERVAL '1' MINUTE) GROUP BY window_start",
                &["00:00:00|6|33", "00:01:00|4|77"],
            ),
            (
                "SELECT window_start, SUM(v) FROM (SELECT * FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) UNION ALL SELECT * FROM TUMBLE(t, ts, INTERVAL '1' MINUTE)) GROUP BY window_start",
                &["00:00:00|6", "00:01:00|14"],
            ),
            (
                "SELECT id FROM t WHERE id > 4 UNION ALL SELECT v FROM t WHERE v > 2 UNION ALL SELECT 9",
                &["5", "3", "4", "9"],
            ),
            // Windows over windows, without an aggregate between them.
            (
                "SELECT window_start, window_end, COUNT(*) FROM TUMBLE((SELECT * FROM TUMBLE(t, ts, INTERVAL '10' SECOND)),
                 window_time, INTERVAL '1' MINUTE) GROUP BY window_start, window_end",
                &["00:00:00|00:01:00|3", "00:01:00|00:02:00|2"],
            ),
            ("SELECT x.n FROM (SELECT id AS n FROM (SELECT id FROM t WHERE v > 2) y WHERE id < 5) x", &["4"]),
            ("SELECT a, c FROM renamed WHERE b < TIMESTAMP '2020-01-01 00:00:31'", &["a|1"]),
        ],
        |&(sql, want)| {
            bench.check(sql, want);
        },
    );
}

#[test]
fn columns_of_every_kind() {
    let bench = five();
    bench.run(&format!(
        "CREATE TABLE meta (id BIGINT, `Odd Name` AS id * 10, at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
           `partition` INT METADATA VIRTUAL, `offset` BIGINT METADATA VIRTUAL, topic STRING METADATA VIRTUAL,
           ts STRING, e AS TO_TIMESTAMP(ts), WATERMARK FOR at AS at - INTERVAL '1' SECOND) WITH ({BOUNDED}, 'topic' = 't');
         CREATE TABLE computed (id BIGINT, ts STRING, e AS TO_TIMESTAMP(ts), WATERMARK FOR e AS e - INTERVAL '1' SECOND) WITH ({BOUNDED}, 'topic' = 't')"
    ));
    at_once(
        &[
            (
                "SELECT bid.price, `bid`.`who`.`a b`, t.bid.who.name, arr[1], mp['k'], mp['nope'], CARDINALITY(arr) FROM t WHERE id = 1",
                &["1.5|7|x|1|5|null|2"][..],
            ),
            (
                "SELECT FLOOR(ts TO MINUTE), CEIL(ts TO MINUTE), FLOOR(ts TO HOUR), FLOOR(d) FROM t WHERE id = 5",
                &["00:01:00|00:02:00|00:00:00|4.0"],
            ),
            ("SELECT bid, arr[9], bid.who FROM t WHERE id = 3", &["null|null|null"]),
            (
                "SELECT `Odd Name`, topic, `partition` >= 0, `offset` >= 0, e FROM meta WHERE id = 2",
                &["20|t|true|true|00:00:31"],
            ),
            (
                "SELECT COUNT(*), SUM(`Odd Name`) FROM TUMBLE(meta, at, INTERVAL '1000' DAY) GROUP BY window_start, window_end",
                &["5|150"],
            ),
            (
                "SELECT window_start, COUNT(*), MIN(e) FROM TUMBLE(computed, e, INTERVAL '1' MINUTE) GROUP BY window_start",
                &["00:00:00|3|00:00:01", "00:01:00|2|00:01:02"],
            ),
            (
                "SELECT CASE v WHEN 1 THEN 'one' WHEN 2 THEN 'two' ELSE COALESCE(k, '-') END FROM t",
                &["one", "two", "-", "a", "a"],
            ),
            (
                "SELECT NOW() > ts, PROCTIME() = NOW(), CURRENT_TIMESTAMP > ts, CURRENT_DATE > DATE '2020-01-01' FROM t WHERE id = 1",
                &["true|true|true|true"],
            ),
            ("SELECT 1 + 1, 'x' || 'y', NULL IS NULL, NOW() = PROCTIME()", &["2|xy|true|true"]),
            ("SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS v(x, y)", &["1|a", "2|null"]),
            ("SELECT x, COUNT(*) FROM (VALUES (1), (1), (2)) AS v(x) GROUP BY x ORDER BY x", &["1|2", "2|1"]),
        ],
        |&(sql, want)| {
            bench.check(sql, want);
        },
    );
    at_once(
        &[
            (
                "SELECT id, bid.price, `bid`.who.name, arr[1], v + 1, UPPER(k), CAST(v AS STRING) FROM t LIMIT 1",
                "id price name arr[1] v + 1 UPPER(k) CAST(v AS STRING)",
            ),
            (
                "SELECT COUNT(*), COUNT(*), Sum(v), k FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) GROUP BY window_start, k",
                "COUNT(*) COUNT(*)_2 Sum(v) k",
            ),
            (
                "SELECT TUMBLE_START(ts, INTERVAL '1' MINUTE) FROM t GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)",
                "TUMBLE_START(ts, INTERVAL '1' MINUTE)",
            ),
            ("SELECT bid.who.name, bid.price AS name FROM t", "bid.who.name name"),
            ("SELECT v, id, v, v FROM t", "v id v0 v1"),
        ],
        |&(sql, want)| {
            let batches = bench.run(sql);
            let names: Vec<_> = batches[0].schema().fields().iter().map(|f| f.name().clone()).collect();
            assert_eq!(names.join(" "), want, "{sql}");
        },
    );
}

#[test]
fn limits_of_a_select() {
    let bench = five();
    for (tail, want) in [
        ("LIMIT 2", 2),
        ("LIMIT 0", 0),
        ("LIMIT 9", 5),
        ("LIMIT 2 OFFSET 4", 1),
        ("OFFSET 3 ROWS", 2),
        ("FETCH FIRST 2 ROWS ONLY", 2),
        ("OFFSET 4 ROWS FETCH NEXT 3 ROWS ONLY", 1),
        ("FETCH FIRST ROW ONLY", 1),
    ] {
        let rows: usize = bench.run(&format!("SELECT id FROM t {tail}")).iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, want, "{tail}");
    }
    let union = bench.run("SELECT id FROM t UNION ALL SELECT id FROM t LIMIT 7");
    assert_eq!(union.iter().map(RecordBatch::num_rows).sum::<usize>(), 7);
}

#[test]
fn inserts() {
    let bench = five();
    bench.run("SET 'table.dml-sync' = 'true'");
    let types = "w TIMESTAMP(3), n TINYINT, s STRING NOT NULL, r ROW<a INT, b STRING>, m MAP<STRING, INT>, x ARRAY<BIGINT>, c DECIMAL(6, 2)";
    bench.run(&format!("CREATE TABLE o ({types}) WITH ({BOUNDED}, 'topic' = 'o')"));
    bench.run(
        "INSERT INTO o VALUES (TIMESTAMP '2020-01-01 00:00:00', 1, 'a', ROW(1, 'x'), MAP['k', 1], ARRAY[1, 2], 1.5);
         INSERT INTO o (s, n) SELECT k, v + 100 FROM t WHERE id = 1;
         INSERT INTO o (s, r, c) SELECT k, ROW(v, bid.who.name), m FROM t WHERE id = 2;
         INSERT INTO o SELECT ts, id, CAST(id AS STRING), bid.who, mp, arr, d FROM (SELECT id, ts, mp, arr, d, ROW(bid.who.`a b`, bid.who.name) AS w, named_struct('who', named_struct('z', 1, 'y', k)) AS bid FROM t) WHERE id = 4",
    );
    bench.check(
        "SELECT * FROM o",
        &[
            "00:00:00|1|a|{a: 1, b: x}|{k: 1}|[1, 2]|1.50",
            "null|101|a|null|null|null|null",
            "null|null|b|{a: 2, b: y}|null|null|1.00",
            "00:01:02|4|4|{a: 1, b: a}|{k: 6}|[4, 5, 6]|3.50",
        ],
    );
    bench.fails("INSERT INTO o (s) SELECT k FROM t", "column s is NOT NULL");
    bench.fails("INSERT INTO o (s, n) SELECT 'x', id * 100 FROM t", "does not fit TINYINT");
    bench.fails("INSERT INTO o (s, c) SELECT 'x', m * 10000 FROM t", "");
    at_once(
        &[
            ("INSERT INTO o SELECT ts FROM t", "the query gives 1 column, o takes 7 | the query: ts; the sink: w, n"),
            ("INSERT INTO o (n) SELECT v FROM t", "column s of o is NOT NULL and gets no value"),
            ("INSERT INTO o (s, nn) SELECT k, v FROM t", "o has no column nn"),
            ("INSERT INTO o (s, s) SELECT k, 'x' FROM t", "named twice"),
            (
                "INSERT INTO o (s) SELECT v FROM t",
                "the query's column v is INT, but s of o is STRING | write CAST(v AS STRING)",
            ),
            ("INSERT INTO o (s, r) SELECT k, ROW(k, v) FROM t", "but r of o is ROW<a INT, b STRING>"),
            ("INSERT INTO oo SELECT k FROM t", "there is no table or view \"oo\" | did you mean \"o\"?"),
        ],
        |&(sql, want)| {
            let error = bench.try_run(sql).expect_err(sql);
            let said = format!("{} | {}", error.message, error.hint.unwrap_or_default());
            assert!(said.contains(want), "{sql}\n{said}");
        },
    );
    bench.run(&format!("CREATE TABLE one (k STRING, n BIGINT) WITH ({BOUNDED}, 'topic' = 'one'); CREATE TABLE two (id BIGINT) WITH ({BOUNDED}, 'topic' = 'two')"));
    bench.run(
        "EXECUTE STATEMENT SET BEGIN
           INSERT INTO one SELECT k, COUNT(*) FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) GROUP BY window_start, k;
           INSERT INTO two SELECT id FROM t WHERE id > 3;
         END",
    );
    bench.check("SELECT * FROM one", &["a|1", "b|1", "null|1", "a|2"]);
    bench.check("SELECT * FROM two", &["4", "5"]);
    bench.run("CREATE TABLE three WITH ('topic' = 'three') LIKE two; INSERT INTO three SELECT id + 1 FROM two");
    bench.check("SELECT * FROM three", &["5", "6"]);
    bench.run(&format!(
        "CREATE TABLE four WITH ({BOUNDED}, 'topic' = 'four') AS SELECT window_start, COUNT(*) AS c FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) GROUP BY window_start"
    ));
    bench.check("SELECT * FROM four", &["00:00:00|3", "00:01:00|2"]);
    let plan = bench
        .text("EXPLAIN STATEMENT SET BEGIN INSERT INTO two SELECT id FROM t; INSERT INTO one SELECT k, id FROM t; END");
    assert_eq!(plan.matches("Sink:").count(), 2, "{plan}");
}

#[test]
fn plans_are_readable() {
    let bench = five();
    let plan = bench.text(
        "EXPLAIN SELECT window_start, k, COUNT(*) c, SUM(DISTINCT v) FILTER (WHERE v > 1 AND b), FIRST_VALUE(v), CAST(k AS INT)
         FROM HOP(t, ts, INTERVAL '20' SECOND, INTERVAL '50' SECOND) WHERE id > 1 AND k LIKE 'a%' AND bid.price > 1
         GROUP BY window_start, window_end, k HAVING COUNT(*) > 1",
    );
    for leak in ["IntervalMonth", "__tidemill", "Int64", "Utf8", "@"] {
        assert!(!plan.contains(leak), "{plan}");
    }
    for want in ["HOP 20 s in 50 s", "watermark ts - INTERVAL '5' SECOND", "ORDER BY [event time]", "Filter: "] {
        assert!(plan.contains(want), "{want}\n{plan}");
    }
}

#[test]
fn the_catalog() {
    let bench = five();
    bench.run("CREATE VIEW v AS SELECT id FROM t; CREATE OR REPLACE VIEW v AS SELECT k FROM t; CREATE VIEW IF NOT EXISTS v AS SELECT 1; CREATE TABLE IF NOT EXISTS t (a INT) WITH ('connector' = 'print')");
    bench.check("SHOW TABLES", &["raw", "t", "v"]);
    bench.check("SHOW VIEWS", &["v"]);
    bench.check("DESCRIBE v", &["k|STRING|true|||"]);
    bench.check("DESC raw", &["p|STRING|true|||", "v|STRING|true|||"]);
    assert_eq!(bench.text("SHOW CREATE VIEW v"), "CREATE VIEW v AS\nSELECT k FROM t");
    assert!(bench.text("SHOW CREATE TABLE t").contains("WATERMARK FOR ts AS ts - INTERVAL '5' SECOND"));
    let functions = lines(&bench.run("SHOW FUNCTIONS"));
    assert!(["upper", "date_format", "listagg", "count"].iter().all(|f| functions.iter().any(|g| g == f)));
    bench.check("SHOW JOBS", &[]);
    bench.run("SET 'pipeline.name' = 'x'");
    bench.check("SET", &["pipeline.name|x", "sink.commit-interval|5 ms"]);
    bench.run("RESET 'pipeline.name'");
    bench.check("SET", &["sink.commit-interval|5 ms"]);
    bench.run("DROP VIEW v; DROP VIEW IF EXISTS v; DROP TABLE IF EXISTS nope; RESET");
    at_once(
        &[
            ("DROP TABLE nope", "there is no table or view \"nope\""),
            ("DROP VIEW t", "\"t\" is not a view | DROP TABLE drops tables"),
            ("CREATE TABLE t (a INT) WITH ('connector' = 'print')", "exists already | write IF NOT EXISTS"),
            ("CREATE VIEW w AS SELECT * FROM w", "the view w contains itself"),
            ("CREATE VIEW w (a, b) AS SELECT id FROM t", "the view w names 2 columns, its query gives 1"),
            ("CREATE VIEW w AS SELECT nope FROM t", "there is no column nope"),
            (
                "CREATE TABLE c (a INT, x AS b + 1) WITH ('connector' = 'print')",
                "x: there is no column b | there are a",
            ),
            (
                "CREATE TABLE c (a INT, x AS UPER(a)) WITH ('connector' = 'print')",
                "x: there is no function uper | did you mean upper?",
            ),
            (
                "CREATE TABLE c (a INT, x AS a + 1, WATERMARK FOR x AS x) WITH ('connector' = 'print')",
                "the event time x must be a TIMESTAMP(3)",
            ),
            ("SET 'pipeline.naem' = 'x'", "pipeline.name"),
            ("STOP JOB x", "no job named x is running"),
            ("EXPLAIN ANALYZE SELECT * FROM t", "not available yet"),
            ("SHOW TABEL", "did you mean SHOW TABLES?"),
        ],
        |&(sql, want)| {
            let error = bench.try_run(sql).expect_err(sql);
            let said = format!("{} | {}", error.message, error.hint.as_deref().unwrap_or_default());
            assert!(said.contains(want), "{sql}\n{said}");
            assert_eq!((error.exit_code(), error.span.is_some()), (1, true), "{sql}");
        },
    );
    // A view whose table is gone says so, and points into the query at hand.
    bench.run("CREATE VIEW w AS SELECT p FROM raw; DROP TABLE raw");
    bench.refuses("SELECT p FROM w", "the view w cannot be read: there is no table or view \"raw\"", "w");
}

#[test]
fn what_cannot_run_is_refused() {
    let bench = five();
    let w = "TUMBLE(t, ts, INTERVAL '1' MINUTE)";
    at_once(
        &[
            ("SELECT k, COUNT(*) FROM t GROUP BY k", "would never end | take the rows FROM TUMBLE(", "k"),
            ("SELECT COUNT(*) FROM t", "would never end", "COUNT"),
            ("SELECT DISTINCT k FROM t", "remember every row", "SELECT DISTINCT k"),
            ("SELECT id FROM t UNION SELECT id FROM t", "write UNION ALL", ""),
            ("SELECT * FROM t ORDER BY v", "ORDER BY would have to wait", "v"),
            (
                "SELECT * FROM t a JOIN t b ON a.id = b.id",
                "a join of streams without windows would have to remember every row",
                "t b",
            ),
            (
                "SELECT id, ROW_NUMBER() OVER (ORDER BY ts) FROM t",
                "OVER without a window in its PARTITION BY",
                "ROW_NUMBER",
            ),
            ("SELECT * FROM t WHERE id IN (SELECT id FROM t)", "a join of streams without windows", ""),
            (
                "SELECT * FROM t WHERE id = (SELECT MAX(id) FROM t)",
                "sub-queries may stand in FROM",
                "SELECT MAX(id) FROM t",
            ),
            ("SELECT * FROM (SELECT * FROM t LIMIT 3)", "LIMIT is for a SELECT on its own", "3"),
            (
                "SELECT id FROM t EMIT CHANGES",
                "about aggregates per window, and this query has none",
                "SELECT id FROM t",
            ),
            (
                "SELECT COUNT(*) FROM TUMBLE(t, id, INTERVAL '1' MINUTE) GROUP BY window_start",
                "id is not an event time",
                "id",
            ),
            (
                "SELECT COUNT(*) FROM TUMBLE(t, tss, INTERVAL '1' MINUTE) GROUP BY window_start",
                "did you mean ts?",
                "tss",
            ),
            (
                "SELECT COUNT(*) FROM TUMBLE((SELECT ts + INTERVAL '1' HOUR AS ts FROM t), ts, INTERVAL '1' MINUTE) GROUP BY window_start",
                "ts is not an event time",
                "ts",
            ),
            (
                "SELECT COUNT(*) FROM TUMBLE((SELECT ts FROM t UNION ALL SELECT ts + INTERVAL '1' HOUR FROM t), ts, INTERVAL '1' MINUTE) GROUP BY window_start",
                "ts is not an event time",
                "ts",
            ),
            (
                "SELECT k, COUNT(*) FROM @ GROUP BY k",
                "leaves out the window, so its groups would never end | add window_start, window_end",
                "k",
            ),
            (
                "SELECT window_start, COUNT(*) FROM (SELECT * FROM @ UNION ALL SELECT * FROM TUMBLE(t, ts, INTERVAL '2' MINUTE)) GROUP BY window_start, window_end",
                "windows of several lengths",
                "",
            ),
            (
                "SELECT COUNT(*) FROM HOP(t, ts, INTERVAL '1' HOUR, INTERVAL '1' MONTH) GROUP BY window_start",
                "the slide and the size of the windows are of different kinds",
                "HOP",
            ),
            (
                "SELECT COUNT(*) FROM CUMULATE(t, ts, INTERVAL '40' SECOND, INTERVAL '1' MINUTE) GROUP BY window_end",
                "the size of a CUMULATE must be a multiple of its step",
                "CUMULATE",
            ),
            (
                "SELECT * FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) a JOIN TUMBLE(t, ts, INTERVAL '2' MINUTE) b ON a.window_start = b.window_start AND a.window_end = b.window_end",
                "the windows that are joined differ",
                "TUMBLE(t, ts, INTERVAL '2' MINUTE) b",
            ),
            (
                "SELECT * FROM @ a JOIN @ b ON a.id = b.id",
                "does not say that the windows are equal",
                "TUMBLE(t, ts, INTERVAL '1' MINUTE) b",
            ),
            (
                "SELECT id FROM @ a WHERE id NOT IN (SELECT id FROM @ b WHERE a.window_start = b.window_start AND a.window_end = b.window_end)",
                "write NOT EXISTS",
                "id NOT IN (SELECT id FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) b WHERE a.window_start = b.window_start AND a.window_end = b.window_end",
            ),
            ("SELECT COUNT(*) FROM TUMBLE(t, ts, 5) GROUP BY window_start", "5 is not a length", "5"),
            (
                "SELECT COUNT(*) FROM TUMBLE(t, ts, INTERVAL '0' SECOND) GROUP BY window_start",
                "longer than nothing",
                "TUMBLE",
            ),
            (
                "SELECT COUNT(*) FROM TUMBLE(t, ts) GROUP BY window_start",
                "the size of the windows is missing | write TUMBLE(",
                "TUMBLE",
            ),
            (
                "SELECT COUNT(*) FROM HOP(t, ts, INTERVAL '1' MINUTE) GROUP BY window_start",
                "the slide before the size",
                "HOP",
            ),
            (
                "SELECT COUNT(*) FROM TUMBL(t, ts, INTERVAL '1' MINUTE) GROUP BY window_start",
                "no function TUMBL that gives a table",
                "TUMBL",
            ),
            (
                "SELECT COUNT(*) FROM SESSION(TABLE t PARTITION BY id, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_start",
                "window_start alone names none | add window_end",
                "",
            ),
            (
                "SELECT MAX(SESSION_START(ts, INTERVAL '1' MINUTE)) FROM t GROUP BY SESSION(ts, INTERVAL '1' MINUTE)",
                "cannot be aggregated or filtered by | write FROM SESSION(TABLE t PARTITION BY",
                "",
            ),
            (
                "SELECT COUNT(*) FROM SESSION(TABLE t PARTITION BY (id, id + 1), DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_end",
                "is not a column, so sessions cannot be partitioned by it",
                "id + 1",
            ),
            (
                "SELECT COUNT(*) FROM TUMBLE(TABLE t PARTITION BY id, DESCRIPTOR(ts), INTERVAL '1' MINUTE) GROUP BY window_end",
                "only SESSION takes PARTITION BY",
                "TUMBLE",
            ),
            (
                "SELECT COUNT(*) FROM SESSION(t, ts, INTERVAL '1' MONTH) GROUP BY window_start, window_end",
                "the gap of sessions must be longer than nothing",
                "SESSION",
            ),
            (
                "SELECT COUNT(*) FROM TUMBLE(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZ => INTERVAL '1' MINUTE) GROUP BY 1",
                "no argument SIZ | there are DATA, TIMECOL, SIZE, OFFSET",
                "",
            ),
            (
                "SELECT TUMBLE_END(ts, INTERVAL '2' MINUTE) FROM t GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)",
                "the same arguments",
                "TUMBLE_END(ts",
            ),
            ("SELECT COUNT(*) FROM @ GROUP BY ROLLUP(window_start, k)", "would never end", ""),
            ("SELECT COUNT(DISTINCT *) FROM @ GROUP BY window_start", "name the columns", "COUNT"),
            ("SELECT UNNEST(arr) FROM t", "UNNEST is not available yet", ""),
            ("SELECT x FROM t CROSS JOIN UNNEST(arr) AS u(x)", "UNNEST is not available yet", ""),
            ("SELECT pric FROM t", "there is no column pric | there are id, k, v", "pric"),
            ("SELECT t.idd FROM t", "there is no column t.idd | did you mean id?", "t.idd"),
            ("SELECT K FROM t", "did you mean k? Names are told apart by their case", "K"),
            ("SELECT x.id FROM t", "did you mean t.id?", "x.id"),
            ("SELECT bid.pric FROM t", "there is no field pric", ""),
            ("SELECT uper(k) FROM t", "there is no function uper | did you mean upper?", "uper"),
            ("SELECT frobnicate(k) FROM t", "SHOW FUNCTIONS", "frobnicate"),
            ("SELECT UPPER(k, v) FROM t", "upper takes another number of arguments: 1, not 2", "UPPER"),
            ("SELECT k + 1 FROM t", "STRING + BIGINT cannot be computed", "k"),
            ("SELECT SUM(k) FROM @ GROUP BY window_start", "sum does not take (STRING)", "SUM"),
            ("SELECT * FROM tt", "there is no table or view \"tt\" | did you mean \"t\"?", "tt"),
            ("SELECT v FROM @ GROUP BY window_start", "the column v is neither grouped by nor aggregated", "v"),
            ("SELECT id FROM t WHERE k", "is STRING, not BOOLEAN", ""),
            ("SELECT id FROM t WHERE COUNT(*) > 1", "HAVING", ""),
            ("SELECT id FROM t TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE is not available", "t"),
            ("SELECT id FROM t FOR SYSTEM_TIME AS OF ts", "FOR SYSTEM_TIME AS OF is not available yet", "t"),
            ("SELECT nope.* FROM t", "there is no table nope in FROM", ""),
            ("SELECT SUM(SUM(v)) FROM @ GROUP BY window_start", "aggregate in a sub-query", "v"),
            ("SELECT id FROM t WHERE ts > 'garbage'", "'garbage' is no TIMESTAMP", "'garbage'"),
            ("SELECT CAST('x' AS INT)", "'x' is no INT", "'x'"),
            ("SELECT id AS a, v AS a FROM t", "two columns of the SELECT have the same name", ""),
            ("SELECT id FROM t UNION ALL SELECT id, v FROM t", "different numbers of columns", ""),
        ],
        |&(sql, want, at)| {
            let sql = sql.replace('@', w);
            let whole = at.is_empty().then(|| sql.trim_start_matches("EXPLAIN ").to_owned());
            bench.refuses(&sql, want, whole.as_deref().unwrap_or(at));
        },
    );
}

#[test]
fn arithmetic_that_fails_ends_the_job() {
    let bench = five();
    for constant in ["SELECT 9223372036854775807 + 1", "SELECT a * 2 FROM (VALUES (9223372036854775807)) v (a)"] {
        bench.refuses(constant, "verflow", constant);
    }
    at_once(
        &[
            ("SELECT id + (9223372036854775807 + 1) FROM t", "verflow"),
            ("SELECT id + 9223372036854775807 FROM t", "verflow"),
            (
                "SELECT SUM(id * 9223372036854775807) FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) GROUP BY window_start",
                "verflow",
            ),
            ("SELECT v / 0 FROM t", "division by zero"),
            ("SELECT v / (id - 2) FROM t", "division by zero"),
            ("SELECT MOD(id, v - 1) FROM t", "division by zero"),
            ("SELECT m / (m - m) FROM t", "division by zero"),
            ("SELECT CAST(k AS INT) FROM t WHERE k = 'a'", "'a' is no INT"),
            ("SELECT CAST(id * 100 AS TINYINT) FROM t", "does not fit TINYINT"),
            ("SELECT CAST(k AS TIMESTAMP(3)) FROM t", "is no TIMESTAMP"),
            ("SELECT CAST(m AS DECIMAL(2, 2)) FROM t", ""),
            (
                "SELECT CAST(id AS DECIMAL(38, 0)) * CAST('99999999999999999999999999999999999999' AS DECIMAL(38, 0)) FROM t",
                "overflow",
            ),
            (
                "SELECT SUM(1 / (v - 3)) FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) GROUP BY window_start",
                "division by zero",
            ),
            (
                "SELECT k FROM t GROUP BY k, TUMBLE(ts, INTERVAL '1' MINUTE) HAVING 1 / (COUNT(*) - 1) > 0",
                "division by zero",
            ),
            (
                "SELECT SUM(9223372036854775807) FROM HOP(t, ts, INTERVAL '20' SECOND, INTERVAL '1' MINUTE) GROUP BY window_start",
                "a SUM does not fit into BIGINT",
            ),
            (
                "SELECT COUNT(*) FILTER (WHERE 1 / (v - 3) > 0) FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) GROUP BY window_start",
                "division by zero",
            ),
        ],
        |&(sql, want)| {
            bench.fails(sql, want);
        },
    );
    bench.run(&format!("CREATE TABLE c (id BIGINT, k STRING, n AS CAST(k AS INT)) WITH ({BOUNDED}, 'topic' = 't')"));
    bench.fails("SELECT n FROM c", "' is no INT");
    bench.run(&format!(
        "CREATE TABLE s (id BIGINT, n AS 10 / (id - 2)) WITH ({BOUNDED}, 'topic' = 't', 'scan.on-error' = 'skip')"
    ));
    bench.check("SELECT id, n FROM s", &["1|-10", "3|10", "4|5", "5|3"]);
}

#[test]
fn late_rows_are_late_for_single_windows() {
    // One partition, watermark 5 s behind: after 00:01:00 it is 00:00:55, which has closed windows up to that end.
    let at = |id: u32, time: &str| format!(r#"{{"id":{id},"ts":"2020-01-01 {time}"}}"#);
    let bench = Bench::new(&[""; 0]);
    bench.run("CREATE TABLE one (v STRING) WITH ('connector' = 'kafka', 'topic' = 'late', 'format' = 'raw', 'sink.topic.partitions' = '1')");
    bench.run("CREATE TABLE late WITH ('topic' = 'late') LIKE t");
    let rows = [
        at(1, "00:00:10"),
        at(2, "00:01:00"),
        at(3, "00:00:45"),
        at(4, "00:00:15"),
        at(5, "00:00:30"),
        at(6, "00:00:56"),
    ];
    let values: Vec<_> = rows.iter().map(|r| format!("('{r}')")).collect();
    bench.run(&format!("INSERT INTO one VALUES {}", values.join(", ")));
    bench.check(
        "SELECT window_start, STRING_AGG(CAST(id AS STRING), ',') FROM HOP(late, ts, INTERVAL '20' SECOND, INTERVAL '40' SECOND) GROUP BY window_start",
        // 3 is in time for 20..60 and 40..80; 4 for none (0..40 has closed); 5 for 20..60 only.
        &["2019-12-31 23:59:40|1", "00:00:00|1", "00:00:20|5,3,6", "00:00:40|3,6,2", "00:01:00|2"],
    );
    bench.check(
        "SELECT window_start, COUNT(*) FROM TUMBLE(late, ts, INTERVAL '20' SECOND) WHERE id <> 2 GROUP BY window_start",
        &["00:00:00|1", "00:00:40|2"],
    );
    // The same when rows are repeated for their windows before the aggregate.
    bench.check(
        "SELECT window_start, COUNT(*) FROM HOP(late, ts, INTERVAL '20' SECOND, INTERVAL '40' SECOND) WHERE window_start > TIMESTAMP '2020-01-01 00:00:00' GROUP BY window_start",
        &["00:00:20|3", "00:00:40|3", "00:01:00|1"],
    );
}
