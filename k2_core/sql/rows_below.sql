-- Every stored row below C, of files that hold later ones, too. No file holds a correction.
SELECT stored.*
FROM read_parquet($files, union_by_name = true, hive_partitioning = false) AS stored
INNER JOIN below
    ON stored.kafka_topic = below.topic
    AND stored.kafka_partition = below.kafka_partition
    AND (stored.kafka_epoch, stored.kafka_offset) < (below.epoch, below.next_offset)
