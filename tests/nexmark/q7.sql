-- The highest bids of every ten seconds. The original joins all bids with the maxima of windows by a range of times, which
-- keeps every bid for ever, and counts a bid at the first instant of a window for the window before it, too; here a bid is
-- joined with the maximum of its own window.

CREATE TABLE q7 (auction BIGINT, bidder BIGINT, price BIGINT, dateTime TIMESTAMP(3), extra STRING)
WITH ('connector' = 'blackhole');

INSERT INTO q7
SELECT B.auction, B.bidder, B.price, B.dateTime, B.extra
FROM (
  SELECT auction, bidder, price, dateTime, extra, window_start, window_end
  FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '10' SECOND))
) AS B
JOIN (
  SELECT MAX(price) AS maxprice, window_start, window_end
  FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '10' SECOND))
  GROUP BY window_start, window_end
) AS B1
ON B.window_start = B1.window_start AND B.window_end = B1.window_end AND B.price = B1.maxprice;
