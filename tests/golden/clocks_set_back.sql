-- Where clocks are set back they show an hour twice: its windows are others each time.

SET 'table.local-time-zone' = 'Europe/Berlin';
CREATE TABLE a (n BIGINT, ts TIMESTAMP_LTZ(3), WATERMARK FOR ts AS ts - INTERVAL '2' HOUR)
    WITH ('connector' = 'kafka', 'topic' = 'a', 'format' = 'json');
CREATE TABLE b (n BIGINT, ts TIMESTAMP_LTZ(3), WATERMARK FOR ts AS ts - INTERVAL '2' HOUR)
    WITH ('connector' = 'kafka', 'topic' = 'b', 'format' = 'json');
CREATE TABLE joined (window_start TIMESTAMP(3), l BIGINT, r BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE ranked (window_start TIMESTAMP(3), n BIGINT, place BIGINT, total BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE counted (window_start TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');

CREATE VIEW halves_of_a AS SELECT * FROM TUMBLE(a, ts, INTERVAL '30' MINUTE);
CREATE VIEW halves_of_b AS SELECT * FROM TUMBLE(b, ts, INTERVAL '30' MINUTE);
INSERT INTO joined
    SELECT l.window_start, l.n, r.n FROM halves_of_a l FULL JOIN halves_of_b r
    ON l.window_start = r.window_start AND l.window_end = r.window_end;
INSERT INTO ranked
    SELECT window_start, n, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n),
        SUM(n) OVER (PARTITION BY window_start, window_end)
    FROM halves_of_a;
INSERT INTO counted SELECT window_start, COUNT(*) FROM halves_of_a WHERE window_start <> window_end GROUP BY window_start, window_end;

-- Summer time ends on 27 October 2024 at 01:00 UTC. All windows close together.
INSERT INTO a VALUES (1, '2024-10-27 00:10:00Z'), (2, '2024-10-27 00:20:00Z'), (4, '2024-10-27 01:10:00Z');
INSERT INTO b VALUES (10, '2024-10-27 00:25:00Z'), (40, '2024-10-27 01:25:00Z');
END OF INPUT;
EXPECT joined VALUES
    ('2024-10-27 02:00:00', 1, 10),
    ('2024-10-27 02:00:00', 2, 10),
    ('2024-10-27 02:00:00', 4, 40);
EXPECT ranked VALUES
    ('2024-10-27 02:00:00', 1, 1, 3),
    ('2024-10-27 02:00:00', 2, 2, 3),
    ('2024-10-27 02:00:00', 4, 1, 4);
EXPECT counted VALUES
    ('2024-10-27 02:00:00', 2),
    ('2024-10-27 02:00:00', 1);
