-- What receipts say of offsets: whether their table has not reached them, and whether a batch read them. Neither: lost.
-- Parameters: $files, of audit.receipts; $topics, $epochs, $kafka_partitions, $offsets, of one length, the places asked
-- about; $tables, $uuids, $untils, of one length, up to which receipt of each table the letters are known.
WITH asked AS (
    SELECT
        unnest($topics::VARCHAR[]) AS topic,
        unnest($epochs::INTEGER[]) AS epoch,
        unnest($kafka_partitions::INTEGER[]) AS kafka_partition,
        unnest($offsets::BIGINT[]) AS kafka_offset
),
known AS (
    SELECT
        unnest($tables::VARCHAR[]) AS table_name,
        unnest($uuids::VARCHAR[]) AS table_uuid,
        unnest($untils::BIGINT[]) AS until
),
receipts AS (
    SELECT
        stored.sequence_number,
        stored.kind,
        stored.ranges,
        stored.offsets
    FROM read_parquet($files, union_by_name = true, hive_partitioning = false) AS stored
    INNER JOIN known
        ON stored.table_name = known.table_name
        AND stored.table_uuid = known.table_uuid
        AND stored.sequence_number <= known.until
),
batches AS (
    SELECT unnest(ranges) AS span
    FROM receipts
    WHERE kind = 'batch'
),
reached AS (
    SELECT
        place.topic AS topic,
        place.kafka_partition AS kafka_partition,
        arg_max(place, sequence_number) AS last
    FROM (SELECT sequence_number, unnest(offsets) AS place FROM receipts) AS positions
    GROUP BY ALL
)
SELECT
    asked.*,
    coalesce((asked.epoch, asked.kafka_offset) >= (reached.last.kafka_epoch, reached.last.next), true) AS is_ahead,
    EXISTS (
        SELECT 1
        FROM batches
        WHERE batches.span.topic = asked.topic
            AND batches.span.kafka_epoch = asked.epoch
            AND batches.span.kafka_partition = asked.kafka_partition
            AND batches.span."start" <= asked.kafka_offset
            AND asked.kafka_offset < batches.span."end"
    ) AS is_read
FROM asked
LEFT JOIN reached
    ON asked.topic = reached.topic AND asked.kafka_partition = reached.kafka_partition
