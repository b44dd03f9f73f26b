-- The three busiest routes of each day, by New York's clocks.
--
-- Shows:  days of a time zone, an aggregate per window, the best N of each window.
-- Input:  the topic flights (02-load-flights.sql)
-- Run:    tidemill -b localhost:9092 run queries/10-best-routes.sql
-- Output: the topic best_routes; the first day:
--         {"day":"2013-01-01 00:00:00","place":1,"origin":"JFK","dest":"LAX","flights":30}
--         {"day":"2013-01-01 00:00:00","place":2,"origin":"LGA","dest":"ATL","flights":27}
--         {"day":"2013-01-01 00:00:00","place":3,"origin":"LGA","dest":"ORD","flights":24}

-- A day is one of this zone: it begins at five o'clock in UTC, and has 23 or 25 hours when clocks change.
SET 'table.local-time-zone' = 'America/New_York';

CREATE TABLE flights (
  scheduled TIMESTAMP_LTZ(3),
  origin STRING,
  dest STRING,
  WATERMARK FOR scheduled AS scheduled - INTERVAL '1' DAY
) WITH (
  'connector' = 'kafka',
  'topic' = 'flights',
  'format' = 'json',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset'
);

CREATE TABLE best_routes (
  `day` TIMESTAMP(3),
  place BIGINT,
  origin STRING,
  dest STRING,
  flights BIGINT
) WITH (
  'connector' = 'kafka',
  'topic' = 'best_routes',
  'format' = 'json'
);

-- The rank is taken over the rows of a window that has closed; routes with as many flights are told apart by their names.
INSERT INTO best_routes
SELECT window_start, place, origin, dest, flights
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY flights DESC, origin, dest) AS place
  FROM (
    SELECT window_start, window_end, origin, dest, COUNT(*) AS flights
    FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' DAY))
    GROUP BY window_start, window_end, origin, dest))
WHERE place <= 3;
