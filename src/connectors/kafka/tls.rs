//! Why TLS fails: a handshake of our own, since librdkafka tells that one has failed and hardly why.
//!
//! Nothing is sent over such a connection but one question that every broker answers, without a login. All that is wrong
//! with a certificate is collected, so that what matters most can be said.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openssl::asn1::Asn1TimeRef;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{HandshakeError, SslConnector, SslMethod, SslStream, SslVerifyMode};
use openssl::x509::{X509, X509NameRef, X509Ref};

use super::properties::ClientProperties;
use crate::error::{Error, Result};

/// How long each step may take.
const WAIT: Duration = Duration::from_secs(2);

/// Where systems keep the authorities that they know; librdkafka looks there, too.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// OpenSSL's numbers of what is wrong with a certificate.
const NOT_YET_VALID: i32 = 9;
const EXPIRED: i32 = 10;
const OTHER_HOST: [i32; 2] = [62, 64];

/// A question for the versions of requests, which a broker answers before any login.
const QUESTION: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

/// Makes a handshake with a broker as these properties say, and tells of it: `TLSv1.3, with CN=kafka, valid until ..`.
///
/// The error is transient if nothing is known for sure: nobody answered, or somebody hung up.
pub fn shake_hands(properties: &ClientProperties) -> Result<String> {
    let mut last = None;
    for address in properties.brokers().split(',') {
        match (Handshake { properties, address: address.trim() }).make() {
            Err(error) if error.is_transient => last = Some(error),
            done => return done,
        }
    }
    Err(last.unwrap_or_else(|| Error::upstream("no broker is named").transient()))
}

/// Whether a broker speaks TLS where a client is told not to.
pub fn is_spoken(properties: &ClientProperties) -> bool {
    let speaks = |address: &str| {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).ok()?;
        builder.set_verify(SslVerifyMode::NONE);
        let configuration = builder.build().configure().ok()?.verify_hostname(false);
        configuration.connect(host_and_port(address).0, connect(address).ok()?).ok()
    };
    properties.brokers().split(',').any(|address| speaks(address.trim()).is_some())
}

/// The name in the client's certificate as Kafka has it, if it can be read.
pub fn client_name(properties: &ClientProperties) -> Option<String> {
    let (certificates, _) = client_certificate(properties)?.ok()?;
    certificates.first().map(|certificate| name(certificate.subject_name()))
}

struct Handshake<'a> {
    properties: &'a ClientProperties,
    address: &'a str,
}

impl Handshake<'_> {
    fn make(&self) -> Result<String> {
        let stream = connect(self.address)
            .map_err(|e| Error::upstream(format!("{} cannot be reached: {e}", self.address)).transient())?;
        let wrong = Arc::<Mutex<Vec<i32>>>::default();
        let connector = self.connector(&wrong).map_err(|e| self.failed(&e.to_string(), ""))?;
        let is_host_checked = self.properties.get("ssl.endpoint.identification.algorithm") != Some("none");
        let configuration = connector.configure().map_err(|e| self.failed(&e.to_string(), ""))?;
        let connected = configuration.verify_hostname(is_host_checked).connect(host_and_port(self.address).0, stream);
        let mut stream = match connected {
            Ok(stream) => stream,
            Err(HandshakeError::SetupFailure(error)) => return Err(self.failed(&error.to_string(), "")),
            Err(HandshakeError::Failure(half) | HandshakeError::WouldBlock(half)) => {
                return Err(self.refused(half.error()));
            }
        };
        let certificate = stream.ssl().peer_certificate();
        let is_checked = self.properties.get("enable.ssl.certificate.verification") != Some("false");
        if let (true, Some(certificate)) = (is_checked, &certificate) {
            self.judge(&wrong.lock().unwrap_or_else(PoisonError::into_inner), certificate)?;
        }
        // Whether the client's certificate is accepted is known only from what follows the handshake.
        if let Err(error) = ask(&mut stream) {
            return Err(error.ssl_error().map_or_else(|| self.hung_up(), |_| self.refused(&error)));
        }
        let of = certificate.map_or_else(String::new, |certificate| {
            format!(", with {}, valid until {}", name(certificate.subject_name()), day(certificate.not_after()))
        });
        Ok(format!("{}{of}", stream.ssl().version_str()))
    }

    /// Certificates are not judged on the way: what is wrong with them is only noted.
    fn connector(&self, wrong: &Arc<Mutex<Vec<i32>>>) -> Result<SslConnector, ErrorStack> {
        let mut builder = SslConnector::builder(SslMethod::tls_client())?;
        match (self.properties.get("ssl.ca.location"), self.properties.get("ssl.ca.pem")) {
            // What librdkafka has read already is read again; it may be a folder, too.
            (Some(file), _) => drop(builder.load_verify_locations(
                Some(file.as_ref()).filter(|_| !std::path::Path::new(file).is_dir()),
                Some(file.as_ref()).filter(|_| std::path::Path::new(file).is_dir()),
            )),
            (None, Some(pem)) => {
                for certificate in X509::stack_from_pem(pem.as_bytes())? {
                    builder.cert_store_mut().add_cert(certificate)?;
                }
            }
            (None, None) => AUTHORITIES.iter().for_each(|file| drop(builder.set_ca_file(file))),
        }
        if let Some(read) = client_certificate(self.properties) {
            let (certificates, key) = read?;
            let mut certificates = certificates.into_iter();
            if let Some(own) = certificates.next() {
                builder.set_certificate(&own)?;
                builder.set_private_key(&key)?;
            }
            for further in certificates {
                builder.add_extra_chain_cert(further)?;
            }
        }
        let wrong = Arc::clone(wrong);
        builder.set_verify_callback(SslVerifyMode::PEER, move |is_good, context| {
            if !is_good {
                wrong.lock().unwrap_or_else(PoisonError::into_inner).push(context.error().as_raw());
            }
            true
        });
        Ok(builder.build())
    }

    fn failed(&self, what: &str, hint: &str) -> Error {
        let error = Error::upstream(format!("the broker at {} cannot be reached over TLS: {what}", self.address));
        if hint.is_empty() { error.hint("check the client properties 'properties.ssl.*'") } else { error.hint(hint) }
    }

    /// What is wrong with the broker's certificate, and most wrong.
    fn judge(&self, wrong: &[i32], certificate: &X509Ref) -> Result<()> {
        let renew = "whoever runs the broker must renew it";
        if wrong.contains(&EXPIRED) {
            let when = day(certificate.not_after());
            return Err(self.failed(&format!("its certificate, or one that it rests on, has expired ({when})"), renew));
        }
        if wrong.contains(&NOT_YET_VALID) {
            let when = day(certificate.not_before());
            let hint = "see whether the clock here is right; else whoever runs the broker must replace it";
            return Err(self.failed(&format!("its certificate is not valid yet, but from {when} on"), hint));
        }
        if wrong.iter().any(|number| OTHER_HOST.contains(number)) {
            let (host, _) = host_and_port(self.address);
            return Err(self.failed(
                &format!("its certificate is for {}, and not for {host}", hosts(certificate)),
                "name the broker by a name of its certificate in 'properties.bootstrap.servers' and in the broker's \
                 advertised.listeners; or whoever runs the broker must get a certificate for this name",
            ));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let by = name(certificate.issuer_name());
        Err(self.failed(
            &format!("its certificate is signed by {by}, an authority that is not known here"),
            "ask whoever runs the broker for that authority's certificate, and name the file (PEM) in \
             'properties.ssl.ca.location'",
        ))
    }

    /// Why a handshake, or what came behind it, was broken off.
    fn refused(&self, error: &openssl::ssl::Error) -> Error {
        let Some(stack) = error.ssl_error() else { return self.hung_up() };
        let reason = stack.errors().iter().find_map(openssl::error::Error::reason).unwrap_or("it was broken off");
        let is_alert = reason.contains("alert");
        if is_alert && (reason.contains("certificate") || reason.contains("unknown ca")) {
            return match client_certificate(self.properties) {
                None => self.failed(
                    "the broker asks for a certificate of the client, and none is named",
                    "set 'properties.ssl.certificate.location' and 'properties.ssl.key.location' (PEM), or \
                     'properties.ssl.keystore.location' (PKCS#12); whoever runs the broker issues certificates",
                ),
                Some(read) => {
                    let of = read.ok().and_then(|(certificates, _)| {
                        let own = certificates.into_iter().next()?;
                        let (whom, by) = (name(own.subject_name()), name(own.issuer_name()));
                        Some(format!(" of {whom}, signed by {by}, valid until {}", day(own.not_after())))
                    });
                    let what = format!("the broker does not accept the client's certificate{}", of.unwrap_or_default());
                    self.failed(
                        &what,
                        "whoever runs the broker must trust the authority that signed it (ssl.truststore), or issue \
                         another one",
                    )
                }
            };
        }
        match reason {
            "wrong version number" | "unexpected eof while reading" | "packet length too long" => self.hung_up(),
            _ => self.failed(&format!("the handshake failed: {reason}"), ""),
        }
    }

    /// Somebody who hangs up may be going down, or may never have spoken TLS.
    fn hung_up(&self) -> Error {
        let plain = connect(self.address).ok().and_then(|mut stream| {
            stream.write_all(&QUESTION).ok()?;
            // Its length, and the number of the question.
            let mut head = [0; 8];
            stream.read_exact(&mut head).ok()?;
            (head[4..] == QUESTION[8..12]).then_some(())
        });
        if plain.is_none() {
            return self.failed("the connection was broken off", "").transient();
        }
        self.failed(
            "the broker does not speak TLS at this port",
            "check the port, and 'properties.security.protocol': without TLS it is PLAINTEXT, or SASL_PLAINTEXT with a \
             login; whoever runs the broker knows the port with TLS",
        )
    }
}

/// Sends a question, and waits for the beginning of its answer.
fn ask(stream: &mut SslStream<TcpStream>) -> Result<(), openssl::ssl::Error> {
    stream.ssl_write(&QUESTION)?;
    stream.ssl_read(&mut [0; 4]).map(drop)
}

/// Connects; each wait on the connection ends in time.
fn connect(address: &str) -> std::io::Result<TcpStream> {
    let (host, port) = host_and_port(address);
    let mut last = std::io::ErrorKind::AddrNotAvailable.into();
    for target in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&target, WAIT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(WAIT))?;
                stream.set_write_timeout(Some(WAIT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `SSL://host:9093` and `[::1]:9093`, taken apart.
fn host_and_port(address: &str) -> (&str, u16) {
    const PORT: u16 = 9092;
    let bare = address.rsplit("://").next().unwrap_or(address);
    let (host, port) = match bare.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(PORT)),
        _ => (bare, PORT),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// The client's certificates, its own first, with the key; `None` if the properties name none.
fn client_certificate(properties: &ClientProperties) -> Option<Result<(Vec<X509>, PKey<Private>), ErrorStack>> {
    // What cannot be read is as if it were empty, and then an error that says what is wrong.
    let text = |location: &str, pem: &str| {
        let file = properties.get(location).map(|file| std::fs::read(file).unwrap_or_default());
        file.or_else(|| properties.get(pem).map(|pem| pem.as_bytes().to_vec()))
    };
    if let Some(store) = properties.get("ssl.keystore.location") {
        let password = properties.get("ssl.keystore.password").unwrap_or_default();
        let read = Pkcs12::from_der(&std::fs::read(store).unwrap_or_default()).and_then(|store| store.parse2(password));
        let parsed = read.ok()?;
        let key = parsed.pkey?;
        let further = parsed.ca.into_iter().flatten();
        return Some(Ok((parsed.cert.into_iter().chain(further).collect(), key)));
    }
    let certificates = X509::stack_from_pem(&text("ssl.certificate.location", "ssl.certificate.pem")?);
    let password = properties.get("ssl.key.password").unwrap_or_default();
    let key = PKey::private_key_from_pem_passphrase(&text("ssl.key.location", "ssl.key.pem")?, password.as_bytes());
    Some(certificates.and_then(|certificates| Ok((certificates, key?))))
}

/// A name as Kafka writes it: `CN=kafka,O=us`, the last part first.
fn name(name: &X509NameRef) -> String {
    let mut parts: Vec<_> = name
        .entries()
        .filter_map(|entry| {
            Some(format!("{}={}", entry.object().nid().short_name().ok()?, entry.data().to_string().ok()?))
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// For whom a certificate is.
fn hosts(certificate: &X509Ref) -> String {
    let address = |bytes: &[u8]| {
        let v4 = <[u8; 4]>::try_from(bytes).map(|b| std::net::IpAddr::from(b).to_string());
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|b| std::net::IpAddr::from(b).to_string())).ok()
    };
    let mut hosts: Vec<String> = certificate
        .subject_alt_names()
        .into_iter()
        .flatten()
        .filter_map(|found| found.dnsname().map(str::to_owned).or_else(|| found.ipaddress().and_then(address)))
        .collect();
    if hosts.is_empty() {
        let common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next();
        hosts.extend(common.and_then(|entry| entry.data().to_string().ok()));
    }
    if hosts.is_empty() { "no host".to_owned() } else { hosts.join(", ") }
}

/// `Nov 24 05:00:00 2026 GMT`.
fn day(time: &Asn1TimeRef) -> String {
    time.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (address, want) in [
            ("kafka:9093", ("kafka", 9093)),
            ("SSL://kafka:9093", ("kafka", 9093)),
            ("kafka", ("kafka", 9092)),
            ("[::1]:9093", ("::1", 9093)),
            ("[::1]", ("::1", 9092)),
        ] {
            assert_eq!(host_and_port(address), want, "{address}");
        }
    }
}
