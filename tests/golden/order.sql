-- Order never leaks: what depends on it takes event time, then partition and offset.

CREATE TABLE s (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' MINUTE)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json');
CREATE TABLE o (k STRING, first_n BIGINT, last_n BIGINT, all_n ARRAY<BIGINT>, by_size ARRAY<BIGINT>)
    WITH ('connector' = 'blackhole');

INSERT INTO o
    SELECT k, FIRST_VALUE(n), LAST_VALUE(n), ARRAY_AGG(n), ARRAY_AGG(n ORDER BY n DESC)
    FROM TUMBLE(s, ts, INTERVAL '1' MINUTE) GROUP BY window_start, window_end, k;

INSERT INTO s PARTITION 1 VALUES
    ('a', 10, '2024-01-01 00:00:30'), ('a', 11, '2024-01-01 00:00:10'), ('b', 12, '2024-01-01 00:00:01');
INSERT INTO s PARTITION 0 VALUES ('a', 1, '2024-01-01 00:00:10'), ('a', 2, '2024-01-01 00:00:30');
INSERT INTO s PARTITION 1 VALUES ('a', 13, '2024-01-01 00:00:10');
END OF INPUT;
EXPECT o VALUES
    ('a', 1,  10, ARRAY[1, 11, 13, 2, 10], ARRAY[13, 11, 10, 2, 1]),
    ('b', 12, 12, ARRAY[12],               ARRAY[12]);
