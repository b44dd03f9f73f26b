//! `NOW()` and its kin: the clock of the boundary that opened the interval, never folded into the plan.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::marks::{PROCTIME, mark_processing_time};
use crate::exec::clock;

/// What a clock function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// An instant: `TIMESTAMP_LTZ(3)`.
    Instant,
    /// The time on the wall (UTC): `TIMESTAMP(3)`.
    Local,
    /// The day (UTC).
    Date,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ClockFunction {
    name: &'static str,
    aliases: Vec<String>,
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for ClockFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Instant => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Kind::Local => DataType::Timestamp(TimeUnit::Millisecond, None),
            Kind::Date => DataType::Date32,
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let field = Field::new(self.name, self.return_type(&types)?, true);
        Ok(Arc::new(if self.name == PROCTIME { mark_processing_time(field) } else { field }))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let now_ms = clock::now_ms();
        Ok(ColumnarValue::Scalar(match self.kind {
            Kind::Instant => ScalarValue::TimestampMillisecond(Some(now_ms), Some("UTC".into())),
            Kind::Local => ScalarValue::TimestampMillisecond(Some(now_ms), None),
            Kind::Date => ScalarValue::Date32(i32::try_from(now_ms.div_euclid(86_400_000)).ok()),
        }))
    }
}

/// All of them.
pub fn clock_functions() -> Vec<Arc<ScalarUDF>> {
    let function = |name, aliases: &[&str], kind| {
        Arc::new(ScalarUDF::new_from_impl(ClockFunction {
            name,
            aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
            kind,
            signature: Signature::nullary(Volatility::Volatile),
        }))
    };
    vec![
        function("now", &["current_timestamp", "current_row_timestamp"], Kind::Instant),
        function(PROCTIME, &[], Kind::Instant),
        function("localtimestamp", &[], Kind::Local),
        function("current_date", &["today"], Kind::Date),
    ]
}
