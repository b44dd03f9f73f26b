//! What a job says of itself: DESCRIBE JOB names the cause of a silence, SHOW JOBS is a line, EXPLAIN ANALYZE JOB counts.

use std::time::Duration;

use rdkafka::producer::Producer;
use tidemill::runtime::{Engine, JobInfo, Outcome};

use super::{EARLIEST, at, by_window, counts, engine, execute, finished, input, output, start, until, until_job};
use crate::common::broker::{Broker, shared, unique_name};
use crate::common::records::{Ending, Message};

/// A table without event time that takes everything.
const NOWHERE: &str = "CREATE TABLE nowhere (n BIGINT) WITH ('connector' = 'blackhole');";

/// A table of counts that nobody looks at.
const UNSEEN: &str = "CREATE TABLE unseen (w TIMESTAMP(3), c BIGINT) WITH ('connector' = 'blackhole');";

/// The text that a statement answers with.
fn text(engine: &Engine, statement: &str) -> String {
    match execute(engine, statement).unwrap_or_else(|error| panic!("{error}: {statement}")).pop() {
        Some(Outcome::Text(text)) => text,
        _ => panic!("no text: {statement}"),
    }
}

/// The sentences of the only job's diagnosis.
fn diagnosis(engine: &Engine) -> String {
    let text = text(engine, "DESCRIBE JOB");
    let from = text.find("diagnosis ").unwrap_or_else(|| panic!("no diagnosis: {text}"));
    let lines = text[from..].lines().enumerate().take_while(|(n, line)| *n == 0 || line.starts_with(' '));
    lines.map(|(_, line)| line.trim_start_matches("diagnosis").trim()).collect::<Vec<_>>().join("\n")
}

/// Waits until the only job of an engine says so.
fn says(engine: &Engine, want: &str) {
    let mut last = String::new();
    let found = || {
        last = diagnosis(engine);
        last.contains(want)
    };
    let begin = std::time::Instant::now();
    let mut found = found;
    while !found() {
        if super::PATIENCE < begin.elapsed() {
            panic!("not {want:?}, but {}", text(engine, "DESCRIBE JOB"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A job that copies, over a table with these options.
fn copies(broker: &Broker, topic: &str, options: &str, condition: &str) -> Engine {
    let engine = engine(broker);
    start(&engine, &format!("{}{NOWHERE} INSERT INTO nowhere SELECT n FROM i {condition}", input("i", topic, options)));
    engine
}

/// A job that counts per window of two seconds, over a table with these options.
fn counts_per_window(broker: &Broker, topic: &str, options: &str, setup: &str) -> Engine {
    let engine = engine(broker);
    start(&engine, &(setup.to_owned() + &input("i", topic, options) + UNSEEN + &counts("i", "unseen", 2)));
    engine
}

#[test]
fn nothing_comes() {
    let broker = shared();
    let topic = broker.topic("watching-nothing", 1);
    let engine = copies(broker, &topic, EARLIEST, "");
    says(&engine, "no record has come yet: i is empty");

    broker.produce(&topic, [at(0, 1)]);
    says(&engine, "rows come out: 1 in the last ten seconds");
    let late = copies(broker, &topic, "'scan.startup.mode' = 'latest-offset'", "");
    says(&late, "no record has come yet: reading of i began at the end of what was there");

    let open = broker.transaction(&topic, [at(0, 2), at(0, 3)], Ending::Open);
    says(&late, "2 offsets behind the position in partition 0 of i cannot be read yet: a transaction");
    open.commit_transaction(Duration::from_secs(30)).expect("a commit");
    says(&late, "rows come out: 2 in the last ten seconds");
    says(&late, "every row has been written; the next come with the next records; the last one came");
}

#[test]
fn nothing_is_left() {
    let broker = shared();
    let topic = broker.topic("watching-left", 1);
    broker.produce(&topic, [at(0, 1), at(0, 2)]);
    says(&copies(broker, &topic, EARLIEST, "WHERE n < 0"), "all 2 records were filtered out");
    broker.produce(&topic, [Message::new("?").partition(0)]);
    let skip = format!("{EARLIEST}, 'scan.on-error' = 'skip'");
    says(&copies(broker, &topic, &skip, "WHERE n < 0"), "of 3 records none was used: 2 filtered out and 1 bad");

    // A record of a time that is not yet, and whatever comes after it is late.
    let topic = broker.topic("watching-late", 1);
    broker.produce(&topic, [at(0, 1), at(0, 32_503_680_000_000)]);
    let engine = counts_per_window(broker, &topic, EARLIEST, "");
    until("late records only", || {
        broker.produce(&topic, [at(0, 2)]);
        let said = diagnosis(&engine);
        std::thread::sleep(Duration::from_millis(500));
        (said.contains(
            "of the last ten seconds were late: the windows of such event times had closed before; the watermark \
                        is at 3000-01-01 00:00:00Z",
        ) && said.contains("ahead of the clock: partition 0 of i has had a record of such a time"))
        .then_some(())
    });
}

#[test]
fn windows_wait() {
    let broker = shared();
    let topic = broker.topic("watching-windows", 2);
    broker.produce(&topic, [at(0, 0), at(1, 500), at(0, 10_000)]);
    let patient = format!("{EARLIEST}, 'scan.watermark.idle-timeout' = '0 s'");
    // With one worker, and with several.
    for setup in ["SET 'parallelism.default' = '1'; ", "SET 'parallelism.default' = '3'; "] {
        let engine = counts_per_window(broker, &topic, &patient, setup);
        says(
            &engine,
            "the next window closes when the watermark reaches 1970-01-01 00:00:02Z: 1.5 s more of event time",
        );
        says(&engine, "partition 1 of i holds the watermark back at 1970-01-01 00:00:00.500Z: its last record came ");
        says(&engine, "'scan.watermark.idle-timeout' = '0' waits for ever");
        let described = text(&engine, "DESCRIBE JOB");
        let holder = described.lines().find(|line| line.trim_start().starts_with("1 ")).expect("a partition's line");
        let words: Vec<_> = holder.split_whitespace().collect();
        assert_eq!(words[..6], ["1", "0", "1", "1", "0", "1970-01-01"], "{described}");
        assert!(holder.ends_with("; holds the watermark back") && holder.contains("at its end for "), "{described}");
        assert!(described.contains("\nwindows     2 open; the next closes at 1970-01-01 00:00:02Z\n"), "{described}");
    }

    // Silence is not for ever.
    let still = format!("{EARLIEST}, 'scan.watermark.idle-timeout' = '500 ms', 'scan.watermark.idle-advance' = 'none'");
    let engine = counts_per_window(broker, &topic, &still, "");
    says(
        &engine,
        "all partitions are idle, and 'scan.watermark.idle-advance' = 'none': the watermark moves on with the next",
    );
    let moves = format!("{EARLIEST}, 'scan.watermark.idle-timeout' = '500 ms'");
    let engine = counts_per_window(broker, &topic, &moves, "");
    says(&engine, "all partitions are idle: until a record comes, the watermark moves on with the clock");
    says(&engine, "no window is open: the next record in time opens one; the last rows came out ");
}

#[test]
fn conditions_on_windows_leave_nothing() {
    let broker = shared();
    let topic = broker.topic("watching-having", 1);
    broker.produce(&topic, [at(0, 0), at(0, 2_000)]);
    let engine = engine(broker);
    let having = "INSERT INTO unseen SELECT window_start, count(*) FROM TUMBLE(i, ts, INTERVAL '2' SECOND) GROUP BY \
                  window_start, window_end HAVING count(*) > 9";
    let options = format!("{EARLIEST}, 'scan.watermark.idle-timeout' = '200 ms'");
    start(&engine, &(input("i", &topic, &options) + UNSEEN + having));
    says(&engine, "windows have closed and given 2 rows, and none of them met the conditions behind (HAVING, WHERE)");
}

#[test]
fn nobody_takes_the_rows() {
    let engine = engine(shared());
    let text = "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '1000000');
                SELECT n FROM numbers";
    let Some(Outcome::Query(stream)) = execute(&engine, text).expect("a query").pop() else { panic!("no rows") };
    until("rows wait", || {
        let said = stream.job().info().diagnosis;
        said[0]
            .starts_with("the sinks do not take the rows that are to be written: the next boundary is ")
            .then_some(())
    });
}

#[test]
fn a_broker_is_away() {
    let mut broker = Broker::start_own();
    let topic = broker.topic("watching-away", 1);
    broker.produce(&topic, [at(0, 0)]);
    let engine = copies(&broker, &topic, EARLIEST, "");
    says(&engine, "rows come out");
    broker.kill();
    says(&engine, &format!("broker {} is away since ", broker.addresses()));
    broker.start();
    says(&engine, "every row has been written");
}

#[test]
fn operators_count() {
    let broker = shared();
    let (topic, out) = (broker.topic("watching-operators", 3), unique_name("watching-operators-out"));
    broker.produce(&topic, (0..60).map(|n| at((n % 3) as i32, n * 100)));
    for (workers, sides) in
        [(1, &["| 48 rows in, 3 out, "][..]), (2, &["| before the exchange: 48 rows in, ", "| behind the exchange: "])]
    {
        let engine = engine(broker);
        let options = format!("{EARLIEST}, 'scan.bounded.mode' = 'latest-offset'");
        let text_of_job = format!("SET 'parallelism.default' = '{workers}'; SET 'pipeline.name' = 'counted';")
            + &input("i", &topic, &options)
            + &output("o", &out)
            + "INSERT INTO o SELECT window_start, count(*) FROM TUMBLE(i, ts, INTERVAL '2' SECOND) WHERE n >= 1200 GROUP BY \
               window_start, window_end;";
        finished(&start(&engine, &text_of_job));
        let plan = text(&engine, "EXPLAIN ANALYZE JOB counted");
        for want in [
            "Sink: o (kafka)",
            "| 3 rows in, 3 out, ",
            "Filter: n >= 1200",
            "| 60 rows in, 48 out, ",
            "Source: i (kafka)",
        ] {
            assert!(plan.contains(want), "{want}: {plan}");
        }
        assert!(sides.iter().all(|side| plan.contains(side)), "{plan}");
        assert!(plan.contains(&format!("stage 0: {workers} worker")), "{plan}");
        assert!(text(&engine, "DESCRIBE JOB counted").contains("the job has finished: everything is read"));
    }
}

#[test]
fn a_job_that_is_drained_closes_its_windows() {
    let broker = shared();
    let topic = broker.topic("watching-drain", 1);
    broker.produce(&topic, [at(0, 0), at(0, 1_000), at(0, 2_000)]);
    for guarantee in ["at-least-once", "exactly-once"] {
        let (out, name) = (broker.topic("watching-drain-out", 1), unique_name("drained"));
        let engine = engine(broker);
        let patient = format!("{EARLIEST}, 'scan.watermark.idle-timeout' = '1 h'");
        let job = start(
            &engine,
            &(format!("SET 'pipeline.name' = '{name}';")
                + &input("i", &topic, &patient)
                + &output("o", &out).replace("at-least-once", guarantee)
                + &counts("i", "o", 2)),
        );
        until_job(&job, "three records", |info| info.records_in == 3 && info.open_windows == 1);
        execute(&engine, &format!("STOP JOB `{name}` WITH DRAIN")).expect("it ends");
        assert_eq!(by_window(&broker.read_all(&out)), [(0, 2), (2, 1)].into());
        assert_eq!(job.info().status, "finished");
    }
}

#[test]
fn jobs_are_listed_by_how_they_are() {
    let broker = shared();
    let topic = broker.topic("watching-list", 1);
    broker.produce(&topic, [at(0, 0)]);
    let engine = engine(broker);
    let missing = execute(&engine, "DESCRIBE JOB").err().expect("no job");
    assert_eq!(missing.message, "there is no job");
    for name in ["first", "second"] {
        let text = format!("SET 'pipeline.name' = '{name}'; {}", input(name, &topic, EARLIEST));
        let sink = format!("CREATE TABLE {name}_out (n BIGINT) WITH ('connector' = 'blackhole'); ");
        start(&engine, &(text + &sink + &format!("INSERT INTO {name}_out SELECT n FROM {name}")));
    }
    until_job(&engine.job("second").expect("a job"), "a commit", |info| info.commit.is_some() && info.rows_out == 1);
    let several = execute(&engine, "DESCRIBE JOB").err().expect("two jobs");
    assert_eq!(several.message, "there are several jobs: second, first");
    let unknown = execute(&engine, "EXPLAIN ANALYZE JOB frist").err().expect("no such job");
    assert_eq!(unknown.hint.as_deref(), Some("did you mean first?"));
    // The beginning of a name will do.
    assert!(text(&engine, "DESCRIBE JOB sec").starts_with("job         second\nstatus      running, "));
    let Some(Outcome::Rows(rows)) = execute(&engine, "SHOW JOBS").expect("a list").pop() else { panic!("no rows") };
    let shown = arrow::util::pretty::pretty_format_batches(&rows.batches).expect("a table").to_string();
    assert!(
        shown.contains("| job    | status  | records/s |")
            && shown.contains("INSERT INTO first_out SELECT n FROM first")
    );
}

#[test]
fn a_job_that_goes_on_counts_on() {
    let broker = shared();
    let (topic, out) = (broker.topic("watching-again", 1), broker.topic("watching-again-out", 1));
    broker.produce(&topic, (0..100).map(|n| at(0, n * 100)));
    let patient = format!("{EARLIEST}, 'scan.watermark.idle-timeout' = '1 h'");
    let name = unique_name("again");
    let statements = format!(
        "SET 'pipeline.name' = '{name}'; SET 'sink.commit-interval' = '20 ms'; SET 'execution.checkpointing.interval' = '100 \
         ms';"
    ) + &input("i", &topic, &patient)
        + &output("o", &out).replace("at-least-once", "exactly-once")
        + &counts("i", "o", 2);
    let one = engine(broker);
    let job = start(&one, &statements);
    until_job(&job, "a checkpoint of all", |info| info.rows_out == 4 && info.checkpoint.is_some());
    let described = text(&one, "DESCRIBE JOB");
    assert!(described.contains(" in the log\n") && described.contains("\ncheckpoint  boundary "), "{described}");
    job.stop();
    let before = finished(&job);

    let two = engine(broker);
    let job = start(&two, &statements);
    let info =
        until_job(&job, "a commit", |info| info.commit.is_some_and(|c| before.commit.unwrap().sequence < c.sequence));
    let counted = |info: &JobInfo| (info.records_in, info.rows_out, info.open_windows, info.statements[0].terms());
    assert_eq!(counted(&info), counted(&before));
    assert_eq!((info.statements[0].rows_out, info.rows_per_second), (4, 0.0));
    // What had been read and written before is not what it does now.
    assert!(info.diagnosis[0].starts_with("the next window closes when"), "{info:#?}");
}
