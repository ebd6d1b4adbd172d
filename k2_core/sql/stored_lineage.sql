-- Rows by the log partition they came from. Grain: topic, epoch, Kafka partition. Parameters: $files.
SELECT
    kafka_topic AS topic,
    kafka_epoch,
    kafka_partition,
    count(*) AS rows,
    count(DISTINCT kafka_offset) AS offsets,
    min(kafka_offset) AS first_offset,
    max(kafka_offset) AS last_offset
FROM read_parquet($files, union_by_name = true)
GROUP BY kafka_topic, kafka_epoch, kafka_partition
ORDER BY kafka_topic, kafka_epoch, kafka_partition
