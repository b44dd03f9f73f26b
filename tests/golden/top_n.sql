-- The best two of each window.

CREATE TABLE sales (item STRING, price BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
    WITH ('connector' = 'kafka', 'topic' = 'sales', 'format' = 'json');
CREATE TABLE best (window_start TIMESTAMP(3), place BIGINT, item STRING, total BIGINT) WITH ('connector' = 'blackhole');

INSERT INTO best
    SELECT window_start, place, item, total
    FROM (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY total DESC, item) AS place
        FROM (
            SELECT window_start, window_end, item, SUM(price) AS total
            FROM TABLE(TUMBLE(TABLE sales, DESCRIPTOR(ts), INTERVAL '1' HOUR))
            GROUP BY window_start, window_end, item))
    WHERE place <= 2;

INSERT INTO sales PARTITION 0 VALUES
    ('tea', 3, '2024-01-01 00:01:00'), ('jam', 5, '2024-01-01 00:02:00'), ('oil', 4, '2024-01-01 00:03:00');
INSERT INTO sales PARTITION 1 VALUES
    ('tea', 3, '2024-01-01 00:01:00'), ('egg', 1, '2024-01-01 00:02:00'), ('egg', 1, '2024-01-01 01:02:00');
END OF INPUT;
EXPECT best VALUES
    ('2024-01-01 00:00:00', 1, 'tea', 6),
    ('2024-01-01 00:00:00', 2, 'jam', 5),
    ('2024-01-01 01:00:00', 1, 'egg', 1);
