-- Departures and their mean delay, per airport and hour: what `tidemill demo` runs.
--
-- Shows:  topic in, windowed SQL, topic out.
-- Input:  the topic flights (02-load-flights.sql)
-- Run:    tidemill -b localhost:9092 run queries/03-departures-per-hour.sql
-- Output: the topic departures_per_hour, one record per window and airport; those of the first window:
--         {"window_start":"2013-01-01 10:00:00","origin":"EWR","departures":2,"mean_delay":-1.0,"worst_delay":2}
--         {"window_start":"2013-01-01 10:00:00","origin":"JFK","departures":3,"mean_delay":0.33,"worst_delay":2}
--         {"window_start":"2013-01-01 10:00:00","origin":"LGA","departures":1,"mean_delay":4.0,"worst_delay":4}

-- Fields that are not declared are skipped. The query reads what is in the topic when it starts, and ends:
-- without 'scan.bounded.mode' it goes on for ever.
CREATE TABLE flights (
  scheduled TIMESTAMP_LTZ(3),
  origin STRING,
  dep_delay INT,
  WATERMARK FOR scheduled AS scheduled - INTERVAL '1' DAY
) WITH (
  'connector' = 'kafka',
  'topic' = 'flights',
  'format' = 'json',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset'
);

CREATE TABLE departures_per_hour (
  window_start TIMESTAMP(3),
  origin STRING,
  departures BIGINT,
  mean_delay DOUBLE,
  worst_delay INT
) WITH (
  'connector' = 'kafka',
  'topic' = 'departures_per_hour',
  'key.format' = 'raw',
  'key.fields' = 'origin',
  'format' = 'json'
);

-- A cancelled flight has no delay: COUNT(dep_delay) leaves it out, as AVG and MAX do.
INSERT INTO departures_per_hour
SELECT window_start, origin, COUNT(dep_delay), ROUND(AVG(dep_delay), 2), MAX(dep_delay)
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, origin;
