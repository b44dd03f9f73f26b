-- Sliding windows: many per row, with a filter on their bounds, and in the older spelling.

CREATE TABLE hop_day (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, flights BIGINT, miles BIGINT, earliest INT,
  latest INT, mean_delay BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/hop_day', 'format' = 'json');

INSERT INTO hop_day
SELECT window_start, window_end, origin, COUNT(*), SUM(CAST(distance AS BIGINT)), MIN(dep_delay), MAX(dep_delay),
  CAST(FLOOR(AVG(CAST(dep_delay AS DOUBLE)) * 100) AS BIGINT)
FROM TABLE(HOP(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' HOUR, INTERVAL '1' DAY))
GROUP BY window_start, window_end, origin;

CREATE TABLE hop_mornings (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), dest STRING, flights BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/hop_mornings', 'format' = 'json');

INSERT INTO hop_mornings
SELECT window_start, window_end, dest, COUNT(*)
FROM TABLE(HOP(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '2' HOUR, INTERVAL '4' HOUR))
WHERE EXTRACT(HOUR FROM window_start) = 10 AND distance > 1000
GROUP BY window_start, window_end, dest;

CREATE TABLE hop_older (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), carrier STRING, flights BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/hop_older', 'format' = 'json');

INSERT INTO hop_older
SELECT HOP_START(scheduled, INTERVAL '3' HOUR, INTERVAL '12' HOUR),
  HOP_END(scheduled, INTERVAL '3' HOUR, INTERVAL '12' HOUR), carrier, COUNT(*)
FROM flights
GROUP BY HOP(scheduled, INTERVAL '3' HOUR, INTERVAL '12' HOUR), carrier;
