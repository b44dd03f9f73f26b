-- A watermark half an hour behind: every seventh flight is late for some of its windows, or for all of them.

CREATE TABLE hasty_flights (
  scheduled TIMESTAMP_LTZ(3),
  carrier STRING,
  origin STRING,
  tailnum STRING,
  dep_delay INT,
  WATERMARK FOR scheduled AS scheduled - INTERVAL '30' MINUTE
) WITH (
  'connector' = 'filesystem',
  'path' = 'flights.jsonl',
  'format' = 'json',
  'json.timestamp-format.standard' = 'ISO-8601'
);

CREATE TABLE late_tumble (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, flights BIGINT, latest INT
) WITH ('connector' = 'filesystem', 'path' = 'rows/late_tumble', 'format' = 'json');

INSERT INTO late_tumble
SELECT window_start, window_end, origin, COUNT(*), MAX(dep_delay)
FROM TABLE(TUMBLE(TABLE hasty_flights, DESCRIPTOR(scheduled), INTERVAL '15' MINUTE))
GROUP BY window_start, window_end, origin;

CREATE TABLE late_hop (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), carrier STRING, flights BIGINT, latest INT
) WITH ('connector' = 'filesystem', 'path' = 'rows/late_hop', 'format' = 'json');

INSERT INTO late_hop
SELECT window_start, window_end, carrier, COUNT(*), MAX(dep_delay)
FROM TABLE(HOP(TABLE hasty_flights, DESCRIPTOR(scheduled), INTERVAL '15' MINUTE, INTERVAL '2' HOUR))
GROUP BY window_start, window_end, carrier;

CREATE TABLE late_cumulate (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, flights BIGINT, latest INT
) WITH ('connector' = 'filesystem', 'path' = 'rows/late_cumulate', 'format' = 'json');

INSERT INTO late_cumulate
SELECT window_start, window_end, origin, COUNT(*), MAX(dep_delay)
FROM TABLE(CUMULATE(TABLE hasty_flights, DESCRIPTOR(scheduled), INTERVAL '15' MINUTE, INTERVAL '4' HOUR))
GROUP BY window_start, window_end, origin;

-- What a late flight was late for is decided at the first aggregate only.
CREATE VIEW per_quarter AS
SELECT window_time, origin, COUNT(*) AS flights
FROM TABLE(TUMBLE(TABLE hasty_flights, DESCRIPTOR(scheduled), INTERVAL '15' MINUTE))
GROUP BY window_start, window_end, window_time, origin;

CREATE TABLE late_cascade (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), origin STRING, flights BIGINT, busiest BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/late_cascade', 'format' = 'json');

INSERT INTO late_cascade
SELECT window_start, window_end, origin, SUM(flights), MAX(flights)
FROM TABLE(TUMBLE(TABLE per_quarter, DESCRIPTOR(window_time), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, origin;
