-- What every file beside this one begins with: how to run, and the flights. Flink emits a watermark behind every row
-- with an interval of 0, and so judges lateness by the order of the file, as Tidemill does; with its default it depends on
-- the clock. Nothing here is written for one of the two only.

SET 'execution.runtime-mode' = 'streaming';
SET 'parallelism.default' = '1';
SET 'pipeline.auto-watermark-interval' = '0 ms';
SET 'table.local-time-zone' = 'UTC';
SET 'table.dml-sync' = 'true';

-- No flight is behind another by more than a day, so nothing is late.
CREATE TABLE flights (
  scheduled TIMESTAMP_LTZ(3),
  departed TIMESTAMP_LTZ(3),
  carrier STRING,
  flight INT,
  tailnum STRING,
  origin STRING,
  dest STRING,
  dep_delay INT,
  arr_delay INT,
  air_time INT,
  distance INT,
  WATERMARK FOR scheduled AS scheduled - INTERVAL '1' DAY
) WITH (
  'connector' = 'filesystem',
  'path' = 'flights.jsonl',
  'format' = 'json',
  'json.timestamp-format.standard' = 'ISO-8601'
);
