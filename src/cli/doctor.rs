//! `tidemill doctor`: looks at what jobs need, step by step, and says what to do about what is missing.

use std::fs;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use tidemill::connectors::Defaults;
use tidemill::connectors::kafka::{ClientProperties, Cluster, TopicSummary, shake_hands};
use tidemill::error::{Error, Result};
use tidemill::runtime::{Places, Rows, clock};
use tidemill::words;

use super::Stop;
use super::config::Config;

/// How long a connection may take.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// Records from further ahead mean that a clock is wrong.
const AHEAD_MS_MAX: i64 = 60_000;

/// What has been found out.
#[derive(Default)]
struct Findings(Vec<Vec<String>>, Option<u8>);

impl Findings {
    fn say(&mut self, what: &str, verdict: &str, detail: impl Into<String>) {
        self.0.push(vec![what.to_owned(), verdict.to_owned(), detail.into()]);
    }

    fn well(&mut self, what: &str, detail: impl Into<String>) {
        self.say(what, "well", detail);
    }

    /// It works, and somebody may be surprised later.
    fn odd(&mut self, what: &str, detail: impl Into<String>) {
        self.say(what, "odd", detail);
    }

    fn bad(&mut self, what: &str, error: &Error) {
        let hint = error.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        self.say(what, "bad", format!("{error}{hint}"));
        self.1.get_or_insert(error.exit_code());
    }
}

/// Looks at everything; an end with exit code 0 means that all is well.
pub fn run(config: &Config) -> Result<(), Stop> {
    let mut findings = Findings::default();
    let places = Places::look(&config.set);
    match config.brokers.as_deref() {
        None => {
            findings.say("broker", "none", "none is named: -b, TIDEMILL_BROKERS or the configuration file names one");
        }
        Some("embedded") => findings.say("broker", "none", "the one inside the process; nothing is kept after exit"),
        Some(brokers) => {
            let prefix = places.as_ref().map_or("tidemill-progress-", |places| &*places.topic_prefix);
            look_at_brokers(&mut findings, brokers, prefix, config);
        }
    }
    match &places {
        Ok(places) => look_at_disk(&mut findings, places),
        Err(error) => findings.bad("disk", error),
    }
    match history_folder() {
        Ok(folder) => findings.well("history", format!("{folder} can be written")),
        Err(error) => findings.bad("history", &error),
    }
    let Findings(rows, code) = findings;
    config.output.write(&config.output.rows(&Rows::of_text(&["check", "result", "detail"], rows)?)?)?;
    code.map_or(Ok(()), |code| Err(Stop::Told(code)))
}

fn look_at_brokers(findings: &mut Findings, brokers: &str, prefix: &str, config: &Config) {
    for address in brokers.split(',').map(str::trim) {
        match connect(address) {
            Ok(detail) => findings.well("connection", detail),
            Err(error) => findings.bad("connection", &error),
        }
    }
    let brokers = Some(brokers.to_owned());
    let defaults = Defaults { brokers, properties: config.properties.clone(), ..Defaults::default() };
    let protocol = config.properties.get("security.protocol").map_or("PLAINTEXT", String::as_str).to_uppercase();
    let properties = match ClientProperties::of_defaults(&defaults) {
        Ok(properties) => properties,
        Err(error) => return findings.bad("client", &error),
    };
    let cluster = match Cluster::new(properties.clone()) {
        Ok(cluster) => cluster,
        Err(error) => return findings.bad("client", &error),
    };
    if properties.has_tls() {
        match shake_hands(&properties) {
            Ok(detail) => findings.well("TLS", detail),
            // What is behind it would fail for the same reason.
            Err(error) => return findings.bad("TLS", &error),
        }
    }
    let topics = match cluster.summaries() {
        Ok(topics) => topics,
        Err(error) => return findings.bad("login", &error),
    };
    findings.well("login", format!("{protocol}, as {}", properties.principal()));
    look_at_topics(findings, &topics, &properties.principal());
    match cluster.try_transactions(prefix) {
        Ok(()) => findings.well("transactions", "exactly-once jobs can run"),
        Err(error) => findings.bad("transactions", &error),
    }
    match cluster.try_creation(&format!("{prefix}doctor")) {
        Ok(()) => findings.well("logs", format!("topics {prefix}* for jobs' progress can be made")),
        Err(error) => findings.bad("logs", &error),
    }
    look_at_clock(findings, &topics);
}

fn connect(address: &str) -> Result<String> {
    // The protocol may stand before it.
    let bare = address.rsplit("://").next().unwrap_or(address);
    let bare = if bare.contains(':') { bare.to_owned() } else { format!("{bare}:9092") };
    let failed = |what: String| Error::upstream(what).hint("is it running, and is this its address?");
    let resolved = bare.to_socket_addrs().map_err(|e| failed(format!("{bare} cannot be resolved: {e}")))?;
    let mut last = None;
    let start = clock::now();
    for target in resolved {
        match TcpStream::connect_timeout(&target, CONNECT_WAIT) {
            Ok(_) => return Ok(format!("{bare} in {} ms", start.elapsed().as_millis())),
            Err(error) => last = Some(error),
        }
    }
    let reason = last.map_or("it has no address".to_owned(), |error| error.to_string());
    Err(failed(format!("{bare} cannot be reached: {reason}")))
}

fn look_at_topics(findings: &mut Findings, topics: &[TopicSummary], principal: &str) {
    let own: Vec<_> = topics.iter().filter(|topic| !topic.name.starts_with("__")).collect();
    let denied: Vec<_> = own.iter().filter(|topic| topic.is_denied).map(|topic| topic.name.as_str()).collect();
    let seen = words::count(own.len() as u64, "topic");
    if own.is_empty() {
        let detail = format!("no topic can be seen: there is none, or {principal} has DESCRIBE on none");
        return findings.odd("permissions", detail);
    }
    if denied.is_empty() {
        return findings.well("permissions", format!("{seen} can be seen"));
    }
    let some = denied.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    let detail = format!(
        "{seen} can be seen, and {} of them not be read ({some}): for jobs that read them, an administrator of the broker \
         must grant {principal} READ",
        denied.len()
    );
    findings.odd("permissions", detail);
}

fn look_at_disk(findings: &mut Findings, places: &Places) {
    let Places { directory, disk_limit, disk_free, .. } = places;
    let (free, limit) = (words::bytes(*disk_free), words::bytes(*disk_limit));
    let detail =
        format!("{}: {free} free, and a job's state may take {limit} ('state.disk.limit')", directory.display());
    if disk_limit <= disk_free {
        return findings.well("disk", detail);
    }
    findings.odd("disk", format!("{detail}: set that to less, or 'state.directory' to a folder on a larger disk"));
}

fn look_at_clock(findings: &mut Findings, topics: &[TopicSummary]) {
    let now_ms = clock::wall_ms();
    let ahead = topics.iter().filter(|topic| topic.newest_ms.is_some_and(|newest| now_ms + AHEAD_MS_MAX < newest));
    match ahead.max_by_key(|topic| topic.newest_ms) {
        None => findings.well("clock", "no newest record is from the future"),
        Some(topic) => {
            let detail = format!(
                "topic {} has records that are {} s ahead of the clock here: one of the clocks is wrong",
                topic.name,
                (topic.newest_ms.unwrap_or(now_ms) - now_ms) / 1_000
            );
            findings.odd("clock", detail);
        }
    }
}

/// The folder that keeps the history, if a file can be written there.
fn history_folder() -> Result<String> {
    let history =
        crate::repl::history_path().ok_or_else(|| Error::usage("there is no home folder to keep a history in"))?;
    let folder = history.parent().map(std::path::Path::to_path_buf).unwrap_or_default();
    let name = folder.display().to_string();
    let failed = |error: std::io::Error| Error::usage(format!("{name} cannot be written: {error}"));
    fs::create_dir_all(&folder).map_err(failed)?;
    let probe = folder.join(format!(".probe-{}", std::process::id()));
    fs::write(&probe, "x").map_err(failed)?;
    fs::remove_file(&probe).map_err(failed)?;
    Ok(name)
}
