//! Codes of errors, and what they mean at length.
//!
//! An error is known by its sentence, so that who raises it need not know this list: a test holds an example for every
//! code. Codes stay what they are; one that is no longer given is not given to another error.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

use super::Error;

/// A kind of error.
#[derive(Debug)]
pub struct Code {
    /// `TM` and four digits.
    pub code: &'static str,
    /// What its sentence, with the hint on the next line, looks like.
    pattern: &'static str,
    /// What it means, and what to do, for people who have not seen it before.
    pub explanation: &'static str,
}

const fn code(code: &'static str, pattern: &'static str, explanation: &'static str) -> Code {
    Code { code, pattern, explanation }
}

/// All codes. The first pattern that matches counts.
pub const CODES: &[Code] = &[
    // Before grammar: what is wrong with a record is often that something else was expected.
    code(
        "TM0502",
        r"arithmetic overflow",
        "\
A result does not fit its type. Sums of whole numbers fail rather than wrap around. Compute in a wider type:
CAST(x AS BIGINT), CAST(x AS DECIMAL(38, 2)) or CAST(x AS DOUBLE).",
    ),
    code(
        "TM0503",
        r"division by zero",
        "\
A row has a zero below the line, and that ends the job. Write x / NULLIF(y, 0), which is NULL where y is zero, or leave
such rows out with WHERE.",
    ),
    code(
        "TM0501",
        r"partition \d+, offset \d+",
        "\
A record cannot be read as a row of its table: it is no JSON object, say, or a value does not fit its column.
The message names the topic, the partition and the offset; PRINT shows the record.

By default that ends the job, so that nothing is lost in silence. 'scan.on-error' = 'skip' goes on and counts such
records; 'scan.on-error' = 'dead-letter' with 'scan.dead-letter.topic' keeps them in a topic.",
    ),
    // Names.
    code(
        "TM0101",
        r"^there is no table or view",
        "\
A name in the statement is neither a table nor a view of this session, nor (where it is read) a topic of the broker.

Tables and views last as long as the session: a script declares what it uses. Names keep their case: Orders and orders
are two names. SHOW TABLES lists what is declared, SHOW TOPICS the broker's topics. A topic can be read without a
table, but a table that is written to must be declared.",
    ),
    code(
        "TM0102",
        r"^there is no column|^there is no field",
        "\
The rows that the query reads have no column of this name.

Names keep their case, because the keys of JSON objects do. Text stands in single quotes: \"abc\" is a name, 'abc' is a
text. DESCRIBE t lists the columns of a table. The columns window_start, window_end and window_time are those of
TUMBLE(..), HOP(..), CUMULATE(..) and SESSION(..).",
    ),
    code(
        "TM0103",
        r"^there is no function",
        "\
No function has this name. SHOW FUNCTIONS lists those that there are; docs/sql.md tells what Flink's mean.

RAND, UUID and the like are left out on purpose: the answer of a query is the same on every run.",
    ),
    code(
        "TM0104",
        r"has no option '|^there is no client property",
        "\
WITH (..) holds an option that the connector does not know; a misspelt one would otherwise be passed over in silence.

docs/connectors.md lists the options of each connector. Settings of the Kafka client start with 'properties.', such as
'properties.security.protocol'.",
    ),
    code(
        "TM0105",
        r"^there is no setting",
        "\
SET names a key that does not exist. docs/sql.md lists the settings; SET without anything shows those that are set.",
    ),
    code(
        "TM0106",
        r"^there is no connector|^there is no format|^the format '.*' is not available",
        "\
The connectors are kafka, upsert-kafka, filesystem, datagen, print and blackhole. The formats are json, csv, raw, and
debezium-json for tables that are written to.",
    ),
    code(
        "TM0107",
        r#"^".*" exists already"#,
        "\
A table or a view of this name was declared before. Write CREATE TABLE IF NOT EXISTS to keep the old one, or DROP it
first: that forgets the declaration only, the topic stays as it is.",
    ),
    code(
        "TM0108",
        r"could be several columns$|is there twice$|could be several columns\n",
        "\
Several tables of the query have a column of this name. Write the table's name, or its alias, before it: t.a.",
    ),
    code(
        "TM0109",
        r"^there is no type",
        "\
The types are those of Flink SQL: BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p, s), STRING, BYTES,
DATE, TIME, TIMESTAMP(3), TIMESTAMP_LTZ(3), ARRAY<..>, MAP<.., ..>, ROW<a .., b ..>.",
    ),
    code(
        "TM0110",
        r"^there is no topic|^no topic at ",
        "\
The broker has no topic of this name, or does not let this user see it. SHOW TOPICS lists those that exist.

A topic that is only written to is made if it is missing and the broker allows it; one that is read must be there.",
    ),
    code(
        "TM0111",
        r"has no columns|has no records to infer columns from|cannot be inferred from topic",
        "\
CREATE TABLE without columns takes them from a sample of the topic's records, and that needs a broker, one topic, and
records in it that are JSON objects (or anything with 'format' = 'raw'). Otherwise name the columns:

    CREATE TABLE t (a BIGINT, b STRING) WITH ('connector' = 'kafka', 'topic' = 't', 'format' = 'json');",
    ),
    // Grammar.
    code(
        "TM0201",
        "(?s)^expected .*\nquote a name that contains \"-\"",
        "\
A name that holds other characters than letters, digits and _ stands in backticks or double quotes:

    SELECT * FROM `my-topic`;

Without them my-topic is a subtraction.",
    ),
    code(
        "TM0202",
        r"^expected ",
        "\
The statement's grammar is broken at the place that the caret points at. What is missing is often before it: a comma, a
closing parenthesis, a quote. A keyword as a name stands in backticks: `offset`.",
    ),
    code(
        "TM0203",
        r"^there is no statement",
        "\
A statement begins with SELECT, INSERT, CREATE, DROP, EXPLAIN, DESCRIBE, SHOW, PRINT, SET, RESET, STOP or EXECUTE
STATEMENT SET. Statements end with a semicolon.",
    ),
    code(
        "TM0204",
        r"is not closed$|is not closed\n",
        "\
A quote or a comment is open at the end of the text. Text stands in single quotes, a quote in it is doubled: 'it''s'.",
    ),
    code(
        "TM0205",
        r"^there is no variable",
        "\
${name} in a statement stands for the value of --var name=value, and there is none of this name.",
    ),
    // Streams.
    code(
        "TM0301",
        r"is not an event time",
        "\
Windows close when event time has passed their end, so they need a column whose time is known to rise. A table
declares it:

    CREATE TABLE t (.., ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH (..);

The interval is how late rows may come. An expression over an event time (CAST(ts AS ..)) is none any more: make it a
computed column of the table. Where no column is a time, the record's own will do:

    ts TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL",
    ),
    code(
        "TM0302",
        r"^ORDER BY would have to wait",
        "\
A stream has no end, so its rows cannot be sorted. Within a window they can: a window function with
OVER (PARTITION BY window_start, window_end ORDER BY ..), or ROW_NUMBER() for the first ones of each window. In batch
mode (SET 'execution.runtime-mode' = 'batch') a query over what is there now may be sorted.",
    ),
    code(
        "TM0303",
        r"^an aggregate over a stream without windows",
        "\
COUNT, SUM and the like over a stream have a result only when something ends: group by windows.

    SELECT window_start, k, COUNT(*) FROM TUMBLE(t, ts, INTERVAL '1' MINUTE)
    GROUP BY window_start, window_end, k;",
    ),
    code(
        "TM0304",
        r"leaves out the window|column window_\w+ is neither grouped by",
        "\
Rows of windows are grouped by their window: GROUP BY window_start, window_end and what else is wanted. A group without
its window would never end.",
    ),
    code(
        "TM0305",
        r"rows change after they were written",
        "\
With EMIT ON UPDATE, EMIT EVERY or allowed lateness a row is corrected after it was given out, and the table that is
written to only takes new rows. Leave EMIT out, so that rows are final, or write to a table that can hold changes:
'connector' = 'upsert-kafka' with a PRIMARY KEY, or 'format' = 'debezium-json'.",
    ),
    code(
        "TM0306",
        r"would have to remember every row for ever",
        "\
DISTINCT, UNION without ALL, and OVER without a window compare each row with all rows before, for ever. Per window they
are possible: have window_start and window_end among the columns, or in PARTITION BY. UNION ALL keeps all rows.",
    ),
    code(
        "TM0307",
        r"^a subquery inside an expression",
        "\
A sub-query may stand in FROM, and in IN (..) or EXISTS (..), but its value cannot be an operand over a stream: it would
change with every row.",
    ),
    code(
        "TM0308",
        r"^LIMIT is for a SELECT on its own",
        "\
LIMIT ends a SELECT that you look at. A job goes on for ever, and a stream has no first rows to stop at.",
    ),
    // Types and columns.
    code(
        "TM0401",
        r"cannot be compared|cannot be computed",
        "\
The operands have types that do not go together. Convert one of them: CAST(x AS BIGINT), or TRY_CAST, which gives NULL
for what cannot be converted. A time is written TIMESTAMP '2024-01-31 10:00:00'.",
    ),
    code(
        "TM0402",
        r"does not take \(|takes another number of arguments|takes arguments$",
        "\
The function exists, and takes arguments of other types, or another number of them. Convert them with CAST(x AS type).",
    ),
    code(
        "TM0403",
        r"is neither grouped by nor aggregated",
        "\
With GROUP BY a row of the result stands for many rows: each of its columns is grouped by, or an aggregate of many
values. Add the column to GROUP BY, or say which of its values is meant, such as MAX(c).",
    ),
    code(
        "TM0404",
        r"^aggregate functions cannot stand in WHERE|^an aggregate function cannot stand in another",
        "\
WHERE looks at single rows, before they are grouped. HAVING looks at groups. An aggregate of an aggregate needs a
sub-query in FROM.",
    ),
    code(
        "TM0405",
        r"is no TIMESTAMP",
        "\
A text that is compared with a time must be one: '2024-01-31 10:00:00', with a T or a fraction if you like. Write
TIMESTAMP '2024-01-31 10:00:00'. Words like 'yesterday' mean nothing; NOW() - INTERVAL '1' DAY does.",
    ),
    code(
        "TM0406",
        r"^'.*' is no \w|does not fit|^.* cannot be cast to",
        "\
The value cannot be converted to the type. TRY_CAST gives NULL in place of an error.",
    ),
    code(
        "TM0407",
        r"^the query gives \d+ columns?, ",
        "\
INSERT INTO t SELECT .. fills the columns of t by their order; there must be as many. Name those that are meant:
INSERT INTO t (a, b) SELECT ..; the others are NULL. Computed and VIRTUAL columns are not written.",
    ),
    // Data.
    // The broker.
    code(
        "TM0602",
        r"does not accept the credentials",
        "\
The user, the password or the mechanism is not one that the broker knows. Check sasl.mechanism (PLAIN, SCRAM-SHA-256,
SCRAM-SHA-512), sasl.username, sasl.password, and security.protocol (SASL_SSL, or SASL_PLAINTEXT without TLS).",
    ),
    code(
        "TM0603",
        r"cannot be reached over TLS",
        "\
The connection was refused while it was made secure. The message tells why: the broker has no TLS on this port
(security.protocol); its certificate is signed by an authority that is not known here (ssl.ca.location), is for another
host, or has expired; or the broker wants a certificate of the client (ssl.certificate.location, ssl.key.location), and
one that it trusts.

`tidemill doctor` looks at TLS, login and permissions one by one.",
    ),
    code(
        "TM0604",
        r"^the broker at .* does not let ",
        "\
The broker knows this user and does not let them; its administrator must allow it. A source needs READ and DESCRIBE on
its topic, a sink WRITE and DESCRIBE, and CREATE for topics that are made. A job that keeps a log needs READ, WRITE,
DESCRIBE and DELETE on its topic (tidemill-progress-..), and WRITE and DESCRIBE on the transactional id of that name.

`tidemill doctor` looks at what this user may do.",
    ),
    code(
        "TM0601",
        r"^no broker answered|cannot be resolved|cannot be reached",
        "\
Nothing answered at the address in time. Is the broker running, and does it advertise an address that can be reached
from here (advertised.listeners)? `tidemill doctor` looks at each step. With `-b embedded` a broker runs inside the
process, for trying things out.",
    ),
    code(
        "TM0701",
        r"^a job named .* is running already|^no job named",
        "\
Jobs have names: SET 'pipeline.name' = '..' gives the next one, else it is made of the sinks and the statement.
SHOW JOBS lists them; STOP JOB ends one.",
    ),
    code(
        "TM0801",
        r"^the option '.*' is missing",
        "\
A table lacks an option that its connector needs. docs/connectors.md lists the options; brokers may be named once for
all tables, by -b, TIDEMILL_BROKERS or the configuration file.",
    ),
    code(
        "TM0802",
        r"^'.*' = '.*' is not valid",
        "\
The value is not one that the option or the setting can have; the hint says what is expected.",
    ),
];

/// The code of an error, if it is one of the common ones.
pub fn of(error: &Error) -> Option<&'static Code> {
    static PATTERNS: LazyLock<RegexSet> =
        LazyLock::new(|| RegexSet::new(CODES.iter().map(|code| code.pattern)).expect("constant patterns"));
    let text = format!("{}\n{}", error.message, error.hint.as_deref().unwrap_or_default());
    PATTERNS.matches(&text).iter().next().map(|at| &CODES[at])
}

/// The code of this name, in any case, with or without `TM`.
pub fn named(name: &str) -> Option<&'static Code> {
    let name = name.trim().to_ascii_uppercase();
    CODES.iter().find(|code| code.code == name || code.code.strip_prefix("TM") == Some(&name))
}

/// What the sentence of an error names, if that stands in `text`: where to point when no better place is known.
pub(crate) fn subject(message: &str, text: &str) -> Option<std::ops::Range<usize>> {
    static QUOTED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"'[^']+'|"[^"]+""#).expect("a constant pattern"));
    static WORD: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^the column (\w+) is|^(\w+) does not take|^(\w+) takes|^the column (\w+) ")
            .expect("a constant pattern")
    });
    let once = |needle: &str| {
        let mut found = text.match_indices(needle);
        let (at, _) = found.next()?;
        found.next().is_none().then_some(at..at + needle.len())
    };
    // Of several the last one: it is the one that belongs to the others.
    let quoted = QUOTED
        .find_iter(message)
        .filter_map(|found| {
            let found = found.as_str();
            once(found).or_else(|| {
                let name = found.trim_matches('"');
                // A name may be written without quotes; one letter stands everywhere.
                (name.len() < found.len() && name.len() > 1).then(|| once(name))?
            })
        })
        .last();
    // What is missing would stand in WITH (..), or else behind the table's name.
    static WITHOUT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?i)\b(WITH)\s*\(|\bTABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(\S+)").expect("a constant pattern")
    });
    if quoted.is_none() && message.starts_with("the option '") && message.ends_with("' is missing") {
        let places =
            || WITHOUT.captures_iter(text).filter_map(|found| Some((found.get(1), found.get(1).or(found.get(2))?)));
        let (_, place) = places().find(|(with, _)| with.is_some()).or_else(|| places().next())?;
        return Some(place.range());
    }
    quoted.or_else(|| {
        let parts = WORD.captures(message)?;
        let word = parts.iter().skip(1).flatten().next()?.as_str();
        let word = Regex::new(&format!(r"(?i)\b{}\b", regex::escape(word))).ok()?;
        word.find(text).map(|found| found.range())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_explained() {
        let mut codes: Vec<_> = CODES.iter().map(|code| code.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
        for code in CODES {
            assert!(code.code.len() == 6 && code.explanation.len() > 60, "{code:?}");
            assert!(code.explanation.lines().all(|line| line.len() <= 120), "{code:?}");
            assert_eq!(named(&code.code.to_lowercase()).unwrap().code, code.code);
            assert_eq!(named(&code.code[2..]).unwrap().code, code.code);
        }
        assert!(named("TM9999").is_none() && named("").is_none());
    }

    #[test]
    fn what_an_error_is_about_is_found_in_the_text() {
        fn check(message: &str, text: &str, want: Option<&str>) {
            assert_eq!(subject(message, text).map(|range| &text[range]), want, "{message}");
        }
        check("connector 'kafka' has no option 'tpic'", "'kafka' .. 'tpic' .. 'kafka'", Some("'tpic'"));
        check("there is no table or view \"xy\"", "DROP TABLE xy", Some("xy"));
        check("there is no table or view \"v\"", "DROP TABLE v", None);
        check("the column b is neither grouped", "SELECT ab, b", Some("b"));
        check("sum does not take (STRING)", "SELECT SUM(s)", Some("SUM"));
        check("nothing to see", "SELECT 1", None);
    }
}
