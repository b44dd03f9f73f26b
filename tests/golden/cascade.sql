-- Windows that feed windows: rows of a closed window carry its time, and are never late for the next one.

CREATE TABLE clicks (who STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 'clicks', 'format' = 'json');
CREATE TABLE o (window_start TIMESTAMP(3), people BIGINT, clicks BIGINT, most BIGINT) WITH ('connector' = 'blackhole');

CREATE VIEW per_minute AS
    SELECT window_time AS minute, who, COUNT(*) AS clicks
    FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
    GROUP BY window_start, window_end, window_time, who;
INSERT INTO o
    SELECT window_start, COUNT(*), SUM(clicks), MAX(clicks)
    FROM TABLE(TUMBLE(TABLE per_minute, DESCRIPTOR(minute), INTERVAL '5' MINUTE))
    GROUP BY window_start, window_end;

INSERT INTO clicks VALUES
    ('ann', '2024-01-01 00:00:10'), ('ann', '2024-01-01 00:00:20'), ('bob', '2024-01-01 00:00:30'),
    ('ann', '2024-01-01 00:04:59'), ('bob', '2024-01-01 00:05:00');
-- The last record closes minute 4, and with it the first five.
EXPECT o VALUES
    ('2024-01-01 00:00:00', 3, 4, 2);
ADVANCE WATERMARK TO '2024-01-01 00:09:59.998';
EXPECT NOTHING FROM o;
ADVANCE WATERMARK TO '2024-01-01 00:09:59.999';
EXPECT o VALUES
    ('2024-01-01 00:05:00', 1, 1, 1);
