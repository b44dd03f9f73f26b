//! A changelog as the last state of each key: the records of `upsert-kafka`.
//!
//! A row that is there is a record, a row that is gone a record without a value. An update is one record, as the state
//! before it is overwritten anyway, unless the key itself has changed: then the old key's row is gone.
//!
//! ```text
//! -U (a, 1)  +U (a, 2)   a: 2
//! -U (a, 2)  +U (b, 2)   a: nothing, b: 2
//! -D (b, 2)              b: nothing
//! ```

use arrow::array::{Int8Array, UInt32Array};

use crate::change::RowKind;
use crate::formats::Encoded;

/// The records that come of a batch.
pub struct Upserts {
    /// The rows that are records.
    rows: UInt32Array,
    /// Which of the records say that a row is gone.
    gone: Vec<bool>,
}

impl Upserts {
    /// The records of rows with these kinds and keys.
    pub fn of(kinds: &Int8Array, keys: &Encoded) -> Self {
        let kind = |row: usize| RowKind::of(kinds.value(row));
        let (mut rows, mut gone) = (Vec::with_capacity(kinds.len()), Vec::with_capacity(kinds.len()));
        for row in 0..kinds.len() {
            let is_gone = match kind(row) {
                RowKind::Insert | RowKind::UpdateAfter => false,
                RowKind::Delete => true,
                RowKind::UpdateBefore => {
                    let next = row + 1;
                    let is_overwritten =
                        next < kinds.len() && kind(next) == RowKind::UpdateAfter && keys.row(row) == keys.row(next);
                    if is_overwritten {
                        continue;
                    }
                    true
                }
            };
            // A batch has far fewer rows than this can count.
            rows.push(u32::try_from(row).unwrap_or(u32::MAX));
            gone.push(is_gone);
        }
        Self { rows: rows.into(), gone }
    }

    /// The rows that are records, in their order.
    pub fn rows(&self) -> &UInt32Array {
        &self.rows
    }

    /// The keys of the records.
    pub fn keys(&self, of_rows: &Encoded) -> Encoded {
        let mut keys = Encoded::default();
        for &row in self.rows.values() {
            match of_rows.row(row as usize) {
                Some(key) => {
                    keys.bytes.extend_from_slice(key);
                    keys.end_row();
                }
                None => keys.push_null(),
            }
        }
        keys
    }

    /// Takes the value from the records whose row is gone.
    pub fn bury(&self, values: &mut Encoded) {
        if !self.gone.contains(&true) {
            return;
        }
        values.nulls.resize(values.len(), false);
        values.nulls.iter_mut().zip(&self.gone).for_each(|(null, gone)| *null |= gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(texts: impl Iterator<Item = char>) -> Encoded {
        let mut out = Encoded::default();
        for text in texts {
            out.bytes.extend(text.to_string().into_bytes());
            out.end_row();
        }
        out
    }

    /// Rows such as `+Ia1` to records such as `a1`, `a!` for one without a value.
    fn check(rows: &str, want: &str) {
        let rows: Vec<&str> = rows.split_whitespace().collect();
        let nth =
            |n: usize| encoded(rows.iter().map(|row| row.chars().nth(n).unwrap()).collect::<Vec<_>>().into_iter());
        let kind = |row: &&str| (0..4).find(|k| RowKind::of(*k).sign() == &row[..2]).unwrap();
        let (keys, all_values) = (nth(2), nth(3));
        let upserts = Upserts::of(&rows.iter().map(kind).collect::<Vec<i8>>().into(), &keys);
        let mut values = Upserts { rows: upserts.rows.clone(), gone: Vec::new() }.keys(&all_values);
        upserts.bury(&mut values);
        let keys = upserts.keys(&keys);
        let text = |bytes: Option<&[u8]>| bytes.map_or("!".to_owned(), |b| String::from_utf8(b.to_vec()).unwrap());
        let got: Vec<_> = (0..keys.len()).map(|i| text(keys.row(i)) + &text(values.row(i))).collect();
        assert_eq!(got.join(" "), want, "{rows:?}");
    }

    #[test]
    fn a_row_before_its_change_is_overwritten_and_other_rows_that_go_leave_nothing() {
        check("", "");
        check("+Ia1 +Ib1 +Ia2", "a1 b1 a2");
        check("+Ia1 -Ua1 +Ua2 -Ua2 +Ua3", "a1 a2 a3");
        check("-Ua1 +Ub1", "a! b1");
        check("-Ua1", "a!");
        check("-Ua1 +Ib1 +Ua2", "a! b1 a2");
        check("-Ua1 -Ub1 +Ub2 -Da1 +Ia3", "a! b2 a! a3");
    }
}
