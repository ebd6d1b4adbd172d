-- Every stored row of the files, where all of them have the same columns.
SELECT *
FROM read_parquet($files, hive_partitioning = false)
