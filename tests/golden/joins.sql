-- Joins of equal windows: each side is aggregated first, and a window's rows meet when it has closed on both sides.

CREATE TABLE a (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 'a', 'format' = 'json');
CREATE TABLE b (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 'b', 'format' = 'json');
CREATE TABLE o (window_start TIMESTAMP(3), k STRING, a BIGINT, b BIGINT) WITH ('connector' = 'blackhole');

INSERT INTO o
    SELECT COALESCE(l.window_start, r.window_start), COALESCE(l.k, r.k), l.n, r.n
    FROM (SELECT window_start, window_end, k, SUM(n) AS n FROM TUMBLE(a, ts, INTERVAL '10' SECOND)
          GROUP BY window_start, window_end, k) l
    FULL JOIN (SELECT window_start, window_end, k, SUM(n) AS n FROM TUMBLE(b, ts, INTERVAL '10' SECOND)
          GROUP BY window_start, window_end, k) r
    ON l.window_start = r.window_start AND l.window_end = r.window_end AND l.k = r.k;

INSERT INTO a VALUES ('x', 1, '2024-01-01 00:00:01'), ('x', 2, '2024-01-01 00:00:02'), ('y', 4, '2024-01-01 00:00:03'),
    ('x', 8, '2024-01-01 00:00:11');
EXPECT NOTHING FROM o;
INSERT INTO b VALUES ('x', 10, '2024-01-01 00:00:09'), ('z', 20, '2024-01-01 00:00:09'), ('x', 40, '2024-01-01 00:00:10');
EXPECT o VALUES
    ('2024-01-01 00:00:00', 'x', 3,    10),
    ('2024-01-01 00:00:00', 'y', 4,    NULL),
    ('2024-01-01 00:00:00', 'z', NULL, 20);
END OF INPUT;
EXPECT o VALUES
    ('2024-01-01 00:00:10', 'x', 8, 40);
