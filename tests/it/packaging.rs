//! What only users with a container engine run: here it is read, and every name in it is checked against what it names.

use std::collections::BTreeMap;
use std::fs;

use futures::executor::block_on;
use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use serde_yaml_ng::Value;

use crate::common::broker::{REQUEST_TIMEOUT, repository, shared};
use crate::common::program::tidemill;

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn compose() -> Value {
    serde_yaml_ng::from_str(&read("docker-compose.yml")).expect("docker-compose.yml is YAML")
}

/// The services by name.
fn services(compose: &Value) -> BTreeMap<&str, &Value> {
    let services = compose["services"].as_mapping().expect("services");
    services.iter().map(|(name, service)| (name.as_str().expect("a name"), service)).collect()
}

/// The items of a list of strings; none if there is no list.
fn strings(value: &Value) -> Vec<&str> {
    let items = value.as_sequence().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item.as_str().expect("strings")).collect()
}

/// `environment` of a service.
fn environment(service: &Value) -> BTreeMap<&str, &str> {
    let variables = service["environment"].as_mapping().expect("environment");
    // Compose takes numbers too, but writes them its own way: quoted they are what they look like.
    variables.iter().map(|(name, value)| (name.as_str().unwrap(), value.as_str().expect("quoted"))).collect()
}

/// `NAME://host:port,..` as name to (host, port).
fn listeners(list: &str) -> BTreeMap<&str, (&str, &str)> {
    let parse = |listener| -> Option<_> {
        let (name, address): (&str, &str) = str::split_once(listener, "://")?;
        Some((name, address.rsplit_once(':')?))
    };
    list.split(',').map(|listener| parse(listener).expect("NAME://host:port")).collect()
}

#[test]
fn tidemill_is_told_an_address_that_the_broker_advertises() {
    let compose = compose();
    let services = services(&compose);
    let kafka = services["kafka"];
    let variables = environment(kafka);
    let bound = listeners(variables["KAFKA_LISTENERS"]);
    let advertised = listeners(variables["KAFKA_ADVERTISED_LISTENERS"]);
    let protocols: BTreeMap<_, _> = variables["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]
        .split(',')
        .map(|entry| entry.split_once(':').expect("NAME:PROTOCOL"))
        .collect();
    let controller = variables["KAFKA_CONTROLLER_LISTENER_NAMES"];

    for (name, (_, port)) in &advertised {
        assert_eq!(bound[name].1, *port, "{name} is advertised where it listens");
    }
    for name in bound.keys() {
        assert_eq!(protocols[name], "PLAINTEXT");
        assert!(advertised.contains_key(name) != (*name == controller), "{name}");
    }
    assert!(advertised.contains_key(variables["KAFKA_INTER_BROKER_LISTENER_NAME"]));
    let voter = format!("{}@kafka:{}", variables["KAFKA_NODE_ID"], bound[controller].1);
    assert_eq!(variables["KAFKA_CONTROLLER_QUORUM_VOTERS"], voter);

    let in_network = |address: &str| {
        let (host, port) = address.rsplit_once(':').expect("host:port");
        assert_eq!(host, kafka["hostname"].as_str().unwrap());
        assert!(advertised.values().any(|known| *known == (host, port)), "{address} is not advertised");
    };
    let users: Vec<_> = services.iter().filter(|(name, _)| **name != "kafka").collect();
    assert!(!users.is_empty());
    for (name, service) in users {
        in_network(environment(service)["TIDEMILL_BROKERS"]);
        assert_eq!(service["depends_on"]["kafka"]["condition"].as_str(), Some("service_healthy"), "{name}");
    }
    let health = strings(&kafka["healthcheck"]["test"]);
    in_network(health.last().unwrap());

    // Users outside the containers get the other one, by a published port of the same number.
    let (_, port) = advertised["HOST"];
    assert_eq!(advertised["HOST"].0, "localhost");
    assert_eq!(strings(&kafka["ports"]), [format!("127.0.0.1:{port}:{port}")]);
}

/// The image turns `KAFKA_SOME_OPTION` into `some.option`; a real broker says which options there are.
#[test]
fn every_broker_variable_is_an_option_of_kafka() {
    let broker = shared();
    let admin = broker.admin();
    let metadata = admin.inner().fetch_metadata(None, REQUEST_TIMEOUT).expect("Kafka answers");
    let resources = [ResourceSpecifier::Broker(metadata.brokers()[0].id())];
    let described = block_on(admin.describe_configs(&resources, &AdminOptions::new())).expect("Kafka answers");
    let described = described.into_iter().next().expect("one resource").expect("its options");

    let compose = compose();
    let services = services(&compose);
    let mut checked = 0;
    for name in environment(services["kafka"]).into_keys() {
        if let Some(option) = name.strip_prefix("KAFKA_") {
            let option = option.to_lowercase().replace('_', ".");
            assert!(described.get(&option).is_some(), "Kafka has no option {option} (from {name})");
            checked += 1;
        }
    }
    assert!(checked > 10);
}

#[test]
fn the_tests_broker_is_the_version_that_users_get() {
    let compose = compose();
    let image = services(&compose)["kafka"]["image"].as_str().unwrap();
    let version = image.strip_prefix("apache/kafka:").expect("Apache's own image");
    assert!(read("tests/kafka/pom.xml").contains(&format!("<kafka.version>{version}</kafka.version>")));
}

#[test]
fn volumes_are_declared_and_files_exist() {
    let compose = compose();
    let declared = compose["volumes"].as_mapping().expect("volumes");
    for service in services(&compose).into_values() {
        for volume in strings(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            let known = match source.strip_prefix("./") {
                Some(path) => repository().join(path).is_dir(),
                None => declared.contains_key(source),
            };
            assert!(known, "{volume}");
        }
        if let Some(context) = service["build"].as_str() {
            assert!(repository().join(context).join("Dockerfile").is_file());
        }
    }
}

#[test]
fn the_dockerfile_copies_what_is_there() {
    let dockerfile = read("Dockerfile");
    let ignored = read(".dockerignore");
    let mut copied = 0;
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let words: Vec<_> = line.split_whitespace().collect();
        if words[0].starts_with("--from=") {
            continue;
        }
        for source in &words[..words.len() - 1] {
            assert!(repository().join(source).exists(), "COPY {line}: there is no {source}");
            assert!(!ignored.lines().any(|entry| entry.trim_start_matches('/') == *source), "{source} is ignored");
            copied += 1;
        }
    }
    assert!(copied > 0);

    // The compiler is at least the one that Cargo.toml asks for, and the program has its name.
    let manifest = read("Cargo.toml");
    let wanted = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("rust-version");
    let used = dockerfile.lines().find_map(|line| line.strip_prefix("FROM rust:")).expect("a Rust image");
    let number = |version: &str| -> u32 {
        let minor = version.trim_matches('"').split(['.', '-']).nth(1).expect("1.minor");
        minor.parse().expect("a number")
    };
    assert!(number(used) >= number(wanted), "{used} is older than {wanted}");
    assert!(dockerfile.contains("--locked --bin tidemill"));
    assert!(dockerfile.contains("\nUSER tidemill\n"), "not root");
}

/// What `tidemill` prints about itself.
fn help(arguments: &[&str]) -> String {
    let finished = tidemill(&[arguments, &["--help"]].concat());
    assert_eq!(finished.code, 0, "tidemill {arguments:?} --help: {}", finished.stderr);
    finished.stdout
}

#[test]
fn the_commands_in_the_compose_file_are_tidemills() {
    let general = help(&[]);
    assert!(general.contains("TIDEMILL_BROKERS"), "{general}");
    let compose = compose();
    let commands: Vec<_> = services(&compose).into_values().filter(|service| service["image"] == "tidemill").collect();
    for service in commands {
        let words = strings(&service["command"]);
        let Some((subcommand, arguments)) = words.split_first() else { continue };
        assert!(general.split_whitespace().any(|word| word == *subcommand), "{subcommand}: {general}");
        let detailed = help(&[*subcommand]);
        for argument in arguments {
            if argument.starts_with('-') {
                let flag = argument.split('=').next().unwrap();
                assert!(detailed.split([' ', ',', '\n']).any(|word| word == flag), "{flag}: {detailed}");
            } else {
                let here = strings(&service["volumes"]).iter().find_map(|volume| {
                    let (source, rest) = volume.split_once(':')?;
                    let inside = argument.strip_prefix(rest.split(':').next()?)?;
                    Some(repository().join(source).join(inside.trim_start_matches('/')))
                });
                assert!(here.is_some_and(|path| path.is_file()), "{argument} is no file in a mounted folder");
            }
        }
    }
}

/// Two would be two incompatible kinds of batches, and of syntax trees.
#[test]
fn there_is_one_arrow_and_one_sqlparser() {
    let lock = read("Cargo.lock");
    for name in ["arrow", "arrow-array", "sqlparser", "datafusion"] {
        assert_eq!(lock.matches(&format!("name = \"{name}\"\n")).count(), 1, "{name}");
    }
}
