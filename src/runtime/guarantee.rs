//! How a job's rows are delivered: what its tables ask for, or else the most that can be had.

use crate::catalog::Table;
use crate::connectors::{self, Defaults, Delivery};
use crate::error::{Error, Result};
use crate::plan::{Op, SourceNode, StreamPlan};

/// What a crash leaves of a job.
#[derive(Clone, Debug)]
pub enum Guarantee<'a> {
    /// Nothing is twice: the job has a log on this table's cluster or beside its file, and its rows are in the log's
    /// transactions.
    ExactlyOnce(&'a Table),
    /// Nothing is missing: the job has a log on this table's cluster, and its rows are outside before the log says so.
    AtLeastOnce(&'a Table),
    /// The job has no log, and begins anew.
    None,
}

/// The tables that a job writes to.
struct Sinks<'a> {
    tables: Vec<(&'a Table, Option<Delivery>)>,
    /// Some rows go to who asked for them.
    has_caller: bool,
}

impl Guarantee<'_> {
    /// The guarantee of a plan; an error if its tables ask for what cannot be.
    pub fn of<'a>(plan: &'a StreamPlan, defaults: &Defaults) -> Result<Guarantee<'a>> {
        let sinks = Sinks::of(plan)?;
        let asks_for =
            |delivery| sinks.tables.iter().find(|(_, asked)| *asked == Some(delivery)).map(|(table, _)| *table);
        if let Some(table) = asks_for(Delivery::ExactlyOnce) {
            sinks.check(table)?;
            check_sources(plan)?;
            check_rejects(plan, table)?;
            return Ok(Guarantee::ExactlyOnce(table));
        }
        let Some(&(first, _)) = sinks.tables.first() else { return Ok(Guarantee::None) };
        if asks_for(Delivery::None).is_some()
            || !sinks.can_be_in_transactions(first, defaults)?
            || check_sources(plan).is_err()
        {
            return Ok(Guarantee::None);
        }
        for source in plan.sources() {
            // The embedded broker's topics are gone when the process is.
            if connectors::kafka_brokers(&source.table, defaults)?.is_none() {
                return Ok(Guarantee::None);
            }
        }
        Ok(match asks_for(Delivery::AtLeastOnce) {
            Some(table) => Guarantee::AtLeastOnce(table),
            None => Guarantee::ExactlyOnce(first),
        })
    }

    /// Whose cluster has the job's log.
    pub fn log_table(&self) -> Option<&Table> {
        match self {
            Self::ExactlyOnce(table) | Self::AtLeastOnce(table) => Some(table),
            Self::None => None,
        }
    }
}

impl<'a> Sinks<'a> {
    fn of(plan: &'a StreamPlan) -> Result<Self> {
        let mut sinks = Self { tables: Vec::new(), has_caller: false };
        for node in &plan.nodes {
            let Op::Sink(sink) = &node.op else { continue };
            match &sink.table {
                Some(table) => sinks.tables.push((table, connectors::delivery(table)?)),
                None => sinks.has_caller = true,
            }
        }
        connectors::check_outputs(sinks.tables.iter().map(|(table, _)| *table))?;
        Ok(sinks)
    }

    /// Where one table asks for it, all rows are written exactly once.
    fn check(&self, asks: &Table) -> Result<()> {
        let asks_for_topics = connectors::connector_of(asks).is_ok_and(is_kafka);
        let other = self.tables.iter().find(|(table, asked)| {
            let can = connectors::connector_of(table).is_ok_and(|connector| {
                is_kafka(connector) == asks_for_topics && (asks_for_topics || is_file(connector))
            });
            !can || !matches!(asked, None | Some(Delivery::ExactlyOnce))
        });
        let other = match other {
            Some((table, _)) => table.name.as_str(),
            None if self.has_caller => "SELECT",
            None => return Ok(()),
        };
        let name = &asks.name;
        Err(Error::statement(format!(
            "table {name} is written exactly once, and {other}, which the same job writes to, is not"
        ))
        .hint(
            "give all tables of the job 'sink.delivery-guarantee' = 'exactly-once', or none; what can be written so are \
             topics of one cluster, or files, but not both in one job",
        ))
    }

    fn can_be_in_transactions(&self, first: &Table, defaults: &Defaults) -> Result<bool> {
        let mut can = !self.has_caller;
        let brokers = connectors::kafka_brokers(first, defaults)?;
        for (table, _) in &self.tables {
            can &= brokers.is_some() && connectors::kafka_brokers(table, defaults)? == brokers;
        }
        Ok(can)
    }
}

fn is_kafka(connector: &str) -> bool {
    matches!(connector, "kafka" | "upsert-kafka")
}

fn is_file(connector: &str) -> bool {
    connector == "filesystem"
}

/// What is turned away goes to topics, which have no part in the transactions of files.
fn check_rejects(plan: &StreamPlan, asks: &Table) -> Result<()> {
    let has_topic =
        |source: &&SourceNode| source.rejects.late_topic.is_some() || source.rejects.dead_letter_topic.is_some();
    match plan.sources().map(|source| &**source).find(has_topic) {
        Some(source) if connectors::connector_of(asks).is_ok_and(is_file) => Err(Error::statement(format!(
            "table {} is written exactly once, and what {} turns away goes to a topic",
            asks.name, source.table.name
        ))
        .hint("leave the topics of late and of bad records out, or write to a topic")),
        _ => Ok(()),
    }
}

/// A replay reads again what was read: only from topics and files is it known to be the same.
fn check_sources(plan: &StreamPlan) -> Result<()> {
    let instead = "set 'sink.delivery-guarantee' = 'at-least-once' on the tables that the job writes to";
    for source in plan.sources() {
        let table = &source.table;
        let connector = connectors::connector_of(table)?;
        if !is_kafka(connector) && !is_file(connector) {
            return Err(Error::statement(format!(
                "table {} is neither topic nor file, and what is made of it cannot be written exactly once yet",
                table.name
            ))
            .hint(instead));
        }
    }
    if plan.nodes.iter().any(|node| matches!(node.op, Op::Static(_))) {
        return Err(
            Error::statement("rows that a statement itself gives cannot be written exactly once yet").hint(instead)
        );
    }
    Ok(())
}
