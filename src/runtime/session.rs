//! What `SET` sets: which keys there are, and what they mean.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;

use crate::catalog::options::{invalid, nearest, parse_bytes, parse_duration};
use crate::catalog::secrets::{is_secret, shown};
use crate::error::{Error, Result};
use crate::exec::Memory;
use crate::plan::{LateRows, PlanSettings};
use crate::state::SpillSpace;
use crate::time::IDLE_CLOCK_STEP_MS_MAX;
use crate::time::TIME_MS_LIMIT;

const ALLOW_LATENESS: &str = "table.exec.emit.allow-lateness";

/// Between two commit boundaries, at most: half of what the clock may move an idle stream's time by at one of them.
const COMMIT_INTERVAL_MAX: Duration = Duration::from_millis(IDLE_CLOCK_STEP_MS_MAX.unsigned_abs() / 2);

const TOPIC_PREFIX: &str = "state.topic-prefix";

const RESTORE: &str = "execution.restore";

const MEMORY_LIMIT: &str = "state.memory.limit";

const DISK_LIMIT: &str = "state.disk.limit";

const DIRECTORY: &str = "state.directory";

const REPLICATION: &str = "state.replication";
const UNTIL_CAUGHT_UP: &str = "execution.until-caught-up";

/// A job's state takes at most so much disk, unless a session says otherwise.
const DISK_BYTES: u64 = 16 << 30;

/// With less, nothing runs.
const BYTES_MIN: u64 = 1 << 20;

/// Keys that mean something here.
const KEYS: &[&str] = &[
    "parallelism.default",
    "pipeline.name",
    "table.dml-sync",
    "sink.commit-interval",
    "execution.checkpointing.interval",
    RESTORE,
    "kafka.bootstrap.servers",
    TOPIC_PREFIX,
    REPLICATION,
    MEMORY_LIMIT,
    DISK_LIMIT,
    DIRECTORY,
    "table.local-time-zone",
    ALLOW_LATENESS,
    "execution.runtime-mode",
    "execution.batch.late-rows",
    "sql-client.execution.result-mode",
    UNTIL_CAUGHT_UP,
];

/// The keys that can be set.
pub fn setting_keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().copied()
}

/// The values that a key can have, where they are few.
pub fn setting_values(key: &str) -> &'static [&'static str] {
    match key {
        "table.dml-sync" | UNTIL_CAUGHT_UP => &["true", "false"],
        "execution.runtime-mode" => &["streaming", "batch"],
        "execution.batch.late-rows" => &["drop", "keep"],
        "sql-client.execution.result-mode" => {
            &["table", "changelog", "vertical", "jsonl", "json", "csv", "tsv", "markdown"]
        }
        "table.local-time-zone" => &["UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo"],
        _ => &[],
    }
}

/// Keys of Flink's that scripts set and that change nothing here, by their beginnings.
const WITHOUT_MEANING: &[&str] = &[
    "table.exec.mini-batch.",
    "table.exec.source.idle-timeout",
    "table.exec.resource.",
    "table.exec.state.",
    "table.exec.sink.",
    "table.exec.async-",
    "table.optimizer.",
    "table.planner",
    "execution.checkpointing.",
    "state.",
    "restart-strategy",
    "taskmanager.",
    "jobmanager.",
    "sql-client.",
    "pipeline.",
    "rest.",
];

/// What a job does with what an earlier process of its name has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// It goes on if it is the same job, and refuses otherwise.
    Strict,
    /// It goes on with the state of the operators that are the same; others begin without.
    Compatible,
    /// It begins anew.
    None,
}

/// What jobs keep, and where, as settings say it; and how much room there is.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory for state that does not fit into memory.
    pub directory: PathBuf,
    /// How much of its disk a job may take.
    pub disk_limit: u64,
    /// How much is free there.
    pub disk_free: u64,
    /// What the names of jobs' logs begin with.
    pub topic_prefix: String,
}

impl Places {
    /// Looks at the disk, and whether files can be made there.
    pub fn look(settings: &BTreeMap<String, String>) -> Result<Self> {
        let mut session = Session::default();
        for (key, value) in settings {
            session.set(key, value)?;
        }
        let (directory, disk_limit) = session.disk()?;
        SpillSpace::new(&directory, disk_limit).check()?;
        let room = rustix::fs::statvfs(&directory).map_err(|error| {
            Error::usage(format!("the disk of {} cannot be looked at: {error}", directory.display()))
        })?;
        let disk_free = room.f_bavail.saturating_mul(room.f_frsize);
        Ok(Self { directory, disk_limit, disk_free, topic_prefix: session.topic_prefix().to_owned() })
    }
}

/// The session's settings.
#[derive(Clone, Debug, Default)]
pub struct Session {
    values: BTreeMap<String, String>,
}

impl Session {
    /// Sets a key; answers a notice when it changes nothing here.
    pub fn set(&mut self, key: &str, value: &str) -> Result<Option<String>> {
        let known = KEYS.contains(&key) || key.strip_prefix("kafka.").is_some();
        let ignored = WITHOUT_MEANING.iter().any(|p| key.starts_with(p));
        // A slip of the pen in a key of ours is not a key of Flink's.
        let misspelt = !known && KEYS.iter().any(|k| strsim::osa_distance(k, key) <= 2);
        if !known && (!ignored || misspelt) {
            let error = Error::statement(format!("there is no setting '{key}'"));
            return Err(match nearest(key, KEYS.iter().copied()) {
                Some(near) => error.hint(format!("did you mean '{near}'?")),
                None => error.hint(format!("settings are {}", KEYS.join(", "))),
            });
        }
        let checked = Self { values: BTreeMap::from([(key.to_owned(), value.to_owned())]) };
        checked.check()?;
        self.values.insert(key.to_owned(), value.to_owned());
        Ok((!known).then(|| format!("'{key}' has no meaning here and is ignored")))
    }

    /// Forgets a key, or all.
    pub fn reset(&mut self, key: Option<&str>) {
        match key {
            Some(key) => {
                self.values.remove(key);
            }
            None => self.values.clear(),
        }
    }

    /// All that is set; values of keys that may hold secrets are hidden.
    pub fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(k, v)| (k.as_str(), shown(is_secret(k), v)))
    }

    /// Kafka client properties (`kafka.*`).
    pub fn kafka_properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().filter_map(|(k, v)| k.strip_prefix("kafka.").map(|k| (k, v.as_str())))
    }

    /// The job's name, if one was given.
    pub fn job_name(&self) -> Option<&str> {
        self.values.get("pipeline.name").map(String::as_str)
    }

    /// What the names of topics begin with in which jobs keep what they have come to.
    pub fn topic_prefix(&self) -> &str {
        self.values.get(TOPIC_PREFIX).map_or("tidemill-progress-", String::as_str)
    }

    /// How many replicas those topics are made with; `None` leaves it to the broker.
    pub fn topic_replication(&self) -> Result<Option<i32>> {
        let Some(value) = self.values.get(REPLICATION) else { return Ok(None) };
        match value.parse::<i16>() {
            Ok(replicas) if 1 <= replicas => Ok(Some(replicas.into())),
            _ => Err(invalid(REPLICATION, value, "a number of replicas such as '3'")),
        }
    }

    /// How much memory the state of a job may take, in shares for so many workers, and how much disk what is more.
    pub fn memory(&self, workers: usize) -> Result<Vec<Memory>> {
        let limit = self.bytes(MEMORY_LIMIT, super::machine::memory_bytes() / 2)?;
        let (directory, disk) = self.disk()?;
        let space = SpillSpace::new(&directory, disk);
        if self.values.contains_key(DIRECTORY) || self.values.contains_key(MEMORY_LIMIT) {
            space.check()?;
        }
        Ok(Memory::shares(usize::try_from(limit).unwrap_or(usize::MAX), workers, &space))
    }

    /// The directory for what does not fit into memory, and how much of it a job may take.
    fn disk(&self) -> Result<(PathBuf, u64)> {
        let directory = self.values.get(DIRECTORY).map_or_else(std::env::temp_dir, PathBuf::from);
        Ok((directory, self.bytes(DISK_LIMIT, DISK_BYTES)?))
    }

    fn bytes(&self, key: &str, default: u64) -> Result<u64> {
        let Some(value) = self.values.get(key) else { return Ok(default) };
        match parse_bytes(value) {
            Some(bytes) if BYTES_MIN <= bytes => Ok(bytes),
            _ => Err(invalid(key, value, "a size of 1 MB or more, such as '512 MB' or '20 GB'")),
        }
    }

    /// What becomes of what an earlier process of a job has come to.
    pub fn restore(&self) -> Result<Restore> {
        match self.values.get(RESTORE).map(|v| v.to_ascii_lowercase()).as_deref() {
            None | Some("strict") => Ok(Restore::Strict),
            Some("compatible") => Ok(Restore::Compatible),
            Some("none") => Ok(Restore::None),
            Some(other) => Err(invalid(RESTORE, other, "'strict', 'compatible' or 'none'")),
        }
    }

    /// The number of workers, if one was given.
    pub fn workers(&self) -> Result<Option<usize>> {
        let Some(value) = self.values.get("parallelism.default") else { return Ok(None) };
        match value.parse() {
            Ok(workers) if (1..=256).contains(&workers) => Ok(Some(workers)),
            _ => Err(invalid("parallelism.default", value, "a whole number from 1 to 256")),
        }
    }

    /// Whether `INSERT` waits for its job's end.
    pub fn waits_for_jobs(&self) -> Result<bool> {
        self.flag("table.dml-sync")
    }

    /// Whether topics are read to where they end when a statement begins, unless their tables say otherwise.
    pub fn until_caught_up(&self) -> Result<bool> {
        self.flag(UNTIL_CAUGHT_UP)
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.values.get(key).map(String::as_str) {
            None => Ok(false),
            Some(v) if v.eq_ignore_ascii_case("true") => Ok(true),
            Some(v) if v.eq_ignore_ascii_case("false") => Ok(false),
            Some(v) => Err(invalid(key, v, "'true' or 'false'")),
        }
    }

    /// What planning goes by.
    pub fn plan_settings(&self) -> Result<PlanSettings> {
        let zone = match self.values.get("table.local-time-zone").map(String::as_str) {
            None | Some("default" | "Z") => Tz::UTC,
            Some(name) => name.parse().map_err(|_| {
                invalid("table.local-time-zone", name, "a time zone such as 'America/New_York' or 'UTC'")
            })?,
        };
        let allowed_lateness_ms = match self.values.get(ALLOW_LATENESS) {
            None => 0,
            Some(value) => parse_duration(value)
                .and_then(|lateness| i64::try_from(lateness.as_millis()).ok())
                .filter(|ms| *ms < TIME_MS_LIMIT)
                .ok_or_else(|| invalid(ALLOW_LATENESS, value, "a time such as '10 min', or '0 s' for none"))?,
        };
        Ok(PlanSettings { zone, allowed_lateness_ms })
    }

    /// In batch mode, what happens to late rows; `None` when statements run as streams.
    pub fn batch(&self) -> Result<Option<LateRows>> {
        let value = |key| self.values.get(key).map(|value| value.to_ascii_lowercase());
        let late = match value("execution.batch.late-rows").as_deref() {
            None | Some("drop") => LateRows::Drop,
            Some("keep") => LateRows::Keep,
            Some(other) => return Err(invalid("execution.batch.late-rows", other, "'drop' or 'keep'")),
        };
        match value("execution.runtime-mode").as_deref() {
            None | Some("streaming") => Ok(None),
            Some("batch") => Ok(Some(late)),
            Some(other) => Err(invalid("execution.runtime-mode", other, "'streaming' or 'batch'")),
        }
    }

    /// Between two commit boundaries.
    pub fn commit_interval(&self) -> Result<Duration> {
        const KEY: &str = "sink.commit-interval";
        let interval = self.duration(KEY, Duration::from_millis(200))?;
        // A boundary moves the time of what is idle by no more than so much, and that shall be as fast as the clock.
        if interval <= COMMIT_INTERVAL_MAX {
            return Ok(interval);
        }
        let value = self.values.get(KEY).map(String::as_str).unwrap_or_default();
        Err(invalid(KEY, value, &format!("a time of at most {} s", COMMIT_INTERVAL_MAX.as_secs())))
    }

    /// Between two checkpoints.
    pub fn checkpoint_interval(&self) -> Result<Duration> {
        self.duration("execution.checkpointing.interval", Duration::from_secs(10))
    }

    fn duration(&self, key: &str, default: Duration) -> Result<Duration> {
        let Some(value) = self.values.get(key) else { return Ok(default) };
        match parse_duration(value) {
            Some(duration) if Duration::from_millis(1) <= duration => Ok(duration),
            _ => Err(invalid(key, value, "a time such as '200 ms'")),
        }
    }

    fn check(&self) -> Result<()> {
        self.workers()?;
        self.topic_replication()?;
        self.restore()?;
        self.bytes(MEMORY_LIMIT, 0)?;
        self.bytes(DISK_LIMIT, 0)?;
        self.waits_for_jobs()?;
        self.until_caught_up()?;
        self.commit_interval()?;
        self.checkpoint_interval()?;
        self.plan_settings()?;
        self.batch()?;
        Ok(())
    }
}
