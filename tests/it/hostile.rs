//! Records, names and files of people who mean harm: nothing that steers a terminal, turns the direction of text or cannot
//! be seen comes out of the program, in whatever form and wherever it stood.

use crate::common::broker::shared;
use crate::common::program::{Finished, tidemill};
use crate::common::records::Message;

/// Forms whose text is for people, or safe by its grammar. CSV and TSV are exact, but on a terminal.
const FORMS: [&str; 5] = ["table", "vertical", "jsonl", "json", "markdown"];

/// Sequences that clear screens, set titles and answer to themselves, in both of their spellings; what turns text around;
/// what cannot be seen; line breaks of all kinds; all other characters that steer.
fn hostile() -> String {
    let controls = (0..0x20).chain(0x7f..0xa0).filter_map(char::from_u32);
    let unseen = "\u{ad}\u{61c}\u{200b}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{feff}";
    let all: String = controls.collect();
    format!("a\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\r{all}{unseen}z")
}

/// What can be the name of something: Kafka's client takes no NUL in the name of a header, and a statement that is shown
/// keeps its tabs.
fn hostile_name() -> String {
    hostile().replace(['\0', '\t'], "")
}

fn is_hostile(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
        || c == '\u{feff}'
}

#[track_caller]
fn check(what: &str, finished: &Finished) {
    for text in [&finished.stdout, &finished.stderr] {
        if let Some((at, c)) = text.char_indices().find(|(_, c)| is_hostile(*c)) {
            let start = text[..at].char_indices().rev().nth(60).map_or(0, |(at, _)| at);
            panic!("{what}: {c:?} behind {:?}", &text[start..at]);
        }
    }
}

/// A topic in which everything is hostile: keys, values, headers, names of fields; some of it is no UTF-8.
fn topic() -> String {
    let topic = shared().topic("hostile", 1);
    let (text, name) = (hostile(), hostile_name());
    let field = serde_json::json!({ (text.clone()): text.clone(), "plain": text.clone() }).to_string();
    let record = |value: &[u8]| Message::new(value).key(&*text).header(&name, Some(&name));
    shared().produce(
        &topic,
        [
            record(text.as_bytes()),
            record(field.as_bytes()),
            record(b"\x9b31m\xff\xfe\x1b[2J\xe2\x80"),
            Message::new(field.as_bytes()).key(&b"\x9b\xff\x00\x1b"[..]),
        ],
    );
    topic
}

#[test]
fn records_steer_no_terminal_in_any_form() {
    let topic = topic();
    let fields = shared().topic("hostile-fields", 1);
    shared()
        .produce(&fields, [serde_json::json!({ "a\u{1b}[2J\u{9b}\u{202e}": hostile(), "b": [hostile()] }).to_string()]);
    let table = |name: &str, columns: &str, more: &str| {
        format!(
            "CREATE TABLE {name} ({columns}) WITH ('connector' = 'kafka', 'topic' = '{topic}', \
             'scan.startup.mode' = 'earliest-offset', 'format' = 'raw'{more});\n"
        )
    };
    let headers = "value STRING, headers MAP<STRING, STRING> METADATA VIRTUAL, k STRING";
    let script = format!(
        "SHOW TOPICS; PRINT '{topic}' FROM BEGINNING LIMIT 4; DESCRIBE TOPIC '{topic}'; DESCRIBE TOPIC '{fields}';
         SELECT * FROM `{fields}` LIMIT 1; DESCRIBE `{fields}`; SHOW CREATE TABLE `{fields}`; EXPLAIN SELECT * FROM `{fields}`;
         {}{}{}
         SELECT * FROM t LIMIT 2; SELECT * FROM b LIMIT 4;
         SELECT value AS `{name}` FROM t LIMIT 1;
         CREATE VIEW `{name}` AS SELECT value AS `{name}` FROM t; SHOW VIEWS; SHOW TABLES; DESCRIBE `{name}`;
         SHOW CREATE VIEW `{name}`; EXPLAIN SELECT * FROM `{name}` WHERE `{name}` <> '{name}';
         CREATE TABLE p (value STRING) WITH ('connector' = 'print', 'print-identifier' = '{name}');
         INSERT INTO p VALUES ('{name}'); SET 'pipeline.name' = 'hostile'; SET;
         INSERT INTO p SELECT value FROM t LIMIT 1",
        table("t", headers, ", 'key.format' = 'raw', 'key.fields' = 'k', 'value.fields-include' = 'EXCEPT_KEY', \
                             'scan.on-error' = 'skip'"),
        table("b", "value BYTES", ""),
        "",
        name = hostile_name().replace('`', ""),
    );
    // The last statement is refused, with an excerpt.
    std::thread::scope(|scope| {
        for form in FORMS {
            let script = &script;
            scope.spawn(move || {
                let finished = tidemill(&["-b", shared().addresses(), "-o", form, "--timeout", "60 s", "-c", script]);
                assert!(finished.code == 1 && finished.stderr.contains("[TM0308]"), "{form}: {finished:#?}");
                check(form, &finished);
            });
        }
    });
}

#[test]
fn errors_and_notes_steer_no_terminal() {
    let topic = topic();
    let name = hostile_name();
    let table = |columns: &str, more: &str| {
        format!(
            "CREATE TABLE t ({columns}) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', \
             'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset'{more});\n"
        )
    };
    let print = "CREATE TABLE p (value STRING) WITH ('connector' = 'print');\n";
    let statements = [
        // Records that do not decode, in a query and in a job.
        table("plain STRING", "") + "SELECT * FROM t",
        table("plain STRING", "") + print + "INSERT INTO p SELECT plain FROM t",
        // One of the hostile fields is no number.
        table("plain INT", ", 'scan.on-error' = 'skip'") + "SELECT CAST(plain AS INT) FROM t",
        format!("SELECT CAST('{name}' AS INT)"),
        format!("SELECT CAST('{name}' AS TIMESTAMP(3))"),
        // Names that there are not, and that there cannot be.
        format!("SELECT * FROM `{name}`"),
        format!("SELECT `{name}` FROM (VALUES (1)) AS t (a)"),
        format!("SELECT `{name}`(1)"),
        format!("PRINT '{name}'"),
        format!("DESCRIBE TOPIC '{name}'"),
        format!("DROP TABLE `{name}`"),
        format!("SET '{name}' = '{name}'"),
        format!("SET 'parallelism.default' = '{name}'"),
        format!("STOP JOB `{name}`"),
        format!("SET 'pipeline.name' = '{name}'; {print} INSERT INTO p VALUES ('x')"),
        format!("CREATE TABLE x (a INT) WITH ('connector' = '{name}')"),
        format!("CREATE TABLE x (a INT) WITH ('connector' = 'kafka', '{name}' = '{name}')"),
        format!(
            "CREATE TABLE x (a INT) WITH ('connector' = 'kafka', 'topic' = '{name}', 'format' = 'json'); SELECT * FROM x"
        ),
        format!("CREATE TABLE x (a `{name}`) WITH ('connector' = 'print')"),
        format!("{name} SELECT 1"),
        format!("SELECT 1 {name} 2 -- {name}"),
        format!("SELECT '{name}"),
        format!("SELECT ${{{name}}}"),
    ];
    std::thread::scope(|scope| {
        for part in statements.chunks(statements.len().div_ceil(4)) {
            scope.spawn(move || {
                for statement in part {
                    for more in [&[][..], &["--json-errors"]] {
                        let broker = ["-b", shared().addresses(), "--timeout", "60 s", "-c", statement];
                        let finished = tidemill(&[&broker[..], more].concat());
                        assert!(!finished.stderr.is_empty(), "{statement:?}");
                        check(statement, &finished);
                    }
                }
            });
        }
    });
    // Flags, and files.
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("\u{1b}[2J\u{202e}.sql");
    std::fs::write(&file, format!("SELECT '{name}' AS `{name}`; SELECT `{name}`")).expect("a file");
    let file = file.to_str().expect("UTF-8");
    for arguments in [
        &["run", file][..],
        &["check", file],
        &["test", file],
        &["run", "/nowhere/\u{1b}[2J.sql"],
        &["--\u{1b}[2J"],
        &["-o", "\u{1b}[2J"],
        &["\u{9b}2J"],
        &["-X", "\u{1b}[2J=1", "config"],
        &["explain-error", "\u{1b}[2J"],
        &["-b", "\u{1b}[2J:1", "--timeout", "20 s", "doctor"],
    ] {
        let finished = tidemill(arguments);
        assert_eq!(finished.signal, None, "{finished:#?}");
        check(&format!("{arguments:?}"), &finished);
    }
}
