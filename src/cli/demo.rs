//! `tidemill demo`: real flights through a topic, a windowed query and an output topic.
//!
//! It is a user of Tidemill's like any other: an ordinary producer plays the flights, the engine runs the file that lies
//! in queries/, and an ordinary consumer reads what came out. Only topics are made in a special way, because the broker
//! inside this process answers no requests for that.

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flate2::read::GzDecoder;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use tidemill::connectors::Defaults;
use tidemill::connectors::kafka::{ClientProperties, Cluster, EMBEDDED, Embedded};
use tidemill::error::{Error, Result};
use tidemill::runtime::{Engine, EngineConfig, JobInfo, Outcome, Rows, clock};

use super::Stop;
use super::args::Form;
use super::config::Config;
use super::output::Output;
use super::voice::{count, grouped};

/// The flights of January 2013, one JSON object per line.
const FLIGHTS: &[u8] = include_bytes!("../../data/flights-2013-01.jsonl.gz");

/// The program that is run.
const PROGRAM: &str = include_str!("../../queries/03-departures-per-hour.sql");
const PROGRAM_NAME: &str = "queries/03-departures-per-hour.sql";

/// The topics that the program names.
const INPUT: &str = "flights";
const OUTPUT: &str = "departures_per_hour";

const INPUT_PARTITIONS: i32 = 4;

/// Rows of the result that are shown.
const ROWS_SHOWN: usize = 12;

/// How long Kafka may take to acknowledge, or to hand out, anything.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// Runs the demonstration, on the servers that are named or on a broker inside this process.
pub fn run(config: &Config) -> Result<(), Stop> {
    let voice = config.voice;
    let stage = Stage::new(config)?;
    voice.say(&stage.describe());
    stage.make_topics()?;

    let started = clock::now();
    let played = stage.play()?;
    voice.say(&format!(
        "{} of January 2013 are in the topic {}: {INPUT_PARTITIONS} partitions, keyed by tail number, in {}.",
        count(played, "flight"),
        stage.input,
        seconds(started.elapsed()),
    ));

    voice.say(&format!("Now {PROGRAM_NAME}:\n\n{}\n", insert_statement()));
    let info = stage.run_program(config)?;

    let mut lines = stage.read_back(info.rows_out)?;
    // The topic has them in the order in which windows closed; within an hour the airports come as they come.
    lines.sort_unstable();
    voice.say(&format!("The first of the {} on the topic {}:\n", count(info.rows_out, "record"), stage.output));
    let shown = rows(&lines[..lines.len().min(ROWS_SHOWN)])?;
    let table = Output { form: Form::Table, ..config.output.clone() };
    table.write(&table.rows(&shown)?)?;
    voice.say(&format!("\n{}", closing_line(&info)));
    if let Some(hint) = stage.farewell() {
        voice.say(&hint);
    }
    Ok(())
}

/// Where it happens.
struct Stage {
    /// Kept for as long as the broker is needed.
    embedded: Option<Arc<Embedded>>,
    cluster: Cluster,
    servers: String,
    client: ClientConfig,
    input: String,
    output: String,
}

impl Stage {
    fn new(config: &Config) -> Result<Self> {
        let named = config.brokers.clone().filter(|brokers| brokers != EMBEDDED);
        let embedded = named.is_none().then(Arc::<Embedded>::default);
        let defaults = Defaults {
            brokers: named,
            properties: config.properties.clone(),
            embedded: embedded.clone(),
            ..Defaults::default()
        };
        let properties = ClientProperties::of_defaults(&defaults)?;
        let servers = properties.brokers().to_owned();
        let mut client = ClientConfig::new();
        client.extend(config.properties.clone());
        client.set("bootstrap.servers", &servers);
        // On a broker that keeps things, every run has topics of its own.
        let suffix = if embedded.is_some() { String::new() } else { format!("_demo_{}", clock::wall_ms()) };
        Ok(Self {
            embedded,
            cluster: Cluster::new(properties)?,
            servers,
            client,
            input: format!("{INPUT}{suffix}"),
            output: format!("{OUTPUT}{suffix}"),
        })
    }

    fn describe(&self) -> String {
        match self.embedded {
            Some(_) => format!(
                "The broker runs inside this process, at {}; nothing is kept after exit. (-b host:9092 uses yours.)",
                self.servers
            ),
            None => format!("The broker is the one at {}.", self.servers),
        }
    }

    fn make_topics(&self) -> Result<()> {
        self.cluster.create_topic(&self.input, Some(INPUT_PARTITIONS), -1)?;
        self.cluster.create_topic(&self.output, Some(1), -1)
    }

    /// Sends every flight; answers how many there are.
    fn play(&self) -> Result<u64> {
        let mut config = self.client.clone();
        // The partition of a key is the one that Java's clients choose.
        config.set("partitioner", "murmur2_random").set("linger.ms", "5").set("compression.type", "lz4");
        let producer: BaseProducer = config.create().map_err(|e| refused("play the flights", &e))?;
        let mut played = 0;
        for line in BufReader::new(GzDecoder::new(FLIGHTS)).lines() {
            let line = line.map_err(|e| Error::bug(format!("the flights do not unpack: {e}")))?;
            let flight: Value =
                serde_json::from_str(&line).map_err(|e| Error::bug(format!("no flight: {e}: {line}")))?;
            let mut record = BaseRecord::<str, str>::to(&self.input).payload(&line);
            if let Some(tailnum) = flight["tailnum"].as_str() {
                record = record.key(tailnum);
            }
            while let Err((error, unsent)) = producer.send(record) {
                if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                    return Err(refused("play the flights", &error));
                }
                producer.poll(Duration::from_millis(10));
                record = unsent;
            }
            played += 1;
        }
        producer.flush(ANSWER_WAIT).map_err(|e| refused("play the flights", &e))?;
        Ok(played)
    }

    /// Runs the program to its end.
    fn run_program(&self, config: &Config) -> Result<JobInfo> {
        let engine = Engine::open(EngineConfig {
            brokers: Some(self.servers.clone()),
            properties: config.properties.clone(),
            embedded_if_none: false,
        })?;
        let topic = |name: &str| format!("'topic' = '{name}'");
        // Nobody takes this job up again, so it needs no log of its progress.
        let output = format!("{}, 'sink.delivery-guarantee' = 'none'", topic(&self.output));
        let program = PROGRAM.replace(&topic(INPUT), &topic(&self.input)).replace(&topic(OUTPUT), &output);
        let mut job = None;
        for outcome in engine.run(&program) {
            if let Outcome::Started(started) = outcome? {
                job = Some(started);
            }
        }
        let job = job.ok_or_else(|| Error::bug(format!("{PROGRAM_NAME} starts no job")))?;
        job.wait()?;
        Ok(job.info())
    }

    /// The values of so many records on the output topic.
    fn read_back(&self, wanted: u64) -> Result<Vec<String>> {
        let failed = |e: KafkaError| refused("read the output topic", &e);
        let mut config = self.client.clone();
        config.set("group.id", "tidemill-demo").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().map_err(failed)?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&self.output, 0, Offset::Beginning).map_err(failed)?;
        consumer.assign(&assignment).map_err(failed)?;
        let mut values = Vec::new();
        let mut heard = clock::now();
        while (values.len() as u64) < wanted {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => {
                    values.push(String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned());
                    heard = clock::now();
                }
                // The client goes on by itself after most errors; what counts is that something comes.
                Some(Err(error)) if heard.elapsed() > ANSWER_WAIT => return Err(failed(error)),
                None if heard.elapsed() > ANSWER_WAIT => {
                    let (came, wanted) = (values.len(), count(wanted, "record"));
                    return Err(Error::upstream(format!("of {wanted} on the topic {} only {came} came", self.output)));
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(values)
    }

    /// Where to look at what is left.
    fn farewell(&self) -> Option<String> {
        let Self { servers, input, output, .. } = self;
        self.embedded
            .is_none()
            .then(|| format!("The topics {input} and {output} are still there: kcat -C -e -b {servers} -t {output}"))
    }
}

fn refused(what: &str, error: &KafkaError) -> Error {
    Error::upstream(format!("cannot {what}: {error}"))
}

/// The statement of the program that does the work.
fn insert_statement() -> &'static str {
    PROGRAM.find("INSERT INTO").map_or(PROGRAM, |at| PROGRAM[at..].trim_end())
}

/// Lines of JSON as rows of a table, with the columns of the first one.
fn rows(lines: &[String]) -> Result<Rows> {
    let schema = schema(lines.first().map_or("{}", String::as_str))?;
    let text = lines.join("\n");
    let reader = arrow::json::ReaderBuilder::new(Arc::clone(&schema)).build(text.as_bytes())?;
    Ok(Rows { schema, batches: reader.collect::<Result<_, _>>()? })
}

fn schema(line: &str) -> Result<SchemaRef> {
    let object: serde_json::Map<String, Value> =
        serde_json::from_str(line).map_err(|e| Error::data(format!("the output topic holds no JSON object: {e}")))?;
    let field = |(name, value): (&String, &Value)| {
        let data_type = match value {
            Value::Number(number) if number.is_f64() => DataType::Float64,
            Value::Number(_) => DataType::Int64,
            _ => DataType::Utf8,
        };
        Field::new(name, data_type, true)
    };
    Ok(Arc::new(Schema::new(object.iter().map(field).collect::<Vec<_>>())))
}

/// Records, rows, and records per second.
fn closing_line(info: &JobInfo) -> String {
    let rate = info.records_in.saturating_mul(1_000) / info.elapsed_ms.max(1);
    format!(
        "{} in, {} out, {} late, in {}: {} records per second.",
        count(info.records_in, "record"),
        count(info.rows_out, "row"),
        grouped(info.late),
        seconds(Duration::from_millis(info.elapsed_ms)),
        grouped(rate),
    )
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
