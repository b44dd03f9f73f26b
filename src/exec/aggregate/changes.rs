//! What has been given out of windows whose results may change, and what is new in a result.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{ArrayRef, Int8Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

use crate::change::RowKind;
use crate::error::{Error, Result};
use crate::state::{AggregateLayout, Fired};
use crate::time::WindowId;

/// The rows of a window as they were given out last: the aggregates' results by the groups' keys.
type Rows = HashMap<Box<[u8]>, Box<[u8]>>;

/// Bytes that an entry of a map costs beside what it points at, about.
const ENTRY_BYTES: usize = 2 * size_of::<Box<[u8]>>() + 8;

/// See the module's head.
pub(super) struct Given {
    keys: Encoder,
    values: Encoder,
    windows: BTreeMap<WindowId, Rows>,
    size_bytes: usize,
}

impl Given {
    /// Nothing yet.
    pub(super) fn new(layout: &AggregateLayout) -> Result<Self> {
        let keys = layout.keys().fields().iter().map(|f| f.data_type().clone());
        let values = layout.aggregates().iter().map(|a| a.field().data_type().clone());
        let (keys, values) = (Encoder::new(keys.collect())?, Encoder::new(values.collect())?);
        Ok(Self { keys, values, windows: BTreeMap::new(), size_bytes: 0 })
    }

    /// Takes a window's result: the rows that say what is new in it, and their kinds. A group that was given out before
    /// and has changed is a row as it was, directly followed by the row as it is; one that has not changed is none.
    pub(super) fn changes(&mut self, fired: &Fired) -> Result<(Fired, Int8Array)> {
        let (key_columns, value_columns) = fired.columns.split_at(self.keys.columns());
        let keys = self.keys.encode(key_columns, fired.rows)?;
        let values = self.values.encode(value_columns, fired.rows)?;
        let rows = self.windows.entry(fired.window).or_default();
        let (mut kinds, mut new_keys, mut new_values) = (Vec::new(), Vec::new(), Vec::new());
        let mut say = |kind: RowKind, key: &[u8], value: Box<[u8]>| {
            kinds.push(kind as i8);
            new_keys.push(Box::from(key));
            new_values.push(value);
        };
        for (key, value) in keys.into_iter().zip(values) {
            match rows.get_mut(&key) {
                Some(before) if *before == value => {}
                Some(before) => {
                    self.size_bytes = self.size_bytes + value.len() - before.len();
                    say(RowKind::UpdateBefore, &key, std::mem::replace(before, value.clone()));
                    say(RowKind::UpdateAfter, &key, value);
                }
                None => {
                    self.size_bytes += key.len() + value.len() + ENTRY_BYTES;
                    say(RowKind::Insert, &key, value.clone());
                    rows.insert(key, value);
                }
            }
        }
        let mut columns = self.keys.decode(&new_keys)?;
        columns.extend(self.values.decode(&new_values)?);
        Ok((Fired { window: fired.window, rows: kinds.len(), columns }, kinds.into()))
    }

    /// What was given out of each window from one on: the groups' keys, then the results.
    pub(super) fn windows_from(&self, first: WindowId) -> impl Iterator<Item = (WindowId, Result<RecordBatch>)> + '_ {
        let with_rows = self.windows.range(first..).filter(|(_, rows)| !rows.is_empty());
        with_rows.map(|(window, rows)| (*window, self.batch(rows)))
    }

    fn batch(&self, rows: &Rows) -> Result<RecordBatch> {
        let (keys, values): (Vec<_>, Vec<_>) = rows.iter().map(|(key, value)| (key.clone(), value.clone())).unzip();
        let mut columns = self.keys.decode(&keys)?;
        columns.extend(self.values.decode(&values)?);
        let named = columns.into_iter().enumerate().map(|(at, column)| (at.to_string(), column, true));
        Ok(RecordBatch::try_from_iter_with_nullable(named)?)
    }

    /// Forgets windows that give out nothing any more: those before this one.
    pub(super) fn forget_before(&mut self, window: WindowId) {
        while let Some(entry) = self.windows.first_entry() {
            if window <= *entry.key() {
                break;
            }
            let bytes: usize = entry.remove().iter().map(|(key, value)| key.len() + value.len() + ENTRY_BYTES).sum();
            self.size_bytes -= bytes;
        }
    }

    /// Bytes held, about.
    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

/// Rows of some columns as bytes, which are equal when the rows are. No columns are no bytes.
struct Encoder {
    columns: usize,
    converter: Option<RowConverter>,
}

impl Encoder {
    fn new(types: Vec<DataType>) -> Result<Self> {
        let columns = types.len();
        if types.is_empty() {
            return Ok(Self { columns, converter: None });
        }
        let fields: Vec<SortField> = types.iter().cloned().map(SortField::new).collect();
        if !RowConverter::supports_fields(&fields) {
            let list = types.iter().map(crate::sql::types::sql_type).collect::<Vec<_>>().join(", ");
            return Err(Error::statement(format!("rows that change cannot have these types: {list}"))
                .hint("leave EMIT out, or aggregate into simpler types"));
        }
        Ok(Self { columns, converter: Some(RowConverter::new(fields)?) })
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Box<[u8]>>> {
        match &self.converter {
            Some(converter) => Ok(converter.convert_columns(columns)?.iter().map(|row| row.as_ref().into()).collect()),
            None => Ok(vec![Box::default(); rows]),
        }
    }

    fn decode(&self, rows: &[Box<[u8]>]) -> Result<Vec<ArrayRef>> {
        match &self.converter {
            Some(converter) => {
                let parser = converter.parser();
                Ok(converter.convert_rows(rows.iter().map(|row| parser.parse(row)))?)
            }
            None => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{Field, Int64Type, Schema};
    use datafusion::functions_aggregate::count::count_udaf;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::Column;

    use super::*;
    use crate::state::Aggregate;

    #[test]
    fn only_what_is_new_is_said() {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true)]));
        let count = AggregateExprBuilder::new(count_udaf(), vec![Arc::new(Column::new("k", 0))]).schema(schema.clone());
        let count = Aggregate::new(Arc::new(count.alias("c").build().unwrap()), &schema).unwrap();
        let layout = AggregateLayout::new(vec![Arc::new(schema.field(0).clone())], vec![count]);
        let mut given = Given::new(&layout).unwrap();
        let mut say = |window: WindowId, groups: &[(Option<&str>, i64)]| {
            let keys: StringArray = groups.iter().map(|(key, _)| *key).collect();
            let counts: Int64Array = groups.iter().map(|(_, count)| Some(*count)).collect();
            let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(counts)];
            let (rows, kinds) = given.changes(&Fired { window, rows: groups.len(), columns }).unwrap();
            assert_eq!(rows.rows, kinds.len());
            let counts = rows.columns[1].as_primitive::<Int64Type>();
            let keys = rows.columns[0].as_string::<i32>();
            let text = |i: usize| {
                let sign = RowKind::of(kinds.value(i)).sign();
                format!("{sign} {} {}", keys.iter().nth(i).flatten().unwrap_or("NULL"), counts.value(i))
            };
            let texts: Vec<String> = (0..rows.rows).map(text).collect();
            if window == 9 {
                given.forget_before(9);
            }
            texts
        };
        assert_eq!(say(5, &[(Some("a"), 1), (None, 2)]), ["+I a 1", "+I NULL 2"]);
        assert_eq!(say(7, &[(Some("a"), 1)]), ["+I a 1"]);
        assert!(say(5, &[(Some("a"), 1), (None, 2)]).is_empty());
        assert_eq!(
            say(5, &[(None, 3), (Some("b"), 1), (Some("a"), 2)]),
            ["-U NULL 2", "+U NULL 3", "+I b 1", "-U a 1", "+U a 2"]
        );
        say(9, &[]);
        assert_eq!(say(7, &[(Some("a"), 1)]), ["+I a 1"], "what was forgotten is new");
        given.forget_before(WindowId::MAX);
        assert_eq!(given.size_bytes(), 0);
    }
}
