-- What was asked for: [start, end) of event time, [date_start, date_end) of exchange dates, no row with an excluded flag.
-- Nulls in the two sequences sort below every number; the four sort columns and the revision are the total order of K2.
-- A condition on a parameter that is null may be left out: see k2_api/texts.py.
SELECT
    *,
    epoch_us(timestamp) AS at_us,
    coalesce(source_sequence, (-9223372036854775808)::BIGINT) AS source_order,
    coalesce(platform_sequence, (-9223372036854775808)::BIGINT) AS platform_order
FROM rows
WHERE timestamp >= $start AND timestamp < $end
    AND ($symbols IS NULL OR symbol IN $symbols::VARCHAR[])
    AND ($exchanges IS NULL OR exchange IN $exchanges::VARCHAR[])
    AND ($date_start IS NULL OR exchange_date >= $date_start)
    AND ($date_end IS NULL OR exchange_date < $date_end)
    AND ($excluded_flags IS NULL OR (quality_flags & $excluded_flags) = 0)
