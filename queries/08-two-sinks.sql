-- One topic read once, two topics written: routes per day, and every flight that was more than four hours late.
--
-- Shows:  a statement set, metadata columns, a wider key.
-- Input:  the topic flights (02-load-flights.sql)
-- Run:    tidemill -b localhost:9092 run queries/08-two-sinks.sql
-- Output: the topic routes_per_day, with records such as
--         {"window_start":"2013-01-01 00:00:00","origin":"EWR","dest":"LAS","flights":4,"cancelled":0}
--         and the topic very_late_flights, with records such as
--         {"scheduled":"2013-01-01 22:00:00Z","flight":"9E 3347","route":"JFK-CVG","dep_delay":255,"found_in":0}

-- A VIRTUAL metadata column is only read: `partition` says where the record stood.
CREATE TABLE flights (
  scheduled TIMESTAMP_LTZ(3),
  carrier STRING,
  flight INT,
  origin STRING,
  dest STRING,
  dep_delay INT,
  `partition` INT METADATA VIRTUAL,
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
  found_in INT
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
  SELECT scheduled, CONCAT(carrier, ' ', CAST(flight AS STRING)), origin || '-' || dest, dep_delay, `partition`
  FROM flights
  WHERE dep_delay > 240;
END;
