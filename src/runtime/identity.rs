//! What a job is, as its log remembers it: whether what another process has left fits what is started now.
//!
//! A job is its statement with the views and tables that it names, and the settings that planning goes by. A newer program
//! may plan the same statement in another way, so plans are only compared where statements differ. Each operator that keeps
//! state is compared for itself: by what it computes, and by the columns of its state.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::physical_expr::PhysicalExpr;
use serde::{Deserialize, Serialize};

use super::progress::Restored;
use super::rehearsal::sources_of;
use super::session::Restore;
use super::state::StoredState;
use crate::catalog::Table;
use crate::error::{Error, Result};
use crate::plan::{NodeId, Op, Step, StreamPlan, explain_node};

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// A digest of the statement, and of the views and tables that it names.
    definition: String,
    /// The sources, in the order of the plan: tables, and what they read.
    sources: Vec<String>,
    /// The operators that keep state, in the order of the plan.
    operators: Vec<Operator>,
}

/// An operator that keeps state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Operator {
    node: NodeId,
    /// For people.
    title: String,
    /// A digest of what it computes, of which rows.
    work: String,
    /// A digest of its state's columns.
    state: String,
}

/// What becomes of stored state when a job goes on as what it is now.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Nodes whose state is kept: as they were, as they are.
    kept: Vec<(NodeId, NodeId)>,
    /// Operators that begin without state.
    rebuilt: Vec<String>,
    /// Operators that there are no longer.
    dropped: Vec<String>,
    /// Per source, which it was; `None` if the job reads something else now.
    sources: Option<Vec<usize>>,
    /// The statement is not the same.
    is_other: bool,
}

impl Identity {
    /// Of a job: `definition` is its statement with its views, and what planning went by.
    pub fn of(plan: &StreamPlan, definition: &str) -> Self {
        let tables: String = plan
            .nodes
            .iter()
            .filter_map(|node| match &node.op {
                Op::Source(source) => Some(source.table.as_ref()),
                Op::Sink(sink) => sink.table.as_deref(),
                _ => None,
            })
            .map(described)
            .collect();
        let source = |table: &Table| {
            let of = |key| table.options.get(key).unwrap_or_default();
            format!("{}: {}{}", table.name, of("topic"), of("topic-pattern"))
        };
        Self {
            definition: digest(&format!("{definition}{tables}")),
            sources: sources_of(plan).map(|(_, node)| source(&node.table)).collect(),
            operators: (0..plan.nodes.len()).filter_map(|node| Operator::of(plan, node)).collect(),
        }
    }

    /// Tells jobs apart that nobody has named: their statements, views, tables and settings.
    pub fn short(&self) -> &str {
        &self.definition[..8]
    }

    /// What was left by a job, for one that this is; an error if it does not fit. `None` if it is to be given up.
    pub fn fit(&self, job: &str, mut left: Restored, restore: Restore) -> Result<Option<Restored>> {
        if restore == Restore::None {
            return Ok(None);
        }
        let verdict = self.judge(&left.beginning.identity);
        verdict.check(job, restore == Restore::Compatible)?;
        verdict.apply(&mut left);
        Ok(Some(left))
    }

    /// What becomes of the state of a job that was another one.
    pub fn judge(&self, before: &Self) -> Verdict {
        let same_definition = self.definition == before.definition && self.operators.len() == before.operators.len();
        let mut verdict = Verdict {
            is_other: self.definition != before.definition,
            sources: self.sources_in(before),
            ..Verdict::default()
        };
        let mut left: Vec<&Operator> = before.operators.iter().collect();
        for (at, operator) in self.operators.iter().enumerate() {
            let is_same = |other: &&Operator| {
                let works_alike =
                    if same_definition { **other == before.operators[at] } else { other.work == operator.work };
                works_alike && other.state == operator.state
            };
            match left.iter().position(is_same) {
                Some(found) => verdict.kept.push((left.remove(found).node, operator.node)),
                None => verdict.rebuilt.push(operator.title.clone()),
            }
        }
        verdict.dropped = left.into_iter().map(|operator| operator.title.clone()).collect();
        verdict
    }

    /// Per source, the number that it had.
    fn sources_in(&self, before: &Self) -> Option<Vec<usize>> {
        let mut left: Vec<Option<&String>> = before.sources.iter().map(Some).collect();
        let find = |source: &String| {
            let found = left.iter().position(|other| *other == Some(source))?;
            left[found] = None;
            Some(found)
        };
        let found: Option<Vec<usize>> = self.sources.iter().map(find).collect();
        found.filter(|_| left.iter().all(Option::is_none))
    }
}

impl Operator {
    fn of(plan: &StreamPlan, node: NodeId) -> Option<Self> {
        let below = |node: NodeId| plan.nodes[node].inputs.iter().map(|&input| types(&plan.nodes[input].visible));
        let state = match &plan.nodes[node].op {
            Op::Aggregate(aggregate) => types(aggregate.layout.partial()),
            Op::PerWindow(work) => work.tables.iter().map(|(_, schema)| types(schema)).collect(),
            Op::Sessions(_) => below(node).collect(),
            _ => return None,
        };
        let mut work = String::new();
        describe(plan, node, &mut work);
        let title = explain_node(plan, node).lines().next().unwrap_or_default().trim().to_owned();
        Some(Self { node, title, work: digest(&work), state: digest(&state) })
    }
}

/// The names and types of columns.
fn types(schema: &Schema) -> String {
    schema.fields().iter().map(|field| format!("{} {}, ", field.name(), field.data_type())).collect()
}

/// All that makes a difference to the rows of a node, by which nodes of one program are compared.
fn describe(plan: &StreamPlan, node: NodeId, text: &mut String) {
    fn list<T: ToString>(all: &[T]) -> String {
        all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
    let of = &plan.nodes[node];
    *text += &match &of.op {
        Op::Source(source) => described(&source.table),
        Op::Static(plan) => plan.display_indent().to_string(),
        Op::Transform(steps) => {
            let step = |step: &Step| match step {
                Step::Filter(predicate) => format!("filter {predicate} "),
                Step::Project(exprs, schema) => format!("project {} as {} ", list(exprs), types(schema)),
                Step::Conform(_) => "conform ".to_owned(),
                Step::Branch(number) => format!("branch {number} "),
            };
            steps.iter().map(step).collect()
        }
        Op::Windows(windows) => format!("{:?} {:?} {}", windows.windows, windows.session_gap_ms, windows.time),
        Op::Sessions(sessions) => format!("{sessions:?}"),
        Op::Union => "union".to_owned(),
        Op::Aggregate(aggregate) => {
            let filter = |filter: &Option<Arc<dyn PhysicalExpr>>| filter.as_ref().map(ToString::to_string);
            let aggregates = aggregate.layout.aggregates().iter().map(|a| a.field().name().clone());
            let inputs: Vec<String> = aggregate.inputs.iter().map(|inputs| list(inputs)).collect();
            format!(
                "aggregate {:?} {} [{}] {:?} {inputs:?} {:?} {:?} {:?}",
                aggregate.windows,
                aggregate.assigned,
                list(&aggregate.keys),
                aggregates.collect::<Vec<_>>(),
                aggregate.filters.iter().map(filter).collect::<Vec<_>>(),
                aggregate.output,
                aggregate.emission,
            )
        }
        Op::PerWindow(work) => {
            format!("{} {:?} {:?} {:?} {}", work.title, work.windows, work.keys, work.parts, work.plan.display_indent())
        }
        Op::Sink(_) => "sink".to_owned(),
    };
    *text += &format!(" of {}\n", types(&of.visible));
    of.inputs.iter().for_each(|&input| describe(plan, input, text));
}

/// A table but for how its cluster is reached.
fn described(table: &Table) -> String {
    let watermark = table.watermark.as_ref().map(|w| w.expr.to_string());
    let mut text = format!("\n{} {:?} {watermark:?}", table.name, table.columns);
    let options = table.options.iter().filter(|(key, _)| !key.starts_with("properties."));
    options.for_each(|(key, value)| text += &format!(" {key}={value}"));
    text
}

/// FNV-1a over a text's words: how it is laid out does not count.
fn digest(text: &str) -> String {
    let words = text.split_whitespace().flat_map(|word| word.bytes().chain([b' ']));
    let hash =
        words.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

impl Verdict {
    /// An error, unless the job is what it was; with `compatible`, unless what it was can be made use of.
    pub fn check(&self, job: &str, compatible: bool) -> Result<()> {
        if self.sources.is_none() {
            return Err(Error::statement(format!(
                "job {job} has read other tables than those that its statement reads now"
            ))
            .hint(
                "undo the change, begin a new job under another name (SET 'pipeline.name' = '..'), or give up what it \
                     has come to: SET 'execution.restore' = 'none'",
            ));
        }
        let is_same = !self.is_other && self.rebuilt.is_empty() && self.dropped.is_empty();
        if is_same || compatible {
            return Ok(());
        }
        let list = |what: &str, titles: &[String]| match titles {
            [] => String::new(),
            titles => format!("; {what}: {}", titles.join(" | ")),
        };
        let kept = match (self.kept.len(), self.rebuilt.len() + self.kept.len()) {
            (_, 0) => String::new(),
            (kept, all) => format!("; of its {all} operators with state {kept} would be kept"),
        };
        Err(Error::statement(format!(
            "job {job} was begun as another statement, or over other tables, than it is now{kept}{}{}",
            list("rebuilt, without what it has seen so far", &self.rebuilt),
            list("dropped", &self.dropped),
        ))
        .hint(
            "undo the change; or SET 'execution.restore' = 'compatible' to go on with what can be kept, 'none' to begin \
             anew; or begin a new job under another name, SET 'pipeline.name' = '..'",
        ))
    }

    /// A sentence on what is not kept, if anything is not.
    pub fn told(&self) -> Option<String> {
        if self.rebuilt.is_empty() && self.dropped.is_empty() {
            return None;
        }
        let (rebuilt, dropped) = (self.rebuilt.join(" | "), self.dropped.join(" | "));
        Some(format!("its statement has changed; without their state begin: [{rebuilt}]; dropped are: [{dropped}]"))
    }

    /// What was left by the job as it was, for the job as it is: sources have other numbers.
    pub fn apply(&self, restored: &mut Restored) {
        if let Some(sources) = &self.sources {
            restored.renumber(sources);
        }
    }

    /// The state of what is kept.
    pub fn keep(&self, state: StoredState) -> StoredState {
        let now = |node: NodeId| self.kept.iter().find(|(before, _)| *before == node).map(|(_, now)| *now);
        let kept = |pieces: Vec<_>| pieces.into_iter().filter_map(|(node, piece)| Some((now(node)?, piece))).collect();
        StoredState { checkpoints: state.checkpoints.into_iter().map(kept).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::tests::plan;

    fn identity(sql: &str) -> Identity {
        Identity::of(&plan(sql), sql)
    }

    /// How many operators keep their state, begin without it, and are gone; `None` if other tables are read.
    fn judged(before: &str, now: &str) -> Option<(usize, usize, usize)> {
        let verdict = identity(now).judge(&identity(before));
        let (kept, rebuilt, dropped) = (verdict.kept.len(), verdict.rebuilt.len(), verdict.dropped.len());
        let is_same = before.split_whitespace().eq(now.split_whitespace());
        assert_eq!(verdict.check("j", false).is_ok(), is_same, "{before}\n{now}");
        assert_eq!(verdict.check("j", true).is_ok(), verdict.sources.is_some());
        verdict.sources.map(|_| (kept, rebuilt, dropped))
    }

    fn tumble(keys: &str, seconds: usize, condition: &str) -> String {
        format!(
            "INSERT INTO p SELECT window_start, {keys}, count(*), sum(n) FROM TUMBLE(a, ts, INTERVAL '{seconds}' SECOND) \
             {condition} GROUP BY window_start, window_end, {keys}"
        )
    }

    #[test]
    fn operators_are_what_they_compute() {
        let one = tumble("k", 10, "");
        assert_eq!(judged(&one, &one), Some((1, 0, 0)));
        assert_eq!(judged(&one, &one.replace(' ', "\n  ")), Some((1, 0, 0)));
        // What comes after an operator does not concern it.
        assert_eq!(judged(&one, &format!("{one} HAVING count(*) > 1")), Some((1, 0, 0)));
        assert_eq!(judged(&one, &tumble("k", 20, "")), Some((0, 1, 1)));
        assert_eq!(judged(&one, &tumble("k", 10, "WHERE n > 3")), Some((0, 1, 1)));
        assert_eq!(judged(&one, &one.replace("sum(n)", "max(n)")), Some((0, 1, 1)));
        assert_eq!(judged(&one, &one.replace("TUMBLE(a", "TUMBLE(b")), None);
        let error = identity(&tumble("k", 20, "")).judge(&identity(&one)).check("j", false).unwrap_err();
        assert!(error.message.contains("of its 1 operators with state 0 would be kept"), "{}", error.message);
        assert!(error.hint.unwrap().contains("'execution.restore'"));
    }

    #[test]
    fn a_newer_program_may_plan_a_statement_in_another_way() {
        let now = identity(&tumble("k", 10, ""));
        let mut before = now.clone();
        before.operators[0].node += 2;
        before.operators[0].work = "as it was planned then".to_owned();
        let verdict = now.judge(&before);
        assert!(verdict.check("j", false).is_ok());
        assert_eq!(verdict.kept, [(before.operators[0].node, now.operators[0].node)]);
        before.operators[0].state = "as it was kept then".to_owned();
        let error = now.judge(&before).check("j", false).unwrap_err();
        assert!(error.message.contains("rebuilt"), "{}", error.message);
    }
}
