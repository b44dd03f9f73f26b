//! Rows as tests write them: SQL literals, one row a line; what is missing and what was not expected.

use std::cmp::Ordering;
use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::Result;

/// A row: what is shown, and what is compared.
#[derive(Clone, Debug)]
pub struct Row {
    /// Each value as a literal.
    pub cells: Vec<String>,
    /// The same with fewer digits of floating point numbers: their last bits depend on the order of addition.
    key: Vec<String>,
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Row {}

/// Seconds, and as many digits of the fraction as there are.
const TIMESTAMP: &str = "%Y-%m-%d %H:%M:%S%.f";
const INSTANT: &str = "%Y-%m-%d %H:%M:%S%.fZ";

impl Row {
    /// The rows of a batch with these columns.
    pub fn of_columns(columns: &[ArrayRef], rows: usize) -> Result<Vec<Self>> {
        let row = |i: usize| {
            let cells = |digits| columns.iter().map(|c| literal(c, i, digits)).collect::<Result<Vec<_>>>();
            Ok(Self { cells: cells(Digits::All)?, key: cells(Digits::Certain)? })
        };
        (0..rows).map(row).collect()
    }

    /// The rows of a batch.
    pub fn of(batch: &RecordBatch) -> Result<Vec<Self>> {
        Self::of_columns(batch.columns(), batch.num_rows())
    }

    /// The same row with a value in front.
    #[must_use]
    pub fn behind(mut self, first: &str) -> Self {
        let first = quoted(first);
        self.cells.insert(0, first.clone());
        self.key.insert(0, first);
        self
    }

    fn compare(&self, other: &Self) -> Ordering {
        let of_cells = |(a, b): (&String, &String)| match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => a.total_cmp(&b),
            _ => a.cmp(b),
        };
        self.cells.iter().zip(&other.cells).map(of_cells).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    }
}

/// How many digits of a floating point number.
#[derive(Clone, Copy)]
enum Digits {
    All,
    Certain,
}

/// A value as a literal that gives the same value.
fn literal(array: &dyn Array, i: usize, digits: Digits) -> Result<String> {
    if array.is_null(i) {
        return Ok("NULL".to_owned());
    }
    let list = |values: &dyn Array| (0..values.len()).map(|i| literal(values, i, digits)).collect::<Result<Vec<_>>>();
    Ok(match array.data_type() {
        DataType::Boolean => if array.as_boolean().value(i) { "TRUE" } else { "FALSE" }.to_owned(),
        DataType::Float32 => float(f64::from(array.as_primitive::<Float32Type>().value(i)), plain(array, i)?, digits),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(i), plain(array, i)?, digits),
        // The least of them is no literal: the minus sign is an operator.
        DataType::Int64 if array.as_primitive::<arrow::datatypes::Int64Type>().value(i) == i64::MIN => {
            quoted(&plain(array, i)?)
        }
        t if t.is_integer() => plain(array, i)?,
        // A number with a point would be a floating point number on its way.
        DataType::Decimal128(precision, _) if *precision <= 15 => plain(array, i)?,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => format!("X'{}'", plain(array, i)?),
        DataType::List(_) => format!("ARRAY[{}]", list(&array.as_list::<i32>().value(i))?.join(", ")),
        DataType::Struct(_) => {
            let fields =
                array.as_struct().columns().iter().map(|c| literal(c, i, digits)).collect::<Result<Vec<_>>>()?;
            format!("ROW({})", fields.join(", "))
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(i);
            let (keys, values) = (list(entries.column(0))?, list(entries.column(1))?);
            let pairs: Vec<_> = keys.into_iter().zip(values).map(|(k, v)| format!("{k}, {v}")).collect();
            format!("MAP[{}]", pairs.join(", "))
        }
        _ => quoted(&plain(array, i)?),
    })
}

fn plain(array: &dyn Array, i: usize) -> Result<String> {
    let options = FormatOptions::default()
        .with_timestamp_format(Some(TIMESTAMP))
        .with_timestamp_tz_format(Some(INSTANT))
        .with_null("NULL");
    Ok(ArrayFormatter::try_new(array, &options)?.value(i).try_to_string()?)
}

fn float(value: f64, plain: String, digits: Digits) -> String {
    match digits {
        _ if !value.is_finite() => quoted(&plain),
        Digits::All => plain,
        // Zero has no sign here.
        Digits::Certain => format!("{:.10e}", if value == 0.0 { 0.0 } else { value }),
    }
}

/// A text as a literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Rows as the values of a `VALUES`, below one another and indented.
pub fn written<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<String> {
    let rows: Vec<&Row> = rows.into_iter().collect();
    let columns = rows.first().map_or(0, |row| row.cells.len());
    let width = |column: usize| rows.iter().map(|row| row.cells[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter()
        .map(|row| {
            let mut line = "(".to_owned();
            for (at, cell) in row.cells.iter().enumerate() {
                line.push_str(cell);
                if at + 1 < columns {
                    // Writing to a string cannot fail.
                    let _ = write!(line, ", {:pad$}", "", pad = widths[at] - cell.chars().count());
                }
            }
            line + ")"
        })
        .collect()
}

/// Rows in an order that does not depend on how they came about.
pub fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by(Row::compare);
    rows
}

/// How rows differ from what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In one sentence.
    pub title: String,
    /// Rows, each after a sign: ` ` as expected, `-` missing, `+` not expected.
    pub lines: Vec<String>,
}

/// Rows that are as expected are shown if all rows together are no more than so many.
const SHOWN_MAX: usize = 30;

/// Compares rows, as lists or as multisets; `None` if they are the same.
pub fn difference(expected: &[Row], found: &[Row], in_order: bool) -> Option<Difference> {
    let mut left: Vec<&Row> = found.iter().collect();
    let mut marked: Vec<(char, &Row)> = Vec::new();
    for row in expected {
        match left.iter().position(|other| *other == row) {
            Some(at) => {
                left.remove(at);
                marked.push((' ', row));
            }
            None => marked.push(('-', row)),
        }
    }
    let missing = marked.iter().filter(|(sign, _)| *sign == '-').count();
    let surplus = left.len();
    if missing + surplus == 0 {
        return (in_order && expected != found).then(|| Difference {
            title: "the rows come in another order".to_owned(),
            lines: written(found).into_iter().map(|line| format!("  {line}")).collect(),
        });
    }
    left.sort_by(|a, b| a.compare(b));
    marked.extend(left.into_iter().map(|row| ('+', row)));
    if SHOWN_MAX < marked.len() {
        marked.retain(|(sign, _)| *sign != ' ');
    }
    let are = |n: usize, what: &str| match n {
        0 => None,
        1 => Some(format!("1 row {what}")),
        n => Some(format!("{n} rows {what}")),
    };
    let parts: Vec<String> = [are(missing, "missing"), are(surplus, "not expected")].into_iter().flatten().collect();
    let signs: Vec<char> = marked.iter().map(|(sign, _)| *sign).collect();
    let lines = written(marked.into_iter().map(|(_, row)| row));
    let lines = signs.into_iter().zip(lines).map(|(sign, line)| format!("{sign} {line}")).collect();
    Some(Difference { title: parts.join(", "), lines })
}
