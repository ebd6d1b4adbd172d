-- Closings of days, the newest date first; which version of a day counts is decided before any other filter.
-- Grain: one closing; one day where $every_version is false. A null $after_feed is the first page.
SELECT
    feed,
    symbol,
    exchange_date,
    version,
    exchange,
    table_name,
    verdict,
    expected,
    present,
    missing,
    duplicates,
    superseded,
    withdrawn,
    dead_letters,
    collections,
    covered_start,
    covered_end,
    sha256,
    lake_version,
    closed
FROM (
    SELECT *
    FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
    WHERE ($feed IS NULL OR feed = $feed)
        AND ($exchange IS NULL OR exchange = $exchange)
        AND ($symbol IS NULL OR symbol = $symbol)
        AND exchange_date >= $date_start AND exchange_date < $date_end
    QUALIFY $every_version OR version = max(version) OVER (PARTITION BY feed, symbol, exchange_date)
) AS told
WHERE ($verdict IS NULL OR verdict = $verdict)
    AND (
        $after_feed IS NULL
        OR (exchange_date, feed, symbol, version) < ($after_date::DATE, $after_feed, $after_symbol, $after_version::INTEGER)
    )
ORDER BY exchange_date DESC, feed DESC, symbol DESC, version DESC
LIMIT $limit
