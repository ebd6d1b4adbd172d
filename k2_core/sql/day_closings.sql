-- Everything that was said of one exchange date of one symbol, by feed and version. A feed that had no row of any symbol
-- that day says so once for all of them, under the symbol $all_symbols; a closing of one symbol takes that back.
SELECT * EXCLUDE (is_of_symbols)
FROM (
    SELECT
        *,
        bool_or(symbol <> $all_symbols) OVER (PARTITION BY feed) AS is_of_symbols
    FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
    WHERE exchange = $exchange AND exchange_date = $date AND ($feed IS NULL OR feed = $feed)
) AS told
WHERE symbol = $symbol OR (symbol = $all_symbols AND NOT is_of_symbols)
ORDER BY feed, version
