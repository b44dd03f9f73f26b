-- A partition that is silent for long enough holds nothing back; when all are, the clock moves the watermark on.

CREATE TABLE s (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json', 'scan.watermark.idle-timeout' = '30 s');
CREATE TABLE o (window_start TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');

INSERT INTO o SELECT window_start, SUM(n) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY window_start, window_end;

ADVANCE CLOCK TO TIMESTAMP '2024-01-01 00:00:00';
INSERT INTO s PARTITION 0 VALUES (1, '2024-01-01 00:00:01'), (2, '2024-01-01 00:00:12');
INSERT INTO s PARTITION 1 VALUES (4, '2024-01-01 00:00:02');
EXPECT NOTHING FROM o;

-- Partition 1 is silent.
ADVANCE CLOCK BY INTERVAL '20' SECOND;
INSERT INTO s PARTITION 0 VALUES (8, '2024-01-01 00:00:13');
EXPECT NOTHING FROM o;
ADVANCE CLOCK BY INTERVAL '10' SECOND;
EXPECT o VALUES
    ('2024-01-01 00:00:00', 5);

-- Then partition 0 is silent too, and after 7 seconds more the second window is over.
ADVANCE CLOCK BY INTERVAL '20' SECOND;
EXPECT NOTHING FROM o;
ADVANCE CLOCK BY INTERVAL '7' SECOND;
EXPECT o VALUES
    ('2024-01-01 00:00:10', 10);
