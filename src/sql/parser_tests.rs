//! Statements of every kind, and mistakes of every kind with the place and the hint they get.

use super::*;
use crate::catalog::ColumnKind;
use crate::sql::statement::ObjectKind;

fn one(text: &str) -> Statement {
    let mut parsed = parse_script(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    assert_eq!(parsed.len(), 1, "{text}");
    parsed.remove(0).statement
}

/// A statement in few words.
fn brief(statement: &Statement) -> String {
    let query = |query: &Query| format!("{} {:?}", query.ast, query.emit);
    match statement {
        Statement::CreateTable(create) => {
            let table = &create.table;
            let columns: Vec<String> = table
                .columns
                .iter()
                .map(|column| {
                    let null = if column.not_null { " NOT NULL" } else { "" };
                    let comment = column.comment.as_ref().map_or_else(String::new, |comment| format!(" #{comment}"));
                    let kind = match &column.kind {
                        ColumnKind::Physical => String::new(),
                        ColumnKind::Computed(expr) => format!("= {expr}"),
                        ColumnKind::Metadata { key, is_virtual } => format!(" <- {key} {is_virtual}"),
                    };
                    format!("{} {}{null}{kind}{comment}", column.name, column.sql_type)
                })
                .collect();
            let mut out =
                format!("{}{}({})", if table.temporary { "temp " } else { "" }, table.name, columns.join(", "));
            if let Some(watermark) = &table.watermark {
                out += &format!(" watermark {} {}", watermark.column, watermark.expr);
            }
            if !table.primary_key.is_empty() {
                out += &format!(" key {}", table.primary_key.join(","));
            }
            for (key, value) in table.options.iter() {
                out += &format!(" {key}={value}");
            }
            if let Some(like) = &create.like {
                out += &format!(" like {like}");
            }
            if let Some(as_query) = &create.query {
                out += &format!(" as {}", query(as_query));
            }
            out + if create.if_not_exists { " if not exists" } else { "" }
        }
        Statement::CreateView(view) => {
            format!(
                "{} {:?} {} {} {}",
                view.name,
                view.columns,
                query(&view.query),
                view.or_replace,
                view.if_not_exists
            )
        }
        Statement::Insert(insert) => format!("{} {:?} {}", insert.table, insert.columns, query(&insert.query)),
        Statement::StatementSet(inserts) => {
            inserts.iter().map(|insert| brief(&Statement::Insert(insert.clone()))).collect::<Vec<_>>().join("; ")
        }
        Statement::Query(q) => query(q),
        Statement::Explain { statement, analyze } => format!("explain {analyze} {}", brief(statement)),
        other => format!("{other:?}"),
    }
}

#[test]
fn tables() {
    fn check(text: &str, want: &str) {
        assert_eq!(brief(&one(text)), want, "{text}");
    }
    check("create table t", "t()");
    check("CREATE TABLE t ()", "t()");
    check("CREATE TABLE IF NOT EXISTS default_catalog.default_database.`t.x` (a INT)", "t.x(a INT) if not exists");
    check(
        "CREATE TEMPORARY TABLE t (A BIGINT NOT NULL, \"b c\" STRING NULL COMMENT 'x')",
        "temp t(A BIGINT NOT NULL, b c STRING #x)",
    );
    check(
        "CREATE TABLE t (ts TIMESTAMP(3) METADATA FROM 'timestamp' VIRTUAL, `partition` INT METADATA VIRTUAL, h MAP<STRING, BYTES> METADATA)",
        "t(ts TIMESTAMP(3) <- timestamp true, partition INT <- partition true, h MAP<STRING, BYTES> <- h false)",
    );
    check(
        "CREATE TABLE t (a BIGINT, ts AS TO_TIMESTAMP_LTZ(a, 3) COMMENT 'when', WATERMARK FOR ts AS ts - INTERVAL '5' SECONDS) WITH ('connector' = 'kafka', 'topic'='x')",
        "t(a BIGINT, ts = TO_TIMESTAMP_LTZ(a, 3) #when) watermark ts ts - INTERVAL '5' SECOND connector=kafka topic=x",
    );
    check("CREATE TABLE t (a INT, b INT, PRIMARY KEY (a, b) NOT ENFORCED)", "t(a INT, b INT) key a,b");
    check("CREATE TABLE t (a INT, CONSTRAINT k PRIMARY KEY (a) NOT ENFORCED)", "t(a INT) key a");
    check("CREATE TABLE t (a INT NOT NULL PRIMARY KEY NOT ENFORCED COMMENT 'k')", "t(a INT NOT NULL #k) key a");
    check(
        "CREATE TABLE t (watermark INT, primary INT, year INT, timestamp STRING)",
        "t(watermark INT, primary INT, year INT, timestamp STRING)",
    );
    check("CREATE TABLE t WITH ('a' = 'b') LIKE u", "t() a=b like u");
    check("CREATE TABLE t LIKE u", "t() like u");
    check("CREATE TABLE t WITH ('a' = 'b') AS SELECT 1 AS x", "t() a=b as SELECT 1 AS x OnWindowClose");
    check(
        "CREATE TABLE t (r ROW<a INT, b ARRAY<ROW<c STRING>>>) COMMENT 'z'",
        "t(r ROW<a INT, b ARRAY<ROW<c STRING>>>)",
    );
}

#[test]
fn views_inserts_and_sets() {
    fn check(text: &str, want: &str) {
        assert_eq!(brief(&one(text)), want, "{text}");
    }
    check("CREATE VIEW v AS SELECT 1", "v [] SELECT 1 OnWindowClose false false");
    check(
        "CREATE OR REPLACE TEMPORARY VIEW v (a, `b`) AS SELECT 1, 2",
        "v [\"a\", \"b\"] SELECT 1, 2 OnWindowClose true false",
    );
    check(
        "CREATE VIEW IF NOT EXISTS v AS (SELECT 1) UNION ALL SELECT 2",
        "v [] (SELECT 1) UNION ALL SELECT 2 OnWindowClose false true",
    );
    check("INSERT INTO t SELECT * FROM u EMIT CHANGES", "t [] SELECT * FROM u OnUpdate");
    check("INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y')", "t [\"a\", \"b\"] VALUES (1, 'x'), (2, 'y') OnWindowClose");
    check("INSERT INTO t (SELECT 1)", "t [] (SELECT 1) OnWindowClose");
    check(
        "INSERT INTO t WITH u AS (SELECT 1) SELECT * FROM u",
        "t [] WITH u AS (SELECT 1) SELECT * FROM u OnWindowClose",
    );
    let set = "a [] SELECT 1 OnWindowClose; b [] SELECT CASE WHEN x THEN 1 END FROM u OnWindowClose";
    check(
        "EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1; INSERT INTO b SELECT CASE WHEN x THEN 1 END FROM u; END;",
        set,
    );
    check("BEGIN STATEMENT SET; INSERT INTO a SELECT 1; INSERT INTO b SELECT CASE WHEN x THEN 1 END FROM u; END", set);
    check(
        "EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1; INSERT INTO b SELECT CASE WHEN x THEN 1 END FROM u END;",
        set,
    );
    check(
        "EXPLAIN EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1; END",
        "explain false a [] SELECT 1 OnWindowClose",
    );
    check("EXPLAIN PLAN FOR SELECT 1", "explain false SELECT 1 OnWindowClose");
    check("EXPLAIN ANALYZE INSERT INTO a SELECT 1", "explain true a [] SELECT 1 OnWindowClose");
}

#[test]
fn queries() {
    /// Parses, and prints as it was written but for these replacements.
    fn check(text: &str) {
        let Statement::Query(query) = one(text) else { panic!("{text}") };
        assert_eq!(query.ast.to_string(), text);
        assert_eq!(query.text, text);
    }
    fn check_becomes(text: &str, want: &str) {
        assert_eq!(brief(&one(text)), want, "{text}");
    }
    check("SELECT window_start, count(*) AS n FROM t GROUP BY window_start");
    check("SELECT a FROM t WHERE `x`.`y` > 3 AND b IS NOT DISTINCT FROM c");
    check("SELECT count(*) FILTER (WHERE a > 1) FROM t GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE) HAVING count(*) > 1");
    check("SELECT * FROM TUMBLE(t, ts, INTERVAL '1' MINUTE)");
    check("SELECT a FROM t JOIN u FOR SYSTEM_TIME AS OF t.ts ON t.a = u.a");
    check("SELECT ROW_NUMBER() OVER (PARTITION BY a ORDER BY b DESC) AS r FROM t");
    check("VALUES (1, 'a'), (2, 'b')");
    check("SELECT b AS c FROM t u");
    let tumble = "SELECT * FROM TABLE(TUMBLE(__table(t), DESCRIPTOR(ts), INTERVAL '1' MINUTE)) OnWindowClose";
    check_becomes("SELECT * FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTES))", tumble);
    check_becomes(
        "SELECT * FROM HOP(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SLIDE => INTERVAL '5' MINUTES, SIZE => INTERVAL '10' MINUTES, `OFFSET` => INTERVAL '1' MINUTE)",
        "SELECT * FROM HOP(DATA => __table(t), TIMECOL => DESCRIPTOR(ts), SLIDE => INTERVAL '5' MINUTE, SIZE => INTERVAL '10' MINUTE, `OFFSET` => INTERVAL '1' MINUTE) OnWindowClose",
    );
    check_becomes(
        "SELECT * FROM TUMBLE((SELECT * FROM t WHERE a > 1), DESCRIPTOR(ts), INTERVAL '1' DAY) AS w",
        "SELECT * FROM TUMBLE((SELECT * FROM t WHERE a > 1), DESCRIPTOR(ts), INTERVAL '1' DAY) AS w OnWindowClose",
    );
    check_becomes("SELECT * FROM t emit changes", "SELECT * FROM t OnUpdate");
    check_becomes("SELECT a FROM t x EMIT FINAL", "SELECT a FROM t x OnWindowClose");
    check_becomes("SELECT 1 EMIT ON UPDATE", "SELECT 1 OnUpdate");
    check_becomes("SELECT a FROM t GROUP BY a EMIT ON WINDOW CLOSE", "SELECT a FROM t GROUP BY a OnWindowClose");
    check_becomes(
        "SELECT a FROM t LIMIT 5 EMIT EVERY INTERVAL '1:30' MINUTE TO SECOND",
        "SELECT a FROM t LIMIT 5 EveryMs(90000)",
    );
    check_becomes(
        "SELECT a FROM TUMBLE(t, ts, INTERVAL '1' DAY) EMIT EVERY INTERVAL '0.5' SECOND",
        "SELECT a FROM TUMBLE(t, ts, INTERVAL '1' DAY) EveryMs(500)",
    );
    check_becomes("(SELECT 1)", "(SELECT 1) OnWindowClose");
}

#[test]
fn everything_else() {
    fn check(text: &str, want: &str) {
        assert_eq!(format!("{:?}", one(text)), want, "{text}");
    }
    let drop = |kind, name: &str, if_exists| format!("{:?}", Statement::Drop { kind, name: name.into(), if_exists });
    check("DROP TABLE t", &drop(ObjectKind::Table, "t", false));
    check("drop temporary view if exists `v w`", &drop(ObjectKind::View, "v w", true));
    check("DESCRIBE t", "Describe(\"t\")");
    check("DESC TABLE t", "Describe(\"t\")");
    check("DESCRIBE table", "Describe(\"table\")");
    check("SHOW TABLES", "Show(Tables)");
    check("show views", "Show(Views)");
    check("SHOW TOPICS", "Show(Topics)");
    check("SHOW JOBS", "Show(Jobs)");
    check("SHOW FUNCTIONS", "Show(Functions)");
    check("SHOW CREATE TABLE `a-b`", "Show(Create(\"a-b\"))");
    check("SHOW CREATE VIEW v", "Show(Create(\"v\"))");
    let print = |topic: &str, from_beginning, limit| {
        format!("{:?}", Statement::Print { topic: topic.into(), from_beginning, limit })
    };
    check("PRINT 'a.b-c'", &print("a.b-c", false, None));
    check("PRINT a.b-c-1 LIMIT 3 FROM BEGINNING", &print("a.b-c-1", true, Some(3)));
    check("PRINT `x` FROM BEGINNING", &print("x", true, None));
    check("STOP JOB 'my job'", "StopJob { name: \"my job\", drain: false }");
    check("STOP JOB job-1", "StopJob { name: \"job-1\", drain: false }");
    check("STOP JOB job-1 WITH DRAIN", "StopJob { name: \"job-1\", drain: true }");
    check("DESCRIBE JOB", "DescribeJob(None)");
    check("DESC JOB 'my job'", "DescribeJob(Some(\"my job\"))");
    check("DESCRIBE `JOB`", "Describe(\"JOB\")");
    check("EXPLAIN ANALYZE JOB a.b-c", "ExplainJob(Some(\"a.b-c\"))");
    check("EXPLAIN ANALYZE JOB", "ExplainJob(None)");
    check("SET", "Set(None)");
    check("SET 'a.b' = 'c d'", "Set(Some((\"a.b\", \"c d\")))");
    check("SET table.local-time-zone = UTC", "Set(Some((\"table.local-time-zone\", \"UTC\")))");
    check("SET sink.commit-interval=200 ms", "Set(Some((\"sink.commit-interval\", \"200 ms\")))");
    check("RESET", "Reset(None)");
    check("RESET 'a.b'", "Reset(Some(\"a.b\"))");
    check("RESET a.b", "Reset(Some(\"a.b\"))");
}

#[test]
fn a_script_runs_up_to_its_first_mistake() {
    fn check(text: &str, want_ok: usize, want_error: &str) {
        let results: Vec<_> = Script::new(text).collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), want_ok, "{text}");
        let error = results.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.message, want_error, "{text}");
    }
    check("SELECT 1; SELEC 2; SELECT 3;", 1, "there is no statement SELEC");
    check("SELECT 1; SELECT 2; SELECT 'open", 2, "a string is not closed");
    check("SELECT 1; 'open", 1, "a string is not closed");
    check("SELECT 1; SELECT 2; /* open", 2, "a comment is not closed");
    check("'open", 0, "a string is not closed");
    check("SELECT 1 FROM t, ;", 0, "expected identifier, found the end of the statement");
    assert!(Script::new("").next().is_none());
    assert!(Script::new("-- nothing\n;;").next().is_none());
}

#[test]
fn statements_know_where_they_stand() {
    let text = "-- é\nSELECT 1 ; /* x */ INSERT INTO t\nSELECT 2 EMIT CHANGES;";
    let parsed = parse_script(text).unwrap();
    assert_eq!(parsed[0].text, "SELECT 1");
    assert_eq!(&text[parsed[1].span.clone()], "INSERT INTO t\nSELECT 2 EMIT CHANGES");
    let Statement::Insert(insert) = &parsed[1].statement else { panic!("an insert") };
    assert_eq!(&text[insert.query.span.clone()], "SELECT 2");
    assert_eq!(insert.query.text, "SELECT 2");
}

#[test]
fn mistakes_point_at_their_place_and_say_what_to_write() {
    /// `at` is the text that the error points at, or what stands before a mistake at the end.
    fn check(text: &str, at: &str, message: &str, hint: &str) {
        let error = parse_script(text).unwrap_err();
        let span = error.span.clone().unwrap();
        assert_eq!(
            (error.message.as_str(), &text[span], error.hint.as_deref().unwrap_or_default()),
            (message, at, hint),
            "{text}"
        );
    }
    check("SELCT 1", "SELCT", "there is no statement SELCT", "did you mean SELECT?");
    check("1", "1", "expected a statement, found 1", "statements begin with SELECT, INSERT, CREATE, SHOW, ..");
    check(
        "CREATE TABLE my-topic (a INT)",
        "-",
        "expected the end of the name, found \"-\"",
        "quote a name that contains \"-\": `my-topic`",
    );
    check(
        "SELECT * FROM a-b-1 WHERE x",
        "-",
        "expected the end of the statement, found \"-\"",
        "quote a name that contains \"-\": `a-b-1`",
    );
    check("CREATE TABLE t (a-b INT)", "-", "expected a type, found \"-\"", "quote a name that contains \"-\": `a-b`");
    check("CREATE TABLE t (a, b INT)", ",", "expected a type, found \",\"", "write for example a STRING");
    check("CREATE TABLE t (a STRNG)", "STRNG", "there is no type STRNG", "did you mean STRING?");
    check("CREATE TABLE t (a INT, a INT)", "a", "the column \"a\" is there twice", "");
    check(
        "CREATE TABLE t (a INT,)",
        ")",
        "expected the name of a column, found \")\"",
        "is there a comma too many before \")\"?",
    );
    check(
        "CREATE TABLE t (a INT",
        "",
        "expected \",\" or \")\", found the end of the statement",
        "is a \")\" missing? The parenthesis behind t is open",
    );
    check("CREATE TABLE t (a INT, PRIMARY KEY (b) NOT ENFORCED)", "b", "there is no column \"b\"", "");
    check(
        "CREATE TABLE t (abc INT, PRIMARY KEY (abd) NOT ENFORCED)",
        "abd",
        "there is no column \"abd\"",
        "did you mean \"abc\"?",
    );
    check(
        "CREATE TABLE t (a INT, PRIMARY KEY (a))",
        ")",
        "expected NOT ENFORCED, found \")\"",
        "write PRIMARY KEY (..) NOT ENFORCED: the topic may hold duplicates",
    );
    check(
        "CREATE TABLE t (a TIMESTAMP, WATERMARK FOR a AS a)",
        "a",
        "the event time \"a\" is TIMESTAMP(6), not TIMESTAMP(3) or TIMESTAMP_LTZ(3)",
        "declare it as a TIMESTAMP(3)",
    );
    check(
        "CREATE TABLE t (a BIGINT, WATERMARK FOR a AS a)",
        "a",
        "the event time \"a\" is BIGINT, not TIMESTAMP(3) or TIMESTAMP_LTZ(3)",
        "add a computed column: event_time AS TO_TIMESTAMP_LTZ(a, 3)",
    );
    check("CREATE TABLE t (ts INT, WATERMARK FOR t AS t)", "t", "there is no column \"t\"", "did you mean \"ts\"?");
    check("CREATE TABLE t WITH ('a' = 'b', 'a' = 'c')", "'a'", "the option 'a' is there twice", "");
    check(
        "CREATE TABLE t WITH (connector = 'kafka')",
        "connector",
        "expected an option in single quotes, found connector",
        "write WITH ('connector' = 'kafka', ..)",
    );
    check("CREATE TABLE t WITH ('a' = 1)", "1", "expected a value in single quotes, found 1", "");
    check(
        "CREATE TABLE t (a INT) PARTITIONED BY (a)",
        "PARTITIONED",
        "PARTITIONED BY is not supported",
        "a topic's partitions are chosen by 'key.fields' and 'sink.partitioner'",
    );
    check(
        "CREATE FUNCTION f AS 'x'",
        "FUNCTION",
        "functions cannot be created",
        "SHOW FUNCTIONS lists those that are built in",
    );
    check("CREATE CATALOG c", "CATALOG", "there is one catalog", "leave the statement out");
    check(
        "CREATE TABLE x.y (a INT)",
        "x.y",
        "there is one catalog and one database; names have one part",
        "write \"y\" alone, or put a name that contains dots in backticks",
    );
    check("USE x", "USE", "USE is not supported: there is one catalog and one database", "leave the statement out");
    check(
        "ADD JAR 'x'",
        "ADD",
        "ADD JAR is not supported: nothing here runs Java",
        "the connectors and formats are built in",
    );
    check(
        "INSERT OVERWRITE t SELECT 1",
        "OVERWRITE",
        "INSERT OVERWRITE is not supported: topics are only appended to",
        "write INSERT INTO",
    );
    check(
        "UPDATE t SET a = 1",
        "UPDATE",
        "UPDATE is not supported: topics are only appended to",
        "write INSERT INTO .. SELECT",
    );
    check(
        "SHOW TABLE",
        "TABLE",
        "expected TABLES, VIEWS, TOPICS, JOBS, FUNCTIONS, CREATE TABLE or CREATE VIEW, found TABLE",
        "did you mean SHOW TABLES?",
    );
    check("SELECT a FROM (SELECT b FRM u) WHERE x", "FRM", "expected FROM, found FRM", "did you mean FROM?");
    check("SELECT a FROM (SELECT b FROM u WHER x) y", "WHER", "expected WHERE, found WHER", "did you mean WHERE?");
    let condition = "write a condition behind WHERE, such as WHERE price > 10";
    check("SELECT a FROM (SELECT b FROM u WHERE) y", ")", "expected an expression, found \")\"", condition);
    check(
        "SELECT a FROM t WHERE a IN (SELECT b FROM u WHERE) AND x",
        ")",
        "expected an expression, found \")\"",
        condition,
    );
    check(
        "SELECT a FROM (SELECT * FROM (SELECT c +) x) y",
        ")",
        "expected an expression, found \")\"",
        "there must be a value behind +",
    );
    check(
        "SELECT a FROM (SELECT b FROM u",
        "",
        "expected \")\", found the end of the statement",
        "is a \")\" missing? The parenthesis behind FROM is open",
    );
    check(
        "INSERT INTO t",
        "",
        "expected SELECT, WITH or VALUES, found the end of the statement",
        "write INSERT INTO t SELECT .. for a job, INSERT INTO t VALUES (..), (..) for a few rows",
    );
    check("SELECT a, FROM t", "FROM", "expected an expression, found FROM", "is there a comma too many before FROM?");
    check(
        "SELECT INTERVAL 'x' MINUTE",
        "'x'",
        "'x' is no interval of MINUTE",
        "write for example INTERVAL '10' MINUTE",
    );
    check("SELECT CAST(a AS STRIN) FROM t", "STRIN", "there is no type STRIN", "did you mean STRING?");
    check(
        "SELECT 1 EMIT",
        "",
        "expected CHANGES, FINAL, ON UPDATE, ON WINDOW CLOSE or EVERY, found the end of the statement",
        "",
    );
    check(
        "SELECT 1 EMIT EVERY INTERVAL '1' MONTH",
        "INTERVAL '1' MONTH",
        "EMIT EVERY needs a positive interval of days or smaller units",
        "write EMIT EVERY INTERVAL '10' SECOND",
    );
    check("DROP TABLE 't'", "'t'", "expected a name, found 't'", "names are quoted with backticks: `t`");
    check("EXECUTE STATEMENT SET BEGIN SELECT 1; END", "SELECT", "expected INSERT INTO or END, found SELECT", "");
    check(
        "EXECUTE STATEMENT SET BEGIN END",
        "END",
        "the statement set is empty",
        "put INSERT INTO between BEGIN and END",
    );
    check("EXPLAIN SHOW TABLES", "SHOW", "only a query, INSERT INTO or a statement set can be explained", "");
    check("SET a", "", "expected \"=\", found the end of the statement", "write SET 'key' = 'value'");
    check(
        "STOP JOB x WITH SAVEPOINT",
        "SAVEPOINT",
        "STOP JOB takes no WITH SAVEPOINT",
        "a job that writes exactly once goes on where it ended; leave the clause out",
    );
    check("STOP JOB x WITH", "", "expected DRAIN, found the end of the statement", "");
    check(
        "EXPLAIN JOB x",
        "JOB",
        "expected a statement, found JOB",
        "write EXPLAIN ANALYZE JOB <name>, or DESCRIBE JOB <name>",
    );
}

#[test]
fn deep_nesting_is_an_error_and_long_chains_are_not() {
    let deep = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert_eq!(parse_script(&deep).unwrap_err().message, "the statement is nested too deeply");
    let deep = format!("SELECT {}1{}", "CAST(".repeat(5_000), " AS INT)".repeat(5_000));
    assert_eq!(parse_script(&deep).unwrap_err().message, "the statement is nested too deeply");
    let long = format!("SELECT {}1", "1 + ".repeat(2_000));
    assert!(parse_script(&long).is_ok());
}

/// Texts that were cut, doubled, swapped: errors or statements, never a panic, and spans that lie in the text.
#[test]
fn mangled_texts_are_errors_with_a_place() {
    const CORPUS: [&str; 8] = [
        "CREATE TABLE `t-1` (a INT NOT NULL COMMENT 'é', ts TIMESTAMP(3) METADATA FROM 'timestamp' VIRTUAL, r ROW<a INT, b ARRAY<MAP<STRING, INT>>>, c AS a + 1, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND, PRIMARY KEY (a) NOT ENFORCED) COMMENT 'x' WITH ('a' = 'b', 'c' = 'd') LIKE u;",
        "SELECT window_start, count(*) FILTER (WHERE x > 1) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1:30' MINUTE TO SECOND)) GROUP BY 1 EMIT EVERY INTERVAL '1' MINUTE;",
        "EXECUTE STATEMENT SET BEGIN INSERT INTO a (x) SELECT CASE WHEN y THEN 1 END FROM (SELECT * FROM b); INSERT INTO c VALUES (1, 'x'); END;",
        "SET 'a.b' = 'c'; SET a.b-c = d e; RESET x; SHOW CREATE TABLE a.b; DESCRIBE t; PRINT a-b.c FROM BEGINNING LIMIT 3; STOP JOB 'x';",
        "SELECT CAST(ROW(1, 2) AS ROW<a INT, b STRING>), MAP['k', v], ARRAY[1][1], JSON_VALUE(x, '$.a' RETURNING INT NULL ON EMPTY) FROM a-b-1;",
        "-- comment; é\n/* more; */ SELECT TIMESTAMPDIFF(HOUR, a, b) /*+ OPTIONS('a'='b') */ FROM t;",
        "CREATE OR REPLACE VIEW v (a, b) AS WITH w AS (SELECT 1) SELECT * FROM w UNION ALL SELECT x FROM (SELECT y FRM z) q;",
        "EXPLAIN PLAN FOR INSERT INTO t SELECT a FROM HOP(DATA => TABLE t, SIZE => INTERVAL '1' DAY) WHERE b IN (SELECT c FROM d) EMIT ON WINDOW CLOSE;",
    ];
    let mut seed = 1_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below.max(1)
    };
    for round in 0..4_000 {
        let mut chars: Vec<char> = CORPUS[round % CORPUS.len()].chars().collect();
        for _ in 0..=random(3) {
            let (from, to) = (random(chars.len()), random(chars.len()));
            let (from, to) = (from.min(to), from.max(to).min(from.min(to) + 12));
            match random(4) {
                0 => drop(chars.drain(from..to)),
                1 => chars.truncate(to),
                2 => {
                    let copy: Vec<char> = chars[from..to].to_vec();
                    let at = random(chars.len());
                    chars.splice(at..at, copy);
                }
                _ => {
                    let signs = ['\'', '`', '"', ';', '(', ')', '<', '>', '-', '.', ',', '\n', 'é', '\0', '*', '/'];
                    let at = random(chars.len());
                    chars.insert(at, signs[random(signs.len())]);
                }
            }
        }
        let text: String = chars.into_iter().collect();
        let _ = crate::sql::is_complete(&text);
        for result in Script::new(&text) {
            match result {
                Ok(parsed) => assert_eq!(text[parsed.span.clone()], parsed.text),
                Err(error) => {
                    let span = error.span.clone().unwrap_or_default();
                    assert!(text.get(span).is_some(), "{text}: {error:?}");
                    crate::sql::diagnostics::render(&error, &text, true);
                }
            }
        }
    }
}
