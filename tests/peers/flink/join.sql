-- Joins of equal windows: of aggregates, and of rows as they are.

CREATE VIEW per_airport AS
SELECT window_start, window_end, window_time, origin AS airport, COUNT(*) AS flights
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '2' HOUR))
GROUP BY window_start, window_end, window_time, origin;

CREATE VIEW delays AS
SELECT window_start, window_end, window_time, origin AS airport, COUNT(*) AS delayed, MAX(dep_delay) AS latest
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '2' HOUR))
WHERE dep_delay > 120
GROUP BY window_start, window_end, window_time, origin;

CREATE VIEW cancellations AS
SELECT window_start, window_end, window_time, origin AS airport, COUNT(*) AS cancelled
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '2' HOUR))
WHERE dep_delay IS NULL
GROUP BY window_start, window_end, window_time, origin;

CREATE TABLE join_inner (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), airport STRING, flights BIGINT, delayed BIGINT, latest INT
) WITH ('connector' = 'filesystem', 'path' = 'rows/join_inner', 'format' = 'json');

INSERT INTO join_inner
SELECT f.window_start, f.window_end, f.airport, f.flights, d.delayed, d.latest
FROM per_airport f
JOIN delays d ON f.window_start = d.window_start AND f.window_end = d.window_end AND f.airport = d.airport;

CREATE TABLE join_left (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), airport STRING, flights BIGINT, delayed BIGINT, latest INT
) WITH ('connector' = 'filesystem', 'path' = 'rows/join_left', 'format' = 'json');

INSERT INTO join_left
SELECT f.window_start, f.window_end, f.airport, f.flights, d.delayed, d.latest
FROM per_airport f
LEFT JOIN delays d ON f.window_start = d.window_start AND f.window_end = d.window_end AND f.airport = d.airport
  AND d.latest > 240;

CREATE TABLE join_right (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), airport STRING, delayed BIGINT, cancelled BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/join_right', 'format' = 'json');

INSERT INTO join_right
SELECT c.window_start, c.window_end, c.airport, d.delayed, c.cancelled
FROM delays d
RIGHT JOIN cancellations c ON d.window_start = c.window_start AND d.window_end = c.window_end AND d.airport = c.airport;

CREATE TABLE join_full (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), airport STRING, delayed BIGINT, cancelled BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/join_full', 'format' = 'json');

INSERT INTO join_full
SELECT COALESCE(d.window_start, c.window_start), COALESCE(d.window_end, c.window_end), COALESCE(d.airport, c.airport),
  d.delayed, c.cancelled
FROM delays d
FULL JOIN cancellations c ON d.window_start = c.window_start AND d.window_end = c.window_end AND d.airport = c.airport;

CREATE TABLE join_semi (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), airport STRING, delayed BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/join_semi', 'format' = 'json');

INSERT INTO join_semi
SELECT window_start, window_end, airport, delayed
FROM delays d
WHERE EXISTS (
  SELECT * FROM cancellations c
  WHERE d.window_start = c.window_start AND d.window_end = c.window_end AND d.airport = c.airport
);

CREATE TABLE join_anti (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), airport STRING, delayed BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/join_anti', 'format' = 'json');

INSERT INTO join_anti
SELECT window_start, window_end, airport, delayed
FROM delays d
WHERE NOT EXISTS (
  SELECT * FROM cancellations c
  WHERE d.window_start = c.window_start AND d.window_end = c.window_end AND d.airport = c.airport
);

-- Pairs of flights to one place by different carriers within ten minutes of the clock.
CREATE TABLE join_rows (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), dest STRING, ours INT, theirs INT
) WITH ('connector' = 'filesystem', 'path' = 'rows/join_rows', 'format' = 'json');

INSERT INTO join_rows
SELECT a.window_start, a.window_end, a.dest, a.flight, b.flight
FROM (
  SELECT window_start, window_end, dest, flight
  FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '10' MINUTE)) WHERE carrier = 'UA'
) a
JOIN (
  SELECT window_start, window_end, dest, flight
  FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '10' MINUTE)) WHERE carrier = 'AA'
) b
ON a.window_start = b.window_start AND a.window_end = b.window_end AND a.dest = b.dest;
