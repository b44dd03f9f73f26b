//! The engine inside another program: statements in, rows out.
//!
//! ```text
//! cargo run --release --example embed
//! ```
//!
//! It needs no Kafka: the engine starts a broker inside this process. With servers of your own, name them in
//! `EngineConfig::brokers`.

use std::time::Duration;

use arrow::util::pretty::pretty_format_batches;
use tidemill::error::Result;
use tidemill::runtime::{Engine, EngineConfig, Job, Outcome, QueryStream};

/// Runs it.
pub fn main() -> Result<()> {
    let engine = Engine::open(EngineConfig { embedded_if_none: true, ..EngineConfig::default() })?;

    // Statements without an answer of their own are simply run. `run` takes any number of them.
    done(
        &engine,
        "
        CREATE TABLE orders (
          product STRING,
          price DECIMAL(10, 2),
          ordered_at TIMESTAMP(3),
          WATERMARK FOR ordered_at AS ordered_at - INTERVAL '5' SECOND
        ) WITH ('connector' = 'kafka', 'topic' = 'orders', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset');

        CREATE TABLE revenue (
          window_start TIMESTAMP(3), product STRING, orders BIGINT, revenue DECIMAL(20, 2)
        ) WITH ('connector' = 'kafka', 'topic' = 'revenue', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset');

        INSERT INTO orders VALUES
          ('tea',    4.50, TIMESTAMP '2026-01-01 12:00:01'),
          ('coffee', 3.20, TIMESTAMP '2026-01-01 12:00:02'),
          ('tea',    9.00, TIMESTAMP '2026-01-01 12:00:58'),
          ('tea',    4.50, TIMESTAMP '2026-01-01 12:01:30'),
          ('coffee', 6.40, TIMESTAMP '2026-01-01 12:02:10')",
    )?;

    // An INSERT over a stream is a job: it runs until it is stopped.
    let job = start(
        &engine,
        "
        INSERT INTO revenue
        SELECT window_start, product, COUNT(*), SUM(price)
        FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ordered_at), INTERVAL '1' MINUTE))
        GROUP BY window_start, window_end, product",
    )?;

    // A SELECT over a stream is an iterator over Arrow batches; LIMIT ends it, and so does dropping it.
    let rows = query(&engine, "SELECT * FROM revenue LIMIT 3")?;
    println!("job {}", job.name());
    for batch in rows {
        println!("{}", pretty_format_batches(&[batch?])?);
    }

    job.stop();
    // Everything that had fired is on the output topic once the job has ended.
    assert!(job.wait_for(Duration::from_secs(30)).is_some(), "the job ends when it is told to");
    let info = job.info();
    println!("{}: {} records in, {} rows out", info.status, info.records_in, info.rows_out);
    Ok(())
}

/// Runs statements, and says what came of each.
fn done(engine: &Engine, text: &str) -> Result<()> {
    for outcome in engine.run(text) {
        if let Outcome::Done(sentence, _) = outcome? {
            println!("{sentence}");
        }
    }
    Ok(())
}

/// Runs an INSERT in the background.
fn start(engine: &Engine, text: &str) -> Result<Job> {
    match engine.run(text).next().transpose()? {
        Some(Outcome::Started(job)) => Ok(job),
        _ => panic!("an INSERT over a stream starts a job"),
    }
}

/// Runs a SELECT over a stream.
fn query(engine: &Engine, text: &str) -> Result<QueryStream> {
    match engine.run(text).next().transpose()? {
        Some(Outcome::Query(rows)) => Ok(rows),
        _ => panic!("a SELECT over a stream gives rows"),
    }
}
