//! What is measured beside the queries: the client library alone, and with decoding. Each runs as a process of its own, this
//! program called with the name of the work and its arguments.

use std::hint::black_box;
use std::str::FromStr;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, TimeUnit};
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::Deserialize;
use tidemill::catalog::options::Options;
use tidemill::formats::{DecodeColumn, Format};

use crate::common::broker::unique_name;
use crate::measure::own_cpu;
use crate::support::visit_batch;

/// Rows of a batch of columns.
const ROWS: usize = 8_192;

/// Does the work that the arguments name: `WORK BROKERS TOPIC PARTITIONS RECORDS [MORE]`.
pub fn work(arguments: &[String]) {
    let [work, brokers, topic, partitions, records, more @ ..] = arguments else {
        panic!("arguments of a child are missing: {arguments:?}")
    };
    let topic = Topic { brokers, name: topic, partitions: number(partitions), records: number(records) };
    match work.as_str() {
        "batch" => topic.batch(),
        "stream" => topic.stream(),
        "decode" => topic.decode(&more[0]),
        "sum" => topic.sum(),
        "produce" => topic.produce(&more[0]),
        other => panic!("no such work: {other}"),
    }
}

fn number<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a number")
}

struct Topic<'a> {
    brokers: &'a str,
    name: &'a str,
    partitions: i32,
    records: u64,
}

impl Topic<'_> {
    fn consumer_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers)
            .set("group.id", unique_name("wire"))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            // As a Kafka table's reader has it, which serves librdkafka best alone, too.
            .set("queued.min.messages", "25000")
            .set("queued.max.messages.kbytes", "32768")
            .set("fetch.message.max.bytes", "2097152")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "100");
        config
    }

    fn assignment(&self) -> TopicPartitionList {
        let mut assignment = TopicPartitionList::new();
        for partition in 0..self.partitions {
            assignment.add_partition_offset(self.name, partition, Offset::Beginning).expect("an offset");
        }
        assignment
    }

    fn consumer(&self) -> BaseConsumer {
        let consumer: BaseConsumer = self.consumer_config().create().expect("a consumer");
        consumer.assign(&self.assignment()).expect("an assignment");
        consumer
    }

    /// All bytes by the batch call, each looked at.
    fn batch(&self) {
        let consumer = self.consumer();
        let (mut left, mut sum) = (self.records, 0);
        while left > 0 {
            visit_batch(&consumer, |payload| {
                left -= 1;
                sum = touch(payload, sum);
            });
        }
        black_box(sum);
    }

    /// The same by the library's usual call, a record at a time.
    fn stream(&self) {
        let mut sum = 0;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let consumer: StreamConsumer = self.consumer_config().create().expect("a consumer");
            consumer.assign(&self.assignment()).expect("an assignment");
            for _ in 0..self.records {
                let message = consumer.recv().await.expect("a record");
                sum = touch(message.payload().unwrap_or_default(), sum);
            }
        });
        black_box(sum);
    }

    /// The columns that the queries want, by the batch call and Tidemill's decoder.
    fn decode(&self, format: &str) {
        let column = |name: &str, data_type| DecodeColumn { name: name.to_owned(), data_type, nullable: true };
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        let all = [
            column("id", DataType::Int64),
            column("key", DataType::Utf8),
            column("ts", time),
            column("amount", DataType::Float64),
            column("flag", DataType::Boolean),
            column("text", DataType::Utf8),
        ];
        let format = Format::from_options(format, &Options::default(), "").expect("a format");
        let mut decoder = format.decoder(&all, &[1, 2, 3]).expect("a decoder");
        let consumer = self.consumer();
        let mut left = self.records;
        while left > 0 {
            visit_batch(&consumer, |payload| {
                left -= 1;
                decoder.decode(payload).expect("a row");
                if decoder.len() == ROWS {
                    black_box(decoder.take().expect("columns"));
                }
            });
        }
        black_box(decoder.take().expect("columns"));
    }

    /// Prints how many committed rows there are, and the sum of their column `records`.
    fn sum(&self) {
        #[derive(Deserialize)]
        struct Row {
            #[serde(default)]
            records: u64,
        }
        let (mut rows, mut sum) = (0_u64, 0);
        self.until_end(|payload| {
            rows += 1;
            sum += serde_json::from_slice::<Row>(payload).expect("a row").records;
        });
        println!("{rows} {sum}");
    }

    /// Reads all committed rows, then produces them to another topic with the settings of a Kafka table's sink, and prints
    /// what only that took: CPU seconds, seconds, and bytes.
    fn produce(&self, to: &str) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        self.until_end(|payload| {
            bytes.extend_from_slice(payload);
            ends.push(bytes.len());
        });
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers)
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "250000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("enable.idempotence", "true");
        let (began, cpu) = (Instant::now(), own_cpu());
        let producer: BaseProducer = config.create().expect("a producer");
        let mut from = 0;
        for (row, &end) in ends.iter().enumerate() {
            let mut record = BaseRecord::<(), [u8]>::to(to).payload(&bytes[from..end]);
            while let Err((_, refused)) = producer.send(record) {
                producer.poll(Duration::from_millis(10));
                record = refused;
            }
            from = end;
            if row.is_multiple_of(1_024) {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(Duration::from_secs(60)).expect("Kafka acknowledges what was sent");
        println!("{} {} {}", own_cpu() - cpu, began.elapsed().as_secs_f64(), bytes.len());
    }

    /// All committed records, up to the end of each partition.
    fn until_end(&self, mut visit: impl FnMut(&[u8])) {
        let mut config = self.consumer_config();
        config.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        consumer.assign(&self.assignment()).expect("an assignment");
        let mut open = self.partitions;
        while open > 0 {
            match consumer.poll(Duration::from_secs(30)) {
                Some(Ok(message)) => visit(message.payload().unwrap_or_default()),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => panic!("reading {}: {error}", self.name),
                None => panic!("reading {}: nothing came", self.name),
            }
        }
    }
}

/// Reads all bytes of a record.
fn touch(payload: &[u8], mut sum: u64) -> u64 {
    let (words, rest) = payload.as_chunks::<8>();
    for word in words {
        sum ^= u64::from_le_bytes(*word);
    }
    rest.iter().fold(sum, |sum, byte| sum ^ u64::from(*byte))
}
