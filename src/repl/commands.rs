//! The shell's own commands, which are no SQL: `help`, `quit`, and what psql's users type instead.

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Quit,
    /// What a psql command is in SQL.
    Statement(String),
    /// `\x`: a line per value, or as before; `auto` for rows that are too wide.
    Expanded(Option<String>),
    /// `\live`: rows of a stream as a live table, or one below the other; `auto`: by whether they may change.
    Live(Option<String>),
    /// `\timing`: how long statements take.
    Timing(Option<bool>),
    /// `\i file`: executes a file.
    Include(String),
    /// `\o file`: rows go there; without a file, to standard output again.
    Output(Option<String>),
    /// A command that is not written as it must be, with what is wrong.
    Wrong(String),
    /// `\` and a word that means nothing here.
    Unknown(String),
}

/// The text that `help` shows.
pub const HELP: &str = "\
CREATE TABLE t (c TYPE, .., WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('connector' = 'kafka', ..);
                             a topic as a table; other connectors: filesystem, datagen, print, blackhole
CREATE TABLE t WITH ('connector' = 'kafka', 'topic' = '..');   the same, its columns inferred from records
CREATE VIEW v AS SELECT ..;  a name for a query
SELECT ..;                   rows as they come; Ctrl-C ends it; a topic needs no table: SELECT * FROM `a-topic`
INSERT INTO t SELECT ..;     a job in the background; INSERT INTO t VALUES (..), (..) for a few rows
EXECUTE STATEMENT SET BEGIN INSERT ..; INSERT ..; END;   several sinks that share what they read
SHOW JOBS;  STOP JOB name;   what runs, and the end of it
DESCRIBE JOB name;           how a job is, and why it gives no rows; EXPLAIN ANALYZE JOB name; what its operators do
SHOW TABLES | VIEWS | TOPICS | FUNCTIONS;  SHOW CREATE TABLE t;  DESCRIBE t;  EXPLAIN ..;
PRINT 'topic' FROM BEGINNING LIMIT 10;   a topic's records as they are
DESCRIBE TOPIC 'topic';      what a topic holds: formats, columns, how late its rows are
DROP TABLE t;  DROP VIEW v;  a table's topic stays as it is
SET 'key' = 'value';  SET;  RESET 'key';

Windows: SELECT window_start, k, COUNT(*) FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) GROUP BY window_start, window_end, k;
         HOP(t, ts, INTERVAL '10' SECOND, INTERVAL '1' MINUTE) slides.

help or \\?   this text          quit, exit, \\q or Ctrl-D   the end; jobs are stopped cleanly
\\d [t]       tables, or the columns of one          \\dt \\dv \\df   tables, views, functions
\\x [auto]    a line per value, or columns again     \\timing        how long statements take
\\live [auto] rows of a stream as a live table, or one below the other
\\i FILE      executes a file                        \\o [FILE]      rows into a file, or here again
Ctrl-C       clears the line, or ends what is running; Ctrl-R searches what was typed before; Tab completes";

/// The command that a text is, if it is one. SQL is not.
pub fn parse(text: &str) -> Option<Command> {
    let text = text.trim().trim_end_matches(';').trim_end();
    if let Some(command) = text.strip_prefix('\\') {
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        return Some(of(name, rest.trim()));
    }
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    match () {
        () if is("help") || is("?") => Some(Command::Help),
        () if is("quit") || is("exit") => Some(Command::Quit),
        () => None,
    }
}

fn of(name: &str, rest: &str) -> Command {
    let given = (!rest.is_empty()).then(|| rest.to_owned());
    match name {
        "?" | "h" | "help" => Command::Help,
        "q" | "quit" => Command::Quit,
        "d" | "d+" => Command::Statement(match given {
            Some(table) => format!("DESCRIBE {table}"),
            None => "SHOW TABLES".to_owned(),
        }),
        "dt" => Command::Statement("SHOW TABLES".to_owned()),
        "dv" => Command::Statement("SHOW VIEWS".to_owned()),
        "df" => Command::Statement("SHOW FUNCTIONS".to_owned()),
        "x" => Command::Expanded(given),
        "live" => Command::Live(given),
        "timing" => match rest {
            "" => Command::Timing(None),
            "on" => Command::Timing(Some(true)),
            "off" => Command::Timing(Some(false)),
            _ => Command::Wrong("\\timing takes on or off".to_owned()),
        },
        "i" => given.map_or_else(|| Command::Wrong("\\i takes the name of a file".to_owned()), Command::Include),
        "o" => Command::Output(given),
        _ => Command::Unknown(name.to_owned()),
    }
}
