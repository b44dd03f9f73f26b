-- A day in New York has 23, 24 or 25 hours; windows of days are days there.

SET 'table.local-time-zone' = 'America/New_York';
CREATE TABLE s (n BIGINT, ts TIMESTAMP_LTZ(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json');
CREATE TABLE o (window_start TIMESTAMP(3), window_end TIMESTAMP(3), n BIGINT, total BIGINT)
    WITH ('connector' = 'blackhole');

INSERT INTO o
    SELECT window_start, window_end, COUNT(*), SUM(n)
    FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' DAY))
    GROUP BY window_start, window_end;

-- Summer time begins on 10 March 2024: the day is from 05:00 to 04:00 UTC.
INSERT INTO s VALUES
    (1, '2024-03-10 04:59:59.999Z'),
    (2, '2024-03-10 05:00:00Z'),
    (4, '2024-03-11 03:59:59.999Z'),
    (8, '2024-03-11 04:00:00Z');
EXPECT o VALUES
    ('2024-03-09 00:00:00', '2024-03-10 00:00:00', 1, 1),
    ('2024-03-10 00:00:00', '2024-03-11 00:00:00', 2, 6);

-- It ends on 3 November: from 04:00 to 05:00 UTC, 25 hours.
INSERT INTO s VALUES
    (1, '2024-11-03 04:00:00Z'),
    (2, '2024-11-04 04:59:59.999Z'),
    (4, '2024-11-04 05:00:00Z');
END OF INPUT;
EXPECT o VALUES
    ('2024-03-11 00:00:00', '2024-03-12 00:00:00', 1, 8),
    ('2024-11-03 00:00:00', '2024-11-04 00:00:00', 2, 3),
    ('2024-11-04 00:00:00', '2024-11-05 00:00:00', 1, 4);
