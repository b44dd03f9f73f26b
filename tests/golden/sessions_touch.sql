-- Sessions: rows of a key that are no further apart than the gap. A row in between makes one of two.

CREATE TABLE s (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' MINUTE)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json');
CREATE TABLE o (window_start TIMESTAMP(3), window_end TIMESTAMP(3), k STRING, rows BIGINT, least BIGINT)
    WITH ('connector' = 'blackhole');

INSERT INTO o
    SELECT window_start, window_end, k, COUNT(*), MIN(n)
    FROM TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(ts), INTERVAL '10' SECOND))
    GROUP BY window_start, window_end, k;

INSERT INTO s VALUES
    -- They touch: the second begins where the first ends.
    ('a', 3, '2024-01-01 00:00:00'), ('a', 2, '2024-01-01 00:00:10'),
    -- A millisecond more, and it is another one.
    ('b', 3, '2024-01-01 00:00:00'), ('b', 2, '2024-01-01 00:00:10.001'),
    -- The last row bridges the gap between the two before it.
    ('c', 3, '2024-01-01 00:00:00'), ('c', 2, '2024-01-01 00:00:18'), ('c', 1, '2024-01-01 00:00:09'),
    -- Nulls are rows, and nothing to aggregates.
    (NULL, NULL, '2024-01-01 00:00:05');
EXPECT NOTHING FROM o;

-- A session ends when the watermark has reached its end.
ADVANCE WATERMARK TO '2024-01-01 00:00:09.999';
EXPECT NOTHING FROM o;
ADVANCE WATERMARK TO '2024-01-01 00:00:10';
EXPECT o VALUES
    ('2024-01-01 00:00:00', '2024-01-01 00:00:10', 'b', 1, 3);
END OF INPUT;
EXPECT o VALUES
    ('2024-01-01 00:00:00',     '2024-01-01 00:00:20',     'a',  2, 2),
    ('2024-01-01 00:00:00',     '2024-01-01 00:00:28',     'c',  3, 1),
    ('2024-01-01 00:00:05',     '2024-01-01 00:00:15',     NULL, 1, NULL),
    ('2024-01-01 00:00:10.001', '2024-01-01 00:00:20.001', 'b',  1, 2);
