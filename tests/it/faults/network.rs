//! Networks that are cut, silent, slow or narrow.

use std::sync::OnceLock;
use std::time::Duration;

use super::process::Usage;
use super::trial::Trial;
use super::{PATIENCE, Row, volume};
use crate::common::broker::Broker;

/// How long a job may take from the moment at which the network is well again.
const RECOVERY_MAX: Duration = Duration::from_secs(40);

/// How much of its time a job may be busy that can only wait. Whoever looked without a pause would be so all the time.
const BUSY_MAX: f64 = 0.4;

/// A broker that the tests with networks of their own share; each has its number.
pub fn proxied() -> &'static Broker {
    static PROXIED: OnceLock<Broker> = OnceLock::new();
    PROXIED.get_or_init(|| Broker::start_proxied(5))
}

#[test]
fn row_5_a_network_that_is_cut_silent_slow_or_narrow() {
    let mut row = Row::new("5", "network::row_5", 105);
    let broker = proxied();
    let proxy = broker.proxy(0);
    let (mut trial, mut feed) = Trial::new(broker, "network", 3, row.seed);
    trial.brokers = proxy.address();
    trial.options = ", 'properties.socket.timeout.ms' = '3000', 'properties.transaction.timeout.ms' = '20000'".into();
    feed.send(300);
    feed.flush();
    let feed = feed.run(300);
    let mut job = trial.start(2);
    trial.goes_on("at first", PATIENCE, &mut job);
    let before = Usage::of(job.id());
    let mut fault = |what: &str, wait: u64, begin: &dyn Fn()| {
        begin();
        // What has come already may be worked on for a while.
        std::thread::sleep(Duration::from_secs(wait) / 2);
        let cpu = Usage::of(job.id()).cpu;
        std::thread::sleep(Duration::from_secs(wait) / 2);
        assert!(job.is_running(), "{what}: {}", job.said());
        let busy = (Usage::of(job.id()).cpu - cpu).as_secs_f64() * 2.0 / wait as f64;
        proxy.clear();
        row.survived(trial.goes_on(what, RECOVERY_MAX, &mut job));
        busy
    };
    for _ in 0..volume(1, 10) {
        let busy = fault("cut", 6, &|| {
            proxy.change(|weather| weather.refuses = true);
            proxy.cut();
        });
        assert!(busy < BUSY_MAX, "it waits, and is busy for {busy:.2} of its time");
        for silent in [[true, true], [true, false], [false, true]] {
            let busy = fault("half open", 7, &|| proxy.change(|weather| weather.stalled = silent));
            assert!(busy < BUSY_MAX, "it waits, and is busy for {busy:.2} of its time");
        }
        fault("slow", 6, &|| proxy.change(|weather| weather.latency = Duration::from_millis(500)));
        for rates in [[Some(50_000), None], [None, Some(50_000)]] {
            fault("narrow", 6, &|| proxy.change(|weather| weather.rates = rates));
        }
    }
    before.check(job.id());
    let feed = feed.stop();
    let rows = trial.check(broker, feed, job);
    row.finish(rows);
}

#[test]
fn row_15_a_burst_into_a_slow_sink() {
    let mut row = Row::new("15", "network::row_15", 115);
    let broker = proxied();
    let proxy = broker.proxy(1);
    let (mut trial, mut feed) = Trial::new(broker, "burst", 3, row.seed);
    trial.brokers = proxy.address();
    feed.send(300);
    feed.flush();
    let mut job = trial.start(2);
    trial.goes_on("at first", PATIENCE, &mut job);
    let before = Usage::of(job.id());
    proxy.change(|weather| weather.rates = [Some(300_000), None]);
    for _ in 0..volume(1, 10) {
        feed.send(u64::from(volume(40_000, 200_000)));
        feed.flush();
        for _ in 0..8 {
            std::thread::sleep(Duration::from_secs(1));
            assert!(job.is_running(), "{}", job.said());
            before.check(job.id());
        }
        row.survived(trial.goes_on("while the sink is slow", PATIENCE, &mut job));
    }
    proxy.clear();
    let rows = trial.check(broker, feed, job);
    row.finish(rows);
}
