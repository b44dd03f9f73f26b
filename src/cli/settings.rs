//! Where settings come from: a flag, the environment, a profile, the configuration file, a default; the first one counts.
//!
//! ```toml
//! brokers = "localhost:9092"
//! profile = "prod"                    # unless --profile says another
//!
//! [properties]                        # of all Kafka clients
//! "client.id" = "me"
//!
//! [set]                               # as SET does
//! "table.local-time-zone" = "Europe/Berlin"
//!
//! [profiles.prod]
//! brokers = "kafka.example:9093"
//! [profiles.prod.properties]
//! "security.protocol" = "SASL_SSL"
//! "sasl.password" = "${env:KAFKA_PASSWORD}"
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use tidemill::catalog::options::nearest;
use tidemill::catalog::secrets::{is_printable_property, is_secret, shown};
use tidemill::error::{Error, Result};
use toml::{Table, Value};

/// Keys of the file, and of a profile in it.
const KEYS: [&str; 4] = ["brokers", "output", "properties", "set"];

/// Properties that name bootstrap servers.
const BROKER_PROPERTIES: [&str; 2] = ["bootstrap.servers", "metadata.broker.list"];

/// Whence a setting comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// A variable of the environment.
    Environment(&'static str),
    /// A profile of the configuration file.
    Profile(String),
    /// The configuration file.
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => write!(f, "environment: {name}"),
            Self::Profile(name) => write!(f, "profile: {name}"),
            Self::File(path) => write!(f, "file: {}", path.display()),
        }
    }
}

/// Settings by key, each with its origin. Client properties begin with `properties.`, what SET sets with `set.`.
#[derive(Clone, Default)]
pub struct Settings(BTreeMap<String, (String, Origin)>);

/// Names only: values may be secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Settings {
    /// Sets a key, unless a source that counts more has set it.
    pub fn add(&mut self, key: &str, value: &str, origin: Origin) {
        // Servers have one name, whichever it was written under.
        let is_brokers = BROKER_PROPERTIES.iter().any(|name| key.strip_prefix("properties.") == Some(name));
        let key = if is_brokers { "brokers" } else { key };
        self.0.entry(key.to_owned()).or_insert_with(|| (value.to_owned(), origin));
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|(value, _)| value.as_str())
    }

    /// The keys that begin so, without that, and their values.
    pub fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        let own = self.0.iter().filter_map(|(key, (value, _))| Some((key.strip_prefix(prefix)?, value)));
        own.map(|(key, value)| (key.to_owned(), value.clone())).collect()
    }

    /// Key, value as it may be shown, origin.
    pub fn rows(&self) -> Vec<[String; 3]> {
        let row = |(key, (value, origin)): (&String, &(String, Origin))| {
            let is_secret = match key.strip_prefix("properties.") {
                Some(property) => !is_printable_property(property),
                None => is_secret(key.strip_prefix("set.").unwrap_or(key)),
            };
            [key.clone(), shown(is_secret, value).to_owned(), origin.to_string()]
        };
        self.0.iter().map(row).collect()
    }

    /// Adds what the configuration file says: of the profile, then of all. `named`: somebody asked for this file, so it
    /// must be there.
    pub fn add_file(&mut self, path: &Path, named: bool, profile: Option<&str>) -> Result<()> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if !named && error.kind() == std::io::ErrorKind::NotFound => match profile {
                None => return Ok(()),
                Some(name) => {
                    let what = format!("there is no profile {name}: there is no file {}", path.display());
                    return Err(Error::usage(what).hint("profiles are sections [profiles.NAME] of that file"));
                }
            },
            Err(error) => return Err(Error::usage(format!("cannot read {}: {error}", path.display()))),
        };
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            // Its own text would show the line, which may hold a password.
            let at = error.span().map_or(0, |span| span.start);
            let (line, column) = tidemill::sql::diagnostics::place_of(&text, at);
            Error::usage(format!("{}, line {line}, column {column}: {}", path.display(), error.message()))
        })?;
        let own = File { path, table: &table };
        let profiles = own.profiles()?;
        let chosen = match (profile, table.get("profile")) {
            (Some(name), _) => Some(name),
            (None, Some(Value::String(name))) => Some(name.as_str()),
            (None, Some(_)) => {
                return Err(own.wrong("profile", "a name in quotes").hint("profiles are sections [profiles.NAME]"));
            }
            (None, None) => None,
        };
        if let Some(name) = chosen {
            let Some(section) = profiles.and_then(|profiles| profiles.get(name)).and_then(Value::as_table) else {
                let error = Error::usage(format!("{}: there is no profile {name}", path.display()));
                let names: Vec<_> = profiles.into_iter().flat_map(|p| p.keys().map(String::as_str)).collect();
                return Err(match nearest(name, names.iter().copied()) {
                    Some(near) => error.hint(format!("did you mean {near}?")),
                    None if names.is_empty() => error.hint("profiles are sections [profiles.NAME] of it"),
                    None => error.hint(format!("there are: {}", names.join(", "))),
                });
            };
            self.add_section(&own, &format!("profiles.{name}."), section, &Origin::Profile(name.to_owned()))?;
        }
        let common: Table = table
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "profile" | "profiles"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        self.add_section(&own, "", &common, &Origin::File(path.to_owned()))
    }

    fn add_section(&mut self, file: &File<'_>, place: &str, section: &Table, origin: &Origin) -> Result<()> {
        for (key, value) in section {
            match (key.as_str(), value) {
                ("properties" | "set", Value::Table(pairs)) => {
                    for (name, value) in pairs {
                        let text = scalar(value)
                            .ok_or_else(|| file.wrong(&format!("{place}{key}.{name}"), "a text in quotes"))?;
                        self.add(&format!("{key}.{name}"), &text, origin.clone());
                    }
                }
                ("properties" | "set", _) => return Err(file.wrong(&format!("{place}{key}"), "a section")),
                ("brokers" | "output", Value::String(text)) => self.add(key, text, origin.clone()),
                ("brokers" | "output", _) => return Err(file.wrong(&format!("{place}{key}"), "a text in quotes")),
                _ => {
                    let error = Error::usage(format!("{}: there is no setting {place}{key}", file.path.display()));
                    return Err(match nearest(key, KEYS) {
                        Some(near) => error.hint(format!("did you mean {near}?")),
                        None => error.hint(format!("there are {}, profile and [profiles.NAME]", KEYS.join(", "))),
                    });
                }
            }
        }
        Ok(())
    }
}

struct File<'a> {
    path: &'a Path,
    table: &'a Table,
}

impl File<'_> {
    fn profiles(&self) -> Result<Option<&Table>> {
        match self.table.get("profiles") {
            None => Ok(None),
            Some(Value::Table(profiles)) => Ok(Some(profiles)),
            Some(_) => Err(self.wrong("profiles", "sections [profiles.NAME]")),
        }
    }

    /// The value is not repeated: it may be a password.
    fn wrong(&self, key: &str, want: &str) -> Error {
        Error::usage(format!("{}: {key} must be {want}", self.path.display()))
    }
}

/// A value as text. Names with dots that stand without quotes are tables in TOML, and no values.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}
