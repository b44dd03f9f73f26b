//! When aggregates give out rows: what `EMIT` and the allowed lateness ask for, handed to the aggregates it is about.
//!
//! Those are the last ones of the query, with no aggregate above them. Their results become a changelog, which may only
//! pass through what works row by row; what needs final rows is refused here.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Extension, LogicalPlan};

use super::aggregate::WindowAggregate;
use super::refusal::{Refusal, refuse};
use super::stream::Emission;
use crate::sql::statement::Emit;

/// What a query says, for people to read.
fn said(emission: Emission) -> &'static str {
    match emission.emit {
        Emit::OnUpdate => "EMIT ON UPDATE",
        Emit::EveryMs(_) => "EMIT EVERY",
        Emit::OnWindowClose => "'table.exec.emit.allow-lateness'",
    }
}

/// How to do without.
fn without(emission: Emission) -> &'static str {
    match emission.emit {
        Emit::OnWindowClose => "RESET 'table.exec.emit.allow-lateness'",
        _ => "leave EMIT out: each window then gives its rows once, when it closes",
    }
}

/// `EMIT` in a query whose rows are not those of an aggregate per window.
pub(super) fn nothing_to_emit(emission: Emission) -> Refusal {
    refuse(format!("{} is about aggregates per window, and this query has none", said(emission)))
        .hint("leave EMIT out: rows are passed on as they come")
}

/// Tells the last aggregates of a plan when to give out rows.
pub(super) fn tell_last_aggregates(plan: LogicalPlan, emission: Emission) -> Result<LogicalPlan> {
    if !emission.is_changelog() {
        return Ok(plan);
    }
    let told = tell(plan, emission)?;
    // The lateness is a setting, which queries without windows share.
    if !told.transformed && emission.emit != Emit::OnWindowClose {
        return nothing_to_emit(emission).into();
    }
    Ok(told.data)
}

fn tell(plan: LogicalPlan, emission: Emission) -> Result<Transformed<LogicalPlan>> {
    match &plan {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Union(_) => {
            let mut any = false;
            let told = plan.map_children(|child| {
                let told = tell(child, emission)?;
                any |= told.transformed;
                Ok(told)
            })?;
            Ok(if any { Transformed::yes(told.data) } else { Transformed::no(told.data) })
        }
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<WindowAggregate>() {
            Some(aggregate) => {
                check(aggregate, emission)?;
                let node = Arc::new(aggregate.emitting(emission));
                Ok(Transformed::yes(LogicalPlan::Extension(Extension { node })))
            }
            None if aggregates(&plan)? => refuse(format!(
                "{} makes the aggregate's rows a changelog, and a join, windows or OVER above it need final rows",
                said(emission)
            ))
            .hint(without(emission))
            .into(),
            None => Ok(Transformed::no(plan)),
        },
        _ => Ok(Transformed::no(plan)),
    }
}

fn check(aggregate: &WindowAggregate, emission: Emission) -> Result<()> {
    if aggregate.windows.sliced().is_none() {
        return refuse(format!("{} is not available for SESSION windows", said(emission)))
            .hint(without(emission))
            .into();
    }
    if emission.lateness_ms > 0 && aggregates(&aggregate.input)? {
        return refuse(
            "'table.exec.emit.allow-lateness' corrects rows of closed windows, and an aggregate of this query feeds another \
             one, which needs final rows",
        )
        .hint("RESET 'table.exec.emit.allow-lateness', or write the inner aggregate to a table and read that")
        .into();
    }
    Ok(())
}

/// Whether there is an aggregate in a plan.
fn aggregates(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Extension(e) if e.node.as_any().is::<WindowAggregate>())))
}
