-- What was asked for: [start, end) of event time, [date_start, date_end) of exchange dates, no row with an excluded flag.
-- Nulls in the two sequences sort below every number; the four sort columns are the total order of K2.
SELECT
    *,
    epoch_us(timestamp) AS at_us,
    coalesce(source_sequence, (-9223372036854775808)::BIGINT) AS source_order,
    coalesce(platform_sequence, (-9223372036854775808)::BIGINT) AS platform_order
FROM rows
WHERE ($symbol IS NULL OR symbol = $symbol)
    AND ($exchange IS NULL OR exchange = $exchange)
    AND timestamp >= $start AND timestamp < $end
    AND exchange_date >= $date_start AND exchange_date < $date_end
    AND (quality_flags & $excluded_flags) = 0
