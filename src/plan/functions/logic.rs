//! `IF`, `MOD`, `GREATEST`, `LEAST`, and functions of collections.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::nullif::nullif;
use arrow::compute::kernels::numeric::rem;
use arrow::compute::{prep_null_mask_filter, take};
use arrow::datatypes::DataType;
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::simplify::ExprSimplifyResult;
use datafusion::logical_expr::{Expr, ScalarUDF, when};

use super::function::Kind::{Any, Bool};
use super::function::{Call, Function, delegate, gives, type_at};

/// Arguments that come to have one type where there may be many; DataFusion refuses those beyond that do not have it.
const ALL: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

pub(super) fn functions() -> Vec<Function> {
    let mut if_function = Function::new(
        "if",
        "IF(condition, a, b): a if the condition is true, else b",
        &[&[Bool, Any, Any]],
        |types| type_at(types, 1),
        evaluate_if,
    );
    if_function.alike = &[1, 2];
    if_function.simplify = Some(simplify_if);
    let mut modulo = Function::new(
        "mod",
        "MOD(a, b): the rest of a division, with the sign of a",
        &[&[Any, Any]],
        |types| match type_at(types, 0)? {
            number if number.is_numeric() => Ok(number),
            other => plan_err!("MOD takes numbers, not {}", crate::sql::types::sql_type(&other)),
        },
        |call| Ok(rem(&call.columns[0], &call.columns[1])?),
    );
    modulo.alike = &[0, 1];
    let extreme = |name, about, evaluate| {
        let mut function = Function::new(name, about, &[&[Any]], |types| type_at(types, 0), evaluate);
        function.variadic = true;
        function.alike = &ALL;
        function
    };
    vec![
        if_function,
        modulo,
        extreme("greatest", "GREATEST(a, b, ..): the greatest, NULL if one is", |call| {
            unless_null(call, &datafusion::functions::core::greatest())
        }),
        extreme("least", "LEAST(a, b, ..): the least, NULL if one is", |call| {
            unless_null(call, &datafusion::functions::core::least())
        }),
        Function::new(
            "cardinality",
            "CARDINALITY(array or map): the number of its elements",
            &[&[Any]],
            |types| collection(types, "CARDINALITY").and_then(|_| gives::int(types)),
            cardinality,
        ),
        Function::new(
            "element",
            "ELEMENT(array): its only element, NULL if it is empty; an error if there are more",
            &[&[Any]],
            |types| match collection(types, "ELEMENT")? {
                DataType::List(item) => Ok(item.data_type().clone()),
                _ => plan_err!("ELEMENT takes an array"),
            },
            element,
        ),
    ]
}

/// `CASE WHEN .. END` evaluates only the branch that counts.
fn simplify_if(args: Vec<Expr>) -> Result<ExprSimplifyResult> {
    match <[Expr; 3]>::try_from(args) {
        Ok([condition, yes, no]) => Ok(ExprSimplifyResult::Simplified(when(condition, yes).otherwise(no)?)),
        Err(args) => Ok(ExprSimplifyResult::Original(args)),
    }
}

fn evaluate_if(call: &Call) -> Result<ArrayRef> {
    let Some(condition) = call.columns[0].as_boolean_opt() else { return exec_err!("expected a truth value") };
    // NULL is not true.
    let condition = match condition.null_count() {
        0 => condition.clone(),
        _ => prep_null_mask_filter(condition),
    };
    Ok(arrow::compute::kernels::zip::zip(&condition, &call.columns[1], &call.columns[2])?)
}

/// What DataFusion's function gives, which passes over `NULL`s, but `NULL` where an argument is.
fn unless_null(call: &Call, function: &ScalarUDF) -> Result<ArrayRef> {
    let result = delegate(call, function)?;
    let nulls = call
        .columns
        .iter()
        .fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref()));
    match nulls {
        None => Ok(result),
        Some(nulls) => {
            let any_null: BooleanArray = nulls.iter().map(|is_valid| Some(!is_valid)).collect();
            Ok(nullif(&result, &any_null)?)
        }
    }
}

fn collection(types: &[DataType], name: &str) -> Result<DataType> {
    match type_at(types, 0)? {
        data_type @ (DataType::List(_) | DataType::Map(..)) => Ok(data_type),
        other => plan_err!("{name} takes an array or a map, not {}", crate::sql::types::sql_type(&other)),
    }
}

fn cardinality(call: &Call) -> Result<ArrayRef> {
    let column = &call.columns[0];
    let offsets = match column.data_type() {
        DataType::List(_) => column.as_list::<i32>().offsets(),
        DataType::Map(..) => column.as_map().offsets(),
        other => return exec_err!("expected an array or a map, not {other}"),
    };
    let lengths = offsets.lengths().map(|length| length as i32).collect();
    Ok(Arc::new(Int32Array::new(lengths, column.nulls().cloned())))
}

fn element(call: &Call) -> Result<ArrayRef> {
    let Some(lists) = call.columns[0].as_list_opt::<i32>() else { return exec_err!("expected an array") };
    let mut indexes = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let start = lists.value_offsets()[row];
        indexes.push(match (lists.is_valid(row), lists.value_length(row)) {
            (true, 1) => u32::try_from(start).ok(),
            (true, 2..) => return exec_err!("ELEMENT: an array has {} elements", lists.value_length(row)),
            _ => None,
        });
    }
    Ok(take(lists.values(), &UInt32Array::from(indexes), None)?)
}
