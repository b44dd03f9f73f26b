-- Windows that grow by a step until they have their full size.

CREATE TABLE cumulate_day (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), window_time TIMESTAMP_LTZ(3), origin STRING, flights BIGINT,
  miles BIGINT, latest INT, mean_delay BIGINT, planes BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/cumulate_day', 'format' = 'json');

INSERT INTO cumulate_day
SELECT window_start, window_end, window_time, origin, COUNT(*), SUM(CAST(distance AS BIGINT)), MAX(dep_delay),
  CAST(FLOOR(AVG(CAST(dep_delay AS DOUBLE)) * 100) AS BIGINT), COUNT(DISTINCT tailnum)
FROM TABLE(CUMULATE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' HOUR, INTERVAL '1' DAY))
GROUP BY window_start, window_end, window_time, origin;
