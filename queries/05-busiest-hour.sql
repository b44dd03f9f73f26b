-- Per airport and day: how many departures the busiest hour had, and the mean of all hours.
--
-- Shows:  a view, and an aggregate over the windows of another aggregate.
-- Input:  the topic flights (02-load-flights.sql)
-- Run:    tidemill -b localhost:9092 run queries/05-busiest-hour.sql
-- Output: the topic busiest_hour; records of the first windows:
--         {"window_start":"2013-01-01 00:00:00","origin":"EWR","hours":14,"busiest":28,"mean":18.1}
--         {"window_start":"2013-01-01 00:00:00","origin":"LGA","hours":14,"busiest":21,"mean":15.5}

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

-- A view is a query with a name. window_time is the last instant of the window, and an event time again: what comes
-- out of a window can go into the next, longer one.
CREATE VIEW departures_per_hour AS
SELECT window_start, window_time, origin, COUNT(dep_delay) AS departures
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, window_time, origin;

CREATE TABLE busiest_hour (
  window_start TIMESTAMP(3),
  origin STRING,
  hours BIGINT,
  busiest BIGINT,
  mean DOUBLE
) WITH (
  'connector' = 'kafka',
  'topic' = 'busiest_hour',
  'format' = 'json'
);

INSERT INTO busiest_hour
SELECT window_start, origin, COUNT(*), MAX(departures), ROUND(AVG(departures), 1)
FROM TABLE(TUMBLE(TABLE departures_per_hour, DESCRIPTOR(window_time), INTERVAL '1' DAY))
GROUP BY window_start, window_end, origin;
