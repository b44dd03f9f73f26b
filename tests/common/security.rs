//! A broker that asks who is there: listeners with TLS, with client certificates and with logins; users, and what each
//! of them may do.
//!
//! Certificates are made anew for each broker. Permissions are granted by requests of our own, since rdkafka has none for
//! them and Kafka's tool takes seconds.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};

use super::broker::{Additions, Broker, REQUEST_TIMEOUT};

/// TLS, and whoever comes may do everything.
pub const TLS: &str = "TLS";
/// TLS, and clients have a certificate; the one of [`Security::client`] may do everything.
pub const MUTUAL: &str = "MUTUAL";
/// TLS and a login, by SCRAM-SHA-256, SCRAM-SHA-512 or PLAIN.
pub const LOGIN: &str = "LOGIN";
/// TLS, with a certificate for another host.
pub const ELSEWHERE: &str = "ELSEWHERE";
/// TLS, with a certificate that has expired.
pub const EXPIRED: &str = "EXPIRED";

const LISTENERS: [(&str, &str); 5] =
    [(TLS, "SSL"), (MUTUAL, "SSL"), (LOGIN, "SASL_SSL"), (ELSEWHERE, "SSL"), (EXPIRED, "SSL")];

/// Who may do everything, once logged in.
pub const ADMIN: (&str, &str) = ("admin", "canary-admin-5c1d");
/// Who may do only what is granted.
pub const ALICE: (&str, &str) = ("alice", "canary-alice-5c1d");

/// A broker as above, with the files that its clients need.
pub struct Security {
    pub broker: Broker,
    files: PathBuf,
}

/// The one that all tests of this run share.
pub fn secured() -> &'static Security {
    static SECURED: OnceLock<Security> = OnceLock::new();
    SECURED.get_or_init(Security::start)
}

impl Security {
    fn start() -> Self {
        let broker = Broker::start_adding(0, |directory| {
            write_files(directory);
            Additions {
                listeners: &LISTENERS,
                format: [ADMIN, ALICE].iter().flat_map(scram_users).collect(),
                properties: properties(directory),
            }
        });
        let files = broker.directory().expect("a broker of our own").to_owned();
        Self { broker, files }
    }

    /// A file of certificates or of a key: `ca.pem`, `other-ca.pem`, `client.pem`, `client.key`, `stranger.pem`,
    /// `stranger.key`.
    pub fn file(&self, name: &str) -> String {
        self.files.join(name).display().to_string()
    }

    /// Allows a user something.
    pub fn allow(&self, user: &str, resource: Resource<'_>, operations: &[Operation]) {
        operations.iter().for_each(|operation| self.change(CREATE_ACLS, &acl(user, resource, *operation, ALLOW)));
    }

    /// Something that [`ALICE`] may be denied, whatever she is allowed.
    pub fn deny_of(&self, resource: Resource<'_>, operation: Operation) -> Denial<'_> {
        Denial { security: self, acl: acl(ALICE.0, resource, operation, DENY) }
    }

    fn change(&self, kind: i16, acl: &[u8]) {
        let answer = self.ask(kind, acl);
        // After the time-out and the count comes the first answer's code.
        assert_eq!(answer[8..10], [0, 0], "{answer:?}");
    }

    /// Sends a request, of version 1 and with a list of one, and answers with what follows the head of the response.
    fn ask(&self, kind: i16, body: &[u8]) -> Vec<u8> {
        let mut request = [kind.to_be_bytes(), 1i16.to_be_bytes()].concat();
        // Its number, no name of the client, and how long the list is.
        request.extend([0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 1]);
        request.extend(body);
        let mut stream = TcpStream::connect(self.broker.addresses()).expect("a connection");
        stream.set_read_timeout(Some(REQUEST_TIMEOUT)).expect("a socket");
        let length = u32::try_from(request.len()).expect("small").to_be_bytes();
        stream.write_all(&[&length[..], &request].concat()).expect("a request");
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("an answer");
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).expect("an answer");
        answer.split_off(4)
    }
}

/// A denial that is set, and lifted again.
pub struct Denial<'a> {
    security: &'a Security,
    acl: Vec<u8>,
}

impl Denial<'_> {
    pub fn set(&self) {
        self.security.change(CREATE_ACLS, &self.acl);
    }

    pub fn lift(&self) {
        self.security.change(DELETE_ACLS, &self.acl);
    }
}

/// Kinds of requests.
const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;

const DENY: u8 = 2;
const ALLOW: u8 = 3;

/// What a permission is about.
#[derive(Clone, Copy, Debug)]
pub enum Resource<'a> {
    Topic(&'a str),
    TransactionalId(&'a str),
}

/// What may be done, by Kafka's numbers.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Describe = 8,
}

fn acl(user: &str, resource: Resource<'_>, operation: Operation, permission: u8) -> Vec<u8> {
    const LITERAL: u8 = 3;
    let (kind, name) = match resource {
        Resource::Topic(name) => (2, name),
        Resource::TransactionalId(name) => (5, name),
    };
    let text = |text: &str| [&u16::try_from(text.len()).expect("short").to_be_bytes()[..], text.as_bytes()].concat();
    let principal = text(&format!("User:{user}"));
    [vec![kind], text(name), vec![LITERAL], principal, text("*"), vec![operation as u8, permission]].concat()
}

/// Authorities, and what they have signed.
fn write_files(directory: &Path) {
    let at = |name: &str| directory.join(name);
    let (ours, other) = (Owner::authority("Tidemill's tests"), Owner::authority("somebody else"));
    ours.write_certificate(&at("ca.pem"));
    other.write_certificate(&at("other-ca.pem"));
    for (name, authority) in [("client", &ours), ("stranger", &other)] {
        let client = authority.issue(name, &[], 1);
        client.write_certificate(&at(&format!("{name}.pem")));
        client.write_key(&at(&format!("{name}.key")));
    }
    let here = ["127.0.0.1", "localhost"];
    ours.issue("broker", &here, 1).write_store(&at("broker.pem"));
    ours.issue("broker", &["elsewhere.example"], 1).write_store(&at("elsewhere.pem"));
    ours.issue("broker", &here, -1).write_store(&at("expired.pem"));
}

fn scram_users((user, password): &(&str, &str)) -> Vec<String> {
    let of = |mechanism: &str| format!("{mechanism}=[name={user},iterations=4096,password={password}]");
    ["SCRAM-SHA-256", "SCRAM-SHA-512"].iter().flat_map(|mechanism| ["--add-scram".to_owned(), of(mechanism)]).collect()
}

fn properties(files: &Path) -> String {
    let files = files.display();
    let plain: String = [ADMIN, ALICE].iter().map(|(user, password)| format!(" user_{user}=\"{password}\"")).collect();
    let module = "org.apache.kafka.common.security";
    format!(
        "ssl.keystore.type=PEM
ssl.keystore.location={files}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={files}/ca.pem
listener.name.mutual.ssl.client.auth=required
listener.name.elsewhere.ssl.keystore.type=PEM
listener.name.elsewhere.ssl.keystore.location={files}/elsewhere.pem
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location={files}/expired.pem
listener.name.login.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
listener.name.login.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.login.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;
listener.name.login.plain.sasl.jaas.config={module}.plain.PlainLoginModule required{plain};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:CN=client;User:{}
",
        ADMIN.0
    )
}

/// A certificate with its key.
struct Owner {
    certificate: X509,
    key: PKey<Private>,
}

impl Owner {
    /// One that signs others.
    fn authority(name: &str) -> Self {
        Self::new(name, &[], 1, None)
    }

    /// One that this one signs, for hosts; it is valid for so many days, or has been until so many days ago.
    fn issue(&self, name: &str, hosts: &[&str], days: i64) -> Self {
        Self::new(name, hosts, days, Some(self))
    }

    fn new(name: &str, hosts: &[&str], days: i64, issuer: Option<&Self>) -> Self {
        const DAY: i64 = 86_400;
        static SERIAL: AtomicU32 = AtomicU32::new(1);
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
        let key = PKey::from_ec_key(EcKey::generate(&curve).expect("a key")).expect("a key");
        let mut subject = X509Name::builder().expect("a name");
        subject.append_entry_by_nid(Nid::COMMONNAME, name).expect("a name");
        let subject = subject.build();
        let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()).expect("before 2262");
        let time = |days: i64| Asn1Time::from_unix(now + days * DAY).expect("a time");
        let serial = BigNum::from_u32(SERIAL.fetch_add(1, Ordering::Relaxed)).expect("a number");
        let mut builder = X509::builder().expect("a certificate");
        builder.set_version(2).expect("X.509 version 3");
        builder.set_serial_number(&serial.to_asn1_integer().expect("a number")).expect("a serial number");
        builder.set_subject_name(&subject).expect("a subject");
        builder.set_issuer_name(issuer.map_or(&*subject, |by| by.certificate.subject_name())).expect("an issuer");
        builder.set_pubkey(&key).expect("a key");
        builder.set_not_before(&time(-2)).expect("a time");
        builder.set_not_after(&time(days)).expect("a time");
        if issuer.is_none() {
            let constraint = BasicConstraints::new().critical().ca().build().expect("an extension");
            builder.append_extension(constraint).expect("an extension");
        }
        if !hosts.is_empty() {
            let mut names = SubjectAlternativeName::new();
            for host in hosts {
                if host.parse::<std::net::IpAddr>().is_ok() {
                    names.ip(host)
                } else {
                    names.dns(host)
                };
            }
            let names = names.build(&builder.x509v3_context(None, None)).expect("an extension");
            builder.append_extension(names).expect("an extension");
        }
        builder.sign(issuer.map_or(&key, |by| &by.key), MessageDigest::sha256()).expect("a signature");
        Self { certificate: builder.build(), key }
    }

    fn write_certificate(&self, path: &Path) {
        fs::write(path, self.certificate.to_pem().expect("PEM")).expect("a file");
    }

    fn write_key(&self, path: &Path) {
        fs::write(path, self.key.private_key_to_pem_pkcs8().expect("PEM")).expect("a file");
    }

    /// Both in one file.
    fn write_store(&self, path: &Path) {
        let parts = [self.key.private_key_to_pem_pkcs8(), self.certificate.to_pem()];
        fs::write(path, parts.map(|part| part.expect("PEM")).concat()).expect("a file");
    }
}
