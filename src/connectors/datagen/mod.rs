//! Rows made up: Flink's `datagen`, deterministic.
//!
//! Every value is a pure function of the seed, the column and the row's number, so two runs give the same rows and a
//! run that goes on in the middle gives the same rest. The clock only limits the rate; and it places the times of
//! columns without a kind of their own near the present, as Flink does (`'event-time'` columns know no clock).
//!
//! ```text
//! 'connector' = 'datagen', 'number-of-rows' = '1000',
//! 'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '1000',
//! 'fields.ts.kind' = 'event-time', 'fields.ts.step' = '100 ms', 'fields.ts.disorder' = '2 s'
//! ```

// The rate, and the times near the present, are about the wall clock.
#![allow(clippy::disallowed_methods)]

mod generator;

use std::time::{Duration, Instant, SystemTime};

use generator::Generator;

use super::{PartitionId, PartitionPlan, Source, SourceColumn, SourceReader, SourceRows, SourceSpec};
use crate::catalog::ColumnKind;
use crate::catalog::options::invalid;
use crate::error::{Error, Result};
use crate::limits::BATCH_ROWS_MAX;

/// Rows in a second unless `'rows-per-second'` says otherwise, as in Flink.
const ROWS_PER_SECOND: i64 = 10_000;

/// The seed unless `'seed'` says otherwise.
const SEED: i64 = 42;

/// What a generator knows beside its own options.
#[derive(Clone, Copy)]
struct Setting {
    seed: u64,
    rows_per_second: i64,
    /// When the source was opened (ms).
    opened_ms: i64,
}

/// A table of made-up rows.
pub struct DatagenSource {
    spec: SourceSpec,
    setting: Setting,
    partitions: [PartitionPlan; 1],
}

impl DatagenSource {
    /// Checks the options.
    pub fn open(spec: SourceSpec) -> Result<Self> {
        let options = &spec.table.options;
        let rows_per_second = options.integer("rows-per-second")?.unwrap_or(ROWS_PER_SECOND);
        if rows_per_second < 1 {
            return Err(invalid("rows-per-second", &rows_per_second.to_string(), "a number above 0"));
        }
        let rows = options.integer("number-of-rows")?;
        if let Some(rows) = rows.filter(|n| *n < 0) {
            return Err(invalid("number-of-rows", &rows.to_string(), "a number, not negative"));
        }
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let setting = Setting {
            seed: options.integer("seed")?.unwrap_or(SEED).cast_unsigned(),
            rows_per_second,
            opened_ms: i64::try_from(since_epoch.as_millis()).unwrap_or(0),
        };
        if let Some(column) = spec.columns.iter().find_map(|c| match c {
            SourceColumn::Metadata { key, .. } => Some(key),
            SourceColumn::Physical(_) => None,
        }) {
            return Err(spec.no_metadata(column, &[]));
        }
        // Sequences end the table also when nobody asks for their column, and a mistake is one in any column.
        let all = spec.table.columns.iter().filter(|c| c.kind == ColumnKind::Physical);
        let generators = all.map(|c| Generator::new(&spec.table, c, setting)).collect::<Result<Vec<_>>>()?;
        let end = generators.iter().filter_map(Generator::rows_max).chain(rows).min();
        let start = spec.resume.iter().flatten().map(|r| r.start).next().unwrap_or(0);
        let partitions = [PartitionPlan {
            id: PartitionId { topic: spec.table.name.as_str().into(), partition: 0 },
            start,
            end,
            empty_at_start: end.is_some_and(|end| start >= end),
        }];
        Ok(Self { spec, setting, partitions })
    }
}

impl Source for DatagenSource {
    fn partitions(&self) -> &[PartitionPlan] {
        &self.partitions
    }

    fn reader(&self, share: &[usize]) -> Result<Box<dyn SourceReader>> {
        let table = &self.spec.table;
        let generator = |column: &SourceColumn| {
            let SourceColumn::Physical(name) = column else { return Err(Error::bug("a metadata column")) };
            let column = table.column(name).ok_or_else(|| Error::bug(format!("no column \"{name}\"")))?;
            Generator::new(table, column, self.setting)
        };
        Ok(Box::new(Reader {
            generators: self.spec.columns.iter().map(generator).collect::<Result<_>>()?,
            plan: self.partitions[0].clone(),
            next: self.partitions[0].start,
            rows_per_second: self.setting.rows_per_second,
            began: None,
            // Another worker may be given no share at all.
            told_end: share.is_empty(),
        }))
    }
}

struct Reader {
    generators: Vec<Generator>,
    plan: PartitionPlan,
    next: i64,
    rows_per_second: i64,
    /// When the first row was asked for.
    began: Option<Instant>,
    told_end: bool,
}

impl Reader {
    /// The number of the first row that is not due yet.
    fn due(&mut self) -> i64 {
        let elapsed = self.began.get_or_insert_with(Instant::now).elapsed().as_micros();
        let due = elapsed * self.rows_per_second.unsigned_abs() as u128 / 1_000_000;
        // The first row is due at once.
        self.plan.start.saturating_add(i64::try_from(due).unwrap_or(i64::MAX).saturating_add(1))
    }

    fn end(&self) -> i64 {
        self.plan.end.unwrap_or(i64::MAX)
    }
}

impl SourceReader for Reader {
    fn poll(&mut self, _: usize, rows_max: usize) -> Result<Option<SourceRows>> {
        if self.told_end {
            return Ok(None);
        }
        let due = self.due().min(self.end());
        let count = usize::try_from(due - self.next).unwrap_or(0).min(rows_max).min(BATCH_ROWS_MAX);
        if count == 0 && self.next < self.end() {
            return Ok(None);
        }
        let start = self.next;
        self.next += i64::try_from(count).unwrap_or(0);
        self.told_end = self.next >= self.end();
        let columns = self.generators.iter().map(|g| g.column(start, count)).collect::<Result<Vec<_>>>()?;
        Ok(Some(SourceRows {
            bytes: columns.iter().map(|c| c.get_array_memory_size() as u64).sum(),
            columns,
            offsets: (start..self.next).collect(),
            next_offset: self.next,
            records: count as u64,
            at_end: self.told_end,
            ..SourceRows::default()
        }))
    }

    fn wait(&mut self, wait: Duration) -> Result<()> {
        if self.told_end {
            std::thread::sleep(wait);
        } else if self.due() <= self.next {
            let interval = Duration::from_micros(1_000_000 / self.rows_per_second.unsigned_abs());
            // A batch now and then costs less than a wake-up per row.
            std::thread::sleep(wait.min(interval.max(Duration::from_millis(1))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::compute::concat;
    use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};

    use super::*;
    use crate::catalog::options::Options;
    use crate::catalog::{Column, Table};

    fn table(columns: &[(&str, DataType)], pairs: &[(&str, &str)]) -> Table {
        let column = |(name, data_type): &(&str, DataType)| Column {
            name: (*name).to_owned(),
            data_type: data_type.clone(),
            sql_type: String::new(),
            not_null: false,
            kind: ColumnKind::Physical,
            comment: None,
        };
        let pairs = pairs.iter().chain(&[("connector", "datagen"), ("rows-per-second", "1000000000")]);
        Table {
            name: "t".to_owned(),
            columns: columns.iter().map(column).collect(),
            watermark: None,
            primary_key: Vec::new(),
            options: Options::from_pairs(pairs.map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))),
            comment: None,
            temporary: false,
        }
    }

    /// All rows, read in batches of at most `rows_max`, from a row on.
    fn read(table: Table, rows_max: usize, start: i64) -> Vec<arrow::array::ArrayRef> {
        let mut spec = SourceSpec::all_columns(table);
        let open = DatagenSource::open(spec.clone()).unwrap();
        spec.resume = Some(vec![PartitionPlan { start, ..open.partitions()[0].clone() }]);
        let source = DatagenSource::open(spec).unwrap();
        let mut reader = source.reader(&[0]).unwrap();
        let mut batches = Vec::new();
        loop {
            if let Some(rows) = reader.poll(0, rows_max).unwrap() {
                assert_eq!(rows.columns[0].len(), rows.offsets.len());
                batches.push(rows.columns);
                if rows.at_end {
                    break;
                }
            }
        }
        (0..batches[0].len())
            .map(|i| concat(&batches.iter().map(|b| b[i].as_ref()).collect::<Vec<_>>()).unwrap())
            .collect()
    }

    #[test]
    fn values_depend_on_seed_field_and_row_alone() {
        let columns = [
            ("a", DataType::Int32),
            ("b", DataType::Utf8),
            ("c", DataType::Float64),
            ("d", DataType::Decimal128(10, 2)),
            ("e", DataType::Boolean),
            ("f", DataType::Binary),
            ("g", DataType::Timestamp(TimeUnit::Millisecond, None)),
            ("h", DataType::Date32),
            ("i", DataType::Int8),
        ];
        let options = [
            ("number-of-rows", "500"),
            ("fields.b.length", "5"),
            ("fields.c.null-rate", "0.5"),
            ("fields.g.kind", "event-time"),
            ("fields.h.max-past", "1 d"),
        ];
        let whole = read(table(&columns, &options), 1_000, 0);
        let cut = read(table(&columns, &options), 7, 0);
        let rest = read(table(&columns, &options), 1_000, 100);
        for i in (0..columns.len()).filter(|i| columns[*i].0 != "h") {
            assert_eq!(&whole[i], &cut[i], "{}", columns[i].0);
            assert_eq!(whole[i].slice(100, 400).as_ref(), rest[i].as_ref(), "{}", columns[i].0);
        }
        assert!((150..350).contains(&whole[2].null_count()));
    }

    #[test]
    fn sequences_and_bounds() {
        let columns = [("a", DataType::Int64), ("b", DataType::Int64)];
        let options = [
            ("fields.a.kind", "sequence"),
            ("fields.a.start", "5"),
            ("fields.a.end", "9"),
            ("fields.b.min", "-1"),
            ("fields.b.max", "1"),
        ];
        let rows = read(table(&columns, &options), 3, 0);
        assert_eq!(rows[0].as_primitive::<Int64Type>().values(), &[5, 6, 7, 8, 9]);
        assert!(rows[1].as_primitive::<Int64Type>().iter().all(|v| (-1..=1).contains(&v.unwrap())));
    }

    #[test]
    fn event_times_fall_back_no_further_than_the_disorder() {
        let columns = [("ts", DataType::Timestamp(TimeUnit::Millisecond, None))];
        let options = [
            ("number-of-rows", "1000"),
            ("fields.ts.kind", "event-time"),
            ("fields.ts.start", "2024-01-01 00:00:00"),
            ("fields.ts.step", "100 ms"),
            ("fields.ts.disorder", "2 s"),
        ];
        let rows = read(table(&columns, &options), 100, 0);
        let start = 1_704_067_200_000;
        let mut backwards = 0;
        let mut latest = i64::MIN;
        for (i, time) in rows[0].as_primitive::<TimestampMillisecondType>().values().iter().enumerate() {
            let nominal = start + 100 * i as i64;
            assert!((nominal - 2_000..=nominal).contains(time));
            backwards += i64::from(*time < latest);
            latest = latest.max(*time);
        }
        assert!(backwards > 100, "{backwards}");
    }

    #[test]
    fn mistakes_are_named() {
        for (columns, options, want) in [
            ([("a", DataType::Int64)], ("fields.a.kind", "sequense"), "'fields.a.kind' = 'sequense' is not valid"),
            ([("a", DataType::Int64)], ("fields.a.min", "x"), "'fields.a.min' = 'x' is not valid"),
            ([("a", DataType::Int64)], ("fields.a.kind", "sequence"), "the option 'fields.a.start' is missing"),
            ([("a", DataType::Utf8)], ("fields.a.length", "-1"), "'fields.a.length' = '-1' is not valid"),
            ([("a", DataType::Int8)], ("fields.a.max", "1000"), "'fields.a.max' = '1000' is not valid"),
            ([("a", DataType::Null)], ("fields.a.min", "1"), "datagen cannot make values of the type of column \"a\""),
        ] {
            let got = DatagenSource::open(SourceSpec::all_columns(table(&columns, &[options])));
            assert_eq!(got.err().map(|e| e.message).unwrap_or_default(), want);
        }
    }

    #[test]
    fn ids_are_of_the_table() {
        let source = DatagenSource::open(SourceSpec::all_columns(table(&[("a", DataType::Int64)], &[]))).unwrap();
        assert_eq!(source.partitions()[0].id, PartitionId { topic: Arc::from("t"), partition: 0 });
        assert_eq!(source.partitions()[0].end, None);
    }
}
