//! A scalar function as one row of a table, and what its kernels have in common.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{ScalarValue, exec_datafusion_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::sql::types::sql_type;

/// What an argument may be, and what it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string; becomes `Utf8`.
    Text,
    /// A whole number; becomes `Int64`.
    Int,
    /// Any number; becomes `Float64`.
    Float,
    /// A truth value.
    Bool,
    /// A timestamp as it is; a date or a string becomes `TIMESTAMP(3)`.
    Time,
    /// Bytes; becomes `Binary`.
    Bytes,
    /// Anything, as it is.
    Any,
}

impl Kind {
    /// What an argument of this type is turned into, if it can be.
    fn accept(self, data_type: &DataType) -> Option<DataType> {
        let accepted = match self {
            Kind::Text => data_type.is_string() || is_text_dictionary(data_type),
            Kind::Int => data_type.is_integer(),
            Kind::Float => data_type.is_numeric(),
            Kind::Bool => *data_type == DataType::Boolean,
            Kind::Bytes => matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView),
            Kind::Time => match data_type {
                DataType::Timestamp(..) => return Some(data_type.clone()),
                _ => data_type.is_string() || matches!(data_type, DataType::Date32 | DataType::Date64),
            },
            Kind::Any => return Some(data_type.clone()),
        };
        let target = match self {
            Kind::Text => DataType::Utf8,
            Kind::Int => DataType::Int64,
            Kind::Float => DataType::Float64,
            Kind::Bool => DataType::Boolean,
            Kind::Bytes => DataType::Binary,
            Kind::Time => DataType::Timestamp(TimeUnit::Millisecond, None),
            Kind::Any => data_type.clone(),
        };
        (accepted || *data_type == DataType::Null).then_some(target)
    }
}

fn is_text_dictionary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Dictionary(_, values) if values.is_string())
}

/// The arguments of one call over a batch, as columns of the batch's length.
pub(super) struct Call<'a> {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) rows: usize,
    pub(super) config: &'a Arc<ConfigOptions>,
}

impl Call<'_> {
    /// A column of strings.
    pub(super) fn text(&self, index: usize) -> Result<&StringArray> {
        self.columns[index].as_string_opt::<i32>().ok_or_else(|| internal(index, "a string"))
    }

    /// A column of whole numbers.
    pub(super) fn int(&self, index: usize) -> Result<&arrow::array::Int64Array> {
        self.columns[index].as_primitive_opt::<Int64Type>().ok_or_else(|| internal(index, "a whole number"))
    }
}

fn internal(index: usize, what: &str) -> DataFusionError {
    DataFusionError::Internal(format!("argument {index} was not made {what}"))
}

type Returns = fn(&[DataType]) -> Result<DataType>;
type Evaluate = fn(&Call) -> Result<ArrayRef>;
type Simplify = fn(Vec<Expr>) -> Result<ExprSimplifyResult>;

/// A scalar function.
#[derive(Clone, Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    /// How it is called, a colon, and what it gives.
    pub(super) about: &'static str,
    /// The lists of arguments that it takes.
    pub(super) takes: &'static [&'static [Kind]],
    /// Whether the last argument may be repeated.
    pub(super) variadic: bool,
    /// Arguments, by index, that must come to have one type.
    pub(super) alike: &'static [usize],
    pub(super) returns: Returns,
    pub(super) evaluate: Evaluate,
    /// How the planner may write the call differently.
    pub(super) simplify: Option<Simplify>,
    pub(super) signature: Signature,
}

impl Function {
    pub(super) fn new(
        name: &'static str,
        about: &'static str,
        takes: &'static [&'static [Kind]],
        returns: Returns,
        evaluate: Evaluate,
    ) -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { name, about, takes, variadic: false, alike: &[], returns, evaluate, simplify: None, signature }
    }

    fn usage(&self) -> &'static str {
        self.about.split_once(": ").map_or(self.about, |(usage, _)| usage)
    }

    fn accept(&self, takes: &[Kind], types: &[DataType]) -> Option<Vec<DataType>> {
        let fits = takes.len() == types.len() || (self.variadic && takes.len() < types.len());
        let kinds = takes.iter().chain(std::iter::repeat(takes.last()?));
        let accepted = types.iter().zip(kinds).map(|(data_type, kind)| kind.accept(data_type));
        if fits { accepted.collect() } else { None }
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let Some(mut accepted) = self.takes.iter().find_map(|takes| self.accept(takes, types)) else {
            let types: Vec<_> = types.iter().map(sql_type).collect();
            return plan_err!("it is {}, not {}({})", self.usage(), self.name.to_uppercase(), types.join(", "));
        };
        let alike: Vec<DataType> = self.alike.iter().filter_map(|i| accepted.get(*i).cloned()).collect();
        if let Some(first) = alike.first()
            && alike.iter().any(|other| other != first)
        {
            let resolved = datafusion::logical_expr::type_coercion::binary::type_union_resolution(&alike);
            let Some(common) = resolved else {
                let types: Vec<_> = alike.iter().map(sql_type).collect();
                return plan_err!("{} needs values of one type, not {}", self.name.to_uppercase(), types.join(" and "));
            };
            for i in self.alike {
                if let Some(accepted) = accepted.get_mut(*i) {
                    accepted.clone_from(&common);
                }
            }
        }
        Ok(accepted)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        (self.returns)(types)
    }

    fn simplify(&self, args: Vec<Expr>, _context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match self.simplify {
            Some(simplify) => simplify(args),
            None => Ok(ExprSimplifyResult::Original(args)),
        }
    }

    fn short_circuits(&self) -> bool {
        self.simplify.is_some()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<_>>()?;
        let call = Call { columns, rows, config: &args.config_options };
        let result = (self.evaluate)(&call)?;
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

/// The types that functions give.
pub(super) mod gives {
    use super::{DataType, Result, TimeUnit};

    pub(in super::super) fn text(_: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    pub(in super::super) fn int(_: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    pub(in super::super) fn bigint(_: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    pub(in super::super) fn boolean(_: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    pub(in super::super) fn bytes(_: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    pub(in super::super) fn date(_: &[DataType]) -> Result<DataType> {
        Ok(DataType::Date32)
    }

    pub(in super::super) fn timestamp(_: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Millisecond, None))
    }

    pub(in super::super) fn timestamp_ltz(_: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Millisecond, Some(crate::sql::types::TIME_ZONE.into())))
    }
}

/// The type of an argument, which a call that was accepted has.
pub(super) fn type_at(types: &[DataType], index: usize) -> Result<DataType> {
    types.get(index).cloned().ok_or_else(|| exec_datafusion_err!("argument {index} is missing"))
}

/// What a function of DataFusion's gives for the columns of a call.
pub(super) fn delegate(call: &Call, function: &ScalarUDF) -> Result<ArrayRef> {
    let types: Vec<DataType> = call.columns.iter().map(|column| column.data_type().clone()).collect();
    let result_type = function.return_type(&types)?;
    let result = function.invoke_with_args(ScalarFunctionArgs {
        args: call.columns.iter().cloned().map(ColumnarValue::Array).collect(),
        arg_fields: types.into_iter().map(|data_type| Arc::new(Field::new("argument", data_type, true))).collect(),
        number_rows: call.rows,
        return_field: Arc::new(Field::new("result", result_type, true)),
        config_options: Arc::clone(call.config),
    })?;
    result.to_array(call.rows)
}

/// A column of strings, one per row: each is written to the buffer, and is `NULL` when `write` says `false`.
pub(super) fn build_text(rows: usize, mut write: impl FnMut(usize, &mut String) -> Result<bool>) -> Result<ArrayRef> {
    let mut builder = StringBuilder::with_capacity(rows, rows * 16);
    let mut buffer = String::new();
    for row in 0..rows {
        buffer.clear();
        match write(row, &mut buffer)? {
            true => builder.append_value(&buffer),
            false => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

/// What was made from the last text, for arguments that are mostly the same in each row: patterns, paths.
pub(super) struct Cached<T> {
    text: String,
    made: Option<T>,
}

impl<T> Cached<T> {
    pub(super) fn new() -> Self {
        Self { text: String::new(), made: None }
    }

    /// What `make` makes of the text.
    pub(super) fn get(&mut self, text: &str, make: impl FnOnce(&str) -> Result<T>) -> Result<&T> {
        if self.made.is_none() || self.text != text {
            self.made = Some(make(text)?);
            text.clone_into(&mut self.text);
        }
        self.made.as_ref().ok_or_else(|| DataFusionError::Internal("a cache is empty after it was filled".into()))
    }
}
