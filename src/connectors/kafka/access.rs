//! Why a broker does not do what it is asked for, in words for whoever must act: nobody answers, TLS fails, a login is
//! refused, a user may not do something.

use std::sync::LazyLock;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use regex::Regex;

use super::properties::{ClientProperties, PREFIX};
use super::tls;
use crate::error::Error;

/// What is known about why a broker cannot be reached.
#[derive(Clone, Debug)]
pub struct Report {
    /// librdkafka's class of the error.
    pub code: RDKafkaErrorCode,
    /// Its text; names hosts and ports, no credentials.
    pub text: String,
}

impl Report {
    /// A report of librdkafka's, judged by what has happened rather than by where it was noticed.
    pub fn new(code: RDKafkaErrorCode, reason: &str) -> Self {
        use RDKafkaErrorCode::{Authentication, BrokerTransportFailure, SSL};
        let is_gone = ["Disconnected", "timed out", "Connection reset"].iter().any(|word| reason.contains(word));
        let code = match code {
            // A port without TLS hangs up in the middle of the handshake, and a refused certificate of the client is
            // noticed behind it; librdkafka takes both for broken connections.
            BrokerTransportFailure if reason.contains("SSL handshake failed") => SSL,
            BrokerTransportFailure if reason.contains("SSL routines") && reason.contains("alert") => SSL,
            // A broker that goes down during a login has not refused it.
            Authentication if is_gone => BrokerTransportFailure,
            code => code,
        };
        Self { code, text: plain_words(reason) }
    }
}

/// A reason without what librdkafka puts around it: `ssl://host:9093/bootstrap: .. (after 7ms in state CONNECT)`.
fn plain_words(reason: &str) -> String {
    static AROUND: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^\w+://\S+: |SASL authentication error: | \(after \d+ms in state \w+(?:, \d+ identical error\(s\) suppressed)?\)").expect("a constant pattern")
    });
    AROUND.replace_all(reason, "").trim().to_owned()
}

impl ClientProperties {
    fn protocol(&self) -> &str {
        self.get("security.protocol").unwrap_or("plaintext")
    }

    /// Whether connections are secured by TLS.
    pub fn has_tls(&self) -> bool {
        self.protocol().to_ascii_lowercase().ends_with("ssl")
    }

    /// Who asks, by Kafka's name: `User:alice`.
    pub fn principal(&self) -> String {
        if self.protocol().to_ascii_lowercase().starts_with("sasl") {
            return self.get("sasl.username").map_or("this user".to_owned(), |user| format!("User:{user}"));
        }
        let name = self.has_tls().then(|| tls::client_name(self)).flatten();
        format!("User:{}", name.as_deref().unwrap_or("ANONYMOUS"))
    }

    /// The error for something that this user may not do: `read topic "t"`, and what that takes: `READ on topic "t"`.
    pub(super) fn denied(&self, deed: &str, grants: &str) -> Error {
        let principal = self.principal();
        Error::upstream(format!("the broker at {} does not let {principal} {deed}", self.brokers()))
            .hint(format!("an administrator of the broker must grant {principal} {grants}"))
    }

    /// The error that a report leads to, if waiting longer cannot help.
    pub(super) fn verdict(&self, report: &Report) -> Option<Error> {
        match report.code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                Some(self.login_refused(&report.text))
            }
            RDKafkaErrorCode::SSL => match tls::shake_hands(self) {
                Err(error) if !error.is_transient => Some(error),
                _ => None,
            },
            _ => None,
        }
    }

    /// The error for a broker that speaks TLS to a client that does not, and so never answers it.
    pub(super) fn missing_tls(&self) -> Option<Error> {
        let is_missing = !self.has_tls() && tls::is_spoken(self);
        is_missing.then(|| {
            Error::upstream(format!(
                "the broker at {} cannot be reached over TLS: it speaks TLS at this port, and the client is not told to",
                self.brokers()
            ))
            .hint("set 'properties.security.protocol' to SSL, or to SASL_SSL with a login; or name the port without TLS")
        })
    }

    fn login_refused(&self, text: &str) -> Error {
        static MECHANISMS: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"handshake failed: .*?: broker's supported mechanisms: *(.*)$").expect("a constant pattern")
        });
        let brokers = self.brokers();
        let mechanism = self.get("sasl.mechanism").or_else(|| self.get("sasl.mechanisms")).unwrap_or("GSSAPI");
        let refused =
            |what: &str| Error::upstream(format!("the broker at {brokers} does not accept the credentials{what}"));
        if let Some(parts) = MECHANISMS.captures(text) {
            let there = parts[1].trim();
            return if there.is_empty() {
                refused(": it takes no login at this port").hint(
                    "check the port, and 'properties.security.protocol': without a login it is SSL, or PLAINTEXT without TLS",
                )
            } else {
                refused(&format!(": it takes no logins by {mechanism}"))
                    .hint(format!("set 'properties.sasl.mechanism' to what it has: {there}"))
            };
        }
        let of = self.get("sasl.username").map_or(String::new(), |user| format!(" of user \"{user}\""));
        refused(&format!("{of}, by {mechanism}: {text}")).hint(
            "check 'properties.sasl.username', 'properties.sasl.password' and 'properties.sasl.mechanism'; an administrator \
             of the broker sets passwords, for each mechanism its own",
        )
    }

    /// The error for a question that got no answer in time.
    pub(super) fn unreachable(&self, cause: Option<&Report>, waited: Duration) -> Error {
        if let Some(error) = cause.and_then(|report| self.verdict(report)) {
            return error;
        }
        let brokers = self.brokers();
        let text = cause.map(|report| format!(": {}", report.text)).unwrap_or_default();
        match cause.map(|report| report.code) {
            Some(RDKafkaErrorCode::Resolve) => {
                return Error::upstream(format!("the name of the broker at {brokers} cannot be resolved{text}"))
                    .hint("check the host in 'properties.bootstrap.servers', and that the name resolves here")
                    .transient();
            }
            Some(RDKafkaErrorCode::SSL) => {
                return Error::upstream(format!("the broker at {brokers} cannot be reached over TLS{text}"))
                    .hint("check 'properties.security.protocol' and 'properties.ssl.*'; `tidemill doctor` looks at each step")
                    .transient();
            }
            _ => {}
        }
        Error::upstream(format!("no broker answered at {brokers} within {} s{text}", waited.as_secs()))
            .hint("is it running, and is this its address? 'properties.bootstrap.servers' or --brokers names it")
            .transient()
    }
}

/// What to say about a client that librdkafka refuses to make. Its text names the property, and repeats a value only for
/// settings that contradict each other, which are never secrets.
pub(super) fn client_error(error: &KafkaError, properties: &ClientProperties) -> Error {
    let text = match error {
        KafkaError::ClientCreation(text) => text,
        KafkaError::ClientConfig(_, _, key, _) => {
            return Error::statement(format!("the value of '{PREFIX}{key}' is not valid"));
        }
        _ => return Error::upstream(format!("the Kafka client cannot be made: {error}")),
    };
    if let Some((key, _)) = text.split_once(" failed: ").filter(|(key, _)| key.starts_with("ssl.")) {
        return unusable(key, text, properties);
    }
    if text.contains("No provider for SASL mechanism") {
        let mechanism = properties.get("sasl.mechanism").or_else(|| properties.get("sasl.mechanisms"));
        let what = match mechanism {
            Some(mechanism) => format!("the login {mechanism} is not available here"),
            None => "a login needs its mechanism, and none is named".to_owned(),
        };
        return Error::usage(what)
            .hint("set 'properties.sasl.mechanism' to SCRAM-SHA-512, SCRAM-SHA-256, PLAIN or OAUTHBEARER");
    }
    Error::statement(format!("the Kafka client cannot be made: {text}"))
        .hint("two client properties contradict each other, or a file that they name cannot be read")
}

/// The error for a certificate, or a key, that cannot be used.
fn unusable(key: &str, text: &str, properties: &ClientProperties) -> Error {
    let named = format!("'{PREFIX}{key}'");
    let file = properties.get(key).filter(|_| key.ends_with(".location"));
    if let Some(Err(error)) = file.map(std::fs::File::open) {
        let file = file.unwrap_or_default();
        return Error::usage(format!("the file that {named} names cannot be read: {file}: {error}"))
            .hint("the path is one of this machine, and whoever runs tidemill must be allowed to read it");
    }
    if text.contains("key values mismatch") {
        return Error::usage(format!("the key in {named} is not that of the client's certificate")).hint(
            "'properties.ssl.certificate.location' and 'properties.ssl.key.location' name two halves of one pair",
        );
    }
    let hint = if key.contains("key") {
        "it must hold a private key (PEM; PKCS#12 for a key store), and 'properties.ssl.key.password' (for a key store \
         'properties.ssl.keystore.password') the password that opens it"
    } else {
        "it must hold certificates (PEM)"
    };
    Error::usage(format!("what {named} holds cannot be used")).hint(hint)
}

/// The error for a consumer group that this user may not use.
pub(super) fn denied_group(properties: &ClientProperties) -> Error {
    let group = properties.group().unwrap_or("tidemill");
    properties.denied(&format!("use the consumer group \"{group}\""), &format!("READ on group \"{group}\""))
}

/// The error for a question that the broker refuses this user, if that is why: `what` is asked for.
pub(super) fn refused_question(code: RDKafkaErrorCode, what: &str, properties: &ClientProperties) -> Option<Error> {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            Some(properties.denied(&format!("see {what}"), "DESCRIBE on the topic"))
        }
        RDKafkaErrorCode::GroupAuthorizationFailed => Some(denied_group(properties)),
        RDKafkaErrorCode::ClusterAuthorizationFailed => {
            Some(properties.denied(&format!("see {what}"), "DESCRIBE on the cluster"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_told_without_the_client_s_own_words() {
        fn check(reason: &str, want: &str) {
            assert_eq!(plain_words(reason), want);
        }
        check(
            "sasl_ssl://h:1/bootstrap: SASL authentication error: no (after 3ms in state AUTH_REQ, 1 identical error(s) suppressed)",
            "no",
        );
        check("h:1/1: Connect failed: refused (after 0ms in state CONNECT)", "h:1/1: Connect failed: refused");
    }

    #[test]
    fn a_connection_that_breaks_is_no_refusal() {
        use RDKafkaErrorCode::{Authentication, BrokerTransportFailure, SSL};
        fn check(code: RDKafkaErrorCode, reason: &str, want: RDKafkaErrorCode) {
            assert_eq!(Report::new(code, reason).code, want, "{reason}");
        }
        check(Authentication, "SASL error: Disconnected", BrokerTransportFailure);
        check(Authentication, "SASL authentication error: invalid credentials", Authentication);
        check(BrokerTransportFailure, "SSL handshake failed: Disconnected", SSL);
        check(BrokerTransportFailure, "error:0A000412:SSL routines::ssl/tls alert bad certificate", SSL);
        check(BrokerTransportFailure, "Disconnected", BrokerTransportFailure);
    }
}
