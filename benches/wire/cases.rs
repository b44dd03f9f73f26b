//! The queries.

use std::fs;

use crate::common::broker::repository;
use crate::data::{Data, Spelling};

/// A query over a topic.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub data: Data,
    /// Columns of the output table.
    pub columns: String,
    pub select: String,
    /// In how many rows of the output each record is counted, where rows have a column `records`.
    pub counted: Option<u64>,
    /// Only asked for by name.
    pub is_extra: bool,
    /// Of the job; as many as there are processors unless said.
    pub workers: Option<u32>,
    /// A share of the topic, in hundredths, after which reading ends.
    pub percent: u64,
    /// Reads the same records from files, one per partition, so that no broker shares the machine.
    pub from_files: bool,
}

const TOTALS: &str = "window_start TIMESTAMP(3), `key` STRING, records BIGINT, total DOUBLE, largest DOUBLE";

/// All cases; `records` is about the size of their topics.
pub fn all(records: u64) -> Vec<Case> {
    let plain = Data { spelling: Spelling::Json, records, keys: 10_000, per_second: 10_000, partitions: 4 };
    let keys = |keys, per_second| Data { keys, per_second, ..plain };
    // Each key has some records in a window, so all keys are open at a time.
    let million = keys(1_000_000, 250_000);
    let sparse = keys(10_000, 1_000);
    let window = "INTERVAL '10' SECOND";
    let mut cases = vec![
        case(
            "pass",
            plain,
            "`key` STRING, ts TIMESTAMP(3), amount DOUBLE",
            "SELECT `key`, ts, amount FROM records",
            None,
        ),
        case(
            "filter-1%",
            plain,
            "`key` STRING, ts TIMESTAMP(3), amount DOUBLE",
            "SELECT `key`, ts, amount FROM records WHERE amount < 10",
            None,
        ),
        totals("tumble-16", keys(16, 10_000), &format!("TUMBLE(TABLE records, DESCRIPTOR(ts), {window})"), 1),
        totals("tumble-10k", plain, &format!("TUMBLE(TABLE records, DESCRIPTOR(ts), {window})"), 1),
        totals("tumble-1M", million, &format!("TUMBLE(TABLE records, DESCRIPTOR(ts), {window})"), 1),
        totals("hop-60", plain, "HOP(TABLE records, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '60' SECOND)", 60),
        totals("session", sparse, "SESSION(TABLE records PARTITION BY `key`, DESCRIPTOR(ts), INTERVAL '30' SECOND)", 1),
        case(
            "distinct",
            plain,
            "window_start TIMESTAMP(3), records BIGINT, others BIGINT",
            &format!(
                "SELECT window_start, COUNT(*), COUNT(DISTINCT `key`) \
                 FROM TABLE(TUMBLE(TABLE records, DESCRIPTOR(ts), {window})) GROUP BY window_start, window_end"
            ),
            Some(1),
        ),
        case(
            "join",
            plain,
            "window_start TIMESTAMP(3), `key` STRING, one DOUBLE, other DOUBLE",
            &format!(
                "SELECT L.window_start, L.`key`, L.amount, R.amount FROM (
                   SELECT * FROM TABLE(TUMBLE(TABLE records, DESCRIPTOR(ts), {window})) WHERE flag
                 ) L JOIN (
                   SELECT * FROM TABLE(TUMBLE(TABLE records, DESCRIPTOR(ts), {window})) WHERE NOT flag AND amount < 100
                 ) R ON L.window_start = R.window_start AND L.window_end = R.window_end AND L.`key` = R.`key`"
            ),
            None,
        ),
        totals(
            "tumble-csv",
            Data { spelling: Spelling::Csv, ..plain },
            &format!("TUMBLE(TABLE records, DESCRIPTOR(ts), {window})"),
            1,
        ),
        totals(
            "tumble-1kB",
            Data { spelling: Spelling::Kilobyte, records: records / 4, ..plain },
            &format!("TUMBLE(TABLE records, DESCRIPTOR(ts), {window})"),
            1,
        ),
    ];
    cases.extend(nexmark(records / 2));
    cases.extend(growth(plain));
    cases
}

fn case(name: &str, data: Data, columns: &str, select: &str, counted: Option<u64>) -> Case {
    let (name, columns, select) = (name.to_owned(), columns.to_owned(), select.to_owned());
    Case { name, data, columns, select, counted, is_extra: false, workers: None, percent: 100, from_files: false }
}

/// Count, sum and maximum by key and window.
fn totals(name: &str, data: Data, window: &str, counted: u64) -> Case {
    let select = format!(
        "SELECT window_start, `key`, COUNT(*), SUM(amount), MAX(amount) FROM TABLE({window}) \
         GROUP BY window_start, window_end, `key`"
    );
    case(name, data, TOTALS, &select, Some(counted))
}

fn growth(plain: Data) -> Vec<Case> {
    let tumble = |name: String, data| {
        let window = "TUMBLE(TABLE records, DESCRIPTOR(ts), INTERVAL '10' SECOND)";
        Case { is_extra: true, ..totals(&format!("growth-{name}"), data, window, 1) }
    };
    let workers = |n| Case { workers: Some(n), ..tumble(format!("workers-{n}"), plain) };
    let files = |n| Case { workers: Some(n), from_files: true, ..tumble(format!("files-workers-{n}"), plain) };
    // So few groups that giving them from worker to worker costs nothing.
    let few = |n| {
        let Case { columns, select, .. } = files(n);
        let (columns, select) = (columns.replace("`key` STRING", "flag BOOLEAN"), select.replace("`key`", "flag"));
        Case { name: format!("growth-files-2-groups-workers-{n}"), columns, select, ..files(n) }
    };
    let partitions = |n| tumble(format!("partitions-{n}"), Data { partitions: n, ..plain });
    // All keys in a window of a million records or more.
    let keys = |keys: u64| {
        let records = plain.records.max(keys);
        tumble(format!("keys-{keys}"), Data { keys, records, per_second: 250_000.max(keys / 10), ..plain })
    };
    let length = |percent| Case { percent, ..tumble(format!("length-{percent}"), plain) };
    let windows = |n: u64| {
        let window = format!("HOP(TABLE records, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '{n}' SECOND)");
        Case { is_extra: true, ..totals(&format!("growth-windows-{n}"), plain, &window, n) }
    };
    let mut cases: Vec<Case> = [1, 2].map(workers).into();
    cases.extend([1, 2].map(files));
    cases.extend([1, 2].map(few));
    cases.extend([1, 2, 4, 8, 16, 32].map(partitions));
    cases.extend([10, 1_000, 100_000, 1_000_000, 10_000_000].map(keys));
    cases.extend([1, 6, 60, 600].map(windows));
    cases.extend([10, 100].map(length));
    cases
}

/// The queries of Nexmark: those beside the tests', and three that keep nothing.
fn nexmark(records: u64) -> Vec<Case> {
    let data = Data { spelling: Spelling::Nexmark, records, keys: 0, per_second: 10_000, partitions: 4 };
    let mut cases = Vec::new();
    let bid = "auction BIGINT, bidder BIGINT, price BIGINT, dateTime TIMESTAMP(3), extra STRING";
    for (name, columns, select) in [
        ("nexmark-q0", bid, "SELECT auction, bidder, price, dateTime, extra FROM bid"),
        (
            "nexmark-q1",
            "auction BIGINT, bidder BIGINT, price DECIMAL(23, 3), dateTime TIMESTAMP(3), extra STRING",
            "SELECT auction, bidder, CAST(0.908 * price AS DECIMAL(23, 3)) AS price, dateTime, extra FROM bid",
        ),
        ("nexmark-q2", "auction BIGINT, price BIGINT", "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0"),
    ] {
        cases.push(case(name, data, columns, select, None));
    }
    for name in ["q5", "q7", "q8", "q11"] {
        let file = repository().join(format!("tests/nexmark/{name}.sql"));
        let text = fs::read_to_string(file).expect("a query beside the tests");
        let (_, table) = text.split_once(&format!("CREATE TABLE {name} (")).expect("its table");
        let (columns, query) = table.split_once(')').map_or(("", table), |_| split_columns(table));
        let (_, select) = query.split_once(&format!("INSERT INTO {name}")).expect("its query");
        cases.push(case(&format!("nexmark-{name}"), data, columns, select.trim().trim_end_matches(';'), None));
    }
    cases
}

/// A table's columns, and what follows the parenthesis that ends them.
fn split_columns(table: &str) -> (&str, &str) {
    let mut depth = 1;
    for (at, character) in table.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (&table[..at], &table[at + 1..]);
        }
    }
    panic!("a table's columns do not end")
}

impl Case {
    /// The whole script, with these options of the output table.
    pub fn script(&self, job: &str, sink: &str) -> String {
        let topic = self.data.topic();
        let mut script = format!("SET 'pipeline.name' = '{job}';\n");
        if let Some(workers) = self.workers {
            script += &format!("SET 'parallelism.default' = '{workers}';\n");
        }
        script += &self.input(&topic);
        script +=
            &format!("CREATE TABLE output ({}) WITH ({sink});\nINSERT INTO output\n{};\n", self.columns, self.select);
        script
    }

    fn input(&self, topic: &str) -> String {
        if self.data.spelling == Spelling::Nexmark {
            let text = fs::read_to_string(repository().join("tests/nexmark/tables.sql")).expect("a file of the tests");
            return text.replace("'topic' = 'nexmark'", &format!("'topic' = '{topic}'"));
        }
        let columns = "id BIGINT, `key` STRING, ts TIMESTAMP(3), amount DOUBLE, flag BOOLEAN, text STRING,
               WATERMARK FOR ts AS ts - INTERVAL '1' SECOND";
        if self.from_files {
            let path = self.data.directory();
            return format!(
                "CREATE TABLE records ({columns}) WITH (
                   'connector' = 'filesystem', 'path' = '{}', 'format' = '{}'
                 );\n",
                path.display(),
                self.data.format()
            );
        }
        let share = self.data.records / self.data.partitions as u64 * self.percent / 100;
        let ends: Vec<_> = (0..self.data.partitions).map(|p| format!("partition:{p},offset:{share}")).collect();
        let bounded = match self.percent {
            100 => "'scan.bounded.mode' = 'latest-offset'".to_owned(),
            _ => format!(
                "'scan.bounded.mode' = 'specific-offsets', 'scan.bounded.specific-offsets' = '{}'",
                ends.join(";")
            ),
        };
        format!(
            "CREATE TABLE records ({columns}) WITH (
               'connector' = 'kafka', 'topic' = '{topic}', 'format' = '{}', 'scan.startup.mode' = 'earliest-offset', {bounded}
             );\n",
            self.data.format()
        )
    }

    /// The same for Flink, which wants the brokers in each table; `SINK` stands for the output table's options.
    pub fn flink_script(&self, brokers: &str) -> String {
        let at = format!(
            "'connector' = 'kafka', 'properties.bootstrap.servers' = '{brokers}', 'properties.group.id' = 'wire'"
        );
        // Flink's rows of times come out as Tidemill's do; nothing else differs.
        self.input(&self.data.topic()).replace("'connector' = 'kafka'", &at)
            + &format!("CREATE TABLE output ({}) WITH (SINK);\nINSERT INTO output\n{};\n", self.columns, self.select)
    }

    /// Size and slide of the windows over which it counts, sums and takes the maximum by key, if that is what it does.
    pub fn window_seconds(&self) -> Option<(u64, u64)> {
        match self.name.as_str() {
            "tumble-16" | "tumble-10k" | "tumble-1M" => Some((10, 10)),
            "hop-60" => Some((60, 1)),
            _ => None,
        }
    }

    /// How many records it reads.
    pub fn records(&self) -> u64 {
        let partitions = self.data.partitions as u64;
        if self.percent == 100 {
            self.data.records
        } else {
            self.data.records / partitions * self.percent / 100 * partitions
        }
    }
}
