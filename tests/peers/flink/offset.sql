-- Windows that do not begin at midnight. Flink loses rows of such windows, or fires them twice, when its watermark moves
-- through them (FLINK-36664, open in 2.2), and does not when it comes to all of them at once: so it stays behind here.

CREATE TABLE patient_flights (
  scheduled TIMESTAMP_LTZ(3),
  tailnum STRING,
  WATERMARK FOR scheduled AS scheduled - INTERVAL '400' DAY(3)
) WITH (
  'connector' = 'filesystem',
  'path' = 'flights.jsonl',
  'format' = 'json',
  'json.timestamp-format.standard' = 'ISO-8601'
);

CREATE TABLE offset_tumble (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), flights BIGINT, planes BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/offset_tumble', 'format' = 'json');

INSERT INTO offset_tumble
SELECT window_start, window_end, COUNT(*), COUNT(DISTINCT tailnum)
FROM TABLE(TUMBLE(TABLE patient_flights, DESCRIPTOR(scheduled), INTERVAL '1' DAY, INTERVAL '5' HOUR))
GROUP BY window_start, window_end;

CREATE TABLE offset_hop (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), flights BIGINT, planes BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/offset_hop', 'format' = 'json');

INSERT INTO offset_hop
SELECT window_start, window_end, COUNT(*), COUNT(DISTINCT tailnum)
FROM TABLE(HOP(TABLE patient_flights, DESCRIPTOR(scheduled), INTERVAL '30' MINUTE, INTERVAL '90' MINUTE, INTERVAL '10' MINUTE))
GROUP BY window_start, window_end;

CREATE TABLE offset_cumulate (
  window_start TIMESTAMP(3), window_end TIMESTAMP(3), flights BIGINT
) WITH ('connector' = 'filesystem', 'path' = 'rows/offset_cumulate', 'format' = 'json');

INSERT INTO offset_cumulate
SELECT window_start, window_end, COUNT(*)
FROM TABLE(CUMULATE(TABLE patient_flights, DESCRIPTOR(scheduled), INTERVAL '2' HOUR, INTERVAL '8' HOUR, INTERVAL '5' HOUR))
GROUP BY window_start, window_end;
