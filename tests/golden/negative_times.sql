-- Times before 1970 are times like others: windows are aligned downwards, not towards zero.

CREATE TABLE s (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json');
CREATE TABLE o (window_start TIMESTAMP(3), window_end TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE p (window_start TIMESTAMP(3), window_end TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');

INSERT INTO o
    SELECT window_start, window_end, SUM(n) FROM TUMBLE(s, ts, INTERVAL '1' DAY) GROUP BY window_start, window_end;
-- An offset moves where windows begin, also to the left.
INSERT INTO p
    SELECT window_start, window_end, SUM(n)
    FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' DAY, INTERVAL '-8' HOUR))
    GROUP BY window_start, window_end;

INSERT INTO s VALUES
    (1, '0001-01-01 00:00:00'),
    (2, '1582-10-15 23:59:59.999'),
    (4, '1969-12-31 15:59:59.999'),
    (8, '1969-12-31 16:00:00'),
    (16, '1969-12-31 23:59:59.999'),
    (32, '1970-01-01 00:00:00'),
    (64, '9998-12-31 23:59:59.999');
END OF INPUT;
EXPECT o VALUES
    ('0001-01-01 00:00:00', '0001-01-02 00:00:00',   1),
    ('1582-10-15 00:00:00', '1582-10-16 00:00:00',   2),
    ('1969-12-31 00:00:00', '1970-01-01 00:00:00',   28),
    ('1970-01-01 00:00:00', '1970-01-02 00:00:00',   32),
    ('9998-12-31 00:00:00', '9999-01-01 00:00:00', 64);
EXPECT p VALUES
    ('0000-12-31 16:00:00', '0001-01-01 16:00:00',   1),
    ('1582-10-15 16:00:00', '1582-10-16 16:00:00',   2),
    ('1969-12-30 16:00:00', '1969-12-31 16:00:00',   4),
    ('1969-12-31 16:00:00', '1970-01-01 16:00:00',   56),
    ('9998-12-31 16:00:00', '9999-01-01 16:00:00', 64);
