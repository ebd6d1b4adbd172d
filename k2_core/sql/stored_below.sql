-- The stored rows below C, of files that hold later ones, too.
SELECT in_files.*
FROM in_files
INNER JOIN below
    ON in_files.kafka_topic = below.topic
    AND in_files.kafka_partition = below.kafka_partition
    AND (in_files.kafka_epoch, in_files.kafka_offset) < (below.epoch, below.next_offset)
