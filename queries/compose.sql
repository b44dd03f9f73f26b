-- Orders per ten seconds, without end: what docker-compose.yml runs.
--
-- Shows:  a generated source, event time, a tumbling window, a Kafka sink.
-- Input:  none; about 50 orders a second are made up.
-- Output: the topic orders_per_10_seconds, one row per window and product, such as
--         {"window_start":"2026-01-01 12:00:00","product":3,"orders":104,"revenue":5162.17}

CREATE TABLE orders (
  id BIGINT,
  product INT,
  price DOUBLE,
  ordered_at TIMESTAMP_LTZ(3),
  WATERMARK FOR ordered_at AS ordered_at - INTERVAL '1' SECOND
) WITH (
  'connector' = 'datagen',
  'rows-per-second' = '50',
  'fields.id.kind' = 'sequence',
  'fields.id.start' = '1',
  'fields.id.end' = '1000000000',
  'fields.product.min' = '1',
  'fields.product.max' = '5',
  'fields.price.min' = '1',
  'fields.price.max' = '99'
);

CREATE TABLE orders_per_10_seconds (
  window_start TIMESTAMP(3),
  product INT,
  orders BIGINT,
  revenue DOUBLE
) WITH (
  'connector' = 'kafka',
  'topic' = 'orders_per_10_seconds',
  'key.format' = 'json',
  'key.fields' = 'product',
  'format' = 'json'
);

INSERT INTO orders_per_10_seconds
SELECT window_start, product, COUNT(*), ROUND(SUM(price), 2)
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ordered_at), INTERVAL '10' SECOND))
GROUP BY window_start, window_end, product;
