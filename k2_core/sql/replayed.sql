-- Statements that dead letters were sent again. Parameters: $files, of audit.coverage; $event.
SELECT *
FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
WHERE event = $event
