//! The shell's own commands, which are no SQL: `help`, `quit`, and what psql's users type instead.

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Quit,
    /// `\` and a word that means nothing here.
    Unknown(String),
}

/// The text that `help` shows.
pub const HELP: &str = "\
CREATE TABLE t (c TYPE, .., WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('connector' = 'kafka', ..);
                             a topic as a table; other connectors: filesystem, datagen, print, blackhole
CREATE VIEW v AS SELECT ..;  a name for a query
SELECT ..;                   rows as they come; Ctrl-C ends it
INSERT INTO t SELECT ..;     a job in the background; INSERT INTO t VALUES (..), (..) for a few rows
EXECUTE STATEMENT SET BEGIN INSERT ..; INSERT ..; END;   several sinks that share what they read
SHOW JOBS;  STOP JOB name;   what runs, and the end of it
SHOW TABLES | VIEWS | TOPICS | FUNCTIONS;  SHOW CREATE TABLE t;  DESCRIBE t;  EXPLAIN ..;
DROP TABLE t;  DROP VIEW v;  a table's topic stays as it is
SET 'key' = 'value';  SET;  RESET 'key';
PRINT 'topic' FROM BEGINNING LIMIT 10;   a topic's records as they are

Windows: SELECT window_start, k, COUNT(*) FROM TUMBLE(t, ts, INTERVAL '1' MINUTE) GROUP BY window_start, window_end, k;
         HOP(t, ts, INTERVAL '10' SECOND, INTERVAL '1' MINUTE) slides.

help or \\?   this text          quit, exit, \\q or Ctrl-D   the end; jobs are stopped cleanly
Ctrl-C       clears the line, or ends what is running; Ctrl-R searches what was typed before";

/// The command that a text is, if it is one. SQL is not.
pub fn parse(text: &str) -> Option<Command> {
    let text = text.trim().trim_end_matches(';').trim_end();
    if let Some(name) = text.strip_prefix('\\') {
        return Some(match name {
            "?" | "h" | "help" => Command::Help,
            "q" | "quit" => Command::Quit,
            _ => Command::Unknown(name.split_whitespace().next().unwrap_or_default().to_owned()),
        });
    }
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    match () {
        () if is("help") || is("?") => Some(Command::Help),
        () if is("quit") || is("exit") => Some(Command::Quit),
        () => None,
    }
}
