-- Which of some places hold a dead letter. Parameters: $files; $topics, $epochs, $kafka_partitions, $offsets, of one length.
SELECT DISTINCT
    letter.kafka_topic,
    letter.kafka_epoch,
    letter.kafka_partition,
    letter.kafka_offset
FROM read_parquet($files, union_by_name = true, hive_partitioning = false) AS letter
SEMI JOIN (
    SELECT
        unnest($topics::VARCHAR[]) AS topic,
        unnest($epochs::INTEGER[]) AS epoch,
        unnest($kafka_partitions::INTEGER[]) AS kafka_partition,
        unnest($offsets::BIGINT[]) AS kafka_offset
) AS asked
    ON letter.kafka_topic = asked.topic
    AND letter.kafka_epoch = asked.epoch
    AND letter.kafka_partition = asked.kafka_partition
    AND letter.kafka_offset = asked.kafka_offset
