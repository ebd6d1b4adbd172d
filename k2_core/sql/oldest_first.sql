-- One page in the total order. A null after_id is the first page; a null limit is all that follows.
SELECT *
FROM selected
WHERE TRUE
    AND ($after_id IS NULL OR (at_us, source_order, platform_order, message_id, revision)
        > ($after_us, $after_source, $after_platform, $after_id, $after_revision))
ORDER BY timestamp, source_sequence NULLS FIRST, platform_sequence NULLS FIRST, message_id, revision
LIMIT $limit
