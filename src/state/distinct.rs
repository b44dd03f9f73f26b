//! `DISTINCT` for any aggregate: one set of (group, value) pairs, and the plain aggregate over the set at the end.
//!
//! The state of a group is the list of its distinct values, so partials merge by union.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StructArray, UInt64Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{filter, sort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, UInt64Type};
use datafusion::common::{Result, not_impl_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// See the module's head.
pub(super) struct DistinctAccumulator {
    plain: Box<dyn GroupsAccumulator>,
    /// The set: group id, then the values of the arguments.
    seen: Box<dyn GroupValues>,
    fields: Fields,
    groups: usize,
    ids: Vec<usize>,
}

impl DistinctAccumulator {
    /// `plain` is the aggregate without `DISTINCT`; `fields` are its arguments.
    pub(super) fn new(plain: Box<dyn GroupsAccumulator>, fields: &[FieldRef]) -> crate::error::Result<Self> {
        let fields: Fields = distinct_names(fields).into();
        let seen = Self::empty_set(&fields)?;
        Ok(Self { plain, seen, fields, groups: 0, ids: Vec::new() })
    }

    /// The state's only column.
    pub(super) fn state_field(name: &str, fields: &[FieldRef]) -> FieldRef {
        let item = DataType::Struct(distinct_names(fields).into());
        Arc::new(Field::new(format!("{name}[distinct]"), list_of(item), true))
    }

    fn empty_set(fields: &Fields) -> Result<Box<dyn GroupValues>> {
        let mut set = vec![Arc::new(Field::new("group", DataType::UInt64, false))];
        set.extend(fields.iter().cloned());
        new_group_values(Arc::new(Schema::new(set)), &GroupOrdering::None)
    }

    fn insert(&mut self, groups: ArrayRef, values: &[ArrayRef]) -> Result<()> {
        let mut columns = vec![groups];
        columns.extend(values.iter().cloned());
        self.seen.intern(&columns, &mut self.ids)
    }

    /// Empties the set: the group of each pair, and the values.
    fn drain(&mut self) -> Result<(ArrayRef, Vec<ArrayRef>)> {
        let mut columns = self.seen.emit(EmitTo::All)?;
        // Some kinds keep their index into the pairs that have just been given out.
        self.seen.clear_shrink(0);
        let values = columns.split_off(1);
        Ok((columns.remove(0), values))
    }

    fn lists(&self, groups: &ArrayRef, values: Vec<ArrayRef>, count: usize) -> Result<ArrayRef> {
        let order = sort_to_indices(groups, None, None)?;
        let groups = take(groups, &order, None)?;
        let values = values.iter().map(|v| take(v, &order, None)).collect::<Result<Vec<_>, _>>()?;
        let mut lengths = vec![0_usize; count];
        for &group in groups.as_primitive::<UInt64Type>().values() {
            lengths[group as usize] += 1;
        }
        let items = StructArray::try_new(self.fields.clone(), values, None)?;
        let item = Arc::new(Field::new_list_field(items.data_type().clone(), true));
        Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), Arc::new(items), None)?))
    }
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

/// Arguments may share a name (`count(DISTINCT a, a)`); the fields of a struct may not.
fn distinct_names(fields: &[FieldRef]) -> Vec<FieldRef> {
    let rename = |(i, f): (usize, &FieldRef)| Arc::new(Field::new(i.to_string(), f.data_type().clone(), true));
    fields.iter().enumerate().map(rename).collect()
}

fn only_all(emit_to: EmitTo) -> Result<()> {
    match emit_to {
        EmitTo::All => Ok(()),
        EmitTo::First(_) => not_impl_err!("a DISTINCT accumulator gives out all groups at once"),
    }
}

impl GroupsAccumulator for DistinctAccumulator {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups = self.groups.max(total_num_groups);
        let groups: ArrayRef = Arc::new(UInt64Array::from_iter_values(group_indices.iter().map(|&g| g as u64)));
        match opt_filter {
            None => self.insert(groups, values),
            Some(wanted) => {
                let groups = filter(&groups, wanted)?;
                let values = values.iter().map(|v| filter(v, wanted)).collect::<Result<Vec<_>, _>>()?;
                self.insert(groups, &values)
            }
        }
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        only_all(emit_to)?;
        let (groups, values) = self.drain()?;
        let groups: Vec<usize> = groups.as_primitive::<UInt64Type>().values().iter().map(|&g| g as usize).collect();
        // Without a filter, accumulators take every group for one that has values; a FILTER may have left some without.
        let all = BooleanArray::from(vec![true; groups.len()]);
        self.plain.update_batch(&values, &groups, Some(&all), self.groups)?;
        self.groups = 0;
        self.plain.evaluate(EmitTo::All)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        only_all(emit_to)?;
        let (groups, values) = self.drain()?;
        let count = std::mem::take(&mut self.groups);
        Ok(vec![self.lists(&groups, values, count)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.groups = self.groups.max(total_num_groups);
        let lists = values[0].as_list::<i32>();
        let mut groups = Vec::new();
        for (i, &group) in group_indices.iter().enumerate() {
            let length = if lists.is_null(i) { 0 } else { lists.value_length(i) };
            groups.extend(std::iter::repeat_n(group as u64, length as usize));
        }
        // A sliced list keeps the whole child; only the part between its first and last offset is meant.
        let offsets = lists.value_offsets();
        let (first, last) = (offsets[0] as usize, offsets[lists.len()] as usize);
        let items = lists.values().slice(first, last - first);
        let groups: ArrayRef = Arc::new(UInt64Array::from(groups));
        self.insert(groups, items.as_struct().columns())
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        not_impl_err!("partials are made by updating")
    }

    fn size(&self) -> usize {
        self.seen.size() + self.plain.size() + self.ids.capacity() * size_of::<usize>()
    }
}
