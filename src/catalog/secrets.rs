//! Which options may be shown, and secrets that are named rather than written.
//!
//! Client properties are shown only if they are on a list: a property that nobody thought of may be a password. A value may
//! name a secret in the place of holding it: `${env:NAME}` and `${file:/path}`; such a name is no secret.

use std::borrow::Cow;
use std::fs;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::error::{Error, Result};

/// What stands for a secret.
pub const MASK: &str = "******";

/// Client properties whose values tell nothing that others must not know.
#[rustfmt::skip]
const PRINTABLE: &[&str] = &[
    "acks", "allow.auto.create.topics", "api.version.request", "auto.commit.interval.ms", "auto.offset.reset",
    "batch.num.messages", "batch.size", "bootstrap.servers", "broker.address.family", "broker.address.ttl", "check.crcs",
    "client.dns.lookup", "client.id", "client.rack", "compression.codec", "compression.level", "compression.type",
    "connections.max.idle.ms", "debug", "delivery.timeout.ms", "enable.auto.commit", "enable.idempotence",
    "enable.ssl.certificate.verification", "fetch.error.backoff.ms", "fetch.max.bytes", "fetch.max.wait.ms",
    "fetch.message.max.bytes", "fetch.min.bytes", "fetch.wait.max.ms", "group.id", "group.instance.id",
    "heartbeat.interval.ms", "isolation.level", "linger.ms", "max.in.flight",
    "max.in.flight.requests.per.connection", "max.partition.fetch.bytes", "max.poll.interval.ms", "max.poll.records",
    "max.request.size", "message.max.bytes", "message.send.max.retries", "message.timeout.ms", "metadata.broker.list",
    "metadata.max.age.ms", "partitioner", "queue.buffering.max.kbytes", "queue.buffering.max.messages",
    "queue.buffering.max.ms", "queued.max.messages.kbytes", "queued.min.messages", "receive.message.max.bytes",
    "reconnect.backoff.max.ms", "reconnect.backoff.ms", "request.required.acks", "request.timeout.ms", "retries",
    "retry.backoff.max.ms", "retry.backoff.ms", "sasl.kerberos.principal", "sasl.kerberos.service.name",
    "sasl.mechanism", "sasl.mechanisms", "sasl.oauthbearer.method", "sasl.username", "security.protocol",
    "session.timeout.ms", "socket.connection.setup.timeout.ms", "socket.keepalive.enable",
    "socket.receive.buffer.bytes", "socket.send.buffer.bytes", "socket.timeout.ms", "ssl.ca.location",
    "ssl.certificate.location", "ssl.cipher.suites", "ssl.crl.location", "ssl.endpoint.identification.algorithm",
    "ssl.key.location", "ssl.keystore.location", "statistics.interval.ms", "topic.metadata.refresh.interval.ms",
    "transaction.timeout.ms",
];

/// Parts of other options' names that tell of a secret.
const MARKS: [&str; 10] = [
    "password",
    "passwd",
    "secret",
    "token",
    "jaas",
    "credential",
    "private",
    "api.key",
    "api-key",
    "basic-auth.user-info",
];

static REFERENCE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\$\{(env|file):([^}]+)\}").expect("a constant pattern"));

/// Whether a client property's value may be shown, by librdkafka's name or Java's.
pub fn is_printable_property(name: &str) -> bool {
    PRINTABLE.contains(&name.to_ascii_lowercase().as_str())
}

/// Whether an option's, or a setting's, value may be a secret, by its key.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    match key.strip_prefix("properties.").or_else(|| key.strip_prefix("kafka.")) {
        Some(property) => !is_printable_property(property),
        None => MARKS.iter().any(|mark| key.contains(mark)),
    }
}

/// A value as it may be shown.
pub fn shown(is_secret: bool, value: &str) -> &str {
    let names_only = REFERENCE.find(value).is_some_and(|found| found.as_str() == value);
    if is_secret && !names_only { MASK } else { value }
}

/// A text of statements with stars for the secrets in it, each as long as what it stands for.
pub fn masked(text: &str) -> Cow<'_, str> {
    static PAIR: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"'([^']*)'(\s*=\s*)'((?:[^']|'')*)'?").expect("a constant pattern"));
    PAIR.replace_all(text, |found: &Captures| {
        let (key, value) = (&found[1], &found[3]);
        if !is_secret(key) || shown(true, value) != MASK {
            return found[0].to_owned();
        }
        let end = &found[0][1 + key.len() + 1 + found[2].len() + 1 + value.len()..];
        format!("'{key}'{}'{}{end}", &found[2], "*".repeat(value.len()))
    })
}

/// A value with what it names in place of the names. `key` is whose value it is.
pub fn resolve<'a>(key: &str, value: &'a str) -> Result<Cow<'a, str>> {
    if !value.contains("${") {
        return Ok(Cow::Borrowed(value));
    }
    let mut failed = None;
    let resolved = REFERENCE.replace_all(value, |found: &Captures| {
        let named = read(&found[1], &found[2]);
        named.unwrap_or_else(|error| {
            failed.get_or_insert(error);
            String::new()
        })
    });
    match failed {
        None => Ok(resolved),
        Some(error) => Err(Error::usage(format!("'{key}' cannot be read: {}", error.message)).hint(HINT)),
    }
}

const HINT: &str = "${env:NAME} is a variable of the environment, ${file:/path} what a file holds";

fn read(kind: &str, name: &str) -> Result<String> {
    if kind == "env" {
        return std::env::var(name)
            .map_err(|_| Error::usage(format!("there is no variable {name} in the environment")));
    }
    let text = fs::read_to_string(name).map_err(|error| Error::usage(format!("{name}: {error}")))?;
    // Editors end files with a line break, which is no part of a password.
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_be_harmless_is_a_secret() {
        fn check(key: &str, want: bool) {
            assert_eq!(is_secret(key), want, "{key}");
        }
        check("properties.sasl.password", true);
        check("properties.sasl.jaas.config", true);
        check("kafka.sasl.oauthbearer.client.secret", true);
        check("properties.ssl.key.pem", true);
        check("properties.something.new", true);
        check("properties.ssl.key.location", false);
        check("properties.Bootstrap.Servers", false);
        check("avro-confluent.basic-auth.user-info", true);
        check("key.fields", false);
        check("topic", false);
    }

    #[test]
    fn secrets_in_statements_are_masked_in_their_length() {
        fn check(text: &str, want: &str) {
            assert_eq!(masked(text), want);
            assert_eq!(want.len(), text.len());
        }
        check(
            "WITH ('topic' = 't', 'properties.sasl.password'='it''s', 'a' = 'b')",
            "WITH ('topic' = 't', 'properties.sasl.password'='*****', 'a' = 'b')",
        );
        check("SET 'kafka.sasl.password' = 'open", "SET 'kafka.sasl.password' = '****");
        check("'properties.sasl.password' = '${env:PW}'", "'properties.sasl.password' = '${env:PW}'");
        check("WHERE a = 'b'", "WHERE a = 'b'");
    }

    #[test]
    fn names_of_secrets_are_shown_and_read() {
        assert_eq!(shown(true, "hunter2"), MASK);
        assert_eq!(shown(true, "${env:PW}"), "${env:PW}");
        assert_eq!(shown(true, "${env:PW}hunter2"), MASK);
        assert_eq!(shown(false, "x"), "x");
        assert_eq!(resolve("k", "plain $x").unwrap(), "plain $x");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "hunter2\n").unwrap();
        assert_eq!(resolve("k", &format!("a${{file:{}}}b", file.path().display())).unwrap(), "ahunter2b");
        let error = resolve("k", "${env:TIDEMILL_NO_SUCH_VARIABLE}").unwrap_err();
        assert!(error.message.contains("TIDEMILL_NO_SUCH_VARIABLE"), "{error}");
    }
}
