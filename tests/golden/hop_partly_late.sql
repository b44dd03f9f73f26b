-- A row that is late for some of its sliding windows counts for exactly those that its own partition had not closed.

CREATE TABLE s (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json');
CREATE TABLE o (window_start TIMESTAMP(3), window_end TIMESTAMP(3), n BIGINT, total BIGINT)
    WITH ('connector' = 'blackhole');

INSERT INTO o
    SELECT window_start, window_end, COUNT(*), SUM(n)
    FROM TABLE(HOP(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '30' SECOND))
    GROUP BY window_start, window_end;

INSERT INTO s VALUES (1, '2024-01-01 00:00:05'), (2, '2024-01-01 00:00:15');
-- Partition 1 is far behind: it holds the watermark of the stream back, and judges its rows by its own.
INSERT INTO s PARTITION 1 VALUES (100, '2024-01-01 00:00:01');
EXPECT NOTHING FROM o;

-- The window that ends at 00:00:10 has closed in partition 0, not in partition 1.
INSERT INTO s PARTITION 0 VALUES (4, '2024-01-01 00:00:06');
INSERT INTO s PARTITION 1 VALUES (200, '2024-01-01 00:00:07');
ADVANCE WATERMARK TO TIMESTAMP '2024-01-01 00:00:19.999';
EXPECT o VALUES
    ('2023-12-31 23:59:40', '2024-01-01 00:00:10', 3, 301),
    ('2023-12-31 23:59:50', '2024-01-01 00:00:20', 5, 307);

-- Now it is late for two of three windows.
INSERT INTO s VALUES (8, '2024-01-01 00:00:09');
-- And this one for all.
INSERT INTO s VALUES (16, '2023-12-31 23:59:59');
END OF INPUT;
EXPECT o VALUES
    ('2024-01-01 00:00:00', '2024-01-01 00:00:30', 6, 315),
    ('2024-01-01 00:00:10', '2024-01-01 00:00:40', 1, 2);
EXPECT PARTLY LATE OF s VALUES
    (4, '2024-01-01 00:00:06'),
    (8, '2024-01-01 00:00:09');
EXPECT LATE OF s VALUES
    (16, '2023-12-31 23:59:59');
