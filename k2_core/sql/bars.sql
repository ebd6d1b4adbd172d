-- Bars of one symbol per exchange and window. First and last follow the total order, not the clock alone.
-- Price x quantity is DECIMAL(38,16): its sum would overflow at 1e22, so whole units and fractions are summed apart.
SELECT
    exchange,
    CASE WHEN $daily THEN epoch_us(exchange_date) ELSE at_us - (at_us % $width_us + $width_us) % $width_us END AS window_us,
    arg_min(price, (at_us, source_order, platform_order, message_id))::VARCHAR AS open_price,
    max(price)::VARCHAR AS high_price,
    min(price)::VARCHAR AS low_price,
    arg_max(price, (at_us, source_order, platform_order, message_id))::VARCHAR AS close_price,
    sum(quantity)::VARCHAR AS volume,
    count(*) AS trade_count,
    sum(trunc(notional)::HUGEINT)::VARCHAR AS notional_units,
    sum(notional - trunc(notional))::VARCHAR AS notional_fraction
FROM (SELECT *, price::DECIMAL(38, 8) * quantity AS notional FROM selected)
GROUP BY ALL
