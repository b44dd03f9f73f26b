-- Hours of frost at the airports, with degrees in Celsius: row by row, without windows.
--
-- Shows:  CSV with a header line and a text for null, computed columns, CASE, Flink's functions.
-- Input:  data/weather.csv.gz, the weather at New York's airports in 2013, by hour.
-- Run:    tidemill -b localhost:9092 run queries/06-freezing-hours.sql
-- Output: the topic freezing_hours; records such as
--         {"airport":"EWR","utc":"2013-01-02 10:00","new_york":"2013-01-02 05:00:00","celsius":-4.4,"ground":"dry"}
--         {"airport":"EWR","utc":"2013-01-02 11:00","new_york":"2013-01-02 06:00:00","celsius":-4.4,"ground":"dry"}

-- The columns of a CSV file go by their order. A computed column is an expression over the others.
CREATE TABLE weather (
  origin STRING,
  `year` INT,
  `month` INT,
  `day` INT,
  `hour` INT,
  temp DOUBLE,
  dewp DOUBLE,
  humid DOUBLE,
  wind_dir INT,
  wind_speed DOUBLE,
  wind_gust DOUBLE,
  precip DOUBLE,
  pressure DOUBLE,
  visib DOUBLE,
  time_hour TIMESTAMP_LTZ(3),
  celsius AS ROUND((temp - 32) / 1.8, 1)
) WITH (
  'connector' = 'filesystem',
  'path' = 'data/weather.csv.gz',
  'format' = 'csv',
  'csv.skip-header' = 'true',
  'csv.null-literal' = 'NA'
);

CREATE TABLE freezing_hours (
  airport STRING,
  utc STRING,
  new_york STRING,
  celsius DOUBLE,
  ground STRING
) WITH (
  'connector' = 'kafka',
  'topic' = 'freezing_hours',
  'key.format' = 'raw',
  'key.fields' = 'airport',
  'format' = 'json'
);

INSERT INTO freezing_hours
SELECT origin,
       DATE_FORMAT(time_hour, 'yyyy-MM-dd HH:mm'),
       CONVERT_TZ(DATE_FORMAT(time_hour, 'yyyy-MM-dd HH:mm:ss'), 'UTC', 'America/New_York'),
       celsius,
       CASE WHEN precip > 0 THEN 'icy' WHEN precip = 0 THEN 'dry' ELSE 'unknown' END
FROM weather
WHERE celsius < 0 AND HOUR(time_hour) BETWEEN 10 AND 14;
