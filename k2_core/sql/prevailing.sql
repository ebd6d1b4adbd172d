-- The quote that stood at each of some instants: the last one at or before it, by the total order within an instant.
-- Parameters: $positions, $venues, $instants (µs), of one length. An instant that no quote precedes is not there.
-- When it stood is found by two narrow columns first: whole rows are looked at for those instants only.
WITH asked AS (
    SELECT
        unnest($positions::BIGINT[]) AS position,
        unnest($venues::VARCHAR[]) AS venue,
        unnest($instants::BIGINT[]) AS asked_us
),
stood AS (
    SELECT
        asked.position,
        asked.venue,
        max(quote.at_us) AS at_us
    FROM asked
    ASOF JOIN (
        SELECT
            exchange,
            at_us
        FROM selected
    ) AS quote
        ON asked.venue = quote.exchange AND asked.asked_us >= quote.at_us
    GROUP BY asked.position, asked.venue
)
SELECT
    stood.position,
    quote.*
FROM stood
INNER JOIN selected AS quote
    ON stood.venue = quote.exchange AND stood.at_us = quote.at_us
QUALIFY row_number() OVER (
    PARTITION BY stood.position
    ORDER BY quote.source_order DESC, quote.platform_order DESC, quote.message_id DESC, quote.revision DESC
) = 1
