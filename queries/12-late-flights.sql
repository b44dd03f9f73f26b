-- Departures per hour with a watermark that waits too little, the flights that came too late for it, and what is no flight.
--
-- Shows:  late rows and bad records as topics of their own, with headers that say why.
-- Input:  the topic flights (02-load-flights.sql)
-- Run:    tidemill -b localhost:9092 run queries/12-late-flights.sql
-- Output: the topic departures_in_time; records such as
--         {"window_start":"2013-01-01 10:00:00","departures":6}
--         {"window_start":"2013-01-01 11:00:00","departures":50}
--         and the topic late_flights: flights as they were, with the headers tidemill.reason, tidemill.event-time,
--         tidemill.watermark, tidemill.windows and others. The topic bad_flights stays empty.

-- Flights come in the order of their departure: one that is held up by more than ten minutes may be late for its hour.
CREATE TABLE flights (
  scheduled TIMESTAMP_LTZ(3),
  dep_delay INT,
  WATERMARK FOR scheduled AS scheduled - INTERVAL '10' MINUTES
) WITH (
  'connector' = 'kafka',
  'topic' = 'flights',
  'format' = 'json',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'scan.late.topic' = 'late_flights',
  'scan.on-error' = 'dead-letter',
  'scan.dead-letter.topic' = 'bad_flights'
);

CREATE TABLE departures_in_time (
  window_start TIMESTAMP(3),
  departures BIGINT
) WITH (
  'connector' = 'kafka',
  'topic' = 'departures_in_time',
  'format' = 'json'
);

INSERT INTO departures_in_time
SELECT window_start, COUNT(*)
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' HOUR))
GROUP BY window_start, window_end;
