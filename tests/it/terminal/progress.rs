//! Bars.

use std::fs;

use super::program;
use crate::common::screen::Terminal;
use crate::common::{broker, flights};

#[test]
fn a_job_shows_how_far_it_is_until_it_is_live() {
    let kafka = broker::shared();
    let topic = kafka.topic("progress", 2);
    for _ in 0..5 {
        kafka.produce(&topic, flights::messages(flights::january()));
    }
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("job.sql");
    let statements = format!(
        "CREATE TABLE flights (origin STRING, scheduled TIMESTAMP_LTZ(3), WATERMARK FOR scheduled AS scheduled) WITH \
         ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset', \
         'json.timestamp-format.standard' = 'ISO-8601');\n\
         CREATE TABLE nowhere (origin STRING, n BIGINT) WITH ('connector' = 'blackhole');\n\
         SET 'pipeline.name' = 'counts';\n\
         INSERT INTO nowhere SELECT origin, COUNT(*) FROM TUMBLE(flights, scheduled, INTERVAL '1' HOUR)\n\
         GROUP BY window_start, window_end, origin;\n"
    );
    fs::write(&file, statements).unwrap();

    let run = |arguments: &[&str]| {
        let mut command = program(&home);
        command.args(["-b", kafka.addresses(), "run"]).arg(&file).args(arguments);
        Terminal::start(command, 24, 100)
    };
    let mut terminal = run(&[]);
    terminal.sees("counts is live: 134,325 records read in ");
    // The bar is gone when the job is live.
    let lines = terminal.wait_until("no bar", |lines| !lines.iter().any(|line| line.contains(" of 134,325 records")));
    assert!(lines.iter().any(|line| line == "job counts started"), "{lines:#?}");
    assert!(terminal.written().contains(" of 134,325 records, "), "{}", terminal.written());
    terminal.keys("\x03");
    terminal.sees("counts: stopped: 134,325 records in");
    assert_eq!(terminal.end(), 130);

    let terminal = run(&["-q", "--until-caught-up"]);
    terminal.wait_for_end();
    assert_eq!(terminal.written(), "");
    assert_eq!(terminal.end(), 0);
}
