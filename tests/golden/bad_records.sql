-- A record without an event time, or over which an expression fails, goes to the dead letters; its neighbours go on.

CREATE TABLE s (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json', 'scan.on-error' = 'dead-letter',
        'scan.dead-letter.topic' = 's-dead');
CREATE TABLE o (window_start TIMESTAMP(3), rows BIGINT, total BIGINT) WITH ('connector' = 'blackhole');

INSERT INTO o
    SELECT window_start, COUNT(*), SUM(share)
    FROM TUMBLE((SELECT 12 / n AS share, ts FROM s), ts, INTERVAL '10' SECOND)
    GROUP BY window_start, window_end;

INSERT INTO s VALUES
    (1, '2024-01-01 00:00:01'), (0, '2024-01-01 00:00:02'), (2, NULL), (3, '2024-01-01 00:00:03');
EXPECT BAD OF s VALUES
    (0, '2024-01-01 00:00:02'),
    (2, NULL);
END OF INPUT;
EXPECT NOTHING BAD OF s;
EXPECT o VALUES
    ('2024-01-01 00:00:00', 2, 16);
