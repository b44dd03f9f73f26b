-- The flights of January 2013 into a topic, which the next programs read.
--
-- Shows:  a Kafka table as a sink, a record's key, how many partitions a new topic gets.
-- Input:  data/flights-2013-01.jsonl.gz
-- Run:    tidemill -b localhost:9092 run queries/02-load-flights.sql
-- Output: the topic flights, made with four partitions if it is missing; 26,865 records such as
--         {"scheduled":"2013-01-01 10:15:00Z","departed":"2013-01-01 10:17:00Z","carrier":"UA","flight":1545,"tailnum":"N14228","origin":"EWR","dest":"IAH","dep_delay":2,"arr_delay":11,"air_time":227,"distance":1400}
--
-- Run it once: a second run appends the same flights again.

CREATE TABLE flights_file (
  scheduled TIMESTAMP_LTZ(3),
  departed TIMESTAMP_LTZ(3),
  carrier STRING,
  flight INT,
  tailnum STRING,
  origin STRING,
  dest STRING,
  dep_delay INT,
  arr_delay INT,
  air_time INT,
  distance INT
) WITH (
  'connector' = 'filesystem',
  'path' = 'data/flights-2013-01.jsonl.gz',
  'format' = 'json'
);

-- The brokers come from -b, so no table has to name them. Flights of one aircraft have one key, so
-- they come to one partition and stay in order, by the hash that Java's clients use. The key is in the value as well.
CREATE TABLE flights (
  scheduled TIMESTAMP_LTZ(3),
  departed TIMESTAMP_LTZ(3),
  carrier STRING,
  flight INT,
  tailnum STRING,
  origin STRING,
  dest STRING,
  dep_delay INT,
  arr_delay INT,
  air_time INT,
  distance INT
) WITH (
  'connector' = 'kafka',
  'topic' = 'flights',
  'key.format' = 'raw',
  'key.fields' = 'tailnum',
  'format' = 'json',
  'sink.topic.partitions' = '4'
);

INSERT INTO flights SELECT * FROM flights_file;
