//! The rules of DataFusion that keep a continuous plan's meaning, in DataFusion's order.
//!
//! Left out: what splits or removes aggregates and their keys, what gives `LIMIT` and `DISTINCT` a batch meaning, what
//! plans joins again (they are nodes of ours by then), and what deletes a source because nothing of it can pass a filter.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Analyzer, Optimizer, OptimizerContext};

use super::batch_functions::with_checked_constants;

/// Resolves types.
pub fn analyze(plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
    Analyzer::new().execute_and_check(plan, config, |_, _| {})
}

/// Makes joins of what SQL writes as conditions: `FROM a, b WHERE ..`, `x IN (SELECT ..)`, `EXISTS (..)`.
pub fn find_joins(plan: LogicalPlan, config: &Arc<ConfigOptions>) -> Result<LogicalPlan> {
    let rules = Optimizer::with_rules(vec![
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateCrossJoin::new()),
    ]);
    rules.optimize(plan, &context(config), |_, _| {})
}

/// Simplifies expressions, pushes filters and projections down.
pub fn optimize(plan: LogicalPlan, config: &Arc<ConfigOptions>) -> Result<LogicalPlan> {
    let rules = Optimizer::with_rules(vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(OptimizeProjections::new()),
    ]);
    rules.optimize(with_checked_constants(plan)?, &context(config), |_, _| {})
}

/// The clock is never folded into a plan.
fn context(config: &Arc<ConfigOptions>) -> OptimizerContext {
    OptimizerContext::new_with_config_options(Arc::clone(config)).without_query_execution_start_time()
}
