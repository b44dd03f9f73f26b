-- Cumulating windows grow by a step until they have their size, then begin anew.

CREATE TABLE s (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json');
CREATE TABLE o (window_start TIMESTAMP(3), window_end TIMESTAMP(3), k STRING, n BIGINT, total BIGINT)
    WITH ('connector' = 'blackhole');

INSERT INTO o
    SELECT window_start, window_end, k, COUNT(*), SUM(n)
    FROM TABLE(CUMULATE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '3' HOUR))
    GROUP BY window_start, window_end, k;

INSERT INTO s VALUES
    ('a', 1, '2024-01-01 00:30:00'),
    ('b', 2, '2024-01-01 00:59:59.999'),
    ('a', 4, '2024-01-01 01:00:00'),
    ('a', 8, '2024-01-01 03:00:00');
EXPECT o VALUES
    ('2024-01-01 00:00:00', '2024-01-01 01:00:00', 'a', 1, 1),
    ('2024-01-01 00:00:00', '2024-01-01 01:00:00', 'b', 1, 2),
    ('2024-01-01 00:00:00', '2024-01-01 02:00:00', 'a', 2, 5),
    ('2024-01-01 00:00:00', '2024-01-01 02:00:00', 'b', 1, 2),
    ('2024-01-01 00:00:00', '2024-01-01 03:00:00', 'a', 2, 5),
    ('2024-01-01 00:00:00', '2024-01-01 03:00:00', 'b', 1, 2);

-- The last row is late for two windows of its three, and used for the third.
INSERT INTO s VALUES ('a', 16, '2024-01-01 05:10:00'), ('b', 32, '2024-01-01 03:59:00');
END OF INPUT;
EXPECT o VALUES
    ('2024-01-01 03:00:00', '2024-01-01 04:00:00', 'a', 1, 8),
    ('2024-01-01 03:00:00', '2024-01-01 05:00:00', 'a', 1, 8),
    ('2024-01-01 03:00:00', '2024-01-01 06:00:00', 'a', 2, 24),
    ('2024-01-01 03:00:00', '2024-01-01 06:00:00', 'b', 1, 32);
