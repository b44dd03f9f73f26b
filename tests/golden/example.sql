-- Late clicks are left out, and the last window closes with the input.
CREATE TABLE clicks (page STRING, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '10' SECOND)
    WITH ('connector' = 'kafka', 'topic' = 'clicks', 'format' = 'json');
CREATE TABLE per_minute (minute TIMESTAMP(3), page STRING, clicks BIGINT)
    WITH ('connector' = 'kafka', 'topic' = 'per-minute', 'format' = 'json');

-- The query under test starts a job.
INSERT INTO per_minute
    SELECT window_start, page, COUNT(*)
    FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(at), INTERVAL '1' MINUTE))
    GROUP BY window_start, window_end, page;

-- Rows that are written down are records of a topic in memory.
INSERT INTO clicks VALUES
    ('home', '2024-01-01 10:00:01'),
    ('home', '2024-01-01 10:00:59'),
    ('help', '2024-01-01 10:01:09');
EXPECT NOTHING FROM per_minute;

-- One second more, and the watermark has reached the end of the first minute.
INSERT INTO clicks VALUES ('help', '2024-01-01 10:01:10'), ('home', '2024-01-01 10:00:30');
EXPECT per_minute VALUES
    ('2024-01-01 10:00:00', 'home', 2);

END OF INPUT;
EXPECT per_minute VALUES
    ('2024-01-01 10:01:00', 'help', 2);
