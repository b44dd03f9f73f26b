-- Windows that end with a pause: of one aircraft, of a route, of everything.

CREATE TABLE session_planes (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), window_time TIMESTAMP_LTZ(3), tailnum STRING, flights BIGINT,
  miles BIGINT, airports BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/session_planes', 'format' = 'json');

INSERT INTO session_planes
SELECT window_start, window_end, window_time, tailnum, COUNT(*), SUM(CAST(distance AS BIGINT)), COUNT(DISTINCT origin)
FROM TABLE(SESSION(TABLE flights PARTITION BY tailnum, DESCRIPTOR(scheduled), INTERVAL '12' HOUR))
GROUP BY window_start, window_end, window_time, tailnum;

-- Times are whole minutes, so many sessions touch exactly.
CREATE TABLE session_routes (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, dest STRING, flights BIGINT, latest INT
) WITH ('connector' = 'filesystem', 'path' = 'rows/session_routes', 'format' = 'json');

INSERT INTO session_routes
SELECT window_start, window_end, origin, dest, COUNT(*), MAX(dep_delay)
FROM TABLE(SESSION(TABLE flights PARTITION BY (origin, dest), DESCRIPTOR(scheduled), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, origin, dest;

CREATE TABLE session_all (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), flights BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/session_all', 'format' = 'json');

INSERT INTO session_all
SELECT window_start, window_end, COUNT(*)
FROM TABLE(SESSION(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '30' MINUTE))
GROUP BY window_start, window_end;

CREATE TABLE session_older (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), carrier STRING, flights BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/session_older', 'format' = 'json');

INSERT INTO session_older
SELECT SESSION_START(scheduled, INTERVAL '20' MINUTE), SESSION_END(scheduled, INTERVAL '20' MINUTE), carrier, COUNT(*)
FROM flights
GROUP BY SESSION(scheduled, INTERVAL '20' MINUTE), carrier;
