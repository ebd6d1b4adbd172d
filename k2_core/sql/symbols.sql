-- Which symbols the files hold, per exchange.
SELECT DISTINCT exchange, symbol
FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
