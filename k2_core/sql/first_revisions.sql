-- How many messages the files hold, each once: every one was stored with revision 0 first.
SELECT count(*) AS messages
FROM read_parquet($files, union_by_name = true, hive_partitioning = false)
WHERE revision = 0
