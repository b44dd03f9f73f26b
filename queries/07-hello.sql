-- Lines of plain text, counted per ten seconds.
--
-- Shows:  the raw format, and the record's own time as event time.
-- Input:  the topic raw_data with the lines `Hello 0`, `Hello 1`, ..; for a line every second:
--         for i in $(seq 0 59); do echo "Hello $i"; sleep 1; done | kcat -P -b localhost:9092 -t raw_data
-- Run:    tidemill -b localhost:9092 run queries/07-hello.sql
-- Output: the topic hello_per_10_seconds; the first records, for lines that were sent from midnight of 2024-01-01 on:
--         {"window_start":"2024-01-01 00:00:00","window_end":"2024-01-01 00:00:10","total":10,"lowest":0,"highest":9}
--         {"window_start":"2024-01-01 00:00:10","window_end":"2024-01-01 00:00:20","total":10,"lowest":10,"highest":19}

-- A raw table has one column of the payload. What Kafka knows about a record is in metadata columns; `sent_at` is when
-- it was sent. Since nothing else is known of the lines, they are taken to be in order, but for two seconds.
CREATE TABLE raw_data (
  line STRING,
  sent_at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp',
  WATERMARK FOR sent_at AS sent_at - INTERVAL '2' SECOND
) WITH (
  'connector' = 'kafka',
  'topic' = 'raw_data',
  'format' = 'raw',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset'
);

CREATE TABLE hello_per_10_seconds (
  window_start TIMESTAMP(3),
  window_end TIMESTAMP(3),
  total BIGINT,
  lowest BIGINT,
  highest BIGINT
) WITH (
  'connector' = 'kafka',
  'topic' = 'hello_per_10_seconds',
  'format' = 'json'
);

INSERT INTO hello_per_10_seconds
SELECT window_start, window_end, COUNT(*), MIN(number), MAX(number)
FROM TABLE(TUMBLE(
  (SELECT sent_at, CAST(SPLIT_INDEX(line, ' ', 1) AS BIGINT) AS number FROM raw_data WHERE line LIKE 'Hello %'),
  DESCRIPTOR(sent_at),
  INTERVAL '10' SECOND))
GROUP BY window_start, window_end;
