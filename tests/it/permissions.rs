//! What a user may not do: the message names the deed, the thing, the user, and what an administrator must grant; a job
//! whose permission is taken away ends, and goes on when it has it again.

use std::time::Duration;

use crate::common::broker::unique_name;
use crate::common::records::Message;
use crate::common::security::Operation::{Create, Delete, Describe, Read, Write};
use crate::common::security::{ALICE, Resource, secured};
use crate::security::Machine;

const WAIT: Duration = Duration::from_secs(60);

const ALICES: &str = "User:alice";

/// A topic with two records and what the user may do with it.
fn topic(operations: &[crate::common::security::Operation]) -> String {
    let topic = secured().broker.topic("permissions", 1);
    secured().broker.produce(&topic, ["{\"a\":1}", "{\"a\":2}"]);
    secured().allow(ALICE.0, Resource::Topic(&topic), operations);
    topic
}

/// The name of a job and of its log, with which the user may do this.
fn job(operations: &[crate::common::security::Operation]) -> (String, String) {
    let job = unique_name("permissions-job");
    let log = format!("tidemill-progress-{job}");
    secured().allow(ALICE.0, Resource::Topic(&log), operations);
    (job, log)
}

fn table(name: &str, topic: &str, more: &str) -> String {
    format!("CREATE TABLE {name} (a INT) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json'{more});\n")
}

/// A job that copies all rows, until it has all.
fn copy(job: &str, from: &str, to: &str) -> String {
    let tables = table("i", from, ", 'scan.bounded.mode' = 'latest-offset'") + &table("o", to, "");
    format!("{tables}SET 'pipeline.name' = '{job}'; INSERT INTO o SELECT a FROM i;")
}

#[test]
fn what_is_denied_is_said_with_what_must_be_granted() {
    let (hidden, seen, source) = (topic(&[]), topic(&[Describe]), topic(&[Describe, Read]));
    let sink = topic(&[Describe, Write]);
    let (no_create, unmade_log) = job(&[Describe]);
    let (no_read, unread_log) = job(&[Describe, Create, Write]);
    let (no_id, no_id_log) = job(&[Describe, Create, Write, Read, Delete]);
    let (no_write, no_write_log) = job(&[Describe, Create, Write, Read, Delete]);
    for log in [&unmade_log, &unread_log, &no_write_log] {
        secured().allow(ALICE.0, Resource::TransactionalId(log), &[Write, Describe]);
    }
    let unmade = unique_name("permissions-unmade");
    secured().allow(ALICE.0, Resource::Topic(&unmade), &[Describe, Write]);
    let group = ", 'properties.group.id' = 'permissions-group', 'scan.startup.mode' = 'group-offsets'";
    let batch = "SET 'execution.runtime-mode' = 'batch'; ";
    let grants = |grants: &str, topic: &str| format!("grant {ALICES} {grants} on topic \"{topic}\"");
    let deed = |deed: &str, topic: &str| format!("does not let {ALICES} {deed} topic \"{topic}\"");
    let see = (deed("see", &hidden), grants("DESCRIBE, and READ or WRITE,", &hidden));
    let read = (deed("read", &seen), grants("READ and DESCRIBE", &seen));
    let both = |(says, hint): &(String, String)| (says.clone(), hint.clone());
    let cases = [
        (format!("DESCRIBE TOPIC '{hidden}'"), both(&see)),
        (table("t", &hidden, "") + "SELECT * FROM t LIMIT 1", both(&see)),
        (table("t", &hidden, "") + "INSERT INTO t VALUES (1)", both(&see)),
        (format!("DESCRIBE TOPIC '{seen}'"), both(&read)),
        (format!("PRINT '{seen}' FROM BEGINNING LIMIT 1"), both(&read)),
        (table("t", &seen, "") + "SELECT * FROM t LIMIT 1", both(&read)),
        (batch.to_owned() + &table("t", &seen, "") + "SELECT COUNT(*) FROM t", both(&read)),
        (
            table("t", &seen, "") + "INSERT INTO t VALUES (1)",
            (deed("write to", &seen), grants("WRITE and DESCRIBE", &seen)),
        ),
        (
            table("t", &unmade, "") + "INSERT INTO t VALUES (1)",
            (deed("create", &unmade), grants("CREATE", &unmade) + ", or create the topic"),
        ),
        (
            table("t", &source, group) + "SELECT * FROM t LIMIT 1",
            (
                format!("does not let {ALICES} use the consumer group \"permissions-group\""),
                format!("grant {ALICES} READ on group \"permissions-group\""),
            ),
        ),
        (copy(&no_create, &source, &sink), (deed("create", &unmade_log), grants("CREATE", &unmade_log))),
        (
            copy(&no_read, &source, &sink),
            (deed("read", &unread_log), grants("READ, WRITE, DESCRIBE and DELETE", &unread_log)),
        ),
        (
            copy(&no_id, &source, &sink),
            (
                format!("does not let {ALICES} use the transactional id \"{no_id_log}\""),
                format!("grant {ALICES} WRITE and DESCRIBE on transactional id \"{no_id_log}\""),
            ),
        ),
        (copy(&no_write, &source, &seen), (deed("write to", &seen), grants("WRITE and DESCRIBE", &seen))),
    ];
    let machine = Machine::logging_in(ALICE.0);
    // There is nothing to read in a log that has just been made.
    let first = machine.run(ALICE.1, &["-c", &copy(&no_read, &source, &sink)]);
    assert_eq!(first.code, 0, "{first:#?}");
    std::thread::scope(|scope| {
        for part in cases.chunks(cases.len().div_ceil(4)) {
            let machine = &machine;
            scope.spawn(move || {
                for (text, (says, hint)) in part {
                    let finished = machine.run(ALICE.1, &["-c", text]);
                    let is_said = finished.stderr.contains(says) && finished.stderr.contains(hint);
                    assert!(finished.code == 3 && is_said, "{text}: {says}; {hint}: {finished:#?}");
                    assert!(finished.stderr.contains("[TM0604]"), "{finished:#?}");
                }
            });
        }
    });

    // Topics that may not be read do not hide the others, and the doctor looks at each step.
    let listed = machine.run(ALICE.1, &["-o", "tsv", "-c", "SHOW TOPICS"]);
    assert!(listed.code == 0 && listed.stdout.contains(&seen) && !listed.stdout.contains(&hidden), "{listed:#?}");
    let doctor = machine.run(ALICE.1, &["-o", "tsv", "doctor"]);
    assert_eq!(doctor.code, 3, "{doctor:#?}");
    for line in [
        "TLS\twell\tTLSv1.3, with CN=broker, valid until ".to_owned(),
        format!("login\twell\tSASL_SSL, as {ALICES}\n"),
        "permissions\todd\t".to_owned(),
        format!("transactions\tbad\tthe broker at {}", secured().broker.listener("LOGIN")),
        format!("grant {ALICES} WRITE and DESCRIBE on the transactional ids that begin with \"tidemill-progress-\""),
        "logs\tbad\t".to_owned(),
    ] {
        assert!(doctor.stdout.contains(&line), "{line}: {doctor:#?}");
    }
}

#[test]
fn a_job_without_its_group_goes_on_and_says_so() {
    let (source, sink) = (topic(&[Describe, Read]), topic(&[Describe, Write]));
    let options = ", 'properties.group.id' = 'permissions-lag', 'scan.startup.mode' = 'earliest-offset'";
    let tables = table("i", &source, options) + &table("o", &sink, ", 'sink.delivery-guarantee' = 'none'");
    let machine = Machine::logging_in(ALICE.0);
    let job = machine.start(ALICE.1, &["-c", &format!("{tables} INSERT INTO o SELECT a FROM i")]);
    job.wait_for("does not take the offsets of group \"permissions-lag\"", WAIT);
    job.signal("INT");
    let finished = job.finish(WAIT);
    machine.check(&finished);
    assert!(finished.stderr.contains("2 rows out"), "{finished:#?}");
}

#[test]
fn a_job_whose_permission_is_taken_away_ends_and_goes_on_with_it() {
    let security = secured();
    let machine = Machine::logging_in(ALICE.0);
    let deed = |what: usize, [source, sink, log]: [&str; 3]| match what {
        0 => (format!("read topic \"{source}\""), security.deny_of(Resource::Topic(source), Read)),
        1 => (format!("write to topic \"{sink}\""), security.deny_of(Resource::Topic(sink), Write)),
        _ => (format!("use the transactional id \"{log}\""), security.deny_of(Resource::TransactionalId(log), Write)),
    };
    std::thread::scope(|scope| {
        for what in 0..3 {
            let (machine, deed) = (&machine, &deed);
            scope.spawn(move || {
                let (source, sink) = (topic(&[Describe, Read]), security.broker.topic("permissions-out", 1));
                security.allow(ALICE.0, Resource::Topic(&sink), &[Describe, Write]);
                let (name, log) = job(&[Describe, Create, Write, Read, Delete]);
                security.allow(ALICE.0, Resource::TransactionalId(&log), &[Write, Describe]);
                let (says, denial) = deed(what, [&source, &sink, &log]);
                let tables = table("i", &source, ", 'scan.startup.mode' = 'earliest-offset'") + &table("o", &sink, "");
                let text = format!("{tables}SET 'pipeline.name' = '{name}'; INSERT INTO o SELECT a FROM i;");

                let job = machine.start(ALICE.1, &["-c", &text]);
                let written =
                    || security.broker.read_all(&sink).iter().map(|r| r.text().to_owned()).collect::<Vec<_>>();
                let until = |count: usize, job: &crate::common::program::Running| {
                    let deadline = std::time::Instant::now() + WAIT;
                    while written().len() < count {
                        assert!(std::time::Instant::now() < deadline, "{says}: {:?}, {}", written(), job.said());
                        std::thread::sleep(Duration::from_millis(50));
                    }
                };
                until(2, &job);
                denial.set();
                security.broker.produce(&source, [Message::new("{\"a\":3}"), Message::new("{\"a\":4}")]);
                let ended = job.finish(WAIT);
                machine.check(&ended);
                let want = format!("does not let {ALICES} {says}");
                assert!(ended.code == 3 && ended.stderr.contains(&want), "{want}: {ended:#?}");
                assert!(ended.stderr.contains(&format!("must grant {ALICES}")), "{ended:#?}");

                denial.lift();
                let again = machine.start(ALICE.1, &["-c", &text]);
                until(4, &again);
                again.signal("INT");
                let again = again.finish(WAIT);
                assert!(again.stderr.contains("stopped: 4 records in, 4 rows out"), "{again:#?}");
                assert_eq!(written(), (1..5).map(|a| format!("{{\"a\":{a}}}")).collect::<Vec<_>>(), "{says}");
            });
        }
    });
}
