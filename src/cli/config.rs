//! What the flags and the environment come to.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use tidemill::connectors::Defaults;
use tidemill::connectors::kafka::ClientProperties;
use tidemill::error::{Blame, Error, Result};
use tidemill::runtime::EngineConfig;

use super::args::{Common, Form};
use super::output::Output;
use super::voice::Voice;

/// Bootstrap servers under a name of ours, and under one that other programs use.
const BROKER_VARIABLES: [&str; 2] = ["TIDEMILL_BROKERS", "KAFKA_BROKERS"];

/// Properties that name bootstrap servers.
const BROKER_PROPERTIES: [&str; 2] = ["bootstrap.servers", "metadata.broker.list"];

/// The flags, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bootstrap servers: -b, else -X, else the environment.
    pub brokers: Option<String>,
    /// Kafka client properties, without bootstrap servers.
    pub properties: BTreeMap<String, String>,
    /// Where rows go, and how.
    pub output: Output,
    /// What is said on standard error, and how.
    pub voice: Voice,
}

impl Config {
    /// Resolves the flags. Reads the environment through `variable`.
    pub fn new(common: &Common, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut properties = properties(&common.properties)?;
        let named = BROKER_PROPERTIES.iter().filter_map(|key| properties.remove(*key)).next();
        let variables = || BROKER_VARIABLES.iter().filter_map(|name| variable(name)).find(|v| !v.trim().is_empty());
        let brokers = common.brokers.clone().or(named).or_else(variables).map(|b| b.trim().to_owned());
        if brokers.as_deref() == Some("") {
            return Err(Error::usage("-b names no servers").hint("write -b host:9092, or -b embedded"));
        }
        let is_terminal = std::io::stdout().is_terminal();
        let form = common.output.unwrap_or(if is_terminal { Form::Table } else { Form::Jsonl });
        let color = std::io::stderr().is_terminal()
            && variable("NO_COLOR").is_none_or(|v| v.is_empty())
            && variable("TERM").is_none_or(|term| term != "dumb");
        let voice = Voice { is_quiet: common.quiet, color };
        Ok(Self { brokers, properties, output: Output { form, is_terminal }, voice })
    }

    /// How to open the engine.
    pub fn engine(&self, embedded_if_none: bool) -> EngineConfig {
        EngineConfig { brokers: self.brokers.clone(), properties: self.properties.clone(), embedded_if_none }
    }
}

/// The `KEY=VALUE` pairs of -X, checked.
fn properties(pairs: &[String]) -> Result<BTreeMap<String, String>> {
    let mut properties = BTreeMap::new();
    for pair in pairs {
        // The pair is not repeated: it may hold a password.
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Error::usage("-X takes KEY=VALUE").hint("for instance -X security.protocol=SSL"))?;
        let key = key.trim();
        let key = key.strip_prefix("properties.").unwrap_or(key);
        properties.insert(key.to_owned(), value.to_owned());
    }
    check(&properties)?;
    Ok(properties)
}

/// Whether Kafka's client knows these properties: better said now than at the first table.
fn check(properties: &BTreeMap<String, String>) -> Result<()> {
    // Which servers does not matter here, only that some are named.
    let brokers = Some("localhost:9092".to_owned());
    let defaults = Defaults { brokers, properties: properties.clone(), ..Defaults::default() };
    let plain = |text: String| text.replace("'properties.", "'");
    match ClientProperties::of_defaults(&defaults) {
        Ok(_) => Ok(()),
        Err(Error { message, hint, .. }) => {
            Err(Error { hint: hint.map(plain), ..Error::new(Blame::Usage, format!("-X: {}", plain(message))) })
        }
    }
}
