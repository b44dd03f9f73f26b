//! The configuration: what counts more, what is shown of it, and that no secret is.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::broker::{SASL_USER, shared};
use crate::common::program::{Finished, Running};

const WAIT: Duration = Duration::from_secs(60);

/// What must never be seen.
const CANARY: &str = "canary-7f3a9";

const FILE: &str = r#"
brokers = "file:1"
output = "markdown"

[properties]
"client.id" = "from-file"
"linger.ms" = 7

[set]
"pipeline.name" = "from-file"

[profiles.prod]
brokers = "profile:1"
[profiles.prod.properties]
"client.id" = "from-profile"
"sasl.password" = "canary-7f3a9"
"ssl.key.password" = "${env:KEY_PASSWORD}"
"#;

/// Runs the program with a configuration file and these variables.
fn run(home: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.env_remove("TIDEMILL_BROKERS").env_remove("KAFKA_BROKERS").env_remove("RUST_LOG");
    command.env("XDG_CONFIG_HOME", home).env("XDG_STATE_HOME", home).env("KEY_PASSWORD", CANARY);
    command.envs(variables.iter().copied()).args(arguments);
    Running::start(&mut command).finish(WAIT)
}

fn home(file: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("tidemill")).unwrap();
    fs::write(home.path().join("tidemill/config.toml"), file).unwrap();
    home
}

#[test]
fn flags_count_more_than_the_environment_than_a_profile_than_the_file() {
    let home = home(FILE);
    let origin = |variables: &[(&str, &str)], arguments: &[&str]| {
        let arguments = [arguments, &["-o", "tsv", "config", "--origin"]].concat();
        let finished = run(home.path(), variables, &arguments);
        assert_eq!(finished.code, 0, "{finished:#?}");
        finished.stdout
    };
    let check =
        |shown: &str, lines: &[&str]| lines.iter().for_each(|line| assert!(shown.contains(line), "{line}: {shown}"));
    let file = home.path().join("tidemill/config.toml").display().to_string();
    check(
        &origin(&[], &[]),
        &[
            &format!("brokers\tfile:1\tfile: {file}\n"),
            "properties.client.id\tfrom-file\t",
            "properties.linger.ms\t7\t",
            "set.pipeline.name\tfrom-file\t",
        ],
    );
    check(
        &origin(&[("TIDEMILL_PROFILE", "prod")], &[]),
        &[
            "brokers\tprofile:1\tprofile: prod\n",
            "properties.client.id\tfrom-profile\tprofile: prod\n",
            "properties.sasl.password\t******\tprofile: prod\n",
            "properties.ssl.key.password\t${env:KEY_PASSWORD}\tprofile: prod\n",
            "properties.linger.ms\t7\tfile: ",
        ],
    );
    let variables = [("KAFKA_BOOTSTRAP_SERVERS", "env:1")];
    check(&origin(&variables, &["--profile", "prod"]), &["brokers\tenv:1\tenvironment: KAFKA_BOOTSTRAP_SERVERS\n"]);
    check(&origin(&variables, &["-X", "bootstrap.servers=flag:1"]), &["brokers\tflag:1\tflag\n"]);

    // What it sets is set; what is asked for on the command line must be there.
    let finished = run(home.path(), &[("TIDEMILL_BROKERS", "embedded")], &["-c", "SET"]);
    assert_eq!(finished.stdout, "{\"key\":\"pipeline.name\",\"value\":\"from-file\"}\n", "{finished:#?}");
    let missing = run(home.path(), &[], &["--config", "/nowhere/at-all.toml", "config"]);
    assert!(missing.code == 2 && missing.stderr.contains("/nowhere/at-all.toml"), "{missing:#?}");
}

#[test]
fn mistakes_in_the_file_are_named_with_their_place_and_without_values() {
    for (file, want) in [
        ("brokers = \"a:1\"\noutput 'canary-7f3a9'\n", "config.toml, line 2, column 8"),
        ("broker = \"canary-7f3a9\"", "did you mean brokers?"),
        ("[properties]\nsasl.password = \"canary-7f3a9\"", "properties.sasl must be a text in quotes"),
        ("[properties]\n\"sasl.pasword\" = \"canary-7f3a9\"", "did you mean 'sasl.password'?"),
        ("profile = \"prd\"\n[profiles.prod]", "did you mean prod?"),
        ("[set]\n\"parallelism.default\" = \"many\"", "set.parallelism.default"),
        ("[properties]\n\"sasl.password\" = \"${env:NO_SUCH_VARIABLE}\"", "NO_SUCH_VARIABLE"),
    ] {
        let finished = run(home(file).path(), &[], &["-b", "embedded", "-c", "SELECT 1"]);
        assert_eq!(finished.code, 2, "{file}: {finished:#?}");
        assert!(finished.stderr.contains(want) && !finished.stderr.contains(CANARY), "{file}: {finished:#?}");
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let home = home(FILE);
    let table = format!(
        "CREATE TABLE t (a INT) WITH ('connector' = 'kafka', 'topic' = 't', 'format' = 'json', \
         'properties.bootstrap.servers' = '127.0.0.1:1', 'properties.sasl.password' = '{CANARY}', \
         'properties.ssl.key.pem' = '{CANARY}', 'properties.socket.timeout.ms' = '2000')"
    );
    let statements = [
        "SHOW CREATE TABLE t",
        "DESCRIBE t",
        "EXPLAIN SELECT a FROM t",
        &format!("SET 'kafka.sasl.password' = '{CANARY}'; SET"),
        "SELECT a FROM t LIMIT 1",
        "SHOW TOPICS",
        "PRINT 't'",
        "DESCRIBE TOPIC t",
        "SELECT b FROM t",
    ];
    let profile = [
        "--profile",
        "prod",
        "-b",
        "127.0.0.1:1",
        "-X",
        "security.protocol=SASL_PLAINTEXT",
        "-X",
        "sasl.mechanism=PLAIN",
    ];
    let mut shown = String::new();
    for statement in statements {
        for more in [&["-vv"][..], &["--json-errors", "--timeout", "20 s"]] {
            let text = format!("{table}; {statement}");
            let finished = run(home.path(), &[], &[&profile[..], more, &["-c", &text]].concat());
            shown += &(finished.stdout + &finished.stderr);
        }
    }
    for command in [
        &["config", "--origin"][..],
        &["doctor"],
        &["check", "/nowhere"],
        &["-X", "sasl.pasword=canary-7f3a9", "config"],
    ] {
        let finished = run(home.path(), &[], &[&profile[..], command].concat());
        shown += &(finished.stdout + &finished.stderr);
    }
    assert!(shown.contains("'properties.sasl.password' = '******'"), "{shown}");
    // The file of the configuration holds it, and nothing that the program has written.
    let at = shown.find(CANARY).map(|at| &shown[at.saturating_sub(200)..at]);
    assert!(at.is_none(), "{at:?}");
    for file in fs::read_dir(home.path().join("tidemill")).unwrap().map(|file| file.unwrap().path()) {
        let is_own = file.ends_with("config.toml");
        assert!(is_own || !fs::read_to_string(&file).unwrap().contains(CANARY), "{}", file.display());
    }
}

#[test]
fn a_profile_logs_in_and_the_doctor_looks_at_each_step() {
    let home = home("");
    shared().topic("config-doctor", 1);
    let finished = run(home.path(), &[], &["-b", shared().addresses(), "-o", "tsv", "doctor"]);
    assert_eq!(finished.code, 0, "{finished:#?}");
    for line in [
        "connection\twell\t",
        "login\twell\tPLAINTEXT, as User:ANONYMOUS\n",
        "permissions\twell\t",
        "transactions\twell\t",
        "disk\twell\t",
    ] {
        assert!(finished.stdout.contains(line), "{line}: {finished:#?}");
    }
    let away = run(home.path(), &[], &["-b", "127.0.0.1:1", "-o", "tsv", "doctor"]);
    assert!(away.code == 3 && away.stdout.contains("connection\tbad\t127.0.0.1:1 cannot be reached"), "{away:#?}");

    let Some(address) = shared().sasl_address() else { return };
    let (user, password) = SASL_USER;
    let secret = home.path().join("password");
    fs::write(&secret, format!("{password}\n")).unwrap();
    let file = format!(
        "[profiles.dev]\nbrokers = \"{address}\"\n[profiles.dev.properties]\n\"security.protocol\" = \"SASL_PLAINTEXT\"\n\
         \"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"{user}\"\n\"sasl.password\" = \"${{file:{}}}\"\n",
        secret.display()
    );
    fs::write(home.path().join("tidemill/config.toml"), file).unwrap();
    let finished = run(home.path(), &[], &["--profile", "dev", "-o", "tsv", "doctor"]);
    assert!(finished.stdout.contains(&format!("login\twell\tSASL_PLAINTEXT, as User:{user}\n")), "{finished:#?}");
    fs::write(&secret, "wrong").unwrap();
    let finished = run(home.path(), &[], &["--profile", "dev", "-o", "tsv", "doctor"]);
    assert!(finished.code == 3 && finished.stdout.contains("login\tbad\t"), "{finished:#?}");
    assert!(finished.stdout.contains("does not accept the credentials"), "{finished:#?}");
}

#[test]
fn completions_and_manuals_are_made() {
    let home = home("");
    for shell in ["bash", "zsh", "fish"] {
        let finished = run(home.path(), &[], &["completions", shell]);
        assert!(finished.code == 0 && finished.stdout.contains("until-caught-up"), "{shell}");
    }
    let folder = home.path().join("man");
    let finished = run(home.path(), &[], &["man", folder.to_str().unwrap()]);
    assert_eq!(finished.code, 0, "{finished:#?}");
    let page = fs::read_to_string(folder.join("tidemill.1")).unwrap();
    assert!(page.contains("until\\-caught\\-up") && folder.join("tidemill-run.1").exists());
}
