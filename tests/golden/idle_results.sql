-- An idle stream beside the results of another idle one: what closes windows below is waited for above.

CREATE TABLE a (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 'a', 'format' = 'json', 'scan.watermark.idle-timeout' = '10 s');
CREATE TABLE b (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 'b', 'format' = 'json', 'scan.watermark.idle-timeout' = '10 s');
CREATE TABLE o (window_start TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');

CREATE VIEW counted AS
    SELECT COUNT(*) AS n, window_time AS ts FROM TUMBLE(b, ts, INTERVAL '10' SECOND)
    GROUP BY window_start, window_end, window_time;
CREATE VIEW both_of_them AS SELECT n, ts FROM a UNION ALL SELECT n, ts FROM counted;
INSERT INTO o
    SELECT window_start, SUM(n) FROM TUMBLE(both_of_them, ts, INTERVAL '10' SECOND) GROUP BY window_start, window_end;

ADVANCE CLOCK TO TIMESTAMP '2024-01-01 00:00:00';
INSERT INTO a VALUES (8, '2024-01-01 00:00:35');
INSERT INTO b VALUES (1, '2024-01-01 00:00:01'), (1, '2024-01-01 00:00:02');
ADVANCE CLOCK BY INTERVAL '10' SECOND;
EXPECT NOTHING FROM o;

-- All are idle from here on: b has come to 00:00:02, and its window is over in 8 seconds.
ADVANCE CLOCK BY INTERVAL '7' SECOND;
EXPECT NOTHING FROM o;
ADVANCE CLOCK BY INTERVAL '1' SECOND;
EXPECT o VALUES ('2024-01-01 00:00:00', 2);

-- And the clock goes on for both.
ADVANCE CLOCK BY INTERVAL '10' SECOND;
ADVANCE CLOCK BY INTERVAL '10' SECOND;
ADVANCE CLOCK BY INTERVAL '9' SECOND;
EXPECT NOTHING FROM o;
ADVANCE CLOCK BY INTERVAL '1' SECOND;
EXPECT o VALUES ('2024-01-01 00:00:30', 8);
