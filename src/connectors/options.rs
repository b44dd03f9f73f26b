//! Which options a table may have: by connector, and by the formats it uses.
//!
//! Every key of Flink's that a script for one of these connectors may carry is known. Those without a meaning here are
//! accepted with a notice, so that scripts run unchanged; any other unknown key is a mistake.

use super::{Rejects, connector_of, kafka};
use crate::catalog::Table;
use crate::catalog::options::nearest;
use crate::error::{Error, Result};
use crate::formats;

/// Keys that the engine reads, whatever the connector.
const ENGINE: &[&str] = &[
    "connector",
    "scan.watermark.idle-timeout",
    "scan.watermark.idle-advance",
    "scan.watermark.alignment.group",
    "scan.watermark.alignment.max-drift",
    "sink.commit-interval",
];

/// Keys of Flink's without a meaning here, with the reason.
const WITHOUT_MEANING: &[(&str, &str)] = &[
    ("scan.parallelism", "the engine spreads partitions over its workers by itself"),
    ("sink.parallelism", "a job has one writer per sink"),
    ("scan.watermark.emit.strategy", "watermarks are computed per record here"),
    ("scan.watermark.emit.on-event.gap", "watermarks are computed per record here"),
    ("scan.watermark.alignment.update-interval", "partitions are compared at every turn"),
    ("sink.transactional-id-prefix", "the engine names its transactions after the job"),
    ("sink.transaction-naming-strategy", "the engine names its transactions after the job"),
    ("sink.semantic", "'sink.delivery-guarantee' is its new name"),
    ("sink.rolling-policy.file-size", "a file sink writes one file"),
    ("sink.rolling-policy.rollover-interval", "a file sink writes one file"),
    ("sink.rolling-policy.check-interval", "a file sink writes one file"),
    ("sink.rolling-policy.inactivity-interval", "a file sink writes one file"),
    ("sink.partition-commit.trigger", "a file sink writes one file"),
    ("sink.partition-commit.delay", "a file sink writes one file"),
    ("sink.partition-commit.policy.kind", "a file sink writes one file"),
    ("auto-compaction", "a file sink writes one file"),
    ("compaction.file-size", "a file sink writes one file"),
    ("source.monitor-interval", "the files are listed when a job begins"),
    ("source.path.regex-pattern", "'path' may be a pattern"),
    ("partition.default-name", "a file sink writes one file"),
];

/// The same for whole families of keys.
const WITHOUT_MEANING_PREFIXES: &[(&str, &str)] =
    &[("sink.buffer-flush.", "rows are written at every commit interval")];

const KAFKA: &[&str] = &[
    "topic",
    "topic-pattern",
    "format",
    "value.format",
    "value.fields-include",
    "key.format",
    "key.fields",
    "key.fields-prefix",
    "scan.startup.mode",
    "scan.startup.specific-offsets",
    "scan.startup.timestamp-millis",
    "scan.bounded.mode",
    "scan.bounded.specific-offsets",
    "scan.bounded.timestamp-millis",
    "scan.topic-partition-discovery.interval",
    "scan.on-error",
    "scan.dead-letter.topic",
    "scan.late.topic",
    "scan.event-time.max-ahead",
    "sink.partitioner",
    "sink.delivery-guarantee",
    "sink.topic.partitions",
];

const UPSERT_KAFKA: &[&str] = &[
    "topic",
    "value.format",
    "value.fields-include",
    "key.format",
    "key.fields-prefix",
    "scan.bounded.mode",
    "scan.bounded.specific-offsets",
    "scan.bounded.timestamp-millis",
    "sink.delivery-guarantee",
    "sink.topic.partitions",
];

/// Options of `kafka` that `upsert-kafka` has not, with what there is instead.
const UPSERT_KAFKA_INSTEAD: &[(&str, &str)] = &[
    ("format", "key and value have a format each: set 'key.format' and 'value.format'"),
    ("key.fields", "the key is the table's: PRIMARY KEY (column, ..) NOT ENFORCED"),
    ("sink.partitioner", "records go to the partition of their key, so that the changes of a key stay in order"),
];

const FILESYSTEM: &[&str] = &["path", "format", "csv.skip-header", "scan.on-error", "sink.delivery-guarantee"];

const DATAGEN: &[&str] = &["rows-per-second", "number-of-rows", "seed"];

/// What may follow `fields.X.` of a generated column.
const DATAGEN_FIELD: &[&str] =
    &["kind", "min", "max", "start", "end", "length", "var-len", "max-past", "null-rate", "step", "disorder"];

const PRINT: &[&str] = &["print-identifier", "standard-error"];

/// The options of a connector; without one, the options that name it.
pub fn option_keys(connector: Option<&str>) -> Vec<String> {
    let Some(connector) = connector else { return vec!["connector".to_owned()] };
    let (own, prefixes): (&[&str], &[&str]) = match connector {
        "kafka" => (KAFKA, &["", "value.", "key."]),
        "upsert-kafka" => (UPSERT_KAFKA, &["value.", "key."]),
        "filesystem" => (FILESYSTEM, &[""]),
        "datagen" => (DATAGEN, &[]),
        "print" => (PRINT, &[]),
        _ => (&[], &[]),
    };
    let has_effect = |key: &&&str| !formats::OPTION_KEYS_WITHOUT_EFFECT.contains(key);
    let formats =
        prefixes.iter().flat_map(|p| formats::OPTION_KEYS.iter().filter(has_effect).map(move |k| format!("{p}{k}")));
    let clients = kafka::property_names().iter().filter(|_| matches!(connector, "kafka" | "upsert-kafka"));
    let clients = clients.map(|name| format!("properties.{name}"));
    own.iter().chain(ENGINE).map(|key| (*key).to_owned()).chain(formats).chain(clients).collect()
}

/// The values that an option can have, where they are few.
pub fn option_values(key: &str) -> Vec<&'static str> {
    match key {
        "connector" => super::CONNECTORS.to_vec(),
        "format" | "value.format" | "key.format" => formats::FORMATS.to_vec(),
        "value.fields-include" => vec!["ALL", "EXCEPT_KEY"],
        "scan.startup.mode" => {
            vec!["earliest-offset", "latest-offset", "group-offsets", "timestamp", "specific-offsets"]
        }
        "scan.bounded.mode" => vec!["unbounded", "latest-offset", "group-offsets", "timestamp", "specific-offsets"],
        "scan.on-error" => vec!["fail", "skip", "dead-letter"],
        "scan.watermark.idle-advance" => vec!["clock", "none"],
        "sink.delivery-guarantee" => vec!["exactly-once", "at-least-once", "none"],
        "sink.partitioner" => vec!["default", "fixed", "round-robin"],
        "properties.security.protocol" => vec!["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        "properties.sasl.mechanism" => vec!["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
        key if key.ends_with("timestamp-format.standard") => vec!["SQL", "ISO-8601"],
        key if key.ends_with("raw.endianness") => vec!["big-endian", "little-endian"],
        key if key.starts_with("fields.") && key.ends_with(".kind") => vec!["random", "sequence", "event-time"],
        "standard-error" | "csv.skip-header" => vec!["true", "false"],
        key if ["ignore-parse-errors", "ignore-null-fields", "fail-on-missing-field", "disable-quote-character"]
            .iter()
            .any(|end| key.ends_with(end)) =>
        {
            vec!["true", "false"]
        }
        _ => Vec::new(),
    }
}

/// Checks that every option of a table is known, and returns a notice for each that is accepted but changes nothing.
pub fn check_options(table: &Table) -> Result<Vec<String>> {
    let connector = connector_of(table)?;
    Rejects::of(table)?;
    let own: &[&str] = match connector {
        "kafka" => KAFKA,
        "upsert-kafka" => UPSERT_KAFKA,
        "filesystem" => FILESYSTEM,
        "datagen" => DATAGEN,
        "print" => PRINT,
        _ => &[],
    };
    let prefixes: &[&str] = match connector {
        "kafka" => &["", "value.", "key."],
        "upsert-kafka" => &["value.", "key."],
        "filesystem" => &[""],
        _ => &[],
    };
    let is_kafka = matches!(connector, "kafka" | "upsert-kafka");
    let mut notices = Vec::new();
    for (key, value) in table.options.iter() {
        if own.contains(&key) || ENGINE.contains(&key) {
            continue;
        }
        if let Some((_, why)) = without_meaning(key) {
            notices.push(format!("'{key}' has no meaning here and is ignored: {why}"));
            continue;
        }
        if is_kafka && let Some(property) = key.strip_prefix("properties.") {
            notices.extend(kafka::property_notice(property, value)?);
            continue;
        }
        if connector == "datagen"
            && let Some(field) = key.strip_prefix("fields.")
        {
            check_datagen_field(table, key, field)?;
            continue;
        }
        let format_key = prefixes.iter().find_map(|p| key.strip_prefix(p).filter(|k| formats::OPTION_KEYS.contains(k)));
        match format_key {
            Some(k) if formats::OPTION_KEYS_WITHOUT_EFFECT.contains(&k) => {
                notices.push(format!("'{key}' has no meaning here and is ignored"));
            }
            Some(_) => {}
            None => return Err(unknown(connector, key, own, prefixes)),
        }
    }
    if connector == "upsert-kafka" {
        kafka::check_upsert(table)?;
    }
    Ok(notices)
}

fn without_meaning(key: &str) -> Option<(&str, &'static str)> {
    let exact = WITHOUT_MEANING.iter().find(|(k, _)| *k == key);
    let family = || WITHOUT_MEANING_PREFIXES.iter().find(|(p, _)| key.starts_with(p));
    exact.or_else(family).map(|(_, why)| (key, *why))
}

fn unknown(connector: &str, key: &str, own: &[&str], prefixes: &[&str]) -> Error {
    let error = Error::statement(format!("connector '{connector}' has no option '{key}'"));
    if connector == "upsert-kafka"
        && let Some((_, instead)) = UPSERT_KAFKA_INSTEAD.iter().find(|(k, _)| *k == key)
    {
        return error.hint(*instead);
    }
    let prefixed = prefixes.iter().flat_map(|p| formats::OPTION_KEYS.iter().map(move |k| format!("{p}{k}")));
    let known: Vec<String> = own.iter().chain(ENGINE).map(|k| (*k).to_owned()).chain(prefixed).collect();
    match nearest(key, known.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean '{near}'?")),
        None if matches!(connector, "kafka" | "upsert-kafka") => {
            error.hint("settings of the Kafka client itself start with 'properties.'")
        }
        None => error.hint("remove it"),
    }
}

fn check_datagen_field(table: &Table, key: &str, field: &str) -> Result<()> {
    // A column's name may hold dots.
    let Some((name, setting)) = field.rsplit_once('.') else {
        return Err(Error::statement(format!("connector 'datagen' has no option '{key}'"))
            .hint("options of a column are as in 'fields.price.min'"));
    };
    if table.column(name).is_none() {
        let error = Error::statement(format!("'{key}' is about a column \"{name}\", which the table does not have"));
        return Err(match nearest(name, table.columns.iter().map(|c| c.name.as_str())) {
            Some(near) => error.hint(format!("did you mean 'fields.{near}.{setting}'?")),
            None => error.hint("remove it, or declare the column"),
        });
    }
    if !DATAGEN_FIELD.contains(&setting) {
        let error = Error::statement(format!("connector 'datagen' has no option '{key}'"));
        return Err(match nearest(setting, DATAGEN_FIELD.iter().copied()) {
            Some(near) => error.hint(format!("did you mean 'fields.{name}.{near}'?")),
            None => error.hint(format!("a column has {}", super::quoted_list(DATAGEN_FIELD))),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::options::Options;

    fn check(pairs: &[(&str, &str)], want: Result<&[&str], &str>) {
        let table = Table {
            name: "t".to_owned(),
            columns: Vec::new(),
            watermark: None,
            primary_key: Vec::new(),
            options: Options::from_pairs(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))),
            comment: None,
            temporary: false,
        };
        match (check_options(&table), want) {
            (Ok(notices), Ok(want)) => {
                assert_eq!(notices.len(), want.len(), "{notices:?}");
                for (notice, want) in notices.iter().zip(want) {
                    assert!(notice.contains(want), "{notice}");
                }
            }
            (Err(e), Err(want)) => assert_eq!(format!("{e}; {}", e.hint.clone().unwrap_or_default()), want),
            (got, want) => panic!("{pairs:?}: {got:?}, not {want:?}"),
        }
    }

    #[test]
    fn every_key_is_known_or_named() {
        let kafka = ("connector", "kafka");
        check(&[kafka, ("topic", "a"), ("properties.group.id", "g")], Ok(&[]));
        check(&[kafka, ("scan.parallelism", "4")], Ok(&["scan.parallelism"]));
        check(
            &[kafka, ("scan.watermark.alignment.max-drift", "1 s"), ("scan.topic-partition-discovery.interval", "1 s")],
            Ok(&[]),
        );
        check(&[kafka, ("scan.watermark.alignment.update-interval", "1 s")], Ok(&["compared at every turn"]));
        check(&[kafka, ("sink.buffer-flush.interval", "4")], Ok(&["commit interval"]));
        check(&[kafka, ("properties.max.poll.records", "4")], Ok(&["max.poll.records"]));
        check(&[kafka, ("topik", "a")], Err("connector 'kafka' has no option 'topik'; did you mean 'topic'?"));
        check(
            &[kafka, ("scan.startup.mod", "a")],
            Err("connector 'kafka' has no option 'scan.startup.mod'; did you mean 'scan.startup.mode'?"),
        );
        check(&[("connector", "kafak")], Err("there is no connector 'kafak'; did you mean 'kafka'?"));
        check(
            &[("connector", "datagen"), ("fields.x.min", "1")],
            Err(
                "'fields.x.min' is about a column \"x\", which the table does not have; remove it, or declare the column",
            ),
        );
        check(&[("connector", "print"), ("print-identifier", "a")], Ok(&[]));
        check(&[("topic", "a")], Err("the option 'connector' is missing; add 'connector' = '..' to WITH (..)"));
    }

    #[test]
    fn upsert_kafka_wants_a_key_and_two_formats() {
        let check = |columns: &str, options: &str, want: Result<&[&str], &str>| {
            let text =
                format!("CREATE TABLE t ({columns}) WITH ('connector' = 'upsert-kafka', 'topic' = 'a', {options})");
            let statement = crate::sql::parse_script(&text).unwrap().remove(0).statement;
            let crate::sql::statement::Statement::CreateTable(create) = statement else { panic!("{text}") };
            match (check_options(&create.table), want) {
                (Ok(notices), Ok(want)) => {
                    assert_eq!(notices.len(), want.len(), "{notices:?}");
                    assert!(notices.iter().zip(want).all(|(n, w)| n.contains(w)), "{notices:?}");
                }
                (Err(e), Err(want)) => assert_eq!(format!("{e}; {}", e.hint.clone().unwrap_or_default()), want),
                (got, want) => panic!("{text}: {got:?}, not {want:?}"),
            }
        };
        let keyed = "k STRING, n INT, PRIMARY KEY (k) NOT ENFORCED";
        let formats = "'key.format' = 'json', 'value.format' = 'json'";
        check(keyed, formats, Ok(&[]));
        check(
            keyed,
            &format!("{formats}, 'key.json.ignore-parse-errors' = 'true', 'properties.acks' = 'all'"),
            Ok(&[]),
        );
        check(
            keyed,
            &format!("{formats}, 'sink.parallelism' = '2', 'sink.buffer-flush.max-rows' = '9'"),
            Ok(&["sink.buffer-flush.max-rows", "sink.parallelism"]),
        );
        check(
            "k STRING, n INT",
            formats,
            Err("table t needs a primary key: 'upsert-kafka' keeps the last row of each key; \
                 add PRIMARY KEY (column, ..) NOT ENFORCED behind the columns"),
        );
        check(
            keyed,
            "'value.format' = 'json'",
            Err("the option 'key.format' is missing; add 'key.format' = '..' to WITH (..)"),
        );
        check(
            keyed,
            "'key.format' = 'json'",
            Err("the option 'value.format' is missing; add 'value.format' = '..' to WITH (..)"),
        );
        for (options, hint) in [
            ("'format' = 'json'", "key and value have a format each: set 'key.format' and 'value.format'"),
            ("'key.fields' = 'k'", "the key is the table's: PRIMARY KEY (column, ..) NOT ENFORCED"),
            ("'value.field-include' = 'ALL'", "did you mean 'value.fields-include'?"),
            ("'value.json.ignore-parse-error' = 'true'", "did you mean 'value.json.ignore-parse-errors'?"),
            (
                "'sink.partitioner' = 'fixed'",
                "records go to the partition of their key, so that the changes of a key stay in order",
            ),
        ] {
            let key = options.split('\'').nth(1).unwrap();
            let want = format!("connector 'upsert-kafka' has no option '{key}'; {hint}");
            check(keyed, &format!("{formats}, {options}"), Err(&want));
        }
        check(
            keyed,
            "'key.format' = 'debezium-json', 'value.format' = 'json'",
            Err("a key cannot have the format 'debezium-json'; a key says which row, not what became of it: \
                 set 'key.format' = 'json'"),
        );
        check(
            keyed,
            "'key.format' = 'json', 'value.format' = 'debezium-json'",
            Err(
                "'upsert-kafka' does not take the format 'debezium-json'; its records are rows, and one without a value \
                 says that a row is gone: set 'value.format' = 'json'; 'connector' = 'kafka' takes this format",
            ),
        );
        check(
            keyed,
            &format!("{formats}, 'key.fields-prefix' = 'x_', 'value.fields-include' = 'EXCEPT_KEY'"),
            Err("the key column \"k\" does not start with 'x_'; \
                 with 'key.fields-prefix' all columns in the primary key must start with it"),
        );
        check(
            "k STRING METADATA FROM 'topic', n INT, PRIMARY KEY (k) NOT ENFORCED",
            formats,
            Err("the primary key names \"k\", which is no physical column; \
                 it must be a column of the table, without METADATA and without an expression"),
        );
    }

    #[test]
    fn connectors_of_others_are_not_taken_for_misspellings() {
        let available = "available are 'kafka', 'upsert-kafka', 'filesystem', 'datagen', 'print', 'blackhole'";
        check(&[("connector", "jdbc")], Err(&format!("connector 'jdbc' is not available yet; {available}")));
    }
}
