//! The scalar functions that Flink's SQL has and DataFusion has not, or has with another meaning.
//!
//! Everything else of DataFusion is there too; these are registered on top, and win. Each is one row of a table: name,
//! what it takes, what it gives, how it is computed over whole columns. They agree with Flink where Flink is
//! deterministic, and are stricter where it looks away: what cannot be computed is an error, except where Flink's own
//! documents say that the answer is `NULL` (a text that is no timestamp, JSON that does not parse).
//!
//! `PROCTIME()` and its kin, which depend on a clock, are not here, nor are `RAND` and `UUID`.

mod digest;
mod function;
mod java_time;
mod json;
mod logic;
mod text;
mod time;

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::{Expr, ScalarUDF};

use function::Function;

/// Functions of DataFusion's that only have another name in Flink: that name, DataFusion's, what it does.
const RENAMED: [(&str, &str, &str); 6] = [
    ("truncate", "trunc", "TRUNCATE(x [, n]): x cut to n decimals"),
    ("ceiling", "ceil", "CEILING(x): the smallest whole number that is not less"),
    ("sign", "signum", "SIGN(x): -1, 0 or 1"),
    ("startswith", "starts_with", "STARTSWITH(text, start): whether the text starts so"),
    ("endswith", "ends_with", "ENDSWITH(text, end): whether the text ends so"),
    ("lcase", "lower", "LCASE(text): in lower case"),
];

fn table() -> Vec<Function> {
    [digest::functions(), json::functions(), logic::functions(), text::functions(), time::functions()].concat()
}

/// The functions, to be registered after DataFusion's own.
pub fn flink_functions() -> Vec<Arc<ScalarUDF>> {
    let own = table().into_iter().map(|function| Arc::new(ScalarUDF::new_from_impl(function)));
    let all = datafusion::functions::all_default_functions();
    let renamed = RENAMED.iter().filter_map(|(name, of, _)| {
        let function = all.iter().find(|function| function.name() == *of)?;
        Some(Arc::new(function.as_ref().clone().with_aliases([*name])))
    });
    own.chain(renamed).collect()
}

/// The names of the functions, in lower case and sorted, each with a line that says how it is called and what it gives.
pub fn flink_function_list() -> Vec<(&'static str, &'static str)> {
    let table = table();
    let own = table.iter().map(|function| (function.name, function.about));
    let mut list: Vec<_> = own.chain(RENAMED.iter().map(|(name, _, about)| (*name, *about))).collect();
    list.sort_unstable();
    list
}

/// Gives `SUBSTRING(x FROM 1 FOR 2)`, which the parser knows as an operator, Flink's meaning. To be registered before
/// DataFusion's planners of expressions.
#[derive(Debug, Default, Clone, Copy)]
pub struct FlinkExpressions;

impl ExprPlanner for FlinkExpressions {
    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        let substring = Arc::new(ScalarUDF::new_from_impl(text::substring()));
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(substring, args))))
    }
}

#[cfg(test)]
mod tests;
