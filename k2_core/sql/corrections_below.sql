-- The corrections below C: one that came at or after C is not there.
SELECT in_files.*
FROM corrections_in_files AS in_files
INNER JOIN below
    ON in_files.kafka_topic = below.topic
    AND in_files.kafka_partition = below.kafka_partition
    AND (in_files.kafka_epoch, in_files.kafka_offset) < (below.epoch, below.next_offset)
