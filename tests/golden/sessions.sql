-- Sessions: rows of a key within the gap of each other, in both spellings, also where other keys are asked for.

CREATE TABLE s (k STRING, n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '10' SECOND)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json');
CREATE TABLE o (k STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), total BIGINT)
    WITH ('connector' = 'blackhole');
CREATE TABLE older (k STRING, window_start TIMESTAMP(3), last TIMESTAMP(3), total BIGINT)
    WITH ('connector' = 'blackhole');
CREATE TABLE big (k STRING, n BIGINT, window_end TIMESTAMP(3)) WITH ('connector' = 'blackhole');

EXECUTE STATEMENT SET BEGIN
INSERT INTO o SELECT k, window_start, window_end, SUM(n)
    FROM TABLE(SESSION(TABLE s PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY k, window_start, window_end;
INSERT INTO older SELECT k, SESSION_START(ts, INTERVAL '5' SECOND), SESSION_ROWTIME(ts, INTERVAL '5' SECOND), SUM(n)
    FROM s WHERE n <> 2 GROUP BY k, SESSION(ts, INTERVAL '5' SECOND);
INSERT INTO big SELECT k, n, window_end
    FROM SESSION(TABLE s PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' SECOND) WHERE n > 3;
END;

INSERT INTO s VALUES
    ('a', 1, '2024-01-01 00:00:00'),
    ('b', 4, '2024-01-01 00:00:02'),
    ('a', 8, '2024-01-01 00:00:10'),
    -- A bridge: each end is exactly the gap away.
    ('a', 2, '2024-01-01 00:00:05'),
    -- The watermark reaches 00:00:14.999, one millisecond before the end of a's session.
    ('b', 16, '2024-01-01 00:00:24.999');
EXPECT o VALUES ('b', '2024-01-01 00:00:02', '2024-01-01 00:00:07', 4);
EXPECT big VALUES ('b', 4, '2024-01-01 00:00:07');
-- Without the bridge there are two sessions.
EXPECT older VALUES
    ('b', '2024-01-01 00:00:02', '2024-01-01 00:00:06.999', 4),
    ('a', '2024-01-01 00:00:00', '2024-01-01 00:00:04.999', 1);

ADVANCE WATERMARK OF s TO TIMESTAMP '2024-01-01 00:00:15';
EXPECT o VALUES ('a', '2024-01-01 00:00:00', '2024-01-01 00:00:15', 11);
EXPECT big VALUES ('a', 8, '2024-01-01 00:00:15');
EXPECT older VALUES ('a', '2024-01-01 00:00:10', '2024-01-01 00:00:14.999', 8);

-- Late, though its session would end after the watermark.
INSERT INTO s VALUES ('a', 32, '2024-01-01 00:00:15'), ('a', 64, '2024-01-01 00:00:15.001');
END OF INPUT;
EXPECT o VALUES
    ('a', '2024-01-01 00:00:15.001', '2024-01-01 00:00:20.001', 64),
    ('b', '2024-01-01 00:00:24.999', '2024-01-01 00:00:29.999', 16);
EXPECT older VALUES
    ('a', '2024-01-01 00:00:15.001', '2024-01-01 00:00:20.000', 64),
    ('b', '2024-01-01 00:00:24.999', '2024-01-01 00:00:29.998', 16);
EXPECT big VALUES
    ('a', 64, '2024-01-01 00:00:20.001'),
    ('b', 16, '2024-01-01 00:00:29.999');
