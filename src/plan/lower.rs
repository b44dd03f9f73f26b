//! From optimized logical plans to a stream plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ToDFSchema};
use datafusion::error::DataFusionError;
use datafusion::execution::context::ExecutionProps;
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, Sort};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::aggregate::{WindowAggregate, reads_stream};
use super::context::{Planner, ScannedTable, base_schema};
use super::marks::{column_behind, is_bound};
use super::per_window::{PerWindow, requalified};
use super::sink::check_takes_changes;
use super::stream::{
    AggregateNode, Hidden, Node, NodeId, Op, OutputColumn, PerWindowNode, SessionsNode, SinkNode, SourceNode, Step,
    StreamPlan, WindowsNode,
};
use super::windows::AssignWindows;
use crate::catalog::{ColumnKind, Table};
use crate::connectors::{Keep, OnError, Rejects, SourceColumn};
use crate::error::{Error, Result};
use crate::state::{Aggregate, AggregateLayout};
use crate::time::{SlicedWindows, WindowShape};

/// Functions whose value depends on the order of the rows.
const ORDERED: [&str; 6] = ["first_value", "last_value", "nth_value", "array_agg", "string_agg", "any_value"];

impl Planner<'_> {
    /// The stream plan of one job: each query, already continuous, with the sink it feeds. Tables are read once,
    /// however many queries read them.
    pub fn lower(&self, queries: Vec<(LogicalPlan, SinkNode)>) -> Result<StreamPlan> {
        let mut lowering = Lowering::over(self);
        lowering.writes = queries.iter().any(|(_, sink)| sink.table.is_some());
        for (plan, _) in &queries {
            lowering.note_needs(plan)?;
        }
        lowering.note_rejects();
        for (plan, sink) in queries {
            let input = lowering.node(&plan, Bounds::Repeat { judge: None })?;
            let visible = Arc::clone(&lowering.nodes[input].visible);
            if let Some(table) = sink.table.as_ref().filter(|_| lowering.nodes[input].hidden.kind) {
                check_takes_changes(table)?;
            }
            lowering.push(Op::Sink(sink), vec![input], visible, Hidden::default());
        }
        Ok(StreamPlan { nodes: lowering.nodes })
    }

    /// How some columns of a table are read, by their indices.
    pub(super) fn source_node(&self, table: &Arc<Table>, wanted: &BTreeSet<usize>) -> Result<Arc<SourceNode>> {
        let mut lowering = Lowering::over(self);
        let node = lowering.source(table, wanted)?;
        match lowering.nodes.swap_remove(node).op {
            Op::Source(source) => Ok(source),
            _ => Err(Error::bug("a source that is none")),
        }
    }
}

struct Lowering<'a> {
    planner: &'a Planner<'a>,
    nodes: Vec<Node>,
    /// Per table: the columns that any query wants, and its node once it is made.
    sources: BTreeMap<String, (BTreeSet<usize>, Option<NodeId>)>,
    /// Per table that windows are over: whether that is processing time.
    by_clock: BTreeMap<String, bool>,
    /// Per table, what becomes of records that cannot be used.
    rejects: BTreeMap<String, Rejects>,
    /// Whether rows go to tables, rather than to whoever asked.
    writes: bool,
    /// What every row carries from its source on.
    hidden: Hidden,
}

/// What an aggregate above wants of a window function below.
#[derive(Clone, Copy)]
enum Bounds {
    /// Rows once, with empty bounds: the aggregate works on slices.
    Slices,
    /// Rows once per window, with bounds.
    Repeat {
        /// Whether to drop rows that are late for their window, and by how much more they may be.
        judge: Option<i64>,
    },
}

impl<'a> Lowering<'a> {
    fn over(planner: &'a Planner<'a>) -> Self {
        Self {
            planner,
            nodes: Vec::new(),
            sources: BTreeMap::new(),
            by_clock: BTreeMap::new(),
            rejects: BTreeMap::new(),
            writes: false,
            hidden: Hidden::default(),
        }
    }

    /// Collects the columns that the plans want of each table, and what their rows must carry.
    fn note_needs(&mut self, plan: &LogicalPlan) -> Result<()> {
        let mut needs = self.hidden;
        let Self { sources, by_clock, rejects, writes, .. } = self;
        let mut conflict = None;
        plan.apply(|node| {
            match node {
                LogicalPlan::TableScan(scan) => {
                    let all = 0..scan.source.schema().fields().len();
                    let wanted = scan.projection.clone().unwrap_or_else(|| all.collect());
                    let name = scan.table_name.table();
                    sources.entry(name.to_owned()).or_default().0.extend(wanted);
                    if let Some(source) = scan.source.downcast_ref::<ScannedTable>() {
                        let all = Rejects::of(&source.table).map_err(|e| DataFusionError::External(Box::new(e)))?;
                        rejects.insert(name.to_owned(), if *writes { all } else { all.without_topics() });
                    }
                }
                LogicalPlan::Extension(extension) => {
                    if let Some(aggregate) = extension.node.as_any().downcast_ref::<WindowAggregate>() {
                        needs.watermark = true;
                        needs.tie |= aggregate.aggregates.iter().any(is_ordered);
                    }
                    if let Some(windows) = extension.node.as_any().downcast_ref::<AssignWindows>() {
                        needs.watermark |= windows.windows.sliced().is_none();
                        let is_clock = windows.is_over_processing_time();
                        for table in tables_of_rows(&windows.input) {
                            if *by_clock.entry(table.clone()).or_insert(is_clock) != is_clock {
                                conflict = Some(table);
                            }
                        }
                    }
                    if let Some(work) = extension.node.as_any().downcast_ref::<PerWindow>() {
                        needs.watermark = true;
                        needs.tie |= work.is_ordered();
                    }
                }
                _ => {}
            }
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        })?;
        self.hidden = needs;
        match conflict {
            Some(table) => Err(Error::statement(format!(
                "windows over both the event time and the processing time of {table} in one job"
            ))
            .hint("write two INSERT statements that are jobs of their own")),
            None => Ok(()),
        }
    }

    /// Rows carry where they come from if some of them may be turned away on the way, and their records if those are
    /// wanted then.
    fn note_rejects(&mut self) {
        self.hidden.tie |= self.rejects.values().any(|r| r.on_error != OnError::Fail || r.late_topic.is_some());
        self.hidden.raw = self.rejects.values().any(|r| self.keep(r) != Keep::Nothing);
    }

    fn keep(&self, rejects: &Rejects) -> Keep {
        match Keep::of(rejects) {
            // No row is late for anything.
            Keep::Disordered if !self.hidden.watermark => Keep::Nothing,
            keep => keep,
        }
    }

    fn push(&mut self, op: Op, inputs: Vec<NodeId>, visible: SchemaRef, hidden: Hidden) -> NodeId {
        self.nodes.push(Node { op, inputs, visible, hidden });
        self.nodes.len() - 1
    }

    fn node(&mut self, plan: &LogicalPlan, bounds: Bounds) -> Result<NodeId> {
        if !reads_stream(plan)? {
            return Ok(self.push(Op::Static(Box::new(plan.clone())), vec![], plain(plan.schema()), self.hidden));
        }
        match plan {
            LogicalPlan::SubqueryAlias(alias) => self.node(&alias.input, bounds),
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Filter(filter) => {
                let input = self.node(&filter.input, bounds)?;
                let predicate = physical(&filter.predicate, filter.input.schema())?;
                self.step(input, Step::Filter(predicate))
            }
            LogicalPlan::Projection(projection) => {
                let input = self.node(&projection.input, bounds)?;
                let exprs =
                    projection.expr.iter().map(|e| physical(e, projection.input.schema())).collect::<Result<_>>()?;
                self.step(input, Step::Project(exprs, plain(&projection.schema)))
            }
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|i| self.node(i, bounds)).collect::<Result<Vec<_>>>()?;
                let visible = plain(&union.schema);
                let of_inputs = inputs.iter().map(|&i| self.nodes[i].hidden);
                let hidden = of_inputs.reduce(Hidden::common).unwrap_or(self.hidden);
                // Branches may differ in the names of their columns, where the union's count, and in what is hidden.
                let inputs = inputs.into_iter().map(|i| self.conformed(i, &visible, hidden)).collect::<Result<_>>()?;
                Ok(self.push(Op::Union, inputs, visible, hidden))
            }
            LogicalPlan::Extension(extension) => {
                if let Some(windows) = extension.node.as_any().downcast_ref::<AssignWindows>() {
                    self.windows(windows, bounds)
                } else if let Some(aggregate) = extension.node.as_any().downcast_ref::<WindowAggregate>() {
                    self.aggregate(aggregate)
                } else if let Some(work) = extension.node.as_any().downcast_ref::<PerWindow>() {
                    self.per_window(work)
                } else {
                    Err(Error::bug(format!("no operator for {}", extension.node.name())))
                }
            }
            other => Err(Error::statement(format!("{} is not available on a stream", other.display()))),
        }
    }

    /// Adds a stateless step, to the node below if that is one of steps and nobody else reads it.
    fn step(&mut self, input: NodeId, step: Step) -> Result<NodeId> {
        let Node { visible, hidden, .. } = &self.nodes[input];
        let (visible, hidden) = match &step {
            Step::Filter(_) => (Arc::clone(visible), *hidden),
            Step::Project(_, schema) => (Arc::clone(schema), *hidden),
            Step::Conform(hidden) => (Arc::clone(visible), *hidden),
        };
        if input + 1 == self.nodes.len()
            && let Op::Transform(steps) = &mut self.nodes[input].op
        {
            steps.push(step);
            self.nodes[input].visible = visible;
            self.nodes[input].hidden = hidden;
            return Ok(input);
        }
        Ok(self.push(Op::Transform(vec![step]), vec![input], visible, hidden))
    }

    fn conformed(&mut self, mut input: NodeId, to: &SchemaRef, hidden: Hidden) -> Result<NodeId> {
        let from = Arc::clone(&self.nodes[input].visible);
        if &from != to {
            let exprs = (0..from.fields().len()).map(|i| column(from.field(i).name(), i)).collect();
            input = self.step(input, Step::Project(exprs, Arc::clone(to)))?;
        }
        if self.nodes[input].hidden != hidden {
            input = self.step(input, Step::Conform(hidden))?;
        }
        Ok(input)
    }

    /// Refuses a changelog where final rows are needed.
    fn check_final(&self, input: NodeId, who: &str) -> Result<()> {
        if !self.nodes[input].hidden.kind {
            return Ok(());
        }
        Err(Error::statement(format!("{who} needs final rows, and those below change after they were given out"))
            .hint("leave the EMIT clause (and 'table.exec.emit.allow-lateness') out"))
    }

    /// Gives rows these hidden columns.
    fn hide(&mut self, input: NodeId, hidden: Hidden) -> Result<NodeId> {
        if self.nodes[input].hidden == hidden { Ok(input) } else { self.step(input, Step::Conform(hidden)) }
    }

    fn scan(&mut self, scan: &TableScan) -> Result<NodeId> {
        let Some(source) = scan.source.downcast_ref::<ScannedTable>() else {
            return Err(Error::bug("a scan of something that is no table"));
        };
        if !scan.filters.is_empty() || scan.fetch.is_some() {
            return Err(Error::bug("a filter or a limit was pushed into a source"));
        }
        let name = scan.table_name.table().to_owned();
        let entry = self.sources.get(&name).cloned().unwrap_or_default();
        let node = match entry.1 {
            Some(node) => node,
            None => {
                let node = self.source(&source.table, &entry.0)?;
                self.sources.entry(name).or_default().1 = Some(node);
                node
            }
        };
        // The source gives the columns that all queries together want, in the order of their indices.
        let schema = scan.source.schema();
        let wanted = scan.projection.clone().unwrap_or_else(|| (0..schema.fields().len()).collect());
        if wanted.iter().copied().eq(entry.0.iter().copied()) {
            return Ok(node);
        }
        let place = |i: &usize| entry.0.iter().position(|c| c == i).expect("needs were noted");
        let exprs = wanted.iter().map(|i| column(schema.field(*i).name(), place(i))).collect();
        let hidden = self.nodes[node].hidden;
        Ok(self.push(
            Op::Transform(vec![Step::Project(exprs, plain(&scan.projected_schema))]),
            vec![node],
            plain(&scan.projected_schema),
            hidden,
        ))
    }

    fn source(&mut self, table: &Arc<Table>, wanted: &BTreeSet<usize>) -> Result<NodeId> {
        let base = base_schema(table);
        let mut computed_exprs = BTreeMap::new();
        let mut base_names: BTreeSet<String> = BTreeSet::new();
        let mut computed_names: BTreeSet<String> = BTreeSet::new();
        let mut want = |name: &str, table: &Table| -> Result<()> {
            match table.column(name).map(|c| &c.kind) {
                Some(ColumnKind::Computed(expr)) => {
                    let planned = self.planner.expression(expr, &base)?;
                    base_names.extend(planned.column_refs().iter().map(|c| c.name.clone()));
                    computed_names.insert(name.to_owned());
                    computed_exprs.insert(name.to_owned(), planned);
                }
                Some(_) => {
                    base_names.insert(name.to_owned());
                }
                None => return Err(Error::bug(format!("no column {name}"))),
            }
            Ok(())
        };
        for &i in wanted {
            want(&table.columns[i].name, table)?;
        }
        let full = super::context::table_schema(table).to_dfschema()?;
        let processing_time = self.by_clock.get(&table.name).copied().unwrap_or(false);
        let watermark = table
            .watermark
            .as_ref()
            .filter(|_| !processing_time)
            .map(|w| Ok::<_, Error>((w, self.planner.expression(&w.expr, &full)?)))
            .transpose()?;
        if let Some((watermark, expr)) = &watermark {
            want(&watermark.column, table)?;
            for column in expr.column_refs() {
                want(&column.name, table)?;
            }
        }

        // Decoded columns in the table's order, then the computed ones.
        let in_order =
            |names: &BTreeSet<String>| table.columns.iter().filter(|c| names.contains(&c.name)).collect::<Vec<_>>();
        let decoded_columns = in_order(&base_names);
        let computed_columns = in_order(&computed_names);
        let field = |c: &crate::catalog::Column| Arc::new(Field::new(&c.name, c.data_type.clone(), !c.not_null));
        let decoded: SchemaRef = Arc::new(Schema::new(decoded_columns.iter().map(|c| field(c)).collect::<Vec<_>>()));
        let decoded_df = Arc::clone(&decoded).to_dfschema()?;
        let computed = computed_columns
            .iter()
            .map(|c| Ok((field(c), physical(&computed_exprs[&c.name], &decoded_df)?)))
            .collect::<Result<Vec<(FieldRef, _)>>>()?;
        let wide: Vec<FieldRef> =
            decoded.fields().iter().cloned().chain(computed.iter().map(|(f, _)| Arc::clone(f))).collect();
        let place = |name: &str| wide.iter().position(|f| f.name() == name).expect("every needed column is there");
        let wide_df = Schema::new(wide.clone()).to_dfschema()?;
        let watermark = watermark
            .map(|(w, expr)| {
                let ms = DataType::Timestamp(TimeUnit::Millisecond, None);
                let expr = datafusion::logical_expr::cast(expr, ms);
                Ok::<_, Error>((place(&w.column), physical(&expr, &wide_df)?))
            })
            .transpose()?;
        let output: Vec<usize> = wanted.iter().map(|&i| place(&table.columns[i].name)).collect();
        let visible = Arc::new(Schema::new(output.iter().map(|&i| Arc::clone(&wide[i])).collect::<Vec<_>>()));
        let rejects = self.rejects.get(&table.name).cloned().unwrap_or_default();
        let ordinal = self.nodes.iter().filter(|n| matches!(n.op, Op::Source(_))).count();
        let node = SourceNode {
            table: Arc::clone(table),
            columns: decoded_columns.into_iter().filter_map(SourceColumn::of).collect(),
            decoded,
            computed,
            output,
            watermark,
            processing_time,
            ordinal: u16::try_from(ordinal).map_err(|_| Error::statement("a job reads at most 65,535 tables"))?,
            keep: self.keep(&rejects),
            rejects,
        };
        Ok(self.push(Op::Source(Arc::new(node)), vec![], visible, self.hidden))
    }

    fn windows(&mut self, windows: &AssignWindows, bounds: Bounds) -> Result<NodeId> {
        // Windows below belong to another aggregate, or to none.
        let input = self.node(&windows.input, Bounds::Repeat { judge: None })?;
        self.check_final(input, "a window function")?;
        let time = column_behind(&windows.time)
            .and_then(|c| windows.input.schema().maybe_index_of_column(c))
            .ok_or_else(|| Error::bug("the time of a window function is no column of its input"))?;
        let (repeat, judge) = match bounds {
            Bounds::Slices => (false, None),
            Bounds::Repeat { judge } => (true, judge),
        };
        if let (WindowShape::Session { gap_ms }, true) = (windows.windows.shape, repeat) {
            return self.sessions(windows, gap_ms, input, time);
        }
        let (sliced, session_gap_ms) = match windows.windows.shape {
            WindowShape::Sliced(sliced) => (sliced, None),
            WindowShape::Session { gap_ms } => (SlicedWindows::hop_ms(gap_ms, gap_ms, 0), Some(gap_ms)),
        };
        let node = WindowsNode {
            windows: sliced,
            zone: windows.windows.zone,
            time,
            passed: AssignWindows::passed(windows.input.schema()).collect(),
            repeat,
            session_gap_ms,
            judge,
        };
        let visible = plain(datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(windows));
        let hidden = Hidden { time: true, window: repeat, ..self.nodes[input].hidden };
        Ok(self.push(Op::Windows(node), vec![input], visible, hidden))
    }

    /// Sessions whose rows are given out with their bounds.
    fn sessions(&mut self, windows: &AssignWindows, gap_ms: i64, input: NodeId, time: usize) -> Result<NodeId> {
        let schema = windows.input.schema();
        let Some(partition) = &windows.partition else {
            return Err(Error::statement("the bounds of a GROUP BY SESSION(..) cannot be aggregated or filtered by")
                .hint(
                    "write FROM SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' MINUTE) \
                     GROUP BY window_start, window_end, k",
                ));
        };
        let place = |e: &Expr| index_behind(e, schema).ok_or_else(|| Error::bug("sessions by what is no column"));
        let node = SessionsNode {
            gap_ms,
            zone: windows.windows.zone,
            time,
            partition: partition.iter().map(place).collect::<Result<_>>()?,
            passed: AssignWindows::passed(schema).collect(),
        };
        let visible = plain(datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(windows));
        let hidden = Hidden { time: true, raw: false, window: true, ..self.nodes[input].hidden };
        Ok(self.push(Op::Sessions(node), vec![input], visible, hidden))
    }

    fn aggregate(&mut self, aggregate: &WindowAggregate) -> Result<NodeId> {
        let schema = aggregate.input.schema();
        let used = aggregate
            .group
            .iter()
            .zip(&aggregate.bounds)
            .filter(|(_, bound)| bound.is_none())
            .map(|(e, _)| e)
            .chain(&aggregate.aggregates);
        let reads_bounds = used.clone().any(|e| refers_to_bounds(e, schema));
        let slices = !reads_bounds && bounds_pass_through(&aggregate.input) && keeps_sessions(aggregate);
        if !slices && aggregate.windows.sliced().is_none() && !aggregate.names_sessions() {
            return Err(Error::statement(
                "sessions may begin together and end apart, so window_start alone names none",
            )
            .hint("add window_end to the GROUP BY"));
        }
        let bounds =
            if slices { Bounds::Slices } else { Bounds::Repeat { judge: Some(aggregate.emission.lateness_ms) } };
        let input = self.node(&aggregate.input, bounds)?;
        self.check_final(input, "an aggregate")?;
        let hidden = self.nodes[input].hidden;
        if !slices && !hidden.window {
            return Err(Error::bug("an aggregate per window whose rows do not know their window"));
        }

        let mut keys = Vec::new();
        let mut key_fields: Vec<FieldRef> = Vec::new();
        let mut output = Vec::new();
        let own = datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(aggregate);
        for (i, (expr, bound)) in aggregate.group.iter().zip(&aggregate.bounds).enumerate() {
            match bound {
                Some(bound) if slices => output.push(OutputColumn::Bound(*bound)),
                _ => {
                    output.push(OutputColumn::Value(keys.len()));
                    keys.push(physical(expr, schema)?);
                    let field = own.field(i);
                    key_fields.push(Arc::new(Field::new(field.name(), field.data_type().clone(), true)));
                }
            }
        }
        // Aggregates may order by the hidden columns.
        let hidden_fields = hidden.fields().into_iter().map(|f| (None, f)).collect();
        let wide = schema.as_ref().join(&DFSchema::new_with_metadata(hidden_fields, Default::default())?)?;
        let wide_arrow = Schema::new(wide.fields().iter().map(|f| Arc::new(plain_field(f))).collect::<Vec<_>>());
        let mut aggregates = Vec::new();
        let mut inputs = Vec::new();
        let mut filters = Vec::new();
        for expr in &aggregate.aggregates {
            let expr = in_order(expr.clone(), hidden);
            let props = ExecutionProps::new();
            let planning = PhysicalPlanningContext::default();
            let lowered = LoweredAggregateBuilder::new(&expr, &wide, &wide_arrow, &props, &planning).build()?;
            output.push(OutputColumn::Value(keys.len() + aggregates.len()));
            let aggregate = Aggregate::new(lowered.aggregate, &wide_arrow)?;
            inputs.push(aggregate.inputs().into_iter().map(checked).collect::<Result<_>>()?);
            aggregates.push(aggregate);
            filters.push(lowered.filter.map(checked).transpose()?);
        }
        let mut layout = AggregateLayout::new(key_fields, aggregates);
        if slices && aggregate.windows.sliced().is_none() {
            let time = hidden.time_index(schema.fields().len());
            inputs.push(vec![column(Hidden::TIME, time.ok_or_else(|| Error::bug("rows carry no event time"))?)]);
            layout = layout.with_spans();
        }
        let visible = plain(own);
        let (windows, emission, layout) = (aggregate.windows, aggregate.emission, Arc::new(layout));
        let node = AggregateNode { windows, assigned: !slices, keys, inputs, filters, layout, output, emission };
        let hidden = Hidden { time: false, raw: false, window: true, kind: emission.is_changelog(), ..self.hidden };
        Ok(self.push(Op::Aggregate(Box::new(node)), vec![input], visible, hidden))
    }
}

impl Lowering<'_> {
    fn per_window(&mut self, work: &PerWindow) -> Result<NodeId> {
        let own = datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(work);
        let visible = plain(own);
        let mut inputs = Vec::new();
        let mut tables = Vec::new();
        let mut scans = Vec::new();
        let mut extra: Vec<Vec<Expr>> = Vec::new();
        for (at, plan) in datafusion::logical_expr::UserDefinedLogicalNodeCore::inputs(work).into_iter().enumerate() {
            let input = self.node(plan, Bounds::Repeat { judge: Some(0) })?;
            self.check_final(input, "a join or a function OVER a window")?;
            // Records are not kept for as long as windows are.
            let input = self.hide(input, Hidden { raw: false, ..self.nodes[input].hidden })?;
            let node = &self.nodes[input];
            if !node.hidden.window {
                return Err(Error::bug("rows per window that do not know their window"));
            }
            let all = node.hidden.extend(&node.visible);
            let renamed = all.fields().iter().enumerate().map(|(i, f)| f.as_ref().clone().with_name(format!("c{i}")));
            let table: SchemaRef = Arc::new(Schema::new(renamed.collect::<Vec<_>>()));
            let name = format!("input{at}");
            let source = datafusion::catalog::default_table_source::provider_as_source(Arc::new(
                datafusion::datasource::empty::EmptyTable::new(Arc::clone(&table)),
            ));
            // The plan's columns under their own names, then those of the hidden ones that it takes part in.
            let mut exprs = requalified(plan.schema());
            let mut of_input = Vec::new();
            for name in [Hidden::TIME, Hidden::TIE, Hidden::WINDOW] {
                let Some(column) = node.hidden.index(name, node.visible.fields().len()) else { continue };
                let alias = format!("{name}{at}");
                exprs.push(Expr::Column(Column::new_unqualified(format!("c{column}"))).alias(&alias));
                of_input.push(Expr::Column(Column::new_unqualified(alias)));
            }
            let scan = LogicalPlanBuilder::scan(&name, source, None)?.project(exprs)?.build()?;
            scans.push(scan);
            tables.push((name, table));
            extra.push(of_input);
            inputs.push(input);
        }
        let tie_breakers: Vec<Expr> = extra
            .iter()
            .flatten()
            .filter(|e| matches!(e, Expr::Column(c) if !c.name.starts_with(Hidden::WINDOW)))
            .cloned()
            .collect();
        let plan = work.over_inputs(scans, &tie_breakers)?;
        let parts: Vec<usize> = match (work.gives_left_only(), work.gives_right_only()) {
            (true, _) => vec![0],
            (_, true) => vec![1],
            _ => (0..inputs.len()).collect(),
        };
        let is_hidden = |name: &str| name.starts_with("__tidemill_");
        let mut exprs: Vec<Expr> =
            plan.schema().columns().into_iter().filter(|c| !is_hidden(&c.name)).map(Expr::Column).collect();
        for &part in &parts {
            for name in [Hidden::TIE, Hidden::WINDOW] {
                let alias = format!("{name}{part}");
                if extra[part].iter().any(|e| matches!(e, Expr::Column(c) if c.name == alias)) {
                    exprs.push(Expr::Column(Column::new_unqualified(alias)));
                }
            }
        }
        let plan = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
        let node = PerWindowNode { title: work.title(), windows: work.windows, tables, keys: work.keys(), plan, parts };
        let hidden = Hidden { time: false, raw: false, window: true, kind: false, ..self.hidden };
        Ok(self.push(Op::PerWindow(Box::new(node)), inputs, visible, hidden))
    }
}

/// Whether the bounds of the window functions below reach this plan's output as they are, and nothing reads them.
fn bounds_pass_through(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => bounds_pass_through(&alias.input),
        LogicalPlan::Filter(filter) => {
            !refers_to_bounds(&filter.predicate, filter.input.schema()) && bounds_pass_through(&filter.input)
        }
        LogicalPlan::Projection(projection) => {
            let fine = |e: &Expr| column_behind(e).is_some() || !refers_to_bounds(e, projection.input.schema());
            projection.expr.iter().all(fine) && bounds_pass_through(&projection.input)
        }
        LogicalPlan::Union(union) => union.inputs.iter().all(|i| bounds_pass_through(i)),
        LogicalPlan::Extension(extension) => extension.node.as_any().is::<AssignWindows>(),
        _ => false,
    }
}

/// Whether an aggregate's keys are what the sessions below it are partitioned by, of all rows: then it can find them
/// itself. It is so for windows that are no sessions.
fn keeps_sessions(aggregate: &WindowAggregate) -> bool {
    if aggregate.windows.sliced().is_some() {
        return true;
    }
    let schema = aggregate.input.schema();
    let keys = aggregate.group.iter().zip(&aggregate.bounds).filter(|(_, bound)| bound.is_none()).map(|(e, _)| e);
    sessions_are_by(&aggregate.input, &keys.map(|e| index_behind(e, schema)).collect::<Vec<_>>())
}

/// Whether the rows of a plan are those of a `SESSION` that is partitioned by these columns; `None` is an expression.
fn sessions_are_by(plan: &LogicalPlan, keys: &[Option<usize>]) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => sessions_are_by(&alias.input, keys),
        LogicalPlan::Projection(projection) => {
            let below = |i: &Option<usize>| index_behind(&projection.expr[(*i)?], projection.input.schema());
            sessions_are_by(&projection.input, &keys.iter().map(below).collect::<Vec<_>>())
        }
        // Rows that a condition leaves out are part of their session nevertheless; but a WHERE comes before a GROUP BY
        // SESSION(..).
        LogicalPlan::Filter(filter) => left_to_aggregate(&filter.input) && sessions_are_by(&filter.input, keys),
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<AssignWindows>() {
            Some(AssignWindows { partition: None, .. }) => true,
            Some(AssignWindows { partition: Some(partition), input, .. }) => {
                let passed: Vec<usize> = AssignWindows::passed(input.schema()).collect();
                let place = |e: &Expr| passed.iter().position(|p| Some(*p) == index_behind(e, input.schema()));
                let partition: BTreeSet<Option<usize>> = partition.iter().map(place).collect();
                !partition.contains(&None) && partition == keys.iter().copied().collect()
            }
            None => false,
        },
        _ => false,
    }
}

/// Whether the rows are those of a `GROUP BY SESSION(..)`, whose aggregate says what sessions are partitioned by.
fn left_to_aggregate(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => left_to_aggregate(&alias.input),
        LogicalPlan::Projection(projection) => left_to_aggregate(&projection.input),
        LogicalPlan::Filter(filter) => left_to_aggregate(&filter.input),
        LogicalPlan::Extension(extension) => {
            extension.node.as_any().downcast_ref::<AssignWindows>().is_some_and(|w| w.partition.is_none())
        }
        _ => false,
    }
}

fn index_behind(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    column_behind(expr).and_then(|c| schema.maybe_index_of_column(c))
}

fn refers_to_bounds(expr: &Expr, schema: &DFSchema) -> bool {
    expr.column_refs().iter().any(|c| schema.maybe_index_of_column(c).is_some_and(|i| is_bound(schema.field(i))))
}

/// The tables whose rows a plan passes on one by one.
fn tables_of_rows(plan: &LogicalPlan) -> Vec<String> {
    match plan {
        LogicalPlan::TableScan(scan) => vec![scan.table_name.table().to_owned()],
        LogicalPlan::Extension(extension) if !extension.node.as_any().is::<AssignWindows>() => vec![],
        other => other.inputs().into_iter().flat_map(tables_of_rows).collect(),
    }
}

fn is_ordered(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_ordered(&alias.expr),
        Expr::AggregateFunction(f) => ORDERED.contains(&f.func.name()),
        _ => false,
    }
}

/// Gives an aggregate whose value depends on the order of rows one that does not depend on luck: what it asks for, then
/// event time, then the tie-breaker.
pub(super) fn in_order(expr: Expr, hidden: Hidden) -> Expr {
    match expr {
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(in_order(*alias.expr, hidden));
            Expr::Alias(alias)
        }
        Expr::AggregateFunction(f) if ORDERED.contains(&f.func.name()) => {
            let AggregateFunction { mut func, mut params } = f;
            if func.name() == "any_value" {
                func = first_value_udaf();
                params.null_treatment = Some(NullTreatment::IgnoreNulls);
            }
            if params.distinct {
                // Equal values are one: the value itself is the only order there can be.
                if params.order_by.is_empty() {
                    params.order_by = vec![Sort::new(params.args[0].clone(), true, false)];
                }
            } else {
                let order = [(hidden.time, Hidden::TIME), (hidden.tie, Hidden::TIE)];
                let order = order.into_iter().filter(|(there, _)| *there);
                params
                    .order_by
                    .extend(order.map(|(_, name)| Sort::new(Expr::Column(Column::new_unqualified(name)), true, false)));
            }
            Expr::AggregateFunction(AggregateFunction { func, params })
        }
        other => other,
    }
}

fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    checked(create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?)
}

/// The same expression with arithmetic that fails where DataFusion's would wrap around in silence.
fn checked(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let check = |e: Arc<dyn PhysicalExpr>| {
        Ok(match e.downcast_ref::<BinaryExpr>() {
            Some(binary) => Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as _),
            None => Transformed::no(e),
        })
    };
    Ok(expr.transform_up(check)?.data)
}

fn column(name: &str, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(datafusion::physical_expr::expressions::Column::new(name, index))
}

/// The Arrow schema of a logical one, without marks.
fn plain(schema: &DFSchema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|f| Arc::new(plain_field(f))).collect::<Vec<_>>()))
}

fn plain_field(field: &Field) -> Field {
    Field::new(field.name(), field.data_type().clone(), field.is_nullable())
}
