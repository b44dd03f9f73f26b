//! Windows always close, and never twice.

use std::time::{Duration, Instant};

use super::{EARLIEST, PATIENCE, at, by_window, counts, engine, finished, input, output, start, until_job};
use crate::common::broker::{shared, unique_name};

/// Partitions are idle after so long.
fn idle_after(timeout: &str) -> String {
    format!("{EARLIEST}, 'scan.watermark.idle-timeout' = '{timeout}'")
}

#[test]
fn a_partition_that_was_empty_holds_nothing_back() {
    let broker = shared();
    let (topic, out) = (broker.topic("behaviour-one-empty", 2), unique_name("behaviour-one-empty-out"));
    broker.produce(&topic, [at(0, 0), at(0, 1_000), at(0, 1_999)]);
    let engine = engine(broker);
    let job = start(
        &engine,
        &("SET 'sink.commit-interval' = '20 ms';".to_string()
            + &input("i", &topic, &idle_after("1 h"))
            + &output("o", &out)
            + &counts("i", "o", 2)),
    );
    let rows = broker.read_until(&out, PATIENCE, |rows| rows.len() == 1);
    assert_eq!(by_window(&rows), [(0, 3)].into());

    // From its first record on it counts as any other.
    broker.produce(&topic, [at(1, 2_500)]);
    until_job(&job, "the record", |info| info.records_in == 4);
    broker.produce(&topic, [at(0, 5_999)]);
    until_job(&job, "the record", |info| info.records_in == 5 && info.open_windows == 2);
    broker.produce(&topic, [at(1, 5_999)]);
    let rows = broker.read_until(&out, PATIENCE, |rows| rows.len() == 3);
    assert_eq!(by_window(&rows), [(0, 3), (2, 1), (4, 2)].into());
    job.stop();
    assert_eq!(finished(&job).lost_to_idleness, 0);
}

#[test]
fn a_partition_that_falls_silent_is_waited_for_only_so_long() {
    let broker = shared();
    let (topic, out) = (broker.topic("behaviour-silent", 2), unique_name("behaviour-silent-out"));
    broker.produce(&topic, [at(0, 0), at(1, 500), at(0, 10_000)]);
    let engine = engine(broker);
    let job = start(&engine, &(input("i", &topic, &idle_after("1 s")) + &output("o", &out) + &counts("i", "o", 2)));
    // Both are silent by now, but only the silence of the second one was in the way.
    let rows = broker.read_until(&out, PATIENCE, |rows| rows.len() == 1);
    assert_eq!(by_window(&rows), [(0, 2)].into());

    // In time by its own partition, which had been idle when the window closed: lost, counted, and no second row.
    broker.produce(&topic, [at(1, 600)]);
    let info = until_job(&job, "a lost row", |info| info.lost_to_idleness == 1);
    assert_eq!((info.records_in, info.late), (4, 0), "{info:?}");
    // Late by its own partition.
    broker.produce(&topic, [at(1, 10_100), at(1, 700)]);
    until_job(&job, "a late row", |info| info.late == 1);
    broker.produce(&topic, [at(0, 12_000), at(1, 12_000)]);
    let rows = broker.read_until(&out, PATIENCE, |rows| rows.len() == 2);
    assert_eq!(by_window(&rows), [(0, 2), (10, 2)].into());
    job.stop();
    let info = finished(&job);
    assert_eq!((info.records_in, info.late, info.lost_to_idleness), (8, 1, 1), "{info:?}");
}

#[test]
fn the_last_window_closes_by_the_clock() {
    let broker = shared();
    let topic = broker.topic("behaviour-clock", 1);
    let (out, kept) = (unique_name("behaviour-clock-out"), unique_name("behaviour-clock-kept"));
    broker.produce(&topic, [at(0, 1_000_000), at(0, 1_000_000)]);
    let engine = engine(broker);
    let none = idle_after("200 ms") + ", 'scan.watermark.idle-advance' = 'none'";
    let stays = start(&engine, &(input("j", &topic, &none) + &output("kept", &kept) + &counts("j", "kept", 2)));
    until_job(&stays, "two records", |info| info.records_in == 2);

    let begin = Instant::now();
    // More workers than partitions: those without a share must not hurry the others.
    let job = start(
        &engine,
        &("SET 'parallelism.default' = '3'; SET 'sink.commit-interval' = '20 ms'; ".to_owned()
            + &input("i", &topic, &idle_after("200 ms"))
            + &output("o", &out)
            + &counts("i", "o", 2)),
    );
    let rows = broker.read_until(&out, PATIENCE, |rows| rows.len() == 1);
    let took = begin.elapsed();
    assert_eq!(by_window(&rows), [(1_000, 2)].into());
    // From its last record the watermark had 1,999 ms to go, and it does not jump.
    assert!(Duration::from_millis(1_999) < took && took < Duration::from_secs(10), "{took:?}");
    let info = job.info();
    assert_eq!((info.open_windows, info.lost_to_idleness), (0, 0), "{info:?}");
    assert!(info.watermark.is_some_and(|w| (1_001_999..1_100_000).contains(&w)), "{info:?}");

    // What comes then is in time for the windows that are still to close.
    broker.produce(&topic, [at(0, 1_200_000), at(0, 1_202_000)]);
    let rows = broker.read_until(&out, PATIENCE, |rows| rows.len() == 2);
    assert_eq!(by_window(&rows), [(1_000, 2), (1_200, 1)].into());
    job.stop();
    assert_eq!(finished(&job).lost_to_idleness, 0);

    // All this time the one that the clock does not move has kept its window open.
    let info = stays.info();
    stays.stop();
    let info = (info.rows_out, finished(&stays));
    let rows = broker.read_all(&kept);
    assert!(info.0 == 0 || info.1.records_in > 2, "{info:?}");
    assert!(by_window(&rows).get(&1_000).is_none_or(|count| *count == 2 && info.1.records_in > 2), "{info:?}");
}
