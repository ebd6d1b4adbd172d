-- C as rows. Grain: one log partition. Parameters: $topics, $kafka_partitions, $epochs, $nexts, of one length.
SELECT
    unnest($topics::VARCHAR[]) AS topic,
    unnest($kafka_partitions::INTEGER[]) AS kafka_partition,
    unnest($epochs::INTEGER[]) AS epoch,
    unnest($nexts::BIGINT[]) AS next_offset
