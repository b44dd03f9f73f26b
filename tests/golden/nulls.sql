-- A null key is a group of its own; aggregates leave nulls out; rows whose condition is unknown do not pass.

CREATE TABLE s (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json');
CREATE TABLE o (k STRING, rows BIGINT, n BIGINT, total BIGINT, least BIGINT, mean DOUBLE, sorts BIGINT, evens BIGINT)
    WITH ('connector' = 'blackhole');
CREATE TABLE p (k STRING, n BIGINT) WITH ('connector' = 'blackhole');

INSERT INTO o
    SELECT k, COUNT(*), COUNT(n), SUM(n), MIN(n), AVG(n), COUNT(DISTINCT n), SUM(n) FILTER (WHERE MOD(n, 2) = 0)
    FROM TUMBLE(s, ts, INTERVAL '1' MINUTE) GROUP BY window_start, window_end, k;
INSERT INTO p SELECT k, n FROM s WHERE n > 1 OR k = 'c';

INSERT INTO s VALUES
    ('a', 1, '2024-01-01 00:00:00'), ('a', NULL, '2024-01-01 00:00:00'), ('a', 4, '2024-01-01 00:00:00'),
    (NULL, 2, '2024-01-01 00:00:00'), (NULL, 2, '2024-01-01 00:00:00'),
    ('c', NULL, '2024-01-01 00:00:00');
END OF INPUT;
EXPECT o VALUES
    ('a',  3, 2, 5,    1,    2.5,  2, 4),
    ('c',  1, 0, NULL, NULL, NULL, 0, NULL),
    (NULL, 2, 2, 4,    2,    2.0,  1, 4);
EXPECT p VALUES
    ('a',  4),
    ('c',  NULL),
    (NULL, 2),
    (NULL, 2);
