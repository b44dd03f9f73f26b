-- Results before a window closes, and after it: changes, and what they come to.

CREATE TABLE clicks (who STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
    WITH ('connector' = 'kafka', 'topic' = 'clicks', 'format' = 'json');
CREATE TABLE o (window_start TIMESTAMP(3), who STRING, clicks BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE many (window_start TIMESTAMP(3), who STRING, clicks BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE slow (window_end TIMESTAMP(3), total BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE corrected (window_start TIMESTAMP(3), who STRING, clicks BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE topic (window_start TIMESTAMP(3), who STRING, clicks BIGINT)
    WITH ('connector' = 'kafka', 'topic' = 'topic', 'format' = 'json');

INSERT INTO o
    SELECT window_start, who, COUNT(*) FROM TUMBLE(clicks, ts, INTERVAL '10' SECOND)
    GROUP BY window_start, window_end, who EMIT ON UPDATE;
-- A row that HAVING leaves out, and then does not.
INSERT INTO many
    SELECT window_start, who, COUNT(*) FROM TUMBLE(clicks, ts, INTERVAL '10' SECOND)
    GROUP BY window_start, window_end, who HAVING COUNT(*) = 2 EMIT CHANGES;
INSERT INTO slow
    SELECT window_end, SUM(n) FROM CUMULATE(clicks, ts, INTERVAL '10' SECOND, INTERVAL '20' SECOND)
    GROUP BY window_start, window_end EMIT EVERY INTERVAL '5' SECOND;
SET 'table.exec.emit.allow-lateness' = '5 s';
INSERT INTO corrected
    SELECT window_start, who, COUNT(*) FROM TUMBLE(clicks, ts, INTERVAL '10' SECOND)
    GROUP BY window_start, window_end, who;
RESET 'table.exec.emit.allow-lateness';

INSERT INTO clicks VALUES ('ann', 1, '2024-01-01 00:00:01'), ('bob', 2, '2024-01-01 00:00:02'), ('ann', 3, '2024-01-01 00:00:03');
EXPECT o VALUES
    ('+I', '2024-01-01 00:00:00', 'ann', 2),
    ('+I', '2024-01-01 00:00:00', 'bob', 1);
EXPECT many VALUES
    ('+I', '2024-01-01 00:00:00', 'ann', 2);
EXPECT NOTHING FROM slow;
EXPECT NOTHING FROM corrected;
ADVANCE CLOCK BY INTERVAL '5' SECOND;
EXPECT slow VALUES
    ('+I', '2024-01-01 00:00:10', 6),
    ('+I', '2024-01-01 00:00:20', 6);

-- A change is the row before and directly behind it the row after; bob has not changed.
INSERT INTO clicks VALUES ('ann', 4, '2024-01-01 00:00:04');
EXPECT o IN ORDER VALUES
    ('-U', '2024-01-01 00:00:00', 'ann', 2),
    ('+U', '2024-01-01 00:00:00', 'ann', 3);
EXPECT many VALUES
    ('-U', '2024-01-01 00:00:00', 'ann', 2);
EXPECT NOTHING FROM slow;

-- The window closes: what was given out is final already, what waited for the clock no longer does.
INSERT INTO clicks VALUES ('bob', 5, '2024-01-01 00:00:11');
EXPECT o VALUES
    ('+I', '2024-01-01 00:00:10', 'bob', 1);
EXPECT slow IN ORDER VALUES
    ('-U', '2024-01-01 00:00:10', 6),
    ('+U', '2024-01-01 00:00:10', 10);
EXPECT corrected VALUES
    ('+I', '2024-01-01 00:00:00', 'ann', 3),
    ('+I', '2024-01-01 00:00:00', 'bob', 1);

-- Late by less than what is allowed, and by more.
INSERT INTO clicks VALUES ('bob', 6, '2024-01-01 00:00:05');
EXPECT NOTHING FROM o;
EXPECT corrected IN ORDER VALUES
    ('-U', '2024-01-01 00:00:00', 'bob', 1),
    ('+U', '2024-01-01 00:00:00', 'bob', 2);
INSERT INTO clicks VALUES ('bob', 7, '2024-01-01 00:00:16'), ('bob', 8, '2024-01-01 00:00:05');
EXPECT NOTHING FROM corrected;

EXPECT ERROR 'table topic' FOR INSERT INTO topic
    SELECT window_start, who, COUNT(*) FROM TUMBLE(clicks, ts, INTERVAL '10' SECOND)
    GROUP BY window_start, window_end, who EMIT ON UPDATE;
