-- Every stored row of the files: what to read when no file holds a correction.
SELECT *
FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
