-- Dead letters, the newest first; one without a time of Kafka is the oldest. Grain: one letter.
-- $standing_topics and so on: letters that do not stand open, with how they do, of one length. A null $after_topic is the first page.
SELECT
    letter.table_name,
    letter.kafka_topic,
    letter.kafka_epoch,
    letter.kafka_partition,
    letter.kafka_offset,
    letter.kafka_timestamp,
    letter.schema_id,
    letter.reason,
    letter.detail,
    coalesce(told.standing, $open) AS status,
    octet_length(letter.value) AS value_bytes,
    CASE WHEN $with_bytes THEN letter.key END AS key,
    CASE WHEN $with_bytes THEN letter.value END AS value,
    CASE WHEN $with_bytes THEN letter.headers END AS headers
FROM read_parquet($files, union_by_name = true, hive_partitioning = false) AS letter
LEFT JOIN (
    SELECT
        unnest($standing_topics::VARCHAR[]) AS topic,
        unnest($standing_epochs::INTEGER[]) AS epoch,
        unnest($standing_kafka_partitions::INTEGER[]) AS kafka_partition,
        unnest($standing_offsets::BIGINT[]) AS kafka_offset,
        unnest($standing_words::VARCHAR[]) AS standing
) AS told
    ON letter.kafka_topic = told.topic
    AND letter.kafka_epoch = told.epoch
    AND letter.kafka_partition = told.kafka_partition
    AND letter.kafka_offset = told.kafka_offset
WHERE ($table IS NULL OR letter.table_name = $table)
    AND ($topic IS NULL OR letter.kafka_topic = $topic)
    AND ($reason IS NULL OR letter.reason = $reason)
    AND ($status IS NULL OR coalesce(told.standing, $open) = $status)
    AND ($start IS NULL OR letter.kafka_timestamp >= $start::TIMESTAMPTZ)
    AND ($end IS NULL OR letter.kafka_timestamp < $end::TIMESTAMPTZ)
    AND (
        $after_topic IS NULL
        OR (coalesce(epoch_us(letter.kafka_timestamp), $earliest_us), letter.kafka_topic, letter.kafka_epoch, letter.kafka_partition, letter.kafka_offset)
        < ($after_us::BIGINT, $after_topic, $after_epoch::INTEGER, $after_partition::INTEGER, $after_offset::BIGINT)
    )
ORDER BY
    coalesce(epoch_us(letter.kafka_timestamp), $earliest_us) DESC,
    letter.kafka_topic DESC,
    letter.kafka_epoch DESC,
    letter.kafka_partition DESC,
    letter.kafka_offset DESC
LIMIT $limit
