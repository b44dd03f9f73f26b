-- What a plane did between two long rests: flights that follow each other within eight hours.
--
-- Shows:  sessions, one per key, that end when nothing has come for a while.
-- Input:  the topic flights (02-load-flights.sql)
-- Run:    tidemill -b localhost:9092 run queries/11-days-of-planes.sql
-- Output: the topic days_of_planes; records such as
--         {"tailnum":"N0EGMQ","since":"2013-01-01 20:10:00","flights":2,"miles":1088}
--         {"tailnum":"N0EGMQ","since":"2013-01-02 13:35:00","flights":1,"miles":762}

CREATE TABLE flights (
  scheduled TIMESTAMP_LTZ(3),
  tailnum STRING,
  distance INT,
  WATERMARK FOR scheduled AS scheduled - INTERVAL '1' DAY
) WITH (
  'connector' = 'kafka',
  'topic' = 'flights',
  'format' = 'json',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset'
);

CREATE TABLE days_of_planes (
  tailnum STRING,
  since TIMESTAMP(3),
  flights BIGINT,
  miles BIGINT
) WITH (
  'connector' = 'kafka',
  'topic' = 'days_of_planes',
  'format' = 'json'
);

-- Each value of the columns behind PARTITION BY has sessions of its own.
INSERT INTO days_of_planes
SELECT tailnum, window_start, COUNT(*), SUM(distance)
FROM TABLE(SESSION(TABLE flights PARTITION BY tailnum, DESCRIPTOR(scheduled), INTERVAL '8' HOURS))
GROUP BY tailnum, window_start, window_end;
