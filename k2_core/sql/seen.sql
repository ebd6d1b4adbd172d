-- Where and when something was seen. Grain: exchange.
SELECT
    exchange,
    count(*) AS rows,
    min(timestamp) AS first_timestamp,
    max(timestamp) AS last_timestamp,
    min(exchange_date) AS first_date,
    max(exchange_date) AS last_date
FROM selected
GROUP BY exchange
ORDER BY exchange
