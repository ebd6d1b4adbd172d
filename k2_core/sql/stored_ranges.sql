-- Rows of each data file by the log partition they came from, and how many of them are revisions.
-- Grain: data file, topic, epoch, Kafka partition, exchange date. Parameters: $files.
SELECT
    filename AS file,
    kafka_topic AS topic,
    kafka_epoch,
    kafka_partition,
    exchange_date,
    count(*) AS rows,
    count(*) FILTER (WHERE revision > 0) AS revisions,
    min(kafka_offset) AS first_offset,
    max(kafka_offset) AS last_offset
FROM read_parquet($files, union_by_name = true, filename = true)
GROUP BY filename, kafka_topic, kafka_epoch, kafka_partition, exchange_date
ORDER BY filename, kafka_topic, kafka_epoch, kafka_partition, exchange_date
