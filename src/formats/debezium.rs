//! Changes as Debezium writes them: one JSON object per change, with the row before or after it.
//!
//! ```text
//! {"before":null,"after":{"k":"a","n":1},"op":"c"}    a row is there: +I, +U
//! {"before":{"k":"a","n":1},"after":null,"op":"d"}    a row is gone: -U, -D
//! ```
//!
//! As in Flink, a change is two records, what was and what is: the sink has no way to bring the two together.

use arrow::array::{Int8Array, RecordBatch};
use arrow::datatypes::Schema;

use super::{Encoded, JsonEncoder, JsonOptions, RowEncoder};
use crate::change::RowKind;
use crate::error::Result;

/// Writes changes.
pub struct DebeziumEncoder {
    rows: JsonEncoder,
    /// What stands around a row that is there.
    there: (&'static str, &'static str),
    /// What stands around a row that is gone.
    gone: (&'static str, &'static str),
}

impl DebeziumEncoder {
    /// An encoder for batches of the given schema.
    pub fn new(schema: &Schema, options: JsonOptions) -> Result<Self> {
        let (there, gone) = match options.ignore_null_fields {
            true => ((r#"{"after":"#, r#","op":"c"}"#), (r#"{"before":"#, r#","op":"d"}"#)),
            false => ((r#"{"before":null,"after":"#, r#","op":"c"}"#), (r#"{"before":"#, r#","after":null,"op":"d"}"#)),
        };
        Ok(Self { rows: JsonEncoder::new(schema, options)?, there, gone })
    }
}

impl RowEncoder for DebeziumEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Encoded) -> Result<()> {
        self.rows.encode_between(batch, |_| self.there, out)
    }

    fn encode_changes(&mut self, batch: &RecordBatch, kinds: &Int8Array, out: &mut Encoded) -> Result<()> {
        let around = |row: usize| match RowKind::of(kinds.value(row)) {
            RowKind::Insert | RowKind::UpdateAfter => self.there,
            RowKind::UpdateBefore | RowKind::Delete => self.gone,
        };
        self.rows.encode_between(batch, around, out)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;
    use crate::catalog::options::Options;
    use crate::formats::Format;

    /// Two columns, the four kinds; the second row's `n` is null.
    fn check(options: &[(&str, &str)], has_kinds: bool, want: [&str; 4]) {
        let columns: [(&str, ArrayRef); 2] = [
            ("k", Arc::new(StringArray::from(vec!["a", "b", "c", "d"]))),
            ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let options = Options::from_pairs(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let format = Format::from_options("debezium-json", &options, "").unwrap();
        let (mut encoder, mut out) = (format.encoder(&batch.schema()).unwrap(), Encoded::default());
        let kinds = [RowKind::Insert, RowKind::UpdateBefore, RowKind::UpdateAfter, RowKind::Delete];
        match has_kinds {
            true => encoder.encode_changes(&batch, &kinds.map(|k| k as i8).to_vec().into(), &mut out).unwrap(),
            false => encoder.encode(&batch, &mut out).unwrap(),
        }
        assert_eq!([0, 1, 2, 3].map(|i| std::str::from_utf8(out.row(i).unwrap()).unwrap()), want);
    }

    #[test]
    fn a_change_holds_the_row_before_or_after() {
        let (a, c) = (
            r#"{"before":null,"after":{"k":"a","n":1},"op":"c"}"#,
            r#"{"before":null,"after":{"k":"c","n":3},"op":"c"}"#,
        );
        check(
            &[],
            true,
            [
                a,
                r#"{"before":{"k":"b","n":null},"after":null,"op":"d"}"#,
                c,
                r#"{"before":{"k":"d","n":4},"after":null,"op":"d"}"#,
            ],
        );
        check(
            &[],
            false,
            [
                a,
                r#"{"before":null,"after":{"k":"b","n":null},"op":"c"}"#,
                c,
                r#"{"before":null,"after":{"k":"d","n":4},"op":"c"}"#,
            ],
        );
        check(
            &[("debezium-json.encode.ignore-null-fields", "true")],
            true,
            [
                r#"{"after":{"k":"a","n":1},"op":"c"}"#,
                r#"{"before":{"k":"b"},"op":"d"}"#,
                r#"{"after":{"k":"c","n":3},"op":"c"}"#,
                r#"{"before":{"k":"d","n":4},"op":"d"}"#,
            ],
        );
    }
}
