//! Functions that only batch plans use: a row's windows, ties, clocks, arithmetic that fails on overflow.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, ListArray, StructArray, TimestampMillisecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, kernels::numeric};
use arrow::datatypes::{DataType, Decimal128Type, Field, Fields, Int64Type, TimeUnit};
use arrow::row::{RowConverter, SortField};
use chrono_tz::Tz;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result, exec_err, plan_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};

use crate::error::Error;
use crate::time::{Axis, CalendarUnit, Run, SlicedWindows, TimeMs, instant_ms, local_ms};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// The windows of a time that a watermark has not closed, as a list of bounds; `window_time` has the given type.
    Windows(SlicedWindows, Tz, DataType),
    /// An instant as the clocks of a zone show it.
    Shown(Tz),
    /// Bytes in the order of the arguments.
    Ties,
    /// Arithmetic that fails on overflow.
    Checked(Operator),
    /// A sum as a `BIGINT`.
    Bigint,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BatchFunction {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

fn call(name: &'static str, kind: Kind, args: Vec<Expr>) -> Expr {
    let signature = match args.len() {
        0 => Signature::nullary(Volatility::Immutable),
        count => Signature::any(count, Volatility::Immutable),
    };
    ScalarUDF::new_from_impl(BatchFunction { name, kind, signature }).call(args)
}

/// The windows that hold a time (ms) and that a watermark (ms) has not closed: a list of rows of `window_start`,
/// `window_end`, `window_time` and [`AFTER`].
pub fn windows_of(windows: SlicedWindows, zone: Tz, time_type: DataType, time: Expr, watermark: Expr) -> Expr {
    call("windows", Kind::Windows(windows, zone, time_type), vec![time, watermark])
}

/// What the clocks of a zone show at an instant (ms).
pub fn shown(zone: Tz, instant: Expr) -> Expr {
    call("shown", Kind::Shown(zone), vec![instant])
}

/// Bytes whose order is that of the values.
pub fn ties(values: Vec<Expr>) -> Expr {
    call("ties", Kind::Ties, values)
}

/// Arithmetic over whole numbers that fails where they overflow.
pub fn checked(left: Expr, operator: Operator, right: Expr) -> Expr {
    call("checked", Kind::Checked(operator), vec![left, right])
}

/// A finite plan whose arithmetic over whole numbers is checked; its columns keep their names.
pub fn with_checked_arithmetic(plan: LogicalPlan) -> Result<LogicalPlan> {
    checking(plan, |_| true)
}

/// The same for arithmetic over constants, which is folded before anything else could check it.
pub fn with_checked_constants(plan: LogicalPlan) -> Result<LogicalPlan> {
    checking(plan, |expr| !expr.any_column_refs() && !expr.contains_outer())
}

fn checking(plan: LogicalPlan, concerns: impl Fn(&Expr) -> bool) -> Result<LogicalPlan> {
    let of_node = |plan: LogicalPlan| {
        let mut schema = merge_schema(&plan.inputs());
        if let LogicalPlan::TableScan(scan) = &plan {
            schema.merge(&scan.projected_schema);
        }
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| match expr {
                Expr::BinaryExpr(BinaryExpr { left, op, right })
                    if concerns(&left) && concerns(&right) && is_checked(&left, op, &right, &schema)? =>
                {
                    Ok(Transformed::yes(checked(*left, op, *right)))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })
    };
    plan.transform_up_with_subqueries(of_node)?.data.recompute_schema()
}

/// Whether this operation on whole numbers may overflow.
pub fn is_checked(left: &Expr, operator: Operator, right: &Expr, schema: &DFSchema) -> Result<bool> {
    Ok(matches!(operator, Operator::Plus | Operator::Minus | Operator::Multiply)
        && left.get_type(schema)?.is_integer()
        && right.get_type(schema)?.is_integer())
}

/// A sum of 38 digits as a `BIGINT`, if it fits.
pub fn bigint(sum: Expr) -> Expr {
    call("bigint", Kind::Bigint, vec![sum])
}

/// The field of a window's first instant after it.
pub const AFTER: &str = "after";

const LOCAL: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

fn bounds(time_type: &DataType) -> Fields {
    let of = |name: &str, data_type: &DataType| Field::new(name, data_type.clone(), true);
    let after = of(AFTER, &DataType::Int64);
    vec![of("window_start", &LOCAL), of("window_end", &LOCAL), of("window_time", time_type), after].into()
}

impl ScalarUDFImpl for BatchFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(match &self.kind {
            Kind::Windows(_, _, time_type) => {
                DataType::List(Arc::new(Field::new_list_field(DataType::Struct(bounds(time_type)), true)))
            }
            Kind::Shown(_) => LOCAL,
            Kind::Ties => DataType::Binary,
            Kind::Bigint => DataType::Int64,
            Kind::Checked(_) => match args {
                [left, right] if left == right => left.clone(),
                _ => return plan_err!("arithmetic of different types: {args:?}"),
            },
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let args = ColumnarValue::values_to_arrays(&args.args)?
            .into_iter()
            .map(|a| if a.len() == rows { Ok(a) } else { ColumnarValue::Array(a).into_array(rows) })
            .collect::<Result<Vec<ArrayRef>>>()?;
        let values: ArrayRef = match &self.kind {
            Kind::Windows(windows, zone, time_type) => {
                let (times, watermarks) = (args[0].as_primitive::<Int64Type>(), args[1].as_primitive::<Int64Type>());
                list(windows, *zone, time_type, times, watermarks)?
            }
            Kind::Shown(zone) => {
                let instants = args[0].as_primitive::<Int64Type>();
                Arc::new(instants.unary::<_, arrow::datatypes::TimestampMillisecondType>(|t| local_ms(*zone, t)))
            }
            Kind::Ties if args.is_empty() => Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(b"", rows))),
            Kind::Ties => {
                let fields = args.iter().map(|a| SortField::new(a.data_type().clone())).collect();
                Arc::new(RowConverter::new(fields)?.convert_columns(&args)?.try_into_binary()?)
            }
            Kind::Bigint => {
                let fits = |sum: i128| {
                    i64::try_from(sum).map_err(|_| {
                        let error = Error::data("a SUM does not fit into BIGINT");
                        DataFusionError::External(Box::new(error.hint("write SUM(CAST(x AS DECIMAL(38, 0)))")))
                    })
                };
                Arc::new(args[0].as_primitive::<Decimal128Type>().try_unary::<_, Int64Type, _>(fits)?)
            }
            Kind::Checked(operator) => match operator {
                Operator::Plus => numeric::add(&args[0], &args[1])?,
                Operator::Minus => numeric::sub(&args[0], &args[1])?,
                Operator::Multiply => numeric::mul(&args[0], &args[1])?,
                other => return exec_err!("no arithmetic for {other}"),
            },
        };
        Ok(ColumnarValue::Array(values))
    }
}

fn list(
    windows: &SlicedWindows,
    zone: Tz,
    time_type: &DataType,
    times: &Int64Array,
    watermarks: &Int64Array,
) -> Result<ArrayRef> {
    let (mut starts, mut ends, mut after, mut lengths) = (vec![], vec![], vec![], vec![]);
    for (time, watermark) in times.iter().zip(watermarks) {
        let before = starts.len();
        if let Some(time) = time {
            for (start, end) in windows_holding(windows, time) {
                if watermark.is_none_or(|watermark| watermark < end - 1) {
                    starts.push(local_ms(zone, start));
                    ends.push(local_ms(zone, end));
                    after.push(end);
                }
            }
        }
        lengths.push(starts.len() - before);
    }
    let lasts: TimestampMillisecondArray = after.iter().map(|end| Some(end - 1)).collect();
    let lasts = cast(&lasts.with_timezone("UTC"), time_type)?;
    let local = |values: Vec<i64>| Arc::new(TimestampMillisecondArray::from(values)) as ArrayRef;
    let fields = bounds(time_type);
    let after = Arc::new(Int64Array::from(after)) as ArrayRef;
    let rows = StructArray::try_new(fields.clone(), vec![local(starts), local(ends), lasts, after], None)?;
    let item = Arc::new(Field::new_list_field(DataType::Struct(fields), true));
    Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), Arc::new(rows), None)?))
}

/// First instant, and first instant after, of every window that holds a time. By the definition of windows: a stream
/// finds them by numbers of slices.
fn windows_holding(windows: &SlicedWindows, time: TimeMs) -> Vec<(TimeMs, TimeMs)> {
    let slices = windows.size;
    let (size, slide, grows) = match windows.run {
        Run::Slide(slide) => (slices, slide, false),
        Run::Grow => (slices, slices, true),
    };
    // Counts of units, and the instant at which a count begins.
    type Instant = Box<dyn Fn(i64) -> TimeMs>;
    let (unit, now, begin): (i64, i64, Instant) = match windows.axis {
        Axis::Fixed { slice_ms, offset_ms } => (slice_ms, time - offset_ms, Box::new(move |ms| ms + offset_ms)),
        Axis::Calendar { zone, unit, count, offset_ms } => {
            let clock = move |days: i64| instant_ms(zone, days.saturating_mul(DAY_MS).saturating_add(offset_ms));
            let today = (local_ms(zone, time) - offset_ms).div_euclid(DAY_MS);
            match unit {
                CalendarUnit::Day => (count, today, Box::new(clock)),
                CalendarUnit::Month => (count, month_of(today), Box::new(move |month| clock(first_day(month)))),
            }
        }
    };
    let (size, slide, step) = (size * unit, slide * unit, unit);
    let mut found = Vec::new();
    // Windows begin at multiples of the slide. Clocks that are set back may show a time once more: one more on each side.
    let (first, last) = ((now - size).div_euclid(slide) - 1, now.div_euclid(slide) + 1);
    for start in (first..=last).map(|k| k * slide) {
        let ends = if grows { (step..=size).step_by(step as usize).collect() } else { vec![size] };
        for end in ends {
            let (start, end) = (begin(start), begin(start + end));
            if start <= time && time < end {
                found.push((start, end));
            }
        }
    }
    found
}

const DAY_MS: i64 = 86_400_000;

/// Months since January of the year 0 at a day since 1970-01-01, by Hinnant's arithmetic of civil days.
fn month_of(day: i64) -> i64 {
    let z = day + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // March is month 0 of these years.
    let month = (5 * of_year + 2) / 153;
    (era * 400 + year) * 12 + month + 2
}

/// The day since 1970-01-01 on which such a month begins.
fn first_day(month: i64) -> i64 {
    let from_march = month - 2;
    let (year, month) = (from_march.div_euclid(12), from_march.rem_euclid(12));
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 - 719_468
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn windows_by_definition_are_windows_by_slices() {
        let mut rng = StdRng::seed_from_u64(17);
        let zones = [Tz::UTC, Tz::America__New_York, Tz::America__Sao_Paulo, Tz::Asia__Beirut, Tz::Pacific__Apia];
        for case in 0..4_000 {
            let (slide, count) = (rng.random_range(1..40_i64), rng.random_range(1..9_i64));
            let size = rng.random_range(1..90_i64);
            let offset_ms = rng.random_range(-200..200_i64);
            let zone = zones[case % zones.len()];
            let calendar =
                |unit| SlicedWindows::hop_calendar(zone, unit, slide % 5 + 1, size % 9 + 1, offset_ms * 100_000);
            let windows = match case % 5 {
                0 | 1 => SlicedWindows::hop_ms(slide, size, offset_ms),
                2 => SlicedWindows::cumulate_ms(slide, slide * count, offset_ms),
                3 => calendar(CalendarUnit::Day),
                _ => calendar(CalendarUnit::Month),
            };
            let is_fixed = matches!(windows.axis, Axis::Fixed { .. });
            let reach = if is_fixed { 500 } else { 3_000_000_000_000 };
            let time = rng.random_range(-reach..reach);
            let slice = windows.slice_of(time);
            let mut by_slices = Vec::new();
            let mut window = windows.first_window(slice);
            while window <= windows.last_window(slice) {
                by_slices.push(windows.bounds(window));
                window += windows.step();
            }
            assert_eq!(windows_holding(&windows, time), by_slices, "{windows:?} at {time}");
        }
    }

    #[test]
    fn months_begin_on_their_first_day() {
        for (month, day) in
            [(1970 * 12, 0), (1970 * 12 + 2, 59), (2012 * 12 + 2, 15_400), (1969 * 12 + 11, -31), (0, -719_528)]
        {
            assert_eq!((first_day(month), month_of(day), month_of(day - 1)), (day, month, month - 1));
        }
    }
}
