//! What a slide costs, by the number of slices that a window has.
//!
//! ```text
//! cargo bench --bench slide
//! ```
//!
//! Every slice has rows of the same thousand groups. A slide closes one window: its slices merged, its groups given out. The
//! CPU time is the mean over 2,400 slides; rows being taken in are not part of it. Beside it stands what merging all slices of
//! each window anew costs. Linux only: CPU time is read from `/proc`.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column;
use tidemill::error::Result;
use tidemill::state::{Aggregate, AggregateLayout, Fired, GroupTable, KeptPanes, Panes};
use tidemill::time::SlicedWindows;

const SLICES: [i64; 3] = [6, 60, 600];
const GROUPS: i64 = 1_000;
/// Per group and slice; as many values are distinct.
const ROWS: i64 = 4;
/// So that the slices of the longest window come and go four times.
const SLIDES: u32 = 2_400;
/// Milliseconds.
const SLICE: i64 = 1_000;

fn main() -> Result<()> {
    println!("{GROUPS} groups, {ROWS} rows of each in a slice; per slide:\n");
    let head: Vec<String> = SLICES.iter().map(|n| format!("{:>14}", format!("{n} slices"))).collect();
    println!("{:<16}{}    merging all anew:{}", "", head.concat(), head[..2].concat());
    let all: [(&str, Arc<AggregateUDF>, &str, bool); 5] = [
        ("count", count_udaf(), "n", false),
        ("avg", avg_udaf(), "x", false),
        ("min", min_udaf(), "x", false),
        ("max", max_udaf(), "n", false),
        ("count(DISTINCT)", count_udaf(), "s", true),
    ];
    let rows = Rows::new();
    for (name, function, argument, distinct) in all {
        let layout = rows.layout(function, argument, distinct)?;
        let mut line = format!("{name:<16}");
        for slices in SLICES {
            line += &format!("{:>14.1?}", rows.folded(&layout, argument, slices)?);
        }
        line += "                     ";
        for &slices in &SLICES[..2] {
            line += &format!("{:>14.1?}", rows.anew(&layout, argument, slices)?);
        }
        println!("{line}");
    }
    Ok(())
}

/// The rows of a slice, which all slices share.
struct Rows {
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
}

impl Rows {
    fn new() -> Self {
        let of = |data_type, name: &str| Field::new(name, data_type, true);
        let schema = Schema::new(vec![
            of(DataType::Utf8, "k"),
            of(DataType::Int64, "n"),
            of(DataType::Float64, "x"),
            of(DataType::Utf8, "s"),
        ]);
        let all = 0..GROUPS * ROWS;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(all.clone().map(|i| Some(format!("key {}", i % GROUPS))).collect::<StringArray>()),
            Arc::new(Int64Array::from_iter_values(all.clone())),
            Arc::new(Float64Array::from_iter_values(all.clone().map(|i| i as f64))),
            Arc::new(all.map(|i| Some(format!("value {}", i / GROUPS))).collect::<StringArray>()),
        ];
        Self { schema: Arc::new(schema), columns }
    }

    fn layout(&self, function: Arc<AggregateUDF>, argument: &str, distinct: bool) -> Result<Arc<AggregateLayout>> {
        let argument = Arc::new(Column::new_with_schema(argument, &self.schema)?);
        let builder = AggregateExprBuilder::new(function, vec![argument]).schema(Arc::clone(&self.schema));
        let function = builder.alias("value").with_distinct(distinct).build()?;
        let aggregate = Aggregate::new(Arc::new(function), &self.schema)?;
        Ok(Arc::new(AggregateLayout::new(vec![Arc::new(self.schema.field(0).clone())], vec![aggregate])))
    }

    fn update(&self, table: &mut GroupTable, argument: &str) -> Result<()> {
        let argument = Arc::clone(&self.columns[self.schema.index_of(argument)?]);
        table.update(argument.len(), &self.columns[..1], &[vec![argument]], &[None])
    }

    /// The mean of a slide over folded slices.
    fn folded(&self, layout: &Arc<AggregateLayout>, argument: &str, slices: i64) -> Result<Duration> {
        let windows = SlicedWindows::hop_ms(SLICE, slices * SLICE, 0);
        let mut panes = Panes::new(Arc::clone(layout), windows)?;
        self.mean(layout, argument, SLIDES, |slice| {
            self.update(panes.delta((slice, slice + 1))?, argument)?;
            panes.close_until(windows.last_instant(slice + 1), check)
        })
    }

    /// The mean of a slide that merges all slices of its window.
    fn anew(&self, layout: &Arc<AggregateLayout>, argument: &str, slices: i64) -> Result<Duration> {
        let windows = SlicedWindows::hop_ms(SLICE, slices * SLICE, 0);
        let mut panes = KeptPanes::new(Arc::clone(layout), windows, 0)?;
        self.mean(layout, argument, SLIDES / 4, |slice| {
            self.update(panes.delta((slice, slice + 1))?, argument)?;
            panes.advance(windows.last_instant(slice + 1), false, check).map(|_| ())
        })
    }

    /// The mean of what is done for each slice, without what taking its rows in costs.
    fn mean(
        &self,
        layout: &Arc<AggregateLayout>,
        argument: &str,
        slides: u32,
        mut slide: impl FnMut(i64) -> Result<()>,
    ) -> Result<Duration> {
        let begun = cpu_time();
        (0..i64::from(slides)).try_for_each(&mut slide)?;
        let between = cpu_time();
        for _ in 0..slides {
            self.update(&mut GroupTable::new(layout)?, argument)?;
        }
        let of_rows = cpu_time() - between;
        Ok((between - begun).saturating_sub(of_rows) / slides)
    }
}

/// What this thread has computed so far: others may share the machine.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    Duration::from_nanos(stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds come first"))
}

fn check(fired: Fired) -> Result<()> {
    assert_eq!(fired.rows as i64, GROUPS, "every window has every group");
    Ok(())
}
