//! Brokers that are away, refuse, or speak another protocol.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::{
    EARLIEST, PATIENCE, at, by_window, counts, engine, expected, finished, input, output, script, start, until_job,
};
use crate::common::broker::{Broker, SASL_USER, shared};
use crate::common::program::{Finished, start_tidemill, tidemill};

/// Runs a query over a table with these further options.
fn run(brokers: &str, topic: &str, options: &str) -> Finished {
    let file = script(&(input("i", topic, &format!("{EARLIEST}{options}")) + "SELECT n FROM i;\n"));
    tidemill(&["-b", brokers, "run", file.path().to_str().expect("UTF-8")])
}

#[test]
fn a_broker_that_is_not_there_is_named_in_time() {
    // Bound for a moment, so that it is a port where nobody listens.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").to_string();
    let nowhere = "no-such-host.invalid:9092".to_string();
    let check = |address: &str| {
        let begin = Instant::now();
        let ended = run(address, "t", "");
        assert_eq!(ended.code, 3, "{ended:?}");
        assert!(begin.elapsed() < Duration::from_secs(14), "{:?}", begin.elapsed());
        assert!(ended.stderr.contains(address), "{ended:?}");
        assert!(!ended.stderr.contains("warning"), "{ended:?}");
    };
    std::thread::scope(|scope| {
        for address in [&free, &nowhere] {
            scope.spawn(|| check(address));
        }
    });
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let broker = shared();
    let there = broker.topic("behaviour-missing", 1);
    let ended = run(broker.addresses(), &format!("{there}x"), "");
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains(&format!("{there}x")), "{ended:?}");
}

#[test]
fn a_wrong_password_is_said_and_not_shown() {
    let broker = shared();
    let Some(address) = broker.sasl_address() else { return };
    let topic = broker.topic("behaviour-sasl", 1);
    broker.produce(&topic, [at(0, 0)]);
    let (user, password) = SASL_USER;
    let login = |password: &str| {
        format!(
            ", 'scan.bounded.mode' = 'latest-offset', 'properties.security.protocol' = 'SASL_PLAINTEXT', \
             'properties.sasl.mechanism' = 'PLAIN', 'properties.sasl.username' = '{user}', \
             'properties.sasl.password' = '{password}'"
        )
    };
    let ended = run(address, &topic, &login(password));
    assert_eq!(ended.code, 0, "{ended:?}");
    let begin = Instant::now();
    let ended = run(address, &topic, &login("canary-not-it"));
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(begin.elapsed() < Duration::from_secs(14), "{:?}", begin.elapsed());
    assert!(ended.stderr.contains("does not accept the credentials"), "{ended:?}");
    assert!(ended.stderr.contains(address), "{ended:?}");
    assert!(!ended.stderr.contains("canary") && !ended.stdout.contains("canary"), "{ended:?}");
}

#[test]
fn tls_to_a_port_without_it_is_said() {
    let broker = shared();
    let begin = Instant::now();
    let ended = run(broker.addresses(), "t", ", 'properties.security.protocol' = 'SSL'");
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(begin.elapsed() < Duration::from_secs(14), "{:?}", begin.elapsed());
    assert!(ended.stderr.contains("TLS") && ended.stderr.contains(broker.addresses()), "{ended:?}");
}

#[test]
fn a_broker_that_goes_away_is_waited_for() {
    let mut broker = Broker::start_own();
    let (topic, out, other) =
        (broker.topic("outage", 2), broker.topic("outage-out", 1), broker.topic("outage-other", 1));
    let times = |from: i64, to: i64| (from..to).map(|n| n * 100);
    let send = |broker: &Broker, from: i64, to: i64| {
        broker.produce(&topic, times(from, to).map(|ts| at(i32::try_from(ts / 100 % 2).expect("0 or 1"), ts)));
    };
    // Both partitions have records before the jobs begin: one that is empty then holds nothing back.
    send(&broker, 0, 1_000);
    let file = script(&(input("i", &topic, EARLIEST) + &output("o", &out) + &counts("i", "o", 2)));
    let program = start_tidemill(&["-b", broker.addresses(), "run", file.path().to_str().expect("UTF-8")]);
    let engine = engine(&broker);
    let inside = start(&engine, &(input("i", &topic, EARLIEST) + &output("o", &other) + &counts("i", "o", 2)));
    for out in [&out, &other] {
        broker.read_until(out, PATIENCE, |rows| rows.len() == 49);
    }
    // With a kill, requests are under way when it goes.
    send(&broker, 1_000, 20_000);
    broker.kill();
    program.wait_for("cannot be reached", PATIENCE);
    let address = broker.addresses().to_owned();
    until_job(&inside, "trouble", |i| i.trouble.as_ref().is_some_and(|t| t.contains(&address) && t.contains("away")));
    broker.start();
    until_job(&inside, "an end of the trouble", |info| info.trouble.is_none());
    send(&broker, 20_000, 21_000);
    let closed = |rows: usize| rows == 21_000 / 20 - 1;
    for out in [&out, &other] {
        let rows = broker.read_until(out, PATIENCE, |rows| closed(rows.len()));
        let mut want = expected(times(0, 21_000), 2);
        want.pop_last();
        assert!(by_window(&rows) == want, "other rows than expected on {out}");
    }
    inside.stop();
    finished(&inside);
    program.signal("TERM");
    let ended = program.finish(PATIENCE);
    assert_eq!(ended.code, 143, "{ended:?}");
    // Once of each that needs the broker, however often it is tried.
    for client in ["the source \"i\"", "the transactions of"] {
        let said =
            ended.stderr.lines().filter(|line| line.contains("cannot be reached") && line.contains(client)).count();
        assert!(said <= 1, "{}", ended.stderr);
    }
    for out in [&out, &other] {
        assert!(closed(by_window(&broker.read_all(out)).len()));
    }
}
