//! The command line: what comes out, what is said, and with which code it ends.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::broker::{repository, shared};
use crate::common::program::{Finished, Running, start_tidemill, tidemill};

const WAIT: Duration = Duration::from_secs(30);

/// A topic of the broker inside the process, read from its start to its end.
const GREETINGS: &str = "CREATE TABLE greetings (who STRING, n BIGINT) WITH ('connector' = 'kafka', \
    'topic' = 'greetings', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset', \
    'scan.bounded.mode' = 'latest-offset');";

/// Rows without end.
const NUMBERS: &str = "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '50'); \
    CREATE TABLE nowhere (n BIGINT) WITH ('connector' = 'blackhole');";

/// Checks how a program ended, and that it said all of this on standard error.
#[track_caller]
fn check(finished: &Finished, code: i32, said: &[&str]) {
    assert_eq!(finished.code, code, "{finished:#?}");
    for text in said {
        assert!(finished.stderr.contains(text), "{text:?} is not in {finished:#?}");
    }
}

/// A folder with a file of statements.
fn script(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script.sql");
    fs::write(&file, text).unwrap();
    (folder, file)
}

fn run_script(text: &str) -> Finished {
    let (_folder, file) = script(text);
    tidemill(&["-b", "embedded", "run", file.to_str().unwrap()])
}

/// A program called by a shell, for what only shells can do; `$0` is the program.
fn by_shell(line: &str) -> Finished {
    let mut command = Command::new("sh");
    command.env_remove("TIDEMILL_BROKERS").env_remove("KAFKA_BROKERS");
    Running::start(command.args(["-c", line, env!("CARGO_BIN_EXE_tidemill")])).finish(WAIT)
}

#[test]
fn help_says_what_a_newcomer_needs() {
    let help = tidemill(&["--help"]);
    assert_eq!(help.code, 0);
    for text in ["TIDEMILL_BROKERS", "KAFKA_BROKERS", "run", "demo", "Examples:", "Exit codes:", "embedded"] {
        assert!(help.stdout.contains(text), "{text}");
    }
    let version = tidemill(&["--version"]).stdout;
    for text in ["tidemill ", "DataFusion ", "librdkafka "] {
        assert!(version.contains(text), "{version}");
    }
}

#[test]
fn a_mistake_is_shown_with_its_place_and_ends_the_script() {
    let finished = tidemill(&["-c", "SELECT 1 AS one;\n SELEC 2; SELECT 3 AS three"]);
    check(&finished, 1, &["line 2, column 2", "\n  |  ^^^^^\n", "did you mean SELECT?"]);
    assert_eq!(finished.stdout, "{\"one\":1}\n");

    let finished = run_script(&format!("{GREETINGS}\nSELECT who\nFROM greeting;"));
    check(&finished, 1, &["script.sql: error: ", "line 3, column 6", "did you mean \"greetings\"?"]);

    let finished = tidemill(&["-c", &GREETINGS.replace("'topic'", "'tpoic'")]);
    check(&finished, 1, &["did you mean 'topic'?"]);
}

#[test]
fn mistakes_in_calling_are_said_before_anything_is_done() {
    check(&tidemill(&["--brokerz", "x:1"]), 2, &["--brokerz", "--brokers"]);
    check(&tidemill(&["run"]), 2, &["FILE"]);
    check(&tidemill(&["-X", "security.protocl=ssl", "-c", "SELECT 1"]), 2, &["did you mean 'security.protocol'?"]);
    let secret = tidemill(&["-X", "hunter2", "-c", "SELECT 1"]);
    check(&secret, 2, &["KEY=VALUE"]);
    assert!(!secret.stderr.contains("hunter2"));
    check(&tidemill(&["run", "SELECT 1"]), 2, &["cannot read SELECT 1: there is no such file", "-c"]);

    let missing = tidemill(&["-b", "embedded", "-c", "SELECT 1", "-f", "not-there.sql"]);
    check(&missing, 2, &["cannot read not-there.sql: there is no such file"]);
    assert_eq!(missing.stdout, "");
}

#[test]
fn a_broker_that_is_not_there_is_named_soon() {
    let start = Instant::now();
    let statements = format!("{GREETINGS} SELECT * FROM greetings");
    check(&tidemill(&["-b", "127.0.0.1:1", "-c", &statements]), 3, &["127.0.0.1:1"]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn the_environment_names_a_broker_and_flags_come_first() {
    let statements = format!("{GREETINGS} INSERT INTO greetings VALUES ('a', 1)");
    let line = |before: &str, flags: &str| by_shell(&format!("{before} \"$0\" {flags} -c \"{statements}\""));
    check(&line("TIDEMILL_BROKERS= KAFKA_BROKERS=127.0.0.1:1", ""), 3, &["127.0.0.1:1"]);
    check(&line("KAFKA_BROKERS=127.0.0.1:1", "-b embedded"), 0, &["1 row is written"]);
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let statements = format!("{} SELECT * FROM greetings", GREETINGS.replace("= 'greetings'", "= 'no-such-topic'"));
    check(&tidemill(&["-b", shared().addresses(), "-c", &statements]), 3, &["no-such-topic"]);
}

#[test]
fn a_file_wants_its_broker_named() {
    let (_folder, file) = script(&format!("{GREETINGS} SELECT * FROM greetings"));
    let finished = tidemill(&["run", file.to_str().unwrap()]);
    check(&finished, 1, &["bootstrap.servers", "--brokers"]);
}

#[test]
fn rows_go_through_the_broker_inside_the_process() {
    let rows = "INSERT INTO greetings VALUES ('world', 1), ('mill', 2), (CAST(NULL AS STRING), 3)";
    let query = "SELECT who, n * 10 AS m FROM greetings";
    let finished = tidemill(&["-c", GREETINGS, "-c", rows, "-c", query]);
    check(
        &finished,
        0,
        &["one runs inside this process", "nothing is kept", "table greetings is created", "3 rows are"],
    );
    let want = "{\"who\":\"world\",\"m\":10}\n{\"who\":\"mill\",\"m\":20}\n{\"who\":null,\"m\":30}\n";
    assert_eq!(finished.stdout, want);

    let finished = tidemill(&["-q", "-o", "csv", "-c", GREETINGS, "-c", rows, "-c", query]);
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("who,m\nworld,10\nmill,20\n,30\n", ""));

    let finished = tidemill(&["-o", "table", "-c", GREETINGS, "-c", rows, "-c", query]);
    assert_eq!(finished.stdout, " who   | m\n-------+----\n world | 10\n mill  | 20\n NULL  | 30\n");

    let unbounded = GREETINGS.replace(", 'scan.bounded.mode' = 'latest-offset'", "");
    let finished = tidemill(&["-c", &unbounded, "-c", rows, "-c", "SELECT n FROM greetings LIMIT 2"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (0, "{\"n\":1}\n{\"n\":2}\n"));
}

/// A query whose row holds what steers terminals, hides text, and means something to each form.
const HOSTILE: &str =
    "SELECT '\u{1b}[31m' || chr(155) || '\u{202e}' AS `a\u{1b}b`, '' AS e, 'x,\"y\"' AS q, 'p|<b>\t\n\\' AS m";

#[test]
fn results_of_every_form_hold_nothing_that_steers_a_terminal() {
    let rows = |form: &str| tidemill(&["-q", "-o", form, "-c", HOSTILE]).stdout;
    let object =
        "{\"a\\u001bb\":\"\\u001b[31m\\u009b\\u202e\",\"e\":\"\",\"q\":\"x,\\\"y\\\"\",\"m\":\"p|<b>\\t\\n\\\\\"}";
    assert_eq!(rows("jsonl"), format!("{object}\n"));
    assert_eq!(rows("json"), format!("[{object}]\n"));
    let table = rows("table");
    assert!(
        table.contains(" a\\x1bb ") && table.contains("\\x1b[31m\\x9b\\u{202e} |   | x,\"y\" | p|<b>\\t\\n\\"),
        "{table}"
    );
    let vertical = rows("vertical");
    assert!(
        vertical.starts_with("-[ 1 ]--") && vertical.contains("\na\\x1bb | \\x1b[31m\\x9b\\u{202e}\ne      | \n"),
        "{vertical}"
    );
    let markdown = rows("markdown");
    assert!(markdown.contains("| a\\\\x1bb | e | q | m |\n| --- | --- | --- | --- |\n"), "{markdown}");
    assert!(markdown.contains("| p\\|&lt;b>\\\\t\\\\n\\\\ |\n"), "{markdown}");
    for form in ["jsonl", "json", "table", "vertical", "markdown"] {
        let text = rows(form);
        let hostile = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(hostile), "{form}: {text:?}");
    }
    // For other programs CSV and TSV hold the data as it is.
    assert!(rows("csv").starts_with("a\u{1b}b,e,q,m\n\u{1b}[31m\u{9b}\u{202e},\"\",\"x,\"\"y\"\"\","));
    assert_eq!(rows("tsv"), "a\u{1b}b\te\tq\tm\n\u{1b}[31m\u{9b}\u{202e}\t\tx,\"y\"\tp|<b>\\t\\n\\\\\n");
}

#[test]
fn results_without_rows_and_with_nulls_have_a_form_too() {
    let rows = |form: &str, query: &str| tidemill(&["-q", "-o", form, "-c", query]).stdout;
    let none = "SELECT n FROM (VALUES (1)) AS t (n) WHERE n > 1";
    for (form, want) in [
        ("json", "[]\n"),
        ("jsonl", ""),
        ("csv", "n\n"),
        ("tsv", "n\n"),
        ("markdown", "| n |\n| --: |\n"),
        ("vertical", ""),
        ("table", " n\n---\n"),
    ] {
        assert_eq!(rows(form, none), want, "{form}");
    }
    let two = "SELECT n, s FROM (VALUES (1, 'a'), (2, NULL)) AS t (n, s)";
    assert_eq!(rows("json", two), "[{\"n\":1,\"s\":\"a\"},\n{\"n\":2,\"s\":null}]\n");
    assert_eq!(rows("tsv", two), "n\ts\n1\ta\n2\t\\N\n");
    assert_eq!(rows("vertical", two).matches("s | NULL").count(), 1);
    // A setting changes the form for what follows, also by Flink's word.
    let finished =
        tidemill(&["-q", "-o", "csv", "-c", "SET 'sql-client.execution.result-mode' = 'tableau'; SELECT 1 AS n"]);
    assert_eq!(finished.stdout, " n\n---\n 1\n");
    let wrong = tidemill(&["-c", "SET 'sql-client.execution.result-mode' = 'xml'"]);
    check(&wrong, 1, &["there is no result mode 'xml'", "markdown"]);
}

#[test]
fn variables_are_filled_in() {
    let statement = "SELECT '${what}' AS ${name}";
    let finished = tidemill(&["--var", "what=a = b", "--var", "name=n", "-c", statement]);
    assert_eq!((finished.code, finished.stdout.as_str()), (0, "{\"n\":\"a = b\"}\n"));
    let missing = tidemill(&["--var", "what=x", "--var", "nane=n", "-c", statement]);
    check(&missing, 1, &["there is no variable name", "did you mean ${nane}?", "column 21"]);
    let wrong = tidemill(&["--var", "hunter2", "-c", "SELECT 1"]);
    check(&wrong, 2, &["NAME=VALUE"]);
    assert!(!wrong.stderr.contains("hunter2"));
}

#[test]
fn rows_and_time_have_limits() {
    let statements = format!("{NUMBERS} SELECT n FROM numbers; SELECT n FROM (VALUES (1), (2), (3), (4)) AS t (n)");
    let finished = tidemill(&["-q", "-o", "csv", "--limit", "3", "-c", &statements]);
    assert_eq!((finished.code, finished.stdout.lines().count()), (0, 8), "{finished:#?}");
    let finished = tidemill(&["--timeout", "1 s", "-c", &format!("{NUMBERS} SELECT n FROM numbers")]);
    check(&finished, 124, &["the time limit is over"]);
    assert!(finished.stdout.contains("{\"n\":"), "{finished:#?}");
    check(&tidemill(&["--timeout", "soon", "-c", "SELECT 1"]), 2, &["'30 s'"]);
}

#[test]
fn queries_end_when_they_have_caught_up() {
    let unbounded = GREETINGS.replace(", 'scan.bounded.mode' = 'latest-offset'", "");
    let statements = format!(
        "{unbounded} INSERT INTO greetings VALUES ('a', 1), ('b', 2); SELECT who FROM greetings;
         PRINT greetings FROM BEGINNING; PRINT greetings; SELECT 3 AS n"
    );
    let finished = tidemill(&["--until-caught-up", "-c", &statements]);
    assert_eq!((finished.code, finished.stdout.lines().count()), (0, 5), "{finished:#?}");
    assert!(finished.stdout.ends_with("{\"n\":3}\n"), "{finished:#?}");
}

#[test]
fn errors_can_be_read_by_programs() {
    let finished = tidemill(&["--json-errors", "-c", "SELECT 1 AS a;\n SELEC '\u{1b}'"]);
    let line = finished.stderr.lines().last().expect("an error");
    let error: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {finished:#?}"));
    let error = &error["error"];
    assert_eq!((error["line"].as_i64(), error["column"].as_i64()), (Some(2), Some(2)), "{error}");
    assert_eq!(
        (error["exit_code"].as_i64(), error["hint"].as_str()),
        (Some(1), Some("did you mean SELECT?")),
        "{error}"
    );
    let usage = tidemill(&["--json-errors", "run", "not-there.sql"]);
    assert!(usage.stderr.starts_with("{\"error\":{") && usage.code == 2, "{usage:#?}");
}

#[test]
fn a_folder_is_run_as_one_deployment_and_can_be_checked_before() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("10-tables.sql", &format!("{NUMBERS} CREATE VIEW even AS SELECT n FROM numbers WHERE MOD(n, 2) = 0;"));
    write("20-jobs.sql", "SET 'pipeline.name' = 'one'; INSERT INTO nowhere SELECT n FROM even;");
    write("notes.txt", "no SQL");
    write(".hidden.sql", "no SQL");
    let path = folder.path().to_str().unwrap();
    let checked = tidemill(&["check", path]);
    check(&checked, 0, &["view even is created"]);
    assert!(checked.stdout.contains("numbers") && !checked.stderr.contains("started"), "{checked:#?}");
    let running = start_tidemill(&["run", path]);
    running.wait_for("job one started", WAIT);
    running.signal("INT");
    check(&running.finish(WAIT), 130, &["one: stopped: "]);

    write("15-wrong.sql", "SELECT x FROM even; SELECT y FROM even; CREATE TABLE again AS SELECT n FROM even;");
    let checked = tidemill(&["check", path]);
    check(&checked, 1, &["15-wrong.sql: error: there is no column x", "15-wrong.sql: error: there is no column y"]);
    check(&checked, 1, &["the option 'connector' is missing"]);
    let empty = tempfile::tempdir().unwrap();
    check(&tidemill(&["run", empty.path().to_str().unwrap()]), 2, &["there are no .sql files in"]);
}

#[test]
fn standard_input_is_a_script_if_it_is_no_terminal() {
    let finished = by_shell("printf 'SELECT 1 AS a;\\nSELECT 2 AS a' | \"$0\"");
    assert_eq!((finished.code, finished.stdout.as_str()), (0, "{\"a\":1}\n{\"a\":2}\n"));
    let finished = by_shell("printf 'SELECT 1 AS a;\\nSELEC 2' | \"$0\" run -");
    check(&finished, 1, &["standard input: error: ", "line 2, column 1"]);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let line = format!("(\"$0\" -q -c \"{NUMBERS} SELECT n FROM numbers\"; echo \"code $?\" >&2) | head -n 2");
    let finished = by_shell(&line);
    assert_eq!((finished.stdout.lines().count(), finished.stderr.as_str()), (2, "code 0\n"));
}

#[test]
fn a_file_ends_when_its_bounded_jobs_have() {
    let finished = run_script(&format!(
        "{GREETINGS} {} INSERT INTO greetings VALUES ('a', 1), ('b', 2);
         SET 'pipeline.name' = 'copy'; INSERT INTO others SELECT who, n FROM greetings WHERE n > 1;",
        GREETINGS.replace("greetings", "others"),
    ));
    check(&finished, 0, &["job copy started", "copy: finished: 2 records in, 1 row out, 0 late, 0 errors, "]);
    assert_eq!(finished.stdout, "");
}

#[test]
fn a_signal_ends_jobs_cleanly() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let (_folder, file) =
            script(&format!("{NUMBERS} SET 'pipeline.name' = 'endless'; INSERT INTO nowhere SELECT n FROM numbers;"));
        let running = start_tidemill(&["run", file.to_str().unwrap()]);
        running.wait_for("job endless started", WAIT);
        running.signal(signal);
        check(&running.finish(WAIT), code, &["endless: stopped: ", " 0 errors, "]);
    }
    let running = start_tidemill(&["-c", &format!("{NUMBERS} SELECT n FROM numbers")]);
    running.wait_for("{\"n\":", WAIT);
    running.signal("INT");
    check(&running.finish(WAIT), 130, &[]);
    // While the session waits in a statement, the signal is for its job.
    let statements = format!("SET 'table.dml-sync' = 'true'; {NUMBERS} INSERT INTO nowhere SELECT n FROM numbers");
    let running = start_tidemill(&["-c", &statements]);
    running.wait_for("table nowhere is created", WAIT);
    running.signal("INT");
    check(&running.finish(WAIT), 130, &["stopped: "]);
}

#[test]
fn a_record_that_does_not_decode_ends_the_job_and_the_script() {
    let statements = format!(
        "CREATE TABLE lines (line STRING) WITH ('connector' = 'kafka', 'topic' = 'bad-things', 'format' = 'raw');
         INSERT INTO lines VALUES ('{{\"a\":1}}'), ('not \u{1b} json');
         CREATE TABLE things (a INT) WITH ('connector' = 'kafka', 'topic' = 'bad-things', 'format' = 'json',
             'scan.startup.mode' = 'earliest-offset');
         {NUMBERS}
         SET 'pipeline.name' = 'innocent'; INSERT INTO nowhere SELECT n FROM numbers;
         SET 'pipeline.name' = 'doomed'; INSERT INTO nowhere SELECT a FROM things;"
    );
    let finished = run_script(&statements);
    check(&finished, 4, &["job doomed: error: ", "bad-things", "partition 0", "offset 1", "not \\x1b json"]);
    check(&finished, 4, &["doomed: failed: ", "innocent: stopped: "]);

    let bare = statements.split("SET").next().unwrap();
    check(&run_script(&format!("{bare} SELECT a FROM things;")), 4, &["bad-things", "offset 1", "not \\x1b json"]);
}

#[test]
fn tests_of_queries_need_no_broker() {
    let golden = repository().join("tests/golden");
    let example = golden.join("example.sql");
    let well = tidemill(&["test".as_ref(), example.as_os_str()]);
    check(&well, 0, &["example.sql: well: 3 expectations, 4 runs"]);
    let text = fs::read_to_string(&example).unwrap();
    let wrong = text.replace("'home', 2);", "'home', 3); -- hm");
    let (_folder, file) = script(&wrong);
    let file = file.to_str().unwrap();
    check(
        &tidemill(&["test", file]),
        1,
        &[
            "error: 1 row missing, 1 row not expected",
            "- ('2024-01-01 10:00:00', 'home', 3)\n",
            "+ ('2024-01-01 10:00:00', 'home', 2)\n",
            "1 failure",
        ],
    );
    check(&tidemill(&["test", "--update", "--workers", "2", file]), 0, &["1 expectation rewritten"]);
    // Every other byte is as it was.
    assert_eq!(fs::read_to_string(file).unwrap(), text.replace("'home', 2);", "'home', 2); -- hm"));
    check(&tidemill(&["test", file]), 0, &["well"]);
    check(&tidemill(&["test", "nowhere.sql"]), 2, &["there is no such file"]);
    check(&tidemill(&["test", "--workers", "0", file]), 2, &["a whole number from 1 to 256"]);
    let (_folder, file) = script("EXPECT o VALUES (1)");
    check(&tidemill(&["test", file.to_str().unwrap()]), 1, &["there is no table or view \"o\""]);
}
