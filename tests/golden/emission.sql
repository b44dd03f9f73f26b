-- Results of open windows are a changelog: a row as it was goes before the row as it is.

CREATE TABLE s (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json');
CREATE TABLE o (window_start TIMESTAMP(3), k STRING, total BIGINT, PRIMARY KEY (window_start, k) NOT ENFORCED)
    WITH ('connector' = 'upsert-kafka', 'topic' = 'o', 'key.format' = 'json', 'value.format' = 'json');
CREATE TABLE p (window_start TIMESTAMP(3), k STRING, total BIGINT)
    WITH ('connector' = 'kafka', 'topic' = 'p', 'format' = 'json');

EXPECT ERROR 'only takes new ones' FOR
INSERT INTO p
    SELECT window_start, k, SUM(n) FROM TUMBLE(s, ts, INTERVAL '1' MINUTE) GROUP BY window_start, window_end, k
    EMIT ON UPDATE;
INSERT INTO o
    SELECT window_start, k, SUM(n) FROM TUMBLE(s, ts, INTERVAL '1' MINUTE) GROUP BY window_start, window_end, k
    EMIT ON UPDATE;

-- What is inserted together is read in one interval: its sum is given once.
INSERT INTO s VALUES ('a', 1, '2024-01-01 00:00:01'), ('a', 2, '2024-01-01 00:00:02'), ('b', 4, '2024-01-01 00:00:03');
EXPECT o VALUES
    ('+I', '2024-01-01 00:00:00', 'a', 3),
    ('+I', '2024-01-01 00:00:00', 'b', 4);
INSERT INTO s VALUES ('a', 8, '2024-01-01 00:00:04');
EXPECT o VALUES
    ('-U', '2024-01-01 00:00:00', 'a', 3),
    ('+U', '2024-01-01 00:00:00', 'a', 11);
-- A window that closes as it was says nothing more.
END OF INPUT;
EXPECT NOTHING FROM o;
