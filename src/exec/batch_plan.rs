//! Finite DataFusion plans, run again and again over other rows.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::context::SessionContext;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionConfig;

use crate::error::{Blame, Error, Result};

/// A finite plan. Planned once; each run takes the rows of its tables.
pub struct BatchPlan {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    tables: Vec<Arc<Rows>>,
    runtime: tokio::runtime::Runtime,
}

/// The rows of a table in the next run.
struct Rows {
    schema: SchemaRef,
    batches: Mutex<Vec<RecordBatch>>,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rows")
    }
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = std::mem::take(&mut *self.batches.lock().unwrap_or_else(PoisonError::into_inner));
        let stream = futures::stream::iter(batches.into_iter().map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
    }
}

impl BatchPlan {
    /// Prepares a plan that scans these tables, by their names.
    pub fn new(plan: &LogicalPlan, tables: &[(String, SchemaRef)]) -> Result<Self> {
        let rows: Vec<Arc<Rows>> = tables
            .iter()
            .map(|(_, schema)| Arc::new(Rows { schema: Arc::clone(schema), batches: Mutex::default() }))
            .collect();
        let plan = plan.clone().transform_up(|node| {
            let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
            if let Some(at) = tables.iter().position(|(name, _)| name == scan.table_name.table()) {
                let stream: Arc<dyn PartitionStream> = Arc::clone(&rows[at]) as _;
                scan.source =
                    provider_as_source(Arc::new(StreamingTable::try_new(Arc::clone(&tables[at].1), vec![stream])?));
            }
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        })?;
        // One thread runs it, whose worker it is; and a plan that is run again must not keep what it learnt of other rows.
        let mut config = SessionConfig::new().with_target_partitions(1);
        config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
        config.options_mut().sql_parser.enable_ident_normalization = false;
        let session = SessionContext::new_with_config(config);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|e| Error::new(Blame::Usage, format!("cannot start a thread: {e}")))?;
        let state = session.state();
        let physical = runtime.block_on(async {
            let optimized = state.optimize(&plan.data)?;
            state.query_planner().create_physical_plan(&optimized, &state).await
        })?;
        Ok(Self { plan: physical, context: session.task_ctx(), tables: rows, runtime })
    }

    /// The plan's rows, given those of its tables.
    pub fn run(&mut self, tables: Vec<Vec<RecordBatch>>) -> Result<Vec<RecordBatch>> {
        for (rows, batches) in self.tables.iter().zip(tables) {
            *rows.batches.lock().unwrap_or_else(PoisonError::into_inner) = batches;
        }
        // Metrics, hash tables and the like are those of one run.
        let plan = reset_plan_states(Arc::clone(&self.plan))?;
        Ok(self.runtime.block_on(collect(plan, Arc::clone(&self.context)))?)
    }
}
