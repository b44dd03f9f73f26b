//! Joins and functions over windows: the finite plan, and the tables in it that stand for the inputs' rows.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, UserDefinedLogicalNodeCore};

use super::expressions::plain;
use super::{Bounds, Lowering};
use crate::error::{Error, Result};
use crate::plan::per_window::{PerWindow, requalified};
use crate::plan::stream::{Hidden, NodeId, Op, PerWindowNode};

impl Lowering<'_> {
    pub(super) fn per_window(&mut self, work: &PerWindow) -> Result<NodeId> {
        let own = UserDefinedLogicalNodeCore::schema(work);
        let visible = plain(own);
        let mut inputs = Vec::new();
        let mut tables = Vec::new();
        let mut scans = Vec::new();
        let mut extra: Vec<Vec<Expr>> = Vec::new();
        for (at, plan) in UserDefinedLogicalNodeCore::inputs(work).into_iter().enumerate() {
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
        let is_window = |e: &Expr| matches!(e, Expr::Column(c) if c.name.starts_with(Hidden::WINDOW));
        let (windows, tie_breakers): (Vec<Expr>, Vec<Expr>) = extra.iter().flatten().cloned().partition(is_window);
        let plan = work.over_inputs(scans, &tie_breakers, &windows)?;
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
