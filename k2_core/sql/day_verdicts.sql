-- What was said last of the days of one feed. Grain: exchange date and verdict.
SELECT
    exchange_date,
    verdict,
    count(*) AS days,
    min(sequence_number) AS sequence_number,
    max(closed) AS closed,
    sum(present)::BIGINT AS present,
    sum(missing)::BIGINT AS missing
FROM (
    SELECT *
    FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
    WHERE feed = $feed AND exchange_date >= $date_start AND exchange_date < $date_end
    QUALIFY version = max(version) OVER (PARTITION BY symbol, exchange_date)
) AS told
GROUP BY ALL
