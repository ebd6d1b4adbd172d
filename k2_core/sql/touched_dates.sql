-- Which exchange dates commits stored rows of, per feed: rows of every revision, and when a commit named the date last.
SELECT
    told.feed AS feed,
    told.exchange_date AS exchange_date,
    sum(told.rows)::BIGINT AS rows,
    max(commit_time) AS last_modified,
    max(sequence_number) AS sequence_number
FROM (
    SELECT
        commit_time,
        sequence_number,
        unnest(dates) AS told
    FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
    WHERE table_name = $table AND table_uuid = $uuid
) AS receipts
GROUP BY ALL
