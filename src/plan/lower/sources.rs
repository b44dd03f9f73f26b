//! Tables: one source per table, which gives the columns that all queries together want.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::common::ToDFSchema;
use datafusion::logical_expr::TableScan;

use super::Lowering;
use super::expressions::{column, physical, plain};
use crate::catalog::{ColumnKind, Table};
use crate::connectors::SourceColumn;
use crate::error::{Error, Result};
use crate::plan::context::{ScannedTable, base_schema, table_schema};
use crate::plan::stream::{NodeId, Op, SourceNode, Step};

impl Lowering<'_> {
    pub(super) fn scan(&mut self, scan: &TableScan) -> Result<NodeId> {
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

    pub(super) fn source(&mut self, table: &Arc<Table>, wanted: &BTreeSet<usize>) -> Result<NodeId> {
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
        let full = table_schema(table).to_dfschema()?;
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
}
