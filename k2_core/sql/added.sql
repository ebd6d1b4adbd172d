-- Of the chosen rows those that came at or after the earlier C.
SELECT chosen.*
FROM chosen
ANTI JOIN past
    ON chosen.kafka_topic = past.topic
    AND chosen.kafka_partition = past.kafka_partition
    AND (chosen.kafka_epoch, chosen.kafka_offset) < (past.epoch, past.next_offset)
