-- A slide larger than the size leaves gaps; a size of nothing is refused; sums that overflow fail.

CREATE TABLE s (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 's', 'format' = 'json');
CREATE TABLE o (window_start TIMESTAMP(3), window_end TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');
CREATE TABLE p (window_start TIMESTAMP(3), total BIGINT) WITH ('connector' = 'blackhole');

INSERT INTO o
    SELECT window_start, window_end, COUNT(*)
    FROM TABLE(HOP(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '4' SECOND))
    GROUP BY window_start, window_end;

EXPECT ERROR 'the size of a window must be longer than nothing' FOR
INSERT INTO p SELECT window_start, SUM(n) FROM TUMBLE(s, ts, INTERVAL '0' SECOND) GROUP BY window_start, window_end;
EXPECT ERROR 'the slide of a window must be longer than nothing' FOR
INSERT INTO p SELECT window_start, SUM(n) FROM HOP(s, ts, INTERVAL '0' SECOND, INTERVAL '1' SECOND)
    GROUP BY window_start, window_end;
EXPECT ERROR 'the size of a window must be longer than nothing' FOR
INSERT INTO p SELECT window_start, SUM(n) FROM TUMBLE(s, ts, INTERVAL '-1' SECOND) GROUP BY window_start, window_end;

INSERT INTO p SELECT window_start, SUM(n) FROM TUMBLE(s, ts, INTERVAL '1' MINUTE) GROUP BY window_start, window_end;

INSERT INTO s VALUES
    (9223372036854775807, '2024-01-01 00:00:00'),
    (-9223372036854775807, '2024-01-01 00:00:03.999'),
    (1, '2024-01-01 00:00:04'),
    (2, '2024-01-01 00:00:09.999'),
    (3, '2024-01-01 00:00:10');
ADVANCE WATERMARK TO '2024-01-01 00:01:00';
EXPECT o VALUES
    ('2024-01-01 00:00:00', '2024-01-01 00:00:04', 2),
    ('2024-01-01 00:00:10', '2024-01-01 00:00:14', 1);
EXPECT p VALUES
    ('2024-01-01 00:00:00', 6);

INSERT INTO s VALUES (9223372036854775807, '2024-01-01 00:01:00'), (1, '2024-01-01 00:01:59');
END OF INPUT;
EXPECT FAILURE 'a SUM does not fit into BIGINT; write SUM(CAST(x AS DECIMAL(38, 0)))';
EXPECT o VALUES
    ('2024-01-01 00:01:00', '2024-01-01 00:01:04', 1);
