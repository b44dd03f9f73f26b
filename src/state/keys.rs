//! The keys of groups: which group a row belongs to.
//!
//! Most queries group by one string, so that has an index of its own; whatever else keys are is DataFusion's. Its index of
//! strings keeps 32 bytes an entry and hashes all strings again when it grows; what is filled and emptied for every slice
//! of a sliding window grows all the time. Here a slot is eight bytes, a part of the hash and the group, so growing moves
//! numbers only, and a key of up to twelve bytes is compared as one number.
//!
//! Windows that overlap mostly have the keys of the one before, so what merges them sees the same arrays of keys again and
//! again: what a [scratch](Keys::scratch) table has given out stays in its index, and is not looked up when it comes back.

use std::collections::VecDeque;
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
    String(Box<StringKeys>),
    Other(Box<dyn GroupValues>),
}

impl Keys {
    pub(super) fn new(keys: &SchemaRef) -> Result<Self> {
        Ok(match keys.fields().iter().as_slice() {
            [] => Self::None,
            [key] if *key.data_type() == DataType::Utf8 => Self::String(Box::default()),
            _ => Self::Other(new_group_values(Arc::clone(keys), &GroupOrdering::None)?),
        })
    }

    /// The same, for tables that are filled and emptied again and again.
    pub(super) fn scratch(keys: &SchemaRef) -> Result<Self> {
        let mut this = Self::new(keys)?;
        if let Self::String(keys) = &mut this {
            keys.seen = Some(Seen::default());
        }
        Ok(this)
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
                Ok(keys.len())
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

/// More keys than these are not remembered.
const SEEN_KEYS_MAX: usize = 1 << 16;

/// Arrays whose groups are remembered.
const SEEN_ARRAYS: usize = 2;

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
    /// Of a scratch table.
    seen: Option<Seen>,
}

/// Arrays of keys that an index has seen.
#[derive(Default)]
struct Seen {
    /// All groups in their order, if that is an array which came or was given out.
    all: Option<StringArray>,
    /// Whether `all` was given out: there are no groups, and still they are in the index.
    is_given: bool,
    /// The arrays that came last, with the groups of their rows.
    others: VecDeque<(StringArray, Vec<usize>)>,
}

/// Whether it is one array, not only an equal one.
fn is_same(one: &StringArray, other: &StringArray) -> bool {
    one.len() == other.len() && one.to_data().ptr_eq(&other.to_data())
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

    fn len(&self) -> usize {
        let is_given = self.seen.as_ref().is_some_and(|seen| seen.is_given);
        if is_given { 0 } else { self.groups.len() }
    }

    fn intern(&mut self, keys: &StringArray, ids: &mut Vec<usize>) {
        ids.clear();
        match self.seen.take() {
            Some(mut seen) if !keys.is_empty() => {
                self.intern_seen(&mut seen, keys, ids);
                self.seen = Some(seen);
            }
            seen => {
                self.find_all(keys, ids);
                self.seen = seen;
            }
        }
    }

    fn intern_seen(&mut self, seen: &mut Seen, keys: &StringArray, ids: &mut Vec<usize>) {
        let is_given = std::mem::take(&mut seen.is_given);
        if seen.all.as_ref().is_some_and(|all| is_same(all, keys)) {
            return ids.extend(0..keys.len());
        }
        if is_given {
            *seen = Seen::default();
            self.clear();
        }
        if let Some((_, known)) = seen.others.iter().find(|(other, _)| is_same(other, keys)) {
            return ids.extend_from_slice(known);
        }
        let before = self.groups.len();
        if before == 0 {
            self.reserve(keys.len());
        }
        self.find_all(keys, ids);
        if before == 0 && self.groups.len() == keys.len() {
            seen.all = Some(keys.clone());
        } else if before < self.groups.len() {
            seen.all = None;
        }
        if seen.others.len() == SEEN_ARRAYS {
            seen.others.pop_front();
        }
        if keys.len() <= SEEN_KEYS_MAX {
            seen.others.push_back((keys.clone(), ids.clone()));
        }
    }

    /// Makes room for so many keys, all of which may be new.
    fn reserve(&mut self, keys: usize) {
        // Half as full as it may be: what comes next looks up more than it adds.
        let slots = (4 * keys).next_power_of_two().max(SLOTS_MIN);
        if self.slots.len() < slots {
            self.slots = vec![0; slots];
        }
        self.groups.reserve(keys);
    }

    fn find_all(&mut self, keys: &StringArray, ids: &mut Vec<usize>) {
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

    /// The keys, one per group; there are no groups afterwards.
    fn take(&mut self) -> Result<StringArray> {
        if self.len() == 0 {
            return Ok(StringArray::new_null(0));
        }
        let all = match self.seen.as_ref().and_then(|seen| seen.all.clone()) {
            Some(all) => all,
            None => self.to_array()?,
        };
        match &mut self.seen {
            Some(seen) if all.len() <= SEEN_KEYS_MAX => {
                seen.all = Some(all.clone());
                seen.is_given = true;
            }
            seen => {
                *seen = seen.take().map(|_| Seen::default());
                self.clear();
            }
        }
        Ok(all)
    }

    /// Empties the index. What it has grown to stays, if these groups needed it.
    fn clear(&mut self) {
        let groups = std::mem::take(&mut self.groups);
        self.long = Vec::new();
        self.null = None;
        if groups.len() < self.slots.len() / 16 {
            self.slots = Vec::new();
        } else {
            self.slots.fill(0);
        }
    }

    fn to_array(&self) -> Result<StringArray> {
        let Self { groups, long, null, .. } = self;
        let total: usize = groups.iter().map(|key| key.len()).sum();
        let overflow = || ArrowError::OffsetOverflowError(total);
        i32::try_from(total).map_err(|_| overflow())?;
        let mut offsets = Vec::with_capacity(groups.len() + 1);
        let mut bytes = Vec::with_capacity(total + 16);
        offsets.push(0);
        for key in groups {
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
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut keys = StringKeys { seen: rng.random::<bool>().then(Seen::default), ..StringKeys::default() };
            // What has come or was given out before, and may come again.
            let mut arrays: Vec<StringArray> = Vec::new();
            // Used again and again, as scratch is.
            for _ in 0..6 {
                let mut known: HashMap<Option<String>, usize> = HashMap::new();
                let distinct = rng.random_range(1..1_000);
                for _ in 0..rng.random_range(0..6) {
                    let key = |rng: &mut StdRng| match rng.random_range(0..distinct) {
                        0 => None,
                        n => Some(["", "é", "a key that is long, "][n % 3].repeat(n % 4) + &(n / 7).to_string()),
                    };
                    let rows: StringArray = match rng.random_range(0..4) {
                        0 if !arrays.is_empty() => arrays[rng.random_range(0..arrays.len())].clone(),
                        // No key comes twice, as in a partial.
                        1 => StringArray::from_iter_values(
                            (0..distinct).map(|n| "é".repeat(n % 7) + &(n / 7).to_string()),
                        ),
                        _ => (0..rng.random_range(0..700)).map(|_| key(&mut rng)).collect(),
                    };
                    // Of an array that begins in the middle of its bytes, and of one that ends with them.
                    let from = if rng.random() { 0 } else { rng.random_range(0..=rows.len()) };
                    let rows = rows.slice(from, rows.len() - from);
                    let mut ids = Vec::new();
                    keys.intern(&rows, &mut ids);
                    assert_eq!(ids.len(), rows.len());
                    for (row, id) in rows.iter().zip(ids) {
                        let next = known.len();
                        assert_eq!(*known.entry(row.map(str::to_owned)).or_insert(next), id, "seed {seed}: {row:?}");
                    }
                    assert_eq!(keys.len(), known.len(), "seed {seed}");
                    arrays.push(rows);
                }
                let taken = keys.take().unwrap();
                assert_eq!((taken.len(), keys.len()), (known.len(), 0), "seed {seed}");
                for (group, key) in taken.iter().enumerate() {
                    assert_eq!(known[&key.map(str::to_owned)], group, "seed {seed}: {key:?}");
                }
                arrays.push(taken);
            }
        }
    }
}
