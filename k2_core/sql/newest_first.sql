-- One page against the total order. A null after_id is the first page.
SELECT *
FROM selected
WHERE $after_id IS NULL
    OR (at_us, source_order, platform_order, message_id) < ($after_us, $after_source, $after_platform, $after_id)
ORDER BY timestamp DESC, source_order DESC, platform_order DESC, message_id DESC
LIMIT $limit
