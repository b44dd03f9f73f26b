//! What the rows of a query have come to: of rows that only come, the last ones; of a changelog, the rows as they are now.
//!
//! A row that changes is found by its content, as it was before the change: a changelog always says that, and so it needs
//! no key. Memory is bounded: of a large result those rows are kept that have changed last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};

use crate::error::{Error, Result};

/// Of rows that only come, as many are kept: more than fit any screen.
const LAST_MAX: usize = 1_000;

/// Of a changelog, as many rows are kept.
const ROWS_MAX: usize = 10_000;

/// What the rows of a query have come to so far.
pub enum Materialized {
    /// The last rows.
    Last(Last),
    /// What changes have come to.
    Changed(Box<Changed>),
}

/// Rows as they are at one moment.
pub struct Snapshot {
    /// Those that are shown.
    pub rows: RecordBatch,
    /// All that there are, shown or not.
    pub count: u64,
}

impl Materialized {
    /// Nothing yet. `has_changes`: the first column says of each row what it is.
    pub fn new(schema: &SchemaRef, has_changes: bool) -> Result<Self> {
        Ok(if has_changes {
            Self::Changed(Box::new(Changed::new(schema)?))
        } else {
            Self::Last(Last { schema: schema.clone(), batches: VecDeque::new(), kept: 0, count: 0 })
        })
    }

    /// The columns that are shown.
    pub fn schema(&self) -> &SchemaRef {
        match self {
            Self::Last(last) => &last.schema,
            Self::Changed(changed) => &changed.schema,
        }
    }

    /// Takes rows.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Last(last) => last.add(batch),
            Self::Changed(changed) => changed.add(batch)?,
        }
        Ok(())
    }

    /// At most so many rows: the last ones, or those that have changed last in the order in which they first came.
    pub fn snapshot(&self, most: usize) -> Result<Snapshot> {
        match self {
            Self::Last(last) => last.snapshot(most),
            Self::Changed(changed) => changed.snapshot(most),
        }
    }
}

/// The last of rows that only come.
pub struct Last {
    schema: SchemaRef,
    batches: VecDeque<RecordBatch>,
    kept: usize,
    count: u64,
}

impl Last {
    fn add(&mut self, batch: &RecordBatch) {
        self.count += batch.num_rows() as u64;
        self.kept += batch.num_rows();
        self.batches.push_back(batch.clone());
        while let Some(first) = self.batches.front().filter(|first| LAST_MAX <= self.kept - first.num_rows()) {
            self.kept -= first.num_rows();
            self.batches.pop_front();
        }
    }

    fn snapshot(&self, most: usize) -> Result<Snapshot> {
        let mut skipped = self.kept.saturating_sub(most);
        let mut shown = Vec::new();
        for batch in &self.batches {
            let skip = skipped.min(batch.num_rows());
            skipped -= skip;
            shown.push(batch.slice(skip, batch.num_rows() - skip));
        }
        Ok(Snapshot { rows: concat_batches(&self.schema, &shown)?, count: self.count })
    }
}

/// What a changelog has come to.
pub struct Changed {
    /// The columns behind the kind.
    schema: SchemaRef,
    converter: RowConverter,
    /// Rows in the order in which they first came, by their places in it.
    rows: BTreeMap<u64, Row>,
    /// Where a content is. The same one may be there several times.
    places: BTreeSet<(Arc<[u8]>, u64)>,
    /// Rows and changes that have come.
    changes: u64,
    /// The place of a row whose change is half known: what it was has come, what it is has not.
    open: Option<u64>,
    /// Rows that are no longer kept.
    dropped: u64,
}

struct Row {
    content: Arc<[u8]>,
    /// When it last changed, in changes.
    changed: u64,
}

impl Changed {
    fn new(schema: &SchemaRef) -> Result<Self> {
        let schema = Arc::new(Schema::new(schema.fields().iter().skip(1).cloned().collect::<Vec<_>>()));
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self {
            converter: RowConverter::new(fields)?,
            schema,
            rows: BTreeMap::new(),
            places: BTreeSet::new(),
            changes: 0,
            open: None,
            dropped: 0,
        })
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let Some((kinds, columns)) = batch.columns().split_first() else {
            return Err(Error::bug("a changelog without the kinds of its rows"));
        };
        let contents = self.converter.convert_columns(columns)?;
        let mut new = Vec::new();
        for (kind, content) in kinds.as_string::<i32>().iter().zip(contents.iter()) {
            self.changes += 1;
            match kind {
                Some("-U") => self.open = self.remove(content.data()),
                Some("-D") => drop(self.remove(content.data())),
                _ => {
                    // A new row stands where the change that brought it does: behind all others.
                    let place = self.open.take().unwrap_or_else(|| {
                        new.push(self.changes);
                        self.changes
                    });
                    let content: Arc<[u8]> = content.data().into();
                    self.places.insert((Arc::clone(&content), place));
                    self.rows.insert(place, Row { content, changed: self.changes });
                }
            }
        }
        self.arrange(&new);
        if 2 * ROWS_MAX < self.rows.len() {
            self.forget();
        }
        Ok(())
    }

    /// Puts rows that have come together in the order of their values, for theirs is that of a hash table.
    fn arrange(&mut self, new: &[u64]) {
        let (places, mut rows): (Vec<u64>, Vec<Row>) =
            new.iter().filter_map(|place| Some((*place, self.rows.remove(place)?))).unzip();
        for (place, row) in places.iter().zip(&rows) {
            self.places.remove(&(Arc::clone(&row.content), *place));
        }
        rows.sort_by(|one, other| one.content.cmp(&other.content));
        for (place, row) in places.into_iter().zip(rows) {
            self.places.insert((Arc::clone(&row.content), place));
            self.rows.insert(place, row);
        }
    }

    /// Removes a row; answers its place.
    fn remove(&mut self, content: &[u8]) -> Option<u64> {
        let from: (Arc<[u8]>, u64) = (content.into(), 0);
        let found = self.places.range(from..).next().filter(|(found, _)| **found == *content)?.clone();
        self.places.remove(&found);
        self.rows.remove(&found.1);
        Some(found.1)
    }

    /// Lets go of rows that have not changed for longest.
    fn forget(&mut self) {
        let kept: BTreeSet<u64> = self.latest(ROWS_MAX).into_iter().collect();
        self.dropped += (self.rows.len() - kept.len()) as u64;
        self.rows.retain(|place, _| kept.contains(place));
        self.places.retain(|(_, place)| kept.contains(place));
    }

    /// The places of the rows that have changed last, in their order.
    fn latest(&self, most: usize) -> Vec<u64> {
        let mut rows: Vec<_> = self.rows.iter().map(|(place, row)| (row.changed, *place)).collect();
        if most < rows.len() {
            let older = rows.len() - most;
            rows.select_nth_unstable(older);
            rows.drain(..older);
        }
        let mut places: Vec<_> = rows.into_iter().map(|(_, place)| place).collect();
        places.sort_unstable();
        places
    }

    fn snapshot(&self, most: usize) -> Result<Snapshot> {
        let parser = self.converter.parser();
        let latest = self.latest(most);
        let contents = latest.iter().filter_map(|place| self.rows.get(place)).map(|row| parser.parse(&row.content));
        let rows = RecordBatch::try_new(self.schema.clone(), self.converter.convert_rows(contents)?)?;
        Ok(Snapshot { rows, count: self.rows.len() as u64 + self.dropped })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn changes(rows: &[(&str, &str, i64)]) -> RecordBatch {
        let kinds: StringArray = rows.iter().map(|row| Some(row.0)).collect();
        let names: StringArray = rows.iter().map(|row| Some(row.1)).collect();
        let numbers: Int64Array = rows.iter().map(|row| Some(row.2)).collect();
        let columns: [(&str, ArrayRef); 3] =
            [("op", Arc::new(kinds)), ("k", Arc::new(names)), ("n", Arc::new(numbers))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn shown(kept: &Materialized, most: usize) -> (Vec<(String, i64)>, u64) {
        let snapshot = kept.snapshot(most).unwrap();
        let names = snapshot.rows.column(0).as_string::<i32>().iter().flatten();
        let numbers = snapshot.rows.column(1).as_primitive::<Int64Type>().values();
        (names.map(str::to_owned).zip(numbers.iter().copied()).collect(), snapshot.count)
    }

    fn row(name: &str, number: i64) -> (String, i64) {
        (name.to_owned(), number)
    }

    #[test]
    fn changed_rows_stay_where_they_are() {
        let first = changes(&[("+I", "a", 1), ("+I", "b", 1), ("+I", "c", 1), ("-U", "a", 1)]);
        let mut kept = Materialized::new(&first.schema(), true).unwrap();
        kept.add(&first).unwrap();
        // The other half of a change may come with the next rows.
        kept.add(&changes(&[("+U", "a", 2), ("-D", "b", 1), ("-U", "c", 1), ("+U", "c", 5)])).unwrap();
        assert_eq!(shown(&kept, 9), (vec![row("a", 2), row("c", 5)], 2));
        assert_eq!(shown(&kept, 1), (vec![row("c", 5)], 2));
        kept.add(&changes(&[("+I", "b", 7), ("-U", "a", 2), ("+U", "a", 3)])).unwrap();
        assert_eq!(shown(&kept, 2), (vec![row("a", 3), row("b", 7)], 3));
    }

    #[test]
    fn rows_that_come_together_are_in_order() {
        let first = changes(&[("+I", "c", 1), ("+I", "a", 9), ("+I", "b", 1), ("-U", "a", 9), ("+U", "a", 8)]);
        let mut kept = Materialized::new(&first.schema(), true).unwrap();
        kept.add(&first).unwrap();
        kept.add(&changes(&[("+I", "a", 1), ("-D", "a", 8), ("-U", "b", 1), ("+U", "x", 1)])).unwrap();
        assert_eq!(shown(&kept, 9).0, [row("x", 1), row("c", 1), row("a", 1)]);
    }

    #[test]
    fn equal_rows_are_counted_one_by_one() {
        let twice = changes(&[("+I", "a", 1), ("+I", "a", 1), ("-D", "a", 1)]);
        let mut kept = Materialized::new(&twice.schema(), true).unwrap();
        kept.add(&twice).unwrap();
        assert_eq!(shown(&kept, 9), (vec![row("a", 1)], 1));
        // A row that was never told of takes nothing away.
        kept.add(&changes(&[("-D", "x", 1)])).unwrap();
        assert_eq!(shown(&kept, 9).1, 1);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: Vec<_> = (0..25_000).map(|n| ("+I", "k", n)).collect();
        let mut kept = Materialized::new(&changes(&[]).schema(), true).unwrap();
        for part in many.chunks(1_000) {
            kept.add(&changes(part)).unwrap();
        }
        let Materialized::Changed(changed) = &kept else { panic!("a changelog") };
        assert!(changed.rows.len() <= 2 * ROWS_MAX && changed.places.len() == changed.rows.len());
        assert_eq!(shown(&kept, 2), (vec![row("k", 24_998), row("k", 24_999)], 25_000));
        // Of a row that is not kept any more the change is a row.
        kept.add(&changes(&[("-U", "k", 0), ("+U", "k", -1)])).unwrap();
        assert_eq!(shown(&kept, 1).0, [row("k", -1)]);
    }

    #[test]
    fn of_rows_that_only_come_the_last_are_kept() {
        let batch = |from: i64| {
            let numbers: Int64Array = (from..from + 300).map(Some).collect();
            RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).unwrap()
        };
        let mut kept = Materialized::new(&batch(0).schema(), false).unwrap();
        assert_eq!(kept.snapshot(5).unwrap().rows.num_rows(), 0);
        for n in 0..10 {
            kept.add(&batch(n * 300)).unwrap();
        }
        let snapshot = kept.snapshot(350).unwrap();
        assert_eq!(snapshot.count, 3_000);
        let numbers = snapshot.rows.column(0).as_primitive::<Int64Type>();
        assert_eq!((numbers.len(), numbers.value(0), numbers.value(349)), (350, 2_650, 2_999));
        let Materialized::Last(last) = &kept else { panic!("rows that only come") };
        assert!(last.kept < LAST_MAX + 300 && last.batches.len() < 6);
    }
}
