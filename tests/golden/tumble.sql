-- Tumbling windows: a window closes once the watermark has reached its end, never before; then it gives its rows once.

CREATE TABLE orders (item STRING, price BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
    WITH ('connector' = 'kafka', 'topic' = 'orders', 'format' = 'json');
CREATE TABLE per_minute (window_start TIMESTAMP(3), item STRING, orders BIGINT, total BIGINT)
    WITH ('connector' = 'kafka', 'topic' = 'per-minute', 'format' = 'json');

INSERT INTO per_minute
    SELECT window_start, item, COUNT(*), SUM(price)
    FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
    GROUP BY window_start, window_end, item;

INSERT INTO orders VALUES
    ('tea', 3, '2024-01-01 10:00:00'),
    ('tea', 4, '2024-01-01 10:00:59.999'),
    ('jam', 5, '2024-01-01 10:00:30'),
    ('tea', 6, '2024-01-01 10:01:00');
EXPECT NOTHING FROM per_minute;

-- The watermark is five seconds behind: one millisecond less than this, and the window would still be open.
INSERT INTO orders VALUES ('tea', 7, '2024-01-01 10:01:04.998');
EXPECT NOTHING FROM per_minute;
INSERT INTO orders VALUES ('tea', 7, '2024-01-01 10:01:04.999');
EXPECT per_minute VALUES
    ('2024-01-01 10:00:00', 'jam', 1, 5),
    ('2024-01-01 10:00:00', 'tea', 2, 7);

END OF INPUT;
EXPECT per_minute VALUES
    ('2024-01-01 10:01:00', 'tea', 3, 20);
