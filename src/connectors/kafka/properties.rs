//! Client properties: what stands under `'properties.*'`, checked and handed to librdkafka.
//!
//! Scripts written for Java's clients name properties that librdkafka does not have. Those that are only about Java
//! are ignored with a notice, those that have another name here are renamed, and those that would silently change who
//! may connect are refused with what to write instead. Values are never shown: any of them may be a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::{EMBEDDED, Embedded};
use crate::catalog::options::{Options, nearest};
use crate::catalog::secrets;
use crate::connectors::Defaults;
use crate::error::{Error, Result};

/// The prefix of client properties among a table's options.
pub const PREFIX: &str = "properties.";

/// Properties of Java's clients that change nothing here.
const IGNORED: &[&str] = &[
    "auto.include.jmx.reporter",
    "buffer.memory",
    "client.id.prefix",
    "commit.offsets.on.checkpoint",
    "default.api.timeout.ms",
    "exclude.internal.topics",
    "interceptor.classes",
    "key.deserializer",
    "key.serializer",
    "max.block.ms",
    "max.poll.records",
    "metric.reporters",
    "metrics.num.samples",
    "metrics.recording.level",
    "metrics.sample.window.ms",
    "partition.discovery.interval.ms",
    "partitioner.adaptive.partitioning.enable",
    "partitioner.availability.timeout.ms",
    "partitioner.class",
    "partitioner.ignore.keys",
    "register.consumer.metrics",
    "security.providers",
    "ssl.enabled.protocols",
    "ssl.keystore.type",
    "ssl.protocol",
    "ssl.provider",
    "ssl.secure.random.implementation",
    "throw.on.fetch.stable.offset.unsupported",
    "value.deserializer",
    "value.serializer",
];

/// Java's name, or one of several of librdkafka's own, and the one that is used here: a setting must not stand in a
/// configuration under two names, as the one that counts would be left to chance.
const RENAMED: &[(&str, &str)] = &[
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("fetch.max.wait.ms", "fetch.wait.max.ms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("max.request.size", "message.max.bytes"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("receive.buffer.bytes", "socket.receive.buffer.bytes"),
    ("request.required.acks", "acks"),
    ("retries", "message.send.max.retries"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("send.buffer.bytes", "socket.send.buffer.bytes"),
    ("ssl.keystore.certificate.chain", "ssl.certificate.pem"),
    ("ssl.keystore.key", "ssl.key.pem"),
    ("ssl.truststore.certificates", "ssl.ca.pem"),
];

/// Properties that cannot be honoured, with what to write instead.
const REFUSED: &[(&str, &str)] = &[
    (
        "sasl.jaas.config",
        "set 'properties.sasl.username' and 'properties.sasl.password' in its place (with 'properties.sasl.mechanism')",
    ),
    (
        "sasl.client.callback.handler.class",
        "Java classes cannot run here; for OAuth set 'properties.sasl.oauthbearer.method' = 'oidc'",
    ),
    (
        "sasl.login.callback.handler.class",
        "Java classes cannot run here; for OAuth set 'properties.sasl.oauthbearer.method' = 'oidc'",
    ),
    ("sasl.login.class", "Java classes cannot run here"),
    (
        "ssl.truststore.location",
        "a Java trust store cannot be read here: export its certificates as PEM and set 'properties.ssl.ca.location'",
    ),
    (
        "ssl.truststore.password",
        "a Java trust store cannot be read here: export its certificates as PEM and set 'properties.ssl.ca.location'",
    ),
    (
        "ssl.truststore.type",
        "a Java trust store cannot be read here: export its certificates as PEM and set 'properties.ssl.ca.location'",
    ),
    ("ssl.engine.factory.class", "Java classes cannot run here"),
    ("plugin.library.paths", "loading code through a table's options is not allowed"),
    ("transactional.id", "the engine chooses it: it names the job's state"),
];

/// Properties that the engine owns: a script's value is heard where it has a meaning, and goes no further.
const OWNED: &[&str] = &["auto.offset.reset", "enable.auto.commit", "enable.partition.eof", "enable.auto.offset.store"];

/// What librdkafka knows, for hints only: whether a name is right is librdkafka's own decision.
#[rustfmt::skip]
const KNOWN: &[&str] = &[
    "acks", "allow.auto.create.topics", "api.version.fallback.ms", "api.version.request",
    "api.version.request.timeout.ms", "auto.commit.enable", "auto.commit.interval.ms", "auto.offset.reset",
    "batch.num.messages", "batch.size", "bootstrap.servers", "broker.address.family", "broker.address.ttl",
    "broker.version.fallback", "builtin.features", "check.crcs", "client.dns.lookup", "client.id", "client.rack",
    "compression.codec", "compression.level", "compression.type", "connections.max.idle.ms",
    "consume.callback.max.messages", "coordinator.query.interval.ms", "debug", "delivery.report.only.error",
    "delivery.timeout.ms", "enable.auto.commit", "enable.auto.offset.store", "enable.gapless.guarantee",
    "enable.idempotence", "enable.metrics.push", "enable.partition.eof", "enable.random.seed",
    "enable.sasl.oauthbearer.unsecure.jwt", "enable.ssl.certificate.verification", "fetch.error.backoff.ms",
    "fetch.max.bytes", "fetch.message.max.bytes", "fetch.min.bytes", "fetch.queue.backoff.ms", "fetch.wait.max.ms",
    "group.id", "group.instance.id", "group.protocol", "group.protocol.type", "group.remote.assignor",
    "heartbeat.interval.ms", "https.ca.location", "https.ca.pem", "internal.termination.signal", "isolation.level",
    "linger.ms", "log.connection.close", "log.thread.name", "max.in.flight", "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes", "max.poll.interval.ms", "message.copy.max.bytes", "message.max.bytes",
    "message.send.max.retries", "message.timeout.ms", "metadata.broker.list", "metadata.max.age.ms",
    "metadata.recovery.rebootstrap.trigger.ms", "metadata.recovery.strategy", "offset.store.method",
    "offset.store.path", "offset.store.sync.interval.ms", "partition.assignment.strategy", "partitioner",
    "produce.offset.report", "queue.buffering.backpressure.threshold", "queue.buffering.max.kbytes",
    "queue.buffering.max.messages", "queue.buffering.max.ms", "queued.max.messages.kbytes", "queued.min.messages",
    "queuing.strategy", "receive.message.max.bytes", "reconnect.backoff.jitter.ms", "reconnect.backoff.max.ms",
    "reconnect.backoff.ms", "request.required.acks", "request.timeout.ms", "retries", "retry.backoff.max.ms",
    "retry.backoff.ms", "sasl.kerberos.keytab", "sasl.kerberos.kinit.cmd", "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal", "sasl.kerberos.service.name", "sasl.mechanism", "sasl.mechanisms",
    "sasl.oauthbearer.assertion.algorithm", "sasl.oauthbearer.assertion.claim.aud",
    "sasl.oauthbearer.assertion.claim.exp.seconds", "sasl.oauthbearer.assertion.claim.iss",
    "sasl.oauthbearer.assertion.claim.jti.include", "sasl.oauthbearer.assertion.claim.nbf.seconds",
    "sasl.oauthbearer.assertion.claim.sub", "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file", "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.private.key.passphrase", "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.config",
    "sasl.oauthbearer.extensions", "sasl.oauthbearer.grant.type", "sasl.oauthbearer.metadata.authentication.type",
    "sasl.oauthbearer.method", "sasl.oauthbearer.scope", "sasl.oauthbearer.token.endpoint.url", "sasl.password",
    "sasl.username", "security.protocol", "session.timeout.ms", "socket.blocking.max.ms",
    "socket.connection.setup.timeout.ms", "socket.keepalive.enable", "socket.max.fails", "socket.nagle.disable",
    "socket.receive.buffer.bytes", "socket.send.buffer.bytes", "socket.timeout.ms", "ssl.ca.certificate.stores",
    "ssl.ca.location", "ssl.ca.pem", "ssl.certificate.location", "ssl.certificate.pem", "ssl.cipher.suites",
    "ssl.crl.location", "ssl.curves.list", "ssl.endpoint.identification.algorithm", "ssl.engine.id",
    "ssl.engine.location", "ssl.key.location", "ssl.key.password", "ssl.key.pem", "ssl.keystore.location",
    "ssl.keystore.password", "ssl.providers", "ssl.sigalgs.list", "statistics.interval.ms",
    "sticky.partitioning.linger.ms", "topic.blacklist", "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.fast.cnt", "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms", "topic.metadata.refresh.sparse", "transaction.timeout.ms",
    "transactional.id",
];

/// What becomes of one property.
enum Checked {
    /// Handed to librdkafka under this name.
    Passed(String, String),
    /// The engine's own business.
    Owned,
    /// Ignored, with the sentence that says so.
    Ignored(String),
}

/// Checks one property (without its prefix).
fn check(key: &str, value: &str) -> Result<Checked> {
    if let Some((_, instead)) = REFUSED.iter().find(|(k, _)| *k == key) {
        return Err(Error::statement(format!("the client property '{PREFIX}{key}' is not available")).hint(*instead));
    }
    if IGNORED.contains(&key) || key.starts_with("sasl.login.refresh.") || key.starts_with("sasl.kerberos.ticket.") {
        return Ok(Checked::Ignored(format!("'{PREFIX}{key}' has no meaning here and is ignored")));
    }
    if OWNED.contains(&key) {
        return Ok(Checked::Owned);
    }
    let key = RENAMED.iter().find(|(java, _)| *java == key).map_or(key, |(_, ours)| ours);
    // Java switches the check of the host name off with an empty value.
    let value = if key == "ssl.endpoint.identification.algorithm" && value.is_empty() { "none" } else { value };
    if key == "ssl.keystore.location" && value.ends_with(".jks") {
        return Err(Error::statement("a Java key store (.jks) cannot be read")
            .hint("convert it to PKCS#12 (.p12), or set 'properties.ssl.certificate.location' and 'properties.ssl.key.location'"));
    }
    match ClientConfig::new().set(key, value).create_native_config() {
        Ok(_) => Ok(Checked::Passed(key.to_owned(), value.to_owned())),
        Err(KafkaError::ClientConfig(result, ..)) if format!("{result:?}").contains("UNKNOWN") => {
            let error = Error::statement(format!("there is no client property '{PREFIX}{key}'"));
            Err(match nearest(key, KNOWN.iter().copied()) {
                Some(near) => error.hint(format!("did you mean '{PREFIX}{near}'?")),
                None => error.hint("the properties are librdkafka's; see its CONFIGURATION.md"),
            })
        }
        // librdkafka's text for an invalid value repeats the value, which may be secret.
        Err(_) => Err(Error::statement(format!("the value of '{PREFIX}{key}' is not valid"))
            .hint("the properties are librdkafka's; see its CONFIGURATION.md for what it may be")),
    }
}

/// The notice for a property (without its prefix) that is accepted and changes nothing, if it is one.
pub fn property_notice(key: &str, value: &str) -> Result<Option<String>> {
    Ok(match check(key, value)? {
        Checked::Ignored(notice) => Some(notice),
        Checked::Owned if key != "auto.offset.reset" => {
            Some(format!("'{PREFIX}{key}' is the engine's own setting and is ignored"))
        }
        Checked::Passed(key, value) if key == "enable.ssl.certificate.verification" && value == "false" => {
            Some(format!("'{PREFIX}{key}' = 'false': anyone on the way can pose as the broker"))
        }
        Checked::Passed(key, value) if key == "security.protocol" && value.eq_ignore_ascii_case("sasl_plaintext") => {
            Some(format!("'{PREFIX}{key}' = '{value}': credentials and data travel unencrypted"))
        }
        _ => None,
    })
}

/// How to reach a cluster. Printing it shows names, never values.
#[derive(Clone, Default)]
pub struct ClientProperties {
    pairs: BTreeMap<String, String>,
    owned: BTreeMap<String, String>,
    embedded: Option<Arc<Embedded>>,
}

impl fmt::Debug for ClientProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.pairs.keys()).finish()
    }
}

impl ClientProperties {
    /// The properties of a table, completed from the engine's defaults.
    pub fn of_table(options: &Options, defaults: &Defaults) -> Result<Self> {
        let own = options.with_prefix(PREFIX).map(|(k, v)| (k.to_owned(), v.to_owned()));
        Self::new(own, defaults)
    }

    /// The engine's defaults alone: for commands that name no table.
    pub fn of_defaults(defaults: &Defaults) -> Result<Self> {
        Self::new(std::iter::empty(), defaults)
    }

    fn new(own: impl Iterator<Item = (String, String)>, defaults: &Defaults) -> Result<Self> {
        let mut merged = defaults.properties.clone();
        if let Some(brokers) = &defaults.brokers {
            merged.insert("bootstrap.servers".to_owned(), brokers.clone());
        }
        merged.extend(own);
        let mut properties = Self::default();
        for (key, value) in merged {
            let value = secrets::resolve(&key, &value)?;
            match check(&key, &value)? {
                Checked::Passed(key, value) => {
                    properties.pairs.insert(key, value);
                }
                Checked::Owned => {
                    properties.owned.insert(key, value.into_owned());
                }
                Checked::Ignored(notice) => tracing::debug!("{notice}"),
            }
        }
        properties.resolve_embedded(defaults)?;
        Ok(properties)
    }

    /// `embedded`, or nothing at all, means the broker inside this process.
    fn resolve_embedded(&mut self, defaults: &Defaults) -> Result<()> {
        let named = self.pairs.get("bootstrap.servers");
        let embedded = match named.map(|b| b.trim()) {
            Some(EMBEDDED) => defaults.embedded.as_ref().ok_or_else(|| {
                Error::usage("no embedded broker is running").hint("start with the embedded broker, or name a real one")
            })?,
            Some("") => return Err(Error::statement("'properties.bootstrap.servers' is empty").hint(BROKERS_HINT)),
            Some(_) => return Ok(()),
            None => defaults.embedded.as_ref().ok_or_else(|| {
                Error::statement("the option 'properties.bootstrap.servers' is missing").hint(BROKERS_HINT)
            })?,
        };
        self.pairs.insert("bootstrap.servers".to_owned(), embedded.brokers()?.to_owned());
        self.embedded = Some(Arc::clone(embedded));
        Ok(())
    }

    /// The same, without holding on to a broker inside this process.
    pub(super) fn without_broker(&self) -> Self {
        Self { embedded: None, ..self.clone() }
    }

    /// `host:port,host:port`.
    pub fn brokers(&self) -> &str {
        self.pairs.get("bootstrap.servers").map_or("", String::as_str)
    }

    /// The consumer group, if one is named.
    pub fn group(&self) -> Option<&str> {
        self.pairs.get("group.id").map(String::as_str).filter(|g| !g.is_empty())
    }

    /// The broker inside this process, if these properties lead there.
    pub fn embedded(&self) -> Option<&Arc<Embedded>> {
        self.embedded.as_ref()
    }

    /// The value of a property that librdkafka gets.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.pairs.get(key).map(String::as_str)
    }

    /// The value of a property that the engine owns.
    pub(super) fn owned(&self, key: &str) -> Option<&str> {
        self.owned.get(key).map(String::as_str)
    }

    /// A configuration: `defaults`, then what the user set, then `forced`.
    pub(super) fn config(&self, defaults: &[(&str, &str)], forced: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "tidemill");
        // Half of it is also how long a new client waits between its first connections; it grows with each attempt.
        config.set("reconnect.backoff.ms", "20");
        for (key, value) in defaults {
            config.set(*key, *value);
        }
        config.extend(self.pairs.iter().map(|(k, v)| (k.clone(), v.clone())));
        for (key, value) in forced {
            config.set(*key, *value);
        }
        // What is worth saying is said through `tracing`, which filters better than a level fixed here.
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }
}

/// The names of client properties.
pub fn property_names() -> &'static [&'static str] {
    KNOWN
}

const BROKERS_HINT: &str =
    "add 'properties.bootstrap.servers' = 'host:9092' to WITH (..), or start with --brokers host:9092";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let text = |key: &str, value: &str| match check(key, value) {
            Ok(Checked::Passed(k, v)) => format!("{k}={v}"),
            Ok(Checked::Owned) => "owned".to_owned(),
            Ok(Checked::Ignored(_)) => "ignored".to_owned(),
            Err(e) => format!("{e}; {}", e.hint.clone().unwrap_or_default()),
        };
        for (key, value, want) in [
            ("fetch.min.bytes", "10", "fetch.min.bytes=10"),
            ("fetch.max.wait.ms", "10", "fetch.wait.max.ms=10"),
            ("auto.offset.reset", "none", "owned"),
            ("max.poll.records", "5", "ignored"),
            ("key.deserializer", "org.Foo", "ignored"),
            ("ssl.endpoint.identification.algorithm", "", "ssl.endpoint.identification.algorithm=none"),
            (
                "fetch.min.byte",
                "10",
                "there is no client property 'properties.fetch.min.byte'; did you mean 'properties.fetch.min.bytes'?",
            ),
        ] {
            assert_eq!(text(key, value), want, "{key}");
        }
        assert!(text("sasl.jaas.config", "canary").contains("sasl.username"));
        assert!(!text("security.protocol", "canary").contains("canary"));
    }

    #[test]
    fn printing_hides_values() {
        let defaults = Defaults {
            brokers: Some("a:1".into()),
            properties: [("sasl.password".to_owned(), "canary".to_owned())].into(),
            ..Defaults::default()
        };
        let properties = ClientProperties::of_defaults(&defaults).unwrap();
        assert!(!format!("{properties:?} {defaults:?}").contains("canary"));
        assert_eq!(properties.brokers(), "a:1");
    }
}
