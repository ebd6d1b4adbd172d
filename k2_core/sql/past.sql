-- The earlier C of a comparison as rows. Grain: one log partition. Parameters: $past_topics, $past_partitions,
-- $past_epochs, $past_nexts, of one length.
SELECT
    unnest($past_topics::VARCHAR[]) AS topic,
    unnest($past_partitions::INTEGER[]) AS kafka_partition,
    unnest($past_epochs::INTEGER[]) AS epoch,
    unnest($past_nexts::BIGINT[]) AS next_offset
