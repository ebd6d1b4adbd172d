-- The last price of every symbol, by the total order. Grain: exchange and symbol.
SELECT
    exchange,
    symbol,
    arg_max(price, (at_us, source_order, platform_order, message_id))::VARCHAR AS last_price,
    max(timestamp) AS last_timestamp,
    max(exchange_date) AS last_date
FROM selected
GROUP BY exchange, symbol
