-- The same record by two ways is two rows, and which of them is first does not depend on luck.

CREATE TABLE s (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json');
CREATE TABLE o (n BIGINT, place BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE p (firsts BIGINT, every ARRAY<BIGINT>) WITH ('connector' = 'blackhole');

CREATE VIEW twice AS SELECT n, ts FROM s UNION ALL SELECT -n, ts FROM s UNION ALL SELECT 10 * n, ts FROM s;
INSERT INTO o
    SELECT n, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY ts)
    FROM TUMBLE(twice, ts, INTERVAL '10' SECOND);
INSERT INTO p
    SELECT FIRST_VALUE(n), ARRAY_AGG(n) FROM TUMBLE(twice, ts, INTERVAL '10' SECOND) GROUP BY window_start, window_end;

INSERT INTO s VALUES (1, '2024-01-01 00:00:01'), (2, '2024-01-01 00:00:01'), (3, '2024-01-01 00:00:02');
END OF INPUT;
EXPECT o VALUES
    (1, 1), (2, 2), (-1, 3), (-2, 4), (10, 5), (20, 6), (3, 7), (-3, 8), (30, 9);
EXPECT p VALUES
    (1, ARRAY[1, 2, -1, -2, 10, 20, 3, -3, 30]);
