-- Every stored row of the files, where a column was added, renamed or widened since some were written: $columns says
-- which Iceberg field id is which column, and a file without one has null there.
SELECT *
FROM read_parquet($files, schema = $columns, hive_partitioning = false)
