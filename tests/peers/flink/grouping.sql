-- Several groupings of one window.

CREATE TABLE grouping_sets (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, carrier STRING, flights BIGINT, planes BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/grouping_sets', 'format' = 'json');

INSERT INTO grouping_sets
SELECT window_start, window_end, origin, carrier, COUNT(*), COUNT(DISTINCT tailnum)
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' DAY))
GROUP BY window_start, window_end, GROUPING SETS ((origin, carrier), (carrier), ());

CREATE TABLE grouping_rollup (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, tailnum STRING, flights BIGINT, miles BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/grouping_rollup', 'format' = 'json');

-- A flight without a tail number is a group of its own, beside the one of all tail numbers.
INSERT INTO grouping_rollup
SELECT window_start, window_end, origin, tailnum, COUNT(*), SUM(CAST(distance AS BIGINT))
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' DAY))
GROUP BY window_start, window_end, ROLLUP (origin, tailnum);

CREATE TABLE grouping_cube (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, carrier STRING, flights BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/grouping_cube', 'format' = 'json');

INSERT INTO grouping_cube
SELECT window_start, window_end, origin, carrier, COUNT(*)
FROM TABLE(HOP(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '6' HOUR, INTERVAL '12' HOUR))
GROUP BY window_start, window_end, CUBE (origin, carrier);
