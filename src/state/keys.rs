//! The keys of groups: which group a row belongs to.
//!
//! Most queries group by one string, so that has an index of its own; whatever else keys are is DataFusion's. Its index of
//! strings keeps 32 bytes an entry and hashes all strings again when it grows; what is filled and emptied for every slice
//! of a sliding window grows all the time. Here a slot is eight bytes, a part of the hash and the group, so growing moves
//! numbers only, and a key of up to twelve bytes is compared as one number.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::hash_utils::RandomState;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use crate::error::Result;

/// Numbers groups by their keys, in the order in which they are first seen.
pub(super) enum Keys {
    /// Everything is one group.
    None,
    String(StringKeys),
    Other(Box<dyn GroupValues>),
}

impl Keys {
    pub(super) fn new(keys: &SchemaRef) -> Result<Self> {
        Ok(match keys.fields().iter().as_slice() {
            [] => Self::None,
            [key] if *key.data_type() == DataType::Utf8 => Self::String(StringKeys::default()),
            _ => Self::Other(new_group_values(Arc::clone(keys), &GroupOrdering::None)?),
        })
    }

    /// Bytes held.
    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::String(keys) => keys.size_bytes(),
            Self::Other(keys) => keys.size(),
        }
    }

    /// Puts the group of each row into `ids`; answers how many groups there are now.
    pub(super) fn intern(&mut self, rows: usize, columns: &[ArrayRef], ids: &mut Vec<usize>) -> Result<usize> {
        match self {
            Self::None => {
                ids.clear();
                ids.resize(rows, 0);
                Ok(usize::from(rows > 0))
            }
            Self::String(keys) => {
                keys.intern(columns[0].as_string(), ids);
                Ok(keys.groups.len())
            }
            Self::Other(keys) => {
                keys.intern(columns, ids)?;
                Ok(keys.len())
            }
        }
    }

    /// The columns of keys, a row per group; there are no groups afterwards.
    pub(super) fn take(&mut self) -> Result<Vec<ArrayRef>> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::String(keys) => Ok(vec![Arc::new(keys.take()?)]),
            Self::Other(keys) => {
                let columns = keys.emit(EmitTo::All)?;
                // Some kinds keep their index into the groups that have just been given out.
                keys.clear_shrink(0);
                Ok(columns)
            }
        }
    }
}

/// Keys up to this length are numbers.
const SHORT_MAX: usize = 12;

/// Slots of an index that has any.
const SLOTS_MIN: usize = 64;

/// The groups of strings.
#[derive(Default)]
pub(super) struct StringKeys {
    /// Open addressing: 0, or 32 bits of the hash above the group's number and one. Their count is a power of two, at
    /// least twice that of the groups.
    slots: Vec<u64>,
    /// Per group its key.
    groups: Vec<Key>,
    /// The bytes of long keys.
    long: Vec<u8>,
    /// The group of null.
    null: Option<usize>,
}

/// A key: its length in the lowest 32 bits; above them a short one's bytes, or a long one's first four bytes and then where
/// it begins.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key(u128);

impl Key {
    fn len(self) -> usize {
        self.0 as u32 as usize
    }

    fn is_short(self) -> bool {
        self.len() <= SHORT_MAX
    }

    /// Where a long one begins.
    fn start(self) -> usize {
        (self.0 >> 64) as usize
    }

    /// A short one, of bytes that begin a text.
    fn short(text: &[u8], len: usize) -> Self {
        let bytes = match text.first_chunk::<16>() {
            Some(more) => u128::from_le_bytes(*more) & ((1 << (8 * len)) - 1),
            None => {
                let mut bytes = [0; 16];
                bytes[..len].copy_from_slice(&text[..len]);
                u128::from_le_bytes(bytes)
            }
        };
        Self(bytes << 32 | len as u128)
    }

    fn long(text: &[u8], start: usize) -> Self {
        let first = text.first_chunk::<4>().map_or(0, |first| u32::from_le_bytes(*first));
        Self((start as u128) << 64 | u128::from(first) << 32 | text.len() as u128)
    }

    /// The upper half of its hash.
    fn tag(self, text: &[u8]) -> u32 {
        let hash = if self.is_short() {
            // Two words multiplied, and the product folded: each bit of them reaches all of the result's.
            let words = (self.0 as u64 ^ 0x9E37_79B9_7F4A_7C15, (self.0 >> 64) as u64 ^ 0xD1B5_4A32_D192_ED03);
            let product = u128::from(words.0) * u128::from(words.1);
            (product as u64) ^ (product >> 64) as u64
        } else {
            RandomState::with_seed(2).hash_one(text)
        };
        (hash.wrapping_mul(0xA24B_AED4_963E_E407) >> 32) as u32
    }
}

impl StringKeys {
    fn size_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u64>() + self.groups.capacity() * size_of::<Key>() + self.long.capacity()
    }

    fn intern(&mut self, keys: &StringArray, ids: &mut Vec<usize>) {
        ids.clear();
        ids.reserve(keys.len());
        let (offsets, bytes) = (keys.value_offsets(), keys.value_data());
        for row in 0..keys.len() {
            if keys.is_null(row) {
                let id = *self.null.get_or_insert_with(|| {
                    self.groups.push(Key(0));
                    self.groups.len() - 1
                });
                ids.push(id);
                continue;
            }
            let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
            ids.push(self.find(&bytes[start..], end - start));
        }
    }

    /// The group of the key of which so many bytes begin `text`.
    #[inline]
    fn find(&mut self, text: &[u8], len: usize) -> usize {
        if self.slots.len() <= 2 * self.groups.len() {
            self.grow();
        }
        let key = if len <= SHORT_MAX { Key::short(text, len) } else { Key::long(&text[..len], self.long.len()) };
        let tag = key.tag(&text[..len]);
        let mask = self.slots.len() - 1;
        let mut at = tag as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return self.add(at, tag, key, &text[..len]);
            }
            if (slot >> 32) as u32 == tag {
                let group = (slot as u32 - 1) as usize;
                if self.is_key(self.groups[group], key, &text[..len]) {
                    return group;
                }
            }
            at = (at + 1) & mask;
        }
    }

    fn is_key(&self, known: Key, key: Key, text: &[u8]) -> bool {
        if key.is_short() {
            return known == key;
        }
        known.0 as u64 == key.0 as u64 && &self.long[known.start()..][..text.len()] == text
    }

    fn add(&mut self, at: usize, tag: u32, key: Key, text: &[u8]) -> usize {
        let group = self.groups.len();
        let number = u32::try_from(group + 1).expect("fewer groups in a table than memory has room for");
        self.slots[at] = u64::from(tag) << 32 | u64::from(number);
        self.groups.push(key);
        if !key.is_short() {
            self.long.extend_from_slice(text);
        }
        group
    }

    #[cold]
    fn grow(&mut self) {
        let slots = (4 * self.groups.len()).next_power_of_two().max(SLOTS_MIN);
        let before = std::mem::replace(&mut self.slots, vec![0; slots]);
        for slot in before.into_iter().filter(|slot| *slot != 0) {
            let mut at = (slot >> 32) as usize & (slots - 1);
            while self.slots[at] != 0 {
                at = (at + 1) & (slots - 1);
            }
            self.slots[at] = slot;
        }
    }

    /// The keys, one per group. What the index has grown to stays, if these needed it.
    fn take(&mut self) -> Result<StringArray> {
        let groups = std::mem::take(&mut self.groups);
        let long = std::mem::take(&mut self.long);
        let null = self.null.take();
        if groups.len() < self.slots.len() / 16 {
            self.slots = Vec::new();
        } else {
            self.slots.fill(0);
        }
        let total: usize = groups.iter().map(|key| key.len()).sum();
        let overflow = || ArrowError::OffsetOverflowError(total);
        i32::try_from(total).map_err(|_| overflow())?;
        let mut offsets = Vec::with_capacity(groups.len() + 1);
        let mut bytes = Vec::with_capacity(total + 16);
        offsets.push(0);
        for key in &groups {
            let len = key.len();
            if key.is_short() {
                // All of the number and cut off: shorter than a copy of a length that is not known.
                let end = bytes.len() + len;
                bytes.extend_from_slice(&(key.0 >> 32).to_le_bytes());
                bytes.truncate(end);
            } else {
                bytes.extend_from_slice(&long[key.start()..][..len]);
            }
            offsets.push(bytes.len() as i32);
        }
        let nulls = null.map(|null| (0..groups.len()).map(|group| group != null).collect::<NullBuffer>());
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        Ok(StringArray::try_new(offsets, Buffer::from_vec(bytes), nulls)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn strings_get_the_numbers_of_their_groups() {
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut keys = StringKeys::default();
            // Used again and again, as scratch is.
            for _ in 0..4 {
                let mut known: HashMap<Option<String>, usize> = HashMap::new();
                let distinct = rng.random_range(1..3_000);
                for _ in 0..rng.random_range(1..6) {
                    let key = |rng: &mut StdRng| match rng.random_range(0..distinct) {
                        0 => None,
                        n => Some(["", "é", "a key that is long, "][n % 3].repeat(n % 4) + &(n / 7).to_string()),
                    };
                    let rows: Vec<_> = (0..rng.random_range(0..2_000)).map(|_| key(&mut rng)).collect();
                    // Of an array that begins in the middle of its bytes, and of one that ends with them.
                    let all = StringArray::from(rows.clone());
                    let from = rng.random_range(0..=rows.len());
                    let mut ids = Vec::new();
                    keys.intern(&all.slice(from, rows.len() - from), &mut ids);
                    for (row, id) in rows[from..].iter().zip(ids) {
                        let next = known.len();
                        assert_eq!(*known.entry(row.clone()).or_insert(next), id, "seed {seed}: {row:?}");
                    }
                }
                assert_eq!(keys.groups.len(), known.len());
                let taken = keys.take().unwrap();
                assert_eq!(taken.len(), known.len());
                for (group, key) in taken.iter().enumerate() {
                    assert_eq!(known[&key.map(str::to_owned)], group, "seed {seed}: {key:?}");
                }
            }
        }
    }
}
