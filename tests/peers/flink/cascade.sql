-- Windows over the results of windows, to a depth of three.

-- The bounds get names of their own, for windows over these windows add theirs.
CREATE VIEW hourly AS
SELECT window_start AS since, window_end AS till, window_time AS closing, origin, carrier, COUNT(*) AS flights,
  SUM(CAST(dep_delay AS BIGINT)) AS delay
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, window_time, origin, carrier;

CREATE VIEW six_hourly AS
SELECT window_start AS since, window_end AS till, window_time AS closing, origin, SUM(flights) AS flights, MAX(flights) AS busiest,
  SUM(delay) AS delay
FROM TABLE(HOP(TABLE hourly, DESCRIPTOR(closing), INTERVAL '2' HOUR, INTERVAL '6' HOUR))
GROUP BY window_start, window_end, window_time, origin;

CREATE TABLE cascade_hop (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, flights BIGINT, busiest BIGINT, delay BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/cascade_hop', 'format' = 'json');

INSERT INTO cascade_hop SELECT since, till, origin, flights, busiest, delay FROM six_hourly;

CREATE TABLE cascade_deep (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), windows BIGINT, flights BIGINT, busiest BIGINT, delay BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/cascade_deep', 'format' = 'json');

INSERT INTO cascade_deep
SELECT window_start, window_end, COUNT(*), MIN(flights), MAX(busiest), SUM(delay)
FROM TABLE(TUMBLE(TABLE six_hourly, DESCRIPTOR(closing), INTERVAL '1' DAY))
GROUP BY window_start, window_end;

CREATE TABLE cascade_cumulate (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), carrier STRING, flights BIGINT, hours BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/cascade_cumulate', 'format' = 'json');

INSERT INTO cascade_cumulate
SELECT window_start, window_end, carrier, SUM(flights), COUNT(*)
FROM TABLE(CUMULATE(TABLE hourly, DESCRIPTOR(closing), INTERVAL '4' HOUR, INTERVAL '1' DAY))
GROUP BY window_start, window_end, carrier;

-- The same windows once more: what is in a window of the first aggregate, over all keys.
CREATE TABLE cascade_same (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), most BIGINT, least BIGINT, pairs BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/cascade_same', 'format' = 'json');

INSERT INTO cascade_same
SELECT since, till, MAX(flights), MIN(flights), COUNT(*)
FROM hourly
GROUP BY since, till;
