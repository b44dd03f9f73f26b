-- How late carriers were over the last 90 minutes, every 20 minutes.
--
-- Shows:  a sliding window whose size is no multiple of its slide, FILTER, HAVING, rows that come too late.
-- Input:  the topic flights (02-load-flights.sql)
-- Run:    tidemill -b localhost:9092 run queries/04-delays-per-carrier.sql
-- Output: the topic delays_per_carrier; records of the first windows:
--         {"window_start":"2013-01-01 10:20:00","window_end":"2013-01-01 11:50:00","carrier":"UA","flights":13,"delayed":0,"mean_delay":0.54}
--         {"window_start":"2013-01-01 10:40:00","window_end":"2013-01-01 12:10:00","carrier":"AA","flights":11,"delayed":0,"mean_delay":-0.27}

-- The watermark waits for half an hour only. A flight that left later than that is too late for some of its windows,
-- or for all of them: it is counted, and DESCRIBE JOB and the closing line say so. Which rows those are is decided in each
-- partition by itself, so every run gives the same rows.
CREATE TABLE flights (
  scheduled TIMESTAMP_LTZ(3),
  carrier STRING,
  dep_delay INT,
  WATERMARK FOR scheduled AS scheduled - INTERVAL '30' MINUTE
) WITH (
  'connector' = 'kafka',
  'topic' = 'flights',
  'format' = 'json',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset'
);

CREATE TABLE delays_per_carrier (
  window_start TIMESTAMP(3),
  window_end TIMESTAMP(3),
  carrier STRING,
  flights BIGINT,
  delayed BIGINT,
  mean_delay DOUBLE
) WITH (
  'connector' = 'kafka',
  'topic' = 'delays_per_carrier',
  'key.format' = 'raw',
  'key.fields' = 'carrier',
  'format' = 'json'
);

-- HOP takes the slide first, then the size.
INSERT INTO delays_per_carrier
SELECT window_start, window_end, carrier,
       COUNT(*),
       COUNT(*) FILTER (WHERE dep_delay > 15),
       ROUND(AVG(dep_delay), 2)
FROM TABLE(HOP(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '20' MINUTE, INTERVAL '90' MINUTE))
GROUP BY window_start, window_end, carrier
HAVING COUNT(*) >= 10;
