//! What the loops that run per record cost, each alone: decoding, keys, merging slices and suffixes, encoding.
//!
//! ```text
//! cargo bench --bench kernels -- [FILTER ..]
//! ```
//!
//! Nanoseconds of CPU time for one row (or group), the least of seven runs, on one thread and with data that is in memory; beside
//! some of them what stands next to them elsewhere. The figures in comments were read on two cores of an AMD EPYC with
//! AVX-512; another machine has others, but a change that doubles one of them is a change. Linux only.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::max_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::group_values::new_group_values;
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use tidemill::catalog::options::Options;
use tidemill::error::Result;
use tidemill::formats::{DecodeColumn, Encoded, Format};
use tidemill::state::{Aggregate, AggregateLayout, GroupTable, Panes};
use tidemill::time::SlicedWindows;

/// Rows of a batch.
const ROWS: usize = 8_192;
/// Items of a run, at least.
const ITEMS_MIN: usize = 1 << 20;
/// Runs, of which the least counts.
const RUNS: usize = 7;

fn main() -> Result<()> {
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let bench = Bench { filters };
    decode(&bench);
    intern(&bench)?;
    merge(&bench)?;
    slide(&bench)?;
    encode(&bench)
}

struct Bench {
    filters: Vec<String>,
}

impl Bench {
    /// Prints what one of so many items costs in the quickest run; answers it.
    fn measure(&self, name: &str, items: usize, mut run: impl FnMut() -> Result<()>) -> Result<()> {
        if !self.filters.is_empty() && !self.filters.iter().any(|filter| name.contains(filter.as_str())) {
            return Ok(());
        }
        // Long enough for a clock that may move only with the kernel's ticks.
        let passes = (ITEMS_MIN / items).max(1);
        let mut least = Duration::MAX;
        for _ in 0..RUNS {
            let begun = cpu_time();
            (0..passes).try_for_each(|_| run())?;
            least = least.min(cpu_time() - begun);
        }
        println!("{name:<44}{:>9.1} ns", least.as_nanos() as f64 / (passes * items) as f64);
        Ok(())
    }
}

/// Three of seven columns of a bid of 221 bytes, and three of six of a shorter record with a time as text.
///
/// Expected: bid 170 (arrow-json 500); record 170 (arrow-json 500).
fn decode(bench: &Bench) {
    let number = |n: u64| (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24;
    let bid = |n: u64| {
        let mixed = number(n);
        format!(
            r#"{{"auction":{},"bidder":{},"price":{},"channel":"channel-{}","url":"https://www.nexmark.com/{:05}/item.htm?query=1","dateTime":{},"extra":"{}"}}"#,
            1_000 + mixed % 10_000,
            2_000 + mixed % 7_777,
            100 + mixed % 9_999_999,
            mixed % 1_000,
            mixed % 99_999,
            1_767_225_600_000 + n / 10,
            "abcdefghijklmnopqrstuvwxyz_-ABCDEFGHIJ".repeat(2).split_at(58).0,
        )
    };
    let record = |n: u64| {
        let mixed = number(n);
        format!(
            r#"{{"id":{n},"key":"k{:05}","ts":"2026-01-01 00:{:02}:{:02}.{:03}","amount":{}.{:02},"flag":{},"text":"the quick fox"}}"#,
            mixed % 10_000,
            n / 60_000 % 60,
            n / 1_000 % 60,
            n % 1_000,
            mixed % 1_000,
            mixed % 100,
            mixed.is_multiple_of(3),
        )
    };
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let of_bid = [("auction", DataType::Int64), ("price", DataType::Int64), ("dateTime", DataType::Int64)];
    let of_record = [("key", DataType::Utf8), ("ts", time), ("amount", DataType::Float64)];
    decode_with(bench, "bid", &(0..ROWS as u64).map(bid).collect::<Vec<_>>(), &of_bid);
    decode_with(bench, "record", &(0..ROWS as u64).map(record).collect::<Vec<_>>(), &of_record);
}

fn decode_with(bench: &Bench, name: &str, payloads: &[String], columns: &[(&str, DataType)]) {
    let bytes = payloads.iter().map(String::len).sum::<usize>() / payloads.len();
    let wanted: Vec<DecodeColumn> = columns
        .iter()
        .map(|(name, data_type)| DecodeColumn { name: (*name).into(), data_type: data_type.clone(), nullable: true })
        .collect();
    let format = Format::from_options("json", &Options::default(), "").expect("a format");
    let mut ours = format.decoder(&wanted, &[0, 1, 2]).expect("a decoder");
    let ours = bench.measure(&format!("decode {name} of {bytes} bytes"), payloads.len(), || {
        for payload in payloads {
            ours.decode(payload.as_bytes()).expect("a row");
        }
        black_box(ours.take()?);
        Ok(())
    });
    ours.expect("columns");
    let fields: Vec<Field> = columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect();
    let builder = arrow::json::ReaderBuilder::new(Arc::new(Schema::new(fields))).with_batch_size(ROWS);
    let mut theirs = builder.build_decoder().expect("a decoder");
    let theirs = bench.measure(&format!("decode {name} by arrow-json"), payloads.len(), || {
        for payload in payloads {
            theirs.decode(payload.as_bytes())?;
        }
        black_box(theirs.flush()?);
        Ok(())
    });
    theirs.expect("columns");
}

/// String keys of so many groups.
fn keys(groups: usize) -> Vec<ArrayRef> {
    let rows = (4 * groups).max(16 * ROWS) / ROWS * ROWS;
    let key = |n: usize| format!("k{:05}", (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) as usize % groups);
    let all: Vec<String> = (0..rows).map(key).collect();
    all.chunks(ROWS).map(|rows| Arc::new(rows.iter().map(Some).collect::<StringArray>()) as ArrayRef).collect()
}

/// Which group a row belongs to, groups being made on the way: what each slice of a window begins with.
///
/// Expected for 16, 10,000 and 1,000,000 groups: 4, 11 and 50 (DataFusion's: 8, 11, 85).
fn intern(bench: &Bench) -> Result<()> {
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true)]));
    // Only keys: no aggregate.
    let layout = Arc::new(AggregateLayout::new(vec![Arc::new(schema.field(0).clone())], Vec::new()));
    for groups in [16, 10_000, 1_000_000] {
        let batches = keys(groups);
        let rows = batches.len() * ROWS;
        bench.measure(&format!("intern {groups} keys"), rows, || {
            let mut table = GroupTable::new(&layout)?;
            batches.iter().try_for_each(|keys| table.update(ROWS, std::slice::from_ref(keys), &[], &[]))
        })?;
        bench.measure(&format!("intern {groups} keys by DataFusion"), rows, || {
            let mut values = new_group_values(Arc::clone(&schema), &GroupOrdering::None)?;
            let mut ids = Vec::new();
            Ok(batches.iter().try_for_each(|keys| values.intern(std::slice::from_ref(keys), &mut ids))?)
        })?;
    }
    Ok(())
}

/// Count, sum and maximum of a number by a string.
fn layout() -> Result<(SchemaRef, Arc<AggregateLayout>)> {
    let schema =
        Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true), Field::new("x", DataType::Float64, true)]));
    let aggregates = [count_udaf(), sum_udaf(), max_udaf()].map(|function| {
        let builder = AggregateExprBuilder::new(function, vec![Arc::new(Column::new("x", 1))]);
        Aggregate::new(Arc::new(builder.schema(Arc::clone(&schema)).alias("value").build()?), &schema)
    });
    let aggregates = aggregates.into_iter().collect::<Result<_>>()?;
    Ok((Arc::clone(&schema), Arc::new(AggregateLayout::new(vec![Arc::new(schema.field(0).clone())], aggregates))))
}

fn update(table: &mut GroupTable, keys: &ArrayRef) -> Result<()> {
    let values: ArrayRef = Arc::new(Float64Array::from_iter_values((0..keys.len()).map(|n| n as f64)));
    let inputs = vec![vec![Arc::clone(&values)]; 3];
    table.update(keys.len(), std::slice::from_ref(keys), &inputs, &[None, None, None])
}

/// Rows into the groups of a slice, and the partial of one slice into another's table: what workers exchange.
///
/// Expected: update 12, merge 8.
fn merge(bench: &Bench) -> Result<()> {
    let (_, layout) = layout()?;
    let batches = keys(10_000);
    bench.measure("update 10000 groups", batches.len() * ROWS, || {
        let mut table = GroupTable::new(&layout)?;
        batches.iter().try_for_each(|keys| update(&mut table, keys))
    })?;
    let mut table = GroupTable::new(&layout)?;
    batches.iter().try_for_each(|keys| update(&mut table, keys))?;
    let partial = table.take_partial()?;
    bench.measure("merge 10000 groups, sixteen times", 16 * partial.num_rows(), || {
        let mut table = GroupTable::new(&layout)?;
        (0..16).try_for_each(|_| table.merge(&partial))
    })
}

/// A window of sixty slices slides on by one: per group what taking a slice in, suffixes, the total and the result cost.
///
/// Expected: 120.
fn slide(bench: &Bench) -> Result<()> {
    const SLIDES: i64 = 240;
    let (_, layout) = layout()?;
    let keys = keys(8_000);
    bench.measure("slide 60 slices of 8000 groups", SLIDES as usize * 8_000, || {
        let windows = SlicedWindows::hop_ms(1_000, 60_000, 0);
        let mut panes = Panes::new(Arc::clone(&layout), windows)?;
        for slice in 0..SLIDES {
            update(panes.delta((slice, slice + 1))?, &keys[slice as usize % keys.len()])?;
            panes.close_until(windows.last_instant(slice + 1), |fired| {
                black_box(fired.rows);
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// A row of five columns as JSON of about 110 bytes.
///
/// Expected: 155 (arrow-json 330).
fn encode(bench: &Bench) -> Result<()> {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let schema = Arc::new(Schema::new(vec![
        field("window_start", DataType::Timestamp(TimeUnit::Millisecond, None)),
        field("key", DataType::Utf8),
        field("records", DataType::Int64),
        field("total", DataType::Float64),
        field("largest", DataType::Float64),
    ]));
    let rows = 0..ROWS as i64;
    let cents = |n: i64| (n * 7_919 % 100_000) as f64 / 100.0;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(
            rows.clone().map(|n| 1_767_225_600_000 + n / 100 * 10_000),
        )),
        Arc::new(rows.clone().map(|n| Some(format!("k{n:05}"))).collect::<StringArray>()),
        Arc::new(Int64Array::from_iter_values(rows.clone().map(|n| n % 20))),
        Arc::new(Float64Array::from_iter_values(rows.clone().map(|n| cents(n) * 10.0))),
        Arc::new(Float64Array::from_iter_values(rows.map(cents))),
    ];
    let batch = RecordBatch::try_new(schema, columns)?;
    let mut encoder = Format::from_options("json", &Options::default(), "")?.encoder(&batch.schema())?;
    let mut out = Encoded::default();
    bench.measure("encode JSON", ROWS, || {
        out.clear();
        encoder.encode(&batch, &mut out)
    })?;
    bench.measure("encode JSON by arrow-json", ROWS, || {
        let mut writer = arrow::json::LineDelimitedWriter::new(Vec::with_capacity(1 << 20));
        writer.write(&batch)?;
        black_box(writer.into_inner());
        Ok(())
    })
}

/// What this thread has computed so far: others may share the machine.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    Duration::from_nanos(stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds come first"))
}
