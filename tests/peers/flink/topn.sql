-- The best rows of each window: of aggregates and of rows as they are; and one row per key, the first or the last.

CREATE TABLE topn_destinations (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), place BIGINT, dest STRING, flights BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/topn_destinations', 'format' = 'json');

INSERT INTO topn_destinations
SELECT window_start, window_end, place, dest, flights
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY flights DESC, dest) AS place
  FROM (
    SELECT window_start, window_end, dest, COUNT(*) AS flights
    FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '6' HOUR))
    GROUP BY window_start, window_end, dest
  )
)
WHERE place <= 5;

CREATE TABLE topn_per_airport (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, carrier STRING, flights BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/topn_per_airport', 'format' = 'json');

INSERT INTO topn_per_airport
SELECT window_start, window_end, origin, carrier, flights
FROM (
  SELECT *, ROW_NUMBER() OVER (
    PARTITION BY window_start, window_end, origin ORDER BY flights DESC, carrier DESC
  ) AS place
  FROM (
    SELECT window_start, window_end, origin, carrier, COUNT(*) AS flights
    FROM TABLE(HOP(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '3' HOUR, INTERVAL '12' HOUR))
    GROUP BY window_start, window_end, origin, carrier
  )
)
WHERE place < 3;

CREATE TABLE topn_rows (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), place BIGINT, origin STRING, carrier STRING, flight INT, dep_delay INT
) WITH ('connector' = 'filesystem', 'path' = 'rows/topn_rows', 'format' = 'json');

INSERT INTO topn_rows
SELECT window_start, window_end, place, origin, carrier, flight, dep_delay
FROM (
  SELECT *, ROW_NUMBER() OVER (
    PARTITION BY window_start, window_end, origin ORDER BY dep_delay DESC, carrier, flight
  ) AS place
  FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' DAY))
  WHERE dep_delay IS NOT NULL
)
WHERE place <= 3;

CREATE TABLE topn_first (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), tailnum STRING, origin STRING, dest STRING, scheduled TIMESTAMP_LTZ(3)
) WITH ('connector' = 'filesystem', 'path' = 'rows/topn_first', 'format' = 'json');

INSERT INTO topn_first
SELECT window_start, window_end, tailnum, origin, dest, scheduled
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, tailnum ORDER BY scheduled) AS place
  FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' DAY))
)
WHERE place = 1;

CREATE TABLE topn_last (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), tailnum STRING, origin STRING, dest STRING, scheduled TIMESTAMP_LTZ(3)
) WITH ('connector' = 'filesystem', 'path' = 'rows/topn_last', 'format' = 'json');

INSERT INTO topn_last
SELECT window_start, window_end, tailnum, origin, dest, scheduled
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, tailnum ORDER BY scheduled DESC) AS place
  FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' DAY))
)
WHERE place <= 1;
