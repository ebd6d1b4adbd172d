-- Corrections in files that the earlier state did not have.
SELECT
    message_id,
    revision,
    kafka_topic,
    kafka_epoch,
    kafka_partition,
    kafka_offset
FROM read_parquet($later_files, hive_partitioning = false)
WHERE revision > 0
    AND ($symbols IS NULL OR symbol IN $symbols::VARCHAR[])
