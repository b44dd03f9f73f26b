-- Whether a row is late depends on its own partition alone, and the last instant of a window belongs to it.

CREATE TABLE s (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json');
CREATE TABLE o (window_start TIMESTAMP(3), n BIGINT, total BIGINT) WITH ('connector' = 'blackhole');

INSERT INTO o
    SELECT window_start, COUNT(*), SUM(n) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY window_start, window_end;

INSERT INTO s PARTITION 0 VALUES
    (1, '2024-01-01 00:00:03'),
    -- The watermark reaches 00:00:09.998.
    (2, '2024-01-01 00:00:10.998'),
    -- In time.
    (4, '2024-01-01 00:00:09.999'),
    -- The watermark reaches 00:00:09.999, the last instant of the first window.
    (8, '2024-01-01 00:00:10.999'),
    -- Late, by nothing at all.
    (16, '2024-01-01 00:00:09.999');
-- Another partition is another log.
INSERT INTO s PARTITION 1 VALUES (32, '2024-01-01 00:00:09.999'), (64, '2024-01-01 00:00:00');
EXPECT NOTHING FROM o;

EXPECT LATE OF s VALUES
    (16, '2024-01-01 00:00:09.999');
EXPECT NOTHING PARTLY LATE OF s;

ADVANCE WATERMARK OF s PARTITION 1 TO TIMESTAMP '2024-01-01 00:00:09.999';
EXPECT o VALUES
    ('2024-01-01 00:00:00', 4, 101);
END OF INPUT;
EXPECT o VALUES
    ('2024-01-01 00:00:10', 2, 10);
