//! Connections to a broker that asks who is there: TLS, certificates of clients, logins. Whoever is right gets through;
//! else the message says who must act and what to do, soon, and shows no secret.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::program::{Finished, Running, command};
use crate::common::security::{ADMIN, ALICE, ELSEWHERE, EXPIRED, LOGIN, MUTUAL, Security, TLS, secured};

/// No answer of the program may take longer, whatever is wrong.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A user's machine: a configuration file with one profile, and the files that it names.
pub struct Machine {
    home: tempfile::TempDir,
    /// What must not be seen.
    secrets: Vec<String>,
}

impl Machine {
    /// A profile for a listener of the broker.
    pub fn new(address: &str, properties: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        fs::create_dir(home.path().join("tidemill")).expect("a directory");
        let of = |(key, value): &(&str, &str)| format!("\"{key}\" = '{value}'\n");
        let properties: String = properties.iter().map(of).collect();
        let file = format!(
            "profile = \"p\"\n[profiles.p]\nbrokers = \"{address}\"\n[profiles.p.properties]\n\
             \"reconnect.backoff.max.ms\" = 500\n{properties}"
        );
        fs::write(home.path().join("tidemill/config.toml"), file).expect("a file");
        let mut secrets = vec![ADMIN.1.to_owned(), ALICE.1.to_owned(), "canary-wrong".to_owned()];
        // A line of a private key.
        let key = fs::read_to_string(secured().file("client.key")).expect("a key");
        secrets.extend(key.lines().nth(1).map(str::to_owned));
        Self { home, secrets }
    }

    /// One that logs in at the broker.
    pub fn logging_in(user: &str) -> Self {
        let mut properties = login("SCRAM-SHA-256", user, "${env:PASSWORD_OF_USER}");
        properties.push(("ssl.ca.location".to_owned(), secured().file("ca.pem")));
        Self::new(secured().broker.listener(LOGIN), &borrowed(&properties))
    }

    /// Starts the program; its user's password is in the environment.
    pub fn start(&self, password: &str, arguments: &[&str]) -> Running {
        let home = self.home.path();
        let mut command = command();
        command.env("XDG_CONFIG_HOME", home).env("XDG_STATE_HOME", home).env("PASSWORD_OF_USER", password);
        Running::start(command.args(arguments))
    }

    /// Runs it to its end, which must come soon, and looks for secrets in what it has printed.
    pub fn run(&self, password: &str, arguments: &[&str]) -> Finished {
        let finished = self.start(password, arguments).finish(WAIT_MAX);
        self.check(&finished);
        finished
    }

    pub fn check(&self, finished: &Finished) {
        let shown = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!self.secrets.iter().any(|secret| shown.contains(secret)), "a secret is shown");
    }
}

fn login(mechanism: &str, user: &str, password: &str) -> Vec<(String, String)> {
    let pairs = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", mechanism),
        ("sasl.username", user),
        ("sasl.password", password),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// What somebody has configured, and what comes of it.
struct Case {
    what: &'static str,
    listener: &'static str,
    properties: Vec<(String, String)>,
    /// The step that the doctor finds wrong; none if all is well.
    step: &'static str,
    code: i32,
    /// A part of the message, and of the hint.
    says: &'static str,
    hint: &'static str,
}

fn case(what: &'static str, listener: &'static str, properties: &[(&str, &str)]) -> Case {
    let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Case { what, listener, properties, step: "", code: 0, says: "", hint: "" }
}

impl Case {
    fn fails(mut self, step: &'static str, says: &'static str, hint: &'static str) -> Self {
        (self.step, self.code, self.says, self.hint) = (step, 3, says, hint);
        self
    }

    /// Fails because of something on this machine.
    fn fails_here(self, says: &'static str, hint: &'static str) -> Self {
        Self { code: 2, ..self.fails("client", says, hint) }
    }

    fn check(&self, security: &Security, topic: &str) {
        let broker = &security.broker;
        let address = if self.listener.is_empty() { broker.addresses() } else { broker.listener(self.listener) };
        let machine = Machine::new(address, &borrowed(&self.properties));
        let start = Instant::now();
        let described = machine.run(ADMIN.1, &["-c", &format!("DESCRIBE TOPIC '{topic}'")]);
        let doctor = machine.run(ADMIN.1, &["-o", "tsv", "doctor"]);
        let what = format!("{} ({:?}): {described:#?} {doctor:#?}", self.what, start.elapsed());
        assert_eq!((described.code, doctor.code), (self.code, self.code), "{what}");
        assert!(described.stderr.contains(self.says) && doctor.stdout.contains(self.says), "{what}");
        assert!(described.stderr.contains(self.hint) && doctor.stdout.contains(self.hint), "{what}");
        let bad: Vec<_> = doctor.stdout.lines().filter(|line| line.contains("\tbad\t")).collect();
        let wrong_step = bad.iter().find(|line| !line.starts_with(&format!("{}\t", self.step)));
        assert!(wrong_step.is_none() && bad.is_empty() == self.step.is_empty(), "{what}");
        // What the client library says among its own is not for people.
        for raw in ["SSL routines", "in state", "/bootstrap", "error:0"] {
            assert!(!described.stderr.contains(raw) && !doctor.stdout.contains(raw), "{raw}: {what}");
        }
    }
}

fn check_all(cases: &[Case]) {
    let security = secured();
    let topic = security.broker.topic("security", 1);
    std::thread::scope(|scope| {
        for part in cases.chunks(cases.len().div_ceil(4)) {
            scope.spawn(|| part.iter().for_each(|case| case.check(security, &topic)));
        }
    });
}

#[test]
fn tls_says_what_is_wrong_with_a_certificate() {
    let file = |name: &str| secured().file(name);
    let ca = file("ca.pem");
    let tls = [("security.protocol", "SSL"), ("ssl.ca.location", &*ca)];
    let pem = format!("${{file:{ca}}}");
    let (certificate, key) = (file("client.pem"), file("client.key"));
    let (stranger, strangers_key) = (file("stranger.pem"), file("stranger.key"));
    let named = format!("${{file:{key}}}");
    let with = |certificate: &str, kind: &str, key: &str| {
        let pairs = [tls[0], tls[1], ("ssl.certificate.location", certificate), (kind, key)];
        case("with a certificate", MUTUAL, &pairs)
    };
    let unknown = "signed by CN=Tidemill's tests, an authority that is not known here";
    check_all(&[
        case("well", TLS, &tls),
        case("an authority as text", TLS, &[tls[0], ("ssl.ca.pem", &pem)]),
        with(&certificate, "ssl.key.location", &key),
        with(&certificate, "ssl.key.pem", &named),
        case("another authority", TLS, &[tls[0], ("ssl.ca.location", &file("other-ca.pem"))]).fails(
            "TLS",
            unknown,
            "ask whoever runs the broker for that authority's certificate",
        ),
        case("the system's authorities", TLS, &[tls[0]]).fails("TLS", unknown, "'properties.ssl.ca.location'"),
        case("another host", ELSEWHERE, &tls).fails(
            "TLS",
            "its certificate is for elsewhere.example, and not for 127.0.0.1",
            "name the broker by a name of its certificate",
        ),
        case("expired", EXPIRED, &tls).fails("TLS", "has expired", "whoever runs the broker must renew it"),
        case("no certificate of the client", MUTUAL, &tls).fails(
            "TLS",
            "the broker asks for a certificate of the client, and none is named",
            "'properties.ssl.certificate.location'",
        ),
        with(&stranger, "ssl.key.location", &strangers_key).fails(
            "TLS",
            "does not accept the client's certificate of CN=stranger, signed by CN=somebody else",
            "whoever runs the broker must trust the authority",
        ),
        with(&certificate, "ssl.key.location", &strangers_key).fails_here(
            "the key in 'properties.ssl.key.location' is not that of the client's certificate",
            "two halves of one pair",
        ),
        case("no such file", TLS, &[tls[0], ("ssl.ca.location", "/nowhere/ca.pem")]).fails_here(
            "the file that 'properties.ssl.ca.location' names cannot be read: /nowhere/ca.pem",
            "whoever runs tidemill",
        ),
        case("a port without TLS", "", &tls).fails(
            "TLS",
            "the broker does not speak TLS at this port",
            "'properties.security.protocol'",
        ),
        case("a port with TLS", TLS, &[]).fails(
            "login",
            "it speaks TLS at this port, and the client is not told to",
            "set 'properties.security.protocol' to SSL",
        ),
    ]);
}

#[test]
fn logins_say_what_is_refused() {
    let ca = secured().file("ca.pem");
    let folder = tempfile::tempdir().expect("a directory");
    let in_file = folder.path().join("password");
    fs::write(&in_file, format!("{}\n", ADMIN.1)).expect("a file");
    let in_file = format!("${{file:{}}}", in_file.display());
    let with = |what, listener, mechanism: &str, user: &str, password: &str| {
        let mut pairs = login(mechanism, user, password);
        pairs.push(("ssl.ca.location".to_owned(), ca.clone()));
        case(what, listener, &borrowed(&pairs))
    };
    let named = "${env:PASSWORD_OF_USER}";
    let hint = "check 'properties.sasl.username', 'properties.sasl.password'";
    let refused = |case: Case, says| case.fails("login", says, hint);
    check_all(&[
        with("well", LOGIN, "PLAIN", ADMIN.0, named),
        with("well", LOGIN, "SCRAM-SHA-256", ADMIN.0, named),
        with("well", LOGIN, "SCRAM-SHA-512", ADMIN.0, &in_file),
        refused(
            with("a wrong password", LOGIN, "SCRAM-SHA-512", ADMIN.0, "canary-wrong"),
            "does not accept the credentials of user \"admin\", by SCRAM-SHA-512",
        ),
        refused(
            with("a wrong password", LOGIN, "PLAIN", ADMIN.0, "canary-wrong"),
            "does not accept the credentials of user \"admin\", by PLAIN: Authentication failed",
        ),
        refused(
            with("nobody", LOGIN, "SCRAM-SHA-256", "nobody", named),
            "does not accept the credentials of user \"nobody\", by SCRAM-SHA-256",
        ),
        with("no logins there", TLS, "PLAIN", ADMIN.0, named).fails(
            "login",
            "does not accept the credentials: it takes no login at this port",
            "without a login it is SSL",
        ),
        with("not built in", LOGIN, "GSSAPI", ADMIN.0, named)
            .fails_here("the login GSSAPI is not available here", "set 'properties.sasl.mechanism'"),
    ]);
}

#[test]
fn a_mechanism_that_the_broker_lacks_is_named_with_those_it_has() {
    let broker = crate::common::broker::shared();
    let Some(address) = broker.sasl_address() else { return };
    let mut pairs = login("SCRAM-SHA-256", "reader", "canary-wrong");
    pairs[0].1 = "SASL_PLAINTEXT".to_owned();
    let finished = Machine::new(address, &borrowed(&pairs)).run("", &["-o", "tsv", "doctor"]);
    assert!(finished.code == 3 && finished.stdout.contains("it takes no logins by SCRAM-SHA-256"), "{finished:#?}");
    assert!(finished.stdout.contains("set 'properties.sasl.mechanism' to what it has: PLAIN"), "{finished:#?}");
}
