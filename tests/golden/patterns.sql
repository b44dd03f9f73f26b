-- A job must not read what it writes.

CREATE TABLE s (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic-pattern' = 'sums.*', 'format' = 'json');
CREATE TABLE sums (window_start TIMESTAMP(3), n BIGINT)
    WITH ('connector' = 'kafka', 'topic' = 'sums-1', 'format' = 'json');
CREATE TABLE elsewhere (window_start TIMESTAMP(3), n BIGINT)
    WITH ('connector' = 'kafka', 'topic' = 'sums-1', 'format' = 'json', 'properties.bootstrap.servers' = 'other:9092');
CREATE TABLE others (window_start TIMESTAMP(3), n BIGINT)
    WITH ('connector' = 'kafka', 'topic' = 'other-sums', 'format' = 'json');

EXPECT ERROR 'matches "sums-1", which this job writes to' FOR
    INSERT INTO sums SELECT window_start, SUM(n) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY window_start, window_end;
INSERT INTO elsewhere SELECT window_start, SUM(n) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY window_start, window_end;
INSERT INTO others SELECT window_start, SUM(n) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY window_start, window_end;

INSERT INTO s VALUES (1, '2024-01-01 00:00:01');
END OF INPUT;
EXPECT others VALUES ('2024-01-01 00:00:00', 1);
