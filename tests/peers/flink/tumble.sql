-- Windows of one size, with and without keys, filters, distinct values, in both spellings.

CREATE TABLE tumble_hours (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), window_time TIMESTAMP_LTZ(3), origin STRING, flights BIGINT,
  departures BIGINT, miles BIGINT, earliest INT, latest INT, mean_delay BIGINT, carriers BIGINT, delayed BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/tumble_hours', 'format' = 'json');

INSERT INTO tumble_hours
SELECT window_start, window_end, window_time, origin, COUNT(*), COUNT(dep_delay), SUM(CAST(distance AS BIGINT)),
  MIN(dep_delay), MAX(dep_delay), CAST(FLOOR(AVG(CAST(dep_delay AS DOUBLE)) * 100) AS BIGINT), COUNT(DISTINCT carrier),
  COUNT(*) FILTER (WHERE dep_delay > 15)
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, window_time, origin;

CREATE TABLE tumble_having (
  window_start TIMESTAMP(3), tailnum STRING, flights BIGINT, delay BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/tumble_having', 'format' = 'json');

INSERT INTO tumble_having
SELECT window_start, tailnum, COUNT(*), SUM(CAST(dep_delay AS BIGINT))
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' DAY))
WHERE origin <> 'EWR'
GROUP BY window_start, window_end, tailnum
HAVING COUNT(*) > 2;

CREATE TABLE tumble_older (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), window_time TIMESTAMP_LTZ(3), carrier STRING, flights BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/tumble_older', 'format' = 'json');

INSERT INTO tumble_older
SELECT TUMBLE_START(scheduled, INTERVAL '6' HOUR), TUMBLE_END(scheduled, INTERVAL '6' HOUR),
  TUMBLE_ROWTIME(scheduled, INTERVAL '6' HOUR), carrier, COUNT(*)
FROM flights
GROUP BY TUMBLE(scheduled, INTERVAL '6' HOUR), carrier;
