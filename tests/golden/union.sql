-- Sources of different disorder in one stream: the slowest one says how far it has come.

CREATE TABLE a (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 'a', 'format' = 'json');
CREATE TABLE b (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' MINUTE)
    WITH ('connector' = 'kafka', 'topic' = 'b', 'format' = 'json');
CREATE TABLE o (window_end TIMESTAMP(3), n BIGINT, total BIGINT) WITH ('connector' = 'blackhole');

CREATE VIEW both_of_them AS SELECT n, ts FROM a UNION ALL SELECT n, ts FROM b;
INSERT INTO o
    SELECT window_end, COUNT(*), SUM(n)
    FROM TABLE(TUMBLE(TABLE both_of_them, DESCRIPTOR(ts), INTERVAL '10' SECOND))
    GROUP BY window_start, window_end;

INSERT INTO a VALUES (1, '2024-01-01 00:00:01'), (2, '2024-01-01 00:00:11'), (4, '2024-01-01 00:00:02');
INSERT INTO b VALUES (10, '2024-01-01 00:00:01'), (20, '2024-01-01 00:00:31'), (40, '2024-01-01 00:00:02');
-- The 4 is late in a, the 40 is in time in b, which has come as far as 23:59:31.
EXPECT NOTHING FROM o;
INSERT INTO a VALUES (8, '2024-01-01 00:00:20');
INSERT INTO b VALUES (80, '2024-01-01 00:01:09.999');
EXPECT o VALUES
    ('2024-01-01 00:00:10', 3, 51);

-- What has ended holds nothing back.
END OF b;
EXPECT o VALUES
    ('2024-01-01 00:00:20', 1, 2);
END OF a;
EXPECT o VALUES
    ('2024-01-01 00:00:30', 1, 8),
    ('2024-01-01 00:00:40', 1, 20),
    ('2024-01-01 00:01:10', 1, 80);
EXPECT LATE OF a VALUES
    (4, '2024-01-01 00:00:02');
EXPECT NOTHING LATE OF b;
