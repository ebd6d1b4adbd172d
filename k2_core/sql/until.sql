-- The later C of a comparison as rows. Grain: one log partition. Parameters: $until_topics, $until_partitions,
-- $until_epochs, $until_nexts, of one length.
SELECT
    unnest($until_topics::VARCHAR[]) AS topic,
    unnest($until_partitions::INTEGER[]) AS kafka_partition,
    unnest($until_epochs::INTEGER[]) AS epoch,
    unnest($until_nexts::BIGINT[]) AS next_offset
