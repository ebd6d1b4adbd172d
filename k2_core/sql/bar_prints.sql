-- What of trades a bar depends on, in no order.
SELECT
    symbol,
    exchange,
    exchange_date,
    timestamp,
    source_sequence,
    platform_sequence,
    message_id,
    price,
    quantity,
    trade_conditions,
    quality_flags
FROM selected
