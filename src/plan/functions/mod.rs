//! Flink's scalar functions.

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

/// None yet.
pub fn flink_functions() -> Vec<Arc<ScalarUDF>> {
    vec![]
}
