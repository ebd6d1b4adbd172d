-- The newest revision of each message below C, decided before any filter, as in newest_rows.sql: what came at or after
-- C, a row or a correction, is not there.
SELECT stored.*
FROM read_parquet($files, union_by_name = true, hive_partitioning = false) AS stored
INNER JOIN below
    ON stored.kafka_topic = below.topic
    AND stored.kafka_partition = below.kafka_partition
    AND (stored.kafka_epoch, stored.kafka_offset) < (below.epoch, below.next_offset)
ANTI JOIN (
    SELECT
        stored.message_id,
        max(stored.revision) AS newest
    FROM read_parquet($corrected_files, union_by_name = true, hive_partitioning = false) AS stored
    INNER JOIN below
        ON stored.kafka_topic = below.topic
        AND stored.kafka_partition = below.kafka_partition
        AND (stored.kafka_epoch, stored.kafka_offset) < (below.epoch, below.next_offset)
    WHERE stored.revision > 0 AND ($symbol IS NULL OR stored.symbol = $symbol)
    GROUP BY stored.message_id
) AS correction
    ON stored.message_id = correction.message_id AND stored.revision < correction.newest
