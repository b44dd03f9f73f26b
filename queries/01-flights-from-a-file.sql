-- Flights per airport and day: from a file to the terminal. No Kafka is needed.
--
-- Shows:  a table over a file, event time and its watermark, a tumbling window, rows on the terminal.
-- Input:  data/flights-2013-01.jsonl.gz, the 26,865 flights of January 2013, one JSON object per line.
-- Run:    tidemill run queries/01-flights-from-a-file.sql
-- Output: the terminal; the rows of the first day:
--         {"window_start":"2013-01-01 00:00:00","origin":"EWR","flights":255,"carriers":9,"miles":271885}
--         {"window_start":"2013-01-01 00:00:00","origin":"JFK","flights":236,"carriers":10,"miles":315657}
--         {"window_start":"2013-01-01 00:00:00","origin":"LGA","flights":218,"carriers":10,"miles":188171}

-- A table is a schema over something outside; nothing is copied. The flights lie in the order in which they happened,
-- so `scheduled` is out of order by as much as they were late. The watermark says how much of that to wait for: a day
-- closes once a flight has come that was scheduled a day after its end.
CREATE TABLE flights (
  scheduled TIMESTAMP_LTZ(3),
  carrier STRING,
  origin STRING,
  distance INT,
  WATERMARK FOR scheduled AS scheduled - INTERVAL '1' DAY
) WITH (
  'connector' = 'filesystem',
  'path' = 'data/flights-2013-01.jsonl.gz',
  'format' = 'json'
);

CREATE TABLE per_day (
  window_start TIMESTAMP(3),
  origin STRING,
  flights BIGINT,
  carriers BIGINT,
  miles BIGINT
) WITH (
  'connector' = 'print'
);

-- TUMBLE puts every row into one window and adds its bounds, window_start, window_end and window_time, to the columns.
-- A row comes out for each window and airport when the window closes. A file ends, and so does the query.
INSERT INTO per_day
SELECT window_start, origin, COUNT(*), COUNT(DISTINCT carrier), SUM(distance)
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' DAY))
GROUP BY window_start, window_end, origin;
