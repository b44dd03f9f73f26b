//! The shell, through a pseudo terminal.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rexpect::process::{Signal, WaitStatus};
use rexpect::session::{PtySession, spawn_command};
use tempfile::TempDir;

/// How long anything may take to be shown.
const WAIT_MS: u64 = 30_000;

const PROMPT: &str = "tidemill> ";

const LINES: &str = "CREATE TABLE lines (line STRING) WITH ('connector' = 'kafka', 'topic' = 'lines', \
    'format' = 'raw', 'scan.startup.mode' = 'earliest-offset');";

const NUMBERS: &str = "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '50'); \
    CREATE TABLE nowhere (n BIGINT) WITH ('connector' = 'blackhole');";

/// A shell with a home of its own.
struct Shell {
    session: PtySession,
    home: TempDir,
}

impl Shell {
    fn open() -> Self {
        Self::open_on("xterm")
    }

    fn open_on(terminal: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let session = Self::spawn(home.path(), terminal);
        let mut shell = Self { session, home };
        shell.sees("Tidemill ");
        shell.sees("help;");
        shell.sees(PROMPT);
        shell
    }

    fn spawn(home: &Path, terminal: &str) -> PtySession {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.env_remove("TIDEMILL_BROKERS").env_remove("KAFKA_BROKERS").env_remove("RUST_LOG");
        command.env("TERM", terminal).env("XDG_STATE_HOME", home).env("XDG_CONFIG_HOME", home).env("NO_COLOR", "1");
        command.env("PAGER", "cat");
        spawn_command(command, Some(WAIT_MS)).expect("a pseudo terminal")
    }

    /// Waits until this is on the screen, and gives what came before it.
    #[track_caller]
    fn sees(&mut self, text: &str) -> String {
        self.session.exp_string(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    fn types(&mut self, line: &str) {
        self.session.send_line(line).expect("a shell that listens");
    }

    fn presses_control(&mut self, key: char) {
        self.session.send_control(key).expect("a shell that listens");
    }

    /// Types a statement and gives what is shown until the next prompt.
    fn answers(&mut self, line: &str) -> String {
        self.types(line);
        // The line editor shows each line as it is typed; what follows the line's end is the answer.
        self.sees("\n");
        self.sees(PROMPT)
    }

    fn history(&self) -> PathBuf {
        self.home.path().join("tidemill/history")
    }

    fn ends(mut self) {
        self.session.exp_eof().expect("the end of the shell");
    }
}

#[test]
fn statements_take_several_lines_and_mistakes_end_nothing() {
    let mut shell = Shell::open();
    shell.types("SELECT 40 + 2");
    shell.types("  AS answer,");
    shell.types("  ';' AS mark;");
    shell.sees("answer | mark");
    shell.sees("42 | ;");
    shell.sees("1 row");
    shell.sees(PROMPT);

    let answer = shell.answers("SELECT nme FROM (VALUES (1)) AS t (name);");
    assert!(answer.contains("^^^"), "{answer}");
    let answer = shell.answers("SELECT 'still' || ' here' AS s;");
    assert!(answer.contains("still here"), "{answer}");

    shell.session.send("SELECT 'never'").unwrap();
    shell.presses_control('c');
    shell.sees(PROMPT);
    let answer = shell.answers("SELECT 7 * 6 AS n;");
    assert!(answer.contains("42") && !answer.contains("never"), "{answer}");

    for (command, want) in [("help;", "CREATE TABLE"), ("\\?", "SHOW JOBS"), ("\\nope", "there is no command \\nope")] {
        let answer = shell.answers(command);
        assert!(answer.contains(want), "{answer}");
    }
    shell.types("quit");
    shell.ends();
}

#[test]
fn commands_of_psql_do_what_they_do_there() {
    let mut shell = Shell::open();
    shell.answers("CREATE TABLE gone (n BIGINT) WITH ('connector' = 'blackhole');");
    for (command, want) in
        [("\\dt", "gone"), ("\\d gone", "BIGINT"), ("\\timing", "timing is on"), ("\\i", "takes the name")]
    {
        let answer = shell.answers(command);
        assert!(answer.contains(want), "{command}: {answer}");
    }
    let answer = shell.answers("SELECT 1 AS n;");
    assert!(answer.contains("time: 0."), "{answer}");
    assert!(shell.answers("\\x").contains("a line per value"));
    assert!(shell.answers("SELECT 1 AS n;").contains("-[ 1 ]--"));
    shell.answers("\\x off");

    let (rows, script) = (shell.home.path().join("rows.csv"), shell.home.path().join("script.sql"));
    fs::write(&script, "SELECT 'from a file' AS a;\n\\x on\nSELECT 2 AS b\n;").unwrap();
    shell.answers("SET 'sql-client.execution.result-mode' = 'csv';");
    shell.answers(&format!("\\o {}", rows.display()));
    shell.answers("SELECT 40 + 2 AS n;");
    shell.answers("\\o");
    assert_eq!(fs::read_to_string(&rows).unwrap(), "n\n42\n");
    let answer = shell.answers(&format!("\\i {}", script.display()));
    assert!(answer.contains("from a file") && answer.contains("-[ 1 ]--"), "{answer}");
    shell.types("\\q");
    shell.ends();
}

#[test]
fn tab_completes_what_may_stand_at_the_cursor() {
    let mut shell = Shell::open();
    shell.answers(
        "CREATE TABLE flights (origin STRING, n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1');",
    );
    // What there is becomes known beside the prompt, so the first attempts may come too early.
    for _ in 0..50 {
        shell.session.send("SELECT 6 * 7 AS n FROM fli\t LIMIT 1;\r").unwrap();
        shell.session.flush().unwrap();
        let (_, found) = shell.session.exp_regex("42\r|there is no table").expect("an answer");
        shell.sees(PROMPT);
        if found.starts_with("42") {
            shell.types("\\q");
            return shell.ends();
        }
    }
    panic!("nothing was completed");
}

#[test]
fn a_file_of_ones_own_is_read_at_the_start() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("tidemill")).unwrap();
    fs::write(home.path().join("tidemill/rc.sql"), "CREATE VIEW mine AS SELECT 7 AS n;\n\\timing on\n").unwrap();
    let mut shell = Shell { session: Shell::spawn(home.path(), "xterm"), home };
    shell.sees("view mine is created");
    shell.sees("timing is on");
    shell.sees(PROMPT);
    assert!(shell.answers("SELECT n * 6 AS n FROM mine;").contains("42"));
    shell.types("\\q");
    shell.ends();
}

#[test]
fn jobs_run_beside_queries_and_control_c_ends_queries_only() {
    let mut shell = Shell::open();
    shell.types(NUMBERS);
    shell.sees("table nowhere is created");
    shell.sees(PROMPT);
    shell.answers("SET 'pipeline.name' = 'beside';");
    let answer = shell.answers("INSERT INTO nowhere SELECT n FROM numbers;");
    assert!(answer.contains("job beside started"), "{answer}");

    shell.types("SELECT n, 'row' || ' of it' AS what FROM numbers;");
    shell.sees("row of it");
    shell.sees("row of it");
    shell.presses_control('c');
    shell.sees("interrupted");
    shell.sees(PROMPT);

    let answer = shell.answers("SHOW JOBS;");
    assert!(answer.contains("beside") && answer.contains("running"), "{answer}");
    assert!(!answer.contains("select-"), "{answer}");
    let answer = shell.answers("STOP JOB beside;");
    let answer = answer + &shell.answers("SHOW JOBS;");
    assert!(answer.contains("stopped"), "{answer}");

    shell.answers("SET 'pipeline.name' = 'again';");
    shell.answers("INSERT INTO nowhere SELECT n FROM numbers;");
    shell.presses_control('d');
    shell.sees("stopping 1 job");
    shell.sees("again: stopped: ");
    shell.ends();
}

#[test]
fn a_job_that_fails_is_told_unasked() {
    let mut shell = Shell::open();
    shell.answers(LINES);
    shell.answers("INSERT INTO lines VALUES ('no json');");
    shell.answers(
        "CREATE TABLE things (n BIGINT) WITH ('connector' = 'kafka', 'topic' = 'lines', 'format' = 'json', \
         'scan.startup.mode' = 'earliest-offset');",
    );
    shell.answers("CREATE TABLE nowhere (n BIGINT) WITH ('connector' = 'blackhole');");
    shell.answers("SET 'pipeline.name' = 'doomed';");
    // Whether it fails before the next prompt or after it, in the middle of whatever is on the screen.
    shell.types("INSERT INTO nowhere SELECT n FROM things;");
    shell.sees("doomed: failed: ");
    shell.sees("job doomed: error: ");
    shell.sees("no json");
    shell.types("\\q");
    shell.ends();
}

#[test]
fn records_cannot_steer_the_terminal() {
    let mut shell = Shell::open();
    shell.answers(LINES);
    let answer = shell.answers("INSERT INTO lines VALUES (chr(27) || '[2Jgone' || chr(7) || chr(155));");
    assert!(answer.contains("1 row is written"), "{answer}");
    shell.types("SELECT line FROM lines LIMIT 1;");
    shell.sees("\\x1b[2Jgone\\x07\\x9b");
    shell.sees(PROMPT);
    shell.types("exit;");
    shell.ends();
}

#[test]
fn what_was_typed_is_kept_for_the_user_alone_without_secrets() {
    let mut shell = Shell::open();
    shell.answers("SELECT 'kept' AS a;");
    shell.answers("SET 'kafka.sasl.password' = 'hunter2';");
    let history = fs::read_to_string(shell.history()).unwrap();
    assert!(history.contains("SELECT 'kept' AS a;") && !history.contains("hunter2"), "{history}");
    let mode = fs::metadata(shell.history()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    shell.types("quit;");
    let home = shell.home;
    shell.session.exp_eof().unwrap();

    let mut again = Shell { session: Shell::spawn(home.path(), "xterm"), home };
    again.sees(PROMPT);
    // Up once is `quit;`, twice is the statement: what holds a secret is not between them.
    again.session.send("\x1b[A\x1b[A").unwrap();
    again.session.flush().unwrap();
    again.sees("SELECT 'kept' AS a;");
    again.types("");
    again.sees("1 row");
    // Before the prompt the keys would not be the line editor's.
    again.sees(PROMPT);
    again.presses_control('c');
    again.sees(PROMPT);
    again.presses_control('d');
    again.ends();
}

#[test]
fn a_terminal_that_can_do_nothing_will_do() {
    let mut shell = Shell::open_on("dumb");
    shell.types("SELECT 1 +");
    shell.types("41 AS answer;");
    shell.sees("42");
    shell.sees(PROMPT);
    shell.types("quit");
    shell.ends();
}

#[test]
fn sigterm_at_the_prompt_stops_jobs() {
    let mut shell = Shell::open();
    shell.types(NUMBERS);
    shell.sees("table nowhere is created");
    shell.sees(PROMPT);
    shell.answers("INSERT INTO nowhere SELECT n FROM numbers;");
    shell.session.process_mut().signal(Signal::SIGTERM).expect("a process");
    shell.sees("stopping 1 job");
    shell.session.exp_eof().expect("the end of the shell");
    let status = shell.session.process().wait().expect("a child");
    assert!(matches!(status, WaitStatus::Exited(_, 143)), "{status:?}");
}
