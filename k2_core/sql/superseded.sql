-- Of the chosen rows, as the earlier C shows them, those that a correction below the later C took the place of.
SELECT chosen.*
FROM chosen
SEMI JOIN (
    SELECT later.message_id, max(later.revision) AS newest
    FROM later
    INNER JOIN until
        ON later.kafka_topic = until.topic
        AND later.kafka_partition = until.kafka_partition
        AND (later.kafka_epoch, later.kafka_offset) < (until.epoch, until.next_offset)
    GROUP BY later.message_id
) AS correction
    ON chosen.message_id = correction.message_id AND chosen.revision < correction.newest
