-- Every row of an audit table, in no order. Parameters: $files.
SELECT *
FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
