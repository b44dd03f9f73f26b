-- One topic read once, two topics written: routes per day, and every flight that was more than four hours late.
--
-- Shows:  a statement set, metadata columns, a wider key.
-- Input:  the topic flights (02-load-flights.sql)
-- Run:    tidemill -b localhost:9092 run queries/08-two-sinks.sql
-- Output: the topic routes_per_day, with records such as
--         TO FILL
--         and the topic very_late_flights, with records such as
--         TO FILL2

-- `partition` and `offset` say where the record stood.
CREATE TABLE flights (
  scheduled TIMESTAMP_LTZ(3),
  carrier STRING,
  flight INT,
  origin STRING,
  dest STRING,
  dep_delay INT,
  `partition` INT METADATA VIRTUAL,
  `offset` BIGINT METADATA VIRTUAL,
  WATERMARK FOR scheduled AS scheduled - INTERVAL '1' DAY
) WITH (
  'connector' = 'kafka',
  'topic' = 'flights',
  'format' = 'json',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset'
);

CREATE TABLE routes_per_day (
  window_start TIMESTAMP(3),
  origin STRING,
  dest STRING,
  flights BIGINT,
  cancelled BIGINT
) WITH (
  'connector' = 'kafka',
  'topic' = 'routes_per_day',
  'key.format' = 'json',
  'key.fields' = 'origin;dest',
  'format' = 'json'
);

CREATE TABLE very_late_flights (
  scheduled TIMESTAMP_LTZ(3),
  flight STRING,
  route STRING,
  dep_delay INT,
  `found_at` STRING
) WITH (
  'connector' = 'kafka',
  'topic' = 'very_late_flights',
  'format' = 'json'
);

-- All statements of a set run as one job; a topic that several of them read is read once.
EXECUTE STATEMENT SET
BEGIN
  INSERT INTO routes_per_day
  SELECT window_start, origin, dest, COUNT(*), COUNT(*) - COUNT(dep_delay)
  FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' DAY))
  GROUP BY window_start, window_end, origin, dest;

  INSERT INTO very_late_flights
  SELECT scheduled, CONCAT(carrier, ' ', CAST(flight AS STRING)), origin || '-' || dest, dep_delay,
         CONCAT(CAST(`partition` AS STRING), ':', CAST(`offset` AS STRING))
  FROM flights
  WHERE dep_delay > 240;
END;
