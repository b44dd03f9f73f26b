//! Every aggregate function of DataFusion, windowed and from partials, against DataFusion's own batch answer.
//!
//! The rows are spread over three partitions; sliding windows whose size is no multiple of the slide make each row part
//! of several slices' partials, two workers make partials travel, frequent checkpoints merge deltas into bases.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateDefaults;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::sql::{Bench, at_once, lines};

const HOP: &str = "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '20' SECOND, INTERVAL '50' SECOND)";

/// Functions whose partials are sketches: merged in another order they give another answer, near the exact one.
const APPROXIMATE: [&str; 3] = ["approx_percentile_cont", "approx_percentile_cont_with_weight", "approx_median"];

/// The functions, and calls of each. Where the batch must be told an order that is ours by itself, it follows `=>`.
const CALLS: &[(&str, &[&str])] = &[
    (
        "count",
        &[
            "COUNT(*)",
            "COUNT(v)",
            "COUNT(DISTINCT v)",
            "COUNT(DISTINCT (v, b))",
            "COUNT(v) FILTER (WHERE b)",
            "COUNT(DISTINCT k) FILTER (WHERE b)",
        ],
    ),
    (
        "sum",
        &[
            "SUM(v)",
            "SUM(d)",
            "SUM(m)",
            "SUM(DISTINCT v)",
            "SUM(DISTINCT m)",
            "SUM(v) FILTER (WHERE v > 3)",
            "SUM(v * 2 + id)",
        ],
    ),
    (
        "avg",
        &[
            "AVG(v)",
            "AVG(d)",
            "AVG(m)",
            "AVG(DISTINCT v)",
            "AVG(v) FILTER (WHERE b)",
            "AVG(DISTINCT d) FILTER (WHERE b)",
        ],
    ),
    (
        "min",
        &["MIN(v)", "MIN(d)", "MIN(m)", "MIN(k)", "MIN(ts)", "MIN(b)", "MIN(DISTINCT v)", "MIN(v) FILTER (WHERE b)"],
    ),
    (
        "max",
        &[
            "MAX(v)",
            "MAX(d)",
            "MAX(m)",
            "MAX(k)",
            "MAX(ts)",
            "MAX(b)",
            "MAX(DISTINCT k)",
            "MAX(k) FILTER (WHERE v > 3)",
        ],
    ),
    ("median", &["MEDIAN(v)", "MEDIAN(d)", "MEDIAN(m)", "MEDIAN(DISTINCT v)"]),
    (
        "percentile_cont",
        &["PERCENTILE_CONT(0.3) WITHIN GROUP (ORDER BY d)", "PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY d DESC)"],
    ),
    ("approx_distinct", &["APPROX_DISTINCT(v)", "APPROX_DISTINCT(k)", "APPROX_DISTINCT(id)"]),
    ("approx_median", &["APPROX_MEDIAN(d)", "APPROX_MEDIAN(v)"]),
    ("approx_percentile_cont", &["APPROX_PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY d)"]),
    ("approx_percentile_cont_with_weight", &["APPROX_PERCENTILE_CONT_WITH_WEIGHT(v, 0.5) WITHIN GROUP (ORDER BY d)"]),
    ("stddev", &["STDDEV(v)", "STDDEV(d)"]),
    ("stddev_pop", &["STDDEV_POP(d)", "STDDEV_POP(v) FILTER (WHERE b)"]),
    ("var", &["VAR(d)", "VAR_SAMP(v)"]),
    ("var_pop", &["VAR_POP(d)"]),
    ("corr", &["CORR(v, d)"]),
    ("covar_samp", &["COVAR_SAMP(v, d)"]),
    ("covar_pop", &["COVAR_POP(v, d)"]),
    ("regr_slope", &["REGR_SLOPE(d, v)"]),
    ("regr_intercept", &["REGR_INTERCEPT(d, v)"]),
    ("regr_count", &["REGR_COUNT(d, v)"]),
    ("regr_r2", &["REGR_R2(d, v)"]),
    ("regr_avgx", &["REGR_AVGX(d, v)"]),
    ("regr_avgy", &["REGR_AVGY(d, v)"]),
    ("regr_sxx", &["REGR_SXX(d, v)"]),
    ("regr_syy", &["REGR_SYY(d, v)"]),
    ("regr_sxy", &["REGR_SXY(d, v)"]),
    ("bit_and", &["BIT_AND(v)", "BIT_AND(id)"]),
    ("bit_or", &["BIT_OR(v)"]),
    ("bit_xor", &["BIT_XOR(v)"]),
    ("bool_and", &["BOOL_AND(b)", "BOOL_AND(v > 1)"]),
    ("bool_or", &["BOOL_OR(b)"]),
    (
        "array_agg",
        &[
            "ARRAY_AGG(v ORDER BY id)",
            "ARRAY_AGG(k ORDER BY v DESC, id)",
            "ARRAY_AGG(v) => ARRAY_AGG(v ORDER BY ts)",
            "ARRAY_AGG(DISTINCT v ORDER BY v) => ARRAY_AGG(DISTINCT v ORDER BY v NULLS FIRST)",
            "ARRAY_AGG(id) FILTER (WHERE b) => ARRAY_AGG(id ORDER BY ts) FILTER (WHERE b)",
            "ARRAY_AGG(DISTINCT v) => ARRAY_AGG(DISTINCT v ORDER BY v)",
            "COLLECT(id) => ARRAY_AGG(id ORDER BY ts)",
        ],
    ),
    (
        "string_agg",
        &[
            "STRING_AGG(k, ',' ORDER BY id)",
            "STRING_AGG(k, ',') => STRING_AGG(k, ',' ORDER BY ts)",
            "LISTAGG(k, '-') => STRING_AGG(k, '-' ORDER BY ts)",
            "LISTAGG(k) => STRING_AGG(k, ',' ORDER BY ts)",
            "STRING_AGG(DISTINCT k, ',') => STRING_AGG(DISTINCT k, ',' ORDER BY k)",
            "STRING_AGG(k, ',') FILTER (WHERE v > 2) => STRING_AGG(k, ',' ORDER BY ts) FILTER (WHERE v > 2)",
        ],
    ),
    (
        "first_value",
        &[
            "FIRST_VALUE(v ORDER BY id)",
            "FIRST_VALUE(k ORDER BY d DESC, id)",
            "FIRST_VALUE(v) => FIRST_VALUE(v ORDER BY ts)",
            "FIRST_VALUE(v) IGNORE NULLS => FIRST_VALUE(v ORDER BY ts) IGNORE NULLS",
            "FIRST_VALUE(id) FILTER (WHERE b) => FIRST_VALUE(id ORDER BY ts) FILTER (WHERE b)",
            "FIRST_VALUE(bid.price) => FIRST_VALUE(bid.price ORDER BY ts)",
        ],
    ),
    (
        "last_value",
        &[
            "LAST_VALUE(v ORDER BY id)",
            "LAST_VALUE(k ORDER BY v, id)",
            "LAST_VALUE(v) => LAST_VALUE(v ORDER BY ts)",
            "LAST_VALUE(v) IGNORE NULLS => LAST_VALUE(v ORDER BY ts) IGNORE NULLS",
            "LAST_VALUE(m) => LAST_VALUE(m ORDER BY ts)",
            "LAST_VALUE(bid) => LAST_VALUE(bid ORDER BY ts)",
        ],
    ),
    (
        "nth_value",
        &[
            "NTH_VALUE(id, 2 ORDER BY id)",
            "NTH_VALUE(v, 3 ORDER BY id DESC)",
            "NTH_VALUE(id, 2) => NTH_VALUE(id, 2 ORDER BY ts)",
            "NTH_VALUE(id, -1) => NTH_VALUE(id, -1 ORDER BY ts)",
        ],
    ),
    (
        "any_value",
        &[
            "ANY_VALUE(v) => FIRST_VALUE(v ORDER BY ts) IGNORE NULLS",
            "ANY_VALUE(id) FILTER (WHERE b) => FIRST_VALUE(id ORDER BY ts) FILTER (WHERE b)",
        ],
    ),
    // Of one grouping it says nothing; several are refused.
    ("grouping", &["GROUPING(k)"]),
];

fn records() -> Vec<String> {
    let mut times = BTreeSet::new();
    (0..600_u64)
        .map(|i| {
            // Out of order by less than the watermark's five seconds, no two alike.
            let mut ms = i * 400 + (i * 7919) % 3000;
            while !times.insert(ms) {
                ms += 1;
            }
            let field = |name: &str, value: String, null: bool| {
                if null { String::new() } else { format!(r#""{name}":{value},"#) }
            };
            let key = ["\"a\"", "\"b\"", "\"cc\""][(i * 31 % 3) as usize];
            format!(
                r#"{{{}{}{}{}{}{}"id":{i},"ts":"2020-01-01 00:{:02}:{:02}.{:03}"}}"#,
                field("k", key.into(), i % 11 == 0),
                field("v", (i * 37 % 8).to_string(), i % 5 == 0),
                field("d", format!("{}", (i * 53 % 97) as f64 / 4.0 - 9.0), i % 13 == 0),
                field("m", format!("{}.{:02}", i * 17 % 500, i % 100), i % 7 == 0),
                field("b", (i % 3 == 0).to_string(), i % 17 == 0),
                field("bid", format!(r#"{{"price":{i}.5}}"#), i % 4 == 0),
                ms / 60_000,
                ms / 1_000 % 60,
                ms % 1_000,
            )
        })
        .collect()
}

/// What DataFusion makes of the rows as a batch.
fn batch_answer(rows: &[RecordBatch], sql: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut config = SessionConfig::new().with_target_partitions(1);
        config.options_mut().sql_parser.enable_ident_normalization = false;
        let context = SessionContext::new_with_config(config);
        let table = MemTable::try_new(rows[0].schema(), vec![rows.to_vec()]).expect("a table");
        context.register_table("w", Arc::new(table)).expect("a new name");
        let answer = context.sql(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        lines(&answer.collect().await.unwrap_or_else(|e| panic!("{sql}\n{e}")))
    })
}

/// A call as we are asked, and as the batch is.
fn ours(call: &str) -> &str {
    call.split(" => ").next().unwrap_or(call)
}

fn theirs(call: &str) -> String {
    call.split(" => ").last().unwrap_or(call).replace("bid.price", "bid['price']")
}

/// The batch answer for one call: it refuses several that want different orders.
fn one_by_key(rows: &[RecordBatch], call: String) -> Vec<(String, String)> {
    let sql = format!("SELECT window_start, k, {call} AS x FROM w GROUP BY window_start, window_end, k");
    let mut rows: Vec<_> = batch_answer(rows, &sql)
        .iter()
        .map(|line| line.rsplit_once('|').map(|(key, value)| (key.to_owned(), value.to_owned())).expect("three cells"))
        .collect();
    rows.sort_unstable();
    rows
}

fn compare(mut got: Vec<String>, mut want: Vec<String>, tolerance: f64, what: &str) {
    got.sort_unstable();
    want.sort_unstable();
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(&want) {
        let near = |(a, b): (&str, &str)| match (a.parse::<f64>(), b.parse::<f64>()) {
            _ if a == b => true,
            (Ok(a), Ok(b)) => (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0),
            _ => false,
        };
        assert!(got.split('|').zip(want.split('|')).all(near), "{what}\n got {got}\nwant {want}");
    }
}

#[test]
fn every_aggregate_is_what_a_batch_gives() {
    let covered: BTreeSet<&str> = CALLS.iter().map(|(name, _)| *name).collect();
    for function in SessionStateDefaults::default_aggregate_functions() {
        let known = std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str));
        assert!(known.into_iter().any(|name| covered.contains(name)), "{} has no row here", function.name());
    }

    let bench = Bench::new(&records());
    bench.run("SET 'execution.checkpointing.interval' = '5 ms'");
    let rows = bench.run(&format!("SELECT * FROM {HOP}"));
    let (approximate, exact): (Vec<_>, Vec<_>) = CALLS.iter().partition(|(name, _)| APPROXIMATE.contains(name));
    let calls = |functions: Vec<&(&str, &'static [&'static str])>| -> Vec<&str> {
        functions.iter().flat_map(|(_, calls)| *calls).copied().collect()
    };
    let (approximate, exact) = (calls(approximate), calls(exact));
    // Few enough in one query for its rows to be looked at, many enough to be quick.
    let queries: Vec<_> = approximate.chunks(8).map(|c| (c, 0.2)).chain(exact.chunks(8).map(|c| (c, 1e-12))).collect();
    for workers in [1, 2] {
        bench.run(&format!("SET 'parallelism.default' = '{workers}'"));
        at_once(&queries, |(calls, tolerance)| {
            let named = calls.iter().enumerate().map(|(i, call)| format!("{} AS x{i}", ours(call)));
            let select = format!("SELECT window_start, k, {}", named.collect::<Vec<_>>().join(", "));
            let sql = format!("{select} FROM {HOP} GROUP BY window_start, window_end, k");
            let want = calls.iter().map(|call| one_by_key(&rows, theirs(call))).reduce(|mut all, more| {
                all.iter_mut().zip(more).for_each(|(row, (key, value))| {
                    assert_eq!(row.0, key);
                    row.1 = format!("{}|{value}", row.1);
                });
                all
            });
            let want = want.into_iter().flatten().map(|(key, values)| format!("{key}|{values}")).collect();
            compare(lines(&bench.run(&sql)), want, *tolerance, &format!("{workers} workers: {sql}"));
        });
    }
}

#[test]
fn aggregates_without_keys_and_many_at_once() {
    let bench = Bench::new(&records());
    let rows = bench.run(&format!("SELECT * FROM {HOP}"));
    let several = "COUNT(*) AS n, COUNT(DISTINCT k) AS c, SUM(v) FILTER (WHERE b) AS s, SUM(v) FILTER (WHERE NOT b) AS t, \
                   AVG(d) AS a, MIN(ts) AS f, MAX(k) AS g, MEDIAN(m) AS h, ARRAY_AGG(id ORDER BY id) AS i, STDDEV(d) AS j";
    for (group, filter) in [
        ("window_start", "true"),
        ("window_start, window_end, k, b", "v > 1 OR v IS NULL"),
        ("window_start, window_end, d", "true"),
        ("window_start, window_end, bid", "id < 100"),
        ("window_start, window_end, MOD(id, 7), UPPER(k)", "window_start > TIMESTAMP '2020-01-01 00:01:00'"),
    ] {
        let keys: Vec<_> = group.split(", ").filter(|g| *g != "7)").collect();
        let keys = if group.contains("MOD") { "MOD(id, 7), UPPER(k)".to_owned() } else { keys.join(", ") };
        let want = batch_answer(
            &rows,
            &format!("SELECT {keys}, {several} FROM w WHERE {filter} GROUP BY {group}").replace("MOD(id, 7)", "id % 7"),
        );
        for workers in [1, 2] {
            bench.run(&format!("SET 'parallelism.default' = '{workers}'"));
            let sql = format!("SELECT {keys}, {several} FROM {HOP} WHERE {filter} GROUP BY {group}");
            compare(lines(&bench.run(&sql)), want.clone(), 1e-12, &sql);
        }
    }
}
