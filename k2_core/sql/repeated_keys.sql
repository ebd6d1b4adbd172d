-- Keys stored more than once, most copies first. Grain: one key. Parameters: $files, paths of data files; $part of
-- $parts, the share of the keys to compare, so that memory is bounded.
SELECT
    message_id,
    revision,
    count(*) AS copies
FROM read_parquet($files, union_by_name = true)
WHERE hash(message_id) % $parts = $part
GROUP BY message_id, revision
HAVING count(*) > 1
ORDER BY copies DESC, message_id, revision
LIMIT 100
