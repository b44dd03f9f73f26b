//! Our tables, views and functions as DataFusion's planner asks for them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono_tz::Tz;
use datafusion::common::{DFSchema, Result as PlanResult, TableReference, ToDFSchema};
use datafusion::config::ConfigOptions;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, ExprSchemable, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource,
    WindowUDF,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel};
use sqlparser::ast;

use super::clock_functions::clock_functions;
use super::functions::{FlinkExpressions, flink_functions};
use super::marks::{mark_event_time, mark_processing_time};
use super::refusal::{located, refuse};
use super::stream::Emission;
use super::windows::WindowFunctions;
use super::{aggregate, emission, legacy, optimize, syntax};
use crate::catalog::{Catalog, ColumnKind, Table, View};
use crate::error::{Error, Result};
use crate::sql::statement::{Emit, Query};
use crate::sql::types::FlinkTypes;

/// Every function there is, by lower-case name.
struct Functions {
    scalar: BTreeMap<String, Arc<ScalarUDF>>,
    higher_order: BTreeMap<String, Arc<HigherOrderUDF>>,
    aggregate: BTreeMap<String, Arc<AggregateUDF>>,
    window: BTreeMap<String, Arc<WindowUDF>>,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
    types: Arc<dyn TypePlanner>,
    config: Arc<ConfigOptions>,
}

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let mut scalar = BTreeMap::new();
    // Later ones win: Flink's meaning of a name before DataFusion's, and our clock before its.
    for function in
        SessionStateDefaults::default_scalar_functions().into_iter().chain(flink_functions()).chain(clock_functions())
    {
        for name in std::iter::once(function.name().to_owned()).chain(function.aliases().iter().cloned()) {
            scalar.insert(name.to_lowercase(), Arc::clone(&function));
        }
    }
    // Their values would differ from run to run.
    for name in ["random", "rand", "uuid"] {
        scalar.remove(name);
    }
    let mut aggregate = BTreeMap::new();
    for function in SessionStateDefaults::default_aggregate_functions() {
        for name in std::iter::once(function.name().to_owned()).chain(function.aliases().iter().cloned()) {
            aggregate.insert(name.to_lowercase(), Arc::clone(&function));
        }
    }
    for (flink, ours) in
        [("listagg", "string_agg"), ("collect", "array_agg"), ("approx_count_distinct", "approx_distinct")]
    {
        if let Some(function) = aggregate.get(ours).cloned() {
            aggregate.insert(flink.to_owned(), function);
        }
    }
    let mut config = ConfigOptions::new();
    config.sql_parser.enable_ident_normalization = false;
    config.sql_parser.map_string_types_to_utf8view = false;
    config.sql_parser.collect_spans = true;
    config.optimizer.enable_dynamic_filter_pushdown = false;
    Functions {
        scalar,
        higher_order: SessionStateDefaults::default_higher_order_functions()
            .into_iter()
            .map(|f| (f.name().to_owned(), f))
            .collect(),
        aggregate,
        window: SessionStateDefaults::default_window_functions()
            .into_iter()
            .map(|f| (f.name().to_owned(), f))
            .collect(),
        // Ours come first: they know Flink's meaning of what DataFusion also plans.
        expr_planners: std::iter::once(Arc::new(FlinkExpressions) as Arc<dyn ExprPlanner>)
            .chain(SessionStateDefaults::default_expr_planners())
            .collect(),
        types: Arc::new(FlinkTypes),
        config: Arc::new(config),
    }
});

/// What a session says about planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanSettings {
    /// Windows of days are those of this zone, and windows over instants are shown on its clocks.
    pub zone: Tz,
    /// A window is kept for so long (ms of event time) after it has fired; a row late by less corrects it.
    pub allowed_lateness_ms: i64,
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self { zone: Tz::UTC, allowed_lateness_ms: 0 }
    }
}

/// Plans queries against a catalog.
pub struct Planner<'a> {
    catalog: &'a Catalog,
    settings: PlanSettings,
    /// The views being planned at this moment, to notice one that contains itself.
    views: RefCell<Vec<String>>,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
}

impl<'a> Planner<'a> {
    /// A planner over what exists, with the settings' defaults.
    pub fn new(catalog: &'a Catalog) -> Self {
        Self::with_settings(catalog, PlanSettings::default())
    }

    /// A planner over what exists.
    pub fn with_settings(catalog: &'a Catalog, settings: PlanSettings) -> Self {
        let windows = WindowFunctions { zone: settings.zone };
        Self { catalog, settings, views: RefCell::default(), relation_planners: vec![Arc::new(windows)] }
    }

    /// What the session says about planning.
    pub(super) fn settings(&self) -> PlanSettings {
        self.settings
    }

    /// The names of all scalar and aggregate functions.
    pub fn function_names() -> Vec<String> {
        FUNCTIONS.scalar.keys().chain(FUNCTIONS.aggregate.keys()).cloned().collect()
    }

    /// Whether an aggregate function has this name, in any case.
    pub(super) fn is_aggregate(name: &str) -> bool {
        FUNCTIONS.aggregate.contains_key(&name.to_lowercase())
    }

    pub(super) fn config() -> &'static Arc<ConfigOptions> {
        &FUNCTIONS.config
    }

    /// A query as a logical plan with all types resolved, not yet checked for being continuous.
    pub fn query(&self, query: &Query) -> Result<LogicalPlan> {
        let plan = self.plan_ast((*query.ast).clone()).map_err(|e| located(e, query))?;
        let plan = optimize::analyze(plan, Self::config()).map_err(|e| located(e, query))?;
        if query.emit != Emit::OnWindowClose && !aggregate::reads_stream(&plan)? {
            let refusal = emission::nothing_to_emit(Emission { emit: query.emit, lateness_ms: 0 });
            return Err(located(refusal.into(), query));
        }
        Ok(plan)
    }

    /// A view as a logical plan with all types resolved.
    pub fn view(&self, name: &str) -> Result<LogicalPlan> {
        let view = self.catalog.view(name).ok_or_else(|| self.catalog.unknown(name))?;
        Ok(optimize::analyze(self.view_plan(view)?, Self::config())?)
    }

    /// The plan of a query with every aggregate windowed, optimized: ready to be lowered.
    pub fn continuous(&self, plan: LogicalPlan, query: &Query) -> Result<LogicalPlan> {
        if !aggregate::reads_stream(&plan)? {
            return Ok(plan);
        }
        let plan = optimize::find_joins(plan, Self::config()).map_err(|e| located(e, query))?;
        let plan = aggregate::check_continuous(plan).map_err(|e| located(e, query))?;
        let emission = Emission { emit: query.emit, lateness_ms: self.settings.allowed_lateness_ms };
        let plan = emission::tell_last_aggregates(plan, emission).map_err(|e| located(e, query))?;
        optimize::optimize(plan, Self::config()).map_err(|e| located(e, query))
    }

    fn plan_ast(&self, mut query: ast::Query) -> PlanResult<LogicalPlan> {
        syntax::rewrite(&mut query)?;
        legacy::rewrite_group_windows(&mut query)?;
        self.sql_to_rel().sql_statement_to_plan(ast::Statement::Query(Box::new(query)))
    }

    fn sql_to_rel(&self) -> SqlToRel<'_, Self> {
        let options = ParserOptions::new()
            .with_enable_ident_normalization(false)
            .with_map_string_types_to_utf8view(false)
            // As in Flink: null is less than every value.
            .with_default_null_ordering(NullOrdering::NullsMin)
            .with_collect_spans(true);
        SqlToRel::new_with_options(self, options)
    }

    /// Gives computed columns their types, and checks the watermark's expression.
    pub fn resolve_table(&self, table: &mut Table) -> Result<()> {
        let base = base_schema(table);
        for i in 0..table.columns.len() {
            let ColumnKind::Computed(expr) = &table.columns[i].kind else { continue };
            let planned = self.expression(expr, &base).map_err(|e| in_column(e, &table.columns[i].name))?;
            let (_, field) = planned.to_field(&base)?;
            table.columns[i].data_type = field.data_type().clone();
            table.columns[i].not_null = !field.is_nullable();
        }
        if let Some(watermark) = &table.watermark {
            let full = table_schema(table).to_dfschema()?;
            let column = table.column(&watermark.column).map(|c| c.data_type.clone());
            if !matches!(column, Some(DataType::Timestamp(TimeUnit::Millisecond, _))) {
                return Err(Error::statement(format!(
                    "the event time {} must be a TIMESTAMP(3) or TIMESTAMP_LTZ(3)",
                    watermark.column
                ))
                .hint("declare it so, or compute one: ts AS TO_TIMESTAMP(text), ts AS TO_TIMESTAMP_LTZ(millis, 3)"));
            }
            let planned = self.expression(&watermark.expr, &full).map_err(|e| in_column(e, "WATERMARK"))?;
            if !matches!(planned.get_type(&full)?, DataType::Timestamp(..)) {
                return Err(Error::statement("the watermark's expression must be a timestamp")
                    .hint(format!("write WATERMARK FOR {0} AS {0} - INTERVAL '5' SECOND", watermark.column)));
            }
        }
        Ok(())
    }

    /// An expression over a schema, types resolved and constants folded.
    pub(super) fn expression(&self, expr: &ast::Expr, schema: &DFSchema) -> PlanResult<Expr> {
        let planned = self.sql_to_rel().sql_to_expr(expr.clone(), schema, &mut PlannerContext::new())?;
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(schema.clone()))
            .with_config_options(Arc::clone(Self::config()));
        let simplifier = ExprSimplifier::new(context.build());
        simplifier.simplify(simplifier.coerce(planned, schema)?)
    }

    fn view_plan(&self, view: &View) -> PlanResult<LogicalPlan> {
        if self.views.borrow().contains(&view.name) {
            return refuse(format!("the view {} contains itself", view.name)).into();
        }
        self.views.borrow_mut().push(view.name.clone());
        let plan = self.plan_ast((*view.query).clone());
        self.views.borrow_mut().pop();
        // Places in the view's text are none in that of whoever reads it.
        let plan = plan.map_err(|e| in_view(e, &view.name))?;
        if view.columns.is_empty() {
            return Ok(plan);
        }
        if view.columns.len() != plan.schema().fields().len() {
            let (named, given) = (view.columns.len(), plan.schema().fields().len());
            return refuse(format!("the view {} names {named} columns, its query gives {given}", view.name)).into();
        }
        let renamed: Vec<Expr> = plan
            .schema()
            .columns()
            .into_iter()
            .zip(&view.columns)
            .map(|(c, name)| Expr::Column(c).alias(name))
            .collect();
        LogicalPlanBuilder::from(plan).project(renamed)?.build()
    }
}

fn in_view(error: DataFusionError, view: &str) -> DataFusionError {
    let error = Error::from(error);
    if error.message.starts_with("the view ") {
        return DataFusionError::External(Box::new(error));
    }
    let message = format!("the view {view} cannot be read: {}", error.message);
    DataFusionError::External(Box::new(Error { message, span: None, ..error }))
}

fn in_column(error: DataFusionError, column: &str) -> Error {
    let error = Error::from(error);
    Error { message: format!("{column}: {}", error.message), ..error }
}

/// Everything but the computed columns.
pub(super) fn base_schema(table: &Table) -> DFSchema {
    let fields: Vec<Field> = table
        .columns
        .iter()
        .filter(|c| !matches!(c.kind, ColumnKind::Computed(_)))
        .map(|c| Field::new(&c.name, c.data_type.clone(), !c.not_null))
        .collect();
    DFSchema::from_unqualified_fields(fields.into(), HashMap::new()).expect("a table's column names are unique")
}

/// All columns, event time marked.
pub(super) fn table_schema(table: &Table) -> SchemaRef {
    let event_time = table.watermark.as_ref().map(|w| w.column.as_str());
    let fields: Vec<Field> = table
        .columns
        .iter()
        .map(|c| {
            let field = Field::new(&c.name, c.data_type.clone(), !c.not_null);
            match &c.kind {
                _ if Some(c.name.as_str()) == event_time => mark_event_time(field),
                ColumnKind::Computed(expr) if is_processing_time_call(expr) => mark_processing_time(field),
                _ => field,
            }
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// Whether an expression is `PROCTIME()`.
fn is_processing_time_call(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Function(function) => function.name.to_string().eq_ignore_ascii_case("PROCTIME"),
        ast::Expr::Nested(inner) => is_processing_time_call(inner),
        _ => false,
    }
}

/// A table of the catalog in a logical plan.
#[derive(Debug)]
pub struct ScannedTable {
    /// The table.
    pub table: Arc<Table>,
    schema: SchemaRef,
}

impl TableSource for ScannedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

struct PlannedView {
    plan: LogicalPlan,
    schema: SchemaRef,
}

impl TableSource for PlannedView {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

impl ContextProvider for Planner<'_> {
    fn get_table_source(&self, name: TableReference) -> PlanResult<Arc<dyn TableSource>> {
        let name = match &name {
            TableReference::Bare { table } => table.to_string(),
            // Flink scripts may name the default catalog and database.
            TableReference::Partial { schema, table } if &**schema == "default_database" => table.to_string(),
            TableReference::Full { catalog, schema, table }
                if &**catalog == "default_catalog" && &**schema == "default_database" =>
            {
                table.to_string()
            }
            other => other.to_string(),
        };
        if let Some(table) = self.catalog.table(&name) {
            return Ok(Arc::new(ScannedTable { schema: table_schema(table), table: Arc::new(table.clone()) }));
        }
        if let Some(view) = self.catalog.view(&name) {
            let plan = self.view_plan(view)?;
            let schema = Arc::new(plan.schema().as_arrow().clone());
            return Ok(Arc::new(PlannedView { plan, schema }));
        }
        Err(DataFusionError::External(Box::new(self.catalog.unknown(&name))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &FUNCTIONS.expr_planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::clone(&FUNCTIONS.types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        FUNCTIONS.scalar.get(&name.to_lowercase()).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        FUNCTIONS.higher_order.get(&name.to_lowercase()).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        FUNCTIONS.aggregate.get(&name.to_lowercase()).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        FUNCTIONS.window.get(&name.to_lowercase()).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &FUNCTIONS.config
    }

    fn udf_names(&self) -> Vec<String> {
        FUNCTIONS.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        FUNCTIONS.higher_order.keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        FUNCTIONS.aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        FUNCTIONS.window.keys().cloned().collect()
    }
}
