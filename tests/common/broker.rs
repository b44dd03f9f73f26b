//! A real Apache Kafka for the tests.
//!
//! [`shared`] is one broker for the whole run: `TIDEMILL_TEST_BROKERS` if that is set, else a single KRaft node from the
//! jars that `tests/setup` fetched. Tests share it by naming their topics through [`Broker::topic`], which gives every
//! caller another one. [`Broker::start_own`] is for a test that stops, kills or freezes its broker.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::keeper::Keeper;
use super::proxy::Proxy;
use super::records::Message;

/// How long a broker may take until it answers, on a machine that is busy compiling.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// How long one request may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the cleaner may take to look at a topic.
const COMPACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a broker whose ports were taken by someone else in the meantime is tried again.
const START_ATTEMPTS: u32 = 3;
/// How much of a failed broker's log is shown.
const LOG_LINES_SHOWN: usize = 30;

/// A Kafka cluster to test against.
pub struct Broker {
    addresses: String,
    /// Where clients that log in connect to, if the process is ours.
    sasl_address: Option<String>,
    /// The addresses of further listeners, by name.
    listeners: Vec<(&'static str, String)>,
    /// Where clients are to connect to whom a proxy connects to the broker, and the broker's ports for these.
    proxied: Vec<(TcpListener, u16)>,
    /// The process, if it is ours.
    node: Option<Node>,
}

/// What a broker has beside what all have.
#[derive(Default)]
pub struct Additions<'a> {
    /// Names of further listeners, with their security protocols.
    pub listeners: &'a [(&'static str, &'static str)],
    /// More arguments for the formatting of its data.
    pub format: Vec<String>,
    /// More lines of its configuration.
    pub properties: String,
}

/// A broker process of ours.
struct Node {
    keeper: Keeper,
    log: PathBuf,
    pid: u32,
}

/// The broker that all tests of this run share; started by whoever asks first.
pub fn shared() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(|| match std::env::var("TIDEMILL_TEST_BROKERS") {
        Ok(addresses) if !addresses.is_empty() => {
            Broker { addresses, sasl_address: None, listeners: Vec::new(), proxied: Vec::new(), node: None }
        }
        _ => Broker::start_own(),
    })
}

impl Broker {
    /// Starts a broker for one test; it ends when this value is dropped, or with the process.
    pub fn start_own() -> Self {
        Self::start_proxied(0)
    }

    /// The same, with so many more addresses, each to be reached by a [`Proxy`] only.
    pub fn start_proxied(count: usize) -> Self {
        Self::start_with(count, |_| {})
    }

    /// The same, with a directory for its data that something is done to before.
    pub fn start_with(proxied: usize, prepare: impl Fn(&Path)) -> Self {
        Self::start_adding(proxied, |directory| {
            prepare(directory);
            Additions::default()
        })
    }

    /// The same, with what is added for that directory.
    pub fn start_adding<'a>(proxied: usize, prepare: impl Fn(&Path) -> Additions<'a>) -> Self {
        for attempt in 1.. {
            match Self::try_start(proxied, &prepare) {
                Ok(broker) => return broker,
                Err(reason) if attempt == START_ATTEMPTS => panic!("Kafka does not start: {reason}"),
                Err(_) => {}
            }
        }
        unreachable!("the last attempt returns or panics")
    }

    fn try_start<'a>(proxied: usize, prepare: &dyn Fn(&Path) -> Additions<'a>) -> Result<Self, String> {
        let java = java_command_line();
        let directory = new_directory();
        let added = prepare(&directory);
        let ports = free_ports(3 + 2 * proxied + added.listeners.len());
        let (client_port, sasl_port) = (ports[0], ports[2]);
        let (more, proxied) = ports[3..].split_at(added.listeners.len());
        let more: Vec<_> = added.listeners.iter().zip(more).map(|((name, kind), port)| (*name, *kind, *port)).collect();
        let proxied: Vec<[u16; 2]> = proxied.chunks(2).map(|pair| [pair[0], pair[1]]).collect();
        let listen = |[port, broker]: &[u16; 2]| TcpListener::bind(("127.0.0.1", *port)).map(|found| (found, *broker));
        let listeners: Result<Vec<_>, _> = proxied.iter().map(listen).collect();
        let config = directory.join("server.properties");
        let properties = server_properties(&directory, [ports[0], ports[1], ports[2]], &proxied, &more);
        fs::write(&config, properties + &added.properties).expect("a file in target/");
        let config = config.to_str().expect("the path of the repository is UTF-8");
        let log = directory.join("broker.log");

        let format =
            [&java[..], &["kafka.tools.StorageTool", "format", "-c", config, "-t", CLUSTER_ID].map(Into::into)];
        run(&[format.concat(), added.format].concat());

        let serve = [&java[..], &["kafka.Kafka", config].map(Into::into)].concat();
        let node = Node { keeper: Keeper::new(&directory, &log, &serve), log, pid: 0 };
        let mut broker = Self {
            addresses: format!("127.0.0.1:{client_port}"),
            sasl_address: Some(format!("127.0.0.1:{sasl_port}")),
            listeners: more.iter().map(|(name, _, port)| (*name, format!("127.0.0.1:{port}"))).collect(),
            proxied: listeners.map_err(|error| error.to_string())?,
            node: Some(node),
        };
        broker.try_serve()?;
        Ok(broker)
    }

    /// Where clients connect to: `bootstrap.servers`.
    pub fn addresses(&self) -> &str {
        &self.addresses
    }

    /// Where clients connect to that log in as [`SASL_USER`], by PLAIN and without TLS; `None` for a broker that is not
    /// ours.
    pub fn sasl_address(&self) -> Option<&str> {
        self.sasl_address.as_deref()
    }

    /// Where its data and its configuration are, if the process is ours.
    pub fn directory(&self) -> Option<&Path> {
        self.node.as_ref()?.log.parent()
    }

    /// Where clients connect to one of the listeners that were added.
    pub fn listener(&self, name: &str) -> &str {
        let found = self.listeners.iter().find(|(of, _)| *of == name);
        &found.unwrap_or_else(|| panic!("there is no listener {name}")).1
    }

    /// The network before one of the addresses of [`Broker::start_proxied`].
    pub fn proxy(&self, number: usize) -> Proxy {
        let (listener, broker) = &self.proxied[number];
        Proxy::start(listener.try_clone().expect("a listener"), *broker)
    }

    /// A client configuration for this broker.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.addresses);
        config
    }

    /// Creates a topic that no other test has; its name begins with the hint.
    pub fn topic(&self, hint: &str, partitions: i32) -> String {
        self.topic_with(hint, partitions, &[])
    }

    /// Creates a topic with a configuration (`cleanup.policy` and so on).
    pub fn topic_with(&self, hint: &str, partitions: i32, config: &[(&str, &str)]) -> String {
        let name = unique_name(hint);
        self.create_topic(&name, partitions, config);
        name
    }

    /// Creates a topic of this name, on a broker that is the test's own.
    pub fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let created = block_on(self.admin().create_topics(&[topic], &options)).expect("Kafka answers");
        for result in created {
            result.unwrap_or_else(|(topic, code)| panic!("Kafka does not create {topic}: {code}"));
        }
        self.until_seen(name, partitions);
    }

    /// Gives a topic more partitions: as many as this in all.
    pub fn grow(&self, topic: &str, partitions: usize) {
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let grown = block_on(self.admin().create_partitions([&NewPartitions::new(topic, partitions)], &options));
        for result in grown.expect("Kafka answers") {
            result.unwrap_or_else(|(topic, code)| panic!("Kafka does not grow {topic}: {code}"));
        }
        self.until_seen(topic, i32::try_from(partitions).expect("few"));
    }

    /// A broker's answers lag behind its deeds.
    fn until_seen(&self, topic: &str, partitions: i32) {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        while self.partition_count(topic) != Some(partitions) {
            assert!(Instant::now() < deadline, "{topic} is not seen with {partitions} partitions");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Creates a compacted topic in which old records of a key go as fast as Kafka can make them. Only what lies before
    /// the last few records is ever compacted: see [`Broker::compact`].
    pub fn compacted_topic(&self, hint: &str, partitions: i32) -> String {
        let config = [
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.001"),
            ("min.compaction.lag.ms", "0"),
            ("segment.ms", "50"),
            ("delete.retention.ms", "0"),
        ];
        self.topic_with(hint, partitions, &config)
    }

    /// Sends records with this key to partition 0 of a compacted topic until Kafka has dropped some of them: then
    /// it has dropped every superseded record that stood before the first of them as well.
    pub fn compact(&self, topic: &str, key: &str) {
        let deadline = Instant::now() + COMPACTION_TIMEOUT;
        // A segment is closed by the first record that comes after its time is up.
        let mut sent = 0;
        loop {
            self.produce(topic, [Message::new("{}").key(key).partition(0)]);
            sent += 1;
            let records = self.read_all(topic);
            let left = records.iter().filter(|record| record.key.as_deref() == Some(key.as_bytes())).count();
            if left < sent {
                return;
            }
            assert!(Instant::now() < deadline, "Kafka does not compact {topic}");
        }
    }

    /// For everything else that an operator does.
    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("an admin client")
    }

    /// How many partitions a topic has; `None` if there is no such topic.
    pub fn partition_count(&self, topic: &str) -> Option<i32> {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).expect("Kafka answers");
        let topic = metadata.topics().iter().find(|found| found.name() == topic)?;
        let count = i32::try_from(topic.partitions().len()).expect("few");
        (topic.error().is_none() && count > 0).then_some(count)
    }

    /// What kcat prints, called with these arguments.
    pub fn kcat(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("kcat");
        command.args(["-b", &self.addresses]).args(arguments).stdin(Stdio::null());
        let output = command.output().unwrap_or_else(|error| panic!("kcat: {error}; run tests/setup"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kcat {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8 from kcat")
    }

    /// Ends the broker as an operator would. Its data stays for the next [`Broker::start`].
    pub fn stop(&mut self) {
        self.signal("TERM");
    }

    /// Ends the broker as a power failure would.
    pub fn kill(&mut self) {
        self.signal("KILL");
    }

    /// Starts the broker again after [`Broker::stop`] or [`Broker::kill`], on the same port.
    pub fn start(&mut self) {
        if let Err(reason) = self.try_serve() {
            panic!("Kafka does not start again: {reason}");
        }
    }

    /// Whether the broker's process has ended by itself.
    pub fn has_exited(&self) -> bool {
        self.node.as_ref().is_some_and(Node::has_exited)
    }

    /// Freezes the broker: connections stay open, and nothing answers.
    pub fn pause(&mut self) {
        self.signal("STOP");
    }

    /// Ends [`Broker::pause`].
    pub fn resume(&mut self) {
        self.signal("CONT");
    }

    fn signal(&mut self, name: &str) {
        let node = self.node.as_mut().expect("a broker of one's own, by start_own");
        node.keeper.signal(name);
    }

    /// Starts the process and waits until it answers, or says why it does not.
    fn try_serve(&mut self) -> Result<(), String> {
        let client: BaseConsumer = self.client().create().expect("a consumer");
        let node = self.node.as_mut().expect("a broker of one's own, by start_own");
        node.pid = node.keeper.start();
        let deadline = Instant::now() + START_TIMEOUT;
        while client.fetch_metadata(None, Duration::from_millis(500)).is_err() {
            if node.has_exited() {
                return Err(format!("it ended at once; {}", node.last_words()));
            }
            if deadline < Instant::now() {
                return Err(format!("no answer within {START_TIMEOUT:?}; {}", node.last_words()));
            }
            // A refused connection fails at once, and the client waits longer from one attempt to the next.
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Node {
    /// On Linux, whether the process is gone already; elsewhere the time-out tells.
    fn has_exited(&self) -> bool {
        // A process that has ended and that nobody has waited for has an empty command line.
        Path::new("/proc/self").exists()
            && fs::read(format!("/proc/{}/cmdline", self.pid)).is_ok_and(|line| line.is_empty())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        format!("the end of its log:\n{}", tail.join("\n"))
    }
}

/// A name that no other test and no other run uses.
pub fn unique_name(hint: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let run = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() % 1_000_000_000;
    format!("{hint}-{run}-{}-{count}", std::process::id())
}

/// Who may log in at [`Broker::sasl_address`], and the password.
pub const SASL_USER: (&str, &str) = ("reader", "right-password");

/// Any 16 bytes will do; every cluster here has one node and its own ports.
const CLUSTER_ID: &str = "dGlkZW1pbGwtdGVzdHMtMQ";

/// One node, both broker and controller, small and quick to start.
fn server_properties(directory: &Path, ports: [u16; 3], proxied: &[[u16; 2]], more: &[(&str, &str, u16)]) -> String {
    let [client_port, controller_port, sasl_port] = ports;
    let list = |text: &dyn Fn(usize, [u16; 2]) -> String| {
        proxied.iter().enumerate().map(|(number, ports)| text(number, *ports)).collect::<String>()
    };
    let more_listeners: String = more.iter().map(|(name, _, port)| format!(",{name}://127.0.0.1:{port}")).collect();
    let more_protocols: String = more.iter().map(|(name, kind, _)| format!(",{name}:{kind}")).collect();
    let listeners = list(&|number, [_, broker]| format!(",PROXIED{number}://127.0.0.1:{broker}")) + &more_listeners;
    let advertised = list(&|number, [port, _]| format!(",PROXIED{number}://127.0.0.1:{port}")) + &more_listeners;
    let protocols = list(&|number, _| format!(",PROXIED{number}:PLAINTEXT")) + &more_protocols;
    let (user, password) = SASL_USER;
    let data = directory.join("data");
    let data = data.display();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://127.0.0.1:{client_port},SASL_PLAINTEXT://127.0.0.1:{sasl_port},CONTROLLER://127.0.0.1:{controller_port}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{client_port},SASL_PLAINTEXT://127.0.0.1:{sasl_port}{advertised}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT{protocols}
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";
log.dirs={data}
# A topic that is missing must be missing.
auto.create.topics.enable=false
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# After a crash, the node's old registration must expire before it can register again.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# The flights are of 2013: retention by time would delete them at once.
log.retention.ms=-1
# Every partition maps its indexes into memory, and there are hundreds of partitions.
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=8388608
# Compaction tests wait for the cleaner.
log.cleaner.backoff.ms=200
"
    )
}

/// `java` with its options, up to the class to run.
fn java_command_line() -> Vec<String> {
    let jars = repository().join("target/kafka/lib");
    assert!(jars.join(".complete").exists(), "Kafka's jars are not in {}: run tests/setup", jars.display());
    let classpath = format!("{}/*", jars.display());
    let options = ["java", "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];
    options.map(String::from).into_iter().chain(["-cp".into(), classpath]).collect()
}

/// Runs a program to its end, which must be a good one.
fn run(command: &[String]) {
    let output = Command::new(&command[0]).args(&command[1..]).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; run tests/setup", command[0]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fresh directory for a broker's data, below target/.
fn new_directory() -> PathBuf {
    let directory = repository().join("target/kafka/run").join(unique_name("broker"));
    fs::create_dir_all(&directory).expect("a directory in target/");
    directory
}

/// Ports that nobody listens on at the moment.
///
/// They lie below the range from which systems take the ports of outgoing connections: while a test's broker is down, a
/// client that tries its port again and again could otherwise be given that very port, and be connected to itself.
fn free_ports(count: usize) -> Vec<u16> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    let mut found = Vec::new();
    while found.len() < count {
        // A hasher's state is the standard library's source of chance.
        let chance = RandomState::new().hash_one(0) % u64::from(COUNT);
        let port = FIRST + u16::try_from(chance).expect("less than COUNT");
        if !found.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            found.push(port);
        }
    }
    found
}
