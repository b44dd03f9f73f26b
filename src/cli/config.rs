//! What the flags and the environment come to.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use tidemill::connectors::Defaults;
use tidemill::connectors::kafka::ClientProperties;
use tidemill::error::{Blame, Error, Result};
use tidemill::runtime::EngineConfig;

use super::args::{Common, Form};
use super::output::Output;
use super::settings::{Origin, Settings};
use super::variables::Variables;
use super::voice::Voice;

/// Bootstrap servers under a name of ours, and under one that other programs use.
const BROKER_VARIABLES: [&str; 3] = ["TIDEMILL_BROKERS", "KAFKA_BROKERS", "KAFKA_BOOTSTRAP_SERVERS"];

/// The flags, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bootstrap servers.
    pub brokers: Option<String>,
    /// Kafka client properties, without bootstrap servers.
    pub properties: BTreeMap<String, String>,
    /// What SET is to set at the start.
    pub set: BTreeMap<String, String>,
    /// Where all of this comes from.
    pub settings: Settings,
    /// Where rows go, and how.
    pub output: Output,
    /// What is said on standard error, and how.
    pub voice: Voice,
    /// Values for `${name}` in statements.
    pub variables: Variables,
    /// Rows of a result that are shown, at most.
    pub limit: Option<u64>,
    /// How long everything may take.
    pub timeout: Option<Duration>,
    /// Queries and jobs end when they have read what topics held when they began.
    pub until_caught_up: bool,
}

impl Config {
    /// Resolves the flags. Reads the environment through `variable`.
    pub fn new(common: &Common, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut settings = Settings::default();
        if let Some(brokers) = &common.brokers {
            settings.add("brokers", brokers.trim(), Origin::Flag);
        }
        for (key, value) in properties(&common.properties)? {
            settings.add(&format!("properties.{key}"), &value, Origin::Flag);
        }
        let given = |name: &&'static str| Some((*name, variable(name).filter(|value| !value.trim().is_empty())?));
        if let Some((name, value)) = BROKER_VARIABLES.iter().find_map(given) {
            settings.add("brokers", value.trim(), Origin::Environment(name));
        }
        let named = common.config_file.clone().or_else(|| given(&"TIDEMILL_CONFIG").map(|(_, value)| value.into()));
        let own = || folder(|name| variable(name).map(PathBuf::from)).map(|folder| folder.join("config.toml"));
        let profile = common.profile.clone().or_else(|| given(&"TIDEMILL_PROFILE").map(|(_, value)| value));
        if let Some(path) = named.clone().or_else(own) {
            settings.add_file(&path, named.is_some(), profile.as_deref())?;
        }
        let brokers = settings.get("brokers").map(str::to_owned);
        if brokers.as_deref() == Some("") {
            return Err(Error::usage("-b names no servers").hint("write -b host:9092, or -b embedded"));
        }
        let properties = settings.with_prefix("properties.");
        check(&properties)?;
        let configured = settings.get("output").map(|name| {
            Form::from_str(name, true).map_err(|_| {
                Error::usage(format!("the configuration's output = \"{name}\" is no form"))
                    .hint("for instance output = \"table\"")
            })
        });
        let is_terminal = std::io::stdout().is_terminal();
        // A script that reads rows must not be surprised by what the user likes to look at.
        let configured = configured.transpose()?.filter(|_| is_terminal);
        let form = common.output.or(configured).unwrap_or(if is_terminal { Form::Table } else { Form::Jsonl });
        let color = std::io::stderr().is_terminal()
            && variable("NO_COLOR").is_none_or(|v| v.is_empty())
            && variable("TERM").is_none_or(|term| term != "dumb");
        Ok(Self {
            brokers,
            properties,
            set: settings.with_prefix("set."),
            settings,
            output: Output { form, fits_screen: false, is_terminal, file: None },
            voice: Voice { is_quiet: common.quiet, color, is_json: common.json_errors },
            variables: Variables::new(&common.variables)?,
            limit: common.limit,
            timeout: common.timeout,
            until_caught_up: common.until_caught_up,
        })
    }

    /// How to open the engine.
    pub fn engine(&self, embedded_if_none: bool) -> EngineConfig {
        EngineConfig { brokers: self.brokers.clone(), properties: self.properties.clone(), embedded_if_none }
    }
}

/// The folder of the user's configuration: `$XDG_CONFIG_HOME/tidemill`, else `~/.config/tidemill`.
pub fn folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // A relative path is to be ignored, says the standard for these folders.
    let config = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let home = || Some(variable("HOME").filter(|path| path.is_absolute())?.join(".config"));
    Some(config.or_else(home)?.join("tidemill"))
}

/// The `KEY=VALUE` pairs of -X.
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
        Err(Error { message, hint, .. }) => Err(Error {
            hint: hint.map(plain),
            ..Error::new(Blame::Usage, format!("the properties of Kafka's client (-X): {}", plain(message)))
        }),
    }
}
