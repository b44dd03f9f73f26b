//! Topics that nobody has declared: listed, printed, described, and queried without a table.

use crate::common::broker::shared;
use crate::common::program::{Finished, tidemill};
use crate::common::records::{Ending, Message};

/// Runs statements on the shared broker.
#[track_caller]
fn run(statements: &str) -> Finished {
    let finished = tidemill(&["-b", shared().addresses(), "-o", "jsonl", "-c", statements]);
    assert_eq!(finished.code, 0, "{statements}: {finished:#?}");
    finished
}

/// A topic of orders with two partitions; each partition is out of order by 20 s once.
fn orders() -> String {
    let topic = shared().topic("topics-orders", 2);
    let order = |partition: i32, second: i64, city: &str| {
        let value = format!(
            "{{\"id\":{second},\"city\":\"{city}\",\"ordered_at\":\"2024-01-01T00:{:02}:{:02}Z\",\"note\":null}}",
            second / 60,
            second % 60
        );
        Message::new(&*value).key(&*second.to_string()).partition(partition).timestamp_ms(1_704_067_200_000)
    };
    let orders = [(0, 30, "Bonn"), (0, 10, "Ulm"), (0, 31, "Bonn"), (1, 45, "Bonn"), (1, 25, "Ulm"), (1, 50, "Ulm")];
    shared().produce(&topic, orders.map(|(partition, second, city)| order(partition, second, city)));
    topic
}

#[test]
fn topics_are_listed_with_what_is_in_them() {
    let broker = shared();
    let topic = broker.topic("topics-list", 3);
    broker.produce(&topic, (0..3).map(|n| Message::new("x").partition(n % 2).timestamp_ms(1_704_067_200_000)));
    let committed = broker.topic("topics-list-committed", 1);
    broker.transaction(&committed, ["a", "b"], Ending::Commit);
    let empty = broker.topic("topics-list-empty", 1);
    let listed = run("SHOW TOPICS").stdout;
    let line = |name: &str| listed.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{listed}"));
    let rest = "\"partitions\":3,\"replication\":1,\"records\":3,\"newest\":\"2024-01-01 00:00:00Z\"";
    assert!(line(&topic).contains(rest), "{}", line(&topic));
    // Two records and the marker of their transaction.
    assert!(line(&committed).contains("\"records\":3,\"newest\":\"20"), "{}", line(&committed));
    assert!(line(&empty).contains("\"records\":0,\"newest\":null"), "{}", line(&empty));
    assert!(!listed.contains("__"), "{listed}");
}

#[test]
fn records_are_printed_as_they_are() {
    let broker = shared();
    let topic = broker.topic("topics-print", 1);
    let full = Message::new("{\"a\":1}").key("k").timestamp_ms(1_704_067_200_000).header("h", Some("1"));
    broker.produce(&topic, [full, Message::tombstone().key("gone"), Message::new("\u{1b}[31mtext")]);
    let printed = run(&format!("PRINT '{topic}' FROM BEGINNING LIMIT 3"));
    let lines: Vec<_> = printed.stdout.lines().collect();
    assert_eq!(
        lines[0],
        "{\"partition\":0,\"offset\":0,\"timestamp\":\"2024-01-01 00:00:00Z\",\"headers\":{\"h\":\"1\"},\"key\":\"k\",\
         \"value\":\"{\\\"a\\\":1}\"}"
    );
    assert!(lines[1].ends_with("\"key\":\"gone\",\"value\":null}"), "{}", lines[1]);
    assert!(lines[2].ends_with("\"headers\":null,\"key\":null,\"value\":\"\\u001b[31mtext\"}"), "{}", lines[2]);
    assert!(printed.stderr.contains("value: mixed: json 50 %, text 50 %"), "{}", printed.stderr);
    let one = run(&format!("PRINT {topic} FROM BEGINNING LIMIT 1"));
    assert_eq!(one.stdout.lines().count(), 1);
}

#[test]
fn a_topic_is_described_by_what_it_holds() {
    let topic = orders();
    let described = run(&format!("DESCRIBE TOPIC '{topic}'"));
    let said = "6 of about 6 records in 2 partitions; key: text; value: json";
    assert!(described.stderr.contains(said), "{}", described.stderr);
    let late = "\"late by 1 s, 10 s, 1 min, 10 min\":\"33.3 %, 33.3 %, 0 %";
    for want in [
        "\"column\":\"id\",\"type\":\"BIGINT\",\"null\":\"0 %\",\"examples\":\"",
        "\"column\":\"note\",\"type\":\"STRING\",\"null\":\"100 %\"",
        "\"column\":\"ordered_at\",\"type\":\"TIMESTAMP_LTZ(3)\",\"null\":\"0 %\"",
        late,
    ] {
        assert!(described.stdout.contains(want), "{want}: {}", described.stdout);
    }
}

#[test]
fn a_table_without_columns_has_those_of_its_topic() {
    let topic = orders();
    let finished = run(&format!(
        "CREATE TABLE orders WITH ('connector' = 'kafka', 'topic' = '{topic}', 'scan.bounded.mode' = 'latest-offset');
         SELECT window_start, city, COUNT(*) AS n FROM TUMBLE(orders, ordered_at, INTERVAL '1' HOUR)
         GROUP BY window_start, window_end, city"
    ));
    let said = finished.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    for want in [
        "the columns of orders are inferred from 6 of about 6 records in 2 partitions",
        "CREATE TABLE orders ( id BIGINT, city STRING, ordered_at TIMESTAMP_LTZ(3), note STRING, \
         WATERMARK FOR ordered_at AS ordered_at - INTERVAL '1' MINUTE )",
        "'scan.bounded.mode' = 'latest-offset'",
    ] {
        assert!(said.contains(want), "{want}: {said}");
    }
    let mut rows: Vec<_> = finished.stdout.lines().collect();
    rows.sort_unstable();
    let row = |city| format!("{{\"window_start\":\"2024-01-01 00:00:00\",\"city\":\"{city}\",\"n\":3}}");
    assert_eq!(rows, [row("Bonn"), row("Ulm")]);
}

#[test]
fn a_topic_can_be_queried_without_a_table() {
    let topic = orders();
    let finished = run(&format!("SELECT id, city FROM \"{topic}\" WHERE id = 45 LIMIT 1; DESCRIBE `{topic}`;"));
    assert!(finished.stdout.starts_with("{\"id\":45,\"city\":\"Bonn\"}\n"), "{finished:#?}");
    assert!(finished.stdout.contains("\"name\":\"ordered_at\""), "{finished:#?}");
    assert_eq!(finished.stderr.matches("are inferred from").count(), 1, "{finished:#?}");

    // Windows, views and jobs find it, too; what is written to must be declared.
    let finished = run(&format!(
        "CREATE VIEW v AS SELECT city, ordered_at FROM `{topic}`; SHOW TABLES;
         EXPLAIN SELECT window_start, COUNT(*) FROM TUMBLE(TABLE v, DESCRIPTOR(ordered_at), INTERVAL '1' HOUR)
         GROUP BY window_start, window_end;"
    ));
    assert!(finished.stdout.starts_with("{\"table name\":\"v\"}\n"), "{finished:#?}");
    let refused = tidemill(&["-b", shared().addresses(), "-c", &format!("INSERT INTO `{topic}` SELECT 1")]);
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.stderr.contains("there is no table or view"), "{refused:#?}");
}

#[test]
fn a_name_that_is_nearly_a_topics_is_corrected() {
    let topic = orders();
    let misspelt = format!("{}x", &topic[..topic.len() - 1]);
    let finished = tidemill(&["-b", shared().addresses(), "-c", &format!("SELECT * FROM `{misspelt}`")]);
    assert_eq!(finished.code, 1, "{finished:#?}");
    assert!(finished.stderr.contains("did you mean the topic `topics-orders"), "{finished:#?}");
    assert!(finished.stderr.contains("line 1, column 15"), "{finished:#?}");
    let empty = shared().topic("topics-empty", 1);
    let finished = tidemill(&["-b", shared().addresses(), "-c", &format!("SELECT * FROM `{empty}`")]);
    assert_eq!(finished.code, 1, "{finished:#?}");
    assert!(finished.stderr.contains("has no records to infer columns from"), "{finished:#?}");
}

#[test]
fn the_broker_inside_the_process_shows_its_topics_too() {
    let finished = tidemill(&[
        "-o",
        "jsonl",
        "-c",
        "CREATE TABLE t (a INT) WITH ('connector' = 'kafka', 'topic' = 'inside', 'format' = 'json');
         INSERT INTO t VALUES (1), (2); SHOW TOPICS; SELECT a FROM inside LIMIT 2; PRINT inside FROM BEGINNING LIMIT 1",
    ]);
    assert_eq!(finished.code, 0, "{finished:#?}");
    assert!(finished.stdout.contains("{\"topic\":\"inside\",\"partitions\":"), "{finished:#?}");
    assert!(finished.stdout.contains("\"records\":2") && finished.stdout.contains("{\"a\":2}"), "{finished:#?}");
}
