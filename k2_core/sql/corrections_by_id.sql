-- The same as corrections.sql, columns found by their Iceberg field ids.
SELECT
    message_id,
    revision,
    kafka_topic,
    kafka_epoch,
    kafka_partition,
    kafka_offset
FROM read_parquet($corrected_files, schema = $columns, hive_partitioning = false)
WHERE revision > 0
    AND ($symbols IS NULL OR symbol IN $symbols::VARCHAR[])
