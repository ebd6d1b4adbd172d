-- Every correction of the asked symbols: read from all files that hold any, not from those of the asked range.
SELECT
    message_id,
    revision,
    kafka_topic,
    kafka_epoch,
    kafka_partition,
    kafka_offset
FROM read_parquet($corrected_files, hive_partitioning = false)
WHERE revision > 0
    AND ($symbols IS NULL OR symbol IN $symbols::VARCHAR[])
