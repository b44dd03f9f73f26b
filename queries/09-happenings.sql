-- Departures, delays and cancellations as one stream of happenings, counted per day.
--
-- Shows:  UNION ALL of views, the older spelling of windows in GROUP BY, a computed key.
-- Input:  the topic flights (02-load-flights.sql)
-- Run:    tidemill -b localhost:9092 run queries/09-happenings.sql
-- Output: the topic happenings_per_day; records such as
--         {"day":"2013-01-01 00:00:00","happening":"departure","airline":"B6","total":125}
--         {"day":"2013-01-01 00:00:00","happening":"delay","airline":"B6","total":7}
--         {"day":"2013-01-01 00:00:00","happening":"cancellation","airline":"others","total":1}

CREATE TABLE flights (
  scheduled TIMESTAMP_LTZ(3),
  carrier STRING,
  dep_delay INT,
  WATERMARK FOR scheduled AS scheduled - INTERVAL '1' DAY
) WITH (
  'connector' = 'kafka',
  'topic' = 'flights',
  'format' = 'json',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset'
);

CREATE VIEW departures AS
SELECT scheduled, carrier, 'departure' AS happening FROM flights WHERE dep_delay IS NOT NULL;

CREATE VIEW delays AS
SELECT scheduled, carrier, 'delay' AS happening FROM flights WHERE dep_delay > 60;

CREATE VIEW cancellations AS
SELECT scheduled, carrier, 'cancellation' AS happening FROM flights WHERE dep_delay IS NULL;

-- A flight can be in several branches. The event time passes through views and through UNION ALL.
CREATE VIEW happenings AS
SELECT scheduled, carrier, happening FROM departures
UNION ALL
SELECT scheduled, carrier, happening FROM delays
UNION ALL
SELECT scheduled, carrier, happening FROM cancellations;

CREATE TABLE happenings_per_day (
  `day` TIMESTAMP(3),
  happening STRING,
  airline STRING,
  total BIGINT
) WITH (
  'connector' = 'kafka',
  'topic' = 'happenings_per_day',
  'format' = 'json'
);

-- TUMBLE in GROUP BY with TUMBLE_START is how older scripts say it.
INSERT INTO happenings_per_day
SELECT TUMBLE_START(scheduled, INTERVAL '1' DAY), happening,
       CASE WHEN carrier IN ('UA', 'B6', 'EV', 'DL') THEN carrier ELSE 'others' END,
       COUNT(*)
FROM happenings
GROUP BY TUMBLE(scheduled, INTERVAL '1' DAY), happening,
         CASE WHEN carrier IN ('UA', 'B6', 'EV', 'DL') THEN carrier ELSE 'others' END;
