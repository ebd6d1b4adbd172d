-- Keys whose revisions are not 0, 1, 2 and so on. Grain: one key. Parameters: $files.
-- A key with none but revision 0 is left out before anything is grouped: almost all are.
SELECT
    message_id,
    min(revision) AS first,
    max(revision) AS last,
    count(DISTINCT revision) AS revisions
FROM read_parquet($files, union_by_name = true)
WHERE message_id IN (SELECT message_id FROM read_parquet($files, union_by_name = true) WHERE revision <> 0)
GROUP BY message_id
HAVING min(revision) <> 0 OR max(revision) + 1 <> count(DISTINCT revision)
ORDER BY message_id
LIMIT 100
