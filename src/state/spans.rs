//! The first and the last event time of each group: what sessions are found by.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::Int64Type;

use crate::time::TimeMs;

/// Like an accumulator of a minimum and a maximum, but it can be read without being emptied.
#[derive(Default)]
pub(super) struct Spans {
    first: Vec<TimeMs>,
    last: Vec<TimeMs>,
    /// Groups that no row has come to, at most: they have been looked for.
    empty: usize,
}

impl Spans {
    /// Takes in the first and the last time of some rows of these groups, of so many.
    pub(super) fn merge(&mut self, ids: &[usize], first: &ArrayRef, last: &ArrayRef, groups: usize) {
        self.empty += groups - self.first.len();
        self.first.resize(groups, TimeMs::MAX);
        self.last.resize(groups, TimeMs::MIN);
        let first = first.as_primitive::<Int64Type>().values();
        let last = last.as_primitive::<Int64Type>().values();
        for ((&id, &first), &last) in ids.iter().zip(first).zip(last) {
            if self.first[id] == TimeMs::MAX {
                self.empty -= 1;
            }
            self.first[id] = self.first[id].min(first);
            self.last[id] = self.last[id].max(last);
        }
    }

    /// First and last time by group. A group without a row has the greatest and the least number.
    pub(super) fn of_groups(&self) -> (&[TimeMs], &[TimeMs]) {
        (&self.first, &self.last)
    }

    /// Which groups have rows, if not all.
    pub(super) fn with_rows(&self) -> Option<BooleanArray> {
        (0 < self.empty).then(|| self.first.iter().map(|first| Some(*first != TimeMs::MAX)).collect())
    }

    /// The columns; nothing is left.
    pub(super) fn take(&mut self) -> [ArrayRef; 2] {
        self.empty = 0;
        [&mut self.first, &mut self.last].map(|times| Arc::new(Int64Array::from(std::mem::take(times))) as ArrayRef)
    }

    pub(super) fn size_bytes(&self) -> usize {
        (self.first.capacity() + self.last.capacity()) * size_of::<TimeMs>()
    }
}
