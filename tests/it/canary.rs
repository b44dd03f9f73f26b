//! Canaries in every place for a secret, and a look for them wherever the program leaves anything: its output in all its
//! forms, its log at the finest level, the files of the shell, and the broker's topics, also those of Kafka's own.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rexpect::session::spawn_command;

use crate::common::broker::unique_name;
use crate::common::program::{Running, command};
use crate::common::security::{ADMIN, LOGIN, secured};

const WAIT: Duration = Duration::from_secs(60);

/// A secret that is not that of the login.
const CANARY: &str = "canary-0ddba11";

fn is_in(text: &[u8]) -> bool {
    [CANARY, ADMIN.1].iter().any(|secret| text.windows(secret.len()).any(|part| part == secret.as_bytes()))
}

/// The files of a folder and of those in it.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn canaries_are_seen_nowhere() {
    let security = secured();
    let broker = &security.broker;
    let (source, sink, name) = (broker.topic("canary", 1), broker.topic("canary-out", 1), unique_name("canary-job"));
    broker.produce(&source, ["{\"a\":1}", "{\"a\":2}", "no json"]);
    let home = tempfile::tempdir().expect("a directory");
    let own = home.path().join("tidemill");
    fs::create_dir(&own).expect("a directory");
    let address = broker.listener(LOGIN);
    fs::write(
        own.join("config.toml"),
        format!(
            "brokers = \"{address}\"\nprofile = \"p\"\n[profiles.p.properties]\n\"security.protocol\" = \"SASL_SSL\"\n\
             \"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\"sasl.username\" = \"{}\"\n\"sasl.password\" = \"{}\"\n\
             \"ssl.ca.location\" = \"{}\"\n\"ssl.key.password\" = \"{CANARY}\"\n\"debug\" = \"all\"\n",
            ADMIN.0,
            ADMIN.1,
            security.file("ca.pem")
        ),
    )
    .expect("a file");
    // What a table has of its own, under all names that secrets go by.
    let options = format!(
        "'connector' = 'kafka', 'format' = 'json', 'properties.sasl.password' = '{}', \
         'properties.ssl.key.password' = '{CANARY}', 'properties.ssl.keystore.password' = '{CANARY}', 'properties.sasl.oauthbearer.config' = '{CANARY}'",
        ADMIN.1
    );
    let tables = format!(
        "CREATE TABLE i (a INT) WITH ('topic' = '{source}', 'scan.startup.mode' = 'earliest-offset', \
         'scan.on-error' = 'skip', 'properties.group.id' = '{name}', {options});
         CREATE TABLE o (a INT) WITH ('topic' = '{sink}', {options});
         SET 'kafka.ssl.key.password' = '{CANARY}'; SET 'pipeline.name' = '{name}';"
    );
    let looks = [
        format!("{tables} SHOW CREATE TABLE i; SHOW CREATE TABLE o; DESCRIBE i; SHOW TABLES; SET;"),
        format!(
            "{tables} EXPLAIN INSERT INTO o SELECT a FROM i; CREATE VIEW v AS SELECT a FROM i; SHOW CREATE VIEW v;"
        ),
        format!("{tables} SELECT a FROM i LIMIT 2; SHOW TOPICS; PRINT '{source}' FROM BEGINNING LIMIT 3;"),
        format!("{tables} DESCRIBE TOPIC '{source}'; SELECT * FROM `{source}` LIMIT 1;"),
        format!("{tables} SELECT b FROM i"),
        format!("CREATE TABLE x (a INT) WITH ({options}, 'properties.sasl.oauthbearer.client.secret' = '{CANARY}')"),
        format!("{tables} INSERT INTO o SELECT a, a FROM i"),
        format!("CREATE TABLE x (a INT) WITH ('topic' = 't', {options}, 'propertie.x' = '1')"),
        format!("CREATE TABLE x (a INT) WITH ('topic' = 't', {options}, 'properties.sasl.pasword' = '{CANARY}')"),
        format!("SET 'kafka.sasl.pasword' = '{CANARY}'; SELECT 1"),
    ];
    let run = |arguments: &[&str]| {
        let mut command = command();
        command.env("XDG_CONFIG_HOME", home.path()).env("XDG_STATE_HOME", home.path()).env("RUST_LOG", "trace");
        Running::start(command.args(arguments))
    };
    let check = |what: &str, running: Running| {
        let finished = running.finish(WAIT);
        let shown = format!("{}{}", finished.stdout, finished.stderr);
        let at = shown.find(CANARY).or_else(|| shown.find(ADMIN.1)).map(|at| shown.get(at.saturating_sub(300)..at));
        assert!(!is_in(shown.as_bytes()), "{what}: behind {at:?}");
    };
    std::thread::scope(|scope| {
        for part in looks.chunks(looks.len().div_ceil(3)) {
            let (run, check) = (&run, &check);
            scope.spawn(move || {
                for text in part {
                    check(text, run(&["--timeout", "30 s", "-c", text]));
                    check(text, run(&["--timeout", "30 s", "--json-errors", "-o", "jsonl", "-c", text]));
                }
            });
        }
    });
    for arguments in
        [&["config"][..], &["config", "--origin"], &["doctor"], &["-X", "sasl.pasword=canary-0ddba11", "config"]]
    {
        check("a command", run(arguments));
    }

    // A job, its progress and its state, and what is told of it.
    let job = run(&["-c", &format!("{tables} INSERT INTO o SELECT a FROM i")]);
    broker.read_until(&sink, WAIT, |records| records.len() == 2);
    job.signal("INT");
    check("a job", job);
    let log = format!("tidemill-progress-{name}");
    let records = [&log, &sink].map(|topic| broker.read_all(topic)).concat();
    assert!(records.len() > 2);
    for record in records {
        let headers = record
            .headers
            .iter()
            .flat_map(|(name, value)| [name.clone().into_bytes(), value.clone().unwrap_or_default()]);
        let parts = [record.key.unwrap_or_default(), record.value.unwrap_or_default()].into_iter().chain(headers);
        parts.for_each(|part| assert!(!is_in(&part), "{log}: {:?}", String::from_utf8_lossy(&part)));
    }
    let data = broker.directory().expect("a broker of our own").join("data");
    let logs: Vec<_> = files(&data).into_iter().filter(|file| file.extension().is_some_and(|e| e == "log")).collect();
    assert!(logs.iter().any(|file| file.to_string_lossy().contains("__transaction_state")), "{logs:?}");
    logs.iter().for_each(|file| assert!(!is_in(&fs::read(file).unwrap_or_default()), "{}", file.display()));

    // The shell: its first file, and its history.
    fs::write(own.join("rc.sql"), format!("SET 'kafka.ssl.key.password' = '{CANARY}';")).expect("a file");
    let mut shell = command();
    shell
        .env("XDG_CONFIG_HOME", home.path())
        .env("XDG_STATE_HOME", home.path())
        .env("TERM", "xterm")
        .env("NO_COLOR", "1");
    let mut session = spawn_command(shell, Some(30_000)).expect("a pseudo terminal");
    let mut shown = session.exp_string("tidemill> ").expect("a prompt");
    session.send_line("SET; SELECT 'kept' AS a;").expect("a shell that listens");
    shown += &session.exp_string("kept").and_then(|_| session.exp_string("1 row")).expect("an answer");
    let mut ask = |line: &str, end: &str| {
        session.send_line(line).expect("a shell that listens");
        let shown = session.exp_string(end).unwrap_or_else(|error| panic!("{line}: {error}"));
        session.exp_string("tidemill> ").map(|rest| shown + &rest).expect("a prompt")
    };
    // What is typed is seen as it is typed, so the job comes from a file.
    let file = own.join("job.sql");
    fs::write(&file, format!("{tables} INSERT INTO o SELECT a FROM i;")).expect("a file");
    shown += &ask(&format!("\\i {}", file.display()), " started");
    for (line, end) in [
        ("SHOW JOBS;", "canary-job"),
        ("DESCRIBE JOB;", "rows out"),
        (&*format!("EXPLAIN ANALYZE JOB `{name}`;"), "Source: i"),
        ("SHOW CREATE TABLE i;", "'topic' = "),
    ] {
        shown += &ask(line, end);
    }
    ask(&format!("CREATE TABLE typed (a INT) WITH ('topic' = 't', {options});"), "table typed is created");
    session.send_line("quit;").expect("a shell that listens");
    session.exp_eof().expect("the end");
    assert!(!is_in(shown.as_bytes()), "{shown}");
    let history = own.join("history");
    assert!(fs::read_to_string(&history).expect("a history").contains("SELECT 'kept' AS a;"));
    for file in files(home.path()) {
        let is_typed = ["config.toml", "rc.sql", "job.sql"].iter().any(|name| file.ends_with(name));
        assert!(is_typed || !is_in(&fs::read(&file).expect("a file")), "{}", file.display());
    }
}
