-- Receipts of commits, the newest first. Grain: one commit to one table. A null $after_table is the first page.
SELECT *
FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
WHERE ($table IS NULL OR table_name = $table)
    AND ($kind IS NULL OR kind = $kind)
    AND ($version IS NULL OR version = $version)
    AND ($snapshot IS NULL OR snapshot_id = $snapshot)
    AND commit_time >= $start AND commit_time < $end
    AND ($date IS NULL OR len(list_filter(dates, lambda d: d.exchange_date = $date)) > 0)
    AND (
        $after_table IS NULL
        OR (epoch_us(commit_time), table_name, table_uuid, sequence_number)
        < ($after_us::BIGINT, $after_table, $after_uuid, $after_number::BIGINT)
    )
ORDER BY commit_time DESC, table_name DESC, table_uuid DESC, sequence_number DESC
LIMIT $limit
