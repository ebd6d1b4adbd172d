-- How many records died of what, per table and topic; their bytes are not read.
SELECT table_name, kafka_topic AS topic, reason, count(*) AS letters
FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
GROUP BY ALL
ORDER BY ALL
